"""Self-contained HTML pages: one file, pictures and scripts inside, nothing fetched."""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.io
from PIL import Image
from plotly.offline import get_plotlyjs

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --accent: #0969da; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff;
       max-width: 1180px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; border-bottom: 1px solid var(--line); padding-bottom: .8rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.note { color: var(--soft); max-width: 60rem; }
.faces { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; } figcaption { font-size: .78rem; color: var(--soft); line-height: 1.3; white-space: pre-line; }
img { image-rendering: pixelated; background: #eee; }
"""


def page(title: str, sections: Sequence[tuple[str, str]], lead: str = "") -> str:
    """A complete page. sections: heading (plain text) and body (HTML) of each; lead: HTML before the first."""
    anchors = [re.sub(r"\W+", "-", heading.lower()).strip("-") for heading, _ in sections]
    links = "".join(f'<a href="#{a}">{html.escape(h)}</a>' for a, (h, _) in zip(anchors, sections, strict=True))
    body = "".join(
        f'<section><h2 id="{a}">{html.escape(h)}</h2>{content}</section>'
        for a, (h, content) in zip(anchors, sections, strict=True)
    )
    script = f"<script>{get_plotlyjs()}</script>" if "plotly-graph-div" in body else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{script}</head>'
        f"<body><h1>{html.escape(title)}</h1>{lead}<nav>{links}</nav>{body}</body></html>\n"
    )


def note(text: str) -> str:
    """A remark in plain text."""
    return f'<p class="note">{html.escape(text)}</p>'


def figure(fig: Any, width: int = 700) -> str:
    """A plotly figure, or its plain dict, to stand in a page; in a window narrower than `width` it is scrolled."""
    config = {"displaylogo": False, "responsive": True}
    drawn = plotly.io.to_html(fig, config, full_html=False, include_plotlyjs=False, validate=False)
    return f'<div class="wide"><div style="min-width: {width}px">{drawn}</div></div>'


def faces(images: Sequence[np.ndarray], captions: Sequence[str], side: int = 96) -> str:
    """Images uint8 (C, H, W) in rows, a plain-text caption under each; side in pixels on the page."""
    shown = (
        f'<figure><img src="{picture(image)}" width="{side}" height="{side}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for image, caption in zip(images, captions, strict=True)
    )
    return f'<div class="faces">{"".join(shown)}</div>'


def picture(image: np.ndarray) -> str:
    """An image uint8 (C, H, W), C being 1 or 3, as a data URI."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
