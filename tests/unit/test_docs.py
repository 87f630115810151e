"""Links in the Markdown files, as GitHub resolves them: a file that is there, a heading that is there."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "outputs" / "README.md"])


def parsed(path):
    return MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text(encoding="utf-8"))


def links(path):
    for token in parsed(path):
        for child in token.children or ():
            if target := child.attrGet("href") or child.attrGet("src"):
                yield str(target)


def anchors(path):
    """The headings of a page as GitHub names them."""
    tokens = parsed(path)
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "training.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    wrong = []
    for link in links(page):
        url = urlsplit(link)
        if url.scheme:
            if url.scheme not in ("http", "https") or "." not in url.netloc:
                wrong.append(link)
            continue
        target = (page.parent / url.path).resolve() if url.path else page
        if not target.exists() or (url.fragment and url.fragment not in anchors(target)):
            wrong.append(link)
    assert not wrong
