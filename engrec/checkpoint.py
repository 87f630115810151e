"""Loading checkpoints safely; transferring the backbone from stage 1 to stage 2."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import AfterValidator, AllowInfNan, BeforeValidator, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from engrec import weights_file
from engrec.errors import CONF, CheckpointError
from engrec.faces.crop import Crop, crop_of
from engrec.schema import Record, misfit, plain, shown


def _stored(tensor: Tensor) -> Tensor:
    """The same tensor. Raises ValueError for one that is not numbers on the host, or stands for more than is stored."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        raise ValueError(f"is {tensor.layout}, {tensor.dtype}: it must be a tensor of real numbers")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError("is a tensor that has more values than the file")
    return tensor


def _single(tensor: Tensor) -> Tensor:
    if tensor.shape != ():
        raise ValueError(f"is a tensor of shape {tuple(tensor.shape)}: it must be one number")
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
Score = Annotated[Weights, AfterValidator(_single)]
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


class TrainedOn(Record):
    """Images that a network was trained on. seen: a checksum of them, as data.seen makes it."""

    dataset: Word | None = None
    task: Word | None = None
    seen: Word | None = None


class Checkpoint(Record):
    """What a checkpoint holds of the network, in whatever stage it was trained."""

    state_dict: dict[str, Weights]
    hyper_parameters: Annotated[HyperParameters, ForMessages]
    module: Word
    epoch: Count = 0
    task: Literal["expression", "engagement"] | None = None
    dataset: Word | None = None
    seen: Word | None = None
    before: list[TrainedOn] | None = None  # the same of what it started from
    temperature: Temperature = 1.0  # of a .safetensors, as the next
    provenance: dict[Word, Word | None] | None = None


class Epoch(Record):
    __pydantic_extra__: dict[str, Number]  # pyright: ignore[reportIncompatibleVariableOverride]
    epoch: Count
    lr: float


class History(Record):
    epochs: list[Epoch]
    seconds: list[Annotated[float, Field(gt=0)]]
    num_images: list[Count]


class Kept(Record):
    """The state of Lightning's ModelCheckpoint."""

    best_model_path: File
    best_model_score: Score | None
    kth_best_model_path: File
    kth_value: Score
    last_model_path: File
    best_k_models: dict[File, Score]


class Stopping(Record):
    """The state of Lightning's EarlyStopping."""

    wait_count: Count
    stopped_epoch: Count
    best_score: Score
    patience: Count
    stopping_reason: Annotated[int, Field(ge=0, le=4)] = 0
    stopping_reason_message: str | None = None


class Averaging(Record):
    """The state of callbacks.EMA."""

    latest_update_step: Count


RECORDS = {"History": History, "ModelCheckpoint": Kept, "EarlyStopping": Stopping, "EMA": Averaging}


def _known(states: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for key, state in states.items():
        name = key.partition("{")[0]
        if name in RECORDS and (found := misfit(RECORDS[name], state)):
            raise ValueError(f".{name}.{found}")
    return states


class Averaged(Record, extra="forbid"):
    n_averaged: Score


class Training(Checkpoint):
    """What a checkpoint holds from which training resumes. The last three are compared with the parts of a run, once it
    has built them, by `check_states`."""

    version: str = Field(alias="pytorch-lightning_version", pattern=r"^2\.\d+\.\d+")
    callbacks: Annotated[dict[str, dict[str, Any]], AfterValidator(_known)]
    current_model_state: dict[str, Weights] = Field(default={})  # where state_dict is an average, as the next
    averaging_state: Averaged = Field(default_factory=Averaged.model_construct)
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]
    loops: dict[str, dict[str, Any]]


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of engrec (tensors and plain values only): a .ckpt, a .safetensors of scripts/export.py, or
    engrec:NAME for weights that come with engrec. Raises CheckpointError for anything else.

    A .safetensors may be in half precision; its weights are float32 here.
    """
    file = weights_file.located(path)
    try:
        checkpoint = weights_file.read(file) if file.suffix == weights_file.SUFFIX else _unpickled(file)
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder: give the file in it, .safetensors or .ckpt") from error
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


def trainings(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """What the network of a checkpoint was trained on, the first first: dataset, task, and seen, as data.seen makes it;
    None where it is not known."""
    last = {"dataset": checkpoint.get("dataset"), "task": task_of(checkpoint), "seen": checkpoint.get("seen")}
    return [*(checkpoint.get("before") or []), last]


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
    for name in ("state_dict", "current_model_state"):
        if name in checkpoint and (difference := _difference(module.state_dict(), checkpoint[name])):
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
        if found := _first_difference(name, ours, theirs):
            key, now, before = found
            raise CheckpointError(
                f"{path} was trained with {key}={before}, this run has {key}={now}: resume with the same settings"
            )


def check_states(
    checkpoint: dict[str, Any], path: str | Path, optimizers: Sequence[Optimizer], schedules: Sequence[Any], loop: Any
) -> None:
    """Raise CheckpointError unless the parts of a run, newly built, can take their states from the checkpoint.

    schedules: of the learning rate; loop: the state of Lightning's loop over epochs.
    """
    twins = [_stepped(deepcopy(optimizer)) for optimizer in optimizers]
    built = {
        "optimizer_states": [twin.state_dict() for twin in twins],
        "lr_schedulers": [schedule.state_dict() for schedule in schedules],
        "loop": loop,
    }
    saved = checkpoint | {"loop": checkpoint["loops"].get("fit_loop")}
    epochs = checkpoint.get("epoch", 0) + 1
    ended = {"ready": epochs, "started": epochs, "processed": epochs, "completed": epochs - 1}
    try:
        for name, state in built.items():
            _check_like(state, saved[name], name)
        if saved["loop"]["epoch_progress"]["current"] != ended:
            raise ValueError(f"loop.epoch_progress.current is not that of the end of epoch {epochs}")
        for twin, state in zip(twins, checkpoint["optimizer_states"], strict=True):
            twin.load_state_dict(deepcopy(state))
            _stepped(twin)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # torch's too
        raise CheckpointError(
            f"{path} does not fit this run, or is damaged: {' '.join(str(error).split())}; resume with the versions of "
            "PyTorch and Lightning that saved it, or train again in another output_dir"
        ) from error


def _stepped(optimizer: Optimizer) -> Optimizer:
    """The same optimizer after a step with gradients of zero, so that its state is complete."""
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def _check_like(ours: Any, theirs: Any, place: str) -> None:
    """Raise ValueError unless a state differs from ours, of a part newly built, in numbers alone.

    Those are finite where ours are; a count is not negative, and more than 0 where ours is. Switches of an optimizer
    may be on, off, or left to PyTorch.
    """
    if isinstance(ours, dict | list | tuple) and type(theirs) is type(ours):
        ours, theirs = (state if isinstance(state, dict) else dict(enumerate(state)) for state in (ours, theirs))
        if differing := [*(ours.keys() - theirs.keys()), *(theirs.keys() - ours.keys())]:
            verb = "lacks" if differing[0] in ours else "has an unknown"
            raise ValueError(f"{place} {verb} {shown(differing[0])}")
        for key, state in ours.items():
            _check_like(state, theirs[key], f"{place}.{key}")
        return
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            raise ValueError(f"{place} is {theirs.dtype} {(*theirs.shape,)}, not {ours.dtype} {(*ours.shape,)}")
        try:
            fits = _stored(theirs).ndim > 0 or 0 <= theirs.item() < math.inf
        except ValueError as error:
            raise ValueError(f"{place} {error}") from error
    elif ours is None or isinstance(ours, bool):
        switch = place.startswith("optimizer") and (theirs is None or isinstance(theirs, bool))
        fits = switch or type(theirs) is type(ours)
    elif isinstance(ours, int | float):
        least = min(ours, 1) if isinstance(ours, int) else -math.inf
        kind = int if place.startswith("loop") else int | float  # a learning rate of 1 becomes 0.5
        fits = isinstance(theirs, kind) and not isinstance(theirs, bool) and least <= theirs
        fits = fits and (not math.isfinite(ours) or abs(theirs) < 2**53)
    else:
        fits = type(theirs) is type(ours) and theirs == ours
    if not fits:
        raise ValueError(f"{place} is {shown(theirs)}, where this run has {shown(ours)}")


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


def _first_difference(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any] | None:
    """The dotted key at which two nested dicts differ, and its value here and there; None if nowhere. A key that one of
    them lacks, as those of older versions may, is None there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        each = (_first_difference(f"{name}.{key}", ours.get(key), theirs.get(key)) for key in {**ours, **theirs})
        return next(filter(None, each), None)
    return None if ours == theirs else (name, ours, theirs)


def _describe(preprocessing: dict[str, Any]) -> str:
    return "{channels}×{height}×{width}, normalised per {normalize}".format(**preprocessing)
