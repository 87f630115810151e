"""A film of two synthetic faces whose expressions change, to try engrec on a video without anybody's face."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from engrec.datasets.synthetic import ACTIONS, PROTOTYPES, draw, draw_identities

RATE = 15  # frames a second
SECONDS = 60
CHANGE = 1.2  # seconds from one expression to the next
SIDE, SIZE, PAPER = 250, (640, 360), (204, 204, 204)
# From which second on which expression; None: the face is away.
Plan = Sequence[tuple[float, str | None]]
LEFT: Plan = (
    (0, "surprise"), (9, "happy"), (22, "surprise"), (28, "happy"), (44, "fear"), (50, "surprise"), (55, "happy"),
)  # fmt: skip
RIGHT: Plan = (
    (0, "sad"), (6, "happy"), (14, "surprise"), (20, "fear"), (26, None), (31, "happy"), (40, "surprise"), (46, "sad"),
    (52, "happy"),
)  # fmt: skip


def film(seconds: float = SECONDS) -> Iterator[np.ndarray]:
    """Frames uint8 (360, 640, 3), RATE a second; the same each time."""
    people = [(draw_identities(1, (2, 1)), LEFT, 45), (draw_identities(1, (0, 1)), RIGHT, 345)]
    for number in range(round(seconds * RATE)):
        time = number / RATE
        frame = Image.new("RGB", SIZE, PAPER)
        for identity, plan, left in people:
            if (actions := acted(plan, time)) is not None:
                actions["yaw"] = actions["yaw"] + 0.15 * math.sin(0.9 * time + left)
                face = Image.fromarray(draw(identity, actions)[0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                x, y = left + 10 * math.sin(0.7 * time + left), 60 + 6 * math.cos(0.5 * time + left)
                frame.paste(face, (round(x), round(y)))
        yield np.asarray(frame)


def acted(plan: Plan, time: float) -> dict[str, np.ndarray] | None:
    """The actions of a face at that second, each (1,); None where it is away."""
    steps = [(start, before, now) for (_, before), (start, now) in pairwise([plan[0], *plan]) if start <= time]
    start, before, now = steps[-1]
    if now is None:
        return None
    share = min(1.0, (time - start) / CHANGE)
    old, new = _units(before), _units(now)
    return {name: np.full(1, (1 - share) * old[name] + share * new[name]) for name in ACTIONS}


def _units(expression: str | None) -> dict[str, float]:
    shown = PROTOTYPES["expression"][expression or "neutral"][0]
    return {name: shown.get(name, 0.0) for name in ACTIONS}
