"""Fixtures of all suites: a clean environment, a recording reporter, an enabled context; and no scope is left behind."""

import contextvars
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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs each test in a context of its own, so that one which leaves a scope open fails alone."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    def test():
        pyfuncitem.obj(**arguments)
        assert kastor.current_traceparent() is None, "the test left a scope open"

    contextvars.Context().run(test)
    return True


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def tele(recorder):
    return kastor.enable(recorder)
