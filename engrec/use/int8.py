"""An ONNX network in 8-bit integers: a quarter of the size, and much faster on a CPU; how far it is from the original.

Static quantisation, weights per channel: the range of each map is that of images the network was trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from engrec import checkpoint, splits, weights_file
from engrec.data import divide, preprocessing_of, seen
from engrec.datasets import prepared
from engrec.datasets.prepared import Faces
from engrec.machine.onnx_runtime import onnxruntime
from engrec.runs.folder import config_of
from engrec.splits import Split
from engrec.use.network import INPUT
from engrec.use.onnx import answering, described, quiet

# What is computed in 8 bits: the network's layers. Standardising, local response normalisation and softmax are not.
QUANTIZED = ("Conv", "Gemm", "Add", "MaxPool", "AveragePool", "GlobalAveragePool")
# Images that set the ranges: more bring outliers, which cost precision. Others that it is compared on.
NUM_RANGES, NUM_COMPARED, LEAST_IMAGES = 128, 512, 64
BATCH_SIZE = 32
LEAST_SAME, MOST_APART = 0.95, 0.02  # share of images with the same class; mean difference of a probability


@dataclass(frozen=True)
class Agreement:
    """Of the probabilities in 8 bits with those in float32, on num_images images of a data set: the share of images
    with the same class, the mean and the largest difference."""

    dataset: str
    num_images: int
    same: float
    mean: float
    largest: float

    def __str__(self) -> str:
        return (
            f"the same class as in float32 on {100 * self.same:.1f} % of {self.num_images} other training images of "
            f"{self.dataset}; probabilities differ by {self.mean:.4f} on average, {self.largest:.3f} at most"
        )


@dataclass(frozen=True, eq=False)
class Calibration:
    """Training images uint8 (N, C, H, W) of a data set: those that set the ranges, and others to compare on."""

    dataset: str
    ranges: np.ndarray
    compared: np.ndarray


def calibration(path: Path, source: str, saved: dict[str, Any]) -> Calibration:
    """Random training images of a prepared data set.

    source, saved: the checkpoint. Raises ValueError for a data set of which it is not known what is its training part,
    or that has too few images; CheckpointError for one that was prepared otherwise than the network's.
    """
    faces = prepared.load(path)
    checkpoint.check_preprocessing(saved, source, preprocessing_of(faces))
    images = training_images(path, faces, source, saved)
    if len(images) < LEAST_IMAGES:
        raise ValueError(f"--int8 {path} has {len(images)} training images: at least {LEAST_IMAGES} are needed")
    order = np.random.default_rng(0).permutation(len(images))
    number = min(NUM_RANGES, len(images) // 2)
    return Calibration(faces.name, images[order[:number]], images[order[number : number + NUM_COMPARED]])


def training_images(path: Path, faces: Faces, source: str, saved: dict[str, Any]) -> np.ndarray:
    """uint8 (N, C, H, W): those of the official split that are no copies of validation or test images; without one,
    those that the checkpoint's run has trained on."""
    if faces.splits is not None:
        return faces.images[(faces.splits == "train") & ~prepared.excludable(faces)["test_duplicates"]]
    try:
        faces, split = divided(faces, config_of(weights_file.located(source).parent))
        if seen(faces, split) == saved.get("seen"):
            return faces.images[split.train]
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # no configuration, a damaged one, or one of something else
    raise ValueError(
        f"--int8 {path} has no official split, and {source} lies in no run that was trained on it: which images are "
        "training images is unknown, and test images must not calibrate"
    )


def divided(faces: Faces, config: dict[str, Any]) -> tuple[Faces, Split]:
    """The data set and its split as a run's configuration has them; only a class of engrec.splits is called."""
    classes = config["dataset"].get("classes")
    node = dict(config["split"])
    module, _, name = node.pop("_target_").rpartition(".")
    if module != splits.__name__:
        raise ValueError(module)
    faces = prepared.regroup(faces, classes) if classes else faces
    return faces, divide(faces, getattr(splits, name)(**node))


def quantized(content: bytes, images: np.ndarray, about: dict[str, Any]) -> bytes:
    """The content of the file in 8 bits, from the one in float32. images: uint8 (N, C, H, W), which set the ranges.

    Weights take 7 of the 8 bits: without VNNI, x86 processors add products in 16 bits, which others would overflow.
    """
    import onnx

    onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as name, quiet():
        full, folded, small = (Path(name, f"{stem}.onnx") for stem in ("full", "folded", "small"))
        full.write_bytes(content)
        quant_pre_process(str(full), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(small),
            Batches(images),  # pyright: ignore[reportArgumentType] (its base class would be imported with this module)
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return described(onnx.load(str(small)), about)


class Batches:
    """Images as onnxruntime asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        starts = range(0, len(images), BATCH_SIZE)
        self.batches: Iterator[np.ndarray] = (images[start : start + BATCH_SIZE] for start in starts)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def check_agrees(source: str, content: bytes, small: bytes, images: Calibration) -> Agreement:
    """Raises ValueError where the two differ by more than is allowed."""
    batches = np.split(images.compared, range(BATCH_SIZE, len(images.compared), BATCH_SIZE))
    here, there = (np.concatenate([*map(answering(one), batches)]) for one in (content, small))
    apart = np.abs(here - there)
    same = float((here.argmax(1) == there.argmax(1)).mean())
    found = Agreement(images.dataset, len(here), same, float(apart.mean()), float(apart.max()))
    if not (found.same >= LEAST_SAME and found.mean <= MOST_APART):
        raise ValueError(
            f"{source} does not stay the same in 8 bits: {found} (allowed: the same class on {100 * LEAST_SAME:.0f} % "
            f"or more, {MOST_APART:g} on average); leave out --int8, the one in float32 is written without it"
        )
    return found
