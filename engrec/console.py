"""What a run tells the user before it starts and when it is over."""

import logging
import shlex
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig

from engrec import checkpoint
from engrec.data import DataModule
from engrec.evidence.controls import CONTROLS
from engrec.modules.classifier import Classifier

log = logging.getLogger(__name__)
LEAKAGE = "split=random puts the same people on all sides: a gauge of leakage, not a result"
REAL_DATA = {
    "expression": ("python scripts/prepare.py fer2013 fer2013.tar.gz", "python train.py experiment=fer2013"),
    "engagement": (
        "python scripts/prepare.py wacv2016 wacv2016.zip",
        "python train.py experiment=wacv2016 stage=finetune init_from=outputs/pretrain/…/best.ckpt",
    ),
}


def announce(cfg: DictConfig, data: DataModule, module: Classifier, trainer: pl.Trainer, why: str) -> None:
    faces, split = data.faces, data.split
    people = "" if faces.subjects is None else f" of {len(set(faces.subjects.tolist()))} people"
    sizes = f"{len(split.train):,} train, {len(split.val):,} validation, {len(split.test):,} test"
    log.info("%s: %s, %s images%s (%s)", cfg.stage, faces.name, f"{len(faces):,}", people, sizes)
    log.info("split: %s", say_split(cfg, data))
    warn_if_leaking(cfg)
    warn_if_not_the_first(cfg, data)
    if excluded := faces.recipe.get("excluded_from_training"):
        kinds = ", ".join(f"{kind} {count}" for kind, count in excluded["of_each_kind"].items())
        log.info("left out of training: %s images (%s)", excluded["images"], kinds)
    number = sum(p.numel() for p in module.parameters())
    device = f"{trainer.num_devices} × {trainer.strategy.root_device.type}"
    log.info("%s with %s parameters on %s", type(module.backbone).__name__, f"{number:,}", device)
    log.info("%s (%s)", say_speed(cfg), why)
    if trainer.world_size > 1 and cfg.stage != "test":
        step, lr = trainer.world_size * cfg.batch_size, cfg.optimizer["lr"]
        log.info(
            "a step is of %d × batch_size=%d = %d images, optimizer.lr=%g", trainer.world_size, cfg.batch_size, step, lr
        )
    say_if_synthetic(cfg, data)


def say_speed(cfg: DictConfig) -> str:
    parts = [cfg.trainer.precision, cfg.speed.memory_format]
    parts += ["fused optimizer"] if cfg.speed.fused_optimizer and cfg.stage != "test" else []
    parts += [f"compiled ({cfg.speed.compile})"] if cfg.speed.compile else []
    return f"trainer={HydraConfig.get().runtime.choices['trainer']}: {', '.join(map(str, parts))}"


def say_split(cfg: DictConfig, data: DataModule) -> str:
    """The way of splitting in words: kfold, fold 0 of 5, by subject."""
    way, subjects = HydraConfig.get().runtime.choices["split"], data.faces.subjects
    if way == "kfold":
        return f"kfold, fold {cfg.split.fold} of {cfg.split.num_folds}, by subject"
    if way == "loso" and subjects is not None:
        tested, everyone = subjects[data.split.test[0]], len(set(subjects.tolist()))
        return f"loso, fold {cfg.split.fold} of {everyone}: subject {tested} is tested"
    if way == "official":
        return "official, the data set's own"
    return f"{way}, by {'image' if leaks(cfg) else 'subject'}"


def leaks(cfg: DictConfig) -> bool:
    return get_object(cfg.split["_target_"]).leaks


def warn_if_leaking(cfg: DictConfig) -> None:
    if leaks(cfg):
        log.warning(LEAKAGE)


def warn_if_not_the_first(cfg: DictConfig, data: DataModule) -> None:
    """A backbone that learned the same task before may know the people of this test."""
    if cfg.init_from is None:
        return
    saved = checkpoint.read(cfg.init_from)
    same_classes = tuple(saved["hyper_parameters"]["class_names"]) == data.faces.class_names
    if same_classes and "Engagement" in saved["module"]:
        log.warning(
            "%s has learned from these classes already, perhaps from people who are tested here: unless they were held "
            "out of its training too, the test is not of people never seen",
            cfg.init_from,
        )


def say_if_synthetic(cfg: DictConfig, data: DataModule) -> None:
    if data.faces.recipe["importer"] != "synthetic":
        return
    prepare, train = REAL_DATA[cfg.task]
    log.info("These are drawn faces (dataset=synthetic), nobody's. With real ones: %s, then %s", prepare, train)


def conclude(cfg: DictConfig, data: DataModule, tested: Any, best: str) -> None:
    log.info("test: %s", say_metrics(tested.metrics))
    if tested.views is not None:
        log.info("test with %s: %s", cfg.tta, say_metrics(tested.views.metrics))
    log.info("for comparison: %s", say_controls(data, tested.controls))
    log.info("calibration: %s", say_calibration(tested.calibration))
    warn_if_leaking(cfg)
    log.info("written to %s", cfg.output_dir)
    say_if_synthetic(cfg, data)
    if cfg.stage == "pretrain":
        settings = [o for o in HydraConfig.get().overrides.task if o.lstrip("+").startswith("model.")]
        chosen = [f"model={HydraConfig.get().runtime.choices['model']}", *settings]
        drawn = data.faces.recipe["importer"] == "synthetic"
        real = [] if drawn else ["dataset=wacv2016", "split=kfold", "split.fold=0"]
        command = ["python", "train.py", "stage=finetune", *chosen, *real, f"init_from={best}"]
        log.info("Next: %s", shlex.join(command))


def say_metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{k.removeprefix('test/')} {v:.4f}" for k, v in metrics.items() if "recall" not in k)


def say_controls(data: DataModule, predicted: dict[str, np.ndarray]) -> str:
    labels = data.faces.labels[data.split.test]
    right = {name: (probabilities.argmax(1) == labels).mean() for name, probabilities in predicted.items()}
    return "accuracy of " + ", ".join(f"{CONTROLS[name]} {share:.4f}" for name, share in right.items())


def say_calibration(values: dict[str, float]) -> str:
    temperature, before, after = (values[k] for k in ("temperature", "test/ece", "test/ece_calibrated"))
    if temperature == 1:
        return f"temperature 1 leaves ECE at {before:.3f}"
    changes = "lowers" if after < before else "raises"
    return f"temperature {temperature:.2f} {changes} ECE from {before:.3f} to {after:.3f}"
