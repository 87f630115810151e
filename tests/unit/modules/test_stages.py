"""The stages of every backbone in conf/model, and their learning rates."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from engrec.modules.stages import groups_by_stage, stages

CONFIGS = sorted((Path(__file__).parents[3] / "conf" / "model").glob("*.yaml"))


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda path: path.stem)
def backbone(request):
    return instantiate(OmegaConf.load(request.param), _convert_="all")


def test_every_parameter_is_in_one_stage_of_several(backbone):
    parts = stages(backbone)
    found = [id(p) for part in parts for p in part.parameters()]
    assert sorted(found) == sorted(id(p) for p in backbone.parameters())
    assert len(parts) >= 2


def test_stages_come_in_the_order_in_which_an_image_meets_them(backbone):
    met = []
    handles = [part.register_forward_hook(lambda module, *_: met.append(module)) for part in stages(backbone)]
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 1, 48, 48))
    for handle in handles:
        handle.remove()
    assert met == stages(backbone)


def test_each_stage_learns_at_a_share_of_the_next_ones_rate(backbone):
    groups = groups_by_stage(backbone, lr=0.1, decay=0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in backbone.parameters()}
    by_stage = [{rates[id(p)] for p in part.parameters()} for part in stages(backbone)]
    assert by_stage[-1] == {0.1}
    assert all(len(rate) == 1 for rate in by_stage)
    assert all(max(one) == pytest.approx(max(two) / 2) for one, two in pairwise(by_stage))


class Own(nn.Module):
    """A network with a parameter of its own beside its layers."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)))


def test_no_parameter_of_a_foreign_network_is_forgotten():
    for network in (Own(), nn.Sequential(Own(), Own()), nn.Sequential(nn.Linear(2, 2), Own())):
        found = [id(p) for part in stages(network) for p in part.parameters()]
        assert sorted(found) == sorted(id(p) for p in network.parameters())
