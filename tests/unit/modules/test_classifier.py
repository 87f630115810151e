"""What both stages share: checkpoints that describe themselves, losses that do not depend on batches."""

import json

import pytest
import torch

from engrec.modules.classifier import Classifier

STAGES = ["engagement", "expression"]


@pytest.fixture(params=STAGES)
def make_module(request):
    return request.getfixturevalue(request.param)


def data_for(make_data, module, **settings):
    return make_data(num_classes=len(module.class_names), **settings)


@pytest.fixture
def saved(make_module, make_data, make_trainer, tmp_path):
    module = make_module()
    trainer = make_trainer()
    trainer.fit(module, data_for(make_data, module))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return module, torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_hyper_parameters_are_plain_python(saved):
    module, checkpoint = saved
    assert json.loads(json.dumps(checkpoint["hyper_parameters"])) == checkpoint["hyper_parameters"]
    assert checkpoint["module"] == f"{type(module).__module__}.{type(module).__name__}"


def test_a_module_is_rebuilt_from_its_checkpoint(saved):
    module, checkpoint = saved
    again = type(module)(**checkpoint["hyper_parameters"])
    again.load_state_dict(checkpoint["state_dict"])
    images = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), module.eval()(images))


def test_the_state_is_backbone_and_head(saved):
    assert {name.partition(".")[0] for name in saved[1]["state_dict"]} == {"backbone", "head"}


@pytest.mark.parametrize("eval_batch_size", [1, 2, 5])
def test_validation_does_not_depend_on_the_batch_size(make_module, make_data, make_trainer, eval_batch_size):
    module = make_module()
    whole, parts = (
        make_trainer().validate(module, data_for(make_data, module, eval_batch_size=size), verbose=False)[0]
        for size in (512, eval_batch_size)
    )
    assert set(whole) >= {"val/loss", "val/accuracy", "val/f1", "val/auc"}
    assert parts == pytest.approx(whole, rel=1e-4, nan_ok=True)


def test_test_metrics_are_those_of_the_logits(make_module, make_data, make_trainer):
    module = make_module()
    data = data_for(make_data, module)
    metrics = make_trainer().test(module, data, verbose=False)[0]
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        logits = module.eval()(batch["images"])
    right = logits.argmax(1) == batch["labels"]
    assert metrics["test/accuracy"] == pytest.approx(right.float().mean().item())
    assert metrics["test/loss"] == pytest.approx(module.criterion(logits, batch).mean().item(), rel=1e-5)
    for k, name in enumerate(module.class_names):
        assert metrics[f"test/recall/{name}"] == pytest.approx(right[batch["labels"] == k].float().mean().item())


def test_the_loss_of_a_mixed_image_is_that_of_both_labels_in_its_parts(make_module):
    module = make_module()
    number, classes = 6, len(module.class_names)
    logits, labels, others = torch.randn(number, classes), torch.arange(6) % classes, torch.arange(1, 7) % classes
    parts = torch.linspace(0.5, 1, number)
    batch = {"labels": labels, "other_labels": others, "mixed": parts}
    expected = parts * module.criterion(logits, {"labels": labels})
    expected += (1 - parts) * module.criterion(logits, {"labels": others})
    torch.testing.assert_close(module.mixed_criterion(logits, batch), expected)
    assert module.mixed_criterion(logits, batch)[-1] == module.criterion(logits, batch)[-1]


def test_votes_are_mixed_as_labels_are(expression):
    module = expression(soft_labels=True)
    logits, votes, others = torch.randn(4, 3), *torch.rand(2, 4, 3).softmax(2)
    batch = {"labels": torch.zeros(4, dtype=torch.long), "soft_labels": votes, "mixed": torch.full((4,), 0.7)}
    batch |= {"other_labels": batch["labels"], "other_soft_labels": others}
    expected = module.criterion(logits, batch | {"soft_labels": 0.7 * votes + 0.3 * others})
    torch.testing.assert_close(module.mixed_criterion(logits, batch), expected)


def test_weights_are_decayed_biases_and_normalisation_are_not(make_module):
    module = make_module()
    groups = module.parameter_groups()
    grouped = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped) == len(list(module.parameters()))
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.01)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for part in module.modules():
        kernel = isinstance(part, torch.nn.Conv2d | torch.nn.Linear)
        for name, p in part.named_parameters(recurse=False):
            assert decay[id(p)] == (0.01 if kernel and name == "weight" else 0.0)


def test_a_loss_that_is_no_number_stops_with_a_remedy(make_module, make_data, make_trainer):
    module = make_module(optimizer={"_target_": "torch.optim.SGD", "lr": 1e30})
    with pytest.raises(ValueError, match=r"epoch 1.*optimizer\.lr=1e\+29"):
        make_trainer().fit(module, data_for(make_data, module))


def test_nothing_nested_in_a_network_is_built(expression, tmp_path):
    """A checkpoint's hyper-parameters come from somebody else's file."""
    nested = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(tmp_path / "x")]}}
    with pytest.raises(Exception, match=r"\S"):
        expression(model={"_target_": "engrec.models.vgg.VGG", "in_channels": nested})
    assert not (tmp_path / "x").exists()


def test_the_base_is_one_class():
    assert {c.__name__ for c in Classifier.__subclasses__()} == {"ExpressionModule", "EngagementModule"}
