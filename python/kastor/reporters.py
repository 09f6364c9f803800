"""What a reporter is, and two small ones made of parts.

A reporter is any object with `record_timing` or `record_metric`, or both: no base class is needed, and a missing method
means that these events are not wanted. Reporters run on the thread that closed the scope, so they should be quick;
`kastor.Background(reporter)` runs one on a thread of its own. An `Exception` that a reporter raises is contained and
logged; after several in a row the reporter is left out for a while.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Callable, Protocol, runtime_checkable

__all__ = ["FilteredReporter", "FunctionReporter", "TelemetryReporter"]


@runtime_checkable
class TelemetryReporter(Protocol):
    """The protocol of a reporter; a class may name it as a base, and need not.

    `metadata` holds the built-in keys first (`depth`, `parent_scope`, and for timings `call_count`,
    `start_monotonic_s`, `end_monotonic_s`, `start_wall_time_s`, `end_wall_time_s`, and `error_type` where the scope
    failed; for `count`, `gauge` and `histogram` also `metric_type`), then what the program passed, in its order.
    """

    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None:
        """A scope was closed: `scope` is its full path, `duration` its length in seconds."""

    def record_metric(self, scope: str, value: Any, **metadata: Any) -> None:
        """A metric was recorded: `scope` is its full path, `value` the very object that the program passed."""


class FunctionReporter:
    """A reporter made of functions; each gets `(scope, duration_or_value, metadata)`, the last as a dict of its own.

    With one function it has only that method, and so takes only these events.
    """

    def __init__(
        self,
        timing: Callable[[str, float, dict[str, Any]], object] | None = None,
        metric: Callable[[str, Any, dict[str, Any]], object] | None = None,
    ) -> None:
        if timing is not None:
            self.record_timing = _as_method(timing)
        if metric is not None:
            self.record_metric = _as_method(metric)


class FilteredReporter:
    """Passes on to `reporter` the events whose full path fits `pattern` (`*` any text, `?` one character).

    To filter what a reporter in the background gets: `Background(FilteredReporter(reporter, pattern))`.
    """

    def __init__(self, reporter: object, pattern: str) -> None:
        timing = getattr(reporter, "record_timing", None)
        metric = getattr(reporter, "record_metric", None)
        if timing is not None:
            self.record_timing = _where(pattern, timing)
        if metric is not None:
            self.record_metric = _where(pattern, metric)


def _as_method(function: Callable[[str, Any, dict[str, Any]], object]) -> Callable[..., None]:
    def record(scope: str, value: Any, /, **metadata: Any) -> None:
        function(scope, value, metadata)

    return record


def _where(pattern: str, method: Callable[..., object]) -> Callable[..., None]:
    # Square brackets are part of a name here, not a set of characters.
    pattern = pattern.replace("[", "[[]")

    def record(scope: str, value: Any, /, **metadata: Any) -> None:
        if fnmatch.fnmatchcase(scope, pattern):
            method(scope, value, **metadata)

    return record
