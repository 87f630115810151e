"""A contact sheet: a row of faces for each class, as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engrec.runs.pictures import write

MOST_IN_A_ROW = 200  # about 27,000 pixels, which fit into memory


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
    if not 1 <= per_class <= MOST_IN_A_ROW:
        raise ValueError(f"{per_class} faces in a row: --per-class must be from 1 to {MOST_IN_A_ROW}")
    if seed < 0:
        raise ValueError(f"--seed {seed} must be 0 or more")
    rng = np.random.default_rng(seed)
    side, gap, left, top = 0.8, 0.06, 0.6 + 0.11 * max(map(len, (*class_names, "10,000 im"))), 0.62  # inches
    row = side + (0.2 if captions is not None else gap)
    sheet = Sheet(
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
    return write(sheet.figure, path, dpi=160)


class Sheet:
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
