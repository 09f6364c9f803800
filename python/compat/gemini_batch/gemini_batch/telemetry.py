"""`gemini_batch.telemetry`, served by kastor.

    from gemini_batch.telemetry import TelemetryContext, TelemetryReporter

Everything is defined in `kastor.compat`; `pollux.telemetry` is the same under the other name. Telemetry is on where
`POLLUX_TELEMETRY`, `GEMINI_BATCH_TELEMETRY` or `DEBUG` is `1` when `TelemetryContext` is called.
"""

from kastor.compat import (
    CALL_COUNT,
    DEPTH,
    END_MONOTONIC_S,
    END_WALL_TIME_S,
    METRIC_TYPE,
    PARENT_SCOPE,
    START_MONOTONIC_S,
    START_WALL_TIME_S,
    TelemetryContext,
    TelemetryContextProtocol,
    TelemetryReporter,
    _EnabledTelemetryContext,
    _NO_OP_SINGLETON,
    _NoOpTelemetryContext,
    _SimpleReporter,
    tele_scope,
)

__all__ = [
    "CALL_COUNT",
    "DEPTH",
    "END_MONOTONIC_S",
    "END_WALL_TIME_S",
    "METRIC_TYPE",
    "PARENT_SCOPE",
    "START_MONOTONIC_S",
    "START_WALL_TIME_S",
    "TelemetryContext",
    "TelemetryContextProtocol",
    "TelemetryReporter",
    "_EnabledTelemetryContext",
    "_NO_OP_SINGLETON",
    "_NoOpTelemetryContext",
    "_SimpleReporter",
    "tele_scope",
]
