"""The drop-ins: every name of the original, under both module names, as programs use them."""

import importlib
import inspect
import sys
import typing
import warnings
from importlib import metadata

import pytest

import kastor
from kastor import compat
from support import Recorder

MODULES = ["kastor.compat", "pollux.telemetry", "gemini_batch.telemetry"]
NAMES = [
    "TelemetryContext", "TelemetryReporter", "TelemetryContextProtocol", "tele_scope", "_EnabledTelemetryContext",
    "_NoOpTelemetryContext", "_NO_OP_SINGLETON", "_SimpleReporter",
]  # fmt: skip
KEYS = {
    "DEPTH": "depth",
    "PARENT_SCOPE": "parent_scope",
    "CALL_COUNT": "call_count",
    "METRIC_TYPE": "metric_type",
    "START_MONOTONIC_S": "start_monotonic_s",
    "END_MONOTONIC_S": "end_monotonic_s",
    "START_WALL_TIME_S": "start_wall_time_s",
    "END_WALL_TIME_S": "end_wall_time_s",
}


@pytest.fixture(params=MODULES)
def module(request):
    return importlib.import_module(request.param)


def test_every_name_is_there_and_the_same_under_all_modules(module):
    for name in [*NAMES, *KEYS]:
        assert getattr(module, name) is getattr(compat, name), name


def test_the_key_constants(module):
    assert {name: getattr(module, name) for name in KEYS} == KEYS


def test_the_packages_are_namespaces_that_others_may_share():
    for name in ("pollux", "gemini_batch"):
        package = importlib.import_module(name)
        assert getattr(package, "__file__", None) is None


@pytest.mark.parametrize("name", ["pollux", "gemini_batch"])
def test_each_is_a_distribution_of_its_own_that_needs_kastor_alone(name):
    distribution = metadata.distribution(f"kastor-compat-{name.replace('_', '-')}")
    assert distribution.requires == ["kastor"]
    files = {str(file) for file in distribution.files if ".dist-info" not in str(file) and "__pycache__" not in str(file)}
    assert files == {f"{name}/telemetry.py", f"{name}/py.typed"}


def test_the_enabled_context_is_a_class_for_isinstance_and_annotations(module):
    tele = module._EnabledTelemetryContext(Recorder())
    assert inspect.isclass(module._EnabledTelemetryContext) and isinstance(tele, module._EnabledTelemetryContext)
    assert not isinstance(module._NO_OP_SINGLETON, module._EnabledTelemetryContext)
    assert not isinstance(tele, module._NoOpTelemetryContext) and not isinstance("x", module._EnabledTelemetryContext)
    assert isinstance(tele, module.TelemetryContextProtocol)

    def annotated(context: module._EnabledTelemetryContext) -> module.TelemetryContextProtocol: ...

    assert typing.get_type_hints(annotated)


def test_the_factory_makes_enabled_contexts(module, monkeypatch):
    monkeypatch.setenv("POLLUX_TELEMETRY", "1")
    assert isinstance(module.TelemetryContext(Recorder()), module._EnabledTelemetryContext)


def test_the_disabled_context_is_one_object_of_its_class(module):
    assert module._NO_OP_SINGLETON is module.TelemetryContext()
    assert isinstance(module._NO_OP_SINGLETON, module._NoOpTelemetryContext)
    assert module._NoOpTelemetryContext() is module._NO_OP_SINGLETON
    assert isinstance(module._NO_OP_SINGLETON, module.TelemetryContextProtocol)


def test_the_disabled_context_has_the_whole_interface(module):
    off = module._NO_OP_SINGLETON
    assert off.is_enabled is False
    with off("a", k=1) as context:
        assert context is off
    with off.time("a") as context:
        assert context is off
    assert off.metric("m", 1, k=2) is None and off.count("c", 2, k=3) is None and off.gauge("g", 1, k=1) is None
    assert off.count("c", increment=2, metric_type="x") is None and off.histogram("h", 1) is None
    assert off("a") is off("b", k=1) is off.time("c")


def test_the_enabled_context_has_no_public_method_that_the_disabled_one_lacks(module):
    def public(context):
        return {name for name in dir(context) if not name.startswith("_")}

    assert public(module._EnabledTelemetryContext(Recorder())) <= public(module._NO_OP_SINGLETON)


def test_the_disabled_context_is_immutable(module):
    off = module._NO_OP_SINGLETON
    for name in ("is_enabled", "anything", "count"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(off, name, True)
    for change in ("set_enabled", "switch_scopes"):
        if hasattr(off, change):
            getattr(off, change)(*((True,) if change == "set_enabled" else ("*", True)))
    assert off.is_enabled is False


def test_the_simple_reporter_is_a_class(module):
    reporter = module._SimpleReporter(max_entries_per_scope=5)
    assert inspect.isclass(module._SimpleReporter) and isinstance(reporter, module._SimpleReporter)
    assert isinstance(reporter, module.TelemetryReporter)
    for name in ("record_timing", "record_metric", "print_report", "get_report", "as_dict", "reset"):
        assert callable(getattr(reporter, name))


def test_tele_scope_forwards_and_warns_at_the_callers_line(module, recorder):
    tele = module._EnabledTelemetryContext(recorder)
    with pytest.warns(DeprecationWarning, match="with tele") as caught:
        line = inspect.currentframe().f_lineno + 1
        with module.tele_scope(tele, "a", k=1) as context:
            assert context is tele
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]
    assert recorder.only().scope == "a" and recorder.only().metadata["k"] == 1


@pytest.mark.parametrize("how", ["positional", "name", "both"])
def test_tele_scope_takes_its_arguments_by_name_too(module, recorder, how):
    tele = module._EnabledTelemetryContext(recorder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if how == "positional":
            scope = module.tele_scope(tele, "a", ctx=1, name=2)
        elif how == "name":
            scope = module.tele_scope(tele, name="a", k=1)
        else:
            scope = module.tele_scope(ctx=tele, name="a", k=1)
        with scope:
            pass
    metadata = recorder.only().metadata
    assert recorder.only().scope == "a"
    assert (metadata["ctx"], metadata["name_"]) == (1, 2) if how == "positional" else metadata["k"] == 1


def test_tele_scope_without_arguments_is_a_type_error_as_it_was(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for arguments in ((), (module._NO_OP_SINGLETON,), (module._NO_OP_SINGLETON, "a", "b")):
            with pytest.raises(TypeError):
                module.tele_scope(*arguments)


def test_tele_scope_on_the_disabled_context(module):
    with pytest.warns(DeprecationWarning):
        with module.tele_scope(module._NO_OP_SINGLETON, "a") as context:
            assert context is module._NO_OP_SINGLETON


def test_kastor_has_tele_scope_and_the_constants_too():
    assert kastor.tele_scope is compat.tele_scope
    for name, value in KEYS.items():
        assert getattr(kastor, name) == value


def test_the_drop_ins_shadow_nothing_of_the_standard_library():
    for name in ("pollux", "gemini_batch"):
        assert name not in sys.stdlib_module_names
