"""Whether a network is right as often as it says: temperature scaling and the expected calibration error.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Everything here is float64.
"""

import logging

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import log_softmax, softmax

log = logging.getLogger(__name__)
COLDEST, HOTTEST = 0.05, 20.0  # the temperatures that are searched


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T for which softmax(logits / T) has the least negative log likelihood; logits (N, K), labels (N,).

    1, and a warning that says why, where the images cannot tell: they are of one class, a logit is not a number, or the
    likelihood is still rising at the end of the temperatures that are searched.
    """
    if len(np.unique(labels)) < 2:
        return _as_it_is("the validation images are all of one class")
    if not np.isfinite(logits).all():
        return _as_it_is("a logit is not a finite number")
    logits = logits.astype(np.float64)
    true = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the likelihood in 1 / T, in which it is concave; so this rises in T and is 0 once."""
        expected = (softmax(logits / np.exp(log_temperature), axis=1) * logits).sum(1)
        return float((true - expected).mean())

    ends = np.log(COLDEST), np.log(HOTTEST)
    if slope(ends[0]) >= 0:
        return _as_it_is(f"the best temperature on the validation images is not above {COLDEST:g}")
    if slope(ends[1]) <= 0:
        return _as_it_is(f"the best temperature on the validation images is not below {HOTTEST:g}")
    return float(np.exp(root_scalar(slope, bracket=ends, method="brentq", xtol=1e-12).root))


def _as_it_is(why: str) -> float:
    log.warning("calibration: %s; the temperature stays 1", why)
    return 1.0


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the images, every one counting the same: -log softmax(logits) of the label."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """The mean distance between confidence and accuracy, over equal-width bins of the top probability, each bin
    counting as many times as it has images; probabilities (N, K), labels (N,). NaN when a probability is."""
    if np.isnan(probabilities).any():
        return np.nan
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)  # each has its upper end
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(labels))


def compare(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """The test images' calibration as they come and at the temperature; logits (N, K), labels (N,)."""
    raw = logits.astype(np.float64)
    scaled = raw / temperature
    return {
        "temperature": temperature,
        "test/ece": expected_calibration_error(softmax(raw, axis=1), labels),
        "test/ece_calibrated": expected_calibration_error(softmax(scaled, axis=1), labels),
        "test/nll": negative_log_likelihood(raw, labels),
        "test/nll_calibrated": negative_log_likelihood(scaled, labels),
    }
