"""The command line as a user types it: what it prints, what it leaves on disk, and that its numbers hold."""

import csv
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import FEW, PLAIN, ROOT, SMALL, Folder, wait_for

from engrec import checkpoint
from engrec.config import groups
from engrec.errors import BAD_CHECKPOINT, DIVERGED
from engrec.runs.status import status_of

PRETRAIN = ["stage=pretrain", *SMALL, *FEW, "max_epochs=2"]
FINETUNE = ["stage=finetune", *SMALL, *FEW, "max_epochs=2"]
FILES = {
    "config.yaml", "status.json", "train.log", "metrics.csv", "best.ckpt", "last.ckpt", "predictions.csv",
    "result.json", "curves.png", "confusion.png", "controls",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("work"))


@pytest.fixture
def empty(tmp_path):
    return Folder(tmp_path)


def succeeded(done):
    assert done.status == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def result(run):
    return json.loads((run / "result.json").read_text())


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def state(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_run(one, other):
    for name in ("metrics.csv", "predictions.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert result(one)["metrics"] == result(other)["metrics"]
    assert result(one)["validation"] == result(other)["validation"]
    for name, value in state(one / "best.ckpt").items():
        assert torch.equal(value, state(other / "best.ckpt")[name]), name


@pytest.fixture(scope="module")
def pretrained(folder):
    """A new interpreter, and the folder that a run chooses itself."""
    done = succeeded(folder.python("train.py", *PRETRAIN))
    return done, folder.path / done.line("results are in ")


@pytest.fixture(scope="module")
def finetuned(folder, pretrained):
    done = succeeded(folder.command(*FINETUNE, f"init_from={pretrained[1]}/best.ckpt", "output_dir=finetuned"))
    return done, folder.path / "finetuned"


def test_a_run_leaves_its_files_and_nothing_else(pretrained, finetuned, folder):
    for _, run in (pretrained, finetuned):
        assert {path.name for path in run.iterdir()} == FILES
    assert pretrained[1].parent == folder.path / "outputs" / "pretrain" / "synthetic-vgg_small"


def test_pictures_are_pictures(pretrained):
    for name in ("curves.png", "confusion.png"):
        assert (pretrained[1] / name).read_bytes().startswith(b"\x89PNG")


def test_the_configuration_on_disk_is_resolved_and_whole(pretrained):
    text = (pretrained[1] / "config.yaml").read_text()
    assert "${" not in text
    assert "???" not in text
    assert "max_epochs: 2" in text


def test_the_log_has_what_was_printed(pretrained):
    done, run = pretrained
    log = [line.partition(" INFO ")[2] for line in (run / "train.log").read_text().splitlines()]
    assert log == [line for line in done.stdout.splitlines() if line in log]
    assert len(log) == 13
    assert log[0].startswith("pretrain: synthetic, 105 images of 7 people (70 train, 14 validation, 21 test)")


def test_synthetic_faces_are_named_once_beside_the_results(pretrained, finetuned):
    for (done, _), name in ((pretrained, "fer2013"), (finetuned, "wacv2016")):
        line = done.line("This run used synthetic faces")
        assert f"python scripts/prepare.py {name}" in line
        assert f"python train.py experiment={name}" in line


def test_the_metrics_are_those_of_the_predictions(finetuned):
    run = finetuned[1]
    predicted = rows(run / "predictions.csv")
    assert len(predicted) == 21
    right = [max(("engaged", "disengaged"), key=lambda k, r=r: float(r[f"p_{k}"])) == r["label"] for r in predicted]
    assert result(run)["metrics"]["test/accuracy"] == pytest.approx(sum(right) / 21, rel=1e-6)


def test_the_result_says_how_it_was_made(finetuned):
    said = result(finetuned[1])
    assert said["num_images"] == {"train": 70, "val": 14, "test": 21}
    assert said["epochs"] == 2 == len(rows(finetuned[1] / "metrics.csv"))
    assert said["seed"] == 0
    assert said["stage"] == "finetune"
    assert said["choices"]["model"] == "vgg_small"
    assert said["choices"]["mixup"] == "none"
    assert said["versions"]["torch"]
    assert shlex.split(said["command"])[:4] == ["python", "train.py", *FINETUNE[:2]]
    best = max(rows(finetuned[1] / "metrics.csv"), key=lambda row: float(row["val/auc"]))
    assert said["validation"]["val/auc"] == float(best["val/auc"])
    assert said["validation"]["epoch"] == int(best["epoch"])


def test_a_checkpoint_tests_as_it_did_when_it_was_made(folder, finetuned):
    """To the last digit, and without naming the network, which the checkpoint knows."""
    data = ["trainer.accelerator=cpu", *PLAIN, *FEW]
    succeeded(folder.command("stage=test", f"ckpt_path={finetuned[1]}/best.ckpt", *data, "output_dir=tested"))
    assert result(folder.path / "tested")["metrics"] == result(finetuned[1])["metrics"]
    assert (folder.path / "tested" / "predictions.csv").read_bytes() == (finetuned[1] / "predictions.csv").read_bytes()


def test_views_come_beside_the_plain_test_never_instead(folder, finetuned):
    """And the calibration is the same, as it is of the plain probabilities."""
    data = ["trainer.accelerator=cpu", *PLAIN, *FEW]
    checkpoint = f"ckpt_path={finetuned[1]}/best.ckpt"
    done = succeeded(folder.command("stage=test", "tta=flip", checkpoint, *data, "output_dir=flipped"))
    run, plain = folder.path / "flipped", finetuned[1]
    assert (run / "predictions.csv").read_bytes() == (plain / "predictions.csv").read_bytes()
    said, before = result(run), result(plain)
    assert said["metrics"] == before["metrics"]
    assert said["calibration"] == before["calibration"]
    assert "tta" not in before
    assert said["tta"]["kind"] == "flip"
    predicted = rows(run / "predictions_flip.csv")
    right = [max(("engaged", "disengaged"), key=lambda k, r=r: float(r[f"p_{k}"])) == r["label"] for r in predicted]
    assert said["tta"]["metrics"]["test/accuracy"] == pytest.approx(sum(right) / 21, rel=1e-6)
    assert said["tta"]["metrics"].keys() == said["metrics"].keys()
    assert said["tta"]["metrics"]["test/loss"] != said["metrics"]["test/loss"]
    assert done.line("test: accuracy ").startswith(f"{said['metrics']['test/accuracy']:.4f}, ")
    assert done.line("test with flip: ").startswith(f"accuracy {said['tta']['metrics']['test/accuracy']:.4f}, ")


def test_two_processes_test_as_one_does(folder, finetuned):
    """Each has half of the images; predictions, temperature and metrics are of all of them."""
    data = ["trainer.accelerator=cpu", "trainer.precision=32-true", *FEW]
    start = ["stage=test", "tta=flip", f"ckpt_path={finetuned[1]}/best.ckpt", *data]
    for devices in ("1", "2"):
        succeeded(folder.command(*start, f"trainer.devices={devices}", f"output_dir=devices{devices}"))
    one, two = folder.path / "devices1", folder.path / "devices2"
    for name in ("predictions.csv", "predictions_flip.csv"):
        for row, other in zip(rows(one / name), rows(two / name), strict=True):
            assert (row["source"], row["label"]) == (other["source"], other["label"])
            assert float(row["p_engaged"]) == pytest.approx(float(other["p_engaged"]), abs=1e-5)
    assert result(two)["calibration"] == pytest.approx(result(one)["calibration"], rel=1e-3)
    assert result(two)["metrics"] == pytest.approx(result(one)["metrics"], rel=1e-4)
    assert result(two)["tta"]["metrics"] == pytest.approx(result(one)["tta"]["metrics"], rel=1e-4)


def test_the_calibration_is_that_of_the_predictions(pretrained):
    done, run = pretrained
    said, predicted = result(run)["calibration"], rows(run / "predictions.csv")
    assert list(said) == ["temperature", "test/ece", "test/ece_calibrated", "test/nll", "test/nll_calibrated"]
    for suffix, temperature in (("", 1), ("_calibrated", said["temperature"])):
        nll = 0.0
        for row in predicted:
            powers = {k[2:]: float(p) ** (1 / temperature) for k, p in row.items() if k.startswith("p_")}
            nll -= math.log(powers[row["label"]] / sum(powers.values())) / len(predicted)
        assert said[f"test/nll{suffix}"] == pytest.approx(nll, rel=1e-5)
    assert done.line("calibration: ")


def test_controls_stand_beside_the_predictions_and_are_said(finetuned):
    done, run = finetuned
    predicted = rows(run / "predictions.csv")
    known = ("source", "subject", "format", "label")
    for name in ("majority", "subject_majority", "nearest_neighbour"):
        control = rows(run / "controls" / f"{name}.csv")
        assert [[row[k] for k in known] for row in control] == [[row[k] for k in known] for row in predicted]
        right = [max(("engaged", "disengaged"), key=lambda k, r=r: float(r[f"p_{k}"])) == r["label"] for r in control]
        assert f"{sum(right) / len(right):.4f}" in done.line("for comparison: ")


def test_a_split_that_leaks_is_warned_of_and_its_result_is_marked(folder):
    done = succeeded(folder.command(*LONG[:-2], *FEW, "max_epochs=1", "split=random", "output_dir=leaking"))
    lines = done.stdout.splitlines()
    warned = [i for i, line in enumerate(lines) if line.startswith("split=random puts the same people into train, ")]
    assert len(warned) == 1
    assert warned[0] < next(
        i for i, line in enumerate(lines) if line.startswith("test (leakage check, not a result): ")
    )
    assert done.line("split: ") == "random, by image"
    assert (folder.path / "leaking" / "train.log").read_text().count(" WARNING split=random") == 1


def test_a_second_finetuning_is_warned_of(folder, finetuned, pretrained):
    again = [*FINETUNE[:-1], "max_epochs=1", f"init_from={finetuned[1]}/best.ckpt", "output_dir=again"]
    done = succeeded(folder.command(*again))
    assert done.stdout.count("best.ckpt was already trained on these classes") == 1
    assert "was already trained on" not in finetuned[0].stdout
    first = checkpoint.trainings(checkpoint.read(folder.path / finetuned[1] / "best.ckpt"))
    assert checkpoint.read(folder.path / "again/best.ckpt")["before"] == first
    assert [(one["dataset"], one["task"]) for one in first] == [
        ("synthetic", "expression"),
        ("synthetic", "engagement"),
    ]
    test = ["stage=test", "ckpt_path=again/best.ckpt", *FEW, "split=random", "output_dir=others"]
    assert "it may have seen people and images that are tested here" in succeeded(folder.command(*test)).stdout
    # The same people were tested before.
    known = [
        json.loads((folder.path / name / "result.json").read_text())["may_know_test"] for name in ("again", "others")
    ]
    assert known == [False, True]


def test_the_printed_next_command_runs(folder, pretrained):
    """Exactly as printed, on the drawn engagement data at its full size."""
    line = pretrained[0].line("Next: ")
    assert line.startswith("python train.py stage=finetune model=vgg_small model.width=0.1 init_from=outputs/pretrain/")
    done = succeeded(folder.printed(line))
    assert result(folder.path / done.line("results are in "))["num_images"] == {"train": 400, "val": 200, "test": 2000}


def test_the_same_seed_gives_the_same_run_and_another_another(folder, pretrained):
    same, other = folder.path / "same", folder.path / "other"
    succeeded(folder.command(*PRETRAIN, f"output_dir={same}"))
    assert_same_run(pretrained[1], same)
    succeeded(folder.command(*PRETRAIN, "seed=1", f"output_dir={other}"))
    assert (other / "metrics.csv").read_bytes() != (same / "metrics.csv").read_bytes()


def test_a_frozen_backbone_is_the_pretrained_one(folder, pretrained):
    """And TensorBoard's event files lie in the run's folder."""
    frozen = folder.path / "frozen"
    start = f"init_from={pretrained[1]}/best.ckpt"
    succeeded(
        folder.command(*FINETUNE, start, "module.freeze_backbone=true", "logger=tensorboard", f"output_dir={frozen}")
    )
    before, after = state(pretrained[1] / "best.ckpt"), state(frozen / "last.ckpt")
    names = [name for name in before if name.startswith("backbone.")]
    assert any("running_var" in name for name in names)
    for name in names:
        assert torch.equal(before[name], after[name]), name
    assert list(frozen.glob("tensorboard/events.out.tfevents.*"))


def test_a_backbone_that_is_not_frozen_learns(pretrained, finetuned):
    before, after = state(pretrained[1] / "best.ckpt"), state(finetuned[1] / "last.ckpt")
    assert not any(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))


# --- a run that is cut off ------------------------------------------------------------------------------------------

LONG = ["stage=scratch", *SMALL, "batch_size=8", "dataset.num_train=400", *FEW[1:], "max_epochs=4"]
SCHEDULES = {
    "cosine": ["lr_scheduler=cosine", "augment=strong"],
    "plateau": ["lr_scheduler=plateau", "lr_scheduler.patience=0", "augment=strong", "optimizer=adamw"],
}


@pytest.fixture(scope="module")
def uninterrupted(folder):
    runs = {}

    def uninterrupted(schedule):
        if schedule not in runs:
            runs[schedule] = folder.path / f"{schedule}-whole"
            succeeded(folder.command(*LONG, *SCHEDULES[schedule], f"output_dir={runs[schedule]}"))
        return runs[schedule]

    return uninterrupted


def cut_off(folder, schedule, signum, *more):
    """Send a signal in the middle of the third epoch, at least; how it ended and the run's folder."""
    run = folder.path / f"{schedule}-{signum.name} with a space{len(more)}"
    process = folder.start(*LONG, *SCHEDULES[schedule], f"output_dir={run}", *more)
    wait_for(lambda: (run / "metrics.csv").is_file() and len(rows(run / "metrics.csv")) >= 2, process)
    wait_for((run / "last.ckpt").is_file, process)
    time.sleep(0.1)
    os.kill(process.pid, signum)
    done = folder.finish(process)
    assert 2 <= len(rows(run / "metrics.csv")) < 4
    assert not (run / "result.json").exists()
    return done, run


def test_a_killed_run_goes_on_as_if_nothing_had_been(folder, uninterrupted):
    done, run = cut_off(folder, "cosine", signal.SIGKILL)
    assert done.status == -signal.SIGKILL
    again = [f"output_dir={run}", f"ckpt_path={run}/last.ckpt"]
    succeeded(folder.command(*LONG, *SCHEDULES["cosine"], *again))
    assert_same_run(run, uninterrupted("cosine"))


def test_the_same_command_goes_on_until_it_is_done(folder, uninterrupted):
    done, run = cut_off(folder, "cosine", signal.SIGKILL, "ckpt_path=last")
    assert done.status == -signal.SIGKILL
    assert status_of(run).state == "failed"
    again = [*LONG, *SCHEDULES["cosine"], f"output_dir={run}", "ckpt_path=last"]
    assert "resuming from" in succeeded(folder.command(*again)).stdout
    assert_same_run(run, uninterrupted("cosine"))
    assert status_of(run).state == "finished"
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert f"{run.name} is finished" in succeeded(folder.command(*again)).stdout
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    other = folder.command(*again, "seed=1")
    assert other.status == 1
    assert "holds another run, with seed=0" in other.stderr


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_prints_the_command_that_goes_on(folder, uninterrupted, signum, status):
    done, run = cut_off(folder, "plateau", signum)
    assert done.status == status
    assert "Traceback" not in done.stderr
    succeeded(folder.printed(done.line("Resume with: ")))
    assert_same_run(run, uninterrupted("plateau"))


def test_the_rate_of_the_plateau_schedule_fell(uninterrupted):
    """Otherwise the tests above would say nothing of it."""
    rates = [float(row["lr"]) for row in rows(uninterrupted("plateau") / "metrics.csv")]
    assert rates[-1] < rates[0]


def test_a_stopped_finetuning_goes_on_without_the_first_stage(folder, pretrained):
    run, first = folder.path / "stopped", folder.path / "first.ckpt"
    shutil.copy(pretrained[1] / "best.ckpt", first)
    long = [*LONG[1:], "stage=finetune", f"init_from={first}", f"output_dir={run}"]
    process = folder.start(*long)
    wait_for((run / "last.ckpt").is_file, process)
    os.kill(process.pid, signal.SIGTERM)
    line = folder.finish(process).line("Resume with: ")
    first.unlink()
    succeeded(folder.printed(line))
    assert len(rows(run / "metrics.csv")) == 4
    assert f"init_from: {first}" in (run / "config.yaml").read_text()


def test_a_second_run_in_the_folder_of_one_that_is_at_work_is_refused(folder):
    run = folder.path / "taken"
    process = folder.start(*LONG, f"output_dir={run}", "ckpt_path=last")
    wait_for((run / "last.ckpt").is_file, process)
    second = folder.command(*LONG, f"output_dir={run}", "ckpt_path=last")
    assert second.status == 1
    assert f"another run is active in {run.name}" in second.stderr
    os.kill(process.pid, signal.SIGTERM)
    assert folder.finish(process).status == 143


def test_the_folder_of_a_sweep_is_not_that_of_its_trials(folder):
    done = folder.command("-m", *PRETRAIN, "seed=0,1", "output_dir=mine")
    assert done.status == 1
    assert "set hydra.sweep.dir=" in done.stderr


def test_early_stopping_stops_early(folder):
    """A learning rate of almost 0 makes nothing better."""
    run, stop = folder.path / "early", ["callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
    still = ["optimizer.lr=1e-30", "monitor=val/auc", "model.norm=none", "augment=none", "max_epochs=30"]
    command = [*PRETRAIN[:-1], *stop, *still, f"output_dir={run}"]
    succeeded(folder.command(*command))
    assert len(rows(run / "metrics.csv")) == 3
    first = result(run)
    assert first["epochs"] == 3
    (run / "result.json").unlink()  # as if it was killed before the test
    succeeded(folder.command(*command, "ckpt_path=last"))
    assert len(rows(run / "metrics.csv")) == 3
    assert result(run)["metrics"] == first["metrics"]


# --- sweeps and trackers --------------------------------------------------------------------------------------------


def test_a_sweep_with_wandb_is_a_run_for_each_trial_without_a_network(folder):
    """Nobody is logged in: HOME has no netrc, the environment no key."""
    few = [*SMALL, *FEW, "stage=scratch", "max_epochs=1"]
    done = succeeded(folder.command("-m", "seed=0,1", *few, "logger=wandb", "hydra.sweep.dir=sweep"))
    files = [path for trial in ("0", "1") for path in (folder.path / "sweep" / trial).rglob("run-*.wandb")]
    assert len(files) == 2
    assert [path.relative_to(folder.path / "sweep").parts[0] for path in files] == ["0", "1"]
    assert all("offline-run-" in path.parent.name for path in files)
    assert len({path.name for path in files}) == 2
    for trial in ("0", "1"):
        run = folder.path / "sweep" / trial
        assert result(run)["seed"] == int(trial)
        assert {path.name for path in run.iterdir()} - {"wandb", "wandb.json"} == FILES
        assert (run / "train.log").read_text().count("results are in") == 1
        pasted = succeeded(folder.printed(f"{result(run)['command']} --cfg job")).stdout.splitlines()
        assert {f"seed: {trial}", f"output_dir: sweep/{trial}"} <= set(pasted)
    one, other = (result(folder.path / "sweep" / trial)["metrics"] for trial in ("0", "1"))
    assert one != other
    assert done.stdout.count("test: ") == 2


def test_a_sweep_whose_last_run_would_be_refused_starts_none(empty):
    kfold = ["split=kfold", "split.num_folds=3", "split.fold=0,1,3", "seed=1,-1", "hydra.sweep.dir=sweep"]
    done = empty.command("-m", "stage=scratch", *SMALL, *FEW, *kfold)
    assert done.status == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: split.fold=3 must be from 0 to 2")
    assert line.endswith("; seed=-1 must be from 0 to 4294967295")
    assert not (empty.path / "sweep").exists()


def test_a_sweep_over_several_devices_is_refused(empty):
    done = empty.command("-m", "seed=0,1", *PRETRAIN, "trainer.devices=2", "hydra.sweep.dir=sweep")
    assert done.status == 1
    assert "trainer.devices=1" in done.stderr
    assert not list(empty.path.glob("sweep/[01]"))


# --- errors of the user ---------------------------------------------------------------------------------------------


OF_A_CHECKPOINT = (
    *("cannot be read safely", "not an engrec checkpoint", "has another network", "has 7 classes"),
    *("has only weights", "was trained with"),
)


@pytest.fixture(scope="module")
def files(folder, pretrained):
    """What a user may name by mistake."""
    run = pretrained[1]
    (folder.path / "notes.txt").write_text("hello")
    torch.save({"weights": torch.zeros(1)}, folder.path / "other.pt")
    return {"BEST": run / "best.ckpt", "LAST": run / "last.ckpt", "RUN": run, "HERE": folder.path}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("modle=vgg", "or model?"),
        ("model=vgg_smal", "vgg_small"),
        ("model.widht=2", "width"),
        ("+model.widht=2", "width"),
        ("batch_size=many", "batch_size=many"),
        ("model=[vgg]", "model=[vgg] is a list: a run has one model"),
        ("batch_size=0 max_epochs=0", "max_epochs=0"),
        ("monitor=val/acc", "must be one of val/accuracy, "),
        ("optimizer.lr=high", "optimizer.lr=high must be a number above 0"),
        ("seed=-1", "seed"),
        ("output_dir= FEW", "output_dir is empty"),
        ("hydra.run.dir= FEW", "output_dir is empty"),
        ("optimizer.lr=${foo} FEW", "optimizer.lr: Interpolation key 'foo' not found"),
        ("optimizer.lr=${oc.env:NOT_SET_HERE} FEW", "NOT_SET_HERE"),
        ("stage=finetune", "init_from=outputs/pretrain"),
        ("stage=finetune init_from=RUN", "best.ckpt"),
        ("stage=finetune init_from=none.ckpt", "is not a file"),
        ("stage=finetune init_from=HERE/notes.txt FEW", "notes.txt cannot be read safely"),
        ("stage=finetune init_from=HERE/other.pt FEW", "other.pt is a PyTorch file but not an engrec checkpoint"),
        ("stage=finetune init_from=BEST model=vgg_small FEW", "set model=vgg_small model.width=0.1"),
        ("stage=finetune init_from=BEST ckpt_path=LAST", "init_from=null"),
        ("stage=test", "ckpt_path=outputs"),
        ("stage=test ckpt_path=BEST dataset.task=engagement FEW", "best.ckpt has 7 classes"),
        ("ckpt_path=LAST", "output_dir=RUN"),
        ("ckpt_path=BEST output_dir=RUN SMALL FEW", "last.ckpt"),
        ("ckpt_path=LAST output_dir=RUN model=vgg_small FEW", "model.width="),
        ("ckpt_path=LAST output_dir=RUN SMALL FEW optimizer.lr=1", "lr"),
        ("dataset=prepared", "dataset.path=data"),
        ("dataset=prepared dataset.path=none.npz", "scripts/prepare.py"),
        ("dataset=prepared dataset.path=HERE/notes.txt", "not a prepared data set"),
        ("dataset=fer2013", "data/fer2013.npz does not exist"),
        ("dataset.num_train=3", "dataset.num_train=3"),
        ("split=kfold split.fold=9 FEW", "split.fold=9 must be from 0 to 4"),
        ("split=kfold split.num_folds=1 FEW", "split.num_folds=1"),
        ("augment.flip=2 FEW", "augment.flip=2"),
        ("model=vgg model.norm=layer FEW", "model.norm=layer"),
        ("stage=scratch module.class_weights=equal FEW", "module.class_weights=equal"),
        ("module.soft_labels=true FEW", "module.soft_labels=false"),
        ("trainer.accelerator=warp FEW", "accelerator"),
        ("trainer.precision=8 FEW", "recision"),
        ("optimizer.lr=1e30 SMALL FEW", "optimizer.lr=1e+29"),
    ],
)
def test_an_error_of_the_user_is_one_line(folder, files, line, said):
    words = {"FEW": " ".join(FEW), "SMALL": " ".join(SMALL)} | {name: str(path) for name, path in files.items()}
    for name, meant in words.items():
        line, said = line.replace(name, meant), said.replace(name, meant)
    before = set(folder.path.rglob("*"))
    done = folder.command(*line.split())
    errors = [
        error
        for error in re.split(r"[\r\n]", done.stderr)
        if not re.match(r"Training:|Epoch|Validation|\s*$|\x1b", error)
    ]
    diverged = DIVERGED if "lr=1e30" in line else 1
    expected = BAD_CHECKPOINT if any(words in errors[0] for words in OF_A_CHECKPOINT) else diverged
    assert done.status == expected, done.stderr
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert said in errors[0]
    assert "Traceback" not in done.stdout + done.stderr
    left = {path for path in set(folder.path.rglob("*")) - before if not path.name.startswith(".")}
    assert not left or "lr=1e30" in line


def test_verbose_shows_where_an_error_comes_from(empty):
    done = empty.command("batch_size=0", "hydra.verbose=true")
    assert done.status == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (empty.path / "outputs").exists()


# --- answers at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]])
def test_questions_are_answered_at_once(empty, question):
    """Under a second on a quiet machine. The limit is for a host that others slow down; time of the CPU is measured, as
    tests share it."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = succeeded(empty.python("train.py", *question))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 4
    expected = ["model: ", "stage: ", "python train.py"] if question == ["--help"] else ["max_epochs: ", "_target_: "]
    assert all(part in done.stdout for part in expected)


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"], ["modle=vgg"], ["model=none"]])
def test_questions_and_typing_errors_do_not_wait_for_torch(empty, question):
    done = empty.python("-X", "importtime", "train.py", *question)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    assert imported.isdisjoint({"torch", "pytorch_lightning", "lightning_fabric", "numpy", "sklearn", "matplotlib"})


def test_help_names_every_group_and_option(empty):
    done = empty.python("train.py", "--help")
    assert groups() in done.stdout


def test_the_entry_point_is_found_from_anywhere(empty, tmp_path):
    done = succeeded(empty.python(Path(ROOT) / "train.py", "--cfg", "job"))
    assert "seed: 0" in done.stdout


def test_a_folder_that_holds_a_run_is_not_overwritten(folder, pretrained):
    _, run = pretrained
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    again = folder.command(*PRETRAIN, f"output_dir={run}")
    assert again.status == 1
    assert "holds a finished run" in again.stderr
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before


def test_a_test_does_not_overwrite_the_training_either(folder, finetuned):
    _, run = finetuned
    before = (run / "result.json").read_bytes()
    again = folder.command(*FEW, "stage=test", f"ckpt_path={run}/best.ckpt", f"output_dir={run}")
    assert again.status == 1
    assert "holds a finished run" in again.stderr
    assert (run / "result.json").read_bytes() == before


def test_a_test_on_another_part_of_the_data_is_warned_of(folder, finetuned):
    tested = ["stage=test", f"ckpt_path={finetuned[1]}/best.ckpt"]
    same = succeeded(folder.command(*FEW, *tested, "output_dir=same_part"))
    assert "with another split" not in same.stdout + same.stderr
    other = succeeded(folder.command(*FEW, *tested, "split=random", "output_dir=other_part"))
    assert "trained on synthetic with another split: it may have seen people" in other.stdout + other.stderr


def test_a_checkpoint_of_real_faces_is_not_tested_on_drawn_ones(folder, pretrained):
    checkpoint = torch.load(pretrained[1] / "best.ckpt", weights_only=True)
    torch.save(checkpoint | {"dataset": "fer2013"}, folder.path / "real.ckpt")
    tested = folder.command("stage=test", "ckpt_path=real.ckpt", *FEW)
    assert tested.status == 1
    assert "was trained on fer2013: set dataset=fer2013" in tested.stderr
