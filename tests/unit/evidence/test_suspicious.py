"""Suspicious labels: a small case by hand, and what the ranking must not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engrec.evidence.out_of_fold import OutOfFold
from engrec.evidence.suspicious import suspicious

# The label of each image, the probabilities, and what they make of it. The mean probability of class 0 where it is the
# label is (0.9 + 0.6 + 0.1 + 0.4) / 4 = 0.5, that of class 1 (0.8 + 0.7 + 0.3) / 3 = 0.6, that of class 2 0.3.
CASES = [
    (0, (0.90, 0.05, 0.05), False),
    (0, (0.60, 0.30, 0.10), False),
    (0, (0.10, 0.70, 0.20), True),  # class 1 has 0.6 or more
    (0, (0.40, 0.58, 0.02), False),  # class 1 is predicted, with less than 0.6
    (1, (0.10, 0.80, 0.10), False),
    (1, (0.20, 0.70, 0.10), False),
    (1, (0.32, 0.30, 0.38), True),  # class 2 has 0.3 or more
    (2, (0.45, 0.25, 0.30), False),  # class 0 is predicted, with less than 0.5
]


def judged(cases=CASES, index=None):
    labels, probabilities, _ = zip(*cases, strict=True)
    index = np.arange(len(cases)) if index is None else index
    of_all = np.zeros(index.max() + 1, np.int64)
    of_all[index] = labels
    return suspicious(OutOfFold(index, np.array(probabilities), [None, None]), of_all)


def test_a_case_computed_by_hand():
    found = judged()
    assert {i for i, doubted in zip(found.index, found.doubted, strict=True) if doubted} == {2, 6}
    assert found.index.tolist() == [2, 3, 7, 6, 1, 5, 4, 0]
    assert found.margin == pytest.approx([-0.6, -0.18, -0.15, -0.08, 0.3, 0.5, 0.7, 0.85])
    assert found.labels.tolist() == [0, 0, 2, 1, 0, 1, 1, 0]
    assert found.others.tolist() == [1, 1, 0, 2, 1, 0, 0, 1]
    assert found.p_label[0] == 0.1
    assert found.p_other[0] == 0.7
    assert found.accuracy == 4 / 8
    assert found.num_networks == 2


def test_images_that_nobody_judged_are_not_listed():
    index = np.array([30, 2, 7, 5, 11, 13, 17, 19])
    assert set(judged(index=index).index) == set(index)
    assert set(judged(index=index).index[judged(index=index).doubted]) == {7, 17}


def test_a_class_that_no_judged_image_has_as_its_label_accuses_nobody():
    assert not judged([(0, (0.2, 0.1, 0.7), None), (1, (0.1, 0.2, 0.7), None)]).doubted.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(2, 5))
def test_the_order_of_rows_does_not_matter(seed, num_classes):
    rng = np.random.default_rng(seed)
    p, labels = rng.dirichlet(np.ones(num_classes), 30), rng.integers(0, num_classes, 30)
    order = rng.permutation(30)
    one = suspicious(OutOfFold(np.arange(30), p, []), labels)
    two = suspicious(OutOfFold(order, p[order], []), labels)
    assert one.index.tolist() == two.index.tolist()
    assert one.doubted.tolist() == two.doubted.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999))
def test_what_is_called_suspicious_is_predicted_otherwise_and_confidently(seed):
    rng = np.random.default_rng(seed)
    p, labels = rng.dirichlet(np.ones(3), 40), rng.integers(0, 3, 40)
    found = suspicious(OutOfFold(np.arange(40), p, []), labels)
    assert np.array_equal(np.sort(found.margin), found.margin)
    for k in np.flatnonzero(found.doubted):
        row = p[found.index[k]]
        assert row.argmax() == found.others[k] != found.labels[k]
        mean = p[labels == found.others[k], found.others[k]]
        assert len(mean)
        assert any(row[c] >= p[labels == c, c].mean() for c in range(3) if c != found.labels[k] and (labels == c).any())


def test_labels_and_order_are_those_of_cleanlab():
    """cleanlab 2.9.0: find_label_issues(labels, p, filter_by="confident_learning",
    return_indices_ranked_by="normalized_margin")."""
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    found = suspicious(OutOfFold(np.arange(60), p, []), labels)
    assert found.index[found.doubted].tolist() == [
        41, 31, 49, 27, 7, 26, 0, 14, 23, 10, 20, 6, 39, 43, 9, 36, 56, 3, 17, 13, 35, 58, 40, 48, 8, 52, 2, 47, 15, 19,
        46, 12, 18, 1, 11, 50, 37, 21, 22, 32, 16, 25, 53, 51, 33, 28,
    ]  # fmt: skip
