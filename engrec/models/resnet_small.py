"""A small residual network that computes nothing at full resolution."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from engrec.models.init import init_he
from engrec.models.resnet18 import Block, conv
from engrec.ranges import Count, Probability, Size


class ResNetSmall(nn.Module):
    """Each 2×2 pixels become four channels; then three stages at 1/2, 1/4 and 1/8 of the side, each a 3×3 convolution
    and a residual block, and global average pooling.

    Images (B, in_channels, H, W), any size whose sides are even -> features (B, widths[-1]).

    The layout is that of a ResNet-9 with a space-to-depth stem: on a CPU, maps at full resolution cost more memory
    traffic than arithmetic. The last normalisation of each block starts at scale 0 (Goyal et al. 2017), so that the
    block starts as the identity. widths: channels of the three stages; multiples of 16 suit bfloat16 on a CPU.

    Raises ValueError for widths that are not three, and for images with an odd side.
    """

    def __init__(
        self, in_channels: Count = 1, widths: Sequence[Size] = (80, 160, 320), dropout: Probability = 0.2
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"model.widths={list(widths)} must be three numbers of channels, such as [80,160,320]")
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), *_layer(4 * in_channels, widths[0], 1))
        stages = zip(pairwise((widths[0], *widths)), (1, 2, 2), strict=True)
        self.stages = nn.Sequential(*(_stage(fan_in, width, stride) for (fan_in, width), stride in stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.num_features: int = widths[-1]
        self.apply(init_he)
        self.apply(_start_as_identity)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if height % 2 or width % 2:
            raise ValueError(f"model=resnet_small takes images with even sides, not {height}×{width}")
        return self.dropout(self.pool(self.stages(self.stem(images))).flatten(1))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*_layer(in_channels, channels, stride), Block(channels, channels, 1))


def _layer(in_channels: int, channels: int, stride: int) -> list[nn.Module]:
    return [conv(in_channels, channels, 3, stride), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _start_as_identity(module: nn.Module) -> None:
    if isinstance(module, Block):
        nn.init.zeros_(module.residual[-1].weight)  # pyright: ignore[reportArgumentType]
