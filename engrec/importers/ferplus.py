"""FER+ (Barsoum et al., 2016, arXiv 1608.01041): ten annotators' votes for the rows of fer2013.csv."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from engrec.importers import fer2013, files

CLASS_NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*CLASS_NAMES, "unknown", "nf")
RULES = ("majority", "probability")


def read(source: Path, votes: Path, rule: str = "majority") -> dict[str, Any]:
    """The arguments of a data set from FER-2013's CSV (bare or packed) and fer2013new.csv, joined row by row.

    FER+'s own rules say which images stay. In both, a class with a single vote counts as noise and loses it, and an
    image without a name is out. "majority": one emotion of the eight has more than half of the votes. "probability":
    at most three emotions have more than half of the votes together, see `_probability`. The soft labels are the votes
    of the eight emotions ("probability": of those taken), normalised; the label is the largest of them.
    """
    if rule not in RULES:
        raise ValueError(f"FER+ has no rule {rule!r}: allowed are {', '.join(RULES)}")
    faces = fer2013.read(source)
    if "formats" in faces:
        raise ValueError(
            f"{source.name} holds image folders, and FER+ counts the rows of the CSV: "
            "give fer2013.csv or fer2013.tar.gz"
        )
    counts, named = _votes(votes, faces["splits"])
    counts = np.where(counts > 1, counts, 0)
    taken = _majority(counts) if rule == "majority" else np.stack([_probability(row) for row in counts])
    keep = named & (taken.sum(1) > 0)
    soft = taken[keep] / taken[keep].sum(1, keepdims=True)
    files.check_no_empty_class(soft.argmax(1), CLASS_NAMES, votes)
    return {
        "images": faces["images"][keep],
        "labels": soft.argmax(1).astype(np.int64),
        "class_names": CLASS_NAMES,
        "splits": faces["splits"][keep],
        "soft_labels": soft.astype(np.float32),
        "sources": faces["sources"][keep],
        "recipe": files.recipe(
            source, "ferplus", resize="none", rule=rule, votes=votes.name, votes_sha256=files.sha256(votes)
        ),
    }


def _majority(counts: np.ndarray) -> np.ndarray:
    """Votes (N, 10) to votes of the emotions (N, 8), all 0 where no emotion has more than half of all ten."""
    clear = (counts.max(1) * 2 > counts.sum(1)) & (counts.argmax(1) < len(CLASS_NAMES))
    return counts[:, : len(CLASS_NAMES)] * clear[:, None]


def _probability(counts: np.ndarray) -> np.ndarray:
    """Votes (10,) to those of the emotions taken (8,), all 0 where the image is out.

    Classes are taken from the most votes down, equal ones together, until they hold three quarters of the votes or are
    three. Unknown and not-a-face end it; on top they put the image out. So do more than three emotions, and half of the
    votes or fewer.
    """
    num = len(CLASS_NAMES)
    taken = np.zeros_like(counts[:num])
    for level in sorted(set(counts.tolist()) - {0}, reverse=True):
        if taken.sum() * 4 >= counts.sum() * 3 or np.count_nonzero(taken) >= 3:
            break
        taken[counts[:num] == level] = level
        if level in counts[num:]:
            break
    enough = taken.sum() * 2 > counts.sum() and np.count_nonzero(taken) <= 3
    return taken * enough


def _votes(path: Path, splits: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Votes (N, 10) in the order of COLUMNS and whether FER+ names the image (N,), held against FER-2013's splits."""
    if splits is None:
        raise ValueError("FER+ needs FER-2013 with its Usage column: give the challenge's fer2013.csv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path.name} is not a CSV text file ({files.one_line(error)}): give fer2013new.csv"
        ) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if missing := [column for column in ("usage", "image name", *COLUMNS) if column not in header]:
        raise ValueError(f"{path.name} line 1 lacks the column {', '.join(missing)}: give FER+'s fer2013new.csv")
    rows = [row for row in rows[1:] if row]
    if len(rows) != len(splits):
        raise ValueError(
            f"{path.name} has {len(rows)} rows and FER-2013 has {len(splits)}: "
            "both must be complete and in their first order"
        )
    order = [header.index(column) for column in COLUMNS]
    counts = np.zeros((len(rows), len(COLUMNS)), np.int64)
    for index, (row, split) in enumerate(zip(rows, splits, strict=True)):
        counts[index] = _row_votes(row, header, order, split, f"{path.name} line {index + 2}")
    return counts, np.array([bool(row[header.index("image name")].strip()) for row in rows])


def _row_votes(row: list[str], header: list[str], order: list[int], split: str, where: str) -> list[int]:
    if len(row) != len(header):
        raise ValueError(f"{where} has {len(row)} cells, expected {len(header)}: download the file again")
    usage = row[header.index("usage")].strip()
    if fer2013.USAGES.get(usage.lower()) != split:
        raise ValueError(
            f"{where} has Usage {usage!r}, but FER-2013's row is in {split}: the two files must be in the same order"
        )
    counts = [row[column].strip() for column in order]
    if not all(count.isdecimal() for count in counts):
        raise ValueError(f"{where} has votes that are no whole numbers: {', '.join(counts)}; download the file again")
    return [int(count) for count in counts]
