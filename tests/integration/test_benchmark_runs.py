"""The benchmark as it is typed: it ends, says what it measured, and nothing is far slower than it should be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """With as many threads as a user has, where the tests have one."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", "--quick", "--check", "trainer.accelerator=cpu"]
    command += ["model.width=0.25"]  # the default network, narrower: it takes less time
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command += ["--out", folder]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    return done, folder


def test_it_ends_well_with_ratios_that_are_not_far_too_low(ran):
    done, _ = ran
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_what_it_prints_is_what_it_writes(ran):
    done, folder = ran
    [written] = folder.glob("*.json")
    report = json.loads(written.read_text())
    assert written.with_suffix(".png").stat().st_size > 10_000
    assert report["setting"]["model"] == "vgg_lrn"
    assert report["video"]["frames per second"] > 1
    for name, value in report["ratios"].items():
        [line] = [line for line in done.stdout.splitlines() if line.strip().startswith(name)]
        assert line.split()[-1] == f"{value:.2f}"


def test_the_measured_numbers_fit_each_other(ran):
    _, folder = ran
    report = json.loads(next(folder.glob("*.json")).read_text())
    speed = report["speed"]
    for name in ("ceiling", "the usual way"):
        ratios = sorted(ours / theirs for ours, theirs in zip(speed["engrec"], speed[name], strict=True))
        assert report["ratios"][f"engrec / {name}"] == pytest.approx(ratios[len(ratios) // 2])
    assert 0 < report["arithmetic"]["share"] < 2  # of what was measured at another moment, on a busy machine perhaps
    pieces = report["pieces"]
    assert pieces["batch assembly"] + pieces["augmentation and scaling"] < 0.1 * pieces["step of the network"]
    assert report["epoch"]["share of metrics"] < 0.02
    images = report["growth"]["seconds of an epoch by number of images"]
    assert [int(n) // 32 for n in images] == [1, 2, 4, 8]
    assert images["256"] < 3 * 8 * images["32"]
    assert list(report["growth"]["images per second by batch size"]) == ["32", "64", "128", "256", "512"]
    assert 0 < report["process"]["command to first step, s"] < 120
