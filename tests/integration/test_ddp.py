"""One run over two processes (gloo, on the CPU) says what one process says, whatever the number of images."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from commands import FEW, SMALL, Folder, wait_for
from hydra.utils import instantiate

from engrec import checkpoint
from engrec.experiment import build_data, build_trainer
from engrec.machine import processes
from engrec.plan import plan

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]
START = ["stage=scratch", *SMALL, *FEW, *TWO]
NAMES = ("loss", "accuracy", "balanced_accuracy", "f1", "auc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("ddp"))


@pytest.fixture(
    scope="module", params=[pytest.param(14, id="even", marks=pytest.mark.slow), pytest.param(15, id="odd")]
)
def trained(request, folder):
    """One epoch on two processes, with as many validation images; the command, its folder and the images."""
    name = f"val{request.param}"
    sizes = [f"dataset.num_val={request.param}", "dataset.num_test=23", "max_epochs=1"]
    done = folder.command(*START, *sizes, f"output_dir={name}")
    assert done.status == 0, done.stderr[-3000:]
    return done, folder.path / name, sizes


def one_process(compose, path, sizes, side):
    """What one process says of the checkpoint, on the same images."""
    settings = ["trainer.precision=32-true", "+trainer.enable_checkpointing=false", f"output_dir={path / 'alone'}"]
    planned = plan(compose("stage=scratch", *SMALL, *FEW, *sizes, *settings))
    planned.config["callbacks"] = {}
    data, saved = build_data(planned), checkpoint.read(path / "last.ckpt")
    module = instantiate(planned.config["module"], **saved["hyper_parameters"], _recursive_=False, _convert_="all")
    module.load_state_dict(saved["state_dict"])
    run = build_trainer(planned)
    return (run.validate if side == "val" else run.test)(module, data, verbose=False)[0]


def test_validation_and_test_are_those_of_one_process(compose, trained):
    _, path, sizes = trained
    with (path / "metrics.csv").open(newline="") as file:
        [epoch] = csv.DictReader(file)
    alone = one_process(compose, path, sizes, "val")
    for name in NAMES:
        assert float(epoch[f"val/{name}"]) == pytest.approx(alone[f"val/{name}"], abs=1e-6)
    tested = json.loads((path / "result.json").read_text())["metrics"]
    alone = one_process(compose, path, sizes, "test")
    for name in NAMES:
        assert tested[f"test/{name}"] == pytest.approx(alone[f"test/{name}"], abs=1e-6)


def test_every_test_image_is_predicted_once(trained):
    with (trained[1] / "predictions.csv").open(newline="") as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert len(sources) == len(set(sources)) == 23


def test_only_the_first_process_writes_and_speaks(trained):
    done, path, _ = trained
    lines = done.stdout.splitlines()
    assert sum(line.startswith("scratch: synthetic") for line in lines) == 1
    assert sum(line.startswith("test: ") for line in lines) == 1
    assert (path / "train.log").read_text().count("INFO scratch: synthetic") == 1
    assert {p.name for p in path.iterdir()} >= {"config.yaml", "result.json", "metrics.csv", "best.ckpt", "last.ckpt"}
    assert not [p for p in path.parent.iterdir() if p.name.startswith("outputs")]


def test_what_a_step_and_its_learning_rate_are_is_said(trained):
    assert "a step has 2 × batch_size=14 = 28 images, optimizer.lr=0.02" in trained[0].stdout


def test_fewer_images_than_processes_is_an_error_that_says_what_to_type(folder):
    few = ["trainer.devices=3", "dataset.num_val=2", "dataset.num_test=21", "max_epochs=1"]
    done = folder.command(*START, *few, "output_dir=few")
    assert done.status == 1
    assert "error: 2 images for 3 devices, so that one is idle: set trainer.devices=2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder.path / "few" / "result.json").exists()


@pytest.mark.parametrize(
    ("both", "each", "named"),
    [
        (["output_dir=differ"], ["optimizer.lr=0.01", "optimizer.lr=0.02"], "optimizer="),
        ([], ["output_dir=differ/0", "output_dir=differ/1"], "output_dir=differ/"),
    ],
    ids=["lr", "folder"],
)
def test_processes_with_different_settings_stop_and_say_what_differs(folder, both, each, named):
    """As torchrun or a cluster may start them; here by hand, each with its own command."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [folder.with_env(RANK=rank, LOCAL_RANK=rank, **group) for rank in ("0", "1")]
    started = [rank.start(*START, "max_epochs=1", *both, setting) for rank, setting in zip(ranks, each, strict=True)]
    ended = [rank.finish(process) for rank, process in zip(ranks, started, strict=True)]
    assert [done.status for done in ended] == [1, 1], ended
    for done in ended:
        assert f"process 1 has {named}" in done.stderr
        assert "start all processes with the same command" in done.stderr
    assert not [*(folder.path / "differ").rglob("result.json")]


@pytest.fixture
def watched(folder):
    """The same folder, whose runs may have the callbacks of watching.py."""
    return folder.with_env(
        PYTHONPATH=os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    )


@pytest.mark.slow
def test_processes_do_not_ask_each_other_before_every_step(watched):
    asked = ["+callbacks.asked._target_=watching.Asked", "+callbacks.asked.dirpath=${output_dir}"]
    sizes = ["dataset.num_train=168", "max_epochs=2"]
    done = watched.command(*START, *sizes, *asked, "output_dir=asked")
    assert done.status == 0, done.stderr[-3000:]
    said = json.loads((watched.path / "asked" / "asked.json").read_text())
    assert said["steps"] == [0, 0]  # of six steps each
    assert said["whole"] > 0


def second_process(pid):
    """Of the run whose first process this is."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    [other] = [int(child) for child in children if "train.py" in Path(f"/proc/{child}/cmdline").read_text()]
    return other


def wait_until_gone(pid):
    deadline = time.monotonic() + 30
    while processes.process(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_run_leaves_no_process_behind(folder):
    run = folder.path / "killed"
    process = folder.start(*START, "batch_size=8", "dataset.num_train=400", "max_epochs=900", f"output_dir={run}")
    wait_for((run / "last.ckpt").is_file, process)
    other = second_process(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    folder.finish(process)
    wait_until_gone(other)


def test_kill_ends_a_run_of_which_one_process_waits_for_the_gradients_of_the_other(watched):
    """A process inside PyTorch hears of no signal: nobody may wait for its answer."""
    run, held = watched.path / "waiting", watched.path / "held"
    hold = ["+callbacks.held._target_=watching.HeldInside", f"+callbacks.held.path={held}"]
    process = watched.start(*START, "dataset.num_train=168", "max_epochs=4", *hold, f"output_dir={run}")
    wait_for(held.is_file, process)
    other = second_process(process.pid)
    time.sleep(1)  # until the other computes its gradients
    os.kill(process.pid, signal.SIGTERM)
    assert watched.finish(process, timeout=60).status == 143
    wait_until_gone(other)
    assert (run / "last.ckpt").is_file()


def torchrun(folder, *arguments):
    """In two processes, which are started once more if one of them ends.

    Without the variable torch 2.13's gloo looks for the process that is gone: both rounds share one store.
    """
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "train.py", *START, *arguments]
    env = folder.env | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    log = (folder.path / ".torchrun.log").open("w+")
    return log, subprocess.Popen(
        command, cwd=folder.path, env=env, stdout=log, stderr=log, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_a_run_of_torchrun_has_one_folder_and_goes_on_when_a_process_is_killed(folder):
    long = ["batch_size=8", "dataset.num_train=400", "max_epochs=4"]
    done = folder.command(*START, *long, "output_dir=whole")
    assert done.status == 0, done.stderr[-3000:]
    log, process = torchrun(folder, *long)
    try:
        deadline = time.monotonic() + 180
        while not (found := [*folder.path.glob("outputs/scratch/*/torchrun-*/last.ckpt")]):
            assert time.monotonic() < deadline
            assert process.poll() is None, log.seek(0) or log.read()[-3000:]
            time.sleep(0.005)
        [run] = [path.parent for path in found]
        os.kill(json.loads((run / "status.json").read_text())["process"]["pid"], signal.SIGKILL)
        process.wait(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    log.seek(0)
    said = log.read()
    assert process.returncode == 0, said[-3000:]
    assert "resuming from" in said
    assert [*run.parent.iterdir()] == [run]
    assert (run / "metrics.csv").read_bytes() == (folder.path / "whole" / "metrics.csv").read_bytes()
    before, after = (json.loads((path / "result.json").read_text()) for path in (folder.path / "whole", run))
    assert after["metrics"] == before["metrics"]
