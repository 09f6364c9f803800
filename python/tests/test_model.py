"""Random histories against two models: explicit contexts (Hypothesis, shrinking), and asyncio programs (R10).

The first model keeps one plain list of scopes per context; the second, of `stack_models.py`, an immutable tuple in a ContextVar
of its own, so that CPython itself takes the snapshots. `python/benches/reference.py`, the specification in plain Python, is held
to both too: what they agree on is not an accident of the native code.
"""

import asyncio
import contextvars
import os
import pathlib
import sys
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import kastor
from stack_models import Programs
from support import TIMING_KEYS, Recorder, current_path

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benches"))
import reference  # noqa: E402

DEEP = os.environ.get("KASTOR_DEEP") == "1"
MOST_ABOVE = 64
NAMES = st.sampled_from(["a", "b", "c", "pipeline.plan", "x1"])
KEYS = st.dictionaries(st.sampled_from(["k", "depth", "scope", "z", "duration", "name"]), st.integers(), max_size=3)
TIMING_NAMES = {"scope": "scope_", "duration": "duration_", "name": "name_"}
METRIC_NAMES = {"scope": "scope_", "name": "name_"}
ERRORS = {
    None: None,
    KeyError: "KeyError",
    KeyboardInterrupt: "KeyboardInterrupt",
    GeneratorExit: None,
    asyncio.CancelledError: "cancelled",
}


class Twin:
    """What the model knows of a scope that is open."""

    def __init__(self, flow, below, name, keys):
        self.flow, self.name, self.keys, self.over = flow, name, keys, False
        self.parent = below[-1].path if below else None
        self.path = f"{self.parent}.{name}" if below else name
        self.depth = below[-1].depth + 1 if below else 0

    def event(self, error):
        metadata = dict.fromkeys(TIMING_KEYS, ...)
        metadata |= {"depth": self.depth, "parent_scope": self.parent, "call_count": self.depth}
        if error:
            metadata["error_type"] = error
        for key, value in self.keys.items():
            metadata[TIMING_NAMES.get(key, key)] = value
        return self.path, metadata


class Flow:
    """One context: the real one, and the model's list of the scopes that count in it."""

    def __init__(self, context, stack):
        self.context, self.stack = context, list(stack)

    def counting(self):
        return [twin for twin in self.stack if not twin.over]


def history(make):
    """The machine for what `make()` returns: a context, and its recorder."""

    class Histories(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            self.tele, self.recorder = make()
            self.flows = [Flow(contextvars.Context(), [])]
            self.open = []  # (scope, twin)
            self.closed = []  # scope objects that may be entered again
            self.generators = []  # (generator, twin)

        def flow(self, choice):
            return self.flows[choice % len(self.flows)]

        def run(self, flow, function, *arguments):
            """Through another context, entered on top of this one, or on another thread: it makes no difference."""
            how = self.how % 4
            other = self.flow(self.how >> 2)
            if how == 1 and other is not flow:
                return other.context.run(flow.context.run, function, *arguments)
            if how == 2:
                got = []

                def body():
                    try:
                        got.append((True, flow.context.run(function, *arguments)))
                    except BaseException as error:
                        got.append((False, error))

                thread = threading.Thread(target=body)
                thread.start()
                thread.join()
                well, value = got[0]
                if well:
                    return value
                raise value
            return flow.context.run(function, *arguments)

        how = 0

        @rule(choice=st.integers(0, 1000), name=NAMES, keys=KEYS, how=st.integers(0, 100))
        def enter(self, choice, name, keys, how):
            flow, self.how = self.flow(choice), how
            scope = self.tele(name, **keys)
            assert self.run(flow, scope.__enter__) is self.tele
            self._opened(flow, scope, name, keys)

        def _opened(self, flow, scope, name, keys):
            twin = Twin(flow, flow.counting(), name, keys)
            flow.stack = [*flow.counting(), twin]
            self.open.append((scope, twin))

        @rule(choice=st.integers(0, 1000), many=st.integers(60, 70))
        def enter_many(self, choice, many):
            flow, self.how = self.flow(choice), 0
            for _ in range(many):
                scope = self.tele("many")
                self.run(flow, scope.__enter__)
                self._opened(flow, scope, "many", {})

        @precondition(lambda self: self.open)
        @rule(which=st.integers(0, 1000), at_home=st.booleans(), choice=st.integers(0, 1000), how=st.integers(0, 100),
              error=st.sampled_from(list(ERRORS)))  # fmt: skip
        def leave(self, which, at_home, choice, how, error):
            index = -1 - which % len(self.open)
            scope, twin = self.open.pop(index)
            flow, self.how = twin.flow if at_home else self.flow(choice), how
            arguments = (None, None, None) if error is None else (error, error(), None)
            assert not self.run(flow, scope.__exit__, *arguments)
            self._left(flow, twin, ERRORS[error])
            self.closed.append((scope, twin))

        def _left(self, flow, twin, error=None):
            here = flow.counting()
            if twin.flow is flow and twin in here and len(here) - here.index(twin) - 1 <= MOST_ABOVE:
                flow.stack = [other for other in here if other is not twin]
            else:
                twin.over = True
            path, want = twin.event(error)
            event = self.recorder.timings.pop()
            assert (event[0], len(self.recorder.timings)) == (path, 0)
            assert list(event[2]) == list(want)
            assert {k: v for k, v in event[2].items() if want[k] is not ...} == {
                k: v for k, v in want.items() if v is not ...
            }
            assert event[1] >= 0

        @precondition(lambda self: self.closed)
        @rule(which=st.integers(0, 1000), choice=st.integers(0, 1000), how=st.integers(0, 100))
        def enter_again(self, which, choice, how):
            scope, twin = self.closed.pop(which % len(self.closed))
            flow, self.how = self.flow(choice), how
            self.run(flow, scope.__enter__)
            self._opened(flow, scope, twin.name, twin.keys)

        @precondition(lambda self: self.closed)
        @rule(which=st.integers(0, 1000), choice=st.integers(0, 1000))
        def leave_twice(self, which, choice):
            self.how = 0
            self.run(self.flow(choice), self.closed[which % len(self.closed)][0].__exit__, KeyError, KeyError(), None)
            assert self.recorder.timings == []

        @precondition(lambda self: self.open)
        @rule(which=st.integers(0, 1000), choice=st.integers(0, 1000))
        def enter_while_open(self, which, choice):
            self.how = 0
            with pytest.raises(RuntimeError):
                self.run(self.flow(choice), self.open[which % len(self.open)][0].__enter__)

        @rule(choice=st.integers(0, 1000), name=st.sampled_from(["", None, 5]))
        def enter_without_a_name(self, choice, name):
            self.how = 0
            with pytest.raises(ValueError):
                self.run(self.flow(choice), self.tele(name).__enter__)

        @precondition(lambda self: len(self.flows) < 12)
        @rule(choice=st.integers(0, 1000), inside=st.booleans())
        def copy(self, choice, inside):
            flow, self.how = self.flow(choice), 0
            copied = flow.context.run(contextvars.copy_context) if inside else flow.context.copy()
            self.flows.append(Flow(copied, flow.counting()))

        @precondition(lambda self: len(self.flows) < 12)
        @rule()
        def fresh_context(self):
            self.flows.append(Flow(contextvars.Context(), []))

        @precondition(lambda self: len(self.generators) < 6)
        @rule(choice=st.integers(0, 1000), name=NAMES, how=st.integers(0, 100))
        def start_generator(self, choice, name, how):
            flow, self.how = self.flow(choice), how
            made = self._generator(name)
            self.run(flow, next, made)
            twin = Twin(flow, flow.counting(), name, {})
            flow.stack = [*flow.counting(), twin]
            self.generators.append((made, twin))

        def _generator(self, name):
            with self.tele(name):
                yield 1
                yield 2

        @precondition(lambda self: self.generators)
        @rule(which=st.integers(0, 1000), choice=st.integers(0, 1000), how=st.integers(0, 100),
              ending=st.sampled_from(["close", "throw", "exhaust", "drop"]))  # fmt: skip
        def end_generator(self, which, choice, how, ending):
            made, twin = self.generators.pop(which % len(self.generators))
            flow, self.how = self.flow(choice), how
            if ending == "close":
                self.run(flow, made.close)
            elif ending == "throw":
                with pytest.raises(KeyError):
                    self.run(flow, made.throw, KeyError("mine"))
            elif ending == "exhaust":
                assert self.run(flow, list, made) == [2]
            else:
                holder = [made]
                del made
                self.run(flow, holder.clear)
            self._left(flow, twin, "KeyError" if ending == "throw" else None)

        @rule(choice=st.integers(0, 1000), kind=st.sampled_from(["metric", "count", "gauge", "histogram"]),
              value=st.one_of(st.integers(), st.floats(), st.none(), st.text()), keys=KEYS, how=st.integers(0, 100))  # fmt: skip
        def metric(self, choice, kind, value, keys, how):
            flow, self.how = self.flow(choice), how
            self.run(flow, lambda: getattr(self.tele, kind)("m", value, **keys))
            here = flow.counting()
            want = {"depth": here[-1].depth + 1 if here else 0, "parent_scope": here[-1].path if here else None}
            if kind != "metric":
                want["metric_type"] = "counter" if kind == "count" else kind
            for key, item in keys.items():
                want[METRIC_NAMES.get(key, key)] = item
            path, got, metadata = self.recorder.metrics.pop()
            assert (path, list(metadata.items())) == (f"{here[-1].path}.m" if here else "m", list(want.items()))
            assert got is value

        @rule(choice=st.integers(0, 1000), how=st.integers(0, 100))
        def decorated(self, choice, how):
            flow, self.how = self.flow(choice), how
            function = self.tele("decorated")(lambda x: x + 1)
            assert self.run(flow, function, 1) == 2
            here = flow.counting()
            assert self.recorder.timings.pop()[0] == (f"{here[-1].path}.decorated" if here else "decorated")

        @invariant()
        def every_flow_has_the_innermost_scope_of_the_model(self):
            for flow in getattr(self, "flows", ()):
                here = flow.counting()
                flow.context.run(self.tele.metric, "probe", None)
                path = self.recorder.metrics.pop()[2]["parent_scope"]
                assert path == (here[-1].path if here else None)

        def teardown(self):
            for made, _ in getattr(self, "generators", ()):
                made.close()

    Histories.TestCase.settings = settings(
        max_examples=2000 if DEEP else 60,
        stateful_step_count=100 if DEEP else 40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return Histories.TestCase


def native():
    recorder = Recorder()
    return kastor.enable(recorder), recorder


def native_beside_others():
    recorder = Recorder()
    return kastor.enable(kastor.Recording(), recorder, kastor.SimpleReporter()), recorder


def plain():
    recorder = Recorder()
    return reference.Telemetry(recorder), recorder


TestNativeHistories = history(native)
TestNativeHistoriesBesideOtherReporters = history(native_beside_others)
TestReferenceHistories = history(plain)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [native, plain])
def test_random_asyncio_programs(make, seed):
    tele, recorder = make()

    def is_here(names):
        # A path is fixed when its scope opens: only the innermost name and emptiness follow from the list.
        path = current_path(tele, recorder)
        return (path is None) == (not names) and (not names or path.split(".")[-1] == names[-1])

    # Few names: a process keeps only so many paths apart, and other tests need some.
    programs = Programs(seed, tele, is_here, [f"s{number}" for number in range(50)])
    contextvars.Context().run(programs.run, 100_000 if DEEP else 4_000)
