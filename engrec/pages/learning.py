"""Learning curves: the traces of one run, for the report and for whatever runs somebody chooses in the dashboard.

Apart from the other figures, since those load torch and scikit-learn, which takes seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engrec.metrics import display_name, scores
from engrec.pages.panels import Look, short, text

MOST_POINTS = 400  # of a curve


def learning_curve(
    history: Mapping[str, Sequence[float | None]], metric: str, style: Look, name: str, kept: float | None
) -> list[dict[str, Any]]:
    """One metric of one run over its epochs, and the mark of the epoch that was kept; empty where it has none.

    history: column to values, as metrics.csv has them; scores are drawn in per cent.
    """
    if not history.get(metric):
        return []
    scale = 100 if is_share(metric) else 1
    epochs = [int(epoch or 0) + 1 for epoch in history["epoch"]]
    values = [np.nan if value is None else scale * value for value in history[metric]]
    number = "%{y:.1f}\u00a0%" if scale == 100 else "%{y:.4g}"
    hover = f"{text(name)}<br>{text(metric)}, epoch %{{x}}: {number}<extra></extra>"
    mode = "lines" if len(epochs) > 1 else "lines+markers"
    line = {"y": short(_thin(values)), "mode": mode, "line": style.line(1.5), "hovertemplate": hover}
    traces = [_steps(_thin(epochs)) | line]
    if kept is not None and kept + 1 in epochs:
        at = values[epochs.index(int(kept) + 1)]
        mark = {"x": [int(kept) + 1], "y": short([at]), "mode": "markers", "marker": style.marker()}
        traces.append(mark | {"hoverinfo": "skip"})
    return traces


def metric_title(name: str) -> str:
    return f"{display_name(name)}, %" if is_share(name) else display_name(name)


def is_share(name: str) -> bool:
    """Whether it is a share from 0 to 1, which is shown in per cent."""
    return name.rpartition("/")[2] in scores()


def _steps(x: Sequence[float]) -> dict[str, Any]:
    """The places of points, of equal steps only the first and the step."""
    steps = set(np.diff(x).tolist())
    return {"x0": x[0], "dx": steps.pop() if steps else 1} if len(steps) < 2 else {"x": list(x)}


def _thin(values: Sequence[float]) -> list[float]:
    """At most MOST_POINTS of them, evenly, the first and the last included."""
    keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int))
    return [values[i] for i in keep]
