"""One network in several kinds of file gives the same probabilities, and a foreign file is refused in one line."""

import json
from dataclasses import replace
from shutil import copyfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_networks import IMAGES, engagement, expressions, fake

from engrec import weights_file
from engrec.errors import CheckpointError
from engrec.faces.crop import STANDARD
from engrec.modules.build import loaded_module
from engrec.transforms import standardize, to_float
from engrec.use.export import export
from engrec.use.network import crop_of, load_network, names_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """faces.ckpt, its export in faces/ with a temperature, and engaged.ckpt."""
    path = tmp_path_factory.mktemp("networks")
    torch.save(expressions(temperature=1.6), path / "faces.ckpt")
    torch.save(engagement(), path / "engaged.ckpt")
    export(str(path / "faces.ckpt"), path / "faces", half=False)
    return path


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (40, 1, 48, 48), np.uint8)


def graph(path, about, classes=3, name="probabilities", kind=TensorProto.UINT8, side=48):
    """An ONNX file: the mean of an image, and a linear layer and softmax over it."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(1, classes)).astype(np.float32), "axes": np.array([1, 2, 3])}
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "one"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [name], axis=1),
    ]
    stored = [onnx.numpy_helper.from_array(value, key) for key, value in weights.items()]
    stored.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    images = helper.make_tensor_value_info("images", kind, ["batch", 1, side, side])
    answers = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes])
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [images], [answers], stored),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    if about is not None:
        helper.set_model_props(model, {"engrec": about if isinstance(about, str) else json.dumps(about)})
    path.write_bytes(model.SerializeToString())
    return str(path)


ABOUT = {
    "class_names": ["low", "middle", "high"],
    "task": "engagement",
    "dataset": "wacv2016",
    "preprocessing": IMAGES,
    "temperature": 1.5,
    "crop": STANDARD.as_dict(),
}


def refused(source, *words):
    with pytest.raises(ValueError, match=r"\S") as error:
        load_network(str(source))
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    return error.value


def test_probabilities_are_those_of_the_module_at_its_temperature(folder, crops):
    network = load_network(str(folder / "faces.ckpt"))
    module = loaded_module("x", expressions())
    with torch.inference_mode():
        expected = (module(standardize(to_float(torch.from_numpy(crops)))) / 1.6).softmax(1)
    np.testing.assert_allclose(network(crops), expected, atol=1e-5)
    assert network.temperature == 1.6
    assert network(crops).dtype == np.float32
    assert network(crops[:0]).shape == (0, 7)


def test_an_answer_does_not_depend_on_the_batch(folder, crops):
    network = load_network(str(folder / "faces.ckpt"))
    alone = np.concatenate([network(crops[n : n + 1]) for n in range(5)])
    np.testing.assert_allclose(network(crops)[:5], alone, atol=1e-5)


def test_the_export_is_the_same_network(folder, crops):
    one, other = (load_network(str(folder / name)) for name in ("faces.ckpt", "faces/model.safetensors"))
    np.testing.assert_allclose(one(crops), other(crops), atol=1e-6)
    assert (other.name, other.task, other.dataset, other.temperature) == ("faces", "expression", "fer2013", 1.6)
    assert other.class_names == one.class_names
    assert one.crop == other.crop == STANDARD


def test_weights_that_come_with_engrec_are_loaded_by_name(folder, crops, monkeypatch):
    monkeypatch.setattr(weights_file, "SHIPPED", folder)
    network = load_network("engrec:faces")
    assert network.name == "faces"
    np.testing.assert_array_equal(network(crops), load_network(str(folder / "faces/model.safetensors"))(crops))
    refused("engrec:face", "engrec:face does not exist (did you mean engrec:faces?)")


def test_an_onnx_file_says_itself_what_it_is(tmp_path, crops):
    network = load_network(graph(tmp_path / "mine.onnx", ABOUT))
    assert (network.name, network.task, network.dataset, network.temperature) == ("mine", "engagement", "wacv2016", 1.5)
    assert network.class_names == ("low", "middle", "high")
    assert network.crop == STANDARD
    assert network.engine.startswith("onnxruntime")
    assert network(crops).shape == (40, 3)
    np.testing.assert_allclose(network(crops).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(network(crops)[:1], network(crops[:1]), atol=1e-6)


@pytest.mark.parametrize(
    ("about", "more", "said"),
    [
        (None, {}, "is an ONNX file but not of engrec"),
        ("{", {}, "is not plain JSON"),
        (ABOUT | {"task": "age"}, {}, "is damaged: task"),
        (ABOUT | {"class_names": ["a", "a", "b"]}, {}, "is damaged: class_names"),
        (ABOUT | {"temperature": 0}, {}, "is damaged: temperature"),
        (ABOUT | {"crop": {"side": 1.0}}, {}, "is damaged: crop lacks"),
        (ABOUT, {"classes": 4}, "its graph is not of the images and classes"),
        (ABOUT, {"side": 40}, "its graph is not of the images and classes"),
        (ABOUT, {"name": "logits2"}, "its graph is not of the images and classes"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_refused(tmp_path, about, more, said):
    assert isinstance(refused(graph(tmp_path / "x.onnx", about, **more), "x.onnx", said), CheckpointError)


@pytest.mark.parametrize("name", ["x.onnx", "x.ckpt", "x.safetensors"])
def test_a_file_that_is_none_is_refused(tmp_path, name):
    refused(tmp_path / name, "cannot be opened: No such file or directory")
    (tmp_path / name).write_bytes(b"x" * 100)
    refused(tmp_path / name, "cannot be read")
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path / name, name)


def test_without_onnxruntime_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    refused(graph(tmp_path / "x.onnx", ABOUT), "x.onnx needs onnxruntime: pip install -e '.[use]'")


def with_crop(crop, dataset="mine"):
    content = expressions(dataset=dataset)
    content["hyper_parameters"]["preprocessing"] = IMAGES | crop
    return content


def test_a_network_that_has_seen_other_crops_is_refused(tmp_path):
    wide = replace(STANDARD, side=1.3).as_dict()
    torch.save(with_crop({"crop": wide}), tmp_path / "wide.ckpt")
    refused(tmp_path / "wide.ckpt", "wide.ckpt was trained on faces cropped otherwise (side 1.3, not 1.0)")
    refused(graph(tmp_path / "wide.onnx", ABOUT | {"crop": wide}), "cropped otherwise (side 1.3, not 1.0)")
    small = replace(STANDARD, detect_size=320).as_dict()
    torch.save(with_crop({"crop": small}), tmp_path / "small.ckpt")
    assert load_network(str(tmp_path / "small.ckpt")).crop == STANDARD


@pytest.mark.parametrize(
    ("dataset", "crop"),
    [("fer2013", STANDARD), ("ferplus", STANDARD), ("wacv2016", STANDARD), ("mine", None), (None, None)],
)
def test_crops_that_nobody_has_recorded_are_known_of_three_data_sets(dataset, crop):
    assert crop_of("x.ckpt", IMAGES, dataset) == crop
    assert crop_of("x.ckpt", IMAGES | {"crop": "as distributed"}, dataset) == crop


def test_images_that_are_no_squares_are_refused(tmp_path):
    torch.save(with_crop({"width": 40}, "fer2013"), tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "x.ckpt takes images of 1×48×40, but faces are cropped to squares")


def test_crops_of_another_size_are_refused(folder):
    network = load_network(str(folder / "faces.ckpt"))
    with pytest.raises(ValueError, match=r"takes crops uint8 \(B, 1, 48, 48\), found uint8 \(2, 1, 40, 40\)"):
        network(np.zeros((2, 1, 40, 40), np.uint8))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mine/best.ckpt", "mine"),
        ("mine/other.ckpt", "other"),
        ("finetune/0/best.ckpt", "finetune_0"),
        ("multirun/2026-11-29_07-13-13/12/last.ckpt", "multirun_12"),
        ("wacv2016-vgg/2026-11-29_07-13-13/best.ckpt", "wacv2016-vgg_2026-11-29_07-13-13"),
        ("3levels/best.ckpt", "3levels"),
    ],
)
def test_a_network_is_named_after_a_folder_whose_name_says_something(folder, tmp_path, path, name):
    (tmp_path / path).parent.mkdir(parents=True)
    copyfile(folder / "engaged.ckpt", tmp_path / path)
    assert load_network(str(tmp_path / path)).name == name


def test_a_graph_is_named_after_the_export(tmp_path):
    (tmp_path / "finetune/0/onnx").mkdir(parents=True)
    assert load_network(graph(tmp_path / "finetune/0/onnx/model_int8.onnx", ABOUT)).name == "finetune_0"


def test_networks_that_are_called_alike_get_numbers():
    networks = [fake(name=name) for name in ("best", "best", "other", "best")]
    assert names_of(networks) == ["best", "best_2", "other", "best_3"]
