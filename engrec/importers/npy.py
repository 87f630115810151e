"""An array in NumPy's .npy format, from a stream that may contain anything."""

import math
import re
from typing import IO

import numpy as np

MAGIC = b"\x93NUMPY"
MOST_HEADER = 10_000  # bytes
# What np.save writes for numbers, booleans and text. Everything else, such as pickled objects, has another `descr`.
HEADER = re.compile(
    r"\{'descr': *'(?P<descr>[<>|=]?(?P<kind>[a-zA-Z?])[0-9]{0,9})', *'fortran_order': *(?P<fortran>True|False), *"
    r"'shape': *\((?P<shape>(?:[0-9]{1,18}L?, *)*(?:[0-9]{1,18}L?)?)\),? *\}[ \n]*"
)


def read(file: IO[bytes], size: int) -> np.ndarray:
    """The array of numbers, booleans or text in the `size` bytes of a stream, in this machine's byte order.

    Memory is used for bytes that are there, not for those that a header claims. Raises ValueError for what is not such
    an array, EOFError where the stream ends early.
    """
    dtype, shape, fortran, used = _header(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - used:
        raise ValueError(f"its header claims {claimed:,} bytes for {dtype} {shape}, but it has {size - used:,}")
    raw = np.empty(claimed, np.uint8)
    filled, view = 0, raw.data
    while filled < claimed:
        part = file.read(min(1 << 20, claimed - filled))
        if not part:
            raise EOFError(f"it ends after {filled:,} of {claimed:,} bytes")
        view[filled : filled + len(part)] = part
        filled += len(part)
    file.read(1)  # to the end, where a zip's checksum is compared
    array = raw.view(dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """Type, shape, order (whether the first index changes fastest) and the number of bytes up to the data."""
    start = file.read(len(MAGIC) + 2)
    if len(start) < len(MAGIC) + 2 or not start.startswith(MAGIC):
        raise ValueError("it is not in NumPy's .npy format")
    bytes_of_length = 2 if start[len(MAGIC)] == 1 else 4
    length = int.from_bytes(file.read(bytes_of_length), "little")
    text = file.read(min(length, MOST_HEADER)).decode("latin-1")
    found = HEADER.fullmatch(text)
    if found is None or len(text) < length:
        raise ValueError(f"its header is {text[:80].strip()!r}, not that of a plain array")
    if found["kind"] not in "?biufU":
        raise ValueError(f"it has the type {found['descr']!r} of Python objects or bytes, not numbers or text")
    try:
        dtype = np.dtype(found["descr"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"its type {found['descr']!r} is unknown") from error
    if dtype.itemsize == 0:
        raise ValueError("its texts have no letters")
    shape = tuple(int(side.rstrip("L")) for side in re.findall(r"[0-9]+L?", found["shape"]))
    return dtype, shape, found["fortran"] == "True", len(start) + bytes_of_length + length
