"""A module for a run: a new one, one with a pre-trained backbone, or the one a checkpoint describes."""

import importlib
import inspect
import logging
import re
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object, instantiate

from engrec import checkpoint
from engrec.data import DataModule
from engrec.errors import CheckpointError
from engrec.machine.hardware import LAYOUTS
from engrec.metrics import METRICS
from engrec.modules.classifier import Classifier
from engrec.plan import Backbone, Plan, Resume, Test
from engrec.schema import arguments, misfit

log = logging.getLogger(__name__)


def build_module(plan: Plan, data: DataModule) -> Classifier:
    """A network that is laid out, optimised and compiled as plan.speed says."""
    start, speed = plan.start, plan.speed
    module = tested_module(start.path, start.saved, data) if isinstance(start, Test) else new_module(plan, data)
    module.fused_optimizer = bool(speed.fused_optimizer)
    for scores in module.scores.values():
        scores.ordered = data.faces.ordered  # pyright: ignore[reportArgumentType]
    module.backbone.to(memory_format=LAYOUTS[speed.memory_format])  # pyright: ignore[reportCallIssue]
    if speed.compile:
        module.backbone.compile(mode=None if speed.compile is True else speed.compile)
    return module


def new_module(plan: Plan, data: DataModule) -> Classifier:
    """A new network, or a new one with the pre-trained backbone."""
    config, start = plan.config, plan.start
    check_levels(config, data)
    if config["module"].get("soft_labels") and data.faces.soft_labels is None:
        raise ValueError(f"{data.faces.name} has no soft labels: set module.soft_labels=false (or dataset=ferplus)")
    arguments: dict[str, Any] = {name: config[name] for name in ("model", "optimizer", "lr_scheduler")}
    arguments["model"] = fitted(arguments["model"], data.preprocessing)
    arguments |= {"class_names": list(data.faces.class_names), "preprocessing": data.preprocessing}
    arguments |= {"monitor": config["monitor"], "seed": plan.seed}
    if plan.task == "engagement":
        arguments["class_counts"] = data.class_counts
    module = instantiate(config["module"], **arguments, _recursive_=False, _convert_="all")
    check_sizes(module, data, plan.command.choices["model"])
    if isinstance(start, Resume):
        checkpoint.check_classes(start.saved, start.path, data.faces.class_names)
        checkpoint.check_continues(start.saved, start.path, dict(module.hparams))
        checkpoint.check_network(module, start.saved, start.path)
        if start.saved.get("seen") not in (None, data.seen):
            raise CheckpointError(
                f"{start.path} was trained on other images of {data.faces.name}, which was prepared again since: "
                f"choose another {plan.command.folder_key}"
            )
        module.before = start.saved.get("before") or []
    if isinstance(start, Backbone):
        module.before = checkpoint.trainings(start.saved)
        checkpoint.load_backbone(module.backbone, start.saved, start.path, data.preprocessing)
    return module


def check_levels(config: dict[str, Any], data: DataModule) -> None:
    """Raise ValueError where something is asked of levels in order, and the classes are none."""
    if data.faces.ordered:
        return
    classes = (
        f"the classes of {data.faces.name} are not three or more levels in order ({', '.join(data.faces.class_names)})"
    )
    if METRICS[config["monitor"].rpartition("/")[2]].ordered:
        raise ValueError(f"monitor={config['monitor']}: {classes}; set monitor=val/auc")
    if config["module"].get("ordinal"):
        raise ValueError(
            f"module.ordinal={config['module']['ordinal']}: {classes}; set module.ordinal=null, or prepare them with "
            "scripts/prepare.py manifest … --ordered (or faces … --ordered)"
        )


def check_sizes(module: Classifier, data: DataModule, name: str) -> None:
    """Raise ValueError for a network that does not take training images of another size than its own."""
    for height, width in data.sizes[:-1]:
        image = torch.zeros(1, data.faces.images.shape[1], height, width)
        training = module.backbone.training
        try:
            with torch.no_grad():
                module.backbone.eval()(image)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"model={name} does not take images of {height}×{width}: set augment.sizes=[], or model=resnet_small, "
                "vgg_small or resnet18"
            ) from error
        finally:
            module.backbone.train(training)


def fitted(model: dict[str, Any], preprocessing: dict[str, Any]) -> dict[str, Any]:
    """A network's node with the size of the images, where its constructor asks for it.

    Raises ValueError for another size.
    """
    size = {"in_channels": preprocessing["channels"], "image_size": preprocessing["height"]}
    for name, value in size.items():
        if model.get(name, value) != value:
            raise ValueError(f"model.{name}={model[name]}, but the images have {value}: leave it out")
    takes = inspect.signature(get_object(model["_target_"])).parameters
    return {name: value for name, value in size.items() if name in takes} | model


def tested_module(path: str, saved: dict[str, Any], data: DataModule) -> Classifier:
    """The module that a checkpoint describes, with its weights; only classes of engrec are built."""
    checkpoint.check_preprocessing(saved, path, data.preprocessing)
    checkpoint.check_classes(saved, path, data.faces.class_names)
    module = loaded_module(path, saved)
    module.before = checkpoint.trainings(saved)
    if (trained_on := saved.get("dataset")) not in (None, data.faces.name):
        if data.faces.is_synthetic:
            raise ValueError(f"{path} was trained on {trained_on}: set dataset={trained_on} (and its split=)")
        log.warning("trained on %s, tested on %s", trained_on, data.faces.name)
    if data.may_know(module.before):
        log.warning(
            "trained on %s with another split: it may have seen people and images that are tested here", data.faces.name
        )
    return module


def loaded_module(path: str, saved: dict[str, Any]) -> Classifier:
    """The module that a checkpoint describes, with its weights, in evaluation mode."""
    module = described_module(path, saved)
    module.load_state_dict(saved["state_dict"])
    return module


def described_module(path: str, saved: dict[str, Any]) -> Classifier:
    """The module that a checkpoint describes, with random weights. Nothing in it is resolved or instantiated: classes
    of engrec are called with plain values of the types that their constructors name.

    Raises CheckpointError for other classes and for values that do not fit, before memory is taken for them.
    """
    # Optimizer and schedule are left out: only training needs them.
    parameters = saved["hyper_parameters"] | {"optimizer": {}, "lr_scheduler": {}}
    model = dict(parameters["model"])
    named = {saved["module"]: ("engrec.modules", parameters), model.pop("_target_"): ("engrec.models", model)}
    if foreign := [name for name, (package, _) in named.items() if not is_class_of(package, name)]:
        raise CheckpointError(f"{path} is refused: it names {' and '.join(foreign)}, which is not part of engrec")
    for name, (_, values) in named.items():
        if found := misfit(arguments(get_object(name)), values):
            raise CheckpointError(f"{path} does not fit {name}: {found}")
    build = partial(get_object(saved["module"]), **parameters)
    try:
        with torch.device("meta"):  # shapes alone
            checkpoint.check_network(build(), saved, path)
        module = build().eval()
        with torch.inference_mode():
            module(module.example_input_array)
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} describes a network that cannot be built: {reason}") from error
    return module


def is_class_of(package: str, name: str) -> bool:
    """Whether the name is that of a class written in a file of the package, not merely one to be reached through it."""
    module, _, attribute = name.rpartition(".")
    if not re.fullmatch(rf"{package}\.\w+\.[A-Za-z]\w*", name):
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return inspect.isclass(found) and found.__module__ == module
