"""Pictures of data and results, as PNG files; drawn without a display."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def _write(figure: Figure, path: str | Path, dpi: int = 100) -> Path:
    """Write the PNG at once or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        FigureCanvasAgg(figure)
        figure.savefig(partial, format="png", dpi=dpi)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def contact_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
    title: str,
    per_class: int = 12,
    captions: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """A row of random images per class, pixel for pixel, with the class's name and size; returns the path.

    images: uint8 (N, C, H, W), grey (C = 1) or RGB; labels: int (N,); captions: one short text per image, or none.
    """
    if per_class < 1:
        raise ValueError(f"{per_class} faces in a row: it takes at least 1")
    rng = np.random.default_rng(seed)
    side, gap, left, top = 0.8, 0.06, 0.6 + 0.11 * max(map(len, (*class_names, "10,000 im"))), 0.62  # inches
    row = side + (0.2 if captions is not None else gap)
    sheet = _Sheet(
        max(left + per_class * (side + gap) + 0.15, 0.5 + 0.11 * len(title)), top + 0.1 + row * len(class_names)
    )
    sheet.text(0.2, 0.32, title, size=13, weight="bold")
    for k, name in enumerate(class_names):
        members, y = np.flatnonzero(labels == k), top + k * row
        sheet.text(0.2, y + 0.3, name, size=11)
        sheet.text(0.2, y + 0.5, f"{len(members):,} image{'s'[: len(members) != 1]}", size=8, color="0.45")
        for column, i in enumerate(rng.permutation(members)[:per_class].tolist()):
            x = left + column * (side + gap)
            sheet.image(x, y, side, images[i])
            if captions is not None:
                sheet.text(x + side / 2, y + side + 0.08, str(captions[int(i)])[:12], size=6, color="0.45", ha="center")
    return _write(sheet.figure, path, dpi=160)


class _Sheet:
    """A white page measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, va="center", parse_math=False, **style)

    def image(self, x: float, y: float, side: float, image: np.ndarray) -> None:
        box = (x / self.width, 1 - (y + side) / self.height, side / self.width, side / self.height)
        axes = self.figure.add_axes(box)
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()


def curves(epochs: Sequence[dict[str, float]], path: str | Path) -> Path:
    """Loss, accuracy, F1 and AUC of training and validation over the epochs; the best value has its number."""
    figure = Figure(figsize=(12, 3.2), facecolor="white", layout="constrained")
    numbers = [row["epoch"] + 1 for row in epochs]
    for axes, name in zip(figure.subplots(1, 4), ("loss", "accuracy", "f1", "auc"), strict=True):
        for side, colour in (("train", "0.6"), ("val", "tab:blue")):
            values = [row[f"{side}/{name}"] for row in epochs]
            axes.plot(numbers, values, color=colour, marker=".", label={"val": "validation"}.get(side, side))
        if defined := [row for row in epochs if not np.isnan(row[f"val/{name}"])]:
            best = (min if name == "loss" else max)(defined, key=lambda row, name=name: row[f"val/{name}"])
            point, value = (best["epoch"] + 1, best[f"val/{name}"]), f"{best[f'val/{name}']:.3f}"
            axes.annotate(value, point, (0, 6), textcoords="offset points", ha="center", fontsize=8, color="tab:blue")
        axes.set_title({"f1": "F1", "auc": "AUC"}.get(name, name))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return _write(figure, path)


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | Path, title: str) -> Path:
    """Counts (K, K), rows the labels, columns the predictions; shaded by the share of each row."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 1.9 + 0.75 * len(class_names)
    figure = Figure(figsize=(side + 0.6, side), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share, ink = shares[row, column], "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{share:.0%}\n{count:,.0f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    figure.suptitle(title, fontsize=10)
    return _write(figure, path)


def benchmark(
    speed: dict[str, list[float]],
    pieces: dict[str, float],
    epochs: dict[int, float],
    batches: dict[int, float],
    path: str | Path,
    title: str,
) -> Path:
    """Four panels: images per second by way of training, milliseconds of a batch by piece, seconds of an epoch by the
    number of images, with the line through the origin, images per second by batch size; returns the path."""
    figure = Figure(figsize=(11, 7), facecolor="white", layout="constrained")
    figure.suptitle(title)
    (ways, parts), (growth, sizes) = figure.subplots(2, 2)
    for place, values in enumerate(speed.values()):
        middle = sorted(values)[len(values) // 2]
        ways.barh(place, middle, color="tab:blue")
        ways.plot(values, [place] * len(values), "|", color="black", markersize=12)
        ways.annotate(f"{middle:,.0f}", (max(values), place), (6, 0), textcoords="offset points", va="center")
    ways.set_yticks(range(len(speed)), [*speed])
    ways.set(xlabel="images per second (median, and each repeat)")
    ways.margins(x=0.15)
    names = [name for name in pieces if name != "all of it"]
    parts.barh(names, [1e3 * pieces[name] for name in names], color="tab:blue")
    for place, name in enumerate(names):
        parts.text(1e3 * max(0, pieces[name]), place, f" {1e3 * pieces[name]:,.2f}", va="center")
    parts.set(xlabel="milliseconds a batch", xlim=(0, 1250 * max(pieces.values())))
    growth.plot([*epochs], [*epochs.values()], "o", color="tab:blue", label="measured")
    largest = max(epochs)
    growth.plot([0, largest], [0, epochs[largest]], color="0.6", label="in proportion to the largest")
    growth.set(xlabel="images", ylabel="seconds of an epoch", ylim=(0, None))
    growth.legend(frameon=False)
    sizes.plot(range(len(batches)), [*batches.values()], "o-", color="tab:blue")
    sizes.set(xlabel="batch size", ylabel="images per second", ylim=(0, 1.1 * max(batches.values())))
    sizes.set_xticks(range(len(batches)), map(str, batches))
    for axes in (ways, parts):
        axes.invert_yaxis()
    for axes in (ways, parts, growth, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    return _write(figure, path)
