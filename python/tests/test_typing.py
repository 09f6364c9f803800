"""The stubs say what the native module has, and type checkers understand programs that use them."""

import importlib.util
import inspect
import json
import os
import pathlib
import subprocess
import sys

import pytest

import kastor

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(kastor.__file__).parent


def check(*command, **variables):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, env=os.environ | variables)
    assert done.returncode == 0, done.stdout + done.stderr


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "_native.pyi").exists()


@needs("mypy")
def test_stubtest_finds_no_difference():
    check("mypy.stubtest", "kastor._native", "--mypy-config-file", os.devnull)


@needs("mypy")
def test_mypy_understands_the_sample(tmp_path):
    check("mypy", "--strict", "--cache-dir", str(tmp_path), str(HERE / "typing" / "sample.py"))


@needs("pyright")
def test_pyright_understands_the_sample():
    check("pyright", "--pythonpath", sys.executable, str(HERE / "typing" / "sample.py"))


@needs("pyright")
def test_pyright_refuses_what_is_wrong():
    """The sample's errors are marked; pyright is to find each of them, and no others."""
    path = HERE / "typing" / "mistakes.py"
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = {1 + entry["range"]["start"]["line"] for entry in json.loads(done.stdout)["generalDiagnostics"]}
    marked = {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# wrong" in line}
    assert found == marked, done.stdout


def public(owner):
    return {name: getattr(owner, name) for name in dir(owner) if not name.startswith("_")}


def test_everything_public_has_a_docstring():
    bare = []
    for name in kastor.__all__:
        thing = getattr(kastor, name)
        if isinstance(thing, (str, int)) or name == "__version__":
            continue
        if not inspect.getdoc(thing):
            bare.append(name)
        if inspect.isclass(thing) and thing.__module__.startswith("kastor"):
            bare += [f"{name}.{method}" for method, value in public(thing).items() if not inspect.getdoc(value)]
    tele = kastor.enable()
    bare += [f"context.{method}" for method in public(tele) if not inspect.getdoc(getattr(type(tele), method))]
    assert bare == []


def test_all_is_what_there_is():
    for name in kastor.__all__:
        assert hasattr(kastor, name)
    assert len(set(kastor.__all__)) == len(kastor.__all__)
