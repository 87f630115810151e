"""Which GPUs there are, and one of them for each process of a sweep: hydra/launcher=gpus. Nothing here loads torch."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from engrec.machine import cluster

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
    while (own := next((i for i, descriptor in enumerate(opened) if locked(descriptor)), None)) is None:
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


def locked(descriptor: int) -> bool:
    """Whether this process has got the lock."""
    import fcntl  # not on Windows, which gets as far as here in no other way

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache  # once in a process
def worker_ends_with(launcher: int) -> None:
    """Let this worker end when the process that launched it is gone: its trial stops as at `kill`, no other begins.

    At the one signal of cluster.end_with the trial would stop, and loky's worker wait for the next, with its GPU.
    """

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class OneGpu(Callback):
    """Hydra's callback that gives each process of a sweep a GPU of its own, before anything of CUDA is loaded there."""

    def __init__(self) -> None:
        self.launcher, self.names = os.getpid(), ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """In the process that launches the others, to which this object is copied."""
        self.names = tuple(visible())

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if os.getpid() != self.launcher:
            worker_ends_with(self.launcher)
            if os.getppid() != self.launcher:
                os._exit(128 + signal.SIGTERM)
        if not self.names:
            return
        try:
            os.environ[VARIABLE] = keep(self.names)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")  # of another exception Hydra makes a warning, and the trial takes every GPU


OmegaConf.register_new_resolver("num_gpus", lambda: len(visible()) or 1, replace=True)
