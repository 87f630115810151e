"""A module for a run: a new one, one with a pre-trained backbone, or the one a checkpoint describes."""

import importlib
import inspect
import logging
import re
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from engrec import checkpoint
from engrec.data import DataModule
from engrec.machine.hardware import (
    LAYOUTS,
)
from engrec.modules.classifier import Classifier
from engrec.runs.folder import plain

log = logging.getLogger(__name__)


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
