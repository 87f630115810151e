"""A grid sweep over the GPUs of this machine (hydra/launcher=gpus): one GPU for each process."""

import os
import signal
import sys
import threading
import time
from functools import cache
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from engrec.machine import gpus


@cache  # once in a process
def worker_ends_with(launcher: int) -> None:
    """End this worker after the process that launched it: its trial stops as with `kill`, and no other starts.

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
        self.names = tuple(gpus.visible())

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if os.getpid() != self.launcher:
            worker_ends_with(self.launcher)
            if os.getppid() != self.launcher:
                os._exit(128 + signal.SIGTERM)
        if not self.names:
            return
        try:
            os.environ[gpus.VARIABLE] = gpus.keep(self.names)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")  # of another exception Hydra makes a warning, and the trial takes every GPU
