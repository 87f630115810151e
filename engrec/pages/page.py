"""Self-contained HTML pages: one file, pictures and scripts inside, nothing fetched."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from engrec.pages.panels import TEMPLATE

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --accent: #0969da; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff;
       max-width: 1180px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; border-bottom: 1px solid var(--line); padding-bottom: .8rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.wide { overflow-x: auto; margin: .8rem 0; /* a shadow at the edge behind which there is more to scroll to */
        background: linear-gradient(90deg, #fff 40%, #fff0) 0 / 40px 100% local no-repeat,
                    linear-gradient(270deg, #fff 40%, #fff0) 100% / 40px 100% local no-repeat,
                    linear-gradient(90deg, #0003, #0000) 0 / 12px 100% no-repeat,
                    linear-gradient(270deg, #0003, #0000) 100% / 12px 100% no-repeat; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.note { color: var(--soft); max-width: 60rem; }
.faces { display: flex; flex-wrap: wrap; gap: .8rem; }
.group { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
figure { margin: 0; } figcaption { font-size: .78rem; color: var(--soft); line-height: 1.3; white-space: pre-line; }
img { image-rendering: pixelated; background: #eee; }
"""
# What `figure` leaves in a page, drawn.
DRAW = """for (const data of document.querySelectorAll(".plotly-graph-div + script")) {
  const { data: traces, layout } = JSON.parse(data.textContent);
  Plotly.newPlot(data.previousElementSibling, traces, layout, { displaylogo: false, responsive: true });
}"""


def page(title: str, sections: Sequence[tuple[str, str]], lead: str = "") -> str:
    """A complete page. sections: heading (plain text) and body (HTML) of each; lead: HTML before the first."""
    body = contents(sections)
    scripts = [get_plotlyjs(), DRAW] if "plotly-graph-div" in body else []
    head = f"{allow(scripts)}<style>{STYLE}</style>{''.join(map(script, scripts[:1]))}"
    end = "".join(map(script, scripts[1:]))
    return shell(title, head, f"<h1>{html.escape(title)}</h1>{lead}{body}{end}")


def contents(sections: Iterable[tuple[str, str]], tag: str = "h2", prefix: str = "") -> str:
    """Links to the sections, then each of them under its heading. prefix: of the anchors."""
    links, bodies = [], []
    for heading, body in sections:
        anchor, shown = prefix + re.sub(r"\W+", "-", heading.lower()).strip("-"), html.escape(heading)
        links.append(f'<a href="#{anchor}">{shown}</a>')
        bodies.append(f'<section><{tag} id="{anchor}">{shown}</{tag}>{body}</section>')
    return f"<nav>{''.join(links)}</nav>{''.join(bodies)}"


def shell(title: str, head: str, body: str) -> str:
    """What every page begins and ends with."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width">{head}</head><body>{body}</body></html>\n'
    )


def policy(allowed: str) -> str:
    """What a browser lets a page do: run the scripts that are named, fetch nothing from elsewhere. 'unsafe-eval' is
    for plotly; text of files is never run."""
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def allow(scripts: Sequence[str]) -> str:
    """The element that holds a page to its policy: of the scripts inside the page, these are run and no other."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(hashes))}">'


def script(source: str) -> str:
    return f"<script>{source}</script>"


def data(text: str, name: str = "") -> str:
    """JSON in an element that no text inside it can end. name: the element's id."""
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{html.escape(name)}">{safe}</script>\n'


def note(text: str) -> str:
    """A remark in plain text."""
    return f'<p class="note">{html.escape(text)}</p>'


def figure(fig: dict[str, Any], width: int = 700) -> str:
    """A plotly figure to stand in a page; in a window narrower than `width` it is scrolled."""
    styled = fig | {"layout": {"template": TEMPLATE} | fig["layout"]}
    place = f'<div class="plotly-graph-div" style="min-width: {width}px"></div>'
    return f'<div class="wide">{place}{data(str(to_json(styled, validate=False)))}</div>'


def faces(pictures: Iterable[tuple[str, str]]) -> str:
    """Pictures (data URIs) in rows, each with its plain-text caption below."""
    shown = (
        f'<figure><img src="{source}" width="96" height="96" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for source, caption in pictures
    )
    return f'<div class="faces">{"".join(shown)}</div>'


def picture(image: np.ndarray) -> str:
    """An image uint8 (C, H, W), C being 1 or 3, as a data URI."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
