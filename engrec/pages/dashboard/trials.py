"""A search as its page shows it, from sweep.json alone: the journal belongs to the search."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from engrec.runs.reading import mapping, number, plain, word
from engrec.search import outcome
from engrec.search.space import Objective, Sweep, text

STATES = {word: state for state, word in outcome.STATES.items()}


def described(node: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError for what no search writes."""
    objectives = tuple(Objective(str(o["metric"]), o["direction"]) for o in node["objectives"])
    if not objectives or {o.direction for o in objectives} - {"minimize", "maximize"}:
        raise ValueError("sweep.json is damaged (it names no objective, or no direction)")
    space = {str(key): _distribution(mapping(values)) for key, values in node["search"].items()}
    folds = tuple(int(fold) for fold in node.get("folds") or ())
    sweep = Sweep(str(node["name"]), tuple(map(str, node["overrides"])), space, objectives, folds)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line on the terminal for each study that is read
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    rows = []
    for trial in node["trials"]:
        state, params = word(trial.get("state")), mapping(trial.get("params"))
        values = [known for value in trial.get("values") or [] if (known := number(value)) is not None]
        whole = state == "complete" and len(values) == len(objectives)
        rows.append(
            {
                "number": int(trial["number"]),
                "state": state,
                "values": values if whole else None,
                "params": {key: plain(params.get(key)) for key in space},
                "seconds": number(trial.get("seconds")),
                "epochs": number(trial.get("epochs")),
                "error": word(trial.get("error")),
            }
        )
        if whole and params.keys() == space.keys():
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.COMPLETE, values=values, params=dict(params), distributions=dict(space)
                )
            )
    try:
        matters, why = outcome.importances(study, sweep), ""
    except ValueError as error:
        matters, why = {}, str(error)
    complete = [row["number"] for row in rows if row["values"] and row["params"].keys() == space.keys()]
    best = outcome.chosen(study)
    return {
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in objectives],
        "axes": {key: _axis(values) for key, values in space.items()},
        "trials": rows,
        "importances": matters,
        "unknown": why,
        "best": [{"number": complete[t.number], "command": outcome.best_command(sweep, t)} for t in best],
        "overrides": list(sweep.overrides),
    }


def _distribution(words: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in words:
        return CategoricalDistribution(
            [c if isinstance(c, bool | int | float) or c is None else str(c) for c in words["choices"]]
        )
    low, high, log, step = words["low"], words["high"], bool(words.get("log")), words.get("step")
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _axis(values: BaseDistribution) -> dict[str, Any]:
    if isinstance(values, CategoricalDistribution):
        return {"choices": [text(choice) for choice in values.choices]}
    assert isinstance(values, IntDistribution | FloatDistribution)
    return {"low": values.low, "high": values.high, "log": values.log}
