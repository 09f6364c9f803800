"""Native reporters: copies of values, records, log lines, aggregates and accounts."""

import datetime
import decimal
import enum
import json
import logging
import math
import pathlib
import threading
import time
import uuid

import pytest

import kastor
from support import Recorder, python


class Colour(enum.Enum):
    RED = 1


class Thing:
    def __repr__(self):
        return "Thing()"


COPIES = {
    "bool": (True, True),
    "int": (-5, -5),
    "u64": (2**63, 2**63),
    "float": (1.5, 1.5),
    "text": ("tëxt", "tëxt"),
    "none": (None, None),
    "path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "uuid": (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "datetime": (datetime.datetime(2020, 1, 2, 3), "2020-01-02T03:00:00"),
    "decimal": (decimal.Decimal("1.50"), "1.50"),
}


@pytest.fixture
def recording():
    return kastor.Recording()


@pytest.mark.parametrize("kind", COPIES)
def test_values_are_copied(recording, kind):
    value, copy = COPIES[kind]
    tele = kastor.enable(recording)
    with tele("a", k=value):
        tele.metric("m", 1, k=value)
    tele.flush(10)
    assert recording.timings()[0]["attributes"] == {"k": copy}
    assert recording.metrics()[0]["attributes"] == {"k": copy}
    assert type(recording.timings()[0]["attributes"]["k"]) is type(copy)


def test_flat_containers_are_copied_and_others_are_named(recording):
    tele = kastor.enable(recording)
    with tele("a", items=[1, "x", None], pairs={"a": 1}, long=list(range(17)), deep=[[1]], thing=Thing(), e=Colour.RED):
        pass
    tele.flush(10)
    got = recording.timings()[0]["attributes"]
    assert json.loads(got["items"]) == [1, "x", None] and json.loads(got["pairs"]) == {"a": 1}
    assert "list" in got["long"] and "list" in got["deep"] and "Thing" in got["thing"] and "RED" in got["e"]
    assert "Thing()" not in got["thing"]


def test_capture_repr_asks_for_the_repr_bounded_and_guarded(recording):
    class Raising:
        def __repr__(self):
            raise ValueError

    class Long:
        def __repr__(self):
            return "x" * 1_000_000

    tele = kastor.enable(recording, capture_repr=True)
    with tele("a", thing=Thing(), raising=Raising(), long=Long()):
        pass
    tele.flush(10)
    got = recording.timings()[0]["attributes"]
    assert got["thing"] == "Thing()" and isinstance(got["raising"], str) and len(got["long"]) <= 4096


def test_what_is_cut_is_counted(recording):
    tele = kastor.enable(recording)
    with tele("a", long="x" * 100_000):
        pass
    tele.flush(10)
    assert recording.timings()[0]["attributes"]["long"] == "x" * 4096
    assert tele.stats()["cut_values"] >= 1


def test_a_record_says_what_the_specification_names(recording):
    tele = kastor.enable(recording)
    with tele("a"):
        with tele("b", k=1):
            pass
    tele.flush(10)
    inner, outer = recording.timings()
    assert (inner["scope"], inner["parent_scope"], inner["depth"]) == ("a.b", "a", 1)
    assert inner["duration"] == pytest.approx(inner["duration_ns"] / 1e9)
    assert inner["trace_id"] == outer["trace_id"] and inner["parent_span_id"] == outer["span_id"]
    assert outer["start_unix_ns"] <= inner["start_unix_ns"] and outer["duration_ns"] >= inner["duration_ns"]
    assert inner["error_type"] is None and inner["thread_id"] == threading.get_native_id()


def test_a_recording_is_bounded_and_counts(recording):
    small = kastor.Recording(max_bytes=4096)
    tele = kastor.enable(small)
    for _ in range(10_000):
        with tele("a"):
            pass
    tele.flush(10)
    assert small.bytes <= 4096 + 40_000 and len(small.timings()) + small.dropped == 10_000
    small.clear()
    assert len(small) == 0


def test_a_hundred_thousand_scopes_are_counted_exactly():
    recording = kastor.Recording(max_bytes=64 << 20)
    tele = kastor.enable(recording)
    for _ in range(100):
        with tele("root"):
            for _ in range(999):
                with tele("child"):
                    pass
    assert tele.flush(30)
    report = tele.report()
    assert (report.scope("root")["calls"], report.scope("root.child")["calls"]) == (100, 99_900)
    assert len(recording) == 100_000 and recording.dropped == 0
    (account,) = tele.stats()["reporters"]
    assert account["delivered"] == 100_000 and account["dropped"] == {} and account["queued"] == 0


def test_accounts_add_up_with_threads_and_failures(caplog):
    class Failing:
        calls = 0

        def record_timing(self, scope, duration, **metadata):
            Failing.calls += 1
            if Failing.calls % 7 == 0:
                raise ValueError

    recorder, recording = Recorder(), kastor.Recording()
    tele = kastor.enable(recorder, Failing(), recording)

    def emit():
        for _ in range(1000):
            with tele("a"):
                tele.metric("m", 1)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tele.flush(10)
    stats = tele.stats()
    assert (stats["emitted"], stats["timings"], stats["metrics"]) == (8000, 4000, 4000)
    for account in stats["reporters"]:
        total = account["delivered"] + sum(account["dropped"].values()) + account["queued"] + account["spooled"]
        assert total in (4000, 8000), account
    assert len(recorder.events) == 8000 and tele.report().scope("a")["calls"] == 4000


def test_aggregates_are_exact():
    clock = kastor.MockClock()
    tele = kastor.enable(clock=clock)
    for seconds in (0.5, 0.25, 1.0):
        with tele("a"):
            clock.advance(seconds)
            with tele("b"):
                clock.advance(0.125)
    row = tele.report().scope("a")
    assert (row["calls"], row["errors"], row["total_s"], row["self_s"]) == (3, 0, 2.125, 1.75)
    assert (row["min_s"], row["max_s"]) == (0.375, 1.125)
    assert math.isclose(row["p50_s"], 0.625, rel_tol=0.05)


def test_counters_gauges_and_histograms_are_added_up_by_path_and_labels():
    tele = kastor.enable()
    with tele("a"):
        for number in range(10):
            tele.count("n", number, kind="even" if number % 2 == 0 else "odd")
            tele.gauge("g", number)
            tele.histogram("h", number + 1)
    rows = tele.report().as_dict()["metrics"]
    counts = {row["labels"]["kind"]: row["sum"] for row in rows if row["path"] == "a.n"}
    assert counts == {"even": 20, "odd": 25}
    gauge = tele.report().metric("a.g")
    assert (gauge["last"], gauge["min"], gauge["max"], gauge["calls"]) == (9, 0, 9, 10) and "sum" not in gauge
    histogram = tele.report().metric("a.h")
    assert (histogram["calls"], histogram["sum"], histogram["min"], histogram["max"]) == (10, 55, 1, 10)


def test_counters_stay_exact_and_say_what_they_saw():
    tele = kastor.enable()
    tele.count("big", 2**53)
    tele.count("big", 1)
    tele.count("down", 5)
    tele.count("down", -2)
    tele.count("odd", float("nan"))
    tele.count("odd", 1)
    report = tele.report()
    assert report.metric("big")["sum"] == 2**53 + 1
    assert (report.metric("down")["sum"], report.metric("down")["is_monotonic"]) == (3, False)
    assert report.metric("odd")["sum"] == 1 and report.metric("odd")["not_finite"] == 1


def test_unit_and_help_are_set_by_name():
    tele = kastor.enable()
    tele.describe("bytes", unit="By", help="how much")
    tele.count("bytes", 3)
    row = tele.report().metric("bytes")
    assert (row["unit"], row["help"]) == ("By", "how much")


def test_paths_can_be_added_up_and_not_delivered():
    recorder, recording = Recorder(), kastor.Recording()
    tele = kastor.enable(recorder, recording)
    tele.record_paths("job.*", False)
    with tele("job"):
        with tele("step"):
            pass
    tele.flush(10)
    assert [record["scope"] for record in recording.timings()] == ["job"]
    assert tele.report().scope("job.step")["calls"] == 1


def test_the_log_reporter_writes_structured_lines_with_trace_ids(caplog):
    tele = kastor.enable(kastor.LogReporter())
    with caplog.at_level(logging.DEBUG):
        with tele("a", k="two words"):
            tele.count("n", 2)
        with pytest.raises(ZeroDivisionError):
            with tele("bad\x1b[31m"):
                1 / 0
    tele.flush(10)
    assert {record.name for record in caplog.records} == {"kastor.events"}
    lines = [record.getMessage() for record in caplog.records]
    assert 'metric="a.n"' in lines[0] and 'scope="a"' in lines[1] and "trace_id=" in lines[1] and 'k="two words"' in lines[1]
    assert caplog.records[2].levelno == logging.WARNING and "ZeroDivisionError" in lines[2] and "\x1b" not in lines[2]


@pytest.mark.parametrize("make", [kastor.SimpleReporter, kastor.Recording, kastor.LogReporter], ids=lambda m: m.__name__)
def test_a_native_reporter_can_be_fed_by_hand(make):
    reporter = make()
    reporter.record_timing("a.b", 0.5, depth=1, parent_scope="a", k=1)
    reporter.record_metric("a.n", 3, metric_type="counter")
    assert isinstance(reporter, kastor.TelemetryReporter)


def test_a_subclass_that_records_by_itself_is_a_python_reporter():
    class Mine(kastor.SimpleReporter):
        def record_timing(self, scope, duration, /, **metadata):
            super().record_timing(f"mine.{scope}", duration, **metadata)

    mine = Mine()
    with kastor.enable(mine)("a"):
        pass
    assert list(mine.as_dict()["timings"]) == ["mine.a"]


def test_a_context_knows_its_reporters():
    recorder, recording = Recorder(), kastor.Recording()
    reporters = kastor.enable(recorder, recording).reporters()
    assert len(reporters) == 2 and recorder in reporters and recording in reporters


STUCK = """
import kastor, sys, threading, time
class Stuck:
    def record_timing(self, scope, duration, **metadata):
        time.sleep(60)
tele = kastor.enable(kastor.Background(Stuck()), exit_flush=float(sys.argv[1]) if sys.argv[1:] else None)
for _ in range(10):
    with tele("a"): pass
"""


def test_undelivered_events_are_named_in_one_line_at_the_end():
    done = python(STUCK, timeout=30)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 0 and "not delivered at exit" in line and "10 events pending" in line, done


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_the_end_waits_as_long_as_a_context_asks_for(seconds):
    start = time.monotonic()
    done = python(STUCK, str(seconds), timeout=60)
    assert done.returncode == 0 and "10 events pending" in done.stderr
    assert seconds <= time.monotonic() - start
