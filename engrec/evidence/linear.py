"""A linear classifier of features, whose strength of regularisation is chosen on the validation images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from engrec.datasets.prepared import Faces
from engrec.metrics import balanced_accuracy, fit_temperature
from engrec.splits import Split


def chosen(
    fit: Callable[[float, np.ndarray, np.ndarray], Any],
    grid: Sequence[float],
    features: np.ndarray,
    faces: Faces,
    split: Split,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities float64 (N, K) of the images of split.test, in its order, and what was chosen.

    fit: from C, features (N, D) and labels (N,) to a fitted classifier of scikit-learn; features: of all of `faces`. C
    is the one with the best balanced accuracy on the validation images, the smallest of equals. Probabilities are the
    softmax of the decision values over a temperature fitted on the validation images.
    """
    train, val, test = (features[side] for side in (split.train, split.val, split.test))
    truth, num_classes = faces.labels[split.val], len(faces.class_names)
    fitted = {c: fit(c, train, faces.labels[split.train]) for c in grid}
    decided = {c: _decisions(one, val, num_classes) for c, one in fitted.items()}
    scores = {c: balanced_accuracy(*map(torch.from_numpy, (on_val, truth))).item() for c, on_val in decided.items()}
    best = max(grid, key=scores.__getitem__)
    on_val, on_test = decided[best], _decisions(fitted[best], test, num_classes)
    scale = float(on_val.std()) or 1.0  # else the decision values of a small C would ask for a temperature out of range
    temperature = fit_temperature(on_val, truth, scale)
    found = {"num_features": features.shape[1], "c": best, "temperature": temperature}
    found |= {"validation_balanced_accuracy": {f"{c:g}": score for c, score in scores.items()}}
    return softmax(on_test / temperature, axis=1), found


def _decisions(classifier: Any, features: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, K), the largest where the classifier decides; the one value that two classes have is shared between them."""
    values = classifier.decision_function(features)
    return np.stack([-values, values], axis=1) / 2 if num_classes == 2 else values
