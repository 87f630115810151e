"""A grid sweep (-m): its values are checked before its first run; with hydra/launcher=gpus each process has a GPU."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, cast

import numpy as np
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engrec import splits
from engrec.config import check, check_missing, composed
from engrec.errors import explain
from engrec.machine import gpus

MOST = 30  # values of a key that are checked; each takes a tenth of a second


class Checked(Callback):
    """Hydra's callback that ends a sweep before its first run if a later one would be refused."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        problems, runs = [], []
        typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # ${output_dir} is not known yet
        try:
            runs = list(runs_to_check(cast(list[str], typed)))
        except ValueError as error:
            problems.append(explain(error))
        for overrides in runs:
            try:
                check_run(overrides)
            except Exception as error:
                problems.append(explain(error))
        if problems:  # as an exit, because Hydra makes a warning of another exception
            sys.exit(f"error: {'; '.join(dict.fromkeys(problems))}")


def runs_to_check(typed: list[str]) -> Iterator[list[str]]:
    """Each value of a key that is swept over, beside the first values of the others.

    Raises ValueError for a key without values, with which Hydra would launch no run, and exit with 0.
    """
    started = GlobalHydra.instance()
    loader = started.config_loader() if started.is_initialized() else None  # it knows what glob(*) stands for
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(typed)
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    swept = {
        override.get_key_element(): list(islice(override.sweep_string_iterator(), MOST))
        for override in parsed
        if override.is_sweep_override()
    }
    if empty := [line for line in typed if swept.get(line.partition("=")[0]) == []]:
        raise ValueError(f"{empty[0]} names no run: set at least one value, such as seed=0,1 or model=cnn,vgg")
    for key, values in swept.items():
        others = [f"{other}={found[0]}" for other, found in swept.items() if other != key]
        yield from ([*fixed, *others, f"{key}={value}"] for value in values)


def check_run(overrides: list[str]) -> None:
    """Raise ValueError for what train.py would refuse."""
    cfg = composed(overrides)
    cfg.output_dir = "outputs"  # Hydra chooses it for each run
    if OmegaConf.select(cfg, "ckpt_path") == "last":
        cfg.ckpt_path = None
    check(cfg)
    check_fold(cfg)


def check_fold(cfg: DictConfig) -> None:
    """Raise ValueError for a fold that there is not: of split=loso, only the data set knows the last."""
    split = cfg.split
    if "num_folds" in split:
        splits.check_fold(split.fold, split.num_folds)
    elif "fold" in split:
        splits.check_fold(split.fold, num_subjects(cfg.dataset))
    if split.get("num_outer") and not 0 <= split.outer < split.num_outer:
        raise ValueError(f"split.outer={split.outer} must be from 0 to {split.num_outer - 1}")


def num_subjects(dataset: DictConfig) -> int:
    """Of the data set with this configuration. Raises ValueError where it is not complete or has no subject ids."""
    check_missing(dataset)
    return _num_subjects(OmegaConf.to_yaml(dataset, resolve=True))


@cache  # of all folds of a sweep
def _num_subjects(dataset: str) -> int:
    faces = instantiate(OmegaConf.create(dataset), _convert_="all")
    return len(np.unique(splits.required(faces.subjects)))


@cache  # once in a process
def worker_ends_with(launcher: int) -> None:
    """End this worker after the process that launched it: its run stops as with `kill`, and no other starts.

    At the one signal of cluster.end_with the run would stop, and loky's worker wait for the next, with its GPU.
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
            sys.exit(f"error: {error}")  # of another exception Hydra makes a warning, and the run takes every GPU
