"""What is on disk after a run, or after a run that was cut off."""

import csv
from contextlib import suppress

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from engrec.callbacks import History, Predictions, write_predictions, written_whole
from engrec.data import DataModule
from engrec.metrics import confusion_matrix
from engrec.modules.engagement import EngagementModule
from engrec.splits import Split


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as file:
        file.write("first")
        assert not path.exists()
    with suppress(KeyboardInterrupt), written_whole(path) as file:
        file.write("sec")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_predictions_come_back_to_the_last_bit(make_faces, tmp_path):
    faces = make_faces(class_names=('say "no", never', "größer"), sources=np.array([f"a,b/{i}\n" for i in range(24)]))
    probabilities = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    write_predictions(tmp_path / "predictions.csv", faces, [7, 2, 20], probabilities.tolist())
    rows = read(tmp_path / "predictions.csv")
    assert [row["source"] for row in rows] == faces.sources[[7, 2, 20]].tolist()
    assert [row["subject"] for row in rows] == faces.subjects[[7, 2, 20]].tolist()
    assert [row["label"] for row in rows] == [faces.class_names[k] for k in faces.labels[[7, 2, 20]]]
    written = [[float(row[f"p_{name}"]) for name in faces.class_names] for row in rows]
    assert torch.equal(torch.tensor(written), probabilities)


def test_without_subjects_their_column_is_empty(make_faces, tmp_path):
    write_predictions(tmp_path / "p.csv", make_faces(subjects=None), [0], [[0.25, 0.75]])
    assert read(tmp_path / "p.csv")[0]["subject"] == ""


@pytest.fixture
def module():
    torch.manual_seed(0)
    return EngagementModule(
        model={"_target_": "engrec.models.vgg.VGG", "image_size": 16, "norm": "none", "width": 0.05, "dense": []},
        optimizer={"_target_": "torch.optim.SGD", "lr": 0.05},
        lr_scheduler={},
        class_names=["class0", "class1"],
        preprocessing={"channels": 1, "height": 16, "width": 16, "normalize": "image"},
        class_counts=[6, 6],
    )


@pytest.fixture
def data(make_faces):
    split = Split(np.arange(12), np.arange(12, 17), np.arange(17, 24))
    return DataModule(make_faces(), split, lambda images: images, 4, eval_batch_size=3)


def trainer(callbacks, max_epochs=2):
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_every_test_image_has_one_row_and_the_rows_give_the_metrics(module, data, tmp_path):
    predictions = Predictions(tmp_path / "predictions.csv")
    metrics = trainer([predictions]).test(module, data, verbose=False)[0]
    rows = read(predictions.path)
    assert [row["source"] for row in rows] == data.faces.sources[17:].tolist()
    probabilities = torch.tensor([[float(row["p_class0"]), float(row["p_class1"])] for row in rows])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    labels = torch.tensor([int(row["label"] == "class1") for row in rows])
    assert metrics["test/accuracy"] == pytest.approx((probabilities.argmax(1) == labels).float().mean().item())
    assert torch.equal(predictions.confusion, confusion_matrix(probabilities, labels))


def test_history_has_a_row_per_epoch(module, data, tmp_path):
    history = History(str(tmp_path))
    fitted = trainer([history], max_epochs=3)
    fitted.fit(module, data)
    rows = read(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1", "val/auc"} <= rows[0].keys()
    assert float(rows[2]["val/loss"]) == fitted.callback_metrics["val/loss"].item()
    assert [{k: float(v) for k, v in row.items()} for row in rows] == history.epochs
    assert len(history.seconds) == 3
    assert all(seconds > 0 for seconds in history.seconds)
    assert history.num_images == [12, 12, 12]
    assert history.images_per_second == pytest.approx(36 / sum(history.seconds), abs=0.1)


@pytest.mark.parametrize(("monitor", "best"), [("val/auc", 1), ("val/loss", 2)])
def test_the_best_epoch_is_the_highest_or_the_lowest_loss_and_never_an_undefined_one(tmp_path, monitor, best):
    history = History(str(tmp_path))
    assert history.best(monitor) == {}
    aucs, losses = (0.5, 0.7, 0.6, float("nan")), (0.9, 0.8, 0.1, float("nan"))
    history.epochs = [
        {"epoch": i, "val/auc": a, "val/loss": x} for i, (a, x) in enumerate(zip(aucs, losses, strict=True))
    ]
    assert history.best(monitor)["epoch"] == best


def test_a_resumed_history_has_the_epochs_before(module, data, tmp_path):
    first, second = History(str(tmp_path)), History(str(tmp_path / "again"))
    (tmp_path / "again").mkdir()
    begun = trainer([first], max_epochs=1)
    begun.fit(module, data)
    begun.save_checkpoint(tmp_path / "last.ckpt")
    trainer([second], max_epochs=2).fit(module, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [row["epoch"] for row in second.epochs] == [0, 1]
    assert second.epochs[0] == first.epochs[0]
    before, after = ((folder / "metrics.csv").read_text() for folder in (tmp_path, tmp_path / "again"))
    assert after.startswith(before)
