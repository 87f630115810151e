"""Checkpoint IO for Lightning: atomic writes, in a background thread when training on a GPU."""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from engrec.machine.files import atomic_write
from engrec.machine.hardware import synchronize


class Saver(TorchCheckpointIO):
    """Writes a checkpoint of CPU tensors at once. A checkpoint on a GPU is copied to the host, and training continues
    while a thread writes it, as writing can take as long as an epoch there.

    Checkpoints are written in the order in which they were saved, so that the best one of an epoch is on disk before
    the last one, which refers to it. A new one replaces the newest waiting one if both have the same path. One is
    written and at most two wait; then training waits. Unless it is killed by SIGKILL, a run ends only after the last
    checkpoint is written. An error of the thread is raised by the next save, or at the end.

    beside: whether to write in a thread (None: if the checkpoint is on a GPU). read: the checkpoint that the run
    resumes from, if it was read before.
    """

    def __init__(self, beside: bool | None = None, read: dict[str, Any] | None = None) -> None:
        self.beside, self.read = beside, read
        self.waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self.lock = threading.RLock()
        self.thread: ThreadPoolExecutor | None = None
        self.written: deque[Future[None]] = deque()  # one for each checkpoint that is written or waits

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint that was read before, the first time; else from disk."""
        if self.read is None:
            return super().load_checkpoint(path, map_location, weights_only)
        checkpoint, self.read = self.read, None
        return checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        devices = {tensor.device for tensor in checkpoint["state_dict"].values()} - {torch.device("cpu")}
        if not (devices if self.beside is None else self.beside):
            write(checkpoint, Path(path))
            return
        while self.written and (self.written[0].done() or (len(self.written) > 2 and not self.waits_last(path))):
            self.written.popleft().result()
        copy = apply_to_collection(checkpoint, Tensor, copied_to_host)
        for device in devices:
            synchronize(device)
        with self.lock:
            if self.waits_last(path):
                self.waiting[-1] = str(path), copy
                return
            self.waiting.append((str(path), copy))
        self.thread = self.thread or ThreadPoolExecutor(1, "checkpoints")
        self.written.append(self.thread.submit(self.write_oldest))

    def waits_last(self, path: str | Path) -> bool:
        with self.lock:
            return bool(self.waiting) and self.waiting[-1][0] == str(path)

    def write_oldest(self) -> None:
        with self.lock:
            path, checkpoint = self.waiting.popleft()
        write(checkpoint, Path(path))

    def teardown(self) -> None:
        """Wait until all is written; the trainer calls it at the end of training and after an exception."""
        if self.thread is not None:
            self.thread.shutdown()
            self.thread = None
        while self.written:
            self.written.popleft().result()


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Raises OSError where the disk is full: torch then complains about its own file and hides the reason."""
    with atomic_write(path, "wb") as file:  # given a path, torch would not say the reason at all
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error  # noqa: B904


def copied_to_host(tensor: Tensor) -> Tensor:
    """Copy to the host; from a GPU asynchronously and to pinned memory, so synchronize before reading it."""
    host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
    return host.copy_(tensor.detach(), non_blocking=True)
