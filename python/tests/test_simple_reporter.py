"""`SimpleReporter`: the report's text, the dictionary, bounds, and use without a context."""

import json

import pytest

import kastor
from kastor import compat

REPORT = """\
=== Telemetry Report ===

--- Timings ---
pipe:
  exec                         | Calls: 2    | Avg: 0.5000s | Total: 1.0000s
  plan                         | Calls: 1    | Avg: 0.5000s | Total: 0.5000s

--- Metrics ---
pipe.items                               | Count: 2    | Total: 7
"""


@pytest.fixture(params=[kastor.SimpleReporter, compat._SimpleReporter])
def simple(request):
    return request.param()


def test_the_report_is_the_originals(simple, capsys):
    simple.record_timing("pipe.plan", 0.5)
    simple.record_timing("pipe.exec", 0.25)
    simple.record_timing("pipe.exec", 0.75)
    simple.record_metric("pipe.items", 3, metric_type="counter")
    simple.record_metric("pipe.items", 4, metric_type="counter")
    assert simple.get_report().strip() == REPORT.strip()
    simple.print_report()
    assert capsys.readouterr().out.strip() == REPORT.strip()


def test_nothing_is_printed_when_nothing_was_recorded(simple, capsys):
    simple.print_report()
    assert capsys.readouterr().out.strip() == ""


def test_as_dict_has_the_shape_of_the_original(simple):
    tele = kastor.enable(simple)
    with tele("a", k=1):
        tele.count("items", 3, label="x")
    snapshot = simple.as_dict()
    assert list(snapshot) == ["timings", "metrics"] and list(snapshot["timings"]) == ["a"]
    ((duration, metadata),) = snapshot["timings"]["a"]
    assert type(duration) is float and metadata["depth"] == 0 and metadata["k"] == 1
    assert [(value, metadata["metric_type"], metadata["label"]) for value, metadata in snapshot["metrics"]["a.items"]] == [
        (3, "counter", "x")
    ]


def test_as_dict_is_a_fresh_copy(simple):
    simple.record_timing("a", 0.5, k=1)
    first = simple.as_dict()
    first["timings"]["a"][0][1]["k"] = "changed"
    first["timings"].clear()
    assert simple.as_dict()["timings"]["a"][0][1]["k"] == 1


def test_as_dict_is_json_safe_whatever_was_recorded(simple):
    tele = kastor.enable(simple)
    with tele("a", thing=object(), kind=type, data=b"\xff", bad="\ud800", nan=float("nan"), big=10**30, items=[1, {2}]):
        tele.metric("m", object(), key=object())
    text = json.dumps(simple.as_dict(), allow_nan=True)
    assert json.loads(text)["timings"]["a"]


def test_reset_forgets_everything(simple, capsys):
    simple.record_timing("a", 0.5)
    simple.record_metric("m", 1)
    simple.reset()
    assert simple.as_dict() == {"timings": {}, "metrics": {}}
    simple.print_report()
    assert capsys.readouterr().out.strip() == ""


def test_gauges_show_last_least_and_greatest_and_never_a_sum(simple):
    for value in (5, 1, 3):
        simple.record_metric("g", value, metric_type="gauge")
    row = next(line for line in simple.get_report().splitlines() if line.startswith("g "))
    assert "Total" not in row and "9" not in row.replace("Count: 3", "")
    for part in ("3", "1", "5"):
        assert part in row


def test_a_scope_may_have_a_row_and_children(simple):
    simple.record_timing("a", 1.0)
    simple.record_timing("a.b", 0.5)
    simple.record_timing("a.b.c", 0.25)
    report = simple.get_report()
    for name in ("a", "b", "c"):
        assert any(line.strip().startswith(name) and "Calls: 1" in line for line in report.splitlines()), report


@pytest.mark.parametrize("bad", [-1, "x", None, 1.5])
def test_a_bad_bound_is_refused_with_an_ordinary_error(bad):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        kastor.SimpleReporter(max_entries_per_scope=bad)


def test_it_serves_two_contexts(simple):
    for _ in range(2):
        with kastor.enable(simple)("a"):
            pass
    assert len(simple.as_dict()["timings"]["a"]) == 2
