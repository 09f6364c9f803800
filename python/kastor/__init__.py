"""Telemetry at the interpreter's floor: hierarchical scopes and metrics.

    import kastor

    tele = kastor.enable()
    with tele("pipeline", files=3):
        tele.count("items", 2)
    print(tele.report())
"""

from kastor._native import (
    DISABLED,
    Capture,
    Chrome,
    Folded,
    JsonLines,
    LogReporter,
    MockClock,
    Otlp,
    Perfetto,
    Prometheus,
    Recording,
    SimpleReporter,
    Statsd,
    TelemetryContext,
    attach,
    carry,
    current_traceparent,
    enable,
    prometheus_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kastor.background import Background
    from kastor.compat import CALL_COUNT, DEPTH, END_MONOTONIC_S, END_WALL_TIME_S, METRIC_TYPE, PARENT_SCOPE
    from kastor.compat import START_MONOTONIC_S, START_WALL_TIME_S, tele_scope
    from kastor.reporters import FilteredReporter, FunctionReporter, TelemetryReporter
else:
    # What few programs use is imported when it is asked for: the modules below cost more than all the rest.
    _MODULES = {
        "Background": "background",
        **dict.fromkeys(("FilteredReporter", "FunctionReporter", "TelemetryReporter"), "reporters"),
        **dict.fromkeys(("CALL_COUNT", "DEPTH", "END_MONOTONIC_S", "END_WALL_TIME_S", "METRIC_TYPE"), "compat"),
        **dict.fromkeys(("PARENT_SCOPE", "START_MONOTONIC_S", "START_WALL_TIME_S", "tele_scope"), "compat"),
    }

    def __getattr__(name):
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"kastor.{module}"), name)


# fmt: off
__all__ = [
    "CALL_COUNT", "DEPTH", "DISABLED", "END_MONOTONIC_S", "END_WALL_TIME_S", "METRIC_TYPE", "PARENT_SCOPE",
    "START_MONOTONIC_S", "START_WALL_TIME_S", "Background", "Capture", "Chrome", "FilteredReporter", "Folded",
    "FunctionReporter", "JsonLines", "LogReporter", "MockClock", "Otlp", "Perfetto", "Prometheus", "Recording",
    "SimpleReporter", "Statsd", "TelemetryContext", "TelemetryReporter", "attach", "carry", "current_traceparent", "enable",
    "prometheus_text", "tele_scope",
]
# fmt: on
__version__ = "0.1.0"
