"""Checkpoints that appear under their names only when they are whole; where a GPU trains, a thread writes them."""

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
    """Writes a checkpoint at once where it lies on the CPU; else copies it to the host, and training goes on while a
    thread writes it, which takes as long as an epoch may on a GPU.

    They are written in the order in which they were saved, so that the best of an epoch is on the disk before the last
    that speaks of it; where the newest that waits has the same path, the new one takes its place. One is written and
    two wait at most: then training waits. A run that ends, however it does but by SIGKILL, ends after the last is
    written. What the thread could not write is raised by the next saving, or at the end. beside: whether a thread
    writes, if not left to the checkpoint. read: the checkpoint that the run resumes from, if it was read before.
    """

    def __init__(self, beside: bool | None = None, read: dict[str, Any] | None = None) -> None:
        self.beside, self.read = beside, read
        self.waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self.lock = threading.RLock()
        self.thread: ThreadPoolExecutor | None = None
        self.written: deque[Future[None]] = deque()  # or to be written: one for each that waits

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint that was read before, once; any other from the disk."""
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
        """Called by the trainer at the end of training and where it breaks off."""
        if self.thread is not None:
            self.thread.shutdown()
            self.thread = None
        while self.written:
            self.written.popleft().result()


def write(checkpoint: dict[str, Any], path: Path) -> None:
    with atomic_write(path, "wb") as file:  # by its path, a full disk would be a RuntimeError of torch's
        torch.save(checkpoint, file)


def copied_to_host(tensor: Tensor) -> Tensor:
    """In pinned memory where a GPU copies, which has to be waited for before it is read."""
    host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
    return host.copy_(tensor.detach(), non_blocking=True)
