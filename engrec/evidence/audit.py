"""The audit of a data set: duplicates, near duplicates, conflicting labels, blank images, balance, file formats."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from engrec.datasets.faults import NEAR, low_contrast, near_pairs, placeholders, to_grey
from engrec.datasets.prepared import Faces, blank, excludable, identical
from engrec.datasets.schema import SPLITS
from engrec.evidence.out_of_fold import OutOfFold
from engrec.evidence.suspicious import Suspicious, suspicious

MOST_PAIRS = 5_000_000
RARE = 0.01  # share of images: rarer sizes are counted together
FLIPS = 5000  # random signs of people
TELLING, SIGNIFICANT = 0.1, 0.05  # Cramér's V from which, and p below which, a format is reported to predict the label
UNEVEN = 3  # ratio of the largest class to the smallest, from which classes are reported as imbalanced
MANY_PEOPLE = 60  # more people than this are summarised, not listed


@dataclass(frozen=True, eq=False)
class Duplicates:
    """G groups of identical images, or G pairs of near duplicates; M images in all.

    images, group: int (M,), image numbers and their group numbers, ascending; score: float (G,), correlations.
    conflicts, across_splits, across_subjects: masks (G,), groups whose labels, splits or subjects differ; None if the
    data has no splits or subjects. joined: number of groups that are in both splits of each pair of splits.
    """

    images: np.ndarray
    group: np.ndarray
    score: np.ndarray
    conflicts: np.ndarray
    across_splits: np.ndarray | None
    across_subjects: np.ndarray | None
    joined: dict[tuple[str, str], int]

    def __len__(self) -> int:
        return len(self.score)

    def members(self, number: int) -> np.ndarray:
        return self.images[slice(*np.searchsorted(self.group, [number, number + 1]))]

    @property
    def crossing(self) -> np.ndarray:
        """Mask (G,) of the groups with several splits or subjects."""
        masks = [mask for mask in (self.across_splits, self.across_subjects) if mask is not None]
        return np.any(masks, axis=0) if masks else np.zeros(len(self), dtype=bool)

    def linked(self) -> np.ndarray:
        """Numbers (M,) from 0, equal for members of groups that have an image in common."""
        names, place = np.unique(self.images, return_inverse=True)
        links = coo_array(
            (np.ones(len(place)), (place, place[np.searchsorted(self.group, self.group)])), (len(names),) * 2
        )
        return connected_components(links, directed=False)[1][place]


@dataclass(frozen=True, eq=False)
class Confound:
    """Association of a property of the files with the labels: counts (values, classes), Cramér's V and the p-value of
    chi-square, over people where they are known; both are NaN if there is only one value."""

    of: str
    values: tuple[str, ...]
    counts: np.ndarray
    cramers_v: float
    p: float

    @property
    def is_telling(self) -> bool:
        """Whether it is a finding: large, and more than chance. With few images, chance alone makes a large V."""
        return self.cramers_v >= TELLING and self.p < SIGNIFICANT


@dataclass(frozen=True, eq=False)
class Audit:
    """Findings; blank and nearly_blank are image numbers.

    class_counts: (splits, classes), one row if there are no splits; subject_counts: (subjects, classes) or None;
    in_several_splits: number of subjects in more than one official split, None if the data has no splits or subjects;
    excludable: number of training images that each kind of dataset.exclude leaves out; near_leaks: number of training
    images that are near duplicates of another split's image and that "test_duplicates" does not leave out; suspicious:
    labels that networks disagree with, None where no predictions were given.
    """

    title: str
    size: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    class_counts: np.ndarray
    subjects: tuple[str, ...]
    subject_counts: np.ndarray | None
    in_several_splits: int | None
    blank: np.ndarray
    nearly_blank: np.ndarray
    near_from: float
    identical: Duplicates
    near: Duplicates
    mirrored: Duplicates
    excludable: dict[str, int]
    near_leaks: int
    confounds: tuple[Confound, ...]
    suspicious: Suspicious | None = None

    def __len__(self) -> int:
        return int(self.class_counts.sum())


def audit(faces: Faces, near: float = NEAR, predicted: OutOfFold | None = None) -> Audit:
    """Audit of a data set. near: correlation from which two images are nearly identical; predicted: what networks say
    about images that they have not seen, for the search for suspicious labels.

    Raises ValueError if near is outside 0.8 to 1, or so low that there are more than MOST_PAIRS pairs.
    """
    if not 0.8 <= near <= 1:
        raise ValueError(f"--near {near} is not a useful correlation; allowed: 0.8 to 1, such as --near {NEAR}")
    pixels, empty, grey = identical(faces.images), blank(faces.images), to_grey(faces.images)
    pairs, score, flipped = _near_pairs(grey, pixels, near)
    splits = () if faces.splits is None else tuple(s for s in SPLITS if (faces.splits == s).any())
    split = (
        np.zeros(len(faces), dtype=int) if faces.splits is None else np.array([splits.index(s) for s in faces.splits])
    )
    kinds = excludable(faces) if splits else {}
    people, person = ((), None) if faces.subjects is None else np.unique(faces.subjects, return_inverse=True)
    return Audit(
        title=faces.title,
        size=f"{'×'.join(map(str, faces.images.shape[2:]))}, {'grey' if faces.images.shape[1] == 1 else 'colour'}",
        class_names=faces.class_names,
        splits=splits,
        class_counts=_counts(split, faces.labels),
        subjects=tuple(map(str, people)),
        subject_counts=None if person is None else _counts(person, faces.labels),
        in_several_splits=int(((_counts(person, split) > 0).sum(1) > 1).sum())
        if splits and person is not None
        else None,
        blank=np.flatnonzero(empty),
        nearly_blank=np.flatnonzero((low_contrast(grey) | placeholders(grey)) & ~empty),
        near_from=near,
        identical=_identical(faces, pixels),
        near=_pairwise(faces, pairs[~flipped], score[~flipped]),
        mirrored=_pairwise(faces, pairs[flipped], score[flipped]),
        excludable={kind: int(mask.sum()) for kind, mask in kinds.items()},
        near_leaks=_near_leaks(faces.splits == "train", pairs, kinds["test_duplicates"]) if splits else 0,
        confounds=() if faces.formats is None else _confounds(faces.formats, faces.labels, person),
        suspicious=None if predicted is None else suspicious(predicted, faces.labels),
    )


def _near_leaks(train: np.ndarray, pairs: np.ndarray, copies: np.ndarray) -> int:
    """Number of training images in a pair with another split's image, without those that are exact copies of one."""
    leaking = np.zeros(len(train), dtype=bool)
    leaking[pairs[train[pairs].sum(1) == 1]] = True
    return int((leaking & train & ~copies).sum())


def _near_pairs(grey: np.ndarray, pixels: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All near duplicates: pairs (P, 2), their correlations, and whether one is mirrored."""
    found, num_pairs = [(np.empty((0, 2), int), np.empty(0, np.float32), np.empty(0, bool))], 0
    for pairs, score, flip in near_pairs(grey, pixels, near):
        found.append((pairs, score, np.full(len(pairs), flip)))
        num_pairs += len(pairs)
        if num_pairs > MOST_PAIRS:
            raise ValueError(f"more than {MOST_PAIRS:,} pairs of images correlate by {near}: set a higher --near")
    pairs, score, flipped = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pairs, score, flipped


def _identical(faces: Faces, pixels: np.ndarray) -> Duplicates:
    order = np.argsort(pixels, kind="stable")
    images = order[np.bincount(pixels)[pixels[order]] > 1]
    names, group = np.unique(pixels[images], return_inverse=True)
    return _duplicates(faces, images, group, np.ones(len(names)))


def _pairwise(faces: Faces, pairs: np.ndarray, score: np.ndarray) -> Duplicates:
    return _duplicates(faces, pairs.ravel(), np.repeat(np.arange(len(pairs)), 2), score)


def _duplicates(faces: Faces, images: np.ndarray, group: np.ndarray, score: np.ndarray) -> Duplicates:
    first, joined = images[np.searchsorted(group, group)], {}

    def differ(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values[images] != values[first], minlength=len(score)) > 0

    if faces.splits is not None:
        on = {s: np.bincount(group, faces.splits[images] == s, len(score)) > 0 for s in SPLITS if s in faces.splits}
        joined = {(a, b): int((on[a] & on[b]).sum()) for a, b in combinations(on, 2)}
    splits, subjects = (None if values is None else differ(values) for values in (faces.splits, faces.subjects))
    return Duplicates(images, group, score, differ(faces.labels), splits, subjects, joined)


def _counts(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Contingency table of two arrays of numbers from 0 up."""
    counts = np.zeros((rows.max() + 1, columns.max() + 1), dtype=int)
    np.add.at(counts, (rows, columns), 1)
    return counts


def _confounds(formats: np.ndarray, labels: np.ndarray, person: np.ndarray | None) -> tuple[Confound, ...]:
    """Association of kind and size with the label, for formats such as "JPEG L 48x48"; rare sizes count as one."""
    kinds, sizes = (np.array(part) for part in zip(*(str(f).rpartition(" ")[::2] for f in formats), strict=True))
    names, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    sizes = np.where(counts[which] >= RARE * len(sizes), names[which], "other sizes")
    return _confound("kind", kinds, labels, person), _confound("size", sizes, labels, person)


def _confound(of: str, values: np.ndarray, labels: np.ndarray, person: np.ndarray | None) -> Confound:
    names, which = np.unique(values, return_inverse=True)
    counts = _counts(which, labels)
    v = p = np.nan
    if (smaller := min(counts.shape) - 1) > 0:
        expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
        statistic = (np.square(counts - expected) / expected).sum()
        v = np.sqrt(statistic / (counts.sum() * smaller))
        p = chi2.sf(statistic, (counts.shape[0] - 1) * (counts.shape[1] - 1))
        if person is not None:
            p = _p_over_people(which, labels, person, expected)
    return Confound(of, tuple(map(str, names)), counts, float(v), float(p))


def _p_over_people(value: np.ndarray, label: np.ndarray, person: np.ndarray, expected: np.ndarray) -> float:
    """P-value of the chi-square statistic of integers (N,) where the people are independent and their images are not:
    the share of random signs of each person's part of it with which it is at least as large."""
    joint = np.zeros((person.max() + 1, *expected.shape))
    np.add.at(joint, (person, value, label), 1)
    of_value, of_label = (expected.sum(axis)[None] / len(label) for axis in (1, 0))
    # Of each image (own value - its share) (own label - its share); over all images it is counts - expected.
    parts = joint - of_value[:, :, None] * joint.sum(1)[:, None] - of_label[:, None] * joint.sum(2)[:, :, None]
    parts += joint.sum((1, 2))[:, None, None] * of_value[:, :, None] * of_label[:, None]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(joint)))
    signs[0] = 1  # as it is
    sums = np.tensordot(signs, parts, 1)
    statistics = (sums**2 / expected).sum((1, 2))
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean())
