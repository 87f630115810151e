"""Atomic writes, and file locks that end with their process."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears under its name only when it is complete; mode: "w" is text in UTF-8, "wb" bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open(mode, newline=None if "b" in mode else "", encoding=None if "b" in mode else "utf-8") as file:
            with suppress(OSError, ImportError):  # no locks here: such a file is never taken for an abandoned one
                lock(file.fileno())
            yield file
        partial.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # the system does not name a file that finds no room
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@cache  # once in a process: what is killed leaves its files to the next command
def remove_abandoned(folder: Path) -> None:
    """Remove the incomplete files of processes that were killed. A process that is alive, here or on another machine,
    has its file locked."""
    for path in folder.glob(".*.part"):
        if re.fullmatch(r"\..+\.\d+\.part", path.name):
            with suppress(OSError, ImportError):
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)


def check_replaceable(folder: Path, others: Callable[[Path], list[str]]) -> None:
    """Raise ValueError unless the folder is new, empty, or holds what an earlier command wrote, which is replaced.

    others: what is in a folder that no such command writes.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose another folder")
    if not folder.is_dir():
        return
    remove_abandoned(folder)
    if found := others(folder):
        raise ValueError(f"{folder} holds other files ({', '.join(found[:3])}): choose another folder")


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def check_folder(folder: Path) -> None:
    """Make the folder. Raises ValueError if no file can be written to it, before the work that it is for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from error


def lock(descriptor: int) -> bool:
    """Try to lock an open file or folder; returns whether this process has the lock, which ends with the process.

    Raises OSError or ImportError if the file system or the operating system does not support locks.
    """
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
