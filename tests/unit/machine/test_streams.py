"""Standard output that breaks: the command continues, and no traceback is printed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PRINTS = """
import logging, sys
from engrec.errors import errors_in_one_line

with errors_in_one_line():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    for number in range(20000):
        print(f"line {number} × …", flush=number % 1000 == 0)
    logging.info("to the end …")
    open(sys.argv[1], "w").write("done")
"""


def printed(tmp_path, redirection, **environment):
    """A process that prints, in a shell; its exit status, and what it wrote to its standard error."""
    script = f'"$0" -c "$1" "$2" {redirection}'
    command = ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}", sys.executable, PRINTS, tmp_path / "done"]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("redirection", ["| head -1", ">&-", "2>&1 | head -1", ">&- 2>&- <&-"])
def test_a_reader_that_has_gone_ends_no_command(tmp_path, redirection):
    done = printed(tmp_path, redirection)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").read_text() == "done"


def test_an_output_that_could_not_be_written_is_reported_at_the_end(tmp_path):
    done = printed(tmp_path, ">/dev/full")
    assert done.stderr == "error: standard output is incomplete: No space left on device\n"
    assert done.returncode == 74  # as of any full disk
    assert (tmp_path / "done").read_text() == "done"


def test_an_ascii_terminal_shows_question_marks(tmp_path):
    done = printed(tmp_path, "", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("line 0 ? ?", "to the end ?", 20001)


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path):
    code = "from engrec.errors import errors_in_one_line as e, sys\nwith e():\n    print(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, b"\xff.png"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"?.png\n", b"")
