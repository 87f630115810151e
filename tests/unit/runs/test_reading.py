"""metrics.csv has one parser: what it finds up to the first problem, and that problem with its line."""

import math

import pytest

from engrec.runs.reading import parse_history, read_history


def test_columns_are_numbers_and_an_empty_cell_is_not_a_number():
    columns, problem = parse_history("epoch,val/auc\r\n0,\r\n1,0.75\r\n")
    assert problem == ""
    assert columns["epoch"] == [0, 1]
    assert math.isnan(columns["val/auc"][0])
    assert columns["val/auc"][1] == 0.75


@pytest.mark.parametrize(
    ("text", "problem", "epochs"),
    [
        ("epoch,a\n0,1\n1,2,3\n", "line 3: 3 cells, the header has 2", [0]),
        ("epoch,a\n0,1\n1,high\n", "line 3: could not convert string to float: 'high'", [0]),
        ("epoch,a\n0,1\n,2\n2,3\n", "line 3: the epoch is not a number", [0]),
        ('epoch,a\n0,1\n1,"2', "line 3: unexpected end of data", [0]),
        ("a,b\n0,1\n", "line 1: the columns must include epoch, and each must appear once", None),
        ("epoch,a,a\n0,1,1\n", "line 1: the columns must include epoch, and each must appear once", None),
        ("", "line 1: the columns must include epoch, and each must appear once", None),
        ("epoch,a\n", "", []),
    ],
)
def test_everything_up_to_the_first_problem_is_read(text, problem, epochs):
    columns, found = parse_history(text)
    assert (found, columns.get("epoch")) == (problem, epochs)


def test_strict_reading_raises_what_the_parser_finds(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_history(path) == {}
    path.write_text("epoch,a\n0,1\n")
    assert read_history(path) == {"epoch": [0], "a": [1]}
    for content, problem in ((b"epoch,a\n0\n", "line 2: 1 cells, the header has 2"), (b"\xff\xfe", "'utf-8' codec")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"metrics\.csv is damaged \({problem}.*: run it again, or remove it"):
            read_history(path)
