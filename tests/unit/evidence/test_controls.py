"""Controls against brute force, scikit-learn and what may not change them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from engrec import metrics
from engrec.evidence import controls as module
from engrec.evidence.controls import controls, file_format, majority, nearest_neighbour, subject_majority
from engrec.splits import Split

NAMES = ["majority", "subject_majority", "nearest_neighbour", "file_format"]


def sides(num_images, num_test=None, seed=0):
    order = np.random.default_rng(seed).permutation(num_images)
    num_test = num_images // 4 if num_test is None else num_test
    rest = order[num_test:]
    return Split(np.sort(rest[len(rest) // 4 :]), np.sort(rest[: len(rest) // 4]), np.sort(order[:num_test]))


@pytest.fixture
def faces(make_faces):
    rng = np.random.default_rng(1)
    formats = np.array(
        [f"{('PNG L', 'JPEG RGB')[i % 2]} {n}x{n + 20}" for i, n in enumerate(rng.integers(40, 60, 240))]
    )
    return make_faces(240, 3, labels=rng.choice(3, 240, p=[0.2, 0.5, 0.3]), formats=formats)


def test_every_control_gives_probabilities_of_the_test_images_in_the_promised_order(faces):
    split = sides(240)
    found = controls(faces, split)
    assert list(found) == NAMES
    for probabilities in found.values():
        assert probabilities.dtype == np.float64
        assert probabilities.shape == (60, 3)
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    alone = {"majority": majority, "subject_majority": subject_majority}
    alone |= {"nearest_neighbour": nearest_neighbour, "file_format": file_format}
    for name, control in alone.items():
        np.testing.assert_array_equal(found[name], control(faces, split))


def test_what_the_data_do_not_know_is_absent(faces):
    split = sides(240)
    assert "subject_majority" not in controls(replace(faces, subjects=None), split)
    assert "file_format" not in controls(replace(faces, formats=None), split)
    assert "file_format" not in controls(replace(faces, formats=np.full(240, "PNG L 48x48")), split)
    with pytest.raises(ValueError, match="random has no subject ids: prepare it with --subject-regex"):
        subject_majority(replace(faces, subjects=None), split)
    with pytest.raises(ValueError, match=r"random has no file formats: .*scripts/prepare\.py"):
        file_format(replace(faces, formats=None), split)


def test_the_order_of_the_test_images_is_kept(faces):
    split = sides(240)
    order = np.random.default_rng(2).permutation(len(split.test))
    shuffled = controls(faces, Split(split.train, split.val, split.test[order]))
    for name, probabilities in controls(faces, split).items():
        np.testing.assert_array_equal(shuffled[name], probabilities[order])


def test_validation_and_test_labels_decide_nothing_but_the_oracle(faces):
    split = sides(240)
    labels = faces.labels.copy()
    hidden = np.concatenate([split.val, split.test])
    labels[hidden] = (labels[hidden] + 1) % 3
    images = faces.images.copy()
    images[split.val] = images[split.test][: len(split.val)]  # were validation used, these would be the nearest
    before, after = controls(faces, split), controls(replace(faces, labels=labels, images=images), split)
    for name in ("majority", "nearest_neighbour", "file_format"):
        np.testing.assert_array_equal(before[name], after[name])
    assert not np.array_equal(before["subject_majority"], after["subject_majority"])


def test_majority_is_the_most_frequent_class_of_the_training_side_and_has_no_auc(faces):
    split = sides(240)
    probabilities = majority(faces, split)
    assert np.bincount(faces.labels[split.train]).argmax() == 1
    assert np.array_equal(probabilities, np.tile([0.0, 1.0, 0.0], (len(split.test), 1)))
    logits, labels = torch.from_numpy(probabilities).clamp_min(1e-45).log(), torch.from_numpy(faces.labels[split.test])
    assert metrics.auc(logits, labels).item() == 0.5
    assert metrics.balanced_accuracy(logits, labels).item() == pytest.approx(1 / 3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_answer_that_is_constant_per_person_is_right_more_often_than_the_oracle(make_faces, data):
    num_images, num_classes = data.draw(st.integers(12, 40)), data.draw(st.integers(2, 4))
    people = data.draw(st.lists(st.integers(0, 5), min_size=num_images, max_size=num_images))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.permutation(np.arange(num_images) % num_classes)
    faces = make_faces(num_images, num_classes, size=2, labels=labels, subjects=np.array([f"p{p}" for p in people]))
    split = sides(num_images)
    truth, tested = labels[split.test], faces.subjects[split.test]
    answer = subject_majority(faces, split).argmax(1)
    for person in np.unique(tested):
        own = tested == person
        assert len(set(answer[own])) == 1
        right = [(truth[own] == k).sum() for k in range(num_classes)]
        assert (answer[own] == truth[own]).sum() == max(right)
    if len(set(truth)) == num_classes:
        constant = rng.random((6, num_classes))[[int(person[1:]) for person in tested]]
        ours, theirs = (
            metrics.auc(torch.from_numpy(p).clamp_min(1e-45).log(), torch.from_numpy(truth))
            for p in (subject_majority(faces, split), constant / constant.sum(1, keepdims=True))
        )
        assert ours >= theirs - 1e-12


def distances(faces, split):
    """Squared, (N_test, N_train), one pair after the other in float64."""
    pixels = faces.images.reshape(len(faces), -1).astype(np.float64)
    pixels -= pixels.mean(1, keepdims=True)
    norm = np.sqrt((pixels**2).sum(1, keepdims=True))
    pixels = np.divide(pixels, norm, out=np.zeros_like(pixels), where=norm > 0)
    return np.array([[((pixels[i] - pixels[j]) ** 2).sum() for j in split.train] for i in split.test]), pixels


def alike(make_faces, num_images, seed=0, **fields):
    """Images near enough to each other for the nearest one to be a matter of the pixels."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 256, (6, 1, 8, 8))
    images = scenes[rng.integers(6, size=num_images)] + rng.integers(-60, 60, (num_images, 1, 8, 8))
    labels = rng.permutation(np.arange(num_images) % 3)
    return make_faces(num_images, 3, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels, **fields)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_nearest_neighbour_is_that_of_brute_force_and_of_scikit_learn(make_faces, channels):
    faces = alike(make_faces, 200) if channels == 1 else make_faces(200, 3, size=8, channels=3)
    split = sides(200)
    between, pixels = distances(faces, split)
    answer = nearest_neighbour(faces, split).argmax(1)
    np.testing.assert_array_equal(answer, faces.labels[split.train[between.argmin(1)]])
    reference = KNeighborsClassifier(1).fit(pixels[split.train], faces.labels[split.train])
    np.testing.assert_array_equal(answer, reference.predict(pixels[split.test]))


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_the_first_of_equal_images_counts_whatever_the_size_of_the_blocks(make_faces, monkeypatch, block):
    """Six copies of each image with labels of their own; nearest is a copy of the one that a test image was made of."""
    rng = np.random.default_rng(3)
    scenes = rng.integers(0, 200, (40, 1, 48, 48))
    shown = np.concatenate([rng.permutation(np.repeat(np.arange(40), 6)), rng.integers(40, size=60)])
    images = (
        scenes[shown]
        + np.where(np.arange(300) < 240, 0, rng.integers(0, 56, (48, 48, 300))).transpose(2, 0, 1)[:, None]
    )
    faces = make_faces(300, 4, images=images.astype(np.uint8), labels=rng.permutation(np.arange(300) % 4))
    split = Split(np.arange(240), np.arange(0), np.arange(240, 300))
    first = [np.flatnonzero(shown[:240] == scene)[0] for scene in shown[240:]]
    monkeypatch.setattr(module, "BLOCK", block)
    np.testing.assert_array_equal(nearest_neighbour(faces, split).argmax(1), faces.labels[first])


def test_neither_brightness_nor_contrast_decides_who_is_near(make_faces):
    rng = np.random.default_rng(0)
    known = rng.integers(0, 60, (30, 1, 8, 8))
    lit = known * rng.integers(1, 4, (30, 1, 1, 1)) + rng.integers(0, 70, (30, 1, 1, 1))
    order = rng.permutation(30)
    labels = np.concatenate([np.arange(30) % 5, (np.arange(30) % 5)[order]])
    faces = make_faces(60, 5, images=np.concatenate([known, lit[order]]).astype(np.uint8), labels=labels)
    split = Split(np.arange(30), np.arange(0), np.arange(30, 60))
    np.testing.assert_array_equal(nearest_neighbour(faces, split).argmax(1), labels[30:])


def test_blank_images_have_a_neighbour_too(make_faces):
    """A blank image is nearest to a blank one, and near no other: any image is at distance one from it."""
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)
    images[[1, 4]] = np.array([77, 201])[:, None, None, None]
    images[5] = images[2]
    faces = make_faces(6, 3, images=images, labels=np.array([0, 1, 2, 0, 1, 2]))
    split = Split(np.array([0, 1, 2]), np.array([3]), np.array([4, 5]))
    assert nearest_neighbour(faces, split).argmax(1).tolist() == [1, 2]
    opposite = replace(faces, images=np.concatenate([images[:5], 255 - images[:1]]))
    split = Split(np.array([0, 1]), np.array([3]), np.array([5]))
    assert nearest_neighbour(opposite, split).argmax(1).tolist() == [1]  # its own negative is twice as far as a blank


def formatted(make_faces, formats, labels, num_test=40):
    faces = make_faces(len(labels), int(max(labels)) + 1, size=2, labels=np.array(labels), formats=np.array(formats))
    index = np.arange(len(labels))
    return faces, Split(index[num_test:], index[:0], index[:num_test])


LABELS = np.arange(200) % 2


@pytest.mark.parametrize(
    "formats",
    [
        [("PNG L 48x48", "JPEG L 48x48")[k] for k in LABELS],
        [("PNG L 48x48", "PNG RGB 48x48")[k] for k in LABELS],
        [(f"PNG L {40 + i % 17}x80", f"PNG L {60 + i % 17}x80")[k] for i, k in enumerate(LABELS)],
        [(f"PNG L 80x{40 + i % 17}", f"PNG L 80x{60 + i % 17}")[k] for i, k in enumerate(LABELS)],
        [(f"PNG L {100 + i}x{100 + i}", f"PNG L {100 + i}x{200 + 2 * i}")[k] for i, k in enumerate(LABELS)],
        [("PNG L 48x48", "")[k] for k in LABELS],
        [("a row", "another row")[k] for k in LABELS],
    ],
    ids=["codec", "mode", "width", "height", "aspect", "unknown", "neither parsed"],
)
def test_whatever_a_format_gives_away_is_found(make_faces, formats):
    faces, split = formatted(make_faces, formats, LABELS)
    np.testing.assert_array_equal(file_format(faces, split).argmax(1), LABELS[split.test])


def test_formats_that_training_has_not_seen_and_sizes_that_are_none_are_answered(make_faces):
    strange = ["WEBP CMYK 9x9", "", "JPEG L 0x0", f"JPEG L {9:0<60}x1", "JPEG L ٣x٣", "JPEG L 48x48x48"]
    faces, split = formatted(make_faces, [*strange, *["PNG L 48x48", "JPEG L 60x48"] * 50], [0, 1] * 53, num_test=6)
    probabilities = file_format(faces, split)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_formats_that_say_nothing_give_the_class_frequencies_of_their_kind(make_faces):
    """The leaf's shares, as counted by hand: 30 of 80 PNG and 70 of 80 JPEG are of class 1."""
    formats = ["PNG L 48x48", "JPEG L 48x48"] + ["PNG L 48x48"] * 80 + ["JPEG L 48x48"] * 80
    labels = [0, 1] + [1] * 30 + [0] * 50 + [1] * 70 + [0] * 10
    faces, split = formatted(make_faces, formats, labels, num_test=2)
    np.testing.assert_allclose(file_format(faces, split)[:, 1], [30 / 80, 70 / 80])


def test_a_format_of_a_few_images_is_not_taken_for_a_rule(make_faces):
    formats = ["WEBP L 48x48"] * 2 + ["PNG L 48x48"] * 100 + ["WEBP L 48x48"] * 3
    faces, split = formatted(make_faces, formats, [0, 1] + [0, 1] * 50 + [1] * 3, num_test=2)
    assert 0.4 < file_format(faces, split)[0, 1] < 0.8


def test_a_class_that_training_lacks_has_its_column(make_faces):
    formats = ["PNG L 48x48", "JPEG L 48x48"] * 30
    faces, split = formatted(make_faces, formats, [1, 2] + [0, 2] * 29, num_test=2)
    for name, probabilities in controls(faces, split).items():
        assert probabilities.shape == (2, 3)
        if name != "subject_majority":
            assert probabilities[:, 1].tolist() == [0, 0]
