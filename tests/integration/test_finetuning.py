"""Every option of fine-tuning in whole commands: three levels from a backbone, stopped, resumed and tested."""

import csv
import json

import numpy as np
import pytest
import torch
from commands import FEW, PLAIN, SMALL, Folder, wait_for
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from engrec.datasets.prepared import Faces

LEVELS = ("low", "middle", "high")
OPTIONS = [
    "module.ordinal=corn", "module.layer_decay=0.7", "module.l2_sp=0.01", "module.freeze_backbone=statistics",
    "module.class_weights=null", "module.logit_adjustment=1", "balance=subject", "monitor=val/qwk", "tta=flip",
]  # fmt: skip
TUNE = [
    "stage=finetune", "dataset=prepared", "dataset.path=levels.npz", "split=holdout", "init_from=first/best.ckpt",
    *SMALL, "augment=strong", "max_epochs=4", *OPTIONS,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With an expression checkpoint, and levels.npz: 12 people, each at every level, brighter at a higher one; in
    rare.npz two people alone are at the highest."""
    folder, rng = Folder(tmp_path_factory.mktemp("work")), np.random.default_rng(0)
    done = folder.command("stage=pretrain", *SMALL, *FEW, "max_epochs=1", "output_dir=first")
    assert done.status == 0, done.stderr[-3000:]
    sizes = rng.integers(6, 30, 12)
    subjects, labels = np.repeat([f"s{i:02d}" for i in range(12)], sizes), np.arange(sizes.sum()) % 3
    images = rng.integers(0, 90 + 80 * labels[:, None, None, None], (len(labels), 1, 48, 48)).astype(np.uint8)
    recipe = {"name": "levels", "importer": "test", "ordered": True}
    names = np.arange(len(labels)).astype(str)
    Faces(images, labels, LEVELS, names, recipe, subjects).save(folder.path / "levels.npz")
    labels = np.where((labels == 2) & ~np.isin(subjects, ["s00", "s01"]), 1, labels)
    Faces(images, labels, LEVELS, names, recipe | {"name": "rare"}, subjects).save(folder.path / "rare.npz")
    return folder


@pytest.fixture(scope="module")
def tuned(folder):
    done = folder.command(*TUNE, "output_dir=tuned")
    assert done.status == 0, done.stderr[-3000:]
    return folder.path / "tuned"


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_of_levels_are_those_of_the_predictions(tuned):
    result = json.loads((tuned / "result.json").read_text())
    metrics = result["metrics"]
    assert result["tta"]["metrics"].keys() == metrics.keys()
    predictions = rows(tuned / "predictions.csv")
    p = np.array([[float(row[f"p_{level}"]) for level in LEVELS] for row in predictions])
    labels = np.array([LEVELS.index(row["label"]) for row in predictions])
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    kappa = cohen_kappa_score(labels, p.argmax(1), labels=[0, 1, 2], weights="quadratic")
    assert metrics["test/qwk"] == pytest.approx(kappa, abs=1e-6, nan_ok=True)
    assert metrics["test/mae"] == pytest.approx(mean_absolute_error(labels, p.argmax(1)), abs=1e-6)
    assert {"train/qwk", "val/qwk", "val/mae"} <= rows(tuned / "metrics.csv")[0].keys()
    assert (tuned / "predictions_flip.csv").is_file()


def test_a_stopped_run_ends_with_the_same_numbers(folder, tuned):
    process = folder.start(*TUNE, "output_dir=stopped")
    wait_for(lambda: (folder.path / "stopped" / "last.ckpt").is_file(), process)
    process.terminate()
    stopped = folder.finish(process)
    assert stopped.status == 143, stopped.stderr[-3000:]
    (folder.path / "first" / "best.ckpt").rename(folder.path / "moved.ckpt")  # it is not needed again
    try:
        resumed = folder.command(*TUNE, "output_dir=stopped", "ckpt_path=last")
    finally:
        (folder.path / "moved.ckpt").rename(folder.path / "first" / "best.ckpt")
    assert resumed.status == 0, resumed.stderr[-3000:]
    one, other = (rows(path / "metrics.csv") for path in (tuned, folder.path / "stopped"))
    assert one == other
    assert rows(tuned / "predictions.csv") == rows(folder.path / "stopped" / "predictions.csv")


def test_a_checkpoint_of_levels_is_tested_as_it_was_and_holds_its_start_once(folder, tuned):
    where = ["dataset=prepared", "dataset.path=levels.npz", "split=holdout", "trainer.accelerator=cpu", *PLAIN]
    done = folder.command("stage=test", "ckpt_path=tuned/best.ckpt", *where, "output_dir=tested")
    assert done.status == 0, done.stderr[-3000:]
    one, other = (json.loads((folder.path / name / "result.json").read_text()) for name in ("tuned", "tested"))
    assert other["metrics"] == pytest.approx(one["metrics"], abs=1e-6, nan_ok=True)
    last, best = (torch.load(tuned / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    assert "start" in last
    assert "start" not in best
    assert {name.partition(".")[0] for name in best["state_dict"]} == {"backbone", "head"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["dataset.classes={no:[low],yes:[middle,high]}"],
            "monitor=val/qwk: the classes of levels are not three or more levels",
        ),
        (
            ["dataset.path=rare.npz", "split.test_fraction=0.3", "monitor=val/auc"],
            "rare: validation has no image of class high, so val/auc is undefined and can choose no epoch: set ",
        ),
        (["module.class_weights=balanced"], "correct for rare classes twice: set module.class_weights=null"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(folder, more, said):
    done = folder.command(*TUNE, *more, "output_dir=refused")
    assert done.status == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_that_has_their_batches(folder):
    """Without dropout, with the pull, stages, people in balance; frozen statistics depend on no batch."""
    start = [*TUNE, "augment=none", "model.block_dropout=0", "trainer.precision=32-true", "max_epochs=2", "tta=none"]
    sizes = {"alone": ["batch_size=8"], "ranks": ["batch_size=4", "trainer=ddp", "trainer.devices=2"]}
    for name, more in sizes.items():
        done = folder.command(*start, *more, f"output_dir={name}")
        assert done.status == 0, done.stderr[-3000:]
    one, two = (torch.load(folder.path / name / "last.ckpt", weights_only=True) for name in sizes)
    torch.testing.assert_close(one["state_dict"], two["state_dict"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one["start"], two["start"], rtol=0, atol=0)
