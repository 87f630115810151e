"""The steps of a run, in order."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from engrec import checkpoint, console, trackers
from engrec.callbacks import (
    Calibration,
    CheckedStates,
    History,
    MovedFolder,
    Predictions,
    SameConfiguration,
    StaysStopped,
    Tested,
    ViewPredictions,
    callbacks,
    cluster_environment,
    history_of,
    unhindered,
)
from engrec.data import DataModule, check_monitor, divide
from engrec.datasets.schema import SPLITS
from engrec.evidence.clips import clip_metrics
from engrec.evidence.controls import controls
from engrec.evidence.distillation import check_start
from engrec.machine.cluster import end_with_the_first, slurm_signals
from engrec.machine.signals import signals_end_the_run
from engrec.metrics import compare
from engrec.modules.build import build_module
from engrec.modules.classifier import Classifier
from engrec.plan import Backbone, Finished, Plan, Resume, Test, command, plan
from engrec.runs import folder, pictures, record
from engrec.runs.checkpoint_io import Saver
from engrec.runs.status import reported
from engrec.splits import Teachers
from engrec.transforms import flip_views, ten_crop_views, ten_crop_zoom_views

# The config groups whose options name a run in tables.
NAMED = ("dataset", "split", "augment", "mixup", "model", "optimizer", "lr_scheduler", "callbacks", "distill")
VIEWS = {"flip": flip_views, "ten_crop": ten_crop_views, "ten_crop_zoom": ten_crop_zoom_views}


def run(cfg: DictConfig) -> dict[str, float]:
    """Train and test, or only test, what `cfg` describes. Returns the test metrics, test/accuracy and so on.

    Raises ValueError, in the user's words, for whatever is wrong with the configuration or with the data.
    """
    console.quiet_libraries()
    with folder.removed_if_empty(command().folder or Path(cfg.output_dir)), signals_end_the_run(**slurm_signals()):
        end_with_the_first()
        planned = plan(cfg)
        return planned.metrics if isinstance(planned, Finished) else carry_out(planned)


def carry_out(plan: Plan) -> dict[str, float]:
    """Build the parts, train unless the stage is test, test the best checkpoint and write the results."""
    pl.seed_everything(plan.seed, verbose=False)
    data = build_data(plan)
    module = build_module(plan, data)
    trainer = build_trainer(plan)
    config = plan.config | {"trainer": plan.config["trainer"] | {"devices": trainer.num_devices}}
    first = trainer.is_global_zero
    with reported(plan.folder, str(plan.command), plan.command.choices) if first else nullcontext():
        folder.open_log(plan.folder, first)
        if first:
            folder.write_config(plan.folder, config)
        console.announce(plan, data, module, trainer)
        with trackers.followed(trainer, config, history_of(trainer)):
            started = time.perf_counter()
            best = fit(plan, trainer, module, data, config) if plan.trains else None
            tested = evaluate(plan, data, module, trainer)
            if first:
                write_result(plan, trainer, module, data, tested, time.perf_counter() - started)
            console.conclude(plan, data, tested, best)
    return tested.metrics


def build_data(plan: Plan) -> DataModule:
    """The data set, split and checked."""
    faces = instantiate(plan.config["dataset"], _convert_="all")
    split = divide(faces, instantiate(plan.config["split"]))
    if plan.trains:
        check_monitor(plan.config["monitor"], faces, split)
    if plan.strategy is Teachers and isinstance(plan.start, Backbone):
        check_start(plan.start.saved, plan.start.path, faces, split)
    if distill := instantiate(plan.config["distill"], _convert_="all"):
        faces = distill(faces, split)
    augment, mixup = (instantiate(plan.config[name], _convert_="all") for name in ("augment", "mixup"))
    where = {"place": plan.speed.data, "device_share": plan.speed.data_share}
    more = {"mixup": mixup or None, "balance": plan.config["balance"]}
    return DataModule(faces, split, augment, plan.config["batch_size"], plan.seed, **where, **more)


def build_trainer(plan: Plan) -> pl.Trainer:
    """Trainer, callbacks and logger from YAML."""
    config, environment = plan.config, cluster_environment()
    same = SameConfiguration({name: node for name, node in config.items() if name not in ("run", "logger")})
    saver = Saver(read=plan.start.saved if isinstance(plan.start, Resume) else None)
    trainer = instantiate(
        config["trainer"],
        callbacks=[
            same,
            MovedFolder(),
            CheckedStates(),
            StaysStopped(),
            *map(instantiate, config["callbacks"].values()),
        ],
        logger=instantiate(config["logger"]) if config["logger"] else False,
        plugins=[saver, *([environment] if environment else [])],
        default_root_dir=str(plan.folder),
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
    )
    return unhindered(trainer)


def fit(plan: Plan, trainer: pl.Trainer, module: Classifier, data: DataModule, config: dict[str, Any]) -> Path:
    """Train to the end, load the best weights and return their path; stopped by a signal, say how to resume."""
    best, history = plan.folder / "best.ckpt", history_of(trainer) or History(str(plan.folder))
    if isinstance(plan.start, Resume):  # now rather than after hours of training
        history.load_state_dict(plan.start.saved["callbacks"].get("History", history.state_dict()))
        checkpoint.check_best(checkpoint.read(best), best, history.best(plan.config["monitor"]), plan.start.saved)
    for logger in trainer.loggers:
        logger.log_hyperparams(config)
    try:
        path = plan.start.path if isinstance(plan.start, Resume) else None
        trainer.fit(module, data, ckpt_path=path, weights_only=True)
    except SystemExit:
        console.say_how_to_resume(plan)
        raise
    trainer.strategy.barrier()  # until the first process has written the checkpoints
    chosen = history.best(plan.config["monitor"])
    if history.epochs and not chosen:
        raise ValueError(
            f"{plan.config['monitor']} is undefined in every epoch and can choose none: set another monitor="
        )
    tested = checkpoint.read(best)
    checkpoint.check_best(tested, best, chosen)
    module.load_state_dict(tested["state_dict"])
    return best


def evaluate(plan: Plan, data: DataModule, module: Classifier, trainer: pl.Trainer) -> Tested:
    """One pass over the test images, after one over the validation images that fits the temperature alone."""
    tta = plan.config["tta"]
    predictions, fitted = Predictions(plan.folder / "predictions.csv"), Calibration()
    views = ViewPredictions(plan.folder / f"predictions_{tta}.csv", VIEWS[tta]) if tta != "none" else None
    callbacks(trainer).extend(filter(None, (fitted, predictions, views)))
    metrics = {name: float(value) for name, value in trainer.test(module, data, verbose=False)[0].items()}
    calibration = compare(predictions.logits.numpy(), predictions.labels.numpy(), fitted.temperature)
    clips = clip_metrics(data.faces, data.split, predictions.logits, predictions.labels)
    per_clip = {name: float(value) for name, value in module.named("test", clips).items()} if clips else {}
    return Tested(metrics, predictions, views, calibration, controls(data.faces, data.split), per_clip)


def write_result(
    plan: Plan, trainer: pl.Trainer, module: Classifier, data: DataModule, tested: Tested, seconds: float
) -> None:
    """The controls' predictions, the two pictures, what trackers are told, and result.json."""
    history = history_of(trainer) or History(str(plan.folder))
    choices = {group: plan.command.choices[group] for group in NAMED}
    if isinstance(plan.start, Test):
        choices["model"] = type(module.backbone).__name__
    result = record.without_nan(
        {
            "metrics": tested.metrics,
            **({} if tested.views is None else {"tta": {"kind": plan.config["tta"], "metrics": tested.views.metrics}}),
            **({"clips": {"metrics": tested.per_clip}} if tested.per_clip else {}),
            "calibration": tested.calibration,
            "validation": history.best(plan.config["monitor"]),
            "stage": plan.stage,
            "choices": choices,
            "dataset": data.faces.recipe,
            "model": dict(module.hparams["model"]),
            "num_parameters": sum(p.numel() for p in module.parameters()),
            "num_images": {name: len(getattr(data.split, name)) for name in SPLITS},
            "num_people": data.num_people,
            "may_know_test": data.may_know(module.before),
            "seed": plan.seed,
            "epochs": len(history.epochs),
            "seconds": round(seconds, 1),
            "train_images_per_second": history.images_per_second,
            "precision": str(trainer.precision),
            **record.environment(str(plan.command)),
        }
    )
    record.write_controls(plan.folder / "controls", data.faces, data.split.test.tolist(), tested.controls)
    if history.epochs:
        pictures.curves(history.epochs, plan.folder / "curves.png")
    mark = f" ({plan.strategy.mark})" if plan.leaks else ""
    title = f"{plan.stage}, {data.faces.name}: test accuracy{mark} {tested.metrics['test/accuracy']:.1%}"
    confusion = tested.predictions.confusion.numpy()
    pictures.confusion(confusion, data.faces.class_names, plan.folder / "confusion.png", title)
    trackers.record(
        trainer, data.faces, np.sort(data.split.test), tested.predictions.logits, tested.predictions.labels, result
    )
    record.write_result(plan.folder, result)
