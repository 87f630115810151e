"""Stage 2: engagement, or another task with few labels, from a pre-trained backbone or from scratch."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from engrec.modules.classifier import Classifier, decayed_and_not
from engrec.ranges import NotNegative, Positive, Probability
from engrec.transforms import Batch


class EngagementModule(Classifier):
    """Classification from few labels: class weights, and a backbone that learns slowly or not at all.

    class_counts: training images of each class; class_weights: "balanced" (inverse to the counts), one number per
    class, or None; backbone_lr_factor: the backbone's learning rate as a share of the head's.
    """

    task = "engagement"

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        lr_scheduler: dict[str, Any],
        class_names: list[str],
        preprocessing: dict[str, Any],
        class_counts: Sequence[int],
        monitor: str = "val/auc",
        seed: int = 0,
        label_smoothing: Probability = 0.0,
        class_weights: Literal["balanced"] | Sequence[Positive] | None = None,
        freeze_backbone: bool = False,
        backbone_lr_factor: NotNegative = 1.0,
    ) -> None:
        super().__init__(model, optimizer, lr_scheduler, class_names, preprocessing, monitor, seed)
        if len(class_counts) != len(class_names):
            raise ValueError(f"class_counts has {len(class_counts)} numbers for {len(class_names)} classes")
        self.label_smoothing, self.backbone_lr_factor = label_smoothing, backbone_lr_factor
        self.freeze_backbone = freeze_backbone
        self.register_buffer("class_weights", weights_of_classes(class_weights, class_counts), persistent=False)
        if freeze_backbone:
            self.backbone.requires_grad_(False).eval()  # Lightning keeps the mode that it finds

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()  # otherwise the statistics of BatchNorm would still change
        return self

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        labels = batch["labels"]
        loss = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return loss * self.get_buffer("class_weights")[labels]

    def parameter_groups(self) -> list[dict[str, Any]]:
        lr = self.hparams["optimizer"]["lr"] * self.backbone_lr_factor
        return [*decayed_and_not(self.head), *decayed_and_not(self.backbone, lr=lr)]


def weights_of_classes(weights: Literal["balanced"] | Sequence[float] | None, counts: Sequence[int]) -> Tensor:
    """One weight per class (K,), scaled so that the mean over the training images is 1 and losses stay comparable."""
    number = torch.tensor(counts, dtype=torch.float)
    if weights is None:
        return torch.ones(len(counts))
    if weights != "balanced" and (isinstance(weights, str) or len(weights) != len(counts)):
        raise ValueError(f"module.class_weights={weights} must be balanced, null, or {len(counts)} numbers like [1,2]")
    raw = 1 / number if weights == "balanced" else torch.tensor(weights, dtype=torch.float)
    return raw * number.sum() / (raw * number).sum()
