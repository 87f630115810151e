"""The page at the end of a search."""

import json
import math

import pytest
from searches import Made, parsed, result, searched

from engrec.pages import search
from engrec.search import outcome


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A search with two objectives that are at odds."""
    folder = tmp_path_factory.mktemp("search")
    sweep = parsed(folder, objectives=[{"metric": "val/auc"}, {"metric": "num_parameters"}])

    def run(overrides, name):
        x = float(overrides["x"])
        return Made(name, [], result=result(math.sin(5 * x), num_parameters=1000 * abs(x - 0.1)))

    return searched(folder, sweep, run, n_trials=20), folder


def test_the_files_hold_every_trial_and_nothing_of_the_test(of_two):
    searching, folder = of_two
    state = json.loads((folder / "sweep.json").read_text())
    assert [trial["number"] for trial in state["trials"]] == list(range(20))
    assert set(state["trials"][0]) >= {"number", "state", "values", "params", "folder", "seconds"}
    text, paths = search.write_summary(searching.sweep, searching.study, folder, "the command")
    page = paths[1].read_text()
    assert "test/auc" not in text + page + (folder / "trials.csv").read_text() + (folder / "sweep.json").read_text()
    assert "<script src" not in page
    assert page.count("<tr><td>") == 20
    for trial in outcome.chosen(searching.study):
        assert outcome.best_command(searching.sweep, trial) in text


def test_a_summary_of_nothing_says_so(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], 1), n_trials=2)
    text, _ = search.write_summary(searching.sweep, searching.study, tmp_path, "the command")
    assert "2 failed." in text
    assert "No trial has been completed." in text
