"""Scores against scikit-learn on the samples repeated as drawn; intervals and tests against their promised error.

How often intervals hold, for docs/evidence.md: python tests/unit/evidence/test_statistics.py
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from sklearn import metrics as sk

from engrec.evidence.statistics import Drawn, Draws, auc, interval, logit_interval, mcnemar, p_value, scores
from engrec.metrics import NUM_BINS, compared

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")


@st.composite
def predictions(draw, most=40):
    """Probabilities (N, K) in sixteenths, so that ties abound, and labels, in which classes may be absent."""
    num_classes, number = draw(st.integers(2, 3)), draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    present = rng.permutation(num_classes)[: draw(st.integers(1, num_classes))]
    lean = rng.dirichlet(np.full(num_classes, draw(st.sampled_from([0.1, 1, 9]))), number)
    return rng.multinomial(16, lean) / 16, rng.choice(present, number)


def reference(probabilities, labels):
    """The same scores by scikit-learn; the calibration error bin by bin, from its definition."""
    num_classes, predicted = probabilities.shape[1], probabilities.argmax(1)
    binary = {"pos_label": 1, "zero_division": np.nan} if num_classes == 2 else {"average": "macro"}
    every = set(labels.tolist())
    areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in every] if len(every) == num_classes else np.nan
    confidence, error = probabilities.max(1), 0.0
    for k in range(NUM_BINS):
        inside = (confidence > k / NUM_BINS) & (confidence <= (k + 1) / NUM_BINS)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - (predicted == labels)[inside].mean())
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced accuracy": sk.balanced_accuracy_score(labels, predicted),
        "F1": sk.f1_score(labels, predicted, **binary),
        "AUC": np.mean(areas),
        "ECE": error,
    }


def assert_equal_scores(found, expected):
    assert list(found) == list(compared())
    for name in compared():
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_scores_of_all_samples_are_those_of_scikit_learn(data):
    probabilities, labels = data
    found = scores(probabilities, labels, Draws.all_once(len(labels)))
    assert_equal_scores(found, {name: [value] for name, value in reference(probabilities, labels).items()})


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 8), st.integers(0, 99))
def test_scores_on_a_draw_are_those_of_the_samples_repeated_as_drawn(data, num_groups, seed):
    probabilities, labels = data
    groups = np.random.default_rng(seed).integers(num_groups, size=len(labels))
    draws = Draws.sample(groups, 5, seed)
    found = scores(probabilities, labels, draws)
    for r, counts in enumerate(draws.counts.astype(int)):
        times = counts[draws.group]
        again = reference(np.repeat(probabilities, times, axis=0), np.repeat(labels, times))
        if len(np.unique(labels[times > 0])) < len(np.unique(labels)):  # a mean over other classes is another score
            again |= {"balanced accuracy": np.nan, "F1": np.nan}
        assert_equal_scores({name: values[r] for name, values in found.items()}, again)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_draws_in_blocks_are_scored_as_one_by_one(num_classes):
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(num_classes, size=3000), rng.dirichlet(np.ones(num_classes), 3000)
    draws = Draws.sample(rng.integers(12, size=3000), 1500)
    blocks = list(draws.weights())
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), draws.counts[:, draws.group])
    areas = scores(probabilities, labels, draws)["AUC"]
    assert areas.shape == (1500,)
    for r in (0, len(blocks[0]) - 1, len(blocks[0]), 1499):
        alone = Draws(draws.group, draws.counts[r : r + 1])
        assert areas[r] == pytest.approx(scores(probabilities, labels, alone)["AUC"][0], rel=1e-12)


def test_confident_predictions_are_scored_too():
    probabilities = np.array([[0.0, 1.0], [1.0, 0.0], [1e-30, 1.0], [1.0, 1e-30]])
    found = scores(probabilities, np.array([1, 0, 1, 0]), Draws.all_once(4))
    assert {name: value.item() for name, value in found.items()} == {**dict.fromkeys(list(compared())[:4], 1), "ECE": 0}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40), st.integers(0, 9))
def test_draws_are_of_whole_groups_as_many_as_there_are(groups, seed):
    groups = np.array(groups)
    draws = Draws.sample(groups, 30, seed)
    assert draws.num_groups == len(set(groups.tolist()))
    assert draws.counts.shape == (30, draws.num_groups)
    assert (draws.counts.sum(1) == draws.num_groups).all()
    weights = np.concatenate(list(draws.weights()))
    for name in set(groups.tolist()):
        of = weights[:, groups == name]
        assert (of == of[:, :1]).all()
    again = Draws.sample(groups, 30, seed)
    np.testing.assert_array_equal(draws.counts, again.counts)


def test_draws_are_even_and_follow_the_seed():
    groups = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    draws = Draws.sample(groups, 20_000)
    error = np.sqrt(5 / 6 / 20_000)  # of a mean count, which is binomial with six tries of one in six
    assert np.abs(draws.counts.mean(0) - 1).max() < 4 * error
    assert (draws.counts != Draws.sample(groups, 20_000, seed=1).counts).any()
    assert len(np.unique(Draws.sample(np.arange(3), 500).counts, axis=0)) == 10  # every way to draw three of three


def test_the_order_of_the_samples_does_not_change_what_is_drawn():
    groups = np.repeat(["x", "y", "z"], 4)
    order = np.random.default_rng(0).permutation(12)
    one, two = Draws.sample(groups), Draws.sample(groups[order])
    np.testing.assert_array_equal(one.counts[:, one.group[order]], two.counts[:, two.group])


def clustered(num_subjects, num_simulations, seed=0):
    """Who is seen (N,), and whether images are recognised (N, num_simulations); the true accuracy is 2 / 3.

    Some people are recognised more often than others, so that a second image of a person says less than a first.
    """
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(num_subjects), 15 + 7 * np.arange(num_subjects) % 11)
    recognised = rng.beta(4, 2, (num_subjects, num_simulations))[subject]
    return subject, (rng.random(recognised.shape) < recognised).astype(float)


def means(groups, values, num_resamples=1000):
    """The mean of each simulation on each draw, (num_simulations, num_resamples), and the number of groups."""
    draws = Draws.sample(groups, num_resamples)
    return (draws.sums(values) / draws.sums(np.ones((len(values), 1)))).T, draws.num_groups


def covered(intervals, truth=2 / 3):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_the_interval_covers_as_often_as_it_says_and_one_over_images_does_not():
    subject, right = clustered(17, 1000)
    drawn, number = means(subject, right)
    assert 0.92 <= covered(interval(values, number) for values in drawn) <= 0.98
    assert covered(interval(values, number, level=0.8) for values in drawn) == pytest.approx(0.8, abs=0.05)
    drawn, number = means(np.arange(len(subject)), right)
    assert covered(interval(values, number) for values in drawn) < 0.8


def test_few_people_need_the_expanded_percentiles():
    """Five people are too few for 95 % even so: the bootstrap never sees a person who is not among them."""
    subject, right = clustered(5, 1000)
    drawn, number = means(subject, right)
    plain = covered(np.quantile(drawn, [0.025, 0.975], axis=1).T)
    expanded = covered(interval(values, number) for values in drawn)
    assert plain < 0.86
    assert expanded > max(0.88, plain + 0.04)


def ranked(num_people, unlike, num_simulations, num_resamples=1000, shift=1.2):
    """Of each simulation the AUC and its values on the draws (R,); then the AUC among all people that there are.

    A score is normal around shift, or -shift for the rare class, and around the person; unlike: how far people differ.
    """
    rng = np.random.default_rng(0)
    rare = 4 + 7 * np.arange(num_people) % 11
    person = np.repeat(np.arange(num_people), rare + 40)
    labels = np.concatenate([np.arange(number + 40) >= number for number in rare]).astype(int)
    found = []
    for seed in range(num_simulations):
        own = rng.normal(0, unlike, num_people)[person]
        positive = expit(shift * (2 * labels - 1) + own + rng.normal(size=len(labels)))
        probabilities, draws = np.stack([1 - positive, positive], 1), Draws.sample(person, num_resamples, seed)
        once, drawn = (auc(Drawn(probabilities, labels, of)) for of in (Draws.all_once(len(labels)), draws))
        found.append((float(once[0]), drawn))
    return found, stats.norm.cdf(2 * shift / np.sqrt(2 * (unlike**2 + 1)))


def test_the_interval_of_an_auc_covers_more_often_than_percentiles_do():
    found, truth = ranked(17, 0.6, 400, 400)
    on_log_odds = covered((logit_interval(value, drawn, 17) for value, drawn in found), truth)
    assert on_log_odds > 0.91
    assert on_log_odds > covered((interval(drawn, 17) for _, drawn in found), truth)


def test_the_interval_of_an_auc_is_inside_zero_and_one_and_that_of_percentiles_where_it_has_no_log_odds():
    drawn = np.random.default_rng(0).beta(30, 2, 500)
    low, high = logit_interval(30 / 32, drawn, 9)
    assert 0 < low < interval(drawn, 9)[0] < 30 / 32 < high < 1
    assert logit_interval(30 / 32, np.append(drawn, np.nan), 9) == (low, high)
    for value, values in ((1.0, np.ones(9)), (0.0, np.zeros(9)), (0.5, np.full(9, np.nan)), (np.nan, drawn)):
        np.testing.assert_array_equal(logit_interval(value, values, 9), interval(values, 9))
    assert logit_interval(0.5, np.full(9, 0.5), 9) == (0.5, 0.5)
    assert np.isnan(logit_interval(0.9, drawn, 1)).all()


@pytest.mark.parametrize("num_subjects", [8, 17])
def test_p_is_small_as_often_as_it_says_when_there_is_no_difference(num_subjects):
    """Two models on the same images, each better with some people, neither better on the whole."""
    (subject, one), (_, other) = (clustered(num_subjects, 2000, seed) for seed in (1, 2))
    drawn, number = means(subject, one - other)
    p = np.array([p_value(values, number) for values in drawn])
    assert 0.025 <= (p < 0.05).mean() <= 0.08
    assert 0.42 <= (p < 0.5).mean() <= 0.58
    assert ((p > 0) & (p <= 1)).all()


@settings(max_examples=300, deadline=None)
@given(st.integers(5, 200), st.integers(0, 10_000), st.floats(-4, 4), st.booleans())
def test_p_is_under_5_percent_exactly_when_the_interval_leaves_out_0(num_groups, seed, shift, coarse):
    values = np.random.default_rng(seed).normal(shift, 1, 2000)
    values = values.round(1) if coarse else values
    low, high = interval(values, num_groups)
    assume(min(abs(low), abs(high)) > 1e-9 or low == 0 or high == 0)
    assert (p_value(values, num_groups) < 0.05) == (low > 0 or high < 0)
    assert p_value(values, num_groups) == pytest.approx(p_value(-values, num_groups), rel=1e-9)


def test_p_falls_as_the_difference_grows_and_never_reaches_0():
    values = np.random.default_rng(0).normal(size=2000)
    falling = [p_value(values + shift, 17) for shift in (0, 0.5, 1, 2, 3, 10)]
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 0.01
    assert p_value(np.zeros(2000), 17) == 1
    assert p_value(np.append(np.zeros(1999), 1), 17) == 1


def test_of_four_people_no_difference_is_certain():
    """All draws of them may be above 0, and the interval with them; draws of other people would not all be."""
    values = np.random.default_rng(0).uniform(1, 2, 2000)
    assert interval(values, 4)[0] > 0
    assert p_value(values, 4) > 0.05
    assert p_value(values, 5) < 0.05


def test_undefined_values_do_not_count():
    values = np.random.default_rng(0).normal(1, 1, 400)
    mixed = np.full(500, np.nan)
    mixed[::5], mixed[1::5], mixed[2::5], mixed[3::5] = values[:100], values[100:200], values[200:300], values[300:]
    assert interval(mixed, 9) == interval(values, 9)
    assert p_value(mixed, 9) == p_value(values, 9)
    for nothing in (interval(np.full(9, np.nan), 9), interval(values, 1), interval(np.empty(0), 9)):
        assert np.isnan(nothing).all()
    assert np.isnan(p_value(np.full(9, np.nan), 9))
    assert np.isnan(p_value(values, 1))


def test_of_two_groups_the_interval_is_all_that_was_drawn():
    """Student's t with one degree of freedom reaches beyond every percentile of 2,000 draws."""
    draws = Draws.sample(np.array(["a", "a", "b"]))
    means = (draws.sums(np.array([[1.0], [1.0], [4.0]])) / draws.sums(np.ones((3, 1))))[:, 0]
    assert sorted(set(means.tolist())) == [1, 2, 4]
    assert interval(means, 2) == pytest.approx((1, 4))


def test_a_wider_level_is_a_wider_interval_and_many_groups_give_the_plain_percentiles():
    values = np.random.default_rng(0).normal(size=5000)
    edges = [interval(values, 12, level) for level in (0.5, 0.8, 0.95, 0.99)]
    assert all(b[0] < a[0] < a[1] < b[1] for a, b in pairwise(edges))
    np.testing.assert_allclose(interval(values, 10**6), np.quantile(values, [0.025, 0.975]), atol=1e-4)


def enumerated(few, number):
    """P(at most few, or as far the other way) of `number` fair coins, by Pascal's triangle."""
    ways = [1]
    for _ in range(number):
        ways = [a + b for a, b in zip([0, *ways], [*ways, 0], strict=True)]
    return min(1.0, 2 * sum(ways[: few + 1]) / 2**number)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements(pairs):
    right, other = np.array(pairs).T
    only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    assert mcnemar(right, other) == pytest.approx(enumerated(min(only), sum(only)))
    assert mcnemar(right, other) == mcnemar(other, right)
    if sum(only):
        assert mcnemar(right, other) == pytest.approx(stats.binomtest(only[0], sum(only), 0.5).pvalue)
    assert mcnemar(right, right) == 1


if __name__ == "__main__":
    for people in (17, 5):
        subject, right = clustered(people, 2000)
        drawn, number = means(subject, right)
        over_images, images = means(np.arange(len(subject)), right)
        shares = {
            "expanded percentile": covered(interval(values, number) for values in drawn),
            "plain percentile": covered(np.quantile(drawn, [0.025, 0.975], axis=1).T),
            "over images": covered(interval(values, images) for values in over_images),
        }
        print(f"{people} people:", ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()))
    for unlike in (0.6, 1.0):
        found, truth = ranked(17, unlike, 2000, 2000)
        shares = {
            "log odds": covered((logit_interval(value, drawn, 17) for value, drawn in found), truth),
            "expanded percentile": covered((interval(drawn, 17) for _, drawn in found), truth),
        }
        print(
            f"AUC {truth:.3f}, people differ by {unlike}:",
            ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()),
        )
