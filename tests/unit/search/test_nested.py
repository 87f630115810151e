"""Nested selection: which runs there are, and what decides."""

import json

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException

from engrec.config import composed
from engrec.errors import explain
from engrec.search import nested

GIVEN = ["stage=scratch", "split=kfold", "split.num_folds=4", "split.seed=3"]
GRID = ["optimizer.lr=0.01,0.02", "max_epochs=1,2"]


@pytest.fixture(autouse=True)
def hydra():
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def selection(tmp_path):
    return nested.read([*GIVEN, *GRID], 2, [0, 5], tmp_path)


def finish(runs, **metrics):
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "result.json").write_text(json.dumps({"metrics": metrics}))


def test_every_combination_is_a_candidate(selection):
    assert [" ".join(candidate) for candidate in selection.candidates] == [
        "optimizer.lr=0.01 max_epochs=1",
        "optimizer.lr=0.01 max_epochs=2",
        "optimizer.lr=0.02 max_epochs=1",
        "optimizer.lr=0.02 max_epochs=2",
    ]
    assert len(selection.all_inner_runs()) == 4 * 4 * 2 * 2
    assert len({run.folder for run in selection.all_inner_runs()}) == 64


def test_inner_runs_are_inside_the_outer_fold_and_outer_runs_are_the_folds(selection):
    candidate = selection.candidates[1]
    for run in selection.inner_runs(2, candidate):
        cfg = composed(run.overrides)
        expected = {"outer": 2, "num_outer": 4, "fold": run.fold, "num_folds": 2, "seed": 3, "val_fraction": 0.15}
        assert cfg.split == {"_target_": "engrec.splits.Nested", **expected}
        assert (cfg.seed, cfg.optimizer.lr, cfg.max_epochs, cfg.selected) == (run.seed, 0.01, 2, None)
    for run in selection.outer_runs(2, candidate):
        cfg = composed(run.overrides)
        expected = {"fold": 2, "num_folds": 4, "seed": 3, "val_fraction": 0.15, "train_people": None}
        assert cfg.split == {"_target_": "engrec.splits.KFold", **expected}
        assert (cfg.seed, cfg.optimizer.lr, cfg.max_epochs) == (run.seed, 0.01, 2)
        assert cfg.selected == ["optimizer.lr", "max_epochs"]


def test_fewer_seeds_may_decide_than_are_reported(tmp_path):
    selection = nested.read([*GIVEN, *GRID], 2, [0, 5, 7], tmp_path, [5])
    candidate = selection.candidates[0]
    assert [(run.seed, run.fold) for run in selection.inner_runs(0, candidate)] == [(5, 0), (5, 1)]
    assert [run.seed for run in selection.outer_runs(0, candidate)] == [0, 5, 7]


def test_an_experiment_may_choose_the_outer_split(tmp_path):
    given = ["experiment=wacv2016", "stage=scratch", "optimizer.lr=0.01,0.02"]
    selection = nested.read(given, 2, [0], tmp_path)
    assert selection.num_outer == 5
    [run, _] = selection.inner_runs(1, selection.candidates[0])
    assert composed(run.overrides).split._target_ == "engrec.splits.Nested"


def test_leave_one_subject_out_may_be_the_outer_split(tmp_path):
    few = ["dataset.num_train=70", "dataset.num_val=14", "dataset.num_test=28", "dataset.images_per_subject=14"]
    selection = nested.read(["stage=scratch", "split=loso", *few, "optimizer.lr=0.01,0.02"], 2, [0], tmp_path)
    assert selection.num_outer == 8
    [run, _] = selection.inner_runs(7, selection.candidates[0])
    assert composed(run.overrides).split.num_outer is None


def test_the_best_mean_over_inner_runs_is_chosen_and_nothing_else_is_read(selection):
    for fold in range(4):
        for number, candidate in enumerate(selection.candidates):
            inner = selection.inner_runs(fold, candidate)
            finish(inner, **{"test/auc": 0.5 + 0.1 * (number == fold)})
            finish(inner[:1], **{"test/auc": 0.6})
            # Were results of outer folds read, another candidate would be chosen.
            finish(selection.outer_runs(fold, candidate), **{"test/auc": 1.0 - number})
    for fold in range(4):
        choice = selection.choose(fold)
        assert tuple(choice["chosen"]) == selection.candidates[fold]
        means = [round(one["mean"], 6) for one in choice["candidates"]]
        assert means == [0.6 if number == fold else 0.525 for number in range(4)]


def test_of_equal_candidates_the_first_is_chosen_and_of_losses_the_lowest(selection, tmp_path):
    for number, candidate in enumerate(selection.candidates):
        finish(selection.inner_runs(0, candidate), **{"test/auc": 0.5, "test/loss": 1.0 - 0.1 * number})
    assert tuple(selection.choose(0)["chosen"]) == selection.candidates[0]
    of_loss = nested.read([*GIVEN, *GRID, "monitor=val/loss"], 2, [0, 5], tmp_path)
    assert tuple(of_loss.choose(0)["chosen"]) == selection.candidates[3]


def test_a_candidate_with_a_run_that_diverged_is_not_chosen(selection):
    first, *others = selection.candidates
    for candidate in others:
        finish(selection.inner_runs(0, candidate), **{"test/auc": 0.4})
    diverged = selection.inner_runs(0, first)[1:2]
    choice = selection.choose(0, diverged)
    assert tuple(choice["chosen"]) == others[0]
    assert [one["mean"] for one in choice["candidates"]] == [None, 0.4, 0.4, 0.4]
    with pytest.raises(ValueError, match=r"every training diverged for fold 0: give optimizer\.lr smaller values"):
        selection.choose(0, [selection.inner_runs(0, candidate)[0] for candidate in selection.candidates])


def test_a_score_that_is_undefined_is_said(selection):
    for candidate in selection.candidates:
        finish(selection.inner_runs(0, candidate), **{"test/auc": None})
    with pytest.raises(ValueError, match=r"seed0-inner0 has no test/auc: set fewer folds with --inner"):
        selection.choose(0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lr=0.01"], "nothing to choose: give a key several values"),
        ([*GRID, "seed=1"], "seed=1 is decided for each run: set --seeds"),
        ([*GRID, "output_dir=x"], "output_dir=x is decided for each run: set --out"),
        (["dataset=er,wacv2016"], "dataset cannot be chosen by fold"),
        (["split.seed=0,1"], "split.seed cannot be chosen by fold"),
        (["model=vgg,cnn"], "model cannot be chosen by fold"),
        ([*GRID, "split=official"], "set split=kfold or split=loso"),
        ([*GRID, "split=kfold", "split.train_people=3"], "has no split.train_people, found 3: leave it out"),
        (["monitor=val/loss", "module.class_weights=null,balanced"], "val/loss cannot choose module.class_weights"),
        (["monitor=val/loss", "balance=null,subject"], "val/loss cannot choose balance"),
        (["optimizer.lr=0.1,0.2,0.1"], "optimizer.lr=0.1,0.2,0.1 has a value twice"),
    ],
)
def test_what_cannot_be_part_of_a_selection(tmp_path, overrides, said):
    with pytest.raises(ValueError, match=r"\S") as error:
        nested.read([*GIVEN[:2], *overrides], 2, [0], tmp_path)
    assert said in str(error.value)


FEW = ["dataset.num_train=60", "dataset.num_val=60", "dataset.num_test=60"]


@pytest.mark.parametrize(
    ("overrides", "inner", "said"),
    [
        (["augment=none,pape"], 2, "augment=pape must be one of"),
        (["batch_size=8,0"], 2, "batch_size=0 must be at least 1"),
        (
            ["optimizer.lr=0.1,0.2"],
            40,
            "num_folds=40 for 6 subjects must be from 2 to 6 (inner folds of fold 0): set --inner",
        ),
        (["optimizer.lr=0.1,0.2"], 1, "--inner 1 must be at least 2"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_the_first(tmp_path, overrides, inner, said):
    with pytest.raises((ValueError, HydraException)) as error:
        nested.check(nested.read([*GIVEN, *FEW, *overrides], inner, [0], tmp_path))
    assert said in explain(error.value)
    nested.check(nested.read([*GIVEN, *FEW, "optimizer.lr=0.1,0.2"], 2, [0], tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_choices_are_written(selection, tmp_path):
    for candidate in selection.candidates:
        finish(selection.inner_runs(0, candidate), **{"test/auc": 0.5})
    choice = selection.choose(0)
    assert json.loads(nested.write([choice], tmp_path / "new").read_text()) == [choice]
