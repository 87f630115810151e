"""Processes of this machine: which one it is, whether it lives, what ends with it."""

import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engrec.machine.files import write_text


def process(pid: int) -> dict[str, Any] | None:
    """A process of this machine, told apart from a later one with its number by boot and clock tick, or by date; None
    where there is none, or one that has ended and is not yet taken notice of."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.is_file():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        began = "" if state in "ZX" else f"{boot.read_text().strip()} {fields[18]}"
    else:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        began = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"pid": pid, "began": began} if began else None


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def end_with(parent: int, signum: int = signal.SIGTERM) -> None:
    """A signal for this process when its parent dies, where Linux is."""
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # which has died meanwhile
            os._exit(1)


OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_")


def outside_of_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Slurm says of the job that a process is in, but with what Slurm itself is found by.

    A run that reads those would take itself for one of the job's tasks, or for a job that was started again.
    """
    return {key: value for key, value in environ.items() if key == "SLURM_CONF" or not key.startswith(OF_A_JOB)}


def signal_groups(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signum)


def tied_to(parent: int, record: Path) -> None:
    """In the child, before it is another program: it ends with its parent, and is on record before it does anything."""
    end_with(parent)
    write_text(record, json.dumps(process(os.getpid())))


def read_record(path: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {"pid": int(known["pid"]), "began": str(known["began"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
