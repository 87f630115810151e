"""The frames of a video with the face of one person: the one who is seen longest and largest. Nobody is recognised."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engrec.faces.detect import Face
from engrec.faces.track import GAP, Tracker, is_cut

CANDIDATES = 5  # faces of a frame, the largest ones, of which one may be taken


@dataclass(frozen=True)
class Frame:
    """A frame of a video. seconds: its timestamp; width, height: pixels; num_faces: found in it. Of the person's face:
    its number in the video, itself, and its crop, uint8 (C, size, size); all None in a frame without it."""

    seconds: float
    width: int
    height: int
    num_faces: int
    number: int | None = None
    face: Face | None = None
    image: np.ndarray | None = None


def frames_of_one_person(
    frames: Iterable[tuple[float, np.ndarray]],
    every: float,
    detect: Callable[[np.ndarray], list[Face]],
    crop: Callable[[np.ndarray, Face], np.ndarray],
) -> list[Frame]:
    """All frames, in order, with the face of one person. frames: timestamp and rgb uint8 (H, W, 3) of each; every:
    seconds between them.

    Whoever is seen beside that person is somebody else. A face that was out of sight for longer has another number, and
    may be the same person's.
    """
    tracker = Tracker(max(GAP, 2.5 * every))  # a face that is missed in one frame is still the same in the next
    seen: list[tuple[Frame, dict[int, Frame]]] = []
    before = None
    for seconds, rgb in frames:
        if before is not None and is_cut(before, rgb):
            tracker.cut()
        before, faces = rgb, sorted(detect(rgb), key=lambda face: face.px, reverse=True)
        frame = Frame(seconds, rgb.shape[1], rgb.shape[0], len(faces))
        numbered = list(zip(tracker(faces, seconds), faces, strict=True))[:CANDIDATES]
        seen.append((frame, {n: replace(frame, number=n, face=face, image=crop(rgb, face)) for n, face in numbered}))
    person = _person([faces for _, faces in seen])
    return [next((faces[number] for number in faces if number in person), frame) for frame, faces in seen]


def _person(seen: Sequence[dict[int, Frame]]) -> set[int]:
    """The numbers that may be one person's, as no two are seen in one frame: those of the largest sum of sizes first.
    seen: the faces of each frame by number."""
    sizes = Counter[int]()
    for faces in seen:
        sizes.update({number: one.face.px for number, one in faces.items() if one.face is not None})
    kept = set[int]()
    for number, _ in sizes.most_common():
        if not any(number in faces and kept & faces.keys() for faces in seen):
            kept.add(number)
    return kept
