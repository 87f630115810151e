"""From a configuration to metrics: the one file that knows all the parts."""

import importlib
import inspect
import json
import logging
import math
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from engrec import calibration, checkpoint, splits, trackers
from engrec.callbacks import (
    Calibration,
    History,
    Predictions,
    SameConfiguration,
    ViewPredictions,
    write_controls,
    written_whole,
)
from engrec.config import check, quoted, signals_end_the_run
from engrec.data import DataModule
from engrec.evidence.controls import CONTROLS, controls
from engrec.machine import cluster
from engrec.machine.hardware import AUTOCAST, LAYOUTS, Speed, accelerator_type, choose, fuses, keep_memory
from engrec.modules.classifier import Classifier
from engrec.runs import pictures
from engrec.runs.checkpoint_io import Saver
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

PACKAGES = ("engrec", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "scikit-learn")
NOT_OF_THE_RUN = ("ckpt_path", "output_dir", "run", "logger", "callbacks.progress", "trainer.devices", "task")
FOLDERS = ("folder", "dirpath", "default_root_dir")
VIEWS = {"flip": flip_views, "ten_crop": ten_crop_views}
LEAKAGE = "split=random puts the same people on all sides: a gauge of leakage, not a result"
REAL_DATA = {
    "expression": ("python scripts/prepare.py fer2013 fer2013.tar.gz", "python train.py experiment=fer2013"),
    "engagement": (
        "python scripts/prepare.py wacv2016 wacv2016.zip",
        "python train.py experiment=wacv2016 stage=finetune init_from=outputs/pretrain/…/best.ckpt",
    ),
}


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
            with trackers.followed(trainer, plain(cfg)):
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
    calibrated = calibration.compare(logits, labels, fitted.temperature)
    return Tested(metrics, predictions, views, calibrated, controls(data.faces, data.split))


@contextmanager
def run_folder(cfg: DictConfig) -> Iterator[Path]:
    """The folder that Hydra opened for this run; it goes again if nothing is written to it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    cfg.output_dir = str(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            os.removedirs(folder)


def going_on(cfg: DictConfig, folder: Path) -> bool:
    """Whether the run goes on where its folder stands: ckpt_path=last asks for that, and so does a job that Slurm has
    started again. Its last checkpoint, if there is one, then takes the place of what it starts from.

    Raises ValueError where the folder is another run's.
    """
    typed = OmegaConf.select(cfg, "ckpt_path")  # None where it is missing, of which check speaks
    if (cfg.stage, typed) == ("test", "last"):
        raise ValueError("ckpt_path=last is for a training that goes on: type the checkpoint to test, …/best.ckpt")
    last = folder / "last.ckpt"
    given = typed if cfg.stage != "test" else None
    if given == "last":
        check_folder_is_named(folder)
        cfg.ckpt_path = None
    if not (folder / "config.yaml").is_file() or not (given == "last" or cluster.restarted()):
        return False
    if differ := differences(plain(cfg), written(folder)):
        raise ValueError(f"{folder} holds another run, {differ[0]}: choose another {key_of_folder()}")
    if cfg.stage != "test" and last.is_file():
        cfg.ckpt_path, cfg.init_from = str(last), None
    return True


def check_folder_is_named(folder: Path) -> None:
    """Raise ValueError where ckpt_path=last would look into a folder that is new each time."""
    typed = HydraConfig.get().overrides
    named = any(o.lstrip("+").startswith(("output_dir=", "hydra.sweep.dir=")) for o in (*typed.task, *typed.hydra))
    if not (named or cluster.job() or cluster.launched()) and not (folder / "config.yaml").is_file():
        raise ValueError(f"ckpt_path=last goes on in a folder of yours: type {key_of_folder()}=outputs/… too")


def written(folder: Path) -> dict[str, Any]:
    """The configuration of the run in this folder. Raises ValueError where it cannot be read."""
    path = folder / "config.yaml"
    try:
        had = plain(OmegaConf.load(path))
    except (YAMLError, ValueError) as error:
        had = error
    if not isinstance(had, dict) or not had:
        raise ValueError(f"{path} is damaged: choose another output_dir, or remove that folder")
    return had


def differences(now: dict[str, Any], before: dict[str, Any], prefix: str = "") -> list[str]:
    """How a run's settings were before, where they were others; what a machine chooses, and where a run lies or is told
    of, is none. Where it starts from may be left out by one that goes on."""
    found = []
    for name in sorted(now.keys() | before.keys()):
        key, one, other = f"{prefix}{name}", now.get(name), before.get(name)
        if key in NOT_OF_THE_RUN or name in FOLDERS or one == "auto" or one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{key}.")
        elif key != "init_from":
            found.append(f"with {key}={other} and not {one}" if name in before else f"without {key}")
        elif isinstance(one, str) and isinstance(other, str) and Path(one).resolve() != Path(other).resolve():
            found.append(f"which started from {other}")
    return found


def finished(folder: Path) -> dict[str, float]:
    """What a run that goes on has found already."""
    path = folder / "result.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        found = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: remove it, and the run is tested again") from error
    log.info("%s is finished", folder)
    return found


def end_with_the_first() -> None:
    """For a process that Lightning has started: it would wait for ever for a first one that is killed."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and not cluster.by_torchrun() and not cluster.is_step():
        cluster.end_with(os.getppid(), signal.SIGKILL)


def slurm_signals() -> dict[str, Callable[[], None]]:
    """What is done first at the signals of a job: Slurm is asked to start it again where its time is over (sbatch
    --signal=USR1@120) or where another job needs its place; not where a user cancels it."""
    if cluster.job() is None:
        return {}

    def ask() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm's own, which now comes: this one is at its end already
        if why := cluster.requeue():
            log.warning("Slurm does not start this job again: %s", why)

    return {"SIGUSR1": ask, "SIGTERM": lambda: ask() if cluster.preempted() else None}


def check_sweep(cfg: DictConfig) -> None:
    """Raise ValueError where each process of a distributed run would start the whole sweep again, and for a folder that
    all trials would have."""
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        return
    if any(o.lstrip("+").startswith("output_dir=") for o in HydraConfig.get().overrides.task):
        raise ValueError(
            "each trial of a sweep has its own folder: type hydra.sweep.dir= for the sweep's, not output_dir="
        )
    if str(cfg.trainer.devices) not in ("1", "auto"):
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} in a sweep would start the sweep on each device; "
            "give each trial one: trainer.devices=1"
        )


def check_not_overwriting(cfg: DictConfig, folder: Path) -> None:
    """Raise ValueError where another run's results or its last checkpoint would be lost."""
    going_on = cfg.ckpt_path is not None and cfg.stage != "test"
    if (folder / "result.json").is_file() and not going_on:
        raise ValueError(f"{folder} holds a finished run: choose another {key_of_folder()}, or remove that folder")
    if (folder / "last.ckpt").is_file() and not going_on:
        raise ValueError(
            f"{folder} holds a run that was stopped: go on with ckpt_path=last, choose another {key_of_folder()}, or "
            "remove that folder"
        )


def key_of_folder() -> str:
    return "hydra.sweep.dir" if HydraConfig.get().mode is RunMode.MULTIRUN else "output_dir"


def open_folder(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> None:
    """The log and the resolved configuration, of the first process; the others keep silent but for errors."""
    root = logging.getLogger()
    if not trainer.is_global_zero:
        root.setLevel(logging.ERROR)
        return
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)  # the previous trial's
    handler = logging.FileHandler(folder / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    cfg = cfg.copy()
    if cfg.ckpt_path is not None and cfg.stage != "test" and (folder / "config.yaml").is_file():
        cfg.init_from = written(folder).get("init_from")  # a run that goes on started there all the same
    with written_whole(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True))


def choose_for_machine(cfg: DictConfig) -> str:
    """Put in the place of "auto" what this machine does well, and say why; a run that goes on keeps what it had."""
    speed: Speed = instantiate(cfg.speed)
    if speed.keep_memory:
        keep_memory()
    kept = keep_what_was_chosen(cfg)
    device, alone = accelerator_type(cfg.trainer.accelerator), str(cfg.trainer.devices) == "1"
    if device == "cpu" and str(cfg.trainer.devices) == "-1":
        raise ValueError("trainer=ddp takes all GPUs and there is none: type trainer.devices=2 for two processes")
    choice = chosen_once(device, str(cfg.trainer.precision), cfg.speed.memory_format, alone)
    cfg.trainer.precision, cfg.speed.memory_format = choice.precision, choice.memory_format
    clips = bool(cfg.trainer.get("gradient_clip_val"))
    if cfg.speed.fused_optimizer == "auto":
        cfg.speed.fused_optimizer = fuses(cfg.optimizer, choice.precision, clips)
    elif cfg.speed.fused_optimizer and clips and choice.precision in AUTOCAST:
        raise ValueError(f"gradients are not clipped in {choice.precision} with speed.fused_optimizer=true: type false")
    return "as the run that goes on had it" if kept else choice.why


chosen_once = cache(choose)  # so that the trials of a sweep in one process have the same


def keep_what_was_chosen(cfg: DictConfig) -> bool:
    """Whether this is a run that goes on; what it has chosen before takes the place of "auto"."""
    before = Path(cfg.output_dir) / "config.yaml"
    if cfg.ckpt_path is None or cfg.stage == "test" or not before.is_file():
        return False
    had = OmegaConf.load(before)
    for group, key in (("trainer", "precision"), ("speed", "memory_format"), ("speed", "fused_optimizer")):
        value = OmegaConf.select(had, f"{group}.{key}")
        cfg[group][key] = value if value is not None and cfg[group][key] == "auto" else cfg[group][key]
    return True


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


def build_module(cfg: DictConfig, data: DataModule) -> Classifier:
    """A network that is laid out, optimised and compiled as cfg.speed says."""
    module = new_module(cfg, data)
    module.fused_optimizer = cfg.speed.fused_optimizer
    module.backbone.to(memory_format=LAYOUTS[cfg.speed.memory_format])  # pyright: ignore[reportCallIssue]
    if cfg.speed.compile:
        module.backbone.compile(mode=None if cfg.speed.compile is True else cfg.speed.compile)
    return module


def new_module(cfg: DictConfig, data: DataModule) -> Classifier:
    """A new network, a new one with the pre-trained backbone, or the one to be tested."""
    if cfg.stage == "test":
        module = tested_module(cfg.ckpt_path, data)
        cfg.model = dict(module.hparams["model"])
        return module
    if plain(cfg.module).get("soft_labels") and data.faces.soft_labels is None:
        raise ValueError(f"{data.faces.name} has no soft labels: type module.soft_labels=false (or dataset=ferplus)")
    arguments: dict[str, Any] = {name: plain(cfg[name]) for name in ("model", "optimizer", "lr_scheduler")}
    arguments["model"] = fitted(arguments["model"], data.preprocessing)
    arguments |= {"class_names": list(data.faces.class_names), "preprocessing": data.preprocessing}
    arguments |= {"monitor": cfg.monitor, "seed": cfg.seed}
    if cfg.task == "engagement":
        arguments["class_counts"] = data.class_counts
    module = instantiate(cfg.module, **arguments, _recursive_=False, _convert_="all")
    if cfg.ckpt_path is not None:
        saved = checkpoint.read(cfg.ckpt_path)
        checkpoint.check_classes(saved, cfg.ckpt_path, data.faces.class_names)
        checkpoint.check_continues(saved, cfg.ckpt_path, dict(module.hparams))
    if cfg.init_from is not None:
        checkpoint.load_backbone(module.backbone, cfg.init_from, data.preprocessing)
    return module


def fitted(model: dict[str, Any], preprocessing: dict[str, Any]) -> dict[str, Any]:
    """A network's node with the size of the images, where its constructor asks for it and the user has not said it."""
    size = {"in_channels": preprocessing["channels"], "image_size": preprocessing["height"]}
    takes = inspect.signature(get_object(model["_target_"])).parameters
    return {name: value for name, value in size.items() if name in takes} | model


def tested_module(path: str, data: DataModule) -> Classifier:
    """The module that a checkpoint describes, with its weights; only classes of engrec are built."""
    saved = checkpoint.read(path)
    checkpoint.check_preprocessing(saved, path, data.preprocessing)
    checkpoint.check_classes(saved, path, data.faces.class_names)
    named = (saved["module"], saved["hyper_parameters"]["model"]["_target_"])
    if not (is_class_of("engrec.modules", named[0]) and is_class_of("engrec.models", named[1])):
        raise ValueError(f"{path} asks for {' and '.join(named)}, which is not code of engrec: not loaded")
    module = get_object(named[0])(**saved["hyper_parameters"])
    module.load_state_dict(saved["state_dict"])
    if (trained_on := saved.get("dataset")) not in (None, data.faces.name):
        if data.faces.recipe["importer"] == "synthetic":
            raise ValueError(f"{path} was trained on {trained_on}: type dataset={trained_on} (and its split=)")
        log.warning("trained on %s, tested on %s", trained_on, data.faces.name)
    elif saved.get("seen") not in (None, data.seen):
        log.warning("trained on other parts of %s: people and images tested here may be among them", data.faces.name)
    return module


def is_class_of(package: str, name: str) -> bool:
    """Whether the name is that of a class written in a file of the package, not merely one to be reached through it."""
    module, _, attribute = name.rpartition(".")
    if not re.fullmatch(rf"{package}\.\w+\.\w+", name):
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return inspect.isclass(found) and found.__module__ == module


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


def say_how_to_resume(cfg: DictConfig) -> None:
    last = Path(cfg.output_dir) / "last.ckpt"
    if cluster.job() is not None:
        log.info("\nstopped in Slurm's job %s; if Slurm starts that again, it goes on by itself", cluster.job())
    if not last.is_file():
        log.info("stopped before the first epoch was over: there is nothing to resume")
        return
    started = ("ckpt_path=", "output_dir=", "init_from=")
    given = [o for o in HydraConfig.get().overrides.task if not o.lstrip("+").startswith(started)]
    again = ["init_from=null"] if cfg.stage == "finetune" else []
    where = [f"output_dir={quoted(Path(cfg.output_dir))}", f"ckpt_path={quoted(last)}"]
    command = shlex.join(["python", "train.py", *given, *again, *where])
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        given = [a for a in sys.argv[1:] if not a.startswith(("hydra.sweep.dir=", "ckpt_path="))]
        sweep = f"hydra.sweep.dir={quoted(Path(cfg.output_dir).parent)}"
        command = shlex.join(["python", "train.py", *given, sweep, "ckpt_path=last"])
    log.info("\nstopped; nothing that was saved is lost. Go on with: %s", command)  # the progress bar ends without one


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


def conclude(cfg: DictConfig, data: DataModule, tested: Tested, best: str) -> None:
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
    history = next((c for c in callbacks(trainer) if isinstance(c, History)), History(str(folder)))
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
    with written_whole(folder / "result.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)


def without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def typed() -> str:
    return shlex.join(["python", "train.py", *HydraConfig.get().overrides.task])


def environment() -> dict[str, Any]:
    """What a result depends on besides its configuration."""
    return {
        "hardware": hardware(),
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "command": typed(),
    }


def callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]


def hardware() -> dict[str, Any]:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"gpus": names, "cpu": cpu_name(), "threads": torch.get_num_threads(), "system": platform.system()}


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def git_commit() -> str | None:
    """The commit of this code, with "-dirty" where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def plain(node: Any) -> Any:
    """A configuration node as dicts, lists and numbers."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
