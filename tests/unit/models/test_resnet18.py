import torch

from engrec.models.resnet18 import ResNet18


def test_stage_shapes():
    model, seen = ResNet18().eval(), []
    for module in (model.stem, *model.stages):
        module.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert model(torch.rand(1, 1, 48, 48)).shape == (1, 512)
    assert seen == [(64, 48, 48), (64, 48, 48), (128, 24, 24), (256, 12, 12), (512, 6, 6)]


def test_parameters_counted_by_hand():
    """Convolutions have no bias; each is followed by a BatchNorm with two numbers per channel."""
    with torch.device("meta"):
        count = sum(p.numel() for p in ResNet18().parameters())
    stem = 576 + 128  # 9·1·64
    one = 4 * (36_864 + 128)  # 9·64·64
    two = (73_728 + 256) + 3 * (147_456 + 256) + (8_192 + 256)  # 9·64·128, 9·128·128, shortcut 64·128
    three = (294_912 + 512) + 3 * (589_824 + 512) + (32_768 + 512)  # 9·128·256, 9·256·256, shortcut 128·256
    four = (1_179_648 + 1024) + 3 * (2_359_296 + 1024) + (131_072 + 1024)  # 9·256·512, 9·512·512, shortcut 256·512
    assert (stem, one, two, three, four) == (704, 147_968, 525_568, 2_099_712, 8_393_728)
    assert count == stem + one + two + three + four == 11_167_680


def test_width_scales_the_features_and_image_size_is_free():
    model = ResNet18(in_channels=3, width=0.25).eval()
    assert model.num_features == 128
    assert model(torch.rand(2, 3, 33, 40)).shape == (2, 128)


def test_a_block_with_silent_convolutions_passes_its_input_on():
    block = ResNet18(width=0.1).stages[0][0].eval()
    for norm in (block.residual[1], block.residual[4]):
        torch.nn.init.zeros_(norm.weight)
    x = torch.rand(1, 6, 5, 5)
    assert torch.equal(block(x), x)
