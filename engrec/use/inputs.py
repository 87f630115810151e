"""What a command is pointed at: pictures, folders and videos, of which some may not be readable."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engrec.faces.picture import open_picture
from engrec.faces.video import is_video
from engrec.importers.files import IMAGE_SUFFIXES, MAX_IMAGE_BYTES, UNREAD_SUFFIXES
from engrec.words import counted

SIDECAR = "predictions.json"  # describes the predictions in a folder


@dataclass(frozen=True)
class Input:
    """One file. name: as messages and tables call it, printable."""

    path: Path
    name: str
    is_video: bool


def find(paths: Iterable[Path]) -> tuple[list[Input], list[str]]:
    """The files of all paths, each once: those that are named, and the pictures and videos of folders, sorted by name,
    without hidden ones. Second, a line for each path that cannot be taken."""
    found: dict[str, Input] = {}
    problems: list[str] = []
    for path in paths:
        try:
            if path.is_dir():
                files = list(_files(path, problems))
                if not files:
                    problems.append(f"{shown(path)} holds no pictures or videos")
            else:
                _check_file(path)
                files = [path]
        except (OSError, ValueError) as error:  # among them names that no file can have
            problems.append(_why(path, error))
            continue
        for file in files:
            found.setdefault(os.path.realpath(file), Input(file, shown(file), is_video(file.name)))
    return list(found.values()), problems


def read_picture(path: Path) -> Image.Image:
    """An upright picture of 8 bits, RGB or L. Raises ValueError in one line for what cannot be read."""
    try:
        _check_file(path)
        with path.open("rb") as file:
            content = file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(_why(path, error)) from error
    if len(content) > MAX_IMAGE_BYTES:
        raise ValueError(f"{shown(path)} is larger than {MAX_IMAGE_BYTES >> 20} MiB, the most allowed")
    return open_picture(content, shown(path))[0]


def shown(path: Path) -> str:
    """The path as text that every file and terminal takes, whatever bytes and control characters it is made of."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def listed(folder: Path) -> set[str]:
    """The names of the files that the description of predictions in a folder lists; none where there is none."""
    try:
        about = json.loads((folder / SIDECAR).read_bytes())
        return {name for name in about["files"] if isinstance(name, str)}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()


def _files(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Pictures and videos below a folder. Links to folders are not followed: they may lead around in circles."""
    unread: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: problems.append(_why(folder, error))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        ours = listed(Path(parent)) if SIDECAR in names else set()  # pictures of earlier predictions
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name in ours:
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES or is_video(name):
                yield path
            elif path.suffix.lower() in UNREAD_SUFFIXES:
                unread.append(name)
    if unread:
        number = counted(len(unread), "picture")
        problems.append(
            f"{shown(folder)} has {number} that cannot be read, such as {shown(Path(unread[0]))}: save as JPEG"
        )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ValueError("does not exist")
    if not path.is_file():
        raise ValueError("is a pipe or device: give the path of a picture, video or folder")


def _why(path: Path, error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"{shown(path)} {error}"
    named = shown(Path(os.fsdecode(error.filename))) if error.filename else shown(path)
    return f"{named} cannot be opened: {error.strerror}"
