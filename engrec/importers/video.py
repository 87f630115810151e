"""Videos with one label each: frames by time, the face of one person in each, its crop. One image a frame."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engrec.faces.crop import Crop, crop
from engrec.faces.detect import Detector
from engrec.faces.person import Frame, frames_of_one_person
from engrec.faces.video import Video, is_video, pyav
from engrec.importers import files, table
from engrec.machine.gpus import cores
from engrec.machine.progress import progress_bar

DETECT_SIZE = 320  # pixels of the longer side: a face in front of a webcam is large
SUBJECT = re.compile(r"subject_([^_]+)_")  # in names such as subject_7_as2uk9lhe2_vid_0_0.mp4
NAMED = 5  # of those that are left out, so many by name


@dataclass(frozen=True)
class Clip:
    """A labelled video. name: its file's without folder and suffix; label: the index of its class; split: the official
    one, None without."""

    path: Path
    name: str
    label: int
    subject: str
    split: str | None


@dataclass
class _Seen:
    """What one clip shows: its frames, those without the person's face too; what is wrong with it."""

    clip: Clip
    codec: str = ""
    frames: list[Frame] = field(default_factory=list)
    problem: str = ""

    @property
    def taken(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.image is not None]


def find(source: Path) -> dict[str, Path]:
    """The videos of a folder and its subfolders by their names without folder and suffix, sorted by path.

    Raises ValueError if the folder has none, or two of one name.
    """
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder: give the unpacked folder of the data set")
    videos: dict[str, Path] = {}
    for path in _walk(source):
        if is_video(path.name):
            first = videos.setdefault(path.stem, path)
            if first is not path:
                one, other = (file.relative_to(source).as_posix() for file in (first, path))
                raise ValueError(f"{source.name} has the video {path.stem} twice, as {one} and {other}: remove one")
    if not videos:
        raise ValueError(f"{source.name} contains no videos: give the unpacked folder of the data set")
    return videos


def tables(source: Path, suffixes: Sequence[str] = (".csv", ".xlsx")) -> list[Path]:
    """The label files of a folder and its subfolders: tables with "label" in their names."""
    found = [path for path in _walk(source) if path.suffix.lower() in suffixes and "label" in path.name.lower()]
    if not found:
        raise ValueError(f"{source.name} contains no label file (*label*{' or *label*'.join(suffixes)}): add it")
    return found


def _walk(source: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(folder, name).is_file():
                yield Path(folder, name)


def labels_of(paths: Iterable[Path], names: Sequence[str], label: str) -> dict[str, tuple[str, str]]:
    """Name of a video to label and its place, from some tables. names: what the column with the videos may be called;
    label: the column with the labels.

    Videos are named without suffix, as data sets name .avi what is .mp4. Raises ValueError where two rows differ.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        columns = table.columns(path)
        column = next((name for name in names if name in columns), names[0])
        for where, row in table.read(path, (column, label)):
            _add_label(found, row[column], row[label], where)
    return found


def _add_label(found: dict[str, tuple[str, str]], clip: str, label: str, where: str) -> None:
    name = Path(clip.replace("\\", "/")).name
    name = Path(name).stem if is_video(name) else name
    if not name or not label:
        raise ValueError(f"{where} lacks a name or a label: fill it in, or delete the row")
    before = found.setdefault(name, (label, where))
    if before[0] != label:
        raise ValueError(f"{where} gives {name} the label {label}, but {before[1]} gives {before[0]}: correct one")


def parts_below_split(path: Path, source: Path) -> tuple[str | None, tuple[str, ...]]:
    """The official split that a folder of the path is named after, and the parts of the path below that folder."""
    parts = path.relative_to(source).parts
    for number, part in enumerate(parts[:-1]):
        if part.lower() in files.SPLIT_ALIASES:
            return files.SPLIT_ALIASES[part.lower()], parts[number + 1 :]
    return None, parts


def subject_of(path: Path, pattern: re.Pattern[str], source: Path) -> str:
    """The one group of the pattern, found in a video's name."""
    found = pattern.search(path.name)
    if found is None or not found[1]:
        raise ValueError(f"{source.name}: no subject found in the name {path.name}: it must match {pattern.pattern!r}")
    return f"subject{found[1]}"


def read(
    source: Path,
    importer: str,
    clips: Sequence[Clip],
    class_names: Sequence[str],
    every: float,
    notes: Sequence[str] = (),
    size: int = 48,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `Faces` from labelled videos: of one frame in each `every` seconds, one person's face. And for the
    name of each clip the line that says why it could not be read, or only in part; empty if it was read.

    Frames without it are left out, and counted by class in the notes of the recipe, since a face that is missing
    may go along with the label. Raises ValueError where a class keeps no image, and where the official split has one
    person on two sides.
    """
    if not 0.01 <= every <= 3600:
        raise ValueError(f"--every {every} must be 0.01 to 3600 seconds")
    check_people(clips, source)
    files.check_no_empty_class(np.array([clip.label for clip in clips]), class_names, source)  # before it takes hours
    seen = _look_at(clips, importer, every, size)
    notes = [*notes, *_notes(seen, class_names)]
    pairs = [(one, frame) for one in seen for frame in one.taken]
    each = [one.clip for one, _ in pairs]
    if not each:
        raise ValueError(f"{source.name} has no frame with a face; {'; '.join(notes)}")
    labels, splits = np.array([clip.label for clip in each], np.int64), [clip.split for clip in each]
    files.check_no_empty_class(labels, class_names, source)
    recipe = files.recipe(source, importer, size=size, ordered=True, every=every, notes=notes)
    return {
        "images": np.stack([frame.image for _, frame in pairs if frame.image is not None]),
        "labels": labels,
        "class_names": tuple(class_names),
        "subjects": np.array([clip.subject for clip in each]),
        "clips": np.array([clip.name for clip in each]),
        "sources": np.array([f"{one.clip.name}@{frame.seconds:.3f}" for one, frame in pairs]),
        "formats": np.array([f"{one.codec} RGB {frame.width}x{frame.height}" for one, frame in pairs]),
        "recipe": recipe | {"crop": Crop(detect_size=DETECT_SIZE).as_dict()},
        **({} if None in splits else {"splits": np.array(splits)}),
    }, {one.clip.name: one.problem for one in seen}


def check_people(clips: Iterable[Clip], source: Path) -> None:
    """Raise ValueError for a person in two splits, whom the network would know already when it is tested."""
    first: dict[str, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.subject, clip)
        if other.split != clip.split:
            raise ValueError(
                f"{source.name}: {clip.name} puts subject {clip.subject} in {clip.split}, but {other.name} in "
                f"{other.split}: the official split is by person, so restore the folders as they were distributed"
            )


def _look_at(clips: Sequence[Clip], importer: str, every: float, size: int) -> list[_Seen]:
    """All clips in their order, on all cores: decoding and detection leave the interpreter to other threads."""
    pyav()
    detector = Detector(DETECT_SIZE, turned=False)  # a recording is upright
    with ThreadPoolExecutor(cores()) as pool:
        try:
            looked = pool.map(lambda clip: _seen(clip, detector, every, size), clips)
            return list(progress_bar(looked, importer, "videos", len(clips)))
        except BaseException:  # Ctrl-C: the clips that wait are not looked at
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _seen(clip: Clip, detector: Detector, every: float, size: int) -> _Seen:
    seen = _Seen(clip)
    try:
        with Video(clip.path) as video:
            seen.codec = video.codec
            frames = video.frames(every)
            seen.frames += frames_of_one_person(frames, every, detector, lambda rgb, face: crop(rgb, face, size))
            if video.damage is not None:
                seen.problem = files.damaged(clip.path.name, video.damage)
    except (ValueError, OSError) as error:
        seen.problem = files.unreadable(clip.path.name, error)
    return seen


def _notes(seen: Sequence[_Seen], class_names: Sequence[str]) -> list[str]:
    frames = Counter(one.clip.label for one in seen for _ in one.frames)
    without = Counter(one.clip.label for one in seen for frame in one.frames if not frame.num_faces)
    others = sum(len(one.frames) - len(one.taken) for one in seen) - without.total()
    notes = []
    if total := without.total():
        each = (f"{name} {_share(without[label], frames[label])}" for label, name in enumerate(class_names))
        notes.append(f"frames left out, as no face was found: {_share(total, frames.total())}; {', '.join(each)}")
    if others:
        notes.append(f"frames left out, as only others were found: {_share(others, frames.total())}")
    kinds = {
        "left out, as no frame has a face": [one.clip.name for one in seen if one.frames and not one.taken],
        "that could not be read, or only in part": [one.problem for one in seen if one.problem],
        "with several people, of whom the one was taken who is seen longest and largest": [
            one.clip.name for one in seen if any(frame.num_faces > 1 for frame in one.frames)
        ],
    }
    return notes + [listed(what, names) for what, names in kinds.items() if names]


def _share(part: int, number: int) -> str:
    return f"{part:,} of {number:,}" + (f" ({part / number:.1%})" if number else "")


def listed(what: str, names: Sequence[str]) -> str:
    """A note about some clips, the first of them by name."""
    more = ["…"] if len(names) > NAMED else []
    return f"videos {what}: {len(names):,} ({'; '.join([*names[:NAMED], *more])})"


def unmatched(videos: Mapping[str, Path], labels: Mapping[str, Any], source: Path) -> list[str]:
    """Notes about videos without a label, and labels without a video. Raises ValueError if no two belong together."""
    if not videos.keys() & labels.keys():
        one, other = next(iter(videos)), next(iter(labels), "nothing")
        raise ValueError(f"{source.name}: no video has a label: the videos are named as {one}, the labels as {other}")
    kinds = {
        "left out, as the label files do not list them": sorted(videos.keys() - labels.keys()),
        "in the label files, but not in the folder": sorted(labels.keys() - videos.keys()),
    }
    return [listed(what, names) for what, names in kinds.items() if names]
