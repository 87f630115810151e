"""Weights go from one stage to the next whole, or not at all with a reason; nothing in a file is ever executed."""

import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch

from engrec import checkpoint
from engrec.errors import CheckpointError, exit_status
from engrec.faces.crop import STANDARD, Crop
from engrec.models.cnn import CNN
from engrec.models.vgg import VGG
from engrec.modules import build
from engrec.modules.expression import ExpressionModule
from engrec.plan import Resume, plan

MODEL = {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.05, "dense": []}
IMAGES = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
NAMES = ["happy", "sad"]


def network(**settings):
    return VGG(**{"norm": "batch", "width": 0.05, "dense": (), **settings})


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(1)
    module = ExpressionModule(MODEL, {"_target_": "torch.optim.SGD", "lr": 0.1}, {}, NAMES, IMAGES)
    return {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "module": "engrec.modules.expression.ExpressionModule",
    }


@pytest.fixture
def path(content, tmp_path):
    torch.save(content, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def fill(backbone, path, preprocessing):
    checkpoint.load_backbone(backbone, checkpoint.read(path), str(path), preprocessing)


def module_of(path, data):
    return build.tested_module(str(path), checkpoint.read(path), data)


def refused(function, *arguments):
    with pytest.raises(ValueError, match=r"\S") as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_backbone_is_filled_to_the_last_tensor(content, path):
    backbone = network()
    fill(backbone, path, IMAGES)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"backbone.{name}"])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: network(width=0.1), "is (6, 1, 3, 3) here, (3, 1, 3, 3) in the checkpoint"),
        (lambda: network(norm="none"), "none in the checkpoint"),
        (lambda: network(dense=(8,)), "(8, 234) here, none in the checkpoint"),
        (CNN, "CNN"),
    ],
)
def test_another_network_is_refused_with_both_named(path, other, said):
    backbone = other()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    message = refused(fill, backbone, path, IMAGES)
    assert "best.ckpt has another network" in message
    assert "set model=vgg_small model.width=0.05" in message
    assert type(backbone).__name__ in message.partition("than this run's")[2]
    assert said in message
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("lost", ["backbone.blocks.0.0.weight", "backbone.blocks.3.4.running_var"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(content, path, lost):
    torch.save(content | {"state_dict": {k: v for k, v in content["state_dict"].items() if k != lost}}, path)
    assert lost.removeprefix("backbone.") in refused(
        checkpoint.load_backbone, network(), checkpoint.read(path), str(path), IMAGES
    )


def test_images_prepared_otherwise_are_refused_with_both_named(path):
    message = refused(
        checkpoint.load_backbone,
        network(),
        checkpoint.read(path),
        str(path),
        IMAGES | {"channels": 3, "height": 64, "width": 60},
    )
    assert "1×48×48, normalised per image" in message
    assert "3×64×60, normalised per image" in message
    assert "1×48×48" in refused(
        checkpoint.load_backbone, network(), checkpoint.read(path), str(path), IMAGES | {"normalize": "data set"}
    )


CROPPED = IMAGES | {"crop": STANDARD.as_dict()}
WIDER = IMAGES | {"crop": Crop(side=1.3).as_dict()}


def trained_on(images, dataset=None):
    return {"hyper_parameters": {"preprocessing": images}, "dataset": dataset}


@pytest.mark.parametrize(
    ("trained", "images"),
    [
        (trained_on(CROPPED), WIDER),
        (trained_on(WIDER), CROPPED),
        (trained_on(IMAGES, "fer2013"), WIDER),
        (trained_on(IMAGES, "ferplus"), WIDER),
    ],
)
def test_faces_cropped_otherwise_are_refused_with_both_named(path, trained, images):
    message = refused(checkpoint.check_preprocessing, trained, path, images)
    assert "cropped with side 1." in message
    assert "1.3" in message
    assert "1.0" in message


@pytest.mark.parametrize(
    ("trained", "images"),
    [
        (trained_on(CROPPED), IMAGES),
        (trained_on(IMAGES), WIDER),
        (trained_on(IMAGES, "mine"), CROPPED),
        (trained_on(IMAGES, "fer2013"), CROPPED),
        (trained_on(CROPPED), IMAGES | {"crop": Crop(detect_size=320).as_dict()}),
    ],
)
def test_older_checkpoints_and_unknown_crops_stay_usable(path, trained, images):
    checkpoint.check_preprocessing(trained, path, images)


def test_training_resumes_from_a_checkpoint_that_does_not_say_how_faces_were_cropped(path):
    old = {"optimizer_states": [], "hyper_parameters": {"preprocessing": IMAGES}}
    checkpoint.check_continues(old, path, {"preprocessing": CROPPED})
    newer = {"optimizer_states": [], "hyper_parameters": {"preprocessing": WIDER}}
    message = refused(checkpoint.check_continues, newer, path, {"preprocessing": CROPPED})
    assert "preprocessing.crop.side=1.3, this run has preprocessing.crop.side=1.0" in message


def test_other_classes_are_refused_with_both_named(content, path):
    checkpoint.check_classes(content, path, ("happy", "sad"))
    for others in (("sad", "happy"), ("happy", "sad", "neutral"), ("engaged", "disengaged")):
        message = refused(checkpoint.check_classes, content, path, others)
        assert "2 classes (happy, sad)" in message
        assert f"{len(others)} ({', '.join(others)})" in message


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_that_runs_a_command_is_not_executed(content, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))):
        write(content | {"callbacks": Payload()}, path)
        assert "best.ckpt cannot be read safely" in refused(checkpoint.read, path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "written",
    [b"", b"hello", b"PK\x03\x04 hello", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(1000), b"\x80\x02N.", b"a,b\n1,2\n"],
)
def test_a_file_that_is_not_of_torch_is_refused(path, written):
    path.write_bytes(written)
    assert "best.ckpt" in refused(checkpoint.read, path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "best.ckpt cannot be read" in refused(checkpoint.read, path)


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(3),
        [1, 2],
        {"model": 1},
        {"state_dict": {}},
        {"state_dict": {}, "hyper_parameters": {}},
        {"state_dict": {}, "hyper_parameters": {"lr": 0.1}, "module": "somebody.Else"},
    ],
)
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(path, other):
    torch.save(other, path)
    assert "not an engrec checkpoint" in refused(checkpoint.read, path)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(path, tmp_path, monkeypatch):
    said = {"none.ckpt": "cannot be opened: No such file or directory", "empty.ckpt": "is empty"}
    (tmp_path / "empty.ckpt").touch()
    for name, expected in said.items():
        assert refused(checkpoint.read, tmp_path / name) == f"{tmp_path / name} {expected}"
    assert refused(checkpoint.read, tmp_path) == f"{tmp_path} is a folder: give the file in it, .safetensors or .ckpt"

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", denied)  # the tests may run as root, for whom nothing is closed
    assert refused(checkpoint.read, path) == f"{path} cannot be opened: Permission denied"


def test_a_small_file_does_not_fill_the_memory(content, path):
    """Compressed, or a tensor that repeats one stored number."""
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(path.with_name("small.ckpt"), "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert "cannot be read safely" in refused(checkpoint.read, path.with_name("small.ckpt"))
    huge = torch.zeros(1).expand(10**12)
    torch.save(content | {"state_dict": content["state_dict"] | {"head.bias": huge}}, path)
    assert "state_dict.head.bias is a tensor that has more values than the file" in refused(checkpoint.read, path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"state_dict": {"head.bias": 3}}, "state_dict.head.bias is 3"),
        ({"state_dict": {1: torch.zeros(1)}}, "state_dict.1 is "),
        ({"epoch": -1}, "epoch is -1: it must be greater than or equal to 0"),
        ({"epoch": 1.5}, "epoch is 1.5: it must be a whole number"),
        ({"task": "${oc.env:HOME}"}, "task is '${oc.env:HOME}': it must be 'expression' or 'engagement'"),
        ({"module": None}, "module is None: it must be text"),
        ({"dataset": "a\nb"}, "must be short text without control characters"),
        ({"class_names": ["happy", "happy"]}, "hyper_parameters.class_names has a name twice"),
        ({"class_names": "happy"}, "hyper_parameters.class_names is 'happy': it must be a list"),
        ({"preprocessing": IMAGES | {"height": 0}}, "hyper_parameters.preprocessing.height is 0: it must be greater"),
        ({"preprocessing": IMAGES | {"width": "48"}}, "preprocessing.width is '48': it must be a whole number"),
        ({"preprocessing": {"channels": 1}}, "it lacks hyper_parameters.preprocessing.height"),
        ({"preprocessing": IMAGES | {"crop": 1}}, "preprocessing.crop is refused: crop must be a mapping, found 1"),
        ({"preprocessing": IMAGES | {"crop": {"side": 1}}}, "preprocessing.crop is refused: crop lacks detector"),
        ({"model": {"norm": "batch"}}, "it lacks hyper_parameters.model._target_"),
        ({"model": MODEL | {"norm": torch.zeros(1)}}, "hyper_parameters.model.norm is a Tensor"),
        ({"seed": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}, "hyper_parameters.seed.0.0.0"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_found_and_expected(content, path, changed, said):
    of_the_file = changed.keys() <= {"state_dict", "epoch", "task", "module", "dataset"}
    parameters = content["hyper_parameters"] if of_the_file else content["hyper_parameters"] | changed
    torch.save(content | {"hyper_parameters": parameters} | (changed if of_the_file else {}), path)
    message = refused(checkpoint.read, path)
    assert message.startswith(f"{path} is not an engrec checkpoint, or damaged: ")
    assert said in message


@pytest.fixture
def data(make_faces):
    from engrec.data import DataModule
    from engrec.splits import Split

    index = make_faces().labels[:2]
    return DataModule(make_faces(size=48, class_names=tuple(NAMES)), Split(index, index, index), lambda x: x, 4)


def test_the_tested_module_is_the_saved_one(content, path, data):
    module = module_of(path, data)
    assert isinstance(module, ExpressionModule)
    assert all(torch.equal(value, content["state_dict"][name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "engrec.models.vgg.nn.Module",
        "engrec.models.vgg.init_he",
        "engrec.models.vgg.VGG.mro",
        "engrec.models.vgg.Sequence",
        "engrec.models.none.VGG",
        "engrec.experiment.run",
        "engrec.models",
        "engrecXmodels.vgg.VGG",
    ],
)
def test_a_checkpoint_that_names_other_code_is_not_built(content, path, data, target):
    parameters = content["hyper_parameters"]
    torch.save(content | {"hyper_parameters": parameters | {"model": {"_target_": target, "command": "exit"}}}, path)
    assert f"names {target}, which is not part of engrec" in refused(
        build.tested_module, str(path), checkpoint.read(path), data
    )
    torch.save(content | {"module": target}, path)
    assert f"names {target}, which is not part of engrec" in refused(
        build.tested_module, str(path), checkpoint.read(path), data
    )


def test_code_nested_in_a_checkpoint_is_not_run(content, path, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nested = {"_target_": "os.system", "command": "touch executed"}
    for place in ("model", "optimizer", "lr_scheduler"):
        parameters = content["hyper_parameters"]
        changed = parameters | {place: parameters[place] | {"norm": nested, "lr": nested}}
        torch.save(content | {"hyper_parameters": changed}, path)
        try:
            module_of(path, data)
        except Exception as error:  # what is said does not matter here
            assert place == "model", error  # noqa: PT017
    assert not (tmp_path / "executed").exists()


SECRET = "${oc.env:WANDB_API_KEY}"


@pytest.mark.parametrize(
    "place",
    [
        *("norm", "_args_", "_partial_", "_convert_", "_recursive_", "dense", "more"),
        *({"_target_": "os.system"}, {"norm": {"_target_": "os.system", "command": "touch executed"}}),
        *({"dense": [{"_target_": "os.system"}]}, {"_args_": [{"_target_": "os.system"}]}, {"_target_": SECRET}),
    ],
    ids=str,
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"key": SECRET}, {"key": [{SECRET: SECRET}]}, True], ids=str)
def test_nothing_in_a_checkpoint_is_resolved(content, path, data, tmp_path, monkeypatch, place, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "of-nobody-else")
    parameters = content["hyper_parameters"]
    model = parameters["model"] | (place if isinstance(place, dict) else {place: value})
    torch.save(content | {"hyper_parameters": parameters | {"model": model}}, path)
    message = refused(module_of, path, data)
    assert "of-nobody-else" not in message
    assert not (tmp_path / "executed").exists()


def test_what_a_checkpoint_names_reaches_the_plan_as_it_is_written(content, path, compose, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "of-nobody-else")
    parameters = content["hyper_parameters"]
    torch.save(content | {"hyper_parameters": parameters | {"model": MODEL | {"norm": SECRET, "more": [SECRET]}}}, path)
    cfg = compose("stage=test", f"ckpt_path={path}", "trainer.accelerator=cpu", f"output_dir={path.parent / 'run'}")
    planned = plan(cfg)
    assert planned.config["model"]["norm"] == SECRET
    assert "of-nobody-else" not in str(planned.config)


def test_only_training_uses_the_optimizer_of_a_checkpoint(content, path, data):
    parameters = content["hyper_parameters"]
    foreign = {"_target_": SECRET, "lr": {"_target_": "os.system"}}
    torch.save(content | {"hyper_parameters": parameters | {"optimizer": foreign, "lr_scheduler": foreign}}, path)
    module = module_of(path, data)
    assert module.hparams["optimizer"] == module.hparams["lr_scheduler"] == {}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"width": "big"}, "width is 'big': it must be a number"),
        ({"width": 8.0}, "its weights are not those of its network"),
        ({"width": 1e300}, "width is 1e+300: it must be a number above 0 and at most 16"),
        ({"dense": [10**9, 10**9]}, "dense.0 is 1000000000: it must be a whole number from 1 to 65536"),
        ({"in_channels": 3}, "its weights are not those of its network"),
        ({"in_channels": -1}, "in_channels is -1: it must be a whole number of at least 1"),
        ({"depth": 3}, "depth is 3: there is no such setting"),
    ],
)
def test_a_network_that_does_not_fit_its_weights_takes_no_memory(content, path, data, model, said):
    parameters = content["hyper_parameters"]
    torch.save(content | {"hyper_parameters": parameters | {"model": MODEL | model}}, path)
    assert said in refused(module_of, path, data)


def test_a_network_for_other_images_is_refused(content, path, data):
    module = ExpressionModule(MODEL | {"in_channels": 3}, {}, {}, NAMES, IMAGES)
    torch.save(content | {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, path)
    assert "describes a network that cannot be built: Given groups=1, weight of size [3, 3, 3, 3]" in refused(
        module_of, path, data
    )


def test_a_training_goes_on_only_as_it_was(content, path):
    parameters = content["hyper_parameters"]
    assert "last.ckpt" in refused(checkpoint.check_continues, content, path, parameters)
    whole = content | {"optimizer_states": []}
    checkpoint.check_continues(whole, path, parameters)
    optimizer = parameters["optimizer"]
    for name, other, said in (
        ("seed", 1, f"seed={parameters['seed']}, this run has seed=1"),
        ("optimizer", optimizer | {"lr": 1}, f"optimizer.lr={optimizer['lr']}, this run has optimizer.lr=1"),
        ("optimizer", None, f"optimizer={optimizer}, this run has optimizer=None"),
    ):
        assert said in refused(checkpoint.check_continues, whole, path, parameters | {name: other})


def of_weights_alone(path):
    checkpoint.check_continues({}, path, {})


def of_other_settings(path):
    checkpoint.check_continues({"optimizer_states": [], "hyper_parameters": {"seed": 0}}, path, {"seed": 1})


@pytest.mark.parametrize("wrong", [checkpoint.read, of_weights_alone, of_other_settings])
def test_a_checkpoint_that_cannot_be_used_has_an_exit_status_of_its_own(tmp_path, wrong):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=str(path)) as error:
        wrong(path)
    assert exit_status(error.value) == 65


def test_a_run_does_not_resume_on_a_data_set_that_was_prepared_again(compose, data):
    planned = plan(compose("stage=pretrain", "model=vgg_small", "model.width=0.1", "output_dir=outputs/none"))
    module = build.new_module(planned, data)
    saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "optimizer_states": []}
    for seen in (None, data.seen):
        build.new_module(replace(planned, start=Resume("last.ckpt", saved | {"seen": seen})), data)
    with pytest.raises(CheckpointError, match="was trained on other images of random, which was prepared again since"):
        build.new_module(replace(planned, start=Resume("last.ckpt", saved | {"seen": "others"})), data)
