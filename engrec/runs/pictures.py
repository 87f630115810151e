"""Learning curves and confusion matrices as PNG files, drawn without a display."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engrec.machine.files import atomic_write
from engrec.metrics import display_name, higher_is_better, scores


def write(figure: Figure, path: str | Path, dpi: int = 100) -> Path:
    """Write a figure as PNG; returns its path."""
    FigureCanvasAgg(figure)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=dpi)
    return Path(path)


def curves(epochs: Sequence[dict[str, float]], path: str | Path) -> Path:
    """Plot loss and scores of training and validation over the epochs, with the best validation value."""
    names = ["loss", *scores(ordered=any("val/qwk" in row for row in epochs))]
    figure = Figure(figsize=(3 * len(names), 3.2), facecolor="white")
    # Not layout="constrained", which takes longer than the rest of the picture.
    figure.subplots_adjust(left=0.22 / len(names), right=1 - 0.05 / len(names), bottom=0.16, top=0.9, wspace=0.22)
    numbers = [row["epoch"] + 1 for row in epochs]
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for split, label, colour in (("train", "train", "0.6"), ("val", "validation", "tab:blue")):
            values = [row.get(f"{split}/{name}", np.nan) for row in epochs]
            axes.plot(numbers, values, color=colour, marker=".", label=label)
        if defined := [row for row in epochs if not np.isnan(row.get(f"val/{name}", np.nan))]:
            best = (max if higher_is_better(name) else min)(defined, key=lambda row, name=name: row[f"val/{name}"])
            point, value = (best["epoch"] + 1, best[f"val/{name}"]), f"{best[f'val/{name}']:.3f}"
            axes.annotate(value, point, (0, 6), textcoords="offset points", ha="center", fontsize=8, color="tab:blue")
        axes.set_title(display_name(name))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return write(figure, path)


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | Path, title: str) -> Path:
    """Plot a confusion matrix of counts (K, K): rows are labels, columns predictions, shades the shares of a row."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    height = 1.9 + 0.75 * len(class_names)
    figure = Figure(figsize=(height + 0.6, height), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share, ink = shares[row, column], "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{share:.0%}\n{count:,.0f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    figure.suptitle("\n".join(textwrap.wrap(title, int(14 * height))), fontsize=10)
    return write(figure, path)
