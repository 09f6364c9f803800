"""No value, wherever it is passed, makes kastor raise into the program, but for the two documented errors (R1, R13)."""

import contextlib
import gc
import pathlib
import sys
import time

import pytest

import kastor
from hostile import VALUES, Angry, AngryBase
from support import Recorder, python, quiet

RECORDINGS = {
    "aggregates": lambda: (),
    "python": lambda: (Recorder(),),
    "simple": lambda: (kastor.SimpleReporter(),),
    "recording": lambda: (kastor.Recording(),),
    "all": lambda: (Recorder(), kastor.SimpleReporter(), kastor.Recording()),
}


def scope_value(tele, value):
    with tele("hostile.scope", key=value, other=1):
        pass


def scope_values(tele, value):
    with tele("hostile.scope", **{f"k{i}": value for i in range(30)}):
        pass


def built_in_keys(tele, value):
    with tele("hostile.scope", depth=value, parent_scope=value, call_count=value, start_monotonic_s=value, scope=value,
              self=value, duration=value, name=value, error_type=value, metric_type=value):  # fmt: skip
        with tele("inner"):
            pass


def nested(tele, value):
    with tele("hostile.scope", key=[value, {"k": value}, (value,)]):
        pass


def raised(tele, value):
    class Error(Exception):
        pass

    with contextlib.suppress(Error):
        with tele("hostile.scope"):
            raise Error(value)


def exited(tele, value):
    scope = tele("hostile.scope")
    scope.__enter__()
    scope.__exit__(value, value, value)


def metric_value(tele, value):
    tele.metric("hostile.metric", value)
    tele.metric("hostile.metric", 1, key=value)


def count_value(tele, value):
    tele.count("hostile.count", value)
    tele.count("hostile.count", increment=value)
    tele.count("hostile.count", key=value)
    tele.count("hostile.count", metric_type=value, depth=value, name=value, scope=value)


def gauge_value(tele, value):
    tele.gauge("hostile.gauge", value)
    tele.gauge("hostile.gauge", 1, key=value, value_=value)


def histogram_value(tele, value):
    tele.histogram("hostile.histogram", value)
    tele.histogram("hostile.histogram", 1, key=value)


def late_value(tele, value):
    with tele("hostile.scope") as context:
        context.set(key=value, depth=value, scope=value)
        context.event("hostile.event", key=value)
        context.event(value, key=value)
        context.link(value)
        context.fail(value)


def late_value_of_a_scope(tele, value):
    scope = tele("hostile.scope", key=value)
    with scope:
        scope.set(key=value, other=value)
        scope.event(value, key=value)
        scope.link(value)
        scope.fail(value)
    with scope:
        scope.discard()


def carried(tele, value):
    with tele.attach(value), tele("hostile.scope", key=value):
        job = tele.carry(lambda argument: argument)
    assert job(value) is value


def described(tele, value):
    tele.describe("hostile.count", unit=value, help=value)
    tele.describe(value, unit="s", help="")


def switched(tele, value):
    tele.switch_scopes(value, True)


def recorded(tele, value):
    tele.record_paths(value, True)


def set_enabled(tele, value):
    try:
        tele.set_enabled(value)
    finally:
        tele.set_enabled(True)


def flushed(tele, value):
    tele.flush(value)


def persisted(tele, value):
    tele.persist(value)


def shut_down(tele, value):
    tele.shutdown(value)


def carried_as_it_is(tele, value):
    tele.carry(value)


COLD = [described, switched, recorded, set_enabled, flushed, persisted, shut_down, carried_as_it_is]


#: Entry points that take a name: a ValueError is documented for them, and nothing else.
def scope_name(tele, value):
    with tele(value):
        pass


def time_name(tele, value):
    with tele.time(value):
        pass


def metric_name(tele, value):
    tele.metric(value, 1)


def count_name(tele, value):
    tele.count(value)


def gauge_name(tele, value):
    tele.gauge(value, 1)


def histogram_name(tele, value):
    tele.histogram(value, 1)


NAMES = {scope_name, time_name, metric_name, count_name, gauge_name, histogram_name}
ENTRIES = [
    scope_value, scope_values, built_in_keys, nested, raised, exited, metric_value, count_value, gauge_value,
    histogram_value, late_value, late_value_of_a_scope, carried, *sorted(NAMES, key=lambda entry: entry.__name__),
]  # fmt: skip


#: The disabled context is its own scope, and carries a function as it is.
ON_DISABLED = [*(entry for entry in ENTRIES if entry not in (late_value_of_a_scope, carried)), described]


@pytest.fixture(scope="module", params=RECORDINGS)
def context(request):
    return kastor.enable(*RECORDINGS[request.param]())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_no_value_escapes(context, entry):
    escapes = []
    for name, make in VALUES.items():
        value = make()
        try:
            entry(context, value)
        except ValueError as error:
            if entry not in NAMES:
                escapes.append((name, repr(error)))
        except BaseException as error:
            escapes.append((name, type(error).__name__))
        del value
    assert escapes == []
    with context("still.works"):
        pass
    assert kastor.current_traceparent() is None


@pytest.mark.parametrize("entry", COLD, ids=lambda entry: entry.__name__)
def test_no_value_escapes_from_the_cold_methods(entry):
    """These are no recording path: a wrong type is refused with an ordinary TypeError or ValueError, never another error; what
    is no `Exception` goes on."""
    escapes = []
    for name, make in VALUES.items():
        tele = kastor.enable()
        try:
            entry(tele, make())
        except (TypeError, ValueError, AngryBase):
            pass
        except BaseException as error:
            escapes.append((name, type(error).__name__))
    assert escapes == []


@pytest.mark.parametrize("entry", ON_DISABLED, ids=lambda entry: entry.__name__)
def test_the_disabled_context_takes_everything(entry):
    off, escapes = kastor.TelemetryContext(), []
    for name, make in VALUES.items():
        value = make()
        if entry in (scope_name, time_name):  # called with a function it decorates
            off(value).__exit__(None, None, None) if not callable(value) else None
            continue
        try:
            entry(off, value)
        except BaseException as error:
            escapes.append((name, type(error).__name__))
    assert escapes == []


@pytest.mark.parametrize("name", VALUES)
def test_a_python_reporter_gets_the_very_object(name):
    recorder = Recorder()
    tele = kastor.enable(recorder, kastor.SimpleReporter())
    value = VALUES[name]()
    with tele("a", key=value):
        tele.metric("m", value, key=value)
        tele.gauge("g", value, key=value)
    timing, (metric, gauge) = recorder.timings[0], recorder.metrics
    assert timing.metadata["key"] is value
    assert metric.value is value and metric.metadata["key"] is value
    assert gauge.value is value and gauge.metadata["key"] is value


def test_no_code_of_a_value_runs_where_only_native_reporters_listen():
    """A user's `__repr__` may be slow, may block, may emit: it is not called unless that was asked for."""
    called = []

    class Watching:
        def __getattribute__(self, name):
            called.append(name)
            return object.__getattribute__(self, name)

        def __repr__(self):
            called.append("repr")
            return ""

        def __hash__(self):
            called.append("hash")
            return 1

    tele = kastor.enable(kastor.Recording())
    with tele("a", key=Watching()):
        tele.metric("m", Watching(), key=Watching())
        tele.count("c", key=Watching())
    tele.flush(5)
    assert called == []


def test_a_value_that_dies_inside_kastor_may_emit():
    class Dies:
        def __init__(self, tele):
            self.tele = tele

        def __del__(self):
            with self.tele("from.del"):
                self.tele.count("n")

    recorder = Recorder()
    tele = kastor.enable(recorder)
    quiet_one = kastor.enable()
    for _ in range(100):
        with quiet_one("a", key=Dies(tele)):
            quiet_one.metric("m", Dies(tele))
            quiet_one.count("c", Dies(tele), key=Dies(tele))
    gc.collect()
    assert recorder.scopes.count("from.del") + recorder.scopes.count("a.from.del") == 400
    assert kastor.current_traceparent() is None


def test_a_gigabyte_costs_a_moment():
    """A value over the limit is refused or cut by its length, not read: one of 256 MiB costs what one of 1 MiB does."""
    tele = kastor.enable(kastor.Recording())
    value = "x" * (256 << 20)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        with tele("a", key=value):
            pass
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3


def test_a_hostile_reporter_object_is_contained():
    class Odd:
        def __getattribute__(self, name):
            raise Angry(name)

    class OddClass(type):
        def __getattribute__(self, name):
            raise Angry(name)

    class OfOddClass(metaclass=OddClass):
        pass

    for reporter in (Odd(), object(), None, 5, "text", Odd, [], lambda: None, object.__new__(OfOddClass)):
        recorder = Recorder()
        tele = kastor.enable(reporter, recorder)
        with tele("a"):
            tele.count("c")
        assert recorder.scopes == ["a"]
        assert tele.flush(1) and tele.stats()["timings"] == 1


def test_a_memory_error_in_a_reporter_is_contained(caplog):
    class Full:
        def record_timing(self, *_, **__):
            raise MemoryError

        def record_metric(self, *_, **__):
            raise RecursionError

    recorder = Recorder()
    tele = kastor.enable(Full(), recorder)
    with tele("a"):
        tele.count("c")
    assert len(recorder.events) == 2


def test_at_the_recursion_limit_nothing_but_the_recursion_error_comes_out():
    """There the reporter's own call fails, until it is left out for a while: counted, like any failure."""
    tele = kastor.enable(Recorder())
    entered = []

    def recurse():
        with tele("r", k=1):
            entered.append(True)
            tele.count("c", label="x")
            recurse()

    with pytest.raises(RecursionError):
        recurse()
    assert kastor.current_traceparent() is None
    (reporter,) = tele.stats()["reporters"]
    counted = tele.report().as_dict()
    calls = sum(row["calls"] for row in (*counted["scopes"], *counted["metrics"]))
    assert len(entered) > 100 and reporter["delivered"] + sum(reporter["dropped"].values()) == calls


def test_the_whole_matrix_under_every_native_limit_leaves_stderr_empty(tmp_path):
    """In a process of its own, with a capture that writes the values to a file, and a regular exit."""
    folder = pathlib.Path(__file__).parent
    quiet(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import kastor, test_hostile
        from hostile import VALUES
        tele = kastor.TelemetryContext(kastor.Recording(), kastor.SimpleReporter())
        assert tele.is_enabled
        for entry in test_hostile.ENTRIES:
            for name, make in VALUES.items():
                value = make()
                try:
                    entry(tele, value)
                except ValueError:
                    assert entry in test_hostile.NAMES, (entry, name)
        tele.shutdown(10)
        """,
        str(folder),
        timeout=120,
        KASTOR_TELEMETRY="1",
        KASTOR_CAPTURE=str(tmp_path),
        options=("-W", "error", "-W", "ignore::ResourceWarning"),
    )


def test_the_hostile_values_are_as_many_as_promised():
    assert len(VALUES) >= 60


@pytest.mark.skipif(sys.platform != "linux", reason="reads limits as Linux has them")
def test_an_allocation_failure_ends_in_a_memory_error_of_the_program_or_in_nothing():
    done = python(
        """
        import resource, kastor
        tele = kastor.enable(kastor.Recording(max_bytes=1 << 30))
        with tele("a"): pass
        tele.flush(10)  # Its threads run: the C library aborts a process in which a starting one finds no memory.
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), resource.RLIM_INFINITY))
        try:
            value = "x" * (1 << 30)
        except MemoryError:
            print("full")
        with tele("b", key="y" * 1000): pass
        """
    )
    assert (done.returncode, done.stdout) == (0, "full\n"), done
