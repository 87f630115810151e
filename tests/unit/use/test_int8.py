"""A network in 8 bits: calibrated on training images alone, and within the stated limits of the one in float32."""

import json

import numpy as np
import onnx as onnx_package
import pytest
import torch
import yaml

from engrec.data import divide, seen
from engrec.datasets.prepared import Faces
from engrec.errors import CheckpointError
from engrec.splits import KFold
from engrec.use import int8, onnx
from engrec.use.export import export
from engrec.use.int8 import calibration, check_agrees
from engrec.use.network import checksummed


@pytest.fixture(scope="module")
def made(bar_network, tmp_path_factory):
    """An export in 8 bits, made once."""
    folder = tmp_path_factory.mktemp("int8")
    torch.save(bar_network.content, folder / "best.ckpt")
    faces(bar_network).save(folder / "bars.npz")
    done = export(str(folder / "best.ckpt"), folder / "out", calibrated_on=folder / "bars.npz")
    return folder, done


def faces(bars, **fields):
    splits = np.where(np.arange(400) < 300, "train", np.where(np.arange(400) < 350, "val", "test"))
    given = {
        "images": bars.images,
        "labels": bars.labels,
        "class_names": ("lies", "stands"),
        "sources": np.array([f"{i}.png" for i in range(400)]),
        "recipe": {"name": "bars"},
        "splits": splits,
    }
    return Faces(**given | fields)


def test_it_agrees_with_float_is_smaller_and_describes_itself_the_same(made, bar_network):
    folder, done = made
    one, other = ((folder / "out" / "onnx" / name).read_bytes() for name in (onnx.FLOAT, onnx.INT8))
    assert len(other) < 0.75 * len(one)  # a quarter of it is weights in so small a network
    metadata = [onnx_package.load_from_string(content).metadata_props for content in (one, other)]
    about, same = ({entry.key: entry.value for entry in part} for part in metadata)
    assert json.loads(about["engrec"]) == json.loads(same["engrec"])
    assert about["engrec_sha256"] != same["engrec_sha256"]
    assert checksummed(other) == (other, True)
    assert not checksummed(bytes([*other[:1000], other[1000] ^ 1, *other[1001:]]))[1]
    assert done.graphs.agreement.same >= int8.LEAST_SAME
    assert done.graphs.agreement.mean <= int8.MOST_APART
    assert done.graphs.agreement.num_images == 300 - 128
    p = onnx.answering(other)(bar_network.images[350:])
    assert (p.argmax(1) == bar_network.labels[350:]).mean() > 0.9
    text = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert f"takes its place: {done.graphs.agreement}." in text


def test_test_images_do_not_calibrate(bar_network, tmp_path):
    """Nor do copies of them."""
    images = bar_network.images.copy()
    images[:5] = images[395:]
    faces(bar_network, images=images).save(tmp_path / "bars.npz")
    found = calibration(tmp_path / "bars.npz", "x.ckpt", bar_network.content)
    used = {image.tobytes() for image in (*found.ranges, *found.compared)}
    assert used == {image.tobytes() for image in images[5:300]}
    assert not {image.tobytes() for image in found.ranges} & {image.tobytes() for image in found.compared}


def without_official_split(bars, folder):
    found = faces(bars, splits=None, subjects=np.array([f"s{i // 10:02d}" for i in range(400)]))
    found.save(folder / "bars.npz")
    return found


def test_without_an_official_split_the_run_tells_what_it_was_trained_on(bar_network, tmp_path):
    found = without_official_split(bar_network, tmp_path)
    split = divide(found, KFold(1, 4))
    node = {"_target_": "engrec.splits.KFold", "fold": 1, "num_folds": 4}
    config = {"dataset": {"path": "elsewhere.npz"}, "split": node}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    saved = bar_network.content | {"seen": seen(found, split)}
    given = (tmp_path / "bars.npz", str(tmp_path / "best.ckpt"))
    used = calibration(*given, saved)
    expected = {image.tobytes() for image in found.images[split.train]}
    assert {image.tobytes() for image in (*used.ranges, *used.compared)} == expected
    for other in ({"seen": "something else"}, {"seen": None}):
        with pytest.raises(ValueError, match="which images are training images is unknown"):
            calibration(*given, saved | other)


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"dataset": "x", "split": 3},
        {"dataset": {}, "split": {"_target_": "os.system", "command": "true"}},
        {"dataset": {}, "split": {"_target_": "engrec.splits.KFold", "fold": 1, "speed": 4}},
        {"dataset": {"classes": {"a": ["nobody"]}}, "split": {"_target_": "engrec.splits.KFold", "fold": 1}},
    ],
)
def test_a_run_that_does_not_tell_it_is_refused_in_one_line(bar_network, tmp_path, config):
    without_official_split(bar_network, tmp_path)
    if config is not None:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="which images are training images is unknown") as error:
        calibration(tmp_path / "bars.npz", str(tmp_path / "best.ckpt"), bar_network.content)
    assert "\n" not in str(error.value)


def test_images_that_do_not_fit_are_refused(bar_network, tmp_path):
    few = faces(bar_network).select(np.r_[0:60, 300:400])
    few.save(tmp_path / "few.npz")
    with pytest.raises(ValueError, match=r"few.npz has 60 training images: at least 64 are needed"):
        calibration(tmp_path / "few.npz", "x.ckpt", bar_network.content)
    faces(bar_network, images=bar_network.images[:, :, :20, :20]).save(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="was trained on images of 1×24×24"):
        calibration(tmp_path / "other.npz", "x.ckpt", bar_network.content)
    with pytest.raises(ValueError, match=r"none.npz does not exist"):
        calibration(tmp_path / "none.npz", "x.ckpt", bar_network.content)


def test_what_differs_too_much_is_refused(made, bar_network, monkeypatch):
    folder, _ = made
    used = calibration(folder / "bars.npz", "x.ckpt", bar_network.content)
    one = onnx.answering((folder / "out" / "onnx" / onnx.FLOAT).read_bytes())
    monkeypatch.setattr(int8, "answering", lambda content: content)
    with pytest.raises(ValueError, match=r"x.ckpt does not stay the same in 8 bits: .* leave out --int8"):
        check_agrees("x.ckpt", one, lambda images: np.full((len(images), 2), 0.5, np.float32), used)
