"""What networks say of faces: typed answers for each face, and the same for a stream of pictures or frames."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from engrec.faces.crop import SMALL, crop
from engrec.faces.detect import Face
from engrec.use.follow import Shot
from engrec.use.network import BATCH_SIZE, Network, names_of

TIME_CONSTANT = 1.0  # seconds of the exponential smoothing
FEW = 8  # pictures that wait for a batch where their pixels are kept
FORGOTTEN = 10.0  # seconds after which the smoothed probabilities of a face are dropped; its track ended long before


@dataclass(frozen=True)
class Answer:
    """What one network says of one face. probabilities: of each class, sum 1; smoothed: the same over the last second
    or so of this face in a video, None in a photograph."""

    network: str
    task: str
    probabilities: dict[str, float]
    smoothed: dict[str, float] | None = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """Of the most probable class."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class SeenFace:
    """One face in one picture, or in one frame of a video.

    source: the path, or the number of an array; frame: of the video, from 0; seconds: its timestamp, None in a picture;
    face_id: of the face in its picture or, in a video, of its track; box: x, y, width and height in pixels; confidence:
    of the detector, 1 for a box that was given; face_px: longer side of the box; roll: degrees by which the head leans,
    0 where the eyes are not known; answers: one for each network.
    """

    source: str
    frame: int
    seconds: float | None
    face_id: int
    box: tuple[float, float, float, float]
    confidence: float
    face_px: float
    roll: float
    answers: tuple[Answer, ...]

    @property
    def is_small(self) -> bool:
        """Whether the face has too few pixels for an answer to be trusted."""
        return self.face_px < SMALL

    @property
    def expression(self) -> Answer | None:
        """What the first network for expressions says."""
        return self._first("expression")

    @property
    def engagement(self) -> Answer | None:
        """What the first network for engagement says."""
        return self._first("engagement")

    def _first(self, task: str) -> Answer | None:
        return next((answer for answer in self.answers if answer.task == task), None)


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture or frame with what was said of its faces. crops: of each face, as the first network saw it, uint8
    (C, H, W); rgb: the picture itself, uint8 (H, W, 3), where it was asked for."""

    source: str
    number: int
    seconds: float | None
    faces: tuple[SeenFace, ...]
    crops: tuple[np.ndarray, ...]
    rgb: np.ndarray | None = None


class Smoother:
    """Exponentially weighted means of probabilities, by timestamps, so that the frame rate does not matter."""

    def __init__(self, time_constant: float = TIME_CONSTANT) -> None:
        self.time_constant = time_constant
        self.states: dict[int, tuple[float, list[np.ndarray]]] = {}

    def __call__(self, track: int, seconds: float, probabilities: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Those of each network, for a face; frames of a track come in their order."""
        if track in self.states:
            before, means = self.states[track]
            weight = 1 - math.exp(-max(0.0, seconds - before) / self.time_constant)
            means = [mean + weight * (p - mean) for mean, p in zip(means, probabilities, strict=True)]
        else:
            means = [np.asarray(p) for p in probabilities]
        self.states[track] = (seconds, means)
        return means

    def forget(self, seconds: float) -> None:
        """Drop the faces that were last seen long before: a day of video has many."""
        self.states = {k: state for k, state in self.states.items() if seconds - state[0] <= FORGOTTEN}


Crops = dict[tuple[int, str], list[np.ndarray]]  # of a shot's faces, by size and colour


class Answerer:
    """Networks at work on shots: crops of several pictures or frames are gathered to a batch."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks, self.names = list(networks), names_of(networks)

    @cached_property
    def kinds(self) -> list[tuple[int, str]]:
        """Sizes and colours of the crops that the networks take, each once."""
        return list(dict.fromkeys((network.size, network.colour) for network in self.networks))

    def __call__(
        self, shots: Iterable[tuple[str, Shot]], keep: bool = False, at_once: int = BATCH_SIZE
    ) -> Iterator[Seen]:
        """The same pictures or frames, in their order, with answers. shots: with the name of their source; of a video,
        no others. keep: hand on their pixels too, which otherwise are dropped as soon as the faces are cropped.
        at_once: the most that wait for each other."""
        smoother, most = Smoother(), min(at_once, FEW if keep else BATCH_SIZE)
        waiting: list[tuple[str, Shot, Crops]] = []
        for source, shot in shots:
            crops = self._crops(shot)
            waiting.append((source, shot if keep else replace(shot, rgb=None), crops))
            del shot
            if len(waiting) >= most or sum(len(one.faces) for _, one, _ in waiting) >= BATCH_SIZE:
                yield from self._answered(waiting, smoother)
                waiting = []
        yield from self._answered(waiting, smoother)

    def _answered(self, waiting: list[tuple[str, Shot, Crops]], smoother: Smoother) -> Iterator[Seen]:
        rows = [self._probabilities(network, [crops for _, _, crops in waiting]) for network in self.networks]
        start = 0
        for source, shot, crops in waiting:
            faces = [
                self._face(source, shot, number, [p[start + number] for p in rows], smoother)
                for number in range(len(shot.faces))
            ]
            yield Seen(source, shot.number, shot.seconds, tuple(faces), tuple(crops[self.kinds[0]]), shot.rgb)
            start += len(shot.faces)
            if shot.seconds is not None:
                smoother.forget(shot.seconds)

    def _crops(self, shot: Shot) -> Crops:
        assert shot.rgb is not None
        return {kind: [crop(shot.rgb, face, *kind) for _, face in shot.faces] for kind in self.kinds}

    def _probabilities(self, network: Network, crops: list[Crops]) -> np.ndarray:
        own = [one for of_shot in crops for one in of_shot[network.size, network.colour]]
        return network(np.stack(own)) if own else np.empty((0, len(network.class_names)), np.float32)

    def _face(self, source: str, shot: Shot, number: int, rows: list[np.ndarray], smoother: Smoother) -> SeenFace:
        track, face = shot.faces[number]
        smooth = None if shot.seconds is None else smoother(track, shot.seconds, rows)
        return SeenFace(
            source=source,
            frame=shot.number,
            seconds=shot.seconds,
            face_id=track,
            box=face.box,
            confidence=face.score,
            face_px=face.px,
            roll=face.roll,
            answers=tuple(
                Answer(
                    self.names[k],
                    network.task,
                    _named(network, rows[k]),
                    None if smooth is None else _named(network, smooth[k]),
                )
                for k, network in enumerate(self.networks)
            ),
        )


def _named(network: Network, probabilities: np.ndarray) -> dict[str, float]:
    return dict(zip(network.class_names, probabilities.tolist(), strict=True))


def given_faces(boxes: Sequence[Sequence[float]], width: int, height: int) -> list[Face]:
    """Faces in boxes of one's own, x, y, width and height in pixels of the picture. Raises ValueError for a box that
    cannot be cropped."""
    faces = []
    for box in boxes:
        if not hasattr(box, "__len__") or len(box) != 4:
            raise ValueError(f"a box must be x, y, width and height in pixels, in a list of boxes; found {box}")
        x, y, w, h = map(float, box)
        face = Face((x, y, w, h))
        if problem := face.problem(width, height):
            raise ValueError(problem)
        faces.append(face)
    return faces
