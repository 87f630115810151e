"""What is on disk after a run, or after a run that was cut off."""

import csv
import io
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar

from engrec import metrics
from engrec.callbacks import Calibration, History, Predictions, Progress, ViewPredictions, gathered
from engrec.data import DataModule
from engrec.machine.files import atomic_write
from engrec.metrics import confusion_matrix, fit_temperature
from engrec.modules.engagement import EngagementModule
from engrec.runs.record import write_predictions
from engrec.splits import Split
from engrec.transforms import flip_views, standardize, ten_crop_views, to_float


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as file:
        file.write("first")
        assert not path.exists()
    with suppress(KeyboardInterrupt), atomic_write(path) as file:
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


def trainer(callbacks, max_epochs=2, enable_progress_bar=False):
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=enable_progress_bar,
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


def moved(images, down, right, mirrored):
    """Each uint8 image moved, its edge repeated, pixel by pixel, then mirrored."""
    out = np.zeros_like(images)
    height, width = images.shape[2:]
    for row in range(height):
        for column in range(width):
            from_row, from_column = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
            out[:, :, row, column] = images[:, :, from_row, from_column]
    return out[..., ::-1].copy() if mirrored else out


SLOWLY = {
    flip_views: [(0, 0, False), (0, 0, True)],
    ten_crop_views: [
        (down, right, mirrored)
        for down, right in [(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]  # a twelfth of 16 is 1 pixel
        for mirrored in (False, True)
    ],
}


def probabilities_of(path):
    return torch.tensor([[float(row["p_class0"]), float(row["p_class1"])] for row in read(path)])


@pytest.fixture
def trained(module, data, tmp_path):
    trainer([History(str(tmp_path))], max_epochs=3).fit(module, data)
    return module


def test_each_epoch_is_a_line_where_there_is_no_bar(module, data, tmp_path, caplog):
    caplog.set_level("INFO")
    trainer([History(str(tmp_path))], max_epochs=2).fit(module, data)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    for line, row in zip(lines, read(tmp_path / "metrics.csv"), strict=True):
        assert f"val accuracy {float(row['val/accuracy']):.4f}" in line


@pytest.mark.parametrize("views", SLOWLY, ids=lambda views: views.__name__)
def test_views_are_the_mean_of_tests_on_images_that_were_transformed_before(trained, make_faces, tmp_path, views):
    split = Split(np.arange(12), np.arange(12, 17), np.arange(17, 24))
    slow = []
    for i, (down, right, mirrored) in enumerate(SLOWLY[views]):
        faces = make_faces(images=moved(make_faces().images, down, right, mirrored))
        one = Predictions(tmp_path / f"{i}.csv")
        trainer([one]).test(trained, DataModule(faces, split, lambda images: images, 4), verbose=False)
        slow.append(probabilities_of(one.path))
    callback = ViewPredictions(tmp_path / "views.csv", views)
    data = DataModule(make_faces(), split, lambda images: images, 4, eval_batch_size=3)
    trainer([callback]).test(trained, data, verbose=False)
    torch.testing.assert_close(probabilities_of(callback.path), torch.stack(slow).mean(0), rtol=0, atol=1e-6)
    assert all((probabilities_of(callback.path) - one).abs().max() > 1e-4 for one in slow)


def test_metrics_of_views_are_those_of_their_rows_and_named_as_the_plain_ones(trained, data, tmp_path):
    callback = ViewPredictions(tmp_path / "views.csv", ten_crop_views)
    plain = trainer([callback]).test(trained, data, verbose=False)[0]
    probabilities = probabilities_of(callback.path)
    labels = torch.tensor([int(row["label"] == "class1") for row in read(callback.path)])
    assert list(callback.metrics) == list(plain)
    for score in (metrics.accuracy, metrics.balanced_accuracy, metrics.f1, metrics.auc):
        assert callback.metrics[f"test/{score.__name__}"] == pytest.approx(score(probabilities.log(), labels).item())
    loss = -probabilities[range(7), labels].log().mean().item()
    assert callback.metrics["test/loss"] == pytest.approx(loss, rel=1e-5)
    recalls = metrics.recalls(probabilities, labels)
    assert callback.metrics["test/recall/class1"] == pytest.approx(recalls[1].item())
    assert torch.equal(callback.confusion, confusion_matrix(probabilities, labels))


def test_views_and_calibration_change_nothing_of_the_plain_test(trained, data, tmp_path):
    alone, beside = Predictions(tmp_path / "alone.csv"), Predictions(tmp_path / "beside.csv")
    before = trainer([alone]).test(trained, data, verbose=False)[0]
    more = [Calibration(), beside, ViewPredictions(tmp_path / "views.csv", flip_views)]
    tester = trainer(more)
    assert tester.test(trained, data, verbose=False)[0] == before
    assert alone.path.read_bytes() == beside.path.read_bytes()
    assert not any(name.startswith("val/") for name in tester.callback_metrics)


def test_one_view_that_is_the_image_is_the_plain_test(trained, data, tmp_path):
    plain, same = Predictions(tmp_path / "plain.csv"), ViewPredictions(tmp_path / "same.csv", lambda images: [images])
    values = trainer([plain, same]).test(trained, data, verbose=False)[0]
    torch.testing.assert_close(probabilities_of(same.path), probabilities_of(plain.path), rtol=0, atol=1e-7)
    assert same.metrics == pytest.approx(values, rel=1e-5)


def test_the_temperature_is_fitted_to_the_validation_images(trained, data):
    data.faces.labels[12:17] = [0, 1, 1, 0, 1]
    with torch.no_grad():
        trained.head.weight.mul_(4)
        images = standardize(to_float(torch.from_numpy(data.faces.images[12:17])))
        logits = trained.eval()(images).numpy()
    data.faces.labels[12] = 1 - logits[0].argmax()  # one is wrong, so that the temperature has a bound
    data.faces.labels[13:17] = logits[1:].argmax(1)
    callback = Calibration()
    trainer([callback]).test(trained, data, verbose=False)
    expected = fit_temperature(logits, data.faces.labels[12:17])
    assert callback.temperature == pytest.approx(expected, rel=1e-4)
    assert expected != 1


def test_batches_are_gathered_in_the_order_of_the_images():
    logits = torch.rand(5, 2)
    batches = [(torch.tensor(index), logits[index]) for index in ([4, 0], [2], [1, 3])]
    index, found = gathered(batches)
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(found, logits)


def test_logits_and_labels_are_in_the_order_of_the_images(trained, data, tmp_path):
    predictions = Predictions(tmp_path / "predictions.csv")
    trainer([predictions]).test(trained, data, verbose=False)
    assert predictions.labels.tolist() == data.faces.labels[17:].tolist()
    torch.testing.assert_close(predictions.logits.softmax(1), probabilities_of(predictions.path))


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


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "drawn"), [(0.0, 2), (0.06, 7), (0.2, 12)])
def test_the_bar_is_drawn_ten_times_a_second_and_at_the_end(monkeypatch, seconds, drawn):
    """Twelve steps of so many seconds: of 0.06 s every second one comes too soon, but the last."""
    clock = iter(seconds * step + 100 for step in range(12))
    monkeypatch.setattr("engrec.callbacks.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    steps: list[int] = []
    monkeypatch.setattr(TQDMProgressBar, "on_train_batch_end", lambda bar, trainer, step: steps.append(step))
    bar = Progress()
    for step in range(1, 13):
        bar.on_train_batch_end(SimpleNamespace(is_last_batch=step == 12), step)
    assert len(steps) == drawn
    assert steps[-1] == 12


def test_the_bar_says_which_epoch_it_is_and_what_was_measured(module, data, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    fitted = trainer([History(str(tmp_path)), Progress()], enable_progress_bar=True)
    fitted.fit(module, data)
    said = terminal.getvalue()
    assert "Epoch 1: 100%" in said
    assert "3/3" in said
    assert "val accuracy=" in said
    assert "v_num" not in said
