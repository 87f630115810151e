import pytest
import torch

from engrec.models.resnet_small import ResNetSmall
from engrec.ranges import problems


def shapes(model, images):
    seen = []
    hooks = [m.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:]))) for m in model.stages]
    with torch.no_grad():
        features = model.eval()(images)
    for hook in hooks:
        hook.remove()
    return features.shape, seen


@pytest.mark.parametrize("side", [32, 40, 48, 96])
def test_stages_are_at_a_half_a_quarter_and_an_eighth_of_the_side(side):
    features, seen = shapes(ResNetSmall(), torch.rand(2, 1, side, side))
    assert features == (2, 320)
    assert seen == [(80, side // 2, side // 2), (160, side // 4, side // 4), (320, side // 8, side // 8)]


def test_sides_that_are_only_even_and_channels_are_free():
    assert ResNetSmall(in_channels=3).eval()(torch.rand(2, 3, 34, 46)).shape == (2, 320)


def count(*widths):
    with torch.device("meta"):
        return sum(p.numel() for p in ResNetSmall(widths=widths).parameters())


def test_parameters_counted_by_hand():
    """Convolutions have no bias; each is followed by a BatchNorm with two numbers per channel."""
    stem = 9 * 4 * 64 + 128
    one = 3 * (9 * 64 * 64 + 128)
    two = 9 * 64 * 128 + 256 + 2 * (9 * 128 * 128 + 256)
    three = 9 * 128 * 256 + 512 + 2 * (9 * 256 * 256 + 512)
    assert count(64, 128, 256) == stem + one + two + three == 1_958_912


@pytest.mark.parametrize(("widths", "millions"), [((64, 128, 256), 2.0), ((80, 160, 320), 3.1), ((128, 256, 512), 7.8)])
def test_the_variants_have_the_size_that_is_said(widths, millions):
    assert round(count(*widths) / 1e6, 1) == millions


def test_a_block_starts_as_the_identity():
    model, x = ResNetSmall().eval(), torch.rand(2, 80, 6, 6)
    assert torch.equal(model.stages[0][-1](x), x)
    assert sum((norm.weight == 0).all().item() for norm in model.modules() if hasattr(norm, "running_mean")) == 3


def test_widths_that_are_not_three_are_refused():
    with pytest.raises(ValueError, match=r"model\.widths=\[80, 160\] must be three"):
        ResNetSmall(widths=(80, 160))


@pytest.mark.parametrize(
    ("name", "value"),
    [("widths", [80, 160, 0]), ("widths", [1, 2, 2.5]), ("dropout", -0.1), ("dropout", 1.0), ("dropout", float("nan"))],
)
def test_sizes_and_probabilities_have_ranges(name, value):
    assert any(f"model.{name}=" in problem for problem in problems(ResNetSmall, {name: value}, "model"))


def test_an_odd_side_is_refused_in_one_line():
    with pytest.raises(ValueError, match="even sides, not 33×48"):
        ResNetSmall()(torch.rand(1, 1, 33, 48))
