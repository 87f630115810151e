"""The search itself: Optuna is asked for values and told the results, each trial is a run of train.py, no kill loses
anything.

A search lives in one folder: journal.log (Optuna's, the only truth unless there is a database), trials/NUMBER (the run
folders), and what is written for people and dashboards: trials.csv, sweep.json, summary.md, summary.html. A trial that
a dead search left running stays RUNNING for Optuna. The next search takes it up, with the same parameters under the
same number: it tells the value if the run has ended meanwhile, else the run resumes.
"""

import errno
import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from engrec.errors import quoted
from engrec.runs.folder import remove_checkpoints, saved_at
from engrec.runs.reading import parse_history
from engrec.runs.record import read_result
from engrec.search.launcher import Job, Launcher
from engrec.search.outcome import record, write_state
from engrec.search.shared import BEAT, is_mine, is_owned, own, release, turn
from engrec.search.space import Sweep, arguments, figures, merged
from engrec.search.study import build_pruner, build_sampler, reopened
from engrec.search.trial import Action, Event, Phase, State, after, event_of

POLL = 0.5  # seconds between looks at the metrics of running trials; the end of one is noticed at once
HOPELESS = 5  # failed trials, before any other, that end a search
WRITTEN = 2.0  # seconds between two versions of sweep.json and trials.csv
OUTCOMES = {
    Phase.COMPLETE: TrialState.COMPLETE, Phase.PRUNED: TrialState.PRUNED, Phase.FAILED: TrialState.FAIL,
}  # fmt: skip


class Watch(Protocol):
    """What the user sees: draw is called often, settled once for each trial that has ended."""

    def draw(self, search: "Search") -> None: ...
    def settled(self, search: "Search", record: dict[str, Any]) -> None: ...


@dataclass
class RunningTrial:
    """A trial that has a slot. folders: of its runs, one for each fold."""

    trial: optuna.Trial
    folders: list[Path]
    slot: int
    state: State
    job: Job | None = None
    started: float = 0.0  # its first run, by this search
    saved: int = 0  # when the checkpoint that its run was last started with was written
    values: list[float] = field(default_factory=list)  # of the first objective, after each epoch of the present run
    step: int = 0  # the last that was reported to the pruner
    worse: bool = False  # than the pruner lets pass, after one of them
    done: list[dict[str, float]] = field(default_factory=list)  # figures of the folds that are finished
    error: str = ""

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def folder(self) -> Path:
        """Of its present run."""
        return self.folders[self.state.fold]


class Search:
    """n_trials results in the folder, as many at a time as the launcher has slots.

    command: what trains, before the overrides. epochs: the most that a run has, for the steps of the pruner. timeout:
    seconds until everything stops; the next search resumes it. shared: other controllers work on the same study, in the
    same folder. Raises ValueError if all of the first trials fail, and OSError if the folder cannot be written.
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
        written_as: str = "",
        shared: bool = False,
    ) -> None:
        self.sweep, self.study, self.folder, self.launcher = sweep, study, folder, launcher
        self.command, self.n_trials, self.epochs, self.watch = command, n_trials, epochs, watch
        self.timeout, self.written_as, self.shared = timeout, written_as, shared
        self.running: list[RunningTrial] = []
        self.left_over: dict[Path, Job] = {}  # by run folder
        self.signal = 0
        self.settled_here = self.failed_here = 0
        self.started, self.written, self.beaten = time.monotonic(), -math.inf, time.monotonic()
        study.pruner = build_pruner(sweep.pruner, epochs * max(1, len(sweep.folds)))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @property
    def num_settled(self) -> int:
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))

    @property
    def interrupted(self) -> list[int]:
        """Trials that a dead search left running."""
        here = {run.number for run in self.running}
        others = [trial for trial in self.trials(TrialState.RUNNING) if trial.number not in here]
        return [trial.number for trial in others if not (self.shared and is_owned(trial))]

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() - self.started > self.timeout

    def stop(self, signum: int, _: Any = None) -> None:
        """For signal.signal: at the next look, so that no line of the journal is cut."""
        self.signal = signum

    def run(self) -> None:
        if not self.shared:
            self._take_over(self.interrupted)
        for trial in self.trials(TrialState.PRUNED):
            remove_checkpoints(self.trial_folder(trial.number))
        try:
            self._loop()
        finally:
            self.launcher.end([*self._jobs(), *self.left_over.values()])
            left, self.running = self.running, []
            for run in left if self.shared else ():
                release(run.trial)
            with suppress(OSError):  # of a full disk, which is reported already
                self._write_state(last=True)

    def _loop(self) -> None:
        while not (self.signal or self.out_of_time):
            self._fill()
            if not self.running:
                break
            self.watch.draw(self)
            self._write_state()
            self.launcher.wait(self._jobs(), self._patience())
            for run in list(self.running):
                self._look(run)
            if self.shared:
                self._beat()

    def _take_over(self, numbers: Sequence[int]) -> None:
        """The runs of these trials that are still running, as far as there are slots for them."""
        folders = {f: i for i, n in enumerate(numbers) for f in self._run_folders(self.trial_folder(n))}
        found = self.launcher.left_over(list(folders))
        num_slots = len(self.launcher.slots)
        self.launcher.end([job for folder, job in found.items() if folders[folder] >= num_slots])
        self.left_over |= {folder: job for folder, job in found.items() if folders[folder] < num_slots}

    def _beat(self) -> None:
        """Stay the owner of the running trials; one that another controller has taken over is left to it."""
        if time.monotonic() - self.beaten < BEAT:
            return
        self.beaten = time.monotonic()
        trials = self.trials()
        for run in list(self.running):
            if is_mine(trials[run.number]):
                own(run.trial)
            else:
                self.running.remove(run)
                self.launcher.end([run.job] if run.job else [])

    def _jobs(self) -> list[Job]:
        return [run.job for run in self.running if run.job is not None]

    def _patience(self) -> float:
        return max(0.01, min(POLL, self.timeout - (time.monotonic() - self.started)))

    def _fill(self) -> None:
        """Give every free slot a trial: those that were interrupted first, then new ones."""
        while free := sorted(set(range(len(self.launcher.slots))) - {run.slot for run in self.running}):
            with turn(self.folder) if self.shared else nullcontext():
                trial = self._next_trial()
            if trial is None:
                return
            self._begin(self._drawn(trial), free[0])

    def _next_trial(self) -> optuna.Trial | None:
        if interrupted := self.interrupted:
            if self.shared:
                self._take_over(interrupted[:1])
            self.study.sampler = build_sampler(self.sweep, interrupted[0])
            trial = reopened(self.study, interrupted[0])
        elif len(self.trials()) < self.n_trials:  # one look: a trial of another controller may end between two
            self.study.sampler = build_sampler(self.sweep, len(self.trials()))
            trial = self.study.ask()
        else:
            return None
        if self.shared:
            own(trial)
        return trial

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
        chances = frozenset({Event.KILLED} if "killed" in trial.user_attrs else ())
        folders = self._run_folders(self.trial_folder(trial.number))
        run = RunningTrial(trial, folders, slot, State(chances=chances))
        run.step = self.trials()[trial.number].last_step or 0
        self.running.append(run)
        self._next_run(run)

    def _next_run(self, run: RunningTrial) -> None:
        """Start the first of its runs that has no result."""
        while run.state.phase is Phase.WAITING:
            self._apply(run, self._result(run) or (Event.WORSE if self._is_worse(run) else Event.STARTED))

    def _look(self, run: RunningTrial) -> None:
        assert run.job is not None
        status = run.job.ended()
        self._report(run)
        if status is not None:
            saved = saved_at(run.folder)
            self._apply(run, self._result(run) or event_of(status, saved > run.saved, saved > 0), status)
            self._next_run(run)
        elif run.state.phase is Phase.RUNNING and self._is_worse(run):
            self._apply(run, Event.WORSE)

    def _result(self, run: RunningTrial) -> Event | None:
        """What the result of its present run means; None without one."""
        path = run.folder / "result.json"
        if not path.is_file():
            return None
        try:
            run.done.append(figures(read_result(path), self.sweep.objectives))
        except ValueError as error:
            run.error = f"{path}: {error}"
            return Event.UNDEFINED
        return Event.FINISHED if len(run.done) == len(run.folders) else Event.FOLD_FINISHED

    def _apply(self, run: RunningTrial, event: Event, status: int = 0) -> None:
        """What happens to a trial. status: the exit status of its run, of one that has ended without a result."""
        folder = run.folder
        run.state, action = after(run.state, event)
        match action:
            case Action.START:
                self._start(run)
            case Action.STOP:
                assert run.job is not None
                run.job.stop()
            case Action.NOTE:
                run.trial.set_user_attr("killed", status)
            case Action.RESTART:
                (folder / "last.ckpt").unlink(missing_ok=True)
            case Action.END:  # the other trials would fail of it too
                raise OSError(f"{folder}: {os.strerror(errno.ENOSPC)}. Make room, and run the same command again")
            case Action.TELL:
                if run.state.phase is Phase.FAILED:
                    run.error = run.error or self._why(folder, event, status)
                self._tell(run)

    def _why(self, folder: Path, event: Event, status: int) -> str:
        message = self.launcher.message(folder)
        if event is Event.INTERRUPTED:
            return f"interrupted twice in a row before another epoch was saved\n{message}".rstrip()
        return message or f"ended with status {status}"

    def _start(self, run: RunningTrial) -> None:
        run.values, run.saved = [], saved_at(run.folder)
        run.started = run.started or time.monotonic()
        run.job = self.left_over.pop(run.folder, None) or self._launch(run)

    def _launch(self, run: RunningTrial) -> Job:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "stderr.log").unlink(missing_ok=True)  # what went wrong before may be over
        if not run.saved:
            (run.folder / "metrics.csv").unlink(missing_ok=True)  # of a run that had no checkpoint yet
        fold = [f"split.fold={self.sweep.folds[run.state.fold]}"] if self.sweep.folds else []
        own = [*fold, f"output_dir={quoted(run.folder)}", "ckpt_path=last"]
        overrides = merged(self.sweep.overrides, arguments(run.trial.params), own)
        return self.launcher.start([*self.command, *overrides], run.folder, run.slot)

    def _is_worse(self, run: RunningTrial) -> bool:
        return run.worse or (self.sweep.pruner is not None and run.step > 0 and run.trial.should_prune())

    def _report(self, run: RunningTrial) -> None:
        """New epochs: the objective's best so far, over folds the mean of their bests. The pruner is asked after each:
        what it compares does not depend on how many have ended since the last look."""
        objective = self.sweep.objectives[0]
        run.values = _epochs(run.folder / "metrics.csv", objective.metric)
        signed = (-math.inf if math.isnan(value) else objective.sign * value for value in run.values)
        bests = accumulate(signed, max) if len(self.sweep.objectives) == 1 and objective.is_score else ()
        for epoch, best in enumerate(bests, start=1):
            step = run.state.fold * self.epochs + epoch
            if step > run.step and math.isfinite(best):
                run.trial.report(mean([*(done[objective.metric] for done in run.done), objective.sign * best]), step)
                run.step = step
                run.worse = self._is_worse(run)

    def _tell(self, run: RunningTrial) -> None:
        self.running.remove(run)
        if run.error:
            run.trial.set_user_attr("error", run.error)
        if run.started:
            run.trial.set_user_attr("seconds", round(time.monotonic() - run.started, 3))
        values = [mean(done[o.metric] for done in run.done) for o in self.sweep.objectives] if run.done else None
        outcome = OUTCOMES[run.state.phase]
        self.study.tell(run.trial, values if outcome is TrialState.COMPLETE else None, outcome)
        if outcome is TrialState.PRUNED:
            remove_checkpoints(self.trial_folder(run.number))
        self.settled_here += 1
        self.failed_here += outcome is TrialState.FAIL
        self.watch.settled(self, record(self.trials()[run.number], self.folder))
        self._check_hope(run.error)

    def _check_hope(self, error: str) -> None:
        """Raise ValueError if all of the first trials have failed."""
        if self.failed_here < max(HOPELESS, self.settled_here) or self.trials(TrialState.COMPLETE, TrialState.PRUNED):
            return
        last = error.splitlines()[-1] if error else ""
        raise ValueError(f"the first {self.settled_here} trials have all failed, the last one with: {last}")

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
        interrupted = set(self.interrupted)
        for entry in records:
            if entry["number"] in interrupted:
                entry["state"] = "interrupted"
        about = {
            "state": "running" if self.running else "done" if self.num_settled >= self.n_trials else "stopped",
            "command": self.written_as,
            "n_trials": self.n_trials,
            "workers": len(self.launcher.slots),
        }
        write_state(self.folder, self.sweep, records, about)


def _epochs(path: Path, metric: str) -> list[float]:
    """The metric after each epoch, from metrics.csv; NaN where it is undefined."""
    try:
        columns, _ = parse_history(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return columns.get(metric) or [math.nan] * len(columns.get("epoch", ()))
