"""Sweeps of several trials at a time with hydra/launcher=gpus, on a machine whose nvidia-smi says that it has GPUs."""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest
from commands import FEW, SMALL, Folder, wait_for

SWEEP = ["-m", "hydra/launcher=gpus", "stage=scratch", *SMALL, *FEW, "trainer=plain"]
SEEN = ["+callbacks.seen._target_=watching.Seen", "+callbacks.seen.dirpath=${output_dir}"]
TWO_GPUS = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)"
NOT_INSTALLED = """
import pkgutil
walk = pkgutil.walk_packages
plugins = ("hydra_plugins.hydra_joblib", "hydra_plugins.hydra_submitit")
pkgutil.walk_packages = lambda *args, **kw: (m for m in walk(*args, **kw) if not m.name.startswith(plugins))
"""


@pytest.fixture
def machine(tmp_path):
    """A folder for the commands; machine.says: what its nvidia-smi does."""
    folder = Folder(tmp_path)
    folder.env |= {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    folder.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    folder.env.pop("CUDA_VISIBLE_DEVICES", None)

    def says(text, status=0):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!{sys.executable}\nprint({text!r})\nraise SystemExit({status})")
        path.chmod(0o755)

    folder.says = says
    return folder


def seen(folder):
    """What the trials saw, by their folders' names."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/seen.json")}


def free(path):
    """Whether no process has this GPU."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_trials_at_a_time_have_a_gpu_each_and_one_that_fails_does_not_end_the_others(machine):
    machine.says(TWO_GPUS)
    watch = [*SEEN, "+callbacks.seen.together=2"]
    for number in (1, 4):
        (machine.path / "sweep" / str(number)).mkdir(parents=True)
        (machine.path / "sweep" / str(number) / "result.json").touch()
    done = machine.python("train.py", *SWEEP, *watch, "max_epochs=1", "seed=1,5,2,3,6", "hydra.sweep.dir=sweep")
    assert done.status == 1
    for number, line in zip((1, 4), done.stderr.splitlines()[-2:], strict=True):
        assert line.startswith(f"error: run {number}: sweep/{number} holds a finished run")
    assert "Traceback" not in done.stderr
    trials = seen(machine.path / "sweep")
    assert set(trials) == {"0", "2", "3"}
    assert {trial["gpu"] for trial in trials.values()} == {"0", "1"}
    assert not any(trial["cuda"] for trial in trials.values())
    pairs = [(a, b) for a, b in combinations(trials.values(), 2) if a["begun"] < b["ended"] and b["begun"] < a["ended"]]
    assert pairs
    assert all(a["gpu"] != b["gpu"] for a, b in pairs)
    for name, seed in (("0", 1), ("2", 2), ("3", 3)):
        path = machine.path / "sweep" / name
        assert json.loads((path / "result.json").read_text())["seed"] == seed
        log = (path / "train.log").read_text()
        assert log.count("INFO scratch: synthetic") == log.count("INFO test: accuracy") == 1
        assert log.count("INFO results are in") == log.count(f"INFO results are in sweep/{name}") == 1


def test_without_a_gpu_there_is_one_worker_and_nothing_is_set(machine):
    machine.says("No devices were found", 6)
    done = machine.command(*SWEEP, *SEEN, "max_epochs=1", "seed=1,2", "hydra.sweep.dir=sweep")
    assert done.status == 0, done.stderr[-3000:]
    first, second = seen(machine.path / "sweep").values()
    assert first["process"] == second["process"]
    assert first["gpu"] is second["gpu"] is None


@pytest.mark.parametrize(
    ("number", "everyone", "status"),
    [
        pytest.param(signal.SIGINT, True, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, False, -signal.SIGTERM, id="kill"),
        pytest.param(signal.SIGKILL, False, -signal.SIGKILL, id="kill-9"),
    ],
)
def test_a_sweep_that_is_stopped_leaves_no_trial_running(machine, number, everyone, status):
    """Ctrl-C goes to every process of the command, kill to the one that was typed."""
    machine.env["CUDA_VISIBLE_DEVICES"] = "3,MIG-a"  # these of all that nvidia-smi might list
    sweep = machine.path / "sweep"
    long = [*SWEEP, "max_epochs=100000", "seed=1,2,3", "hydra.sweep.dir=sweep"]
    process = machine.start(*long, session=True)
    try:
        wait_for(lambda: len([*sweep.glob("*/last.ckpt")]) == 2, process)
        locks = [*machine.path.glob("engrec-gpus-*/*")]
        assert {path.name for path in locks} == {"3", "MIG-a"}
        assert not any(map(free, locks))
        (os.killpg if everyone else os.kill)(process.pid, number)
        done = machine.finish(process, 60)
        assert done.status == status
        end = time.monotonic() + 60
        while not all(map(free, locks)):
            assert time.monotonic() < end, "trials go on"
            time.sleep(0.1)
        states = {path.parent.name: json.loads(path.read_text())["state"] for path in sweep.glob("*/status.json")}
        assert set(states) == {"0", "1"}
        errors = [path.read_text() for path in sweep.glob("*/status.json")]
        assert number == signal.SIGINT or set(states.values()) == {"stopped"}, (
            errors
        )  # joblib may be faster than a trial
        assert "Traceback" not in done.stdout + done.stderr
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("launcher", ["gpus", "slurm"])
def test_without_its_packages_a_launcher_says_what_to_install(machine, launcher):
    (machine.path / "sitecustomize.py").write_text(NOT_INSTALLED)
    machine.env["PYTHONPATH"] = os.pathsep.join([str(machine.path), machine.env["PYTHONPATH"]])
    done = machine.python("train.py", "-m", f"hydra/launcher={launcher}", "seed=1,2")
    assert done.status == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "pip install -e '.[launchers]'" in line
