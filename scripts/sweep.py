"""A search for better hyper-parameters: many runs of train.py, each with values drawn where it looks promising.

python scripts/sweep.py sweep=small n_trials=20 workers=2
python scripts/sweep.py sweep=vgg_finetune init_from=outputs/fer2013/best.ckpt model=vgg_small n_trials=50 workers=4
python scripts/sweep.py sweep=speed workers=1 max_epochs=2 seed=3

The same command again goes on where it was stopped. What is drawn and what counts is written in conf/sweep/NAME.yaml;
docs/sweeps.md says the rest.
"""

import argparse
import gc
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from math import inf, isnan
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from engrec.config import Config, check, composed, errors_in_one_line, explain, nearest
from engrec.machine import cluster, gpus
from engrec.search import local, slurm, space
from engrec.search.progress import Table
from engrec.search.search import Search
from engrec.search.space import Sweep, key_of
from engrec.search.study import forget, locked, open_study

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, str(ROOT / "train.py"))
OURS = ("sweep", "n_trials", "workers", "folder", "timeout", "folds", "launcher")
RESERVED = {
    "output_dir": "each trial has its own folder: type folder= for that of the search",
    "ckpt_path": "each trial starts anew: type init_from= for the weights to start from",
    "run": "each trial has its own folder: type folder= for that of the search",
}


@dataclass(frozen=True)
class Typed:
    """The command's own arguments; overrides are train.py's."""

    sweep: Sweep
    folder: Path
    n_trials: int
    workers: int | None
    timeout: float
    slurm: slurm.Options | None  # None: trials are processes of this machine
    freed: tuple[str, ...]  # keys that the overrides took out of the search
    command: str


def main(arguments: list[str], command: Sequence[str] = TRAIN) -> None:
    """command: what stands before each trial's overrides, which the tests replace."""
    typed = parse(arguments)
    cfg = compose_one(typed.sweep, 0)
    check_fits(typed.sweep, cfg)
    in_queue = typed.slurm and slurm.Launcher(typed.workers or 1, typed.slurm, typed.folder / "slurm")
    with locked(typed.folder) as lock:
        new = not (typed.folder / "journal.log").is_file()
        study = open_study(typed.folder, typed.sweep)
        launcher = in_queue or local.Launcher(slots(str(cfg.trainer.accelerator), typed.workers))
        table = Table(sys.stdout.isatty())
        searching = Search(
            typed.sweep, study, typed.folder, launcher, [*command, *quiet(cfg)], typed.n_trials,
            most_epochs(typed.sweep, cfg), table, typed.timeout, typed.command,
        )  # fmt: skip
        announce(typed, searching)
        with checked(typed, searching, lock, new), signals_stop(searching):
            gc.freeze()  # what is forked for each trial copies less
            try:
                searching.run()
            finally:
                table.clear()
        conclude(typed, searching)


# What is typed.


def parse(arguments: list[str]) -> Typed:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE",
        help=f"sweep={{{','.join(sweeps())}}} or a YAML; n_trials (20): results in all; workers: trials at a time (one "
        "for each GPU, else 1); folder (outputs/sweeps/NAME); timeout: seconds; folds=[0,1,2]: a trial is their mean; "
        "launcher=slurm: trials are jobs of Slurm, with slurm.partition= and the like; and any override of train.py",
    )  # fmt: skip
    given = parser.parse_args(arguments).arguments
    for argument in given:
        if "=" not in argument:
            raise ValueError(f"{argument}: every argument is KEY=VALUE, such as sweep=small or n_trials=20")
    ours = {key: value for key, _, value in (a.partition("=") for a in given) if key in OURS}
    slurm = {key.removeprefix("slurm."): value for key, _, value in (a.partition("=") for a in given) if of_slurm(key)}
    overrides = [a for a in given if (key := a.partition("=")[0]) not in OURS and not of_slurm(key)]
    for override in overrides:
        check_override(key_of(override))
    sweep = space.read(sweep_file(ours.get("sweep")))
    freed = tuple(key for key in sweep.search if key in {key_of(override) for override in overrides})
    sweep = with_folds(sweep.fixed(overrides), ours.get("folds"))
    return Typed(
        sweep=sweep,
        folder=Path(ours.get("folder") or Path("outputs", "sweeps", sweep.name)),
        n_trials=whole("n_trials", ours.get("n_trials", "20")),
        workers=whole("workers", ours["workers"]) if "workers" in ours else None,
        timeout=seconds(ours.get("timeout")),
        slurm=options_of_slurm(ours.get("launcher", "local"), slurm),
        freed=freed,
        command=shlex.join(["python", "scripts/sweep.py", *given]),
    )


def of_slurm(key: str) -> bool:
    return key.startswith("slurm.")


def options_of_slurm(launcher: str, given: dict[str, str]) -> slurm.Options | None:
    """None for launcher=local."""
    if launcher not in ("local", "slurm"):
        close = nearest(launcher, ("local", "slurm"))
        raise ValueError(f"launcher={launcher} is not known{close}; allowed: local, slurm")
    if given and launcher == "local":
        raise ValueError(f"slurm.{next(iter(given))} is for trials that are jobs of Slurm: type launcher=slurm")
    return slurm.read_options(given) if launcher == "slurm" else None


def check_override(key: str) -> None:
    """Raise ValueError for what a trial cannot have, and for misspelt arguments of the search itself."""
    if key in RESERVED:
        raise ValueError(f"{key} cannot be set in a search: {RESERVED[key]}")
    if key.partition(".")[0] == "hydra":
        raise ValueError(f"{key} cannot be set in a search: its trials are plain runs")
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    known = groups | {field.name for field in fields(Config)}
    if key.partition(".")[0] not in known and "@" not in key and (close := nearest(key, OURS)):
        raise ValueError(f"there is no {key}{close}; the search takes {', '.join(OURS)} and train.py's overrides")


def sweeps() -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))


def sweep_file(name: str | None) -> Path:
    """From the name of one of conf/sweep, or the path of another YAML."""
    if not name:
        raise ValueError(f"missing sweep, what is searched: sweep= with {', '.join(sweeps())}, or the path of a YAML")
    if name in sweeps():
        return ROOT / "conf" / "sweep" / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise ValueError(f"sweep={name} is not a file")
        return Path(name)
    raise ValueError(f"sweep={name} is not there{nearest(name, sweeps())}; allowed: {', '.join(sweeps())}, or a YAML")


def whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{key}={value} is not a whole number from 1")
    return int(value)


def seconds(value: str | None) -> float:
    try:
        number = inf if value is None else float(value)
    except ValueError:
        number = -1.0
    if isnan(number) or number <= 0:
        raise ValueError(f"timeout={value} is not a number of seconds, such as timeout=3600")
    return number


def with_folds(sweep: Sweep, value: str | None) -> Sweep:
    """folds=[0,1,2], or null for one run as it is."""
    if value is None:
        return sweep
    folds = OmegaConf.to_container(OmegaConf.create({"folds": OmegaConf.create(f"folds: {value}").folds}))
    assert isinstance(folds, dict)
    found = folds["folds"]
    found = [] if found is None else found if isinstance(found, list) else [found]
    space.check_folds(found)
    return replace(sweep, folds=tuple(found))


# What the trials will be.


@contextmanager
def checked(typed: Typed, searching: Search, lock: int, new: bool) -> Iterator[None]:
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
    cluster.end_with(parent)
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


def quiet(cfg: DictConfig) -> list[str]:
    """No progress bar, of which the log would be full."""
    bar = cfg.callbacks.get("progress")
    return ["+callbacks.progress.refresh_rate=0"] if bar is not None and "refresh_rate" not in bar else []


def slots(accelerator: str, workers: int | None) -> list[dict[str, str]]:
    """The environment of each trial at a time: a GPU that no other search or sweep has, or a share of the cores."""
    found = [] if accelerator == "cpu" else gpus.visible()
    number = workers or max(1, len(found))
    found = [gpus.take(tuple(found)) for _ in found[:number]]  # as long as the search goes on
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // number))
    slots = [{"OMP_NUM_THREADS": threads} for _ in range(number)]
    for index, slot in enumerate(slots if found else []):
        slot[gpus.VARIABLE] = found[index % len(found)]
    return slots


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is said at the start and at the end.


def announce(typed: Typed, searching: Search) -> None:
    sweep = typed.sweep
    for key in typed.freed:
        print(f"{key} is fixed by the command line: not searched")
    print(f"searching {', '.join(sweep.search)}")
    if len(sweep.objectives) > 1:
        print("several objectives: no trial is pruned, and several may be best")
    print(where(searching.launcher.slots) if typed.slurm is None else in_slurm(searching, typed.slurm), flush=True)
    if searching.num_settled or searching.waiting:
        interrupted = f", {len(searching.waiting)} interrupted are taken up" if searching.waiting else ""
        print(f"going on: {searching.num_settled} of {typed.n_trials} done{interrupted}", flush=True)


def where(slots: Sequence[dict[str, str]]) -> str:
    """2 at a time, with 1 threads each"""
    gpus_used = {slot[gpus.VARIABLE] for slot in slots if gpus.VARIABLE in slot}
    if not gpus_used:
        return f"{len(slots)} at a time, with {slots[0]['OMP_NUM_THREADS']} threads each"
    shared = f"\nworkers={len(slots)} share {len(gpus_used)} GPUs: times say less, and memory may run out"
    return f"{len(slots)} at a time, on {len(gpus_used)} GPUs{shared if len(slots) > len(gpus_used) else ''}"


def in_slurm(searching: Search, options: slurm.Options) -> str:
    found = f"{options.gpus_per_node} GPUs" if options.gpus_per_node else "no GPU (slurm.gpus_per_node=1 asks for one)"
    number = len(searching.launcher.slots)
    return f"jobs of Slurm, {number} at a time, each with {options.cpus_per_task} CPUs and {found}"


@contextmanager
def signals_stop(searching: Search) -> Iterator[None]:
    """Ctrl-C, kill and a closed terminal end the search between two looks; one that is ignored stays ignored."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, searching.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(typed: Typed, searching: Search) -> None:
    from engrec.pages.search import write_summary  # with plotly

    text, paths = write_summary(typed.sweep, searching.study, typed.folder, typed.command)
    if searching.signal:
        print(f"\nstopped; nothing that was finished is lost. Go on with: {typed.command}", flush=True)
        sys.exit(128 + searching.signal)
    print(f"\n{text}")
    if searching.out_of_time and searching.num_settled < typed.n_trials:
        print(f"timeout={typed.timeout:g}: go on with: {typed.command}")
    print("written:", *(str(path) for path in [*paths, typed.folder / "trials.csv", typed.folder / "sweep.json"]))
    if not searching.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
        sys.exit("error: all trials have failed")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
