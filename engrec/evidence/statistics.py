"""Bootstrap over people: scores on each draw, intervals, and tests of differences."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from scipy import stats
from scipy.special import expit, logit

from engrec.metrics import METRICS, NUM_BINS, Metric, compared, confidence_bins, log_odds_of, logits_of

CERTAIN = 1e-6  # the distance from 0 or 1 that an AUC of 0 or 1 on a draw is given, whose log odds have no end


@dataclass(frozen=True, eq=False)
class Draws:
    """R bootstrap draws of N samples: groups (subjects) are drawn with replacement, with all their samples.

    group: int (N,), the group of each sample; counts: float32 (R, num_groups), how often each group was drawn.
    """

    group: np.ndarray
    counts: np.ndarray

    @classmethod
    def sample(cls, groups: np.ndarray, num_resamples: int = 2000, seed: int = 0) -> Self:
        """groups (N,): names or numbers. The same groups and seed give the same draws."""
        names, group = np.unique(groups, return_inverse=True)
        rng, number = np.random.default_rng(seed), len(names)
        counts = rng.multinomial(number, np.full(number, 1 / number), size=num_resamples)
        return cls(group, counts.astype(np.float32))

    @classmethod
    def all_once(cls, num_samples: int) -> Self:
        """The samples as they are: one draw with each of them once."""
        return cls(np.zeros(num_samples, dtype=int), np.ones((1, 1), dtype=np.float32))

    @property
    def num_groups(self) -> int:
        return self.counts.shape[1]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum over each draw's samples, repeats included, of values (N, M): float64 (R, M)."""
        per_group = np.zeros((self.num_groups, values.shape[1]))
        np.add.at(per_group, self.group, values)
        return self.counts.astype(np.float64) @ per_group

    def weights(self) -> Iterator[np.ndarray]:
        """How often each sample was drawn, float32 (some draws, N): all R draws in blocks of a bounded size."""
        step = max(1, 2**22 // len(self.group))
        for start in range(0, len(self.counts), step):
            yield self.counts[start : start + step, self.group]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Predictions and the draws that they are scored on: probabilities (N, K), labels (N,)."""

    probabilities: np.ndarray
    labels: np.ndarray
    draws: Draws

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts on each draw (R, K, K): row is the label, column the prediction, the most probable class."""
        number, num_classes = self.probabilities.shape
        cells = np.zeros((number, num_classes**2))
        cells[np.arange(number), self.labels * num_classes + self.probabilities.argmax(1)] = 1
        return self.draws.sums(cells).reshape(-1, num_classes, num_classes)

    @property
    def right(self) -> np.ndarray:
        """How many of each class are right on each draw (R, K)."""
        return self.confusion.diagonal(axis1=1, axis2=2)

    @property
    def lacking(self) -> np.ndarray:
        """Whether a draw (R,) lacks a class that the labels have. A mean over the others would be another quantity."""
        return (self.confusion.sum(2)[:, np.unique(self.labels)] == 0).any(1)

    def each(self, metric: Metric) -> np.ndarray:
        """A metric of the table on each draw, (R,), one after the other, its samples repeated as they were drawn."""
        assert metric.function is not None
        logits, targets, found = logits_of(self.probabilities), torch.from_numpy(self.labels), []
        for weights in self.draws.weights():
            for times in weights.astype(int):
                index = torch.from_numpy(np.repeat(np.arange(len(times)), times))
                found.append(float(metric.function(logits[index], targets[index])))
        return np.array(found)


def scores(probabilities: np.ndarray, labels: np.ndarray, draws: Draws, ordered: bool = False) -> dict[str, np.ndarray]:
    """Label to values on each draw, (R,), of each metric that is compared; NaN where a draw leaves it undefined.

    probabilities: (N, K); labels: (N,). The prediction is the most probable class. ordered: whether the classes are
    levels in order.
    """
    drawn = Drawn(probabilities, labels, draws)
    fast = {METRICS[key].label: function for key, function in FAST.items() if key in METRICS}
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            label: fast[label](drawn) if label in fast else drawn.each(metric)
            for label, metric in compared(ordered).items()
        }


def scores_by_seed(probabilities: np.ndarray, labels: np.ndarray, ordered: bool = False) -> dict[str, np.ndarray]:
    """Label to the score of each seed, (num_seeds,), on the samples as they are; probabilities (num_seeds, N, K)."""
    once = Draws.all_once(len(labels))
    each = [scores(p, labels, once, ordered) for p in probabilities]
    return {label: np.concatenate([one[label] for one in each]) for label in each[0]}


def mean_scores(
    probabilities: np.ndarray, labels: np.ndarray, draws: Draws, ordered: bool = False
) -> dict[str, np.ndarray]:
    """Label to the mean over seeds on each draw, (R,); probabilities (num_seeds, N, K)."""
    each = [scores(p, labels, draws, ordered) for p in probabilities]
    return {label: np.mean([one[label] for one in each], axis=0) for label in each[0]}


def accuracy(drawn: Drawn) -> np.ndarray:
    return drawn.right.sum(1) / drawn.confusion.sum((1, 2))


def balanced_accuracy(drawn: Drawn) -> np.ndarray:
    return np.where(drawn.lacking, np.nan, _nanmean(drawn.right / drawn.confusion.sum(2)))


def f1(drawn: Drawn) -> np.ndarray:
    per_class = 2 * drawn.right / (drawn.confusion.sum(2) + drawn.confusion.sum(1))
    return np.where(drawn.lacking, np.nan, per_class[:, 1] if per_class.shape[1] == 2 else _nanmean(per_class))


def auc(drawn: Drawn) -> np.ndarray:
    """Area under the ranked ROC curve; of more than two classes the mean, each against the rest."""
    ranked_by, labels, draws = log_odds_of(drawn.probabilities), drawn.labels, drawn.draws
    classes = [1] if ranked_by.shape[1] == 2 else range(ranked_by.shape[1])
    areas = [
        np.concatenate([_area(ranked_by[:, k], labels == k, weights) for weights in draws.weights()]) for k in classes
    ]
    return np.mean(areas, axis=0)


def quadratic_weighted_kappa(drawn: Drawn) -> np.ndarray:
    by_chance = (
        drawn.confusion.sum(2)[:, :, None]
        * drawn.confusion.sum(1)[:, None]
        / drawn.confusion.sum((1, 2))[:, None, None]
    )
    distances = _distances(drawn) ** 2
    return 1 - (distances * drawn.confusion).sum((1, 2)) / (distances * by_chance).sum((1, 2))


def mean_absolute_error(drawn: Drawn) -> np.ndarray:
    return (_distances(drawn) * drawn.confusion).sum((1, 2)) / drawn.confusion.sum((1, 2))


def mean_squared_error(drawn: Drawn) -> np.ndarray:
    """Of the expected level, levels from 0 to 1."""
    level = np.linspace(0, 1, drawn.probabilities.shape[1])
    errors = (drawn.probabilities @ level - level[drawn.labels]) ** 2
    return drawn.draws.sums(errors[:, None])[:, 0] / drawn.confusion.sum((1, 2))


def _distances(drawn: Drawn) -> np.ndarray:
    """Of label and prediction, in levels (K, K)."""
    level = np.arange(drawn.confusion.shape[1])
    return np.abs(level[:, None] - level)


def _area(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mann–Whitney with weights (R, N): the share of pairs that are ranked rightly, a tie counting half."""
    order = np.argsort(score, kind="stable")
    ordered, positive = weights[:, order], positive[order]
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # of each run of equal scores
    positives, negatives = (
        np.add.reduceat(np.where(side, ordered, 0), starts, axis=1, dtype=np.float64) for side in (positive, ~positive)
    )
    below = negatives.cumsum(1) - negatives / 2
    return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))


def expected_calibration_error(drawn: Drawn) -> np.ndarray:
    """The mean distance between confidence and accuracy."""
    bins, confidence, right = confidence_bins(drawn.probabilities, drawn.labels)
    gaps = np.zeros((len(bins), NUM_BINS))
    gaps[np.arange(len(bins)), bins] = confidence - right
    return np.abs(drawn.draws.sums(gaps)).sum(1) / drawn.confusion.sum((1, 2))


# By key, what would take too long draw by draw. A metric that is not here is computed by its function in the table.
FAST: dict[str, Callable[[Drawn], np.ndarray]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "auc": auc,
    "qwk": quadratic_weighted_kappa,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "ece": expected_calibration_error,
}


def interval(values: np.ndarray, num_groups: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of a statistic's bootstrap values (R,) over num_groups subjects.

    The percentiles are those of Student's t with num_groups - 1 degrees of freedom, and of the unbiased variance; with
    the normal ones few subjects make it too narrow (Hesterberg, What Teachers Should Know About the Bootstrap, 2015).
    NaN values do not count. (NaN, NaN) for fewer than two subjects, or when no value counts.
    """
    values = values[~np.isnan(values)]
    if num_groups < 2 or len(values) == 0:
        return np.nan, np.nan
    reach = stats.t.ppf((1 + level) / 2, num_groups - 1) * np.sqrt(num_groups / (num_groups - 1))
    low, high = np.quantile(values, stats.norm.cdf([-reach, reach]))
    return float(low), float(high)


def logit_interval(value: float, values: np.ndarray, num_groups: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an AUC: Student's t around its log odds, with their deviation over the draws.

    Where it is near 1 and people are few, percentiles start too high and hold the true value less often; how often is
    in docs/evidence.md. value: on all samples; values (R,): on the draws, NaN not counting. Where the value is 0 or 1,
    it is the interval of `interval`, and (NaN, NaN) in the same cases.
    """
    drawn = values[~np.isnan(values)]
    if not 0 < value < 1 or num_groups < 2 or len(drawn) < 2:
        return interval(values, num_groups, level)
    deviation = logit(drawn.clip(CERTAIN, 1 - CERTAIN)).std(ddof=1) * np.sqrt(num_groups / (num_groups - 1))
    reach = stats.t.ppf((1 + level) / 2, num_groups - 1) * deviation
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def p_value(differences: np.ndarray, num_groups: int) -> float:
    """Two-sided p-value of no difference from bootstrap values (R,), the inverse of `interval`: under 0.05 where the
    95 % interval excludes 0. NaN where the interval is.

    It is not below what one value beyond 0 would give: with 2,000 draws of four people or fewer, that is above 0.05.
    """
    differences = np.sort(differences[~np.isnan(differences)])
    if num_groups < 2 or len(differences) == 0:
        return np.nan
    beyond = max(min(_share_to_zero(differences), _share_to_zero(-differences[::-1])), 1 / (len(differences) + 1))
    reach = stats.norm.ppf(min(beyond, 0.5)) * np.sqrt((num_groups - 1) / num_groups)
    return float(2 * stats.t.cdf(reach, num_groups - 1))


def _share_to_zero(ordered: np.ndarray) -> float:
    """The largest q whose quantile of these sorted values, interpolated as np.quantile does, is not above 0."""
    number = int((ordered <= 0).sum())
    if number in (0, len(ordered)):
        return number / len(ordered)
    below, above = ordered[number - 1], ordered[number]
    return float(number - 1 - below / (above - below)) / (len(ordered) - 1)


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """Exact two-sided p-value of McNemar's test that two predictors, (N,) each, are right equally often.

    It treats the samples as independent, which many images of one person are not.
    """
    only_one, only_other = int((right & ~other).sum()), int((other & ~right).sum())
    return float(stats.binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0).sum(-1) / defined.sum(-1)


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
