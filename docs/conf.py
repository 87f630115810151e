"""The documentation as a site: `make docs`."""

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Pages that GitHub shows elsewhere; here their text stands in front of what the page of that name holds.
ELSEWHERE = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "outputs": "outputs/README.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
INTERVAL = re.compile(r"(\[[+−]?[\d.]+,) ([+−]?[\d.]+\])")

project = "engrec"
copyright = "the authors of engrec, MIT licence"
extensions = ["myst_parser", "autodoc2"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "engrec"
html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_heading_anchors = 4

# Every module below engrec/, read and not imported; docstrings are prose with Markdown in it.
autodoc2_packages = ["../engrec"]
autodoc2_output_dir = "api"
autodoc2_sort_names = True
autodoc2_index_template = """\
Reference
=========

Every module of engrec, from its docstrings. :doc:`/architecture` says where to start.

.. toctree::
   :titlesonly:
{% for package in top_level %}
   {{ package }}
{%- endfor %}
"""
autodoc2_docstring_parser_regexes = [(r".*", "myst")]
autodoc2_hidden_objects = ["dunder", "inherited", "private"]


def moved(link: re.Match[str], folder: Path) -> str:
    """A link of a Markdown file in `folder`, as it is written from docs/."""
    target = (folder / link[1]).resolve()
    for page, file in ELSEWHERE.items():
        if target == ROOT / file:
            return f"{page}.md"
    return os.path.relpath(target, ROOT / "docs")


def for_the_site(_app: Any, page: str, source: list[str]) -> None:
    if page.startswith("api/"):
        # autodoc2 gives a field without a default the value None.
        source[0] = re.sub(r"(:type: .*\n) +:value: None\n", r"\1", source[0])
        return
    file = ROOT / ELSEWHERE.get(page, f"docs/{page}.md")
    before = file.read_text(encoding="utf-8") if page in ELSEWHERE else ""
    text = LINK.sub(lambda link: moved(link, file.parent), before)
    text += LINK.sub(lambda link: moved(link, ROOT / "docs"), source[0])
    source[0] = INTERVAL.sub("\\1\N{NO-BREAK SPACE}\\2", text)  # an interval stays on one line


def setup(app: Any) -> None:
    app.connect("source-read", for_the_site)
