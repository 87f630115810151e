"""Scores of people, of whom each weighs the same: the AUC within a person, and the balanced accuracy of the worst."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engrec.evidence.statistics import Draws
from engrec.metrics import METRICS, log_odds_of

WORST = 4  # the worst people are one of so many


@dataclass(frozen=True, eq=False)
class PeopleScore:
    """A score that is a mean over people.

    each: from probabilities (N, K) to a value for each person (P,), which need not be a number where the weight is 0.
    once: the weight of each person (P,), 1 for those who count; drawn: likewise on each draw (R, P).
    """

    each: Callable[[np.ndarray], np.ndarray]
    once: np.ndarray
    drawn: np.ndarray

    @property
    def num_people(self) -> int:
        """How many people count."""
        return int(self.once.sum())

    def points(self, probabilities: np.ndarray) -> np.ndarray:
        """The score of each seed (num_seeds,); probabilities (num_seeds, N, K)."""
        return np.concatenate([_means(self.each(one), self.once[None]) for one in probabilities])

    def resampled(self, probabilities: np.ndarray) -> np.ndarray:
        """The mean over seeds on each draw (R,), NaN where nobody who counts was drawn."""
        return np.mean([_means(self.each(one), self.drawn) for one in probabilities], axis=0)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of values (P,) with weights (R, P): (R,)."""
    with np.errstate(invalid="ignore"):
        return weights @ np.where(weights.any(0), values, 0) / weights.sum(1)


def people_scores(labels: np.ndarray, draws: Draws, reference: np.ndarray | None) -> dict[str, PeopleScore]:
    """Label to score, of those that have a meaning here; labels (N,), draws of people.

    reference: probabilities (N, K) of the predictor by which the worst people are chosen.
    """
    found, counts = {}, draws.counts.astype(np.float64)
    several = num_classes_of(labels, draws.group) > 1
    if several.any():
        within = PeopleScore(lambda p: aucs(p, labels, draws.group), several.astype(float), counts * several)
        found[METRICS["auc_within"].label] = within
    if reference is not None and draws.num_groups >= WORST:
        by = balanced_accuracies(reference, labels, draws.group)
        once, drawn = worst(by, np.ones((1, len(by)))), worst(by, counts)
        found[METRICS["worst_people"].label] = PeopleScore(
            lambda p: balanced_accuracies(p, labels, draws.group), once[0], drawn
        )
    return found


def num_classes_of(labels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """How many classes each person has (P,); labels (N,), person int (N,)."""
    return np.bincount(np.unique(np.stack([person, labels]), axis=1)[0])


def aucs(probabilities: np.ndarray, labels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Each person's own AUC (P,): how the images of one class are ranked against the other images of that person. Of
    more than two classes the mean over those that the person has. NaN for a person with images of one class alone.

    probabilities (N, K); labels, person int (N,).
    """
    ranked_by = log_odds_of(probabilities)
    classes = [1] if ranked_by.shape[1] == 2 else range(ranked_by.shape[1])
    areas = np.stack([_areas(ranked_by[:, k], labels == k, person) for k in classes])
    defined = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.where(defined, areas, 0).sum(0) / defined.sum(0)


def _areas(score: np.ndarray, positive: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Mann–Whitney within each person (P,), a tie counting half; NaN without positives or without negatives."""
    order = np.lexsort((score, person))
    score, positive, person = score[order], positive[order], person[order]
    new = (np.diff(score, prepend=np.nan) != 0) | (np.diff(person, prepend=-1) != 0)
    run = np.cumsum(new) - 1  # of equal scores of a person
    negatives = np.bincount(run, ~positive)
    before = np.cumsum(negatives) - negatives
    whose = person[new]
    first = np.flatnonzero(np.diff(whose, prepend=-1))
    below = before - before[first][whose] + negatives / 2  # negatives of the same person
    won = np.bincount(whose, np.bincount(run, positive) * below)
    pairs = np.bincount(person, positive) * np.bincount(person, ~positive)
    with np.errstate(invalid="ignore"):
        return won / pairs


def balanced_accuracies(probabilities: np.ndarray, labels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Each person's own balanced accuracy (P,): the mean recall over the classes that the person has."""
    shape = (person.max() + 1, probabilities.shape[1])
    right, images = np.zeros(shape), np.zeros(shape)
    np.add.at(right, (person, labels), probabilities.argmax(1) == labels)
    np.add.at(images, (person, labels), 1)
    return (right / np.maximum(images, 1)).sum(1) / (images > 0).sum(1)


def worst(by: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often each person (R, P) is among the worst quarter of each draw, rounded up: those with the lowest value in
    `by` (P,), the first of equals. counts (R, P): how often each person was drawn.

    They are the same people for every predictor, so that predictors are compared on the same people, and they are
    chosen again in each draw, as they would be among other people.
    """
    order = np.argsort(by, kind="stable")
    ordered = counts[:, order]
    before = ordered.cumsum(1) - ordered
    number = np.ceil(counts.sum(1, keepdims=True) / WORST)
    taken = np.empty_like(ordered)
    taken[:, order] = np.clip(number - before, 0, ordered)
    return taken
