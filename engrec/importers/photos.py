"""Raw photographs and videos with labels: the largest face of each picture, cropped as networks see it."""

import csv
import hashlib
import importlib.util
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from engrec.faces.crop import SMALL, Crop, crop
from engrec.faces.detect import SIZE, THRESHOLD, Detector, Face, largest
from engrec.faces.picture import one_line, open_picture
from engrec.faces.video import Video, is_video
from engrec.importers import files, manifest
from engrec.importers.manifest import Options, Row
from engrec.machine.progress import progress_bar

VIDEO_SIZE = 320  # pixels of the longer side given to the detector: a face before a camera is large
TABLES = (".csv", ".tsv")
NO_FACE = "no face"
COLUMNS = (
    "source", "label", "subject", "split", "left_out", "faces", "score", "x", "y", "width", "height", "face_px",
    "small", "roll",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A photograph or a frame of a video, and the face that was taken from it.

    source: its file, and the second of a frame. image: uint8 (C, size, size), None where `left_out` says why.
    """

    row: Row
    source: str
    left_out: str = ""
    image: np.ndarray | None = None
    format: str = ""
    face: Face | None = None
    num_faces: int = 0


@dataclass(frozen=True)
class Settings(Options):
    """How pictures are looked at, too. person_folders: a folder for each person is in that of the class. every: seconds
    between the frames of a video. detect_size: pixels of the longer side given to the detector; default: 640, and 320
    where all are videos."""

    person_folders: bool = False
    every: float = 1.0
    detect_size: int | None = None
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.01 <= self.every <= 3600:
            raise ValueError(f"--every must be 0.01 to 3600 seconds, found {self.every:g}")


def read(sources: Sequence[Path], settings: Settings) -> tuple[dict[str, Any], list[Picture]]:
    """Arguments of `Faces`, and all pictures, those that were left out too. The frames of a video are one clip.

    sources: a folder with a folder for each class, or a CSV of path,label[,subject][,split], or photographs and videos
    whose folder is their class.
    """
    rows, paths, below, notes = _rows(sources, settings)
    rows, class_names = manifest.checked(rows, sources[0], settings)
    videos = sum(is_video(row.path) for row in rows)
    if videos and importlib.util.find_spec("av") is None:
        raise ValueError("videos need PyAV: pip install '.[use]'")
    detect_size = settings.detect_size or (VIDEO_SIZE if videos == len(rows) else SIZE)
    settings = replace(settings, detect_size=detect_size)
    pictures = _looked_at(rows, paths, below, settings)
    taken = [picture for picture in pictures if picture.image is not None]
    _check_every_class(pictures, taken, class_names)
    recipe = settings.recipe(
        sources[0],
        "faces",
        crop=Crop(detect_size=detect_size, threshold=settings.threshold).as_dict(),
        notes=notes + _notes(pictures, class_names),
        left_out=dict(Counter(picture.left_out.partition(":")[0] for picture in pictures if picture.left_out)),
        **({"every": settings.every} if videos else {}),
    )
    optional = {
        "subjects": [picture.row.subject for picture in taken],
        "splits": [picture.row.split for picture in taken],
        "clips": [picture.row.path if videos else None for picture in taken],
    }
    return {
        "images": np.stack([picture.image for picture in taken if picture.image is not None]),
        "labels": np.array([class_names.index(picture.row.label) for picture in taken], np.int64),
        "class_names": class_names,
        "sources": np.array([picture.source for picture in taken]),
        "formats": np.array([picture.format for picture in taken]),
        "recipe": recipe | _origin(sources),
        **{key: np.array(values) for key, values in optional.items() if None not in values},
    }, pictures


def is_unreadable(picture: Picture) -> bool:
    """Whether it was left out, or is only a part, because of damage."""
    return picture.left_out not in ("", NO_FACE)


def report(pictures: Sequence[Picture]) -> str:
    """A CSV with a row for each picture: what was found in it, and why it was left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in pictures:
        row, face = picture.row, picture.face
        about = [picture.source, row.label, row.subject, row.split, picture.left_out]
        box = [f"{value:.1f}" for value in face.box] if face else [""] * 4
        found = [f"{face.px:.1f}", int(face.px < SMALL), f"{face.roll:.1f}"] if face else [""] * 3
        writer.writerow([*about, picture.num_faces, f"{face.score:.3f}" if face else "", *box, *found])
    return text.getvalue()


def _rows(sources: Sequence[Path], settings: Settings) -> tuple[list[Row], dict[str, Path], Path | None, list[str]]:
    """Rows, the file of each row by its path, the folder that no file may be outside of, and notes."""
    source, root, person_folders = sources[0], settings.root, settings.person_folders
    for each in sources:
        if not each.exists():
            raise ValueError(f"{each} does not exist: give the path of a folder, a CSV or files")
    is_table, is_folder = source.suffix.lower() in TABLES and source.is_file(), source.is_dir()
    if len(sources) > 1 and any(each.is_dir() or each.suffix.lower() in TABLES for each in sources):
        raise ValueError("more than one source: give one folder, or one CSV, or photographs and videos")
    if root is not None and not is_table:
        raise ValueError(f"--root is for the paths of a CSV, and {source.name} is not one: remove --root")
    if person_folders and not is_folder:
        raise ValueError(f"--person-folders is for a folder, and {source.name} is not one: remove it")
    if is_table:
        below = root or source.parent
        rows = manifest.from_csv(source, below)
        return rows, {row.path: below / row.path for row in rows}, below, []
    if is_folder:
        rows, notes = _from_folder(source, person_folders)
        return rows, {row.path: source / row.path for row in rows}, source, notes
    rows = [_from_file(path) for path in sources]
    if twice := next((path for path, number in Counter(row.path for row in rows).items() if number > 1), None):
        raise ValueError(f"{twice} is given twice: give each file once")
    return rows, dict(zip((row.path for row in rows), sources, strict=True)), None, []


def _from_folder(source: Path, person_folders: bool) -> tuple[list[Row], list[str]]:
    rows, others, lead = [], [], {}
    for name in files.names_below(source):
        where = files.place(source, name)
        if not name.isprintable():
            raise ValueError(f"{source.name}: {name!r} is not a printable UTF-8 name: rename the file")
        if files.is_image(name) or is_video(name):
            rows.append(_of_person(name, where, lead) if person_folders else manifest.placed(name, where, lead))
        else:
            others.append(name)
    if not rows:
        raise ValueError(f"{source.name} contains no photographs or videos: expected CLASS/photo.jpg")
    if not person_folders:
        manifest.check_no_empty_folder(source, rows)
    if not others:
        return rows, []
    return rows, [f"files that are neither photographs nor videos, left out: {len(others)}, such as {others[0]}"]


def _of_person(name: str, where: str, lead: dict[tuple[str, ...], str]) -> Row:
    """The row of CLASS/PERSON/photo.jpg."""
    *above, person, file = PurePosixPath(name).parts if name.count("/") > 1 else ("", "", name)
    if not person:
        raise ValueError(f"{where} is not in the folder of a person: expected CLASS/PERSON/photo.jpg")
    return replace(manifest.placed("/".join([*above, file]), where, lead), path=name, subject=person)


def _from_file(path: Path) -> Row:
    name = path.name
    if not path.is_file() or not (files.is_image(name) or is_video(name)):
        raise ValueError(f"{path} is neither a folder, a CSV, a photograph nor a video: give one of these")
    label = path.absolute().parent.name  # as it is typed: a link is in the folder that names its class
    if not label or not (label + name).isprintable():
        raise ValueError(f"{path} is not in a folder that names its class: expected CLASS/photo.jpg")
    return Row(str(path), f"{label}/{name}", label, None, None)


def _looked_at(rows: Sequence[Row], paths: dict[str, Path], below: Path | None, settings: Settings) -> list[Picture]:
    pictures: list[Picture] = []
    size = settings.detect_size or SIZE
    photos = Detector(size, settings.threshold)
    # A recording is upright, and the frames in which nobody is seen are many.
    frames = Detector(size, settings.threshold, turned=False)
    for row in progress_bar(rows, "faces", "files"):
        path = paths[row.path]
        try:
            _check_file(row, path, below)
            if is_video(row.path):
                pictures += _frames(row, path, frames, settings)
            else:
                pictures.append(_photo(row, path, photos, settings))
        except OSError as error:
            pictures.append(Picture(row, row.path, f"unreadable: {row.path}: {error.strerror or one_line(error)}"))
        except ValueError as error:
            pictures.append(Picture(row, row.path, f"unreadable: {one_line(error)}"))
    return pictures


def _check_file(row: Row, path: Path, below: Path | None) -> None:
    if not files.is_file(path) or not (below is None or files.inside(path, below)):
        raise ValueError(f"{row.path} is a link or not a regular file: replace it with the file itself")


def _photo(row: Row, path: Path, detector: Detector, settings: Settings) -> Picture:
    with path.open("rb") as file:
        content = files.read(file, path.parent, path.name)
    picture, found = open_picture(content, row.path)
    return _taken(row, row.path, picture, found, detector, settings)


def _frames(row: Row, path: Path, detector: Detector, settings: Settings) -> Iterator[Picture]:
    with Video(path) as video:
        total = None if video.duration is None else math.ceil(video.duration / settings.every)
        frames = video.frames(settings.every)
        for seconds, rgb in progress_bar(frames, path.name, "frames", total):
            found = f"{video.codec} RGB {rgb.shape[1]}x{rgb.shape[0]}"
            image = Image.fromarray(rgb)
            yield _taken(row, f"{row.path}@{seconds:.3f}", image, found, detector, settings)
        if video.damage is not None:
            yield Picture(row, row.path, f"damaged: {row.path}: {video.damage}")


def _taken(row: Row, source: str, picture: Image.Image, found: str, detector: Detector, settings: Settings) -> Picture:
    faces = detector(np.asarray(picture.convert("RGB")))
    if not faces:
        return Picture(row, source, NO_FACE, format=found)
    face = largest(faces)
    image = crop(picture, face, settings.size, settings.colour)
    return Picture(row, source, "", image, found, face, len(faces))


def _check_every_class(pictures: Sequence[Picture], taken: Sequence[Picture], class_names: Sequence[str]) -> None:
    missing = [name for name in class_names if name not in {picture.row.label for picture in taken}]
    if not missing:
        return
    first = next((picture for picture in pictures if is_unreadable(picture)), None)
    reason = "" if first is None else f" ({sum(map(is_unreadable, pictures))} unreadable, such as {first.left_out})"
    raise ValueError(
        f"no face was found in the pictures of class {', '.join(missing)}{reason}: look at them, or set a larger "
        "--detect-size or a lower --threshold"
    )


def _notes(pictures: Sequence[Picture], class_names: Sequence[str]) -> list[str]:
    """What the user must know about what was left out and what was taken."""
    seen = [picture for picture in pictures if not is_unreadable(picture)]
    taken = [picture for picture in seen if picture.face is not None]
    without = Counter(picture.row.label for picture in seen if picture.face is None)
    several, unreadable = sum(picture.num_faces > 1 for picture in taken), sum(map(is_unreadable, pictures))
    small = sum(picture.face.px < SMALL for picture in taken if picture.face is not None)
    notes = []
    if without:
        all_of = Counter(picture.row.label for picture in seen)
        shares = [f"{name} {without[name]} of {all_of[name]}" for name in class_names]
        notes.append(
            f"no face was found in {without.total()} of {len(seen)} pictures, which were left out: "
            f"{', '.join(shares)}; if the shares differ, the rest is biased"
        )
    if unreadable:
        notes.append(f"files that could not be read, or only in part: {unreadable}")
    if several:
        notes.append(f"pictures with more than one face, of which the largest was taken: {several}")
    if small:
        notes.append(f"faces smaller than {SMALL} pixels: {small}")
    return notes


def _origin(sources: Sequence[Path]) -> dict[str, Any]:
    """Source and checksum for the recipe, where there are several files: of their names and sizes."""
    if len(sources) == 1:
        return {}
    listing = "\n".join(sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in sources))
    checksum = hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()
    return {"source": f"{len(sources)} files", "sha256": checksum}
