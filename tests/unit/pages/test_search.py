"""The page at the end of a search."""

import json

import pytest
from searches import Made, parsed, searched, two_objectives

from engrec.pages import search
from engrec.search import outcome

KINDS = ("History", "Importances", "Parallel coordinates")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A search with two objectives that are at odds, and its folder."""
    folder = tmp_path_factory.mktemp("search")
    return two_objectives(folder), folder


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


def titles(searching, sweep):
    return [title for title, _ in search.figures(searching.study, sweep, outcome.importances(searching.study, sweep))]


def test_the_figures_of_two_objectives(of_two):
    searching, _ = of_two
    each = [f"{kind}: {metric}" for metric in ("val/auc", "num_parameters") for kind in KINDS]
    assert titles(searching, searching.sweep) == ["Trade-off (best trials in red)", *each]


def test_the_figures_of_one_objective_show_its_epochs_too(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), n_trials=12)
    assert titles(searching, searching.sweep) == [*(f"{kind}: val/auc" for kind in KINDS), "Epochs"]


def test_few_trials_have_no_importances_and_the_page_says_so(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), n_trials=3)
    search.write_summary(searching.sweep, searching.study, tmp_path, "the command")
    page = (tmp_path / "summary.html").read_text()
    assert "importances need 10 complete trials, found 3." in page


def test_importances_in_the_figure_are_those_of_the_text(of_two):
    """Of an objective to be maximised too, which a target of Optuna's takes for one to be minimised."""
    searching, _ = of_two
    shares = outcome.importances(searching.study, searching.sweep)
    drawn = dict(search.figures(searching.study, searching.sweep, shares))
    for metric, of_keys in shares.items():
        [bars] = drawn[f"Importances: {metric}"].data
        assert dict(zip(bars.y, bars.x, strict=True)) == pytest.approx(of_keys)
