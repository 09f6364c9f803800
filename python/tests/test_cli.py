"""`python -m kastor` and the command `kastor` are one program."""

import os
import pathlib
import subprocess
import sys

import pytest

from support import environment

COMMANDS = {
    "module": [sys.executable, "-P", "-W", "error", "-m", "kastor"],
    "command": [str(pathlib.Path(sys.executable).with_name("kastor"))],
}


def kastor(how, *arguments):
    return subprocess.run([*COMMANDS[how], *arguments], capture_output=True, text=True, timeout=60, env=environment())


@pytest.mark.parametrize("how", COMMANDS)
def test_it_shows_its_version_and_help(how):
    version = kastor(how, "--version")
    assert (version.returncode, version.stdout.strip()) == (0, "kastor 0.1.0"), version
    helped = kastor(how, "--help")
    assert helped.returncode == 0 and "doctor" in helped.stdout and "Usage: kastor" in helped.stdout


@pytest.mark.parametrize("how", COMMANDS)
def test_doctor_runs(how):
    done = kastor(how, "doctor")
    assert done.returncode == 0 and done.stdout, done


@pytest.mark.parametrize("how", COMMANDS)
def test_a_wrong_argument_is_refused_with_code_2_and_without_a_traceback(how):
    done = kastor(how, "no-such-command")
    assert done.returncode == 2 and "no-such-command" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
@pytest.mark.parametrize("how", COMMANDS)
def test_a_closed_pipe_ends_it_quietly(how):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMANDS[how], "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60, env=environment())
    os.close(write)
    assert b"panicked" not in done.stderr and b"Traceback" not in done.stderr
