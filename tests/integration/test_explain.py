"""From a checkpoint and a data set to a sheet and its scores, or one line."""

import json

import numpy as np
import pytest
import torch
from commands import ROOT, Folder
from PIL import Image

from engrec.datasets.synthetic import render
from engrec.modules.expression import ExpressionModule

EXPLAIN = ROOT / "scripts" / "explain.py"
MODEL = {"_target_": "engrec.models.resnet_small.ResNetSmall", "widths": [8, 8, 8]}
FEW = ["dataset.num_train=7", "dataset.num_val=7", "dataset.num_test=28"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with random weights in the place of a trained one."""
    folder = Folder(tmp_path_factory.mktemp("work"))
    names = list(render(num_train=7, num_val=7, num_test=7).class_names)
    torch.manual_seed(0)
    images = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
    module = ExpressionModule(MODEL, {}, {}, names, images)
    about = {"module": "engrec.modules.expression.ExpressionModule", "task": "expression", "dataset": "synthetic"}
    (folder.path / "run").mkdir()
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 0, **about}
    torch.save(content, folder.path / "run" / "best.ckpt")
    return folder


def explain(folder, *arguments):
    return folder.finish(folder.start(*arguments, script=EXPLAIN))


def test_a_sheet_and_its_scores(folder):
    done = explain(folder, "run/best.ckpt", *FEW, "--out", "out", "--images", "20", "--per-row", "5")
    assert done.status == 0, done.stderr
    assert "LayerCAM of stages.0.3.relu, 24×24" in done.stdout
    assert done.stdout.splitlines()[-1] == "out: sheet.png, scores.json"
    assert sorted(path.name for path in (folder.path / "out").iterdir()) == ["scores.json", "sheet.png"]
    with Image.open(folder.path / "out" / "sheet.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    found = json.loads((folder.path / "out" / "scores.json").read_text())
    assert found["num_test_images"] == 28
    assert found["deletion"]["num_images"] == 20
    assert found["deletion"]["interval"] == "95 %, bootstrap over people"
    assert [one["share"] for one in found["deletion"]["shares"]] == [0.1, 0.3]
    for kind in ("right", "wrong"):
        rows = [row for row in found["images"] if row["kind"] == kind]
        assert len(rows) <= 5
        assert all((row["label"] == row["predicted"]) == (kind == "right") for row in rows)
        surest = [row["probability"] for row in rows]
        assert surest == sorted(surest, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.ckpt"], "none.ckpt cannot be opened: No such file or directory"),
        (["run/best.ckpt", "model=vgg"], "model=vgg has no effect on an explanation; allowed: dataset=, split="),
        (["run/best.ckpt", "dataset=prepared"], "missing dataset.path, "),
        (["run/best.ckpt", *FEW, "dataset.task=engagement"], "run/best.ckpt has 7 classes (angry, "),
        (["run/best.ckpt", *FEW, "--per-row", "0"], "--per-row 0 must be from 1 to 50"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(folder, arguments, said):
    done = explain(folder, *arguments, "--out", "none")
    assert done.status in (1, 65)
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (folder.path / "none").exists()
