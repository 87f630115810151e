"""Results over many runs: folds pooled, seeds averaged, intervals over people.

python scripts/summarize.py outputs/finetune outputs/scratch
"""

import argparse
import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engrec import metrics
from engrec.config import errors_in_one_line

SHOWN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "accuracy": metrics.accuracy,
    "balanced accuracy": metrics.balanced_accuracy,
    "F1": metrics.f1,
    "AUC": metrics.auc,
}


@dataclass(frozen=True)
class Group:
    """Runs that differ in fold and seed alone, over the same N test images.

    labels (N,); subjects (N,), who is seen, or each image's own name where nobody knows; logits (num_seeds, N, K), the
    logarithm of each seed's probabilities, pooled over its folds.
    """

    name: tuple[str, str, str]
    num_runs: int
    sources: list[str]
    labels: torch.Tensor
    subjects: np.ndarray
    by_subject: bool
    logits: torch.Tensor

    def score(self, metric: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], index: np.ndarray) -> float:
        """Mean over seeds of a metric on some of the images."""
        chosen = torch.from_numpy(index)
        return float(np.mean([metric(logits[chosen], self.labels[chosen]) for logits in self.logits]))


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Folders below these that hold a finished run."""
    found = sorted({result.parent for folder in folders for result in folder.rglob("result.json")})
    if not found:
        raise ValueError(f"no finished run (result.json) below {', '.join(map(str, folders))}")
    return found


def read_groups(runs: Iterable[Path]) -> list[Group]:
    """One group for each stage, data set and model, in the order of the stages."""
    described = [(run, json.loads((run / "result.json").read_text())) for run in runs]
    stages = ["pretrain", "finetune", "scratch", "test"]
    keyed = sorted(
        (stages.index(r["stage"]), r["choices"]["dataset"], r["choices"]["model"], run) for run, r in described
    )
    seeds = {run: result["seed"] for run, result in described}
    return [
        pool((stages[stage], dataset, model), [(seeds[row[3]], row[3]) for row in rows])
        for (stage, dataset, model), rows in itertools.groupby(keyed, key=lambda row: row[:3])
    ]


def pool(name: tuple[str, str, str], runs: list[tuple[int, Path]]) -> Group:
    """Join the folds of each seed. Raises ValueError when an image was tested twice, or not under every seed."""
    by_seed: dict[int, dict[str, list[str]]] = {}
    header: list[str] = []
    for seed, run in runs:
        with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if more := [source for source, count in Counter(row[0] for row in rows).items() if count > 1]:
            raise ValueError(f"{run} has {len(more)} images with a name that another has, such as {more[0]}")
        pooled = by_seed.setdefault(seed, {})
        if twice := pooled.keys() & {row[0] for row in rows}:
            raise ValueError(
                f"{run} tests {min(twice)} again, which another run with seed={seed} has tested: name one of them"
            )
        pooled |= {row[0]: row for row in rows}
    sources = sorted(next(iter(by_seed.values())))
    if any(sorted(pooled) != sources for pooled in by_seed.values()):
        raise ValueError(f"{' '.join(name)}: not every seed has all folds; their test images differ")
    classes = [column.removeprefix("p_") for column in header[3:]]
    first = next(iter(by_seed.values()))
    subjects = [first[source][1] for source in sources]
    probabilities = np.array(
        [[pooled[source][3:] for source in sources] for pooled in by_seed.values()], dtype=np.float64
    )
    return Group(
        name=name,
        num_runs=len(runs),
        sources=sources,
        labels=torch.tensor([classes.index(first[source][2]) for source in sources]),
        subjects=np.array(subjects if all(subjects) else sources),
        by_subject=all(subjects),
        logits=torch.from_numpy(probabilities).clamp_min(1e-45).log(),
    )


def summarize(groups: list[Group], num_resamples: int = 1000) -> str:
    """A Markdown table of the groups, and one of the differences between those with the same test images."""
    torch.set_num_threads(1)  # thousands of small operations, in which threads would only wait for each other
    rows = [["stage", "data", "model", "runs", "test images", *SHOWN]]
    for group in groups:
        cells = [
            _with_interval(group.subjects, lambda i, g=group, m=m: g.score(m, i), num_resamples) for m in SHOWN.values()
        ]
        people = f" of {len(set(group.subjects))} people" if group.by_subject else ""
        rows.append([*group.name, str(group.num_runs), f"{len(group.sources):,}{people}", *cells])
    text = [
        table(rows),
        "",
        "In brackets: 95 % interval, from a bootstrap over people (over images where nobody knows who is seen).",
    ]
    pairs = [(a, b) for a, b in itertools.combinations(groups, 2) if a.sources == b.sources]
    if pairs:
        rows = [["difference, same images and people drawn for both", *SHOWN]]
        for a, b in pairs:
            cells = [
                _with_interval(a.subjects, lambda i, a=a, b=b, m=m: a.score(m, i) - b.score(m, i), num_resamples, "+")
                for m in SHOWN.values()
            ]
            rows.append([f"{_differing(a.name, b.name)} − {_differing(b.name, a.name)}", *cells])
        text += ["", table(rows)]
    return "\n".join(text)


def _differing(name: tuple[str, ...], other: tuple[str, ...]) -> str:
    return " ".join(a for a, b in zip(name, other, strict=True) if a != b)


def _with_interval(
    groups: np.ndarray, statistic: Callable[[np.ndarray], float], num_resamples: int, sign: str = ""
) -> str:
    low, high = metrics.interval(statistic, groups, num_resamples)
    value = statistic(np.arange(len(groups)))
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def table(rows: list[list[str]]) -> str:
    """Markdown, aligned to be read in a terminal too; first row the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders that hold some")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: %(default)s)")
    options = parser.parse_args(arguments)
    print(summarize(read_groups(find_runs(options.folders)), options.resamples))


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
