"""What is wrong with a later choice, or a later fold, of a search is found before its first trial."""

import pytest
from searches import parsed

from engrec.search import checking

OVERRIDES = ["stage=scratch", "split=kfold", "model=vgg_small", "monitor=val/auc"]


def test_folds_need_a_split_that_has_them(tmp_path):
    space = {"optimizer.lr": {"low": 0.01, "high": 0.1}}
    sweep = parsed(tmp_path, search=space, folds=[0, 1]).fixed(["stage=scratch", "model=vgg_small"])
    with pytest.raises(ValueError, match="folds= needs a split that has folds: set split=kfold, or split=loso"):
        checking.check_all(sweep)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": [0, 4]}, None),
        ({"folds": [0, 5]}, "split.fold=5 must be from 0 to 4"),
        (
            {"folds": [0], "search": {"model.width": {"choices": [0.5, "wide"]}}},
            "model.width=wide must be a number above 0",
        ),
    ],
)
def test_every_fold_and_every_choice_is_checked(tmp_path, given, message):
    space = {"optimizer.lr": {"low": 0.01, "high": 0.1}}
    sweep = parsed(tmp_path, **{"search": space, **given}).fixed(OVERRIDES)
    if message is None:
        checking.check_all(sweep)
        return
    with pytest.raises(ValueError, match=message):
        checking.check_all(sweep)
