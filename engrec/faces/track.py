"""Which faces of successive frames are one person's, by place and time. Nobody is recognised: who is away for longer
than `gap`, and from the frame before too, gets a new number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from engrec.faces.detect import Face

SIDES = 1.0  # a face may be this far from where it is expected, in sides of its box
INERTIA = 0.5  # seconds in which a velocity is forgotten: shorter ones follow the noise of the boxes
STRAIGHT = 0.2  # seconds that an unseen face is expected to keep its velocity: people sway, so longer guesses are worse
FAR = 1e3  # the cost of a pair that cannot be
GAP = 1.5  # seconds, after which a face that comes back counts as another one
CUT = 0.45  # share of the pixels that are of another colour after a cut; a dimmed light changes 0.4


@dataclass
class _Track:
    """Centre and size of a face when it was last seen, in pixels; velocity in pixels a second."""

    number: int
    box: np.ndarray  # x, y of the centre, width, height
    seconds: float
    velocity: np.ndarray

    def at(self, seconds: float) -> np.ndarray:
        """The box expected at that time."""
        passed = min(seconds - self.seconds, STRAIGHT)
        return self.box + np.append(self.velocity * passed, [0.0, 0.0])

    def move(self, box: np.ndarray, seconds: float) -> None:
        if seconds > self.seconds:
            passed = seconds - self.seconds
            kept = math.exp(-passed / INERTIA)
            self.velocity = kept * self.velocity + (1 - kept) * (box[:2] - self.box[:2]) / passed
        self.box, self.seconds = box, seconds


class Tracker:
    """Numbers from 0 for the faces of each frame: the same number for as long as a face is seen again within `gap`
    seconds, so that the rate of the video does not matter, or in the very next frame, however late that is."""

    def __init__(self, gap: float = GAP) -> None:
        self.gap = gap
        self.tracks: list[_Track] = []
        self.next = 0
        self.before = 0.0  # seconds of the frame before

    def __call__(self, faces: Sequence[Face], seconds: float) -> list[int]:
        """One number for each face of the frame at that time, which must not be before the last one."""
        oldest = min(seconds - self.gap, self.before)
        self.tracks, self.before = [track for track in self.tracks if track.seconds >= oldest], seconds
        boxes = [np.array([x + width / 2, y + height / 2, width, height]) for x, y, width, height in _boxes(faces)]
        found = self._match(boxes, seconds)
        for index, box in enumerate(boxes):
            if index in found:
                found[index].move(box, seconds)
            else:
                found[index] = _Track(self.next, box, seconds, np.zeros(2))
                self.tracks.append(found[index])
                self.next += 1
        return [found[index].number for index in range(len(boxes))]

    def cut(self) -> None:
        """All tracks end: the next frame shows something else."""
        self.tracks = []

    def _match(self, boxes: Sequence[np.ndarray], seconds: float) -> dict[int, _Track]:
        """Index of a box to its track, so that all together cost least; no pair that is too far apart."""
        if not boxes or not self.tracks:
            return {}
        pairs = [[_cost(track.at(seconds), box) for box in boxes] for track in self.tracks]
        rows, columns = linear_sum_assignment(np.array(pairs))
        near = [(row, column) for row, column in zip(rows, columns, strict=True) if pairs[row][column] < FAR]
        return {int(column): self.tracks[row] for row, column in near}


def _cost(expected: np.ndarray, box: np.ndarray) -> float:
    """Distance of the centres in sides, plus the logarithm of the ratio of the sides, less the overlap."""
    sides = expected[2:].max(), box[2:].max()
    distance = float(np.hypot(*(expected[:2] - box[:2])) / np.mean(sides))
    if distance > SIDES:
        return FAR
    return distance + abs(float(np.log(sides[0] / sides[1]))) - _overlap(expected, box)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(one[2:].prod() + other[2:].prod() - shared)


def _boxes(faces: Sequence[Face]) -> list[tuple[float, ...]]:
    return [(x, y, max(width, 1.0), max(height, 1.0)) for x, y, width, height in (face.box for face in faces)]


def is_cut(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two successive frames (H, W, 3), uint8, show different scenes: their histograms differ, or their sizes.

    A camera or a person that moves changes what is where, but hardly how much there is of each colour.
    """
    return before.shape != now.shape or float(np.abs(_histogram(before) - _histogram(now)).sum() / 2) > CUT


def _histogram(frame: np.ndarray) -> np.ndarray:
    """Share of the pixels in each of 4 × 4 × 4 colours; of large frames, 64 rows and columns will do."""
    down, across = (max(1, side // 64) for side in frame.shape[:2])
    steps = frame[::down, ::across] >> 6
    colours = 16 * steps[..., 0] + 4 * steps[..., 1] + steps[..., 2]
    return np.bincount(colours.ravel(), minlength=64) / colours.size
