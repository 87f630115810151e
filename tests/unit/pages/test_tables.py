"""Tables say the same as Markdown, HTML and CSV, whatever stands in their cells."""

import csv
import io

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


def test_html_shows_text_as_it_is_and_parts_below_each_other():
    found = tables.html(ROWS)
    assert "<th>a|b</th>" in found
    assert "<td>1.0 [0.5, 1.5]\np = 0.03</td>" in found
    assert "<td>&lt;b&gt;</td>" in found


def test_csv_is_read_back_as_it_was():
    read = list(csv.reader(io.StringIO(tables.csv_text(ROWS), newline="")))
    assert read == [["", "a|b"], ['x, "y"', "1.0 [0.5, 1.5] p = 0.03"], ["<b>", "line\nbreak"]]
