"""Each defect of the original that the specification lists, shown to be absent."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import threading
import time
import tracemalloc

import pytest

import kastor
from kastor import compat
from support import Recorder, current_path, quiet


@pytest.fixture
def simple():
    return compat._SimpleReporter()


@pytest.mark.parametrize("leaf_first", [True, False])
def test_children_of_a_recorded_scope_are_in_the_report(simple, leaf_first, capsys):
    tele = compat._EnabledTelemetryContext(simple)

    def leaf():
        with tele("parent"):
            pass

    def nested():
        with tele("parent"), tele("child"):
            pass

    for act in (leaf, nested) if leaf_first else (nested, leaf):
        act()
    simple.print_report()
    report = capsys.readouterr().out
    rows = {line.split("|")[0].strip().rstrip(":"): line for line in report.splitlines() if "|" in line}
    assert "Calls: 2 " in rows["parent"] and "Calls: 1 " in rows["child"], report


@pytest.mark.parametrize("how", ["close", "throw", "collect"])
def test_ending_a_generator_in_another_context_raises_nothing_and_replaces_nothing(tele, recorder, how, caplog):
    def items():
        with tele("g"):
            yield 1

    g = items()
    next(g)
    error = KeyError("mine")
    if how == "close":
        contextvars.copy_context().run(g.close)
    elif how == "throw":
        with pytest.raises(KeyError) as caught:
            contextvars.copy_context().run(g.throw, error)
        assert caught.value is error
    else:
        holder = [g]
        del g
        contextvars.copy_context().run(holder.clear)
        gc.collect()
    assert recorder.scopes == ["g"] and current_path(tele, recorder) is None and caplog.records == []


def test_ending_an_async_generator_in_another_task_raises_nothing(tele, recorder, caplog):
    async def items():
        with tele("g"):
            yield 1

    async def main():
        g = items()
        await g.__anext__()
        await asyncio.create_task(g.aclose())

    asyncio.run(main())
    assert recorder.scopes == ["g"] and current_path(tele, recorder) is None and caplog.records == []


def test_out_of_order_exits_leave_no_ghost_scopes(tele, recorder):
    outer, inner = tele("outer"), tele("inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    with tele("clean"):
        pass
    assert recorder.tree[-1] == ("clean", None)


@pytest.mark.parametrize("key", ["scope", "duration", "self", "name"])
def test_user_keys_do_not_lose_the_event(tele, recorder, key, caplog):
    with tele("a", **{key: 1}):
        pass
    assert recorder.only().metadata[f"{key}_"] == 1 and caplog.records == []


@pytest.mark.parametrize("method", ["count", "gauge"])
def test_metric_type_raises_neither_enabled_nor_disabled(tele, recorder, method):
    for context in (tele, kastor.TelemetryContext()):
        getattr(context, method)("m", 1, metric_type="mine")
    assert recorder.only().metadata["metric_type"] == "mine"


def test_a_failing_reporter_does_not_log_a_traceback_per_event(caplog):
    class Failing:
        def record_timing(self, *_, **__):
            raise ValueError

    tele = kastor.enable(Failing())
    with caplog.at_level(logging.DEBUG):
        for _ in range(5000):
            with tele("a"):
                pass
    assert len(caplog.records) < 50


def test_a_keyboard_interrupt_in_one_reporter_does_not_skip_the_others(recorder):
    class Interrupted:
        def record_timing(self, *_, **__):
            raise KeyboardInterrupt

    tele = kastor.enable(Interrupted(), recorder)
    with pytest.raises(KeyboardInterrupt):
        with tele("a"):
            pass
    assert recorder.scopes == ["a"]


def seconds_to_nest(tele, levels):
    best = float("inf")
    for _ in range(5):
        scopes = [tele("level") for _ in range(levels)]
        # The thread's own time: another process that runs meanwhile is not meant.
        start = time.thread_time()
        for scope in scopes:
            scope.__enter__()
        best = min(best, time.thread_time() - start)
        for scope in reversed(scopes):
            scope.__exit__(None, None, None)
    return best


def test_entry_does_not_cost_the_square_of_the_depth():
    tele = kastor.enable()
    short, long = seconds_to_nest(tele, 2_000), seconds_to_nest(tele, 32_000)
    assert long / short < 16 * 6, (short, long)


def test_a_level_does_not_cost_kilobytes():
    """The native memory is not traced here: `python/benches` weighs the process, level by level."""
    tele = kastor.enable()
    scopes = [tele("level") for _ in range(4000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for scope in scopes:
            scope.__enter__()
        per_level = (tracemalloc.get_traced_memory()[0] - before) / len(scopes)
    finally:
        tracemalloc.stop()
        for scope in reversed(scopes):
            scope.__exit__(None, None, None)
    assert per_level < 200


def test_a_failed_scope_has_an_error_status(tele, recorder):
    with contextlib.suppress(ValueError):
        with tele("a"):
            raise ValueError
    assert recorder.only().metadata["error_type"] == "ValueError"


def test_reports_do_not_race_with_writers(simple):
    tele, stop, errors = compat._EnabledTelemetryContext(simple), threading.Event(), []

    def write(n):
        i = 0
        while not stop.is_set():
            with tele(f"scope{n}.{i % 50}"):
                tele.count("items")
            i += 1

    def read():
        while not stop.is_set():
            try:
                simple.get_report()
                simple.as_dict()
                tele.report()
                simple.reset()
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)] + [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_totals_do_not_forget_evicted_entries():
    simple = compat._SimpleReporter(max_entries_per_scope=3)
    tele = compat._EnabledTelemetryContext(simple)
    for _ in range(100):
        with tele("a"):
            tele.count("items", 2)
    kept = simple.as_dict()
    assert len(kept["timings"]["a"]) == 3 and len(kept["metrics"]["a.items"]) == 3
    report = simple.get_report()
    assert "Calls: 100" in report and "Total: 200" in report


def test_the_number_of_scopes_is_bounded():
    """In a process of its own, whose table of names it fills."""
    quiet(
        """
        import kastor
        simple = kastor.SimpleReporter()
        for i in range(200_000):
            simple.record_metric(f"scope.number.{i}", 1)
        kept = simple.as_dict()["metrics"]
        assert len(kept) < 200_000
        assert len(simple.get_report()) < 50_000_000
        """
    )


def test_the_environment_is_read_when_the_factory_is_called(monkeypatch):
    assert not compat.TelemetryContext(Recorder()).is_enabled
    monkeypatch.setenv("POLLUX_TELEMETRY", "1")
    assert compat.TelemetryContext(Recorder()).is_enabled
