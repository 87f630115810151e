"""What every backbone in conf/model promises."""

import copy
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONFIGS = sorted((Path(__file__).parents[3] / "conf" / "model").glob("*.yaml"))


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda path: path.stem)
def model(request):
    torch.manual_seed(0)
    return instantiate(OmegaConf.load(request.param), _convert_="all")


@pytest.fixture
def images():
    return torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_there_are_configs():
    assert CONFIGS


def test_images_become_features(model, images):
    with torch.no_grad():
        features = model.eval()(images)
    assert features.shape == (3, model.num_features)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_gradient_reaches_every_parameter(model, images):
    """At the latest in the second step: what lies behind a scale that starts at 0 waits for it to change."""
    twin, unreached = copy.deepcopy(model).train(), {name for name, _ in model.named_parameters()}
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        twin(images).square().sum().backward()
        unreached -= {name for name, p in twin.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert not unreached


def test_eval_is_deterministic_and_train_is_not(model, images):
    with torch.no_grad():
        assert torch.equal(model.eval()(images), model(images))
        dropout = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
        assert not dropout or not torch.equal(model.train()(images), model(images))


def test_an_image_has_the_same_features_in_any_batch(model, images):
    with torch.no_grad():
        together = model.eval()(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_memory_layout_does_not_matter(model, images):
    with torch.no_grad():
        expected = model.eval()(images)
        features = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    model.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_is_close(model, images):
    with torch.no_grad():
        expected = model.eval()(images)
        with torch.autocast("cpu", torch.bfloat16):
            features = model(images).float()
    assert (features - expected).norm() < 0.05 * expected.norm()


def test_state_dict_is_all_there_is(model, images):
    with torch.no_grad():
        expected = model.eval()(images)
        twin = copy.deepcopy(model)
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
        twin.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(twin(images), expected)
