"""From a configuration to metrics: the one file that knows all the parts."""

import json
import logging
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig

from engrec import checkpoint, splits, trackers
from engrec.callbacks import (
    Calibration,
    History,
    Predictions,
    SameConfiguration,
    ViewPredictions,
)
from engrec.config import check, check_sweep
from engrec.console import announce, conclude
from engrec.data import DataModule
from engrec.evidence.controls import controls
from engrec.machine import cluster
from engrec.machine.cluster import end_with_the_first, slurm_signals
from engrec.machine.files import atomic_write
from engrec.machine.signals import signals_end_the_run
from engrec.metrics import compare
from engrec.modules.build import build_module
from engrec.modules.classifier import Classifier
from engrec.plan import choose_for_machine
from engrec.runs import pictures
from engrec.runs.checkpoint_io import Saver
from engrec.runs.folder import (
    check_not_overwriting,
    finished,
    going_on,
    open_folder,
    plain,
    run_folder,
    say_how_to_resume,
    typed,
)
from engrec.runs.record import environment, without_nan, write_controls
from engrec.runs.status import reported
from engrec.transforms import flip_views, ten_crop_views

log = logging.getLogger(__name__)
warnings.filterwarnings(
    "ignore",
    message=r".*(does not have many workers|logging interval|exists and is not empty|in eval mode at the start|"
    r"sync_dist=True|The `srun` command).*",  # the last of them would reduce once more what Scores has reduced
)
warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning|lightning_fabric")
for name in ("pytorch_lightning", "lightning_fabric", "matplotlib"):
    logging.getLogger(name).setLevel(logging.WARNING)  # their greetings and tips

VIEWS = {"flip": flip_views, "ten_crop": ten_crop_views}


def run(cfg: DictConfig) -> dict[str, float]:
    """Train and test, or only test, what `cfg` describes. Returns the test metrics, test/accuracy and so on.

    Raises ValueError, in the user's words, for whatever is wrong with the configuration or with the data.
    """
    with run_folder(cfg) as folder, signals_end_the_run(**slurm_signals()):
        end_with_the_first()
        cluster.check_tasks(cfg.trainer.devices, cfg.trainer.num_nodes)
        if (went_on := going_on(cfg, folder)) and (folder / "result.json").is_file():
            return finished(folder)
        check(cfg)
        check_sweep(cfg)
        check_not_overwriting(cfg, folder)
        pl.seed_everything(cfg.seed, verbose=False)
        why = choose_for_machine(cfg)
        data = build_data(cfg)
        module = build_module(cfg, data)
        trainer = build_trainer(cfg)
        cfg.trainer.devices = trainer.num_devices
        with reported(folder, typed()) if trainer.is_global_zero else nullcontext():
            open_folder(cfg, folder, trainer)
            if went_on and cfg.ckpt_path is not None and cfg.stage != "test":
                log.info("going on from %s", cfg.ckpt_path)
            announce(cfg, data, module, trainer, why)
            with trackers.followed(trainer, plain(cfg), history_of(trainer)):
                return train_and_test(cfg, folder, data, module, trainer)


def train_and_test(
    cfg: DictConfig, folder: Path, data: DataModule, module: Classifier, trainer: pl.Trainer
) -> dict[str, float]:
    """Fit unless the stage is test, then test the best checkpoint and write the results."""
    started = time.perf_counter()
    best = cfg.ckpt_path
    if cfg.stage != "test":
        best = fit(cfg, trainer, module, data)
        module.load_state_dict(checkpoint.read(best)["state_dict"])
    tested = evaluate(cfg, folder, data, module, trainer)
    if trainer.is_global_zero:
        write_result(cfg, folder, trainer, module, data, tested, time.perf_counter() - started)
    conclude(cfg, data, tested, best)
    return tested.metrics


@dataclass(frozen=True)
class Tested:
    """What a test gives: metrics by the names that are logged, as they come and (tta=flip, tta=ten_crop) from several
    views of each image; calibration as calibration.compare says it; controls: what the network has to beat."""

    metrics: dict[str, float]
    predictions: Predictions
    views: ViewPredictions | None
    calibration: dict[str, float]
    controls: dict[str, np.ndarray]


def evaluate(cfg: DictConfig, folder: Path, data: DataModule, module: Classifier, trainer: pl.Trainer) -> Tested:
    """One pass over the test images, after one over the validation images that fits the temperature alone."""
    predictions, fitted = Predictions(folder / "predictions.csv"), Calibration()
    views = ViewPredictions(folder / f"predictions_{cfg.tta}.csv", VIEWS[cfg.tta]) if cfg.tta != "none" else None
    callbacks(trainer).extend(filter(None, (fitted, predictions, views)))
    metrics = {name: float(value) for name, value in trainer.test(module, data, verbose=False)[0].items()}
    logits, labels = predictions.logits.numpy(), predictions.labels.numpy()
    calibrated = compare(logits, labels, fitted.temperature)
    return Tested(metrics, predictions, views, calibrated, controls(data.faces, data.split))


def build_data(cfg: DictConfig) -> DataModule:
    """The data set, split and checked."""
    if cfg.task is None:
        cfg.task = "expression" if "Expression" in checkpoint.read(cfg.ckpt_path)["module"] else "engagement"
    faces = instantiate(cfg.dataset, _convert_="all")
    way = instantiate(cfg.split)
    try:
        split = way(faces.labels, faces.subjects, faces.splits)
        splits.check(split, faces.labels, faces.subjects, len(faces.class_names), way.leaks)
    except ValueError as error:
        raise ValueError(f"{faces.name}: {error}") from error
    where = {"place": cfg.speed.data, "device_share": cfg.speed.data_share}
    return DataModule(faces, split, instantiate(cfg.augment), cfg.batch_size, cfg.seed, **where)


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """Trainer, callbacks and logger from YAML."""
    environment = slurm_environment()
    own = {str(name): plain(cfg[name]) for name in cfg if name not in ("run", "logger")}
    trainer = instantiate(
        cfg.trainer,
        callbacks=[SameConfiguration(own), *(instantiate(node) for node in cfg.callbacks.values())],
        logger=instantiate(cfg.logger) if cfg.logger else False,
        plugins=[Saver(), *([environment] if environment else [])],
        default_root_dir=cfg.output_dir,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
    )
    return unhindered(trainer)


def unhindered(trainer: pl.Trainer) -> pl.Trainer:
    """The trainer, so that it validates in inference mode as it tests; and its processes do not ask each other before
    every step, and wait for the answer, whether one got a signal: signals end a run of engrec as an exception does."""
    trainer.fit_loop.epoch_loop.val_loop.inference_mode = True
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    return trainer


def slurm_environment() -> ClusterEnvironment | None:
    """In a Slurm job: that of the processes that srun has started, or that of a process that starts its own."""
    if cluster.job() is None or TorchElasticEnvironment.detect():
        return None
    return SLURMEnvironment(auto_requeue=False) if cluster.is_step() else LightningEnvironment()


def fit(cfg: DictConfig, trainer: pl.Trainer, module: Classifier, data: DataModule) -> str:
    """Train to the end and return the path of the best checkpoint; stopped by a signal, say how to go on."""
    for logger in trainer.loggers:
        logger.log_hyperparams(plain(cfg))
    try:
        trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True)
    except SystemExit:
        say_how_to_resume(cfg)
        raise
    trainer.strategy.barrier()  # until the first process has written the checkpoints
    return str(Path(cfg.output_dir) / "best.ckpt")


def history_of(trainer: pl.Trainer) -> History | None:
    return next((c for c in callbacks(trainer) if isinstance(c, History)), None)


def callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]


def write_result(
    cfg: DictConfig,
    folder: Path,
    trainer: pl.Trainer,
    module: Classifier,
    data: DataModule,
    tested: Tested,
    seconds: float,
) -> None:
    """The controls' predictions, the two pictures, what trackers are told, and result.json."""
    choices = HydraConfig.get().runtime.choices
    network = choices["model"] if cfg.stage != "test" else type(module.backbone).__name__
    history = history_of(trainer) or History(str(folder))
    result = {
        "metrics": without_nan(tested.metrics),
        **({} if tested.views is None else {"tta": {"kind": cfg.tta, "metrics": without_nan(tested.views.metrics)}}),
        "calibration": without_nan(tested.calibration),
        "validation": without_nan(history.best(cfg.monitor)),
        "stage": cfg.stage,
        "choices": {group: choices[group] for group in ("dataset", "split", "augment")} | {"model": network},
        "dataset": data.faces.recipe,
        "model": plain(module.hparams["model"]),
        "num_parameters": sum(p.numel() for p in module.parameters()),
        "num_images": {side: len(getattr(data.split, side)) for side in ("train", "val", "test")},
        "seed": cfg.seed,
        "epochs": len(history.epochs),
        "seconds": round(seconds, 1),
        "train_images_per_second": history.images_per_second,
        "precision": str(trainer.precision),
        **environment(),
    }
    write_controls(folder / "controls", data.faces, data.split.test.tolist(), tested.controls)
    if history.epochs:
        pictures.curves(history.epochs, folder / "curves.png")
    title = f"{cfg.stage}, {data.faces.name}: test accuracy {tested.metrics['test/accuracy']:.1%}"
    pictures.confusion(tested.predictions.confusion.numpy(), data.faces.class_names, folder / "confusion.png", title)
    index, predicted = np.sort(data.split.test), tested.predictions
    trackers.record(trainer, data.faces, index, predicted.logits, predicted.labels, result)
    # The last of all: a folder that has it is finished.
    with atomic_write(folder / "result.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)
