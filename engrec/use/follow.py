"""Pictures and frames with the faces in them: detected ten times a second, interpolated in between."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engrec.faces.detect import Face
from engrec.faces.track import Tracker, is_cut

DETECT_EVERY = 0.1  # seconds: every third frame of 30 a second. Tracks of 10 and of 30 detections a second are as good
ROUNDING = 0.005  # seconds; timestamps of some formats are whole milliseconds
MOST_BETWEEN = 5  # frames between two that are detected, whatever their timestamps are

Detect = Callable[[np.ndarray], list[Face]]


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture, or a frame of a video. number: of the frame, from 0; seconds: its timestamp, None for a picture; rgb:
    uint8 (H, W, 3), None once it is dropped; faces: each with its id, which in a video is that of its track."""

    number: int
    seconds: float | None
    rgb: np.ndarray | None
    faces: tuple[tuple[int, Face], ...]


def followed(frames: Iterable[tuple[float, np.ndarray]], detect: Detect, tracker: Tracker) -> Iterator[Shot]:
    """Every frame of a video, in order, with its faces. frames: timestamp and rgb uint8 (H, W, 3) of each.

    Where a face is detected in one frame and again in the next that is detected, its box is interpolated in the frames
    between. The frames before and after a cut are detected too, so that no box is interpolated across it.
    """
    followed = _Followed(detect, tracker)
    before: np.ndarray | None = None
    for number, (seconds, rgb) in enumerate(frames):
        if before is not None and is_cut(before, rgb):
            yield from followed.ended()
            tracker.cut()
        yield from followed.shots(Shot(number, seconds, rgb, ()))
        before = rgb
    yield from followed.ended()


class _Followed:
    """The frames that wait for the next detection, which are few."""

    def __init__(self, detect: Detect, tracker: Tracker) -> None:
        self.detect, self.tracker = detect, tracker
        self.last: Shot | None = None  # the last that was detected, since the last cut
        self.waiting: list[Shot] = []

    def shots(self, frame: Shot) -> list[Shot]:
        """Those that are complete with this frame."""
        if self.last is None or self._is_due(frame, self.last):
            return self._detected(frame)
        self.waiting.append(frame)
        return []

    def ended(self) -> list[Shot]:
        """Those that still wait at a cut, or at the end."""
        shots = self._detected(self.waiting.pop()) if self.waiting else []
        self.last = None
        return shots

    def _is_due(self, frame: Shot, last: Shot) -> bool:
        passed = _seconds(frame) - _seconds(last)
        # A clock that goes backwards tells nothing.
        return not 0 <= passed < DETECT_EVERY - ROUNDING or len(self.waiting) >= MOST_BETWEEN

    def _detected(self, frame: Shot) -> list[Shot]:
        assert frame.rgb is not None
        found = self.detect(frame.rgb)
        ids = self.tracker(found, _seconds(frame))
        shot = Shot(frame.number, frame.seconds, frame.rgb, tuple(zip(ids, found, strict=True)))
        between = [interpolated(self.last, one, shot) for one in self.waiting if self.last is not None]
        self.last, self.waiting = shot, []
        return [*between, shot]


def _seconds(shot: Shot) -> float:
    assert shot.seconds is not None
    return shot.seconds


def interpolated(before: Shot, frame: Shot, after: Shot) -> Shot:
    """The frame with the faces that are in both others, which were detected."""
    span = _seconds(after) - _seconds(before)
    share = (_seconds(frame) - _seconds(before)) / span if span > 0 else 0.5
    there = dict(after.faces)
    faces = [(track, mixed(face, there[track], share)) for track, face in before.faces if track in there]
    return Shot(frame.number, frame.seconds, frame.rgb, tuple(faces))


def mixed(one: Face, other: Face, share: float) -> Face:
    """The face at `share` of the way from one to the other."""

    def mix(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
        return tuple((1 - share) * x + share * y for x, y in zip(a, b, strict=True))

    box, (score,) = mix(one.box, other.box), mix([one.score], [other.score])
    if one.landmarks is None or other.landmarks is None:
        return Face(box, score, None)  # pyright: ignore[reportArgumentType]
    points = tuple(mix(a, b) for a, b in zip(one.landmarks, other.landmarks, strict=True))
    return Face(box, score, points)  # pyright: ignore[reportArgumentType]
