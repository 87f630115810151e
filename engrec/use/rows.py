"""Predictions as tables: one row for each face and frame, and one for each face and window of ten seconds.

frame, timestamp, face_id, success and confidence are named as in OpenFace, input and the box as in py-feat;
names="py-feat" renames the others where py-feat has a name.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np

from engrec.use.answers import Answerer, Seen, SeenFace

WINDOW = 10.0  # seconds: the unit that DAiSEE and EngageNet label
Names = Literal["engrec", "py-feat"]
FACE = (
    "input", "frame", "timestamp", "face_id", "success", "confidence",
    "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "face_px", "roll",
)  # fmt: skip
OF_WINDOW = ("input", "face_id", "start", "end", "seconds", "share")
PY_FEAT = {
    "timestamp": "approx_time", "face_id": "Identity", "confidence": "FaceScore",
    "angry": "anger", "happy": "happiness", "sad": "sadness",
}  # fmt: skip


class Columns:
    """What the columns are called. Classes are called as they are, unless two networks, or a network and another
    column, would have the same: then the name of the network comes first."""

    def __init__(self, answerer: Answerer, names: Names = "engrec") -> None:
        self.names = names
        classes = [network.class_names for network in answerer.networks]
        bare = [self._named(name) for names in classes for name in names]
        taken = {*FACE, *OF_WINDOW, *map(self._named, (*FACE, *OF_WINDOW)), "prediction"}
        clash = len(set(bare)) < len(bare) or taken & set(bare) or any(name.startswith("smoothed_") for name in bare)
        prefixes = [f"{name}_" if clash else "" for name in answerer.names]
        self.classes = [
            [f"{prefix}{self._named(name)}" for name in names] for prefix, names in zip(prefixes, classes, strict=True)
        ]
        self.predictions = self._predictions(answerer)

    def _predictions(self, answerer: Answerer) -> list[str]:
        """Of one network prediction, of several prediction_TASK, or prediction_NAME where two have the same task."""
        tasks = [network.task for network in answerer.networks]
        if len(tasks) == 1:
            return ["prediction"]
        return [f"prediction_{one}" for one in (tasks if len(set(tasks)) == len(tasks) else answerer.names)]

    def _named(self, name: str) -> str:
        return PY_FEAT.get(name, name) if self.names == "py-feat" else name

    def label(self, name: str) -> str:
        """A class as it is written in the column of predictions."""
        return self._named(name)

    @property
    def of_faces(self) -> list[str]:
        smoothed = [f"smoothed_{name}" for own in self.classes for name in own]
        return [*map(self._named, FACE), *self._answers, *smoothed]

    @property
    def of_windows(self) -> list[str]:
        return [*map(self._named, OF_WINDOW), *self._answers]

    @property
    def _answers(self) -> list[str]:
        return [column for k, own in enumerate(self.classes) for column in (*own, self.predictions[k])]


class Table:
    """A CSV that is written row by row. Rows are counted."""

    def __init__(self, file: IO[str], header: Sequence[str]) -> None:
        self.writer, self.num_rows = csv.writer(file, lineterminator="\n"), 0
        self.writer.writerow(header)

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self.writer.writerow(row)
            self.num_rows += 1


def face_rows(seen: Seen, columns: Columns) -> list[list[Any]]:
    """A row for each face, or one with success 0 and empty cells: no face is no answer, not an answer of zeros."""
    start = [seen.source, seen.number, "" if seen.seconds is None else f"{seen.seconds:.3f}"]
    if not seen.faces:
        empty = len(columns.of_faces) - len(start) - 2
        return [[*start, "", 0, *[""] * empty]]
    return [[*start, *_face(face, columns)] for face in seen.faces]


def _face(face: SeenFace, columns: Columns) -> Iterator[Any]:
    yield from (face.face_id, 1, f"{face.confidence:.3f}")
    yield from (f"{value:.1f}" for value in (*face.box, face.face_px, face.roll))
    for answer in face.answers:
        yield from (f"{p:.4f}" for p in answer.probabilities.values())
        yield columns.label(answer.label)
    for answer in face.answers:
        smoothed = answer.smoothed
        yield from ("" if smoothed is None else f"{smoothed[name]:.4f}" for name in answer.probabilities)


@dataclass
class _Sum:
    """Of one face in one window."""

    num_frames: int = 0
    totals: list[np.ndarray] = field(default_factory=list)

    def add(self, face: SeenFace) -> None:
        rows = [np.array(list(answer.probabilities.values())) for answer in face.answers]
        self.totals = [total + row for total, row in zip(self.totals, rows, strict=True)] if self.totals else rows
        self.num_frames += 1


class Windows:
    """Rows for the windows of one video: means of each face over ten seconds, of the frames in which it was seen.

    Only the current window is kept.
    """

    def __init__(self, source: str, answerer: Answerer, columns: Columns, seconds: float = WINDOW) -> None:
        self.source, self.answerer, self.columns, self.seconds = source, answerer, columns, seconds
        self.number, self.num_frames, self.last = 0, 0, 0.0
        self.faces: dict[int, _Sum] = {}

    def add(self, seen: Seen) -> list[list[Any]]:
        """Take a frame; returns the rows of the window before, if this frame begins another."""
        seconds = seen.seconds or 0.0
        number = int(seconds // self.seconds)
        rows = self._rows((self.number + 1) * self.seconds) if number != self.number else []
        self.number, self.last = number, seconds
        self.num_frames += 1
        for face in seen.faces:
            self.faces.setdefault(face.face_id, _Sum()).add(face)
        return rows

    def finished(self) -> list[list[Any]]:
        """The rows of the last window of the video, which ends with the timestamp of the last frame."""
        return self._rows(max(self.last, self.number * self.seconds))

    def _rows(self, end: float) -> list[list[Any]]:
        """The rows of the window that has ended. One without faces has a row of empty cells."""
        if not self.num_frames:
            return []
        start = self.number * self.seconds
        rows = [self._row(start, end, track, self.faces[track]) for track in sorted(self.faces)]
        if not rows:
            empty = len(self.columns.of_windows) - len(OF_WINDOW)
            rows = [[self.source, "", f"{start:.3f}", f"{end:.3f}", "0.000", "0.000", *[""] * empty]]
        self.num_frames, self.faces = 0, {}
        return rows

    def _row(self, start: float, end: float, track: int, of_face: _Sum) -> list[Any]:
        share = of_face.num_frames / self.num_frames
        row = [self.source, track, f"{start:.3f}", f"{end:.3f}", f"{share * (end - start):.3f}", f"{share:.3f}"]
        for network, total in zip(self.answerer.networks, of_face.totals, strict=True):
            means = total / of_face.num_frames
            row += [f"{p:.4f}" for p in means]
            row.append(self.columns.label(network.class_names[int(means.argmax())]))
        return row
