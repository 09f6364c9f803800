"""The factories are switched on by the environment, as it is when they are called, and by nothing else."""

import pytest

import kastor
from kastor import compat
from support import Recorder, python, quiet

FACTORIES = {"kastor": kastor.TelemetryContext, "drop-in": compat.TelemetryContext}
SWITCHES = {"kastor": ["KASTOR_TELEMETRY", "DEBUG"], "drop-in": ["POLLUX_TELEMETRY", "GEMINI_BATCH_TELEMETRY", "DEBUG"]}
FOREIGN = {"kastor": ["POLLUX_TELEMETRY", "GEMINI_BATCH_TELEMETRY"], "drop-in": ["KASTOR_TELEMETRY"]}
PAIRS = [(factory, variable) for factory, variables in SWITCHES.items() for variable in variables]


@pytest.mark.parametrize("factory", FACTORIES)
def test_without_a_variable_it_is_the_disabled_context(factory):
    assert not FACTORIES[factory](Recorder()).is_enabled


@pytest.mark.parametrize("factory, variable", PAIRS)
def test_each_switch_enables_with_the_value_1(factory, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert FACTORIES[factory](Recorder()).is_enabled is True


@pytest.mark.parametrize("value", ["", "0", "true", "True", "yes", "on", "2", " 1", "1 ", "01", "１"])
@pytest.mark.parametrize("factory, variable", PAIRS)
def test_no_other_value_enables(factory, variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert FACTORIES[factory](Recorder()).is_enabled is False


@pytest.mark.parametrize("factory, variable", [(f, v) for f, variables in FOREIGN.items() for v in variables])
def test_the_variables_of_the_other_factory_do_not_enable(factory, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert FACTORIES[factory](Recorder()).is_enabled is False


@pytest.mark.parametrize("factory, variable", PAIRS)
def test_without_a_reporter_it_is_the_disabled_context(factory, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert FACTORIES[factory]().is_enabled is False


@pytest.mark.parametrize("factory, variable", [pair for pair in PAIRS if pair[1] != "KASTOR_TELEMETRY"])
def test_kastor_telemetry_0_is_off_for_every_factory(factory, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("KASTOR_TELEMETRY", "0")
    assert FACTORIES[factory](Recorder()).is_enabled is False


def test_the_disabled_context_is_one_shared_object(monkeypatch):
    first = kastor.TelemetryContext(Recorder())
    monkeypatch.setenv("DEBUG", "1")
    assert first is kastor.TelemetryContext() is compat.TelemetryContext() is compat._NO_OP_SINGLETON


def test_the_environment_is_read_at_the_call_and_not_at_import(monkeypatch):
    assert not kastor.TelemetryContext(Recorder()).is_enabled
    monkeypatch.setenv("KASTOR_TELEMETRY", "1")
    assert kastor.TelemetryContext(Recorder()).is_enabled
    monkeypatch.delenv("KASTOR_TELEMETRY")
    assert not kastor.TelemetryContext(Recorder()).is_enabled


def test_an_existing_context_never_changes_its_mind(monkeypatch):
    monkeypatch.setenv("KASTOR_TELEMETRY", "1")
    recorder = Recorder()
    tele = kastor.TelemetryContext(recorder)
    monkeypatch.setenv("KASTOR_TELEMETRY", "0")
    with tele("a"):
        pass
    assert recorder.scopes == ["a"] and tele.is_enabled


def test_enable_and_the_enabled_context_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("KASTOR_TELEMETRY", "0")
    for make in (kastor.enable, compat._EnabledTelemetryContext):
        recorder = Recorder()
        with make(recorder)("a"):
            pass
        assert recorder.scopes == ["a"]


def test_enable_without_a_reporter_still_aggregates():
    tele = kastor.enable()
    with tele("aggregated.alone"):
        tele.count("items", 3)
    assert tele.is_enabled
    assert "aggregated.alone" in str(tele.report())


STRICT = [
    (kastor.TelemetryContext, "KASTOR_TELEMETRY_STRICT_SCOPES"),
    (kastor.enable, "KASTOR_TELEMETRY_STRICT_SCOPES"),
    (compat.TelemetryContext, "POLLUX_TELEMETRY_STRICT_SCOPES"),
    (compat.TelemetryContext, "GEMINI_BATCH_TELEMETRY_STRICT_SCOPES"),
    (compat._EnabledTelemetryContext, "POLLUX_TELEMETRY_STRICT_SCOPES"),
    (compat._EnabledTelemetryContext, "GEMINI_BATCH_TELEMETRY_STRICT_SCOPES"),
]


@pytest.mark.parametrize("factory, variable", STRICT)
def test_strict_names_by_the_environment(factory, variable, monkeypatch):
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setenv(variable, "1")
    tele = factory(Recorder())
    with pytest.raises(ValueError, match="Bad Name"):
        tele("Bad Name").__enter__()
    with pytest.raises(ValueError, match="Bad Name"):
        tele.count("Bad Name")


@pytest.mark.parametrize("value", ["0", "true", "", " 1"])
@pytest.mark.parametrize("factory, variable", STRICT)
def test_strict_names_need_the_value_1(factory, variable, value, monkeypatch):
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setenv(variable, value)
    recorder = Recorder()
    with factory(recorder)("Bad Name"):
        pass
    assert recorder.scopes == ["Bad Name"]


@pytest.mark.parametrize(
    "factory, variable",
    [
        (kastor.TelemetryContext, "POLLUX_TELEMETRY_STRICT_SCOPES"),
        (kastor.TelemetryContext, "GEMINI_BATCH_TELEMETRY_STRICT_SCOPES"),
        (compat.TelemetryContext, "KASTOR_TELEMETRY_STRICT_SCOPES"),
    ],
)
def test_strict_names_of_the_other_factory_are_not_meant(factory, variable, monkeypatch):
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setenv(variable, "1")
    recorder = Recorder()
    with factory(recorder)("Bad Name"):
        pass
    assert recorder.scopes == ["Bad Name"]


CAPTURED = """
    import kastor
    from kastor import compat
    class Reporter:
        def record_timing(self, scope, duration, **metadata): pass
    for factory in (kastor.TelemetryContext, compat.TelemetryContext):
        tele = factory(Reporter())
        with tele("captured"):
            pass
        tele.shutdown(5)
"""


@pytest.mark.parametrize("switches, files", [({"DEBUG": "1"}, True), ({}, False), ({"DEBUG": "1", "KASTOR_TELEMETRY": "0"}, False)])
def test_kastor_capture_adds_a_capture_to_contexts_that_are_enabled_and_to_no_other(switches, files, tmp_path):
    folder = tmp_path / "made" / "for" / "it"
    quiet(CAPTURED, KASTOR_CAPTURE=str(folder), **switches)
    assert (folder.is_dir() and any(folder.iterdir())) is files


def test_kastor_capture_is_nothing_to_contexts_that_do_not_read_the_environment(tmp_path):
    program = """
        import kastor
        from kastor import compat
        for tele in (kastor.enable(kastor.SimpleReporter()), compat._EnabledTelemetryContext(kastor.SimpleReporter())):
            with tele("not_captured"):
                pass
            tele.shutdown(5)
    """
    quiet(program, KASTOR_CAPTURE=str(tmp_path / "captures"), KASTOR_TELEMETRY="1")
    assert not (tmp_path / "captures").exists()


def test_a_capture_that_cannot_be_made_does_not_break_the_program(tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = python(CAPTURED, KASTOR_CAPTURE=str(tmp_path / "file"), DEBUG="1")
    assert done.returncode == 0, done.stderr
