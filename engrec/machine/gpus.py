"""GPUs of this machine, and one for each parallel run, without loading torch."""

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
MOST = 1000  # runs in parallel; no machine has room for more


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: from that variable if it is set, else all
    that nvidia-smi lists. Each MIG instance counts as a GPU."""
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
    return parse_listing(done.stdout)


def parse_listing(text: str) -> list[str]:
    """The GPUs in the output of `nvidia-smi -L`: by number, and MIG instances by UUID."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("GPU "):
            gpus.append([])
        elif line.lstrip().startswith("MIG ") and gpus:
            gpus[-1].append(line.rpartition("UUID: ")[2].rstrip(" )"))
    return [name for number, instances in enumerate(gpus) for name in instances or [str(number)]]


def take(names: tuple[str, ...]) -> str:
    """Lock the first free GPU, until this process ends; another call takes another one.

    Waits while all are in use by this user's other sweeps. The kernel releases the lock of a process that is killed.
    """
    opened = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600) for path in locks(names)]
    announced = False
    while (own := next((i for i, descriptor in enumerate(opened) if lock(descriptor)), None)) is None:
        if not announced:
            print(
                f"all GPUs ({', '.join(names)}) are in use by other sweeps or searches: waiting for one",
                file=sys.stderr,
            )
            announced = True
        time.sleep(0.2)
    for i, descriptor in enumerate(opened):
        if i != own:
            os.close(descriptor)
    return names[own]


keep = cache(take)  # for a process that does several runs in turn on one GPU


def locks(names: Sequence[str]) -> list[Path]:
    """A lock file for each GPU, in a folder of this user and Slurm job: in every job the first GPU has number 0."""
    folder = Path(tempfile.gettempdir()) / f"engrec-gpus-{os.getuid()}{cluster.job() or ''}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to another user: remove it, or set TMPDIR to a folder of yours")
    return [folder / name.replace("/", "_") for name in names]


def slots(accelerator: str, workers: int | None) -> list[dict[str, str]]:
    """The environment of each parallel run: a GPU that no other search or sweep uses, or a share of the CPU cores."""
    check_parallel(workers or 1)
    found = [] if accelerator == "cpu" else visible()
    number = workers or max(1, len(found))
    found = [take(tuple(found)) for _ in found[:number]]  # until this process ends
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // number))
    environments = [{"OMP_NUM_THREADS": threads} for _ in range(number)]
    for index, slot in enumerate(environments if found else []):
        slot[VARIABLE] = found[index % len(found)]
    return environments


def check_parallel(number: int) -> None:
    if number > MOST:
        raise ValueError(f"{number} runs in parallel are too many: set workers= or --jobs to at most {MOST}")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
