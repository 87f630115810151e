"""Stage 2: engagement, or another task with few labels, from a pre-trained backbone or from scratch."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from engrec.modules.classifier import Classifier, decayed_and_not
from engrec.modules.ordinal import Corn
from engrec.modules.stages import groups_by_stage, stages
from engrec.ranges import NotNegative, Positive, Probability, Range
from engrec.transforms import Batch

log = logging.getLogger(__name__)


class EngagementModule(Classifier):
    """Classification from few labels: class weights, and a backbone that learns slowly or not at all.

    class_counts: training images of each class in an epoch; class_weights: "balanced" (inverse to the counts), one
    number per class, or None; freeze_backbone: True (only the head learns), False, or "statistics" (all weights learn,
    the means and variances of BatchNorm stay those of pre-training); backbone_lr_factor: the backbone's learning rate
    as a share of the head's.

    Each of these is off where it is None:
    layer_decay: the learning rate of a stage of the backbone as a share of the next one's; the last has the backbone's.
    l2_sp: α of the penalty α/2 · ‖w - w₀‖² on the backbone's weights w, which start as w₀, in the place of their weight
    decay (Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML
    2018). So it compares with weight_decay. It is not part of the loss that is logged.
    ordinal: "corn" for a head of levels in order, see `Corn`.
    logit_adjustment: τ of the loss of Menon et al. (Long-Tail Learning via Logit Adjustment, ICLR 2021), in which
    τ · log π is added to the logits, π being the classes' shares of the training images.

    Raises ValueError for options that exclude each other.
    """

    task = "engagement"

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        lr_scheduler: dict[str, Any],
        class_names: list[str],
        preprocessing: dict[str, Any],
        class_counts: Sequence[float],
        monitor: str = "val/auc",
        seed: int = 0,
        label_smoothing: Probability = 0.0,
        class_weights: Literal["balanced"] | Sequence[Positive] | None = None,
        freeze_backbone: bool | Literal["statistics"] = False,
        backbone_lr_factor: NotNegative = 1.0,
        layer_decay: Annotated[float, Range(0, 1, above=True)] | None = None,
        l2_sp: Positive | None = None,
        ordinal: Literal["corn"] | None = None,
        logit_adjustment: Positive | None = None,
    ) -> None:
        super().__init__(model, optimizer, lr_scheduler, class_names, preprocessing, monitor, seed)
        if len(class_counts) != len(class_names):
            raise ValueError(f"class_counts has {len(class_counts)} numbers for {len(class_names)} classes")
        self.label_smoothing, self.backbone_lr_factor = label_smoothing, backbone_lr_factor
        self.freeze_backbone, self.layer_decay, self.l2_sp = freeze_backbone, layer_decay, l2_sp
        self.logit_adjustment, self.start = logit_adjustment, list[Tensor]()
        self.register_buffer("class_weights", weights_of_classes(class_weights, class_counts), persistent=False)
        self.register_buffer("log_shares", log_shares(class_counts), persistent=False)
        if logit_adjustment is not None and class_weights is not None:
            raise ValueError(
                f"module.logit_adjustment={logit_adjustment} and module.class_weights={class_weights} correct for rare "
                "classes twice: set module.class_weights=null or module.logit_adjustment=null"
            )
        if ordinal == "corn":
            self.head = Corn(self.backbone.num_features, len(class_names))  # pyright: ignore[reportArgumentType]
        if freeze_backbone is True:
            self.backbone.requires_grad_(False)
        self.warn_of_no_effect()
        self.train()  # Lightning keeps the mode that it finds

    def warn_of_no_effect(self) -> None:
        norms = any(isinstance(part, _BatchNorm) for part in self.backbone.modules())
        without = {
            "layer_decay": self.layer_decay is not None and (self.frozen or len(stages(self.backbone)) == 1),
            "l2_sp": self.l2_sp is not None and self.frozen,
            "freeze_backbone": self.freeze_backbone == "statistics" and not norms,
        }
        for name in (name for name, pointless in without.items() if pointless):
            log.warning("module.%s=%s has no effect on this backbone", name, self.hparams[name])

    @property
    def frozen(self) -> bool:
        return self.freeze_backbone is True

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()  # otherwise the statistics of BatchNorm would still change
        for part in self.backbone.modules() if self.freeze_backbone == "statistics" else ():
            if isinstance(part, _BatchNorm):
                part.eval()
        return self

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        labels = batch["labels"]
        if self.logit_adjustment is not None:
            logits = logits + self.logit_adjustment * self.get_buffer("log_shares")
        loss = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return loss * self.get_buffer("class_weights")[labels]

    def parameter_groups(self) -> list[dict[str, Any]]:
        lr = self.hparams["optimizer"]["lr"] * self.backbone_lr_factor
        backbone = decayed_and_not(self.backbone, lr=lr)
        if self.layer_decay is not None:
            backbone = groups_by_stage(self.backbone, lr, self.layer_decay)
        pulled = {} if self.l2_sp is None else {"weight_decay": 0.0}
        return [*decayed_and_not(self.head), *(group | pulled for group in backbone)]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.l2_sp is None:
            return loss
        distances = [(w - start).square().sum() for w, start in zip(self.pulled(), self.start, strict=True)]
        return loss + self.l2_sp / 2 * sum(distances)

    def pulled(self) -> list[nn.Parameter]:
        """The weights of the backbone that are pulled to where they started: those that would be decayed."""
        return [p for p in self.backbone.parameters() if p.requires_grad and p.ndim > 1]

    def on_fit_start(self) -> None:
        self.train()  # whatever was tried with the backbone before
        if self.l2_sp is not None:
            start = self.start or [p.detach().clone() for p in self.pulled()]
            self.start = [tensor.to(self.device) for tensor in start]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.l2_sp is not None and "optimizer_states" in checkpoint:  # for resuming, not for use
            checkpoint["start"] = self.start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.start = checkpoint.get("start", [])


def log_shares(counts: Sequence[float]) -> Tensor:
    """The logarithm of each class's share of the training images (K,)."""
    number = torch.tensor(counts, dtype=torch.float)
    return (number / number.sum()).log()


def weights_of_classes(weights: Literal["balanced"] | Sequence[float] | None, counts: Sequence[float]) -> Tensor:
    """One weight per class (K,), scaled so that the mean over the training images is 1 and losses stay comparable."""
    number = torch.tensor(counts, dtype=torch.float)
    if weights is None:
        return torch.ones(len(counts))
    if weights != "balanced" and (isinstance(weights, str) or len(weights) != len(counts)):
        raise ValueError(f"module.class_weights={weights} must be balanced, null, or {len(counts)} numbers like [1,2]")
    raw = 1 / number if weights == "balanced" else torch.tensor(weights, dtype=torch.float)
    return raw * number.sum() / (raw * number).sum()
