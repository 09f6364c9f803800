"""A reporter of your own: any object with `record_timing` or `record_metric`.

This one warns of slow scopes and adds up money. It runs on the thread that closed the scope, so it does little; one that
waits for a disk or a network would be wrapped: `kastor.enable(kastor.Background(reporter))`.

    python reporter.py
"""

import threading
import time
from typing import Any

import kastor
from kastor import TelemetryReporter


class SlowScopes:
    """Prints scopes that took longer than they may. It has no `record_metric`, so it gets no metrics."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s

    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None:
        if duration > self.limit_s:
            print(f"slow: {scope}, {metadata.get('error_type', 'well')}, query {metadata.get('query')!r}")


class Costs(TelemetryReporter):
    """Adds up one metric. Scopes close on many threads at once, so it takes a lock."""

    def __init__(self) -> None:
        self.euros = 0.0
        self._lock = threading.Lock()

    def record_metric(self, scope: str, value: Any, **metadata: Any) -> None:
        if scope.endswith(".cost_euros"):
            with self._lock:
                self.euros += value


def main() -> None:
    costs = Costs()
    tele = kastor.enable(SlowScopes(limit_s=0.01), costs)
    with tele("shop"):
        for query, seconds in (("fast", 0.0), ("slow", 0.02)):
            with tele("query", query=query):
                time.sleep(seconds)
                tele.metric("cost_euros", 0.25)
    print(f"it cost {costs.euros} euros")
    assert costs.euros == 0.5


if __name__ == "__main__":
    main()
