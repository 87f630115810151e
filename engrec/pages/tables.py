"""Tables: Markdown, HTML, CSV."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from engrec.evidence.comparison import Comparison
from engrec.evidence.statistics import p_text, p_value, score_names
from engrec.evidence.verdicts import judge
from engrec.machine.files import write_text


def text(blocks: Iterable[Comparison]) -> str:
    """Markdown that reads well in a terminal too."""
    parts = []
    for block in blocks:
        parts += [f"## {block.title}", "", table(figure_rows(block)), ""]
        parts += [legend(block), "", *(f"- {verdict.text}" for verdict in judge(block)), ""]
        if block.differences:
            parts += [table(difference_rows(block)), "", difference_legend(block), ""]
        if block.within_formats:
            parts += ["Within each format of the source files:", "", table(format_rows(block)), ""]
    return "\n".join(parts)


def figure_rows(block: Comparison) -> list[list[str]]:
    rows = [["", "runs", "seeds", *score_names(), *(["ECE calibrated"] if block.calibrated else [])]]
    runs = dict(zip(block.labels, block.groups, strict=True))
    for name, figures in block.figures.items():
        counts = [str(len(runs[name].runs)), str(len(runs[name].seeds))] if name in runs else ["", ""]
        after = [f"{100 * block.calibrated[name]:.1f}"] if name in block.calibrated else [""]
        rows.append([name, *counts, *map(str, figures.values()), *(after if block.calibrated else [])])
    return rows


def difference_rows(block: Comparison) -> list[list[str]]:
    rows = [["difference", *score_names(), "McNemar"]]
    for difference in block.differences[:MOST_DIFFERENCES]:
        cells = [difference.cell(score) for score in score_names()]
        rows.append([f"{difference.one} − {difference.other}", *cells, p_text(difference.mcnemar)])
    return rows


def format_rows(block: Comparison) -> list[list[str]]:
    shown = ("accuracy", "balanced accuracy", "AUC")
    rows = [["", "format", "images", *shown]]
    return rows + [
        [name, kind, f"{count:,}", *(str(figures[score]) for score in shown)]
        for name, kind, count, figures in block.within_formats
    ]


def legend(block: Comparison) -> str:
    if block.draws.num_groups < 2:
        return "In per cent. One person is tested: no interval, and nothing about others."
    over = f"{block.draws.num_groups:,} people" if block.groups[0].by_subject else "images (nobody knows who is seen)"
    seeds = "; ± is the standard deviation over seeds" if any(len(g.seeds) > 1 for g in block.groups) else ""
    ece = "ECE: lower is better; resampling raises it, and with it its interval."
    folds = any(len(g.runs) > len(g.seeds) for g in block.groups)
    auc = " AUC ranks the images of all folds together, whose networks differ." if folds else ""
    svm = (
        " HOG + SVM's probabilities are calibrated already."
        if any(g.name["model"] == "hog_svm" for g in block.groups)
        else ""
    )
    return f"In per cent; in brackets 95 % intervals from a bootstrap over {over}{seeds}.{auc} {ece}{svm}"


def difference_legend(block: Comparison) -> str:
    more = len(block.differences) - MOST_DIFFERENCES
    left = f" {more} more in differences.csv." if more > 0 else ""
    if block.draws.num_groups < 2:
        return f"Differences on the same images of one person.{left}"
    least = p_value(np.ones(len(block.draws.counts)), block.draws.num_groups)
    return (
        f"Differences on the same images and the same {len(block.draws.counts):,} draws, from which p cannot be below "
        f"{least:.3f}; McNemar's exact test takes the images for independent, and the first seed alone.{left}"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned to be read in a terminal too; first row the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write_tables(blocks: Sequence[Comparison], folder: Path) -> list[Path]:
    """summary.md, and as CSV all figures, differences and subjects."""
    figures = [["test set", "name", "within", "images", "score", "value", "low", "high", "sd over seeds"]]
    differences = [["test set", "one", "other", "score", "difference", "low", "high", "p", "mcnemar p"]]
    subjects: list[list[str]] = [["test set", "subject", "column", "value"]]
    for block in blocks:
        whole = [(name, "", len(block.groups[0].labels), of) for name, of in block.figures.items()]
        for name, within, count, of in [*whole, *block.within_formats]:
            for score, f in of.items():
                numbers = [f"{x:.6g}" for x in (f.value, f.low, f.high, f.sd)]
                figures.append([block.title, name, within, str(count), score, *numbers])
        for d in block.differences:
            for score, (f, p) in d.figures.items():
                numbers = [f"{x:.6g}" for x in (f.value, f.low, f.high, p, d.mcnemar)]
                differences.append([block.title, d.one, d.other, score, *numbers])
        for row in block.subjects:
            subjects += [[block.title, row["subject"], k, v] for k, v in row.items() if k != "subject"]
    tables = {"summary.csv": figures, "differences.csv": differences, "subjects.csv": subjects}
    for name, rows in tables.items():
        write_text(folder / name, "".join(",".join(map(_quoted, row)) + "\n" for row in rows))
    write_text(folder / "summary.md", text(blocks))
    return [folder / name for name in (*tables, "summary.md")]


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\n') else cell


MOST_DIFFERENCES = 15  # in a table of text; all of them are in differences.csv


def _markdown_table(rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))
