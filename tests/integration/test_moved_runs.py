"""A run whose folder is moved between two parts of its training ends like the run that was never stopped."""

import json
import shutil

import pytest
import torch
from commands import FEW, SMALL

from engrec.errors import CheckpointError
from engrec.experiment import run
from engrec.modules.classifier import Classifier
from engrec.runs.status import status_of

EPOCHS = 5
SETTINGS = ["stage=scratch", *SMALL, *FEW, "lr_scheduler=plateau", "trainer.precision=32-true", f"max_epochs={EPOCHS}"]


@pytest.fixture
def train(compose, monkeypatch):
    """Train in a folder; stopped: before this epoch, numbered from 0."""
    begin = Classifier.on_train_epoch_start

    def train(folder, *overrides, stopped=None):
        def on_train_epoch_start(self):
            if self.current_epoch == stopped:
                raise SystemExit(143)  # as a signal does
            begin(self)

        monkeypatch.setattr(Classifier, "on_train_epoch_start", on_train_epoch_start)
        folder.mkdir(exist_ok=True)
        run(compose(*SETTINGS, f"output_dir={folder}", *overrides))

    return train


def stopped_after_each_epoch(train, tmp_path, move):
    """The folder of a run that was stopped, moved and resumed as often as it has epochs."""
    folder = tmp_path / "part0"
    for epoch in range(1, EPOCHS):
        with pytest.raises(SystemExit):
            train(folder, "ckpt_path=last", stopped=epoch)
        assert status_of(folder).state == "stopped"
        folder = move(folder, tmp_path / f"part{epoch}")
    train(folder, "ckpt_path=last")
    return folder


def weights(folder):
    return torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(
    "move", [pytest.param(shutil.move, id="moved"), pytest.param(shutil.copytree, id="copied", marks=pytest.mark.slow)]
)
def test_a_run_that_is_moved_after_each_epoch_ends_like_one_that_stayed(train, tmp_path, move):
    train(tmp_path / "whole")
    folder = stopped_after_each_epoch(train, tmp_path, lambda *paths: move(*map(str, paths)) and paths[1])
    for name in ("metrics.csv", "predictions.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    found, expected = result(folder), result(tmp_path / "whole")
    for name in ("metrics", "validation", "calibration", "epochs"):
        assert found[name] == expected[name], name
    assert found["validation"]["epoch"] < EPOCHS - 1  # otherwise any epoch would have become the best
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(folder)[name]), name


def test_a_best_checkpoint_of_another_epoch_is_found_before_training_goes_on(train, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        train(folder, stopped=EPOCHS - 1)
    best = torch.load(folder / "best.ckpt", weights_only=True)
    other = next(epoch for epoch in range(EPOCHS - 1) if epoch != best["epoch"])
    torch.save(best | {"epoch": other}, folder / "best.ckpt")
    log = (folder / "metrics.csv").read_bytes()
    with pytest.raises(
        CheckpointError, match=rf"best\.ckpt is of epoch {other + 1}, but the best .* {best['epoch'] + 1}"
    ):
        train(folder, "ckpt_path=last")
    assert (folder / "metrics.csv").read_bytes() == log
    (folder / "best.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"best\.ckpt cannot be opened: No such file"):
        train(folder, "ckpt_path=last")


def test_a_better_epoch_that_was_saved_before_the_kill_is_no_mistake(train, tmp_path):
    """best.ckpt of an epoch is written before last.ckpt."""
    for folder, epoch in (("one", 1), ("two", 2)):
        with pytest.raises(SystemExit):
            train(tmp_path / folder, stopped=epoch)
    newer = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    torch.save(newer, tmp_path / "one" / "best.ckpt")
    train(tmp_path / "one", "ckpt_path=last")
    train(tmp_path / "whole")
    assert result(tmp_path / "one")["metrics"] == result(tmp_path / "whole")["metrics"]
