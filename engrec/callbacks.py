"""What a run leaves on disk while it goes on: the history of its epochs, the prediction for each test image."""

import csv
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, TQDMProgressBar

from engrec.data import DataModule
from engrec.datasets.prepared import Faces
from engrec.metrics import confusion_matrix


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name only when it is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class History(Checkpoint):
    """The metrics of each epoch in metrics.csv; carried in the checkpoint, so that a resumed run has them all.

    It is a Checkpoint so that Lightning calls it when the epoch's metrics are there, and before the checkpoints that
    carry it are written.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.epochs: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of training in each epoch, validation left out
        self.num_images: list[int] = []  # trained on in each epoch, over all ranks

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.seen = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += len(batch["index"]) * trainer.world_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seconds.append(time.perf_counter() - self.started)
            self.num_images.append(self.seen)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        self.epochs.append({"epoch": trainer.current_epoch, "lr": lr, **dict(sorted(metrics.items()))})
        if trainer.is_global_zero:
            with written_whole(self.folder / "metrics.csv") as file:
                writer = csv.DictWriter(file, fieldnames=list(self.epochs[0]))
                writer.writeheader()
                writer.writerows(self.epochs)

    @property
    def images_per_second(self) -> float | None:
        """Of training alone; None before the first epoch."""
        return round(sum(self.num_images) / sum(self.seconds), 1) if self.seconds else None

    def best(self, monitor: str) -> dict[str, float]:
        """The epoch with the best value of the monitored metric, the lowest of a loss; empty before the first."""
        sign = -1 if monitor.endswith("loss") else 1
        defined = [row for row in self.epochs if not math.isnan(row[monitor])]
        return max(defined, key=lambda row: sign * row[monitor], default={})

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "seconds": self.seconds, "num_images": self.num_images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.seconds = state_dict["epochs"], state_dict["seconds"]
        self.num_images = state_dict["num_images"]


class Predictions(Callback):
    """predictions.csv: a row per test image with its source, subject, format, label and each class's probability.

    Afterwards `confusion` holds the counts (K, K) that go with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches: list[Any] = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.batches.append(outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        index = torch.cat([b["index"] for b in self.batches]).cpu()
        probabilities = torch.cat([b["probabilities"] for b in self.batches]).cpu()
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, DataModule)
        self.confusion = confusion_matrix(probabilities, torch.from_numpy(data.faces.labels)[index])
        if trainer.is_global_zero:
            write_predictions(self.path, data.faces, index.tolist(), probabilities.tolist())


def write_predictions(path: Path, faces: Faces, index: list[int], probabilities: list[list[float]]) -> None:
    """index: which images of `faces`; probabilities: one row (num_classes,) for each of them."""
    nothing = [""] * len(faces)
    subjects, formats = (nothing if a is None else a.tolist() for a in (faces.subjects, faces.formats))
    with written_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(["source", "subject", "format", "label", *(f"p_{name}" for name in faces.class_names)])
        for i, row in zip(index, probabilities, strict=True):
            label = faces.class_names[faces.labels[i]]
            writer.writerow([faces.sources[i], subjects[i], formats[i], label, *(f"{p:.9g}" for p in row)])


class Progress(TQDMProgressBar):
    """Lightning's bar without what nobody reads."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {k.replace("/", " "): v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
