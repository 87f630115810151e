"""What conf/stage chooses, and what stays the user's choice."""

import pytest
from omegaconf import OmegaConf

from engrec.errors import CONF


def of(name):
    return OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")


def test_expressions_are_learned_with_a_learning_rate_of_their_own(compose):
    """In nothing but the learning rate it is the SGD of the other stages."""
    chosen, other = compose("stage=pretrain").optimizer, compose("stage=scratch").optimizer
    assert other == of("sgd")
    assert chosen.lr == of("sgd_pretrain").lr != other.lr
    assert OmegaConf.merge(chosen, {"lr": other.lr}) == other


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizer_that_the_user_chooses_keeps_its_learning_rate(compose, name):
    assert compose("stage=pretrain", f"optimizer={name}").optimizer == of(name)


@pytest.mark.parametrize("name", ["fer2013", "fer2013_short", "nezami2019/pretrain"])
def test_an_experiment_keeps_its_own_schedule(compose, name):
    cfg, written = compose(f"experiment={name}"), OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    assert cfg.stage == "pretrain"
    assert cfg.max_epochs == written.max_epochs
    assert {key: cfg.optimizer[key] for key in written.optimizer} == dict(written.optimizer)
    assert set(cfg.optimizer) == set(of("sgd"))
