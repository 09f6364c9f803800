"""The specification's examples, verbatim and under both names; and every program under `python/examples`."""

import ast
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from support import environment, quiet

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
DOCUMENTS = HERE.parents[1] / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (HERE / "examples" / "pollux.md").read_text(), re.DOTALL)
VARIABLES = {"pollux": "POLLUX_TELEMETRY", "gemini_batch": "GEMINI_BATCH_TELEMETRY"}


def under(name, text):
    return text.replace("pollux", name).replace("POLLUX_TELEMETRY", VARIABLES[name])


def test_there_are_two():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("name", VARIABLES)
def test_the_first_example_prints_its_report(name):
    out = quiet(under(name, BLOCKS[0]) + "\nimport json; print(json.dumps(snapshot)); print(reporter.as_dict())")
    report, snapshot, empty = out.rsplit("\n", 3)[:3]
    assert report.startswith("=== Telemetry Report ===\n\n--- Timings ---\n")
    assert "Calls: 1" in report and "--- Metrics ---\n" in report and "Count: 1    | Total: 3" in report
    snapshot = json.loads(snapshot)
    ((duration, metadata),) = snapshot["timings"]["test.operation"]
    assert duration >= 0 and metadata["extra"] == "debug"
    ((value, metadata),) = snapshot["metrics"]["test.operation.items_processed"]
    assert value == 3 and metadata["metric_type"] == "counter"
    assert ast.literal_eval(empty) == {"timings": {}, "metrics": {}}


@pytest.mark.parametrize("name", VARIABLES)
def test_the_second_example_prints_its_events(name):
    lines = quiet(under(name, BLOCKS[1]), **{VARIABLES[name]: "1"}).splitlines()
    assert len(lines) == 3
    assert lines[0] == "metric pipeline.plan.api.requests 1 " + str(
        {"depth": 1, "parent_scope": "pipeline.plan", "metric_type": "counter"}
    )
    assert lines[1] == "metric pipeline.plan.token_efficiency 0.91 " + str(
        {"depth": 1, "parent_scope": "pipeline.plan", "metric_type": "gauge"}
    )
    word, scope, duration, metadata = lines[2].split(" ", 3)
    metadata = ast.literal_eval(metadata)
    assert (word, scope) == ("timing", "pipeline.plan") and float(duration) >= 0
    assert list(metadata) == [
        "depth", "parent_scope", "call_count", "start_monotonic_s", "end_monotonic_s", "start_wall_time_s",
        "end_wall_time_s", "batch_size",
    ] and metadata["batch_size"] == 32  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
def test_the_second_example_is_silent_where_nothing_enables_it(name):
    assert quiet(under(name, BLOCKS[1])) == ""


def test_both_names_serve_one_program():
    """As after the rename, when some modules still used the old name."""
    code = under("pollux", BLOCKS[0]) + under("gemini_batch", BLOCKS[0])
    assert quiet(code).count("=== Telemetry Report ===") == 2


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout, done


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs(path):
    """Its code cells, one after the other, without what a kernel needs."""
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 3
    shown = """
import ast, json, sys
names = {}
for cell in json.loads(sys.stdin.read()):
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if hasattr(value, "_repr_html_"):
            assert "<table" in value._repr_html_()
        print(value)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", shown],
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout, done


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbclient", "nbformat", "ipykernel"))), reason="nbclient is not installed"
)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_in_a_kernel(path):
    execute = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
# Not from the start: a kernel that comes up warns of itself.
denied = "import warnings; warnings.simplefilter('error'); warnings.filterwarnings('ignore', module='ipykernel')"
notebook.cells.insert(0, nbformat.v4.new_code_cell(denied))
nbclient.NotebookClient(notebook, timeout=60).execute()
shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
assert any("<table" in data.get("text/html", "") for data in shown), shown
"""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", execute, str(path)],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_ten_lines_print_what_it_shows():
    """But for the times, and so the widths of their columns."""
    text = (DOCUMENTS.parent / "README.md").read_text()
    program, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL).groups()
    assert len(program.splitlines()) <= 10

    def shape(table):
        return [re.sub(r"[\d.]+ (ns|µs|ms|s)\b", "T", line).split() for line in table.strip().splitlines()]

    assert shape(quiet(program)) == shape(shown)


@pytest.mark.parametrize("page", ["python.md", "migration.md"])
def test_the_code_in_a_document_runs(page, tmp_path):
    """All blocks marked `python` of one page, in order, as one program; in a folder of their own."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCUMENTS / page).read_text(), re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, ""), done
