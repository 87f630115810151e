"""Callbacks that the tests put into a run: `+callbacks.seen._target_=watching.Seen`, with this folder on PYTHONPATH."""

import json
import os
import time
from pathlib import Path

import torch
from pytorch_lightning import Callback


class Seen(Callback):
    """Writes to DIRPATH/seen.json which GPU the process was given, and when; waits until TOGETHER runs have begun.

    The folder above has a file for each that has begun.
    """

    def __init__(self, dirpath, together=1, name=""):
        self.path, self.together = Path(dirpath), together

    def on_fit_start(self, trainer, pl_module):
        self.seen = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "process": os.getpid(), "begun": time.time()}
        self.seen["cuda"] = torch.cuda.is_initialized()
        (self.path.parent / f"{self.path.name}.begun").touch()
        end = time.monotonic() + 60
        while len([*self.path.parent.glob("*.begun")]) < self.together:
            assert time.monotonic() < end, "the others do not begin"
            time.sleep(0.02)

    def on_fit_end(self, trainer, pl_module):
        (self.path / "seen.json").write_text(json.dumps(self.seen | {"ended": time.time()}))


class Held(Callback):
    """Holds the run in the midst of an epoch for as long as PATH exists; PATH.here says that it has come so far."""

    def __init__(self, path, epoch=2, batch=1):
        self.path, self.at = Path(path), (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            self.path.with_suffix(f".{trainer.global_rank}").touch()
            end = time.monotonic() + 300
            while self.path.exists():
                assert time.monotonic() < end, "nobody lets go"  # nor is a run left over when the tests are killed
                time.sleep(0.02)


class HeldInside(Callback):
    """Holds the first process inside a forward pass, for a few seconds, while the others wait for its gradients; PATH
    then exists."""

    def __init__(self, path):
        self.path = Path(path)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1) and trainer.is_global_zero:
            pl_module.head.register_forward_pre_hook(self.hold)

    def hold(self, module, arguments):
        self.path.touch()
        time.sleep(5)


class Asked(Callback):
    """Writes to DIRPATH/asked.json how often this process asked the others in the steps of each epoch, but for the sum
    of gradients, for which nobody waits."""

    def __init__(self, dirpath):
        self.path, self.epochs, self.calls = Path(dirpath) / "asked.json", [], 0

    def setup(self, trainer, pl_module, stage):
        for name in ("broadcast", "all_reduce", "all_gather", "barrier", "broadcast_object_list"):
            setattr(torch.distributed, name, self.counted(getattr(torch.distributed, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.calls += 1
            return function(*args, **kwargs)

        return call

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self.calls if batch_idx == 0 else self.before

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == trainer.num_training_batches:
            self.epochs.append(self.calls - self.before)

    def on_fit_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            self.path.write_text(json.dumps({"steps": self.epochs, "whole": self.calls}))
