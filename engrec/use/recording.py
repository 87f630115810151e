"""Predictions of many inputs, written while they are made: tables, timelines, copies with boxes, and a description."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from engrec.faces.video import Video, write_video
from engrec.machine.files import atomic_write, check_folder, check_replaceable, write_text
from engrec.machine.progress import progress_bar
from engrec.machine.signals import signals_end_the_run, uninterrupted
from engrec.runs.folder import removed_if_empty
from engrec.use.answers import Seen
from engrec.use.drawing import Sheet, drawn, words
from engrec.use.follow import DETECT_EVERY
from engrec.use.inputs import SIDECAR, Input, listed, read_picture, shown
from engrec.use.limits import NOT_FOR
from engrec.use.predict import Predictor, described
from engrec.use.rows import WINDOW, Columns, Names, Table, Windows, face_rows
from engrec.use.timeline import Timeline

FACES, WINDOWS = "predictions.csv", "predictions_windows.csv"
SHEET = "pictures.png"
MOST_LINES = 10  # answers that are shown in the terminal
TIMELINE, BOXES = "_timeline.png", "_boxes.mp4"
TICK = 0.001  # seconds
MOST_STEM = 180  # bytes of a name, so that it fits with its ending, and while it is being written
Failed = Callable[[str], None]


@dataclass
class Counted:
    """Of one input, or of all pictures. read: pictures or frames; ids: the faces followed; none: pictures or frames
    without a face; small: faces too small to be trusted."""

    input: str
    kind: str
    read: int = 0
    faces: int = 0
    none: int = 0
    small: int = 0
    seconds: float | None = None
    damage: str | None = None
    ids: int = 0

    def add(self, seen: Seen) -> None:
        self.read += 1
        self.faces += len(seen.faces)
        self.none += not seen.faces
        self.small += sum(face.is_small for face in seen.faces)
        self.seconds = seen.seconds
        self.ids = max([self.ids, *(face.face_id + 1 for face in seen.faces)])


@dataclass
class Recorded:
    """What was written. files: below folder; failed: a line for each input that was not read, or not to its end;
    stopped: by Ctrl-C or kill, with the exit status; lost: the copy of a video that was being written then; answers: a
    line for each face in pictures, where there are few."""

    folder: Path
    counted: list[Counted] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    num_rows: int = 0
    stopped: int | None = None
    lost: str | None = None
    answers: list[str] = field(default_factory=list)


def record(
    predictor: Predictor,
    inputs: list[Input],
    folder: Path,
    names: Names = "engrec",
    every: float | None = None,
    boxes: bool = False,
    failed: Sequence[str] = (),
    say: Failed = lambda line: tqdm.write(line, file=sys.stderr),
) -> Recorded:
    """Write predictions of all inputs to the folder. An input that cannot be read is said in one line, and the others
    are read all the same. Where nothing can be read, nothing is written.

    After Ctrl-C or kill, what was complete by then is kept. names: of the columns; every: seconds between the frames of
    a video that are read, None for all; boxes: write a copy of each video with boxes; failed: lines about what was not
    even found, for the description. Raises ValueError for a folder that holds other files.
    """
    ours = check_free(folder, inputs)
    check_folder(folder)
    recording = _Recording(predictor, folder, names, every, boxes, say)
    recording.done.failed += failed
    with removed_if_empty(folder), suppress(_NothingReadError), recording.tables(any(one.is_video for one in inputs)):
        try:
            with signals_end_the_run():
                recording.all_of(inputs)
        except SystemExit as stopped:
            recording.done.stopped = int(stopped.code or 0)
        if not recording.done.num_rows:
            raise _NothingReadError
    if recording.done.num_rows:
        recording.finish(ours)
    return recording.done


def check_free(folder: Path, inputs: Sequence[Input]) -> set[str]:
    """The names in the folder that predictions may replace: those that its description lists, and those that a killed
    run has left of the same inputs. Raises ValueError if it holds anything else, inputs above all."""
    given = {os.path.realpath(one.path) for one in inputs}
    about: set[str] = set()
    for one in (one for one in inputs if one.is_video):
        about |= {_free_name(one, ending, about) for ending in (TIMELINE, BOXES)}
    ours = listed(folder) | about

    def others(folder: Path) -> list[str]:
        return sorted(p.name for p in folder.iterdir() if p.name not in ours or os.path.realpath(p) in given)

    check_replaceable(folder, others)
    return ours


def _free_name(one: Input, ending: str, taken: Collection[str]) -> str:
    """For a file about a video: with a number where two videos are called alike."""
    stem = os.fsencode(one.path.stem)[:MOST_STEM].decode(errors="ignore")
    names = (f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}" for number in count(1))
    return next(name for name in names if name not in taken)


class _NothingReadError(Exception):
    """No input could be read: the tables are left unwritten."""


class _Recording:
    """The state of `record`."""

    def __init__(
        self, predictor: Predictor, folder: Path, names: Names, every: float | None, boxes: bool, say: Failed
    ) -> None:
        self.predictor, self.folder, self.every, self.boxes, self.say = predictor, folder, every, boxes, say
        self.columns = Columns(predictor.answerer, names)
        self.done = Recorded(folder)
        self.pictures = Counted("pictures", "picture")
        self.sheet = Sheet()
        self.faces: Table | None = None
        self.windows: Table | None = None

    @contextmanager
    def tables(self, has_video: bool) -> Iterator[None]:
        """The files to which rows are written; they appear under their names when the block is left."""
        with ExitStack() as files:
            self.faces = Table(files.enter_context(atomic_write(self.folder / FACES)), self.columns.of_faces)
            self.done.files.append(FACES)
            if has_video:
                file = files.enter_context(atomic_write(self.folder / WINDOWS))
                self.windows = Table(file, self.columns.of_windows)
                self.done.files.append(WINDOWS)
            yield

    def all_of(self, inputs: list[Input]) -> None:
        for are_videos, group in groupby(inputs, key=lambda one: one.is_video):
            if are_videos:
                for one in group:
                    self._video(one)
            else:
                self._photographs(list(group))

    def _photographs(self, inputs: list[Input]) -> None:
        if self.pictures not in self.done.counted:
            self.done.counted.append(self.pictures)
        paths = {one.name: one.path for one in inputs}
        with progress_bar(None, "pictures", "pictures", len(inputs)) as bar:
            for seen in self.predictor.pictures(self._opened(inputs, bar)):
                self.pictures.add(seen)
                self.sheet.add(paths[seen.source], seen)
                if len(self.done.answers) <= MOST_LINES:
                    self.done.answers += [f"{seen.source}: {', '.join(words(face))}" for face in seen.faces]
                self._write(face_rows(seen, self.columns))

    def _opened(self, inputs: list[Input], bar: tqdm[Any]) -> Iterator[tuple[str, Image.Image]]:
        for one in inputs:
            try:
                yield one.name, read_picture(one.path)
            except ValueError as error:
                self._fail(one, error)
            bar.update()

    def _video(self, one: Input) -> None:
        counted = Counted(one.name, "video", ids=0)
        windows = Windows(one.name, self.predictor.answerer, self.columns)
        timeline = Timeline(shown(Path(one.path.name)), self.predictor.answerer)
        try:
            with Video(one.path) as video:
                self._watch(one, video, counted, windows, timeline)
                counted.damage = video.damage
        except ValueError as error:
            counted.damage = str(error)
        finally:  # also after Ctrl-C
            if counted.read:
                self._end_of_video(one, counted, windows, timeline)
        if counted.damage:
            self._fail(one, ValueError(counted.damage))

    def _watch(self, one: Input, video: Video, counted: Counted, windows: Windows, timeline: Timeline) -> None:
        """Write the rows of a video as it is read, and its copy."""
        total = video.num_frames
        if self.every is not None:
            total = None if video.duration is None else int(video.duration / self.every) + 1
        with progress_bar(None, one.path.name, "frames", total) as bar:
            frames = self.predictor.frames(one.name, video.frames(self.every), self.boxes)
            recorded = self._recorded(frames, counted, windows, timeline, bar)
            if self.boxes:
                self.done.lost = name = _free_name(one, BOXES, self.done.files)
                write_video(self.folder / name, with_boxes(recorded), rate=None)
                self.done.lost = None
                self.done.files.append(name)
            else:
                deque(recorded, maxlen=0)

    def _recorded(
        self, frames: Iterator[Seen], counted: Counted, windows: Windows, timeline: Timeline, bar: tqdm[Any]
    ) -> Iterator[Seen]:
        """The same frames, of which each is written before it is handed on."""
        for seen in frames:
            counted.add(seen)
            timeline.add(seen)
            self._write(face_rows(seen, self.columns), windows.add(seen))
            bar.update()
            yield seen

    def _end_of_video(self, one: Input, counted: Counted, windows: Windows, timeline: Timeline) -> None:
        self.done.counted.append(counted)
        self._write([], windows.finished())
        name = _free_name(one, TIMELINE, self.done.files)
        if timeline.write(self.folder / name):
            self.done.files.append(name)

    def _write(self, rows: list[list[Any]], of_windows: list[list[Any]] | None = None) -> None:
        """Complete rows of a picture or frame, whenever the user presses Ctrl-C."""
        assert self.faces is not None
        with uninterrupted():
            self.faces.write(rows)
            self.done.num_rows += len(rows)
            if of_windows:
                assert self.windows is not None
                self.windows.write(of_windows)

    def _fail(self, one: Input, error: Exception) -> None:
        """Say what is wrong with an input, by the path that was given."""
        reason = str(error)
        names = [name for name in (one.name, str(one.path), one.path.name) if reason.startswith(f"{name} ")]
        line = f"{one.name} {reason.removeprefix(names[0]).lstrip()}" if names else f"{one.name}: {reason}"
        self.done.failed.append(line)
        self.say(f"error: {line}")

    def finish(self, ours: set[str]) -> None:
        """Write what describes the tables, and remove the files of earlier predictions (ours) that were not written
        again."""
        if self.windows is not None and not self.windows.num_rows:  # of all videos none could be read
            self.done.files.remove(WINDOWS)
        if self.sheet.write(self.folder / SHEET):
            self.done.files.append(SHEET)
        if len(self.done.answers) > MOST_LINES:
            self.done.answers = []
        self.done.files.append(SIDECAR)
        write_text(self.folder / SIDECAR, json.dumps(self.about(), indent=2) + "\n")
        old = (ours | {WINDOWS}) - set(self.done.files)
        for path in self.folder.iterdir():
            if path.name in old:
                path.unlink()

    def about(self) -> dict[str, Any]:
        """The sidecar: what the tables were made from, with what, and what they must not be used for."""
        of_videos = {
            "seconds_between_detections": DETECT_EVERY,
            "seconds_between_frames": self.every,
            "window_seconds": WINDOW,
        }
        return {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": self.done.stopped is None and not self.done.failed,
            **described(self.predictor.networks, of_videos),
            "files": self.done.files,
            "inputs": [asdict(one) for one in self.done.counted],
            "unreadable": self.done.failed,
            "rows": self.done.num_rows,
        }


def with_boxes(frames: Iterable[Seen]) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and picture of each frame, and on it what it is not for. Two frames of a broken file may have one time,
    which no video can store."""
    last = -TICK
    for seen in frames:
        last = max(seen.seconds or 0.0, last + TICK)
        yield last, drawn(seen, NOT_FOR)
