"""Names: what is refused in any mode, what strict mode refuses, where the ValueError comes, and what becomes of odd text."""

import pytest

import kastor
from support import Recorder

NOT_NAMES = ["", None, 5, 1.5, b"bytes", ["a"], ("a",), object(), type, True]
METRICS = ["metric", "count", "gauge", "histogram"]
GOOD = ["a", "abc", "a1", "a_b", "pipeline.plan", "a.b.c", "a1.b_2.c3", "x" * 256]
BAD = ["A", "1a", "_a", "a.", ".a", "a..b", "a b", "a-b", "a.1b", "a._b", "ä", "a\n", "a.b\n", " a", "a\0", "ａ"]


def record(tele, method, name):
    return getattr(tele, method)(name) if method == "count" else getattr(tele, method)(name, 1)


@pytest.fixture
def strict(monkeypatch, recorder):
    monkeypatch.setenv("KASTOR_TELEMETRY_STRICT_SCOPES", "1")
    return kastor.enable(recorder)


@pytest.mark.parametrize("name", NOT_NAMES, ids=repr)
def test_an_empty_or_non_string_scope_name_is_a_value_error_on_entry_and_not_before(tele, recorder, name):
    scope = tele(name)
    with pytest.raises(ValueError, match="must be a non-empty string"):
        scope.__enter__()
    assert recorder.events == []


@pytest.mark.parametrize("method", METRICS)
@pytest.mark.parametrize("name", NOT_NAMES, ids=repr)
def test_an_empty_or_non_string_metric_name_is_a_value_error_at_the_call(tele, recorder, method, name):
    with pytest.raises(ValueError, match="must be a non-empty string"):
        record(tele, method, name)
    assert recorder.events == []


@pytest.mark.parametrize("name", BAD + GOOD, ids=ascii)
def test_any_other_text_is_a_name_where_strict_mode_is_off(tele, recorder, name):
    with tele(name):
        tele.count(name)
    assert [event.scope for event in recorder.events] == [f"{name}.{name}", name]


@pytest.mark.parametrize("name", GOOD)
def test_strict_mode_takes_the_recommended_form(strict, recorder, name):
    with strict(name):
        strict.count(name)
    assert recorder.scopes == [name]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_strict_mode_refuses_everything_else_on_entry(strict, recorder, name):
    scope = strict(name)
    with pytest.raises(ValueError):
        with scope:
            raise AssertionError("the block must not run")
    assert recorder.events == []


@pytest.mark.parametrize("method", METRICS)
@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_strict_mode_refuses_metric_names_at_the_call(strict, recorder, method, name):
    with pytest.raises(ValueError):
        record(strict, method, name)
    assert recorder.events == []


def test_a_refused_scope_leaves_nothing_behind(strict, recorder):
    with strict("a"):
        with pytest.raises(ValueError):
            strict("B").__enter__()
        with strict("c"):
            pass
    assert recorder.tree == [("a.c", "a"), ("a", None)]


def test_strict_mode_refuses_the_same_name_each_time(strict):
    for _ in range(3):
        for name in ("Bad", "".join(["B", "ad"])):
            with pytest.raises(ValueError):
                strict(name).__enter__()


def test_a_name_known_to_a_lenient_context_is_still_refused_by_a_strict_one(strict, recorder):
    with kastor.enable(Recorder(), strict=False)("Known"):
        pass
    with pytest.raises(ValueError):
        strict("Known").__enter__()


def test_the_disabled_context_checks_nothing():
    off = kastor.TelemetryContext()
    for name in (*NOT_NAMES, "Bad Name"):
        if not callable(name):
            with off(name):
                pass
        for method in METRICS:
            record(off, method, name)


def test_a_decorator_with_a_bad_name_raises_at_the_call_of_the_function(strict):
    @strict("Bad")
    def function():
        raise AssertionError("the function must not run")

    with pytest.raises(ValueError):
        function()


def test_a_subclass_of_str_is_a_name(tele, recorder):
    class Name(str):
        def __str__(self):
            raise RuntimeError("nobody asked")

        __hash__ = __eq__ = __len__ = __str__

    with tele(Name("sub")):
        tele.count(Name("m"))
    assert [event.scope for event in recorder.events] == ["sub.m", "sub"]


def test_a_lone_surrogate_becomes_a_replacement_character(tele, recorder):
    with tele("bad\ud800name"):
        tele.count("x\udfff")
    assert [event.scope for event in recorder.events] == ["bad\ufffdname.x\ufffd", "bad\ufffdname"]


def test_python_reporters_get_long_names_and_deep_paths_whole(tele, recorder):
    name = "n" * 5000
    with tele(name):
        with tele("x"):
            pass
    assert recorder.scopes == [f"{name}.x", name]


def test_equal_names_of_different_objects_are_one_path(tele, recorder):
    for _ in range(3):
        with tele("".join(["pa", "th"])):
            pass
    assert recorder.scopes == ["path"] * 3
    assert str(tele.report()).count("path") == 1
