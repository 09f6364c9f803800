"""The stack within one flow: order and disorder of exits, re-entry, exceptions, depth."""

import asyncio
import contextlib
import copy
import gc
import itertools
import weakref

import pytest

import kastor
from support import TIMING_KEYS, Recorder, current_path, lost_scopes_end


def opened(tele, *names):
    scopes = [tele(name) for name in names]
    for scope in scopes:
        scope.__enter__()
    return scopes


def close(scope):
    assert not scope.__exit__(None, None, None)


def test_out_of_order_exits_leave_no_ghost(tele, recorder):
    a, b, c = opened(tele, "a", "b", "c")
    close(a)
    assert current_path(tele, recorder) == "a.b.c"
    close(c)
    assert current_path(tele, recorder) == "a.b"
    close(b)
    assert current_path(tele, recorder) is None
    assert recorder.tree == [("a", None), ("a.b.c", "a.b"), ("a.b", "a")]


def test_a_path_is_fixed_when_its_scope_opens(tele, recorder):
    a, b = opened(tele, "a", "b")
    close(a)
    with tele("c"):
        pass
    close(b)
    assert [(e.scope, e.metadata["depth"]) for e in recorder.timings] == [("a", 0), ("a.b.c", 2), ("a.b", 1)]


@pytest.mark.parametrize("levels", [3, 64, 65, 66, 67, 200])
def test_first_in_first_out_at_any_depth(tele, recorder, levels):
    scopes = opened(tele, *(f"s{i}" for i in range(levels)))
    for scope in scopes:
        close(scope)
    assert current_path(tele, recorder) is None
    assert [event.metadata["depth"] for event in recorder.timings] == list(range(levels))


def test_every_order_of_four_exits(tele, recorder):
    for order in itertools.permutations(range(4)):
        scopes = opened(tele, "a", "b", "c", "d")
        open_still = [0, 1, 2, 3]
        for i in order:
            close(scopes[i])
            open_still.remove(i)
            want = ".".join("abcd"[: open_still[-1] + 1]) if open_still else None
            assert current_path(tele, recorder) == want, order


def test_a_second_exit_is_silent(tele, recorder):
    with tele("outer"):
        scope = tele("a")
        scope.__enter__()
        close(scope)
        close(scope)
        close(scope)
        assert current_path(tele, recorder) == "outer"
    assert recorder.scopes == ["outer.a", "outer"]


def test_an_exit_without_an_entry_is_silent(tele, recorder):
    with tele("outer"):
        close(tele("never"))
        assert current_path(tele, recorder) == "outer"
    assert recorder.scopes == ["outer"]


def test_entering_an_open_scope_is_a_runtime_error(tele, recorder):
    scope = tele("a")
    with scope:
        with pytest.raises(RuntimeError):
            scope.__enter__()
        assert current_path(tele, recorder) == "a"
    assert recorder.scopes == ["a"]


def test_a_closed_scope_can_be_entered_anew(tele, recorder):
    scope = tele("a", k=1)
    with scope:
        pass
    with tele("b"):
        with scope:
            pass
    assert recorder.tree == [("a", None), ("b.a", "b"), ("b", None)]
    assert [event.metadata.get("k") for event in recorder.timings] == [1, 1, None]


def test_a_failure_does_not_outlive_its_entry(tele, recorder):
    scope = tele("a")
    with contextlib.suppress(KeyError), scope:
        raise KeyError
    with scope:
        pass
    assert [event.metadata.get("error_type") for event in recorder.timings] == ["KeyError", None]


def test_scopes_work_through_the_type_as_exit_stack_uses_them(tele, recorder):
    with contextlib.ExitStack() as stack:
        for name in "abc":
            assert stack.enter_context(tele(name)) is tele
        assert current_path(tele, recorder) == "a.b.c"
    assert recorder.scopes == ["a.b.c", "a.b", "a"]
    scope = tele("d")
    assert type(scope).__enter__(scope) is tele
    type(scope).__exit__(scope, None, None, None)
    assert recorder.scopes[-1] == "d"


class Custom(Exception):
    class Nested(BaseException):
        pass


@pytest.mark.parametrize(
    "error, name",
    [
        (ValueError("x"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (StopIteration(), "StopIteration"),
        (asyncio.CancelledError(), "cancelled"),
        (ExceptionGroup("g", [ValueError()]), "ExceptionGroup"),
    ],
)
def test_an_exception_passes_through_unchanged_and_marks_the_scope_failed(tele, recorder, error, name):
    with pytest.raises(type(error)) as caught:
        with tele("a", k=1):
            raise error
    assert caught.value is error and error.__context__ is None and error.__cause__ is None
    assert recorder.only().metadata["error_type"] == name
    assert list(recorder.only().metadata) == [*TIMING_KEYS, "error_type", "k"]


@pytest.mark.parametrize("error", [Custom(), Custom.Nested()])
def test_error_type_is_the_qualified_name(tele, recorder, error):
    with pytest.raises(BaseException):
        with tele("a"):
            raise error
    assert recorder.only().metadata["error_type"].endswith(type(error).__qualname__)


def test_generator_exit_is_no_failure(tele, recorder):
    with pytest.raises(GeneratorExit):
        with tele("a"):
            raise GeneratorExit
    assert list(recorder.only().metadata) == TIMING_KEYS


def test_return_break_and_continue_leave_a_scope(tele, recorder):
    def function():
        for i in range(3):
            with tele("a"):
                if i == 0:
                    continue
                if i == 1:
                    break
        with tele("b"):
            return current_path(tele, recorder)

    assert function() == "b"
    assert recorder.scopes == ["a", "a", "b"] and current_path(tele, recorder) is None


def test_an_exception_inside_a_nest_fails_every_level(tele, recorder):
    with contextlib.suppress(KeyError):
        with tele("a"), tele("b"), tele("c"):
            raise KeyError
    assert [e.metadata["error_type"] for e in recorder.timings] == ["KeyError"] * 3


def test_exit_takes_any_three_arguments(tele, recorder):
    scopes = opened(tele, *"abcd")
    hostile = [(1, 2, 3), ("x", None, object()), (ValueError, None, None), (None, ValueError(), None)]
    for scope, arguments in zip(reversed(scopes), hostile):
        assert not scope.__exit__(*arguments)
    assert len(recorder.timings) == 4 and current_path(tele, recorder) is None


@lost_scopes_end
def test_a_lost_scope_is_no_ghost_parent(tele, recorder):
    with tele("outer"):
        tele("lost").__enter__()
        gc.collect()
        with tele("b"):
            pass
    assert ("outer.b", "outer") in recorder.tree
    assert [e.metadata.get("error_type") for e in recorder.timings if e.scope == "outer.lost"] in ([], ["unfinished"])


def test_metadata_are_released_when_the_scope_is_closed_and_gone():
    tele = kastor.enable()

    class Thing:
        pass

    thing = Thing()
    died = weakref.ref(thing)
    with tele("a", thing=thing):
        del thing
        assert died() is not None
    gc.collect()
    assert died() is None


def test_a_cycle_through_keyword_arguments_is_collected(tele):
    class Thing:
        pass

    thing = Thing()
    thing.scope = tele("a", thing=thing)
    died = weakref.ref(thing)
    del thing
    gc.collect()
    assert died() is None


@pytest.mark.parametrize("order", ["last first", "first first"])
def test_a_hundred_thousand_levels(order):
    """Deep enough to overflow any recursion, linear in time and memory."""
    closed = []

    class Depths:
        def record_metric(self, scope, value, **metadata):
            closed.append((metadata["depth"], len(scope)))

    tele = kastor.enable()
    watching = kastor.enable(Depths())
    scopes = opened(tele, *["deep"] * 100_000)
    watching.metric("m", 1)
    for scope in scopes if order == "first first" else reversed(scopes):
        scope.__exit__(None, None, None)
    watching.metric("m", 1)
    assert closed == [(100_000, 5 * 100_000 + 1), (0, 1)]


def test_depth_and_path_are_exact_for_python_reporters_beyond_the_limits_of_records(tele, recorder):
    scopes = opened(tele, *["x"] * 400)
    for scope in reversed(scopes):
        close(scope)
    assert [e.metadata["depth"] for e in recorder.timings] == list(range(399, -1, -1))
    assert recorder.timings[0].scope == ".".join(["x"] * 400)
    assert recorder.timings[0].metadata["parent_scope"] == ".".join(["x"] * 399)


def test_a_recursive_function_at_the_recursion_limit_unwinds(tele, recorder):
    def recurse(n):
        with tele("r"):
            return recurse(n + 1)

    with pytest.raises(RecursionError):
        recurse(0)
    assert current_path(tele, recorder) is None
    assert len(recorder.timings) > 50 and recorder.timings[-1].scope == "r"


def test_two_recorders_see_the_same_scopes_when_contexts_interleave():
    left, right = Recorder(), Recorder()
    one, two = kastor.enable(left, right), kastor.enable(right)
    with one("a"), two("b"), one("c"):
        pass
    assert left.scopes == ["a.b.c", "a"] and right.scopes == ["a.b.c", "a.b", "a"]


@pytest.mark.parametrize("make", [kastor.enable, kastor.TelemetryContext], ids=["on", "off"])
def test_a_copy_of_what_holds_a_context_holds_the_same_context(make):
    held = {"tele": make(), "values": [1]}
    deep, shallow = copy.deepcopy(held), copy.copy(held["tele"])
    assert deep["tele"] is shallow is held["tele"]
    assert deep["values"] == [1] and deep["values"] is not held["values"]
