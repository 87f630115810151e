"""What is said while a search goes on."""

import shutil
import sys
import time
from math import isfinite
from typing import Any

from optuna.trial import TrialState

from engrec.search.outcome import said, short
from engrec.search.search import RunningTrial, Search
from engrec.search.trial import Phase


class Table:
    """Running trials and the best so far: redrawn on a terminal, elsewhere a line for each that begins or ends."""

    def __init__(self, on_terminal: bool) -> None:
        self.on_terminal, self.height, self.drawn = on_terminal, 0, 0.0
        self.begun: set[int] = set()

    def draw(self, searching: Search) -> None:
        for run in [] if self.on_terminal else searching.running:
            if run.number not in self.begun:
                self.begun.add(run.number)
                print(f"trial {run.number} begins: {drawn(run)}", flush=True)
        if not self.on_terminal or time.monotonic() - self.drawn < 0.2:
            return
        self.drawn = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        lines = [head(searching), *(row(searching, run) for run in searching.running)]
        self.clear()
        sys.stdout.write("".join(f"{line[:width]}\n" for line in lines))
        sys.stdout.flush()
        self.height = len(lines)

    def clear(self) -> None:
        if self.height:
            sys.stdout.write(f"\x1b[{self.height}F\x1b[J")
            sys.stdout.flush()
        self.height = 0

    def settled(self, searching: Search, record: dict[str, Any]) -> None:
        self.clear()
        print("\n".join(ended(searching, record)), flush=True)


def head(searching: Search) -> str:
    """vgg_finetune: 12 of 50 done (3 pruned, 1 failed), best val/auc 0.8312 (trial 7), about 13 min 2 s left"""
    counts = {
        "pruned": len(searching.trials(TrialState.PRUNED)), "failed": len(searching.trials(TrialState.FAIL)),
    }  # fmt: skip
    of_them = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    parts = [f"{searching.sweep.name}: {searching.num_settled} of {searching.n_trials} done"]
    parts[0] += f" ({of_them})" if of_them else ""
    parts += best_so_far(searching)
    left = searching.seconds_left()
    parts += [f"about {span(left)} left"] if left else []
    return ", ".join(parts)


def best_so_far(searching: Search) -> list[str]:
    best, objective = searching.best(), searching.sweep.objectives[0]
    if best is None:
        return []
    return [f"best {objective.metric} {best.values[0]:.4g} (trial {best.number})"]


def row(searching: Search, run: RunningTrial) -> str:
    objective = searching.sweep.objectives[0]
    fold = f"fold {searching.sweep.folds[run.state.fold]}, " if searching.sweep.folds else ""
    values = run.epochs.values(objective.metric)
    value = f"{objective.metric} {values[-1]:.4f}" if values and isfinite(values[-1]) else "…"
    doing = (run.job.doing if run.job else "") or f"{fold}epoch {len(values)} of {searching.epochs}"
    doing = "stopping" if run.state.phase is Phase.STOPPING else doing
    return f"  trial {run.number}: {doing}, {value}, {span(time.monotonic() - run.started)}   {drawn(run)}"


def drawn(run: RunningTrial) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={short(value)}" for key, value in run.trial.params.items())


def ended(searching: Search, record: dict[str, Any]) -> list[str]:
    """A line for a trial that has ended; for one that failed, what it said last."""
    took = "" if record["seconds"] is None else f", {span(record['seconds'])}"
    start = f"trial {record['number']}"
    state = head(searching).partition(": ")[2]
    if record["state"] == "complete":
        return [f"{start}: {said(searching.sweep.objectives, record['values'])}{took}; {state}"]
    if record["state"] == "pruned":
        return [f"{start}: pruned after epoch {record['epochs']}{took}; {state}"]
    lines = [f"    {line}" for line in record["error"].splitlines()]
    return [f"{start}: failed{took} (all it said: {record['folder']}); {state}", *lines]


def span(length: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(round(length), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
