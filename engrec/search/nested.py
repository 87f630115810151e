"""Nested selection: values of a fold chosen by runs inside its own training people, before it is trained and tested."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path
from statistics import mean
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig

from engrec.config import composed
from engrec.machine.files import write_text
from engrec.metrics import higher_is_better
from engrec.runs.folder import finished
from engrec.search.grid import check_run, num_subjects
from engrec.search.paper import Run
from engrec.search.space import check_comparable

RESERVED = {
    "seed": "set --seeds",
    "split.fold": "every fold is run",
    "output_dir": "set --out",
    "ckpt_path": "the same command resumes",
    "selected": "it follows from the keys with several values",
}
NOT_CHOSEN = ("dataset", "split")  # nor anything below them, nor these:
NOT_CHOSEN_ALONE = ("model", "stage", "monitor", "experiment", "init_from")
OUTER = {"engrec.splits.KFold": "kfold", "engrec.splits.LeaveOneSubjectOut": "loso"}


@dataclass(frozen=True)
class Selection:
    """What is chosen and for which runs.

    fixed: overrides of all runs; grid: the values to choose from, by key; monitor: the metric val/KEY, whose test/KEY
    on the inner folds decides; outer: the overrides of split=nested that follow from the outer split, which has
    num_outer folds; inner_seeds: of the runs that decide.
    """

    fixed: tuple[str, ...]
    grid: Mapping[str, Sequence[str]]
    monitor: str
    outer: tuple[str, ...]
    num_outer: int
    num_inner: int
    seeds: Sequence[int]
    inner_seeds: Sequence[int]
    out: Path

    @property
    def candidates(self) -> list[tuple[str, ...]]:
        """Overrides of each combination of the values."""
        return [
            tuple(f"{k}={v}" for k, v in zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]

    @property
    def score(self) -> str:
        return self.monitor.replace("val/", "test/")

    def inner_runs(self, fold: int, candidate: tuple[str, ...]) -> list[Run]:
        """Of each inner fold and seed; none has seen the people whom the fold tests."""
        fixed = [o for o in self.fixed if not o.lstrip("+").startswith(("split=", "split."))]
        split = ["split=nested", f"split.outer={fold}", f"split.num_folds={self.num_inner}", *self.outer]
        folder = self.out / "inner" / f"fold{fold}" / re.sub(r"[^\w.]+", "-", " ".join(candidate))
        return [
            Run(
                f"for fold {fold}, {' '.join(candidate)}:",
                seed,
                inner,
                (*fixed, *candidate, *split, f"seed={seed}", f"split.fold={inner}"),
                folder / f"seed{seed}-inner{inner}",
            )
            for seed in self.inner_seeds
            for inner in range(self.num_inner)
        ]

    def outer_runs(self, fold: int, candidate: tuple[str, ...]) -> list[Run]:
        """Of each seed, with the values that were chosen for the fold."""
        selected = f"selected=[{','.join(self.grid)}]"
        return [
            Run(
                "chosen",
                seed,
                fold,
                (*self.fixed, *candidate, selected, f"seed={seed}", f"split.fold={fold}"),
                self.out / "chosen" / f"seed{seed}-fold{fold}",
            )
            for seed in self.seeds
        ]

    def all_inner_runs(self) -> list[Run]:
        return [
            run
            for fold in range(self.num_outer)
            for candidate in self.candidates
            for run in self.inner_runs(fold, candidate)
        ]

    def choose(self, fold: int, diverged: Collection[Run] = ()) -> dict[str, Any]:
        """The candidate with the best mean over the inner runs of the fold, which must be finished; of equal ones the
        first, and none of which a run diverged. Raises ValueError where a score is undefined, and where all diverged.
        """
        inner = {candidate: self.inner_runs(fold, candidate) for candidate in self.candidates}
        scores = {one: self._mean(runs) for one, runs in inner.items() if not set(runs) & set(diverged)}
        if not scores:
            raise ValueError(f"every training diverged for fold {fold}: give optimizer.lr smaller values")
        best = (max if higher_is_better(self.score) else min)(scores, key=lambda candidate: scores[candidate])
        return {
            "fold": fold,
            "chosen": list(best),
            "score": self.score,
            "candidates": [{"overrides": list(one), "mean": scores.get(one)} for one in self.candidates],
        }

    def _mean(self, runs: Iterable[Run]) -> float:
        found = {run.folder: finished(run.folder).get(self.score, float("nan")) for run in runs}
        if undefined := [folder for folder, value in found.items() if isnan(value)]:
            raise ValueError(f"{undefined[0]} has no {self.score}: set fewer folds with --inner, or another monitor=")
        return mean(found.values())


def read(
    overrides: Sequence[str], num_inner: int, seeds: Sequence[int], out: Path, inner_seeds: Sequence[int] | None = None
) -> Selection:
    """From overrides of train.py, of which those with several values are to be chosen. inner_seeds: default, seeds.

    Raises ValueError for what cannot be part of a selection.
    """
    grid: dict[str, list[str]] = {}
    fixed: list[str] = []
    for parsed in OverridesParser.create().parse_overrides(list(overrides)):
        key, text = parsed.get_key_element().lstrip("+~"), str(parsed.input_line)
        if key in RESERVED:
            raise ValueError(f"{text} is decided for each run: {RESERVED[key]}")
        if not parsed.is_sweep_override():
            fixed.append(text)
        elif key.partition(".")[0] in NOT_CHOSEN or key in NOT_CHOSEN_ALONE:
            raise ValueError(
                f"{text}: {key} cannot be chosen by fold, as results could not be pooled; give it one value"
            )
        else:
            grid[key] = list(parsed.sweep_string_iterator())
            if len(set(grid[key])) < len(grid[key]):
                raise ValueError(f"{text} has a value twice: give each once")
    if num_inner < 2:
        raise ValueError(f"--inner {num_inner} must be at least 2: the people of one part choose for the others")
    if not grid:
        raise ValueError("nothing to choose: give a key several values, such as optimizer.lr=0.005,0.01,0.02")
    cfg = composed([*fixed, *(f"{key}={values[0]}" for key, values in grid.items())])
    check_comparable(cfg.monitor, grid)
    outer, num_outer = outer_split(cfg)
    return Selection(tuple(fixed), grid, cfg.monitor, outer, num_outer, num_inner, seeds, inner_seeds or seeds, out)


def check(selection: Selection) -> None:
    """Raise ValueError for a value that train.py would refuse, and for folds that the people cannot be divided into."""
    from engrec.data import divide  # with Lightning, so that --help answers at once

    for candidate in selection.candidates:
        check_run([*selection.inner_runs(0, candidate)[0].overrides])
    cfg = composed(selection.all_inner_runs()[0].overrides)
    faces = instantiate(cfg.dataset, _convert_="all")
    for outer, inner in product(range(selection.num_outer), range(selection.num_inner)):
        try:
            divide(faces, instantiate(cfg.split, outer=outer, fold=inner))
        except ValueError as error:
            what = str(error).partition(": set split.num_folds")[0]
            raise ValueError(f"{what} (inner folds of fold {outer}): set --inner") from error


def outer_split(cfg: DictConfig) -> tuple[tuple[str, ...], int]:
    """The overrides of split=nested that make its outer folds those of this configuration, and their number."""
    kind, node = OUTER.get(cfg.split._target_), cfg.split
    if kind is None:
        raise ValueError("nested selection needs folds of people: set split=kfold or split=loso")
    if node.get("train_people") is not None:
        raise ValueError(f"nested selection has no split.train_people, found {node.train_people}: leave it out")
    number, written = (node.num_folds,) * 2 if kind == "kfold" else (num_subjects(cfg.dataset), "null")
    shared = (f"split.num_outer={written}", f"split.val_fraction={node.val_fraction}", f"split.seed={node.seed}")
    return shared, number


def write(choices: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """choices.json: of each fold what was chosen, and every candidate's score."""
    write_text(out / "choices.json", json.dumps(choices, indent=1, allow_nan=False) + "\n")
    return out / "choices.json"
