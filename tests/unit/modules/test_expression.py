"""Labels of one annotator, or the votes of many."""

import numpy as np
import pytest
import torch


def batch(num_images=6):
    generator = torch.Generator().manual_seed(1)
    votes = torch.rand(num_images, 3, generator=generator)
    return torch.randn(num_images, 3, generator=generator), {
        "labels": torch.arange(num_images) % 3,
        "soft_labels": votes / votes.sum(1, keepdim=True),
    }


def test_the_loss_is_the_cross_entropy_of_the_label(expression):
    logits, given = batch()
    expected = [-logits[i].log_softmax(0)[label] for i, label in enumerate(given["labels"])]
    torch.testing.assert_close(expression().criterion(logits, given), torch.stack(expected))


def test_the_loss_of_soft_labels_is_the_cross_entropy_of_the_distribution(expression):
    logits, given = batch()
    expected = -(given["soft_labels"] * (logits - logits.logsumexp(1, keepdim=True))).sum(1)
    torch.testing.assert_close(expression(soft_labels=True).criterion(logits, given), expected)


def test_soft_labels_that_are_certain_are_labels(expression):
    logits, given = batch()
    certain = given | {"soft_labels": torch.eye(3)[given["labels"]]}
    hard, soft = (expression(soft_labels=soft).criterion(logits, certain) for soft in (False, True))
    torch.testing.assert_close(soft, hard)


@pytest.mark.parametrize("soft_labels", [False, True])
def test_label_smoothing_mixes_in_all_classes_alike(expression, soft_labels):
    logits, given = batch()
    target = given["soft_labels"] if soft_labels else torch.eye(3)[given["labels"]]
    expected = -((0.7 * target + 0.3 / 3) * logits.log_softmax(1)).sum(1)
    module = expression(soft_labels=soft_labels, label_smoothing=0.3)
    torch.testing.assert_close(module.criterion(logits, given), expected)


def test_training_on_soft_labels_is_another_training(expression, make_data, make_trainer):
    votes = np.random.default_rng(0).dirichlet(np.ones(3), 30).astype(np.float32)
    data, weights = make_data(num_classes=3, soft_labels=votes), []
    for soft_labels in (False, True):
        module = expression(soft_labels=soft_labels)
        make_trainer().fit(module, data)
        weights.append(module.head.weight.detach())
    assert not torch.allclose(*weights)


def test_trained_on_votes_it_can_be_scored_where_there_are_only_labels(expression):
    logits, given = batch()
    votes = given.pop("soft_labels")
    losses = [expression(soft_labels=soft).criterion(logits, given) for soft in (True, False)]
    assert torch.equal(*losses)
    assert not torch.allclose(losses[0], expression(soft_labels=True).criterion(logits, given | {"soft_labels": votes}))
