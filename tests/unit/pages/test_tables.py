"""Tables say the same as Markdown, HTML and CSV, whatever stands in their cells."""

import csv
import io
import re
from html import unescape

import pytest

from engrec.pages import tables

ROWS = [["", "a|b"], ['x, "y"', ("1.0 [0.5, 1.5]", "p = 0.03")], ["<b>", "line\nbreak"]]


def test_markdown_is_aligned_and_keeps_its_columns():
    header, rule, *lines = tables.markdown([row for row in ROWS if "\n" not in row[1]]).splitlines()
    assert header == "|        | a\\|b                    |"
    assert rule == "|--------|-------------------------|"
    assert lines == ['| x, "y" | 1.0 [0.5, 1.5] p = 0.03 |']
    assert tables.markdown([["", "n"], ["x", "12345"]], align_right=True).splitlines() == [
        "|     |     n |",
        "|-----|------:|",
        "| x   | 12345 |",
    ]


@pytest.mark.parametrize("name", ["a|b<script>", "a\\|b", "`c` | d\ne", "&lt;b&gt;", "<!-- x", "p < 0.05 & more"])
def test_a_name_is_one_cell_of_markdown_and_never_markup(name):
    header, _, line = tables.markdown([["", "n"], [name, "1"]]).splitlines()
    cell, number = re.fullmatch(r"\| (.*) (?<!\\)\| (\S*) +\|", line).groups()
    assert not re.search(r"(?<!\\)\||\\(?!\|)|`|<[a-z!/]", cell)
    assert unescape(cell.strip().replace("\\|", "|")) == name.replace("\n", " ")
    assert (number, len(header)) == ("1", len(line))


def test_html_shows_text_as_it_is_and_parts_below_each_other():
    found = tables.html(ROWS)
    assert "<th>a|b</th>" in found
    assert "<td>1.0 [0.5, 1.5]\np = 0.03</td>" in found
    assert "<td>&lt;b&gt;</td>" in found


def test_csv_is_read_back_as_it_was():
    read = list(csv.reader(io.StringIO(tables.csv_text(ROWS), newline="")))
    assert read == [["", "a|b"], ['x, "y"', "1.0 [0.5, 1.5] p = 0.03"], ["<b>", "line\nbreak"]]
