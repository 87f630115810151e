"""A trained network at work: crops of faces in, probabilities out, whatever file it comes from."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engrec import checkpoint, weights_file
from engrec.checkpoint import ClassNames, Preprocessing, Temperature, Word
from engrec.errors import CheckpointError
from engrec.faces import crop as cropping
from engrec.faces.crop import STANDARD, Crop
from engrec.machine.onnx_runtime import onnxruntime
from engrec.schema import Record, misfit, plain

BATCH_SIZE = 32
ONNX = ".onnx"
INPUT, OUTPUT = "images", "probabilities"  # of an exported graph
# Its checksum as protobuf writes it among the metadata: 64 digits, of the file with zeros in their place. It is found
# and compared before anything parses the file.
NO_CHECKSUM = "0" * 64
CHECKSUM_PLACE = re.compile(rb"\n\x0d%s\x12@(.{64})" % weights_file.CHECKSUM.encode(), re.DOTALL)


class About(Record):
    """What scripts/export.py writes into an ONNX file beside the network."""

    class_names: ClassNames
    task: Literal["expression", "engagement"]
    preprocessing: Preprocessing
    dataset: Word | None = None
    temperature: Temperature = 1.0


@dataclass(frozen=True, eq=False)
class Network:
    """name: short, for columns; source: as it was given; sha256: of the file; dataset: that it was trained on, if that
    is known; temperature: applied already; crop: the recipe of its training images, None if that is unknown; run: crops
    uint8 (B, C, H, W) -> probabilities float32 (B, K)."""

    name: str
    source: str
    sha256: str
    task: str
    class_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    dataset: str | None
    temperature: float
    crop: Crop | None
    engine: str
    run: Callable[[np.ndarray], np.ndarray]

    @property
    def size(self) -> int:
        """Side of a crop, in pixels."""
        return self.preprocessing["height"]

    @property
    def colour(self) -> str:
        return "grey" if self.preprocessing["channels"] == 1 else "rgb"

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Probabilities float32 (B, K) of crops uint8 (B, C, H, W); a row depends on its own crop alone."""
        expected = tuple(self.preprocessing[key] for key in ("channels", "height", "width"))
        if crops.dtype != np.uint8 or crops.shape[1:] != expected:
            raise ValueError(
                f"{self.source} takes crops uint8 (B, {', '.join(map(str, expected))}), "
                f"found {crops.dtype} {crops.shape}"
            )
        starts = range(0, len(crops), BATCH_SIZE)
        parts = [self.run(crops[start : start + BATCH_SIZE]) for start in starts]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *parts])

    def about(self) -> dict[str, Any]:
        """Plain values, for the file beside predictions."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self.sha256,
            "task": self.task,
            "class_names": list(self.class_names),
            "trained_on": self.dataset,
            "temperature": self.temperature,
            "preprocessing": self.preprocessing,
            "crop": "unknown" if self.crop is None else self.crop.as_dict(),
            "engine": self.engine,
        }


def load_network(source: str) -> Network:
    """A network from a .ckpt, a .safetensors or .onnx of scripts/export.py, or engrec:NAME.

    Raises CheckpointError for anything else, and for a network that was trained on faces cropped in another way than
    engrec crops them; ValueError where onnxruntime is missing for an .onnx.
    """
    file = weights_file.located(source)
    network = _onnx(source, file) if file.suffix.lower() == ONNX else _torch(source, file)
    images = network.preprocessing
    if images["height"] != images["width"] or images["channels"] not in (1, 3):
        size = "{channels}×{height}×{width}".format(**images)
        raise CheckpointError(f"{source} takes images of {size}, but faces are cropped to squares, grey or in colour")
    return network


def names_of(networks: Sequence[Network]) -> list[str]:
    """A name for each network, each another one."""
    names: list[str] = []
    for network in networks:
        same = [name for name in names if name == network.name or name.rpartition("_")[0] == network.name]
        names.append(f"{network.name}_{len(same) + 1}" if network.name in names else network.name)
    return names


def _torch(source: str, file: Path) -> Network:
    import torch

    from engrec.modules.build import loaded_module  # it takes Lightning, which an .onnx does without
    from engrec.transforms import standardize, to_float

    saved = checkpoint.read(source)
    parameters, temperature = saved["hyper_parameters"], saved.get("temperature", 1.0)
    crop = crop_of(source, parameters["preprocessing"], saved.get("dataset"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module, process = loaded_module(source, saved).to(device), os.getpid()

    def run(crops: np.ndarray) -> np.ndarray:
        if os.getpid() != process:  # a fork has no copies of PyTorch's threads, for which it would wait
            torch.set_num_threads(1)
        with torch.inference_mode():
            images = standardize(to_float(torch.from_numpy(np.ascontiguousarray(crops)).to(device)))
            # In the layout of the weights, without which torch converts them again at each layer.
            logits = module(images.contiguous(memory_format=torch.channels_last)).float()
            return (logits / temperature).softmax(1).cpu().numpy()

    return Network(
        name=_name(source, file),
        source=source,
        sha256=_sha256(source, file),
        task=checkpoint.task_of(saved),
        class_names=tuple(parameters["class_names"]),
        preprocessing=dict(parameters["preprocessing"]),
        dataset=saved.get("dataset"),
        temperature=temperature,
        crop=crop,
        engine=f"torch {torch.__version__}, {device}",
        run=run,
    )


def _onnx(source: str, file: Path) -> Network:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{source} cannot be opened: {error.strerror}") from error
    if not checksummed(content)[1]:
        raise CheckpointError(f"{source} is damaged: its content has changed since it was written (checksum)")
    try:
        runtime = onnxruntime()
    except ImportError as error:
        raise ValueError(f"{source} needs onnxruntime: pip install -e '.[use]'") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        # From its content: a graph that is given as a path may name other files to be read.
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a damaged file can make the library raise anything
        raise CheckpointError(f"{source} cannot be read: it is damaged, or not an ONNX file") from error
    about = _about(source, session)
    _check_graph(source, session, about)
    preprocessing = {key: about["preprocessing"][key] for key in ("channels", "height", "width", "normalize")}
    described = about["preprocessing"] | ({"crop": about["crop"]} if "crop" in about else {})
    return Network(
        name=_name(source, file),
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        task=about["task"],
        class_names=tuple(about["class_names"]),
        preprocessing=preprocessing,
        dataset=about.get("dataset"),
        temperature=about.get("temperature", 1.0),
        crop=crop_of(source, described, about.get("dataset")),
        engine=f"onnxruntime {runtime.__version__}, cpu",
        run=lambda crops: np.asarray(session.run([OUTPUT], {INPUT: np.ascontiguousarray(crops)})[0]),
    )


def checksummed(content: bytes) -> tuple[bytes, bool]:
    """An ONNX file with its checksum set right, and whether it was already; one that has none stays as it is."""
    found = CHECKSUM_PLACE.search(content)
    if found is None:  # as the first exports, and those of other tools
        return content, True
    before, after = content[: found.start(1)], content[found.end(1) :]
    digits = hashlib.sha256(before + NO_CHECKSUM.encode() + after).hexdigest().encode()
    return before + digits + after, digits == found[1]


def _about(source: str, session: Any) -> dict[str, Any]:
    """What the file says of itself. Raises CheckpointError where it says nothing, or nonsense."""
    text = session.get_modelmeta().custom_metadata_map.get(weights_file.KEY)
    if text is None:
        raise CheckpointError(
            f"{source} is an ONNX file but not of engrec, as nothing in it describes its network: "
            "python scripts/export.py writes one from a checkpoint"
        )
    try:
        about = plain(json.loads(text), for_messages=True)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is damaged: what describes its network is not plain JSON") from error
    if found := misfit(About, about):
        raise CheckpointError(f"{source} is damaged: {found}")
    return about


def _check_graph(source: str, session: Any, about: dict[str, Any]) -> None:
    """Raise CheckpointError unless the graph takes and gives what is described."""
    images = [about["preprocessing"][key] for key in ("channels", "height", "width")]
    given = [(one.name, one.type, one.shape[1:]) for one in session.get_inputs()]
    returned = [(one.name, one.shape[1:]) for one in session.get_outputs()]
    classes = [len(about["class_names"])]
    if given != [(INPUT, "tensor(uint8)", images)] or (OUTPUT, classes) not in returned:
        raise CheckpointError(f"{source} is damaged: its graph is not of the images and classes that it describes")


def crop_of(source: str, preprocessing: dict[str, Any], dataset: str | None) -> Crop | None:
    """How the training images were cropped; None if nobody knows. Raises CheckpointError if otherwise than here."""
    try:
        crop = cropping.crop_of(preprocessing.get("crop"), dataset)
    except ValueError as error:
        raise CheckpointError(f"{source} is damaged: {error}") from error
    if crop is not None and (difference := crop.difference(STANDARD)):
        raise CheckpointError(
            f"{source} was trained on faces cropped otherwise ({difference}): use a network trained on faces that this "
            "version has prepared"
        )
    return crop


def _name(source: str, file: Path) -> str:
    """expressions for engrec:expressions, NAME for NAME.onnx and NAME/best.ckpt, SWEEP_0 for SWEEP/0/best.ckpt."""
    if weights_file.is_shipped(source):
        return source.removeprefix(weights_file.PREFIX)
    plain_names = ("best", "last", "model", "model_int8")
    folder = file.resolve().parent
    if file.stem not in plain_names:
        return file.stem
    names = [path.name for path in (folder, *folder.parents)]
    own, *above = names[1:] if names[0] == "onnx" else names
    # A number or a date says nothing alone: the nearest folder that has another name comes first.
    telling = next((name for name in above if re.search(r"[^\d_-]", name)), "")
    return own if re.search(r"[^\d_-]", own) else f"{telling}_{own}".strip("_")


def _sha256(source: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{source} cannot be opened: {error.strerror}") from error
