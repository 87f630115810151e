"""From training to weights that somebody else loads: everyone's last epoch, exported with the scores of folds."""

import json

import onnxruntime
import pytest
import torch
from commands import FEW, ROOT, SMALL, Folder

from engrec import checkpoint
from engrec.datasets import synthetic
from engrec.modules.build import loaded_module
from engrec.use.export import probabilities

EXPORT = ROOT / "scripts" / "export.py"
TUNE = [*SMALL, *FEW, "augment=none", "callbacks=ema", "callbacks.ema.decay=0.9", "max_epochs=3"]
FOLDS = ["split=kfold", "split.num_folds=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An expression network, exported; and from it two folds and a network of everyone."""
    folder = Folder(tmp_path_factory.mktemp("work"))
    succeeded(folder.command("stage=pretrain", *SMALL, *FEW, "max_epochs=1", "output_dir=first"))
    folder.exported = export(folder, "first/best.ckpt", "faces")
    start = ["stage=finetune", "init_from=faces/model.safetensors", *TUNE]
    for fold in (0, 1):
        succeeded(folder.command(*start, *FOLDS, f"split.fold={fold}", f"output_dir=folds/{fold}"))
    folder.everyone = succeeded(folder.command(*start, "split=everyone", "output_dir=everyone"))
    return folder


def succeeded(done):
    assert done.status == 0, done.stderr[-3000:]
    return done


def export(folder, *arguments):
    return folder.finish(folder.start(*arguments, script=EXPORT))


def read(path):
    return json.loads(path.read_text())


def test_an_exported_network_is_tested_as_its_checkpoint(folder):
    done = succeeded(folder.exported)
    assert "faces/model.safetensors: " in done.stdout
    assert " MB, half precision, temperature " in done.stdout
    assert "faces/onnx/model.onnx: " in done.stdout
    assert (folder.path / "faces" / "onnx" / "model.onnx").is_file()
    test = ["stage=test", *FEW, "trainer.accelerator=cpu", "trainer.precision=32-true", "output_dir=tested"]
    succeeded(folder.command("ckpt_path=faces/model.safetensors", *test))
    one, other = (read(folder.path / name / "result.json")["metrics"] for name in ("first", "tested"))
    assert other == pytest.approx(one, abs=0.06)
    saved = checkpoint.read(folder.path / "faces" / "model.safetensors")
    assert saved["temperature"] == read(folder.path / "first" / "result.json")["calibration"]["temperature"]
    assert "stage=pretrain" in saved["provenance"]["command"]


def test_training_starts_from_exactly_these_weights(folder):
    where = ["stage=finetune", "init_from=faces/model.safetensors", *SMALL, *FEW, "max_epochs=1", "output_dir=frozen"]
    succeeded(folder.command(*where, "module.freeze_backbone=true"))
    one = checkpoint.read(folder.path / "faces" / "model.safetensors")["state_dict"]
    other = checkpoint.read(folder.path / "frozen" / "best.ckpt")["state_dict"]
    backbone = [name for name in one if name.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(one[name], other[name]) for name in backbone)


def test_everyone_is_trained_on_and_the_scores_are_marked(folder):
    done = folder.everyone
    assert (
        done.stdout.count("split=everyone trains on all images and tests on the same ones: its scores are no resul")
        == 1
    )
    assert "test (on the training images, not a result): " in done.stdout
    assert done.line("split: ") == "everyone: all images are in train, validation and test"
    result = read(folder.path / "everyone" / "result.json")
    assert result["choices"]["split"] == "everyone"
    assert set(result["num_images"].values()) == {70 + 14 + 21}
    assert set(result["num_people"].values()) == {7}
    done = succeeded(folder.finish(folder.start("folds", "everyone", script=ROOT / "scripts" / "summarize.py")))
    assert "split everyone (on the training images, not a result)" in done.stdout


def test_the_average_of_the_last_epoch_is_exported_with_the_scores_of_the_folds(folder):
    done = succeeded(
        export(folder, "everyone/last.ckpt", "engaged", "--runs", "folds", "--license", "mit", "--no-onnx")
    )
    assert "ONNX" not in done.stdout
    assert not (folder.path / "engaged" / "onnx").exists()
    last = torch.load(folder.path / "everyone" / "last.ckpt", weights_only=True)
    saved = checkpoint.read(folder.path / "engaged" / "model.safetensors")
    assert saved["epoch"] == 2
    average, trained = last["state_dict"], last["current_model_state"]
    floats = [name for name in average if average[name].is_floating_point()]
    assert all(torch.equal(saved["state_dict"][name], average[name].half().float()) for name in floats)
    assert not all(torch.allclose(average[name], trained[name], rtol=1e-2) for name in floats)
    card = (folder.path / "engaged" / "README.md").read_text(encoding="utf-8")
    assert "scores of 2 networks (folds 0, 1), not of this one" in card
    assert "differ between them and this one: only the split" in card
    assert "fine-tuned from faces/model.safetensors" in card


def test_as_onnx_in_float_and_in_8_bits(folder):
    faces = synthetic.render(num_train=200, num_val=14, num_test=14)
    faces.save(folder.path / "data" / "faces.npz")
    done = succeeded(export(folder, "first/best.ckpt", "graphs", "--int8", "data/faces.npz"))
    assert "graphs/onnx/model.onnx: " in done.stdout
    assert "graphs/onnx/model_int8.onnx: " in done.stdout
    assert " of 100 other training images of synthetic; probabilities differ by " in done.stdout
    assert done.stderr == ""
    saved = checkpoint.read(folder.path / "graphs" / "model.safetensors")
    images = torch.from_numpy(faces.images[-14:])
    expected = probabilities(loaded_module("x", saved), images).log() / saved["temperature"]
    session = onnxruntime.InferenceSession(folder.path / "graphs" / "onnx" / "model.onnx")
    [found] = session.run(None, {"images": images.numpy()})
    assert found == pytest.approx(expected.softmax(1).numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["first/best.ckpt", "out", "--int8", "none.npz"], "none.npz does not exist"),
        (["none.ckpt", "out"], "none.ckpt cannot be opened: No such file or directory"),
        (["first/config.yaml", "out"], "first/config.yaml cannot be read safely: it is damaged, or not a checkpoint"),
        (["engrec:nobody", "out"], "engrec:nobody does not exist"),
        (["first/best.ckpt", "first"], "first holds other files ("),
        (["first/best.ckpt", "out", "--runs", "everyone"], "has split=everyone, whose scores are no result"),
        (["everyone/last.ckpt", "out", "--runs", "first"], "has the classes angry, "),
        (["first/best.ckpt", "out", "--notes", "none.md"], "none.md"),
        (["first/best.ckpt", "out", "--notes", "first/best.ckpt"], "--notes first/best.ckpt is not text in UTF-8"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(folder, arguments, said):
    done = export(folder, *arguments)
    assert done.status in (1, 65)
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (folder.path / "out").exists()


def test_weights_are_not_resumed(folder):
    done = folder.command("stage=scratch", *SMALL, *FEW, "ckpt_path=faces/model.safetensors", "output_dir=resumed")
    assert done.status == 1
    assert "has only weights: fine-tune from them with init_from=faces/model.safetensors" in done.stderr
