"""The paper's small network: two convolutions, two dense layers."""

import math

from torch import Tensor, nn

from engrec.models.init import init_he
from engrec.models.lrn import LocalResponseNorm
from engrec.ranges import Count, Probability


class CNN(nn.Module):
    """The CNN of the published tflearn code of Nezami et al. The classification layer is not part of it.

    Images (B, in_channels, image_size, image_size) -> features (B, 1024).
    block_dropout, dense_dropout: probability of dropping. tflearn takes the probability of keeping.
    """

    num_features = 1024

    def __init__(
        self,
        in_channels: Count = 1,
        image_size: Count = 48,
        block_dropout: Probability = 0.2,
        dense_dropout: Probability = 0.3,
    ) -> None:
        super().__init__()
        pooled = image_size
        for _ in range(2):
            pooled = math.ceil((pooled - 3) / 2) + 1
        if pooled < 1:
            raise ValueError(f"model.image_size={image_size} is too small for two poolings; set model.image_size=48")
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channels, 64, 5, padding=2),
            nn.ReLU(inplace=True),
            LocalResponseNorm(),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),  # for an even size the windows of TensorFlow's "same" padding
            nn.Dropout(block_dropout),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Dropout(block_dropout),
        )
        self.dense = nn.Sequential(
            nn.Linear(128 * pooled**2, self.num_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dense_dropout),
            nn.Linear(self.num_features, self.num_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dense_dropout),
        )
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.blocks(images).flatten(1))
