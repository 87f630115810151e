"""Callbacks of a Trainer: history of the epochs, predictions of the test images, temperature, progress bar."""

import csv
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    TQDMProgressBar,
)
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from engrec.checkpoint import check_states
from engrec.data import DataModule
from engrec.machine import cluster
from engrec.machine.files import atomic_write
from engrec.machine.hardware import synchronize
from engrec.metrics import confusion_matrix, fit_temperature, higher_is_better
from engrec.modules.classifier import Classifier
from engrec.modules.scores import Scores
from engrec.ranges import Count, Probability, Share
from engrec.runs.record import write_predictions
from engrec.transforms import Batch, standardize, to_float

log = logging.getLogger(__name__)


class SameConfiguration(Callback):
    """Check that all processes of a run have the same settings; otherwise each would train something else without an
    error."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        everyones: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyones, self.settings)
        for rank, theirs in enumerate(everyones):
            differ = [name for name, value in everyones[0].items() if theirs.get(name) != value]
            if differ or theirs.keys() != everyones[0].keys():
                name = differ[0] if differ else min(theirs.keys() ^ everyones[0].keys())
                raise ValueError(
                    f"process {rank} has {name}={theirs.get(name)}, process 0 has {name}={everyones[0].get(name)}: "
                    "start all processes with the same command"
                )


class MovedFolder(Callback):
    """A run resumes with its best score though its folder was moved, renamed or copied.

    ModelCheckpoint forgets its best score where its folder has another name, with no more than a warning, and a worse
    epoch would then become best.ckpt. So the names in the checkpoint are made those of this run's folder.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["callbacks"]
        for kept in (callback for callback in callbacks(trainer) if isinstance(callback, ModelCheckpoint)):
            if kept.state_key in states:
                states[kept.state_key] = moved(states[kept.state_key], str(kept.dirpath))


def moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state of a ModelCheckpoint with all its files in this folder."""

    def here(path: str) -> str:
        return path and str(Path(folder, Path(path).name))

    paths = {name: here(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {here(path): score for path, score in state["best_k_models"].items()}
    return state | {"dirpath": folder, "best_k_models": best} | paths


class StaysStopped(Callback):
    """A run that early stopping has ended, and that was killed before its test, trains no further epoch when it is
    resumed. Lightning saves that it has stopped, and forgets it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        reasons = [one.stopping_reason for one in callbacks(trainer) if isinstance(one, EarlyStopping)]
        trainer.should_stop |= any(reason is not EarlyStoppingReason.NOT_STOPPED for reason in reasons)


class CheckedStates(Callback):
    """Before Lightning loads the states of a checkpoint into what it has built, they are compared with it."""

    saved: dict[str, Any] | None = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.saved = checkpoint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        saved, self.saved = self.saved, None
        if saved is not None:
            schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
            loop = trainer.fit_loop.state_dict()
            check_states(saved, trainer.ckpt_path or "last.ckpt", trainer.optimizers, schedules, loop)


class History(Checkpoint):
    """The metrics of each epoch, in metrics.csv and in the checkpoint, so that a resumed run has them all.

    It is a Checkpoint callback, so that Lightning calls it when the metrics of the epoch are there and before the
    checkpoints that carry it are written.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.epochs: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of training in each epoch, validation left out
        self.num_images: list[int] = []  # trained on in each epoch, over all ranks

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(pl_module.device)
        self.started, self.seen = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += len(batch["index"]) * trainer.world_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            synchronize(pl_module.device)
            self.seconds.append(time.perf_counter() - self.started)
            self.num_images.append(self.seen)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        self.epochs.append({"epoch": trainer.current_epoch, "lr": lr, **dict(sorted(metrics.items()))})
        if trainer.is_global_zero:
            with atomic_write(self.folder / "metrics.csv") as file:
                # Of all epochs: a run that is resumed may log a metric that was added after its first ones.
                names = dict.fromkeys(name for row in self.epochs for name in row)
                writer = csv.DictWriter(file, fieldnames=list(names))
                writer.writeheader()
                writer.writerows(self.epochs)
        if not sys.stdout.isatty():  # there is no progress bar
            said = ", ".join(f"{name.replace('/', ' ')} {value:.4f}" for name, value in sorted(metrics.items()))
            log.info("epoch %d of %d: %s", trainer.current_epoch + 1, trainer.max_epochs, said)

    @property
    def images_per_second(self) -> float | None:
        """Of training alone; None before the first epoch."""
        return round(sum(self.num_images) / sum(self.seconds), 1) if self.seconds else None

    def best(self, monitor: str) -> dict[str, float]:
        """The epoch with the best value of the monitored metric, the lowest of a loss; empty before the first."""
        sign = 1 if higher_is_better(monitor) else -1
        defined = [row for row in self.epochs if math.isfinite(row.get(monitor, math.nan))]
        return max(defined, key=lambda row: sign * row[monitor], default={})

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "seconds": self.seconds, "num_images": self.num_images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.seconds = state_dict["epochs"], state_dict["seconds"]
        self.num_images = state_dict["num_images"]


class EMA(EMAWeightAveraging):
    """An exponential moving average of the weights and of the statistics of BatchNorm; it is what is validated, chosen,
    saved in best.ckpt and tested. last.ckpt has both, the average as its state_dict.

    decay: of the average, for each update. every: steps between two updates. start: the share of all steps after which
    the average begins; until then it is the network itself, which Lightning's own would leave at its first weights.
    """

    def __init__(self, decay: Probability = 0.998, start: Share = 0.0, every: Count = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=every)
        self.start = start

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, Classifier):  # after the average has copied the module
            pl_module.averaged_weights = self.averaged_weights

    def averaged_weights(self) -> dict[str, Tensor]:
        """The state dict of the average."""
        assert self._average_model is not None
        return self._average_model.module.state_dict()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.update_starting_at_step = round(self.start * trainer.estimated_stepping_batches)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_train_epoch_end(trainer, pl_module)

    def _follow(self, pl_module: pl.LightningModule) -> None:
        """Before the first update, make the average a copy of the network."""
        average = self._average_model
        if average is not None and average.n_averaged == 0:
            average.module.load_state_dict(pl_module.state_dict())


class Predictions(Callback):
    """predictions.csv: a row per test image with its source, subject, format, label and each class's probability.

    Afterwards `logits` (N, K) and `labels` (N,) are those of all test images, whichever rank saw them, and `confusion`
    the counts (K, K) that go with them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.batches.append((batch["index"], outputs))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        index, self.logits = gathered(self.batches)
        faces = data_of(trainer).faces
        self.labels = torch.from_numpy(faces.labels)[index]
        self.confusion = confusion_matrix(self.logits, self.labels)
        if trainer.is_global_zero:
            write_predictions(self.path, faces, index.tolist(), self.logits.softmax(1).tolist())


class ViewPredictions(Predictions):
    """The same from several views of each image: the mean of their probabilities, and its logarithm as logits.

    views: from images in 0 … 1 to a list of such batches. Afterwards `metrics` has the metrics of these predictions
    under the usual names.
    """

    def __init__(self, path: Path, views: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__(path)
        self.views = views

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        faces = data_of(trainer).faces
        self.scores = Scores(len(faces.class_names), faces.ordered).to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Classifier)
        # From the pixels: the batch's images are standardised and have lost their black level.
        views = self.views(to_float(data_of(trainer).pixels(batch["index"])))
        logits = torch.stack([logits_of(trainer, pl_module, standardize(view)) for view in views])
        logits = logits.log_softmax(2).logsumexp(0) - math.log(len(views))
        self.scores.update(logits, batch["labels"], pl_module.criterion(logits, batch))
        super().on_test_batch_end(trainer, pl_module, logits, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        super().on_test_epoch_end(trainer, pl_module)
        self.metrics = {name: value.item() for name, value in pl_module.named("test", self.scores.compute()).items()}


class Calibration(Callback):
    """The temperature fitted on the validation images, before the test, with the weights that are tested."""

    temperature = 1.0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data, batches = data_of(trainer), []
        for loaded in data.val_dataloader():
            batch = trainer.strategy.batch_to_device(loaded)
            batches.append((batch["index"], logits_of(trainer, pl_module, batch["images"])))
        index, logits = gathered(batches)
        self.temperature = fit_temperature(logits.numpy(), data.faces.labels[index.numpy()])


@dataclass(frozen=True)
class Tested:
    """The results of a test: metrics by the names that are logged, plain and (tta=flip and others) from several
    views of each image; calibration, as metrics.compare returns it; controls: predictions that the network has to
    beat; per_clip: the metrics of clips, empty where images are no frames."""

    metrics: dict[str, float]
    predictions: Predictions
    views: ViewPredictions | None
    calibration: dict[str, float]
    controls: dict[str, np.ndarray]
    per_clip: dict[str, float]


def data_of(trainer: pl.Trainer) -> DataModule:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, DataModule)
    return data


def logits_of(trainer: pl.Trainer, module: pl.LightningModule, images: Tensor) -> Tensor:
    """The module's logits inside a callback, in the precision of its own steps."""
    with trainer.precision_plugin.forward_context():
        return module(images).float()


def gathered(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Index (N,) and logits (N, K) of the batches of all ranks, on the CPU, in the order of the index."""
    index, logits = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        index, logits = (torch.cat(gather_all_tensors(tensor)) for tensor in (index, logits))
    order = index.argsort()
    return index[order].cpu(), logits[order].cpu()


class Progress(TQDMProgressBar):
    """Lightning's progress bar: only in a terminal, drawn ten times a second, without the version number."""

    drawn = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not sys.stdout.isatty():
            self.disable()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any, **named: Any) -> None:
        # Lightning draws the bar in every step, which took a sixth of the host's share of a step.
        now = time.perf_counter()
        if trainer.is_last_batch or now >= self.drawn + 0.1:
            self.drawn = now
            super().on_train_batch_end(trainer, *arguments, **named)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {k.replace("/", " "): v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


def callbacks(trainer: pl.Trainer) -> list[Callback]:
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]


def history_of(trainer: pl.Trainer) -> History | None:
    return next((c for c in callbacks(trainer) if isinstance(c, History)), None)


def unhindered(trainer: pl.Trainer) -> pl.Trainer:
    """The trainer, validating in inference mode as it tests, and without Lightning's question to all processes before
    every step whether one received a signal: signals end a run of engrec as an exception does. A signal is passed on to
    the processes that this one started, without Lightning's message to all, for which one that computes never waits.

    All are private parts of Lightning. tests/integration/test_ddp.py counts how often the question is asked.
    """

    def pass_on(signum: Any, _: Any) -> None:
        if (launcher := trainer.strategy.launcher) is not None:
            launcher.kill(signum)

    trainer._signal_connector._sigterm_notifier_fn = pass_on
    trainer.fit_loop.epoch_loop.val_loop.inference_mode = True
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    return trainer


def cluster_environment() -> ClusterEnvironment | None:
    """The environment inside a Slurm job: of processes that srun has started, or of one that starts its own."""
    if cluster.job() is None or TorchElasticEnvironment.detect():
        return None
    return SLURMEnvironment(auto_requeue=False) if cluster.is_step() else LightningEnvironment()
