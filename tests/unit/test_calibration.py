"""Temperature and calibration error against scipy and torchmetrics, and what must not change them."""

import logging

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from torchmetrics.classification import MulticlassCalibrationError

from engrec.metrics import compare, expected_calibration_error, fit_temperature, negative_log_likelihood


def overconfident(num_images=400, num_classes=3, factor=3.0, seed=0):
    """Labels drawn from the softmax of some logits, and `factor` times those logits: the best T is near factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_images, num_classes)) * 1.5
    labels = np.array([rng.choice(num_classes, p=p) for p in softmax(logits, axis=1)])
    return factor * logits, labels


def likelihood(logits, labels, temperature):
    scaled = logits / temperature
    return np.mean([logsumexp(row) - row[k] for row, k in zip(scaled, labels, strict=True)])


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_the_temperature_is_where_scipy_finds_the_likelihoods_optimum(num_classes, factor):
    logits, labels = overconfident(num_classes=num_classes, factor=factor)
    found = minimize_scalar(
        lambda t: likelihood(logits, labels, np.exp(t)),
        bounds=np.log([0.05, 20]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(np.exp(found.x), rel=1e-4)
    assert likelihood(logits, labels, temperature) <= found.fun + 1e-12
    assert 0.7 * factor < temperature < 1.4 * factor


def test_logits_twice_as_large_take_twice_the_temperature_and_shifts_take_none():
    logits, labels = overconfident()
    temperature = fit_temperature(logits, labels)
    assert fit_temperature(2 * logits, labels) == pytest.approx(2 * temperature, rel=1e-9)
    shifts = np.random.default_rng(1).normal(size=(len(logits), 1)) * 50
    assert fit_temperature(logits + shifts, labels) == pytest.approx(temperature, rel=1e-9)
    assert fit_temperature(logits[::-1], labels[::-1]) == pytest.approx(temperature, rel=1e-9)
    assert fit_temperature(logits / temperature, labels) == pytest.approx(1, rel=1e-9)
    assert fit_temperature(1e4 * logits, labels, 1e4) == pytest.approx(1e4 * temperature, rel=1e-9)


def test_float32_logits_are_fitted_in_float64():
    logits, labels = overconfident()
    narrow = logits.astype(np.float32)
    assert fit_temperature(narrow, labels) == fit_temperature(narrow.astype(np.float64), labels)


@pytest.mark.parametrize(
    ("logits", "labels", "why"),
    [
        (np.eye(2)[[0, 1, 0, 1]], np.array([1, 1, 1, 1]), "one class"),
        (np.eye(2)[[0, 1, 0, 1]], np.array([0, 1, 0, 1]), "not above 0.05"),  # all right: the surer the better
        (np.eye(2)[[0, 1, 0, 1]], np.array([1, 0, 1, 0]), "not below 20"),  # all wrong: the less sure the better
        (1e4 * np.eye(2)[[0, 1, 0, 1]], np.array([0, 1, 0, 1]), "not above 0.05"),
        (np.array([[0.0, np.nan], [1.0, 0.0]]), np.array([0, 1]), "not a finite number"),
    ],
)
def test_where_no_temperature_is_best_it_stays_1_and_a_line_says_so(logits, labels, why, caplog):
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(logits, labels) == 1
    [record] = caplog.records
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(logits, labels, 1e4) == 1e4


def test_a_fitted_temperature_warns_of_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        fit_temperature(*overconfident())
    assert not caplog.records


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_the_error_is_torchmetrics(num_classes, num_bins):
    logits, labels = overconfident(num_classes=num_classes)
    probabilities = softmax(logits, axis=1)
    reference = MulticlassCalibrationError(num_classes, n_bins=num_bins, norm="l1")
    expected = reference(torch.from_numpy(probabilities), torch.from_numpy(labels)).item()
    assert expected > 0.05
    assert expected_calibration_error(probabilities, labels, num_bins) == pytest.approx(expected, abs=1e-6)


def test_the_error_by_hand():
    sure = np.array([[1.0, 0.0]] * 4)
    assert expected_calibration_error(sure, np.array([0, 0, 0, 0])) == 0
    assert expected_calibration_error(sure, np.array([0, 1, 0, 1])) == 0.5
    unsure = np.array([[0.75, 0.25]] * 4)
    assert expected_calibration_error(unsure, np.array([0, 0, 1, 0])) == 0
    # (0, 0.5] and (0.5, 1] apart, each with its own gap; in one bin they would all but cancel out.
    apart = np.array([[0.5, 0.25, 0.25], [0.25, 0.5625, 0.1875]])
    assert expected_calibration_error(apart, np.array([1, 1]), num_bins=2) == (0.5 + 0.4375) / 2


def test_the_error_of_what_is_no_number_is_none():
    assert np.isnan(expected_calibration_error(np.array([[np.nan, np.nan], [0.5, 0.5]]), np.array([0, 1])))


def test_both_calibrations_are_those_of_the_scaled_logits():
    logits, labels = overconfident()
    values = compare(logits.astype(np.float32), labels, 3.0)
    assert list(values) == ["temperature", "test/ece", "test/ece_calibrated", "test/nll", "test/nll_calibrated"]
    assert values["temperature"] == 3
    for suffix, temperature in (("", 1), ("_calibrated", 3)):
        scaled = softmax(logits / temperature, axis=1)
        assert values[f"test/ece{suffix}"] == pytest.approx(expected_calibration_error(scaled, labels), abs=1e-6)
        assert values[f"test/nll{suffix}"] == pytest.approx(likelihood(logits, labels, temperature), abs=1e-6)
    assert values["test/ece_calibrated"] < values["test/ece"]
    assert values["test/nll_calibrated"] < values["test/nll"]


def test_the_calibrated_probabilities_follow_from_the_plain_ones():
    """p ** (1 / T), made to sum to 1, as a reader of predictions.csv has no logits."""
    logits, labels = overconfident()
    powers = softmax(logits, axis=1) ** (1 / 2.5)
    again = powers / powers.sum(1, keepdims=True)
    expected = compare(logits, labels, 2.5)["test/nll_calibrated"]
    assert negative_log_likelihood(np.log(again), labels) == pytest.approx(expected, rel=1e-9)
