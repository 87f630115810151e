"""HOG + SVM against scikit-image and scikit-learn, and what may not change its answers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from skimage.feature import hog
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import LinearSVC

from engrec.evidence.baselines import CS, hog_features, hog_svm
from engrec.splits import Split

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")


def stripes(make_faces, num_classes, num_images=120, noise=90, seed=0, **fields):
    """Gratings whose direction is the class; phase, contrast and brightness are not."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % num_classes)
    angle = (labels * np.pi / num_classes)[:, None, None]
    y, x = np.mgrid[:24, :24]
    phase, light = rng.uniform(0, 2 * np.pi, (num_images, 1, 1)), rng.uniform(80, 170, (num_images, 1, 1))
    waves = np.sin(0.7 * (x * np.cos(angle) + y * np.sin(angle)) + phase) * rng.uniform(30, 60, (num_images, 1, 1))
    images = light + waves + rng.normal(0, noise, waves.shape)
    return make_faces(
        num_images, num_classes, images=np.clip(images, 0, 255).astype(np.uint8)[:, None], labels=labels, **fields
    )


def thirds(num_images):
    return Split(*(np.arange(side, num_images, 3) for side in range(3)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_linear_svms_on_hog_features_and_c_is_chosen_on_validation(make_faces, num_classes):
    """One class against the rest, each fitted by itself; the most probable class is the one furthest on its side."""
    faces = stripes(make_faces, num_classes)
    split = thirds(120)
    rows = np.array([hog(image[0], 9, (8, 8), (2, 2), "L2-Hys") for image in faces.images]).astype(np.float32)

    def values(c, side):
        svms = [LinearSVC(C=c, class_weight="balanced", random_state=0) for _ in range(num_classes)]
        return np.stack(
            [
                svm.fit(rows[split.train], faces.labels[split.train] == k).decision_function(rows[side])
                for k, svm in enumerate(svms)
            ],
            axis=1,
        )

    scores = [balanced_accuracy_score(faces.labels[split.val], values(c, split.val).argmax(1)) for c in CS]
    probabilities, settings = hog_svm(faces, split)
    assert settings["c"] == CS[int(np.argmax(scores))]
    assert list(settings["validation_balanced_accuracy"].values()) == pytest.approx(scores)
    expected = values(settings["c"], split.test)
    np.testing.assert_array_equal(probabilities.argmax(1), expected.argmax(1))
    between = np.log(probabilities[:, :-1] / probabilities[:, 1:])
    factor = 1 if num_classes > 2 else 0.5  # the two of a pair of classes are each other's negative
    np.testing.assert_allclose(
        between, factor * (expected[:, :-1] - expected[:, 1:]) / settings["temperature"], rtol=0.02, atol=0.02
    )


def test_the_smallest_c_of_equals_is_chosen(make_faces):
    faces = stripes(make_faces, 2, noise=0)
    _, settings = hog_svm(faces, thirds(120))
    assert len(set(settings["validation_balanced_accuracy"].values())) < len(CS)
    best = max(settings["validation_balanced_accuracy"].values())
    assert settings["c"] == min(c for c in CS if settings["validation_balanced_accuracy"][f"{c:g}"] == best)


@pytest.mark.parametrize(("num_classes", "channels"), [(2, 1), (4, 1), (2, 3)])
def test_it_learns_what_gradients_show(make_faces, num_classes, channels):
    faces = stripes(make_faces, num_classes, noise=10)
    faces = replace(faces, images=np.repeat(faces.images, channels, axis=1))
    probabilities, _ = hog_svm(faces, thirds(120))
    assert probabilities.dtype == np.float64
    assert probabilities.shape == (40, num_classes)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == faces.labels[thirds(120).test]).mean() > 0.95


def test_a_rare_class_is_not_passed_over(make_faces):
    faces = stripes(make_faces, 2, num_images=360, noise=60)
    keep = np.flatnonzero((faces.labels == 1) | (np.arange(360) % 6 < 1))
    faces = faces.select(keep)
    split = thirds(len(keep))
    probabilities, _ = hog_svm(faces, split)
    rare = faces.labels[split.test] == 0
    assert rare.mean() < 0.25
    assert (probabilities[rare].argmax(1) == 0).mean() > 0.6


def test_nothing_of_the_test_side_decides_but_each_image_for_itself(make_faces):
    faces, split = stripes(make_faces, 3), thirds(120)
    before, settings = hog_svm(faces, split)
    labels, images = faces.labels.copy(), faces.images.copy()
    labels[split.test] = (labels[split.test] + 1) % 3
    images[split.test[1:]] = 255 - images[split.test[:-1]]
    after, same = hog_svm(replace(faces, labels=labels, images=images), split)
    assert settings == same
    np.testing.assert_allclose(after[0], before[0])
    assert not np.allclose(after[1:], before[1:])
    order = np.random.default_rng(0).permutation(len(split.test))
    shuffled, _ = hog_svm(faces, Split(split.train, split.val, split.test[order]))
    np.testing.assert_allclose(shuffled, before[order])


def test_features_computed_before_change_nothing(make_faces):
    faces, split = stripes(make_faces, 2), thirds(120)
    one, other = hog_svm(faces, split), hog_svm(faces, split, features=hog_features(iter(faces.images)))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


def test_the_temperature_is_the_likeliest_on_validation(make_faces):
    """With validation for test, the probabilities are those fitted: sharper or flatter ones are less likely."""
    faces, split = stripes(make_faces, 3), thirds(120)
    probabilities, _ = hog_svm(faces, Split(split.train, split.val, split.val))
    truth, rows = faces.labels[split.val], np.arange(len(split.val))
    likelihood = {a: log_softmax(a * np.log(probabilities), axis=1)[rows, truth].mean() for a in (0.8, 1, 1.25)}
    assert max(likelihood, key=likelihood.__getitem__) == 1


def test_a_class_that_validation_lacks_can_be_answered(make_faces):
    faces, split = stripes(make_faces, 3, noise=10), thirds(120)
    val = split.val[faces.labels[split.val] < 2]
    probabilities, _ = hog_svm(faces, Split(split.train, val, split.test))
    assert (probabilities.argmax(1)[faces.labels[split.test] == 2] == 2).mean() > 0.9


@pytest.mark.parametrize("num_classes", [2, 3])
def test_images_that_show_nothing_are_all_answered_alike(make_faces, num_classes):
    labels = np.arange(180) // 3 % num_classes  # as many of each: of two, the SVM has not even an intercept
    faces = make_faces(180, num_classes, images=np.full((180, 1, 16, 16), 9, np.uint8), labels=labels)
    probabilities, _ = hog_svm(faces, thirds(180))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_array_equal(probabilities, probabilities[:1].repeat(60, 0))


def test_images_without_room_for_a_block_are_refused(make_faces):
    with pytest.raises(ValueError, match="12x12 pixels hold no block of 2x2 cells: HOG takes 16x16 or more"):
        hog_features(make_faces(2, size=12).images)
    assert hog_features(make_faces(2, size=16).images).shape == (2, 36)
