"""Reporters get the events that the specification names: paths, exact keys and their order, values as they were passed."""

import contextlib
import math
import time

import pytest

import kastor
from support import TIMING_KEYS, Recorder


def test_a_timing_has_exactly_the_seven_built_in_keys_in_order(tele, recorder):
    with tele("a"):
        pass
    assert list(recorder.only().metadata) == TIMING_KEYS


def test_user_metadata_follow_the_built_in_keys_in_the_order_of_passing(tele, recorder):
    with tele("a", z=1, a=2, m=3):
        pass
    assert list(recorder.only().metadata) == [*TIMING_KEYS, "z", "a", "m"]


def test_the_types_of_a_timing(tele, recorder):
    with tele("a"), tele("b"):
        pass
    for event in recorder.timings:
        assert type(event.scope) is str and type(event.value) is float
        metadata = event.metadata
        assert type(metadata["depth"]) is int and type(metadata["call_count"]) is int
        for key in TIMING_KEYS[3:]:
            assert type(metadata[key]) is float, key
    assert [type(event.metadata["parent_scope"]) for event in recorder.timings] == [str, type(None)]


def test_path_depth_parent_and_call_count(tele, recorder):
    with tele("a"):
        with tele("pipeline.plan"):
            with tele("c"):
                pass
    assert [
        (e.scope, e.metadata["depth"], e.metadata["parent_scope"], e.metadata["call_count"]) for e in recorder.timings
    ] == [
        ("a.pipeline.plan.c", 2, "a.pipeline.plan", 2),
        ("a.pipeline.plan", 1, "a", 1),
        ("a", 0, None, 0),
    ]


def test_the_monotonic_times_are_those_of_perf_counter(tele, recorder):
    before = time.perf_counter()
    with tele("a"):
        inside = time.perf_counter()
    after = time.perf_counter()
    start, end = (recorder.only().metadata[key] for key in ("start_monotonic_s", "end_monotonic_s"))
    slack = 2e-6
    assert before - slack <= start <= inside + slack and inside - slack <= end <= after + slack


def test_the_wall_times_are_unix_seconds(tele, recorder):
    before = time.time()
    with tele("a"):
        pass
    after = time.time()
    start, end = (recorder.only().metadata[key] for key in ("start_wall_time_s", "end_wall_time_s"))
    slack = 1e-3
    assert before - slack <= start <= end <= after + slack


def test_duration_and_both_pairs_of_times_agree(tele, recorder):
    for _ in range(200):
        with tele("a"):
            sum(range(100))
    for event in recorder.timings:
        metadata = event.metadata
        assert event.value > 0
        assert math.isclose(metadata["end_monotonic_s"] - metadata["start_monotonic_s"], event.value, abs_tol=1e-8)
        assert math.isclose(metadata["end_wall_time_s"] - metadata["start_wall_time_s"], event.value, abs_tol=1e-6)


def test_a_duration_is_right(tele, recorder):
    start = time.perf_counter()
    with tele("a"):
        inner = time.perf_counter()
        while time.perf_counter() - inner < 0.02:
            pass
        measured = time.perf_counter() - inner
    outer = time.perf_counter() - start
    assert measured - 1e-5 <= recorder.only().value <= outer + 1e-5


def test_time_is_an_alias(tele, recorder):
    with tele.time("a", k=1) as context:
        assert context is tele
    assert recorder.only().scope == "a" and recorder.only().metadata["k"] == 1


def test_with_yields_the_context(tele):
    with tele("a") as context:
        assert context is tele


def test_metadata_reach_a_python_reporter_as_the_same_objects(tele, recorder):
    thing, items = object(), []
    with tele("a", thing=thing, items=items):
        items.append(1)
    assert recorder.only().metadata["thing"] is thing
    assert recorder.only().metadata["items"] is items


@pytest.mark.parametrize("scopes", [[], ["a"], ["a", "b"]])
def test_metrics_carry_the_current_scope(tele, recorder, scopes):
    with contextlib.ExitStack() as stack:
        for name in scopes:
            stack.enter_context(tele(name))
        tele.metric("m", 5)
    event = recorder.metrics[0]
    assert event.scope == ".".join([*scopes, "m"]) and event.value == 5
    assert event.metadata == {"depth": len(scopes), "parent_scope": ".".join(scopes) or None}
    assert list(event.metadata) == ["depth", "parent_scope"]


@pytest.mark.parametrize("method, kind", [("count", "counter"), ("gauge", "gauge"), ("histogram", "histogram")])
def test_count_gauge_and_histogram_say_their_type_before_the_users_keys(tele, recorder, method, kind):
    getattr(tele, method)("m", 2, z=1, a=2)
    event = recorder.only()
    assert (event.scope, event.value) == ("m", 2)
    assert list(event.metadata.items()) == [
        ("depth", 0), ("parent_scope", None), ("metric_type", kind), ("z", 1), ("a", 2),
    ]  # fmt: skip


def test_plain_metric_has_no_type(tele, recorder):
    tele.metric("m", 1, unit="s")
    assert list(recorder.only().metadata) == ["depth", "parent_scope", "unit"]


def test_count_adds_1_by_default_and_takes_the_increment_by_name(tele, recorder):
    tele.count("m")
    tele.count("m", increment=3)
    tele.count("m", 4)
    assert [event.value for event in recorder.metrics] == [1, 3, 4]


@pytest.mark.parametrize(
    "value", [None, "text", b"bytes", [1], {"k": 1}, object(), 10**400, -(2**70), 1.5, True, float("nan"), 1j]
)
def test_any_value_reaches_a_python_reporter_as_the_same_object(tele, recorder, value):
    tele.metric("m", value)
    assert recorder.only().value is value


@pytest.mark.parametrize("method", ["count", "gauge", "histogram"])
@pytest.mark.parametrize("value", [None, "text", [1], object(), 10**400, -3, 2.5, True, float("nan"), float("-inf")])
def test_no_value_of_an_instrument_raises_and_each_arrives(tele, recorder, method, value):
    getattr(tele, method)("m", value)
    assert recorder.only().value is value


def test_each_reporter_gets_every_event_in_registration_order():
    order, first, second = [], Recorder(), Recorder()

    class Noting:
        def __init__(self, name):
            self.name = name

        def record_timing(self, scope, duration, **metadata):
            order.append(self.name)

    tele = kastor.enable(Noting("x"), first, Noting("y"), second)
    with tele("a"):
        tele.count("c")
    assert order == ["x", "y"]
    assert [e.scope for e in first.events] == [e.scope for e in second.events] == ["a.c", "a"]


def test_contexts_share_the_flow_but_not_the_events():
    left, right = Recorder(), Recorder()
    one, two = kastor.enable(left), kastor.enable(right)
    with one("a"):
        with two("b"):
            with one("c"):
                pass
    assert left.scopes == ["a.b.c", "a"] and right.tree == [("a.b", "a")]


def test_a_switched_off_context_records_nothing_and_closes_what_was_open(tele, recorder):
    with tele("a"):
        tele.set_enabled(False)
        assert not tele.is_enabled
        with tele("b"):
            tele.count("c")
    assert recorder.events == []
    tele.set_enabled(True)
    with tele("d"):
        pass
    assert recorder.tree == [("d", None)]


def test_scopes_switched_off_by_name_are_transparent(tele, recorder):
    tele.switch_scopes("db.*", False)
    with tele("a"):
        with tele("db.query"):
            with tele("b"):
                tele.count("n")
    assert [(e.scope, e.metadata["depth"], e.metadata["parent_scope"]) for e in recorder.events] == [
        ("a.b.n", 2, "a.b"), ("a.b", 1, "a"), ("a", 0, None),
    ]  # fmt: skip
