"""What conf/stage chooses, and what stays the user's choice."""

import pytest
from omegaconf import OmegaConf

from engrec.errors import CONF


def of(name):
    return OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_stage_has_a_learning_rate_of_its_own(compose, stage):
    """In nothing but the learning rate it is the SGD of the other stages."""
    chosen, other = compose(f"stage={stage}").optimizer, compose("stage=scratch").optimizer
    assert other == of("sgd")
    assert chosen.lr == of(f"sgd_{stage}").lr != other.lr
    assert OmegaConf.merge(chosen, {"lr": other.lr}) == other


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "others",
    [[f"stage={stage}"] for stage in ("pretrain", "finetune", "scratch")]
    + [[f"experiment={name}"] for name in ("fer2013", "fer2013_short", "wacv2016", "wacv2016_short", "daisee")],
    ids="".join,
)
def test_an_optimizer_that_the_user_chooses_keeps_its_learning_rate(compose, others, name):
    assert compose(*others, f"optimizer={name}").optimizer == of(name)


@pytest.mark.parametrize(
    ("name", "stage", "lr"),
    [
        ("fer2013", "pretrain", 0.1),
        ("fer2013_short", "pretrain", 0.1),
        ("nezami2019/pretrain", "pretrain", 0.02),
        ("wacv2016", "finetune", 0.02),
        ("wacv2016", "scratch", 0.02),
        ("wacv2016_short", "finetune", 0.02),
        ("engagenet", "finetune", 0.02),
    ],
)
def test_an_experiment_keeps_its_own_schedule(compose, name, stage, lr):
    written = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    cfg = compose(f"experiment={name}", *[f"stage={stage}"] * (stage != "pretrain"))
    assert (cfg.stage, cfg.max_epochs, cfg.optimizer.lr) == (stage, written.max_epochs, lr)
    assert set(cfg.optimizer) == set(of("sgd"))
