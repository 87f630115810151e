"""Precision, memory format, optimizer, compilation and memory: what "auto" means on this machine, by measurement."""

import ctypes
import inspect
import logging
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLEARLY = 1.5  # a measured ratio above noise, so that two machines of the same kind choose the same
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
ALIASES = {"bf16": "bf16-mixed", "16": "16-mixed", "32": "32-true", "64": "64-true", "None": "32-true"}  # Lightning's
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speed:
    """Settings of speed, which change results only by rounding; "auto" is chosen for the machine.

    memory_format: of the backbone, "channels_last" or "contiguous". fused_optimizer: update all parameters in one
    kernel, if the optimizer has one. compile: false, true, or a mode of torch.compile ("reduce-overhead": CUDA graphs).
    data: keep the data set on the "device" that trains or on the "host"; "auto" is the device if the data set takes at
    most the share data_share of its memory. keep_memory: on a CPU, keep freed memory in the process.

    Raises ValueError for a value that is not allowed.
    """

    memory_format: str = "auto"
    fused_optimizer: bool | str = "auto"
    compile: bool | str = False
    data: str = "auto"
    data_share: float = 0.25
    keep_memory: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "memory_format": ("auto", *LAYOUTS),
            "fused_optimizer": ("auto", True, False),
            "compile": (True, False, *COMPILE_MODES),
            "data": ("auto", "device", "host"),
            "keep_memory": (True, False),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in values):
                choices = ", ".join(str(choice).lower() for choice in values)
                raise ValueError(f"speed.{name}={value} must be one of {choices}")
        if not (isinstance(self.data_share, int | float) and 0 < self.data_share <= 1):
            raise ValueError(f"speed.data_share={self.data_share} must be above 0 and at most 1")


@dataclass(frozen=True)
class Choice:
    """Lightning's precision, the memory format of feature maps, and the reason, with the measured times."""

    precision: str
    memory_format: str
    why: str


def usable(precision: Any, device: str) -> str:
    """The precision under Lightning's full name, such as 32-true for 32, and one that the device has."""
    name = ALIASES.get(str(precision), str(precision))
    if (device, name) == ("cpu", "16-mixed"):
        log.warning("trainer.precision=16-mixed needs a GPU; this run uses bf16-mixed")
        return "bf16-mixed"
    return name


def choose(device: str, precision: str = "auto", memory_format: str = "auto", measure: bool = True) -> Choice:
    """Choose precision and memory format for a device ("cuda", "mps", "cpu"); a value other than "auto" is kept.

    bfloat16 (if the hardware multiplies it) and channels-last are expected to be fastest. Each is given up, the
    precision first, if a block of convolutions is clearly slower with it. measure=False: choose the expected ones.
    """
    fast = "bf16-mixed" if multiplies_bfloat16(device) else "32-true"
    precision = usable(precision, device)
    kind = (fast if precision == "auto" else precision, "channels_last" if memory_format == "auto" else memory_format)
    if "auto" not in (precision, memory_format):
        return Choice(*kind, "as configured")
    if not measure or kind[0] not in (*AUTOCAST, "32-true"):
        return Choice(*kind, "expected for this hardware, not measured")
    compared = []
    for place, plain in enumerate(("32-true", "contiguous")):
        if (precision, memory_format)[place] != "auto" or kind[place] == plain:
            continue
        rival = (plain, kind[1]) if place == 0 else (kind[0], plain)
        times = time_convolutions(torch.device(device), [kind, rival])
        compared.append(", ".join(f"{k[place]} {float(f'{times[k]:.2g}'):g} ms" for k in (kind, rival)))
        kind = rival if times[kind] > CLEARLY * times[rival] else kind
    return Choice(*kind, f"measured: {'; '.join(compared)}" if compared else "expected for this hardware, not measured")


def accelerator_type(accelerator: str) -> str:
    """The device type (cuda, mps or cpu) that a value of trainer.accelerator means on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware reports native bfloat16; emulation is many times slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if device == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def fuses(optimizer: Mapping[str, Any], precision: str, clips: bool = False) -> bool:
    """Whether to use the fused version of an optimizer, given as a configuration node with a `_target_`.

    Not if the node chooses an implementation itself, or if Lightning scales gradients (16-mixed) or clips them in mixed
    precision, which it refuses for a fused optimizer.
    """
    if {"fused", "foreach", "differentiable"} & optimizer.keys() or (clips and precision in AUTOCAST):
        return False
    return (
        "fused" in inspect.signature(pkgutil.resolve_name(optimizer["_target_"])).parameters and precision != "16-mixed"
    )


def time_convolutions(
    device: torch.device, kinds: list[tuple[str, str]], repeats: int = 5
) -> dict[tuple[str, str], float]:
    """Milliseconds for the forward and backward pass of two 3×3 convolutions, by precision and memory format.

    Each time is the least of `repeats`, taken in turn after a warm-up. On a CPU it is the time of one thread, without
    the time of others, on 16 images of 24×24, so that a busy machine chooses as an idle one does; on a GPU it is wall
    time on 256 images of 48×48, as a smaller batch would measure kernel launches. The global random state is unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        steps = {kind: _block(device, *kind) for kind in kinds}
    times: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats + 1):
            for kind, step in steps.items():
                synchronize(device)
                started = clock()
                step()
                synchronize(device)
                times[kind].append(1e3 * (clock() - started))
    finally:
        torch.set_num_threads(threads)
    return {kind: min(taken[1:]) for kind, taken in times.items()}


def _block(device: torch.device, precision: str, memory_format: str) -> Callable[[], None]:
    layers = nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
    block = nn.Sequential(*layers).to(device).to(memory_format=LAYOUTS[memory_format])  # pyright: ignore[reportCallIssue]
    size = (16, 32, 24, 24) if device.type == "cpu" else (256, 32, 48, 48)
    maps = torch.randn(size).to(device, memory_format=LAYOUTS[memory_format]).requires_grad_()

    def step() -> None:
        with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            out: Tensor = block(maps)
        out.float().sum().backward()

    return step


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def memory_of(device: torch.device) -> int:
    """Total memory of the device, in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_memory(keep: bool = True) -> bool:
    """Let glibc keep freed memory in the process, or (keep=False) return it as by default; False without glibc.

    By default every tensor above 32 MB gets new pages, which the kernel fills with zeros: this takes a twelfth of a
    step of the paper's VGG at batch size 128. Smaller tensors and networks gain nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # numbers of mallopt's parameters in malloc.h
    # keep=False sets what the thresholds grow to by default; setting any of them stops them from growing.
    values = {trim_threshold: 2**31 - 1 if keep else 2**26, mmap_threshold: 2**25, mmap_max: 0 if keep else 65536}
    return all(mallopt(name, value) for name, value in values.items())
