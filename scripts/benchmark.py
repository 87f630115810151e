"""How fast engrec trains here: against the network's own arithmetic, and against the usual way of training.

python scripts/benchmark.py                         vgg_lrn, the VGG of the paper's code: a quarter of an hour
python scripts/benchmark.py --quick                 the same in three minutes
python scripts/benchmark.py model=vgg_small trainer.precision=32-true batch_size=256

Random images, as many as FER-2013 has, 48×48. Everything is measured in one process in turn, so that whatever else the
machine does hits all alike; what belongs to a fresh process (start, memory) is measured in one. Last, a video is read
by the networks that come with engrec, on one core.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    import numpy as np
    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate
    from matplotlib.figure import Figure
    from omegaconf import DictConfig
    from PIL import Image, ImageEnhance
    from pytorch_lightning.loggers import CSVLogger
    from skimage.data import astronaut
    from torch import Tensor, nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Dataset
    from torch.utils.flop_counter import FlopCounterMode
    from tqdm import tqdm

    from engrec import config
    from engrec.callbacks import History, Progress, unhindered
    from engrec.config import check
    from engrec.console import describe_speed, quiet_libraries
    from engrec.data import DataModule
    from engrec.datasets.prepared import Faces
    from engrec.datasets.prepared import load as load_prepared
    from engrec.errors import errors_in_one_line
    from engrec.faces.track import Tracker
    from engrec.faces.video import Video, write_video
    from engrec.machine.files import atomic_write, check_folder
    from engrec.machine.hardware import AUTOCAST, accelerator_type, keep_memory, synchronize
    from engrec.models.lrn import LocalResponseNorm
    from engrec.modules.build import build_module
    from engrec.modules.classifier import Classifier
    from engrec.modules.scores import Scores
    from engrec.plan import Plan, choose_for_machine, command, plan
    from engrec.runs import pictures
    from engrec.runs.checkpoint_io import Saver
    from engrec.runs.record import git_commit, hardware
    from engrec.splits import Split
    from engrec.transforms import Augment
    from engrec.use.follow import followed
    from engrec.use.predict import Predictor

ROOT = Path(__file__).resolve().parents[1]
VIDEO_RATE = 30  # frames a second
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIZES = {"train": 28709, "val": 3589, "test": 3589}  # FER-2013
TAKEN = ("model", "trainer", "speed", "optimizer", "lr_scheduler", "batch_size", "augment")
LEAST = {"engrec / ceiling": 0.75, "engrec / the usual way": 2.0}  # for --check: what noise alone does not undercut
# Without autocast the network takes most of the time of both: 1.78 times on an AMD EPYC with AVX2 alone (2026-11-29).
LEAST_IN_FULL = LEAST | {"engrec / the usual way": 1.5}


@dataclass(frozen=True)
class Effort:
    """How much is measured: each block of steps lasts some seconds and takes at least so many steps; growth has epochs
    of 1, 2, 4 and 8 times growth_images, and epochs of batch_images by batch size; a run is started `starts` times; a
    video has so many frames."""

    seconds: float
    steps: int
    repeats: int
    growth_images: int
    batch_images: int
    growth_repeats: int
    eval_images: int
    starts: int
    frames: int


QUICK = Effort(2, 2, 3, 32, 256, 1, 256, 1, 90)
WHOLE = Effort(8, 5, 7, 256, 1024, 2, 3589, 3, 450)


@dataclass
class Report:
    """What was measured, in seconds, images per second, bytes; printed as tables, written as JSON."""

    setting: dict[str, Any]
    speed: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    arithmetic: dict[str, float] = field(default_factory=dict)
    pieces: dict[str, float] = field(default_factory=dict)
    epoch: dict[str, float] = field(default_factory=dict)
    process: dict[str, float] = field(default_factory=dict)
    growth: dict[str, dict[int, float]] = field(default_factory=dict)
    video: dict[str, float] = field(default_factory=dict)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help=f"as for train.py, of {', '.join(TAKEN)}: model=vgg_small")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements: noisier")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a ratio is far too low")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmark", help="folder of JSON and PNG")
    options = parser.parse_intermixed_args(arguments)
    quiet_libraries()
    cfg = composed(options.overrides)
    check_folder(options.out)
    why = choose_for_machine(cfg)
    if cfg.trainer.precision not in (*AUTOCAST, "32-true"):
        raise ValueError(f"trainer.precision={cfg.trainer.precision}: allowed are 32-true, {', '.join(AUTOCAST)}")
    print(f"{describe_speed(resolved(cfg))} ({why})", flush=True)
    effort = QUICK if options.quick else WHOLE
    if accelerator_type(cfg.trainer.accelerator) != "cpu":  # which is done with the others before it is begun
        effort = replace(effort, growth_images=4096, batch_images=SIZES["train"], eval_images=SIZES["val"])
    report = measure(cfg, effort, options.overrides)
    report.setting["command"] = " ".join(["python scripts/benchmark.py", *arguments])
    print("\n".join(tables(report)))
    print(f"written to {', '.join(map(str, write(report, options.out)))}")
    least = LEAST if cfg.trainer.precision in AUTOCAST else LEAST_IN_FULL
    if options.check and (low := {k: v for k, v in report.ratios.items() if v < least.get(k, 0)}):
        sys.exit("; ".join(f"{name} is {value:.2f}, below {least[name]}" for name, value in low.items()))


def composed(overrides: list[str]) -> DictConfig:
    """The configuration of a pre-training with strong augmentation and the given overrides."""
    if useless := [o for o in overrides if o.lstrip("+~").partition("=")[0].partition(".")[0] not in TAKEN]:
        raise ValueError(f"{' '.join(useless)} is of no effect here; allowed: {'=, '.join(TAKEN)}=")
    defaults = ["stage=pretrain", "model=vgg_lrn"]
    defaults += ["augment=strong", "optimizer.lr=1e-4", "output_dir=outputs/benchmark"]
    cfg = config.composed([*defaults, *overrides])
    check(cfg)
    if str(cfg.trainer.devices) != "1":
        raise ValueError(f"trainer.devices={cfg.trainer.devices}: this measures one device; set trainer.devices=1")
    return cfg


def random_faces(num_images: int) -> Faces:
    rng = np.random.default_rng(0)
    return Faces(
        images=rng.integers(0, 256, (num_images, 1, 48, 48), np.uint8),
        labels=rng.permutation(np.arange(num_images) % len(CLASSES)),
        class_names=CLASSES,
        sources=np.arange(num_images).astype(str),
        recipe={"name": "random_images", "importer": "benchmark"},
        splits=np.repeat(list(SIZES), list(SIZES.values()))[:num_images],
    )


def measure(cfg: DictConfig, effort: Effort, overrides: list[str]) -> Report:
    """All that is measured, with a bar that says what is being done."""
    device = torch.device(pl.Trainer(accelerator=cfg.trainer.accelerator, devices=1, logger=False).strategy.root_device)
    setting = {"model": command().choices["model"], "batch_size": cfg.batch_size}
    setting |= {"precision": cfg.trainer.precision, "speed": dict(cfg.speed), "device": device.type}
    setting |= {"hardware": hardware(), "date": date.today().isoformat(), "git_commit": git_commit()}
    report, faces = Report(setting | {"torch": torch.__version__}), random_faces(sum(SIZES.values()))
    parts: list[tuple[str, Callable[[], None]]] = [
        ("a fresh process", lambda: measure_process(cfg, effort, faces, overrides, report)),
        ("the network, engrec and the usual way in turn", lambda: measure_speed(cfg, effort, faces, device, report)),
        ("the pieces of a step and of an epoch", lambda: measure_pieces(cfg, effort, faces, device, report)),
        ("growth with the data and the batch", lambda: measure_growth(cfg, effort, faces, report)),
        ("a video", lambda: measure_video(effort, report)),
    ]
    with tqdm(parts, bar_format="{desc}: {n_fmt} of {total_fmt} done, {elapsed}", file=sys.stderr) as bar:
        for name, part in bar:
            bar.set_description_str(name)
            part()
    return report


# Speed: three ways to take the same steps.


class Ceiling:
    """Forward, backward and update of one batch that lies on the device, and nothing else."""

    def __init__(self, cfg: DictConfig, module: Classifier, device: torch.device) -> None:
        self.module, self.device = module.to(device).train(), device
        fused = {"fused": True} if module.fused_optimizer else {}
        self.optimizer = instantiate(cfg.optimizer, module.parameter_groups(), **fused, _convert_="all")
        self.images = torch.randn(cfg.batch_size, 1, 48, 48, device=device)
        self.labels = torch.arange(cfg.batch_size, device=device) % len(CLASSES)
        self.dtype = AUTOCAST.get(cfg.trainer.precision)

    def __call__(self, steps: int) -> float:
        """Seconds of so many steps."""
        return timed(self.device, lambda: [self.step() for _ in range(steps)])

    def step(self) -> None:
        update(self.optimizer, self.loss())

    def loss(self) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.module(self.images)
        return F.cross_entropy(logits.float(), self.labels)


class Engrec:
    """trainer.fit as train.py does it: data set on the device, augmentation, metrics, metrics.csv, csv logger, bar."""

    def __init__(self, cfg: DictConfig, module: Classifier, faces: Faces) -> None:
        self.cfg, self.module, self.faces = cfg, module, faces

    def __call__(self, steps: int, batch_size: int = 0) -> float:
        """Seconds of so many steps to the end of their epoch, after one in which the run allocates what it keeps."""
        batch_size = batch_size or int(self.cfg.batch_size)
        number = (steps + 1) * batch_size
        train, rest = np.split(np.arange(number + 8) % len(self.faces), [number])
        split = Split(train, rest, rest)
        data = DataModule(self.faces, split, instantiate(self.cfg.augment), batch_size, **where(self.cfg))
        with tempfile.TemporaryDirectory() as folder, quiet():
            clock = Clock()
            trainer = trainer_for(self.cfg, [History(folder), Progress(), clock], CSVLogger(folder))
            trainer.fit(self.module, data)
        return clock.training


class Clock(pl.Callback):
    """Seconds of training, from the end of the first step until everything of the epoch is logged, and of a pass over
    validation images, to their metrics."""

    training = validation = math.nan

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.first_step = now(pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = now(pl_module.device) - self.first_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pass_began = now(pl_module.device)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation = now(pl_module.device) - self.pass_began


class Usual:
    """The same network as most would train it: float32, torch's own local response normalisation, a DataLoader with
    transforms of single images by PIL in two workers, torch's default optimizer, memory layout and allocation.

    Its workers are up to four batches ahead when a block begins, which flatters it where steps are few.
    """

    def __init__(self, cfg: DictConfig, module: Classifier, faces: Faces, device: torch.device) -> None:
        self.keep_memory, self.device = cfg.speed.keep_memory, device
        self.module = with_torchs_lrn(module).to(device).train()
        self.module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.optimizer = instantiate(cfg.optimizer, module.parameter_groups(), _convert_="all")
        self.loader = DataLoader(
            SingleImages(faces, instantiate(cfg.augment)),
            batch_size=cfg.batch_size,
            shuffle=True,
            num_workers=2,
            drop_last=True,
            pin_memory=device.type == "cuda",
        )

    def __call__(self, steps: int) -> float:
        """Seconds of so many steps, after one that has the workers started."""
        keep_memory(False)
        tuning, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            batches = iter(self.loader)
            self.step(*next(batches))
            return timed(self.device, lambda: [self.step(*next(batches)) for _ in range(steps)])
        finally:
            torch.backends.cudnn.benchmark = tuning
            keep_memory(self.keep_memory)

    def step(self, images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        update(self.optimizer, F.cross_entropy(self.module(images), labels))


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class SingleImages(Dataset[tuple[Tensor, int]]):
    """One image at a time, changed with PIL as `augment` says, standardised."""

    def __init__(self, faces: Faces, augment: Augment) -> None:
        self.faces, self.augment = faces, augment

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = changed(Image.fromarray(self.faces.images[i, 0]), self.augment)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)[None] / 255)
        return (pixels - pixels.mean()) / (pixels.std() + 1e-6), int(self.faces.labels[i])


def changed(image: Image.Image, augment: Augment) -> Image.Image:
    """The random changes of engrec.transforms.Augment, of one image, with PIL."""
    width, height = image.size
    either = lambda bound: bound * (2 * torch.rand(()).item() - 1)  # noqa: E731
    if augment.padding:
        padded = Image.new(image.mode, (width + 2 * augment.padding, height + 2 * augment.padding))
        padded.paste(image, (augment.padding, augment.padding))
        left, top = (int(torch.randint(2 * augment.padding + 1, ())) for _ in range(2))
        image = padded.crop((left, top, left + width, top + height))
    if torch.rand(()) < augment.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augment.rotation or augment.scale or augment.translation:
        angle, zoom = math.radians(either(augment.rotation)), 1 + either(augment.scale)
        right, down = either(augment.translation) * width, either(augment.translation) * height
        cos, sin, x, y = math.cos(angle) / zoom, math.sin(angle) / zoom, width / 2, height / 2
        matrix = (cos, -sin, x - cos * x + sin * y + right, sin, cos, y - sin * x - cos * y + down)
        image = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if augment.gamma:
        power = math.exp(either(augment.gamma))
        image = image.point([round(255 * (v / 255) ** power) for v in range(256)])
    if augment.contrast:
        image = ImageEnhance.Contrast(image).enhance(1 + either(augment.contrast))
    if augment.brightness:
        image = ImageEnhance.Brightness(image).enhance(1 + either(augment.brightness))
    if torch.rand(()) < augment.erase:
        area, ratio = (0.02 + 0.18 * torch.rand(()).item()) * width * height, 2 ** either(1)
        wide, tall = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        left, top = (int(torch.randint(max(1, side), ())) for side in (width - wide, height - tall))
        image.paste(128, (left, top, left + wide, top + tall))
    return image


def with_torchs_lrn(module: Classifier) -> Classifier:
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LocalResponseNorm):
            parent, _, child = name.rpartition(".")
            theirs = nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
            setattr(module.get_submodule(parent), child, theirs)
    return module


def measure_speed(cfg: DictConfig, effort: Effort, faces: Faces, device: torch.device, report: Report) -> None:
    """The three ways in turn, each as many steps as last effort.seconds, and what share of its arithmetic the device
    does of what it does in a large product of matrices."""
    data = data_of(cfg, faces)
    torch.backends.cudnn.benchmark = bool(cfg.trainer.benchmark)
    ceiling, plain = Ceiling(cfg, build_module(resolved(cfg), data), device), deepcopy(cfg)
    plain.speed.compile = False
    ways: dict[str, Callable[[int], float]] = {
        "ceiling": ceiling,
        "engrec": Engrec(cfg, build_module(resolved(cfg), data), faces),
        "the usual way": Usual(cfg, build_module(resolved(plain), data), faces, device),
    }
    for way in ways.values():
        way(1)  # to warm up
    one = min(ceiling(1) for _ in range(2))
    steps = min(max(effort.steps, round(effort.seconds / one)), SIZES["train"] // cfg.batch_size)  # an epoch at most
    taken: dict[str, list[float]] = {name: [] for name in (*ways, "products")}
    for _ in range(effort.repeats):
        for name, way in ways.items():
            taken[name].append(steps * cfg.batch_size / way(steps))
        taken["products"].append(product_rate(device, ceiling.dtype))
    peak = statistics.median(taken.pop("products"))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    per_image = flops(ceiling) / cfg.batch_size
    report.speed = taken
    report.setting["steps"] = steps
    for name in ("ceiling", "the usual way"):  # what hits one block of a round hits its neighbours too
        rounds = zip(taken["engrec"], taken[name], strict=True)
        report.ratios[f"engrec / {name}"] = statistics.median(ours / theirs for ours, theirs in rounds)
    report.arithmetic = {
        "per image": per_image / 1e9,
        "engrec": per_image * middle["engrec"] / 1e9,
        "product": peak / 1e9,
        "share": per_image * middle["engrec"] / peak,
    }


def product_rate(device: torch.device, dtype: torch.dtype | None, side: int = 4096) -> float:
    """Floating-point operations per second in a product of two square matrices."""
    a = torch.randn(side, side, device=device, dtype=dtype or torch.float32)  # of equal numbers it would be faster
    times = 1 if device.type == "cpu" else 50
    _ = a @ a
    return times * 2 * side**3 / timed(device, lambda: [a @ a for _ in range(times)])


def flops(ceiling: Ceiling) -> int:
    """Floating-point operations of convolutions and matrix products, forward and backward, of a batch; those of local
    response normalisation are among them, 1.2 % of the paper's VGG."""
    with FlopCounterMode(display=False) as counter:
        ceiling.loss().backward()
    return counter.get_total_flops()


# Pieces, growth, process


def measure_pieces(cfg: DictConfig, effort: Effort, faces: Faces, device: torch.device, report: Report) -> None:
    """Milliseconds a batch of what a step consists of, and seconds of what an epoch of FER-2013 has besides."""
    val = np.arange(effort.eval_images)
    data = DataModule(faces, Split(val, val, val), instantiate(cfg.augment), cfg.batch_size, **where(cfg))
    module = build_module(resolved(cfg), data)
    with tempfile.TemporaryDirectory() as folder, quiet():
        clock = Clock()
        trainer = trainer_for(cfg, [clock], False)
        for _ in range(2):
            trainer.validate(module, data, verbose=False)
        saving = SaveTwice(Path(folder) / "last.ckpt")
        few = DataModule(faces, Split(val[: cfg.batch_size], val[:8], val[:8]), data.augment, cfg.batch_size)
        trainer_for(cfg, [saving], False).fit(module, few)
    module.to(device)
    data.trainer = trainer
    trainer.state.fn, trainer.training = "fit", True  # pyright: ignore[reportAttributeAccessIssue]
    loader = data.train_dataloader()
    at_once = max(1, min(loader.at_once, len(loader)))
    index = torch.randint(effort.eval_images, (at_once * cfg.batch_size,)).to(data.device)
    raw = loader.take(index)
    labels = trainer.strategy.batch_to_device(raw)["labels"][: cfg.batch_size]
    scores, logits = Scores(len(CLASSES)).to(device), torch.randn(cfg.batch_size, len(CLASSES), device=device)
    loss = torch.rand(cfg.batch_size, device=device)
    pieces: dict[str, tuple[int, Callable[[], Any]]] = {
        "batch assembly": (at_once, lambda: loader.take(index)),
        "augmentation and scaling": (at_once, lambda: data.network_input(raw)),
        "metrics": (1, lambda: scores.update(logits, labels, loss)),
    }
    for name, (batches, piece) in pieces.items():
        report.pieces[name] = statistics.median(timed(device, piece) for _ in range(20)) / batches
    report.pieces["Lightning and logging"] = beside_the_network(cfg, faces, device)
    step = cfg.batch_size / statistics.median(report.speed["ceiling"])
    whole = cfg.batch_size / statistics.median(report.speed["engrec"])
    report.pieces = {"step of the network": step, **report.pieces}
    report.pieces["noise, or done meanwhile"] = whole - sum(report.pieces.values())
    report.pieces["all of it"] = whole
    scores.reset()
    steps = SIZES["train"] // cfg.batch_size
    for _ in range(steps):
        scores.update(logits, labels, loss)
    scores.compute_with_cache = False
    computing = statistics.median(timed(device, scores.compute) for _ in range(3))
    epoch = steps * whole
    report.epoch = {
        "training on 28,709 images": epoch,
        "metrics of the epoch": computing,
        "share of metrics": (computing + steps * report.pieces["metrics"]) / epoch,
        "evaluation of 3,589 images": clock.validation * SIZES["val"] / effort.eval_images,
        "saving a checkpoint, training waits": saving.seconds,
    }


class SaveTwice(pl.Callback):
    """Seconds that training waits for a checkpoint of network and optimizer, when it is not the first."""

    seconds = math.nan

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for _ in range(2):
            self.seconds = timed(pl_module.device, lambda: trainer.save_checkpoint(self.path))
            trainer.strategy.checkpoint_io.teardown()  # after which it is written


def beside_the_network(cfg: DictConfig, faces: Faces, device: torch.device) -> float:
    """Seconds that the host takes for a step of trainer.fit beyond those for the network's: with a network and a batch
    that take no time themselves and no augmentation. A GPU does not wait for them where its own step takes longer."""
    cfg = deepcopy(cfg)
    cfg.model = {"_target_": "engrec.models.vgg.VGG", "width": 0.02, "norm": "none", "dense": []}
    cfg.augment, cfg.batch_size, cfg.speed.compile = {"_target_": "engrec.transforms.Augment", "flip": 0.0}, 2, False
    data = data_of(cfg, faces)
    ways = (
        Ceiling(cfg, build_module(resolved(cfg), data), device),
        Engrec(cfg, build_module(resolved(cfg), data), faces),
    )
    network, whole = (min(way(300) / 300 for _ in range(2)) for way in ways)
    return whole - network


def measure_growth(cfg: DictConfig, effort: Effort, faces: Faces, report: Report) -> None:
    """Seconds of an epoch, by images and by batch size."""
    engrec = Engrec(cfg, build_module(resolved(cfg), data_of(cfg, faces)), faces)
    smallest, sizes = effort.growth_images, (32, 64, 128, 256, 512)
    images: dict[int, list[float]] = {smallest * factor: [] for factor in (1, 2, 4, 8)}
    batch: dict[int, list[float]] = {size: [] for size in sizes}
    for size in (smallest, *sizes) if effort.growth_repeats > 1 or cfg.speed.compile else (smallest,):
        engrec(1, size)  # to warm up, or to compile
    for _ in range(effort.growth_repeats):
        for number, taken in images.items():
            taken.append(engrec(number // min(cfg.batch_size, smallest), min(cfg.batch_size, smallest)))
        for size, taken in batch.items():
            steps = max(1, effort.batch_images // size)
            taken.append(steps * size / engrec(steps, size))
    report.growth = {
        "seconds of an epoch by number of images": {n: statistics.median(taken) for n, taken in images.items()},
        "images per second by batch size": {size: statistics.median(taken) for size, taken in batch.items()},
    }


def measure_process(cfg: DictConfig, effort: Effort, faces: Faces, overrides: list[str], report: Report) -> None:
    """What a fresh process takes: to answer --help, to load, to begin its first step, and memory."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "random.npz"
        faces.save(prepared)
        report.process["load, s"] = statistics.median(
            timed(torch.device("cpu"), lambda: load_prepared(prepared)) for _ in range(3)
        )
        run = partial(process, cwd=folder, env=environment)
        helping = [
            timed(torch.device("cpu"), lambda: run([sys.executable, ROOT / "train.py", "--help"])) for _ in range(3)
        ]
        report.process["train.py --help, s"] = statistics.median(helping)
        own = json.loads(run([sys.executable, "-c", "import benchmark; benchmark.own_memory()", *overrides]).stdout)
        command = [sys.executable, ROOT / "train.py", "augment=strong", "dataset=prepared", f"dataset.path={prepared}"]
        command += [*overrides, "+trainer.limit_train_batches=3", "+trainer.limit_val_batches=2"]
        command += ["+callbacks.watch._target_=benchmark.Watch"]
        runs = []
        for number in range(effort.starts):
            new = [f"output_dir={folder}/{number}", f"+callbacks.watch.started={time.time()}"]
            runs.append(json.loads(run([*command, *new]).stdout.splitlines()[-1]))
        watched = runs[-1] | {"first": statistics.median(run["first"] for run in runs)}
        report.process["command to first step, s"] = watched["first"]
        if own["peak"] is not None:
            report.process["peak memory of a run, GiB"] = watched["peak"] / 2**30
            report.process["of it the network's own, GiB"] = own["peak"] / 2**30
            report.process["beyond, GiB"] = (watched["peak"] - own["peak"]) / 2**30


# Use


def measure_video(effort: Effort, report: Report) -> None:
    """Frames a second of a video in which a face moves, on one core: decoded, the face followed with a detection in
    every third frame, cropped, and read by the networks that come with engrec. Nothing where av is not installed."""
    if find_spec("av") is None:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "video.mp4"
            write_video(video, panned(effort.frames), VIDEO_RATE)
            report.video = timed_video(video, Predictor.load(), effort.repeats)
    finally:
        torch.set_num_threads(threads)


def panned(number: int) -> Iterator[np.ndarray]:
    """Frames of 640×360: a photograph of a face, over which the camera moves."""
    photo = Image.fromarray(astronaut())
    for angle in np.linspace(0, number / VIDEO_RATE, number):
        left, top = 90 + 60 * math.sin(angle), 12 * (1 + math.cos(angle))
        box = (left, top, left + 320, top + 180)
        yield np.asarray(photo.resize((640, 360), Image.Resampling.BILINEAR, box=box))


def timed_video(video: Path, predictor: Predictor, repeats: int) -> dict[str, float]:
    """Frames a second, and milliseconds of a frame by what they are spent on; the least of the repeats."""

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        with Video(video) as opened:
            yield from opened.frames()

    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "decoding": frames,
        "faces": lambda: followed(frames(), predictor.in_videos, Tracker()),
        "all": lambda: predictor.video(video),
    }
    taken = dict.fromkeys(ways, math.inf)
    number = 1
    for _ in range(repeats + 1):  # the first to warm up
        for name, way in ways.items():
            started = time.perf_counter()
            number = sum(1 for _ in way())
            taken[name] = min(taken[name], (time.perf_counter() - started) / number)
    return {
        "frames per second": 1 / taken["all"],
        "decoding, ms a frame": 1e3 * taken["decoding"],
        "detecting and following, ms a frame": 1e3 * (taken["faces"] - taken["decoding"]),
        "cropping, networks, ms a frame": 1e3 * (taken["all"] - taken["faces"]),
    }


# Processes


def process(command: list[Any], cwd: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(map(str, command[:3]))} … failed: {' '.join(done.stderr.split()[-60:])}")
    return done


class Watch(pl.Callback):
    """In a process of its own: when the first step begins, and the peak memory after batches of both sides."""

    def __init__(self, started: float) -> None:
        self.started = started

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.first = time.time() - self.started

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        print("\n" + json.dumps({"first": self.first, "peak": peak_memory()}), flush=True)
        os._exit(0)


def own_memory() -> None:
    """In a process of its own: what network, gradients, optimizer and activations of a step add to the libraries."""
    cfg = composed(sys.argv[1:])
    choose_for_machine(cfg)
    device = torch.device(pl.Trainer(accelerator=cfg.trainer.accelerator, devices=1, logger=False).strategy.root_device)
    torch.backends.cudnn.benchmark = bool(cfg.trainer.benchmark)
    before = peak_memory() if device.type == "cpu" else torch.accelerator.memory_allocated()
    ceiling = Ceiling(cfg, build_module(resolved(cfg), data_of(cfg, random_faces(len(CLASSES)))), device)
    ceiling(3)
    after = peak_memory()
    print(json.dumps({"peak": None if before is None or after is None else after - before}))


def peak_memory() -> int | None:
    """Bytes taken at most, of a GPU's memory where one is used, else of the host's; None where it is unknown."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


# Shared


def data_of(cfg: DictConfig, faces: Faces) -> DataModule:
    index = np.arange(len(faces))
    return DataModule(faces, Split(index, index, index), instantiate(cfg.augment), cfg.batch_size)


def resolved(cfg: DictConfig) -> Plan:
    planned = plan(cfg)
    assert isinstance(planned, Plan)
    return planned


def where(cfg: DictConfig) -> dict[str, Any]:
    return {"place": cfg.speed.data, "device_share": cfg.speed.data_share}


def trainer_for(cfg: DictConfig, callbacks: list[pl.Callback], logger: Any) -> pl.Trainer:
    trainer = instantiate(
        cfg.trainer,
        max_epochs=1,
        callbacks=callbacks,
        logger=logger,
        plugins=[Saver()],
        enable_checkpointing=any(isinstance(callback, History) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, Progress) for callback in callbacks),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
    )
    return unhindered(trainer)


def timed(device: torch.device, function: Callable[[], Any]) -> float:
    started = now(device)
    function()
    return now(device) - started


def now(device: torch.device) -> float:
    """The time, in seconds, at which the device has done what it was given."""
    synchronize(device)
    return time.perf_counter()


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's bars and remarks; they are drawn all the same."""
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


# What is said


def tables(report: Report) -> Iterator[str]:
    """What was measured, as text."""
    setting, names = report.setting, {"ceiling": "the network's step, nothing else", "engrec": "engrec, trainer.fit"}
    speed = setting["speed"]
    how = [setting["precision"], speed["memory_format"], *(["fused optimizer"] if speed["fused_optimizer"] else [])]
    machine = setting["hardware"]
    yield f"\n{setting['model']}, batch {setting['batch_size']}, {', '.join(how)}"
    yield f"{', '.join(machine['gpus']) or machine['cpu']}, {machine['threads']} threads, torch {setting['torch']}"
    yield f"{setting['date']}, commit {setting['git_commit']}, {setting['steps']} steps a block"
    yield "\nimages per second, median (least to most)"
    for name, values in report.speed.items():
        middle = statistics.median(values)
        yield row(names.get(name, name), f"{middle:,.1f}", f"({min(values):,.1f} to {max(values):,.1f})")
    for name, value in report.ratios.items():
        yield row(name, f"{value:.2f}")
    yield "\narithmetic, GFLOP per second"
    yield row("engrec, of the network's products", f"{report.arithmetic['engrec']:,.0f}")
    yield row("a product of 4096×4096 matrices", f"{report.arithmetic['product']:,.0f}")
    yield row("share", f"{report.arithmetic['share']:.0%}")
    yield "\nmilliseconds a batch"
    for name, seconds in report.pieces.items():
        yield row(name, f"{1e3 * seconds:,.2f}", f"{seconds / report.pieces['all of it']:.1%}")
    yield "\nan epoch of FER-2013 (28,709 images; steps, from the above)"
    for name, value in report.epoch.items():
        yield row(name, f"{value:.2%}" if name.startswith("share") else f"{value:,.2f} s")
    yield "\na fresh process"
    for name, value in report.process.items():
        yield row(name.rpartition(", ")[0], f"{value:.2f} {name.rpartition(', ')[2]}")
    if report.video:
        yield "\na video of 640×360 with a face, one core, detected in every third frame"
        for name, value in report.video.items():
            yield row(name, f"{value:,.1f}")
    for title, values in report.growth.items():
        yield f"\n{title}"
        for number, value in values.items():
            yield row(f"{number:,}", f"{value:,.2f}")
    yield ""


def row(name: str, value: str, remark: str = "") -> str:
    return f"  {name:<36}{value:>12}  {remark}".rstrip()


def write(report: Report, folder: Path) -> list[Path]:
    """NAME.json and NAME.png, named after network, precision and device."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(report.setting[key] for key in ("model", "precision", "device"))
    with atomic_write(folder / f"{name}.json") as file:
        json.dump(vars(report), file, indent=2)
    machine = report.setting["hardware"]
    title = f"{report.setting['model']}, {report.setting['precision']}, {', '.join(machine['gpus']) or machine['cpu']}"
    epochs, batches = report.growth.values()
    figure = panels(report.speed, report.pieces, epochs, batches)
    figure.suptitle(title)
    return [folder / f"{name}.json", pictures.write(figure, folder / f"{name}.png")]


def panels(
    speed: dict[str, list[float]], pieces: dict[str, float], epochs: dict[int, float], batches: dict[int, float]
) -> Figure:
    """Images per second by way of training, milliseconds of a batch by piece, seconds of an epoch by the number of
    images, with the line through the origin, and images per second by batch size."""
    figure = Figure(figsize=(11, 7), facecolor="white", layout="constrained")
    (ways, parts), (growth, sizes) = figure.subplots(2, 2)
    bars = ways.barh([*speed], [statistics.median(values) for values in speed.values()], color="tab:blue")
    ways.bar_label(bars, fmt="{:,.0f}", label_type="center", color="white")
    for name, values in speed.items():
        ways.plot(values, [name] * len(values), "|", color="black", markersize=12)
    ways.set(xlabel="images per second (median, and each repeat)")
    names = [name for name in pieces if name != "all of it"]
    parts.bar_label(parts.barh(names, [1e3 * pieces[name] for name in names], color="tab:blue"), fmt=" {:,.2f}")
    parts.set(xlabel="milliseconds a batch")
    growth.plot([*epochs], [*epochs.values()], "o", color="tab:blue", label="measured")
    largest = max(epochs)
    growth.plot([0, largest], [0, epochs[largest]], color="0.6", label="in proportion to the largest")
    growth.set(xlabel="images", ylabel="seconds of an epoch", ylim=(0, None))
    growth.legend(frameon=False)
    sizes.plot(range(len(batches)), [*batches.values()], "o-", color="tab:blue")
    sizes.set(xlabel="batch size", ylabel="images per second", ylim=(0, 1.1 * max(batches.values())))
    sizes.set_xticks(range(len(batches)), map(str, batches))
    for axes in (ways, parts):
        axes.invert_yaxis()
        axes.margins(x=0.2)
    for axes in (ways, parts, growth, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
