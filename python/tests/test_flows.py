"""The stack follows the logical flow: threads, tasks, contexts, executors, generators closed by anyone."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import re
import sys
import threading

import pytest

import kastor
from support import current_path, run


threads_start_empty = pytest.mark.skipif(
    getattr(sys.flags, "thread_inherit_context", 0), reason="new threads inherit the context here: -X thread_inherit_context"
)


def in_thread(function, *arguments):
    result = []

    def body():
        try:
            result.append((True, function(*arguments)))
        except BaseException as error:
            result.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    well, value = result[0]
    if not well:
        raise value
    return value


@threads_start_empty
def test_a_new_thread_starts_empty(tele, recorder):
    with tele("outer"):
        assert in_thread(current_path, tele, recorder) is None
        with tele("inner"):
            pass
    assert recorder.scopes == ["outer.inner", "outer"]


def test_threads_do_not_mix(tele, recorder):
    barrier = threading.Barrier(8)

    def work(name):
        barrier.wait(30)
        for _ in range(100):
            with tele(name):
                with tele("inner"):
                    pass

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    want = {(f"t{i}", None) for i in range(8)} | {(f"t{i}.inner", f"t{i}") for i in range(8)}
    assert set(recorder.tree) == want and len(recorder.timings) == 1600


def test_carry_takes_the_current_scope_to_another_thread(tele, recorder):
    with tele("outer"):
        job = kastor.carry(lambda x, *, y: (current_path(tele, recorder), x, y))
    assert in_thread(lambda: job(1, y=2)) == ("outer", 1, 2)
    assert in_thread(current_path, tele, recorder) is None


@threads_start_empty
def test_carry_serves_a_pool_that_keeps_its_threads(tele, recorder):
    def work():
        with tele("work"):
            pass
        return threading.get_ident()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with tele("outer"):
            carried = pool.submit(kastor.carry(work)).result(30)
            alone = pool.submit(work).result(30)
        with tele("other"):
            pool.submit(kastor.carry(work)).result(30)
    assert carried == alone
    assert recorder.tree == [
        ("outer.work", "outer"), ("work", None), ("outer", None), ("other.work", "other"), ("other", None),
    ]  # fmt: skip


def test_a_carried_function_can_be_called_many_times_at_once(tele, recorder):
    with tele("outer"):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:

            @kastor.carry
            def work(i):
                with tele("work"):
                    return i

            assert list(pool.map(work, range(200))) == list(range(200))
    assert recorder.tree.count(("outer.work", "outer")) == 200


def test_a_carried_coroutine_function_runs_under_the_scope(tele, recorder):
    async def work():
        with tele("work"):
            await asyncio.sleep(0)

    with tele("outer"):
        carried = kastor.carry(work)

    async def main():
        await asyncio.gather(carried(), carried())
        with tele("after"):
            pass

    run(main())
    assert recorder.tree[1:] == [("outer.work", "outer"), ("outer.work", "outer"), ("after", None)]


def test_a_carried_function_passes_its_exception(tele):
    @kastor.carry
    def work():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        in_thread(work)


def test_a_task_inherits_a_snapshot_and_leaks_nothing_back(tele, recorder):
    async def child():
        assert current_path(tele, recorder) == "main"
        with tele("child"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def main():
        with tele("main"):
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            assert current_path(tele, recorder) == "main"
            await task
        assert current_path(tele, recorder) is None

    run(main())
    assert recorder.tree == [("main.child", "main"), ("main", None)]


def test_a_task_outlives_its_parent(tele, recorder):
    async def child():
        await asyncio.sleep(0.01)
        with tele("late"):
            pass

    async def main():
        with tele("main"):
            task = asyncio.create_task(child())
        await task

    run(main())
    assert recorder.tree == [("main", None), ("main.late", "main")]


def test_a_task_made_after_a_scope_was_left_is_not_below_it(tele, recorder):
    async def child():
        with tele("child"):
            pass

    async def main():
        with tele("before"):
            pass
        await asyncio.create_task(child())

    run(main())
    assert recorder.tree == [("before", None), ("child", None)]


def test_a_task_group(tele, recorder):
    async def job(i):
        with tele("job", i=i):
            await asyncio.sleep(0)

    async def main():
        with tele("batch"):
            async with asyncio.TaskGroup() as group:
                for i in range(20):
                    group.create_task(job(i))

    run(main())
    assert recorder.tree == [("batch.job", "batch")] * 20 + [("batch", None)]
    assert sorted(e.metadata["i"] for e in recorder.timings[:-1]) == list(range(20))


def test_a_task_group_with_a_failing_task(tele, recorder):
    async def job(fails):
        with tele("fails" if fails else "waits"):
            await asyncio.sleep(0 if fails else 60)
            raise KeyError("mine")

    async def main():
        with tele("batch"):
            async with asyncio.TaskGroup() as group:
                group.create_task(job(False))
                group.create_task(job(True))

    with pytest.raises(ExceptionGroup):
        run(main())
    assert {e.scope: e.metadata.get("error_type") for e in recorder.timings} == {
        "batch.fails": "KeyError",
        "batch.waits": "cancelled",
        "batch": "ExceptionGroup",
    }


def test_cancellation_is_cancelled_at_every_level_and_passes_through(tele, recorder):
    async def job():
        with tele("a"), tele("b"):
            await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        task.cancel("why")
        try:
            await task
        except asyncio.CancelledError as error:
            assert error.args in (("why",), ())
            return True

    assert run(main())
    assert [e.metadata["error_type"] for e in recorder.timings] == ["cancelled", "cancelled"]


def test_trio_s_cancellation_is_cancelled_too(tele, recorder):
    class Cancelled(BaseException):
        __module__, __qualname__ = "trio", "Cancelled"

    with pytest.raises(Cancelled), tele("a"):
        raise Cancelled
    assert recorder.timings[0].metadata["error_type"] == "cancelled"


def test_a_timeout_is_cancelled_inside_and_a_timeout_error_outside(tele, recorder):
    async def main():
        with pytest.raises(TimeoutError):
            with tele("outside"):
                async with asyncio.timeout(0.005):
                    with tele("inside"):
                        await asyncio.sleep(60)

    run(main())
    assert [e.metadata["error_type"] for e in recorder.timings] == ["cancelled", "TimeoutError"]


def test_copy_context_keeps_what_was_open_and_not_what_was_left(tele, recorder):
    here = lambda: current_path(tele, recorder)  # noqa: E731
    with tele("a"):
        inside = contextvars.copy_context()
    after = contextvars.copy_context()
    assert inside.run(here) == "a" and after.run(here) is None and here() is None
    assert inside.run(contextvars.copy_context).run(here) == "a"


def test_scopes_opened_inside_a_copied_context_stay_there(tele, recorder):
    copy = contextvars.copy_context()
    scope = tele("a")
    copy.run(scope.__enter__)
    assert current_path(tele, recorder) is None and copy.run(current_path, tele, recorder) == "a"
    copy.run(scope.__exit__, None, None, None)
    assert copy.run(current_path, tele, recorder) is None


def test_a_scope_entered_again_does_not_change_what_an_earlier_copy_inherited(tele, recorder):
    scope = tele("again")
    with tele("first"), scope:
        copy = contextvars.copy_context()
    with tele("second"), scope:
        assert current_path(tele, recorder) == "second.again"
        assert copy.run(current_path, tele, recorder) == "first.again"
    assert copy.run(current_path, tele, recorder) == "first.again"


def test_a_scope_that_was_left_elsewhere_and_entered_again_counts_only_where_it_was_entered(tele, recorder):
    scope = tele("again")
    scope.__enter__()
    copy = contextvars.copy_context()
    copy.run(scope.__exit__, None, None, None)
    with scope:
        assert current_path(tele, recorder) == "again"
        assert copy.run(current_path, tele, recorder) is None
    assert current_path(tele, recorder) is None and recorder.scopes == ["again", "again"]


def test_an_empty_context_starts_empty(tele, recorder):
    with tele("a"):
        assert contextvars.Context().run(current_path, tele, recorder) is None


def test_a_context_entered_again_on_another_thread_has_its_stack_as_it_was_left(tele, recorder):
    context, scope = contextvars.Context(), tele("a")
    context.run(scope.__enter__)
    assert in_thread(context.run, current_path, tele, recorder) == "a"
    in_thread(context.run, scope.__exit__, None, None, None)
    assert context.run(current_path, tele, recorder) is None
    assert recorder.scopes == ["a"]


def test_to_thread_inherits_and_leaks_nothing_back(tele, recorder):
    def work():
        with tele("work"):
            assert current_path(tele, recorder) == "main.work"

    async def main():
        with tele("main"):
            await asyncio.to_thread(work)
            assert current_path(tele, recorder) == "main"

    run(main())
    assert recorder.tree == [("main.work", "main"), ("main", None)]


@threads_start_empty
def test_run_in_executor_starts_empty_and_carry_fills_it(tele, recorder):
    async def main():
        loop = asyncio.get_running_loop()
        with tele("main"):
            assert await loop.run_in_executor(None, current_path, tele, recorder) is None
            assert await loop.run_in_executor(None, kastor.carry(lambda: current_path(tele, recorder))) == "main"

    run(main())


def test_call_soon_and_call_later_see_the_scope_that_was_current_when_they_were_called(tele, recorder):
    async def main():
        loop, seen = asyncio.get_running_loop(), []
        with tele("main"):
            loop.call_soon(lambda: seen.append(current_path(tele, recorder)))
            loop.call_later(0.001, lambda: seen.append(current_path(tele, recorder)))
        loop.call_soon(lambda: seen.append(current_path(tele, recorder)))
        await asyncio.sleep(0.02)
        return seen

    assert run(main()) == ["main", None, "main"]


def test_gather_with_scopes_across_awaits(tele, recorder):
    async def job(name):
        with tele(name):
            for _ in range(5):
                with tele("step"):
                    await asyncio.sleep(0)

    async def main():
        with tele("main"):
            await asyncio.gather(*(job(f"j{i}") for i in range(10)))

    run(main())
    want = {("main", None)}
    for i in range(10):
        want |= {(f"main.j{i}", "main"), (f"main.j{i}.step", f"main.j{i}")}
    assert set(recorder.tree) == want and len(recorder.timings) == 61


def items(tele, seen=None):
    try:
        with tele("g"):
            yield 1
            yield 2
    except BaseException as error:
        if seen is not None:
            seen.append(type(error))
        raise


def test_a_generator_closed_in_another_context(tele, recorder):
    g = items(tele)
    next(g)
    contextvars.copy_context().run(g.close)
    assert current_path(tele, recorder) is None and recorder.scopes == ["g"]


def test_a_generator_advanced_in_a_copy_and_closed_outside(tele, recorder):
    g, copy = items(tele), contextvars.copy_context()
    copy.run(next, g)
    with tele("outer"):
        g.close()
        assert current_path(tele, recorder) == "outer"
    assert copy.run(current_path, tele, recorder) is None


def test_a_generator_closed_on_another_thread(tele, recorder):
    g = items(tele)
    next(g)
    in_thread(g.close)
    assert current_path(tele, recorder) is None and recorder.scopes == ["g"]


def test_a_generator_freed_by_the_collector_on_another_thread(tele, recorder):
    def leave():
        g = items(tele)
        next(g)
        cycle = [g]
        cycle.append(cycle)

    leave()
    in_thread(gc.collect)
    assert current_path(tele, recorder) is None


def test_an_error_thrown_into_a_generator_in_another_context_is_not_replaced(tele, recorder):
    seen, error = [], ZeroDivisionError("mine")
    g = items(tele, seen)
    next(g)
    with pytest.raises(ZeroDivisionError) as caught:
        contextvars.copy_context().run(g.throw, error)
    assert caught.value is error and error.__context__ is None and seen == [ZeroDivisionError]
    assert recorder.only().metadata["error_type"] == "ZeroDivisionError"
    assert current_path(tele, recorder) is None


def test_an_abandoned_async_generator_is_closed_by_the_loop_without_a_word(tele, recorder):
    complaints = []

    async def agen():
        with tele("agen"):
            yield 1
            yield 2

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async for _ in agen():
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert current_path(tele, recorder) is None
        with tele("after"):
            pass

    run(main())
    assert complaints == [] and recorder.tree[-1] == ("after", None) and recorder.scopes.count("agen") == 1


def test_an_async_generator_closed_by_another_task(tele, recorder):
    async def agen():
        with tele("agen"):
            yield 1

    async def main():
        g = agen()
        await g.__anext__()
        await asyncio.create_task(g.aclose())
        assert current_path(tele, recorder) is None

    run(main())
    assert recorder.scopes == ["agen"]


def test_an_async_generator_left_open_at_the_end_of_the_loop(tele, recorder):
    kept = []

    async def agen():
        with tele("agen"):
            yield 1

    async def main():
        g = agen()
        kept.append(g)
        await g.__anext__()

    run(main())
    assert recorder.scopes == ["agen"] and current_path(tele, recorder) is None


def test_an_async_exit_stack_over_tasks(tele, recorder):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for name in "abc":
                stack.enter_context(tele(name))
                await asyncio.sleep(0)
            assert current_path(tele, recorder) == "a.b.c"

    run(main())
    assert recorder.scopes == ["a.b.c", "a.b", "a"]


def test_a_scope_opened_in_one_task_and_closed_in_another(tele, recorder):
    scope = tele("handed.over")

    async def opens():
        scope.__enter__()

    async def closes():
        scope.__exit__(None, None, None)
        assert current_path(tele, recorder) is None

    async def main():
        await asyncio.create_task(opens())
        await asyncio.create_task(closes())
        assert current_path(tele, recorder) is None

    run(main())
    assert recorder.scopes == ["handed.over"]


def test_attach_takes_a_remote_parent(tele, recorder):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with tele.attach(f"00-{trace}-{span}-01"):
        with tele("a"):
            current = kastor.current_traceparent()
    assert current.split("-")[1] == trace and current.split("-")[2] != span
    assert recorder.tree == [("a", None)]


@pytest.mark.parametrize(
    "text", ["", "garbage", "00-0-0-00", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01", "ü" * 55, None, 5, b"x"]
)
def test_a_bad_trace_parent_is_ignored_and_raises_nothing(tele, recorder, text):
    with tele.attach(text):
        with tele("a"):
            pass
    assert recorder.tree == [("a", None)]


def test_current_traceparent_is_of_the_w3c_form_and_none_outside(tele):
    assert kastor.current_traceparent() is None
    with tele("a"):
        outer = kastor.current_traceparent()
        with tele("b"):
            inner = kastor.current_traceparent()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", outer)
    assert outer.split("-")[1] == inner.split("-")[1] and outer != inner


def test_many_threads_and_tasks_at_once_lose_nothing(tele, recorder):
    async def job(i):
        with tele("job"):
            await asyncio.sleep(0)

    async def main():
        with tele("main"):
            await asyncio.gather(*(job(i) for i in range(50)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert recorder.tree.count(("main.job", "main")) == 300 and recorder.tree.count(("main", None)) == 6
