"""What divides runs into groups, and what keeps a run from being resumed."""

import pytest

from engrec.runs.settings import differences, is_setting, with_selected

RUN = {
    "stage": "finetune",
    "init_from": "first.ckpt",
    "ckpt_path": None,
    "output_dir": "outputs/a",
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "callbacks": {"best": {"dirpath": "outputs/a", "monitor": "val/auc"}},
    "speed": {"_target_": "engrec.machine.hardware.Speed", "memory_format": "contiguous"},
    "trainer": {"precision": "32-true", "devices": 1},
}


def changed(key, value):
    """The same run with another value of a dotted key, at one or two levels."""
    outer, _, inner = key.partition(".")
    return RUN | {outer: {**RUN[outer], inner: value} if inner else value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("output_dir", "outputs/b"),
        ("ckpt_path", "outputs/a/last.ckpt"),
        ("callbacks.best", {"dirpath": "outputs/b", "monitor": "val/auc"}),
        ("trainer.devices", 2),
        ("trainer.precision", "auto"),
        ("init_from", None),
        ("speed._target_", "engrec.hardware.Speed"),
    ],
)
def test_what_does_not_keep_a_run_from_being_resumed(key, value):
    assert differences(changed(key, value), RUN) == []


def test_a_run_of_an_older_version_is_resumed_although_a_class_has_moved():
    assert differences(RUN, changed("speed._target_", "engrec.hardware.Speed")) == []


def test_a_group_that_older_runs_lack_does_not_keep_them_from_being_resumed_unless_it_chooses_something():
    assert differences(changed("mixup", {}), RUN) == []
    assert differences(changed("mixup", {"alpha": 0.2}), RUN) == ["without mixup"]
    assert differences(RUN, changed("mixup", {"alpha": 0.2})) == ["with mixup={'alpha': 0.2} and not None"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.lr", 0.2, "with optimizer.lr=0.1 and not 0.2"),
        ("optimizer._target_", "torch.optim.Adam", "with optimizer._target_=torch.optim.SGD and not torch.optim.Adam"),
        ("trainer.precision", "bf16-mixed", "with trainer.precision=32-true and not bf16-mixed"),
        ("speed.memory_format", "channels_last", "with speed.memory_format=contiguous and not channels_last"),
        ("seed", 1, "without seed"),
        ("init_from", "second.ckpt", "which started from first.ckpt"),
    ],
)
def test_what_keeps_a_run_from_being_resumed_is_named(key, value, message):
    assert differences(changed(key, value), RUN) == [message]


def test_a_run_from_random_weights_is_no_run_from_a_checkpoint():
    assert differences(RUN, changed("init_from", None)) == ["which started from random weights"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("optimizer.lr", True),
        ("split.num_folds", True),
        ("split.fold", False),
        ("seed", False),
        ("split.seed", True),
        ("speed.compile", False),
        ("speedy", True),
        ("logger.wandb.project", False),
        ("callbacks.best.monitor", False),
        ("callbacks.best.filename", True),
        ("callbacks.progress.refresh_rate", False),
        ("monitor", True),
        ("trainer.devices", True),
    ],
)
def test_what_divides_runs_into_groups(key, expected):
    assert is_setting(key) is expected


def test_values_that_were_chosen_for_each_fold_do_not_divide_its_runs():
    fold0 = {"selected": ["optimizer.lr", "augment"], "optimizer.lr": 0.1, "augment.flip": 0.5, "max_epochs": 6}
    fold1 = fold0 | {"optimizer.lr": 0.2, "augment.flip": 0.0}
    assert with_selected(fold0) == with_selected(fold1)
    assert with_selected(fold0) != with_selected(fold1 | {"max_epochs": 12})
    assert with_selected(fold0)["optimizer.lr"] == "selected"


def test_options_with_other_keys_that_were_chosen_for_each_fold_do_not_divide_its_runs():
    strong = {"selected": ["augment"], "augment._target_": "Augment", "augment.flip": 0.5, "augmented": 1}
    none = {"selected": ["augment"], "augment._target_": "Nothing", "augmented": 1}
    assert with_selected(strong) == with_selected(none)
    assert with_selected(none) == {"selected": ["augment"], "augment": "selected", "augmented": 1}


@pytest.mark.parametrize("none", [{}, {"selected": None}])
def test_without_a_selection_settings_stay(none):
    assert with_selected(none | {"optimizer.lr": 0.1}) == none | {"optimizer.lr": 0.1}
