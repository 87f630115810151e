"""Stage 1: facial expressions, with one label per image or the votes of several annotators."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from engrec.modules.classifier import Classifier
from engrec.ranges import Probability
from engrec.transforms import Batch


class ExpressionModule(Classifier):
    """Expression recognition; with `soft_labels` it learns the distribution of the annotators' votes (Barsoum et al.,
    Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution, ICMI 2016)."""

    task = "expression"

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        lr_scheduler: dict[str, Any],
        class_names: list[str],
        preprocessing: dict[str, Any],
        monitor: str = "val/accuracy",
        seed: int = 0,
        label_smoothing: Probability = 0.0,
        soft_labels: bool = False,
    ) -> None:
        super().__init__(model, optimizer, lr_scheduler, class_names, preprocessing, monitor, seed)
        self.label_smoothing, self.soft_labels = label_smoothing, soft_labels

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        # A network trained on votes may be tested on data without them.
        target = batch["soft_labels"] if self.soft_labels and "soft_labels" in batch else batch["labels"]
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
