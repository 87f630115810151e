"""Process identity, process groups, and processes that end with their parent."""

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
    """The identity of a running process: its pid and start time (boot and clock tick, or a date), as pids are reused.
    None if there is no such process, or only a zombie."""
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
    """Ask Linux to send this process a signal when its parent dies; elsewhere nothing happens."""
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_")


def outside_of_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that describe a Slurm job; SLURM_CONF stays, by which Slurm is found.

    A run that reads the others would take itself for a task of that job, or for a requeued job.
    """
    return {key: value for key, value in environ.items() if key == "SLURM_CONF" or not key.startswith(OF_A_JOB)}


def signal_groups(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signum)


def tied_to(parent: int, record: Path) -> None:
    """Called in the child before exec, so that it ends with its parent and its identity is on disk from the start."""
    end_with(parent)
    write_text(record, json.dumps(process(os.getpid())))


def read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"pid": int(record["pid"]), "began": str(record["began"])}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
