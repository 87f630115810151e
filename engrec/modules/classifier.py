"""What both stages share: logits = head(backbone(images)), metrics, optimizer and schedule."""

import inspect
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_object, instantiate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from engrec.errors import DivergedError
from engrec.modules.scores import Scores
from engrec.transforms import Batch, epoch_seed


class Classifier(pl.LightningModule):
    """A face classifier, built from plain values, so that its checkpoint describes it.

    model, optimizer, lr_scheduler: nodes with a `_target_` (an empty lr_scheduler: constant rate); class_names: one
    output each; preprocessing: what the images went through; monitor: the metric that a plateau schedule follows.
    """

    task = ""  # of a subclass

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        lr_scheduler: dict[str, Any],
        class_names: list[str],
        preprocessing: dict[str, Any],
        monitor: str = "val/loss",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # with the subclass's arguments; the run logs its whole configuration
        # Called directly: Hydra would resolve interpolations and build what a checkpoint names.
        settings = {name: value for name, value in model.items() if name != "_target_"}
        if unknown := [name for name in settings if name.startswith("_")]:
            raise ValueError(f"model.{unknown[0]} has no effect on a network: remove it")
        self.backbone: nn.Module = get_object(model["_target_"])(**settings)
        # Mostly the faster layout; conf/trainer can set another.
        self.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.head = nn.Linear(self.backbone.num_features, len(class_names))  # pyright: ignore[reportArgumentType]
        self.scores = nn.ModuleDict({f"{side}_scores": Scores(len(class_names)) for side in ("train", "val", "test")})
        self.class_names, self.seed, self.fused_optimizer = class_names, seed, False
        self.before: list[dict[str, Any]] = []  # what it starts from was trained on, see checkpoint.trainings
        # Set by a callback that averages the weights, which Lightning does not ask when it saves weights alone.
        self.averaged_weights: Callable[[], dict[str, Tensor]] | None = None
        self.example_input_array = torch.zeros(2, *(preprocessing[k] for k in ("channels", "height", "width")))

    def forward(self, images: Tensor) -> Tensor:
        """images: standardised, (B, C, H, W). Returns logits (B, num_classes)."""
        return self.head(self.backbone(images))

    def criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each image (B,)."""
        return F.cross_entropy(logits, batch["labels"], reduction="none")

    def mixed_criterion(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each image (B,) that transforms.Mixup made: that of both labels, in the parts of the images."""
        other = {name.removeprefix("other_"): value for name, value in batch.items() if name.startswith("other_")}
        own, others = self.criterion(logits, batch), self.criterion(logits, batch | other)
        return batch["mixed"] * own + (1 - batch["mixed"]) * others

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.averaged_weights is not None and "callbacks" not in checkpoint:
            checkpoint["state_dict"] = self.averaged_weights()
        checkpoint["module"] = f"{type(self).__module__}.{type(self).__name__}"
        checkpoint["task"] = self.task
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["dataset"] = None if data is None else data.faces.name
        checkpoint["seen"] = None if data is None else data.seen
        checkpoint["before"] = self.before

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self(batch["images"]).float()
        loss = self.mixed_criterion(logits, batch) if "mixed" in batch else self.criterion(logits, batch)
        self._score("train").update(logits.detach(), batch["labels"], loss.detach())
        return loss.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate("test", batch)

    def _evaluate(self, side: str, batch: Batch) -> Tensor:
        logits = self(batch["images"]).float()
        self._score(side).update(logits, batch["labels"], self.criterion(logits, batch))
        return logits

    def _score(self, side: str) -> Scores:
        scores = self.scores[f"{side}_scores"]
        assert isinstance(scores, Scores)
        return scores

    def on_train_epoch_start(self) -> None:
        # From here on dropout and augmentation draw the same numbers whether or not the run was interrupted before.
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch) + self.global_rank)

    def on_train_epoch_end(self) -> None:
        self._log("train")
        if not torch.isfinite(self.trainer.callback_metrics["train/loss"]):
            lr = self.hparams["optimizer"]["lr"]
            raise DivergedError(
                f"training diverged in epoch {self.current_epoch + 1} (the loss is NaN or infinite): "
                f"try optimizer.lr={lr / 10:g}"
            )
        # Stepped here: Lightning would step it after the checkpoint of this epoch is written.
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(self.trainer.callback_metrics[self.hparams["monitor"]])

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def _log(self, side: str) -> None:
        scores = self._score(side)
        shown = [f"{side}/loss", f"{side}/accuracy"] if side != "test" else []
        for name, value in self.named(side, scores.compute()).items():
            self.log(name, value, prog_bar=name in shown, rank_zero_only=True)
        scores.reset()

    def named(self, side: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The computed scores by the names that are logged; the recall of each class on test alone."""
        recalls = zip(self.class_names, values["recalls"], strict=True)
        scalars = {f"{side}/{name}": value for name, value in values.items() if name != "recalls"}
        return scalars | ({f"{side}/recall/{name}": value for name, value in recalls} if side == "test" else {})

    def configure_optimizers(self) -> Any:
        fused = {"fused": True} if self.fused_optimizer else {}
        optimizer = instantiate(self.hparams["optimizer"], self.parameter_groups(), **fused, _convert_="all")
        node = self.hparams["lr_scheduler"]
        if not node:
            return optimizer
        extra = {}
        if "total_steps" in inspect.signature(get_object(node["_target_"])).parameters:
            extra["total_steps"] = int(self.trainer.estimated_stepping_batches)
        scheduler = instantiate(node, optimizer, **extra)
        interval = "epoch" if isinstance(scheduler, ReduceLROnPlateau) else "step"
        config = {"scheduler": scheduler, "interval": interval, "monitor": self.hparams["monitor"]}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights are decayed; biases and the scales of normalisation are not."""
        return decayed_and_not(self)


def decayed_and_not(module: nn.Module, **settings: Any) -> list[dict[str, Any]]:
    """Two parameter groups with the given settings: matrices and kernels, and everything one-dimensional."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    decayed = {"params": [p for p in parameters if p.ndim > 1], **settings}
    plain = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, **settings}
    return [group for group in (decayed, plain) if group["params"]]
