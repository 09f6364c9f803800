"""For the tests of programs that use kastor: a reporter that keeps what it gets, and what to ask it.

    from kastor import enable
    from kastor.testing import RecordingReporter

    def test_the_pipeline_plans_once():
        recording = RecordingReporter()
        run_pipeline(enable(recording))
        assert recording.calls("pipeline.plan") == 1

With pytest nothing has to be imported: the fixture `kastor_telemetry` has an enabled context at `kastor_telemetry.tele` and
such a reporter at `kastor_telemetry.recording`. With
`enable(recording, clock=MockClock())` time stands still until the test moves it, and durations can be compared exactly.
"""

from __future__ import annotations

import threading
from typing import Any, Iterator, NamedTuple

__all__ = ["MetricEvent", "RecordingReporter", "TimingEvent"]


class TimingEvent(NamedTuple):
    """A closed scope: its full path, its length in seconds, and the metadata with the built-in keys first."""

    scope: str
    duration: float
    metadata: dict[str, Any]

    @property
    def error_type(self) -> str | None:
        """How it failed, or None."""
        return self.metadata.get("error_type")


class MetricEvent(NamedTuple):
    """A recorded metric: its full path, the very object that was passed, and the metadata."""

    scope: str
    value: Any
    metadata: dict[str, Any]


class RecordingReporter:
    """Keeps every event in memory, in the order in which they came; safe to use from many threads.

    `max_events` bounds what is kept; beyond it `dropped` counts.
    """

    def __init__(self, max_events: int = 1_000_000) -> None:
        self.max_events = max_events
        self.dropped = 0
        self._events: list[TimingEvent | MetricEvent] = []
        self._lock = threading.Lock()

    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None:
        self._keep(TimingEvent(scope, duration, metadata))

    def record_metric(self, scope: str, value: Any, **metadata: Any) -> None:
        self._keep(MetricEvent(scope, value, metadata))

    def _keep(self, event: TimingEvent | MetricEvent) -> None:
        with self._lock:
            if len(self._events) < self.max_events:
                self._events.append(event)
            else:
                self.dropped += 1

    @property
    def events(self) -> list[TimingEvent | MetricEvent]:
        """Everything so far, as a list of its own."""
        with self._lock:
            return list(self._events)

    @property
    def timings(self) -> list[TimingEvent]:
        """The scopes closed so far."""
        return [event for event in self.events if isinstance(event, TimingEvent)]

    @property
    def metrics(self) -> list[MetricEvent]:
        """The metrics recorded so far."""
        return [event for event in self.events if isinstance(event, MetricEvent)]

    @property
    def scopes(self) -> list[str]:
        """The paths of the closed scopes, in the order in which they were closed."""
        return [event.scope for event in self.timings]

    def calls(self, scope: str) -> int:
        """How often the scope of this path was closed."""
        return sum(event.scope == scope for event in self.timings)

    def errors(self, scope: str) -> list[str]:
        """The error types of this path's failed calls."""
        return [event.error_type for event in self.timings if event.scope == scope and event.error_type is not None]

    def values(self, path: str) -> list[Any]:
        """The values of the metric of this path."""
        return [event.value for event in self.metrics if event.scope == path]

    def total(self, path: str) -> Any:
        """The sum of the metric of this path; 0 if there is none."""
        return sum(self.values(path))

    def only(self, scope: str) -> TimingEvent:
        """The one call of this path; an AssertionError says which paths there are if it is not exactly one."""
        found = [event for event in self.timings if event.scope == scope]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} calls of {scope!r}, not 1; there are {sorted(set(self.scopes))}")
        return found[0]

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            # What goes may have finalizers that emit: not while this is locked.
            forgotten, self._events = self._events, []
            self.dropped = 0
        forgotten.clear()

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[TimingEvent | MetricEvent]:
        return iter(self.events)
