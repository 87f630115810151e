"""A picture of a data set: a row of random faces per class.

python scripts/contact_sheet.py dataset=fer2013
python scripts/contact_sheet.py dataset=synthetic stage=scratch --per-class 20
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from engrec.config import REMEDY, composed
from engrec.datasets.prepared import Faces
from engrec.errors import errors_in_one_line
from engrec.runs.pictures import write

ROOT = Path(__file__).resolve().parents[1]


def build_dataset(overrides: list[str]) -> Faces:
    """The data set that train.py would use with these overrides."""
    cfg = composed(overrides)
    if missing := sorted(OmegaConf.missing_keys(cfg.dataset)):
        raise ValueError("missing " + "; ".join(f"{key}, {REMEDY.get(key, f'set it with {key}=…')}" for key in missing))
    return instantiate(cfg.dataset, _convert_="all")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: dataset=synthetic, dataset.path=data/mine.npz")
    parser.add_argument("--out", type=Path, help="the PNG (default: outputs/contact_sheets/NAME.png)")
    parser.add_argument("--per-class", type=int, default=12, help="faces in a row (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="which faces (default: 0)")
    options = parser.parse_intermixed_args(arguments)
    faces = build_dataset(options.overrides)
    name = " ".join(filter(None, (faces.name, faces.recipe.get("task"))))
    people = "" if faces.subjects is None else f" of {len(set(faces.subjects)):,} people"
    path = contact_sheet(
        faces.images,
        faces.labels,
        faces.class_names,
        options.out or ROOT / "outputs" / "contact_sheets" / f"{name.replace(' ', '-')}.png",
        title=f"{name}: {len(faces):,} faces{people}",
        per_class=options.per_class,
        captions=faces.subjects,
        seed=options.seed,
    )
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])


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
    return write(sheet.figure, path, dpi=160)


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
