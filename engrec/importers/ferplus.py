"""FER+ (Barsoum et al., 2016, arXiv 1608.01041): ten annotators' votes for the rows of fer2013.csv."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from engrec.importers import fer2013, files, table
from engrec.words import counted

CLASS_NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*CLASS_NAMES, "unknown", "nf")
NUM_ANNOTATORS = 10
RULES = ("majority", "probability")
AS_FERPLUS = np.array([4, 5, 6, 1, 3, 2, 0])  # FER-2013's labels as classes of FER+


def read(source: Path, votes: Path, rule: str = "majority") -> dict[str, Any]:
    """Arguments of `Faces` from FER-2013's CSV (plain or in an archive) and fer2013new.csv.

    Rows of the two files are joined in order, or by FER+'s image names if a copy of FER-2013 was numbered by them (see
    `_join`).

    rule: which of FER+'s two rules selects the images. "majority": one of the eight emotions has more than half of the
    votes. "probability": at most three emotions together have more than half of the votes, see `_probability`. Under
    both, a single vote for a class is noise and does not count, and images without a name are left out. The soft labels
    are the normalised votes of the eight emotions ("probability": of the selected ones); the label is the largest.
    """
    if rule not in RULES:
        raise ValueError(f"FER+ has no rule {rule!r}; allowed: {', '.join(RULES)}")
    faces = fer2013.read(source)
    if "formats" in faces:
        raise ValueError(
            f"{source.name} contains image folders, but FER+ refers to the rows of the CSV: "
            "give fer2013.csv or fer2013.tar.gz"
        )
    if "splits" not in faces or faces["splits"] is None:
        raise ValueError("FER+ needs FER-2013 with its column Usage: give the challenge's fer2013.csv")
    counts, names, usages = _votes(votes, len(faces["labels"]))
    rows, note = _join(faces, counts, names, usages, votes)
    counts = np.where(counts > 1, counts, 0)
    taken = _majority(counts) if rule == "majority" else np.stack([_probability(row) for row in counts])
    keep = (names != "") & (rows >= 0) & (taken.sum(1) > 0)
    rows = rows[keep]
    soft = taken[keep] / taken[keep].sum(1, keepdims=True)
    files.check_no_empty_class(soft.argmax(1), CLASS_NAMES, votes)
    return {
        "images": faces["images"][rows],
        "labels": soft.argmax(1).astype(np.int64),
        "class_names": CLASS_NAMES,
        "splits": faces["splits"][rows],
        "soft_labels": soft.astype(np.float32),
        "sources": faces["sources"][rows],
        "recipe": files.recipe(
            source, "ferplus", resize="none", rule=rule, votes=votes.name, votes_sha256=files.sha256(votes), notes=note
        ),
    }


def _majority(counts: np.ndarray) -> np.ndarray:
    """Votes of the emotions (N, 8) from all votes (N, 10); all 0 where no emotion has more than half of the votes."""
    clear = (counts.max(1) * 2 > counts.sum(1)) & (counts.argmax(1) < len(CLASS_NAMES))
    return counts[:, : len(CLASS_NAMES)] * clear[:, None]


def _probability(counts: np.ndarray) -> np.ndarray:
    """Votes of the selected emotions (8,) from all votes (10,); all 0 if the image is left out.

    Classes are selected from the most votes down, equal ones together, until they are three or have three quarters of
    the votes. Selection stops at "unknown" or "not a face". The image is left out if one of these two has the most
    votes, if more than three emotions are selected, or if the selected ones have half of the votes or fewer.
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


def _join(
    faces: dict[str, Any], counts: np.ndarray, names: np.ndarray, usages: np.ndarray, votes: Path
) -> tuple[np.ndarray, list[str]]:
    """Row of FER-2013 for each row of votes (N,), -1 for none, and notes for the user.

    The published files are in the same order. In copies of FER-2013 made from FER+'s images, the number in an image's
    name is its row instead. The labels decide between the two: the right join agrees with FER-2013's label in about
    70 % of the clear cases, a wrong one in less than 20 %. Below half, nothing is joined.
    """
    splits = np.array([fer2013.USAGES[usage.lower()] for usage in usages])
    in_order = np.arange(len(counts))
    if _agreement(faces["labels"], counts, in_order) >= 0.5:
        if len(wrong := np.flatnonzero(splits != faces["splits"])):
            raise ValueError(
                f"{votes.name} line {wrong[0] + 2} has Usage {str(usages[wrong[0]])!r}, but FER-2013's row is in "
                f"{faces['splits'][wrong[0]]}: the two files must be in the same order"
            )
        return in_order, []
    numbers = np.array([_number(name) for name in names])
    times = Counter(numbers.tolist())
    # With two rows of votes for one name, either may be right.
    once = np.array([times[number] == 1 for number in numbers.tolist()])
    by_name = np.where(once & (numbers < len(counts)), numbers, -1)
    by_name = np.where((by_name >= 0) & (faces["splits"][by_name] == splits), by_name, -1)
    if (agreement := _agreement(faces["labels"], counts, by_name)) < 0.5:
        raise ValueError(
            f"{votes.name} agrees with FER-2013's labels in {agreement:.0%} of the clear cases: "
            "the rows of the two files do not belong to the same faces; download both again"
        )
    lost = int(((by_name < 0) & (names != "")).sum())
    return by_name, [
        f"joined by image name, because the rows are in another order; left out "
        f"{counted(lost, 'image')} of unclear name or Usage"
    ]


def _number(name: str) -> int:
    """The number in an image's name, such as 12 in fer0000012.png; -1 without one, or with one that no row has."""
    digits = "".join(re.findall("[0-9]", name)).lstrip("0")
    return int(digits or (0 if "0" in name else -1)) if len(digits) < 10 else -1


def _agreement(labels: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> float:
    """Share of the clear cases (most votes for one emotion) that have FER-2013's label; 1 if they are too few."""
    clear = (rows >= 0) & (counts.max(1) * 2 > counts.sum(1)) & (counts.argmax(1) < len(CLASS_NAMES) - 1)
    if clear.sum() < 100:
        return 1.0
    return float((AS_FERPLUS[labels[rows[clear]]] == counts[clear].argmax(1)).mean())


def _votes(path: Path, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes (N, 10) in the order of COLUMNS, image names (N,), empty where missing, and Usage (N,)."""
    rows = [_row(*found) for found in table.read(path, ("usage", "image name", *map(str.lower, COLUMNS)))]
    if len(rows) != num_rows:
        raise ValueError(
            f"{path.name} has {counted(len(rows), 'row')} and FER-2013 has {num_rows}: "
            "both must be complete and in their original order"
        )
    counts, names, usages = zip(*rows, strict=True)
    return np.array(counts), np.array(names), np.array(usages)


def _row(where: str, cells: dict[str, str]) -> tuple[list[int], str, str]:
    usage, name, *counts = cells.values()
    if usage.lower() not in fer2013.USAGES:
        raise ValueError(f"{where} has Usage {usage[:20]!r}, allowed: Training, PublicTest, PrivateTest")
    if not all(re.fullmatch("[0-9]{1,2}", count) for count in counts):
        found = ", ".join(ascii(count[:20])[1:-1] for count in counts)
        raise ValueError(f"{where} has votes that are not whole numbers: {found}; download the file again")
    votes = [int(count) for count in counts]
    if not 1 <= sum(votes) <= NUM_ANNOTATORS:
        raise ValueError(
            f"{where} has {sum(votes)} votes, allowed: 1 to {NUM_ANNOTATORS}, one of each annotator; "
            "download the file again"
        )
    return votes, name, usage
