"""A program as users write it: mypy --strict and pyright have nothing to say of it."""

import asyncio
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kastor
from kastor import TelemetryReporter
from kastor.compat import TelemetryContextProtocol
from kastor.testing import RecordingReporter


class Mine:
    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None:
        print(scope, duration)

    def record_metric(self, scope: str, value: Any, **metadata: Any) -> None:
        print(scope, value)


reporter: TelemetryReporter = Mine()
recording = RecordingReporter()
tele = kastor.enable(reporter, recording, kastor.SimpleReporter(), strict=True, interval=1.0, sample=0.1, overhead_budget=0.01)


@tele("add")
def add(a: int, b: int = 2) -> int:
    return a + b


@tele("wait")
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@tele("numbers")
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@tele("later")
async def later(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def main() -> int:
    text: str = await wait(0.1)
    total = add(1, b=len(text)) + sum(numbers(3))
    async for number in later(2):
        total += number
    return total


with tele("scope", rows=3) as context:
    context.count("items", 3, shop="north")
    context.count("items", increment=3)
    context.gauge("ratio", 0.5)
    context.histogram("bytes", 12)
    context.metric("decision", object(), rule=4)
    context.set(late=1)
    context.fail(ValueError)

maybe = kastor.TelemetryContext(reporter)
if maybe.is_enabled:
    maybe.count("enabled")
with maybe("either"):
    pass


def annotated(tele: TelemetryContextProtocol) -> None:
    with tele("annotated"):
        tele.count("n")


annotated(tele)
annotated(maybe)
header: str | None = kastor.current_traceparent()
with tele.attach(header):
    carried = kastor.carry(add)
    five: int = carried(2, 3)
complete: bool = tele.flush(1).is_complete
rows: list[dict[str, Any]] = tele.report().as_dict()["scopes"]
calls: int = recording.calls("scope")

exporting = kastor.enable(
    kastor.Capture(pathlib.Path("captures"), max_files=2, zstd=1),
    kastor.Otlp("http://localhost:4318", headers={"x-key": "1"}, timeout=2, redact_keys=["iban"]),
    kastor.JsonLines("events.jsonl", resource={"zone": "b"}),
    kastor.Perfetto("trace.perfetto-trace", ids=True),
    kastor.Chrome("trace.json"),
    kastor.Folded("stacks.folded", unit="us"),
    kastor.Statsd("127.0.0.1:8125", tags={"service": "shop"}),
)
with kastor.enable(endpoint := kastor.Prometheus(bearer_token="open"))("served"):
    address: str = endpoint.address
text: str = kastor.prometheus_text(exporting)
