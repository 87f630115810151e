"""A data set as training reads it: arrays in memory, one .npz file on disk."""

import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from engrec.machine.files import atomic_write

SPLITS = ("train", "val", "test")
EXCLUDABLE = ("blank", "test_duplicates", "conflicts", "near_duplicates", "placeholders")
PER_IMAGE = (
    "sources",
    "subjects",
    "splits",
    "formats",
    "near_duplicates",
    "placeholders",
)  # independent of the classes


@dataclass(frozen=True, eq=False)
class Faces:
    """N labelled face images.

    images: uint8 (N, C, H, W); labels: int64 (N,), indices into class_names.
    subjects: str (N,), ids of the people; splits: str (N,) of "train", "val", "test", the official splits; soft_labels:
    float32 (N, num_classes), rows sum to 1. Each of these three is None if the data has none.
    sources: str (N,), the file or row of each image; formats: str (N,), the format of that file, such as
    "JPEG L 48x48", or None if images had no file of their own.
    near_duplicates, placeholders: bool (N,), see datasets/faults.py; None if they were not searched for.
    recipe: how the data set was made, JSON values only; "name" is required. "ordered" says whether class_names are
    levels in their order; where it is missing, they are if there are "levels", as in WACV-2016.

    Raises ValueError if the arrays do not fit each other, so every Faces is consistent.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    sources: np.ndarray
    recipe: dict[str, Any]
    subjects: np.ndarray | None = None
    splits: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    formats: np.ndarray | None = None
    near_duplicates: np.ndarray | None = None
    placeholders: np.ndarray | None = None

    def __post_init__(self) -> None:
        name, num_images = self.recipe.get("name", "the data set"), len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or num_images == 0:
            raise ValueError(
                f"{name}: images must be uint8 (N, C, H, W), found {self.images.dtype} {self.images.shape}"
            )
        for field in ("labels", *PER_IMAGE, "soft_labels"):
            array = getattr(self, field)
            if array is not None and len(array) != num_images:
                raise ValueError(f"{name}: {num_images} images but {len(array)} {field}")
        if self.labels.dtype != np.int64 or self.labels.ndim != 1 or self.labels.min() < 0:
            raise ValueError(
                f"{name}: labels must be int64 (N,) from 0 up, found {self.labels.dtype} {self.labels.shape} from "
                f"{self.labels.min()}"
            )
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        if len(counts) > len(self.class_names):
            raise ValueError(f"{name}: label {self.labels.max()} exceeds the {len(self.class_names)} class names")
        if empty := [c for c, count in zip(self.class_names, counts, strict=True) if count == 0]:
            raise ValueError(f"{name}: no image of class {', '.join(empty)}")
        if self.splits is not None and (unknown := set(np.unique(self.splits)) - set(SPLITS)):
            raise ValueError(f"{name}: unknown split {', '.join(sorted(unknown))}; allowed: {', '.join(SPLITS)}")
        if self.soft_labels is not None and self.soft_labels.shape != (num_images, len(self.class_names)):
            raise ValueError(f"{name}: soft labels {self.soft_labels.shape} for {len(self.class_names)} classes")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        return self.recipe["name"]

    @property
    def ordered(self) -> bool:
        """Whether the classes are three or more levels in order."""
        return are_levels(self.class_names, self.recipe)

    def select(self, index: np.ndarray) -> Self:
        """Images at `index` (integers or a mask), with their labels and all other arrays."""
        per_image = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("class_names", "recipe")}
        return replace(self, **{name: None if array is None else array[index] for name, array in per_image.items()})

    def save(self, path: str | Path) -> None:
        """Write one .npz, without pickled objects, complete or not at all."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        arrays |= {"class_names": np.array(self.class_names), "recipe": np.array(json.dumps(self.recipe))}
        with atomic_write(path, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def are_levels(class_names: Sequence[str], recipe: Mapping[str, Any]) -> bool:
    """Whether these classes of a data set are three or more levels in order: of two, order says nothing."""
    return len(class_names) > 2 and bool(recipe.get("ordered", "levels" in recipe))


def load(path: str | Path, classes: Mapping[str, Sequence[str]] | None = None, exclude: Sequence[str] = ()) -> Faces:
    """Data set in a prepared file.

    classes: maps each new class name to the stored class names that it joins. exclude: the kinds of images to leave out
    of training, see `excludable`; validation and test images always stay, so that results stay comparable.
    Raises ValueError if the file is missing or damaged, or lacks a class or kind that these two name.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: make it with python scripts/prepare.py (see --help), or set dataset.path=…"
        )
    try:
        with path.open("rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        class_names = tuple(arrays.pop("class_names").tolist())
        recipe = json.loads(arrays.pop("recipe").item())
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a prepared data set ({error}); make it again with: python scripts/prepare.py"
        ) from error
    if missing := {"images", "labels", "sources"} - arrays.keys():
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; make it again with: python scripts/prepare.py")
    if not isinstance(recipe, dict) or "name" not in recipe:
        raise ValueError(f"{path} has a recipe without a name; make it again with: python scripts/prepare.py")
    known = {f.name for f in fields(Faces)}
    faces = Faces(class_names=class_names, recipe=recipe, **{k: v for k, v in arrays.items() if k in known})
    faces = faces if classes is None else regroup(faces, classes)
    return without(faces, exclude) if exclude else faces


def without(faces: Faces, exclude: Sequence[str]) -> Faces:
    """Leave these kinds of images out of training, see `excludable`. The recipe then states how many were left out."""
    if unknown := [kind for kind in exclude if kind not in EXCLUDABLE]:
        raise ValueError(f"dataset.exclude: {', '.join(unknown)} is unknown; allowed: {', '.join(EXCLUDABLE)}")
    if faces.splits is None:
        raise ValueError(f"{faces.name} has no official split, so nothing can be left out: set dataset.exclude=[]")
    masks = excludable(faces)
    if unmarked := [kind for kind in exclude if kind not in masks]:
        raise ValueError(
            f"dataset.exclude: the file of {faces.name} is from an older version, which did not mark "
            f"{', '.join(unmarked)}; prepare it again: python scripts/prepare.py {faces.recipe.get('importer', '')} …"
        )
    drop = np.any([masks[kind] for kind in exclude], axis=0)
    counts = {kind: int(masks[kind].sum()) for kind in exclude}
    record = {"kinds": list(exclude), "images": int(drop.sum()), "of_each_kind": counts}
    return replace(faces.select(~drop), recipe=faces.recipe | {"excluded_from_training": record})


def excludable(faces: Faces) -> dict[str, np.ndarray]:
    """Masks (N,) of the training images of each kind in EXCLUDABLE; the data set must have an official split.

    "blank": a standard deviation below 1. "test_duplicates": pixel for pixel a validation or test image. "conflicts":
    identical pixels under more than one label. "near_duplicates" (those that are no test_duplicates) and
    "placeholders": see datasets/faults.py; each is absent if the file does not mark it.
    """
    train, pixels = faces.splits == "train", identical(faces.images)
    copies, near = np.isin(pixels, pixels[~train]), faces.near_duplicates
    masks = {
        "blank": blank(faces.images),
        "test_duplicates": copies,
        "conflicts": conflicting(pixels, faces.labels),
        "near_duplicates": None if near is None else near & ~copies,
        "placeholders": faces.placeholders,
    }
    return {kind: train & mask for kind, mask in masks.items() if mask is not None}


def blank(images: np.ndarray) -> np.ndarray:
    """Mask (N,) of the blank images: a standard deviation below 1 of 255."""
    pixels = images.reshape(len(images), -1)
    found = np.ptp(pixels, axis=1) < 2 * np.sqrt(pixels.shape[1])  # from there on, two pixels alone make it 1.4
    found[found] = pixels[found].std(axis=1, dtype=np.float32) < 1
    return found


def identical(images: np.ndarray) -> np.ndarray:
    """Number of each image's pixels (N,): equal for images that are equal pixel for pixel, counted from the first."""
    pixels = images.reshape(len(images), -1)
    some = [
        row.tobytes() for row in pixels[:, ::37]
    ]  # tells most images apart in a third of the time that a hash takes
    times, seen = Counter(some), dict[bytes, int]()
    keys = (key if times[key] == 1 else row.tobytes() for key, row in zip(some, pixels, strict=True))
    return np.array([seen.setdefault(key, len(seen)) for key in keys])


def conflicting(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mask (N,) of the images with identical pixels under more than one label."""
    num_labels = labels.max() + 1
    pairs = np.unique(pixels * num_labels + labels)  # one number per pair: unique rows take four times as long
    return np.bincount(pairs // num_labels)[pixels] > 1


def regroup(faces: Faces, classes: Mapping[str, Sequence[str]]) -> Faces:
    """Data set with joined classes, {"disengaged": ["1"], "engaged": ["2", "3"]}, without images of other classes."""
    named = [old for group in classes.values() for old in group]
    if unknown := [old for old in named if old not in faces.class_names]:
        raise ValueError(
            f"dataset.classes: {faces.name} has no class {', '.join(unknown)}; allowed: {', '.join(faces.class_names)}"
        )
    if len(set(named)) < len(named):
        raise ValueError(f"dataset.classes names a class of {faces.name} twice: {', '.join(named)}; name each once")
    new_of_old = np.full(len(faces.class_names), -1)
    for new, group in enumerate(classes.values()):
        new_of_old[[faces.class_names.index(old) for old in group]] = new
    labels, soft = new_of_old[faces.labels], faces.soft_labels
    if soft is not None:
        soft = np.stack([soft[:, new_of_old == new].sum(1) for new in range(len(classes))], axis=1)
        votes = soft.sum(1, keepdims=True)
        soft = np.where(votes > 0, soft / np.where(votes > 0, votes, 1), np.eye(len(classes), dtype=soft.dtype)[labels])
    keep = labels >= 0
    steps = np.diff(new_of_old[new_of_old >= 0])
    mixed = faces.ordered and (steps > 0).any() and (steps < 0).any()  # no longer levels in order
    per_image = {
        name: None if (array := getattr(faces, name)) is None else array[keep] for name in ("images", *PER_IMAGE)
    }
    return replace(
        faces,
        labels=labels[keep],
        class_names=tuple(classes),
        recipe=faces.recipe | {"ordered": False} if mixed else faces.recipe,
        soft_labels=None if soft is None else soft[keep],
        **per_image,
    )
