"""A baseline without a network, on the data and the split that train.py would use: every fold, or the one typed.

python scripts/baseline.py hog_svm dataset=wacv2016 split=kfold
python scripts/baseline.py hog_svm dataset=wacv2016 dataset.classes=null split=kfold split.fold=2 output_dir=outputs/hog
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from engrec import config, splits
from engrec.config import REMEDY
from engrec.console import LEAKAGE
from engrec.datasets.prepared import Faces
from engrec.errors import errors_in_one_line
from engrec.evidence import baselines
from engrec.evidence.controls import controls
from engrec.machine.files import atomic_write
from engrec.metrics import confusion_matrix, logits_of, score_all
from engrec.plan import plain
from engrec.runs import pictures
from engrec.runs.record import PACKAGES, git_commit, hardware, without_nan, write_controls, write_predictions
from engrec.splits import Split

ROOT = Path(__file__).resolve().parents[1]
BASELINES: dict[str, Callable[..., tuple[np.ndarray, dict[str, Any]]]] = {"hog_svm": baselines.hog_svm}
TAKEN = ("dataset", "split", "seed", "output_dir", "stage", "task", "experiment")


@dataclass(frozen=True)
class Plan:
    """What was typed: the configuration, which options it chose, and the folds with the folder of each."""

    baseline: str
    cfg: DictConfig
    choices: dict[str, str]
    folder: Path
    folds: list[tuple[Path, DictConfig, Split]]
    arguments: list[str]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", choices=sorted(BASELINES), help="hog_svm: oriented gradients and a linear SVM")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as for train.py: dataset=wacv2016 split=kfold split.fold=2 seed=1 output_dir=outputs/hog; drawn faces "
        "(dataset=synthetic) have engagement labels, or expressions with stage=pretrain",
    )
    options = parser.parse_intermixed_args(arguments)
    cfg, choices = composed(options.overrides)
    faces = instantiate(cfg.dataset, _convert_="all")
    folder = folder_of(options.baseline, cfg, choices, options.overrides)
    folds = folds_of(cfg, faces, folder, chosen=any(o.startswith("split.fold=") for o in options.overrides))
    plan = Plan(options.baseline, cfg, choices, folder, folds, arguments)
    announce(plan, faces)
    run(plan, faces)
    print(f"written to {folder}; pooled, with intervals: {shlex.join(['python', 'scripts/summarize.py', str(folder)])}")


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration, that of stage=scratch where no other is typed, and the option chosen in each group.

    Raises ValueError for an override that a baseline has no use for, and for what is missing.
    """
    keys = [o.lstrip("+~").partition("=")[0].partition("@")[0] for o in overrides]
    if useless := [o for o, key in zip(overrides, keys, strict=True) if key.partition(".")[0] not in TAKEN]:
        raise ValueError(f"{' '.join(useless)} is of no effect on a baseline; allowed: {'=, '.join(TAKEN)}=")
    if sweeps := [o for o in overrides if o.startswith("split.fold=") and not o.partition("=")[2].isdecimal()]:
        raise ValueError(f"{sweeps[0]}: without split.fold= every fold is run; type that, or one, such as split.fold=2")
    stage = [] if "stage" in keys else ["stage=scratch"]
    cfg = config.composed([*stage, *overrides])
    for group in ("dataset", "split"):
        if missing := sorted(OmegaConf.missing_keys(cfg[group]) - {"fold"}):  # every fold is run without one
            raise ValueError(
                "missing " + "; ".join(f"{key}, {REMEDY.get(key, f'set it with {key}=…')}" for key in missing)
            )
    return cfg, dict(HydraConfig.get().runtime.choices)


def folder_of(baseline: str, cfg: DictConfig, choices: dict[str, str], overrides: list[str]) -> Path:
    """The folder that was typed, or a new one."""
    if any(o.startswith("output_dir=") for o in overrides):
        return Path(cfg.output_dir)
    return Path("outputs", "baseline", f"{choices['dataset']}-{baseline}", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def folds_of(cfg: DictConfig, faces: Faces, folder: Path, chosen: bool) -> list[tuple[Path, DictConfig, Split]]:
    """Folder, configuration and Split of the fold that was chosen, or of every fold.

    Raises ValueError, before anything is computed, for a split that cannot be and for a folder that is taken.
    """
    numbers = [] if chosen or "fold" not in cfg.split else range(num_folds(cfg, faces))
    nodes = [DictConfig({**plain(cfg.split), "fold": number}) for number in numbers] or [cfg.split]
    folders = [folder / str(number) for number in numbers] or [folder]
    kept = ("result.json", "last.ckpt")
    if taken := next((f for f in (folder, *folders) if any((f / name).is_file() for name in kept)), None):
        raise ValueError(f"{taken} holds a run: choose another output_dir, or remove that folder")
    try:
        return [(f, node, split_of(node, faces)) for f, node in zip(folders, nodes, strict=True)]
    except ValueError as error:
        raise ValueError(f"{faces.name}: {error}") from error


def num_folds(cfg: DictConfig, faces: Faces) -> int:
    """As many as the split says, else one for each subject; without subjects the split itself says what is wrong."""
    subjects = 1 if faces.subjects is None else len(np.unique(faces.subjects))
    return max(1, cfg.split.get("num_folds", subjects))


def split_of(node: DictConfig, faces: Faces) -> Split:
    way = instantiate(node)
    split = way(faces.labels, faces.subjects, faces.splits)
    splits.check(split, faces.labels, faces.subjects, len(faces.class_names), way.leaks)
    return split


def announce(plan: Plan, faces: Faces) -> None:
    people = "" if faces.subjects is None else f" of {len(np.unique(faces.subjects))} people"
    folds = f", {len(plan.folds)} folds" if len(plan.folds) > 1 else ""
    print(f"{plan.baseline}: {faces.name}, {len(faces):,} images{people}, split={plan.choices['split']}{folds}")
    if get_object(plan.cfg.split["_target_"]).leaks:
        print(LEAKAGE)


def run(plan: Plan, faces: Faces) -> None:
    """Features once for all folds, then a run folder for each."""
    started = time.perf_counter()
    features = baselines.hog_features(tqdm(faces.images, "features", unit=" images", disable=None, leave=False))
    shared = (time.perf_counter() - started) / len(plan.folds)
    for folder, node, split in tqdm(plan.folds, "folds", disable=None if len(plan.folds) > 1 else True, leave=False):
        started = time.perf_counter()
        probabilities, settings = BASELINES[plan.baseline](faces, split, plan.cfg.seed, features)
        seconds = shared + time.perf_counter() - started
        metrics = scores(probabilities, faces.labels[split.test], faces.class_names)
        write_run(plan, folder, node, faces, split, probabilities, settings, metrics, seconds)
        shown = ", ".join(f"{k.removeprefix('test/')} {v:.4f}" for k, v in metrics.items() if "recall" not in k)
        tqdm.write(f"test{f' of fold {folder.name}' if folder != plan.folder else ''}: {shown}")


def scores(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, float]:
    """The test metrics, named as those of a network."""
    values = score_all(logits_of(probabilities), torch.from_numpy(labels))
    recalls = zip(class_names, values.pop("recalls").tolist(), strict=True)
    named = {f"test/{name}": value.item() for name, value in values.items()}
    return named | {f"test/recall/{name}": value for name, value in recalls}


def write_run(
    plan: Plan,
    folder: Path,
    node: DictConfig,
    faces: Faces,
    split: Split,
    probabilities: np.ndarray,
    settings: dict[str, Any],
    metrics: dict[str, float],
    seconds: float,
) -> None:
    """What a run of train.py leaves, as far as there is any; result.json last, as the sign that the rest is there."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"stage": "baseline", "dataset": plain(plan.cfg.dataset), "split": plain(node), "seed": plan.cfg.seed}
    config |= {"baseline": {"name": plan.baseline, **baselines.SETTINGS}, "output_dir": str(folder)}
    with atomic_write(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(config)))
    write_predictions(folder / "predictions.csv", faces, split.test.tolist(), probabilities.tolist())
    write_controls(folder / "controls", faces, split.test.tolist(), controls(faces, split))
    counts = confusion_matrix(torch.from_numpy(probabilities), torch.from_numpy(faces.labels[split.test]))
    title = f"{plan.baseline}, {faces.name}: test accuracy {metrics['test/accuracy']:.1%}"
    pictures.confusion(counts.numpy(), faces.class_names, folder / "confusion.png", title)
    choices = {group: plan.choices[group] for group in ("dataset", "split")}
    packages = {name: version(name) for name in (*PACKAGES, "scikit-image")}
    result = {
        "metrics": without_nan(metrics),
        "stage": "baseline",
        "choices": choices | {"augment": "none", "model": plan.baseline},
        "dataset": faces.recipe,
        "model": settings,
        "num_images": {side: len(getattr(split, side)) for side in ("train", "val", "test")},
        "seed": plan.cfg.seed,
        "seconds": round(seconds, 1),
        "hardware": hardware(),
        "versions": packages | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "command": shlex.join(["python", "scripts/baseline.py", *plan.arguments]),
    }
    with atomic_write(folder / "result.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
