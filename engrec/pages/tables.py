"""Tables as Markdown, HTML and CSV, and those of a comparison. Rows of plain text; the first is the header."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engrec.machine.files import write_text
from engrec.metrics import ERRORS_IN_TABLES, METRICS
from engrec.words import counted, printable

if TYPE_CHECKING:  # it takes torch, which the page of a search does without
    from engrec.evidence.comparison import Comparison, Difference

MOST_DIFFERENCES = 15  # in a table of text; all of them are in differences.csv
WIDTH = 14  # of a header, in characters: less than a figure with its interval
Cell = str | tuple[str, ...]  # text, or parts of it that may stand below each other


def markdown(rows: Sequence[Sequence[Cell]], align_right: bool = False) -> str:
    """Padded, so that it reads well in a terminal too. align_right: all columns but the first."""
    texts = [[escaped(_join(cell, " ")).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*texts, strict=True)]
    right = [align_right and column > 0 for column in range(len(widths))]
    lines = [
        [cell.rjust(width) if end else cell.ljust(width) for cell, width, end in zip(row, widths, right, strict=True)]
        for row in texts
    ]
    rule = ("-" * (width + 1) + (":" if end else "-") for width, end in zip(widths, right, strict=True))
    header, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, f"|{'|'.join(rule)}|", *rest])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: names may hold what would be code or HTML."""
    one_line = " ".join(text.splitlines())
    return printable(re.sub(r"[\\`]|<(?=[a-zA-Z/!?])|&(?=#?\w+;)", lambda found: f"&#{ord(found[0])};", one_line))


def html(rows: Sequence[Sequence[Cell]]) -> str:
    """With each part of a cell on a line of its own where the page's style keeps line breaks."""
    tags = ("th", *["td"] * (len(rows) - 1))
    lines = (
        "".join(f"<{tag}>{escape(_join(cell, chr(10)))}</{tag}>" for cell in row)
        for tag, row in zip(tags, rows, strict=True)
    )
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([_join(cell, " ") for cell in row] for row in rows)
    return file.getvalue()


def _join(cell: Cell, between: str) -> str:
    return cell if isinstance(cell, str) else between.join(cell)


def text(blocks: Iterable["Comparison"]) -> str:
    """summary.md."""
    from engrec.evidence.verdicts import judge

    parts = []
    for block in blocks:
        parts += [f"## {escaped(block.title)}", "", markdown(figure_rows(block)), ""]
        parts += [legend(block), "", *(f"- {escaped(verdict.text)}" for verdict in judge(block)), ""]
        if block.differences:
            parts += [markdown(difference_rows(block)), "", difference_legend(block), ""]
        if block.within_formats:
            parts += ["Within each format of the source files:", "", markdown(format_rows(block)), ""]
    return "\n".join(parts)


def figure_rows(block: "Comparison") -> list[list[Cell]]:
    scores = list(block.scores)
    after_auc = scores.index("AUC") + 1
    scores[after_auc:after_auc] = ["AUC by fold"] if block.fold_auc else []
    more = ["ECE calibrated"] if block.calibrated else []
    rows: list[list[Cell]] = [["", "runs", "seeds", *map(_header, [*scores, *more])]]
    for name, figures in block.figures.items():
        group = block.models.get(name)
        counts = [str(len(group.runs)), str(len(group.seeds))] if group else ["", ""]
        cells: list[Cell] = [figure.parts() for figure in figures.values()]
        cells[after_auc:after_auc] = [_per_cent(block.fold_auc.get(name))] if block.fold_auc else []
        cells += [_per_cent(block.calibrated.get(name))] if block.calibrated else []
        rows.append([name, *counts, *cells])
    return rows


def _header(score: str) -> Cell:
    """A long one in parts: a column is then no wider than its figures."""
    return score if len(score) <= WIDTH else tuple(textwrap.wrap(score, WIDTH))


def _per_cent(value: float | None) -> str:
    if value is None:
        return ""
    return "undefined" if np.isnan(value) else f"{100 * value:.1f}"


def difference_rows(block: "Comparison") -> list[list[Cell]]:
    return rows_of_differences(block.differences[:MOST_DIFFERENCES], block.scores)


def rows_of_differences(differences: Iterable["Difference"], scores: Sequence[str]) -> list[list[Cell]]:
    from engrec.evidence.statistics import p_text

    rows: list[list[Cell]] = [["difference", *map(_header, scores), "McNemar"]]
    for found in differences:
        rows.append([(f"{found.one} −", found.other), *map(found.cell, scores), p_text(found.mcnemar)])
    return rows


def format_rows(block: "Comparison") -> list[list[Cell]]:
    shown = ("accuracy", "balanced accuracy", "AUC")
    rows: list[list[Cell]] = [["", "format", "images", *shown]]
    return rows + [
        [name, kind, f"{count:,}", *(figures[score].parts() for score in shown)]
        for name, kind, count, figures in block.within_formats
    ]


def legend(block: "Comparison") -> str:
    if block.draws.num_groups < 2:
        return "In per cent. Only one person is tested: no interval, and no conclusion about others."
    sentences = [interval_legend(block)]
    if block.fold_auc:
        sentences.append(
            "AUC ranks the images of all folds together, although each fold has its own network; “AUC by fold” is the "
            "mean of each fold's own AUC, over the folds that test every class."
        )
    sentences += people_legend(block)
    if block.ordered:
        sentences.append(ERRORS_IN_TABLES)
    sentences.append("ECE: lower is better; resampling raises it, and so shifts its interval upwards.")
    if any(group.name["stage"] == "baseline" for group in block.groups):
        sentences.append("Probabilities of baselines are calibrated already.")
    if block.votes:
        sentences.append("A vote is one predictor: the mean of the seeds' probabilities.")
    return " ".join(sentences)


def people_legend(block: "Comparison") -> list[str]:
    """What the scores of people are, each a sentence."""
    meaning = {
        "auc_within": "each person's own, mean over the {} with images of more than one class.",
        "worst_people": "mean over the {}, a quarter of all, for whom that of the nearest neighbour is lowest.",
    }
    return [
        f"{label[0].upper()}{label[1:]}: {meaning[key].format(counted(score.num_people, 'person', 'people'))}"
        for key, label in ((key, METRICS[key].label) for key in meaning)
        if (score := block.people_scores.get(label))
    ]


def interval_legend(block: "Comparison", of_seeds: str = "") -> str:
    """of_seeds: what to say of several."""
    group = block.groups[0]
    unit = group.unit if group.clips is None else "clips"
    over = (
        counted(block.draws.num_groups, "person", "people")
        if group.by_subject
        else f"{unit} (the data set has no subject ids)"
    )
    several = any(len(group.seeds) > 1 for group in block.groups)
    seeds = f"; ± is the standard deviation over seeds{of_seeds}" if several else ""
    return f"In per cent; in brackets 95 % intervals from a bootstrap over {over}{seeds}."


def difference_legend(block: "Comparison") -> str:
    from engrec.evidence.statistics import p_value

    more = len(block.differences) - MOST_DIFFERENCES
    left = f" {more} more in differences.csv." if more > 0 else ""
    if block.draws.num_groups < 2:
        return f"Differences on the same images of one person.{left}"

    def least(number: int) -> float:
        return p_value(np.ones(len(block.draws.counts)), number)

    worst = len(block.worst_people)
    few = f" ({least(worst):.3f} of the worst people)" if worst > 1 else ""
    return (
        f"Differences on the same images and the same {len(block.draws.counts):,} draws, from which p cannot be below "
        f"{least(block.draws.num_groups):.3f}{few}; McNemar's exact test takes the images for independent, and the "
        f"first seed alone.{left}"
    )


def write_tables(blocks: Sequence["Comparison"], folder: Path) -> list[Path]:
    """summary.md, and as CSV all figures, differences and subjects."""
    figures = [
        ["test set", "name", "within", "images", "score", "value", "low", "high", "sd over seeds", "mean of folds"]
    ]
    differences = [["test set", "one", "other", "score", "difference", "low", "high", "p", "mcnemar p"]]
    subjects: list[list[str]] = [["test set", "subject", "column", "value"]]
    for block in blocks:
        overall = [(name, "", len(block.groups[0].labels), of) for name, of in block.figures.items()]
        for name, within, count, of in [*overall, *block.within_formats]:
            for score, f in of.items():
                numbers = [f"{x:.6g}" for x in (f.value, f.low, f.high, f.sd)]
                own = block.fold_auc.get(name) if (score, within) == ("AUC", "") else None
                mean = "" if own is None else f"{own:.6g}"
                figures.append([block.title, name, within, str(count), score, *numbers, mean])
        for d in block.differences:
            for score, (f, p) in d.figures.items():
                numbers = [f"{x:.6g}" for x in (f.value, f.low, f.high, p, d.mcnemar)]
                differences.append([block.title, d.one, d.other, score, *numbers])
        for row in block.subjects:
            subjects += [[block.title, row["subject"], k, v] for k, v in row.items() if k != "subject"]
    tables = {"summary.csv": figures, "differences.csv": differences, "subjects.csv": subjects}
    for name, rows in tables.items():
        write_text(folder / name, csv_text(rows))
    write_text(folder / "summary.md", text(blocks))
    return [folder / name for name in (*tables, "summary.md")]
