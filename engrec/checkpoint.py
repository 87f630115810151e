"""Loading checkpoints safely; transferring the backbone from stage 1 to stage 2."""

import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import AfterValidator, AllowInfNan, BeforeValidator, Field
from torch import Tensor, nn

from engrec import weights_file
from engrec.errors import CONF, CheckpointError
from engrec.faces.crop import Crop, crop_of
from engrec.schema import Record, misfit, plain


def _stored(tensor: Tensor) -> Tensor:
    """The same tensor. Raises ValueError for one that is not numbers on the host, or stands for more than is stored."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        raise ValueError(f"is {tensor.layout}, {tensor.dtype}: it must be a tensor of real numbers")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError("is a tensor that has more values than the file")
    return tensor


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names) or not all(names):
        raise ValueError("has a name twice, or an empty one")
    return names


def _recipe(crop: Any) -> Any:
    """The same value. Raises ValueError for one that does not say how faces are cropped."""
    try:
        crop_of(crop, None)
    except ValueError as error:
        raise ValueError(f"is refused: {error}") from error
    return crop


ForMessages = BeforeValidator(partial(plain, for_messages=True))
Word = Annotated[str, ForMessages]
Weights = Annotated[Tensor, AfterValidator(_stored)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Size = Annotated[int, Field(ge=1, le=2**14)]
File = Annotated[str, Field(pattern=r"^$|\.ckpt$")]
ClassNames = Annotated[list[str], Field(min_length=1, max_length=1000), AfterValidator(_unique)]
Temperature = Annotated[float, Field(gt=0, le=100)]
Number = Annotated[float, AllowInfNan()]  # a metric without images is NaN


class Model(Record):
    target: Word = Field(alias="_target_")


class Preprocessing(Record):
    channels: Size
    height: Size
    width: Size
    normalize: Word
    crop: Annotated[Any, AfterValidator(_recipe)] = None  # missing where it is unknown, and in older checkpoints


class HyperParameters(Record):
    model: Model
    class_names: ClassNames
    preprocessing: Preprocessing


class Checkpoint(Record):
    """What a checkpoint holds of the network, in whatever stage it was trained."""

    state_dict: dict[str, Weights]
    hyper_parameters: Annotated[HyperParameters, ForMessages]
    module: Word
    epoch: Count = 0
    task: Literal["expression", "engagement"] | None = None
    dataset: Word | None = None
    temperature: Temperature = 1.0  # of a .safetensors, as the next
    provenance: dict[Word, Word | None] | None = None


class History(Record):
    epochs: list[dict[str, Number]]
    seconds: list[float]
    num_images: list[Count]


class Kept(Record):
    """The state of Lightning's ModelCheckpoint."""

    best_model_path: File
    kth_best_model_path: File
    last_model_path: File
    best_k_models: dict[File, Weights]


def _known(states: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for key, state in states.items():
        name = key.partition("{")[0]
        record = {"History": History, "ModelCheckpoint": Kept}.get(name)
        if record and (found := misfit(record, state)):
            raise ValueError(f".{name}.{found}")
    return states


class Optimizer(Record):
    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class Training(Checkpoint):
    """What a checkpoint holds from which training resumes; Lightning reads the inside of its own parts."""

    callbacks: Annotated[dict[str, dict[str, Any]], AfterValidator(_known)]
    optimizer_states: list[Optimizer]
    lr_schedulers: list[dict[str, Any]]
    loops: Annotated[dict[str, dict[str, Any]], AfterValidator(plain)]


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of engrec (tensors and plain values only): a .ckpt, a .safetensors of scripts/export.py, or
    engrec:NAME for weights that come with engrec. Raises CheckpointError for anything else.

    A .safetensors may be in half precision; its weights are float32 here.
    """
    file = weights_file.located(path)
    try:
        checkpoint = weights_file.read(file) if file.suffix == weights_file.SUFFIX else _unpickled(file)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from error
    return validated(checkpoint, path)


def validated(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The same dict. Raises CheckpointError unless it is what a checkpoint of engrec holds."""
    if found := misfit(Training if "optimizer_states" in checkpoint else Checkpoint, checkpoint):
        raise CheckpointError(f"{path} is not an engrec checkpoint, or damaged: {found}")
    return checkpoint


def _unpickled(file: Path) -> dict[str, Any]:
    """What torch has saved, without pickle's code. Raises OSError, and ValueError with what the file is instead."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > file.stat().st_size:
            raise zipfile.BadZipFile("compressed, which torch does not do: it could fill the memory")
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a foreign or truncated file can make the unpickler raise anything
        empty = file.stat().st_size == 0
        reason = "is empty" if empty else "cannot be read safely: it is damaged, or not a checkpoint of engrec"
        raise ValueError(reason) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "module"} <= checkpoint.keys():
        raise ValueError(
            "is a PyTorch file but not an engrec checkpoint (it has no state_dict, hyper_parameters or module)"
        )
    return checkpoint


def task_of(checkpoint: dict[str, Any]) -> str:
    """The task of a checkpoint: expression or engagement. Older ones record only the name of their module."""
    return checkpoint.get("task") or ("expression" if "Expression" in checkpoint["module"] else "engagement")


def load_backbone(backbone: nn.Module, checkpoint: dict[str, Any], path: str, preprocessing: dict[str, Any]) -> None:
    """Load every tensor of the checkpoint's backbone into `backbone`.

    Raises CheckpointError if the checkpoint has another network, or was trained on images prepared in another way.
    """
    check_preprocessing(checkpoint, path, preprocessing)
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    if difference := _difference(backbone.state_dict(), weights):
        raise CheckpointError(
            f"{path} has another network than this run's {type(backbone).__name__} ({difference}): "
            f"set {overrides_of(checkpoint['hyper_parameters']['model'])}"
        )
    backbone.load_state_dict(weights)


def overrides_of(model: dict[str, Any]) -> str:
    """The overrides that choose a network: the nearest option of conf/model, and the values that differ from it."""
    choices = []
    for path in sorted((CONF / "model").glob("*.yaml")):
        option = yaml.safe_load(path.read_text(encoding="utf-8"))
        if option["_target_"] == model.get("_target_"):
            differing = [key for key in model if key in option and option[key] != model[key]]
            choices.append([f"model={path.stem}", *(f"model.{key}={_typed(model[key])}" for key in differing)])
    return " ".join(min(choices, key=len, default=["the same model= for both"]))


def _typed(value: Any) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, list | tuple) else str(value)


def _difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> str:
    """The first tensor, by name, that is missing or has another shape in one of two state dicts; empty if none is."""
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = (tuple(side[name].shape) if name in side else "none" for side in (ours, theirs))
        if here != there:
            return f"{name} is {here} here, {there} in the checkpoint"
    return ""


def check_network(module: nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Raise CheckpointError unless the checkpoint has the tensors of this module, backbone and head."""
    if difference := _difference(module.state_dict(), checkpoint["state_dict"]):
        raise CheckpointError(f"{path} is damaged: its weights are not those of its network ({difference})")


def check_preprocessing(checkpoint: dict[str, Any], path: str | Path, preprocessing: dict[str, Any]) -> None:
    """Raise CheckpointError unless the checkpoint was trained on images prepared in the same way."""
    theirs, ours = dict(checkpoint["hyper_parameters"]["preprocessing"]), dict(preprocessing)
    their_crop, our_crop = crop_of(theirs.pop("crop", None), checkpoint.get("dataset")), ours.pop("crop", None)
    if theirs != ours:
        raise CheckpointError(
            f"{path} was trained on images of {_describe(theirs)}; these are {_describe(ours)}: "
            "prepare both in the same way"
        )
    if their_crop is not None and our_crop is not None and (found := their_crop.difference(Crop.from_dict(our_crop))):
        raise CheckpointError(
            f"{path} was trained on faces cropped with {found} as these: prepare both in the same way"
        )


def check_classes(checkpoint: dict[str, Any], path: str | Path, class_names: tuple[str, ...]) -> None:
    """Raise CheckpointError unless the checkpoint has exactly these classes."""
    theirs = tuple(checkpoint["hyper_parameters"]["class_names"])
    if theirs != tuple(class_names):
        raise CheckpointError(
            f"{path} has {len(theirs)} classes ({', '.join(theirs)}), the data set has {len(class_names)} "
            f"({', '.join(class_names)}): set the dataset= it was trained on, or fine-tune with init_from={path}"
        )


def check_continues(checkpoint: dict[str, Any], path: str | Path, hyper_parameters: dict[str, Any]) -> None:
    """Raise CheckpointError unless training with these hyper-parameters can resume from the checkpoint as if it had not
    been interrupted."""
    if "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path} has only weights: resume from last.ckpt, or fine-tune from it with init_from={path}"
        )
    for name, ours in hyper_parameters.items():
        theirs = checkpoint["hyper_parameters"].get(name)
        if name == "preprocessing" and "crop" not in theirs:  # of an older version, which did not store it
            ours = {key: value for key, value in ours.items() if key != "crop"}
        if theirs != ours:
            key, now, before = _first_difference(name, ours, theirs)
            raise CheckpointError(
                f"{path} was trained with {key}={before}, this run has {key}={now}: resume with the same settings"
            )


def check_best(
    checkpoint: dict[str, Any], path: str | Path, best: Mapping[str, float], last: dict[str, Any] | None = None
) -> None:
    """Raise CheckpointError unless the checkpoint is of the best epoch, given with its metrics; empty where there is
    none. last: the checkpoint that a run resumes from; a killed run may have saved a better epoch after it."""
    epoch, expected = checkpoint.get("epoch", 0), best.get("epoch")
    newer = last is not None and epoch > last.get("epoch", 0)
    if expected is not None and epoch != expected and not newer:
        raise CheckpointError(
            f"{path} is of epoch {epoch + 1}, but the best epoch of this run is {expected + 1}: put the file of that "
            "epoch back, or train again in another output_dir"
        )


def _first_difference(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """The dotted key, here and there, at which two nested dicts differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        key = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
        return _first_difference(f"{name}.{key}", ours.get(key), theirs.get(key))
    return name, ours, theirs


def _describe(preprocessing: dict[str, Any]) -> str:
    return "{channels}×{height}×{width}, normalised per {normalize}".format(**preprocessing)
