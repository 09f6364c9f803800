"""Loops that must stay flat: references, objects, traced memory, resident memory, interned names."""

import contextvars
import gc
import os
import sys
import threading
import time
import tracemalloc
import weakref

import pytest

import kastor
from support import Recorder

ROUNDS = 2000


class Empty:
    def record_timing(self, scope, duration, **metadata): ...

    def record_metric(self, scope, value, **metadata): ...


def scopes(tele):
    with tele("a", k=1, label="text"):
        with tele("b"):
            pass


def fresh_metadata(tele):
    with tele("a", item=object(), items=[1, 2], text="x" * 100):
        pass


def fresh_names(tele):
    fresh_names.number = getattr(fresh_names, "number", 0) + 1
    with tele("dyn" + "amic"[: fresh_names.number % 5]):
        pass


def from_mapping(tele):
    with tele("a", **{"k1": 1, "k2": object()}):
        pass


def raising(tele):
    try:
        with tele("a", k=object()):
            raise KeyError(object())
    except KeyError:
        pass


def bad_names(tele):
    for name in ("", None):
        try:
            with tele(name, k=object()):
                pass
        except ValueError:
            pass


def entered_while_open(tele):
    scope = tele("a", k=object())
    with scope:
        try:
            scope.__enter__()
        except RuntimeError:
            pass


def entered_again(tele):
    scope = tele("a", k=object())
    for _ in range(3):
        with scope:
            pass


def out_of_order(tele):
    one, two = tele("a", k=object()), tele("b")
    one.__enter__(), two.__enter__()
    one.__exit__(None, None, None), two.__exit__(None, None, None)


def never_entered(tele):
    tele("a", k=object(), l=[object()])


def leaked(tele):
    with tele("outer"):
        tele("leaked", k=object()).__enter__()


def metrics(tele):
    tele.metric("m", object(), k=object())
    tele.count("c", 2, k="x")
    tele.gauge("g", 1.5)
    tele.histogram("h", 3, label=True)


def bad_metrics(tele):
    for method in (tele.count, tele.metric):
        for arguments in ((None, 1), ("",), ()):
            try:
                method(*arguments, k=object())
            except (ValueError, TypeError):
                pass


def collisions(tele):
    with tele("a", scope=object(), name=object(), depth=object()):
        tele.count("c", value=object(), metric_type=object())


def decorated(tele):
    @tele("f", k=object())
    def function(x):
        return x

    @tele("g")
    def generator():
        yield object()
        yield object()

    function(object())
    next(generator())
    list(generator())


def bound_methods(tele):
    enter, leave = tele("a").__enter__, tele("b").__exit__
    tele.count, tele.metric, tele.is_enabled
    del enter, leave


def carried(tele):
    with tele("a"):
        job = kastor.carry(lambda: None)
    job()
    with tele.attach("00-" + "a" * 32 + "-" + "b" * 16 + "-01"):
        kastor.current_traceparent()


def copied_contexts(tele):
    scope = tele("a", k=object())
    scope.__enter__()
    copy = contextvars.copy_context()
    scope.__exit__(None, None, None)
    copy.run(scope.__enter__)
    contextvars.Context().run(scope.__exit__, None, None, None)


def reports(tele):
    str(tele.report()), tele.stats(), tele.open_scopes()


def new_contexts(tele):
    made = kastor.enable(Empty())
    with made("a"):
        made.count("c")


ACTIONS = [
    scopes, fresh_metadata, fresh_names, from_mapping, raising, bad_names, entered_while_open, entered_again, out_of_order,
    never_entered, leaked, metrics, bad_metrics, collisions, decorated, bound_methods, carried, copied_contexts, reports,
    new_contexts,
]  # fmt: skip
CONTEXTS = {
    "disabled": lambda: kastor.TelemetryContext(),
    "aggregates": lambda: kastor.enable(),
    "python": lambda: kastor.enable(Empty()),
    "recording": lambda: kastor.enable(kastor.Recording(max_bytes=1 << 16)),
}


def grown_bytes(loop, rounds):
    """Bytes that Python's allocators hold after so many rounds, above those before."""
    tracemalloc.start()
    try:
        loop(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        loop(rounds)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
@pytest.mark.parametrize("kind", CONTEXTS)
def test_memory_and_references_stay_flat(kind, action):
    tele = CONTEXTS[kind]()
    if action is leaked and kastor._native._FREE_THREADED:
        pytest.skip("without the GIL a lost scope stays open for its context")
    if not tele.is_enabled and action in (leaked, entered_while_open, carried, reports, new_contexts, decorated):
        pytest.skip("nothing of the disabled context is touched by this")
    rounds = 50 if action in (reports, new_contexts) else ROUNDS

    def loop(n):
        for _ in range(n):
            action(tele)

    loop(rounds // 2)
    total = getattr(sys, "gettotalrefcount", None)
    gc.collect()
    before_objects = len(gc.get_objects())
    before_references = total() if total else 0
    # What leaks grows each time; what a bounded cache keeps, or another test left behind, does not.
    at_most = max(rounds * 8, 2048)
    grown = [grown_bytes(loop, rounds)]
    while grown[-1] >= at_most and len(grown) < 3:
        grown.append(grown_bytes(loop, rounds))
    assert grown[-1] < at_most, f"{grown} bytes in {rounds} rounds each"
    assert len(gc.get_objects()) - before_objects < 100
    if total:
        assert total() - before_references < rounds


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads resident memory as Linux has it")
def test_resident_memory_stays_flat():
    """What tracemalloc cannot see: the native allocations."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    tele = kastor.enable(Empty(), kastor.Recording(max_bytes=1 << 20), kastor.SimpleReporter(max_entries_per_scope=10))

    def loop(n):
        for i in range(n):
            for action in (scopes, fresh_metadata, raising, out_of_order, metrics, collisions, decorated):
                action(tele)

    loop(3000)
    gc.collect()
    before = resident()
    loop(10_000)
    gc.collect()
    assert resident() - before < 4 << 20


def test_a_scope_and_its_metadata_die_with_their_last_reference(tele):
    class Thing:
        pass

    thing = Thing()
    died = weakref.ref(thing)
    scope = tele("a", thing=thing)
    with scope:
        pass
    del thing, scope
    gc.collect()
    # A recorder keeps the metadata that it got.
    assert died() is not None
    other = Thing()
    died = weakref.ref(other)
    with kastor.enable(Empty())("a", thing=other):
        pass
    del other
    gc.collect()
    assert died() is None


def test_a_context_and_its_reporters_die(recorder):
    reporter = Recorder()
    died = weakref.ref(reporter)
    tele = kastor.enable(reporter)
    with tele("a"):
        pass
    del tele, reporter
    gc.collect()
    assert died() is None


def test_a_reporter_that_holds_its_context_is_collected():
    reporter = Recorder()
    died = weakref.ref(reporter)
    reporter.tele = kastor.enable(reporter)
    with reporter.tele("a"):
        pass
    del reporter
    gc.collect()
    assert died() is None


def test_an_exception_is_not_kept_alive(tele):
    class Mine(Exception):
        pass

    def fails():
        error = Mine()
        with tele("a"):
            raise error

    try:
        fails()
    except Mine as error:
        died = weakref.ref(error)
    gc.collect()
    assert died() is None


def test_many_short_threads_leave_memory_flat():
    tele = kastor.enable()

    def work():
        with tele("a"):
            tele.count("c")

    def loop(n):
        for _ in range(n):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    loop(300)
    before = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
    tracemalloc.start()
    try:
        loop(10)
        traced = tracemalloc.get_traced_memory()[0]
        loop(1000)
        assert tracemalloc.get_traced_memory()[0] - traced < 64 << 10
    finally:
        tracemalloc.stop()
    # A thread that was joined is in the list until the kernel has taken it out, and kastor's collector comes and goes.
    deadline = time.monotonic() + 10
    while before and len(os.listdir("/proc/self/task")) > before + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not before or len(os.listdir("/proc/self/task")) <= before + 1
