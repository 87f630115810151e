"""An export is the checkpoint's network with its scores, or nothing and one line."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import export as script
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from finished_runs import CLASSES, right_for, some_images, take, write_run

from engrec import checkpoint, weights_file
from engrec.faces.crop import STANDARD
from engrec.metrics import fit_temperature
from engrec.modules import build
from engrec.modules.engagement import EngagementModule
from engrec.use import export as exporting
from engrec.use import onnx
from engrec.use.export import check_same, export

MODEL = {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.05, "dense": []}
IMAGES = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
OPTIMIZER = {"_target_": "torch.optim.SGD", "lr": 0.1}
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(1)
    module = EngagementModule(MODEL, OPTIMIZER, {}, list(CLASSES), IMAGES, [1, 2], freeze_backbone="statistics")
    torch.nn.init.normal_(module.head.weight)  # so that the random images are of both classes
    about = {"module": "engrec.modules.engagement.EngagementModule", "task": "engagement", "dataset": "wacv2016"}
    return {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 4, **about}


@pytest.fixture
def source(content, tmp_path):
    path = tmp_path / "alone" / "last.ckpt"
    path.parent.mkdir()
    torch.save(content, path)
    return str(path)


@pytest.fixture
def folds(tmp_path):
    """Two seeds of three folds, 10 people in all."""
    images = some_images()
    for seed in (0, 1):
        for fold in range(3):
            part = take(some_images(seed=seed), np.arange(60) // 6 % 3 == fold)
            write_run(tmp_path / "folds" / f"{seed}-{fold}", part, seed=seed, fold=fold, temperature=2.0)
    return tmp_path / "folds", images


def refused(*arguments, **options):
    with pytest.raises(ValueError, match=r"\S") as error:
        export(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def front_matter(folder):
    _, matter, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_network_comes_back_the_same(source, content, tmp_path):
    done = export(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    saved = checkpoint.read(tmp_path / "out" / "model.safetensors")
    assert saved["hyper_parameters"] == content["hyper_parameters"]
    assert {name: saved[name] for name in ("module", "task", "dataset", "epoch")} == {
        name: content[name] for name in ("module", "task", "dataset", "epoch")
    }
    module = build.loaded_module("model.safetensors", saved)
    for name, tensor in content["state_dict"].items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    assert 0 < done.apart < 0.02
    assert done.num_bytes == (tmp_path / "out" / "model.safetensors").stat().st_size


def test_float32_is_the_same_to_the_last_bit(source, content, tmp_path):
    assert export(source, tmp_path / "out", half=False).apart == 0
    saved = checkpoint.read(tmp_path / "out" / "model.safetensors")["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in content["state_dict"].items())


def test_config_json_is_what_the_header_holds(source, folds, tmp_path):
    export(source, tmp_path / "out", [folds[0]])
    saved = checkpoint.read(tmp_path / "out" / "model.safetensors")
    del saved["state_dict"]
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == saved


def test_an_export_can_be_exported_again(source, folds, tmp_path):
    export(source, tmp_path / "one", [folds[0]])
    export(str(tmp_path / "one" / "model.safetensors"), tmp_path / "two")
    one, two = (checkpoint.read(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(two["state_dict"][name], tensor) for name, tensor in one["state_dict"].items())
    assert two["temperature"] == one["temperature"] != 1
    assert two["provenance"] == one["provenance"]


# Scores and temperature.


def test_of_several_folds_scores_and_temperature_are_those_of_the_pooled_predictions(source, folds, tmp_path):
    export(source, tmp_path / "out", [folds[0]])
    seeds = [some_images(seed=seed) for seed in (0, 1)]
    p, labels = np.concatenate([one.probabilities for one in seeds]), np.tile(seeds[0].labels, 2)
    temperature = checkpoint.read(tmp_path / "out" / "model.safetensors")["temperature"]
    assert temperature == pytest.approx(fit_temperature(np.log(p), labels), rel=1e-6)
    [entry] = front_matter(tmp_path / "out")["model-index"]
    values = {metric["type"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    assert values.keys() == {"accuracy", "balanced_accuracy", "f1", "roc_auc"}
    assert values["accuracy"] == pytest.approx((p.argmax(1) == labels).mean(), abs=1e-4)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| {100 * values['accuracy']:.1f} [" in text
    assert "bootstrap over 10 people" in text
    assert "scores of 6 networks (folds 0, 1, 2), not of this one" in text


def test_the_frames_of_clips_are_scored_per_clip_too(content, tmp_path):
    """Three levels in order; two frames of a clip each."""
    names = ("low", "middle", "high")
    module = EngagementModule(MODEL, OPTIMIZER, {}, list(names), IMAGES, [1, 2, 3])
    images = some_images(class_names=names)
    clips = np.array([f"clip{i // 2:02d}" for i in range(60)])
    labels = np.repeat(np.arange(30) % 3, 2)
    images = replace(images, labels=labels, clips=clips)
    run = write_run(tmp_path / "run", images, temperature=1.75)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"dataset": {"name": "mine", "ordered": True}}))
    state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content | state, run / "best.ckpt")
    export(str(run / "best.ckpt"), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert text.index("60 test images of 10 people") < text.index("30 test clips of 10 people")
    assert "Per clip: its probabilities are the mean of those of its frames." in text
    means = images.probabilities.reshape(30, 2, 3).mean(1)
    accuracy = (means.argmax(1) == labels[::2]).mean()
    mse = ((means @ [0, 0.5, 1] - labels[::2] / 2) ** 2).mean()
    of_clips = text[text.index("30 test clips") :]
    assert f"| {100 * accuracy:.1f} [" in of_clips
    assert f"| {100 * mse:.1f} [" in of_clips
    assert "Mean squared error: of the expected level, from 0 to 1, in hundredths" in text
    [entry] = front_matter(tmp_path / "out")["model-index"]
    named = {metric.get("name"): metric["value"] for metric in entry["results"][0]["metrics"]}
    assert named["accuracy per clip"] == pytest.approx(accuracy, abs=1e-4)


def test_the_run_that_it_lies_in_gives_scores_and_temperature(content, tmp_path):
    run = write_run(tmp_path / "run", some_images(), temperature=1.75)
    result = json.loads((run / "result.json").read_text())
    more = {"command": "python train.py 'a=b c'", "git_commit": "0123abc", "model": MODEL}
    more |= {"num_people": {"train": 8, "val": 1, "test": 10}, "num_images": {"train": 40, "val": 5, "test": 60}}
    (run / "result.json").write_text(json.dumps(result | more))
    torch.save(content, run / "best.ckpt")
    assert export(str(run / "best.ckpt"), tmp_path / "out").temperature == 1.75
    saved = checkpoint.read(tmp_path / "out" / "model.safetensors")
    assert saved["provenance"]["command"] == "python train.py 'a=b c'"
    assert saved["provenance"]["commit"] == "0123abc"
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "model-index" in text
    assert "not of this one" not in text
    assert "fine-tuned from" in text
    assert "**Research demonstration.** It has learned from 8 people." in text
    assert "40 training images" in text


def test_without_a_finished_run_there_are_no_scores(source, tmp_path):
    assert export(source, tmp_path / "out").temperature == 1
    assert "model-index" not in front_matter(tmp_path / "out")
    assert "None: no finished run" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_scores_on_training_people_are_no_scores(content, folds, tmp_path):
    run = write_run(tmp_path / "run", some_images(), temperature=1.75, choices={"split": "everyone"})
    torch.save(content, run / "last.ckpt")
    assert export(str(run / "last.ckpt"), tmp_path / "out").temperature == 1
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "None: split=everyone trains on all images and tests on the same ones" in text
    assert "model-index" not in text
    export(str(run / "last.ckpt"), tmp_path / "out", [folds[0]])
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "This one has learned from all of these images" in text
    assert "trained on all images" in text
    assert "split=everyone, whose scores are no result" in refused(str(run / "last.ckpt"), tmp_path / "out", [run])


def test_the_scores_of_the_best_epoch_are_not_those_of_the_last(content, tmp_path):
    run = write_run(tmp_path / "run", some_images(), temperature=1.75)
    result = json.loads((run / "result.json").read_text())
    for epoch, temperature in ((4, 1.75), (2, 1)):
        (run / "result.json").write_text(json.dumps(result | {"validation": {"epoch": epoch, "val/auc": 0.5}}))
        torch.save(content, run / "last.ckpt")
        assert export(str(run / "last.ckpt"), tmp_path / "out").temperature == temperature
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "None: its run has tested another epoch, that of best.ckpt." in text
    export(str(run / "last.ckpt"), tmp_path / "out", [run])
    assert "not of this one" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_settings_in_which_the_scored_networks_differ_are_named(content, folds, tmp_path):
    run = write_run(tmp_path / "run", some_images(), choices={"split": "everyone"}, settings={"optimizer.lr": 0.3})
    torch.save(content, run / "last.ckpt")
    export(str(run / "last.ckpt"), tmp_path / "out", [folds[0]])
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Settings that differ between them and this one: optimizer.lr." in text


def of_another_experiment(folder):
    write_run(folder / "more", some_images(seed=2), seed=2, settings={"optimizer.lr": 0.3})


def of_other_classes(folder):
    images = some_images(class_names=("a", "b", "c"))
    write_run(folder / "more", images, seed=2)
    for path in folder.glob("[01]-*/result.json"):
        path.unlink()


def of_another_network(folder):
    for path in folder.rglob("result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model": MODEL | {"width": 0.1}}))


def of_a_leakage_check(folder):
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"choices": result["choices"] | {"split": "random"}}))


def of_a_baseline(folder):
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text()) | {"stage": "baseline", "model": {"c": 1.0}}
        path.write_text(json.dumps(result))


def of_nothing(folder):
    for path in folder.rglob("result.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_another_experiment, "--runs has 2 experiments (finetune wacv2016 kfold vgg_small optimizer.lr=0.05; finet"),
        (of_other_classes, "has the classes a, b, c, the checkpoint has disengaged, engaged"),
        (of_another_network, "has another network"),
        (of_a_baseline, "is a baseline: give runs of the checkpoint's network"),
        (of_a_leakage_check, "has split=random, whose scores are no result"),
        (of_nothing, "no finished run (result.json) below"),
    ],
)
def test_runs_that_do_not_fit_are_refused(source, folds, tmp_path, change, said):
    change(folds[0])
    assert said in refused(source, tmp_path / "out", [folds[0]])
    assert not (tmp_path / "out").exists()


# The folder.


def test_an_earlier_export_is_replaced_and_other_content_is_not_touched(source, tmp_path):
    out = tmp_path / "out"
    export(source, out)
    before = (out / "model.safetensors").read_bytes()
    export(source, out, notes="Something new.")
    assert (out / "model.safetensors").read_bytes() == before
    assert "## Notes\n\nSomething new.\n\n<!-- " in (out / "README.md").read_text(encoding="utf-8")
    (out / "mine.txt").write_text("x")
    assert refused(source, out) == f"{out} holds other files (mine.txt): choose another folder"
    assert "last.ckpt is a file: choose another folder" in refused(source, tmp_path / "alone" / "last.ckpt")


@pytest.mark.parametrize(
    "edit", [lambda text: f"{text}My own line.\n", lambda text: text.replace("Scores", "My scores")]
)
def test_a_card_that_was_edited_is_not_replaced(source, tmp_path, edit):
    export(source, tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    edited = edit(card.read_text(encoding="utf-8"))
    card.write_text(edited, encoding="utf-8")
    assert "README.md was edited since it was written: choose another folder" in refused(source, tmp_path / "out")
    assert card.read_text(encoding="utf-8") == edited
    card.unlink()
    export(source, tmp_path / "out")


def test_weights_that_come_with_engrec_keep_their_licence_and_point_to_their_scores(tmp_path):
    export("engrec:engagement", tmp_path / "a")
    export(str(tmp_path / "a" / "model.safetensors"), tmp_path / "b")
    for folder, where in (("a", "engrec/weights/engagement/README.md"), ("b", tmp_path / "a" / "README.md")):
        text = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
        assert "\nlicense: cc-by-nc-4.0\n" in text
        assert f"from which these weights were exported, are on its card: `{where}`." in text


def test_nothing_is_left_where_the_export_fails(source, content, tmp_path, monkeypatch):
    export(source, tmp_path / "out")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def different(*_):
        raise ValueError("not the same")

    monkeypatch.setattr(exporting, "check_same", different)
    for folder in ("out", "new"):
        assert refused(source, tmp_path / folder, notes="Another.") == "not the same"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_weights_that_half_precision_cannot_hold_end_the_export(content, tmp_path, value):
    weights = content["state_dict"] | {"head.bias": torch.tensor([0.0, value])}
    torch.save(content | {"state_dict": weights}, tmp_path / "last.ckpt")
    message = refused(str(tmp_path / "last.ckpt"), tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'last.ckpt'} cannot be exported: head.bias has ")
    assert not (tmp_path / "out").exists()


def test_a_network_that_half_precision_changes_is_refused(content):
    network, rounded = (build.loaded_module("x", content) for _ in range(2))
    with torch.no_grad():
        rounded.head.weight.mul_(-1)
    with pytest.raises(ValueError, match=r"last.ckpt does not stay the same in half precision: .* set --float32"):
        check_same("last.ckpt", network, rounded, content)
    assert check_same("last.ckpt", network, network, content) == 0


def test_random_images_are_of_fine_and_coarse_grain():
    images = exporting.random_images(IMAGES)
    assert images.shape == (512, 1, 48, 48)
    assert images.dtype is torch.uint8
    values = images.double()
    assert (values.std(dim=(1, 2, 3)) > 20).all()
    steps = (values[..., 1:] - values[..., :-1]).abs().mean(dim=(1, 2, 3))
    assert steps.max() > 10 * steps.min()


# As ONNX.


@pytest.fixture(scope="module")
def with_graph(content, tmp_path_factory):
    """An export with onnx/model.onnx, made once: it takes seconds."""
    folder = tmp_path_factory.mktemp("graph")
    torch.save(content, folder / "last.ckpt")
    return export(str(folder / "last.ckpt"), folder / "out", as_onnx=True)


def test_the_graph_describes_itself_and_computes_the_weights_beside_it(with_graph):
    out = with_graph.folder
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "README.md", "config.json", "model.safetensors", "onnx/model.onnx",
    ]  # fmt: skip
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["engrec"])
    saved = checkpoint.read(out / "model.safetensors")
    assert about["class_names"] == list(CLASSES)
    assert about["preprocessing"] == saved["hyper_parameters"]["preprocessing"]
    assert {key: about[key] for key in ("task", "dataset", "temperature")} == {
        key: saved[key] for key in ("task", "dataset", "temperature")
    }
    assert about["crop"] == STANDARD.as_dict()  # the data set's own crops are the same
    assert about["weights_sha256"] == hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    images = exporting.random_images(IMAGES, 20)
    expected = exporting.probabilities(build.loaded_module("x", saved), images)
    assert session.run(None, {"images": images.numpy()})[0] == pytest.approx(expected.numpy(), abs=1e-5)
    assert 0 < with_graph.graphs.apart < 1e-5


def test_the_card_uses_the_graph_as_it_says(with_graph, monkeypatch):
    monkeypatch.chdir(with_graph.folder.parent)
    text = (with_graph.folder / "README.md").read_text(encoding="utf-8")
    _, code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["class_names"] == list(CLASSES)
    assert names["probabilities"].shape == (1, 2)


def test_an_earlier_graph_does_not_stay_beside_other_weights(with_graph, source, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(with_graph.folder, out)
    (out / "onnx" / "model_int8.onnx").write_bytes(b"of an earlier export")
    export(source, out)
    assert sorted(path.name for path in out.iterdir()) == FILES
    (out / "onnx").mkdir()
    (out / "onnx" / "mine.txt").write_text("x")
    assert refused(source, out) == f"{out} holds other files (onnx/mine.txt): choose another folder"


def test_nothing_is_left_where_the_graph_is_not_the_same(source, tmp_path, monkeypatch):
    def different(*_):
        raise ValueError("not the same")

    monkeypatch.setattr(onnx, "exported", lambda *_: b"")
    monkeypatch.setattr(onnx, "check_same", different)
    export(source, tmp_path / "out")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for folder in ("out", "new"):
        assert refused(source, tmp_path / folder, notes="Another.", as_onnx=True) == "not the same"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept
    assert not (tmp_path / "new").exists()


def test_without_the_packages_only_a_graph_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx_that_is_missing",))
    said = refused(source, tmp_path / "out", as_onnx=True)
    assert said == "--onnx needs onnx_that_is_missing: pip install -e '.[export]'"
    assert refused(source, tmp_path / "out", calibrated_on=tmp_path / "none.npz").startswith("--int8 needs onnx_")
    assert not (tmp_path / "out").exists()
    assert export(source, tmp_path / "out").graphs is None


def test_the_command_writes_the_graph_where_the_packages_are(source, tmp_path, monkeypatch, capsys):
    out, asked = tmp_path / "out", []
    monkeypatch.setattr(exporting, "graphs_of", lambda *_: asked.append("onnx"))
    script.main([source, str(out)])
    script.main([source, str(out), "--no-onnx"])
    assert asked == ["onnx"]
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx_that_is_missing",))
    capsys.readouterr()
    script.main([source, str(out)])
    line = "not written as ONNX, which needs onnx_that_is_missing: pip install -e '.[export]'"
    assert capsys.readouterr().out.splitlines().count(line) == 1
    with pytest.raises(ValueError, match=r"^--onnx needs onnx_that_is_missing: "):
        script.main([source, str(tmp_path / "new"), "--onnx"])
    with pytest.raises(SystemExit):
        script.main([source, str(tmp_path / "new"), "--no-onnx", "--int8", "faces.npz"])
    assert "--int8 is made of the ONNX: leave out --no-onnx" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert asked == ["onnx"]


# The card.


@pytest.mark.parametrize(
    "dataset", ["fer2013", "ferplus", "wacv2016", "daisee", "engagenet", "engagewild", "synthetic"]
)
def test_the_card_says_where_known_data_come_from(content, tmp_path, dataset):
    torch.save(content | {"dataset": dataset}, tmp_path / "last.ckpt")
    export(str(tmp_path / "last.ckpt"), tmp_path / "out", licence="mit")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "To be filled in" not in text
    assert "Article 5(1)(f)" in text
    assert ("Research demonstration" in text) == (dataset != "synthetic")
    assert ("**A test of the software.** It was trained on synthetic faces" in text) == (dataset == "synthetic")
    matter = front_matter(tmp_path / "out")
    assert matter["license"] == "mit"
    assert matter["pipeline_tag"] == "image-classification"
    assert matter["library_name"] == "engrec"
    assert "engagement-recognition" in matter["tags"]


def test_the_card_of_unknown_data_asks_its_author(content, tmp_path):
    torch.save(content | {"dataset": "mine"}, tmp_path / "last.ckpt")
    export(str(tmp_path / "last.ckpt"), tmp_path / "out")
    assert "Data set mine. **To be filled in by the author" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_the_card_says_how_to_crop_where_that_is_known(content, tmp_path):
    parameters = content["hyper_parameters"]
    recipes = {
        "wacv2016": ({}, "Crop the square of the longer side"),
        "synthetic": ({}, "How they were cropped is not recorded"),
        "mine": ({"crop": STANDARD.as_dict()}, "Crop the square of the longer side"),
        "other": ({"crop": STANDARD.as_dict() | {"side": 1.3}}, "They are cropped with side 1.3, not 1.0 as engrec"),
    }
    for dataset, (crop, said) in recipes.items():
        more = {"hyper_parameters": parameters | {"preprocessing": IMAGES | crop}, "dataset": dataset}
        torch.save(content | more, tmp_path / "last.ckpt")
        export(str(tmp_path / "last.ckpt"), tmp_path / dataset)
        assert said in (tmp_path / dataset / "README.md").read_text(encoding="utf-8")


def test_the_card_loads_the_network_as_it_says(source, folds, tmp_path, monkeypatch):
    export(source, tmp_path / "out", [folds[0]])
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["probabilities"].shape == (1, 2)
    assert names["probabilities"].sum().item() == pytest.approx(1)
    assert names["saved"]["temperature"] != 1


def test_weights_that_come_with_engrec_are_loaded_by_name(source, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "SHIPPED", tmp_path / "weights")
    export(source, tmp_path / "weights" / "faces")
    text = (tmp_path / "weights" / "faces" / "README.md").read_text(encoding="utf-8")
    assert "init_from=engrec:faces" in text
    assert "ckpt_path=engrec:faces" in text
    assert checkpoint.read("engrec:faces")["dataset"] == "wacv2016"


def test_several_views_stand_beside_the_plain_scores(content, tmp_path):
    images = some_images()
    run = write_run(tmp_path / "run", images, temperature=1.5, views={"ten_crop": right_for(images, 1.0)})
    torch.save(content, run / "best.ckpt")
    export(str(run / "best.ckpt"), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| finetune vgg_small |" in text
    assert "| finetune vgg_small + ten_crop | 100.0 " in text
    accuracy = (images.probabilities.argmax(1) == images.labels).mean()
    [entry] = front_matter(tmp_path / "out")["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy, abs=1e-4)
