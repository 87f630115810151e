"""Every plotly figure, each drawn in one place."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from sklearn.metrics import average_precision_score, precision_recall_curve

from engrec.evidence.comparison import Comparison, Figure
from engrec.metrics import NUM_BINS, compared, confidence_bins, confusion_matrix, display_name, log_odds_of
from engrec.metrics import roc as exact_roc
from engrec.pages import page
from engrec.runs.reading import read_history
from engrec.runs.record import Run

# Okabe and Ito, Color Universal Design (2008), without the yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES, SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "diamond", "square", "triangle-up")
GREY, PALE, WARNING = "#7a828a", "#d0d7de", COLOURS[1]
SHADES = ("#f5f9fd", "#63abdb")  # light enough for dark numbers
GRID = np.linspace(0, 1, 201)  # where curves are drawn
MOST_NAMES = 40  # below an axis
text = partial(escape, quote=False)  # plotly knows no &quot;


@dataclass(frozen=True)
class Look:
    """How a predictor is drawn wherever it is on the page."""

    colour: str = GREY
    dash: str = "solid"
    symbol: str = "circle"

    def line(self, width: float = 2) -> dict[str, Any]:
        return {"color": self.colour, "dash": self.dash, "width": width}

    def marker(self, size: float = 7) -> dict[str, Any]:
        return {"color": self.colour, "symbol": self.symbol, "size": size}


def assign_looks(labels: Iterable[str]) -> dict[str, Look]:
    """Colours in turn; those that come round again are dashed and have another mark."""
    looks = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        again, colour = divmod(i, len(COLOURS))
        looks[label] = Look(COLOURS[colour], DASHES[again % len(DASHES)], SYMBOLS[again % len(SYMBOLS)])
    return looks


def intervals(rows: Sequence[tuple[str, Look, Mapping[str, Figure]]], reference: Mapping[str, float]) -> str:
    """A panel for each score, with the value and the 95 % interval of each row: name, look, figures. Those of which
    less is better stand apart.

    reference: score to the value of its dotted line.
    """
    high, low = ([name for name, m in compared().items() if m.higher_is_better == better] for better in (True, False))
    fig = make_subplots(
        cols=len(high) + 1 + len(low),
        specs=[[*({} for _ in high), None, *({} for _ in low)]],
        column_widths=[*(1 for _ in high), 0.06, *(1 for _ in low)],
        subplot_titles=[*high, *(f"{score} (low is good)" for score in low)],
        shared_yaxes=True,
        horizontal_spacing=0.018,
    )
    for column, score in enumerate((*high, None, *low), 1):
        if score is None:  # the gap
            continue
        place: Any = {"row": 1, "col": column}
        for y, (name, look, figures) in enumerate(rows):
            f, hover = figures[score], f"{text(name)}<br>{score} {figures[score]}"
            whisker = {"x": _short([100 * f.low, 100 * f.high]), "y": [y, y], "mode": "lines", "hoverinfo": "skip"}
            fig.add_scatter(**whisker, line={"color": look.colour, "width": 2}, **place)
            dot = {"x": _short([100 * f.value]), "y": [y], "mode": "markers", "marker": look.marker(9)}
            fig.add_scatter(**dot, hovertext=hover, hoverinfo="text", **place)
        at = [100 * reference[score]] if score in reference else []
        ends = at + [100 * end for *_, of in rows for end in (of[score].value, of[score].low, of[score].high)]
        ends = [end for end in ends if np.isfinite(end)] or [0, 100]
        pad = max(0.08 * (max(ends) - min(ends)), 0.5)
        fig.update_xaxes(range=_short([min(ends) - pad, max(ends) + pad]), **place)
        _dotted(fig, at * 2, [-0.6, len(rows) - 0.4], **place)
    names = [_wrapped(name, 34) for name, *_ in rows]
    fig.update_yaxes(range=[len(rows) - 0.4, -0.6], tickvals=list(range(len(rows))), ticktext=names, automargin=True)
    return _drawn(fig, 100 + sum(14 + 18 * (1 + name.count("<br>")) for name in names), legend=False)


def curves(block: Comparison, looks: Mapping[str, Look]) -> str:
    """ROC and precision-recall of the first seed; of more than two classes the mean of each against the rest."""
    labels, num_classes = block.groups[0].labels, len(block.groups[0].class_names)
    classes = [1] if num_classes == 2 else list(range(num_classes))
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        return page.note("Undefined: a class has no test image.")
    fig = make_subplots(cols=2, horizontal_spacing=0.09)
    for name, group in zip(block.labels, block.groups, strict=True):
        ranked = log_odds_of(group.probabilities[0])
        sides = [(labels == k, ranked[:, k]) for k in classes]
        average = np.mean([average_precision_score(*side) for side in sides])
        area = f"AUC {100 * block.points[name]['AUC'][0]:.1f}, average precision {100 * average:.1f}"
        true, precision = (np.mean([curve(*side) for side in sides], axis=0) for curve in (roc, precision_recall))
        # From its corner a ROC curve may rise at once.
        for column, (x, y) in enumerate((((0, *GRID), (0, *true)), (GRID, precision)), 1):
            style = {"mode": "lines", "line": looks[name].line(), "legendgroup": name, "showlegend": column == 1}
            fig.add_scatter(x=_short(x), y=_short(y), name=f"{text(name)}: {area}", **style, row=1, col=column)
    prevalence = float(np.mean(counts[classes] / len(labels)))
    axes = (("false positive rate", "true positive rate", [0, 1]), ("recall", "precision", [prevalence] * 2))
    for column, (x, y, reference) in enumerate(axes, 1):
        _dotted(fig, [0, 1], reference, 1, column)
        fig.update_xaxes(title=x, range=[-0.01, 1.01], row=1, col=column)
        fig.update_yaxes(title=y, range=[-0.01, 1.02], row=1, col=column)
    positive = f"the positive class is {block.groups[0].class_names[1]}"
    of = positive if num_classes == 2 else "the mean over classes, each against the rest"
    given = f"Dotted: chance, and the prevalence of {100 * prevalence:.1f}\u00a0%."
    note = page.note(f"Pooled predictions of the first seed; {of}. {given}")
    return _drawn(fig, 470 + 28 * len(block.groups)) + note


def roc(positive: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """The true positive rate at each false positive rate of GRID."""
    return np.interp(GRID, *exact_roc(ranked, positive).T)


def precision_recall(positive: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """The precision at the highest threshold that reaches each recall of GRID: steps, as in average precision."""
    precision, recall, _ = precision_recall_curve(positive, ranked)
    # Above 0: the point of precision 1 at recall 0 belongs to no threshold.
    return precision[::-1][np.searchsorted(recall[::-1], np.maximum(GRID - 1e-9, 1e-9))]


def confusions(block: Comparison) -> str:
    group = block.groups[0]
    names, size = [_wrapped(name, 14) for name in group.class_names], len(group.class_names)
    fig, places = _panels(block.labels, 4 if size <= 4 else 2)
    for (row, column), one in zip(places, block.groups, strict=True):
        counts = confusion_matrix(*map(torch.from_numpy, (one.probabilities[0], group.labels))).int().numpy()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        cells = [[f"{s:.0%}<br>{c:,}" for s, c in zip(*rows, strict=True)] for rows in zip(shares, counts, strict=True)]
        heat = go.Heatmap(z=[_short(line, 3) for line in shares], text=cells, zmin=0, zmax=1, xgap=1, ygap=1)
        heat.update(colorscale=SHADES, showscale=False, textfont={"size": 12 if size <= 4 else 11, "color": "#1b1f24"})
        heat.update(texttemplate="%{text}" if size <= 10 else "", x0=0, dx=1, y0=0, dy=1)
        heat.update(hovertemplate="labelled %{y}, predicted %{x}<br>%{text}<extra></extra>")
        fig.add_trace(heat, row=row, col=column)
    axis = {"tickvals": list(range(size)), "ticktext": names, "showgrid": False}
    fig.update_xaxes(**axis).update_yaxes(**axis, range=[size - 0.5, -0.5], automargin=True)
    _titled(fig, places, "predicted", "labelled")
    note = "Share of each labelled class, and images; pooled predictions of the first seed."
    return _drawn(fig, (300 if size <= 4 else 460) * places[-1][0], legend=False) + page.note(note)


def reliability(block: Comparison, looks: Mapping[str, Look]) -> str:
    """How often a model is right when it says so, over bins of its confidence; before and after the temperature."""
    fig, places = _panels(block.labels, 4)
    labels = block.groups[0].labels
    for (row, column), name, group in zip(places, block.labels, block.groups, strict=True):
        place = {"row": row, "col": column}
        confidence, right, counts = bins(group.probabilities[0], labels)
        wide = {"x": _short((np.arange(NUM_BINS) + 0.5) / NUM_BINS), "width": 0.9 / NUM_BINS}
        fig.add_bar(**wide, y=_short(counts / counts.sum()), marker={"color": PALE}, hoverinfo="skip", **place)
        _dotted(fig, [0, 1], [0, 1], **place)
        kinds = [("as trained", Look(looks[name].colour), (confidence, right, counts))]
        if group.calibrated is not None:
            open_marks = Look(looks[name].colour, "dot", "circle-open")
            kinds.append(("after temperature", open_marks, bins(group.calibrated[0], labels)))
        for kind, look, (x, y, number) in kinds:
            hover = f"{kind}<br>confidence %{{x:.2f}}, right %{{y:.2f}}<br>%{{customdata:,}} images<extra></extra>"
            points = {"x": _short(x[number > 0]), "y": _short(y[number > 0]), "customdata": number[number > 0].tolist()}
            sizes = {"size": _short(4 + 10 * np.sqrt(number[number > 0] / len(labels)), 1), "opacity": 1}
            style = {"mode": "lines+markers", "line": look.line(1.5), "marker": look.marker() | sizes}
            fig.add_scatter(**points, **style, hovertemplate=hover, **place)
    fig.update_xaxes(range=[0, 1.02]).update_yaxes(range=[0, 1.03])
    _titled(fig, places, "confidence", "share right")
    after = " Open marks: after the temperature fitted on validation images." if block.calibrated else ""
    bars = "on the dotted line, confidence is what it claims. Bars: share of the images in each bin."
    note = page.note(f"{NUM_BINS} bins of the top probability, first seed; {bars}{after}")
    return _drawn(fig, 300 * places[-1][0], legend=False) + note


def bins(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share right and images (NUM_BINS,) in each bin of the top probability; NaN where it is empty."""
    number, confidence, right = confidence_bins(probabilities, labels)
    counts = np.bincount(number, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        return np.bincount(number, confidence, NUM_BINS) / counts, np.bincount(number, right, NUM_BINS) / counts, counts


def subjects(block: Comparison, looks: Mapping[str, Look]) -> str:
    """Who is recognised and who is not: a dot for each person and model, the largest for those with most images."""
    first = block.groups[0]
    if not first.by_subject:
        return ""
    names, counts, right = by_person(block)
    panels = [("accuracy", slice(None))]
    if len(first.class_names) == 2:
        panels += [(f"recall of {name}", slice(k, k + 1)) for k, name in enumerate(first.class_names)]
    order = np.argsort(right[block.labels[0]].sum(1) / counts.sum(1), kind="stable")
    fig = make_subplots(rows=len(panels), shared_xaxes=True, vertical_spacing=0.05)
    largest = 2 * float(counts.sum(1).max()) / 24**2
    for row, (title, of) in enumerate(panels, 1):
        places = np.flatnonzero(counts[order][:, of].sum(1))
        people = order[places]
        for i, label in enumerate(block.labels):
            told = [
                f"{text(label)}<br>{text(names[k])}: {_told(first.class_names, right[label][k], counts[k])}"
                for k in people
            ]
            images = counts[people, of].sum(1)
            area = {"size": images.tolist(), "sizemode": "area", "sizeref": largest, "sizemin": 3, "opacity": 0.8}
            style = {"mode": "markers", "name": text(label), "legendgroup": label, "showlegend": row == 1}
            x = _short(places + 0.5 * ((i + 0.5) / len(block.labels) - 0.5))
            y = _short(100 * right[label][people, of].sum(1) / images)
            dots = {"x": x, "y": y, "marker": looks[label].marker() | area, "hovertext": told, "hoverinfo": "text"}
            fig.add_scatter(**dots, **style, row=row, col=1)
        fig.update_yaxes(title=text(title), range=[-6, 106], row=row, col=1)
    ticks = [text(names[k]) for k in order] if len(names) <= MOST_NAMES else []
    fig.update_xaxes(tickvals=list(range(len(ticks))), ticktext=ticks, tickangle=-40, automargin=True)
    fig.update_xaxes(range=[-0.7, len(names) - 0.3])
    more = " Below, of each class by itself." if len(panels) > 1 else ""
    ordered = f"people in the order of {block.labels[0]}, marks by their number of images."
    note = page.note(f"In per cent, mean over seeds; {ordered}{more}")
    return _drawn(fig, 120 + 200 * len(panels) + 20 * len(block.groups)) + note


def by_person(block: Comparison) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """P people, their images of each class (P, K), and for each group how many of those are right, mean over seeds."""
    first = block.groups[0]
    names, who = np.unique(first.subjects, return_inverse=True)
    counts = np.zeros((len(names), len(first.class_names)), dtype=int)
    np.add.at(counts, (who, first.labels), 1)
    right = {label: np.zeros(counts.shape) for label in block.labels}
    for label, group in zip(block.labels, block.groups, strict=True):
        np.add.at(right[label], (who, first.labels), (group.probabilities.argmax(2) == first.labels).mean(0))
    return names.tolist(), counts, right


def _told(class_names: Sequence[str], right: np.ndarray, images: np.ndarray) -> str:
    """How many of each class are right, mean over seeds: 12.5 of 20 engaged."""
    said = [f"{r:.4g} of {n:,} {text(name)}" for name, r, n in zip(class_names, right, images, strict=True) if n]
    return ", ".join(said) + " right"


def learning(block: Comparison, looks: Mapping[str, Look]) -> str:
    """Validation over the epochs, a line for each run; the mark is the epoch that was kept."""
    runs: dict[Path, tuple[str, Run]] = {}
    for label, group in zip(block.labels, block.groups, strict=True):
        for run in group.runs:
            runs.setdefault(run.folder, (label, run))
    read = [(label, run, read_history(run.folder / "metrics.csv")) for label, run in runs.values()]
    read = [(label, run, history) for label, run, history in read if history.get("epoch")]
    monitors = dict.fromkeys(str(run.settings.get("monitor", "val/loss")) for _, run, _ in read)
    panels = list(dict.fromkeys(["val/loss", *monitors]))
    if not read:
        return ""
    fig = make_subplots(cols=len(panels), horizontal_spacing=0.09)
    seen: set[str] = set()
    for label, run, history in read:
        numbers, kept = [epoch + 1 for epoch in history["epoch"]], (run.result.get("validation") or {}).get("epoch")
        hover = f"{text(str(run.folder))}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>"
        for column, name in enumerate(panels, 1):
            if name not in history:
                continue
            style = {"legendgroup": label, "name": text(label), "opacity": 0.75, "row": 1, "col": column}
            points = {"x": _short(_thin(numbers)), "y": _short(_thin(history[name]))}
            line = {"mode": "lines", "line": looks[label].line(1.3), "hovertemplate": hover}
            fig.add_scatter(**points, **line, **style, showlegend=label not in seen)
            seen.add(label)
            if kept in history["epoch"]:
                point = {"x": [kept + 1], "y": _short([history[name][history["epoch"].index(kept)]])}
                mark = {"mode": "markers", "marker": looks[label].marker(), "hoverinfo": "skip", "showlegend": False}
                fig.add_scatter(**point, **mark, **style)
    for column, name in enumerate(panels, 1):
        fig.update_yaxes(title=text(display_name(name)), row=1, col=column)
    last = max(history["epoch"][-1] for *_, history in read)
    fig.update_xaxes(title="epoch", tick0=0, dtick=max(1, 5 * round(last / 40)), range=[0.8, last + 1.4])
    note = "A line for each run; its mark is the epoch that was kept."
    return _drawn(fig, 370 + 24 * len(block.groups)) + page.note(note)


def _thin(values: Sequence[float]) -> list[float]:
    """At most MOST_POINTS of them, evenly, the first and the last included."""
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int))
    return [values[i] for i in keep]


MOST_POINTS = 400  # of a learning curve


def _panels(titles: Sequence[str], most: int) -> tuple[go.Figure, list[tuple[int, int]]]:
    """A panel for each title, at most so many in a row, and where it is: row and column from 1."""
    columns = min(most, max(3, len(titles)))
    rows = -(-len(titles) // columns)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_wrapped(title, 34) for title in titles],
        horizontal_spacing=0.28 / columns,
        vertical_spacing=0.3 / rows,
    )
    return fig, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def _titled(fig: go.Figure, places: Sequence[tuple[int, int]], x: str, y: str) -> None:
    """Axis titles once: below the last panel of each column, left of the first of each row."""
    for column, row in {column: row for row, column in places}.items():
        fig.update_xaxes(title=x, row=row, col=column)
    for row in {row for row, _ in places}:
        fig.update_yaxes(title=y, row=row, col=1)


def _dotted(fig: go.Figure, x: Sequence[float], y: Sequence[float], row: int, col: int) -> None:
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    fig.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, row=row, col=col)


def _drawn(fig: go.Figure, height: int, legend: bool = True) -> str:
    fonts = {"family": 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', "size": 13, "color": "#1b1f24"}
    fig.update_layout(template="none", height=height, font=fonts, margin={"l": 60, "r": 10, "t": 50, "b": 50})
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    fig.update_layout(showlegend=legend, legend=above, hoverlabel={"align": "left"})
    small = {"zeroline": False, "title_font_size": 13, "title_standoff": 8}
    fig.update_xaxes(**small).update_yaxes(**small).update_annotations(font_size=13)
    return page.figure(fig)


def _wrapped(name: str, width: int) -> str:
    return "<br>".join(text(part) for line in name.splitlines() for part in textwrap.wrap(line, width))


def _short(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Rounded, for JSON; None for what is not finite."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in values]
