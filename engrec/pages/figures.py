"""Every figure of results, each drawn in one place: for the report, and as JSON for the dashboard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve

from engrec.evidence.comparison import Comparison, Figure
from engrec.metrics import NUM_BINS, compared, confidence_bins, confusion_matrix, log_odds_of
from engrec.metrics import roc as exact_roc
from engrec.pages.learning import learning_curve, metric_title
from engrec.pages.panels import INK, PALE, SHADES, Chart, Look, Panels, grid, look, short, text, wrap
from engrec.runs.reading import read_history
from engrec.runs.record import Run
from engrec.words import printable

GRID = np.linspace(0, 1, 201)  # where curves are drawn
MOST_NAMES = 40  # below an axis


def of_test(block: Comparison, looks: Mapping[str, Look]) -> dict[str, Chart]:
    """What is drawn of the test images alone, under its heading."""
    charts = {
        "ROC and precision–recall": curves(block, looks),
        "Confusion": confusions(block),
        "Calibration": reliability(block, looks),
        "Person by person": subjects(block, looks),
    }
    return {heading: chart for heading, chart in charts.items() if chart is not None}


def intervals(rows: Sequence[tuple[str, Look, Mapping[str, Figure]]], reference: Mapping[str, float]) -> dict[str, Any]:
    """A panel for each score, with the value and the 95 % interval of each row: name, look, figures. Those of which
    less is better stand apart.

    reference: score to the value of its dotted line.
    """
    every = {score for *_, figures in rows for score in figures}
    scores = {score: metric for score, metric in compared(True, of_people=True).items() if score in every}
    high = [metric.higher_is_better for metric in scores.values()]
    titles = [score if up else f"{score} (lower is better)" for score, up in zip(scores, high, strict=True)]
    titles = [wrap(title, 18) for title in titles] if len(titles) > 5 else titles
    places = [(0, i if up else i + 1) for i, up in enumerate(high)]  # a gap before those of which less is better
    panels = Panels(places, [1] * sum(high) + [0.06] + [1] * (len(high) - sum(high)), (0.018, 0), titles)
    for panel, score in enumerate(scores):
        for y, (name, style, figures) in enumerate(rows):
            if score not in figures:  # of groups on other images
                continue
            f, hover = figures[score], f"{text(name)}<br>{score} {figures[score]}"
            ends, line = short([100 * f.low, 100 * f.high]), {"color": style.colour, "width": 2}
            panels.add(panel, x=ends, y=[y, y], mode="lines", hoverinfo="skip", line=line)
            dot = {"x": short([100 * f.value]), "y": [y], "mode": "markers", "marker": style.marker(9)}
            panels.add(panel, **dot, hovertext=hover, hoverinfo="text")
        at = [100 * reference[score]] if score in reference else []
        found = [of[score] for *_, of in rows if score in of]
        ends = at + [100 * end for f in found for end in (f.value, f.low, f.high)]
        ends = [end for end in ends if np.isfinite(end)] or [0, 100]
        pad = max(0.08 * (max(ends) - min(ends)), 0.5)
        panels.x(panel, range=short([min(ends) - pad, max(ends) + pad]))
        panels.y(panel, **({"matches": "y", "showticklabels": False} if panel else {}))
        panels.dotted(panel, at * 2, [-0.6, len(rows) - 0.4])
    names = [wrap(name, 34) for name, *_ in rows]
    panels.y(0, range=[len(rows) - 0.4, -0.6], tickvals=list(range(len(rows))), ticktext=names)
    return panels.figure(100 + sum(14 + 18 * (1 + name.count("<br>")) for name in names), legend=False)


def curves(block: Comparison, looks: Mapping[str, Look]) -> Chart:
    """ROC and precision-recall of the first seed. Of more than two classes each against the rest: for one group a curve
    for each class, for several the mean over classes."""
    group, count = block.groups[0], len(block.groups[0].class_names)
    counts, alone = np.bincount(group.labels, minlength=count), len(block.groups) == 1
    classes = [k for k in ([1] if count == 2 else range(count)) if 0 < counts[k] < len(group.labels)]
    if not classes or not (alone or counts.all()):
        return Chart(None, "Undefined: a class has no test image.")
    panels = Panels([(0, 0), (0, 1)], [1, 1])
    for name, style, area, truths in _ranked(block, looks, classes):
        true, precision = (np.mean([curve(*truth) for truth in truths], axis=0) for curve in (roc, precision_recall))
        average = np.mean([average_precision_score(*truth) for truth in truths])
        shown = f"{text(name)}: AUC {100 * area:.1f}, average precision {100 * average:.1f}"
        line = {"mode": "lines", "line": style.line(), "legendgroup": text(name), "name": shown}
        # From its corner a ROC curve may rise at once.
        panels.add(0, x=short((0, *GRID), 3), y=short((0, *true)), **line, showlegend=True)
        panels.add(1, x0=0, dx=GRID[1], y=short(precision), **line, showlegend=False)
    prevalence = float(np.mean(counts[classes] / len(group.labels)))
    axes = (("false positive rate", "true positive rate", [0, 1]), ("recall", "precision", [prevalence] * 2))
    for panel, (x, y, reference) in enumerate(axes):
        panels.dotted(panel, [0, 1], reference)
        panels.x(panel, title=x, range=[-0.01, 1.01])
        panels.y(panel, title=y, range=[-0.01, 1.02])
    several = "Each class against the rest." if alone else "Mean over classes, each against the rest."
    kind = f"Positive class: {group.class_names[1]}." if count == 2 else several
    chance = f" Dotted: chance, and the prevalence of {100 * prevalence:.1f}\u00a0%."
    lacking = ", ".join(name for name, number in zip(group.class_names, counts, strict=True) if not number)
    note = kind + chance + (f" No curve for {lacking}: no test image." if lacking else "") + _which(block)
    rows = -(-len(classes) // 3) if alone and count > 2 else len(block.groups)
    return Chart(panels.figure(470 + 28 * rows), note)


def _ranked(
    block: Comparison, looks: Mapping[str, Look], classes: Sequence[int]
) -> list[tuple[str, Look, float, list[tuple[np.ndarray, np.ndarray]]]]:
    """Name, look, AUC, and for each class who is of it, and how they are ranked, of each curve."""
    found = []
    for name, group in block.models.items():
        ranked = log_odds_of(group.probabilities[0])
        truths = [(group.labels == k, ranked[:, k]) for k in classes]
        if len(block.groups) == 1 and len(group.class_names) > 2:
            for i, (k, truth) in enumerate(zip(classes, truths, strict=True)):
                false, true = exact_roc(truth[1], truth[0]).T
                found.append((group.class_names[k], look(i), float(np.trapezoid(true, false)), [truth]))
        else:
            found.append((name, looks[name], float(block.points[name]["AUC"][0]), truths))
    return found


def _which(block: Comparison) -> str:
    """A sentence on which predictions are drawn, where there are several."""
    return " Pooled predictions of the first seed." if any(len(group.runs) > 1 for group in block.groups) else ""


def roc(positive: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """The true positive rate at each false positive rate of GRID."""
    return np.interp(GRID, *exact_roc(ranked, positive).T)


def precision_recall(positive: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """The precision at the highest threshold that reaches each recall of GRID: steps, as in average precision."""
    precision, recall, _ = precision_recall_curve(positive, ranked)
    # Above 0: the point of precision 1 at recall 0 belongs to no threshold.
    return precision[::-1][np.searchsorted(recall[::-1], np.maximum(GRID - 1e-9, 1e-9))]


def confusions(block: Comparison) -> Chart:
    group = block.groups[0]
    names, size = [wrap(name, 14) for name in group.class_names], len(group.class_names)
    panels = grid(block.labels, 4 if size <= 4 else 2)
    for panel, one in enumerate(block.groups):
        counts = confusion_matrix(*map(torch.from_numpy, (one.probabilities[0], group.labels))).int().numpy()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        cells = [[f"{s:.0%}<br>{c:,}" for s, c in zip(*rows, strict=True)] for rows in zip(shares, counts, strict=True)]
        style = {"colorscale": [[i, shade] for i, shade in enumerate(SHADES)], "showscale": False, "xgap": 1, "ygap": 1}
        style |= {"textfont": {"size": 12 if size <= 4 else 11, "color": INK}, "zmin": 0, "zmax": 1}
        style |= {"texttemplate": "%{text}" if size <= 10 else "", "x0": 0, "dx": 1, "y0": 0, "dy": 1}
        style |= {"hovertemplate": "labelled %{y}, predicted %{x}<br>%{text}<extra></extra>"}
        panels.add(panel, type="heatmap", z=[short(line, 3) for line in shares], text=cells, **style)
        axis = {"tickvals": list(range(size)), "ticktext": names, "showgrid": False}
        panels.x(panel, **axis)
        panels.y(panel, **axis, range=[size - 0.5, -0.5])
    panels.label_outside("predicted", "labelled")
    note = f"Share of each labelled class, and number of images.{_which(block)}"
    rows = 1 + panels.places[-1][0]
    return Chart(panels.figure((300 if size <= 4 else 460) * rows, legend=False), note, 560)


def reliability(block: Comparison, looks: Mapping[str, Look]) -> Chart:
    """How often a model is right when it says so, over bins of its confidence; before and after the temperature."""
    panels, labels = grid(block.labels, 4), block.groups[0].labels
    for panel, (name, group) in enumerate(block.models.items()):
        confidence, right, counts = bins(group.probabilities[0], labels)
        bars = {"x": short((np.arange(NUM_BINS) + 0.5) / NUM_BINS), "width": 0.9 / NUM_BINS}
        panels.add(panel, type="bar", **bars, y=short(counts / counts.sum()), marker={"color": PALE}, hoverinfo="skip")
        panels.dotted(panel, [0, 1], [0, 1])
        kinds = [("as trained", Look(looks[name].colour), (confidence, right, counts))]
        if group.calibrated is not None:
            open_marks = Look(looks[name].colour, "dot", "circle-open")
            kinds.append(("after temperature", open_marks, bins(group.calibrated[0], labels)))
        for kind, style, (x, y, number) in kinds:
            hover = f"{kind}<br>confidence %{{x:.2f}}, right %{{y:.2f}}<br>%{{customdata:,}} images<extra></extra>"
            points = {"x": short(x[number > 0]), "y": short(y[number > 0]), "customdata": number[number > 0].tolist()}
            sizes = {"size": short(4 + 10 * np.sqrt(number[number > 0] / len(labels)), 1), "opacity": 1}
            lines = {"mode": "lines+markers", "line": style.line(1.5), "marker": style.marker() | sizes}
            panels.add(panel, **points, **lines, hovertemplate=hover)
        panels.x(panel, range=[0, 1.02])
        panels.y(panel, range=[0, 1.03])
    panels.label_outside("confidence", "share right")
    after = " Open marks: after the temperature that was fitted on validation images." if block.calibrated else ""
    meaning = "On the dotted line, a model is right as often as it is confident. Bars: share of the images in each bin."
    note = f"{NUM_BINS} bins of the top probability. {meaning}{after}{_which(block)}"
    return Chart(panels.figure(300 * (1 + panels.places[-1][0]), legend=False), note, 560)


def bins(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share right and images (NUM_BINS,) in each bin of the top probability; NaN where it is empty."""
    number, confidence, right = confidence_bins(probabilities, labels)
    counts = np.bincount(number, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        return np.bincount(number, confidence, NUM_BINS) / counts, np.bincount(number, right, NUM_BINS) / counts, counts


def subjects(block: Comparison, looks: Mapping[str, Look]) -> Chart | None:
    """Who is recognised and who is not: a dot for each person and model, the largest for those with most images. None
    where the data set does not say who is seen."""
    first = block.groups[0]
    if not first.by_subject:
        return None
    names, counts, right = block.people
    shown = [("accuracy", slice(None))]
    if len(first.class_names) == 2:
        shown += [(f"recall of {name}", slice(k, k + 1)) for k, name in enumerate(first.class_names)]
    order = np.argsort(right[block.labels[0]].sum(1) / counts.sum(1), kind="stable")
    panels = Panels([(row, 0) for row in range(len(shown))], [1], (0, 0.05))
    largest = 2 * float(counts.sum(1).max()) / 24**2
    for panel, (title, of) in enumerate(shown):
        places = np.flatnonzero(counts[order][:, of].sum(1))
        people = order[places]
        for i, label in enumerate(block.labels):
            recalls = [_shares(first.class_names, right[label][k], counts[k]) for k in people]
            hover = [f"{text(label)}<br>{text(names[k])}: {said}" for k, said in zip(people, recalls, strict=True)]
            images = counts[people, of].sum(1)
            area = {"size": images.tolist(), "sizemode": "area", "sizeref": largest, "sizemin": 3, "opacity": 0.8}
            x = short(places + 0.5 * ((i + 0.5) / len(block.labels) - 0.5))
            y = short(100 * right[label][people, of].sum(1) / images)
            dots = {"x": x, "y": y, "mode": "markers", "marker": looks[label].marker() | area, "cliponaxis": False}
            about = {"name": text(label), "legendgroup": label, "showlegend": panel == 0}
            panels.add(panel, **dots, **about, hovertext=hover, hoverinfo="text")
        panels.y(panel, title=text(title), range=[-6, 106])
        last = panel == len(shown) - 1
        panels.x(panel, range=[-0.7, len(names) - 0.3], showticklabels=last, **({"matches": "x"} if panel else {}))
    ticks = [text(names[k]) for k in order] if len(names) <= MOST_NAMES else []
    panels.x(len(shown) - 1, tickvals=list(range(len(ticks))), ticktext=ticks, tickangle=-40)
    each = " Below, each class by itself." if len(shown) > 1 else ""
    seeds = ", mean over seeds" if any(len(group.seeds) > 1 for group in block.groups) else ""
    worst = f" The worst people of the table: {', '.join(block.worst_people)}." if block.worst_people else ""
    people = f"In per cent{seeds}. People in the order of {block.labels[0]}; large marks: many images.{each}{worst}"
    legend = len(block.groups) > 1
    return Chart(panels.figure(120 + 200 * len(shown) + 20 * len(block.groups), legend), people)


def _shares(class_names: Sequence[str], right: np.ndarray, images: np.ndarray) -> str:
    """How many of each class are right, mean over seeds: 12.5 of 20 engaged."""
    shares = [f"{r:.4g} of {n:,} {text(name)}" for name, r, n in zip(class_names, right, images, strict=True) if n]
    return ", ".join(shares) + " right"


def learning(block: Comparison, looks: Mapping[str, Look]) -> Chart | None:
    """Validation over the epochs, a line for each run; None where no run has a history."""
    runs: dict[Path, tuple[str, Run]] = {}
    for label, group in block.models.items():
        for run in group.runs:
            runs.setdefault(run.folder, (label, run))
    read = [(label, run, read_history(run.folder / "metrics.csv")) for label, run in runs.values()]
    read = [(label, run, history) for label, run, history in read if history.get("epoch")]
    if not read:
        return None
    monitors = dict.fromkeys(str(run.settings.get("monitor", "val/loss")) for _, run, _ in read)
    metrics = list(dict.fromkeys(["val/loss", *monitors]))
    panels = Panels([(0, i) for i in range(len(metrics))], [1] * len(metrics))
    last, seen = max(history["epoch"][-1] for *_, history in read), set()
    for panel, metric in enumerate(metrics):
        for label, run, history in read:
            kept = (run.result.get("validation") or {}).get("epoch")
            style = {"name": text(label), "legendgroup": label, "opacity": 0.75}
            for trace in learning_curve(history, metric, looks[label], printable(str(run.folder)), kept):
                legend = trace["mode"] != "markers" and label not in seen
                seen |= {label} if legend else set()
                panels.add(panel, **trace, **style, showlegend=legend)
        panels.x(panel, title="epoch", tick0=0, dtick=max(1, 5 * round(last / 40)), range=[0.8, last + 1.4])
        panels.y(panel, title=text(metric_title(metric)))
    note = "A line for each run; its mark is the epoch that was kept."
    return Chart(panels.figure(370 + 24 * len(block.groups)), note)
