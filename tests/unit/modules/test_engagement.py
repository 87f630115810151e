"""Few labels: classes that are weighted, a backbone that learns slowly or not at all."""

import pytest
import torch

from engrec.modules.engagement import weights_of_classes


@pytest.mark.parametrize("weights", ["balanced", None, [1, 2, 3], [0.1, 5.0, 1.0]])
@pytest.mark.parametrize("counts", [[90, 9, 1], [5, 5, 5], [1, 1000, 10]])
def test_the_mean_weight_over_training_images_is_1(weights, counts):
    per_class = weights_of_classes(weights, counts)
    over_images = per_class.repeat_interleave(torch.tensor(counts))
    assert over_images.mean().item() == pytest.approx(1, rel=1e-5)


def test_balanced_classes_weigh_the_same_in_all():
    counts = torch.tensor([90, 9, 1])
    totals = weights_of_classes("balanced", counts.tolist()) * counts
    torch.testing.assert_close(totals, totals[0].expand(3))


def test_given_weights_keep_their_ratio():
    weights = weights_of_classes([1, 4], [30, 10])
    assert (weights[1] / weights[0]).item() == pytest.approx(4)


@pytest.mark.parametrize("weights", ["balance", [1, 2, 3], []])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"class_weights=.*balanced, null, or 2 numbers"):
        weights_of_classes(weights, [3, 4])


def test_the_loss_of_an_image_is_weighted_by_its_class(engagement):
    logits, labels = torch.randn(8, 2), torch.arange(8) % 2
    plain, weighted = (
        engagement(class_weights=w).criterion(logits, {"labels": labels}) for w in (None, [1, 3])
    )  # 12 and 4 training images: weights 2/3 and 2
    torch.testing.assert_close(weighted, plain * torch.tensor([2 / 3, 2.0])[labels])


@pytest.mark.parametrize("batch_sizes", [[16], [8, 8], [1, 15], [3] * 5 + [1]])
def test_the_loss_does_not_depend_on_how_images_are_batched(engagement, batch_sizes):
    module = engagement(class_weights="balanced")
    logits, labels = torch.randn(16, 2), torch.arange(16) % 2
    parts = zip(logits.split(batch_sizes), labels.split(batch_sizes), strict=True)
    total = sum(module.criterion(x, {"labels": y}).sum() for x, y in parts)
    torch.testing.assert_close(total / 16, module.criterion(logits, {"labels": labels}).mean())


def test_a_frozen_backbone_stays_to_the_last_bit(engagement, make_data, make_trainer):
    """Weights, and BatchNorm's statistics, which change in a forward pass alone."""
    module = engagement(freeze_backbone=True, class_weights="balanced")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    make_trainer(2).fit(module, make_data())
    assert any("running_mean" in name for name in before)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name
    assert all(p.grad is None for p in module.backbone.parameters())


def test_a_frozen_backbone_has_no_dropout(engagement):
    module = engagement(freeze_backbone=True)
    images = torch.randn(4, 1, 16, 16)
    for _ in range(2):
        assert torch.equal(module.backbone(images), module.backbone(images))
        assert module.head.training
        module.train()


def test_a_backbone_that_is_not_frozen_learns(engagement, make_data, make_trainer):
    module = engagement()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    make_trainer().fit(module, make_data())
    assert not any(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("factor", [0.3, 1.0, 0.0])
def test_the_backbone_has_its_own_learning_rate(engagement, factor):
    module = engagement(backbone_lr_factor=factor)
    optimizer = module.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in module.backbone.parameters()} == {0.1 * factor}
    assert {rates[id(p)] for p in module.head.parameters()} == {0.1}


def test_a_frozen_backbone_is_not_given_to_the_optimizer(engagement):
    module = engagement(freeze_backbone=True)
    given = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert given == {id(p) for p in module.head.parameters()}


def test_class_weights_are_not_in_the_state(engagement):
    """A checkpoint is tested on data with other counts."""
    assert not any("class_weights" in name for name in engagement(class_weights="balanced").state_dict())
