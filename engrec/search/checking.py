"""Whether every choice of a sweep makes a run that train.py accepts."""

import gc
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution

from engrec.config import check, composed
from engrec.errors import explain
from engrec.machine import processes
from engrec.search import slurm, space
from engrec.search.arguments import Options
from engrec.search.search import Search
from engrec.search.space import Sweep
from engrec.search.study import forget


@contextmanager
def checked(typed: Options, searching: Search, lock: int, new: bool) -> Iterator[None]:
    """The first trials start while every choice of every key is checked, for torch, which that needs, takes seconds to
    load; jobs of Slurm start thereafter.

    Raises ValueError for what train.py would not run, or Slurm not take; of a new search then nothing is left.
    """
    if searching.num_settled:  # it was checked when it began
        yield
        return
    checking = Checking(typed.sweep, lock)
    searching.check = checking.look
    try:
        if typed.slurm is not None:
            checking.finish()
        try:
            yield
        finally:
            if not searching.signal:
                checking.finish()
    except (UnfitError, slurm.RefusedError) as error:
        if new and not (isinstance(error, slurm.RefusedError) and any(typed.folder.glob("trials/**/job.json"))):
            forget(typed.folder)
        raise
    finally:
        checking.process.terminate()


class UnfitError(ValueError):
    """What the check of the configuration found."""


class Checking:
    """A process that checks every choice of every key; this one, from which trials are forked, stays without torch."""

    def __init__(self, sweep: Sweep, lock: int) -> None:
        context = get_context("fork")
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=check_all, args=(sweep, sender, lock, os.getpid()), daemon=True)
        self.process.start()
        sender.close()
        self.over = False

    def look(self) -> None:
        """Raises what it has found, if it has."""
        if self.over or not self.receiver.poll():
            return
        self.over = True
        with suppress(EOFError):  # of a check that someone has killed; trials check themselves too
            if (found := self.receiver.recv()) is not None:
                raise UnfitError(found)

    def finish(self) -> None:
        while not self.over:
            self.receiver.poll(None)
            self.look()


def check_all(sweep: Sweep, sender: Connection, lock: int, parent: int) -> None:
    """What is wrong with it, if anything, is sent; the search's lock is not kept."""
    os.close(lock)
    processes.end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # loading leaves no garbage, and looking for it takes a while
    try:
        every = [compose_one(sweep, index) for index in range(most_choices(sweep))]
        for cfg in every:
            check_fits(sweep, cfg)
        for cfg in every:
            check(cfg)
        sender.send(None)
    except Exception as error:
        users = isinstance(error, ValueError | OSError | HydraException | OmegaConfBaseException)
        sender.send(explain(error) if users else traceback.format_exc())


def compose_one(sweep: Sweep, index: int) -> DictConfig:
    """As train.py composes it, with the choice of that number for each key."""
    drawn = {key: example(values, index) for key, values in sweep.search.items()}
    fold = [f"split.fold={sweep.folds[0]}"] if sweep.folds else []
    cfg = composed(space.merged(sweep.overrides, space.arguments(drawn), fold))
    cfg.output_dir = "outputs"
    return cfg


def example(values: BaseDistribution, index: int) -> Any:
    if isinstance(values, CategoricalDistribution):
        return values.choices[index % len(values.choices)]
    return (values.low, values.high)[index % 2]  # pyright: ignore[reportAttributeAccessIssue]


def most_choices(sweep: Sweep) -> int:
    return max([2, *(len(v.choices) for v in sweep.search.values() if isinstance(v, CategoricalDistribution))])


def check_fits(sweep: Sweep, cfg: DictConfig) -> None:
    if cfg.stage == "test":
        raise ValueError("stage=test trains nothing: a search needs pretrain, finetune or scratch")
    scores = [objective.metric for objective in sweep.objectives if objective.is_score]
    if scores and cfg.monitor != scores[0]:
        raise ValueError(f"the search is for {scores[0]}, and each run keeps its best epoch: type monitor={scores[0]}")
    if str(cfg.trainer.devices) not in ("1", "auto"):
        raise ValueError(f"trainer.devices={cfg.trainer.devices}: a trial has one device; type trainer.devices=1")


def most_epochs(sweep: Sweep, cfg: DictConfig) -> int:
    searched = sweep.search.get("max_epochs")
    if isinstance(searched, CategoricalDistribution):
        return max(int(value or 1) for value in searched.choices)
    return int(getattr(searched, "high", cfg.max_epochs))
