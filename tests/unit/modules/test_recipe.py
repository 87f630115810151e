"""The parts of a long recipe together: sizes, strength, mixup and moving average by epoch, stopped and resumed."""

import re

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from engrec import experiment
from engrec.callbacks import EMA
from engrec.callbacks import callbacks as run_callbacks
from engrec.data import DataModule
from engrec.modules.build import check_sizes
from engrec.modules.expression import ExpressionModule
from engrec.plan import plan
from engrec.ranges import problems
from engrec.runs.folder import write_config
from engrec.splits import Split
from engrec.transforms import Progressive

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:.*LeafSpec")
NUM_EPOCHS = 6
RECIPE = [
    "augment=progressive",
    "augment.alternate=true",
    "augment.sizes=[[0,16],[0.34,20],[0.67,24]]",
    "augment.late.start=0.67",
    "mixup=half",
    "mixup.start=0.17",
    "mixup.end=0.84",
    "callbacks=ema",
    "callbacks.ema.decay=0.8",
    "callbacks.ema.start=0.5",
    f"max_epochs={NUM_EPOCHS}",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]


class Seen(pl.Callback):
    """The height of each training batch by epoch, its loss, whether it was mixed, and the weights that validate."""

    def __init__(self, stop_after=None):
        self.stop_after, self.heights, self.losses, self.mixed, self.validated = stop_after, {}, [], {}, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.heights.setdefault(trainer.current_epoch, set()).add(batch["images"].shape[2])
        self.mixed[trainer.current_epoch] = "mixed" in batch
        self.losses.append(outputs["loss"].item())

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        assert batch["images"].shape[2] == 24
        self.validated.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.stop_after:
            raise SystemExit


@pytest.fixture
def fit(compose, make_faces, tmp_path):
    """A training in a folder of its own, perhaps stopped at the start of an epoch, perhaps resumed."""

    def fit(name, stop_after=None, resume=False):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = folder / "last.ckpt" if resume else None
        planned = plan(compose(f"output_dir={folder}", f"ckpt_path={path or 'null'}", *RECIPE))
        write_config(folder, planned.config)
        augment, mixup = (instantiate(planned.config[key], _convert_="all") for key in ("augment", "mixup"))
        faces = make_faces(num_images=30, size=24)
        split = Split(np.arange(16), np.arange(16, 23), np.arange(23, 30))
        data = DataModule(faces, split, augment, batch_size=4, seed=3, mixup=mixup)
        pl.seed_everything(0, verbose=False)
        module = ExpressionModule(
            model={"_target_": "engrec.models.resnet_small.ResNetSmall", "widths": [4, 4, 8]},
            optimizer={"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
            lr_scheduler={"_target_": "engrec.modules.schedules.cosine", "warmup": 0.05},
            class_names=["a", "b"],
            preprocessing=data.preprocessing,
            label_smoothing=0.1,
        )
        trainer, seen = experiment.build_trainer(planned), Seen(stop_after)
        run_callbacks(trainer)[:0] = [seen]
        if stop_after is None:
            trainer.fit(module, data, ckpt_path=path, weights_only=True)
        else:
            with pytest.raises(SystemExit):
                trainer.fit(module, data, ckpt_path=path, weights_only=True)
        return seen, module, folder

    return fit


def saved(path):
    return torch.load(path, weights_only=True)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_sizes_and_mixup_follow_the_epochs(fit):
    seen, _, _ = fit("whole")
    assert seen.heights == {0: {16}, 1: {16}, 2: {20}, 3: {20}, 4: {24}, 5: {24}}
    assert seen.mixed == {0: False, 1: True, 2: True, 3: True, 4: True, 5: False}


@pytest.mark.parametrize("stop_after", [1, 3, 5], ids=["first stage", "second stage", "last stage"])
def test_a_run_that_is_stopped_in_any_stage_ends_as_if_it_had_not_been(fit, stop_after):
    whole, module, folder = fit("whole")
    first, _, stopped = fit("stopped", stop_after)
    second, resumed, _ = fit("stopped", resume=True)
    assert first.losses + second.losses == whole.losses
    assert_equal(resumed.state_dict(), module.state_dict())
    for name in ("best.ckpt", "last.ckpt"):
        assert_equal(saved(stopped / name)["state_dict"], saved(folder / name)["state_dict"])
    assert_equal(
        saved(stopped / "last.ckpt")["current_model_state"], saved(folder / "last.ckpt")["current_model_state"]
    )
    assert (stopped / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()


def test_the_average_is_what_is_validated_saved_and_left_in_the_module(fit):
    """Before it starts it is the network itself."""
    seen, module, folder = fit("whole")
    last, best = saved(folder / "last.ckpt"), saved(folder / "best.ckpt")
    assert not {"current_model_state", "optimizer_states"} & best.keys()  # weights alone
    assert len(seen.validated) == NUM_EPOCHS
    assert_equal(last["state_dict"], seen.validated[-1])
    assert_equal(module.state_dict(), seen.validated[-1])
    assert_equal(best["state_dict"], seen.validated[best["epoch"]])
    current = last["current_model_state"]
    for name in ("backbone.stem.1.weight", "backbone.stem.2.running_mean", "backbone.stem.2.running_var"):
        assert not torch.equal(last["state_dict"][name], current[name]), name
    _, _, early = fit("early", stop_after=2)
    before = saved(early / "last.ckpt")
    assert_equal(before["state_dict"], before["current_model_state"])


def test_the_average_is_that_of_its_definition(fit, monkeypatch):
    """From half of the 24 steps on: first a copy, then 0.8 of itself and 0.2 of the network; integers aside."""
    weights = []

    def noted(self, trainer, pl_module, *rest):
        weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        return original(self, trainer, pl_module, *rest)

    original = EMA.on_train_batch_end
    monkeypatch.setattr(EMA, "on_train_batch_end", noted)
    _, _, folder = fit("whole")
    assert len(weights) == 24
    for name, value in saved(folder / "last.ckpt")["state_dict"].items():
        if not value.is_floating_point():
            continue
        average = weights[12][name]
        for later in weights[13:]:
            average = 0.8 * average + 0.2 * later[name]
        torch.testing.assert_close(value, average, rtol=1e-5, atol=1e-6)


def test_a_network_of_one_image_size_is_refused_smaller_images(expression, make_data):
    data = make_data()
    check_sizes(expression(), data, "vgg")
    data.augment = Progressive(sizes=[[0, 8]])
    with pytest.raises(ValueError, match=r"model=vgg does not take images of 8×8: set augment\.sizes=\[\]"):
        check_sizes(expression(), data, "vgg")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decay": 1.0}, r"callbacks\.ema\.decay=1\.0"),
        ({"decay": -0.1}, r"callbacks\.ema\.decay=-0\.1"),
        ({"decay": float("nan")}, r"callbacks\.ema\.decay=nan"),
        ({"start": -0.1}, r"callbacks\.ema\.start=-0\.1"),
        ({"start": float("inf")}, r"callbacks\.ema\.start=inf"),
        ({"start": float("nan")}, r"callbacks\.ema\.start=nan"),
        ({"every": 0}, r"callbacks\.ema\.every=0"),
        ({"every": 1.5}, r"callbacks\.ema\.every=1\.5"),
    ],
)
def test_numbers_out_of_range_are_named(settings, said):
    assert re.match(said, "; ".join(problems(EMA, settings, "callbacks.ema")))
