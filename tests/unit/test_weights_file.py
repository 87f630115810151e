"""A .safetensors of engrec: the checkpoint's network in half precision; whatever else is in it costs one line."""

import json
import struct

import pytest
import torch
from safetensors.torch import load, load_file, save

from engrec import checkpoint, weights_file
from engrec.config import check
from engrec.errors import CheckpointError, exit_status
from engrec.modules import build
from engrec.modules.expression import ExpressionModule
from engrec.plan import plan

MODEL = {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.05, "dense": []}
IMAGES = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
NAMES = ["happy", "sad"]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(1)
    return ExpressionModule(MODEL, {"_target_": "torch.optim.SGD", "lr": 0.1}, {}, NAMES, IMAGES)


@pytest.fixture(scope="module")
def about(module):
    return {
        "hyper_parameters": dict(module.hparams),
        "module": "engrec.modules.expression.ExpressionModule",
        "task": "expression",
        "dataset": "random",
        "epoch": 3,
        "temperature": 1.25,
        "provenance": {"command": "python train.py", "commit": None, "engrec": "0.1.0"},
    }


@pytest.fixture
def path(module, about, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_file.pack(module.state_dict(), about))
    return path


@pytest.fixture
def by_name(path, monkeypatch):
    """The same file as engrec:faces, alone in the folder of weights that come with engrec."""
    folder = path.parent / "weights"
    (folder / "faces").mkdir(parents=True)
    path.rename(folder / "faces" / weights_file.NAME)
    monkeypatch.setattr(weights_file, "SHIPPED", folder)
    return "engrec:faces"


def refused(function, *arguments):
    with pytest.raises(ValueError, match=r"\S") as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_is_read_as_a_checkpoint_in_float32(module, about, path):
    saved = checkpoint.read(path)
    assert saved == about | {"state_dict": saved["state_dict"]}
    for name, tensor in module.state_dict().items():
        there = saved["state_dict"][name]
        assert there.dtype is tensor.dtype
        assert torch.equal(there, tensor.half().float() if tensor.is_floating_point() else tensor)


def test_float32_is_kept_to_the_last_bit(module, about, path):
    path.write_bytes(weights_file.pack(module.state_dict(), about, half=False))
    saved = checkpoint.read(path)["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())


def test_half_precision_takes_two_bytes_for_each_weight(module, about, path):
    weights = sum(tensor.numel() for tensor in module.state_dict().values())
    assert 2 * weights < path.stat().st_size < 2 * weights + 10_000


def test_the_same_network_gives_the_same_bytes(module, about):
    assert len({weights_file.pack(module.state_dict(), about) for _ in range(8)}) == 1


@pytest.mark.parametrize("place", ["description", "name", "type", "shape", "first", "middle", "last"])
def test_a_change_of_what_was_written_is_refused(path, place):
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    parts = {"description": b"1.25", "name": b"head.bias", "type": b'"F16"', "shape": b'"shape":[2,'}
    at = {"first": start, "middle": (start + len(data)) // 2, "last": len(data) - 1}
    if place in parts:
        found = data.index(parts[place])
        others = {"description": b"9.25", "name": b"head.bia5", "type": b'"I16"', "shape": b'"shape":[1,'}
        data[found : found + len(parts[place])] = others[place]
    else:
        data[at[place]] ^= 1
    path.write_bytes(data)
    assert refused(checkpoint.read, path).startswith(f"{path} ")
    if place not in ("type", "shape"):  # of which the library itself sees that they do not fit
        assert "is damaged: its weights or their description have changed" in refused(checkpoint.read, path)


def test_in_another_order_it_is_the_same_file(path):
    saved, data = checkpoint.read(path), path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    reordered, body = {"__metadata__": header.pop("__metadata__")}, b""
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"], reverse=True):
        start, end = tensor["data_offsets"]
        reordered[name] = tensor | {"data_offsets": [len(body), len(body) + end - start]}
        body += values[start:end]
    assert body != values
    written = json.dumps(reordered).encode()
    written += b" " * (-len(written) % 8)
    path.write_bytes(struct.pack("<Q", len(written)) + written + body)
    assert all(torch.equal(checkpoint.read(path)["state_dict"][name], saved["state_dict"][name]) for name in header)


def test_a_file_of_an_earlier_version_has_no_checksum_and_is_read(module, about, path):
    path.write_bytes(save(load(path.read_bytes()), {"format": "pt", "engrec": json.dumps(about)}))
    saved = checkpoint.read(path)
    assert saved == about | {"state_dict": saved["state_dict"]}


def test_other_tools_read_it(module, path):
    assert load_file(path).keys() == module.state_dict().keys()


def test_weights_in_another_memory_layout_are_stored_all_the_same(about, path):
    weights = {"a": torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last), "b": torch.rand(3, 2).T}
    path.write_bytes(weights_file.pack(weights, about, half=False))
    assert all(torch.equal(weights_file.read(path)["state_dict"][name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("value", "said"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (7e4, "a value of 70000, half precision ends at")],
)
def test_weights_that_half_precision_cannot_hold_are_not_written(about, value, said):
    assert said in refused(weights_file.pack, {"head.bias": torch.tensor([1.0, value])}, about)


def test_a_description_that_json_lacks_is_not_written(about):
    assert "JSON" in refused(weights_file.pack, {}, about | {"temperature": float("nan")})
    assert "at most 1,048,576 are read" in refused(weights_file.pack, {}, about | {"dataset": "x" * 2**20})


NESTED = "[" * 100_000
WHOLE = {"a": torch.zeros(2, dtype=torch.float16)}


def with_header(data, header):
    """The file with another header, its length right."""
    length = struct.unpack("<Q", data[:8])[0]
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def described(text):
    return save(WHOLE, {"format": "pt", "engrec": text})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello", "it is damaged, or no safetensors file of engrec"),
        (b"PK\x03\x04 hello, hello", "it is damaged, or no safetensors file of engrec"),
        (struct.pack("<Q", 2**40) + b"{}", "it is damaged, or no safetensors file of engrec"),
        (struct.pack("<Q", 2**21) + bytes(2**21), "it is damaged, or no safetensors file of engrec"),
        (with_header(save(WHOLE), NESTED.encode()), "it is damaged, or not a safetensors file"),
        (with_header(save(WHOLE), b'{"a":{"dtype":"F16","shape":[9],"data_offsets":[0,4]}}'), "it is damaged"),
        (save(WHOLE), "is a safetensors file but not of engrec"),
        (save(WHOLE, {"format": "pt"}), "is a safetensors file but not of engrec"),
        (described(""), "what describes its network is not plain JSON"),
        (described(NESTED), "what describes its network is not plain JSON"),
        (described('{"a": ' * 30 + "1" + "}" * 30), "what describes its network is not plain JSON"),
        (described('{"temperature": NaN}'), "what describes its network is not plain JSON"),
        (described("1" * 100_000), "what describes its network is not plain JSON"),
        (described(f"[{'1,' * 60_000}1]"), "what describes its network is not plain JSON"),
        (described("[1]"), "what describes its network is not a mapping"),
        (described("{}"), "is not an engrec checkpoint, or damaged: it lacks hyper_parameters"),
    ],
    ids=[
        "empty",
        "a word",
        "the start of a zip",
        "a length beyond the file",
        "a header of zeros",
        "nested header",
        "offsets of fewer values",
        "no description",
        "only its format",
        "empty description",
        "nested lists",
        "nested mappings",
        "NaN",
        "a huge number",
        "many numbers",
        "a list",
        "an empty mapping",
    ],
)
def test_a_foreign_or_damaged_file_is_refused_in_one_line(path, data, said):
    path.write_bytes(data)
    message = refused(checkpoint.read, path)
    assert message.startswith(f"{path} ")
    assert said in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(2, dtype=torch.float64), "is torch.float64, it must be float16, float32 or int64"),
        (torch.zeros(2, dtype=torch.bfloat16), "is torch.bfloat16, it must be"),
        (torch.zeros(2, dtype=torch.bool), "is torch.bool, it must be"),
        (torch.tensor([1, float("nan")]), "has values that are not finite numbers"),
        (torch.tensor([1, float("inf")]).half(), "has values that are not finite numbers"),
    ],
)
def test_tensors_that_no_export_writes_are_refused_by_name(about, path, tensor, said):
    path.write_bytes(save({"head.bias\n": tensor}, {"engrec": json.dumps(about)}))
    message = refused(checkpoint.read, path)
    assert "'head.bias\\n' " in message
    assert said in message


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epoch": -1}, "epoch is -1: it must be greater than or equal to 0"),
        ({"temperature": 0}, "temperature is 0: it must be"),
        ({"temperature": "1"}, "temperature is '1': it must be a number"),
        ({"provenance": {"command": "a\nb"}}, "must be short text without control characters"),
        ({"module": None}, "module is None: it must be text"),
        ({"hyper_parameters": {"model": {}}}, "it lacks hyper_parameters.model._target_"),
    ],
)
def test_what_describes_the_network_is_held_against_the_description_of_a_checkpoint(about, path, changed, said):
    path.write_bytes(save(WHOLE, {"engrec": json.dumps(about | changed)}))
    assert said in refused(checkpoint.read, path)


def test_a_description_cannot_bring_what_training_would_resume_from(about, path):
    more = {"optimizer_states": [], "callbacks": {}, "loops": {}, "lr_schedulers": [], "state_dict": {"a": 1}, "x": 1}
    path.write_bytes(save(WHOLE, {"engrec": json.dumps(about | more)}))
    saved = checkpoint.read(path)
    assert saved.keys() == {*about, "state_dict"}
    assert "has only weights" in refused(checkpoint.check_continues, saved, path, {})


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be read: it is damaged" in refused(checkpoint.read, path)


def test_a_huge_file_is_not_read(path, monkeypatch):
    monkeypatch.setattr(weights_file, "MOST_BYTES", 1000)
    assert "which no network of engrec takes" in refused(checkpoint.read, path)


def test_a_file_that_is_not_there_is_named(path):
    path.unlink()
    assert refused(checkpoint.read, path) == f"{path} cannot be opened: No such file or directory"


def test_a_name_leads_to_the_file_and_stays_in_messages(by_name):
    saved = checkpoint.read(by_name)
    assert saved["dataset"] == "random"
    message = refused(checkpoint.check_classes, saved, by_name, ("sad", "happy"))
    assert message.startswith("engrec:faces has 2 classes")
    assert "init_from=engrec:faces" in message


@pytest.mark.parametrize("name", ["engrec:face", "engrec:", "engrec:../weights/faces", "engrec:faces/x"])
def test_an_unknown_name_is_answered_with_those_that_exist(by_name, name):
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(name)
    assert str(error.value).startswith(f"{name} does not exist")
    assert str(error.value).endswith("the weights by name are engrec:faces")
    assert exit_status(error.value) == 65


def test_without_any_weights_a_name_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_file, "SHIPPED", tmp_path / "none")
    assert refused(checkpoint.read, "engrec:faces").endswith("does not exist: this copy of engrec has no weights")


def test_a_name_is_kept_as_it_was_typed(compose, by_name, tmp_path):
    where = ["trainer.accelerator=cpu", f"output_dir={tmp_path}/run"]
    tuned = plan(compose("stage=finetune", "model=vgg_small", f"init_from={by_name}", *where))
    assert tuned.start.path == tuned.config["init_from"] == "engrec:faces"
    tested = plan(compose("stage=test", f"ckpt_path={by_name}", *where))
    assert tested.start.path == tested.config["ckpt_path"] == "engrec:faces"
    assert tested.config["model"] == MODEL


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stage=finetune", "init_from=engrec:face"], "init_from=engrec:face does not exist (did you mean engrec:"),
        (["stage=test", "ckpt_path=engrec:face"], "ckpt_path=engrec:face does not exist (did you mean engrec:faces?)"),
        (["stage=scratch", "ckpt_path=engrec:faces"], "fine-tune from them with init_from=engrec:faces"),
        (["stage=scratch", "ckpt_path=PATH"], "has only weights: fine-tune from them with init_from="),
    ],
)
def test_a_wrong_name_or_use_is_said_before_anything_is_built(compose, by_name, overrides, said):
    file = weights_file.located(by_name)
    assert said in refused(check, compose(*(o.replace("PATH", str(file)) for o in overrides)))


def test_the_tested_module_is_the_saved_one(by_name, make_faces, module):
    from engrec.data import DataModule
    from engrec.splits import Split

    faces = make_faces(size=48, class_names=tuple(NAMES))
    data = DataModule(faces, Split(*[faces.labels[:2]] * 3), lambda images: images, 4)
    tested = build.tested_module(by_name, checkpoint.read(by_name), data)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tested.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
