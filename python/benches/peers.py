"""The cases of the floors and of other libraries. A library that is not installed is left out, and said to be."""

from __future__ import annotations

import contextlib
import contextvars
from importlib import metadata
from typing import Any, Callable

import reference
from harness import Case

SCOPE = "with tele('a.b'): pass"
SCOPE_2 = "with tele('a.b', rows=1, table='x'): pass"
#: What a Python reporter is called with, with constants: the interpreter's part of a delivered scope.
CALL = (
    "reporter.record_timing('a.b', 0.1, depth=0, parent_scope=None, call_count=0, start_monotonic_s=0.1, "
    "end_monotonic_s=0.2, start_wall_time_s=0.3, end_wall_time_s=0.4{})"
)


class NoOpReporter:
    """The least that a Python reporter can be."""

    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None: ...

    def record_metric(self, scope: str, value: Any, **metadata: Any) -> None: ...


def floors() -> list[Case]:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("bench", default=None)
    null = contextlib.nullcontext()
    both = {"set": variable.set, "reset": variable.reset, "value": object()}
    return [
        Case("floor", "nullcontext", "with null: pass", {"null": null}),
        Case("floor", "contextvar set and reset", "reset(set(value))", both),
        Case("floor", "contextvar set and reset, 8 others", "reset(set(value))", both, other_variables=8),
        Case("floor", "call of a Python reporter", CALL.format(""), {"reporter": NoOpReporter()}),
        Case("floor", "call of a Python reporter, 2 more", CALL.format(", rows=1, table='x'"), {"reporter": NoOpReporter()}),
    ]


def plain_python() -> list[Case]:
    tele = reference.Telemetry(NoOpReporter())
    silent = reference.Telemetry()
    return [
        Case("plain Python", "scope, no reporter", SCOPE, {"tele": silent}),
        Case("plain Python", "scope", SCOPE, {"tele": tele}),
        Case("plain Python", "scope, 2 keywords", SCOPE_2, {"tele": tele}),
        Case("plain Python", "count", "count('c')", {"count": tele.count}),
        Case("plain Python", "count, 2 labels", "count('c', a='x', b=1)", {"count": tele.count}),
    ]


def opentelemetry() -> list[Case]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import NoOpTracer

    class NoOpProcessor(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None: ...

        def on_end(self, span: Any) -> None: ...

    provider = TracerProvider(resource=Resource({}))
    provider.add_span_processor(NoOpProcessor())
    none, sdk = NoOpTracer().start_as_current_span, provider.get_tracer("bench").start_as_current_span
    two = "with span('a.b', attributes={'rows': 1, 'table': 'x'}): pass"
    return [
        Case("opentelemetry API, no-op tracer", "scope", "with span('a.b'): pass", {"span": none}),
        Case("opentelemetry API, no-op tracer", "scope, 2 keywords", two, {"span": none}),
        Case("opentelemetry SDK, no-op processor", "scope", "with span('a.b'): pass", {"span": sdk}),
        Case("opentelemetry SDK, no-op processor", "scope, 2 keywords", two, {"span": sdk}),
    ]


def logfire() -> list[Case]:
    import logfire as library

    library.configure(send_to_logfire=False, console=False, inspect_arguments=False, metrics=False)
    return [
        Case("logfire, local", "scope", "with span('a.b'): pass", {"span": library.span}),
        Case("logfire, local", "scope, 2 keywords", "with span('a.b', rows=1, table='x'): pass", {"span": library.span}),
    ]


def prometheus() -> list[Case]:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()
    histogram = Histogram("scope_seconds", "x", registry=registry)
    labelled = Histogram("labelled_seconds", "x", ["rows", "table"], registry=registry)
    counter, gauge = Counter("c", "x", registry=registry), Gauge("g", "x", registry=registry)
    counters = Counter("d", "x", ["a", "b"], registry=registry)
    two = "with histogram.labels(rows=1, table='x').time(): pass"
    return [
        Case("prometheus_client", "scope", "with histogram.time(): pass", {"histogram": histogram}),
        Case("prometheus_client", "scope, 2 keywords", two, {"histogram": labelled}),
        Case("prometheus_client", "count", "inc()", {"inc": counter.inc}),
        Case("prometheus_client", "count, 2 labels", "labels(a='x', b=1).inc()", {"labels": counters.labels}),
        Case("prometheus_client", "gauge", "set(1.5)", {"set": gauge.set}),
    ]


#: What each is measured under, and what its figures contain.
PEERS: dict[str, tuple[Callable[[], list[Case]], str]] = {
    "floors": (floors, "an empty context manager, setting and resetting one ContextVar, and a no-op reporter called with constants"),
    "plain Python": (plain_python, "the specification without native code, a no-op reporter; no aggregates"),
    "opentelemetry-sdk": (opentelemetry, "spans made current; the SDK's processor does nothing, nothing is exported"),
    "logfire": (logfire, "spans made current; nothing is sent, nothing is printed, arguments are not inspected"),
    "prometheus_client": (prometheus, "histograms, counters and gauges in memory; no hierarchy"),
}


def available() -> tuple[list[Case], dict[str, str]]:
    """Every case of the peers that are installed, and a version or the reason of absence for each."""
    cases: list[Case] = []
    notes: dict[str, str] = {}
    for name, (make, _) in PEERS.items():
        try:
            cases += make()
        except ImportError as error:
            notes[name] = f"left out: {error}"
            continue
        try:
            notes[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            notes[name] = "part of this benchmark"
    return cases, notes
