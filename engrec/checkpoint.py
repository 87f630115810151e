"""The backbone's way from stage 1 to stage 2, and reading checkpoints without trusting them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engrec.errors import CheckpointError


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint of engrec, tensors and plain values only. Raises CheckpointError for anything else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a foreign or truncated file makes of the unpickler is not foreseeable
        raise CheckpointError(
            f"{path} is not a checkpoint that can be read safely: it is damaged, or of another program"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "module"} <= checkpoint.keys():
        raise CheckpointError(
            f"{path} is a file of torch, but not a checkpoint of engrec: it lacks state_dict or hyper_parameters"
        )
    if lacking := {"model", "class_names", "preprocessing"} - checkpoint["hyper_parameters"].keys():
        raise CheckpointError(
            f"{path} is not a checkpoint of engrec: its hyper_parameters lack {', '.join(sorted(lacking))}"
        )
    return checkpoint


def load_backbone(backbone: nn.Module, path: str | Path, preprocessing: dict[str, Any]) -> None:
    """Fill `backbone` with the checkpoint's, every tensor of it.

    Raises CheckpointError when the checkpoint is of another network, or was trained on images prepared in another way.
    """
    checkpoint = read(path)
    check_preprocessing(checkpoint, path, preprocessing)
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    if difference := _difference(backbone.state_dict(), weights):
        model = checkpoint["hyper_parameters"].get("model", {})
        settings = " ".join(f"model.{k}={v}" for k, v in model.items() if k != "_target_")
        raise CheckpointError(
            f"{path} holds a {model.get('_target_', 'network').rpartition('.')[2]} ({settings}), this run's model is "
            f"another ({type(backbone).__name__}: {difference}); choose the same model= for both"
        )
    backbone.load_state_dict(weights)


def _difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> str:
    """The first tensor, by name, in which two state dicts differ in presence or shape; empty when none does."""
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = (tuple(side[name].shape) if name in side else "none" for side in (ours, theirs))
        if here != there:
            return f"{name} is {here} here, {there} in the checkpoint"
    return ""


def check_preprocessing(checkpoint: dict[str, Any], path: str | Path, preprocessing: dict[str, Any]) -> None:
    """Raise CheckpointError unless the checkpoint's images were prepared as these are."""
    theirs = checkpoint["hyper_parameters"]["preprocessing"]
    if theirs != preprocessing:
        raise CheckpointError(
            f"{path} was trained on images of {_say(theirs)}; these are {_say(preprocessing)}: prepare them alike"
        )


def check_classes(checkpoint: dict[str, Any], path: str | Path, class_names: tuple[str, ...]) -> None:
    """Raise CheckpointError unless the checkpoint tells apart just these classes."""
    theirs = tuple(checkpoint["hyper_parameters"]["class_names"])
    if theirs != tuple(class_names):
        raise CheckpointError(
            f"{path} tells {len(theirs)} classes apart ({', '.join(theirs)}), the data set has {len(class_names)} "
            f"({', '.join(class_names)}); choose the dataset= it was trained for, or start anew with init_from={path}"
        )


def check_continues(checkpoint: dict[str, Any], path: str | Path, hyper_parameters: dict[str, Any]) -> None:
    """Raise CheckpointError unless a training with these hyper-parameters can resume from the checkpoint as if it had
    never been interrupted."""
    if "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights alone; a training goes on from its last.ckpt (or type init_from={path})"
        )
    for name, ours in hyper_parameters.items():
        theirs = checkpoint["hyper_parameters"].get(name)
        if theirs != ours:
            raise CheckpointError(
                f"{path} was trained with {name}={theirs}, this run has {name}={ours}; go on with the same"
            )


def _say(preprocessing: dict[str, Any]) -> str:
    return "{channels}×{height}×{width}, normalised per {normalize}".format(**preprocessing)
