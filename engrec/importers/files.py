"""Untrusted folders, archives and image files: read as streams, never extracted; each error is one line."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image

from engrec.faces.crop import RESIZE as RESIZE
from engrec.faces.crop import UNKNOWN
from engrec.faces.picture import one_line as one_line
from engrec.faces.picture import open_picture
from engrec.machine.progress import progress_bar

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
UNREAD_SUFFIXES = {".avif", ".heic", ".heif", ".jxl"}  # of cameras; Pillow alone does not read them
MAX_IMAGE_BYTES = 256 * 1024**2  # far above any photograph, far below the size of an unpacked zip bomb
DAMAGED = "damaged: "  # how a line starts about a file of which a part was read
DAMAGE = (EOFError, OSError, UnicodeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
UNSUPPORTED = (NotImplementedError, RuntimeError)  # zipfile's errors for an unknown compression and for a password
DECOMPRESSORS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}

Entries = Generator[tuple[str, IO[bytes] | None], None, None]  # name, and the stream of a plain file


def open_files(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Files of a folder, .zip or .tar.*, or the .csv itself: name below the root, and stream.

    A stream is valid until the next file is requested. Hidden files and __MACOSX are skipped. Raises ValueError for a
    damaged archive, a name that leaves the root, a name that occurs twice, and a link.
    """
    if not source.exists():
        raise ValueError(f"{source} does not exist: give the path of a folder or file")
    if not (source.is_dir() or source.is_file()):
        raise ValueError(f"{source} is a pipe or device: give the path of a folder or file")
    seen: set[str] = set()
    with _damage_in_words(source), closing(_opener(source)(source)) as entries:
        for raw_name, file in progress_bar(entries, source.name, "files"):
            name = _safe_name(raw_name, source)
            if _is_hidden(name):
                continue
            if file is None:
                raise ValueError(
                    f"{place(source, name)} is a link or not a regular file: replace it with the file itself "
                    "(tar --dereference does so)"
                )
            if name in seen:
                raise ValueError(f"{source.name} contains {name} twice: pack it again with each file once")
            seen.add(name)
            yield name, file


def read_images(source: Path, size: int = 48, colour: str = "grey") -> Iterator[tuple[str, np.ndarray, str]]:
    """Name, pixels and format of each image of a source; other files are skipped."""
    for name, file in open_files(source):
        if is_image(name):
            yield name, *read_image(file, source, name, size, colour)


def read_image(
    file: IO[bytes], source: Path, name: str, size: int = 48, colour: str = "grey"
) -> tuple[np.ndarray, str]:
    """Pixels uint8 (C, size, size) and format of one file of a source."""
    return decode(read(file, source, name), place(source, name), size, colour)


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def read(file: IO[bytes], source: Path, name: str) -> bytes:
    """Content of one file of a source."""
    with _damage_in_words(source):
        content = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise ValueError(
            f"{source.name}: {name} is larger than {MAX_IMAGE_BYTES >> 20} MiB, the most allowed: remove it"
        )
    return content


def read_lines(file: IO[bytes], source: Path) -> Iterator[bytes]:
    """Lines of one file, cut at 64 KiB so that a file without line ends cannot fill the memory."""
    lines = iter(lambda: file.readline(1 << 16), b"")
    with _damage_in_words(source):
        yield from progress_bar(lines, source.name, "rows")


def decode(content: bytes, where: str, size: int = 48, colour: str = "grey") -> tuple[np.ndarray, str]:
    """Pixels uint8 (C, size, size) of one image file, C = 1 (grey) or 3 (rgb), and its format, such as "JPEG L 48x48".

    See `open_picture`. Raises ValueError for a file that cannot be read; `where` is its name in the message.
    """
    image, found = open_picture(content, where)
    image = image.convert("L" if colour == "grey" else "RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image).reshape(size, size, -1).transpose(2, 0, 1), found


def place(source: Path, name: str) -> str:
    """Name of a file of a source in messages, as a reader would look for it."""
    return f"{source.name}/{name}" if source.is_dir() else f"{source.name}: {name}"


def recipe(
    source: Path, importer: str, name: str | None = None, size: int = 48, colour: str = "grey", **more: Any
) -> dict[str, Any]:
    """Recipe: how the data set was made. It reveals no path of the machine: `source` is stored without its folder."""
    return {
        "name": name or importer,
        "importer": importer,
        "source": source.resolve().name.encode(errors="backslashreplace").decode(),
        "sha256": sha256(source),
        "size": [size, size],
        "colour": colour,
        "crop": UNKNOWN,
        "engrec": version("engrec"),
        **more,
    }


def unreadable(name: str, error: ValueError | OSError) -> str:
    """A line about a file that is left out. The errors of the readers name it, those of the system need its name."""
    why = f"{name}: {error.strerror or one_line(error)}" if isinstance(error, OSError) else one_line(error)
    return f"unreadable: {why}"


def damaged(name: str, damage: str) -> str:
    """A line about a file that is used as far as it can be read."""
    return f"{DAMAGED}{name}: {damage}"


def is_damaged(line: str) -> bool:
    """Whether a line is about a file of which a part was read."""
    return line.startswith(DAMAGED)


def check_no_empty_class(labels: np.ndarray, class_names: Sequence[str], source: Path) -> None:
    counts = np.bincount(labels, minlength=len(class_names))
    if empty := [name for name, count in zip(class_names, counts, strict=True) if count == 0]:
        raise ValueError(f"{source.name} contains no image of class {', '.join(empty)}: give the complete data set")


def sha256(source: Path) -> str:
    """SHA-256 of a file's content, or of the sorted names and sizes of a folder's files."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listing = sorted(
        f"{path.relative_to(source).as_posix()} {path.stat().st_size}" for path in source.rglob("*") if path.is_file()
    )
    return hashlib.sha256("\n".join(listing).encode(errors="surrogateescape")).hexdigest()


def is_file(path: Path) -> bool:
    """Whether there is a plain file; False also for a path that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def inside(path: Path, root: Path) -> bool:
    """Whether a path is inside `root` once its links are resolved."""
    # Not Path.resolve, which raises RuntimeError for links that name each other.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


@contextmanager
def _damage_in_words(source: Path) -> Iterator[None]:
    """Errors of an archive as one ValueError; a generator that yields inside it does not catch its caller's errors."""
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:  # an error about the path, not the content
            raise
        raise ValueError(f"{source.name} is truncated or damaged ({one_line(error)}): download it again") from error
    except UNSUPPORTED as error:
        raise ValueError(f"{source.name} cannot be unpacked ({error}): pack it as a plain .zip or .tar.gz") from error


def _opener(source: Path) -> Callable[[Path], Entries]:
    """Reader for a source, chosen by its first bytes, because the suffix of a download may be wrong."""
    if source.is_dir():
        return _folder
    with source.open("rb") as file:
        head = file.read(262)
    if head.startswith(b"PK"):
        return _zip
    if head.startswith(tuple(DECOMPRESSORS)) or head[257:262] == b"ustar":
        return _tar
    if source.suffix.lower() == ".csv":
        return _single
    raise ValueError(
        f"{source.name} is neither a folder nor a .zip or .tar (.gz, .xz, .bz2) archive: give one of these, "
        "or download it again if it should be one"
    )


def _single(source: Path) -> Entries:
    with source.open("rb") as file:
        yield source.name, file


def names_below(source: Path) -> Iterator[str]:
    """Names of a folder's files, and of its links, without hidden ones, sorted in each folder."""
    for folder, folders, names in os.walk(source, onerror=_give_up):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names) + [name for name in folders if Path(folder, name).is_symlink()]:
            if not _is_hidden(name):  # whatever its name is made of
                yield Path(folder, name).relative_to(source).as_posix()


def _folder(source: Path) -> Entries:
    for name in names_below(source):
        path = source / name
        if not path.is_file() or not inside(path, source):
            yield name, None
            continue
        with path.open("rb") as file:
            yield name, file


def _give_up(error: OSError) -> None:
    """Raise the error of an unreadable folder, which os.walk would skip."""
    raise error


def _zip(source: Path) -> Entries:
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith("/"):  # not is_dir(), which fails for an empty name
                with archive.open(entry) as file:
                    yield entry.filename.replace("\\", "/"), file


def _tar(source: Path) -> Entries:
    """Entries of a tar archive, decompressed here, because tarfile takes a truncated file for a short one."""
    with source.open("rb") as file:
        head = file.read(6)
        file.seek(-min(1024, source.stat().st_size), io.SEEK_END)
        tail = file.read()
    unpack = next((unpack for magic, unpack in DECOMPRESSORS.items() if head.startswith(magic)), Path.open)
    if unpack is Path.open and any(tail):
        raise tarfile.ReadError("the end mark is missing")
    with unpack(source, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            if not entry.isdir():
                yield entry.name, archive.extractfile(entry) if entry.isreg() else None
        while stream.read(1 << 20):  # to the end, where the checksum is
            pass


def _safe_name(name: str, source: Path) -> str:
    """Name without "./". Raises ValueError for one that leads out of the archive: it may contain any string."""
    path = PurePosixPath(name)
    if not path.parts or not name.isprintable():
        raise ValueError(
            f"{source.name}: {name!r} is not a printable UTF-8 name: rename the file and pack the archive again"
        )
    if path.is_absolute() or ".." in path.parts or path.parts[0][1:2] == ":":
        raise ValueError(
            f"{source.name}: {name!r} leads out of the archive: do not trust it, download it from its original site"
        )
    return str(path)


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        any(part.startswith(".") for part in parts)
        or parts[0] == "__MACOSX"
        or parts[-1] in ("Thumbs.db", "desktop.ini")
    )
