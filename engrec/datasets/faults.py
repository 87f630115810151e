"""Near duplicates and placeholders: faults that take seconds to find, so they are stored when a data set is prepared.

Two images are near duplicates when the pixels of their grey pictures, at most SIDE a side, correlate with NEAR or
more, which brightness, contrast and recompression hardly change; one of them may be mirrored. NEAR was chosen by
looking at FER-2013: 225 pairs that correlate with 0.94 to 0.95, no image in two of them, each show one photograph;
below 0.93 pairs of different people begin. No pair is missed: `_spectra` bounds what it leaves out.

A placeholder is a sign or text ("photo unavailable") in place of a face: at least FLAT of its pixels lie within five
neighbouring grey levels, and its contrast is not low. In FER-2013 these are 28 images, and none of them shows a face.
About twenty other placeholders have a share of 0.29 to 0.665 and stay, because drawings (from 0.655 down) and faces
(from 0.638 down) lie among them. Repetition does not find them: no placeholder of FER-2013 occurs twice, and
every image that occurs twice under different labels shows a face.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from engrec.datasets.prepared import Faces, blank, identical
from engrec.machine.progress import progress_bar

NEAR = 0.94  # correlation
SIDE = 48  # pixels: larger images are compared at this size
FLAT = 2 / 3  # of the pixels within five neighbouring grey levels
LOW_CONTRAST = 8  # standard deviation, of 255
CHUNK = 4096  # images held as float32 at a time


def mark_faults(faces: Faces) -> Faces:
    """The data set with its near duplicates and placeholders marked; unchanged if it has no official split."""
    if faces.splits is None:
        return faces
    grey = to_grey(faces.images)
    near = near_duplicates(grey, identical(faces.images), faces.splits == "train")
    return replace(faces, near_duplicates=near, placeholders=placeholders(grey))


def to_grey(images: np.ndarray) -> np.ndarray:
    """Grey images uint8 (N, H, W); larger ones are averaged over areas down to SIDE."""
    return np.concatenate([_grey(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)])


def _grey(images: np.ndarray) -> np.ndarray:
    height, width = (min(SIDE, side) for side in images.shape[2:])
    grey = images[:, 0] if images.shape[1] == 1 else images.mean(1, dtype=np.float32).round().astype(np.uint8)
    if grey.shape[1:] == (height, width):
        return grey
    return np.stack([np.asarray(Image.fromarray(g).resize((width, height), Image.Resampling.BOX)) for g in grey])


def placeholders(grey: np.ndarray) -> np.ndarray:
    """Mask (N,) of the placeholders: a flat background, and the contrast of a sign or text on it."""
    levels = [np.bincount(image.ravel(), minlength=256) for image in grey]
    flat = np.array([np.convolve(counts, np.ones(5)).max() for counts in levels]) >= FLAT * grey[0].size
    return flat & ~low_contrast(grey)


def low_contrast(grey: np.ndarray) -> np.ndarray:
    return grey.reshape(len(grey), -1).std(1, dtype=np.float32) < LOW_CONTRAST


def kept_together(faces: Faces) -> np.ndarray:
    """Numbers (N,) of the groups that split=teachers keeps in one fold: of the training images, those that copies, near
    duplicates, their person or their clip link, with however many images between them. Every other image is a group by
    itself."""
    group = np.arange(len(faces))
    if faces.splits is None or "train" not in faces.splits:
        return group
    train = np.flatnonzero(faces.splits == "train")
    pixels, grey = identical(faces.images[train]), to_grey(faces.images[train])
    for names in (pixels, *(known[train] for known in (faces.subjects, faces.clips) if known is not None)):
        _, first, number = np.unique(names, return_index=True, return_inverse=True)
        group = _linked(group, train[np.stack([first[number], np.arange(len(train))], axis=1)])
    for pairs, _, _ in near_pairs(grey, pixels, NEAR):
        group = _linked(group, train[pairs])
    return group


def _linked(group: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Group numbers (N,) in which the two images of each pair (P, 2) have the same."""
    from scipy.sparse import coo_array  # no other split needs it
    from scipy.sparse.csgraph import connected_components

    one, other = group[pairs].T
    graph = coo_array((np.ones(len(pairs)), (one, other)), shape=(group.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][group]


def near_duplicates(grey: np.ndarray, pixels: np.ndarray, train: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Mask (N,) of the training images that are near duplicates of another split's image, exact copies aside.

    pixels: what `identical` returns; train: mask (N,) of the training images.
    """
    found = np.zeros(len(grey), dtype=bool)
    for pairs, _, _ in near_pairs(grey, pixels, near, train):
        found[pairs[:, 0]] = True
    return found


def near_pairs(
    grey: np.ndarray, pixels: np.ndarray, near: float, between: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Near duplicates, block by block: pairs of image numbers (P, 2), their correlations, and whether one is mirrored.

    Identical images are no pair. between: mask (N,); if given, only pairs of an image in it with one outside of it.
    """
    seen = ~blank(grey)  # a blank image has no correlation
    ones = np.flatnonzero(seen if between is None else seen & between)
    others = ones if between is None else np.flatnonzero(seen & ~between)
    low, rows = _spectra(grey, ones)[0], 512
    spectra = _spectra(grey, others)
    blocks = [(start, flip) for flip in (False, True) for start in range(0, len(ones), rows)]
    for start, flip in progress_bar(blocks, "near duplicates", "blocks"):
        first = start if between is None else 0  # each pair once
        i, j = np.nonzero(low[start : start + rows] @ spectra[flip][first:].T >= near - 1e-4)  # float32 rounding
        one, other = ones[i + start], others[j + first]
        kept = (pixels[one] != pixels[other]) & ((one < other) | (between is not None))
        pairs = np.stack([one[kept], other[kept]], axis=1)
        for part in range(0, len(pairs), CHUNK):
            score = _correlations(grey, pairs[part : part + CHUNK], near, flip)
            at = score >= near - 1e-6
            yield pairs[part : part + CHUNK][at], np.minimum(score[at], 1), flip


def _correlations(grey: np.ndarray, pairs: np.ndarray, near: float, flip: bool) -> np.ndarray:
    """Correlations float32 (P,); if flip, 0 for pairs that correlate unmirrored too, as copies of a symmetric face."""
    one, other = (_standardise(grey[side]) for side in pairs.T)
    score = np.einsum("nhw,nhw->n", one, other)
    return np.where(score < near, np.einsum("nhw,nhw->n", one, other[:, :, ::-1]), 0) if flip else score


def _standardise(grey: np.ndarray) -> np.ndarray:
    """Images float32 (N, H, W) with mean 0 and norm 1."""
    unit = grey.astype(np.float32)
    unit -= unit.mean((1, 2), keepdims=True)
    return unit / np.sqrt(np.square(unit).sum((1, 2), keepdims=True))


def _spectra(grey: np.ndarray, index: np.ndarray, kept: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Low frequencies of the images at `index`, then of their mirror images, each with the norm of the rest: (N, D).

    The cosine transform is orthonormal. So the product of two rows is an upper bound of the images' correlation: the
    part of the low frequencies, plus the most that the rest can add (Cauchy and Schwarz).
    """
    down, across = (_cosines(side)[:kept] for side in grey.shape[1:])
    parts = [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
    low = [down @ _standardise(grey[part]) @ across.T for part in parts]
    low = np.concatenate([np.empty((0, len(down), len(across)), np.float32), *low])
    mirrored = low * np.where(np.arange(len(across)) % 2, -1, 1).astype(np.float32)
    rest = np.sqrt(np.maximum(1 - np.square(low).sum((1, 2)), 0))[:, None]
    one, other = (np.hstack([a.reshape(len(index), len(down) * len(across)), rest]) for a in (low, mirrored))
    return one, other


def _cosines(side: int) -> np.ndarray:
    """Orthonormal cosine transform (DCT-II) as a matrix, one frequency per row."""
    frequency, place = np.arange(side)[:, None], np.arange(side)[None] + 0.5
    waves = np.sqrt(2 / side) * np.cos(np.pi / side * frequency * place)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)
