"""The scores of an epoch, gathered over batches and ranks."""

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from engrec.metrics import score_all


class Scores(torchmetrics.Metric):
    """All scores of an epoch, from the logits themselves, so that neither batch size nor number of ranks matters.

    ordered: whether the classes are levels in order, which have scores of their own.

    update takes logits (B, num_classes), targets (B,) and the loss of each sample (B,). compute gives float32 scalars,
    and recalls (num_classes,); all but the loss are NaN when any logit is: a network that diverged predicts nothing.
    """

    full_state_update = False
    logits: list[Tensor]
    targets: list[Tensor]
    loss_sum: Tensor
    count: Tensor

    def __init__(self, num_classes: int, ordered: bool = False) -> None:
        super().__init__()
        self.num_classes, self.ordered = num_classes, ordered
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, loss: Tensor) -> None:
        self.logits.append(logits.detach().float())
        self.targets.append(target)
        self.loss_sum += loss.detach().float().sum()
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        logits, targets = dim_zero_cat(self.logits).cpu(), dim_zero_cat(self.targets).cpu()
        values = score_all(logits, targets, self.ordered)
        if logits.isnan().any():
            values = {name: torch.full_like(value, torch.nan) for name, value in values.items()}
        values["loss"] = self.loss_sum / self.count
        return {name: value.to(self.device, torch.float32) for name, value in values.items()}
