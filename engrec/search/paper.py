"""The runs of the paper's table: planned, run in parallel, resumed."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from math import isnan
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from engrec.config import composed, composed_dataset
from engrec.datasets.prepared import Faces
from engrec.errors import DIVERGED, quoted
from engrec.machine.gpus import slots
from engrec.runs.folder import config_of, last_lines
from engrec.runs.reading import FileError
from engrec.runs.record import read_result
from engrec.runs.settings import differences
from engrec.search.local import Job, Launcher
from engrec.search.progress import span
from engrec.weights_file import located
from engrec.words import counted

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"hog_svm": "HOG + SVM", "cnn": "CNN", "vgg_scratch": "VGG from scratch", "engagement": "Engagement model"}
SAME_NETWORK = {"engagement": "vgg_scratch", "vgg_scratch": "engagement"}  # so a run takes as long
OURS = ("stage", "model", "experiment", "seed", "split.fold", "split.num_folds", "output_dir", "init_from", "ckpt_path")


@dataclass(frozen=True)
class Preset:
    """Overrides of train.py for each row, and the data set and split that they choose."""

    about: str
    pretrain: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    dataset: str = "wacv2016"
    split: str = "kfold"


QUICK = ("model=vgg_small", "model.width=0.25", "optimizer.lr=0.05")
PRESETS = {
    "quick": Preset(
        "synthetic faces, and a VGG a quarter as wide and batch-normalised: minutes on a CPU",
        pretrain=("stage=pretrain", *QUICK, "max_epochs=8"),
        rows={
            "cnn": ("stage=scratch", "model=cnn"),
            "vgg_scratch": ("stage=scratch", *QUICK),
            "engagement": ("stage=finetune", *QUICK),
        },
        dataset="synthetic",
        split="official",
    ),
    "small": Preset(
        "the paper's CNN, for its VGG one half as wide and batch-normalised: for a CPU",
        pretrain=("experiment=fer2013_short",),
        rows={
            # It learns nothing at the learning rate of the others, and no longer improves on validation from epoch 6.
            "cnn": ("experiment=wacv2016_short", "stage=scratch", "model=cnn", "optimizer.lr=0.005", "max_epochs=8"),
            "vgg_scratch": ("experiment=wacv2016_short", "stage=scratch"),
            "engagement": ("experiment=wacv2016_short", "stage=finetune"),
        },
    ),
    "full": Preset(
        "the paper's networks and, as far as they are known, its hyper-parameters: for a GPU",
        pretrain=("experiment=nezami2019/pretrain",),
        rows={
            "cnn": ("experiment=nezami2019/cnn", "dataset=wacv2016", "split=kfold"),
            "vgg_scratch": ("experiment=nezami2019/vgg", "dataset=wacv2016", "split=kfold"),
            "engagement": ("experiment=nezami2019/engagement", "dataset=wacv2016", "split=kfold"),
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One training (or baseline) in one folder; fold is None if the split has no folds."""

    row: str
    seed: int
    fold: int | None
    overrides: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.row} seed {self.seed}" + ("" if self.fold is None else f" fold {self.fold}")

    @property
    def command(self) -> list[str]:
        """The same for a new run and for one that is resumed. A baseline starts from scratch."""
        if self.row == "hog_svm":
            return ["scripts/baseline.py", "hog_svm", *self.overrides, f"output_dir={quoted(self.folder)}"]
        return ["train.py", *self.overrides, f"output_dir={quoted(self.folder)}", "ckpt_path=last"]

    @property
    def state(self) -> str:
        if (self.folder / "result.json").is_file():
            return "done"
        return "stopped" if (self.folder / "last.ckpt").is_file() else "new"

    @property
    def seconds(self) -> float:
        """How long it took; NaN if unknown."""
        with suppress(FileError):
            return read_result(self.folder / "result.json").get("seconds") or float("nan")
        return float("nan")


@dataclass(frozen=True)
class Choice:
    """The part of the command that decides which runs there are. overrides: the user's, for all engagement runs;
    pretrain: other overrides for the expressions; init_from: an expression checkpoint in place of that run."""

    preset: Preset
    overrides: Sequence[str]
    rows: Sequence[str]
    seeds: Sequence[int]
    num_folds: int | None = None
    pretrain: str | None = None
    init_from: Path | None = None


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise ValueError for what is not an override, and for keys that rows, seeds and folds decide."""
    for override in overrides:
        key, equals, _ = override.lstrip("+~").partition("=")
        if not equals:
            raise ValueError(f"{override}: every argument is KEY=VALUE, such as dataset=wacv2016")
        if key in OURS:
            raise ValueError(f"{override} is decided for each run: see --preset, --seeds, --folds and --init-from")


def plan(choice: Choice, out: Path) -> list[Run]:
    """Every run of the table, the expressions first. HOG + SVM has no randomness: one seed is enough."""
    preset, given = choice.preset, choice.overrides
    dataset, split = last_value(given, "dataset", preset.dataset), last_value(given, "split", preset.split)
    folds = folds_of(split, choice.num_folds)
    other = [f"split.num_folds={len(folds)}"] if split == "kfold" and len(folds) != 5 else []
    first = Run("pretrain", 0, None, pretraining(preset, choice.pretrain), out / "pretrain" / "seed0")
    checkpoint = choice.init_from or first.folder / "best.ckpt"
    if choice.init_from is not None and not located(checkpoint).is_file():
        raise ValueError(f"--init-from {checkpoint} is not a file")
    found = [first] if "engagement" in choice.rows and choice.init_from is None else []
    for row in choice.rows:
        if row == "hog_svm":
            base = [f"dataset={dataset}", f"split={split}"]
            base += [o for o in given if o.lstrip("+~").startswith(("dataset.", "split."))]
        else:
            base = joined(preset, preset.rows[row], given)
        base += [*other, *([f"init_from={quoted(checkpoint)}"] if row == "engagement" else [])]
        for seed in [0] if row == "hog_svm" else choice.seeds:
            for fold in folds:
                overrides = [*base, *([] if row == "hog_svm" else [f"seed={seed}"])]
                overrides += [] if fold is None else [f"split.fold={fold}"]
                name = f"seed{seed}" + ("" if fold is None else f"-fold{fold}")
                found.append(Run(row, seed, fold, tuple(overrides), out / row / name))
    return found


def folds_of(split: str, num_folds: int | None) -> list[int | None]:
    """The folds to run; [None] for a split without folds."""
    if split not in ("kfold", "loso"):
        if num_folds is not None:
            raise ValueError(f"--folds {num_folds}: split={split} has no folds; leave it out")
        return [None]
    if split == "loso" and num_folds is None:
        raise ValueError("split=loso has a fold for each person: set --folds to their number")
    return list(range(num_folds or 5))


def pretraining(preset: Preset, given: str | None) -> tuple[str, ...]:
    overrides = preset.pretrain if given is None else tuple(shlex.split(given))
    if unfit := [o for o in overrides if "=" not in o or o.startswith(("output_dir=", "seed="))]:
        raise ValueError(
            f"--pretrain {unfit[0]}: give overrides of train.py, such as experiment=fer2013, but not output_dir or seed"
        )
    return overrides


def last_value(overrides: Iterable[str], key: str, default: str) -> str:
    """The value of the last override of this key."""
    return ([default] + [o.partition("=")[2] for o in overrides if o.partition("=")[0] == key])[-1]


def joined(preset: Preset, overrides: Sequence[str], given: Sequence[str]) -> list[str]:
    """A row's overrides and the user's, which win; the preset's own data set and split are not repeated."""
    given = [o for o in given if o not in (f"dataset={preset.dataset}", f"split={preset.split}")]
    keys = {o.partition("=")[0] for o in given}
    return [*(o for o in overrides if o.partition("=")[0] not in keys), *given]


@cache
def faces_of(name: str, given: tuple[str, ...]) -> Faces:
    """The engagement set of all rows."""
    return composed_dataset(joined(PRESETS[name], PRESETS[name].rows["vgg_scratch"], given))


def default_out(name: str, given: Sequence[str]) -> Path:
    """A folder of its own for each data set, number of classes and preset, so that their runs do not mix."""
    faces = faces_of(name, tuple(given))
    suffix = "" if name == "small" else f"-{name}"
    return Path("outputs/paper_table") / f"{faces.name}-{len(faces.class_names)}{suffix}"


def check_folds(runs: Iterable[Run], faces: Faces) -> None:
    """Raise ValueError for another number of folds than the people of the data set can be divided into."""
    folds = {run.fold for run in runs if run.fold is not None}
    if not folds or faces.subjects is None:  # then the split itself says what it needs
        return
    people, loso = len(np.unique(faces.subjects)), any("split=loso" in run.overrides for run in runs)
    if len(folds) not in ([people] if loso else range(2, people + 1)):
        number = f"--folds {people}" if loso else f"--folds from 2 to {people}"
        raise ValueError(f"--folds {len(folds)}: {faces.name} has {counted(people, 'person', 'people')}; set {number}")


def check_settings(run: Run) -> None:
    """Raise ValueError if the folder holds a run, finished or stopped, with other settings."""
    if not (run.folder / "config.yaml").is_file():
        return
    now, before = settings_of(run), config_of(run.folder)
    before = {key: before.get(key) for key in now} if run.row == "hog_svm" else before
    if found := differences(now, before):
        raise ValueError(f"{run.folder} holds another run, {found[0]}: set another --out, or remove that folder")


def settings_of(run: Run) -> dict[str, Any]:
    """The run's configuration, nested; of a baseline only what it uses."""
    cfg = _composed(tuple(o for o in run.overrides if not o.startswith(("seed=", "split.fold=")))).copy()
    cfg.seed = run.seed
    if run.fold is not None:
        cfg.split.fold = run.fold
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return {key: settings[key] for key in ("dataset", "split", "seed")} if run.row == "hog_svm" else settings


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Once for all seeds and folds, because it takes half a second."""
    chosen = any(o.startswith(("stage=", "experiment=")) for o in overrides)
    return composed([*([] if chosen else ["stage=scratch"]), *overrides])


@dataclass
class Clock:
    """How long runs of each row took, to estimate the time of the others."""

    jobs: int
    took: dict[str, list[float]] = field(default_factory=dict)

    def add(self, run: Run, seconds: float) -> None:
        if not isnan(seconds):
            self.took.setdefault(run.row, []).append(seconds)

    def left(self, waiting: Sequence[Run]) -> str:
        """In words; empty until a run with each of the networks has ended."""
        if not waiting:
            return ""
        each = [self.took.get(run.row) or self.took.get(SAME_NETWORK.get(run.row, ""), []) for run in waiting]
        return f", about {span(sum(map(mean, each)) / self.jobs)} left" if all(each) else ""


def run_all(runs: Sequence[Run], launcher: Launcher, may_diverge: bool = False) -> set[Run]:
    """Every run that is not done, one in each of the launcher's slots; returns those that diverged, if they may. Raises
    ValueError, and ends the others, if one fails."""
    diverged: set[Run] = set()
    waiting, clock = [run for run in runs if run.state != "done"], Clock(len(launcher.slots))
    running: dict[Run, tuple[Job, int, float]] = {}
    for run in runs:
        if run.state == "done":
            clock.add(run, run.seconds)
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs done already", flush=True)
    launcher.left_over([run.folder for run in waiting])
    alone = len(launcher.slots) == 1
    try:
        while waiting or running:
            free = set(range(len(launcher.slots))) - {slot for _, slot, _ in running.values()}
            while free and (run := ready(waiting, running)) is not None:
                waiting.remove(run)
                message = f"[{runs.index(run) + 1}/{len(runs)}] {run.name} …"
                print(message, end=" " if alone else "\n", flush=True)
                slot = free.pop()
                running[run] = start(run, launcher, slot), slot, perf_counter()
            launcher.wait([job for job, _, _ in running.values()], 0.1)
            for run, (job, _, started) in list(running.items()):
                if (status := job.ended()) is None:
                    continue
                del running[run]
                if may_diverge and status == DIVERGED:
                    diverged.add(run)
                else:
                    if run.state != "done":
                        print()  # the run's line is not ended yet
                    check_ended_well(run, status)
                clock.add(run, seconds := perf_counter() - started)
                name = "" if alone else f"{run.name}: "
                ended = "diverged after " if run in diverged else ""
                print(f"{name}{ended}{span(seconds)}{clock.left([*waiting, *running])}", flush=True)
    finally:
        launcher.end([job for job, _, _ in running.values()])
    return diverged


def ready(waiting: Sequence[Run], running: Iterable[Run]) -> Run | None:
    """The first run that need not wait for the expressions."""
    pending = any(run.row == "pretrain" for run in (*waiting, *running))
    return next((run for run in waiting if run.row != "engagement" or not pending), None)


def start(run: Run, launcher: Launcher, slot: int) -> Job:
    run.folder.mkdir(parents=True, exist_ok=True)
    script, *arguments = run.command
    return launcher.start([sys.executable, str(ROOT / script), *arguments], run.folder, slot)


def check_ended_well(run: Run, status: int) -> None:
    if status == 0 and run.state == "done":
        return
    log = run.folder / "stderr.log"
    message = last_lines(log, 1).strip() or "no message"
    raise ValueError(f"{run.name} ended with status {status}: {message} (all messages: {log})")


def launcher_of(overrides: Sequence[str], jobs: int) -> Launcher:
    return Launcher(slots(last_value(overrides, "trainer.accelerator", "auto"), jobs))
