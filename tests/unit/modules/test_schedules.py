"""The learning rate at every step, against the formula."""

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from engrec.modules.schedules import cosine

CONF = Path(__file__).parents[3] / "conf" / "lr_scheduler"
NEVER_BETTER = {  # the learning rate halves after every epoch but the first
    "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "factor": 0.5,
    "patience": 0,
    "threshold": 1e9,
    "threshold_mode": "abs",
}


def optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)


def rates(scheduler, num_steps):
    seen = []
    for _ in range(num_steps):
        seen.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return [*seen, scheduler.get_last_lr()[0]]


def test_paper_takes_a_fifth_off_in_500_steps_and_smoothly():
    seen = rates(instantiate(OmegaConf.load(CONF / "paper.yaml"), optimizer()), 1600)
    assert seen == pytest.approx([0.01 * 0.8 ** (step / 500) for step in range(1601)], rel=1e-5)


def test_cosine_rises_and_falls():
    node = OmegaConf.load(CONF / "cosine.yaml")
    assert (node.warmup, node.final) == (0.2, 0.0)
    seen = rates(instantiate(node, optimizer(), total_steps=100), 100)
    up = [0.01 * (step + 1) / 20 for step in range(20)]
    down = [0.01 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2 for step in range(20, 101)]
    assert seen == pytest.approx(up + down)
    assert seen[0] == pytest.approx(0.0005)
    assert max(seen) == seen[19] == seen[20] == 0.01
    assert seen[100] == pytest.approx(0, abs=1e-12)


def test_cosine_ends_at_its_share_and_stays_there():
    seen = rates(cosine(optimizer(), total_steps=10, warmup=0.3, final=0.1), 15)
    assert seen[10:] == pytest.approx([0.001] * 6)
    assert seen[2:10] == sorted(seen[2:10], reverse=True)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 1.0])
def test_cosine_of_very_short_trainings_is_defined(total_steps, warmup):
    assert all(0 <= rate <= 0.01 for rate in rates(cosine(optimizer(), total_steps, warmup), total_steps))


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_a_training_knows_its_own_length(engagement, make_data, make_trainer):
    """3 epochs of 4 steps: the schedule is stepped after every batch and reaches its end with the last."""
    seen = Rates()
    node = {"_target_": "engrec.modules.schedules.cosine", "warmup": 0.25, "final": 0.0}
    trainer = make_trainer(3, callbacks=[seen])
    trainer.fit(engagement(lr_scheduler=node, backbone_lr_factor=0.3), make_data())
    up = [(step + 1) / 3 for step in range(3)]
    factors = [*up, *((1 + math.cos(math.pi * step / 9)) / 2 for step in range(9))]
    for lrs, factor in zip(seen.seen, factors, strict=True):
        assert sorted(set(lrs)) == pytest.approx([0.03 * factor, 0.1 * factor])
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_without_a_schedule_the_rate_stays(engagement, make_data, make_trainer):
    seen = Rates()
    make_trainer(2, callbacks=[seen]).fit(engagement(), make_data())
    assert {lr for lrs in seen.seen for lr in lrs} == {0.1}


def test_a_plateau_schedule_steps_once_per_epoch_and_before_the_checkpoint(
    engagement, make_data, make_trainer, tmp_path
):
    seen = Rates()
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = make_trainer(3, callbacks=[seen, saving], enable_checkpointing=True)
    trainer.fit(engagement(lr_scheduler=NEVER_BETTER, monitor="val/loss"), make_data())
    assert [lrs[0] for lrs in seen.seen[::4]] == pytest.approx([0.1, 0.1, 0.05])
    for epoch in range(3):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert saved["lr_schedulers"][0]["last_epoch"] == epoch + 1
        assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.5**epoch)
