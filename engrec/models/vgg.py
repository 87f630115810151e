"""The paper's VGG, with batch normalisation or as published, in any width."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from engrec.models.init import init_he
from engrec.models.lrn import LocalResponseNorm
from engrec.ranges import Count, Probability, Size, Width


class VGG(nn.Module):
    """Four blocks of two 3×3 convolutions, then dense layers. The classification layer is not part of it.

    Images (B, in_channels, image_size, image_size) -> features (B, num_features).
    The defaults are the published code of Nezami et al., which is conf/model/vgg_lrn.yaml.

    norm: "lrn" is local response normalisation, once, after the convolutions of the first block; "batch" is batch
    normalisation before every ReLU, which needs two images or more in a training batch; "none" is neither.
    width: factor on the channels 64, 128, 256, 512. dense: sizes of the dense layers; empty is global average pooling.

    Raises ValueError for images too small for four poolings.
    """

    def __init__(
        self,
        in_channels: Count = 1,
        image_size: Count = 48,
        norm: Literal["lrn", "batch", "none"] = "lrn",
        width: Width = 1.0,
        dense: Sequence[Size] = (4096, 4096, 1024),
        block_dropout: Probability = 0.2,
        dense_dropout: Probability = 0.3,
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"model.image_size={image_size} is too small for four poolings; it must be at least 16")
        channels = [in_channels, *(max(1, round(width * base)) for base in (64, 128, 256, 512))]
        self.blocks = nn.Sequential(
            *(_block(channels[i], channels[i + 1], norm, norm == "lrn" and i == 0, block_dropout) for i in range(4))
        )
        self.pool = nn.Identity() if dense else nn.AdaptiveAvgPool2d(1)
        sizes = [channels[-1] * (image_size // 16) ** 2, *dense] if dense else channels[-1:]
        self.dense = nn.Sequential(*(_dense(fan_in, size, norm, dense_dropout) for fan_in, size in pairwise(sizes)))
        self.num_features: int = sizes[-1]
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.pool(self.blocks(images)).flatten(1))


def _block(in_channels: int, channels: int, norm: str, lrn: bool, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in in (in_channels, channels):
        layers += [nn.Conv2d(fan_in, channels, 3, padding=1, bias=norm != "batch")]
        layers += [nn.BatchNorm2d(channels)] if norm == "batch" else []
        layers += [nn.ReLU(inplace=True)]
    layers += [LocalResponseNorm()] if lrn else []
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout(dropout))


def _dense(fan_in: int, size: int, norm: str, dropout: float) -> nn.Sequential:
    batch = [nn.BatchNorm1d(size)] if norm == "batch" else []
    return nn.Sequential(
        nn.Linear(fan_in, size, bias=norm != "batch"), *batch, nn.ReLU(inplace=True), nn.Dropout(dropout)
    )
