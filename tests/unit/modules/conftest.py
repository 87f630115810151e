"""Tiny modules on tiny data, trained as a run would."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from engrec.data import DataModule
from engrec.modules.engagement import EngagementModule
from engrec.modules.expression import ExpressionModule
from engrec.splits import Split
from engrec.transforms import Augment

PLAIN = {
    "model": {
        "_target_": "engrec.models.vgg.VGG",
        "image_size": 16,
        "norm": "batch",
        "width": 0.05,
        "dense": [8],
        "block_dropout": 0.1,
    },
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "lr_scheduler": {},
    "preprocessing": {"channels": 1, "height": 16, "width": 16, "normalize": "image"},
}


@pytest.fixture
def engagement():
    def engagement(**settings):
        torch.manual_seed(0)
        counts = {"class_names": ["no", "yes"], "class_counts": [12, 4]}
        return EngagementModule(**{**PLAIN, **counts, **settings})

    return engagement


@pytest.fixture
def expression():
    def expression(**settings):
        torch.manual_seed(0)
        return ExpressionModule(**{**PLAIN, "class_names": ["happy", "sad", "neutral"], **settings})

    return expression


@pytest.fixture
def make_data(make_faces):
    """16 images to train, 7 to validate, 7 to test."""

    def make_data(num_classes=2, batch_size=4, eval_batch_size=512, **fields):
        faces = make_faces(num_images=30, num_classes=num_classes, **fields)
        split = Split(np.arange(16), np.arange(16, 23), np.arange(23, 30))
        return DataModule(faces, split, Augment(), batch_size, seed=0, eval_batch_size=eval_batch_size)

    return make_data


@pytest.fixture
def make_trainer():
    def make_trainer(max_epochs=1, **settings):
        return pl.Trainer(
            accelerator="cpu",
            max_epochs=max_epochs,
            **{"logger": False, "enable_checkpointing": False} | settings,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )

    return make_trainer
