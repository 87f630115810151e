"""Metrics: what accuracy, F1, AUC and calibration mean here, and one table of their names, labels and directions.

A score takes logits (B, K) and targets (B,) and gives a float64 tensor on their device. Logits may be shifted by a
constant per row, so the logarithm of probabilities will do. What is undefined is NaN, never 0.

Neither torch nor scipy is imported with this file: commands that only need the names answer without their seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
COLDEST, HOTTEST = 0.05, 20.0  # the temperatures that are searched
NUM_BINS = 15  # of the expected calibration error


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
    import torch

    scores = log_odds(logits)
    if scores.shape[1] == 2:
        return _ranked_area(scores[:, 1], targets == 1)
    return torch.stack([_ranked_area(score, targets == k) for k, score in enumerate(scores.T.contiguous())]).mean()


def quadratic_weighted_kappa(logits: Tensor, targets: Tensor) -> Tensor:
    """Of levels in order: 1 - the mean squared distance of prediction and target as a share of what it would be if the
    two were independent (Cohen, Weighted Kappa, Psychological Bulletin 1968). NaN where that is 0."""
    matrix = confusion_matrix(logits, targets)
    distances = _distances(matrix) ** 2
    by_chance = matrix.sum(1).outer(matrix.sum(0)) / matrix.sum()
    return 1 - (distances * matrix).sum() / (distances * by_chance).sum()


def mean_absolute_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Of levels in order: the mean distance of prediction and target, in levels."""
    matrix = confusion_matrix(logits, targets)
    return (_distances(matrix) * matrix).sum() / matrix.sum()


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Of levels in order, from 0 to 1 in equal steps: the mean squared distance of the expected level, the mean of the
    levels by their probabilities, and the target. The score of EmotiW's challenges on engagement."""
    import torch

    level = torch.linspace(0, 1, logits.shape[1], dtype=torch.float64, device=logits.device)
    return ((logits.double().softmax(1) @ level - level[targets]) ** 2).mean()


def _distances(matrix: Tensor) -> Tensor:
    """Of each cell of a confusion matrix (K, K) from the diagonal, in levels."""
    import torch

    level = torch.arange(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return (level[:, None] - level).abs()


def log_odds(logits: Tensor) -> Tensor:
    """log p_k / (1 - p_k) of the softmax, float32 (B, K): ranks as the probabilities do, but confident ones stay apart
    where float32 probabilities all round to 1."""
    wide = logits.double()
    wide = wide - wide.amax(1, keepdim=True)
    share = wide.exp()
    others = (share.sum(1, keepdim=True) - share).log()
    # Of the largest, the difference would be all rounding: there the others are summed.
    top = wide.argmax(1, keepdim=True)
    others.scatter_(1, top, wide.scatter(1, top, -math.inf).logsumexp(1, keepdim=True))
    # Rounded, so that equal rows tie whatever their place in a vectorised exp, and p = 0.5 is 0 and not -1e-16.
    return (wide - others).round(decimals=12).float()


def logits_of(probabilities: np.ndarray) -> Tensor:
    """Probabilities (N, K) as logits, float64: their logarithm, finite where one is 0."""
    import torch

    return torch.from_numpy(probabilities).double().clamp_min(1e-45).log()


def log_odds_of(probabilities: np.ndarray) -> np.ndarray:
    """What curves and AUC rank by, (N, K), from probabilities."""
    return log_odds(logits_of(probabilities)).numpy()


def roc(scores: np.ndarray, positive: np.ndarray, limit: int | None = None) -> np.ndarray:
    """The ROC curve as points (false positive rate, true positive rate), (P, 2), from (0, 0) to (1, 1).

    The exact curve has a point for each distinct score; those between which it is straight are left out. More points
    than `limit` are left out evenly. Empty where one of the two kinds does not occur.
    """
    if positive.all() or not positive.any():
        return np.empty((0, 2))
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    counts = np.stack([np.cumsum(~positive[order])[last], np.cumsum(positive[order])[last]], 1)
    counts = np.concatenate([[[0, 0]], counts])
    steps = np.diff(counts, axis=0)
    bends = steps[:-1, 0] * steps[1:, 1] != steps[:-1, 1] * steps[1:, 0]
    points = counts[np.concatenate([[True], bends, [True]])] / counts[-1]
    number = len(points) if limit is None else min(limit, len(points))
    return points[np.linspace(0, len(points) - 1, number).round().astype(int)]


def _ranked_area(scores: Tensor, is_positive: Tensor) -> Tensor:
    """Mann–Whitney: the share of pairs (positive, negative) that are ranked rightly, a tie counting half."""
    import torch

    values, positive = scores.cpu().numpy(), is_positive.cpu().numpy()
    positives, negatives = np.sort(values[positive]), np.sort(values[~positive])  # four times torch's speed
    twice = sum(np.searchsorted(negatives, positives, side).sum() for side in ("left", "right"))
    return torch.tensor(twice, dtype=torch.float64, device=scores.device) / (2 * len(positives) * len(negatives))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, unit: float = 1.0) -> float:
    """The T for which softmax(logits / T) has the least negative log likelihood; logits (N, K), labels (N,).

    `unit`, and a warning that says why, where the images cannot tell: they are of one class, a logit is not a number,
    or the likelihood is still rising at the end of the temperatures that are searched, which are multiples of the unit.
    """
    from scipy.optimize import root_scalar
    from scipy.special import softmax

    if len(np.unique(labels)) < 2:
        return _as_it_is("the images are all of one class", unit)
    if not np.isfinite(logits).all():
        return _as_it_is("a logit is not a finite number", unit)
    logits = logits.astype(np.float64) / unit
    true = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the likelihood in 1 / T, in which it is concave; so this rises in T and is 0 once."""
        expected = (softmax(logits / np.exp(log_temperature), axis=1) * logits).sum(1)
        return float((true - expected).mean())

    ends = np.log(COLDEST), np.log(HOTTEST)
    if slope(ends[0]) >= 0:
        return _as_it_is(f"the best temperature is not above {COLDEST * unit:.3g}", unit)
    if slope(ends[1]) <= 0:
        return _as_it_is(f"the best temperature is not below {HOTTEST * unit:.3g}", unit)
    return unit * float(np.exp(root_scalar(slope, bracket=ends, method="brentq", xtol=1e-12).root))


def _as_it_is(why: str, unit: float) -> float:
    log.warning("calibration: %s; the temperature stays %.3g", why, unit)
    return unit


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the images, every one counting the same: -log softmax(logits) of the label."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def confidence_bins(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each image (N,) the equal-width bin of its top probability, from 0, that probability, and whether the
    prediction is right; probabilities (N, K), labels (N,)."""
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)  # each has its upper end
    return bins, confidence, right


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """The mean distance between confidence and accuracy over the bins of the top probability, each bin weighted by its
    images (Guo et al., On Calibration of Modern Neural Networks, ICML 2017); NaN when a probability is."""
    if np.isnan(probabilities).any():
        return np.nan
    bins, confidence, right = confidence_bins(probabilities, labels, num_bins)
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(labels))


def compare(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """The test images' calibration as they come and at the temperature; logits (N, K), labels (N,)."""
    from scipy.special import softmax

    raw = logits.astype(np.float64)
    scaled = raw / temperature
    return {
        "temperature": temperature,
        "test/ece": expected_calibration_error(softmax(raw, axis=1), labels),
        "test/ece_calibrated": expected_calibration_error(softmax(scaled, axis=1), labels),
        "test/nll": negative_log_likelihood(raw, labels),
        "test/nll_calibrated": negative_log_likelihood(scaled, labels),
    }


def ece(logits: Tensor, targets: Tensor) -> Tensor:
    """The expected calibration error of the softmax."""
    import torch

    probabilities = logits.double().softmax(1).cpu().numpy()
    value = expected_calibration_error(probabilities, targets.cpu().numpy())
    return torch.tensor(value, dtype=torch.float64, device=logits.device)


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics. function: of logits and targets; None for the loss, which each task defines, and
    for a mean over people, which evidence/people.py computes.

    short: the label in a narrow column. logged: computed after each epoch and in the test, as train/KEY, val/KEY and
    test/KEY. compared: computed again from the predictions of finished runs, with an interval. ordered: only of classes
    that are levels in order, see Faces.ordered; no share from 0 to 1. of_people: only where people are known.
    """

    label: str
    function: Callable[[Tensor, Tensor], Tensor] | None
    short: str = ""
    higher_is_better: bool = True
    logged: bool = True
    compared: bool = True
    ordered: bool = False
    of_people: bool = False


# What the numbers of ordered metrics are where others are in per cent.
ERRORS_IN_TABLES = (
    "Mean absolute error: in hundredths of a level, lower is better. "
    "Mean squared error: of the expected level, from 0 to 1, in hundredths; lower is better."
)
# The one place to add a metric: it is then logged, monitored, searched for, compared and shown.
METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy, short="acc."),
    "balanced_accuracy": Metric("balanced accuracy", balanced_accuracy, short="bal. acc."),
    "f1": Metric("F1", f1),
    "auc": Metric("AUC", auc),
    "qwk": Metric("quadratic weighted kappa", quadratic_weighted_kappa, short="QWK", ordered=True),
    "mae": Metric("mean absolute error", mean_absolute_error, short="MAE", higher_is_better=False, ordered=True),
    "mse": Metric("mean squared error", mean_squared_error, short="MSE", higher_is_better=False, ordered=True),
    "auc_within": Metric("AUC within a person", None, short="AUC within", logged=False, of_people=True),
    "worst_people": Metric("balanced accuracy, worst people", None, "worst people", logged=False, of_people=True),
    "ece": Metric("ECE", ece, higher_is_better=False, logged=False),  # the test's is in `compare`, with the temperature
    "loss": Metric("loss", None, higher_is_better=False, compared=False),
}


def scores(ordered: bool = False) -> list[str]:
    """The keys of the scores that are logged, without the loss; ordered: those of levels too."""
    found = {key: metric for key, metric in METRICS.items() if metric.logged and metric.function is not None}
    return [key for key, metric in found.items() if ordered or not metric.ordered]


def logged() -> list[str]:
    """The keys of everything that may be logged: the scores, then the loss."""
    losses = [key for key, metric in METRICS.items() if metric.logged and metric.function is None]
    return [*scores(ordered=True), *losses]


def compared(ordered: bool = False, of_people: bool = False) -> dict[str, Metric]:
    """Label to metric of what finished runs are compared by; those of which more is better come first. ordered: those
    of levels too; of_people: the means over people too."""
    found = [metric for metric in METRICS.values() if metric.compared]
    found = [m for m in found if (ordered or not m.ordered) and (of_people or not m.of_people)]
    return {metric.label: metric for metric in sorted(found, key=lambda metric: not metric.higher_is_better)}


def score_all(logits: Tensor, targets: Tensor, ordered: bool = False) -> dict[str, Tensor]:
    """Every score that is logged by its key, and `recalls` (K,); ordered: whether the classes are levels in order."""
    functions = {key: METRICS[key].function for key in scores(ordered)}
    return {key: f(logits, targets) for key, f in functions.items() if f} | {"recalls": recalls(logits, targets)}


def higher_is_better(name: str) -> bool:
    """The direction of a metric by its key or by the name it is logged under, val/KEY."""
    key = name.rpartition("/")[2]
    return METRICS[key].higher_is_better if key in METRICS else not key.endswith("loss")


def display_name(name: str) -> str:
    """How a key, or the name that a metric is logged under, is written for people: val/auc is validation AUC."""
    split, _, key = name.rpartition("/")
    words = METRICS[key].label if key in METRICS else key.replace("_", " ")
    return " ".join(filter(None, ({"val": "validation"}.get(split, split), words)))


def described() -> list[dict[str, Any]]:
    """The table without its functions, as JSON has it."""
    return [
        {
            "key": key,
            "label": metric.label,
            "short": metric.short or metric.label,
            "higher_is_better": metric.higher_is_better,
            "logged": metric.logged,
            "compared": metric.compared,
        }
        for key, metric in METRICS.items()
    ]
