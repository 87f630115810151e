"""The paper's table from nothing on a few synthetic faces: run, stopped, resumed, and refused."""

import csv
import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from commands import PLAIN, ROOT, Folder

FEW = ["dataset.num_train=70", "dataset.num_val=14", "dataset.num_test=28", "dataset.images_per_subject=14"]
SMALL = ["model.width=0.1", "trainer.accelerator=cpu", *PLAIN]
PRETRAIN = shlex.join(["stage=pretrain", "model=vgg_small", *SMALL, *FEW, "max_epochs=1"])
COMMAND = ["--preset", "quick", "--pretrain", PRETRAIN, *SMALL, *FEW, "--resamples", "100", "--out", "table"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("work"))


def paper_table(folder, *arguments):
    return folder.finish(folder.start(*arguments, script=ROOT / "scripts" / "paper_table.py"))


@pytest.fixture(scope="module")
def made(folder):
    done = paper_table(folder, *COMMAND, "--rows", "hog_svm,engagement", "max_epochs=1")
    assert done.status == 0, done.stderr[-3000:]
    return done


def test_each_run_is_said_and_the_table_made(made, folder):
    for number, name in enumerate(("pretrain seed 0", "hog_svm seed 0", "engagement seed 0"), 1):
        assert f"[{number}/3] {name} … " in made.stdout
    text = (folder.path / "table" / "table.md").read_text()
    assert text in made.stdout
    assert "Engagement model − HOG + SVM" in text
    command = json.loads((folder.path / "table/engagement/seed0/result.json").read_text())["command"]
    assert "init_from=table/pretrain/seed0/best.ckpt" in shlex.split(command)


def test_the_same_command_again_runs_nothing(made, folder):
    results = sorted((folder.path / "table").rglob("result.json"))
    before = {path: path.stat().st_mtime_ns for path in results}
    again = paper_table(folder, *COMMAND, "--rows", "hog_svm,engagement", "max_epochs=1")
    assert again.status == 0, again.stderr[-3000:]
    assert "3 of 3 runs done already" in again.stdout
    assert "] engagement" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in sorted((folder.path / "table").rglob("result.json"))} == before


def test_other_settings_in_the_same_folder_are_refused_on_one_line(made, folder):
    other = paper_table(folder, *COMMAND, "--rows", "engagement", "max_epochs=2")
    assert other.status == 1
    assert other.stderr.count("\n") == 1
    assert "with max_epochs=1 and not 2" in other.stderr


@pytest.mark.slow
def test_ctrl_c_stops_the_run_in_hand_and_the_same_command_goes_on(folder):
    """The signal reaches the command alone; its run keeps the last whole epoch, and ends as if it had never stopped."""
    arguments = [*COMMAND, "--rows", "vgg_scratch", "max_epochs=8"]
    run = folder.path / "table" / "vgg_scratch" / "seed0"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "paper_table.py"), *arguments],
        cwd=folder.path,
        env=folder.env,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's tests ignore it
    )
    end = time.monotonic() + 240
    while not (run / "last.ckpt").is_file():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "stopped; everything saved is kept" in said
    assert "Resume with: python train.py" in (run / "train.log").read_text()  # it was stopped in its own way
    assert not (run / "result.json").is_file()
    interpreter, script, *again = shlex.split(said.partition("Resume with: ")[2])
    assert (interpreter, script, again) == ("python", "scripts/paper_table.py", arguments)
    done = paper_table(folder, *again)
    assert done.status == 0, done.stderr[-3000:]
    assert "ckpt_path=last" in json.loads((run / "result.json").read_text())["command"]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(8))
