"""A checkpoint exported: its weights in half precision, what describes them, and a model card."""

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
from engrec.machine.files import atomic_write, remove_abandoned, write_text
from engrec.modules.build import loaded_module
from engrec.modules.classifier import Classifier
from engrec.runs.folder import removed_if_empty
from engrec.runs.record import Run, find_runs, read_run
from engrec.runs.status import status_of
from engrec.transforms import standardize, to_float
from engrec.use import card
from engrec.use.measured import Measured, measure, why_none

CARD, CONFIG = "README.md", "config.json"
MOST_OTHER, MOST_APART = 0.01, 0.02  # share of images with another class; difference of a probability
NUM_IMAGES = 512  # that the network is compared on


@dataclass(frozen=True)
class Exported:
    """apart: the largest difference of a probability from the checkpoint's on random images."""

    folder: Path
    num_bytes: int
    temperature: float
    apart: float


def export(
    source: str,
    folder: Path,
    runs: Sequence[Path] | None = None,
    half: bool = True,
    licence: str = "unknown",
    notes: str = "",
) -> Exported:
    """Write model.safetensors, config.json and README.md to the folder, each completely or not at all, the first last.

    source: a checkpoint, as `checkpoint.read` takes it. runs: finished runs from which scores and temperature come; of
    None, the run that the checkpoint lies in, if it is finished and its scores are a result.
    Raises ValueError for a folder with other content, for runs that do not fit the checkpoint, and for a network that
    does not stay the same in half precision.
    """
    check_free(folder)
    saved = checkpoint.read(source)
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
    text = card.text(card.About(source, saved | about, network, trained, measured, half, licence, notes, folder))
    with removed_if_empty(folder), atomic_write(folder / weights_file.NAME, "wb") as file:
        file.write(content)
        file.flush()
        reread = checkpoint.validated(weights_file.read(Path(file.name)), folder / weights_file.NAME)
        apart = check_same(source, network, loaded_module(source, reread), about)
        write_text(folder / CARD, text)
        write_text(folder / CONFIG, json.dumps(about, indent=2) + "\n")
    return Exported(folder, len(content), about["temperature"], apart)


def check_free(folder: Path) -> None:
    """Raise ValueError unless the folder is new, empty, or holds an earlier export, which is replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose another folder")
    if not folder.is_dir():
        return
    remove_abandoned(folder)
    if other := sorted({path.name for path in folder.iterdir()} - {CARD, CONFIG, weights_file.NAME}):
        raise ValueError(f"{folder} holds other files ({', '.join(other[:3])}): choose another folder")


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
