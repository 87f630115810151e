"""What is left of a search: the best, what matters, and the files."""

import optuna
import pytest
from searches import Launcher, Made, good, parsed, searched, two_objectives

from engrec.search import outcome


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A search with two objectives that are at odds, and its folder."""
    folder = tmp_path_factory.mktemp("search")
    return two_objectives(folder), folder


def test_the_front_is_what_no_trial_beats_in_all(of_two):
    searching, _ = of_two
    points = {trial.number: (trial.values[0], -trial.values[1]) for trial in searching.trials()}
    front = {
        n for n, p in points.items()
        if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points.values())
    }  # fmt: skip
    assert {trial.number for trial in outcome.chosen(searching.study)} == front


def test_importances_are_those_of_good_trials(tmp_path, of_two):
    """Optuna's own of a study with one objective, whichever way it goes."""
    for metric, sign in (("val/auc", 1), ("val/loss", -1)):
        sweep = parsed(tmp_path, objectives=[{"metric": metric}])

        def run(overrides, folder, metric=metric, sign=sign):
            value = sign * (float(overrides["x"]) ** 3 + (overrides["kind"] == "a"))
            return Made(folder, [], result={"validation": {metric: value}})

        searching = searched(tmp_path / metric, sweep, run, n_trials=25)
        reference = optuna.importance.get_param_importances(searching.study)
        assert outcome.importances(searching.study, sweep)[metric] == pytest.approx(reference)
    assert set(outcome.importances(of_two[0].study, of_two[0].sweep)) == {"val/auc", "num_parameters"}
    few = searched(tmp_path / "few", parsed(tmp_path), n_trials=3)
    with pytest.raises(ValueError, match="importances need 10 complete trials, found 3"):
        outcome.importances(few.study, few.sweep)


def test_the_best_trials_command_trains_as_it_did(tmp_path):
    launcher = Launcher(good)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=6)
    [best] = outcome.chosen(searching.study)
    assert best.values[0] == max(trial.values[0] for trial in searching.trials())
    command = outcome.best_command(searching.sweep, best)
    assert command.startswith("python train.py stage=scratch x=")
    words = dict(word.split("=", 1) for word in command.split()[2:])
    started = launcher.started[best.number]
    assert words == {key: value for key, value in started.items() if key not in ("output_dir", "ckpt_path")}


def test_the_best_trials_command_trains_on_each_of_its_folds(tmp_path):
    """And without Hydra's multirun it would train on the first alone."""
    searching = searched(tmp_path, parsed(tmp_path, folds=[2, 0]), n_trials=1)
    command = outcome.best_command(searching.sweep, outcome.chosen(searching.study)[0])
    assert command.startswith("python train.py -m stage=scratch x=")
    assert command.endswith(" split.fold=2,0")
