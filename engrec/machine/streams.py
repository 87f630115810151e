"""Standard output that may be closed, full, or unable to show a character: the command continues without it."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Descriptor(io.FileIO):
    """What cannot be written is dropped, as what a command does is in its files; `lost` is the first reason."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = self.lost or error
            return len(data)


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Standard output and error for the rest of this process: neither `| head -1` nor a full disk ends the command, and
    an ASCII terminal shows a question mark for what it lacks.

    Raises OSError at the end if output was lost that somebody was there to read.
    """
    if sys.stdout is not sys.__stdout__:  # it is inside another such block, or a test reads what is printed
        yield
        return
    _open_the_closed_ones()
    output = _replaced("stdout", 1, "replace")
    _replaced("stderr", 2, "backslashreplace")
    yield
    sys.stdout.flush()
    if output.lost is not None and output.lost.errno != errno.EPIPE:
        raise OSError(f"standard output is incomplete: {os.strerror(output.lost.errno or 0)}") from output.lost


def _open_the_closed_ones() -> None:
    """A command that is started with `>&-` would otherwise print into the first file that it opens."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _replaced(name: str, number: int, errors: str) -> Descriptor:
    before, descriptor = getattr(sys, name), Descriptor(number, "w", closefd=False)
    encoding = before.encoding if before else "utf-8"
    lines = number == 2 or descriptor.isatty()
    stream = io.TextIOWrapper(io.BufferedWriter(descriptor), encoding, errors, line_buffering=lines)
    setattr(sys, name, stream)
    return descriptor
