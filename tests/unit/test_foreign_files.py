"""Whatever the files of a run hold, whoever reads them raises ValueError in one line, or nothing.

Valid files are changed at random, DRAWS of each kind.
"""

import copy
import json
import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from dashboard_runs import made
from hypothesis import given
from hypothesis import strategies as st
from mutations import drawn
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from safetensors.torch import load, save

from engrec import checkpoint, weights_file
from engrec.callbacks import EMA, CheckedStates, History, MovedFolder, history_of, moved
from engrec.data import DataModule
from engrec.errors import CheckpointError, explain
from engrec.evidence.groups import read_groups
from engrec.faces.crop import STANDARD
from engrec.modules import build
from engrec.modules.engagement import EngagementModule
from engrec.pages.dashboard.answers import Details
from engrec.pages.dashboard.records import Outputs
from engrec.runs.checkpoint_io import Saver
from engrec.runs.folder import config_of, finished
from engrec.runs.reading import read_history
from engrec.runs.record import find_runs
from engrec.runs.status import status_of
from engrec.splits import Split

SECRET = "only in the environment"
NESTED = []
for _ in range(50):
    NESTED = [NESTED]
REPEATED = ["x"] * 10
for _ in range(9):
    REPEATED = [REPEATED] * 10

ODD = [
    None, True, 0, -1, 1, 2**31, 2**63, -(10**400), 0.0, -0.5, 1e-320, 1e300, float("nan"), float("inf"),
    "", "x", "\n", "\x1b[31m", "é" * 5000, "\ud800", "../../x", "${oc.env:SECRET}", "${", "???",
    [], {}, [1], ["x", "x"], {"": ""}, {"_target_": "os.system"}, {"_args_": ["${oc.env:SECRET}"]}, NESTED,
]  # fmt: skip
ODD_TENSORS = [
    torch.zeros(()), torch.zeros(3), torch.zeros(3, 0), torch.full((2,), float("nan")), torch.zeros(1).expand(10**12),
    torch.zeros(3, dtype=torch.complex64), torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.int8),
    torch.zeros(3, 3).to_sparse(), torch.zeros(2, device="meta"),
    {1: 2}, {(1, 2): 3}, REPEATED,
]  # fmt: skip


def changed(random, value, odd):
    """The nested value with one to three values replaced, removed or added, at random depths."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        node, key = value, None
        while isinstance(node, dict | list) and node and (key is None or random.random() < 0.8):
            parent, key = node, random.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = parent[key]
        if key is None:
            continue
        other, kind = copy.deepcopy(random.choice(odd)), random.randint(0, 5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[random.choice(["x", "_args_", "_partial_", "epoch", 3, "\n"])] = other
        else:
            parent[key] = other
    return value


def damaged(random, content):
    """The bytes with a few of them replaced, or cut off."""
    for _ in range(random.randint(1, 4)):
        at = random.randrange(max(1, len(content)))
        rest = content[at + random.randint(0, 2) :] if random.random() < 0.75 else b""
        content = content[:at] + random.randbytes(random.randint(0, 3)) + rest
    return content


def ours(function, *arguments):
    """What it returns, or None where it raises ValueError in one line, without what only the environment knows."""
    try:
        return function(*arguments)
    except ValueError as error:
        said = explain(error)
    assert len(said) < 2000
    assert "\n" not in said
    assert SECRET not in said
    return None


# Checkpoints.

IMAGES = {"channels": 1, "height": 16, "width": 16, "normalize": "image", "crop": STANDARD.as_dict()}
MODEL = {"_target_": "engrec.models.vgg.VGG", "image_size": 16, "norm": "batch", "width": 0.02, "dense": [2]}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
COSINE = {"_target_": "engrec.modules.schedules.cosine"}
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01}
PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0}
KINDS = {
    "plain": (SGD, COSINE, []),
    "averaged": (ADAMW, PLATEAU, [lambda: EMA(0.9), lambda: EarlyStopping("val/auc", patience=9, mode="max")]),
}


@pytest.fixture(scope="module")
def data(make_faces):
    faces = make_faces(size=16)
    index = faces.labels[:2]
    return DataModule(faces, Split(index, index, index), lambda images: images, 4)


def a_run(kind, folder, max_epochs, saved=None):
    """Trainer and module of a run of this kind."""
    optimizer, schedule, more = KINDS[kind]
    torch.manual_seed(0)
    module = EngagementModule(MODEL, optimizer, schedule, ["class0", "class1"], IMAGES, [1, 1])
    kept = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(folder, "best", monitor="val/auc", mode="max", save_weights_only=True, **kept)
    callbacks = [MovedFolder(), CheckedStates(), History(str(folder)), best, ModelCheckpoint(folder, "last", **kept)]
    callbacks += [build() for build in more]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    plugins = [Saver(read=saved)]
    return pl.Trainer(accelerator="cpu", max_epochs=max_epochs, callbacks=callbacks, plugins=plugins, **quiet), module


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """The content of last.ckpt of a run of each kind after two epochs."""
    contents = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        trainer, module = a_run(kind, folder, 2)
        trainer.fit(module, data)
        contents[kind] = torch.load(folder / "last.ckpt", weights_only=True)
    return contents


@pytest.fixture(scope="module")
def trained(stopped):
    return stopped["plain"]


def resumed(kind, path, data):
    """The epochs of a run that resumes from this file for two more, as engrec.experiment resumes it."""
    saved = checkpoint.read(path)
    trainer, module = a_run(kind, path.parent, 4, saved)
    checkpoint.check_continues(saved, path, dict(module.hparams))
    checkpoint.check_network(module, saved, path)
    trainer.fit(module, data, ckpt_path=str(path), weights_only=True)
    return history_of(trainer).epochs


def used(path, data):
    """The checkpoint is tested, and training resumes from it: what engrec itself does with it."""
    saved = ours(checkpoint.read, path)
    if saved is None:
        return
    ours(build.tested_module, str(path), saved, data)
    ours(checkpoint.check_classes, saved, path, data.faces.class_names)
    ours(checkpoint.check_best, saved, path, {"epoch": 1}, saved)
    if "optimizer_states" in saved:
        history = History(str(path.parent))
        history.load_state_dict(saved["callbacks"].get("History", history.state_dict()))
        history.best("val/auc")
        for key, state in saved["callbacks"].items():
            if key.startswith("ModelCheckpoint"):
                assert {str(Path(name).parent) for name in moved(state, "/run")["best_k_models"]} <= {"/run"}


def test_the_file_that_is_changed_fits(trained, data, tmp_path):
    torch.save(trained, tmp_path / "last.ckpt")
    saved = checkpoint.read(tmp_path / "last.ckpt")
    build.tested_module("last.ckpt", saved, data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_a_checkpoint(trained, data, tmp_path, monkeypatch, random):
    monkeypatch.setenv("SECRET", SECRET)
    torch.save(changed(random, trained, [*ODD, *ODD_TENSORS]), tmp_path / "last.ckpt")
    used(tmp_path / "last.ckpt", data)


STATES = ("callbacks", "optimizer_states", "lr_schedulers", "loops")
OTHERS = ("epoch", "global_step", "pytorch-lightning_version", "current_model_state", "averaging_state")


@drawn(3)
@given(random=st.randoms(use_true_random=True))
@pytest.mark.parametrize("kind", KINDS)
def test_training_resumes_or_the_checkpoint_is_refused(stopped, data, tmp_path, kind, random):
    content = stopped[kind]
    part = random.choice([name for name in (*STATES, *STATES, *OTHERS) if name in content])
    rest = {name: value for name, value in content.items() if name != part}
    torch.save(rest | changed(random, {part: content[part]}, [*ODD, *ODD_TENSORS]), tmp_path / "last.ckpt")
    ours(resumed, kind, tmp_path / "last.ckpt", data)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_checkpoint_is_resumed(stopped, data, tmp_path, kind):
    torch.save(stopped[kind], tmp_path / "last.ckpt")
    assert [row["epoch"] for row in resumed(kind, tmp_path / "last.ckpt", data)] == [0, 1, 2, 3]
    again = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert again["epoch"] == 3
    assert again["optimizer_states"][0]["state"].keys() == stopped[kind]["optimizer_states"][0]["state"].keys()


OPTIMIZER, SCHEDULE, LOOP = ("optimizer_states", 0), ("lr_schedulers", 0), ("loops", "fit_loop")
GROUP, FIRST = (*OPTIMIZER, "param_groups", 0), (*OPTIMIZER, "state", 0)


@pytest.mark.parametrize(
    ("kind", "place", "value", "said"),
    [
        ("plain", (*FIRST, "momentum_buffer"), torch.zeros(3), "state.0.momentum_buffer is torch.float32 (3,), not"),
        ("plain", (*FIRST, "momentum_buffer"), 0.5, "momentum_buffer is 0.5, where this run has a Tensor"),
        ("plain", (*FIRST, "momentum_buffer"), ..., "state.0 lacks 'momentum_buffer'"),
        ("plain", (*FIRST, "momentum_buffer"), torch.zeros(1).expand(1, 1, 3, 3), "momentum_buffer is"),
        ("plain", (*OPTIMIZER, "state", 99), {}, "state has an unknown 99"),
        ("plain", (*OPTIMIZER, "param_groups", 3), ..., "param_groups lacks 3"),
        ("plain", (*GROUP, "params", 0), ..., "params lacks"),
        ("plain", (*GROUP, "lr"), "x", "lr is 'x', where this run has"),
        ("plain", (*GROUP, "lr"), float("nan"), "lr is nan"),
        ("plain", (*SCHEDULE, "last_epoch"), -1, "last_epoch is -1"),
        ("plain", (*SCHEDULE, "step"), 1, "has an unknown 'step'"),
        ("plain", (*SCHEDULE, "lr_lambdas", 0), True, "lr_lambdas.0 is True"),
        ("plain", (*LOOP, "epoch_progress", "current", "ready"), 7, "is not that of the end of epoch 2"),
        ("plain", (*LOOP, "epoch_progress", "current", "ready"), 2.0, "ready is 2.0"),
        ("plain", (*LOOP, "epoch_loop.batch_progress", "is_last_batch"), ..., "lacks 'is_last_batch'"),
        ("plain", ("loops", "fit_loop"), ..., "loop is None"),
        ("plain", ("pytorch-lightning_version",), "0.9.0", "pytorch-lightning_version is '0.9.0'"),
        ("averaged", (*FIRST, "step"), torch.tensor(float("nan")), "state.0.step is"),
        ("averaged", (*FIRST, "step"), torch.tensor(-1.0), "state.0.step is"),
        ("averaged", (*GROUP, "betas"), (1.0, 1.0), "division by zero"),
        ("averaged", (*GROUP, "amsgrad"), True, "max_exp_avg_sq"),
        ("averaged", ("averaging_state", "n_averaged"), torch.zeros(3), "n_averaged is a tensor of shape (3,)"),
        ("averaged", ("current_model_state", "head.bias"), torch.zeros(3), "head.bias is (2,) here, (3,)"),
        ("averaged", ("callbacks", "EarlyStopping{'monitor': 'val/auc', 'mode': 'max'}", "patience"), "x", "patience"),
        ("averaged", ("callbacks", "EMA", "latest_update_step"), ..., "lacks latest_update_step"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_is_named(stopped, data, tmp_path, kind, place, value, said):
    content = copy.deepcopy(stopped[kind])
    node = content
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=re.escape(said)):
        resumed(kind, tmp_path / "last.ckpt", data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_a_checkpoint_with_other_settings(trained, data, tmp_path, monkeypatch, random):
    """Changes in what describes its network alone."""
    monkeypatch.setenv("SECRET", SECRET)
    parameters = changed(random, trained["hyper_parameters"], [*ODD, *ODD_TENSORS])
    torch.save(trained | {"hyper_parameters": parameters}, tmp_path / "last.ckpt")
    used(tmp_path / "last.ckpt", data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_a_checkpoint_with_damaged_bytes(trained, data, tmp_path, random):
    path = tmp_path / "last.ckpt"
    torch.save(trained, path)
    path.write_bytes(damaged(random, path.read_bytes()))
    used(path, data)


# Weights in a .safetensors.


@pytest.fixture(scope="module")
def about(trained):
    """What describes the network, as an export writes it."""
    kept = {key: trained[key] for key in weights_file.DESCRIBED if key in trained}
    return kept | {"temperature": 1.5, "provenance": {"command": "python train.py", "commit": None, "engrec": "0.1.0"}}


def test_the_weights_that_are_changed_fit(trained, about, data, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(weights_file.pack(trained["state_dict"], about))
    build.tested_module("model.safetensors", checkpoint.read(tmp_path / "model.safetensors"), data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_weights_with_another_description(trained, about, data, tmp_path, monkeypatch, random):
    monkeypatch.setenv("SECRET", SECRET)
    text = json.dumps(changed(random, about, ODD))  # NaN and Infinity as Python writes them
    weights = {name: tensor.contiguous() for name, tensor in trained["state_dict"].items()}
    (tmp_path / "model.safetensors").write_bytes(save(weights, {"engrec": text}))
    used(tmp_path / "model.safetensors", data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_weights_with_other_tensors(trained, about, data, tmp_path, random):
    dense = [tensor for tensor in ODD_TENSORS if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided]
    odd = [tensor.clone() for tensor in dense if tensor.device.type == "cpu" and tensor.numel() < 100]
    weights = changed(random, trained["state_dict"], odd)
    weights = {str(name): tensor.contiguous() for name, tensor in weights.items()}
    (tmp_path / "model.safetensors").write_bytes(save(weights, {"engrec": json.dumps(about)}))
    used(tmp_path / "model.safetensors", data)


@drawn(3)
@given(random=st.randoms(use_true_random=True))
def test_weights_with_damaged_bytes(trained, about, data, tmp_path, random):
    whole = weights_file.pack(trained["state_dict"], about)
    if random.random() < 0.5:  # without the checksum, which finds the damage before anything else is read
        whole = save(load(whole), {"engrec": json.dumps(about)})
    length = 8 + int.from_bytes(whole[:8], "little")  # the header is a small part of the file, and the more delicate
    whole = damaged(random, whole[:length]) + whole[length:] if random.random() < 0.5 else damaged(random, whole)
    (tmp_path / "model.safetensors").write_bytes(whole)
    used(tmp_path / "model.safetensors", data)


# The folder of a run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = made(tmp_path_factory.mktemp("runs") / "run", temperature=1.5)
    result = json.loads((folder / "result.json").read_text())
    more = {"hardware": {"gpus": [], "cpu": "x", "threads": 1}, "git_commit": "f37f79a", "command": "python train.py"}
    (folder / "result.json").write_text(json.dumps(result | more))
    times = {"started": 100.0, "begun": 100.0, "ended": 160.0, "earlier": 0.0, "choices": {"model": "vgg"}}
    status = {
        "state": "running",
        "process": {"pid": 1, "began": "x"},
        "host": "elsewhere",
        "error": "x",
        "command": "x",
    }
    (folder / "status.json").write_text(json.dumps(status | times))
    return folder


@pytest.fixture
def reread(run, tmp_path):
    """Write a changed file into a copy of the run, beside one that is whole, and let everybody read it."""
    files = {path.name: path.read_bytes() for path in run.iterdir()}

    def reread(name, content):
        for folder, changes in (("whole", {}), ("changed", {name: content})):
            (tmp_path / folder).mkdir(exist_ok=True)
            for file, kept in (files | changes).items():
                (tmp_path / folder / file).write_bytes(kept)
        outputs = Outputs(tmp_path)
        outputs.scan()
        found = {entry.record["path"]: entry for entry in outputs.runs.values()}
        json.dumps([entry.record for entry in found.values()], allow_nan=False)
        assert found["whole"].record["problems"] == []
        details = Details(outputs, True)
        for question in ("history", "texts", "tested"):
            ours(details.answer, question, found["changed"].record["id"])
        folder = tmp_path / "changed"
        status_of(folder)
        ours(config_of, folder)
        ours(finished, folder)
        ours(read_history, folder / "metrics.csv")
        if runs := ours(find_runs, [folder]):
            ours(read_groups, runs)

    return reread


@drawn(2)
@given(random=st.randoms(use_true_random=True))
@pytest.mark.parametrize("name", ["result.json", "status.json", "config.yaml", "metrics.csv", "predictions.csv"])
def test_a_file_of_a_run_with_damaged_bytes(run, reread, name, random):
    reread(name, damaged(random, (run / name).read_bytes()))


@drawn(2)
@given(random=st.randoms(use_true_random=True))
@pytest.mark.parametrize("name", ["result.json", "status.json", "config.yaml"])
def test_a_file_of_a_run_with_other_values(run, reread, name, random):
    read, written = (yaml.safe_load, yaml.safe_dump) if name == "config.yaml" else (json.loads, json.dumps)
    value = changed(random, read((run / name).read_text()), ODD)
    reread(name, written(value).encode())


CELLS = ["", "x", "nan", "inf", "-1", "1e400", "0.5", '"', "\n", "\r", ",", "\x00", "é"]


@drawn(2)
@given(random=st.randoms(use_true_random=True))
@pytest.mark.parametrize("name", ["metrics.csv", "predictions.csv"])
def test_a_table_of_a_run_with_other_cells(run, reread, name, random):
    rows = [line.split(",") for line in (run / name).read_text().splitlines()]
    lines = [",".join(map(str, row)) for row in changed(random, rows, [*CELLS, ["x"]])]
    reread(name, "\n".join(lines).encode())
