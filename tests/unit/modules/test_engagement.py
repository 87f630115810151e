"""Few labels: classes that are weighted, a backbone that learns slowly, stays near its start, or not at all."""

import copy

import pytest
import torch
from torch.nn import functional as F

from engrec.modules.engagement import weights_of_classes
from engrec.modules.stages import stages


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


def test_the_backbone_learns_stage_by_stage(engagement):
    """The last stage has the backbone's rate; weights are decayed as without."""
    module = engagement(layer_decay=0.5, backbone_lr_factor=0.2)
    groups = module.configure_optimizers().param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    parts = stages(module.backbone)
    for distance, part in enumerate(reversed(parts)):
        found = [rates[id(p)] for p in part.parameters()]
        assert found == pytest.approx([0.1 * 0.2 * 0.5**distance] * len(found))
    assert {rates[id(p)] for p in module.head.parameters()} == {0.1}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert all(decays[id(p)] == (0.01 if p.ndim > 1 else 0.0) for p in module.parameters())


def test_frozen_statistics_stay_while_all_weights_learn(engagement, make_data, make_trainer):
    module = engagement(freeze_backbone="statistics")
    module.backbone.train()  # as somebody may who tries the backbone alone
    before = {name: value.clone() for name, value in module.state_dict().items()}
    make_trainer(2).fit(module, make_data())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert any(name.endswith(statistics) for name in before)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == name.endswith(statistics), name


def test_frozen_statistics_leave_dropout_on(engagement):
    module, images = engagement(freeze_backbone="statistics"), torch.randn(4, 1, 16, 16)
    assert not torch.equal(module.backbone(images), module.backbone(images))
    assert torch.equal(module.eval().backbone(images), module.backbone(images))


def test_the_pull_is_the_gradient_of_a_weight_decay_to_the_start(engagement, make_data, make_trainer):
    """One step of plain SGD from weights that have moved: lr · α · (w - w₀) more than without."""
    plain = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.01}
    moved, start = [], None
    for alpha in (1e-9, 0.5):
        module = engagement(optimizer=plain, l2_sp=alpha)
        start = [p.detach().clone() for p in module.pulled()]
        module.start = [tensor.clone() for tensor in start]
        with torch.no_grad():
            for p in module.pulled():
                p.add_(1.0)
        make_trainer(1, limit_train_batches=1).fit(module, make_data())
        moved.append([p.detach().clone() for p in module.pulled()])
    for without, pulled in zip(*moved, strict=True):
        torch.testing.assert_close(without - pulled, torch.full_like(pulled, 0.1 * 0.5), rtol=1e-3, atol=1e-5)


def test_what_is_pulled_is_not_decayed(engagement):
    for settings in ({}, {"layer_decay": 0.5}):
        groups = engagement(l2_sp=0.1, **settings).configure_optimizers().param_groups
        assert [group["weight_decay"] for group in groups] == [0.01] + [0.0] * (len(groups) - 1)  # the head's first


def test_a_strong_pull_keeps_the_backbone_near_its_start(engagement, make_data, make_trainer):
    distances = []
    for alpha in (1e-6, 3.0):
        module = engagement(l2_sp=alpha)
        start = [p.detach().clone() for p in module.pulled()]
        make_trainer(3).fit(module, make_data())
        distances.append(sum(float((p - w).square().sum()) for p, w in zip(module.pulled(), start, strict=True)))
    assert distances[1] < 0.1 * distances[0]


def test_training_that_is_pulled_resumes_exactly(engagement, make_data, make_trainer, tmp_path):
    """With the start from the checkpoint: the module that resumes has begun with other weights."""
    whole = engagement(l2_sp=0.5)
    make_trainer(4).fit(whole, make_data())
    first = engagement(l2_sp=0.5)
    trainer = make_trainer(2)
    trainer.fit(first, make_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.save_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    resumed = engagement(l2_sp=0.5)
    with torch.no_grad():
        for p in resumed.parameters():
            p.add_(1.0)
    make_trainer(4).fit(resumed, make_data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert "start" not in torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert not any("start" in name for name in whole.state_dict())


def test_the_pull_is_not_part_of_the_loss_that_is_logged(engagement, make_data, make_trainer):
    logged = []
    for alpha in (None, 1e3):
        optimizer = {"_target_": "torch.optim.SGD", "lr": 1e-12}
        module = engagement(l2_sp=alpha, optimizer=optimizer)
        module.start = [p.detach() + 1 for p in module.pulled()] if alpha else []
        trainer = make_trainer()
        trainer.fit(module, make_data())
        logged.append(trainer.callback_metrics["train/loss"].item())
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)


def test_adjusted_logits_are_shifted_by_the_classes_shares(engagement):
    """12 and 4 training images: log 3/4 and log 1/4, times τ."""
    logits, labels = torch.randn(8, 2), torch.arange(8) % 2
    found = engagement(logit_adjustment=2.0).criterion(logits, {"labels": labels})
    shifted = logits + 2 * torch.tensor([3 / 4, 1 / 4]).log()
    torch.testing.assert_close(found, F.cross_entropy(shifted, labels, reduction="none"))


def test_adjusted_logits_answer_for_classes_that_are_equally_frequent(engagement):
    """The best constant answer to 12 and 4 images is 1/2 for each class; without, it is 3/4."""
    labels = torch.tensor([0] * 12 + [1] * 4)
    for tau, expected in ((None, 0.75), (1.0, 0.5)):
        module, answer = engagement(logit_adjustment=tau), torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.SGD([answer], lr=1.0)
        for _ in range(500):
            optimizer.zero_grad()
            module.criterion(answer.expand(16, 2), {"labels": labels}).mean().backward()
            optimizer.step()
        assert answer.softmax(0)[0].item() == pytest.approx(expected, abs=1e-4)


def test_two_corrections_for_rare_classes_are_refused(engagement):
    with pytest.raises(ValueError, match=r"logit_adjustment=1\.0.*twice: set module\.class_weights=null"):
        engagement(logit_adjustment=1.0, class_weights="balanced")


def test_levels_are_trained_tested_and_read_from_a_checkpoint(engagement, make_data, make_trainer, tmp_path):
    names, data = ["low", "middle", "high"], make_data(num_classes=3)
    settings = {"class_names": names, "class_counts": [6, 5, 5], "ordinal": "corn", "logit_adjustment": 1.0}
    module, trainer = engagement(**settings), make_trainer(2)
    trainer.fit(module, data)
    metrics = trainer.test(module, data, verbose=False)[0]
    assert {f"test/recall/{name}" for name in names} <= metrics.keys()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"]["head.weight"].shape == (2, 8)
    again, images = type(module)(**saved["hyper_parameters"]), torch.randn(4, 1, 16, 16)
    again.load_state_dict(saved["state_dict"])
    with torch.no_grad():
        found = again.eval()(images)
        assert torch.equal(found, copy.deepcopy(module).eval()(images))
    torch.testing.assert_close(found.softmax(1), found.exp())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"l2_sp": 0.1, "freeze_backbone": True}, "l2_sp"),
        ({"layer_decay": 0.5, "freeze_backbone": True}, "layer_decay"),
        ({"freeze_backbone": "statistics", "model": {"norm": "none"}}, "freeze_backbone"),
    ],
)
def test_a_setting_without_effect_gets_a_warning(engagement, caplog, settings, name):
    engagement(**settings | {"model": engagement().hparams["model"] | settings.get("model", {})})
    assert f"module.{name}=" in caplog.text
    assert "has no effect" in caplog.text


def test_a_frozen_backbone_is_not_pulled(engagement, make_data, make_trainer):
    make_trainer().fit(engagement(l2_sp=0.1, freeze_backbone=True), make_data())
