"""What this machine does well, measured where it runs: precision, memory layout, optimizer, compilation, memory."""

import ctypes
import inspect
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLEARLY = 1.5  # a measured ratio that is more than noise; within it equal machines choose equally
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
ALIASES = {"bf16": "bf16-mixed", "16": "16-mixed", "32": "32-true", "64": "64-true", "None": "32-true"}  # Lightning's


@dataclass(frozen=True)
class Speed:
    """What makes a run fast and changes what it learns by rounding alone; "auto" is chosen for the machine.

    memory_format: of the backbone, "channels_last" or "contiguous". fused_optimizer: all parameters in one kernel,
    where the optimizer has one. compile: false, true, or a mode of torch.compile ("reduce-overhead": CUDA graphs).
    data: the data set on the "device" that trains or on the "host"; "auto" is the device if the data set takes at most
    the share data_share of its memory. keep_memory: what a run on the CPU frees stays with the process.

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
                raise ValueError(f"speed.{name}={value} is not known; allowed: {choices}")
        if not (isinstance(self.data_share, int | float) and 0 < self.data_share <= 1):
            raise ValueError(f"speed.data_share={self.data_share} must be above 0 and at most 1")


@dataclass(frozen=True)
class Choice:
    """Lightning's precision, the layout of feature maps, and why, with what was measured."""

    precision: str
    memory_format: str
    why: str


def choose(device: str, precision: str = "auto", memory_format: str = "auto", measure: bool = True) -> Choice:
    """Precision and layout for a device ("cuda", "mps", "cpu"); what is not "auto" stays as it is.

    Expected are bfloat16 where the hardware multiplies it, and channels last; each is given up, the precision first,
    where a block of convolutions is clearly slower with it. measure: if not, what is expected is chosen.
    """
    fast = "bf16-mixed" if multiplies_bfloat16(device) else "32-true"
    precision = ALIASES.get(str(precision), str(precision))
    kind = (fast if precision == "auto" else precision, "channels_last" if memory_format == "auto" else memory_format)
    if "auto" not in (precision, memory_format):
        return Choice(*kind, "as asked for")
    if not measure or kind[0] not in (*AUTOCAST, "32-true"):
        return Choice(*kind, "as the hardware is known, not measured")
    compared = []
    for place, plain in enumerate(("32-true", "contiguous")):
        if (precision, memory_format)[place] != "auto" or kind[place] == plain:
            continue
        rival = (plain, kind[1]) if place == 0 else (kind[0], plain)
        times = time_convolutions(torch.device(device), [kind, rival])
        compared.append(" and ".join(f"{' '.join(k)} {float(f'{times[k]:.2g}'):g} ms" for k in (kind, rival)))
        kind = rival if times[kind] > CLEARLY * times[rival] else kind
    why = f"a block of convolutions: {', '.join(compared)}; the second of a pair has to be {CLEARLY:g} times as fast"
    return Choice(*kind, why if compared else "as the hardware is known, not measured")


def accelerator_type(accelerator: str) -> str:
    """The kind of device that Lightning's name stands for here: cuda, mps or cpu."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware says so; others emulate it, many times slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if device == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def fuses(optimizer: Mapping[str, Any], precision: str, clips: bool = False) -> bool:
    """Whether all parameters are to be updated in one kernel by the optimizer of this node, which has a `_target_`.

    Not where the node says how to, where Lightning scales gradients (16-mixed), nor where it clips them in a mixed
    precision, which it refuses to do for a fused optimizer.
    """
    if {"fused", "foreach", "differentiable"} & optimizer.keys() or (clips and precision in AUTOCAST):
        return False
    return (
        "fused" in inspect.signature(pkgutil.resolve_name(optimizer["_target_"])).parameters and precision != "16-mixed"
    )


def time_convolutions(
    device: torch.device, kinds: list[tuple[str, str]], repeats: int = 5
) -> dict[tuple[str, str], float]:
    """Milliseconds, forward and backward, of two 3×3 convolutions on 16 images of 24×24 (256 of 48×48 on a GPU, which
    would else be timed at launching them), by precision and layout: the least of `repeats` taken in turn after one to
    warm up; on a CPU those of one thread, without the time that others have it, so that a busy machine chooses as an
    idle one does. Draws no random number that anyone else would."""
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
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def memory_of(device: torch.device) -> int:
    """Bytes of memory that the device has, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_memory(keep: bool = True) -> bool:
    """Let glibc keep what is freed, or (keep=False) give it back as it does by default; False without a glibc.

    By default every tensor above 32 MB is mapped anew, and the kernel fills its pages with zeros first, which takes a
    twelfth of a step of the paper's VGG at batch 128; smaller tensors and networks gain nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # by their numbers in malloc.h
    # By default the thresholds grow to these as a process goes on, and no more once one of them is set.
    values = {trim_threshold: 2**31 - 1 if keep else 2**26, mmap_threshold: 2**25, mmap_max: 0 if keep else 65536}
    return all(mallopt(name, value) for name, value in values.items())
