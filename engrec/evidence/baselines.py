"""Baselines to compare networks with: histograms of oriented gradients and a linear support vector machine."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import softmax
from skimage.feature import hog
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from engrec.datasets.prepared import Faces
from engrec.metrics import fit_temperature
from engrec.splits import Split

ORIENTATIONS, CELL, BLOCK = 9, 8, 2  # bins of 20 degrees, pixels of a cell's side, cells of a block's side
CS = (1e-5, 1e-4, 1e-3, 1e-2)  # 0.1 takes as long again as these together, on FER-2013
SETTINGS = {"orientations": ORIENTATIONS, "cell": CELL, "block": BLOCK, "block_norm": "L2-Hys", "c_grid": list(CS)}


def hog_svm(
    faces: Faces, split: Split, seed: int = 0, features: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities float64 (N, K) of the images of split.test, in its order, and the settings, chosen ones included.

    Nezami et al. (2019) compare their networks with HOG + SVM. The settings here are not theirs but those of Dalal
    and Triggs (CVPR 2005). The SVM is linear, one class against the rest, with balanced class weights; C is the one
    with the best balanced accuracy on the validation images, the smallest of equals. Probabilities are the softmax of
    the decision values over a temperature fitted on the validation images; the most probable class is the SVM's.

    seed: of the SVM's solver, which is deterministic where there are more images than features.
    features: those of all of `faces`, where hog_features has computed them already.
    FER-2013 takes two minutes of one core (AMD EPYC), a fold of WACV-2016 a few seconds.
    """
    if features is None:
        features = hog_features(faces.images)
    train, val, test = (features[side] for side in (split.train, split.val, split.test))
    truth = faces.labels[split.val]
    fitted = {c: _svm(c, seed).fit(train, faces.labels[split.train]) for c in CS}
    scores = {c: _balanced_accuracy(truth, np.asarray(svm.predict(val))) for c, svm in fitted.items()}
    best = max(CS, key=scores.__getitem__)
    on_val, on_test = (_decisions(fitted[best], side, len(faces.class_names)) for side in (val, test))
    scale = on_val.std() or 1.0  # else the decision values of a small C would ask for a temperature out of range
    temperature = scale * fit_temperature(on_val / scale, truth)
    chosen = {"num_features": features.shape[1], "c": best, "temperature": float(temperature)}
    chosen |= {"validation_balanced_accuracy": {f"{c:g}": score for c, score in scores.items()}}
    return softmax(on_test / temperature, axis=1), SETTINGS | chosen


def hog_features(images: Iterable[np.ndarray]) -> np.ndarray:
    """float32 (N, D) of images (C, H, W); of a colour image, the steepest channel's gradients. Raises ValueError for
    images smaller than a block."""
    rows = []
    for image in images:
        if min(image.shape[1:]) < CELL * BLOCK:
            height, width = image.shape[1:]
            raise ValueError(f"{width}x{height} pixels hold no block of {BLOCK}x{BLOCK} cells: HOG takes 16x16 or more")
        row = hog(image, ORIENTATIONS, (CELL, CELL), (BLOCK, BLOCK), "L2-Hys", channel_axis=0)
        rows.append(np.asarray(row, dtype=np.float32))
    return np.stack(rows)


def _svm(c: float, seed: int) -> OneVsRestClassifier:
    return OneVsRestClassifier(LinearSVC(C=c, class_weight="balanced", random_state=seed, max_iter=5000))


def _balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(predicted[truth == k] == k).mean() for k in np.unique(truth)]))


def _decisions(svm: OneVsRestClassifier, features: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, K), the largest where the SVM decides; the one value that two classes have is shared between them."""
    values = svm.decision_function(features)
    return np.stack([-values, values], axis=1) / 2 if num_classes == 2 else values
