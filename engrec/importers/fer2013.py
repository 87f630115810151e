"""FER-2013: the challenge's CSV, plain or in an archive, or its images in train/CLASS and test/CLASS folders."""

import re
import warnings
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from engrec.importers import files

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CLASS_ALIASES = {name: name for name in CLASS_NAMES} | {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
USAGES = {"training": "train", "publictest": "val", "privatetest": "test"}
NUM_PIXELS = 48 * 48
OFFICIAL = {"train": 28709, "val": 3589, "test": 3589}


def read(source: Path) -> dict[str, Any]:
    """Arguments of `Faces` from fer2013.csv, from an archive or folder with it, or from one with the image folders.

    Training becomes train, PublicTest val, PrivateTest test. A CSV without a Usage column (train.csv of the later
    Kaggle page) has no official split. It is accepted only as the source itself, not inside an archive or folder.
    """
    table, images = None, []
    for name, file in files.open_files(source):
        if table is None and name.lower().endswith(".csv"):
            table = read_csv(file, source, name)
        elif table is None and files.is_image(name):
            label, split = _place(name, files.place(source, name))
            images.append((name, label, split, *files.read_image(file, source, name)))
    if table is None and not images:
        raise ValueError(
            f"{source.name} contains neither a CSV with the columns emotion, pixels, Usage nor images in "
            "train/CLASS and test/CLASS: give fer2013.csv, fer2013.tar.gz or the unpacked folder"
        )
    faces = table or _from_folders(sorted(images, key=lambda image: image[0]))
    files.check_no_empty_class(faces["labels"], CLASS_NAMES, source)
    resize = files.RESIZE if "formats" in faces else "none"
    recipe = files.recipe(source, "fer2013", resize=resize, notes=_notes(faces))
    return {"class_names": CLASS_NAMES, **faces, "recipe": recipe}


def read_csv(file: IO[bytes], source: Path, name: str) -> dict[str, Any] | None:
    """Images, labels, splits and sources in row order; None for a CSV in an archive that is not the challenge's.

    Raises ValueError with the line number as an editor shows it: the header is line 1.
    """
    lines = files.read_lines(file, source)
    columns = _columns(next(lines, b""), name, is_source=source.name == name)
    if columns is None:
        return None
    where = name if source.name == name else files.place(source, name)
    rows = [
        (number, *_row(line, columns, f"{where} line {number}")) for number, line in enumerate(lines, 2) if line.strip()
    ]
    if not rows:
        raise ValueError(f"{where} has a header but no rows: download it again")
    numbers, images, labels, splits = zip(*rows, strict=True)
    return {
        "images": np.stack(images).reshape(-1, 1, 48, 48),
        "labels": np.array(labels, np.int64),
        "splits": np.array(splits) if "usage" in columns else None,
        "sources": np.array([f"{PurePosixPath(name).name}:{number}" for number in numbers]),
    }


def _columns(header: bytes, name: str, is_source: bool) -> dict[str, int] | None:
    """Index of each column. Names may have spaces, quotes or a byte order mark, and any order."""
    names = [_clean(cell).lower() for cell in header.removeprefix(b"\xef\xbb\xbf").split(b",")]
    columns = {column: names.index(column) for column in ("emotion", "pixels", "usage") if column in names}
    needed = {"emotion", "pixels"} if is_source else {"emotion", "pixels", "usage"}
    if needed <= columns.keys():
        return columns
    if is_source:
        raise ValueError(
            f"{name} line 1 lacks the column {', '.join(sorted(needed - columns.keys()))}; found "
            f"{', '.join(ascii(n[:20])[1:-1] for n in names[:6])}: the header must name emotion, pixels and Usage"
        )
    return None


def _row(line: bytes, columns: dict[str, int], where: str) -> tuple[np.ndarray, int, str]:
    cells = line.split(b",")
    if len(cells) <= max(columns.values()):
        raise ValueError(f"{where} has only {len(cells)} columns: the file is truncated, download it again")
    emotion, usage = _clean(cells[columns["emotion"]]), _clean(cells[columns["usage"]]) if "usage" in columns else ""
    if emotion not in {"0", "1", "2", "3", "4", "5", "6"}:
        raise ValueError(f"{where} has emotion {emotion[:20]!r}, allowed: 0 to 6; correct or delete the row")
    if usage.lower() not in USAGES and "usage" in columns:
        raise ValueError(
            f"{where} has Usage {usage[:20]!r}, allowed: Training, PublicTest, PrivateTest; correct or delete the row"
        )
    return _pixels(cells[columns["pixels"]], where), int(emotion), USAGES.get(usage.lower(), "")


def _pixels(cell: bytes, where: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", DeprecationWarning
            )  # numpy before 2.4 only warns about text that is not a number
            pixels = np.fromstring(cell.strip(b' "\r\n\t'), dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        raise ValueError(
            f"{where} has pixels that are not whole numbers: correct or delete the row, or download the file again"
        ) from error
    if len(pixels) != NUM_PIXELS:
        raise ValueError(
            f"{where} has {len(pixels)} pixels, expected {NUM_PIXELS} (48 × 48): "
            "delete the row or download the file again"
        )
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"{where} has pixels from {pixels.min()} to {pixels.max()}, allowed: 0 to 255; correct or delete the row"
        )
    return pixels.astype(np.uint8)


def _place(name: str, where: str) -> tuple[int, str]:
    """Label from the class folder; split from the file name (PublicTest_1.jpg), otherwise from the folder above."""
    *_, split_folder, class_folder, file_name = ("", "", *PurePosixPath(name).parts)
    if class_folder.lower() not in CLASS_ALIASES:
        raise ValueError(
            f"{where} is not in a class folder: expected train/CLASS/… and test/CLASS/… with CLASS one of "
            f"{', '.join(CLASS_NAMES)}"
        )
    folder_split = files.SPLIT_ALIASES.get(split_folder.lower())
    usage = re.match("training|publictest|privatetest", file_name.lower())
    split = USAGES[usage.group()] if usage else folder_split
    if split is None or (folder_split is not None and (folder_split == "train") != (split == "train")):
        raise ValueError(
            f"{where}: folder and file name do not agree on a split: expected train/CLASS/Training_….jpg and "
            "test/CLASS/PublicTest_….jpg or PrivateTest_….jpg"
        )
    return CLASS_NAMES.index(CLASS_ALIASES[class_folder.lower()]), split


def _from_folders(images: list[tuple[str, int, str, np.ndarray, str]]) -> dict[str, Any]:
    names, labels, splits, pixels, formats = zip(*images, strict=True)
    return {
        "images": np.stack(pixels),
        "labels": np.array(labels, np.int64),
        "splits": np.array(splits),
        "sources": np.array(names),
        "formats": np.array(formats),
    }


def _notes(faces: dict[str, Any]) -> list[str]:
    """Notes on how this copy of the data set differs from the challenge's."""
    if faces["splits"] is None:
        return ["no column Usage, so no official split: use split=holdout"]
    found = {split: int((faces["splits"] == split).sum()) for split in OFFICIAL}
    if found == OFFICIAL:
        return []
    notes = [f"the challenge has 28709 / 3589 / 3589 images in train / val / test, this copy {found}"]
    if found["val"] == 0:
        notes.append("PublicTest and PrivateTest cannot be told apart here: all of it is test, and val is empty")
    return notes


def _clean(cell: bytes) -> str:
    return cell.strip(b" \"'\r\n\t").decode(errors="replace").strip()
