"""The losses of three training steps, held to what they were; only a change that means to may move them.

After such a change: python tests/unit/modules/test_golden.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl

from engrec.data import DataModule
from engrec.datasets.prepared import Faces
from engrec.modules.engagement import EngagementModule
from engrec.modules.expression import ExpressionModule
from engrec.splits import Split
from engrec.transforms import Augment

GOLDEN = Path(__file__).parents[2] / "golden" / "losses.json"
NETWORK = {"_target_": "engrec.models.vgg.VGG", "image_size": 16, "width": 0.1, "dense": [16]}
PARTS = {
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    "lr_scheduler": {"_target_": "engrec.modules.schedules.cosine", "warmup": 0.4},
    "class_names": ["a", "b"],
    "preprocessing": {"channels": 1, "height": 16, "width": 16, "normalize": "image"},
}
MODULES = {
    "expression": lambda: ExpressionModule(model=NETWORK | {"norm": "batch"}, label_smoothing=0.1, **PARTS),
    "engagement": lambda: EngagementModule(
        model=NETWORK | {"norm": "lrn"},
        class_weights="balanced",
        class_counts=[16, 8],
        backbone_lr_factor=0.3,
        **PARTS,
    ),
}
STRONG = Augment(0.5, 2, 16, 0.15, 0.08, 0.2, 0.3, 0.3, 0.25)


class Losses(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.seen.append(outputs["loss"].item())


def losses(name):
    """One epoch of three batches of eight, CPU, float32."""
    rng, number = np.random.default_rng(0), np.arange(32)
    faces = Faces(
        images=rng.integers(0, 256, (32, 1, 16, 16), np.uint8),
        labels=(number % 3 == 0).astype(np.int64),
        class_names=("a", "b"),
        sources=number.astype(str),
        recipe={"name": "golden"},
    )
    data = DataModule(faces, Split(number[:24], number[24:], number[24:]), STRONG, batch_size=8, seed=0)
    pl.seed_everything(0, verbose=False)
    seen = Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[seen],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(MODULES[name](), data)
    return seen.seen


@pytest.mark.parametrize("name", MODULES)
def test_the_first_losses_are_what_they_were(name):
    assert losses(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-5)


def test_the_golden_losses_are_of_three_steps_that_differ():
    for seen in json.loads(GOLDEN.read_text()).values():
        assert len(set(seen)) == 3


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: losses(name) for name in MODULES}, indent=2) + "\n")
