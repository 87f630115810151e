"""The results of a search as files: trials.csv, sweep.json, summary.md."""

import csv
import io
import json
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from engrec.machine.files import write_text
from engrec.search.space import Objective, Sweep, arguments, merged, text

Importances = dict[str, dict[str, float]]  # for each objective each key's share, the largest first
LEAST = 10  # complete trials that importances are computed from
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


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


def write_state(folder: Path, sweep: Sweep, records: Sequence[dict[str, Any]], about: Mapping[str, Any]) -> None:
    """sweep.json and trials.csv. about: more keys of sweep.json."""
    state = {
        "name": sweep.name,
        **about,
        "updated": datetime.now().astimezone().isoformat(timespec="seconds"),
        **sweep.spec(),
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in sweep.objectives],
        "trials": records,
    }
    write_text(folder / "sweep.json", json.dumps(state, indent=1, allow_nan=False))
    metrics = [objective.metric for objective in sweep.objectives]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "state", *metrics, *sweep.search, "seconds", "epochs", "folder"])
    for entry in records:
        values = entry["values"] or [""] * len(metrics)
        drawn = [text(entry["params"][key]) if key in entry["params"] else "" for key in sweep.search]
        rest = [entry[key] or "" for key in ("seconds", "epochs", "folder")]
        writer.writerow([entry["number"], entry["state"], *values, *drawn, *rest])
    write_text(folder / "trials.csv", file.getvalue())


def importances(study: optuna.Study, sweep: Sweep) -> Importances:
    """By PED-ANOVA. Raises ValueError for few trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST:
        raise ValueError(f"importances need {LEAST} complete trials, found {len(complete)}")
    evaluated = {}
    for index, objective in enumerate(sweep.objectives):
        if len({trial.values[index] for trial in complete}) == 1:
            raise ValueError(f"importances are undefined: {objective.metric} is identical in all trials")
        with low_is_good(objective, index) as target:
            shares = optuna.importance.get_param_importances(study, target=target)
        evaluated[objective.metric] = {key: float(share) for key, share in shares.items()}
    return evaluated


@contextmanager
def low_is_good(objective: Objective, index: int) -> Iterator[Callable[[FrozenTrial], float]]:
    """The target for importances. With one of the caller's own Optuna takes low values for good, and warns of it."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        yield lambda trial: -objective.sign * trial.values[index]


def chosen(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or of several objectives those that no other trial beats in all."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def best_command(sweep: Sweep, trial: FrozenTrial) -> str:
    """What trains as that trial did, on each of its folds, in folders that it chooses itself."""
    several, folds = (["-m"], [f"split.fold={','.join(map(str, sweep.folds))}"]) if sweep.folds else ([], [])
    return shlex.join(["python", "train.py", *several, *merged(sweep.overrides, arguments(trial.params), folds)])


def scores(objectives: Sequence[Objective], values: Sequence[float]) -> str:
    """val/auc 0.8123, seconds_per_epoch 3.21."""
    return ", ".join(f"{o.metric} {value:.4g}" for o, value in zip(objectives, values, strict=True))


def summary(sweep: Sweep, study: optuna.Study, folder: Path, command: str, shares: Importances, reason: str) -> str:
    """summary.md: what came out, as text and as commands to copy. reason: why there are no importances."""
    counts = {word: len(study.get_trials(deepcopy=False, states=(state,))) for state, word in STATES.items()}
    counts["interrupted"] = counts.pop("running")
    numbers = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    lines = [f"# {sweep.name}", "", f"`{command}`", "", f"{numbers}.", ""]
    best = chosen(study)
    if not best:
        return "\n".join([*lines, "No trial has been completed.", ""])
    several = len(sweep.objectives) > 1
    lines += ["Trials that no other trial beats in all objectives:" if several else "The best trial:", ""]
    for trial in sorted(best, key=lambda trial: trial.values[0]):
        drawn = " ".join(arguments(trial.params))
        where = record(trial, folder)["folder"]
        lines += [f"- {scores(sweep.objectives, trial.values)} (trial {trial.number}, in {where}): `{drawn}`"]
    lines += ["", "```bash", *(best_command(sweep, trial) for trial in best), "```", ""]
    for metric, of_keys in shares.items():
        lines += [f"Importances for {metric}: " + ", ".join(f"{k} {v:.0%}" for k, v in of_keys.items()) + ".", ""]
    lines += [reason, ""] if reason else []
    where = "mean over folds " + ", ".join(map(str, sweep.folds)) if sweep.folds else "one run"
    if any(objective.is_score for objective in sweep.objectives):
        lines += [
            f"Values are those of the validation images ({where}). They are optimistic, as the best trial was chosen "
            "by them: report the test's.",
            "",
        ]
    return "\n".join(lines)


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)
