"""The protocol of reporters, and what a bad one may not do (R2)."""

import logging
import threading
import time

import pytest

import kastor
from kastor import compat
from support import TIMING_KEYS, Recorder


class Failing:
    """Raises on every event, and counts the calls."""

    def __init__(self, error=ValueError):
        self.error = error
        self.calls = 0

    def record_timing(self, scope, duration, **metadata):
        self.calls += 1
        raise self.error("mine")

    record_metric = record_timing


def emit(tele, times=1):
    for _ in range(times):
        with tele("a"):
            pass


@pytest.mark.parametrize("protocol", [kastor.TelemetryReporter, compat.TelemetryReporter])
def test_the_protocol_is_runtime_checkable_and_duck_typed(protocol):
    class OnlyTimings:
        def record_timing(self, scope, duration, **metadata): ...

    assert isinstance(Recorder(), protocol)
    assert isinstance(kastor.SimpleReporter(), protocol)
    assert isinstance(compat._SimpleReporter(), protocol)
    assert not isinstance(object(), protocol) and not isinstance(OnlyTimings(), protocol)


def test_a_reporter_with_one_method_gets_those_events_without_noise(caplog):
    class OnlyTimings:
        def __init__(self):
            self.scopes = []

        def record_timing(self, scope, duration, **metadata):
            self.scopes.append(scope)

    class OnlyMetrics:
        def __init__(self):
            self.scopes = []

        def record_metric(self, scope, value, **metadata):
            self.scopes.append(scope)

    timings, metrics = OnlyTimings(), OnlyMetrics()
    tele = kastor.enable(timings, metrics)
    with tele("a"):
        tele.count("c")
        tele.metric("m", 1)
    assert timings.scopes == ["a"] and metrics.scopes == ["a.c", "a.m"]
    assert caplog.records == []


def test_a_reporter_that_inherits_from_the_protocol():
    class Mine(kastor.TelemetryReporter):
        def __init__(self):
            self.scopes = []

        def record_timing(self, scope, duration, **metadata):
            self.scopes.append(scope)

    mine = Mine()
    tele = kastor.enable(mine)
    with tele("a"):
        tele.count("c")
    assert mine.scopes == ["a"]


def test_methods_are_looked_up_when_an_event_comes(tele, recorder):
    recorder.record_timing = lambda scope, duration, **metadata: recorder.metrics.append(scope)
    emit(tele)
    assert recorder.metrics == ["a"] and recorder.timings == []


def test_methods_may_be_class_methods_static_methods_and_callables():
    seen = []

    class Static:
        @staticmethod
        def record_timing(scope, duration, **metadata):
            seen.append(("static", scope))

    class OfClass:
        @classmethod
        def record_timing(cls, scope, duration, **metadata):
            seen.append(("class", scope))

    class Attribute:
        def __init__(self):
            self.record_timing = lambda *args, **kwargs: seen.append(("attribute", args[0]))

    emit(kastor.enable(Static, OfClass, Attribute()))
    assert seen == [("static", "a"), ("class", "a"), ("attribute", "a")]


def test_the_first_two_arguments_are_positional_and_metadata_are_keywords():
    seen = []

    class Spying:
        def record_timing(self, *args, **kwargs):
            seen.append((args, kwargs))

        record_metric = record_timing

    tele = kastor.enable(Spying())
    with tele("a", k=1):
        tele.count("c")
    (metric, metric_keys), (timing, timing_keys) = seen
    assert metric == ("a.c", 1) and timing[0] == "a" and len(timing) == 2
    assert "k" in timing_keys and metric_keys["metric_type"] == "counter"


def test_an_exception_of_a_reporter_is_contained_and_the_others_are_served():
    before, after = Recorder(), Recorder()
    tele = kastor.enable(before, Failing(), after)
    for _ in range(50):
        with tele("a"):
            tele.count("c")
    assert len(before.events) == len(after.events) == 100


def test_a_reporter_cannot_replace_the_exception_of_the_program():
    tele, error = kastor.enable(Failing()), KeyError("program")
    with pytest.raises(KeyError) as caught:
        with tele("a"):
            raise error
    assert caught.value is error and error.__context__ is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_goes_on_after_the_others_were_served(kind):
    recorder = Recorder()
    tele = kastor.enable(Failing(kind), recorder)
    with pytest.raises(kind):
        emit(tele)
    with pytest.raises(kind):
        tele.count("c")
    assert [event.scope for event in recorder.events] == ["a", "c"]
    assert kastor.current_traceparent() is None


def test_a_base_exception_is_chained_to_the_exception_of_the_program():
    tele = kastor.enable(Failing(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt) as caught:
        with tele("a"):
            raise KeyError("program")
    assert isinstance(caught.value.__context__, KeyError)


def test_two_base_exceptions_are_chained():
    first, second = Failing(KeyboardInterrupt), Failing(SystemExit)
    tele, recorder = kastor.enable(first, second), Recorder()
    with pytest.raises(SystemExit) as caught:
        emit(tele)
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert first.calls == second.calls == 1 and recorder.events == []


def test_failures_are_logged_with_a_traceback_at_first_and_then_rarely(caplog):
    failing = Failing()
    tele = kastor.enable(failing)
    with caplog.at_level(logging.DEBUG):
        emit(tele, 2000)
    assert 1 <= len(caplog.records) < 50
    assert any(record.exc_info or "Traceback" in record.getMessage() for record in caplog.records)
    assert all(record.name.startswith("kastor") for record in caplog.records)
    assert "mine" in caplog.text and "Failing" in caplog.text


def test_a_reporter_that_fails_again_and_again_is_suspended(caplog):
    failing, recorder = Failing(), Recorder()
    tele = kastor.enable(failing, recorder)
    emit(tele, 1000)
    assert failing.calls < 50 and len(recorder.timings) == 1000


def test_a_suspended_reporter_is_probed_and_comes_back(caplog):
    failing = Failing()
    tele = kastor.enable(failing)
    emit(tele, 100)
    calls, healed = failing.calls, []
    failing.record_timing = lambda scope, duration, **metadata: healed.append(scope)
    deadline = time.monotonic() + 20
    while not healed and time.monotonic() < deadline:
        emit(tele)
        time.sleep(0.01)
    assert healed and failing.calls == calls
    emit(tele, 10)
    assert len(healed) >= 11


def test_one_failure_now_and_then_suspends_nobody(caplog):
    class Sometimes(Recorder):
        def record_timing(self, scope, duration, **metadata):
            super().record_timing(scope, duration, **metadata)
            if len(self.timings) % 3 == 0:
                raise ValueError

    sometimes = Sometimes()
    emit(kastor.enable(sometimes), 300)
    assert len(sometimes.timings) == 300


def test_a_failing_logger_is_contained_too():
    class Broken(logging.Handler):
        def emit(self, record):
            raise ValueError("the handler")

    handler = Broken()
    logging.getLogger().addHandler(handler)
    try:
        recorder = Recorder()
        emit(kastor.enable(Failing(), recorder), 20)
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(recorder.timings) == 20


def test_a_reporter_may_use_the_context_that_it_serves():
    class Reentrant(Recorder):
        def record_timing(self, scope, duration, **metadata):
            super().record_timing(scope, duration, **metadata)
            with tele("inside"):
                tele.count("again")
            tele.metric("m", 1)

    reentrant, recorder = Reentrant(), Recorder()
    tele = kastor.enable(reentrant, recorder)
    emit(tele, 10)
    assert recorder.scopes.count("a") == 10 and kastor.current_traceparent() is None
    assert len(reentrant.events) < 1000


def test_what_a_reporter_records_on_another_context_is_added_up_there_and_counted():
    """Reporters that serve each other's contexts would never end: nothing that a reporter records reaches reporters."""
    other = Recorder()
    second = kastor.enable(other)

    class Forwarding:
        def record_timing(self, scope, duration, **metadata):
            with second("forwarded"):
                pass

    with kastor.enable(Forwarding())("a"):
        pass
    assert second.report().as_dict()["scopes"][0]["path"] == "forwarded"
    assert other.events == [] and second.stats()["reporters"][0]["dropped"] == {"reentrant": 1}
    with second("outside"):
        pass
    assert other.scopes == ["outside"]


@pytest.mark.parametrize("call", ["flush", "shutdown", "report", "stats", "open_scopes"])
def test_a_reporter_may_ask_the_context_without_a_deadlock(call):
    recorder = Recorder()

    class Asking:
        def record_timing(self, scope, duration, **metadata):
            getattr(tele, call)()

    tele = kastor.enable(Asking(), recorder)
    start = time.monotonic()
    emit(tele)
    assert time.monotonic() - start < 5 and recorder.scopes == ["a"]


def test_the_scope_is_left_before_its_reporters_run():
    seen = []

    class Looking:
        def record_timing(self, scope, duration, **metadata):
            seen.append((scope, kastor.current_traceparent()))

    tele = kastor.enable(Looking())
    with tele("a"):
        outer = kastor.current_traceparent()
        with tele("b"):
            pass
    assert seen == [("a.b", outer), ("a", None)]


def test_reporters_run_on_the_thread_that_closed_the_scope():
    threads = []

    class Noting:
        def record_timing(self, scope, duration, **metadata):
            threads.append(threading.get_ident())

    tele = kastor.enable(Noting())
    worker = threading.Thread(target=emit, args=(tele,))
    worker.start()
    ident = worker.ident
    worker.join(30)
    assert threads == [ident]


def test_a_function_reporter_is_made_of_functions():
    timings, metrics = [], []
    tele = kastor.enable(
        kastor.FunctionReporter(timing=lambda scope, duration, metadata: timings.append((scope, metadata["depth"]))),
        kastor.FunctionReporter(metric=lambda scope, value, metadata: metrics.append((scope, value))),
    )
    with tele("a"):
        tele.count("c", 3)
    assert timings == [("a", 0)] and metrics == [("a.c", 3)]


def test_a_filtered_reporter_gets_what_fits_its_pattern():
    recorder = Recorder()
    tele = kastor.enable(kastor.FilteredReporter(recorder, "job.*"))
    with tele("job"):
        with tele("[step]"):
            tele.count("c")
    with tele("other"):
        pass
    assert [event.scope for event in recorder.events] == ["job.[step].c", "job.[step]"]


def test_shutdown_disables_for_ever_and_is_idempotent(tele, recorder):
    emit(tele)
    tele.shutdown(5)
    tele.shutdown(5)
    emit(tele)
    tele.count("c")
    assert not tele.is_enabled and recorder.scopes == ["a"] and recorder.metrics == []
    tele.set_enabled(True)
    emit(tele)
    assert recorder.scopes == ["a"]


def test_flush_and_shutdown_take_no_argument_too(tele):
    emit(tele)
    tele.flush()
    tele.shutdown()


def test_chaos_beside_a_good_reporter_loses_nothing(caplog):
    class Chaos:
        def __init__(self):
            self.calls = 0

        def record_timing(self, scope, duration, **metadata):
            self.calls += 1
            match self.calls % 5:
                case 0:
                    raise ValueError
                case 1:
                    with tele("inner"):
                        pass
                case 2:
                    tele.flush(0.01)
                case 3:
                    metadata.clear()
                case 4:
                    raise MemoryError

        record_metric = record_timing

    recorder = Recorder()
    tele = kastor.enable(Chaos(), recorder, Chaos())
    threads = [threading.Thread(target=emit, args=(tele, 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert recorder.scopes.count("a") == 2000


def test_what_a_reporter_keeps_stays_as_it_was():
    """The numbers of an event are used again, but not while anybody has them."""

    class Keeping:
        def __init__(self):
            self.kept = []

        def record_timing(self, scope, duration, *, start_monotonic_s, end_wall_time_s, **metadata):
            self.kept.append((duration, end_wall_time_s - start_monotonic_s) if len(self.kept) % 2 else [duration])

    clock, keeping, recorder = kastor.MockClock(), Keeping(), Recorder()
    tele = kastor.enable(keeping, recorder, clock=clock)
    for number in range(100):
        with tele("a"):
            clock.advance(number)
    assert [kept[0] for kept in keeping.kept] == [float(number) for number in range(100)]
    assert [event.value for event in recorder.timings] == [float(number) for number in range(100)]
    starts = [event.metadata["start_monotonic_s"] for event in recorder.timings]
    assert [later - earlier for earlier, later in zip(starts, starts[1:])] == [float(number) for number in range(99)]
    numbers = [event.metadata[key] for event in recorder.timings for key in TIMING_KEYS[3:]]
    assert len(set(map(id, numbers))) == len(numbers)


def test_a_reporter_that_changes_its_metadata_changes_nobody_elses():
    class Changing:
        def record_timing(self, scope, duration, **metadata):
            metadata.clear()
            metadata["depth"] = "changed"

    recorder = Recorder()
    with kastor.enable(Changing(), recorder)("a", k=1):
        pass
    assert recorder.only().metadata["depth"] == 0 and recorder.only().metadata["k"] == 1
