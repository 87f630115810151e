"""Synthetic data set: 48×48 grey faces whose expression or engagement is defined by facial action units.

A face is a function of three dicts of float arrays (B,), one value per image:

- identity, one draw per subject: head shape, skin, hair, glasses, spacing … (`IDENTITY`, `HABITS`)
- actions: units of the Facial Action Coding System, 0 (absent) to 1 (strongest), and the directions of gaze and head,
  -1 to 1 (`ACTIONS`; 0 if not given)
- scene: place and size in the picture, roll, light, contrast, blur and noise (`SCENE`)

`draw` paints them, `render` makes a complete labelled data set. The same seed gives the same pixels on every machine:
all randomness is the raw PCG64 stream, which NumPy guarantees to keep, and painting uses only + - * / and sqrt on
single elements, for which IEEE 754 defines the rounding (no exp, no sin, no sums, whose order the library chooses).

Lengths are in half images: x to the right and y down from -1 to 1, one pixel is 1/24.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from engrec.datasets.prepared import Faces
from engrec.datasets.schema import SPLITS
from engrec.ranges import Count, Probability, Range, Seed

SIZE = 48
PIXEL = np.float32(2 / SIZE)
CHUNK = 64  # images painted at once: their arrays fit into a core's cache
Images = Annotated[int, Range(1, 10_000_000, whole=True)]
VERSION = 1  # of the pixels: raise it if a change to this file changes them

UNITS = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU12", "AU15", "AU20", "AU23", "AU26")
DIRECTED = ("gaze_x", "gaze_y", "yaw", "pitch")
# gaze_x, yaw: to the picture's right; gaze_y, pitch: down. At 1 the head is turned by about 37°, tipped by about 23°.
ACTIONS = (*UNITS, "closure", *DIRECTED)

# Actions of each class at full strength; of several prototypes, each image shows one.
PROTOTYPES: dict[str, dict[str, list[dict[str, float]]]] = {
    # The action units of EMFACS (Friesen & Ekman 1983).
    "expression": {
        "angry": [{"AU4": 1.0, "AU5": 0.4, "AU7": 0.8, "AU23": 1.0}],
        "disgust": [{"AU9": 1.0, "AU15": 0.7, "AU4": 0.2}],
        "fear": [{"AU1": 1.0, "AU2": 0.5, "AU4": 0.6, "AU5": 1.0, "AU7": 0.2, "AU20": 1.0, "AU26": 0.4}],
        "happy": [{"AU6": 1.0, "AU12": 1.0, "AU26": 0.15}],
        "sad": [{"AU1": 1.0, "AU4": 0.6, "AU15": 1.0, "closure": 0.25}],
        "surprise": [{"AU1": 1.0, "AU2": 1.0, "AU5": 0.9, "AU26": 1.0}],
        "neutral": [{}],
    },
    # What annotators report to look at: gaze, lids, head and brow (Whitehill et al. 2014, Nezami et al. 2019).
    "engagement": {
        "disengaged": [
            {"gaze_x": 0.8, "yaw": 0.4, "AU15": 0.3},  # looks elsewhere
            {"gaze_y": 0.8, "pitch": 0.4, "closure": 0.3, "AU15": 0.2},  # looks down
            {"closure": 0.8, "AU1": 0.4, "AU26": 0.8},  # yawns
            {"closure": 0.5, "AU1": 0.5, "AU15": 0.8, "pitch": -0.2},  # is bored
        ],
        "engaged": [
            {"AU4": 0.8, "AU7": 0.6, "AU23": 0.5, "pitch": 0.1},  # concentrates
            {"AU1": 0.6, "AU2": 0.9, "AU5": 0.8, "AU26": 0.2},  # is interested
            {"AU6": 0.6, "AU12": 0.8, "AU5": 0.2},  # enjoys it
        ],
    },
}
WEAKEST = {"expression": 0.25, "engagement": 0.0}  # strength of a class's weakest images; the strongest have 1
SIZES = {"expression": (6000, 1000, 2000), "engagement": (400, 200, 2000)}  # train, validation and test images
LABEL_NOISE = {"expression": 0.0, "engagement": 0.06}  # share of labels that name another class

# Uniform in these ranges.
IDENTITY = {
    "width": (0.66, 0.77),  # of the head, from its centre
    "height": (0.84, 0.92),
    "square": (0.0, 0.45),  # 0 an ellipse, 1 a box
    "jaw": (0.02, 0.22),  # how much the head narrows towards the chin
    "skin": (0.42, 0.88),
    "hair": (0.1, 0.7),  # relative to the skin's tone, as the lips
    "hairline": (-0.76, -0.62),
    "fringe": (0.1, 0.55),  # how far the hair comes down at the temples
    "parting": (-0.2, 0.2),
    "spacing": (0.29, 0.34),  # of an eye from the centre
    "eye_y": (-0.09, -0.02),
    "eye_size": (1.0, 1.22),
    "slant": (-0.02, 0.025),
    "iris": (0.05, 0.4),
    "brow_y": (0.24, 0.28),  # above the eye
    "brow_thickness": (0.03, 0.05),
    "brow_arch": (0.02, 0.06),
    "nose_y": (0.21, 0.27),
    "nose_width": (0.08, 0.12),
    "mouth_y": (0.5, 0.56),
    "mouth_width": (0.24, 0.29),
    "lips": (0.03, 0.055),
    "lip_tone": (0.55, 0.8),
    "clothes": (0.1, 0.9),
}
# Probability of 1 (present); otherwise 0.
HABITS = {"glasses": 0.22, "long_hair": 0.45, "beard": 0.14}

SCENE = {
    "x": (-0.07, 0.07),
    "y": (-0.06, 0.06),
    "scale": (0.9, 1.06),
    "roll": (-0.09, 0.09),  # tangent of half the angle: up to 10°
    "light_x": (-1.0, 1.0),
    "light_y": (-0.8, 0.3),
    "light": (0.05, 0.3),  # how much darker it is away from the light
    "background": (0.15, 0.95),
    "brightness": (-0.08, 0.06),
    "contrast": (0.8, 1.1),
    "blur": (0.0, 0.6),
    "noise": (0.005, 0.025),
}

Params = Mapping[str, np.ndarray]


def uniforms(stream: Sequence[int], rows: int, columns: int) -> np.ndarray:
    """Uniform draws float64 (rows, columns) in [0, 1). More rows do not change the first ones."""
    raw = np.random.PCG64(stream).random_raw(rows * columns)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(rows, columns)


def _between(ranges: Mapping[str, tuple[float, float]], draws: np.ndarray) -> dict[str, np.ndarray]:
    return {name: low + (high - low) * u for (name, (low, high)), u in zip(ranges.items(), draws.T, strict=True)}


def draw_identities(num_subjects: int, stream: Sequence[int]) -> dict[str, np.ndarray]:
    """Traits, one draw per subject."""
    draws = uniforms(stream, num_subjects, len(IDENTITY) + len(HABITS))
    habits = zip(HABITS.items(), draws[:, len(IDENTITY) :].T, strict=True)
    return _between(IDENTITY, draws[:, : len(IDENTITY)]) | {name: 1.0 * (u < p) for (name, p), u in habits}


def draw_scenes(num_images: int, stream: Sequence[int]) -> dict[str, np.ndarray]:
    return _between(SCENE, uniforms(stream, num_images, len(SCENE)))


def _prototype_table(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Prototypes as rows over ACTIONS, and the number of rows per class."""
    modes = list(PROTOTYPES[task].values())
    table = [[mode.get(name, 0.0) for name in ACTIONS] for of_class in modes for mode in of_class]
    return np.array(table), np.array([len(of_class) for of_class in modes])


def draw_actions(
    task: str, labels: np.ndarray, subjects: np.ndarray, stream: Sequence[int], resting_stream: Sequence[int]
) -> dict[str, np.ndarray]:
    """Actions of each face: a share of its class's prototype, plus actions unrelated to the class.

    labels and subjects: int (N,). A subject's resting face and the place of their camera are in all their images.
    """
    table, counts = _prototype_table(task)
    mode, strength, side, *rest = uniforms(stream, len(labels), 3 + 3 * len(ACTIONS)).T
    jitter, stray, spread = np.reshape(rest, (3, len(ACTIONS), len(labels))).transpose(0, 2, 1)
    resting = uniforms(resting_stream, int(subjects.max()) + 1, 2 * len(ACTIONS))[subjects]
    resting, spread_resting = resting[:, : len(ACTIONS)], resting[:, len(ACTIONS) :]

    first = np.cumsum(counts) - counts
    row = first[labels] + (mode * counts[labels]).astype(int)
    strength = WEAKEST[task] + (1 - WEAKEST[task]) * strength
    toward = table[row] * strength[:, None] * (0.6 + 0.7 * jitter)
    toward[:, [ACTIONS.index("gaze_x"), ACTIONS.index("yaw")]] *= np.where(side < 0.5, -1, 1)[:, None]
    directed = np.isin(ACTIONS, DIRECTED)
    # Sums of two uniform draws, so mostly small. A unit is never negative, a direction may be.
    unrelated = np.where(directed, 0.4 * (stray + spread - 1), 0.5 * np.maximum(stray + spread - 1.3, 0))
    habitual = np.where(
        directed, 0.4 * (resting + spread_resting - 1), 0.4 * np.maximum(resting + spread_resting - 1.2, 0)
    )
    values = np.clip(toward + unrelated + habitual, np.where(directed, -1, 0), 1)
    return dict(zip(ACTIONS, values.T, strict=True))


# --- painting -------------------------------------------------------------------------------------------------------


def _cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Share of a pixel inside a shape, 0 … 1; distance: to the shape's edge, negative inside."""
    cover = distance * np.float32(-1 / (PIXEL * softness))
    cover += np.float32(0.5)
    return np.clip(cover, 0, 1, out=cover)


def _paint(canvas: np.ndarray, mask: np.ndarray, tone: np.ndarray | float) -> None:
    change = tone - canvas
    change *= mask
    canvas += change


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    square = x * x
    square += y * y
    return np.sqrt(square, out=square)


def _line(
    x: np.ndarray, y: np.ndarray, start: tuple[Any, Any], end: tuple[Any, Any], thickness: float, softness: float = 1.0
) -> np.ndarray:
    """Mask of a straight stroke with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = x - start[0], y - start[1]
    norm = 1 / (dx * dx + dy * dy)
    along = x * (dx * norm)
    along += y * (dy * norm)
    np.clip(along, 0, 1, out=along)
    x -= along * dx
    y -= along * dy
    return _cover(_length(x, y) - np.float32(thickness), softness)


@dataclass(frozen=True)
class _Frame:
    """Where each pixel of a window lies on the face: x, y as if the head were seen from the front."""

    canvas: np.ndarray  # (B, h, w), a view that is painted on
    x: np.ndarray
    y: np.ndarray
    skin: np.ndarray  # the canvas before any feature

    def window(self, rows: slice, columns: slice = slice(None), mirror: bool = False) -> "_Frame":
        x = self.x[:, rows, columns]
        at = (slice(None), rows, columns)
        return _Frame(self.canvas[at], -x if mirror else x, self.y[at], self.skin[at])

    def paint(self, mask: np.ndarray, tone: np.ndarray | float) -> None:
        _paint(self.canvas, mask, tone)

    def shade(self, mask: np.ndarray, amount: np.ndarray | float) -> None:
        """Darken the skin by a factor, so that a fold or wrinkle is never black on any skin."""
        change = self.skin * amount
        change *= mask
        np.subtract(self.canvas, change, out=self.canvas)


@dataclass(frozen=True)
class _Head:
    """Position of every pixel relative to the head, arrays (B, SIZE, SIZE)."""

    x: np.ndarray  # from the centre of the upright head
    y: np.ndarray
    radius: np.ndarray  # 1 on the outline
    edge: np.ndarray  # distance to the outline, negative inside
    depth: np.ndarray  # 1 where the head is nearest, 0 on the outline
    light: np.ndarray


def _place_head(i: Params, a: Params, s: Params) -> _Head:
    axis = ((np.arange(SIZE) + 0.5) * (2 / SIZE) - 1).astype(np.float32)
    grid_x, grid_y = axis[None, None, :], axis[None, :, None]
    cos, sin = (1 - s["roll"] * s["roll"]), 2 * s["roll"]
    norm = (1 + s["roll"] * s["roll"]) * s["scale"]
    dx, dy = grid_x - s["x"], grid_y - s["y"]
    x, y = (cos * dx + sin * dy) / norm, (cos * dy - sin * dx) / norm
    xx, yy = (square * square for square in _round(x, y, i, a))
    radius = np.sqrt(np.maximum(xx + yy - i["square"] * xx * yy, 0))
    light = 1 + s["light"] * (s["light_x"] * grid_x + s["light_y"] * grid_y - 0.4)
    return _Head(x, y, radius, (radius - 1) * i["width"], np.sqrt(np.maximum(1 - xx - yy, 0)), light)


def _round(x: np.ndarray, y: np.ndarray, i: Params, a: Params) -> tuple[np.ndarray, np.ndarray]:
    """Head as a ball of radius 1: narrower towards the chin, which an open mouth lowers."""
    below = np.maximum(y, 0)
    half_height = i["height"] + 0.1 * a["AU26"] * (y > 0)
    return x / (i["width"] * (1 - i["jaw"] * below * below)), y / half_height


def _turn(head: _Head, i: Params, a: Params) -> tuple[np.ndarray, np.ndarray]:
    """Point of the frontal face that each pixel shows: the head is a ball that turns."""
    x, y = _round(head.x, head.y, i, a)
    sin_yaw, sin_pitch = 0.6 * a["yaw"], 0.4 * a["pitch"]
    cos_yaw, cos_pitch = np.sqrt(1 - sin_yaw * sin_yaw), np.sqrt(1 - sin_pitch * sin_pitch)
    face_x, toward = x * cos_yaw - head.depth * sin_yaw, x * sin_yaw + head.depth * cos_yaw
    return face_x * i["width"], (y * cos_pitch - toward * sin_pitch) * i["height"]


def _paint_behind(head: _Head, i: Params, a: Params, s: Params) -> np.ndarray:
    """New canvas with everything behind the face: background, long hair, shoulders, neck, ears."""
    x, y = head.x, head.y
    canvas = s["background"] * (1 + 0.5 * (head.light - 1)) + np.zeros_like(x)
    back = np.maximum(np.abs(x) - 1.2 * i["width"], np.maximum(y - 1.0, -y))
    wide, high = x / (1.2 * i["width"]), y * 0.9 / i["height"]
    crown = (_length(wide, high) - 1) * i["width"]
    _paint(canvas, _cover(np.minimum(back, crown)) * i["long_hair"], i["hair"] * 0.85)
    _paint_body(canvas[:, 30:], x[:, 30:], y[:, 30:], i)
    for side, half in ((-1, np.s_[:, 8:42, :24]), (1, np.s_[:, 8:42, 24:])):
        ear_x = side * x[half] - i["width"] * (1.01 - 0.12 * side * a["yaw"])
        ear = np.sqrt(2 * ear_x * ear_x + (y[half] - i["eye_y"] - 0.06) * (y[half] - i["eye_y"] - 0.06))
        _paint(canvas[half], _cover(ear - np.float32(0.16)) * (1 - i["long_hair"]), i["skin"] * 0.82)
    return canvas


def _paint_body(canvas: np.ndarray, x: np.ndarray, y: np.ndarray, i: Params) -> None:
    shoulders = np.sqrt(x * x * np.float32(0.8) + (y - 1.75) * (y - 1.75)) - np.float32(0.85)
    _paint(canvas, _cover(shoulders), i["clothes"])
    _paint(canvas, _cover(np.maximum(np.abs(x) - 0.3, np.maximum(0.5 - y, y - 1.02))), i["skin"] * 0.72)


def _paint_head(i: Params, a: Params, s: Params) -> _Frame:
    """Head with hair and beard, without the features of the face."""
    head = _place_head(i, a, s)
    canvas = _paint_behind(head, i, a, s)
    x, y = _turn(head, i, a)
    skin, inside = i["skin"] * head.light * (0.8 + 0.2 * head.depth), _cover(head.edge)
    _paint(canvas, inside, skin)
    canvas -= np.float32(0.35) * _cover(np.abs(head.edge) - np.float32(0.015)) * skin  # the line of a drawing
    beard = _cover(np.maximum(0.66 - head.radius, 0.1 - y), 5) * inside * i["beard"] * (1 - i["long_hair"])
    _paint(canvas, beard * np.float32(0.55), i["hair"])
    part = x - i["parting"]
    hair_y = i["hairline"] + i["fringe"] * part * part * 1.5
    cap = np.maximum(head.edge - 0.05, np.maximum(y - hair_y, y - 0.1))
    _paint(canvas, _cover(cap), i["hair"] * (0.85 + 0.3 * head.depth) * head.light)
    return _Frame(canvas, x, y, canvas.copy())


def _paint_brow(f: _Frame, i: Params, a: Params) -> None:
    raised, knit = a["AU1"], a["AU4"] + 0.4 * a["AU9"]
    half = 0.2 * i["eye_size"]
    t = (f.x - (i["spacing"] + 0.01 - 0.05 * knit)) / half  # -1 at the inner end, 1 at the outer
    inner, outer = (1 - t) * (1 - t) * np.float32(0.25), (1 + t) * (1 + t) * np.float32(0.25)
    lift_inner = 0.15 * raised - knit * (0.15 - 0.13 * raised)
    lift_outer = 0.13 * a["AU2"] - 0.02 * knit - 0.03 * raised * (1 - a["AU2"])
    base = i["eye_y"] - i["brow_y"] + 0.02 * a["AU7"]
    curve = base - i["brow_arch"] * (1 - t * t) - lift_inner * inner - lift_outer * outer
    curve = curve - (0.05 * raised * a["AU2"] - 0.03 * knit * (1 - raised)) * (1 - t * t)
    thickness = i["brow_thickness"] * (1.1 - 0.5 * outer)
    mask = _cover(np.abs(f.y - curve) - thickness) * _cover((np.abs(t) - 1) * half)
    f.paint(mask, np.minimum(i["hair"], 0.42 * i["skin"]))
    _paint_forehead(f, base, knit, raised * inner, np.maximum(raised, a["AU2"]))


def _paint_forehead(f: _Frame, base: np.ndarray, knit: np.ndarray, lift: np.ndarray, raised: np.ndarray) -> None:
    """The upright furrow beside knit brows and the level wrinkle over raised ones; base: y of the calm brow."""
    furrow = _line(f.x, f.y, (0.06 - 0.02 * knit, base - 0.02), (0.055, base + 0.12), 0.008)
    f.shade(furrow, 0.6 * knit)
    wrinkle = np.abs(f.y - (base - 0.27 - 0.06 * lift)) - np.float32(0.006)
    f.shade(_cover(wrinkle) * _cover(np.maximum(f.x - 0.3, -f.x)), 0.3 * raised)


def _paint_eye(f: _Frame, i: Params, a: Params, gaze_x: np.ndarray) -> None:
    half = 0.185 * i["eye_size"]
    down = np.maximum(a["gaze_y"], 0)
    closure = np.clip(a["closure"] + 0.3 * down, 0, 1)  # the upper lid follows a downward gaze
    open_up = 0.115 * i["eye_size"] * (1 + 0.55 * a["AU5"] - 0.35 * a["AU7"] - 0.1 * a["AU4"])
    open_low = 0.075 * i["eye_size"] * (1 + 0.3 * a["AU5"] - 0.55 * a["AU7"] - 0.8 * a["AU6"] - 0.5 * a["AU9"])
    low = open_low * (1 - 0.3 * closure)
    up = open_up * (1 - closure) - 0.7 * open_low * closure
    x, y = f.x - i["spacing"], f.y - i["eye_y"]
    t = x / half
    arch = 1 - t * t
    y = y + (i["slant"] - 0.03 * a["AU1"] * a["AU4"]) * t - 0.03 * a["AU6"] * arch + 0.03 * a["AU6"]
    upper, lower = -up * arch, low * arch
    ball = _eyeball(x - 0.1 * gaze_x, y - 0.07 * a["gaze_y"] + 0.015, y - upper, i)
    ends = _cover((np.abs(t) - 1.06) * half)
    f.paint(_cover(np.maximum(upper - y, y - lower)) * ends, ball)
    f.paint(_cover(np.abs(y - upper) - np.float32(0.02)) * ends, 0.1 * i["skin"])
    f.shade(_cover(np.abs(y - lower) - np.float32(0.002)) * ends, 0.4 + 0.2 * a["AU6"])
    crease = _cover(np.abs(y + open_up * arch + 0.06) - np.float32(0.004))
    f.shade(crease * _cover((np.abs(t) - 0.85) * half), 0.28)
    bag = _cover(np.abs(y - lower - 0.065 - 0.02 * arch) - np.float32(0.004))
    pushed = np.maximum(a["AU6"], 0.6 * np.maximum(a["AU7"], a["AU9"]))
    f.shade(bag * _cover((np.abs(t) - 0.75) * half), 0.35 * pushed)
    for fan in (-0.08, 0.02):
        crow = _line(x, y, (half * 1.2, 0.4 * fan), (half * 1.2 + 0.07, fan), 0.006)
        f.shade(crow, 0.45 * a["AU6"])


def _eyeball(x: np.ndarray, y: np.ndarray, under_lid: np.ndarray, i: Params) -> np.ndarray:
    """The eye behind its lids, x and y from the middle of the iris; under_lid: how far below the upper lid."""
    iris = _length(x, y)
    ball = (0.62 + 0.35 * i["skin"]) * (1 - 0.25 * _cover(under_lid - 0.03, 2))
    _paint(ball, _cover(iris - np.float32(0.088)), i["iris"] * 0.8)
    _paint(ball, _cover(iris - np.float32(0.045)), 0.02)
    _paint(ball, _cover(_length(x + 0.035, y + 0.035) - np.float32(0.02)), 0.95)
    return ball


def _paint_glasses(f: _Frame, i: Params) -> None:
    x, y = (f.x - i["spacing"]) / 0.25, (f.y - i["eye_y"] - 0.01) / 0.21
    xx, yy = np.minimum(x * x, 1.5), np.minimum(y * y, 1.5)  # the curve repeats further out
    rim = np.abs(np.sqrt(np.maximum(xx + yy - 0.5 * xx * yy, 0)) - 1) * np.float32(0.22) - np.float32(0.012)
    bridge = np.maximum(np.abs(f.y - i["eye_y"] + 0.03) - 0.015, np.abs(f.x) - i["spacing"] + 0.25)
    f.paint(_cover(np.minimum(rim, bridge)) * i["glasses"] * np.float32(0.8), 0.12)


def _paint_nose(f: _Frame, i: Params, a: Params) -> None:
    # The tip stands out, so it moves further than the face when the head turns.
    out = np.clip((f.y - i["eye_y"]) * np.float32(4), 0, 1)
    x, y = f.x - 0.1 * a["yaw"] * out, f.y - 0.05 * a["pitch"] * out
    tip, width = i["nose_y"] - 0.03 * a["AU9"], i["nose_width"] * (1 + 0.2 * a["AU9"])
    t = x / width
    base = y - tip - 0.03 + 0.05 * t * t
    f.shade(_cover(np.abs(base) - np.float32(0.012)) * _cover((np.abs(t) - 1) * width), 0.5)
    f.shade(_cover(np.maximum(np.abs(np.abs(x) - 0.55 * width) - 0.02, np.abs(y - tip) - 0.012)), 0.35)
    mirrored = np.abs(x)
    ridge = _line(mirrored, y, (0.045, i["eye_y"]), (width, tip - 0.06), 0.01, 2)
    f.shade(ridge, 0.16)
    for height in (0.05, 0.12):
        wrinkle = _line(mirrored, y, (0.015, i["eye_y"] + height), (0.12, i["eye_y"] + height - 0.06), 0.009)
        f.shade(wrinkle, 0.6 * a["AU9"])


def _paint_mouth(f: _Frame, i: Params, a: Params) -> None:
    smile, frown, stretch, drop, tight = a["AU12"], a["AU15"], a["AU20"], a["AU26"], a["AU23"]
    pull = np.maximum(smile, stretch)
    half = i["mouth_width"] * (1 + 0.42 * smile + 0.38 * stretch - 0.15 * tight - 0.18 * drop * (1 - pull))
    t = f.x / half
    tt = t * t
    inside = np.maximum(1 - tt, 0)
    bow = np.sqrt(inside)
    middle = i["mouth_y"] + 0.03 * drop - 0.05 * a["AU9"] + 0.02 * smile + (0.16 * frown - 0.2 * smile) * (tt - 0.4)
    middle = middle + 0.05 * stretch * tt * tt - 0.05 * a["AU9"] * inside
    gap = 0.24 * drop * (1 - 0.4 * pull) + 0.11 * np.maximum(smile - 0.35, 0) + 0.06 * stretch + 0.04 * a["AU9"]
    upper = middle - gap * bow * (0.45 + 0.2 * a["AU9"])
    lower = middle + gap * (bow * 0.75 + 0.4 * smile * inside)
    lip = i["lips"] * (1 - 0.75 * tight) * (1 - 0.35 * pull)
    ends = _cover((np.abs(t) - 1) * half)
    lips = np.maximum(upper - lip * bow - f.y, f.y - lower - 1.25 * lip * bow)
    f.paint(_cover(lips) * ends, f.skin * i["lip_tone"])
    f.paint(
        _cover(np.maximum(upper - f.y, f.y - lower)) * ends * np.clip(gap * 30, 0, 1), _throat(f, upper, bow, gap, a)
    )
    # A closed mouth is one dark line, an open one is edged by its lips.
    line = np.abs(f.y - middle) - np.float32(0.014) - 0.01 * tight
    f.shade(_cover(line) * ends * np.clip(1.3 - gap * 30, 0, 1), 0.72)
    f.shade(_cover(np.abs(f.y - upper) - np.float32(0.004)) * ends, 0.45 * np.clip(gap * 20, 0, 1))
    _paint_mouth_folds(f, half + 0.015, lower, i, a)


def _throat(f: _Frame, upper: np.ndarray, bow: np.ndarray, gap: np.ndarray, a: Params) -> np.ndarray:
    """Inside of an open mouth: dark, with the upper teeth if the lip is raised or stretched."""
    bared = np.maximum(np.maximum(np.maximum(a["AU12"], a["AU20"]), a["AU9"]), 0.2)
    within = np.full_like(f.x, 0.07)
    _paint(within, _cover(f.y - upper - np.minimum(0.09 * bared, 0.7 * gap) * bow), 0.9)
    return within


def _paint_mouth_folds(f: _Frame, corner_x: np.ndarray, lower: np.ndarray, i: Params, a: Params) -> None:
    """The hooks at the corners, the folds from the nose, and the hollow above the chin."""
    smile, frown, side = a["AU12"], a["AU15"], np.abs(f.x)
    corner_y = i["mouth_y"] + 0.6 * (0.16 * frown - 0.2 * smile) + 0.02 * smile
    tip = (corner_x + 0.02, corner_y - 0.05 * smile + 0.06 * frown)
    f.shade(_line(side, f.y, (corner_x - 0.01, corner_y), tip, 0.01), 0.55 * np.maximum(smile, frown))
    start = (i["nose_width"] + 0.06, i["nose_y"] - 0.02)
    fold = _line(side, f.y, start, (corner_x + 0.03, corner_y - 0.11), 0.006, 1.5)
    f.shade(fold, 0.36 * np.maximum(np.maximum(smile, a["AU9"]), 0.4 * frown))
    chin = np.abs(f.y - lower - 0.14 + 0.25 * f.x * f.x) - np.float32(0.008)
    f.shade(_cover(chin) * _cover(side - 0.12), 0.18 + 0.2 * frown)


def _develop(canvas: np.ndarray, s: Params, noise: np.ndarray) -> np.ndarray:
    """Effects of a camera: contrast, blur, noise, 8 bits."""
    value = (canvas - 0.5) * s["contrast"] + 0.5 + s["brightness"]
    for axis in (1, 2):
        pad = [(0, 0), (1, 1) if axis == 1 else (0, 0), (1, 1) if axis == 2 else (0, 0)]
        padded = np.pad(value, pad, mode="edge")
        before, after = (padded[:, :-2], padded[:, 2:]) if axis == 1 else (padded[:, :, :-2], padded[:, :, 2:])
        value = value + s["blur"] * 0.25 * (before - 2 * value + after)
    value = value + s["noise"] * noise
    return (np.clip(value, 0, 1) * 255 + 0.5).astype(np.uint8)


def _noise(stream: Sequence[int], start: int, num_images: int) -> np.ndarray:
    """Bell-shaped noise float32 (num_images, SIZE, SIZE) of standard deviation 1. Image i always gets the same."""
    words = SIZE * SIZE // 2
    raw = np.random.PCG64(stream).advance(start * words).random_raw(num_images * words)
    total = np.zeros((num_images * words, 2), np.float32)
    for byte in range(8):
        total[:, byte % 2] += ((raw >> np.uint64(8 * byte)) & np.uint64(255)).astype(np.float32)
    return ((total - 510) * np.float32(1 / 147.8)).reshape(num_images, SIZE, SIZE)


def _paint_faces(identity: Params, actions: Params, scene: Params, noise: np.ndarray) -> np.ndarray:
    i, a, s = ({k: v[:, None, None].astype(np.float32) for k, v in p.items()} for p in (identity, actions, scene))
    i["hair"] = i["hair"] * i["skin"]
    face = _paint_head(i, a, s)
    upper, lower = slice(0, 34), slice(20, SIZE)
    for side, columns in ((-1, slice(0, 36)), (1, slice(12, SIZE))):
        half = face.window(upper, columns, mirror=side < 0)
        _paint_eye(half, i, a, side * a["gaze_x"])
        _paint_brow(half, i, a)
        _paint_glasses(half, i)
    _paint_nose(face.window(slice(12, 40)), i, a)
    _paint_mouth(face.window(lower), i, a)
    return _develop(face.canvas, s, noise)


def draw(
    identity: Params, actions: Params, scene: Params | None = None, noise_stream: Sequence[int] = (0,)
) -> np.ndarray:
    """Faces uint8 (B, SIZE, SIZE); without a scene they are centred, evenly lit and free of noise."""
    num_images = len(identity["width"])
    still = {name: np.zeros(num_images) for name in SCENE} | {
        "scale": np.full(num_images, 0.98),
        "contrast": np.ones(num_images),
        "background": np.full(num_images, 0.8),
    }
    scene = still if scene is None else scene
    actions = {name: np.asarray(actions.get(name, np.zeros(num_images))) for name in ACTIONS}

    def paint(start: int) -> np.ndarray:
        part = slice(start, min(start + CHUNK, num_images))
        params = ({name: values[part] for name, values in p.items()} for p in (identity, actions, scene))
        return _paint_faces(*params, noise=_noise(noise_stream, start, part.stop - start))

    # NumPy releases the interpreter's lock, and chunks are independent of each other.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        return np.concatenate(list(threads.map(paint, range(0, num_images, CHUNK))))


# --- the data set ---------------------------------------------------------------------------------------------------


def _render_split(
    task: str, split: str, num_images: int, images_per_subject: int, seed: int, label_noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and subject numbers. More images do not change the first ones."""

    def stream(purpose: str) -> tuple[int, ...]:
        purposes = ("identity", "resting", "start", "actions", "scene", "noise", "label")
        return seed, list(PROTOTYPES).index(task), SPLITS.index(split), purposes.index(purpose)

    num_classes, image = len(PROTOTYPES[task]), np.arange(num_images)
    subjects, place = image // images_per_subject, image % images_per_subject
    num_subjects = int(subjects[-1]) + 1
    start = (uniforms(stream("start"), num_subjects, 1)[:, 0] * num_classes).astype(int)
    labels = (place + start[subjects]) % num_classes
    identity = {name: trait[subjects] for name, trait in draw_identities(num_subjects, stream("identity")).items()}
    actions = draw_actions(task, labels, subjects, stream("actions"), stream("resting"))
    images = draw(identity, actions, draw_scenes(num_images, stream("scene")), stream("noise"))
    wrong, other = uniforms(stream("label"), num_images, 2).T
    shift = np.where(wrong < label_noise, 1 + (other * (num_classes - 1)).astype(int), 0)
    return images, (labels + shift) % num_classes, subjects


def _check(task: str, sizes: Mapping[str, int], images_per_subject: int, seed: int, label_noise: float) -> None:
    if task not in PROTOTYPES:
        raise ValueError(f"dataset.task={task} is unknown; allowed: {', '.join(PROTOTYPES)}")
    num_classes = len(PROTOTYPES[task])
    counts = {f"num_{split}": size for split, size in sizes.items()} | {"images_per_subject": images_per_subject}
    for name, count in counts.items():
        if not isinstance(count, int) or count < num_classes:
            raise ValueError(
                f"dataset.{name}={count} must be a whole number from {num_classes} up, one image for each class of "
                f"{task}; for example dataset.{name}={20 * num_classes}"
            )
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"dataset.seed={seed} must be a whole number from 0 up; for example dataset.seed=0")
    if not 0 <= label_noise < 1:
        raise ValueError(
            f"dataset.label_noise={label_noise} must be a share from 0 to below 1; for example dataset.label_noise=0.06"
        )


def render(
    task: str = "expression",
    num_train: Images | None = None,
    num_val: Images | None = None,
    num_test: Images | None = None,
    images_per_subject: Count = 20,
    seed: Seed = 0,
    label_noise: Probability | None = None,
) -> Faces:
    """Data set of synthetic faces with official splits by subject.

    task: "expression" has FER-2013's seven classes in FER-2013's order; "engagement" has disengaged and engaged, and
    other people. Every subject has images of all classes. label_noise: share of the labels that name another class
    than the one painted. None means the task's default size (`SIZES`) or share (`LABEL_NOISE`).
    """
    given = zip(SPLITS, (num_train, num_val, num_test), SIZES.get(task, (1, 1, 1)), strict=True)
    sizes = {split: own if size is None else size for split, size, own in given}
    noise = LABEL_NOISE.get(task, 0.0) if label_noise is None else label_noise
    _check(task, sizes, images_per_subject, seed, noise)
    parts = [_render_split(task, split, size, images_per_subject, seed, noise) for split, size in sizes.items()]
    images, labels = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:2])
    people, before = [], 1
    for _, _, subjects in parts:
        people += [f"s{before + number:04d}" for number in subjects]
        before += int(subjects[-1]) + 1
    places = np.concatenate([np.arange(size) % images_per_subject for size in sizes.values()])
    return Faces(
        images=images[:, None],
        labels=labels,
        class_names=tuple(PROTOTYPES[task]),
        subjects=np.array(people),
        splits=np.repeat(list(sizes), list(sizes.values())),
        sources=np.array([f"synthetic/{task}/{who}/{place:06d}" for who, place in zip(people, places, strict=True)]),
        recipe={
            "name": "synthetic",
            "importer": "synthetic",
            "task": task,
            "seed": seed,
            **{f"num_{split}": size for split, size in sizes.items()},
            "images_per_subject": images_per_subject,
            "label_noise": noise,
            "version": VERSION,
        },
    )
