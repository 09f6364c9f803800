"""`kastor.testing`, and the fixture that pytest finds by itself."""

import threading

import pytest

import kastor
from kastor.testing import MetricEvent, RecordingReporter, TimingEvent


@pytest.fixture
def recording():
    return RecordingReporter()


def test_it_keeps_events_in_order(recording):
    tele = kastor.enable(recording)
    with tele("a", k=1):
        tele.count("items", 3)
    metric, timing = recording.events
    assert isinstance(metric, MetricEvent) and isinstance(timing, TimingEvent)
    assert (metric.scope, metric.value, timing.scope, timing.metadata["k"]) == ("a.items", 3, "a", 1)
    assert list(recording) == recording.events and len(recording) == 2


def test_it_answers_what_tests_ask(recording):
    tele = kastor.enable(recording)
    for i in range(3):
        try:
            with tele("a"):
                tele.count("items", i)
                if i == 2:
                    raise KeyError
        except KeyError:
            pass
    assert recording.calls("a") == 3 and recording.errors("a") == ["KeyError"]
    assert recording.values("a.items") == [0, 1, 2] and recording.total("a.items") == 3
    assert recording.scopes == ["a"] * 3 and recording.calls("b") == 0 and recording.total("b") == 0


def test_only_says_what_there_is(recording):
    tele = kastor.enable(recording)
    with tele("a"):
        pass
    assert recording.only("a").scope == "a"
    with pytest.raises(AssertionError, match=r"0 calls of 'b', not 1; there are \['a'\]"):
        recording.only("b")


def test_clear_forgets(recording):
    with kastor.enable(recording)("a"):
        pass
    recording.clear()
    assert recording.events == []


def test_it_is_bounded_and_counts_what_it_drops():
    recording = RecordingReporter(max_events=3)
    tele = kastor.enable(recording)
    for _ in range(10):
        tele.count("c")
    assert (len(recording), recording.dropped) == (3, 7)


def test_it_serves_threads(recording):
    tele = kastor.enable(recording)

    def work():
        for _ in range(500):
            with tele("a"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert recording.calls("a") == 2000


def test_it_is_a_reporter(recording):
    assert isinstance(recording, kastor.TelemetryReporter)


def test_a_clock_that_stands_still_makes_durations_exact(recording):
    clock = kastor.MockClock()
    tele = kastor.enable(recording, clock=clock)
    with tele("outer"):
        clock.advance(1.5)
        with tele("inner"):
            clock.advance(0.25)
    assert [(event.scope, event.duration) for event in recording.timings] == [("outer.inner", 0.25), ("outer", 1.75)]
    assert tele.report().scope("outer")["self_s"] == 1.5


def test_pytest_finds_the_fixture_by_itself(pytester):
    pytester.makepyfile(
        """
        def test_one(kastor_telemetry):
            with kastor_telemetry.tele("a"):
                kastor_telemetry.tele.count("items", 2)
            assert kastor_telemetry.recording.calls("a") == 1
            assert kastor_telemetry.recording.total("a.items") == 2

        def test_each_test_has_its_own(kastor_telemetry):
            assert kastor_telemetry.tele.is_enabled
            assert kastor_telemetry.recording.events == []
        """
    )
    # Another process: this one's contexts are not those of a first run.
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=2)


