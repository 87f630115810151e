"""Classes that are levels in order."""

from torch import Tensor, nn
from torch.nn import functional as F


class Corn(nn.Linear):
    """Features (B, num_features) -> log-probabilities of the levels (B, num_levels), from num_levels - 1 outputs.

    Output k is the log-odds of a level above k, given that it is at least k; probabilities are products of these (Shi,
    Cao and Raschka, Deep Neural Networks for Rank-Consistent Ordinal Regression Based on Conditional Probabilities,
    arXiv 2111.08851). Their loss over the conditional subsets is the negative log-likelihood of these levels: image i
    is in subset k where its level is at least k. They divide its sum by the sizes of all subsets, so that their loss is
    smaller by a factor; divided by the number of images, it has the unit of a cross-entropy.

    As log-probabilities are logits, metrics, calibration, views and predictions treat the levels as any classes: the
    prediction is the most probable level. The paper takes the median level.
    """

    def __init__(self, num_features: int, num_levels: int) -> None:
        super().__init__(num_features, num_levels - 1)

    def forward(self, input: Tensor) -> Tensor:
        conditional = super().forward(input).float()  # in half precision, sums of logarithms would be rounded
        at_least = F.pad(F.logsigmoid(conditional).cumsum(1), (1, 0))  # log P(level >= k) for each k
        stops = F.pad(F.logsigmoid(-conditional), (0, 1))  # log P(level = k | level >= k), certain for the last
        return at_least + stops
