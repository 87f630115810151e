"""The results of a run: result.json, predictions.csv and controls are written here, and read back strictly."""

import csv
import io
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field

from engrec.datasets.prepared import Faces
from engrec.machine.files import atomic_write
from engrec.runs.reading import FileError, flatten, read_json, read_text, read_yaml
from engrec.runs.settings import with_selected
from engrec.schema import Record, misfit
from engrec.words import printable

PACKAGES = ("engrec", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "scikit-learn")


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """result.json, the last file of a run: a folder that has it is finished."""
    with atomic_write(folder / "result.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)


def without_nan(value: Any) -> Any:
    """The value with None in the place of NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def environment(command: str, *more_packages: str) -> dict[str, Any]:
    """What a result depends on besides its configuration."""
    return {
        "hardware": hardware(),
        "versions": {name: version(name) for name in (*PACKAGES, *more_packages)}
        | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "command": command,
    }


def hardware() -> dict[str, Any]:
    import torch

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


# Of predictions.csv; then p_CLASS for each class. Files of older versions have no format.
COLUMNS = ("source", "subject", "format", "label")
CLIP = "clip"  # one more column, where images are frames of clips
PROBABILITY = "p_"


def write_predictions(path: Path, faces: Faces, index: list[int], probabilities: list[list[float]]) -> None:
    """index: which images of `faces`; probabilities: one row (num_classes,) for each of them."""
    nothing = [""] * len(faces)
    subjects, formats = (nothing if a is None else a.tolist() for a in (faces.subjects, faces.formats))
    clips = [[]] * len(faces) if faces.clips is None else [[clip] for clip in faces.clips.tolist()]
    with atomic_write(path) as file:
        writer = csv.writer(file)
        more = [] if faces.clips is None else [CLIP]
        writer.writerow([*COLUMNS, *more, *(f"{PROBABILITY}{name}" for name in faces.class_names)])
        for i, row in zip(index, probabilities, strict=True):
            label = faces.class_names[faces.labels[i]]
            writer.writerow([faces.sources[i], subjects[i], formats[i], label, *clips[i], *(f"{p:.9g}" for p in row)])


def write_controls(folder: Path, faces: Faces, index: list[int], controls: dict[str, np.ndarray]) -> None:
    """A file like predictions.csv for each control, under its name."""
    folder.mkdir(exist_ok=True)
    for name, probabilities in controls.items():
        write_predictions(folder / f"{name}.csv", faces, index, probabilities.tolist())


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, its result.json and its configuration, nested keys joined by dots.

    links: whether links among its files are followed.
    """

    folder: Path
    result: dict[str, Any]
    settings: dict[str, Any]
    links: bool = False

    @property
    def seed(self) -> int:
        return self.result["seed"]

    @cached_property
    def kind(self) -> dict[str, str]:
        """What every run is named by."""
        choices = self.result["choices"]
        return {
            "stage": self.result["stage"],
            "data": (self.result.get("dataset") or {}).get("name", choices["dataset"]),
            "split": choices["split"],
            "model": choices["model"],
        }

    @property
    def num_folds(self) -> int:
        """Of its split; 0 where that has none. Leaving one person out has a fold for each person."""
        if self.kind["split"] == "loso":
            return sum((self.result.get("num_people") or {}).values())
        return int(self.settings.get("split.num_folds") or 0)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for N test images; subjects and formats are empty strings where they are unknown.

    labels: int (N,), indices into class_names; probabilities: float64 (N, K). clips: the clip of each image; None where
    images are no frames.
    """

    class_names: tuple[str, ...]
    sources: np.ndarray
    subjects: np.ndarray
    formats: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    clips: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def by_subject(self) -> bool:
        """Whether the subject of every image is known."""
        return bool((self.subjects != "").all())


Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Stage = Literal["pretrain", "finetune", "scratch", "baseline", "test"]
STAGES: tuple[str, ...] = get_args(Stage)  # in the order of the tables


class Excluded(Record):
    images: Count
    of_each_kind: dict[str, Count]


class Dataset(Record):
    name: str = ""
    excluded_from_training: Excluded | None = None


class Calibration(Record):
    temperature: Annotated[float, Field(gt=0)] | None = None


class Hardware(Record):
    gpus: list[str] | None = None


class Result(Record):
    """What result.json holds: that of an older version, or of a baseline, lacks some of it."""

    stage: Stage | None = None
    seed: int | None = None
    choices: dict[str, str] | None = None
    dataset: Dataset | None = None
    calibration: Calibration | None = None
    transductive: Literal["all"] | Count | None = None  # unlabelled frames of each person, given to a baseline
    metrics: dict[str, Number | None] | None = None
    validation: dict[str, Number | None] | None = None
    num_images: dict[str, Count] | None = None
    num_people: dict[str, Count] | None = None
    may_know_test: bool | None = None  # the network was trained on other images of the data set; None: not known
    epochs: Count | None = None
    seconds: Annotated[Number, Field(ge=0)] | None = None
    hardware: Hardware | None = None
    git_commit: str | None = None
    command: str | None = None


def read_result(path: Path, links: bool = False) -> dict[str, Any]:
    """result.json. Raises FileError where a value is of a type or in a range that no run writes."""
    result = read_json(path, links)
    if found := misfit(Result, result):
        raise FileError("damaged", path, f"is damaged ({found})")
    return result


def read_run(folder: Path, links: bool = True) -> Run:
    """A finished run. Raises ValueError for anything that is wrong in its result.json or config.yaml."""
    try:
        result = read_result(folder / "result.json", links)
        config = folder / "config.yaml"
        settings = dict(flatten(read_yaml(config, links))) if config.is_file() else {}
    except FileError as error:
        raise ValueError(f"{folder}/{error}: run it again, or remove it") from error
    missing = [key for key in ("choices", "seed", "stage") if result.get(key) is None]
    if missing := missing or sorted({"dataset", "split", "model"} - result["choices"].keys()):
        raise ValueError(
            f"{folder / 'result.json'} lacks {', '.join(missing)}: another version of engrec wrote it; run it "
            "again, or remove that folder"
        )
    return Run(folder, result, with_selected(settings), links)


def read_predictions(path: Path, links: bool = False) -> Predictions:
    """One prediction file. Raises ValueError, with file and line, for anything that is wrong in it."""
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path, links=links), newline=""), strict=True)
    except FileError as error:
        raise ValueError(f"{path.parent}/{error}: run it again, or remove that folder") from error
    except (ValueError, csv.Error) as error:  # an empty file has no header
        raise ValueError(f"{path} is empty or damaged: run it again, or remove that folder") from error
    columns = [column for column in header if column.startswith(PROBABILITY)]
    needed = [column for column in COLUMNS if column != "format"]
    if not set(needed) <= set(header) or len(columns) < 2 or len(set(header)) < len(header):
        raise ValueError(
            f"{path} has the columns {printable(', '.join(header))}; needed, once each: {', '.join(needed)}, "
            "p_CLASS, p_CLASS"
        )
    if not rows:
        raise ValueError(f"{path} has no predictions: run it again, or remove that folder")
    if ragged := next((i for i, row in enumerate(rows, 2) if len(row) != len(header)), None):
        raise ValueError(f"{path}, line {ragged}: {len(rows[ragged - 2])} cells, the header has {len(header)}")
    cells = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    if "" in cells.get(CLIP, ()):
        raise ValueError(f"{path}, line {cells[CLIP].index('') + 2}: the clip is empty; name one for each image")
    class_names = tuple(column.removeprefix(PROBABILITY) for column in columns)
    number = {name: i for i, name in enumerate(class_names)}
    if unknown := next((i for i, label in enumerate(cells["label"], 2) if label not in number), None):
        raise ValueError(f"{path}, line {unknown}: label {cells['label'][unknown - 2]!r} has no column")
    if len(set(cells["source"])) < len(rows):
        names, counts = np.unique(cells["source"], return_counts=True)
        name, count = names[counts.argmax()], counts.max()
        raise ValueError(f"{path} lists {printable(name)} {count} times; each test image must appear once")
    return Predictions(
        class_names=class_names,
        sources=np.array(cells["source"]),
        subjects=np.array(cells["subject"]),
        formats=np.array(cells.get("format", [""] * len(rows))),
        labels=np.array([number[label] for label in cells["label"]]),
        probabilities=_probabilities([cells[column] for column in columns], path),
        clips=np.array(cells[CLIP]) if CLIP in cells else None,
    )


def _probabilities(columns: list[list[str]], path: Path) -> np.ndarray:
    """float64 (N, K) from K columns of text."""
    try:
        values = np.array(columns, dtype=np.float64).T
    except ValueError as error:
        line = next(line for line, row in enumerate(zip(*columns, strict=True), 2) if not all(map(_is_number, row)))
        raise ValueError(f"{path}, line {line}: {error}; a probability must be a number from 0 to 1") from error
    wrong = ~((values >= 0) & (values <= 1)).all(1) | (np.abs(values.sum(1) - 1) > 1e-3)
    if wrong.any():
        line = int(wrong.argmax())
        raise ValueError(f"{path}, line {line + 2}: {values[line].tolist()} must be from 0 to 1 and sum to 1")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Every finished run below these folders. Raises ValueError where there is none, or one that is not readable."""
    folders = list(folders)
    if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ValueError(f"{', '.join(gone)}: no such folder")
    found = {result.parent.resolve(): result.parent for folder in folders for result in folder.rglob("result.json")}
    if not found:
        raise ValueError(f"no finished run (result.json) below {', '.join(map(str, folders))}")
    return [read_run(folder) for folder in sorted(found.values())]
