"""What accuracy, F1 and AUC mean here, and how they are gathered over batches and ranks.

Every function takes logits (B, K) and targets (B,) and gives a float64 tensor on their device. Logits may be shifted by
a constant per row, so the logarithm of probabilities will do. What is undefined is NaN, never 0.
"""

import logging

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def confusion_matrix(logits: Tensor, targets: Tensor) -> Tensor:
    """Counts (K, K): row is the target, column the prediction, which is the largest logit."""
    num_classes = logits.shape[1]
    cells = targets * num_classes + logits.argmax(1)
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes).double()


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of the predictions that are right."""
    matrix = confusion_matrix(logits, targets)
    return matrix.trace() / matrix.sum()


def recalls(logits: Tensor, targets: Tensor) -> Tensor:
    """For each class (K,), the share of its samples that are predicted right; NaN for a class that does not occur."""
    matrix = confusion_matrix(logits, targets)
    return matrix.diagonal() / matrix.sum(1)


def balanced_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean recall over the classes that occur. For two classes (TPR + TNR) / 2, which some papers call AUC."""
    return recalls(logits, targets).nanmean()


def f1(logits: Tensor, targets: Tensor) -> Tensor:
    """2 TP / (2 TP + FP + FN): of class 1 where there are two classes, else the mean over the classes that occur among
    targets or predictions. NaN where the denominator is 0."""
    matrix = confusion_matrix(logits, targets)
    per_class = 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))
    return per_class[1] if len(per_class) == 2 else per_class.nanmean()


def auc(logits: Tensor, targets: Tensor) -> Tensor:
    """Exact area under the ROC curve of the ranked log-odds; the mean over classes, one against the rest, beyond two.

    NaN when a class does not occur: the mean over the others would be another quantity for each fold.
    """
    scores = log_odds(logits)
    if scores.shape[1] == 2:
        return _ranked_area(scores[:, 1], targets == 1)
    return torch.stack([_ranked_area(score, targets == k) for k, score in enumerate(scores.T.contiguous())]).mean()


def log_odds(logits: Tensor) -> Tensor:
    """log p_k / (1 - p_k) of the softmax, float32 (B, K): ranks as the probabilities do, but confident ones stay apart
    where float32 probabilities all round to 1."""
    wide = logits.double()
    wide = wide - wide.amax(1, keepdim=True)
    share = wide.exp()
    others = (share.sum(1, keepdim=True) - share).log()
    # Of the largest, the difference would be all rounding: there the others are summed.
    top = wide.argmax(1, keepdim=True)
    others.scatter_(1, top, wide.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True))
    # Rounded, so that equal rows tie whatever their place in a vectorised exp, and p = 0.5 is 0 and not -1e-16.
    return (wide - others).round(decimals=12).float()


def _ranked_area(scores: Tensor, is_positive: Tensor) -> Tensor:
    """Mann–Whitney: the share of pairs (positive, negative) that are ranked rightly, a tie counting half."""
    values, positive = scores.cpu().numpy(), is_positive.cpu().numpy()
    positives, negatives = np.sort(values[positive]), np.sort(values[~positive])  # four times torch's speed
    twice = sum(np.searchsorted(negatives, positives, side).sum() for side in ("left", "right"))
    return torch.tensor(twice, dtype=torch.float64, device=scores.device) / (2 * len(positives) * len(negatives))


class Scores(Metric):
    """All scores of an epoch, from the logits themselves, so that neither batch size nor number of ranks matters.

    update takes logits (B, num_classes), targets (B,) and the loss of each sample (B,). compute gives float32 scalars,
    and recalls (num_classes,); all but the loss are NaN when any logit is: a network that diverged predicts nothing.
    """

    full_state_update = False
    logits: list[Tensor]
    targets: list[Tensor]
    loss_sum: Tensor
    count: Tensor
    definitions = (accuracy, balanced_accuracy, f1, auc, recalls)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
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
        values = {score.__name__: score(logits, targets) for score in self.definitions}
        if logits.isnan().any():
            values = {name: torch.full_like(value, torch.nan) for name, value in values.items()}
        values["loss"] = self.loss_sum / self.count
        return {name: value.to(self.device, torch.float32) for name, value in values.items()}


log = logging.getLogger(__name__)
COLDEST, HOTTEST = 0.05, 20.0  # the temperatures that are searched


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T for which softmax(logits / T) has the least negative log likelihood; logits (N, K), labels (N,).

    1, and a warning that says why, where the images cannot tell: they are of one class, a logit is not a number, or the
    likelihood is still rising at the end of the temperatures that are searched.
    """
    if len(np.unique(labels)) < 2:
        return _as_it_is("the validation images are all of one class")
    if not np.isfinite(logits).all():
        return _as_it_is("a logit is not a finite number")
    logits = logits.astype(np.float64)
    true = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the likelihood in 1 / T, in which it is concave; so this rises in T and is 0 once."""
        expected = (softmax(logits / np.exp(log_temperature), axis=1) * logits).sum(1)
        return float((true - expected).mean())

    ends = np.log(COLDEST), np.log(HOTTEST)
    if slope(ends[0]) >= 0:
        return _as_it_is(f"the best temperature on the validation images is not above {COLDEST:g}")
    if slope(ends[1]) <= 0:
        return _as_it_is(f"the best temperature on the validation images is not below {HOTTEST:g}")
    return float(np.exp(root_scalar(slope, bracket=ends, method="brentq", xtol=1e-12).root))


def _as_it_is(why: str) -> float:
    log.warning("calibration: %s; the temperature stays 1", why)
    return 1.0


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the images, every one counting the same: -log softmax(logits) of the label."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """The mean distance between confidence and accuracy, over equal-width bins of the top probability, each bin
    counting as many times as it has images; probabilities (N, K), labels (N,). NaN when a probability is."""
    if np.isnan(probabilities).any():
        return np.nan
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)  # each has its upper end
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(labels))


def compare(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """The test images' calibration as they come and at the temperature; logits (N, K), labels (N,)."""
    raw = logits.astype(np.float64)
    scaled = raw / temperature
    return {
        "temperature": temperature,
        "test/ece": expected_calibration_error(softmax(raw, axis=1), labels),
        "test/ece_calibrated": expected_calibration_error(softmax(scaled, axis=1), labels),
        "test/nll": negative_log_likelihood(raw, labels),
        "test/nll_calibrated": negative_log_likelihood(scaled, labels),
    }
