"""A checkpoint exported: its weights in half precision, what describes them, a model card, and the network as ONNX."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engrec import checkpoint, weights_file
from engrec.faces.crop import crop_of
from engrec.machine.files import atomic_write, check_replaceable, remove_abandoned, write_text
from engrec.modules.build import loaded_module
from engrec.modules.classifier import Classifier
from engrec.runs.folder import removed_if_empty
from engrec.runs.record import Run, find_runs, read_run
from engrec.runs.status import status_of
from engrec.transforms import standardize, to_float
from engrec.use import card, int8, onnx
from engrec.use.int8 import Calibration
from engrec.use.measured import Measured, measure, why_none

CARD, CONFIG = "README.md", "config.json"
MARK = "<!-- as scripts/export.py wrote it: sha256 "
MOST_OTHER, MOST_APART = 0.01, 0.02  # share of images with another class; difference of a probability
NUM_IMAGES = 512  # that the network is compared on


@dataclass(frozen=True)
class Exported:
    """apart: the largest difference of a probability from the checkpoint's on random images; graphs: if asked for."""

    folder: Path
    num_bytes: int
    temperature: float
    apart: float
    graphs: card.Graphs | None = None


def export(
    source: str,
    folder: Path,
    runs: Sequence[Path] | None = None,
    half: bool = True,
    licence: str = "unknown",
    notes: str = "",
    as_onnx: bool = False,
    calibrated_on: Path | None = None,
) -> Exported:
    """Write model.safetensors, config.json and README.md to the folder, each completely or not at all, the first last;
    with as_onnx, onnx/model.onnx too, and with a prepared data set to calibrate on, onnx/model_int8.onnx.

    source: a checkpoint, as `checkpoint.read` takes it. runs: finished runs from which scores and temperature come; of
    None, the run that the checkpoint lies in, if it is finished and its scores are a result.
    Raises ValueError for a folder with other content, for runs that do not fit the checkpoint, and for a network that
    does not stay the same in half precision, as ONNX or in 8 bits.
    """
    check_replaceable(folder, others)
    if is_edited(folder / CARD):
        raise ValueError(
            f"{folder / CARD} was edited since it was written: choose another folder, or move the card away"
        )
    if as_onnx or calibrated_on is not None:
        onnx.check_installed("--onnx" if calibrated_on is None else "--int8")
    saved = checkpoint.read(source)
    images = None if calibrated_on is None else int8.calibration(calibrated_on, source, saved)
    network = loaded_module(source, saved)
    trained = run_of(source)
    own = [] if trained is None or why_none(trained, saved) else [trained]
    scored = find_runs(runs) if runs else own
    measured = measure(scored, saved) if scored else None
    about = described(saved, measured, provenance(source, trained, saved))
    try:
        content = weights_file.pack(saved["state_dict"], about, half)
    except ValueError as error:
        raise ValueError(f"{source} cannot be exported: {error}") from error
    with removed_if_empty(folder), atomic_write(folder / weights_file.NAME, "wb") as file:
        file.write(content)
        file.flush()
        reread = checkpoint.validated(weights_file.read(Path(file.name)), folder / weights_file.NAME)
        rounded = loaded_module(source, reread)
        apart = check_same(source, network, rounded, about)
        graphs = None
        if as_onnx or images is not None:
            graphs = graphs_of(source, rounded, graph_described(about, content), images)
        if licence == "unknown" and (earlier := card.of_source(source)):
            licence = card.licence_of(earlier)
        described_by = card.About(
            source, saved | about, network, trained, measured, half, licence, notes, folder, graphs
        )
        text = card.text(described_by)
        write_graphs(folder / onnx.FOLDER, graphs)
        write_text(folder / CARD, signed(text))
        write_text(folder / CONFIG, json.dumps(about, indent=2) + "\n")
    return Exported(folder, len(content), about["temperature"], apart, graphs)


def signed(text: str) -> str:
    """A card with a last line, which is not shown, by which an edited card is told from one as it was written."""
    return f"{text}\n{MARK}{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_edited(path: Path) -> bool:
    """Whether somebody has changed this card, as far as it can be known."""
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    text, mark, _ = found.rpartition(f"\n{MARK}")
    return bool(mark) and found != signed(text)


def graph_described(about: dict[str, Any], weights: bytes) -> dict[str, Any]:
    """What a graph says of itself. weights: the content of the .safetensors beside it, which has the same ones."""
    parameters = about["hyper_parameters"]
    preprocessing = dict(parameters["preprocessing"])
    crop = crop_of(preprocessing.pop("crop", None), about.get("dataset"))
    found = {
        "class_names": list(parameters["class_names"]),
        "task": about["task"],
        "dataset": about.get("dataset"),
        "preprocessing": preprocessing,
        "temperature": about["temperature"],
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return found if crop is None else found | {"crop": crop.as_dict()}


def graphs_of(source: str, network: Classifier, about: dict[str, Any], images: Calibration | None) -> card.Graphs:
    """The network as ONNX, and in 8 bits if there are images to calibrate on. Raises ValueError where one of them does
    not compute the same."""
    content = onnx.exported(source, network, about["temperature"], about)
    some = random_images(about["preprocessing"], max(onnx.BATCHES))
    some[-2] = 0  # among the others a blank image, whose standard deviation is 0
    apart = onnx.check_same(source, content, network, about["temperature"], some)
    if images is None:
        return card.Graphs(content, apart)
    small = int8.quantized(content, images.ranges, about)
    return card.Graphs(content, apart, small, int8.check_agrees(source, content, small, images))


def write_graphs(folder: Path, graphs: card.Graphs | None) -> None:
    """Write them, and remove those of an earlier export."""
    contents = {} if graphs is None else {onnx.FLOAT: graphs.content, onnx.INT8: graphs.int8}
    for name in (onnx.FLOAT, onnx.INT8):
        if not contents.get(name):
            (folder / name).unlink(missing_ok=True)
    if graphs is None and folder.is_dir():
        folder.rmdir()
    for name, content in contents.items():
        if content:
            with atomic_write(folder / name, "wb") as file:
                file.write(content)


def others(folder: Path) -> list[str]:
    """What is in the folder, but not an export's."""
    found = sorted({path.name for path in folder.iterdir()} - {CARD, CONFIG, weights_file.NAME, onnx.FOLDER})
    graphs = folder / onnx.FOLDER
    if graphs.is_symlink() or graphs.is_file():
        return [*found, onnx.FOLDER]
    if graphs.is_dir():
        remove_abandoned(graphs)
        inside = {path.name for path in graphs.iterdir()} - {onnx.FLOAT, onnx.INT8}
        found += [f"{onnx.FOLDER}/{name}" for name in sorted(inside)]
    return found


def run_of(source: str) -> Run | None:
    """The finished run that a checkpoint lies in; None if there is none."""
    folder = weights_file.located(source).parent
    return read_run(folder) if (folder / "result.json").is_file() else None


def provenance(source: str, trained: Run | None, saved: dict[str, Any]) -> dict[str, str | None]:
    """Command and commit of the training, and the version of engrec that wrote the file."""
    known = dict(saved.get("provenance") or {})
    if trained is not None:
        known = {"command": trained.result.get("command"), "commit": trained.result.get("git_commit")}
    elif not known:
        known = {"command": status_of(weights_file.located(source).parent).command, "commit": None}
    lines = {key: text if text is None else " ".join(text.split())[:900] for key, text in known.items()}
    return lines | {"engrec": version("engrec")}


def described(saved: dict[str, Any], measured: Measured | None, origin: dict[str, str | None]) -> dict[str, Any]:
    """What is written beside the weights."""
    kept = {key: saved[key] for key in weights_file.DESCRIBED if key in saved}
    kept["task"] = checkpoint.task_of(saved)
    temperature = saved.get("temperature", 1.0) if measured is None else measured.temperature
    return kept | {"temperature": temperature, "provenance": origin}


def check_same(source: str, network: Classifier, exported: Classifier, about: dict[str, Any]) -> float:
    """The largest difference of a probability between the two networks on random images. Raises ValueError where it is
    large, or the class is often another."""
    images = random_images(about["hyper_parameters"]["preprocessing"])
    here, there = (probabilities(one, images) for one in (network, exported))
    apart = float((here - there).abs().max())
    other = float((here.argmax(1) != there.argmax(1)).double().mean())
    if not (apart <= MOST_APART and other <= MOST_OTHER):
        raise ValueError(
            f"{source} does not stay the same in half precision: probabilities differ by up to {apart:.3f}, the class "
            f"on {other:.1%} of random images; set --float32"
        )
    return apart


def random_images(preprocessing: dict[str, Any], number: int = NUM_IMAGES) -> Tensor:
    """uint8 (number, C, H, W): noise of five grains, from single pixels to a third of the image."""
    generator = torch.Generator().manual_seed(0)
    channels, size = preprocessing["channels"], (preprocessing["height"], preprocessing["width"])
    grains = [3, 6, 12, 24, max(size)]
    parts = [torch.rand(-(-number // len(grains)), channels, side, side, generator=generator) for side in grains]
    images = torch.cat([F.interpolate(part, size=size, mode="bilinear") for part in parts])[:number]
    return (255 * images).round().to(torch.uint8)


def probabilities(network: Classifier, images: Tensor) -> Tensor:
    """(B, num_classes), in batches of 64."""
    with torch.inference_mode():
        logits = [network(standardize(to_float(part))).float() for part in images.split(64)]
    return torch.cat(logits).double().softmax(1)
