"""An asyncio pipeline over batches, with a limit on how many requests run at once.

It shows what telemetry is for in such a program: every request keeps its place below its batch although sixty of them take
turns on one thread, waiting for a slot is told apart from working, one request that fails and one that is cancelled are seen
as such, and the totals are exact.

    python batch_pipeline.py
"""

import asyncio

import kastor

LIMIT = 4
BATCHES = {"invoices": 12, "letters": 20, "photos": 28}

tele = kastor.enable()


class Unreadable(Exception):
    """What the seventh photo is."""


async def request(kind: str, number: int) -> int:
    """Stands for a call of a remote service."""
    with tele("request"):
        await asyncio.sleep(0.001 * (1 + number % 3))
        if (kind, number) == ("photos", 7):
            raise Unreadable
        tele.histogram("response_bytes", 100 * (number + 1))
        return number


async def item(kind: str, number: int, slots: asyncio.Semaphore) -> None:
    with tele("item", number=number):
        with tele("wait_for_slot"):
            await slots.acquire()
        try:
            tele.gauge("slots_left", slots._value)
            await asyncio.wait_for(request(kind, number), timeout=0.0005 if (kind, number) == ("letters", 3) else 5)
            tele.count("done")
        except (Unreadable, TimeoutError):
            tele.count("failed")
        finally:
            slots.release()


async def batch(kind: str, size: int, slots: asyncio.Semaphore) -> None:
    with tele(kind, size=size):
        async with asyncio.TaskGroup() as group:
            for number in range(size):
                group.create_task(item(kind, number, slots))


async def pipeline() -> None:
    slots = asyncio.Semaphore(LIMIT)
    with tele("pipeline"):
        async with asyncio.TaskGroup() as group:
            for kind, size in BATCHES.items():
                group.create_task(batch(kind, size, slots))


def main() -> None:
    asyncio.run(pipeline())
    report = tele.report()
    print(report)
    for kind, size in BATCHES.items():
        requests = report.scope(f"pipeline.{kind}.item.request")
        assert requests is not None
        assert requests["calls"] == size
        assert requests["errors"] == (0 if kind == "invoices" else 1)
    assert kastor.current_traceparent() is None


if __name__ == "__main__":
    main()
