"""The short version of the soak test: at most five minutes, all of its parts."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_nothing_is_lost_half_written_or_wrong():
    script = Path(__file__).with_name("soak.py")
    done = subprocess.run(
        [sys.executable, script, "--share", "0.05", "--minutes", "4"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| 0 | 0 | 0 | 0 |") == 9, done.stdout
