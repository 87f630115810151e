"""Your own data: a CSV of path, label and optionally subject and split, or one folder of images for each class."""

import difflib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from engrec.importers import files, table
from engrec.machine.progress import progress_bar
from engrec.words import counted, printable

COLOURS = ("grey", "rgb")
TABLES = (".csv", ".tsv", ".xlsx")
NEEDED, OPTIONAL = ("path", "label"), ("subject", "split")  # columns


@dataclass(frozen=True)
class Row:
    """Row of one image. path: below the root; where: its place in the source, for messages."""

    where: str
    path: str
    label: str
    subject: str | None
    split: str | None


@dataclass(frozen=True)
class Options:
    """What the user says of own data.

    classes: class names in order (of two, F1 is that of the second); default: sorted.
    subject_regex: its one group matches the subject in each path, as "(s\\d+)_" in "engaged/s12_0001.png".
    root: folder that a CSV's paths start from and must not leave; default: the CSV's own folder.
    ordered: whether the classes are levels, in the order of `classes`.
    """

    name: str
    classes: Sequence[str] | None = None
    subject_regex: str | None = None
    size: int = 48
    colour: str = "grey"
    root: Path | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 1024 or self.colour not in COLOURS:
            found = f"{self.size} and {self.colour!r}"
            raise ValueError(f"size must be 1 to 1024 and colour one of {', '.join(COLOURS)}; found {found}")
        if self.ordered and self.classes is None:
            raise ValueError(
                "--ordered needs the levels in their order: set --classes, such as --classes low,middle,high"
            )

    def recipe(self, source: Path, importer: str, **more: Any) -> dict[str, Any]:
        levels = {"ordered": True} if self.ordered else {}
        return files.recipe(source, importer, self.name, self.size, self.colour, resize=files.RESIZE, **more, **levels)


def read(source: Path, options: Options) -> dict[str, Any]:
    """Arguments of `Faces` from a CSV file, or from class folders in a folder, .zip or .tar.*."""
    size, colour, root = options.size, options.colour, options.root
    if source.suffix.lower() in TABLES:
        rows = from_csv(source, root or source.parent)
        images, notes = _decoded(rows, root or source.parent, size, colour), unused(source)
    elif root is not None:
        raise ValueError(f"--root is for the paths of a CSV, and {source.name} is not one: remove --root")
    else:
        rows, images, notes = _from_folders(source, size, colour)
    rows, class_names = checked(rows, source, options)
    pixels, formats = zip(*images, strict=True)  # a CSV's images are decoded last, after all other checks
    optional = {"subjects": [row.subject for row in rows], "splits": [row.split for row in rows]}
    return {
        "images": np.stack(pixels),
        "labels": np.array([class_names.index(row.label) for row in rows], np.int64),
        "class_names": class_names,
        "sources": np.array([row.path for row in rows]),
        "formats": np.array(formats),
        "recipe": options.recipe(source, "manifest", notes=notes),
        **{key: np.array(values) for key, values in optional.items() if None not in values},
    }


def checked(rows: list[Row], source: Path, options: Options) -> tuple[list[Row], tuple[str, ...]]:
    """Rows with their subjects, and the class names. Raises ValueError for what does not fit together."""
    if options.subject_regex is not None:
        rows = _with_subjects(rows, subject_pattern(options.subject_regex))
    _check_splits(rows)
    _check_spelling([row for row in rows if row.subject], "subject", lambda row: row.subject)
    if options.classes is None:
        _check_spelling(rows, "label", lambda row: row.label)
    return rows, _class_names(rows, source, options.classes)


def unused(source: Path) -> list[str]:
    """A note about columns of a CSV that are not read, if there are any."""
    others = [printable(name) for name in table.columns(source) if name not in (*NEEDED, *OPTIONAL)]
    return [f"columns that are not used: {', '.join(others)}"] if others else []


def from_csv(source: Path, root: Path) -> list[Row]:
    """Rows of a CSV, each with a file below `root` that no other row has."""
    rows = [_row(*found) for found in table.read(source, NEEDED, OPTIONAL)]
    seen: dict[str, Row] = {}
    for row in rows:
        path = root / row.path
        if not files.inside(path, root):
            raise ValueError(
                f"{row.where}: {row.path} leads out of the folder {root}: "
                "move the images into it, or set --root to their folder"
            )
        if not files.is_file(path):
            raise ValueError(f"{row.where}: {row.path} is not in {root}: correct the path, or set --root to its folder")
        if (first := seen.setdefault(os.path.realpath(path), row)) is not row:
            raise ValueError(f"{row.where}: {row.path} is in {first.where} already: delete one of the two rows")
    if not rows:
        raise ValueError(f"{source.name} has a header but no rows: add one row per image")
    return rows


def _decoded(rows: list[Row], root: Path, size: int, colour: str) -> Iterator[tuple[np.ndarray, str]]:
    for row in progress_bar(rows, "reading", "images"):
        with (root / row.path).open("rb") as file:
            yield files.decode(files.read(file, root, row.path), f"{row.where}: {row.path}", size, colour)


def _row(where: str, values: dict[str, str]) -> Row:
    if empty := [column for column, value in values.items() if not value]:
        needed = set(NEEDED) & set(empty)
        raise ValueError(f"{where} has no {', '.join(empty)}: fill it in{'' if needed else ', or delete the column'}")
    if odd := [column for column, value in values.items() if not value.isprintable()]:
        raise ValueError(f"{where} has a line break or control character in {', '.join(odd)}: remove it")
    split = values.get("split")
    if split is not None and split.lower() not in files.SPLIT_ALIASES:
        raise ValueError(f"{where} has split {split!r}, allowed: train, val, test")
    split = None if split is None else files.SPLIT_ALIASES[split.lower()]
    return Row(where, values["path"].replace("\\", "/"), values["label"], values.get("subject"), split)


def _from_folders(source: Path, size: int, colour: str) -> tuple[list[Row], list[tuple[np.ndarray, str]], list[str]]:
    """Rows and images sorted by path, so that a folder and its archive give the same data set, and notes."""
    found, others, lead = {}, [], {}
    for name, file in files.open_files(source):
        if not files.is_image(name):
            others.append(name)
            continue
        row = placed(name, files.place(source, name), lead)
        found[name] = row, files.read_image(file, source, name, size, colour)
    if not found:
        raise ValueError(f"{source.name} contains no images: expected CLASS/image.png, one folder per class")
    rows, images = (list(column) for column in zip(*(found[name] for name in sorted(found)), strict=True))
    if source.is_dir():
        check_no_empty_folder(source, rows)
    return (
        rows,
        images,
        [f"files that are not images, left out: {len(others)}, such as {others[0]}"] if others else [],
    )


def placed(name: str, where: str, lead: dict[tuple[str, ...], str]) -> Row:
    """Label and split from the folders of one image. lead: the folders above these, which all images must share."""
    *above, label = PurePosixPath(name).parts[:-1] or ("",)
    split = files.SPLIT_ALIASES.get(above[-1].lower()) if above else None
    lead.setdefault(tuple(above if split is None else above[:-1]), where)
    if not label or len(lead) > 1:
        raise ValueError(
            f"{where} is not in a class folder, or not as deep as {next(iter(lead.values()))}: "
            "expected CLASS/image.png, or train/CLASS/image.png with val and test next to it"
        )
    return Row(where, name, label, None, split)


def check_no_empty_folder(source: Path, rows: list[Row]) -> None:
    """Raise ValueError for an empty class folder; it must be looked up on disk, as no image belongs to it."""
    classes = {source / PurePosixPath(row.path).parent for row in rows}
    filled = classes | {source / above for row in rows for above in PurePosixPath(row.path).parents}
    for folder in sorted(child for parent in filled - classes for child in parent.iterdir() if child.is_dir()):
        if folder not in filled and not folder.name.startswith("."):
            name = files.place(source, folder.relative_to(source).as_posix())
            raise ValueError(f"{name} contains no image, so its class is empty: add images or remove the folder")


def subject_pattern(subject_regex: str) -> re.Pattern[str]:
    """--subject-regex, whose one group is the subject. Raises ValueError for any other pattern."""
    try:
        pattern = re.compile(subject_regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"--subject-regex {subject_regex!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise ValueError(
            f"--subject-regex {subject_regex!r} has {counted(pattern.groups, 'group')}, expected 1: put only the "
            "subject "
            r"in parentheses, as in '(s\d+)_'"
        )
    return pattern


def _with_subjects(rows: list[Row], pattern: re.Pattern[str]) -> list[Row]:
    if given := [row for row in rows if row.subject is not None]:
        raise ValueError(f"{given[0].where} has a subject already: remove --subject-regex or the column subject")
    matches = [pattern.search(row.path) for row in rows]
    if without := [row for row, match in zip(rows, matches, strict=True) if match is None or not match[1]]:
        raise ValueError(
            f"{without[0].where}: --subject-regex '{pattern.pattern}' finds no subject in {len(without):,} of "
            f"{len(rows):,} images, such as {without[0].path!r}; "
            r"for example '(s\d+)_' finds s12 in engaged/s12_0001.png"
        )
    return [replace(row, subject=match[1]) for row, match in zip(rows, matches, strict=True) if match is not None]


def _check_splits(rows: list[Row]) -> None:
    with_split = [row.split is not None for row in rows]
    if any(with_split) and not all(with_split):
        raise ValueError(
            f"{rows[with_split.index(False)].where} has no split, but others have one: give one to all or to none"
        )
    first: dict[str, Row] = {}
    for row in rows:
        if row.subject is None or row.split is None:
            return
        other = first.setdefault(row.subject, row)
        if other.split != row.split:
            raise ValueError(
                f"{row.where} puts subject {row.subject} in {row.split}, but {other.where} in {other.split}: "
                "keep each subject in one split, or remove the splits and use split=kfold"
            )


def _check_spelling(rows: list[Row], column: str, value: Callable[[Row], str | None]) -> None:
    """Raise ValueError for values that differ only in upper and lower case, or in how an accent is encoded."""
    first: dict[str, Row] = {}
    for row in rows:
        text = value(row) or ""
        other = first.setdefault(unicodedata.normalize("NFC", text).casefold(), row)
        if value(other) != text:
            raise ValueError(
                f"{row.where} has {column} {text!r}, but {other.where} has {value(other)!r}: write it in one way"
            )


def _check_lookalikes(rows: list[Row]) -> None:
    """Raise ValueError for a rare class whose name is nearly that of a frequent one: most likely a typing error."""
    counts = Counter(row.label for row in rows)
    frequent_ones = [label for label, count in counts.items() if count >= 10]
    for rare, frequent in itertools.product(counts, frequent_ones):
        alike = rare != frequent and difflib.SequenceMatcher(None, rare.lower(), frequent.lower()).ratio() > 0.8
        if alike and 10 * counts[rare] <= counts[frequent]:
            row = next(row for row in rows if row.label == rare)
            raise ValueError(
                f"{row.where} has label {rare!r}, found in {counted(counts[rare], 'image')}: did you mean "
                f"{frequent!r}? If not, name all classes: --classes {','.join(sorted(counts))}"
            )


def _class_names(rows: list[Row], source: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    found = sorted({row.label for row in rows})
    if classes is not None:
        unknown = next((row for row in rows if row.label not in classes), None)
        if unknown is not None:
            raise ValueError(f"{unknown.where} has label {unknown.label!r}, allowed by --classes: {', '.join(classes)}")
        if len(set(classes)) < len(classes) or "" in classes:
            raise ValueError(f"--classes {','.join(classes)} has an empty or repeated name: name each class once")
        if absent := [label for label in classes if label not in found]:
            raise ValueError(f"{source.name} has no image of class {', '.join(absent)}: remove it from --classes")
    else:
        _check_lookalikes(rows)
    if len(classes or found) < 2:
        raise ValueError(f"{source.name} has only one class, {found[0]!r}: a classifier needs two or more")
    return tuple(classes or found)
