"""What is said of a scope while it is open: attributes, events, links, failure; and the dump of what is open."""

import asyncio
import threading
import time

import pytest

import kastor
from support import TIMING_KEYS, Recorder

REMOTE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def recording():
    return kastor.Recording()


@pytest.fixture
def both(recorder, recording):
    return kastor.enable(recorder, recording)


def records(tele, recording):
    assert tele.flush(10)
    return recording.timings()


def test_late_attributes_follow_those_that_were_passed_on_opening(both, recorder, recording):
    with both("a", z=1, y=2):
        both.set(x=3, w=4)
        both.set(v=5)
    assert list(recorder.only().metadata) == [*TIMING_KEYS, "z", "y", "x", "w", "v"]
    assert records(both, recording)[0]["attributes"] == {"z": 1, "y": 2, "x": 3, "w": 4, "v": 5}


def test_the_last_value_of_a_key_wins(both, recorder, recording):
    with both("a", k=1):
        both.set(k=2)
        both.set(k=3)
    assert recorder.only().metadata["k"] == 3
    assert records(both, recording)[0]["attributes"] == {"k": 3}


def test_late_attributes_with_built_in_names_collide_like_others(both, recorder):
    with both("a"):
        both.set(depth="mine", scope=1, duration=2, name=3, error_type="mine")
    metadata = recorder.only().metadata
    assert (metadata["depth"], metadata["scope_"], metadata["duration_"]) == ("mine", 1, 2)
    assert metadata["error_type"] == "mine" and 3 in (metadata.get("name"), metadata.get("name_"))


def test_no_key_is_a_parameter_of_the_methods(tele, recorder):
    with tele("a") as context:
        context.set(this=1, name=2, attributes=3)
        context.event("e", this=1, name=2)
        with tele("b"):
            tele.count("c", this=1)
    scope = tele("d")
    with scope:
        scope.set(this=1, self=2)
        scope.event("e", this=1, self=2)
    inner, outer, last = recorder.timings
    assert [outer.metadata[key] for key in ("this", "name_", "attributes")] == [1, 2, 3]
    assert last.metadata["this"] == 1 and last.metadata["self_"] == 2


def test_an_event_whose_name_is_no_text_is_named_by_its_type():
    recording = kastor.Recording()
    tele = kastor.enable(recording)
    with tele("a"):
        for name in (None, 5, "\ud800x", type):
            tele.event(name, k=1)
    assert tele.flush(5)
    (timing,) = recording.timings()
    assert [event["name"] for event in timing["events"]] == ["<NoneType>", "<int>", "\ufffdx", "<type>"]


def test_the_context_means_its_innermost_open_scope(both, recorder):
    with both("a"):
        with both("b"):
            both.set(inner=1)
        both.set(outer=1)
    assert [set(event.metadata) - set(TIMING_KEYS) for event in recorder.timings] == [{"inner"}, {"outer"}]


def test_a_scope_of_another_context_is_not_meant(both, recorder):
    other = Recorder()
    second = kastor.enable(other)
    with both("a"), second("b"):
        both.set(k=1)
    assert recorder.only().metadata["k"] == 1 and "k" not in other.only().metadata


def test_a_scope_object_means_itself(both, recorder):
    outer = both("a")
    with outer, both("b"):
        outer.set(k=1)
    assert [event.metadata.get("k") for event in recorder.timings] == [None, 1]


def test_events_and_links_are_in_the_record(both, recording):
    with both("a"):
        both.event("cache.miss", key="u7")
        both.link(REMOTE)
        both.link("no traceparent")
    (record,) = records(both, recording)
    (event,) = record["events"]
    assert event["name"] == "cache.miss" and event["attributes"] == {"key": "u7"}
    assert record["start_unix_ns"] <= event["unix_ns"] <= record["start_unix_ns"] + record["duration_ns"]
    assert record["links"] == [("a" * 32, "b" * 16)]


@pytest.mark.parametrize(
    "error, name", [("rejected", "rejected"), (ValueError("x"), "ValueError"), (KeyError, "KeyError")]
)
def test_a_scope_can_be_marked_failed(both, recorder, recording, error, name):
    with both("a"):
        both.fail(error)
    assert recorder.only().metadata["error_type"] == name
    assert records(both, recording)[0]["error_type"] == name
    assert both.report().scope("a")["errors"] == 1


def test_a_failure_named_before_an_exception_stands(both, recorder):
    with pytest.raises(ValueError):
        with both("a"):
            both.fail("named")
            raise ValueError
    assert recorder.only().metadata["error_type"] == "named"


def test_a_discarded_scope_has_no_event_and_is_in_no_sum(both, recorder, recording):
    with both("a"):
        with both("b"):
            pass
        both.discard()
    assert recorder.tree == [("a.b", "a")]
    assert [record["scope"] for record in records(both, recording)] == ["a.b"]
    assert both.report().scope("a") is None and both.report().scope("a.b")["calls"] == 1


def test_outside_of_any_scope_nothing_is_meant(both, recorder):
    both.set(k=1)
    both.event("e")
    both.link(REMOTE)
    both.fail("f")
    both.discard()
    with both("a"):
        pass
    assert list(recorder.only().metadata) == TIMING_KEYS


def test_after_it_was_left_a_scope_takes_nothing(both, recorder):
    scope = both("a")
    with scope:
        pass
    scope.set(k=1)
    scope.fail("late")
    scope.discard()
    assert list(recorder.only().metadata) == TIMING_KEYS and scope.traceparent() is None


def test_a_thousand_late_attributes_reach_a_python_reporter_or_are_counted(both, recorder):
    with both("a"):
        for i in range(1000):
            both.set(**{f"k{i}": i})
    got = [key for key in recorder.only().metadata if key.startswith("k")]
    assert len(got) >= 128 and len(got) + both.stats()["cut_values"] >= 1000


def test_a_scopes_traceparent_is_the_current_one(both):
    scope = both("a")
    assert scope.traceparent() is None
    with scope:
        assert scope.traceparent() == kastor.current_traceparent() is not None


def test_ids_of_records_follow_the_tree(both, recording):
    with both.attach(REMOTE):
        with both("a"):
            with both("b"):
                pass
    inner, outer = records(both, recording)
    assert outer["trace_id"] == inner["trace_id"] == "a" * 32
    assert outer["parent_span_id"] == "b" * 16 and inner["parent_span_id"] == outer["span_id"]
    assert inner["scope"] == "a.b" and inner["depth"] == 1


def test_open_scopes_are_dumped_longest_first(tele):
    with tele("outer"):
        time.sleep(0.001)
        with tele("inner"):
            found = [(scope.scope, scope.thread, scope.open_for) for scope in tele.open_scopes()]
    paths = [path for path, _, _ in found if path.startswith("outer")]
    assert paths == ["outer", "outer.inner"]
    assert all(thread == "MainThread" and seconds >= 0 for _, thread, seconds in found)
    assert found[0][2] >= 0.001
    assert not [scope for scope in tele.open_scopes() if scope.scope.startswith("outer")]


def test_open_scopes_of_threads_and_suspended_tasks_are_there(tele):
    inside, leave = threading.Event(), threading.Event()

    def hang():
        with tele("hanging.thread"):
            inside.set()
            leave.wait(30)

    async def main():
        async def job():
            with tele("hanging.task"):
                await asyncio.sleep(60)

        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        found = {scope.scope: scope.thread for scope in tele.open_scopes()}
        task.cancel()
        return found

    thread = threading.Thread(target=hang, name="the-hanging-one")
    thread.start()
    assert inside.wait(30)
    try:
        found = asyncio.run(main())
    finally:
        leave.set()
        thread.join()
    assert found["hanging.thread"] == "the-hanging-one" and "hanging.task" in found
