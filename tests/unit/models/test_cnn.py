import pytest
import torch
from torch import nn

from engrec.models.cnn import CNN


def shapes(model, images, kinds):
    """The output shapes of the layers of these kinds, in the order in which they run."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return seen


def test_layer_shapes_are_those_of_the_paper():
    assert shapes(CNN(), torch.rand(1, 1, 48, 48), (nn.Conv2d, nn.MaxPool2d, nn.Linear)) == [
        (64, 48, 48),
        (64, 24, 24),  # "same" pooling with stride 2: ceil(48 / 2)
        (128, 24, 24),
        (128, 12, 12),
        (1024,),
        (1024,),
    ]


def test_parameters_counted_by_hand():
    with torch.device("meta"):
        count = sum(p.numel() for p in CNN().parameters())
    conv = 5 * 5 * 1 * 64 + 64, 3 * 3 * 64 * 128 + 128  # 1,664 and 73,856
    dense = 12 * 12 * 128 * 1024 + 1024, 1024 * 1024 + 1024  # 18,875,392 and 1,049,600
    assert count == sum(conv) + sum(dense) == 20_000_512


def test_pooling_windows_are_those_of_tensorflow():
    """For 48 pixels TensorFlow pads one pixel behind and none before: windows 0–2, 2–4, …, 46–47."""
    pool = next(m for m in CNN(image_size=8).modules() if isinstance(m, nn.MaxPool2d))
    row = torch.arange(48.0).expand(1, 1, 48, 48)
    assert pool(row)[0, 0, 0].tolist() == [*range(2, 48, 2), 47]
    assert pool(-row)[0, 0, 0].tolist() == [-float(start) for start in range(0, 48, 2)]


def test_dropout_probabilities_are_of_dropping():
    assert [m.p for m in CNN().modules() if isinstance(m, nn.Dropout)] == [0.2, 0.2, 0.3, 0.3]


def test_weights_start_as_he_et_al_say():
    torch.manual_seed(0)
    model = CNN()
    for fan_in, layer in ((25, model.blocks[0]), (576, model.blocks[5]), (18432, model.dense[0])):
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("size", [4, 30, 47, 64])
def test_other_image_sizes_and_channels(size):
    assert CNN(in_channels=3, image_size=size).eval()(torch.rand(1, 3, size, size)).shape == (1, 1024)


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match=r"model\.image_size=0"):
        CNN(image_size=0)
