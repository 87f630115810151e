"""Hyper-parameter search: Optuna asks and is told, each trial is a process of its own, no kill loses anything.

A search lives in one folder: journal.log (Optuna's, the only truth), trials/NUMBER (the run folders), and what is
written for people and dashboards: trials.csv, sweep.json, summary.md, summary.html. A trial that a dead search left
running stays RUNNING in the journal, and the next search takes it up: it tells the value if the run has ended
meanwhile, else the run goes on, with the same parameters, under the same number.
"""

import copy
import csv
import ctypes
import errno
import io
import json
import math
import os
import re
import select
import shlex
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from engrec import page
from engrec.config import nearest

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

POLL = 0.5  # seconds between looks at the metrics of running trials; the end of one is noticed at once
GRACE = 15.0  # seconds that a process has to end after SIGTERM
HOPELESS = 5  # failed trials, before any other, that end a search
LEAST = 10  # complete trials that importances are computed from
WRITTEN = 2.0  # seconds between two versions of sweep.json and trials.csv
Direction = Literal["minimize", "maximize"]
SCORE = re.compile(r"val/(accuracy|balanced_accuracy|f1|auc|loss)")
COSTS: dict[str, Direction] = {
    "seconds_per_epoch": "minimize",
    "train_images_per_second": "maximize",
    "num_parameters": "minimize",
}
SAMPLERS: dict[str, dict[str, int]] = {"tpe": {"n_startup_trials": 10}, "random": {}}
PRUNERS: dict[str, dict[str, int]] = {
    "median": {"n_startup_trials": 5, "n_warmup_steps": 1},
    "hyperband": {"min_resource": 1, "reduction_factor": 3},
}
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 130, 143}  # statuses of the stopped


# What is searched.


@dataclass(frozen=True)
class Objective:
    """A figure of a run's result.json: of its best epoch on the validation images, or what the run costs."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> int:
        """What to multiply by so that more is better."""
        return 1 if self.direction == "maximize" else -1

    @property
    def is_score(self) -> bool:
        return self.metric.startswith("val/")


@dataclass(frozen=True)
class Sweep:
    """What conf/sweep/NAME.yaml says: fixed overrides of train.py, and the space from which the others are drawn."""

    name: str
    overrides: tuple[str, ...]
    search: dict[str, BaseDistribution]
    objectives: tuple[Objective, ...]
    folds: tuple[int, ...] = ()  # a trial is the mean over them; none: one run as it is
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: dict[str, Any] | None = None
    seed: int = 0

    def fixed(self, overrides: Sequence[str]) -> "Sweep":
        """The sweep with more overrides, the later ones being those that count; a key that they fix is not searched."""
        keys = {key_of(override) for override in overrides}
        space = {key: values for key, values in self.search.items() if key not in keys}
        if not space:
            raise ValueError("the overrides leave nothing to search for: type fewer of " + ", ".join(self.search))
        return replace(self, overrides=tuple(merged(self.overrides, overrides)), search=space)

    def spec(self) -> dict[str, Any]:
        """All that two commands have to agree in to go on with the same search, as JSON has it."""
        return {
            "overrides": sorted(self.overrides),
            "search": {key: _in_words(values) for key, values in self.search.items()},
            "objectives": [[objective.metric, objective.direction] for objective in self.objectives],
            "folds": list(self.folds),
            "sampler": self.sampler,
            "pruner": self.pruner,
            "seed": self.seed,
        }


def read(path: Path) -> Sweep:
    """A sweep's YAML. Raises ValueError, in one line, for what is unknown, missing or contradictory in it."""
    try:
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError:
        raise
    except Exception as error:  # YAML's own errors have no common type with OmegaConf's
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _parsed(path.stem, node)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parsed(name: str, node: Any) -> Sweep:
    allowed = ("overrides", "search", "objectives", "folds", "sampler", "pruner", "seed")
    _check_keys("", node, allowed)
    for key in ("search", "objectives"):
        if not node.get(key):
            raise ValueError(f"{key} is missing")
    overrides = tuple(map(str, node.get("overrides") or ()))
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"overrides: {override} is not KEY=VALUE, as for train.py")
    _check_keys("search", node["search"], node["search"])
    objectives = [_objective(entry) for entry in node["objectives"]]
    if len({objective.metric for objective in objectives}) < len(objectives):
        raise ValueError("objectives: one of them is there twice")
    sampler = _named("sampler", node.get("sampler") or {"name": "tpe"}, SAMPLERS)
    pruner = None if node.get("pruner") is None else _named("pruner", node["pruner"], PRUNERS)
    if pruner and len(objectives) > 1:
        raise ValueError("pruner: with several objectives no trial is worse than others while it runs: type null")
    if pruner and not objectives[0].is_score:
        raise ValueError(f"pruner: {objectives[0].metric} is known at the end of a run alone: type null")
    folds, seed = tuple(node.get("folds") or ()), node.get("seed", 0)
    check_folds(folds)
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed={seed} is not a whole number from 0")
    space = {key: _distribution(key, entry) for key, entry in node["search"].items()}
    return Sweep(name, overrides, space, tuple(objectives), folds, sampler, pruner, seed)


def check_folds(folds: Sequence[Any]) -> None:
    if not all(type(fold) is int and fold >= 0 for fold in folds) or len(set(folds)) < len(folds):
        raise ValueError(f"folds={list(folds)}: allowed are different whole numbers from 0, such as [0,1,2]")


def _check_keys(where: str, node: Any, allowed: Any) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{where or 'the file'} is not a list of KEY: VALUE")
    for key in node:
        if key not in allowed:
            name = f"{where}.{key}".lstrip(".")
            raise ValueError(f"{name} is unknown{nearest(str(key), allowed)}; allowed: {', '.join(allowed)}")


def _named(where: str, node: Any, known: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    if not isinstance(node, dict) or node.get("name") not in known:
        found = node.get("name") if isinstance(node, dict) else node
        raise ValueError(f"{where}.name={found} is not known{nearest(str(found), known)}; allowed: {', '.join(known)}")
    defaults = known[node["name"]]
    _check_keys(where, node, ("name", *defaults))
    for key in defaults:
        if type(node.get(key, 0)) is not int or node.get(key, 0) < 0:
            raise ValueError(f"{where}.{key}={node[key]} is not a whole number from 0")
    return {**defaults, **node}


def _objective(node: Any) -> Objective:
    _check_keys("objectives", node, ("metric", "direction"))
    metric = str(node.get("metric"))
    if metric.startswith("test/"):
        raise ValueError(
            f"objectives: {metric} would choose on the test images, and leave nothing to report: type val/…"
        )
    if not SCORE.fullmatch(metric) and metric not in COSTS:
        known = [*(f"val/{name}" for name in ("accuracy", "balanced_accuracy", "f1", "auc", "loss")), *COSTS]
        raise ValueError(f"objectives: {metric} is not known{nearest(metric, known)}; allowed: {', '.join(known)}")
    natural = COSTS.get(metric, "minimize" if metric.endswith("loss") else "maximize")
    direction = node.get("direction", natural)
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"objectives: direction={direction} is neither minimize nor maximize")
    return Objective(metric, direction)


def _distribution(key: str, node: Any) -> BaseDistribution:
    """From {low, high, log: true}, {low, high, step} or {choices}; whole numbers stay whole."""
    where = f"search.{key}"
    _check_keys(
        where, node, ("choices",) if isinstance(node, dict) and "choices" in node else ("low", "high", "log", "step")
    )
    if "choices" in node:
        if not isinstance(node["choices"], list) or not node["choices"]:
            raise ValueError(f"{where}.choices is not a list such as [16, 32]")
        return CategoricalDistribution([text(c) if isinstance(c, list | dict) else c for c in node["choices"]])
    low, high, step, log = node.get("low", ""), node.get("high", ""), node.get("step"), node.get("log", False)
    for name, value in (("low", low), ("high", high), ("step", 1 if step is None else step)):
        if type(value) not in (int, float):
            raise ValueError(f"{where}.{name}={value} is not a number; it takes low and high, or choices")
    if type(log) is not bool:
        raise ValueError(f"{where}.log={log} is neither true nor false")
    if not low < high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise ValueError(f"{where} has to have low < high; with log: true, low > 0 and no step")
    if all(type(value) is int for value in (low, high, 1 if step is None else step)):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _in_words(values: BaseDistribution) -> dict[str, Any]:
    if isinstance(values, CategoricalDistribution):
        return {"choices": list(values.choices)}
    assert isinstance(values, FloatDistribution | IntDistribution)
    return {"low": values.low, "high": values.high, "log": values.log, "step": values.step}


def text(value: Any) -> str:
    """A value as Hydra's command line has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text(part)}" for key, part in value.items()) + "}"
    return str(value)


def quoted(path: Path) -> str:
    """A path as Hydra's command line has it."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", str(path)):
        return str(path)
    # A backslash stands for itself there, but before a quotation mark.
    inside = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), str(path))
    return f"'{inside}'"


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def merged(*overrides: Sequence[str]) -> list[str]:
    """One override for each key: the last."""
    return list({key_of(override): override for some in overrides for override in some}.values())


def arguments(params: Mapping[str, Any]) -> list[str]:
    """Drawn values as overrides."""
    return [f"{key}={text(value)}" for key, value in params.items()]


# The folder: one search at a time, and a journal that is always readable.


class Journal(JournalFileBackend):
    """Optuna's file of a line per change, for the one process that holds the search's lock: Optuna's own lock is not
    needed, nor left behind. A write that fails leaves none of it in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        repair(path)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = self.path.stat().st_size
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self.path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if any("state" in log for log in logs):  # results; with them, what was written before
                    os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise OSError(f"{self.path} cannot be written ({error.strerror}): nothing that is in it is lost") from error


def repair(path: Path) -> None:
    """Cut off a last line that a crash left unfinished. Raises ValueError for damage elsewhere."""
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n") and _is_json(line):
            continue
        if number < len(lines):
            raise ValueError(f"{path}, line {number} is damaged: put that file back from a copy, or remove its folder")
        os.truncate(path, sum(map(len, lines[:-1])))


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raise ValueError if another search is at work in the folder. The lock goes with the process, however it ends."""
    import fcntl  # not on Windows

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder} is being searched already, by process {file.read().strip() or 'unknown'}: stop that one, or "
                "type another folder="
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def open_study(folder: Path, sweep: Sweep) -> optuna.Study:
    """The folder's study, new or as it was left. Raises ValueError where it is a search for something else."""
    study = optuna.create_study(
        study_name=sweep.name,
        storage=JournalStorage(Journal(folder / "journal.log")),
        directions=[objective.direction for objective in sweep.objectives],
        load_if_exists=True,
    )
    spec = json.loads(json.dumps(sweep.spec()))
    before = study.user_attrs.get("spec")
    if before is None:
        study.set_user_attr("spec", spec)
    elif differing := [key for key in spec if before.get(key) != spec[key]]:
        key = differing[0]
        raise ValueError(
            f"{folder} holds a search with other {', '.join(differing)} ({_difference(before.get(key), spec[key])}): "
            "type the same command to go on with it, or another folder="
        )
    return study


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        gone, new = ([x for x in one if x not in other] for one, other in ((before, now), (now, before)))
        return f"there {_shown(gone)}, here {_shown(new)}"
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(keys)
    return f"there {before}, here {now}"


def _shown(values: Sequence[Any]) -> str:
    return " ".join(text(value) for value in values) or "nothing"


# Processes: the one place that knows where a trial runs.


class Job:
    """A process group of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.fd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives. What it started itself ends with it."""
        if self.process.returncode is None and hasattr(os, "waitid"):
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.kill()  # before it is reaped, as its number may be another's afterwards
        status = self.process.poll()
        if status is not None and self.fd is not None:
            os.close(self.fd)
            self.fd = None
        return status

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if self.process.returncode is None:
            _signal_groups([self.process.pid], signum)


class Launcher:
    """Starts runs as processes of this machine. Another one, for a cluster, has the same four methods.

    slots: what the environment of each run that goes on at the same time has besides the search's own.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.slots = slots

    def start(self, command: Sequence[str], folder: Path, slot: int) -> Job:
        """In a session of its own, so that Ctrl-C reaches it through the search alone."""
        record, parent = folder / "process.json", os.getpid()
        with (folder / "stderr.log").open("ab") as errors:
            try:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, **self.slots[slot]},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    preexec_fn=lambda: _tied_to(parent, record),
                )
            except subprocess.SubprocessError as error:
                raise OSError(f"{record} cannot be written") from error
        return Job(process)

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Until one of them ends, or so long."""
        fds = [job.fd for job in jobs if job.fd is not None]
        if not fds:
            time.sleep(min(seconds, 0.05))
            return
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        poll.poll(1000 * seconds)

    def end(self, jobs: Sequence[Job]) -> None:
        """Stop them all, and return when they are gone."""
        for job in jobs:
            job.stop()
        until, left = time.monotonic() + GRACE, [job for job in jobs if job.ended() is None]
        while left:
            self.wait(left, 0.1)
            if time.monotonic() > until:
                for job in left:
                    job.kill()
            left = [job for job in left if job.ended() is None]

    def end_left_over(self, folders: Sequence[Path]) -> None:
        """What a killed search left running in these folders, if anything."""
        found = [record for folder in folders if (record := _read_record(folder / "process.json")) is not None]
        until, alive = time.monotonic() + GRACE, [pid for pid, started in found if started_at(pid) == started]
        _signal_groups(alive, signal.SIGTERM)
        while alive := [pid for pid, started in found if started_at(pid) == started]:
            time.sleep(0.02)
            if time.monotonic() > until:
                _signal_groups(alive, signal.SIGKILL)


def _signal_groups(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signum)


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def _tied_to(parent: int, record: Path) -> None:
    """In the child, before it is another program: it gets SIGTERM when its parent dies (where Linux is), and it is on
    record before it does anything."""
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # which has died meanwhile
            os._exit(1)
    partial = record.with_name(".process.json.part")
    partial.write_text(json.dumps({"pid": os.getpid(), "started": started_at(os.getpid())}), encoding="utf-8")
    partial.replace(record)


def _read_record(path: Path) -> tuple[int, str] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return int(record["pid"]), str(record["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def started_at(pid: int) -> str | None:
    """What tells a process from a later one with the same number: boot and clock tick, or date. None: there is none."""
    stat, boot = Path(f"/proc/{pid}/stat"), Path("/proc/sys/kernel/random/boot_id")
    if boot.is_file():
        try:
            state, *fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else f"{boot.read_text().strip()} {fields[18]}"
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return shown.strip() or None


# The search itself.


class Watch(Protocol):
    """Whoever tells the user: draw is called often, settled once for each trial that has ended."""

    def draw(self, searching: "Search") -> None: ...
    def settled(self, searching: "Search", record: dict[str, Any]) -> None: ...


@dataclass
class Running:
    """A trial that is at work: the run of one of its folds, if it has folds."""

    trial: optuna.Trial
    folder: Path  # of the trial
    slot: int
    job: Job | None = None  # not started yet
    started: float = 0.0
    fold: int = 0  # index into the sweep's folds
    resumed: bool = False
    retried: bool = False
    stopped: float | None = None  # when it was told to, for being worse than others
    seen: tuple[int, int] = (0, 0)
    epoch: int = 0
    value: float = math.nan  # of the last epoch
    step: int = 0  # the last that was reported
    done: list[dict[str, float]] = field(default_factory=list)  # figures of the folds that are finished

    @property
    def number(self) -> int:
        return self.trial.number


class Search:
    """n_trials results in the folder, as many at a time as the launcher has slots.

    command: what trains, before the overrides. epochs: the most that a run has, for the steps of the pruner. timeout:
    seconds until everything stops, to be gone on with. Raises ValueError if all of the first trials fail, and OSError
    if the folder cannot be written.
    """

    def __init__(
        self,
        sweep: Sweep,
        study: optuna.Study,
        folder: Path,
        launcher: Launcher,
        command: Sequence[str],
        n_trials: int,
        epochs: int,
        watch: Watch,
        timeout: float = math.inf,
        typed: str = "",
    ) -> None:
        self.sweep, self.study, self.folder, self.launcher = sweep, study, folder, launcher
        self.command, self.n_trials, self.epochs, self.watch = command, n_trials, epochs, watch
        self.timeout, self.typed = timeout, typed
        self.running: list[Running] = []
        self.waiting = [trial.number for trial in self.trials(TrialState.RUNNING)]  # a dead search left them
        self.signal = 0
        self.settled_here = self.failed_here = 0
        self.started, self.written = time.monotonic(), -math.inf
        study.pruner = build_pruner(sweep.pruner, epochs * max(1, len(sweep.folds)))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @property
    def num_settled(self) -> int:
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() - self.started > self.timeout

    def stop(self, signum: int, _: Any = None) -> None:
        """For signal.signal: at the next look, so that no line of the journal is cut."""
        self.signal = signum

    def run(self) -> None:
        left = [self.trial_folder(number) for number in self.waiting]
        self.launcher.end_left_over([folder / name for folder in left for name in self._run_names()])
        for trial in self.trials(TrialState.PRUNED):
            remove_checkpoints(self.trial_folder(trial.number))
        try:
            while not (self.signal or self.out_of_time):
                self._fill()
                if not self.running:
                    break
                self.watch.draw(self)
                self._write_state()
                self.launcher.wait(self._jobs(), self._patience())
                for run in list(self.running):
                    self._look(run)
        finally:
            self.launcher.end(self._jobs())
            self.running.clear()
            with suppress(OSError):  # of a full disk, which is said already
                self._write_state(last=True)

    def _jobs(self) -> list[Job]:
        return [run.job for run in self.running if run.job is not None]

    def _patience(self) -> float:
        return max(0.01, min(POLL, self.timeout - (time.monotonic() - self.started)))

    def _fill(self) -> None:
        """Give every free slot a trial: those that were interrupted first, then new ones."""
        while free := sorted(set(range(len(self.launcher.slots))) - {run.slot for run in self.running}):
            if self.waiting:
                trial = self._taken_up(self.waiting.pop(0))
            elif self.num_settled + len(self.running) < self.n_trials:
                trial = self._asked()
            else:
                return
            self._begin(trial, free[0])

    def _asked(self) -> optuna.Trial:
        self.study.sampler = build_sampler(self.sweep, len(self.trials()))
        return self._drawn(self.study.ask())

    def _taken_up(self, number: int) -> optuna.Trial:
        self.study.sampler = build_sampler(self.sweep, number)
        return self._drawn(optuna.Trial(self.study, self.trials()[number]._trial_id))

    def _drawn(self, trial: optuna.Trial) -> optuna.Trial:
        """With a value for each key; one that it has already stays.

        What is drawn depends on the seed, the number and the trials so far, and not on where a search was killed.
        """
        together = trial.relative_params  # by the trial's sampler; each of the others by its own
        for index, (key, values) in enumerate(self.sweep.search.items()):
            if key not in together:
                self.study.sampler = build_sampler(self.sweep, trial.number, index + 1)
            if isinstance(values, CategoricalDistribution):
                trial.suggest_categorical(key, values.choices)
            elif isinstance(values, IntDistribution):
                trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
            elif isinstance(values, FloatDistribution):
                trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)
        return trial

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / str(number)

    def _run_names(self) -> list[str]:
        """Of the runs inside a trial's folder."""
        return [f"fold{fold}" for fold in self.sweep.folds] or ["."]

    def _begin(self, trial: optuna.Trial, slot: int) -> None:
        """Start its first run that has no result; if all have one, tell it."""
        run = Running(trial, self.trial_folder(trial.number), slot, retried="killed" in trial.user_attrs)
        run.step = self.trials()[trial.number].last_step or 0
        try:
            for name in self._run_names():
                if (figures := self._figures(run.folder / name)) is None:
                    break
                run.done.append(figures)
        except ValueError as error:
            return self._tell(run, TrialState.FAIL, str(error))
        run.fold = len(run.done)
        if run.fold == len(self._run_names()):
            return self._tell(run)
        run.started = time.monotonic()
        self.running.append(run)
        return self._start(run)

    def _start(self, run: Running) -> None:
        folder = run.folder / self._run_names()[run.fold]
        folder.mkdir(parents=True, exist_ok=True)
        own = [f"split.fold={self.sweep.folds[run.fold]}"] if self.sweep.folds else []
        own += [f"output_dir={quoted(folder)}"]
        run.resumed = (folder / "last.ckpt").is_file()
        if run.resumed:
            starts = any(key_of(override) == "init_from" for override in self.sweep.overrides)
            own += [f"ckpt_path={quoted(folder / 'last.ckpt')}", *(["init_from=null"] if starts else [])]
        else:
            (folder / "metrics.csv").unlink(missing_ok=True)  # of a run that had no checkpoint yet
        run.seen, run.epoch, run.value = (0, 0), 0, math.nan
        overrides = merged(self.sweep.overrides, arguments(run.trial.params), own)
        run.job = self.launcher.start([*self.command, *overrides], folder, run.slot)

    def _look(self, run: Running) -> None:
        """At one that is running, or was a moment ago."""
        assert run.job is not None
        status = run.job.ended()
        self._report(run)
        if status is not None:
            self._settle(run, status)
        elif run.stopped is None and self._is_to_be_pruned(run):
            run.stopped = time.monotonic()
            run.job.stop()
        elif run.stopped is not None and time.monotonic() - run.stopped > GRACE:
            run.job.kill()

    def _is_to_be_pruned(self, run: Running) -> bool:
        return self.sweep.pruner is not None and run.step > 0 and run.trial.should_prune()

    def _report(self, run: Running) -> None:
        """New epochs of metrics.csv: the objective's best so far, over folds the mean of their bests."""
        objective = self.sweep.objectives[0]
        path = run.folder / self._run_names()[run.fold] / "metrics.csv"
        try:
            state = path.stat()
            if (seen := (state.st_mtime_ns, state.st_size)) == run.seen:
                return
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except FileNotFoundError:
            return
        run.seen, run.epoch = seen, len(rows)
        if not objective.is_score or not rows or objective.metric not in rows[0]:
            return
        run.value = float(rows[-1][objective.metric])
        best = -math.inf
        for epoch, row in enumerate(rows, start=1):
            best = max(best, objective.sign * value) if not math.isnan(value := float(row[objective.metric])) else best
            step = run.fold * self.epochs + epoch
            if len(self.sweep.objectives) == 1 and step > run.step and math.isfinite(best):
                so_far = [*(figures[objective.metric] for figures in run.done), objective.sign * best]
                run.trial.report(mean(so_far), step)
                run.step = step

    def _settle(self, run: Running, status: int) -> None:
        """A process has ended: on to the next fold, or it is the trial's end, or it has to run again."""
        folder = run.folder / self._run_names()[run.fold]
        try:
            figures = self._figures(folder)
        except ValueError as error:
            return self._tell(run, TrialState.FAIL, str(error))
        if figures is not None:
            run.done.append(figures)
            if len(run.done) == len(self._run_names()):
                return self._tell(run)
            run.fold += 1
            if run.stopped is not None or self._is_to_be_pruned(run):
                return self._tell(run, TrialState.PRUNED)
            return self._start(run)
        if run.stopped is not None:
            return self._tell(run, TrialState.PRUNED)
        if status in FROM_OUTSIDE and not run.retried:  # someone, or the system short of memory: once more
            run.retried = True
            run.trial.set_user_attr("killed", status)
            return self._start(run)
        if run.resumed and status not in FROM_OUTSIDE:  # its checkpoint cannot be gone on with: from the start
            (folder / "last.ckpt").unlink()
            return self._start(run)
        said = last_lines(folder / "stderr.log")
        if os.strerror(errno.ENOSPC) in said:  # the other trials would fail of it too
            raise OSError(f"{folder}: {os.strerror(errno.ENOSPC)}. Make room, and type the same command again")
        return self._tell(run, TrialState.FAIL, said or f"ended with status {status}")

    def _figures(self, folder: Path) -> dict[str, float] | None:
        """The objectives of a finished run; None if it is not finished. Raises ValueError where one is undefined."""
        path = folder / "result.json"
        try:
            return figures(json.loads(path.read_text(encoding="utf-8")), self.sweep.objectives)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _tell(self, run: Running, state: TrialState = TrialState.COMPLETE, error: str = "") -> None:
        if run in self.running:
            self.running.remove(run)
        if error:
            run.trial.set_user_attr("error", error)
        if run.started:
            run.trial.set_user_attr("seconds", round(time.monotonic() - run.started, 3))
        metrics = [objective.metric for objective in self.sweep.objectives]
        values = (
            [mean(done[metric] for done in run.done) for metric in metrics] if state is TrialState.COMPLETE else None
        )
        self.study.tell(run.trial, values, state)
        if state is TrialState.PRUNED:
            remove_checkpoints(run.folder)
        self.settled_here += 1
        self.failed_here += state is TrialState.FAIL
        self.watch.settled(self, record(self.trials()[run.number], self.folder))
        if self.failed_here == self.settled_here >= HOPELESS and not self.trials(
            TrialState.COMPLETE, TrialState.PRUNED
        ):
            last = error.splitlines()[-1] if error else ""
            raise ValueError(f"the first {self.settled_here} trials have all failed, the last one saying: {last}")

    def best(self) -> FrozenTrial | None:
        """The complete trial with the best value of the first objective."""
        sign = self.sweep.objectives[0].sign
        return max(self.trials(TrialState.COMPLETE), key=lambda trial: sign * trial.values[0], default=None)

    def seconds_left(self) -> float | None:
        """By the pace of this session; None before its first result."""
        if not self.settled_here:
            return None
        passed = time.monotonic() - self.started
        return max(0, self.n_trials - self.num_settled) * passed / self.settled_here

    def _write_state(self, last: bool = False) -> None:
        """sweep.json and trials.csv."""
        if not last and time.monotonic() - self.written < WRITTEN:
            return
        self.written = time.monotonic()
        records = [record(trial, self.folder) for trial in self.trials()]
        at_work = {run.number for run in self.running}
        for entry in records:
            if entry["state"] == "running" and entry["number"] not in at_work:
                entry["state"] = "interrupted"
        write_state(
            self, records, "running" if self.running else "done" if self.num_settled >= self.n_trials else "stopped"
        )


class LastValue(MedianPruner):
    """Optuna's median, for values that are the best so far: the last one is compared, as a mean over folds may fall."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        trial, step = copy.copy(trial), trial.last_step
        if step is not None:
            trial.intermediate_values = {step: trial.intermediate_values[step]}
        return super().prune(study, trial)


def build_pruner(node: Mapping[str, Any] | None, steps: int) -> BasePruner:
    """steps: of a whole trial, counted from 1."""
    if node is None:
        return NopPruner()
    numbers = {key: value for key, value in node.items() if key != "name"}
    return LastValue(**numbers) if node["name"] == "median" else HyperbandPruner(max_resource=steps, **numbers)


def build_sampler(sweep: Sweep, number: int, draw: int = 0) -> BaseSampler:
    """For one draw of one trial: the same after a restart as without one."""
    seed = int(np.random.SeedSequence([sweep.seed, number, draw]).generate_state(1)[0])
    if sweep.sampler["name"] == "random":
        return RandomSampler(seed)
    numbers = {key: value for key, value in sweep.sampler.items() if key != "name"}
    return TPESampler(seed=seed, constant_liar=True, **numbers)


def figures(result: dict[str, Any], objectives: Sequence[Objective]) -> dict[str, float]:
    """The objectives of a run's result.json. Raises ValueError for one that is missing or not a finite number."""
    found = {}
    for metric in (objective.metric for objective in objectives):
        try:
            value = _figure(result, metric)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"{metric} is not in it") from error
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{metric} is undefined")
        found[metric] = float(value)
    return found


def _figure(result: dict[str, Any], metric: str) -> Any:
    if metric.startswith("val/"):
        return result["validation"][metric]
    if metric == "seconds_per_epoch":  # of training; the test and the start of the process are not in it
        return result["num_images"]["train"] / result["train_images_per_second"]
    return result[metric]


def remove_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        path.unlink(missing_ok=True)


def last_lines(path: Path, number: int = 5) -> str:
    """The end of a log, without what a progress bar has overwritten."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = [line.rstrip().rpartition("\r")[2] for line in file.read().decode("utf-8", "replace").split("\n")]
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in lines if line.strip()][-number:])


# What is left for people and dashboards.


def record(trial: FrozenTrial, folder: Path) -> dict[str, Any]:
    """A trial as trials.csv and sweep.json have it; seconds: since it was last started."""
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "values": trial.values if trial.state is TrialState.COMPLETE else None,
        "params": trial.params,
        "folder": str(folder / "trials" / str(trial.number)),
        "seconds": trial.user_attrs.get("seconds"),
        "epochs": len(trial.intermediate_values) or None,
        "error": trial.user_attrs.get("error"),
    }


def write_state(search: Search, records: Sequence[dict[str, Any]], state: str) -> None:
    sweep = search.sweep
    whole = {
        "name": sweep.name,
        "state": state,  # running, stopped, done
        "command": search.typed,
        "n_trials": search.n_trials,
        "workers": len(search.launcher.slots),
        "updated": datetime.now().astimezone().isoformat(timespec="seconds"),
        **sweep.spec(),
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in sweep.objectives],
        "trials": records,
    }
    page.write(search.folder / "sweep.json", json.dumps(whole, indent=1, allow_nan=False))
    metrics = [objective.metric for objective in sweep.objectives]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "state", *metrics, *sweep.search, "seconds", "epochs", "folder"])
    for entry in records:
        values = entry["values"] or [""] * len(metrics)
        drawn = [text(entry["params"][key]) if key in entry["params"] else "" for key in sweep.search]
        writer.writerow(
            [
                entry["number"],
                entry["state"],
                *values,
                *drawn,
                *(entry[k] or "" for k in ("seconds", "epochs", "folder")),
            ]
        )
    page.write(search.folder / "trials.csv", file.getvalue())


def importances(study: optuna.Study, sweep: Sweep) -> dict[str, dict[str, float]]:
    """For each objective each key's share of what makes a trial good (PED-ANOVA). Raises ValueError for few trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST:
        raise ValueError(f"{len(complete)} complete trials are too few to say which values matter: {LEAST} are needed")
    evaluated = {}
    for index, objective in enumerate(sweep.objectives):
        if len({trial.values[index] for trial in complete}) == 1:
            raise ValueError(f"{objective.metric} is the same in all trials: nothing matters")
        # With a target of one's own the evaluator takes low for good, and warns of it.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            shares = optuna.importance.get_param_importances(
                study, target=lambda trial, i=index, sign=objective.sign: -sign * trial.values[i]
            )
        evaluated[objective.metric] = {key: float(share) for key, share in shares.items()}
    return evaluated


def chosen(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or of several objectives those that no other trial beats in all."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def best_command(sweep: Sweep, trial: FrozenTrial) -> str:
    """What trains as that trial did, in a folder that it chooses itself."""
    return shlex.join(["python", "train.py", *merged(sweep.overrides, arguments(trial.params))])


def said(objectives: Sequence[Objective], values: Sequence[float]) -> str:
    """val/auc 0.8123, seconds_per_epoch 3.21."""
    return ", ".join(f"{o.metric} {value:.4g}" for o, value in zip(objectives, values, strict=True))


def summary(sweep: Sweep, study: optuna.Study, folder: Path, typed: str) -> str:
    """summary.md: what came out, in words and as commands to copy."""
    counts = {word: len(study.get_trials(deepcopy=False, states=(state,))) for state, word in STATES.items()}
    counts["interrupted"] = counts.pop("running")
    lines = [
        f"# {sweep.name}",
        "",
        f"`{typed}`",
        "",
        ", ".join(f"{n} {word}" for word, n in counts.items() if n) + ".",
        "",
    ]
    best = chosen(study)
    if not best:
        return "\n".join([*lines, "No trial has been completed.", ""])
    several = len(sweep.objectives) > 1
    lines += ["Trials that no other beats in all objectives:" if several else "The best trial:", ""]
    for trial in sorted(best, key=lambda trial: trial.values[0]):
        drawn = " ".join(arguments(trial.params))
        lines += [f"- {said(sweep.objectives, trial.values)} (trial {trial.number}): `{drawn}`"]
    lines += ["", "```bash", *(best_command(sweep, trial) for trial in best), "```", ""]
    try:
        for metric, shares in importances(study, sweep).items():
            lines += [f"What matters for {metric}: " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()) + ".", ""]
    except ValueError as error:
        lines += [f"{error}.".capitalize(), ""]
    where = "mean over folds " + ", ".join(map(str, sweep.folds)) if sweep.folds else "one run"
    if any(objective.is_score for objective in sweep.objectives):
        lines += [
            f"Values are of the validation images ({where}) and, having been chosen, flattering: report the test's.",
            "",
        ]
    return "\n".join(lines)


def write_summary(sweep: Sweep, study: optuna.Study, folder: Path, typed: str) -> tuple[str, list[Path]]:
    """summary.md and summary.html. Returns the text of the first, and both paths."""
    markdown, paths = summary(sweep, study, folder, typed), [folder / "summary.md", folder / "summary.html"]
    page.write(paths[0], markdown)
    page.write(paths[1], html_page(sweep, study, folder, typed))
    return markdown, paths


def html_page(sweep: Sweep, study: optuna.Study, folder: Path, typed: str) -> str:
    """One file: history, what matters, which values went with which results, and the trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sections = []
    if complete:
        commands = "\n".join(best_command(sweep, trial) for trial in chosen(study))
        sections.append(("Best", page.note(commands)))
        sections += [
            (f"History: {o.metric}", page.figure(_history(study, o, i))) for i, o in enumerate(sweep.objectives)
        ]
        if len(sweep.objectives) == 2:
            sections.append(("Trade-off", page.figure(_trade_off(study, sweep))))
        sections.append(("Values together", page.figure(_parallel(complete, sweep))))
        try:
            sections.append(("What matters", page.figure(_bars(importances(study, sweep)))))
        except ValueError as error:
            sections.append(("What matters", page.note(f"{error}.".capitalize())))
    sections.append(("Trials", page.table(_table(study, sweep, folder))))
    return page.page(f"Search: {sweep.name}", sections, page.note(typed))


def _history(study: optuna.Study, objective: Objective, index: int) -> Any:
    import plotly.graph_objects as go  # takes longer than a small search needs it

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    numbers, values = [t.number for t in complete], [t.values[index] for t in complete]
    best = objective.sign * np.maximum.accumulate(objective.sign * np.array(values))
    fig = go.Figure(
        go.Scatter(x=numbers, y=values, mode="markers", name="trial", hovertext=[_hover(t) for t in complete])
    )
    fig.add_scatter(x=numbers, y=best, mode="lines", name="best so far", line_shape="hv")
    pruned = (
        [t for t in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)) if t.values] if index == 0 else []
    )
    if pruned:
        x, y = [t.number for t in pruned], [t.values[0] for t in pruned]
        fig.add_scatter(x=x, y=y, mode="markers", name="pruned (value when stopped)", marker={"symbol": "x-thin-open"})
    return fig.update_layout(xaxis_title="trial", yaxis_title=objective.metric, template="plotly_white")


def _hover(trial: FrozenTrial) -> str:
    return f"trial {trial.number}<br>" + "<br>".join(arguments(trial.params))


def _trade_off(study: optuna.Study, sweep: Sweep) -> Any:
    import plotly.graph_objects as go

    complete, front = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), study.best_trials
    first, second = sweep.objectives
    fig = go.Figure()
    for name, trials in (("trial", complete), ("not beaten in both", sorted(front, key=lambda t: t.values[0]))):
        x, y = [t.values[1] for t in trials], [t.values[0] for t in trials]
        mode = "markers" if name == "trial" else "lines+markers"
        fig.add_scatter(x=x, y=y, mode=mode, name=name, hovertext=[_hover(t) for t in trials])
    return fig.update_layout(xaxis_title=second.metric, yaxis_title=first.metric, template="plotly_white")


def _parallel(complete: Sequence[FrozenTrial], sweep: Sweep) -> Any:
    import plotly.graph_objects as go

    axes = [_axis(key, [trial.params[key] for trial in complete], values) for key, values in sweep.search.items()]
    for index, objective in enumerate(sweep.objectives):
        axes.append({"label": objective.metric, "values": [trial.values[index] for trial in complete]})
    colour = {"color": [trial.values[0] for trial in complete], "colorscale": "Viridis"}
    return go.Figure(go.Parcoords(line=colour, dimensions=axes))


def _axis(key: str, drawn: Sequence[Any], values: BaseDistribution) -> dict[str, Any]:
    if isinstance(values, CategoricalDistribution):
        ticks = list(range(len(values.choices)))
        places = [values.choices.index(value) for value in drawn]
        return {"label": key, "values": places, "tickvals": ticks, "ticktext": [text(c) for c in values.choices]}
    if getattr(values, "log", False):
        logs = np.log10(np.array(drawn, float))
        ticks = np.linspace(logs.min(), logs.max(), 5)
        return {"label": key, "values": logs, "tickvals": ticks, "ticktext": [f"{10**tick:.2g}" for tick in ticks]}
    return {"label": key, "values": list(drawn)}


def _bars(evaluated: Mapping[str, Mapping[str, float]]) -> Any:
    import plotly.graph_objects as go

    fig = go.Figure()
    for metric, shares in evaluated.items():
        fig.add_bar(y=list(shares), x=list(shares.values()), name=metric, orientation="h")
    return fig.update_layout(xaxis_title="share", template="plotly_white", yaxis={"autorange": "reversed"})


def _table(study: optuna.Study, sweep: Sweep, folder: Path) -> list[list[str]]:
    """The best first, then the pruned, then the rest."""
    sign = sweep.objectives[0].sign
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1}
    trials = sorted(
        study.get_trials(deepcopy=False),
        key=lambda t: (order.get(t.state, 2), -sign * t.values[0] if t.values else 0, t.number),
    )
    rows = [["trial", "state", *(o.metric for o in sweep.objectives), *sweep.search, "seconds"]]
    for trial in trials:
        entry = record(trial, folder)
        values = [f"{value:.4f}" for value in entry["values"] or ()] or [""] * len(sweep.objectives)
        drawn = [short(trial.params.get(key, "")) for key in sweep.search]
        rows.append([str(trial.number), entry["state"], *values, *drawn, f"{entry['seconds'] or 0:.1f}"])
    return rows


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)
