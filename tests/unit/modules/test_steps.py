"""What a step does not do, wait for the device, and what does not change it: a fused optimizer, a compiled backbone."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_golden import MODULES, STRONG
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engrec.callbacks import callbacks as run_callbacks
from engrec.data import DataModule
from engrec.datasets.prepared import Faces
from engrec.experiment import build_trainer
from engrec.modules.classifier import Classifier
from engrec.plan import plan
from engrec.splits import Split

CALLBACKS = {"History", "ModelCheckpoint", "Progress"}
pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:.*LeafSpec")


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a value or a shape that follows from contents, a copy between two
    devices."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args, kwargs or {}):
            self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


def waits(func, args, kwargs):
    if func is torch.ops.aten.index.Tensor:  # with a mask it is a nonzero
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if func is torch.ops.aten._to_copy.default:
        return kwargs.get("device") not in (None, args[0].device)
    if func is torch.ops.aten.copy_.default:
        return args[0].device != args[1].device
    return {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)


class Reads(TorchFunctionMode):
    """Counts what a CPU's tensor gives without a call to be seen below, and a GPU's after a wait."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__):
            self.seen[func.__name__] += 1
        return func(*args, **kwargs or {})


class Losses(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx):
        self.seen.append(outputs["loss"].detach().clone())


@dataclass
class Fitted:
    module: Classifier
    trainer: pl.Trainer
    losses: torch.Tensor


@pytest.fixture
def fit(compose, tmp_path):
    """Two epochs of `num_steps` batches, in training and in validation, with what a run has and a logger besides."""

    def fit(module, num_steps, name, *callbacks, precision="32-true"):
        rng, number = np.random.default_rng(0), np.arange(12 * num_steps)
        faces = Faces(
            images=rng.integers(0, 256, (len(number), 1, 16, 16), np.uint8),
            labels=(number % 3 == 0).astype(np.int64),
            class_names=("a", "b"),
            sources=number.astype(str),
            recipe={"name": "steps"},
        )
        split = Split(number[4 * num_steps :], number[: 4 * num_steps], number[:1])
        data = DataModule(faces, split, STRONG, batch_size=8, eval_batch_size=4)
        settings = ["max_epochs=2", "trainer.accelerator=cpu", f"trainer.precision={precision}"]
        cfg = compose(f"output_dir={tmp_path / name}", f"monitor={module.hparams['monitor']}", *settings)
        planned = plan(cfg)
        planned.config["logger"] = {
            "_target_": "pytorch_lightning.loggers.CSVLogger",
            "save_dir": str(tmp_path / "log"),
        }
        (tmp_path / name).mkdir()
        trainer, losses = build_trainer(planned), Losses()
        run_callbacks(trainer)[:0] = [losses, *callbacks]
        assert {type(callback).__name__ for callback in run_callbacks(trainer)} >= CALLBACKS
        trainer.fit(module, data)
        assert trainer.global_step == len(losses.seen) == 2 * num_steps
        return Fitted(module, trainer, torch.stack(losses.seen))

    return fit


def new(name):
    torch.manual_seed(0)
    return MODULES[name]()


class Between(pl.Callback):
    """What is counted from the start of an epoch's first batch to the end of its last, in training and validation."""

    def __init__(self, *modes):
        self.modes, self.counted = modes, {}

    def total(self):
        return sum((mode.seen for mode in self.modes), Counter())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self.total() if batch_idx == 0 else self.before

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.counted["train", trainer.current_epoch] = self.total() - self.before

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.before = self.total() if batch_idx == 0 else self.before

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.counted["val", trainer.current_epoch] = self.total() - self.before


@pytest.fixture
def count(fit):
    """What of the steps of each epoch makes their host wait, and what of the whole training."""

    def count(name, num_steps, *callbacks, **settings):
        with Waits() as waited, Reads() as read:
            between = Between(waited, read)
            fit(new(name), num_steps, f"{num_steps}", *callbacks, between, **settings)
        return between.counted, between.total()

    return count


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", MODULES)
def test_no_step_waits_for_the_device(count, name, precision):
    """With progress bar, logger, history and checkpoints: an epoch of nine steps waits as often as one of three."""
    (short, whole), (long, _) = (count(name, num_steps, precision=precision) for num_steps in (3, 9))
    assert list(short) == [("train", 0), ("val", 0), ("train", 1), ("val", 1)]
    assert short == long
    assert whole["_local_scalar_dense"] > 0  # the metrics of an epoch are read


class Leaks(pl.Callback):
    """All that a step should not do."""

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx):
        loss, labels = outputs["loss"], batch["labels"]
        loss.item()
        assert loss < 1e9
        labels.nonzero()
        labels[labels == 1]
        labels.equal(labels)
        labels.bincount()
        labels.to("meta")
        torch.empty(8, device="meta").copy_(labels)
        labels.cpu()
        labels.tolist()
        labels.numpy()


def test_a_step_that_waits_would_be_seen(count):
    (short, _), (long, _) = (count("expression", num_steps, Leaks()) for num_steps in (3, 9))
    names = ("nonzero", "index", "equal", "bincount", "_to_copy", "copy_", "cpu", "tolist", "numpy")
    for epoch in (0, 1):
        more = long["train", epoch] - short["train", epoch]
        assert more == dict.fromkeys(names, 6) | {"_local_scalar_dense": 12}  # in six steps more
        assert long["val", epoch] == short["val", epoch]


@pytest.mark.parametrize("name", MODULES)
def test_a_fused_optimizer_trains_as_another(fit, name):
    done = []
    for fused in (False, True):
        module = new(name)
        module.fused_optimizer = fused
        done.append(fit(module, 5, f"{fused}"))
        assert all(bool(group["fused"]) == fused for group in done[-1].trainer.optimizers[0].param_groups)
    torch.testing.assert_close(done[0].losses, done[1].losses, rtol=1e-5, atol=0)
    assert len(set(done[0].losses.tolist())) == 10


@pytest.mark.parametrize("name", MODULES)
def test_a_compiled_backbone_trains_as_another_and_keeps_its_names(fit, name, tmp_path):
    """Without a code generator, which takes its time; what torch makes of the network is one graph all the same."""
    graphs, done = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    for compiled in (False, True):
        module = new(name)
        if compiled:
            module.backbone.compile(backend=backend, fullgraph=True)
        done.append(fit(module, 3, f"{compiled}"))
    torch._dynamo.reset()
    assert len(graphs) > 0
    torch.testing.assert_close(done[0].losses, done[1].losses, rtol=1e-5, atol=0)
    states = [torch.load(tmp_path / f"{compiled}" / "best.ckpt")["state_dict"] for compiled in (False, True)]
    assert list(states[0]) == list(states[1]) == list(done[1].module.state_dict())
