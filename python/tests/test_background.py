"""A Python reporter on a thread of its own: what it gets, what it may do, and what is counted."""

import logging
import threading
import time

import pytest

import kastor
from support import Recorder, quiet


class Failing:
    """Raises as long as it is told to, and counts the calls."""

    def __init__(self):
        self.is_failing = True
        self.calls = 0

    def record_timing(self, scope, duration, **metadata):
        self.calls += 1
        if self.is_failing:
            raise SystemExit if self.calls % 2 else ValueError("mine")


def emit(tele, times=1):
    for _ in range(times):
        with tele("a"):
            pass


def test_a_background_reporter_gets_every_call_on_a_thread_of_its_own():
    recorder, threads = Recorder(), set()
    original = recorder.record_timing
    recorder.record_timing = lambda *args, **kwargs: (threads.add(threading.get_ident()), original(*args, **kwargs))
    tele = kastor.enable(kastor.Background(recorder))
    for _ in range(100):
        with tele("a", k=1):
            tele.count("c")
    tele.flush(10)
    assert recorder.scopes == ["a"] * 100 and len(recorder.metrics) == 100
    assert recorder.timings[0].metadata["k"] == 1
    assert threads and threading.get_ident() not in threads
    tele.shutdown(10)


def test_a_blocked_background_reporter_does_not_block_the_program():
    release, started, recorder = threading.Event(), threading.Event(), Recorder()

    class Blocked:
        def record_timing(self, scope, duration, **metadata):
            started.set()
            release.wait(60)

    tele = kastor.enable(kastor.Background(Blocked()), recorder)
    start = time.monotonic()
    emit(tele, 5000)
    assert started.wait(10)
    tele.flush(0.2)
    assert time.monotonic() - start < 10 and len(recorder.timings) == 5000
    release.set()
    tele.shutdown(10)


def test_a_failing_background_reporter_is_contained_and_left_out_and_all_is_counted(caplog):
    failing, recorder = Failing(), Recorder()
    background = kastor.Background(failing)
    tele = kastor.enable(background, recorder)
    with caplog.at_level(logging.ERROR, logger="kastor"):
        emit(tele, 100)
        assert tele.flush(10)
    assert failing.calls == 5 and len(recorder.timings) == 100
    reporter = tele.stats()["reporters"][0]
    assert reporter["dropped"] == {"reporter_failed": 5, "reporter_suspended": 95}
    assert (reporter["delivered"], reporter["queued"]) == (0, 0)
    assert (reporter["failures"], reporter["is_suspended"]) == (5, True)
    # The first three with a traceback, the fourth, and the fifth with which it is left out.
    assert [bool(record.exc_info) for record in caplog.records] == [True, True, True, False, False]
    assert "left out" in caplog.records[-1].getMessage()
    tele.shutdown(10)


def test_a_background_reporter_that_was_left_out_is_tried_again(monkeypatch):
    failing = Failing()
    background = kastor.Background(failing)
    tele = kastor.enable(background)
    emit(tele, 10)
    assert tele.flush(10) and background.stats()["is_suspended"]
    failing.is_failing = False
    # Its time is over.
    background._suspended_until = time.monotonic()
    emit(tele, 10)
    assert tele.flush(10)
    stats = background.stats()
    assert failing.calls == 15 and stats["delivered"] == 10 and not stats["is_suspended"]


def test_what_a_background_reporter_records_itself_does_not_come_back_to_it():
    calls = []

    class Emitting:
        def record_timing(self, scope, duration, **metadata):
            calls.append(scope)
            emit(tele)

    background = kastor.Background(Emitting())
    tele = kastor.enable(background)
    emit(tele, 3)
    assert tele.flush(10) and calls == ["a"] * 3
    (reporter,) = tele.stats()["reporters"]
    assert (reporter["delivered"], reporter["dropped"]) == (3, {"reentrant": 3})
    assert tele.report().scope("a")["calls"] == 6


def test_accounts_add_up_while_events_wait():
    release, started = threading.Event(), threading.Event()

    class Blocked:
        def record_timing(self, scope, duration, **metadata):
            started.set()
            release.wait(60)

    tele = kastor.enable(kastor.Background(Blocked(), max_events=5))
    emit(tele)
    assert started.wait(10)
    emit(tele, 10)
    (reporter,) = tele.stats()["reporters"]
    assert (reporter["delivered"], reporter["queued"], reporter["dropped"]) == (0, 6, {"queue_full": 5})
    release.set()
    assert tele.flush(10)
    (reporter,) = tele.stats()["reporters"]
    assert (reporter["delivered"], reporter["queued"], reporter["dropped"]) == (6, 0, {"queue_full": 5})


def test_a_background_reporter_survives_finalisers_and_signals_that_emit():
    """Both may run on the thread that is just putting something into the queue."""
    quiet(
        """
        import gc, itertools, signal, kastor
        class Count:
            def __init__(self): self.scopes = {}
            def record_timing(self, scope, duration, **metadata):
                self.scopes[scope] = self.scopes.get(scope, 0) + 1
        count = Count()
        tele = kastor.enable(kastor.Background(count, max_events=1_000_000))
        died = itertools.count()
        class Dies:
            def __del__(self):
                next(died)
                with tele("del"): pass
        handled = itertools.count()
        def handler(*_):
            next(handled)
            with tele("signal"): pass
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        gc.set_threshold(3)
        for _ in range(20_000):
            cycle = [Dies()]
            cycle.append(cycle)
            with tele("a", cycle=cycle): pass
            del cycle
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
        assert tele.flush(20)
        ends = {}
        for path, times in count.scopes.items():
            last = path.rsplit(".")[-1]
            ends[last] = ends.get(last, 0) + times
        # What was emitted while the reporter itself was served is counted as such.
        (reporter,) = tele.stats()["reporters"]
        assert ends["a"] == 20_000, ends
        made = 20_000 + next(died) + next(handled)
        assert sum(ends.values()) + reporter["dropped"].get("reentrant", 0) == made, (ends, reporter, made)
        """,
        timeout=120,
    )


def test_a_background_reporter_drops_what_finds_no_room_and_counts_it():
    release, recorder = threading.Event(), Recorder()
    original = recorder.record_timing
    recorder.record_timing = lambda *args, **kwargs: (release.wait(30), original(*args, **kwargs))
    background = kastor.Background(recorder, max_events=10)
    tele = kastor.enable(background)
    emit(tele, 100)
    release.set()
    assert tele.flush(10)
    stats = background.stats()
    assert stats["delivered"] == len(recorder.timings) and stats["delivered"] + stats["dropped"] == 100
    assert 10 <= stats["delivered"] <= 11


@pytest.mark.parametrize("bad", [0, -1])
def test_a_background_reporter_needs_room(bad):
    with pytest.raises(ValueError):
        kastor.Background(Recorder(), max_events=bad)


def test_a_finalizer_that_waits_for_a_lock_of_the_program_stops_nobody():
    quiet("""
        import threading, kastor
        lock = threading.Lock()
        class Resource:
            def __del__(self):
                with lock: pass
        class Nothing:
            def record_timing(self, scope, duration, **metadata): pass
        tele = kastor.enable(kastor.Background(Nothing()))
        for _ in range(20_000):
            with lock:
                with tele("a"): pass
            with tele("b", resource=Resource()): pass
        assert tele.flush(30)
        """)


def test_what_the_collector_calls_while_the_thread_starts_may_emit():
    quiet("""
        import gc, kastor
        class Nothing:
            def record_timing(self, scope, duration, **metadata): pass
        tele = kastor.enable()
        def watch(phase, info):
            with tele("gc"): pass
        gc.callbacks.append(watch)
        gc.set_threshold(5)
        for _ in range(200):
            tele = kastor.enable(kastor.Background(Nothing()))
            with tele("a"): pass
            assert tele.flush(30)
        """)


def test_an_interrupted_emission_leaves_no_lock_behind():
    quiet("""
        import signal, threading, kastor
        class Stop(BaseException): pass
        def handler(*_): raise Stop
        signal.signal(signal.SIGALRM, handler)
        class Nothing:
            def record_timing(self, scope, duration, **metadata): pass
        background = kastor.Background(Nothing())
        tele = kastor.enable(background)
        for number in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 97 * 0.000003)
                while True:
                    with tele("a"): pass
            except Stop: pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        def emit():
            with tele("b"): pass
        thread = threading.Thread(target=emit)
        thread.start()
        thread.join(30)
        assert not thread.is_alive() and tele.flush(30)
        stats = background.stats()
        assert stats["queued"] == 0 and stats["delivered"] == stats["accepted"] > 0, stats
        """)


def test_logging_that_raises_does_not_end_the_thread():
    class Refuses(logging.Filter):
        def filter(self, record):
            raise KeyError("mine")

    failing = Failing()
    background = kastor.Background(failing)
    tele = kastor.enable(background)
    logger, refuses = logging.getLogger("kastor"), Refuses()
    logger.addFilter(refuses)
    try:
        emit(tele, 3)
        assert tele.flush(30)
    finally:
        logger.removeFilter(refuses)
    stats = background.stats()
    assert (stats["accepted"], stats["delivered"], stats["failures"], failing.calls) == (3, 0, 3, 3)


def test_a_reporter_that_flushes_waits_for_nobody():
    class Flushes:
        def __init__(self):
            self.answers = []

        def record_timing(self, scope, duration, **metadata):
            start = time.monotonic()
            self.tele.flush(30)
            self.answers.append(time.monotonic() - start < 15)

    one, other, inline = Flushes(), Flushes(), Flushes()
    tele = one.tele = other.tele = inline.tele = kastor.enable(kastor.Background(one), kastor.Background(other), inline)
    emit(tele, 3)
    assert tele.flush(60)
    assert one.answers == other.answers == inline.answers == [True] * 3


@pytest.mark.parametrize("wait", [-1, float("inf"), float("nan")])
def test_a_wait_that_is_no_time_is_refused(wait):
    with pytest.raises(ValueError, match="wait must be"):
        kastor.Background(Failing(), wait=wait)


def test_an_event_that_comes_as_the_idle_thread_ends_is_not_left_behind(monkeypatch):
    monkeypatch.setattr("kastor.background._IDLE_S", 0.0002)
    background = kastor.Background(Recorder())
    tele = kastor.enable(background)
    for number in range(2_000):
        emit(tele)
        deadline = time.monotonic() + 0.0001 * (number % 7)
        while time.monotonic() < deadline:
            pass
        if number % 50 == 0:
            # Nobody flushes: what is left behind would wait for the next event.
            deadline = time.monotonic() + 30
            while background.stats()["queued"] and time.monotonic() < deadline:
                time.sleep(0.001)
            assert background.stats()["queued"] == 0
    assert tele.flush(30) and background.stats()["delivered"] == 2_000
