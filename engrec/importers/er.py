"""Engagement recognition in the format of the paper's code: X_train.npy, Y_train.npy and the same for val and test."""

from pathlib import Path
from typing import Any

import numpy as np

from engrec.importers import files, npy

CLASS_NAMES = ("disengaged", "engaged")
FILE_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
NORM = 100.0


def read(source: Path) -> dict[str, Any]:
    """Arguments of `Faces` from a folder with one to three splits; label 1 is engaged.

    Images are uint8 (N, 48, 48), or float with mean 0 and L2 norm 100 each, converted back to grey levels (`_to_grey`).
    The shapes (N, 48, 48, 1) and (N, 2304) are accepted too.
    """
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder: give the folder with X_train.npy and Y_train.npy")
    found = {
        split: stem for split, stems in FILE_NAMES.items() for stem in stems if (source / f"X_{stem}.npy").exists()
    }
    if not found:
        raise ValueError(
            f"{source} contains none of X_train.npy, X_val.npy, X_test.npy: give the folder that contains them"
        )
    images = {split: _images(source / f"X_{stem}.npy") for split, stem in found.items()}
    labels = {split: _labels(source / f"Y_{stem}.npy", len(images[split])) for split, stem in found.items()}
    all_labels = np.concatenate(list(labels.values()))
    files.check_no_empty_class(all_labels, CLASS_NAMES, source)
    return {
        "images": np.concatenate(list(images.values()))[:, None],
        "labels": all_labels,
        "class_names": CLASS_NAMES,
        "splits": np.concatenate([np.full(len(array), split) for split, array in images.items()]),
        "sources": np.array([f"X_{found[s]}.npy:{row}" for s, array in images.items() for row in range(len(array))]),
        "recipe": files.recipe(source, "er", resize="none", grey="levels of the arrays; a lost mean becomes 128"),
    }


def _array(path: Path) -> np.ndarray:
    if not path.exists():
        raise ValueError(f"{path.name} is not in {path.parent}: each split needs images X_… and labels Y_…")
    try:
        with path.open("rb") as file:
            array = npy.read(file, path.stat().st_size)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path.name} cannot be read ({files.one_line(error)}): save a plain array with np.save, or copy it again"
        ) from error
    if array.dtype.kind not in "buif" or array.size == 0 or array.ndim == 0:
        raise ValueError(f"{path.name} contains no array of numbers: save one with np.save")
    return array


def _images(path: Path) -> np.ndarray:
    """Images uint8 (N, 48, 48)."""
    array = _array(path)
    if array.shape[1:] not in ((48, 48), (48, 48, 1), (2304,)):
        raise ValueError(f"{path.name} has shape {array.shape}, expected (N, 48, 48)")
    array = array.reshape(-1, 48, 48)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ValueError(
            f"{path.name} contains {array.dtype}, expected uint8, or float with mean 0 and norm 100 per image"
        )
    return np.stack([_to_grey(image, f"{path.name} image {index}") for index, image in enumerate(array)])


def _labels(path: Path, num_images: int) -> np.ndarray:
    labels = _array(path)
    if labels.shape != (num_images,):
        raise ValueError(f"{path.name} has shape {labels.shape}, expected ({num_images},): a 0 or 1 for each image")
    wrong = ~np.isin(labels, (0, 1))  # NaN is wrong too
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path.name} row {row} is {labels[row]}: labels must be 1 (engaged) or 0 (disengaged)")
    return labels.astype(np.int64)


def _to_grey(image: np.ndarray, where: str) -> np.ndarray:
    """Grey levels uint8 of an image that was standardised to mean 0 and norm 100.

    The values of such an image are multiples of one step. If the step is found, the levels are restored exactly, except
    that their mean is lost and becomes 128. If not, the range is stretched to 0…255 and rounded. Standardising the
    result gives the input again, up to float rounding or half a grey level.
    """
    values = image.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{where} has NaN or infinite values: remove it")
    values = values.clip(-1e6, 1e6)  # of anything larger, which is refused as well, the square may be infinite
    norm = np.linalg.norm(values)
    if abs(values.mean()) > 1e-3 or not (norm == 0 or abs(norm - NORM) < 1e-2):
        raise ValueError(
            f"{where} has mean {values.mean():.3g} and norm {norm:.4g}, expected uint8, "
            "or float with mean 0 and norm 100 per image"
        )
    if norm == 0:
        return np.full(image.shape, 128, np.uint8)
    values -= values.min()
    span = _span(values, tolerance=1e-9 if image.dtype.itemsize >= 8 else 1e-6)
    levels = np.rint(values * ((span or 255) / values.max()))
    offset = np.clip(np.rint(128 - levels.mean()), 0, 255 - levels.max()) if span else 0
    return (levels + offset).astype(np.uint8)


def _span(values: np.ndarray, tolerance: float) -> int | None:
    """Smallest number of equal steps, at most 255, from 0 to the largest value, such that every value is on a step."""
    unit = np.unique(values) / values.max()
    for span in range(max(len(unit) - 1, 1), 256):
        if np.abs(unit * span - np.rint(unit * span)).max() <= tolerance * span:
            return span
    return None
