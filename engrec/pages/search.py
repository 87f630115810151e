"""summary.md, and summary.html: one file with history, what matters, values with their results, and the trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from engrec.machine.files import write_text
from engrec.pages import page, tables
from engrec.search.outcome import Matters, best_command, chosen, importances, record, short, summary
from engrec.search.space import Objective, Sweep, arguments, text


def write_summary(sweep: Sweep, study: optuna.Study, folder: Path, typed: str) -> tuple[str, list[Path]]:
    """summary.md and summary.html. Returns the text of the first, and both paths."""
    try:
        matters, why_not = importances(study, sweep), ""
    except ValueError as error:
        matters, why_not = {}, f"{error}.".capitalize()
    paths = [folder / "summary.md", folder / "summary.html"]
    markdown = summary(sweep, study, folder, typed, matters, why_not)
    write_text(paths[0], markdown)
    write_text(paths[1], html_page(sweep, study, folder, typed, matters, why_not))
    return markdown, paths


def html_page(sweep: Sweep, study: optuna.Study, folder: Path, typed: str, matters: Matters, why_not: str) -> str:
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
        sections.append(("What matters", page.note(why_not) if why_not else page.figure(_bars(matters))))
    sections.append(("Trials", tables.html(_table(study, sweep, folder))))
    return page.page(f"Search: {sweep.name}", sections, page.note(typed))


def _table(study: optuna.Study, sweep: Sweep, folder: Path) -> list[list[str]]:
    """The best first, then the pruned, then the rest."""
    sign = sweep.objectives[0].sign
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1}
    trials = sorted(
        study.get_trials(deepcopy=False),
        key=lambda t: (order.get(t.state, 2), -sign * t.values[0] if t.values else 0, t.number),
    )
    rows: list[list[str]] = [["trial", "state", *(o.metric for o in sweep.objectives), *sweep.search, "seconds"]]
    for trial in trials:
        entry = record(trial, folder)
        values = [f"{value:.4f}" for value in entry["values"] or ()] or [""] * len(sweep.objectives)
        drawn = [short(trial.params.get(key, "")) for key in sweep.search]
        rows.append([str(trial.number), entry["state"], *values, *drawn, f"{entry['seconds'] or 0:.1f}"])
    return rows


def _history(study: optuna.Study, objective: Objective, index: int) -> Any:

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

    complete, front = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), study.best_trials
    first, second = sweep.objectives
    fig = go.Figure()
    for name, trials in (("trial", complete), ("not beaten in both", sorted(front, key=lambda t: t.values[0]))):
        x, y = [t.values[1] for t in trials], [t.values[0] for t in trials]
        mode = "markers" if name == "trial" else "lines+markers"
        fig.add_scatter(x=x, y=y, mode=mode, name=name, hovertext=[_hover(t) for t in trials])
    return fig.update_layout(xaxis_title=second.metric, yaxis_title=first.metric, template="plotly_white")


def _parallel(complete: Sequence[FrozenTrial], sweep: Sweep) -> Any:

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

    fig = go.Figure()
    for metric, shares in evaluated.items():
        fig.add_bar(y=list(shares), x=list(shares.values()), name=metric, orientation="h")
    return fig.update_layout(xaxis_title="share", template="plotly_white", yaxis={"autorange": "reversed"})
