"""What a prepared data set contains: the type, shape and values of each array, and the keys of its recipe."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engrec.errors import expectation_line
from engrec.faces.crop import crop_of

SPLITS = ("train", "val", "test")
MOST_LETTERS, MOST_CLASSES = 4096, 1000  # in a text; in a data set
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
FILE_NAME_RULE = "1 to 100 letters, digits, _, - and ., no . first"
SUM_TOLERANCE = 1e-3  # of soft labels, which are float32


@dataclass(frozen=True)
class Array:
    """dtype: its name in NumPy, "str" for text of any length. axes: N images, C channels, H rows, W columns, K classes.
    fits: tells for each text of the array whether it is allowed; rule: the same in words."""

    dtype: str
    axes: str
    fits: Callable[[str], bool] = bool
    rule: str = ""


def is_text(text: str) -> bool:
    """Whether UTF-8 can represent it, and it has a sensible length."""
    return len(text) <= MOST_LETTERS and (text.isprintable() or not re.search("[\ud800-\udfff]", text))


def is_name(text: str) -> bool:
    """Whether it is a name as people read it, so that no two names that look the same differ by a space."""
    return 0 < len(text) <= 100 and text.isprintable() and text == text.strip()


TEXT = (is_text, f"texts of at most {MOST_LETTERS} letters")
NAME = (is_name, "names of 1 to 100 printable letters, no space first or last")
ARRAYS = {
    "images": Array("uint8", "NCHW"),
    "labels": Array("int64", "N"),
    "class_names": Array("str", "K", *NAME),
    "sources": Array("str", "N", *TEXT),
    "recipe": Array("str", "", bool, "JSON"),
    "subjects": Array("str", "N", *NAME),
    "splits": Array("str", "N", lambda text: text in SPLITS, f"one of {', '.join(SPLITS)}"),
    "clips": Array("str", "N", lambda text: text != "" and is_text(text), TEXT[1] + ", none empty"),
    "soft_labels": Array("float32", "NK"),
    "formats": Array("str", "N", *TEXT),
    "near_duplicates": Array("bool", "N"),
    "placeholders": Array("bool", "N"),
}
REQUIRED = ("images", "labels", "class_names", "sources", "recipe")


def is_file_name(value: Any) -> bool:
    return isinstance(value, str) and FILE_NAME.fullmatch(value) is not None


def _is_notes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(note, str) and is_text(note) for note in value)


def _is_exclusion(value: Any) -> bool:
    counts = value.get("of_each_kind") if isinstance(value, dict) else None
    return isinstance(counts, dict) and all(type(count) is int for count in (value.get("images"), *counts.values()))


def _is_distillation(value: Any) -> bool:
    numbers = [value.get("share"), value.get("temperature")] if isinstance(value, dict) else [None]
    return all(type(number) in (int, float) for number in numbers) and isinstance(value.get("runs"), list)


def _is_crop(value: Any) -> bool:
    try:
        crop_of(value, None)
    except ValueError:
        return False
    return True


# The keys that are read again. A recipe may have any others.
RECIPE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (is_file_name, FILE_NAME_RULE),
    "importer": (is_file_name, FILE_NAME_RULE),
    "task": (is_file_name, FILE_NAME_RULE),
    "notes": (_is_notes, "a list of texts"),
    "crop": (_is_crop, "a text, or the recipe of scripts/prepare.py faces"),
    "ordered": (lambda value: isinstance(value, bool), "true or false"),
    "excluded_from_training": (_is_exclusion, "the numbers of images that dataset.exclude left out"),
    "distillation": (_is_distillation, "the runs, share and temperature of distill=teachers"),
}


def check_recipe(recipe: Any, where: str) -> None:
    """Raise ValueError for a recipe that is not a mapping of JSON values, or whose values the rest cannot use."""
    if not isinstance(recipe, dict) or "name" not in recipe:
        raise ValueError(expectation_line(where, "recipe", recipe, 'a mapping with the key "name"'))
    for key, (fits, rule) in RECIPE.items():
        if key in recipe and not fits(recipe[key]):
            raise ValueError(expectation_line(where, f"recipe.{key}", recipe[key], rule))
    try:
        json.dumps(recipe, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"what JSON can store ({error})"
        raise ValueError(expectation_line(where, "recipe", recipe, problem)) from error


def check(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raise ValueError for arrays, named as in ARRAYS, that do not fit the schema or each other."""
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
        found = f"{images.dtype} {images.shape}"
        raise ValueError(expectation_line(where, "images", found, "uint8 (N, C, H, W), C = 1 or 3, no side 0"))
    sizes = {"N": len(images), "K": arrays["class_names"].size}
    for name, array in arrays.items():
        if name != "images":
            check_array(name, array, sizes, where)
    _check_classes(arrays["labels"], arrays["class_names"].tolist(), where)
    if "clips" in arrays:
        _check_clips(arrays, where)
    if "soft_labels" in arrays:
        _check_soft_labels(arrays["soft_labels"], where)


def check_array(name: str, array: np.ndarray, sizes: Mapping[str, int], where: str) -> None:
    """Raise ValueError for an array of another type or shape, or with a text that is not allowed."""
    form = ARRAYS[name]
    shape = tuple(sizes[axis] for axis in form.axes)
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    if dtype != form.dtype or array.shape != shape:
        found, expected = f"{dtype} {array.shape}", f"{form.dtype} {shape}, for {sizes['N']} images"
        raise ValueError(expectation_line(where, name, found, expected))
    if form.dtype != "str":
        return
    if np.ascontiguousarray(array.reshape(-1)).view(np.uint32).max(initial=0) > sys.maxunicode:
        raise ValueError(expectation_line(where, name, "numbers that are no letters", form.rule))
    wrong = next((text for text in dict.fromkeys(array.reshape(-1).tolist()) if not form.fits(text)), None)
    if wrong is not None:
        raise ValueError(expectation_line(where, name, wrong, form.rule))


def _check_classes(labels: np.ndarray, names: list[str], where: str) -> None:
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(expectation_line(where, "class_names", f"{len(names)} names", f"1 to {MOST_CLASSES} names"))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(expectation_line(where, "class_names", f"{twice!r} twice", "different names"))
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= len(names):
        wrong, expected = least if least < 0 else most, f"from 0 to {len(names) - 1}, for {len(names)} class names"
        raise ValueError(expectation_line(where, "labels", wrong, expected))
    counts = np.bincount(labels, minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if count == 0]:
        raise ValueError(f"{where}: no image of class {', '.join(empty)}")


def _check_clips(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """A clip is one observation: of one class, of one person, in one split."""
    names, first, clip = np.unique(arrays["clips"], return_index=True, return_inverse=True)
    for name in ("labels", "subjects", "splits"):
        if name in arrays and (differ := arrays[name] != arrays[name][first][clip]).any():
            found = names[clip[differ.argmax()]]
            raise ValueError(expectation_line(where, name, f"several in the clip {found}", "one for each clip"))


def _check_soft_labels(soft: np.ndarray, where: str) -> None:
    wrong = ~((soft >= 0).all(1) & (np.abs(soft.sum(1, dtype=np.float64) - 1) <= SUM_TOLERANCE))  # NaN is wrong too
    if wrong.any():
        row = int(wrong.argmax())
        found = f"{soft[row].tolist()}, of sum {soft[row].sum(dtype=np.float64):.6g}, for image {row}"
        raise ValueError(expectation_line(where, "soft_labels", found, "from 0 up, with the sum 1 for each image"))
