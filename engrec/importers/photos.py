"""Raw photographs and videos with labels: the largest face of a photograph, one person's in a video, cropped
as networks see it."""

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
from engrec.faces.person import frames_of_one_person
from engrec.faces.picture import open_picture
from engrec.faces.video import Video, is_video
from engrec.importers import files, manifest
from engrec.importers.manifest import Options, Row
from engrec.machine.progress import progress_bar

NAMED = 5  # of folders and clips, so many by name
VIDEO_SIZE = 320  # pixels of the longer side given to the detector: a face before a camera is large
TABLES = manifest.TABLES
NO_FACE, OTHERS = "no face", "only faces of others"
COLUMNS = (
    "source", "label", "subject", "split", "left_out", "faces", "score", "x", "y", "width", "height", "face_px",
    "small", "roll", "turned", "face_id",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A photograph or a frame of a video, and the face that was taken from it.

    source: its file, and the second of a frame. image: uint8 (C, size, size), None where `left_out` says why. face_id:
    of a frame, the number of the face in its clip.
    """

    row: Row
    source: str
    left_out: str = ""
    image: np.ndarray | None = None
    format: str = ""
    face: Face | None = None
    num_faces: int = 0
    face_id: int | None = None


@dataclass(frozen=True)
class Settings(Options):
    """How pictures are looked at, too. person_folders: a folder for each person is in that of the class, or
    around it where `classes` names the inner ones. every: seconds
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
        raise ValueError("videos need PyAV: pip install -e '.[use]'")
    detect_size = settings.detect_size
    if detect_size is None:
        detect_size = VIDEO_SIZE if videos == len(rows) else SIZE
    pictures = _looked_at(rows, paths, below, settings, detect_size)
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
    return picture.left_out not in ("", NO_FACE, OTHERS)


def problems(pictures: Sequence[Picture]) -> dict[str, str]:
    """For the path of each file the line that says why it could not be read, or only in part; empty if it was read."""
    found = {picture.row.path: "" for picture in pictures}
    return found | {picture.row.path: picture.left_out for picture in pictures if is_unreadable(picture)}


def report(pictures: Sequence[Picture]) -> str:
    """A CSV with a row for each picture: what was found in it, and why it was left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in pictures:
        row, face = picture.row, picture.face
        about = [picture.source, row.label, row.subject, row.split, picture.left_out]
        box = [f"{value:.1f}" for value in face.box] if face else [""] * 4
        found = [f"{face.px:.1f}", int(face.px < SMALL), f"{face.roll:.1f}", int(face.turned)] if face else [""] * 4
        writer.writerow([*about, picture.num_faces, f"{face.score:.3f}" if face else "", *box, *found, picture.face_id])
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
        return rows, {row.path: below / row.path for row in rows}, below, manifest.unused(source)
    if is_folder:
        rows, notes = _from_folder(source, settings)
        return rows, {row.path: source / row.path for row in rows}, source, notes
    rows = [_from_file(path) for path in sources]
    if twice := next((path for path, number in Counter(row.path for row in rows).items() if number > 1), None):
        raise ValueError(f"{twice} is given twice: give each file once")
    return rows, dict(zip((row.path for row in rows), sources, strict=True)), None, []


def _from_folder(source: Path, settings: Settings) -> tuple[list[Row], list[str]]:
    names, others = [], []
    for name in files.names_below(source):
        if not name.isprintable():
            raise ValueError(f"{source.name}: {name!r} is not a printable UTF-8 name: rename the file")
        taken = files.is_image(name) or is_video(name) or PurePosixPath(name).suffix.lower() in files.UNREAD_SUFFIXES
        (names if taken else others).append(name)
    if not names:
        raise ValueError(f"{source.name} contains no photographs or videos: expected CLASS/photo.jpg")
    lead: dict[tuple[str, ...], str] = {}
    if settings.person_folders:
        of_class = set(settings.classes or ())
        swapped = all(PurePosixPath(name).parent.name in of_class for name in names)
        rows = [_of_person(name, files.place(source, name), lead, swapped) for name in names]
    else:
        _check_no_people(source, names)
        rows = [manifest.placed(name, files.place(source, name), lead) for name in names]
        manifest.check_no_empty_folder(source, rows)
    if not others:
        return rows, []
    return rows, [f"files that are neither photographs nor videos, left out: {len(others)}, such as {others[0]}"]


def _check_no_people(source: Path, names: Sequence[str]) -> None:
    """Raise ValueError for folders in several folders, which are those of people: without --person-folders, an image
    is in the folder of its class."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    outer = {folder[-2] if len(folder) > 1 else "" for folder in folders}
    if "" in outer or len(outer) == 1 or all(name.lower() in files.SPLIT_ALIASES for name in outer):
        return
    listed = [", ".join(sorted(some)[:NAMED]) for some in (outer, {folder[-1] for folder in folders})]
    raise ValueError(
        f"{source.name} has folders in folders, {listed[1]} in {listed[0]}: if they are CLASS/PERSON, set "
        "--person-folders; if they are PERSON/CLASS, set --person-folders and name the classes by --classes"
    )


def _of_person(name: str, where: str, lead: dict[tuple[str, ...], str], swapped: bool) -> Row:
    """The row of CLASS/PERSON/photo.jpg, or of PERSON/CLASS/photo.jpg where that is swapped."""
    *above, outer, inner, file = PurePosixPath(name).parts if name.count("/") > 1 else ("", "", name)
    if not inner:
        raise ValueError(f"{where} is not in the folder of a person: expected CLASS/PERSON/photo.jpg")
    label, person = (inner, outer) if swapped else (outer, inner)
    return replace(manifest.placed("/".join([*above, label, file]), where, lead), path=name, subject=person)


def _from_file(path: Path) -> Row:
    name = path.name
    if not path.is_file() or not (files.is_image(name) or is_video(name)):
        raise ValueError(f"{path} is neither a folder, a CSV, a photograph nor a video: give one of these")
    label = path.absolute().parent.name  # as it is typed: a link is in the folder that names its class
    if not label or not (label + name).isprintable():
        raise ValueError(f"{path} is not in a folder that names its class: expected CLASS/photo.jpg")
    return Row(str(path), f"{label}/{name}", label, None, None)


def _looked_at(
    rows: Sequence[Row], paths: dict[str, Path], below: Path | None, settings: Settings, size: int
) -> list[Picture]:
    """size: pixels of the longer side given to the detector."""
    pictures: list[Picture] = []
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
        except (ValueError, OSError) as error:
            pictures.append(Picture(row, row.path, files.unreadable(row.path, error)))
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
        frames = frames_of_one_person(
            progress_bar(video.frames(settings.every), path.name, "frames", total),
            settings.every,
            detector,
            lambda rgb, face: crop(rgb, face, settings.size, settings.colour),
        )
        for frame in frames:
            left_out = "" if frame.face is not None else OTHERS if frame.num_faces else NO_FACE
            source, found = f"{row.path}@{frame.seconds:.3f}", f"{video.codec} RGB {frame.width}x{frame.height}"
            yield Picture(row, source, left_out, frame.image, found, frame.face, frame.num_faces, frame.number)
        if video.damage is not None:
            yield Picture(row, row.path, files.damaged(row.path, video.damage))


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
    without = Counter(picture.row.label for picture in seen if picture.left_out == NO_FACE)
    several = sum(picture.num_faces > 1 and picture.face_id is None for picture in taken)
    unreadable = sum(map(is_unreadable, pictures))
    small = sum(picture.face.px < SMALL for picture in taken if picture.face is not None)
    turned = sum(picture.face.turned for picture in taken if picture.face is not None)
    notes = []
    if without:
        all_of = Counter(picture.row.label for picture in seen)
        shares = [f"{name} {without[name]} of {all_of[name]}" for name in class_names]
        notes.append(
            f"no face was found in {without.total()} of {len(seen)} pictures, which were left out: "
            f"{', '.join(shares)}; if one class loses a larger share, results on the rest are too good"
        )
    if unreadable:
        notes.append(f"files that could not be read, or only in part: {unreadable}")
    if several:
        notes.append(f"photographs with more than one face, of which the largest was taken: {several}")
    notes += _notes_on_people(seen)
    if turned:
        notes.append(f"faces found only after turning the picture: {turned}; look at them, as things may be among them")
    if small:
        notes.append(f"faces smaller than {SMALL} pixels: {small}")
    return notes


def _notes_on_people(seen: Sequence[Picture]) -> list[str]:
    """What the user must know about clips that show several people."""
    frames = [picture for picture in seen if is_video(picture.row.path)]
    beside = [picture.row.path for picture in frames if picture.num_faces > 1]
    others = sum(picture.left_out == OTHERS for picture in frames)
    ids = {(picture.row.path, picture.face_id) for picture in frames if picture.face_id is not None}
    changing = [path for path, number in sorted(Counter(path for path, _ in ids).items()) if number > 1]
    notes = []
    if beside:
        notes.append(
            f"videos with several people, of whom the one was taken who is seen longest and largest: {_named(beside)}; "
            f"frames without that person, left out: {others}"
        )
    if changing:
        notes.append(f"videos in which one face follows another, perhaps another person's: {_named(changing)}")
    return notes


def _named(paths: Sequence[str]) -> str:
    """How many these are, and the first by name."""
    each = list(dict.fromkeys(paths))
    return f"{len(each)} ({', '.join([*each[:NAMED], *(['…'] if len(each) > NAMED else [])])})"


def _origin(sources: Sequence[Path]) -> dict[str, Any]:
    """Source and checksum for the recipe, where there are several files: of their names and sizes."""
    if len(sources) == 1:
        return {}
    listing = "\n".join(sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in sources))
    checksum = hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()
    return {"source": f"{len(sources)} files", "sha256": checksum}
