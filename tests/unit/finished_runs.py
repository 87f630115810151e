"""Folders of runs as train.py leaves them, made without training: some_images() predicted, write_run() on disk."""

import csv
import json
from dataclasses import replace

import numpy as np
import yaml

from engrec.evidence import comparison
from engrec.evidence.groups import read_groups
from engrec.runs.record import Predictions, find_runs

CLASSES = ("disengaged", "engaged")
FORMATS = ("JPEG L 48x48", "JPEG L 50x48", "PNG RGB 48x48")
ARRAYS = ("sources", "subjects", "formats", "labels", "probabilities")


def some_images(num_images=60, class_names=CLASSES, seed=0, skill=0.3, per_subject=6):
    """Random predictions of images in the order of their sources, two of three of the last class; the larger `skill`,
    the better. Everything but the probabilities is the same for every seed."""
    number, last = np.arange(num_images), len(class_names) - 1
    labels = np.where(number % 3 > 0, last, number // 3 % len(class_names))
    weights = np.random.default_rng(seed).uniform(0.05, 1, (num_images, len(class_names)))
    weights[number, labels] += skill
    return Predictions(
        class_names=class_names,
        sources=np.array([f"image{i:04d}.png" for i in number]),
        subjects=np.array([f"s{i // per_subject:02d}" for i in number]),
        formats=np.array([FORMATS[i % 3] for i in number]),
        labels=labels,
        probabilities=weights / weights.sum(1, keepdims=True),
    )


def take(images, index):
    """The images at `index`, integers or a mask."""
    return replace(images, **{name: getattr(images, name)[index] for name in ARRAYS})


def unknown_people(images):
    return replace(images, subjects=np.full(len(images.labels), ""))


def decided(images, chosen):
    """The same images, each of which is certainly of its chosen class, (N,)."""
    return replace(images, probabilities=np.eye(len(images.class_names))[chosen])


def right_for(images, share, seed=0):
    """Certain predictions, of which the given share of each class is right."""
    rng, chosen = np.random.default_rng(seed), 1 - images.labels
    for k in (0, 1):
        members = rng.permutation(np.flatnonzero(images.labels == k))
        right = members[: round(share * len(members))]
        chosen[right] = k
    return decided(images, chosen)


def majority(images):
    return decided(images, np.full(len(images.labels), np.bincount(images.labels).argmax()))


def write_predictions(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        clips = [[]] * len(images.labels) if images.clips is None else [[clip] for clip in images.clips]
        more = ["clip"] if len(clips) and clips[0] else []
        columns = ["source", "subject", "format", "label", *more, *(f"p_{name}" for name in images.class_names)]
        writer.writerow(columns)
        for source, subject, kind, label, row, clip in zip(*(getattr(images, n) for n in ARRAYS), clips, strict=True):
            writer.writerow([source, subject, kind, images.class_names[label], *clip, *map(repr, row.tolist())])


def write_run(
    folder,
    images,
    stage="finetune",
    seed=0,
    fold=0,
    choices=None,
    settings=None,
    temperature=None,
    views=None,
    controls=None,
    data="wacv2016",
):
    """choices: config groups that are not the usual; settings: dotted keys of config.yaml likewise; views and controls:
    name to the predictions of the same images."""
    chosen = {"dataset": "wacv2016", "split": "kfold", "augment": "paper", "model": "vgg_small"} | (choices or {})
    result = {"stage": stage, "seed": seed, "choices": chosen, "dataset": {"name": data}}
    if temperature is not None:
        result["calibration"] = {"temperature": temperature}
    write_predictions(folder / "predictions.csv", images)
    for name, predictions in (views or {}).items():
        write_predictions(folder / f"predictions_{name}.csv", predictions)
    for name, predictions in (controls or {}).items():
        write_predictions(folder / "controls" / f"{name}.csv", predictions)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder, stage, seed, fold, settings or {})))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def config(folder, stage, seed, fold, settings):
    """What config.yaml of a run holds, nested; a setting replaces whatever lies at or below its key."""
    flat = {
        "stage": stage,
        "task": "engagement",
        "seed": seed,
        "batch_size": 128,
        "max_epochs": 12,
        "monitor": "val/auc",
        "init_from": str(folder / "first.ckpt"),
        "ckpt_path": None,
        "run": folder.name,
        "output_dir": str(folder),
        "model": {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.25, "dense": []},
        "dataset": {
            "_target_": "engrec.datasets.prepared.load",
            "path": "data/wacv2016.npz",
            "classes": {"disengaged": ["not_engaged"], "engaged": ["nominally_engaged", "very_engaged"]},
        },
        "split": {"_target_": "engrec.splits.KFold", "fold": fold, "num_folds": 5, "seed": 0},
        "augment": {"_target_": "engrec.transforms.Augment", "flip": 0.5, "padding": 4, "rotation": 16.0},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9},
        "callbacks": {"history": {"folder": str(folder)}, "best": {"dirpath": str(folder)}},
        "trainer": {"devices": 1, "precision": "bf16-mixed"},
        "logger": {},
    }
    for key, value in settings.items():
        *path, last = key.split(".")
        node = flat
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return flat


def comparisons_of(folder, num_resamples=400):
    return comparison.build(read_groups(find_runs([folder])), num_resamples)


def comparison_of(folder, num_resamples=400):
    [one] = comparisons_of(folder, num_resamples)
    return one
