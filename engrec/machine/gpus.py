"""Which GPUs there are, and which of them a process may take. Nothing here loads torch."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from engrec.machine import cluster
from engrec.machine.files import lock

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those it names already, else all that
    nvidia-smi lists. Of a GPU in MIG mode each part is one."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        return [name for name in names[: names.index("-1") if "-1" in names else None] if name]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed(done.stdout)


def listed(text: str) -> list[str]:
    """What `nvidia-smi -L` says: GPUs by their number, the parts of one in MIG mode by their UUIDs."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("GPU "):
            gpus.append([])
        elif line.lstrip().startswith("MIG ") and gpus:
            gpus[-1].append(line.rpartition("UUID: ")[2].rstrip(" )"))
    return [name for number, parts in enumerate(gpus) for name in parts or [str(number)]]


def take(names: tuple[str, ...]) -> str:
    """The first of these GPUs that is not taken by this user, each time another; it is this process' until that ends.

    Waits where all are taken, as another sweep's are. The lock is the kernel's: a process that is killed leaves none.
    """
    opened = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600) for path in locks(names)]
    told = False
    while (own := next((i for i, descriptor in enumerate(opened) if lock(descriptor)), None)) is None:
        if not told:
            print(f"all GPUs ({', '.join(names)}) are taken by other sweeps: waiting for one", file=sys.stderr)
            told = True
        time.sleep(0.2)
    for i, descriptor in enumerate(opened):
        if i != own:
            os.close(descriptor)
    return names[own]


keep = cache(take)  # for a process with one trial after the other


def locks(names: Sequence[str]) -> list[Path]:
    """A file for each GPU in a folder of this user's, another in each Slurm job: each calls its own first GPU 0."""
    folder = Path(tempfile.gettempdir()) / f"engrec-gpus-{os.getuid()}{cluster.job() or ''}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} is another user's: remove it, or set TMPDIR to a folder of yours")
    return [folder / name.replace("/", "_") for name in names]


def slots(accelerator: str, workers: int | None) -> list[dict[str, str]]:
    """The environment of each trial at a time: a GPU that no other search or sweep has, or a share of the cores."""
    found = [] if accelerator == "cpu" else visible()
    number = workers or max(1, len(found))
    found = [take(tuple(found)) for _ in found[:number]]  # as long as the search goes on
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // number))
    environments = [{"OMP_NUM_THREADS": threads} for _ in range(number)]
    for index, slot in enumerate(environments if found else []):
        slot[VARIABLE] = found[index % len(found)]
    return environments


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
