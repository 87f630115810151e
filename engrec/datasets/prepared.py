"""A data set as training reads it: arrays in memory, one .npz file on disk."""

import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from engrec.datasets import schema
from engrec.errors import CONF, expectation_line
from engrec.importers import files, npy
from engrec.machine.files import atomic_write

MOST_RATIO, MOST_UNPACKED = 100, 2**26  # unpacked bytes for each byte of the file; bytes that are always allowed
EXCLUDABLE = ("blank", "test_duplicates", "conflicts", "near_duplicates", "placeholders")


@dataclass(frozen=True, eq=False)
class Faces:
    """N labelled face images.

    images: uint8 (N, C, H, W); labels: int64 (N,), indices into class_names.
    subjects: str (N,), ids of the people; splits: str (N,) of "train", "val", "test", the official splits; soft_labels:
    float32 (N, num_classes), rows sum to 1; clips: str (N,), the videos that the images are frames of, of which each is
    one observation: it has one label, subject and split. Each of these four is None if the data has none.
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
    clips: np.ndarray | None = None
    formats: np.ndarray | None = None
    near_duplicates: np.ndarray | None = None
    placeholders: np.ndarray | None = None

    def __post_init__(self) -> None:
        schema.check_recipe(self.recipe, "the data set")
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(expectation_line(self.name, "class_names", self.class_names, "texts"))
        schema.check(self.arrays() | {"class_names": np.array(self.class_names, dtype=str)}, self.name)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name."""
        found = {name: getattr(self, name) for name in schema.ARRAYS if name not in ("class_names", "recipe")}
        return {name: array for name, array in found.items() if array is not None}

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        return self.recipe["name"]

    @property
    def ordered(self) -> bool:
        """Whether the classes are three or more levels in order."""
        return are_levels(self.class_names, self.recipe)

    @property
    def title(self) -> str:
        return " ".join(filter(None, (self.name, self.recipe.get("task"))))

    @property
    def file_name(self) -> str:
        """For files about the data set; it cannot lead out of a folder, see `schema.FILE_NAME`."""
        return self.title.replace(" ", "-")

    @property
    def is_synthetic(self) -> bool:
        return self.recipe.get("importer") == "synthetic"

    def select(self, index: np.ndarray) -> Self:
        """Images at `index` (integers or a mask), with their labels and all other arrays."""
        return replace(self, **{name: array[index] for name, array in self.arrays().items()})

    def save(self, path: str | Path) -> None:
        """Write one .npz, without pickled objects, complete or not at all."""
        names, recipe = np.array(self.class_names), np.array(json.dumps(self.recipe))
        with atomic_write(path, "wb") as file:
            np.savez(file, allow_pickle=False, class_names=names, recipe=recipe, **self.arrays())


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
    if not files.is_file(path):
        known = {option.stem for option in (CONF / "dataset").glob("*.yaml")}
        name = f" {path.stem} …" if path.stem in known else ""
        raise ValueError(
            f"{path} does not exist: make it with python scripts/prepare.py{name} (see --help), or set dataset.path=…"
        )
    try:
        faces = _read(path)
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into this machine's memory ({error})") from error
    except (ValueError, RecursionError, *files.DAMAGE, *files.UNSUPPORTED) as error:
        reason = files.one_line(error)
        raise ValueError(
            f"{path} is not a prepared data set ({reason}); make it again with: python scripts/prepare.py"
        ) from error
    faces = faces if classes is None else regroup(faces, classes)
    return without(faces, exclude) if exclude else faces


def _read(path: Path) -> Faces:
    """The data set in a prepared file. Members of other names are not read, so that later versions may add some."""
    with zipfile.ZipFile(path) as archive:
        every = [member for member in archive.infolist() if member.filename.removesuffix(".npy") in schema.ARRAYS]
        members = {member.filename.removesuffix(".npy"): member for member in every}
        if missing := [name for name in schema.REQUIRED if name not in members]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if len(members) < len(every):
            raise ValueError("it contains an array twice")
        unpacked, most = sum(member.file_size for member in every), MOST_RATIO * path.stat().st_size
        if unpacked > max(most, MOST_UNPACKED):
            raise ValueError(f"its arrays claim {unpacked:,} bytes, more than its size can stand for")
        arrays = {name: _array(archive, name, member) for name, member in members.items()}
    sizes = {"N": arrays["sources"].size, "K": arrays["class_names"].size}
    for name in ("class_names", "recipe"):
        schema.check_array(name, arrays[name], sizes, path.name)
    names, recipe = arrays.pop("class_names").tolist(), json.loads(arrays.pop("recipe").item())
    return Faces(class_names=tuple(names), recipe=recipe, **arrays)


def _array(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(member) as file:
            return npy.read(file, member.file_size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


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
    recipe = faces.recipe | {"ordered": False} if mixed else faces.recipe
    changed = faces.arrays() | {"labels": labels} | ({} if soft is None else {"soft_labels": soft})
    return replace(
        faces, class_names=tuple(classes), recipe=recipe, **{name: array[keep] for name, array in changed.items()}
    )
