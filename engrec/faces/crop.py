"""From a picture and a face in it to the crop that a network sees: one recipe, for training and for use.

The recipe was measured on the crops of FER-2013 and WACV-2016, see docs/faces.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from PIL import Image

from engrec.faces import detect
from engrec.faces.detect import Face
from engrec.schema import shown

RESIZE = "bilinear, anti-aliased when shrinking, stretched to a square; none if the size is right already"
SMALL = 40  # pixels: a face under this side is more guessed than seen
MOST_ROLL = 15.0  # degrees that a face may lean before it is levelled
MOST_AT_ONCE = 2**20  # pixels that are levelled at once, so that a large face does not fill the memory
UNKNOWN = "as distributed"  # in recipes: whoever made the data set cropped the faces
AS_DISTRIBUTED = ("fer2013", "ferplus", "wacv2016")  # data sets whose own crops are those of STANDARD


@dataclass(frozen=True)
class Crop:
    """How faces are found and cropped. Two are equal if they give the same pixels for a face that both find.

    side: of the square, in longer sides of the box; shift: of its centre, in the same unit, right and down.
    """

    detector: str = detect.NAME
    sha256: str = detect.SHA256
    threshold: float = field(default=detect.THRESHOLD, compare=False)
    detect_size: int = field(default=detect.SIZE, compare=False)
    side: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    align: str = f"roll>{MOST_ROLL:g}"
    border: str = "edge"
    resize: str = RESIZE
    grey: str = "ITU-R 601-2 (Pillow L)"

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON stores it."""
        return asdict(self) | {"shift": list(self.shift)}

    @classmethod
    def from_dict(cls, stored: Any) -> Crop:
        """The recipe of `as_dict`. Raises ValueError, in one line, for anything else; further keys are ignored."""
        if not isinstance(stored, Mapping):
            raise ValueError(f"crop must be a mapping, found {shown(stored)}")
        values = {}
        for name in (each.name for each in fields(cls)):
            if name not in stored:
                raise ValueError(f"crop lacks {name}")
            fits, rule = _FIELDS[name]
            if not fits(stored[name]):
                raise ValueError(f"crop.{name} must be {rule}, found {shown(stored[name])}")
            values[name] = stored[name]
        return cls(**values | {"shift": tuple(map(float, values["shift"])), "side": float(values["side"])})

    def difference(self, other: Crop) -> str:
        """The first thing in which two recipes differ, as "side 1.3, not 1.0"; empty if they are equal."""
        for name in (each.name for each in fields(self) if each.compare):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                return f"{name} {here}, not {there}"
        return ""


STANDARD = Crop()


def crop_of(stored: Any, data: str | None) -> Crop | None:
    """The recipe of a prepared file or a checkpoint; None if nobody knows how its faces were cropped.

    stored: what it says, None if it says nothing, as older ones. data: the importer or the name of the data set. Raises
    ValueError as `Crop.from_dict`.
    """
    if stored is None or stored == UNKNOWN:
        return STANDARD if data in AS_DISTRIBUTED else None
    return None if isinstance(stored, str) else Crop.from_dict(stored)


def crop(picture: Image.Image | np.ndarray, face: Face, size: int = 48, colour: str = "grey") -> np.ndarray:
    """The face as STANDARD crops it: uint8 (C, size, size), C = 1 (grey) or 3 (rgb).

    picture: of mode L or RGB, or uint8 (H, W, 3) or (H, W). Pixels beyond its border repeat those at the border. Raises
    ValueError for a box that has a `problem`.
    """
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or 0 in pixels.shape:
        raise ValueError(f"a picture must be uint8 (H, W, 3) or (H, W), found {pixels.dtype} {pixels.shape}")
    side, x, y = _square(face, pixels.shape[0], pixels.shape[1])
    reach = math.ceil(max(1.0, side / size)) + 1  # so far beyond the square Pillow's filter looks
    levelled = abs(face.roll) > MOST_ROLL
    half = math.sqrt(2) * (side / 2 + reach + 2) if levelled else side / 2 + reach
    left, top = math.floor(x - half), math.floor(y - half)
    window = _window(pixels, left, top, math.ceil(x + half), math.ceil(y + half))
    image = Image.fromarray(window).convert("L" if colour == "grey" else "RGB")
    x, y = x - left, y - top
    if levelled:
        image, x, y = _levelled(np.asarray(image), face.roll, x, y, math.ceil(side) + 2 * reach + 2)
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.array(image).reshape(size, size, -1).transpose(2, 0, 1)


def _square(face: Face, height: int, width: int) -> tuple[float, float, float]:
    """Side and centre of the square around a face."""
    if problem := face.problem(width, height):
        raise ValueError(problem)
    x, y, w, h = face.box
    return STANDARD.side * max(w, h), x + w / 2, y + h / 2


def _window(pixels: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Rows top to bottom and columns left to right, where those beyond the picture repeat the ones at its border."""
    height, width = pixels.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return np.ascontiguousarray(pixels[top:bottom, left:right])
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    return pixels[rows[:, None], columns]


def _levelled(pixels: np.ndarray, roll: float, x: float, y: float, number: int) -> tuple[Image.Image, float, float]:
    """The surroundings of (x, y), number × number pixels, turned so that the eyes are level; and (x, y) in them."""
    offsets = np.arange(number) + 0.5 - number / 2  # of the centres of pixels
    parts = np.array_split(offsets, max(1, number * number // MOST_AT_ONCE))
    turned = np.concatenate([_turned(pixels, roll, x, y, offsets, part) for part in parts])
    return Image.fromarray(turned), number / 2, number / 2


def _turned(pixels: np.ndarray, roll: float, x: float, y: float, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Each pixel is interpolated between the four around its place, in float64, and rounded half up."""
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    xs = x + cos * across[None, :] - sin * down[:, None] - 0.5
    ys = y + sin * across[None, :] + cos * down[:, None] - 0.5
    left, top = np.floor(xs).astype(np.int64), np.floor(ys).astype(np.int64)
    u, v = xs - left, ys - top
    if pixels.ndim == 3:
        u, v = u[..., None], v[..., None]
    upper = pixels[top, left] * (1 - u) + pixels[top, left + 1] * u
    lower = pixels[top + 1, left] * (1 - u) + pixels[top + 1, left + 1] * u
    return np.floor(upper * (1 - v) + lower * v + 0.5).astype(np.uint8)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and least <= value <= most


_TEXT = (_is_text, "a short text")
_FIELDS = {
    "detector": _TEXT,
    "sha256": _TEXT,
    "threshold": (lambda value: _is_number(value, 0, 1), "from 0 to 1"),
    "detect_size": (lambda value: type(value) is int and 0 < value < 2**16, "a number of pixels"),
    "side": (lambda value: _is_number(value, 0.01, 100), "from 0.01 to 100"),
    "shift": (
        lambda value: (
            isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(v, -100, 100) for v in value)
        ),
        "two numbers from -100 to 100",
    ),
    "align": _TEXT,
    "border": _TEXT,
    "resize": _TEXT,
    "grey": _TEXT,
}
