from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from engrec.models.lrn import LocalResponseNorm
from engrec.models.vgg import VGG
from engrec.ranges import problems

CONFIGS = Path(__file__).parents[3] / "conf" / "model"


def count(**arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in VGG(**arguments).parameters())


def of_config(name):
    """The network that model=NAME builds, without memory for its weights."""
    with torch.device("meta"):
        return instantiate(OmegaConf.load(CONFIGS / f"{name}.yaml"), _convert_="all")


def layers(model, *without):
    """Its layers in order, as torch prints them."""
    return [str(m) for m in model.modules() if not list(m.children()) and not isinstance(m, without)]


def test_layer_shapes_are_those_of_the_paper():
    model, seen = VGG().eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.Linear | LocalResponseNorm):
            module.register_forward_hook(lambda m, _, out: seen.append((type(m).__name__, *out.shape[1:])))
    with torch.no_grad():
        model(torch.rand(1, 1, 48, 48))
    first = [("Conv2d", 64, 48, 48)] * 2 + [("LocalResponseNorm", 64, 48, 48), ("MaxPool2d", 64, 24, 24)]
    second = [("Conv2d", 128, 24, 24)] * 2 + [("MaxPool2d", 128, 12, 12)]
    third = [("Conv2d", 256, 12, 12)] * 2 + [("MaxPool2d", 256, 6, 6)]
    fourth = [("Conv2d", 512, 6, 6)] * 2 + [("MaxPool2d", 512, 3, 3)]
    assert seen == first + second + third + fourth + [("Linear", 4096), ("Linear", 4096), ("Linear", 1024)]


def test_parameters_counted_by_hand():
    first = 9 * 1 * 64 + 64 + 9 * 64 * 64 + 64  # 640 + 36,928
    second = 9 * 64 * 128 + 128 + 9 * 128 * 128 + 128  # 73,856 + 147,584
    third = 9 * 128 * 256 + 256 + 9 * 256 * 256 + 256  # 295,168 + 590,080
    fourth = 9 * 256 * 512 + 512 + 9 * 512 * 512 + 512  # 1,180,160 + 2,359,808
    dense = 3 * 3 * 512 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1024 + 1024  # 18,878,464 16,781,312 4,195,328
    assert count() == first + second + third + fourth + sum(dense) == 44_539_328


def test_batch_norm_puts_two_numbers_per_unit_in_the_place_of_each_bias():
    units = 2 * (64 + 128 + 256 + 512) + 4096 + 4096 + 1024
    assert count(norm="batch") == 44_539_328 - units + 2 * units


def test_small_configuration_counted_by_hand():
    convs = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)  # 1,170,720
    norms = 2 * 2 * (32 + 64 + 128 + 256)  # 1,920
    assert count(norm="batch", width=0.5, dense=[]) == convs + norms == 1_172_640


def test_norm_says_which_layers_normalise():
    def norms(norm):
        kinds = LocalResponseNorm, nn.BatchNorm1d, nn.BatchNorm2d
        model = VGG(norm=norm, width=0.1, dense=(8, 8))
        return [type(m).__name__ for m in model.modules() if isinstance(m, kinds)]

    assert norms("none") == []
    assert norms("lrn") == ["LocalResponseNorm"]
    assert norms("batch") == ["BatchNorm2d"] * 8 + ["BatchNorm1d"] * 2


def test_without_dense_layers_features_are_the_mean_of_the_last_map():
    model = VGG(norm="none", width=0.1, dense=()).eval()
    images = torch.rand(2, 1, 48, 48)
    torch.testing.assert_close(model(images), model.blocks(images).mean((2, 3)))
    assert model.num_features == 51


def test_dropout_has_its_places():
    model = VGG(width=0.1, dense=(8, 8), block_dropout=0.1, dense_dropout=0.4)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.1] * 4 + [0.4] * 2


@pytest.mark.parametrize("size", [16, 50, 64])
def test_other_image_sizes_and_channels(size):
    model = VGG(in_channels=3, image_size=size, width=0.1, dense=(8,))
    assert model.eval()(torch.rand(1, 3, size, size)).shape == (1, 8)


def test_mistakes_are_named():
    assert list(problems(VGG, {"norm": "layer"}, "model")) == ["model.norm=layer must be one of lrn, batch, none"]
    with pytest.raises(ValueError, match=r"model\.image_size=15 .* at least 16"):
        VGG(image_size=15)


def test_model_vgg_lrn_is_the_published_code():
    assert layers(of_config("vgg_lrn")) == layers(VGG())
    assert sum(p.numel() for p in of_config("vgg_lrn").parameters()) == 44_539_328


def test_model_vgg_has_batch_normalisation_after_every_layer_and_is_the_published_code_otherwise():
    model, published = of_config("vgg"), of_config("vgg_lrn")
    norms = nn.BatchNorm1d, nn.BatchNorm2d
    kinds = [type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | norms[0] | norms[1])]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d] * 8 + [nn.Linear, nn.BatchNorm1d] * 3
    assert not any(isinstance(m, LocalResponseNorm) for m in model.modules())
    plain = [line.replace(", bias=False", "").replace(", bias=True", "") for line in layers(model, *norms)]
    assert plain == [line.replace(", bias=True", "") for line in layers(published, LocalResponseNorm)]


def test_model_vgg_is_the_default(compose):
    assert compose().model == compose("model=vgg").model == OmegaConf.load(CONFIGS / "vgg.yaml")


@pytest.mark.parametrize("name", ["pretrain", "vgg", "engagement"])
def test_the_papers_experiments_use_the_published_code(compose, name):
    assert compose(f"experiment=nezami2019/{name}").model == OmegaConf.load(CONFIGS / "vgg_lrn.yaml")


OLD = {  # the backbone in the hyper-parameters of a checkpoint of model=vgg, from before model=vgg_lrn
    "in_channels": 1,
    "image_size": 48,
    "_target_": "engrec.models.vgg.VGG",
    "norm": "lrn",
    "width": 0.0313,
    "dense": [8],
    "block_dropout": 0.2,
    "dense_dropout": 0.3,
}


@pytest.mark.parametrize("node", [OLD, {key: value for key, value in OLD.items() if key != "norm"}])
def test_the_hyper_parameters_of_an_old_checkpoint_build_its_network(node):
    """Names and shapes as they are in its state dict."""
    channels = [(1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    names = [f"blocks.{block}.{layer}" for block in range(4) for layer in (0, 2)]
    expected = {f"{name}.weight": (out, into, 3, 3) for name, (into, out) in zip(names, channels, strict=True)}
    expected |= {f"{name}.bias": (out,) for name, (_, out) in zip(names, channels, strict=True)}
    expected |= {"dense.0.0.weight": (8, 144), "dense.0.0.bias": (8,)}
    model = instantiate(node, _recursive_=False)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert sum(isinstance(m, LocalResponseNorm) for m in model.modules()) == 1
