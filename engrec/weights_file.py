"""Weights as a .safetensors file, and those that come with engrec by name.

Such a file holds tensors, in half precision or float32, and in its header what describes them, as JSON, with a checksum
of both. Nothing in it is code. Torch is not imported with this module, as configurations are checked without it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engrec.errors import CheckpointError, nearest
from engrec.schema import plain, shown

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
NAME = "model.safetensors"  # as the hub and other tools look for it
KEY, CHECKSUM = "engrec", "engrec_sha256"  # of the metadata, also in an ONNX file
SHIPPED, PREFIX = Path(__file__).parent / "weights", "engrec:"
MOST_HEADER, MOST_BYTES = 2**20, 2**31  # thirty times what the largest of our networks writes, and ten times
# What describes the weights, beside them in what `checkpoint.read` returns; every other key is left unread.
DESCRIBED = (
    "hyper_parameters", "module", "task", "dataset", "seen", "before", "epoch", "temperature", "provenance",
)  # fmt: skip


def is_shipped(path: str | Path) -> bool:
    """Whether this is a name, engrec:NAME, and no path."""
    return str(path).startswith(PREFIX)


def names() -> list[str]:
    """The weights that come with engrec."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{NAME}"))


def located(path: str | Path) -> Path:
    """The file of a checkpoint, given by its path or as engrec:NAME. Raises CheckpointError for an unknown name."""
    if not is_shipped(path):
        return Path(path)
    known = [f"{PREFIX}{name}" for name in names()]
    if str(path) not in known:
        options = f"the weights by name are {', '.join(known)}" if known else "this copy of engrec has no weights"
        raise CheckpointError(f"{path} does not exist{nearest(str(path), known)}: {options}")
    return SHIPPED / str(path).removeprefix(PREFIX) / NAME


def pack(tensors: dict[str, Tensor], about: dict[str, Any], half: bool = True) -> bytes:
    """The content of the file; the same arguments give the same bytes. about: plain values, keys of DESCRIBED.

    Raises ValueError for values that are not finite, also after rounding to half precision, and for what JSON lacks.
    """
    from safetensors.torch import save

    text = json.dumps(about, allow_nan=False)
    data = save({name: _stored(name, tensor, half) for name, tensor in tensors.items()})
    length = int.from_bytes(data[:8], "little")
    stored = json.loads(data[8 : 8 + length])
    metadata = {"format": "pt", KEY: text, CHECKSUM: _checksum(text, stored, data[8 + length :])}
    # The library would write these in an order of its own, another one each time.
    header = json.dumps({"__metadata__": metadata, **stored}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight
    if len(header) > MOST_HEADER:
        raise ValueError(f"what describes the weights takes {len(header):,} bytes: at most {MOST_HEADER:,} are read")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _checksum(text: str, header: dict[str, Any], content: bytes) -> str:
    """sha256 of the description, then of each tensor by name: its name, type, shape and bytes. Where in the content
    they lie does not matter, as other tools write them in another order."""
    sha256 = hashlib.sha256(text.encode())
    for name, tensor in sorted(header.items()):
        if name != "__metadata__":
            sha256.update(json.dumps([name, tensor["dtype"], tensor["shape"]]).encode())
            sha256.update(memoryview(content)[slice(*tensor["data_offsets"])])
    return sha256.hexdigest()


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    import torch

    if not tensor.is_floating_point():
        return tensor.detach().to("cpu", torch.int64).contiguous()
    stored = tensor.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
    if not tensor.isfinite().all():
        raise ValueError(f"{name} has values that are not finite numbers")
    if not stored.isfinite().all():
        largest = tensor.abs().max().item()
        raise ValueError(f"{name} has a value of {largest:g}, half precision ends at 65504: set --float32")
    return stored


def read(file: Path) -> dict[str, Any]:
    """The weights as float32 under "state_dict", beside what describes them. Raises OSError, and ValueError with what
    the file is instead, as the end of a sentence."""
    with file.open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES / 1e9:.1f} GB, which no network of engrec takes")
    return unpack(data)


def unpack(data: bytes) -> dict[str, Any]:
    """As `read`, from the content of the file."""
    from safetensors.torch import load

    if not data:
        raise ValueError("is empty")
    length = int.from_bytes(data[:8], "little")
    if 8 + length > len(data) or length > MOST_HEADER:
        raise ValueError("cannot be read: it is damaged, or no safetensors file of engrec")
    try:
        tensors, header = load(data), json.loads(data[8 : 8 + length])
    except Exception as error:  # a damaged file can make the library raise anything
        raise ValueError("cannot be read: it is damaged, or not a safetensors file") from error
    metadata = header.get("__metadata__") or {}
    text, checksum = metadata.get(KEY), metadata.get(CHECKSUM)
    if text is None:
        raise ValueError(
            "is a safetensors file but not of engrec, as nothing in its header describes its network: "
            "python scripts/export.py writes one from a checkpoint"
        )
    if checksum not in (None, _checksum(text, header, data[8 + length :])):  # the first exports have none
        raise ValueError("is damaged: its weights or their description have changed since it was written (checksum)")
    about = _described(text)
    weights = {name: _restored(name, tensor) for name, tensor in tensors.items()}
    return {key: about[key] for key in DESCRIBED if key in about} | {"state_dict": weights}


def _described(text: str) -> dict[str, Any]:
    try:
        about = plain(json.loads(text, parse_constant=_refused))
    except (ValueError, RecursionError) as error:
        raise ValueError("is damaged: what describes its network is not plain JSON") from error
    if not isinstance(about, dict):
        raise ValueError("is damaged: what describes its network is not a mapping")
    return about


def _refused(constant: str) -> None:
    """NaN and Infinity, which Python reads though JSON lacks them."""
    raise ValueError(constant)


def _restored(name: str, tensor: Tensor) -> Tensor:
    import torch

    if tensor.dtype is torch.int64:
        return tensor
    if tensor.dtype not in (torch.float16, torch.float32):
        raise ValueError(f"is refused: {shown(name)} is {tensor.dtype}, it must be float16, float32 or int64")
    if not tensor.isfinite().all():
        raise ValueError(f"is damaged: {shown(name)} has values that are not finite numbers")
    return tensor.float()
