"""What every page of ours promises: it runs its own scripts alone, and text stays text."""

import base64
import hashlib
import re
from html import unescape

import pytest

from engrec.pages import page

NAME = "a|b<script>alert(1)</script>"
BAR = {"data": [{"type": "bar", "name": NAME, "x": [NAME], "y": [1]}], "layout": {}}


@pytest.mark.parametrize("figures", [0, 2])
def test_the_scripts_of_a_page_are_those_that_its_policy_names(figures):
    text = page.page(NAME, [(NAME, page.note(NAME) + page.figure(BAR) * figures)])
    [allowed] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    sources = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
    named = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert unescape(allowed) == page.policy(named or "'none'")
    assert len(sources) == (2 if figures else 0)
    assert text.index("<meta http-equiv") < text.index("<style>")


def test_a_name_is_markup_nowhere():
    text = page.page(NAME, [(NAME, page.note(NAME) + page.figure(BAR))])
    assert "<script>alert" not in text
    assert "alert(1)</script>" not in text


def test_a_policy_lets_nothing_be_fetched():
    assert "default-src 'none'" in page.policy("'none'")
    assert not re.search(r"https?:|\*|unsafe-inline(?=.*style-src)", page.policy("'none'"))
