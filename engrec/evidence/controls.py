"""Controls: predictions that do not look at the face, which a model must beat before its score means anything."""

import re

import numpy as np

from engrec.datasets.prepared import Faces
from engrec.splits import Split

CONTROLS = {
    "majority": "always the majority class",
    "subject_majority": "each person's own majority (oracle)",
    "nearest_neighbour": "nearest neighbour on pixels",
    "file_format": "file format alone",
}  # as tables name them, and in their order
OF_CLIPS = "majority_of_clips"  # "majority" in a table of clips; in no other
BLOCK = 2048  # images on a side of the distances held at once: 16 MB, and 19 MB a side of 48×48 pixels
SAME = 1e-5  # scores of unit vectors nearer than this are a tie: float32 rounds them by where they lie in a block


def controls(faces: Faces, split: Split) -> dict[str, np.ndarray]:
    """Probabilities float64 (N, K) of the images of split.test, in its order, under the name of each control.

    Fitted on split.train alone, but for the oracle subject_majority, which is absent without subject ids; file_format
    is absent where all images have one format or none is known.
    """
    found = {"majority": majority(faces, split)}
    if faces.clips is not None:
        found[OF_CLIPS] = majority(faces, split, faces.clips)
    if faces.subjects is not None:
        found["subject_majority"] = subject_majority(faces, split)
    found["nearest_neighbour"] = nearest_neighbour(faces, split)
    if faces.formats is not None and len(np.unique(faces.formats)) > 1:
        found["file_format"] = file_format(faces, split)
    return found


def majority(faces: Faces, split: Split, clips: np.ndarray | None = None) -> np.ndarray:
    """The most frequent class of the training split, the lowest of equally frequent ones, for every image. clips (N,):
    of all images; each clip then counts once, however many frames it has.

    Not the class frequencies: a fold that tests more of a class has trained on less of it, so that pooled over folds
    they would rank worse than chance.
    """
    train = split.train if clips is None else split.train[np.unique(clips[split.train], return_index=True)[1]]
    counts = np.bincount(faces.labels[train], minlength=len(faces.class_names))
    return _one_hot(np.full(len(split.test), counts.argmax()), faces)


def subject_majority(faces: Faces, split: Split) -> np.ndarray:
    """How often each test subject has each test label: of all answers that are constant per person, none is right more
    often than its largest, and none ranks better. Raises ValueError without subject ids."""
    if faces.subjects is None:
        raise ValueError(f"{faces.name} has no subject ids: prepare it with --subject-regex, or with a subject column")
    return label_shares(faces.subjects[split.test], faces.labels[split.test], len(faces.class_names))


def label_shares(subjects: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float64 (N, K): how often the subject of each image has each label, of N images."""
    names, subject = np.unique(subjects, return_inverse=True)
    counts = np.zeros((len(names), num_classes))
    np.add.at(counts, (subject, labels), 1)
    return (counts / counts.sum(1, keepdims=True))[subject]


def nearest_neighbour(faces: Faces, split: Split) -> np.ndarray:
    """The label of the nearest training image, by Euclidean distance between pixels; of equally near ones, the first.

    Each image is brought to mean zero and unit norm first, so that neither brightness nor contrast decides.
    """
    train, test = split.train, split.test
    nearest, best = np.zeros(len(test), np.int64), np.full(len(test), -np.inf, np.float32)
    for i in range(0, len(test), BLOCK):
        here = slice(i, i + BLOCK)
        queries = _standardised(faces.images[test[here]])
        for j in range(0, len(train), BLOCK):
            references = _standardised(faces.images[train[j : j + BLOCK]])
            # Falls as distance grows; some norms are 0, not 1.
            score = queries @ references.T - np.square(references).sum(1) / 2
            largest = score.max(1)
            nearer = largest > best[here] + SAME
            first = j + (score >= largest[:, None] - SAME).argmax(1)
            nearest[here] = np.where(nearer, first, nearest[here])
            best[here] = np.where(nearer, largest, best[here])
    return _one_hot(faces.labels[train[nearest]], faces)


def file_format(faces: Faces, split: Split) -> np.ndarray:
    """A decision tree on the original file's codec, colour mode, width, height and aspect ratio alone.

    A format that is not written like "JPEG L 48x48" is a category of its own. Raises ValueError without formats.
    """
    from sklearn.preprocessing import OneHotEncoder  # slow to load, and not needed before a run's end, if then
    from sklearn.tree import DecisionTreeClassifier

    if faces.formats is None:
        raise ValueError(f"{faces.name} has no file formats: prepare it again with python scripts/prepare.py")
    kinds, sizes = _described(faces.formats)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(kinds[split.train])
    features = np.hstack([np.asarray(encoder.transform(kinds)), sizes])
    tree = DecisionTreeClassifier(min_samples_leaf=10, random_state=0)
    tree.fit(features[split.train], faces.labels[split.train])
    probabilities = np.zeros((len(split.test), len(faces.class_names)))
    probabilities[:, tree.classes_] = tree.predict_proba(features[split.test])
    return probabilities


def _described(formats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codec and colour mode, str (N, 2); width, height and their ratio, float (N, 3), zero where they are unknown."""
    kinds, sizes = [], []
    for text in formats.tolist():
        found = re.fullmatch(r"(\S+) (\S+) ([0-9]{1,6})x([0-9]{1,6})", text)
        width, height = (int(found[3]), int(found[4])) if found else (0, 0)
        kinds.append(found.group(1, 2) if found else (text, ""))
        sizes.append((width, height, width / max(height, 1)))
    return np.array(kinds), np.array(sizes)


def _standardised(images: np.ndarray) -> np.ndarray:
    """float32 (N, pixels): mean zero and unit norm, or all zero for an image of one grey."""
    flat = images.reshape(len(images), -1)
    pixels = np.subtract(flat, flat.mean(1, keepdims=True), dtype=np.float32)  # the mean itself is float64
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    pixels /= np.where(norm > 0, norm, 1)
    return pixels


def _one_hot(labels: np.ndarray, faces: Faces) -> np.ndarray:
    return np.eye(len(faces.class_names))[labels]
