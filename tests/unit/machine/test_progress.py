"""Progress in a terminal and in a log file."""

import io
import sys

import pytest

from engrec.machine import progress
from engrec.machine.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("items", "total", "line"),
    [
        ([1, 2, 3], None, "faces: 1 of 3 files, 00:00 passed, 00:00 left"),
        (iter([1, 2, 3]), 3, "faces: 1 of 3 files, 00:00 passed, 00:00 left"),
        (iter([1, 2, 3]), None, "faces: 1 files, 00:00 passed"),
    ],
)
def test_a_log_file_has_a_line_a_minute(monkeypatch, capsys, items, total, line):
    monkeypatch.setattr(progress, "MINUTE", 0.0)
    assert list(progress_bar(items, "faces", "files", total)) == [1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert line in lines
    assert not any("\r" in one or not one for one in lines)


def test_work_of_less_than_a_minute_writes_nothing(capsys):
    assert list(progress_bar([1, 2, 3], "faces", "files")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_that_disappears(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bar = progress_bar(None, "faces", "files", 3)
    bar.delay = 0
    bar.update(3)
    bar.refresh()
    bar.close()
    assert "faces: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_nothing_is_shown_where_a_bar_is_not_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "MINUTE", 0.0)
    assert list(progress_bar([1, 2, 3], hide=True)) == [1, 2, 3]
    assert terminal.getvalue() == ""
