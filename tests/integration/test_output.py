"""What every command does where its output breaks, and at Ctrl-C."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [ROOT / "train.py", *sorted((ROOT / "scripts").glob("*.py"))]
FACES = ["dataset=synthetic", "dataset.num_train=14", "dataset.num_val=7", "dataset.num_test=7", "--near", "0.9"]
BROKEN = ["| head -1", ">/dev/full", ">&-"]
# Ctrl-C at the first thing that a command does.
INTERRUPTED = """
import argparse, os, runpy, signal, sys
def interrupt(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
argparse.ArgumentParser.parse_known_args = interrupt
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Ctrl-C while a command loads its modules: at the first that is neither Python's nor one of engrec.machine. (org is of
# Jython, which Python's own copy looks for.)
WHILE_LOADING = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in {"engrec", "org", *sys.stdlib_module_names} or name == "engrec.errors":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def shell(folder, redirection, *command):
    """On an ASCII terminal, with a redirection; the exit status is the command's own."""
    line = ["bash", "-c", f'"$0" "$@" {redirection}; exit ${{PIPESTATUS[0]}}', sys.executable, *map(str, command)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    env |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_can_be_cut_off(tmp_path, path):
    done = shell(tmp_path, "| head -1", path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("redirection", BROKEN)
def test_the_files_of_a_command_are_written_whatever_becomes_of_its_output(tmp_path, redirection):
    done = shell(tmp_path, redirection, ROOT / "scripts" / "audit.py", *FACES, "--out", tmp_path / "é")
    assert sorted(path.name for path in (tmp_path / "é").iterdir()) == ["audit.html", "audit.md", "faults.csv"]
    assert "Traceback" not in done.stderr
    assert done.returncode == (74 if "full" in redirection else 0)


@pytest.mark.parametrize("moment", [INTERRUPTED, WHILE_LOADING], ids=["at work", "while loading"])
@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_ctrl_c_has_its_exit_status(tmp_path, path, moment):
    done = shell(tmp_path, "", "-c", moment, path, "manifest")
    assert "Traceback" not in done.stderr
    assert done.returncode == 130
