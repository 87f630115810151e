"""Scores of people against scikit-learn, person by person, on the people repeated as drawn.

How often the interval of the worst people holds, for docs/evidence.md: python tests/unit/evidence/test_people.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from engrec.evidence.people import aucs, balanced_accuracies, people_scores, worst
from engrec.evidence.statistics import Draws, interval
from engrec.metrics import METRICS

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")
WITHIN, WORST = (METRICS[key].label for key in ("auc_within", "worst_people"))


@st.composite
def predictions(draw):
    """Probabilities (N, K) in sixteenths, so that ties abound, labels, and people (N,), some of one class alone."""
    num_classes, num_people = draw(st.integers(2, 4)), draw(st.integers(1, 9))
    number = num_people + draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    person = rng.permutation(
        np.concatenate([np.arange(num_people), rng.integers(num_people, size=number - num_people)])
    )
    labels = rng.integers(num_classes, size=number)
    labels[person % 3 == 0] = 1
    return rng.multinomial(16, rng.dirichlet(np.ones(num_classes), number)) / 16, labels, person


def auc_of_one(probabilities, labels):
    """By scikit-learn, the mean over the classes that occur; NaN of a single one."""
    found = set(labels.tolist())
    areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in found] if len(found) > 1 else [np.nan]
    return np.mean(areas)


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_each_persons_scores_are_those_of_scikit_learn_on_that_persons_images(data):
    probabilities, labels, person = data
    own = [person == i for i in range(person.max() + 1)]
    expected = [auc_of_one(probabilities[i], labels[i]) for i in own]
    np.testing.assert_allclose(aucs(probabilities, labels, person), expected, rtol=1e-9)
    expected = [sk.balanced_accuracy_score(labels[i], probabilities[i].argmax(1)) for i in own]
    np.testing.assert_allclose(balanced_accuracies(probabilities, labels, person), expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(0, 99))
def test_on_a_draw_people_count_as_often_as_they_were_drawn(data, seed):
    probabilities, labels, person = data
    rng = np.random.default_rng(seed)
    reference = rng.permutation(probabilities)
    draws = Draws.sample(person, 6, seed)
    found = people_scores(labels, draws, reference)
    values = aucs(probabilities, labels, person)
    by, score = (balanced_accuracies(p, labels, person) for p in (reference, probabilities))
    assert (WITHIN in found) == (not np.isnan(values).all())
    assert (WORST in found) == (draws.num_groups >= 4)
    for r, times in enumerate(draws.counts.astype(int)):
        drawn = np.repeat(np.arange(draws.num_groups), times)
        if WITHIN in found:
            expected = np.nan if np.isnan(values[drawn]).all() else np.nanmean(values[drawn])
            assert found[WITHIN].resampled(probabilities[None])[r] == pytest.approx(expected, nan_ok=True)
        if WORST in found:
            lowest = drawn[np.argsort(by[drawn], kind="stable")][: int(np.ceil(len(drawn) / 4))]
            assert found[WORST].resampled(probabilities[None])[r] == pytest.approx(score[lowest].mean())


def test_the_point_is_of_everybody_once_and_counts_those_who_count():
    """Five people: the first of a single class; the reference is always wrong about the last two, who are the worst."""
    person, labels = np.repeat(np.arange(5), 4), np.tile([0, 1], 10)
    labels[:4] = 1
    right = np.eye(2)[labels]
    reference, p = right.copy(), right.copy()
    reference[12:] = 1 - reference[12:]
    p[12:14] = 1 - p[12:14]
    found = people_scores(labels, Draws.sample(person, 100), reference)
    assert found[WITHIN].num_people == 4
    assert found[WITHIN].points(p[None]) == pytest.approx([np.mean([1, 1, 0.5, 1])])
    assert found[WORST].once.tolist() == [0, 0, 0, 1, 1]
    assert found[WORST].points(np.stack([p, right])) == pytest.approx([0.75, 1])


def test_the_worst_are_a_quarter_rounded_up_and_the_first_of_equals():
    by = np.array([0.5, 0.2, 0.9, 0.2, 0.1])
    assert worst(by, np.ones((1, 5))).tolist() == [[0, 1, 0, 0, 1]]
    assert worst(by, np.array([[2.0, 0, 2, 1, 0]])).tolist() == [[1, 0, 0, 1, 0]]
    assert worst(by[:4], np.ones((1, 4))).tolist() == [[0, 1, 0, 0]]


def test_without_a_reference_nobody_is_the_worst():
    rng = np.random.default_rng(0)
    assert list(people_scores(np.arange(40) % 2, Draws.sample(np.arange(40) // 4), None)) == [WITHIN]
    assert people_scores(np.arange(8) // 4, Draws.sample(np.arange(8) // 4), rng.dirichlet([1, 1], 8)) == {}


def some_people(number, rng):
    """Scores of a reference and of a model, which are alike: hard for one, hard for the other."""
    hard, of_model = rng.normal(size=(2, number))
    return hard, 1 / (1 + np.exp(-(1.2 + 0.56 * hard + 0.56 * of_model)))


def share_covered(num_people, num_simulations, num_resamples):
    """How often the interval has the mean over the worst quarter of all people that there are."""
    rng = np.random.default_rng(0)
    by, score = some_people(1_000_000, rng)
    truth, hits = score[by <= np.quantile(by, 0.25)].mean(), 0
    for seed in range(num_simulations):
        by, score = some_people(num_people, rng)
        drawn = worst(by, Draws.sample(np.arange(num_people), num_resamples, seed).counts.astype(float))
        number = int(worst(by, np.ones((1, num_people))).sum())
        low, high = interval(drawn @ score / drawn.sum(1), number)
        hits += low <= truth <= high
    return hits / num_simulations


def test_the_interval_of_the_worst_covers_about_as_often_as_it_says():
    assert 0.86 <= share_covered(17, 300, 500) <= 0.98


if __name__ == "__main__":
    for people in (17, 40):
        print(f"{people} people: {100 * share_covered(people, 2000, 2000):.1f} %")
