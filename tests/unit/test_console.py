"""What a run says of itself before it starts and when it is over."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engrec.console import (
    describe_calibration,
    describe_split,
    resume_command,
    warn_of_other_devices,
    warn_of_start,
)
from engrec.data import DataModule
from engrec.plan import Backbone, plan
from engrec.splits import Everyone, Split


@pytest.fixture
def data(make_faces):
    """Eight people; only the fourth, in sorted order, is tested."""
    split = Split(np.arange(12, 24), np.arange(9), np.arange(9, 12))
    return DataModule(make_faces(), split, lambda images: images, 4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["split=official"], "official, the data set's own"),
        (["split=holdout"], "holdout, by subject"),
        (["split=kfold", "split.fold=2", "split.num_folds=4"], "kfold, fold 2 of 4, by subject"),
        (["split=loso", "split.fold=3"], "loso, fold 3 of 8: subject s03 is tested"),
        (["split=random"], "random, by image"),
    ],
)
def test_the_split_is_said_in_words(compose, data, overrides, said):
    assert describe_split(plan(compose("stage=scratch", "output_dir=outputs/none", *overrides)), data) == said


def test_a_split_of_everyone_is_said_in_words(compose, data):
    data.split = Everyone()(data.faces.labels, data.faces.subjects, None)
    planned = plan(compose("stage=scratch", "output_dir=outputs/none", "split=everyone"))
    assert describe_split(planned, data) == "everyone: all images are in train, validation and test"


@pytest.mark.parametrize("split", ["official", "holdout", "kfold", "loso", "random", "everyone"])
def test_only_a_split_that_puts_people_into_several_parts_leaks(compose, split):
    cfg = compose("stage=scratch", "output_dir=outputs/none", f"split={split}", *["split.fold=0"] * (split == "loso"))
    assert plan(cfg).leaks == (split in ("random", "everyone"))


@pytest.mark.parametrize(
    ("module", "class_names", "warned"),
    [
        ("engrec.modules.engagement.EngagementModule", ["class0", "class1"], True),
        ("engrec.modules.engagement.EngagementModule", ["low", "middle", "high"], True),
        ("engrec.modules.expression.ExpressionModule", ["class0", "class1"], False),
    ],
)
def test_a_backbone_that_has_seen_these_classes_is_warned_of(
    compose, data, caplog, tmp_path, module, class_names, warned
):
    hyper_parameters = {
        "model": {"_target_": "engrec.models.vgg.VGG"},
        "class_names": class_names,
        "preprocessing": {"channels": 1, "height": 48, "width": 48, "normalize": "image"},
    }
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": hyper_parameters, "module": module}, path)
    with caplog.at_level(logging.WARNING):
        planned = plan(compose("stage=finetune", f"init_from={path}", "output_dir=outputs/none"))
        assert isinstance(planned.start, Backbone)
        warn_of_start(planned, data)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    assert all(message.startswith(f"{path} was already trained on") and "\n" not in message for message in messages)
    assert all(("these classes" in message) == (class_names == ["class0", "class1"]) for message in messages)


@pytest.mark.parametrize(("before", "now", "warned"), [({}, 2, 0), ({"devices": 2}, 2, 0), ({"devices": 2}, 1, 1)])
def test_another_number_of_devices_is_warned_of(compose, caplog, before, now, warned):
    resumed = replace(plan(compose("stage=scratch", "output_dir=outputs/none")), before={"trainer": before})
    warn_of_other_devices(resumed, SimpleNamespace(num_devices=now))
    messages = [record.getMessage() for record in caplog.records]
    assert ["set trainer.devices=2" in message for message in messages] == [True] * warned


@pytest.mark.parametrize(
    ("temperature", "before", "after", "said"),
    [
        (1.8342, 0.1431, 0.0612, "temperature 1.83 lowers ECE from 0.143 to 0.061"),
        (0.7, 0.05, 0.0713, "temperature 0.70 raises ECE from 0.050 to 0.071"),
        (1.0, 0.05, 0.05, "temperature 1.00 leaves ECE at 0.050"),
    ],
)
def test_calibration_is_said_for_better_or_worse(temperature, before, after, said):
    values = {"temperature": temperature, "test/ece": before, "test/ece_calibrated": after}
    assert describe_calibration(values) == said


def test_the_command_that_resumes_names_the_folder_once(compose):
    planned = plan(compose("stage=scratch", "seed=3", "output_dir=outputs/my run"))
    assert (
        resume_command(planned) == "python train.py stage=scratch seed=3 \"output_dir='outputs/my run'\" ckpt_path=last"
    )
