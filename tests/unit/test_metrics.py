import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from engrec.metrics import (
    accuracy,
    auc,
    balanced_accuracy,
    confusion_matrix,
    f1,
    log_odds,
    mean_absolute_error,
    mean_squared_error,
    quadratic_weighted_kappa,
    recalls,
    roc,
)
from engrec.modules.scores import Scores

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")


@st.composite
def predictions(draw):
    """Logits (B, K), few different ones so that ties abound, and targets, in which classes may be absent."""
    num_classes, num_samples = draw(st.integers(2, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    spread = draw(st.sampled_from([1, 3, 1000]))
    logits = rng.integers(-spread, spread + 1, (num_samples, num_classes)) / 8  # differences of eighths are exact
    targets = rng.choice(rng.permutation(num_classes)[: draw(st.integers(1, num_classes))], num_samples)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets)


def same(ours, expected):
    return np.isclose(float(ours), expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@settings(max_examples=200, deadline=None)
@given(predictions())
def test_hard_decisions_are_scored_as_scikit_learn_does(data):
    logits, targets = data
    num_classes, predicted = logits.shape[1], logits.argmax(1)
    labels = list(range(num_classes))
    assert np.array_equal(confusion_matrix(logits, targets), sk.confusion_matrix(targets, predicted, labels=labels))
    assert same(accuracy(logits, targets), sk.accuracy_score(targets, predicted))
    assert same(balanced_accuracy(logits, targets), sk.balanced_accuracy_score(targets, predicted))
    expected = sk.recall_score(targets, predicted, labels=labels, average=None, zero_division=np.nan)
    np.testing.assert_allclose(recalls(logits, targets), expected)
    if num_classes == 2:
        assert same(f1(logits, targets), sk.f1_score(targets, predicted, zero_division=np.nan))
    else:
        assert same(f1(logits, targets), sk.f1_score(targets, predicted, average="macro"))


@settings(max_examples=200, deadline=None)
@given(predictions())
def test_levels_are_scored_as_scikit_learn_does(data):
    logits, targets = data
    predicted, levels = logits.argmax(1), list(range(logits.shape[1]))
    assert same(mean_absolute_error(logits, targets), sk.mean_absolute_error(targets, predicted))
    expected = logits.double().softmax(1).numpy() @ np.linspace(0, 1, len(levels))
    share = targets.double() / (len(levels) - 1)
    assert same(mean_squared_error(logits, targets), sk.mean_squared_error(share, expected))
    kappa = quadratic_weighted_kappa(logits, targets)
    if len(targets.unique()) == 1 and (predicted == targets).all():
        assert kappa.isnan()
    else:
        assert same(kappa, sk.cohen_kappa_score(targets, predicted, labels=levels, weights="quadratic"))


def test_levels_that_are_far_off_cost_more():
    """Three levels, each once: one is wrong by one level, or by two."""
    targets, right = torch.arange(3), torch.eye(3)
    by_one, by_two = right[[0, 1, 1]], right[[0, 1, 0]]
    assert (mean_absolute_error(by_one, targets), mean_absolute_error(by_two, targets)) == (1 / 3, 2 / 3)
    assert quadratic_weighted_kappa(right, targets) == 1
    assert quadratic_weighted_kappa(by_one, targets) > 2 * quadratic_weighted_kappa(by_two, targets)


def test_scores_of_levels_are_those_of_classes_in_order_alone():
    logits, targets, loss = torch.randn(20, 3), torch.arange(20) % 3, torch.rand(20)
    plain, ordered = Scores(3), Scores(3, ordered=True)
    for scores in (plain, ordered):
        scores.update(logits, targets, loss)
    functions = {"qwk": quadratic_weighted_kappa, "mae": mean_absolute_error, "mse": mean_squared_error}
    more = {name: function(logits, targets) for name, function in functions.items()}
    values = plain.compute() | {name: value.float() for name, value in more.items()}
    torch.testing.assert_close(ordered.compute(), values)


@settings(max_examples=200, deadline=None)
@given(predictions())
def test_auc_is_that_of_scikit_learn_or_nan(data):
    logits, targets = data
    num_classes = logits.shape[1]
    if len(targets.unique()) < num_classes:
        assert auc(logits, targets).isnan()
        return
    # Log-odds one by one: a softmax would tie the confident ones.
    odds = [
        [row[k] - np.logaddexp.reduce(np.delete(row, k)) for k in range(num_classes)] for row in logits.double().numpy()
    ]
    odds = np.array(odds, dtype=np.float32)
    expected = np.mean([sk.roc_auc_score(targets == k, odds[:, k]) for k in range(num_classes)])
    assert same(auc(logits, targets), expected)


@settings(max_examples=50, deadline=None)
@given(predictions(), st.integers(1, 7), st.integers(0, 99))
def test_scores_do_not_depend_on_batches_or_order(data, batch_size, seed):
    logits, targets = data
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    whole, parts = Scores(logits.shape[1]), Scores(logits.shape[1])
    whole.update(logits, targets, loss)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(targets)))
    for index in order.split(batch_size):
        parts.update(logits[index], targets[index], loss[index])
    one, two = whole.compute(), parts.compute()
    assert one.keys() == two.keys() == {"accuracy", "balanced_accuracy", "f1", "auc", "recalls", "loss"}
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-5 if name == "loss" else 0, atol=1e-6, equal_nan=True)


def test_scores_by_hand():
    """Four samples: class 1 is found in 1 of 2, class 0 in 2 of 2; of the four pairs three are ranked rightly."""
    scores = Scores(2)
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.5, 0.0], [0.0, 1.0]])
    scores.update(logits, torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    values = scores.compute()
    assert values.pop("recalls").tolist() == [1, 0.5]
    expected = {"accuracy": 3 / 4, "balanced_accuracy": 3 / 4, "f1": 2 / 3, "auc": 3 / 4, "loss": 0.25}
    assert {name: value.item() for name, value in values.items()} == pytest.approx(expected)
    scores.reset()
    scores.update(logits[:2], torch.tensor([0, 0]), torch.tensor([1.0, 3.0]))
    values = scores.compute()
    assert values.pop("recalls").tolist() == pytest.approx([1, np.nan], nan_ok=True)
    expected = {"accuracy": 1, "balanced_accuracy": 1, "f1": np.nan, "auc": np.nan, "loss": 2}
    assert {name: value.item() for name, value in values.items()} == pytest.approx(expected, nan_ok=True)


def test_confident_logits_keep_their_order():
    logits = torch.tensor([[0.0, 200.0], [0.0, 300.0], [0.0, 400.0], [0.0, 500.0]])
    assert logits.softmax(1)[:, 1].unique().numel() == 1
    assert auc(logits, torch.tensor([0, 0, 1, 1])) == 1
    logits = torch.cat((logits, torch.zeros(4, 1)), dim=1)
    assert logits.softmax(1)[:, 1].unique().numel() == 1
    assert log_odds(logits)[:, 1].unique().numel() == 4


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_equal_rows_tie_wherever_they_are(num_classes):
    for num_samples in (11, 37, 1001):
        logits = torch.randn(1, num_classes).expand(num_samples, -1).clone()
        assert auc(logits, torch.arange(num_samples) % num_classes) == 0.5


def test_logits_may_be_log_probabilities():
    logits, targets = torch.randn(200, 4), torch.arange(200) % 4
    assert auc(logits.log_softmax(1), targets) == pytest.approx(auc(logits, targets).item(), abs=1e-4)


def test_what_two_ranks_saw_is_scored_together():
    logits, targets, loss = torch.randn(20, 3), torch.arange(20) % 3, torch.rand(20)
    whole, *ranks = Scores(3), Scores(3), Scores(3)
    whole.update(logits, targets, loss)
    for rank, index in zip(ranks, (slice(0, 7), slice(7, 20)), strict=True):
        rank.update(logits[index], targets[index], loss[index])
    ranks[0].merge_state(ranks[1])
    torch.testing.assert_close(ranks[0].compute(), whole.compute())


def test_a_network_that_diverged_has_no_scores():
    scores = Scores(2)
    scores.update(torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1]), torch.full((4,), torch.nan))
    assert all(value.isnan().all() for value in scores.compute().values())


def test_update_keeps_no_graph_and_takes_half_precision():
    scores, logits = Scores(3), torch.randn(6, 3, dtype=torch.bfloat16, requires_grad=True)
    scores.update(logits, torch.arange(6) % 3, logits.float().sum(1))
    assert not any(tensor.requires_grad for tensor in (*scores.logits, scores.loss_sum))
    assert {value.dtype for value in scores.compute().values()} == {torch.float32}


@pytest.mark.parametrize("number", [2, 40, 400])
@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_the_roc_curve_is_exact_where_it_is_short(number, decimals):
    """Ties included: the area under it is the AUC, and its points are those that scikit-learn finds."""
    rng = np.random.default_rng(number)
    scores = rng.random(number).round(decimals)
    positive = np.append(rng.random(number - 2) < 0.4, [True, False]) if number > 2 else np.array([True, False])
    points = roc(scores, positive, 500)
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(sk.roc_auc_score(positive, scores), abs=1e-12)
    false, true, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    assert {tuple(p) for p in points.round(12)} <= {tuple(p) for p in np.stack([false, true], 1).round(12)}


def test_a_long_roc_curve_is_thinned_to_exact_points():
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.3
    scores = positive + rng.normal(size=20_000)
    points = roc(scores, positive, 500)
    assert len(points) == 500
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    counts = points * [(~positive).sum(), positive.sum()]
    for false, true in counts[1:-1].round():
        threshold = np.sort(scores)[::-1][int(false + true) - 1]
        assert ((scores >= threshold) & positive).sum() == true
        assert ((scores >= threshold) & ~positive).sum() == false
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(sk.roc_auc_score(positive, scores), abs=1e-4)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_without_one_of_the_two_kinds_there_is_no_roc_curve(positive):
    assert len(roc(np.array([0.1, 0.2]), np.array(positive), 500)) == 0
