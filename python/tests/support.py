"""What several suites share: a reporter that keeps what it gets, the built-in keys, and programs run on their own."""

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import pytest

import kastor

TIMING_KEYS = [
    "depth",
    "parent_scope",
    "call_count",
    "start_monotonic_s",
    "end_monotonic_s",
    "start_wall_time_s",
    "end_wall_time_s",
]
VERSION = sys.version_info[:2]
#: A scope that nobody can leave any more is known by its references; without the GIL nobody counts them at one place.
lost_scopes_end = pytest.mark.skipif(
    kastor._native._FREE_THREADED, reason="without the GIL a lost scope stays open for its context"
)


class Event(NamedTuple):
    scope: str
    value: Any
    metadata: dict


class Recorder:
    """Keeps every event, in order."""

    def __init__(self):
        self.events = []
        self.timings = []
        self.metrics = []

    def record_timing(self, scope, duration, **metadata):
        event = Event(scope, duration, metadata)
        self.events.append(event)
        self.timings.append(event)

    def record_metric(self, scope, value, **metadata):
        event = Event(scope, value, metadata)
        self.events.append(event)
        self.metrics.append(event)

    @property
    def scopes(self):
        """The paths of the scopes, in the order in which they were closed."""
        return [event.scope for event in self.timings]

    @property
    def tree(self):
        """(path, parent) of the scopes, in the order in which they were closed."""
        return [(event.scope, event.metadata["parent_scope"]) for event in self.timings]

    def only(self):
        assert len(self.events) == 1, self.events
        return self.events[0]


def current_path(tele, recorder):
    """The path of the innermost open scope of this flow: what a metric recorded here is below."""
    tele.metric("probe", None)
    event = recorder.metrics.pop()
    assert recorder.events.pop() is event
    return event.metadata["parent_scope"]


def run(coroutine, **arguments):
    return asyncio.run(coroutine, **arguments)


def environment(**variables):
    """This process's environment without what would decide a test, and with these variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "DEBUG" and not name.startswith(("KASTOR_", "POLLUX_", "GEMINI_BATCH_", "OTEL_", "PYTHON"))
    }
    return kept | variables


def python(code, *arguments, timeout=60, folder=None, options=("-W", "error"), **variables):
    """Runs a program in an interpreter of its own: the finished process, with its output as text."""
    # Not from the folder of the sources, where the package is without its native module.
    safe_path = [] if folder else ["-P"]
    return subprocess.run(
        [sys.executable, *safe_path, *options, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        env=environment(**variables),
    )


def quiet(code, *arguments, **options):
    """Runs a program that must end well and say nothing on stderr: what it printed."""
    done = python(code, *arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stdout, done.stderr)
    return done.stdout
