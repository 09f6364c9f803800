"""The scope stack: random histories against the models of `stack_models.py`, and the cases that decide its rules."""

import asyncio
import contextlib
import contextvars
import gc
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import kastor
from kastor._native import _stack
from support import lost_scopes_end
from stack_models import bytes_per_level, deep, generator, path, tele, unfinished

MODELS = pathlib.Path(__file__).with_name("stack_models.py")
OPERATIONS = 1_000_000 if os.environ.get("KASTOR_DEEP") == "1" else 15_000


def in_context(test):
    """Runs a test in a context of its own."""

    def run():
        contextvars.Context().run(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.mark.parametrize("kind", ["histories", "programs"])
def test_random_histories_agree_with_the_models(kind):
    """In a process of its own: it uses up the paths that a process keeps apart."""
    for seed in (1, 2, 3):
        subprocess.run([sys.executable, str(MODELS), kind, str(OPERATIONS), str(seed)], check=True, timeout=3600)


@in_context
def test_a_copy_taken_after_leaving_does_not_see_the_scope():
    with tele("a"):
        pass
    assert contextvars.copy_context().run(path) == []


@in_context
def test_a_copy_taken_inside_keeps_it():
    with tele("a"):
        inside = contextvars.copy_context()
    assert inside.run(path) == ["a"] and path() == []
    assert inside.run(contextvars.copy_context).run(path) == ["a"]


@in_context
def test_out_of_order_it_is_gone_here_and_kept_in_earlier_copies():
    a, b, c = tele("a"), tele("b"), tele("c")
    for scope in (a, b, c):
        scope.__enter__()
    before = contextvars.copy_context()
    a.__exit__(None, None, None)
    after = contextvars.copy_context()
    c.__exit__(None, None, None)
    assert path() == ["b"] and before.run(path) == ["a", "b", "c"] and after.run(path) == ["b", "c"]
    b.__exit__(None, None, None)
    assert path() == [] and after.run(path) == ["b", "c"]


@in_context
def test_below_64_others_it_is_pulled_out_and_below_65_it_is_over():
    for others, kept in ((64, 1), (65, 0)):
        scopes = [tele("x") for _ in range(others + 1)]
        for scope in scopes:
            scope.__enter__()
        copy = contextvars.copy_context()
        scopes[0].__exit__(None, None, None)
        assert len(path()) == others and len(copy.run(path)) == others + kept
        for scope in scopes[:0:-1]:
            scope.__exit__(None, None, None)
        assert path() == []


@in_context
def test_a_generator_left_elsewhere_ends_for_everybody():
    made = generator("g")
    next(made)
    inherited = contextvars.copy_context()
    inherited.run(made.close)
    assert path() == [] and inherited.run(path) == [] and contextvars.copy_context().run(path) == []


@in_context
def test_a_generator_opened_in_a_copy_and_closed_outside():
    made, copy = generator("g"), contextvars.copy_context()
    copy.run(next, made)
    made.close()
    assert path() == [] and copy.run(path) == []


@in_context
def test_an_abandoned_async_generator_leaves_no_ghost():
    async def yields_once():
        with tele("agen"):
            yield

    async def main():
        async for _ in yields_once():
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert path() == []
        assert await asyncio.create_task(asyncio.sleep(0, path())) == []

    asyncio.run(main())


@in_context
def test_a_scope_is_entered_again_after_it_was_left_and_not_before():
    copy, scope = contextvars.copy_context(), tele("s", key=1)
    for _ in range(2):
        copy.run(scope.__enter__)
        assert copy.run(path) == ["s"] and path() == []
        try:
            scope.__enter__()
        except RuntimeError:
            pass
        else:
            raise AssertionError("an open scope was entered")
        copy.run(scope.__exit__, None, None, None)
        assert copy.run(path) == []
    scope.__exit__(None, None, None)


@in_context
def test_entering_again_leaves_the_paths_of_open_children_alone():
    a, b = tele("a"), tele("b")
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    a.__enter__()
    assert _stack() == [("b", 1), ("a", 2)]
    b.__exit__(None, None, None)
    assert path() == ["a"]
    a.__exit__(None, None, None)
    assert path() == []


@in_context
def test_exit_stack_and_throw():
    with contextlib.ExitStack() as stack:
        for name in "abc":
            stack.enter_context(tele(name))
        assert path() == ["a", "b", "c"]
    assert path() == []
    made = generator("g")
    next(made)
    try:
        made.throw(ZeroDivisionError("mine"))
    except ZeroDivisionError as error:
        assert error.args == ("mine",)
    assert path() == []


@lost_scopes_end
@in_context
def test_a_lost_scope_ends_when_it_is_innermost():
    before, outer = unfinished(), tele("outer")
    outer.__enter__()
    tele("lost").__enter__()
    assert path() == ["outer"] and unfinished() == before + 1
    outer.__exit__(None, None, None)
    assert path() == []


@lost_scopes_end
@in_context
def test_a_cycle_through_keyword_arguments_is_collected():
    class Thing:
        pass

    thing = Thing()
    thing.scope = tele("x", thing=thing)
    context = contextvars.Context()
    context.run(thing.scope.__enter__)
    thing.context, died, before = context, weakref.ref(thing), unfinished()
    del thing, context
    gc.collect()
    assert died() is None and unfinished() == before + 1


def test_interrupts_leave_no_scope_behind():
    def handler(*_):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        print("SKIPPED: interrupts need the main thread and interval timers")
        return
    old, caught, deadline = signal.signal(signal.SIGALRM, handler), 0, time.monotonic() + 20
    rng = random.Random(1)
    # A handler that runs inside the collector's callbacks, as Hypothesis has some, cannot raise: no collection meanwhile,
    # and a second interrupt should the first be lost all the same.
    gc.disable()
    try:
        while caught < 300 and time.monotonic() < deadline:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-5, 2e-4), 0.5)
                while True:
                    with tele("a"):
                        with tele("b", k=1):
                            pass
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                caught += 1
            assert path() == [], path()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gc.enable()
    assert caught > 0


def test_a_hundred_thousand_levels_are_left_in_any_order():
    assert len(deep(100_000)) == 4


def test_a_level_takes_96_bytes_and_120_with_two_keyword_arguments():
    if sys.version_info < (3, 14):
        assert bytes_per_level(lambda: tele("m")) <= 96
        assert bytes_per_level(lambda: tele("m", a=1, b=2)) <= 120


@lost_scopes_end
def test_references_stay_level():
    """A leak of one object or one reference a round shows at once."""

    class Value:
        alive = 0

        def __init__(self):
            Value.alive += 1

        def __del__(self):
            Value.alive -= 1

    class Reporter:
        def record_timing(self, scope, duration, **metadata):
            pass

        def record_metric(self, scope, value, **metadata):
            pass

    reported = kastor.enable(Reporter(), kastor.SimpleReporter(max_entries_per_scope=1))
    name, key = "".join(["leak", ".check"]), "some_key"

    def one_round(context):
        value = Value()
        with context(name, value=value, **{key: value}) as inside:
            inside.set(late=value)
            inside.event("moment", value=value)
            context.count(name, 2, label="x")
            context.gauge(name, 2.5, some_key=1)
            context.metric(name, value, value_of=value)
            copied = contextvars.copy_context()
        copied.run(path)
        scope = context(name, value=value)
        for _ in range(2):
            with scope:
                pass
        with contextlib.suppress(KeyError), context(name, value=value):
            raise KeyError
        outer, inner = context(name, value=value), context(name)
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        context(name, value=value).__enter__()
        path()

    def referenced():
        return [sys.getrefcount(thing) for thing in (name, key, None, tele, reported, type(tele(name)))]

    for context in (tele, reported):
        for _ in range(300):
            one_round(context)
        gc.collect()
        # The bounded tables fill up at first; a leak grows in every window.
        grown = []
        for _ in range(4):
            before, blocks = referenced(), sys.getallocatedblocks()
            for _ in range(2000):
                one_round(context)
            gc.collect()
            assert Value.alive == 0
            references = [abs(after - known) for after, known in zip(referenced(), before)]
            grown.append((max(references), sys.getallocatedblocks() - blocks))
        assert any(references < 500 and blocks < 500 for references, blocks in grown), grown
