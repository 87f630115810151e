"""A residual network for small images."""

from torch import Tensor, nn

from engrec.models.init import init_he
from engrec.ranges import Count, Width


class ResNet18(nn.Module):
    """ResNet-18 of He et al. 2016 with the stem for small images: 3×3 with stride 1, no pooling.

    Images (B, in_channels, H, W) -> features (B, 512 · width).
    """

    def __init__(self, in_channels: Count = 1, width: Width = 1.0) -> None:
        super().__init__()
        channels = [max(1, round(width * base)) for base in (64, 64, 128, 256, 512)]
        self.stem = nn.Sequential(conv(in_channels, channels[0], 3), nn.BatchNorm2d(channels[0]), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Block(channels[i], channels[i + 1], stride), Block(channels[i + 1], channels[i + 1], 1))
                for i, stride in enumerate((1, 2, 2, 2))
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.num_features: int = channels[-1]
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(images))).flatten(1)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv(in_channels, channels, 3, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and in_channels == channels
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(conv(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def conv(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, as a normalisation follows; padded so that stride 1 keeps the size."""
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
