"""Head sampling: a share of all traces is exported, decided by the trace id; sums and other reporters get everything."""

import asyncio
import concurrent.futures
import json
import math
import threading

import pytest

import kastor
from support import Recorder, run

TRACES = 64
REMOTE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


def context(*reporters, **options):
    recording = kastor.Recording()
    return kastor.enable(recording, *reporters, **options), recording


def kept(tele, recording):
    """Whether each scope is kept, as (path, trace id, whether)."""
    assert tele.flush(10)
    return [(timing["scope"], timing["trace_id"], timing["is_sampled"]) for timing in recording.timings()]


def is_in_share(trace_id, share):
    """OpenTelemetry's consistent probability sampling: the lower 56 bits against a threshold."""
    return int(trace_id, 16) % (1 << 56) >= (1 - share) * (1 << 56)


def is_marked(traceparent):
    return traceparent.endswith("1") or traceparent.endswith("3")


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0])
def test_a_share_of_zero_keeps_no_trace_and_of_one_every_trace(share):
    tele, recording = context(sample=share)
    for _ in range(TRACES):
        with tele("root"), tele("child"):
            pass
    assert [is_kept for *_, is_kept in kept(tele, recording)] == [share == 1] * 2 * TRACES


def test_every_trace_is_kept_by_default():
    tele, recording = context()
    with tele("root"):
        pass
    assert [is_kept for *_, is_kept in kept(tele, recording)] == [True]


def test_a_share_keeps_whole_traces_by_their_ids():
    tele, recording = context(sample=0.25)
    for number in range(2000):
        with tele("root"), tele("child", number=number):
            pass
    scopes = kept(tele, recording)
    assert all(is_kept == is_in_share(trace_id, 0.25) for _, trace_id, is_kept in scopes)
    assert 800 < sum(is_kept for *_, is_kept in scopes) < 1200


def test_sums_and_python_reporters_get_what_is_not_kept():
    recorder = Recorder()
    tele, _ = context(recorder, sample=0)
    for number in range(10):
        with tele("root"):
            tele.count("n", number)
            tele.metric("seen", number)
    report = tele.report()
    assert (report.scope("root")["calls"], report.metric("root.n")["sum"]) == (10, 45)
    assert (len(recorder.timings), len(recorder.metrics)) == (10, 20)


def test_an_exporter_leaves_out_what_is_not_kept_and_counts_it(tmp_path):
    tele = kastor.enable(kastor.JsonLines(tmp_path / "all.jsonl"), sample=0)
    for _ in range(3):
        with tele("root"):
            pass
    assert tele.shutdown(10)
    requests = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert requests and not any("resourceSpans" in request for request in requests), "sums alone"
    (account,) = tele.stats()["reporters"]
    assert (account["delivered"], account["dropped"]) == (0, {"sampled": 3})


def test_what_a_trace_does_elsewhere_is_kept_as_the_rest_of_it():
    tele, recording = context(sample=0.5)

    def work():
        with tele("elsewhere"):
            pass

    async def main():
        for _ in range(TRACES):
            with tele("root"):
                await asyncio.gather(asyncio.to_thread(work), asyncio.create_task(asyncio.to_thread(work)))
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    pool.submit(kastor.carry(work)).result()

    run(main())
    scopes = kept(tele, recording)
    assert len(scopes) == 4 * TRACES and {path for path, *_ in scopes} == {"root", "root.elsewhere"}
    assert all(is_kept == is_in_share(trace_id, 0.5) for _, trace_id, is_kept in scopes)
    assert {is_kept for *_, is_kept in scopes} == {True, False}


def test_a_scope_that_is_closed_on_another_thread_is_kept_as_its_trace():
    tele, recording = context(sample=0.5)
    for _ in range(TRACES):
        scope = tele("root")
        scope.__enter__()
        thread = threading.Thread(target=scope.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
    scopes = kept(tele, recording)
    assert len(scopes) == TRACES
    assert all(is_kept == is_in_share(trace_id, 0.5) for _, trace_id, is_kept in scopes)


def test_a_traceparent_says_what_was_decided():
    tele, _ = context(sample=0.5)
    said = set()
    for _ in range(TRACES):
        with tele("root") as inside, inside("child") as _, tele("grandchild"):
            traceparent = kastor.current_traceparent()
        assert is_marked(traceparent) == is_in_share(traceparent.split("-")[1], 0.5)
        said.add(is_marked(traceparent))
    assert said == {True, False}
    scope = tele("root")
    with scope:
        assert scope.traceparent() == kastor.current_traceparent()


@pytest.mark.parametrize("share, flags, is_kept", [(0, "01", True), (1, "00", False)])
def test_a_parent_elsewhere_decides(share, flags, is_kept):
    tele, recording = context(sample=share)
    with tele.attach(REMOTE + flags), tele("serve"), tele("query"):
        assert is_marked(kastor.current_traceparent()) == is_kept
    assert [it for *_, it in kept(tele, recording)] == [is_kept] * 2


@pytest.mark.parametrize("share, flags, is_kept", [(0, "01", False), (1, "00", True)])
def test_a_parent_elsewhere_does_not_decide_if_it_is_not_to(share, flags, is_kept):
    tele, recording = context(sample=share, sample_parent=False)
    with tele.attach(REMOTE + flags):
        assert kastor.current_traceparent() == REMOTE + flags, "the parent's own text stays what it was"
        with tele("serve"), tele("query"):
            assert is_marked(kastor.current_traceparent()) == is_kept
    assert [it for *_, it in kept(tele, recording)] == [is_kept] * 2


def test_contexts_sample_on_their_own():
    (none, of_none), (every, of_all) = context(sample=0), context(sample=1)
    with none("a"), every("b"):
        pass
    assert [it for *_, it in kept(none, of_none)] == [False] and [it for *_, it in kept(every, of_all)] == [True]


@pytest.mark.parametrize("share", [-0.1, 1.0001, math.nan, math.inf, -math.inf])
def test_a_share_that_is_none_is_refused_with_what_to_write_instead(share):
    with pytest.raises(ValueError, match="^sample is .*: it is a share of all traces, from 0 to 1; 0.1 keeps one in ten$"):
        kastor.enable(sample=share)


def test_a_share_that_is_no_number_is_refused():
    with pytest.raises(TypeError):
        kastor.enable(sample="0.1")
