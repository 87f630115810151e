"""How figures look, and a figure of several panels as the plain dict that plotly.js takes.

Plain, since go.Figure checks every property, which takes 60 ms a figure, and an exported dashboard holds thousands.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

# Okabe and Ito, Color Universal Design (2008), without the yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES, SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "diamond", "square", "triangle-up")
INK, PAPER, LINE, GREY, PALE = "#1b1f24", "#ffffff", "#e4e8ec", "#7a828a", "#d0d7de"
SHADES = ("#f5f9fd", "#63abdb")  # light enough for dark numbers
WARNING = COLOURS[1]
# What each colour above is on a dark page.
DARK = {
    **dict(zip(COLOURS, ("#4aa8e0", "#f0803c", "#2fc59b", "#e09cc4", "#9ad3f5", "#f2b84b", "#e6edf3"), strict=True)),
    INK: "#e6edf3",
    PAPER: "#0d1117",
    LINE: "#262c34",
    GREY: "#9aa4af",
    PALE: "#3d444d",
    **dict(zip(SHADES, ("#141b24", "#1f6aa5"), strict=True)),
}

_axis = {"zeroline": False, "gridcolor": LINE, "linecolor": LINE, "automargin": True}
_titled = {**_axis, "title": {"font": {"size": 13}, "standoff": 8}}
TEMPLATE = {
    "layout": {
        "font": {"family": 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', "size": 13, "color": INK},
        "margin": {"l": 60, "r": 10, "t": 50, "b": 50},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "hoverlabel": {"align": "left", "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        "xaxis": _titled,
        "yaxis": _titled,
    }
}


@dataclass(frozen=True)
class Chart:
    """A figure as plotly.js draws it, and the remark below it. Without a figure the remark says why.

    width: in pixels; in a narrower window the figure is scrolled.
    """

    figure: dict[str, Any] | None
    note: str = ""
    width: int = 700


@dataclass(frozen=True)
class Look:
    """How a predictor is drawn wherever it is on the page."""

    colour: str = GREY
    dash: str = "solid"
    symbol: str = "circle"

    def line(self, width: float = 2) -> dict[str, Any]:
        return {"color": self.colour, "dash": self.dash, "width": width}

    def marker(self, size: float = 7) -> dict[str, Any]:
        return {"color": self.colour, "symbol": self.symbol, "size": size}

    def hollow(self) -> "Look":
        """The same with open marks."""
        return replace(self, symbol=f"{self.symbol}-open")


def look(number: int) -> Look:
    """Colours in turn; those that come round again are dashed and have another mark."""
    again, colour = divmod(number, len(COLOURS))
    return Look(COLOURS[colour], DASHES[again % len(DASHES)], SYMBOLS[again % len(SYMBOLS)])


def assign_looks(labels: Iterable[str]) -> dict[str, Look]:
    return {label: look(i) for i, label in enumerate(dict.fromkeys(labels))}


class Panels:
    """Panels in a grid, numbered from 0, to which traces are added.

    places: row and column of each panel; widths: of the columns; gaps: between columns and between rows, as shares of
    the figure; titles: HTML above each panel.
    """

    def __init__(
        self,
        places: Sequence[tuple[int, int]],
        widths: Sequence[float],
        gaps: tuple[float, float] = (0.09, 0.05),
        titles: Sequence[str] = (),
    ) -> None:
        self.places = places
        self.traces: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {"annotations": []}
        columns, rows = _spans(widths, gaps[0]), _spans([1] * (1 + max(row for row, _ in places)), gaps[1])[::-1]
        for panel, (row, column) in enumerate(places):
            x, y = self._axes(panel)
            self.layout[x] = {"domain": columns[column], "anchor": _short_name(y)}
            self.layout[y] = {"domain": rows[row], "anchor": _short_name(x)}
        for (row, column), title in zip(places, titles, strict=False):
            at = {"x": sum(columns[column]) / 2, "y": rows[row][1], "xref": "paper", "yref": "paper"}
            style = {"showarrow": False, "xanchor": "center", "yanchor": "bottom", "font": {"size": 13}}
            self.layout["annotations"].append({"text": title, **at, **style})

    def add(self, panel: int, **trace: Any) -> None:
        x, y = map(_short_name, self._axes(panel))
        self.traces.append({"type": "scatter", **trace, "xaxis": x, "yaxis": y})

    def dotted(self, panel: int, x: Sequence[float], y: Sequence[float]) -> None:
        """A line to compare with."""
        line = {"color": GREY, "width": 1.2, "dash": "dot"}
        self.add(panel, x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)

    def x(self, panel: int, **settings: Any) -> None:
        self._set(self._axes(panel)[0], settings)

    def y(self, panel: int, **settings: Any) -> None:
        self._set(self._axes(panel)[1], settings)

    def label_outside(self, x: str, y: str) -> None:
        """Axis titles once: below the last panel of each column, left of the first of each row."""
        for panel in {column: panel for panel, (_, column) in enumerate(self.places)}.values():
            self.x(panel, title=x)
        for panel, (_, column) in enumerate(self.places):
            if column == 0:
                self.y(panel, title=y)

    def figure(self, height: int, legend: bool = True) -> dict[str, Any]:
        return {"data": self.traces, "layout": self.layout | {"height": height, "showlegend": legend}}

    def _set(self, axis: str, settings: dict[str, Any]) -> None:
        if "title" in settings:
            settings["title"] = {"text": settings["title"]}
        self.layout[axis] |= settings

    def _axes(self, panel: int) -> tuple[str, str]:
        number = str(panel + 1) if panel else ""
        return f"xaxis{number}", f"yaxis{number}"


def grid(titles: Sequence[str], most: int) -> Panels:
    """A panel for each title, at most so many in a row, and two at least, since a single one would be too wide."""
    columns = min(most, max(2, len(titles)))
    places = [divmod(i, columns) for i in range(len(titles))]
    rows = -(-len(titles) // columns)
    return Panels(places, [1] * columns, (0.28 / columns, 0.3 / rows), [wrap(title, 34) for title in titles])


def text(value: str) -> str:
    """Text that plotly, which takes some HTML and does not know &quot;, shows as it is."""
    return escape(value, quote=False)


def wrap(name: str, width: int) -> str:
    return "<br>".join(text(part) for line in name.splitlines() for part in textwrap.wrap(line, width))


def short(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Rounded, for JSON; None for what is not finite."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in values]


def _spans(widths: Sequence[float], gap: float) -> list[tuple[float, float]]:
    """Where each of some widths begins and ends when they fill 0 to 1 with gaps between them."""
    unit, spans, start = (1 - gap * (len(widths) - 1)) / sum(widths), [], 0.0
    for width in widths:
        spans.append((round(start, 4), round(min(start + width * unit, 1.0), 4)))
        start += width * unit + gap
    return spans


def _short_name(axis: str) -> str:
    """What traces and anchors call an axis of the layout: yaxis2 is y2."""
    return axis.replace("axis", "")
