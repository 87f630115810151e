"""What maps and deletion scores promise: they mark what the network uses, and a random network marks something else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from engrec.errors import CONF
from engrec.modules.build import fitted
from engrec.modules.expression import ExpressionModule
from engrec.transforms import standardize, to_float
from engrec.use import explain
from engrec.use.explain import blurred, deletion, layer_cam, map_layer, probabilities, summarized

IMAGES = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
SMALLER = {"width": 0.1, "widths": [8, 16, 24], "dense": [32, 16]}


def answers(network, images):
    p = probabilities(network, images, 1.0)
    return p, p.argmax(1)


@pytest.fixture(scope="module")
def explained(bar_network):
    """Layer, size of its maps, answers and maps of 100 images."""
    images = bar_network.images[:100]
    layer, size = map_layer(bar_network.network, images[:1])
    _, classes = answers(bar_network.network, images)
    maps = layer_cam(bar_network.network, images, classes, layer)
    return SimpleNamespace(layer=layer, size=size, images=images, classes=classes, maps=maps)


def test_the_maps_mark_what_the_network_has_learned_to_use(bar_network, explained):
    assert (answers(bar_network.network, bar_network.images)[1] == bar_network.labels).mean() > 0.95
    where = bar_network.where[:100]
    inside = np.array([one[bar].mean() for one, bar in zip(explained.maps, where, strict=True)])
    outside = np.array([one[~bar].mean() for one, bar in zip(explained.maps, where, strict=True)])
    assert (inside > 2 * outside).mean() > 0.9


def test_a_network_with_random_weights_gives_other_maps(bar_network, explained):
    others = layer_cam(bar_network.random, explained.images, explained.classes, explained.layer)
    pairs = zip(explained.maps, others, strict=True)
    alike = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs if other.any()]
    assert len(alike) > 50
    assert np.mean(alike) < 0.5


def test_the_other_class_has_another_map(bar_network, explained):
    others = layer_cam(bar_network.network, explained.images, 1 - explained.classes, explained.layer)
    assert np.abs(others - explained.maps).mean() > 0.05


def test_the_answer_falls_more_where_the_map_points_than_at_random(bar_network, explained):
    rng = np.random.default_rng(0)
    given = (bar_network.network, explained.images, explained.layer, explained.size, 1.0)
    falls = deletion(*given, rng)
    assert falls.shape == (100, 2, 3)
    for one in summarized(falls, np.arange(100)):
        assert one.falls["map"] > one.falls["other"]
        assert one.better == pytest.approx(one.falls["map"] - one.falls["random"])
        assert 0 < one.low < one.better < one.high


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_network_has_maps_of_half_the_side(name):
    node = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    model = fitted(node | {key: value for key, value in SMALLER.items() if node.get(key)}, IMAGES)
    torch.manual_seed(0)
    network = ExpressionModule(model, {}, {}, ["a", "b", "c"], IMAGES).eval()
    network.backbone.requires_grad_(False)  # as stage=finetune may have frozen it
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 48, 48), np.uint8)
    before, classes = answers(network, images)
    layer, size = map_layer(network, images[:1])
    assert size == (24, 24)
    assert isinstance(network.backbone.get_submodule(layer), nn.ReLU)
    maps = layer_cam(network, images, classes, layer)
    assert maps.shape == (3, 48, 48)
    assert maps.min() >= 0
    assert maps.max(axis=(1, 2)) == pytest.approx(np.ones(3))
    assert (answers(network, images)[0] == before).all()  # no hook is left


class Pooled(nn.Module):
    """Maps, their means, a linear head: the gradient at each place of a map is a weight over the number of places."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.backbone(images))


def test_a_map_is_the_formula():
    torch.manual_seed(0)
    network, images = Pooled().eval(), np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), np.uint8)
    with torch.no_grad():
        maps = network.backbone[:2](standardize(to_float(torch.from_numpy(images))))
        weights = network.head.weight[[0, 1]].relu()
        expected = torch.einsum("bc,bchw->bhw", weights, maps)
    expected = (expected / expected.amax((1, 2), keepdim=True)).numpy()
    assert layer_cam(network, images, np.array([0, 1]), "1") == pytest.approx(expected, abs=1e-5)


def test_a_network_without_maps_is_refused_in_one_line():
    network = Pooled()
    network.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ValueError, match="Sequential has no convolutional maps, so LayerCAM has nothing to show"):
        map_layer(network, np.zeros((1, 1, 8, 8), np.uint8))


def test_exactly_the_share_of_pixels_that_a_map_places_first_is_blurred():
    rng = np.random.default_rng(0)
    images, maps = rng.integers(0, 256, (3, 2, 10, 10), np.uint8), rng.random((3, 10, 10))
    changed = (blurred(images, maps, 0.3) != images).all(axis=1)
    assert changed.sum(axis=(1, 2)).tolist() == [30, 30, 30]
    for one, which in zip(maps, changed, strict=True):
        assert one[which].min() > one[~which].max()


def test_people_are_drawn_and_not_their_images():
    falls = np.zeros((40, 2, 3))
    falls[:, :, 0] = np.repeat([0.1, 0.5], 20)[:, None]
    few = summarized(falls, np.repeat(["one", "other"], 20))
    many = summarized(falls, np.arange(40))
    assert few[0].better == many[0].better == pytest.approx(0.3)
    assert few[0].high - few[0].low > 2 * (many[0].high - many[0].low)
    alone = summarized(falls, np.zeros(40))
    assert np.isnan([alone[0].low, alone[0].high]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"per_kind": 0}, "--per-row 0 must be from 1 to 50"),
        ({"num_images": 1}, "--images 1 must be at least 2"),
        ({"seed": -1}, "--seed -1 must be 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        explain.explain(None, **given)
