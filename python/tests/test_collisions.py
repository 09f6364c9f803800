"""User keys that are named like a built-in key or a parameter never lose the event, never raise, never touch the stack."""

import pytest

from support import TIMING_KEYS

METRICS = ["metric", "count", "gauge", "histogram"]


@pytest.mark.parametrize("key", [*TIMING_KEYS, "error_type", "metric_type"])
def test_a_user_key_with_a_built_in_name_wins_in_a_timing(tele, recorder, key):
    with tele("a", **{key: "mine"}):
        with tele("b"):
            pass
    inner, outer = recorder.timings
    assert outer.metadata[key] == "mine"
    assert inner.scope == "a.b" and inner.metadata["depth"] == 1 and inner.metadata["parent_scope"] == "a"


@pytest.mark.parametrize("key", TIMING_KEYS)
def test_and_the_other_keys_are_as_they_would_be(tele, recorder, key):
    with tele("a", **{key: "mine"}, other=1):
        pass
    metadata = recorder.only().metadata
    assert set(metadata) == {*TIMING_KEYS, "other"} and metadata["other"] == 1
    assert isinstance(metadata["start_monotonic_s"], float) is (key != "start_monotonic_s")


@pytest.mark.parametrize("method", METRICS)
@pytest.mark.parametrize("key", ["depth", "parent_scope"])
def test_a_user_key_with_a_built_in_name_wins_in_a_metric(tele, recorder, method, key):
    with tele("a"):
        getattr(tele, method)("m", 1, **{key: "mine"})
    assert recorder.metrics[0].scope == "a.m" and recorder.metrics[0].metadata[key] == "mine"


@pytest.mark.parametrize("method", METRICS)
def test_metric_type_wins_as_is(tele, recorder, method):
    getattr(tele, method)("m", 1, metric_type="mine")
    assert recorder.only().metadata["metric_type"] == "mine"


@pytest.mark.parametrize("key", ["scope", "self", "duration"])
def test_parameters_of_record_timing_arrive_with_an_underscore(tele, recorder, key):
    with tele("a", **{key: "mine"}):
        pass
    event = recorder.only()
    assert event.scope == "a" and event.metadata[f"{key}_"] == "mine" and key not in event.metadata


@pytest.mark.parametrize("method", METRICS)
@pytest.mark.parametrize("key", ["scope", "self", "value"])
def test_parameters_of_record_metric_arrive_with_an_underscore(tele, recorder, method, key):
    getattr(tele, method)("m", 1, **{key: "mine"})
    event = recorder.only()
    assert (event.scope, event.value) == ("m", 1) and event.metadata[f"{key}_"] == "mine" and key not in event.metadata


@pytest.mark.parametrize("key", ["value", "metric_type", "increment"])
def test_parameters_of_other_methods_are_ordinary_keys_of_a_timing(tele, recorder, key):
    with tele("a", **{key: "mine"}):
        pass
    assert recorder.only().metadata[key] == "mine"


def test_duration_is_an_ordinary_key_of_a_metric(tele, recorder):
    tele.metric("m", 1, duration="mine")
    assert recorder.only().metadata["duration"] == "mine"


def test_name_passed_besides_the_name_becomes_name_(tele, recorder):
    with tele("a", name="mine"):
        tele.metric("m", 1, name="mine")
        tele.count("m", name="mine")
        tele.gauge("m", 1, name="mine")
        tele.histogram("m", 1, name="mine")
    with tele.time("a", name="mine"):
        pass
    for event in recorder.events:
        assert event.metadata["name_"] == "mine" and "name" not in event.metadata
    assert len(recorder.events) == 6


def test_the_name_may_be_passed_by_name_alone(tele, recorder):
    with tele(name="a", k=1):
        tele.metric(name="m", value=1)
        tele.count(name="n", increment=2)
        tele.gauge(name="o", value=3)
        tele.histogram(name="p", value=4)
    assert [(event.scope, event.value) for event in recorder.metrics] == [("a.m", 1), ("a.n", 2), ("a.o", 3), ("a.p", 4)]
    assert recorder.scopes == ["a"] and recorder.timings[0].metadata["k"] == 1


def test_a_key_and_the_same_key_with_an_underscore_both_arrive_or_the_event_does(tele, recorder):
    with tele("a", scope="one", scope_="two"):
        pass
    event = recorder.only()
    assert event.scope == "a" and event.metadata["scope_"] in ("one", "two")


@pytest.mark.parametrize("key", ["", " ", "a b", "1", "ä", "x" * 10_000, "\ud800", "\0", "self.x", "lambda"])
def test_odd_keys_arrive(tele, recorder, key):
    with tele("a", **{key: 1}):
        tele.count("m", **{key: 2})
    assert recorder.timings[0].metadata[key] == 1 and recorder.metrics[0].metadata[key] == 2


def test_a_thousand_keys_arrive(tele, recorder):
    keys = {f"k{i}": i for i in range(1000)}
    with tele("a", **keys):
        tele.count("m", **keys)
    for event in recorder.events:
        assert {key: event.metadata[key] for key in keys} == keys


def test_keywords_from_a_mapping_and_at_the_call_site_are_the_same(tele, recorder):
    def call(**metadata):
        with tele("a", **metadata):
            pass

    call(depth="x", scope=1, other=2)
    with tele("a", depth="x", scope=1, other=2):
        pass
    one, two = (event.metadata for event in recorder.timings)
    assert list(one) == list(two) and one["depth"] == two["depth"] == "x" and one["scope_"] == two["scope_"] == 1
