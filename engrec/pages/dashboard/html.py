"""The page itself: in pieces, as the server sends it, and as one file that holds everything it shows."""

import base64
import gzip
import html
import importlib.util
import json
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from engrec.metrics import compared, described, scores
from engrec.pages import page
from engrec.pages.dashboard.answers import Details
from engrec.pages.dashboard.records import Outputs
from engrec.pages.panels import COLOURS, DARK, DASHES, TEMPLATE, look
from engrec.splits import LEAKING

HERE = Path(__file__).parent
OURS = ("base.js", "plots.js", "table.js", "views.js", "groups.js", "main.js")  # each needs those before it
PLOTS = "plotly.js"
EXPORTED_MISTAKES = 60  # runs whose pictures are written into a page
BODY = """<header><h1>engrec <span id="root"></span></h1><nav aria-label="views">
<a href="#/runs" data-views="runs run compare">Runs</a> <a href="#/groups" data-views="groups">Folds and seeds</a></nav>
<span id="live" role="status">reading …</span></header>
<main id="main"></main><noscript>This page needs JavaScript.</noscript>"""


@cache
def scripts() -> dict[str, str]:
    """Name to source: the table and our own, then plotly, for which the table does not wait."""
    return {"tables.js": data_tables()[0], **{name: _ours(name) for name in OURS}, PLOTS: get_plotlyjs()}


@cache
def style() -> str:
    return page.STYLE + data_tables()[1] + _ours("dashboard.css")


def constants() -> str:
    """What the scripts take from Python: metrics, marks of splits, and how figures look."""
    looks = [{"colour": look(i).colour, "dash": look(i).dash} for i in range(len(COLOURS) * len(DASHES))]
    metrics = [metric | {"share": metric["key"] in scores()} for metric in described()]
    marks = {name: strategy.mark for name, strategy in LEAKING.items()}
    names = {"metrics": metrics, "compared": list(compared()), "marks": marks}
    return page.data(compact({**names, "looks": looks, "template": TEMPLATE, "dark": DARK}), "constants")


def _ours(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def data_tables() -> tuple[str, str]:
    """DataTables as a plain script, which leaves `DataTable` behind, and its style.

    The only place that knows how itables, which brings them, is built: its module is turned into a script, so that a
    file can hold it. The package is not imported, since it would import pandas. Raises ValueError for another version.
    """
    found = importlib.util.find_spec("itables")
    if found is None or not found.submodule_search_locations:
        raise ValueError("the table needs itables: pip install -c constraints.txt itables")
    folder = Path(found.submodule_search_locations[0], "html")
    try:
        source, css = ((folder / name).read_text(encoding="utf-8") for name in ("dt_bundle.js", "dt_bundle.css"))
    except OSError:
        source = css = ""
    exported = re.search(r"export\{([^}]*)\};?", source)
    names = dict(part.split(" as ")[::-1] for part in exported[1].split(",")) if exported else {}
    if exported is None or not {"default", "set_or_remove_dark_class"} <= names.keys():
        raise ValueError(
            "the dashboard's table needs another version of itables: pip install -c constraints.txt itables"
        )
    end = f"window.DataTable={names['default']};{names['set_or_remove_dark_class']}();"
    return f'(()=>{{"use strict";{source[: exported.start()]}{end}}})();', css


def served() -> str:
    sources = "".join(f'<script defer src="{name}"></script>' for name in scripts() if name != PLOTS)
    links = '<link rel="stylesheet" href="style.css"><link rel="icon" href="data:,">'
    return page.shell("engrec", links + sources, BODY + constants())


def exported(outputs: Outputs, details: Details, name: str) -> Iterator[str]:
    """One file that needs nothing else, in parts."""
    head = f"{page.allow(_inside())}<style>{style()}</style>"
    start, end = page.shell("engrec", head, f"{BODY}{constants()}\0").split("\0")
    yield start
    state = outputs.since() | {"root": name, "error": "", "exported": time.strftime("%Y-%m-%d %H:%M")}
    yield page.data(compact(state), "state")
    for question, key in asked(outputs):
        yield _packed(f"{question}/{key}", details.answer(question, key))
    yield "".join(map(page.script, _inside()))
    yield end


def asked(outputs: Outputs) -> Iterator[tuple[str, str]]:
    """All that the page can ask, except for pairs, of which there are too many."""
    tested = [key for key, entry in outputs.runs.items() if "predictions.csv" in entry.files]
    newest = sorted(tested, key=lambda key: -(outputs.runs[key].record["started"] or 0))[:EXPORTED_MISTAKES]
    for question, keys in (
        ("history", outputs.runs),
        ("texts", outputs.runs),
        ("tested", tested),
        ("mistakes", newest),
        ("group", dict.fromkeys(entry.record["group"] for entry in outputs.runs.values())),
        ("intervals", ["all"]),
    ):
        for key in keys:
            yield question, key


@cache
def _inside() -> list[str]:
    """The scripts as they can stand inside a page, where </script> would end them."""
    return [re.sub(r"</(script)", r"<\\/\1", source, flags=re.IGNORECASE) for source in scripts().values()]


def _packed(name: str, node: Any) -> str:
    """Compressed JSON: figures of a thousand runs are 40 MB of text."""
    packed = base64.b64encode(gzip.compress(compact(node).encode(), 6, mtime=0)).decode()
    return f'<script type="text/plain" id="{html.escape(name)}">{packed}</script>\n'


def compact(node: Any) -> str:
    return json.dumps(node, allow_nan=False, separators=(",", ":"))
