"""metrics.csv and config.yaml have one parser each, which says what is wrong and takes neither long nor much memory."""

import math

import pytest

from engrec.runs.folder import config_of
from engrec.runs.reading import FileError, parse_history, read_history, read_settings, read_yaml
from engrec.runs.record import read_run


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


DEEP = "is damaged (it is nested more deeply than any run writes)"
HOSTILE = {
    "brackets": ("[" * 60_000, DEEP),
    "closed brackets": ("a: " + "[" * 60_000 + "]" * 60_000, DEEP),
    "braces": ("{a: " * 20_000, DEEP),
    "dashes": ("- " * 60_000, DEEP),
    "questions": ("? " * 60_000, DEEP),
    "indented": ("".join(f"{' ' * depth}a:\n" for depth in range(500)), DEEP),
    "aliases": ("a: &a [x, x]\nb: [*a, *a]\n", "has aliases (*name), which no run writes"),
    "aliases in a flow": ("{a: &a [x], b: *a}", "has aliases (*name), which no run writes"),
    "many aliases": ("\n".join(f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 10)), "has aliases"),
    "tag": ("a: !!python/object/apply:os.system [ls]\n", "is damaged (line 1: a tag, which no run writes)"),
    "known tag": ("a: !!int x\n", "is damaged (line 1: a tag, which no run writes)"),
    "date": ("a: 2020-13-45\n", "is damaged (month must be in 1..12)"),
    "real date": ("a: [2020-12-24]\n", "is damaged (a.0 is a date"),
    "too large for a float": ("a: " + ":".join(400 * ["1"]) + ".5\n", "is damaged ("),
    "sexagesimal": ("a: " + ":".join(10_000 * ["1"]) + "\n", "is damaged ("),
    "many values": ("a: [" + "1, " * 60_000 + "]\n", "is damaged (has more values than any run writes)"),
    "large": ("a: " + "x" * 2**20 + "\n", "has 1 MB, which no run writes"),
    "no mapping": ("- 1\n", "is damaged (it has no settings)"),
    "half of a character": ('a: "\\ud800"\n', "is damaged ("),
    "number as a key": ("a: 2\n1: 3\n", "is damaged (it has the key 1: a key must be text)"),
    "empty key": ("a: [{b: {~: 3}}]\n", "is damaged (a.0.b has the key None: a key must be text)"),
    "control character": ("a: \x00\n", "is damaged ("),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_configuration_is_refused_by_whoever_reads_it(tmp_path, text, said):
    """In the dashboard, for ckpt_path=last, and in a summary."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    (tmp_path / "result.json").write_text('{"stage": "scratch"}')
    for read in (read_yaml, read_settings):
        with pytest.raises(FileError) as error:
            read(path)
        assert str(error.value).startswith(f"config.yaml {said}")
    for read in (config_of, read_run):
        with pytest.raises(ValueError, match="remove") as error:
            read(tmp_path)
        assert str(error.value).startswith(f"{path} {said}")
        assert "\n" not in str(error.value)


def test_a_configuration_may_be_a_link_for_its_own_user_and_is_not_for_others(tmp_path):
    (tmp_path / "kept.yaml").write_text("stage: scratch\n")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "kept.yaml")
    assert config_of(tmp_path) == {"stage": "scratch"}
    with pytest.raises(FileError, match="is a link, which is not followed"):
        read_settings(tmp_path / "config.yaml")
