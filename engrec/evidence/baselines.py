"""Baselines without training a network: HOG + SVM, and the features of a frozen network."""

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from skimage.feature import hog
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from tqdm import tqdm

from engrec import config
from engrec.config import check_missing
from engrec.data import divide, num_people
from engrec.datasets.prepared import Faces
from engrec.datasets.schema import SPLITS
from engrec.evidence import linear
from engrec.evidence.controls import controls
from engrec.evidence.features import FrozenFeatures
from engrec.machine.progress import progress_bar
from engrec.metrics import confusion_matrix, logits_of, score_all
from engrec.plan import command, plain
from engrec.runs import pictures
from engrec.runs.folder import write_config
from engrec.runs.record import environment, without_nan, write_controls, write_predictions, write_result
from engrec.splits import Split
from engrec.words import counted

ORIENTATIONS, CELL, BLOCK = 9, 8, 2  # bins of 20 degrees, pixels of a cell's side, cells of a block's side
CS = (1e-5, 1e-4, 1e-3, 1e-2)  # 0.1 takes as long again as these together, on FER-2013
SETTINGS = {"orientations": ORIENTATIONS, "cell": CELL, "block": BLOCK, "block_norm": "L2-Hys", "c_grid": list(CS)}


def hog_svm(
    faces: Faces, split: Split, seed: int = 0, features: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities float64 (N, K) of the images of split.test, in its order, and the settings, chosen ones included.

    Nezami et al. (2019) compare their networks with HOG + SVM. The settings here are not theirs but those of Dalal
    and Triggs (CVPR 2005). The SVM is linear, one class against the rest, with balanced class weights; C is the one
    with the best balanced accuracy on the validation images, the smallest of equals. Probabilities are the softmax of
    the decision values over a temperature fitted on the validation images; the most probable class is the SVM's.

    seed: of the SVM's solver, which is deterministic where there are more images than features.
    features: those of all of `faces`, where hog_features has computed them already.
    FER-2013 takes two minutes of one core (AMD EPYC), a fold of WACV-2016 a few seconds.
    """
    if features is None:
        features = hog_features(faces.images)

    def fit(c: float, rows: np.ndarray, labels: np.ndarray) -> OneVsRestClassifier:
        svm = LinearSVC(C=c, class_weight="balanced", random_state=seed, max_iter=5000)
        return OneVsRestClassifier(svm).fit(rows, labels)

    probabilities, found = linear.chosen(fit, CS, features, faces, split)
    return probabilities, SETTINGS | found


def hog_features(images: Iterable[np.ndarray]) -> np.ndarray:
    """float32 (N, D) of images (C, H, W); of a colour image, the steepest channel's gradients. Raises ValueError for
    images smaller than a block."""
    rows = []
    for image in images:
        if min(image.shape[1:]) < CELL * BLOCK:
            height, width = image.shape[1:]
            raise ValueError(f"{width}x{height} pixels hold no block of {BLOCK}x{BLOCK} cells: HOG takes 16x16 or more")
        row = hog(image, ORIENTATIONS, (CELL, CELL), (BLOCK, BLOCK), "L2-Hys", channel_axis=0)
        rows.append(np.asarray(row, dtype=np.float32))
    return np.stack(rows)


@dataclass(frozen=True)
class HogSvm:
    """The baseline `hog_svm`."""

    name: ClassVar[str] = "hog_svm"
    row: ClassVar[str] = name
    given: ClassVar[None] = None
    settings: ClassVar[dict[str, Any]] = SETTINGS
    packages: ClassVar[tuple[str, ...]] = ("scikit-image",)

    def check(self, faces: Faces, splits: Iterable[Split]) -> None:
        """Every data set will do; images that are too small are named with their features."""

    def features(self, faces: Faces) -> np.ndarray:
        return hog_features(progress_bar(faces.images, "features", "images"))

    def predict(self, faces: Faces, split: Split, seed: int, features: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        return hog_svm(faces, split, seed, features)


Fold = tuple[Path, DictConfig, Split]  # where it is written, the node of its split, who is in it
TAKEN = ("dataset", "split", "seed", "output_dir", "stage", "task", "experiment")


@dataclass(frozen=True)
class Baseline:
    """A baseline to run: the configuration, the option of each group, and the folds with the folder of each."""

    method: HogSvm | FrozenFeatures
    cfg: DictConfig
    choices: dict[str, str]
    folder: Path
    folds: list[Fold]
    arguments: list[str]


def composed(overrides: list[str], taken: Sequence[str] = TAKEN) -> tuple[DictConfig, dict[str, str]]:
    """The configuration, that of stage=scratch where no other is typed, and the option chosen in each group.

    Raises ValueError for an override that a baseline has no use for, and for what is missing.
    """
    keys = [o.lstrip("+~").partition("=")[0].partition("@")[0] for o in overrides]
    if useless := [o for o, key in zip(overrides, keys, strict=True) if key.partition(".")[0] not in taken]:
        raise ValueError(f"{' '.join(useless)} has no effect on this baseline; allowed: {'=, '.join(taken)}=")
    if sweeps := [o for o in overrides if o.startswith("split.fold=") and not o.partition("=")[2].isdecimal()]:
        raise ValueError(
            f"{sweeps[0]}: without split.fold= every fold is run; leave it out, or set one, such as split.fold=2"
        )
    stage = [] if "stage" in keys else ["stage=scratch"]
    cfg = config.composed([*stage, *overrides])
    check_missing(cfg.dataset)
    check_missing(cfg.split, optional=["split.fold"])  # without one, every fold is run
    return cfg, dict(command().choices)


def folder_of(baseline: str, cfg: DictConfig, choices: dict[str, str], overrides: list[str]) -> Path:
    """The folder of output_dir=, or a new one."""
    if any(o.startswith("output_dir=") for o in overrides):
        return Path(cfg.output_dir)
    return Path("outputs", "baseline", f"{choices['dataset']}-{baseline}", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def folds_of(cfg: DictConfig, faces: Faces, folder: Path, chosen: bool) -> list[Fold]:
    """Folder, configuration and Split of the chosen fold, or of every fold.

    Raises ValueError, before anything is computed, for an impossible split and for a folder that holds a run.
    """
    keys = plain(cfg.split)  # a DictConfig denies that it has a key whose value is missing
    # Without num_folds as many as subjects; where there are none, the split itself says what is wrong.
    number = keys.get("num_folds", 1 if faces.subjects is None else len(np.unique(faces.subjects)))
    numbers = [] if chosen or "fold" not in keys else range(max(1, number))
    nodes = [DictConfig({**plain(cfg.split), "fold": number}) for number in numbers] or [cfg.split]
    folders = [folder / str(number) for number in numbers] or [folder]
    kept = ("result.json", "last.ckpt")
    if taken := next((f for f in (folder, *folders) if any((f / name).is_file() for name in kept)), None):
        raise ValueError(f"{taken} holds a run: choose another output_dir, or remove that folder")
    return [(f, node, divide(faces, instantiate(node))) for f, node in zip(folders, nodes, strict=True)]


def announce(plan: Baseline, faces: Faces) -> None:
    people = "" if faces.subjects is None else f" of {counted(len(np.unique(faces.subjects)), 'person', 'people')}"
    folds = f", {len(plan.folds)} folds" if len(plan.folds) > 1 else ""
    print(
        f"{plan.method.row}: {faces.name}, {counted(len(faces), 'image')}{people}, split={plan.choices['split']}{folds}"
    )
    strategy = get_object(plan.cfg.split["_target_"])
    if strategy.leaks:
        print(strategy.caution)


def run(plan: Baseline, faces: Faces) -> None:
    """Features once for all folds, then a run folder for each."""
    started = time.perf_counter()
    features = plan.method.features(faces)
    shared = (time.perf_counter() - started) / len(plan.folds)
    for fold in progress_bar(plan.folds, "folds", hide=len(plan.folds) == 1):
        folder, _, split = fold
        started = time.perf_counter()
        probabilities, settings = plan.method.predict(faces, split, plan.cfg.seed, features)
        about = {"model": settings, "seconds": round(shared + time.perf_counter() - started, 1)}
        metrics = write_run(plan, fold, faces, probabilities, about)
        message = ", ".join(f"{k.removeprefix('test/')} {v:.4f}" for k, v in metrics.items() if "recall" not in k)
        tqdm.write(f"test{f' of fold {folder.name}' if folder != plan.folder else ''}: {message}")


def scores(probabilities: np.ndarray, faces: Faces, index: np.ndarray) -> dict[str, float]:
    """The test metrics of the images at `index`, named as those of a network."""
    values = score_all(logits_of(probabilities), torch.from_numpy(faces.labels[index]), faces.ordered)
    recalls = zip(faces.class_names, values.pop("recalls").tolist(), strict=True)
    named = {f"test/{name}": value.item() for name, value in values.items()}
    return named | {f"test/recall/{name}": value for name, value in recalls}


def write_run(
    plan: Baseline, fold: Fold, faces: Faces, probabilities: np.ndarray, about: dict[str, Any]
) -> dict[str, float]:
    """What a run of train.py leaves, as far as there is any; result.json last, as the sign that the rest is there.

    about: more keys of result.json. Returns the test metrics.
    """
    folder, node, split = fold
    metrics = scores(probabilities, faces, split.test)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"stage": "baseline", "dataset": plain(plan.cfg.dataset), "split": plain(node), "seed": plan.cfg.seed}
    config |= {
        "init_from": OmegaConf.select(plan.cfg, "init_from"),
        "baseline": {"name": plan.method.name, **plan.method.settings},
        "output_dir": str(folder),
    }
    write_config(folder, config)
    write_predictions(folder / "predictions.csv", faces, split.test.tolist(), probabilities.tolist())
    write_controls(folder / "controls", faces, split.test.tolist(), controls(faces, split))
    counts = confusion_matrix(torch.from_numpy(probabilities), torch.from_numpy(faces.labels[split.test]))
    title = f"{plan.method.row}, {faces.name}: test accuracy {metrics['test/accuracy']:.1%}"
    pictures.confusion(counts.numpy(), faces.class_names, folder / "confusion.png", title)
    choices = {group: plan.choices[group] for group in ("dataset", "split")}
    result = {
        "metrics": without_nan(metrics),
        "stage": "baseline",
        "transductive": plan.method.given,
        "choices": choices | {"augment": "none", "model": plan.method.row},
        "dataset": faces.recipe,
        "num_images": {name: len(getattr(split, name)) for name in SPLITS},
        "num_people": num_people(faces, split),
        "seed": plan.cfg.seed,
        **about,
        **environment(shlex.join(["python", "scripts/baseline.py", *plan.arguments]), *plan.method.packages),
    }
    write_result(folder, result)
    return metrics
