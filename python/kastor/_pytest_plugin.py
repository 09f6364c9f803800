"""The fixture `kastor_telemetry`, which pytest finds by the entry point `pytest11`. Nothing else is changed in a test run."""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple

import pytest


class KastorTelemetry(NamedTuple):
    """An enabled context, and the reporter that keeps what is recorded in it."""

    tele: Any
    recording: Any


@pytest.fixture
def kastor_telemetry() -> Iterator[KastorTelemetry]:
    """An enabled context with a `kastor.testing.RecordingReporter`, new for each test and shut down after it."""
    from kastor import enable
    from kastor.testing import RecordingReporter

    recording = RecordingReporter()
    tele = enable(recording)
    yield KastorTelemetry(tele, recording)
    tele.shutdown(1)
