"""Fixtures of all suites: a clean environment, a recording reporter, an enabled context, and no scope left behind."""

import os

import pytest

import kastor
from support import Recorder

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No variable of the machine decides a test."""
    for name in list(os.environ):
        if name == "DEBUG" or name.startswith(("KASTOR_", "POLLUX_", "GEMINI_BATCH_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_scope_is_left_open():
    """Fails a test that began or ended inside a scope."""
    assert kastor.current_traceparent() is None
    yield
    assert kastor.current_traceparent() is None


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def tele(recorder):
    return kastor.enable(recorder)
