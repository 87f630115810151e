"""summary.md and summary.html at the end of a search: the best trials, Optuna's figures, and all trials in a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState
from plotly.colors import label_rgb, unlabel_rgb

from engrec.machine.files import write_text
from engrec.pages import page, tables
from engrec.search.outcome import Importances, best_command, chosen, importances, low_is_good, record, short, summary
from engrec.search.space import Sweep


def write_summary(sweep: Sweep, study: optuna.Study, folder: Path, command: str) -> tuple[str, list[Path]]:
    """Returns the text of summary.md, and both paths."""
    try:
        shares, reason = importances(study, sweep), ""
    except ValueError as error:
        shares, reason = {}, f"{error}."
    paths = [folder / "summary.md", folder / "summary.html"]
    markdown = summary(sweep, study, folder, command, shares, reason)
    write_text(paths[0], markdown)
    write_text(paths[1], html_page(sweep, study, folder, command, shares, reason))
    return markdown, paths


def html_page(sweep: Sweep, study: optuna.Study, folder: Path, command: str, shares: Importances, reason: str) -> str:
    sections = []
    if best := chosen(study):
        sections.append(("Best", "".join(page.note(best_command(sweep, trial)) for trial in best)))
        sections += [(title, page.figure(polished(fig))) for title, fig in figures(study, sweep, shares)]
    if best and reason:
        sections.append(("Importances", page.note(reason)))
    sections.append(("Trials", tables.html(_table(study, sweep, folder))))
    return page.page(f"Search: {sweep.name}", sections, page.note(command))


def figures(study: optuna.Study, sweep: Sweep, shares: Importances) -> Iterator[tuple[str, go.Figure]]:
    """Optuna's, each with its title."""
    metrics = [objective.metric for objective in sweep.objectives]
    if len(metrics) in (2, 3):
        best = {"color": "crimson", "size": 10, "showscale": False}  # Optuna's own colours leave some of them white
        front = visualization.plot_pareto_front(study, target_names=metrics)
        yield "Trade-off (best trials in red)", front.update_traces(marker=best, selector=-1)
    for index, objective in enumerate(sweep.objectives):
        metric = objective.metric
        target: dict[str, Any] = {"target_name": metric}
        if metrics[1:]:
            target["target"] = lambda trial, index=index: trial.values[index]
        yield f"History: {metric}", visualization.plot_optimization_history(study, **target)
        if metric in shares:
            with low_is_good(objective, index) as low:
                yield f"Importances: {metric}", visualization.plot_param_importances(study, target=low)
        yield f"Parallel coordinates: {metric}", darker(visualization.plot_parallel_coordinate(study, **target))
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        fig = visualization.plot_intermediate_values(study)
        yield "Epochs", fig.update_layout(xaxis_title="epoch", yaxis_title=f"best {metrics[0]} so far")


def darker(fig: go.Figure) -> go.Figure:
    """Optuna draws the worst trials nearly white, on white."""

    def change(trace: Any) -> None:
        if trace.line.color:
            trace.update(line_color=_darker(trace.line.color), opacity=0.8)
        if scale := trace.marker.colorscale:
            trace.marker.colorscale = [(at, _darker(colour)) for at, colour in scale]

    return fig.for_each_trace(change)


def _darker(rgb: str) -> str:
    return label_rgb(tuple(round(0.85 * value) for value in unlabel_rgb(rgb)))


def polished(fig: go.Figure) -> dict[str, Any]:
    """In the page's style; the title stands above."""
    fig.update_layout(title=None, template="plotly_white", height=420, margin={"t": 40, "b": 60, "l": 80})
    return fig.to_plotly_json()


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
