import pytest
import torch
from torch import nn

from engrec.models.lrn import LocalResponseNorm
from engrec.models.vgg import VGG


def count(**arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in VGG(**arguments).parameters())


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
    with pytest.raises(
        ValueError, match=r"model\.norm=layer is not known; allowed: lrn, batch, none \(type model\.norm"
    ):
        VGG(norm="layer")
    with pytest.raises(ValueError, match=r"model\.image_size=15 .* at least 16"):
        VGG(image_size=15)
