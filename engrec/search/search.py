"""The search itself: Optuna asks and is told, each trial is a run of train.py, no kill loses anything.

A search lives in one folder: journal.log (Optuna's, the only truth), trials/NUMBER (the run folders), and what is
written for people and dashboards: trials.csv, sweep.json, summary.md, summary.html. A trial that a dead search left
running stays RUNNING in the journal, and the next search takes it up: it tells the value if the run has ended
meanwhile, else the run goes on, with the same parameters, under the same number.
"""

import csv
import errno
import json
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from engrec.errors import quoted
from engrec.runs.folder import remove_checkpoints, saved_at
from engrec.search.launcher import TAKEN, Job, Launcher
from engrec.search.outcome import record, write_state
from engrec.search.space import Sweep, arguments, figures, key_of, merged
from engrec.search.study import build_pruner, build_sampler

POLL = 0.5  # seconds between looks at the metrics of running trials; the end of one is noticed at once
HOPELESS = 5  # failed trials, before any other, that end a search
WRITTEN = 2.0  # seconds between two versions of sweep.json and trials.csv
FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]  # the disk, or the user's share of it
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 130, 143}  # statuses of the stopped


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
    retried: bool = False
    anew: bool = False  # from the start, as its checkpoint was of no use
    saved: int = 0  # when the checkpoint that it was last started with was written
    idle: bool = False  # no checkpoint was written between its last two starts
    stopped: bool = False  # for being worse than others
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
    seconds until everything stops, to be gone on with. check: raises what is found wrong while trials run. Raises
    ValueError if all of the first trials fail, and OSError if the folder cannot be written.
    """

    def __init__(
        self,
        sweep: Sweep,
        study: optuna.Study,
        folder: Path,
        launcher: Launcher[Any],
        command: Sequence[str],
        n_trials: int,
        epochs: int,
        watch: Watch,
        timeout: float = math.inf,
        typed: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.sweep, self.study, self.folder, self.launcher = sweep, study, folder, launcher
        self.command, self.n_trials, self.epochs, self.watch = command, n_trials, epochs, watch
        self.timeout, self.typed, self.check = timeout, typed, check
        self.running: list[Running] = []
        self.left_over: dict[Path, Job] = {}  # by run folder
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
        self._take_over()
        for trial in self.trials(TrialState.PRUNED):
            remove_checkpoints(self.trial_folder(trial.number))
        try:
            while not (self.signal or self.out_of_time):
                self.check()
                self._fill()
                if not self.running:
                    break
                self.watch.draw(self)
                self._write_state()
                self.launcher.wait(self._jobs(), self._patience())
                for run in list(self.running):
                    self._look(run)
        finally:
            self.launcher.end([*self._jobs(), *self.left_over.values()])
            self.running.clear()
            with suppress(OSError):  # of a full disk, which is said already
                self._write_state(last=True)

    def _take_over(self) -> None:
        """What a dead search left running, as far as there are slots for it."""
        folders = {f: i for i, n in enumerate(self.waiting) for f in self._run_folders(self.trial_folder(n))}
        found = self.launcher.left_over(list(folders))
        num_slots = len(self.launcher.slots)
        self.launcher.end([job for folder, job in found.items() if folders[folder] >= num_slots])
        self.left_over = {folder: job for folder, job in found.items() if folders[folder] < num_slots}

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

    def _run_folders(self, trial: Path) -> list[Path]:
        """Of the runs inside a trial's folder."""
        return [trial / f"fold{fold}" for fold in self.sweep.folds] or [trial]

    def _begin(self, trial: optuna.Trial, slot: int) -> None:
        """Start its first run that has no result; if all have one, tell it."""
        run = Running(trial, self.trial_folder(trial.number), slot, retried="killed" in trial.user_attrs)
        run.step = self.trials()[trial.number].last_step or 0
        try:
            for folder in self._run_folders(run.folder):
                if (figures := self._figures(folder)) is None:
                    break
                run.done.append(figures)
        except ValueError as error:
            return self._tell(run, TrialState.FAIL, str(error))
        run.fold = len(run.done)
        if run.fold == len(self._run_folders(run.folder)):
            return self._tell(run)
        run.started = time.monotonic()
        self.running.append(run)
        return self._start(run)

    def _start(self, run: Running) -> None:
        folder = self._run_folders(run.folder)[run.fold]
        run.seen, run.epoch, run.value = (0, 0), 0, math.nan
        run.saved = saved_at(folder)
        run.job = self.left_over.pop(folder, None)
        if run.job is not None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stderr.log").unlink(missing_ok=True)  # what went wrong before may be over
        own = [f"split.fold={self.sweep.folds[run.fold]}"] if self.sweep.folds else []
        own += [f"output_dir={quoted(folder)}"]
        if (folder / "last.ckpt").is_file():
            starts = any(key_of(override) == "init_from" for override in self.sweep.overrides)
            own += [f"ckpt_path={quoted(folder / 'last.ckpt')}", *(["init_from=null"] if starts else [])]
        else:
            (folder / "metrics.csv").unlink(missing_ok=True)  # of a run that had no checkpoint yet
        overrides = merged(self.sweep.overrides, arguments(run.trial.params), own)
        run.job = self.launcher.start([*self.command, *overrides], folder, run.slot)

    def _look(self, run: Running) -> None:
        """At one that is running, or was a moment ago."""
        assert run.job is not None
        status = run.job.ended()
        self._report(run)
        if status is not None:
            self._settle(run, status)
        elif not run.stopped and self._is_to_be_pruned(run):
            run.stopped = True
            run.job.stop()

    def _is_to_be_pruned(self, run: Running) -> bool:
        return self.sweep.pruner is not None and run.step > 0 and run.trial.should_prune()

    def _report(self, run: Running) -> None:
        """New epochs of metrics.csv: the objective's best so far, over folds the mean of their bests."""
        objective = self.sweep.objectives[0]
        path = self._run_folders(run.folder)[run.fold] / "metrics.csv"
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
        folders = self._run_folders(run.folder)
        folder = folders[run.fold]
        try:
            figures = self._figures(folder)
        except ValueError as error:
            return self._tell(run, TrialState.FAIL, str(error))
        if figures is not None:
            run.done.append(figures)
            if len(run.done) == len(folders):
                return self._tell(run)
            run.fold, run.idle = run.fold + 1, False
            if run.stopped or self._is_to_be_pruned(run):
                return self._tell(run, TrialState.PRUNED)
            return self._start(run)
        if run.stopped:
            return self._tell(run, TrialState.PRUNED)
        # Without another epoch once more, and not for ever: one may take longer than a run is given.
        if status == TAKEN and ((further := saved_at(folder) > run.saved) or not run.idle):
            run.idle = not further
            return self._start(run)
        if status in FROM_OUTSIDE and not run.retried:  # someone, or the system short of memory: once more
            run.retried = True
            run.trial.set_user_attr("killed", status)
            return self._start(run)
        said = self.launcher.said(folder)
        if full := [why for why in FULL if why in said]:  # the other trials would fail of it too
            raise OSError(f"{folder}: {full[0]}. Make room, and type the same command again")
        if not run.anew and _blames(said, folder / "last.ckpt"):
            run.anew = True
            (folder / "last.ckpt").unlink(missing_ok=True)
            return self._start(run)
        if status == TAKEN:
            said = f"ended twice in a row before another epoch was over\n{said}".rstrip()
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
        about = {
            "state": "running" if self.running else "done" if self.num_settled >= self.n_trials else "stopped",
            "command": self.typed,
            "n_trials": self.n_trials,
            "workers": len(self.launcher.slots),
        }
        write_state(self.folder, self.sweep, records, about)


def _blames(said: str, checkpoint: Path) -> bool:
    """Whether it is this checkpoint that train.py cannot go on with: then its last error begins with that file."""
    names = (checkpoint, checkpoint.absolute(), os.path.relpath(checkpoint))
    errors = ["", *(line for line in said.splitlines() if line.startswith("error: "))]
    return errors[-1].startswith(tuple(f"error: {key}{name} " for name in names for key in ("", "ckpt_path=")))
