"""The paper's table, made from finished runs."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from engrec.evidence import comparison
from engrec.evidence.clips import per_clip
from engrec.evidence.comparison import Comparison, Difference
from engrec.evidence.groups import Group, read_groups
from engrec.evidence.verdicts import judge
from engrec.machine.files import write_text
from engrec.pages import report, tables
from engrec.pages.tables import difference_legend, markdown, rows_of_differences
from engrec.runs.record import find_runs
from engrec.search.paper import ROWS


def make_table(out: Path, resamples: int) -> None:
    """Print the table of the runs below a folder, and write it there together with the tables of summarize.py."""
    torch.set_num_threads(1)  # small operations, in which threads would only wait for each other
    groups, notes = read_rows(out)
    blocks = comparison.build([*groups.values(), *per_clip(groups.values())], resamples)
    if len(blocks) > len({block.groups[0].unit for block in blocks}):
        raise ValueError(f"{out}: the rows have different test images: {'; '.join(b.title for b in blocks)}")
    text = "\n".join(table_text(block, notes) for block in blocks)
    print(f"\n{text}")
    write_text(out / "table.md", text)
    print("written:", out / "table.md", *report.write(blocks, out / "summary"))


def read_rows(out: Path) -> tuple[dict[str, Group], list[str]]:
    """Each row's runs pooled over folds, and notes on what is left out: seeds that lack folds which others have."""
    found = {row: find_runs([out / row]) for row in ROWS if any((out / row).glob("*/result.json"))}
    if not found:
        raise ValueError(
            f"no finished run below {out}/{{{','.join(ROWS)}}}: leave out --table-only, or set another --out"
        )
    has = {row: by_seed(run.folder for run in runs) for row, runs in found.items()}
    every = set().union(*(folds for seeds in has.values() for folds in seeds.values()))
    groups, notes = {}, []
    for row, runs in found.items():
        complete = {seed for seed, folds in has[row].items() if folds == every}
        for seed in sorted(has[row].keys() - complete):
            notes.append(f"{ROWS[row]} seed {seed} is left out: it has {len(has[row][seed])} of {len(every)} folds")
        pooled = read_groups([run for run in runs if run.seed in complete]) if complete else []
        plain = [group for group in pooled if not group.name["views"]]
        if len(plain) > 1:
            differ = "; ".join(group.name["settings"] for group in plain)
            raise ValueError(f"{out / row} holds runs with different settings ({differ}): set another --out")
        if plain:
            named = {"stage": "", "model": ROWS[row], "settings": "", "start": ""}
            groups[row] = replace(plain[0], name=plain[0].name | named)
    if not groups:
        raise ValueError(f"{out}: no row has all folds: leave out --table-only")
    folds = max((run.num_folds for runs in found.values() for run in runs), default=0)
    if len(every) < folds and every != {None}:
        notes.append(f"folds that have been run: {len(every)} of {folds}; the other people are not tested")
    return groups, notes


def by_seed(folders: Iterable[Path]) -> dict[int, set[int | None]]:
    """Which folds each seed has, from the names of the run folders."""
    found: dict[int, set[int | None]] = {}
    for folder in folders:
        if (match := re.fullmatch(r"seed(\d+)(?:-fold(\d+))?", folder.name)) is None:
            raise ValueError(f"{folder} is not a run of this table, named seedS-foldK: move it elsewhere")
        found.setdefault(int(match[1]), set()).add(None if match[2] is None else int(match[2]))
    return found


def table_text(block: Comparison, notes: Sequence[str]) -> str:
    """The whole table in Markdown."""
    present = [row for row, name in ROWS.items() if name in block.models]
    lines = [f"## {tables.escaped(block.title)}", "", markdown(figure_rows(block, present)), "", legend(block), ""]
    lines += [*(f"- {note}." for note in notes), ""] if notes else []
    if compared := [pair for pair in DIFFERENCES if set(pair) <= set(present)]:
        differences = [block.difference(ROWS[one], ROWS[other]) for one, other in compared]
        chance = "Significant: p < 0.05, with no correction for several comparisons."
        lines += [markdown(rows_of_differences(differences, COLUMNS)), "", f"{difference_legend(block)} {chance}", ""]
        lines += [*(f"- {verdict(difference)}" for difference in differences), ""]
    return "\n".join([*lines, *(f"- {tables.escaped(verdict.text)}" for verdict in judge(block)), ""])


def figure_rows(block: Comparison, present: Sequence[str]) -> list[list[str]]:
    """Each row of the paper's table with the paper's own figures beneath it, then the controls."""
    cells = [["", "seeds", *COLUMNS]]
    for row, name in ROWS.items():
        if row in present:
            ours = [str(len(block.models[name].seeds)), *(str(block.figures[name][score]) for score in COLUMNS)]
        else:
            ours = ["", *["not run"] * len(COLUMNS)]
        papers = [f"{PAPER[row][s]:.2f}" if s in PAPER.get(row, {}) else "–" for s in COLUMNS]
        cells += [[name, *ours], [f"{name}, in the paper", "", *papers]]
    controls = [name for name in block.figures if name not in block.models]
    return cells + [[name, "", *(str(block.figures[name][score]) for score in COLUMNS)] for name in controls]


def legend(block: Comparison) -> str:
    levels = len(block.groups[0].class_names)
    other = f" They have two classes, so they cannot be compared with {levels}." if levels > 2 else ""
    return (
        f"{tables.interval_legend(block, ', which share one pre-training')} The paper's figures are of {PAPERS_DATA}; "
        f" what it calls AUC is balanced accuracy.{other}"
    )


def verdict(difference: Difference) -> str:
    """A difference in words: the scores in which it is significant, and the others."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for score in COLUMNS:
        figure, p = difference.figures[score]
        found[p < 0.05].append(f"{score} ({100 * figure.value:+.1f})")
    name = f"{difference.one} − {difference.other}"
    if not found[True]:
        return f"{name} is NOT significant in {', nor in '.join(found[False])}."
    rest = f", NOT in {', nor in '.join(found[False])}" if found[False] else ""
    return f"{name} is significant in {', '.join(found[True])}{rest}."


# Of Nezami et al. 2019, in per cent. What they call AUC is (TPR + TNR) / 2 of hard decisions: balanced accuracy here.
PAPER = {
    "hog_svm": {"accuracy": 59.88, "F1": 67.38, "balanced accuracy": 62.87},
    "cnn": {"accuracy": 65.70, "F1": 71.01, "balanced accuracy": 68.27},
    "vgg_scratch": {"accuracy": 66.28, "F1": 70.41, "balanced accuracy": 68.41},
    "engagement": {"accuracy": 72.38, "F1": 73.90, "balanced accuracy": 73.74},
}
PAPERS_DATA = "688 images of its authors' own data, which were never published"
DIFFERENCES = [("engagement", "vgg_scratch"), ("engagement", "cnn"), ("vgg_scratch", "cnn"), ("engagement", "hog_svm")]
COLUMNS = ("accuracy", "F1", "balanced accuracy", "AUC")
