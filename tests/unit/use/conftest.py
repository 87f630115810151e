"""A network that has learned something, in a second: whether a bar in the noise stands or lies."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engrec.modules.expression import ExpressionModule
from engrec.transforms import standardize, to_float

MODEL = {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.1, "dense": [], "block_dropout": 0.0}
IMAGES = {"channels": 1, "height": 24, "width": 24, "normalize": "image"}


def bars(number, seed=0):
    """Images uint8 (N, 1, 24, 24), labels (N,), and where the bars are, bool (N, 24, 24)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 140, (number, 1, 24, 24)).astype(np.uint8)
    labels, where = np.arange(number) % 2, np.zeros((number, 24, 24), dtype=bool)
    for i in range(number):
        height, width = (9, 3) if labels[i] else (3, 9)
        top, left = rng.integers(1, 23 - height), rng.integers(1, 23 - width)
        where[i, top : top + height, left : left + width] = True
    images[:, 0][where] = 230
    return images, labels, where


def untrained(seed):
    torch.manual_seed(seed)
    return ExpressionModule(MODEL, {}, {}, ["lies", "stands"], IMAGES)


@pytest.fixture(scope="session")
def bar_network():
    """network; images, labels and where of 400 others; content: what its checkpoint holds."""
    network = untrained(0).train()
    images, labels, _ = bars(2048)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for start in range(0, 2048, 64):
        part = slice(start, start + 64)
        logits = network(standardize(to_float(torch.from_numpy(images[part]))))
        loss = F.cross_entropy(logits, torch.from_numpy(labels[part]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    about = {"module": "engrec.modules.expression.ExpressionModule", "task": "expression", "dataset": "bars"}
    content = {"state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams), "epoch": 0, **about}
    images, labels, where = bars(400, seed=1)
    random_weights = untrained(1).eval()
    return SimpleNamespace(
        network=network, random=random_weights, images=images, labels=labels, where=where, content=content
    )
