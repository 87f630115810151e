"""What a search prints: before, while it runs, and at its end."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from engrec.machine.gpus import VARIABLE
from engrec.search import slurm
from engrec.search.arguments import Options
from engrec.search.outcome import scores, short
from engrec.search.search import RunningTrial, Search
from engrec.search.trial import Phase
from engrec.words import counted


def announce(options: Options, search: Search) -> None:
    sweep, num_interrupted = options.sweep, len(search.interrupted)
    for key in options.fixed:
        print(f"{key} is fixed by the command line: not searched")
    print(f"searching {', '.join(sweep.search)}")
    if len(sweep.objectives) > 1:
        print("several objectives: no trial is pruned, and several may be best")
    print(_on_this_machine(search.launcher.slots) if options.slurm is None else _in_slurm(search, options.slurm))
    if search.num_settled or num_interrupted:
        interrupted = f", {num_interrupted} interrupted will be resumed" if num_interrupted else ""
        print(f"resuming: {search.num_settled} of {options.n_trials} done{interrupted}")
    sys.stdout.flush()


def _on_this_machine(slots: Sequence[Mapping[str, str]]) -> str:
    """2 trials in parallel, 1 thread each"""
    gpus_used = {slot[VARIABLE] for slot in slots if VARIABLE in slot}
    if not gpus_used:
        return f"{counted(len(slots), 'trial')} in parallel, {counted(int(slots[0]['OMP_NUM_THREADS']), 'thread')} each"
    shared = f"\nworkers={len(slots)} share {counted(len(gpus_used), 'GPU')}: times say less, and memory may run out"
    found = f"{counted(len(slots), 'trial')} in parallel, on {counted(len(gpus_used), 'GPU')}"
    return found + (shared if len(slots) > len(gpus_used) else "")


def _in_slurm(search: Search, options: slurm.Options) -> str:
    number, gpus = counted(len(search.launcher.slots), "Slurm job"), options.gpus_per_node
    found = counted(gpus, "GPU") if gpus else "no GPU (slurm.gpus_per_node=1 asks for one)"
    return f"{number} in parallel, each with {counted(options.cpus_per_task, 'CPU')} and {found}"


def conclude(options: Options, search: Search, summary: str, paths: Sequence[Path]) -> None:
    """summary: the text of the first of these files."""
    if search.signal:
        print(f"\nstopped; nothing that was finished is lost. Resume with: {options.command}", flush=True)
        return
    print(f"\n{summary}")
    if search.out_of_time and search.num_settled < options.n_trials:
        print(f"timeout={options.timeout:g}: resume with: {options.command}")
    print("written:", *(str(path) for path in [*paths, options.folder / "trials.csv", options.folder / "sweep.json"]))


class Table:
    """Running trials and the best so far: redrawn on a terminal, elsewhere a line for each that begins or ends."""

    def __init__(self, on_terminal: bool) -> None:
        self.on_terminal, self.height, self.drawn = on_terminal, 0, 0.0
        self.begun: set[int] = set()

    def draw(self, search: Search) -> None:
        for run in [] if self.on_terminal else search.running:
            if run.number not in self.begun:
                self.begun.add(run.number)
                print(f"trial {run.number} begins: {drawn(run)}", flush=True)
        if not self.on_terminal or time.monotonic() - self.drawn < 0.2:
            return
        self.drawn = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        lines = [head(search), *(row(search, run) for run in search.running)]
        self.clear()
        sys.stdout.write("".join(f"{line[:width]}\n" for line in lines))
        sys.stdout.flush()
        self.height = len(lines)

    def clear(self) -> None:
        if self.height:
            sys.stdout.write(f"\x1b[{self.height}F\x1b[J")
            sys.stdout.flush()
        self.height = 0

    def settled(self, search: Search, record: dict[str, Any]) -> None:
        self.clear()
        print("\n".join(ended(search, record)), flush=True)


def head(search: Search) -> str:
    """vgg_finetune: 12 of 50 done (3 pruned, 1 failed), best val/auc 0.8312 (trial 7), about 13 min 2 s left"""
    counts = {
        "pruned": len(search.trials(TrialState.PRUNED)), "failed": len(search.trials(TrialState.FAIL)),
    }  # fmt: skip
    of_them = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    parts = [f"{search.sweep.name}: {search.num_settled} of {search.n_trials} done"]
    parts[0] += f" ({of_them})" if of_them else ""
    if best := search.best():
        parts += [f"best {search.sweep.objectives[0].metric} {best.values[0]:.4g} (trial {best.number})"]
    if left := search.seconds_left():
        parts += [f"about {span(left)} left"]
    return ", ".join(parts)


def row(search: Search, run: RunningTrial) -> str:
    objective = search.sweep.objectives[0]
    fold = f"fold {search.sweep.folds[run.state.fold]}, " if search.sweep.folds else ""
    value = f"{objective.metric} {run.values[-1]:.4f}" if run.values and isfinite(run.values[-1]) else "…"
    doing = (run.job.doing if run.job else "") or f"{fold}epoch {len(run.values)} of {search.epochs}"
    doing = "stopping" if run.state.phase is Phase.STOPPING else doing
    return f"  trial {run.number}: {doing}, {value}, {span(time.monotonic() - run.started)}   {drawn(run)}"


def drawn(run: RunningTrial) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={short(value)}" for key, value in run.trial.params.items())


def ended(search: Search, record: dict[str, Any]) -> list[str]:
    """A line for a trial that has ended; for one that failed, the last lines of its output."""
    took = "" if record["seconds"] is None else f", {span(record['seconds'])}"
    start = f"trial {record['number']}"
    state = head(search).partition(": ")[2]
    if record["state"] == "complete":
        return [f"{start}: {scores(search.sweep.objectives, record['values'])}{took}; {state}"]
    if record["state"] == "pruned":
        return [f"{start}: pruned after epoch {record['epochs']}{took}; {state}"]
    lines = [f"    {line}" for line in record["error"].splitlines()]
    return [f"{start}: failed{took} (its output is in {record['folder']}); {state}", *lines]


def span(length: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(round(length), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
