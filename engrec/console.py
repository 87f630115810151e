"""What a run tells the user before it starts and when it is over."""

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from engrec import checkpoint
from engrec.callbacks import Tested
from engrec.data import DataModule
from engrec.errors import quoted, shell_line
from engrec.evidence.controls import CONTROLS
from engrec.machine import cluster
from engrec.modules.classifier import Classifier
from engrec.plan import Backbone, Plan, Resume
from engrec.splits import Undivided
from engrec.words import counted

log = logging.getLogger(__name__)
REAL_DATA = {
    "expression": ("python scripts/prepare.py fer2013 fer2013.tar.gz", "python train.py experiment=fer2013"),
    "engagement": (
        "python scripts/prepare.py wacv2016 wacv2016.zip",
        "python train.py experiment=wacv2016 init_from=engrec:expressions",
    ),
}
NOISE = (
    r".*(does not have many workers|logging interval|exists and is not empty|in eval mode at the start|"
    r"sync_dist=True|The `srun` command).*"  # sync_dist would reduce once more what Scores has reduced
)


def quiet_libraries() -> None:
    """Leave out what other packages say on every run: greetings, tips, and warnings of what is meant."""
    warnings.filterwarnings("ignore", message=NOISE)
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning|lightning_fabric")
    for name in ("pytorch_lightning", "lightning_fabric", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


def announce(plan: Plan, data: DataModule, module: Classifier, trainer: pl.Trainer) -> None:
    """What is trained or tested, on which data, and how."""
    if isinstance(plan.start, Resume):
        log.info("resuming from %s", plan.start.path)
        warn_of_other_devices(plan, trainer)
    faces, split = data.faces, data.split
    people = "" if faces.subjects is None else f" of {counted(len(set(faces.subjects.tolist())), 'person', 'people')}"
    sizes = f"{len(split.train):,} train, {len(split.val):,} validation, {len(split.test):,} test"
    log.info("%s: %s, %s%s (%s)", plan.stage, faces.name, counted(len(faces), "image"), people, sizes)
    log.info("split: %s", describe_split(plan, data))
    if plan.leaks:
        log.warning(plan.strategy.caution)
    warn_of_start(plan, data)
    if plan.trains and (excluded := faces.recipe.get("excluded_from_training")):
        kinds = ", ".join(f"{kind} {count}" for kind, count in excluded["of_each_kind"].items())
        several = "; some are of two" if sum(excluded["of_each_kind"].values()) > excluded["images"] else ""
        log.info("left out of training: %s images (%s%s)", excluded["images"], kinds, several)
    if taught := faces.recipe.get("distillation"):
        runs, share, temperature = len(taught["runs"]), taught["share"], taught["temperature"]
        log.info("soft labels: share %g of %d teachers' probabilities, temperature %g", share, runs, temperature)
    number = sum(p.numel() for p in module.parameters())
    device = f"{trainer.num_devices} × {trainer.strategy.root_device.type}"
    log.info("%s with %s parameters on %s", type(module.backbone).__name__, f"{number:,}", device)
    log.info("%s (%s)", describe_speed(plan), plan.why)
    if trainer.world_size > 1 and plan.trains:
        size, lr = plan.config["batch_size"], plan.config["optimizer"]["lr"]
        images = trainer.world_size * size
        log.info("a step has %d × batch_size=%d = %d images, optimizer.lr=%g", trainer.world_size, size, images, lr)


def warn_of_other_devices(plan: Plan, trainer: pl.Trainer) -> None:
    """Each device takes batch_size images for a step, and the schedule of the learning rate counts steps."""
    before, now = (plan.before.get("trainer") or {}).get("devices"), trainer.num_devices
    if before not in (None, now):
        log.warning(
            "this run had trainer.devices=%s and resumes on %s: a step has another number of images from here on, and "
            "the learning rate follows its schedule from another place. To end with the same numbers, set "
            "trainer.devices=%s",
            before,
            now,
            before,
        )


def describe_speed(plan: Plan) -> str:
    speed = plan.speed
    parts = [plan.config["trainer"]["precision"], speed.memory_format]
    parts += ["fused optimizer"] if speed.fused_optimizer and plan.trains else []
    parts += [f"compiled ({speed.compile})"] if speed.compile else []
    return f"trainer={plan.command.choices['trainer']}: {', '.join(map(str, parts))}"


def describe_split(plan: Plan, data: DataModule) -> str:
    """The splitting strategy in words: kfold, fold 0 of 5, by subject."""
    strategy, node, subjects = plan.command.choices["split"], plan.config["split"], data.faces.subjects
    if strategy == "kfold":
        few = "" if node["train_people"] is None else f", {node['train_people']} of the training people alone"
        return f"kfold, fold {node['fold']} of {node['num_folds']}, by subject{few}"
    if strategy == "loso" and subjects is not None:
        tested, everyone = subjects[data.split.test[0]], len(set(subjects.tolist()))
        return f"loso, fold {node['fold']} of {everyone}: subject {tested} is tested"
    if strategy == "nested":
        inner = f"inner fold {node['fold']} of {node['num_folds']}"
        return f"nested, {inner} among the people whom fold {node['outer']} does not test, by subject"
    if strategy == "teachers":
        return f"teachers, fold {node['fold']} of {node['num_folds']} of the training images, copies in one fold"
    if strategy == "official":
        return "official, the data set's own"
    if isinstance(data.split, Undivided):
        return f"{strategy}: all images are in train, validation and test"
    return f"{strategy}, by {'image' if plan.leaks else 'subject'}"


def warn_of_start(plan: Plan, data: DataModule) -> None:
    """A backbone that was trained on engagement, or on this data set, may have seen the people of this test."""
    if not isinstance(plan.start, Backbone):
        return
    if (known := data.may_know(checkpoint.trainings(plan.start.saved))) is not False:
        log.warning(
            "%s was trained on %s with %s split: it may have seen people and images that are tested here.",
            plan.start.path,
            data.faces.name,
            "another" if known else "an unknown",
        )
    if checkpoint.task_of(plan.start.saved) != "engagement":
        return
    same = tuple(plan.start.saved["hyper_parameters"]["class_names"]) == data.faces.class_names
    log.warning(
        "%s was already trained on %s. If any test subject was in its training data, this is not a test on unseen "
        "people.",
        plan.start.path,
        "these classes" if same else "engagement",
    )


def conclude(plan: Plan, data: DataModule, tested: Tested, best: Path | None) -> None:
    """The test's results, where they are, and the next command. best: the checkpoint that training has made."""
    mark = f" ({plan.strategy.mark})" if plan.leaks else ""
    log.info("test%s: %s", mark, describe_metrics(tested.metrics))
    if tested.views is not None:
        log.info("test with %s%s: %s", plan.config["tta"], mark, describe_metrics(tested.views.metrics))
    if tested.per_clip:
        log.info("test per clip%s: %s", mark, describe_metrics(tested.per_clip))
    log.info("for comparison: %s", describe_controls(data, tested.controls))
    log.info("calibration: %s", describe_calibration(tested.calibration))
    log.info("results are in %s", plan.folder)
    synthetic = data.faces.is_synthetic
    if synthetic:
        prepare, train = REAL_DATA[plan.task]
        log.info("This run used synthetic faces. To use real data: %s, then %s", prepare, train)
    if plan.stage == "pretrain":
        settings = [o for o in plan.command.overrides if o.lstrip("+").startswith("model.")]
        real = [] if synthetic else ["dataset=wacv2016", "split=kfold", "split.fold=0"]
        chosen = [
            f"model={plan.command.choices['model']}",
            *settings,
            *real,
            f"init_from={quoted(best or plan.folder)}",
        ]
        log.info("Next: %s", shell_line(["python", "train.py", "stage=finetune", *chosen]))


def describe_metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{k.removeprefix('test/')} {v:.4f}" for k, v in metrics.items() if "recall" not in k)


def describe_controls(data: DataModule, predicted: dict[str, np.ndarray]) -> str:
    labels = data.faces.labels[data.split.test]
    right = {name: (probabilities.argmax(1) == labels).mean() for name, probabilities in predicted.items()}
    return "accuracy of " + ", ".join(
        f"{CONTROLS[name]} {share:.4f}" for name, share in right.items() if name in CONTROLS
    )


def describe_calibration(values: dict[str, float]) -> str:
    temperature, before, after = (values[k] for k in ("temperature", "test/ece", "test/ece_calibrated"))
    if f"{before:.3f}" == f"{after:.3f}":
        return f"temperature {temperature:.2f} leaves ECE at {before:.3f}"
    changes = "lowers" if after < before else "raises"
    return f"temperature {temperature:.2f} {changes} ECE from {before:.3f} to {after:.3f}"


def say_how_to_resume(plan: Plan) -> None:
    """Of a run that was stopped by a signal."""
    if cluster.job() is not None:
        log.info("\nstopped (Slurm job %s); it resumes by itself if Slurm requeues the job", cluster.job())
    if not (plan.folder / "last.ckpt").is_file():
        log.info("stopped before the end of the first epoch: there is nothing to resume")
        return
    log.info("\nstopped; everything saved is kept. Resume with: %s", resume_command(plan))  # the bar ends no line


def resume_command(plan: Plan) -> str:
    """The command that resumes this run, or the sweep that it is part of."""
    if plan.command.number is None:
        given = [o for o in plan.command.overrides if not o.lstrip("+").startswith(("ckpt_path=", "output_dir="))]
        where = f"output_dir={quoted(plan.folder)}"
    else:
        given = [a for a in sys.argv[1:] if not a.startswith(("hydra.sweep.dir=", "ckpt_path="))]
        where = f"hydra.sweep.dir={quoted(plan.folder.parent)}"
    return shell_line(["python", "train.py", *given, where, "ckpt_path=last"])
