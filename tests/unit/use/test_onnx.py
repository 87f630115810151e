"""A network as ONNX computes what torch computes, for every network of conf/model and every size of a batch."""

import importlib.util
import json
from functools import cache

import numpy as np
import onnx as onnx_package
import pytest
import torch
import yaml
from torch import nn

from engrec.errors import CONF, CheckpointError
from engrec.modules.build import fitted
from engrec.modules.engagement import EngagementModule
from engrec.modules.expression import ExpressionModule
from engrec.use import onnx
from engrec.use.export import random_images
from engrec.use.network import load_network

IMAGES = {"channels": 1, "height": 24, "width": 24, "normalize": "image"}
CLASSES = ["angry", "happy", "sad"]
SMALLER = {"width": 0.1, "widths": [8, 16, 24], "dense": [32, 16]}
ABOUT = {"class_names": CLASSES, "temperature": 1.5}


def model_of(name):
    node = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    return fitted(node | {key: value for key, value in SMALLER.items() if node.get(key)}, IMAGES)


def network_of(name, module=ExpressionModule, *arguments, **settings):
    torch.manual_seed(0)
    network = module(model_of(name), {}, {}, CLASSES, IMAGES, *arguments, **settings).eval()
    nn.init.normal_(network.head.weight, std=0.5)  # so that probabilities are not all the same
    return network


@cache  # as an export takes seconds
def exported(name):
    """A network and the content of its ONNX file."""
    network = network_of(name)
    return network, onnx.exported("x.ckpt", network, 1.5, ABOUT)


@pytest.fixture
def small():
    return exported("vgg_small")


def some_images(number=32):
    images = random_images(IMAGES, number)
    images[-2] = 0
    return images


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_network_computes_what_torch_computes(name):
    network, content = exported(name)
    images = some_images()
    assert onnx.check_same("x.ckpt", content, network, 1.5, images) < 1e-5
    answers = onnx.answering(content)
    together = answers(images.numpy())
    assert together.dtype == np.float32
    assert together.sum(1) == pytest.approx(np.ones(32), abs=1e-5)
    assert np.ptp(together, axis=0).max() > 0.01
    one_by_one = np.concatenate([answers(images[i : i + 1].numpy()) for i in range(32)])
    assert one_by_one == pytest.approx(together, abs=1e-5)


def test_levels_in_order_are_exported_too():
    network = network_of("vgg_small", EngagementModule, [1, 2, 3], ordinal="corn")
    content = onnx.exported("x.ckpt", network, 2.0, ABOUT)
    onnx.check_same("x.ckpt", content, network, 2.0, some_images())


def test_the_file_says_what_it_takes_and_nothing_of_this_machine(small):
    _, content = small
    model = onnx_package.load_from_string(content)
    onnx_package.checker.check_model(model, full_check=True)
    shapes = [
        [dimension.dim_param or dimension.dim_value for dimension in one.type.tensor_type.shape.dim]
        for one in (*model.graph.input, *model.graph.output)
    ]
    assert [one.name for one in (*model.graph.input, *model.graph.output)] == ["images", "probabilities"]
    assert shapes == [["batch", 1, 24, 24], ["batch", 3]]
    about, checksum = model.metadata_props
    assert (about.key, json.loads(about.value), checksum.key) == ("engrec", ABOUT, "engrec_sha256")
    assert str(CONF.parent).encode() not in content
    assert b"forward" not in content


@pytest.fixture
def as_file(tmp_path):
    """Write a network's ONNX and load it."""

    def load(content):
        (tmp_path / "x.onnx").write_bytes(content)
        return load_network(str(tmp_path / "x.onnx"))

    return load


@pytest.fixture(scope="module")
def loadable():
    network = network_of("vgg_small")
    return onnx.exported("x.ckpt", network, 1.5, ABOUT | {"task": "expression", "preprocessing": IMAGES})


def test_a_changed_byte_anywhere_is_refused(as_file, loadable):
    assert as_file(loadable).class_names == tuple(CLASSES)
    key = loadable.index(b"engrec_sha256")
    digits = key + len(b"engrec_sha256") + 2
    for place in (*np.random.default_rng(0).integers(0, key - 2, 100), digits, digits + 63):
        changed = bytearray(loadable)
        changed[place] ^= 32
        with pytest.raises(CheckpointError, match=r"x.onnx is damaged: its content has changed since it was written"):
            as_file(bytes(changed))


def test_a_graph_of_an_earlier_version_has_no_checksum_and_is_read(as_file, loadable):
    model = onnx_package.load_from_string(loadable)
    del model.metadata_props[1]
    images = some_images().numpy()
    np.testing.assert_array_equal(as_file(model.SerializeToString())(images), as_file(loadable)(images))


def test_another_temperature_is_noticed(small):
    network, content = small
    with pytest.raises(ValueError, match="does not stay the same as ONNX: with a batch of 1, probabilities differ by"):
        onnx.check_same("x.ckpt", content, network, 1.0, some_images())


def test_a_graph_that_has_kept_the_size_of_its_example_is_noticed(small):
    network, content = small
    model = onnx_package.load_from_string(content)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(ValueError, match=r"x.ckpt as ONNX does not take a batch of 1: ") as error:
        onnx.check_same("x.ckpt", model.SerializeToString(), network, 1.5, some_images())
    assert "\n" not in str(error.value)


def test_a_network_that_cannot_be_followed_costs_one_line(monkeypatch):
    network = network_of("vgg_small")
    monkeypatch.setattr(network, "forward", lambda images: images if images.mean().item() > 0 else -images)
    with pytest.raises(ValueError, match=r"x.ckpt cannot be written as ONNX; set --no-onnx") as error:
        onnx.exported("x.ckpt", network, 1.0, ABOUT)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(ValueError, match=r"^--onnx needs onnxscript: pip install -e '.\[export\]'$"):
        onnx.check_installed("--onnx")
