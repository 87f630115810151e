"""Levels in order, as conditional probabilities."""

import math

import pytest
import torch
from torch.nn import functional as F

from engrec.modules.ordinal import Corn


def head(rows):
    """A head that answers with these conditional log-odds (B, K - 1), each image being a row of the identity."""
    conditional = torch.tensor(rows, dtype=torch.float)
    corn = Corn(len(rows), conditional.shape[1] + 1)
    with torch.no_grad():
        corn.weight.copy_(conditional.T)
        corn.bias.zero_()
        return corn(torch.eye(len(rows)))


def subsets(labels, num_levels):
    """The number of images in all conditional subsets, by which the paper divides."""
    return sum(int((labels >= k).sum()) for k in range(num_levels - 1))


def test_probabilities_are_products_of_conditional_ones():
    """Log-odds 0 and log 3 are the conditional probabilities 1/2 and 3/4."""
    found = head([[0, math.log(3)], [-math.log(4), 0]]).exp()
    torch.testing.assert_close(found, torch.tensor([[1 / 2, 1 / 8, 3 / 8], [4 / 5, 1 / 10, 1 / 10]]))


def test_the_loss_is_that_of_the_paper_by_hand():
    """Levels 0 and 2: subset 0 has both images, with log 2 each, subset 1 the second, with log 4/3."""
    labels = torch.tensor([0, 2])
    loss = F.cross_entropy(head([[0, math.log(3)]] * 2), labels, reduction="sum")
    assert loss.item() == pytest.approx(2 * math.log(2) + math.log(4 / 3), rel=1e-6)
    assert subsets(labels, 3) == 3


def test_the_loss_is_that_of_the_reference_implementation():
    """The example in the documentation of coral_pytorch.losses.corn_loss: 0.7127."""
    torch.manual_seed(123)
    images, labels = torch.rand(8, 99), torch.tensor([0, 1, 2, 2, 2, 3, 4, 4])
    corn = Corn(99, 5)
    loss = F.cross_entropy(corn(images), labels, reduction="sum") / subsets(labels, 5)
    assert loss.item() == pytest.approx(0.7127, abs=5e-5)


def test_each_subset_is_a_binary_problem():
    """Against torch's binary cross-entropy, subset by subset."""
    torch.manual_seed(0)
    labels, corn, features = torch.randint(5, (200,)), Corn(7, 5), torch.randn(200, 7)
    conditional = F.linear(features, corn.weight, corn.bias)
    expected = sum(
        F.binary_cross_entropy_with_logits(
            conditional[labels >= k, k], (labels[labels >= k] > k).float(), reduction="sum"
        )
        for k in range(4)
    )
    torch.testing.assert_close(F.cross_entropy(corn(features), labels, reduction="sum"), expected)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_they_are_log_probabilities_however_large_the_outputs(size):
    torch.manual_seed(0)
    found = head((size * torch.randn(20, 3)).tolist())
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp().sum(1), torch.ones(20))
    torch.testing.assert_close(found.log_softmax(1), found, rtol=1e-5, atol=1e-5)


def test_two_levels_are_a_logistic_regression():
    torch.testing.assert_close(head([[0.3], [-2.0]]).exp()[:, 1], torch.tensor([0.3, -2.0]).sigmoid())


def test_under_autocast_the_sums_are_single_precision():
    corn, features = Corn(8, 4), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = corn(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(1), torch.ones(5))
