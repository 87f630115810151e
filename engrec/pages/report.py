"""The page of results: comparisons as tables and figures, in one HTML file."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from engrec.evidence.comparison import Comparison
from engrec.evidence.verdicts import judge
from engrec.machine.files import write_text
from engrec.metrics import METRICS
from engrec.pages import page, tables
from engrec.pages.faces import SIDE, mistakes, prepared_faces
from engrec.pages.figures import intervals, learning, of_test
from engrec.pages.panels import PALE, WARNING, Chart, Look, assign_looks, text
from engrec.runs.record import Run
from engrec.words import counted, printable

MOST_PICTURES, PICTURES_EACH = 144, 24  # on the page, of a model
STYLE = f"""<style>
h3 {{ font-size: 1.02rem; margin: 2rem 0 .4rem; }} h4 {{ font-size: .95rem; margin: 1.1rem 0 .4rem; }}
.verdicts {{ list-style: none; padding: 0; margin: .8rem 0; }}
.verdicts li {{ border-left: .3rem solid {PALE}; padding: .3rem .8rem; margin: .35rem 0; max-width: 66rem; }}
.verdicts li.fails {{ border-color: {WARNING}; background: #fdf1ea; font-weight: 600; }}
body {{ max-width: 1320px; }} td, th {{ font-size: .87rem; padding: .25rem .4rem; white-space: pre; }}
td:first-child {{ white-space: pre-wrap; overflow-wrap: anywhere; min-width: 11rem; max-width: 20rem; }}
.modebar {{ opacity: 0; }} .js-plotly-plot:hover .modebar {{ opacity: 1; }}
.faces figure {{ width: {SIDE}px; overflow-wrap: anywhere; }}
</style>"""


def write(blocks: Sequence[Comparison], folder: Path) -> list[Path]:
    """The tables, and the page summary.html."""
    write_text(folder / "summary.html", html(blocks))
    return [*tables.write_tables(blocks, folder), folder / "summary.html"]


def html(blocks: Sequence[Comparison], title: str = "Results") -> str:
    """The complete page: a section for each set of test images, then the runs."""
    runs = list({run.folder: run for block in blocks for group in block.groups for run in group.runs}.values())
    looks = assign_looks(label for block in blocks for label in block.labels)
    looks |= {vote: looks[label].hollow() for block in blocks for vote, label in block.votes.items()}
    each = min(PICTURES_EACH, max(4, MOST_PICTURES // max(1, sum(len(block.groups) for block in blocks))))
    parts = [(block.title, _section(block, looks, each, f"{i}-")) for i, block in enumerate(blocks, 1)]
    if len(blocks) > 1:
        parts = [(f"{i}. {heading}", body) for i, (heading, body) in enumerate(parts, 1)]
    return page.page(title, [*parts, ("Runs", tables.html(run_rows(runs)))], STYLE + _lead(blocks, runs))


def _lead(blocks: Sequence[Comparison], runs: Sequence[Run]) -> str:
    groups = sum(len(block.groups) for block in blocks)
    days = sorted({found[0] for run in runs if (found := re.match(r"\d{4}-\d\d-\d\d", str(run.settings.get("run"))))})
    when = f", started {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    what = " in ".join((counted(len(runs), "run"), counted(groups, "group")))
    return page.note(
        f"{what} over {counted(len(blocks), 'set')} of test images{when}. Runs that differ only in fold and seed are "
        "one group: folds are pooled, seeds averaged. "
        f"Page written {datetime.now():%Y-%m-%d, %H:%M}."
    )


def _section(block: Comparison, looks: Mapping[str, Look], pictures_each: int, anchor: str) -> str:
    """The verdicts, then each part that has something to show, under its heading."""
    parts = {
        "Scores": scores(block, looks),
        "Paired differences": differences(block, looks),
        **{heading: embedded(chart) for heading, chart in of_test(block, looks).items()},
        "Learning curves": embedded(learning(block, looks)),
        "Within each file format": formats(block),
        "Most confident mistakes": pictures(block, pictures_each),
    }
    return verdicts(block) + page.contents([part for part in parts.items() if part[1]], "h3", anchor)


def embedded(chart: Chart | None) -> str:
    """A figure with its remark; where there is no figure, the remark says why."""
    if chart is None:
        return ""
    return (page.figure(chart.figure, chart.width) if chart.figure else "") + page.note(chart.note)


def verdicts(block: Comparison) -> str:
    lines = "".join(f'<li class="{verdict.kind}">{text(verdict.text)}</li>' for verdict in judge(block))
    bare = not any(group.controls for group in block.groups)
    doubt = "These runs have no controls, so nothing here shows what can be reached without looking at the face."
    return f'<ul class="verdicts">{lines}</ul>' + (page.note(doubt) if bare else "")


def scores(block: Comparison, looks: Mapping[str, Look]) -> str:
    """The chart to look at first, and its numbers."""
    rows = [(name, looks.get(name, Look()), figures) for name, figures in block.figures.items()]
    chance = {"balanced accuracy": 1 / len(block.groups[0].class_names), "AUC": 0.5, METRICS["auc_within"].label: 0.5}
    hollow = "Hollow: the vote of its seeds. " if block.votes else ""
    dotted = "Dotted: chance. " + hollow + ("Grey: the controls. " if block.controls else "")
    table = tables.html(tables.figure_rows(block))
    return page.figure(intervals(rows, chance)) + page.note(dotted + tables.legend(block)) + table


def differences(block: Comparison, looks: Mapping[str, Look]) -> str:
    rows = [
        (f"{d.one} −\n{d.other}", looks[d.one], {score: figure for score, (figure, _) in d.figures.items()})
        for d in block.differences[: tables.MOST_DIFFERENCES]
    ]
    if not rows:
        return ""
    forest = page.figure(intervals(rows, dict.fromkeys(block.scores, 0.0)))
    note = "If an interval includes 0, either of the two may be the better one. "
    return forest + page.note(note + tables.difference_legend(block)) + tables.html(tables.difference_rows(block))


def formats(block: Comparison) -> str:
    if not block.within_formats:
        return ""
    note = "A model that knows only codec and colour mode has the balanced accuracy and AUC of chance within each."
    return page.note(note) + tables.html(tables.format_rows(block))


def pictures(block: Comparison, most: int) -> str:
    """Pictures of each model's most confident mistakes, if the data set is where it was."""
    if block.groups[0].unit == "clips":
        return ""
    parts: list[str] = []
    reasons: dict[str, list[str]] = {}
    for label, group in block.models.items():
        try:
            wrong, shown = mistakes(group, prepared_faces(group.runs[0]), most)
        except ValueError as error:
            reasons.setdefault(str(error), []).append(label)
        else:
            parts.append(f"<h4>{text(label)}: {wrong:,} of {len(group.labels):,} wrong</h4>{page.faces(shown)}")
    if parts:
        warning = "Pictures of people: share this page only with those who may see the data set."
        parts.insert(0, page.note(f"{warning} First seed, the most confident first: labelled → predicted."))
    return "".join((*parts, *(page.note(f"No pictures of {', '.join(of)}: {why}") for why, of in reasons.items())))


def run_rows(runs: Sequence[Run]) -> list[list[str]]:
    rows = [["folder", "seed", "fold", "epochs", "seconds", "hardware", "commit", "command"]]
    for run in runs:
        hardware = run.result.get("hardware") or {}
        device = ", ".join(
            hardware.get("gpus") or [f"{hardware.get('cpu', '')}, threads: {hardware.get('threads', '')}"]
        )
        cells = [run.seed, run.settings.get("split.fold"), *(run.result.get(k) for k in ("epochs", "seconds"))]
        cells += [device if hardware else "", *(run.result.get(k) for k in ("git_commit", "command"))]
        rows.append([printable(str(run.folder)), *("" if cell is None else str(cell) for cell in cells)])
    return rows
