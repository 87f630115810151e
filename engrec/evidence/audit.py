"""The audit of a data set: what is in it twice, labelled in two ways, blank, unbalanced, or told by the file's format.

Two images are nearly identical when the pixels of their grey pictures, at most SIDE a side, correlate with NEAR or
more, which brightness, contrast and recompression hardly change; one of them may be mirrored. NEAR was chosen by
looking at FER-2013: 225 pairs that correlate with 0.94 to 0.95, no image in two of them, each show one photograph;
below 0.93 pairs of different people begin. No pair is missed: `_spectra` bounds what it leaves out.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2
from tqdm import tqdm

from engrec.datasets.prepared import SPLITS, Faces, blank, conflicting, identical

NEAR = 0.94  # correlation
SIDE = 48  # pixels: larger images are compared at this size
MOST_PAIRS = 5_000_000
LOW_CONTRAST = 8  # standard deviation, of 255
FLAT = 2 / 3  # of the pixels within five neighbouring grey levels: signs and writing in place of a photograph
RARE = 0.01  # of the images: sizes of fewer are taken together
TELLING = 0.1  # Cramér's V from which a format is said to tell the label
UNEVEN = 3  # times as many images in the largest class as in the smallest
MANY_PEOPLE = 60  # more than these are summed up, not listed


@dataclass(frozen=True, eq=False)
class Duplicates:
    """G groups of images that show the same, M images in all; of near duplicates every pair is a group.

    images, group: int (M,), the number of an image and, ascending, that of its group; score: float (G,), correlations.
    Masks (G,): conflicts, where labels differ; across_splits and across_subjects, None where the data does not say.
    joined: how many groups are on both sides of each pair of splits.
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
        """Which groups join splits or subjects, (G,)."""
        masks = [mask for mask in (self.across_splits, self.across_subjects) if mask is not None]
        return np.any(masks, axis=0) if masks else np.zeros(len(self), dtype=bool)

    def linked(self) -> np.ndarray:
        """A number (M,), from 0, that members of groups with an image in common share."""
        names, place = np.unique(self.images, return_inverse=True)
        links = coo_array(
            (np.ones(len(place)), (place, place[np.searchsorted(self.group, self.group)])), (len(names),) * 2
        )
        return connected_components(links, directed=False)[1][place]


@dataclass(frozen=True, eq=False)
class Confound:
    """A property of the files against the labels: counts (values, classes); Cramér's V and the p-value of chi-square,
    both NaN where there is one value only."""

    of: str
    values: tuple[str, ...]
    counts: np.ndarray
    cramers_v: float
    p: float


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found; blank and nearly_blank hold image numbers.

    class_counts: (splits, classes), one row without splits; subject_counts: (subjects, classes) or None; two_sided: how
    many subjects are on several sides of the official split, None where the data does not say; excludable: how many
    training images each kind of dataset.exclude leaves out; near_leaks: training images that nearly repeat one of
    another side and that "test_duplicates" does not leave out.
    """

    title: str
    size: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    class_counts: np.ndarray
    subjects: tuple[str, ...]
    subject_counts: np.ndarray | None
    two_sided: int | None
    blank: np.ndarray
    nearly_blank: np.ndarray
    near_from: float
    identical: Duplicates
    near: Duplicates
    mirrored: Duplicates
    excludable: dict[str, int]
    near_leaks: int
    confounds: tuple[Confound, ...]

    def __len__(self) -> int:
        return int(self.class_counts.sum())


def audit(faces: Faces, near: float = NEAR) -> Audit:
    """near: the correlation from which two images are nearly identical. Raises ValueError where it is no correlation to
    go by, or so low that there is no end of pairs."""
    if not 0.8 <= near <= 1:
        raise ValueError(f"--near {near} is no correlation to go by; allowed: 0.8 to 1, such as --near {NEAR}")
    pixels, empty, grey = identical(faces.images), blank(faces.images), _grey(faces.images)
    pairs, score, flipped = _near_pairs(grey, pixels, near)
    splits = () if faces.splits is None else tuple(s for s in SPLITS if (faces.splits == s).any())
    sides = (
        np.zeros(len(faces), dtype=int) if faces.splits is None else np.array([splits.index(s) for s in faces.splits])
    )
    train = sides == splits.index("train") if "train" in splits else np.zeros(len(faces), dtype=bool)
    copied, leaking = np.isin(pixels, pixels[~train]), np.zeros(len(faces), dtype=bool)
    leaking[pairs[train[pairs].sum(1) == 1]] = True
    faulty = {"blank": empty, "test_duplicates": copied, "conflicts": conflicting(pixels, faces.labels)}
    people, person = ((), None) if faces.subjects is None else np.unique(faces.subjects, return_inverse=True)
    return Audit(
        title=" ".join(filter(None, (faces.name, faces.recipe.get("task")))),
        size=f"{'×'.join(map(str, faces.images.shape[2:]))}, {'grey' if faces.images.shape[1] == 1 else 'colour'}",
        class_names=faces.class_names,
        splits=splits,
        class_counts=_counts(sides, faces.labels),
        subjects=tuple(map(str, people)),
        subject_counts=None if person is None else _counts(person, faces.labels),
        two_sided=int(((_counts(person, sides) > 0).sum(1) > 1).sum()) if splits and person is not None else None,
        blank=np.flatnonzero(empty),
        nearly_blank=np.flatnonzero(_nearly_blank(grey) & ~empty),
        near_from=near,
        identical=_identical(faces, pixels),
        near=_pairwise(faces, pairs[~flipped], score[~flipped]),
        mirrored=_pairwise(faces, pairs[flipped], score[flipped]),
        excludable={kind: int((train & mask).sum()) for kind, mask in faulty.items()} if splits else {},
        near_leaks=int((leaking & train & ~copied).sum()),
        confounds=() if faces.formats is None else _confounds(faces.formats, faces.labels),
    )


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W), averaged over areas down to SIDE where images are larger."""
    height, width = (min(SIDE, side) for side in images.shape[2:])
    grey = images[:, 0] if images.shape[1] == 1 else images.mean(1, dtype=np.float32).round().astype(np.uint8)
    if grey.shape[1:] == (height, width):
        return grey
    return np.stack([np.asarray(Image.fromarray(g).resize((width, height), Image.Resampling.BOX)) for g in grey])


def _nearly_blank(grey: np.ndarray) -> np.ndarray:
    flat = grey.reshape(len(grey), -1)
    within_five = np.array([np.convolve(np.bincount(image, minlength=256), np.ones(5)).max() for image in flat])
    return (flat.std(1, dtype=np.float32) < LOW_CONTRAST) | (within_five >= FLAT * flat.shape[1])


def _near_pairs(grey: np.ndarray, pixels: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of image numbers (P, 2) that are not identical, their correlation, and whether one is mirrored."""
    index, rows, num_pairs = np.flatnonzero(~blank(grey)), 512, 0  # of what shows nothing nothing correlates
    unit = grey[index].astype(np.float32)
    unit -= unit.mean((1, 2), keepdims=True)
    unit /= np.sqrt(np.square(unit).sum((1, 2), keepdims=True))
    low, low_mirrored = _spectra(unit)
    found = [(np.empty((0, 2), int), np.empty(0, np.float32), np.empty(0, bool))]
    blocks = [(start, flip) for flip in (False, True) for start in range(0, len(index), rows)]
    for start, flip in tqdm(blocks, desc="near duplicates", disable=None, leave=False):
        bound = low[start : start + rows] @ (low_mirrored if flip else low)[start:].T
        i, j = np.nonzero(bound >= near - 1e-4)  # float32 on either side
        apart = (i < j) & (pixels[index[i + start]] != pixels[index[j + start]])
        candidates = np.stack([i[apart], j[apart]], axis=1) + start
        for part in range(0, len(candidates), 8192):
            one, other = candidates[part : part + 8192].T
            score = _correlation(unit[one], unit[other])
            if flip:  # a symmetric face is no mirror image of its copy
                score = np.where(score < near, _correlation(unit[one], unit[other, :, ::-1]), 0)
            at = score >= near - 1e-6
            found.append((index[np.stack([one, other], axis=1)[at]], np.minimum(score[at], 1), np.full(at.sum(), flip)))
            num_pairs += int(at.sum())
            if num_pairs > MOST_PAIRS:
                raise ValueError(f"over {MOST_PAIRS:,} pairs of images correlate with {near}; type a higher --near")
    pairs, score, flipped = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pairs, score, flipped


def _spectra(unit: np.ndarray, kept: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """The lowest frequencies of images (N, H, W) and of their mirror images, and the norm of all the others: (N, D).

    The cosine transform is orthonormal, so that the product of two rows is the correlation of the low frequencies plus
    the most that the others can add (Cauchy and Schwarz): no less than the correlation of the images.
    """
    low = np.asarray(dctn(unit, axes=(1, 2), norm="ortho"))[:, :kept, :kept] if len(unit) else unit
    mirrored = low * np.where(np.arange(low.shape[2]) % 2, -1, 1).astype(np.float32)
    rest = np.sqrt(np.maximum(1 - np.square(low).sum((1, 2)), 0))[:, None]
    one, other = (np.hstack([a.reshape(len(rest), a[:1].size), rest]) for a in (low, mirrored))
    return one, other


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nhw,nhw->n", one, other)


def _identical(faces: Faces, pixels: np.ndarray) -> Duplicates:
    order = np.argsort(pixels, kind="stable")
    images = order[np.bincount(pixels)[pixels[order]] > 1]
    names, group = np.unique(pixels[images], return_inverse=True)
    return _duplicates(faces, images, group, np.ones(len(names)))


def _pairwise(faces: Faces, pairs: np.ndarray, score: np.ndarray) -> Duplicates:
    return _duplicates(faces, pairs.ravel(), np.repeat(np.arange(len(pairs)), 2), score)


def _duplicates(faces: Faces, images: np.ndarray, group: np.ndarray, score: np.ndarray) -> Duplicates:
    first, joined = images[np.searchsorted(group, group)], {}

    def differ(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.bincount(group, values[images] != values[first], minlength=len(score)) > 0

    if faces.splits is not None:
        on = {s: np.bincount(group, faces.splits[images] == s, len(score)) > 0 for s in SPLITS if s in faces.splits}
        joined = {(a, b): int((on[a] & on[b]).sum()) for a, b in combinations(on, 2)}
    conflicts = differ(faces.labels)
    assert conflicts is not None
    return Duplicates(images, group, score, conflicts, differ(faces.splits), differ(faces.subjects), joined)


def _counts(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """How often each value of rows meets each of columns; both are numbers from 0 up."""
    counts = np.zeros((rows.max() + 1, columns.max() + 1), dtype=int)
    np.add.at(counts, (rows, columns), 1)
    return counts


def _confounds(formats: np.ndarray, labels: np.ndarray) -> tuple[Confound, ...]:
    """Formats such as "JPEG L 48x48": the kind of file, and its size, of which the rare ones are taken together."""
    kinds, sizes = (np.array(part) for part in zip(*(str(f).rpartition(" ")[::2] for f in formats), strict=True))
    names, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    sizes = np.where(counts[which] >= RARE * len(sizes), names[which], "other sizes")
    return _confound("kind", kinds, labels), _confound("size", sizes, labels)


def _confound(of: str, values: np.ndarray, labels: np.ndarray) -> Confound:
    names, which = np.unique(values, return_inverse=True)
    counts = _counts(which, labels)
    v = p = np.nan
    if (smaller := min(counts.shape) - 1) > 0:
        expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
        statistic = (np.square(counts - expected) / expected).sum()
        v = np.sqrt(statistic / (counts.sum() * smaller))
        p = chi2.sf(statistic, (counts.shape[0] - 1) * (counts.shape[1] - 1))
    return Confound(of, tuple(map(str, names)), counts, float(v), float(p))
