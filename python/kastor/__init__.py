"""Telemetry at the interpreter's floor: hierarchical scopes and metrics.

    import kastor

    tele = kastor.enable()
    with tele("pipeline", files=3):
        tele.count("items", 2)
    print(tele.report())
"""

from kastor._native import (
    DISABLED,
    LogReporter,
    MockClock,
    Recording,
    SimpleReporter,
    TelemetryContext,
    attach,
    carry,
    current_traceparent,
    enable,
)


def __getattr__(name):
    # What few programs use is imported when it is asked for.
    if name == "Background":
        from kastor.background import Background

        return Background
    if name == "TelemetryReporter":
        from kastor.reporters import TelemetryReporter

        return TelemetryReporter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DISABLED",
    "Background",
    "LogReporter",
    "MockClock",
    "Recording",
    "SimpleReporter",
    "TelemetryContext",
    "TelemetryReporter",
    "attach",
    "carry",
    "current_traceparent",
    "enable",
]
__version__ = "0.1.0"
