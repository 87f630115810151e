"""Synthetic faces: the same on every machine, painted as their action units say, learnable but never perfectly."""

import hashlib
import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from engrec.datasets import synthetic

SMALL = {"num_train": 140, "num_val": 70, "num_test": 70}
TASKS = ("expression", "engagement")
FOREHEAD, EYES, MOUTH = slice(0, 14), slice(16, 29), slice(31, 48)


@pytest.fixture(scope="module")
def people():
    return synthetic.draw_identities(24, [7])


@pytest.fixture(scope="module", params=TASKS)
def faces(request):
    return synthetic.render(request.param, **SMALL, seed=3)


@pytest.mark.parametrize(
    ("task", "checksum"),
    [
        ("expression", "5f8fb31283152d8d46e5629cd03561e2980dd3aed32fc0cb23c3291fc2e1d3e5"),
        ("engagement", "b8d8ca0cfa02875197fe34ed0d7ed9265afa793ba2f5930c51ea98a523965021"),
    ],
)
def test_golden_pixels(task, checksum):
    faces = synthetic.render(task, **SMALL, seed=0)
    assert hashlib.sha256(faces.images.tobytes() + faces.labels.astype("<i8").tobytes()).hexdigest() == checksum, (
        "the pixels changed: if that was meant, raise synthetic.VERSION and put the new checksum here"
    )


def test_shape_and_contract(faces):
    assert faces.images.shape == (280, 1, 48, 48)
    assert faces.images.dtype == np.uint8
    assert faces.class_names == tuple(synthetic.PROTOTYPES[faces.recipe["task"]])
    assert len(set(faces.sources)) == len(faces)
    assert [int((faces.splits == split).sum()) for split in ("train", "val", "test")] == [140, 70, 70]


def test_class_order_is_the_fields():
    fer2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert tuple(synthetic.PROTOTYPES["expression"]) == fer2013
    assert tuple(synthetic.PROTOTYPES["engagement"]) == ("disengaged", "engaged")


def test_no_subject_on_two_sides(faces):
    sides = [set(faces.subjects[faces.splits == split]) for split in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 7 + 4 + 4


def test_every_subject_and_split_has_every_class_about_equally_often():
    faces = synthetic.render("expression", num_train=700, num_val=70, num_test=70)
    for who in set(faces.subjects):
        members = faces.labels[faces.subjects == who]
        assert len(members) < 20 or set(members) == set(range(7))
    for split in ("train", "val", "test"):
        counts = np.bincount(faces.labels[faces.splits == split], minlength=7)
        assert counts.min() > 0.7 * counts.max()


def test_same_seed_same_pixels_other_seed_others(faces):
    task = faces.recipe["task"]
    again, other = (synthetic.render(task, **SMALL, seed=seed) for seed in (3, 4))
    assert np.array_equal(faces.images, again.images)
    assert np.array_equal(faces.labels, again.labels)
    assert not np.any(np.all(faces.images == other.images, axis=(1, 2, 3)))


def test_more_images_leave_the_first_ones_as_they_are():
    small = synthetic.render("engagement", **SMALL)
    large = synthetic.render("engagement", **(SMALL | {"num_train": 300}))
    assert np.array_equal(small.images[:140], large.images[:140])
    assert np.array_equal(small.labels[small.splits == "test"], large.labels[large.splits == "test"])
    assert np.array_equal(small.images[small.splits == "test"], large.images[large.splits == "test"])


def test_how_many_are_painted_at_once_does_not_matter(monkeypatch):
    faces = synthetic.render("expression", **SMALL)
    monkeypatch.setattr(synthetic, "CHUNK", 23)
    assert np.array_equal(faces.images, synthetic.render("expression", **SMALL).images)


def test_the_two_tasks_show_different_people():
    one, other = (synthetic.render(task, **SMALL) for task in TASKS)
    assert not np.any(np.all(one.images == other.images, axis=(1, 2, 3)))
    traits = [synthetic.draw_identities(7, (0, task, split, 0))["width"] for task in range(2) for split in range(3)]
    assert len(np.unique(traits)) == 42


def test_fast_enough():
    started = time.process_time()
    synthetic.render("expression", num_train=1800, num_val=100, num_test=100)
    assert time.process_time() - started < 4


WHERE = {
    **dict.fromkeys(("AU1", "AU2"), (slice(0, 24), MOUTH)),
    "AU4": (slice(4, 24), MOUTH),
    **dict.fromkeys(("AU5", "AU7", "closure", "gaze_x", "gaze_y"), (EYES, MOUTH)),
    "AU6": (EYES, FOREHEAD),
    "AU9": (slice(16, 48), slice(0, 8)),
    **dict.fromkeys(("AU12", "AU15", "AU20", "AU23", "AU26"), (MOUTH, slice(0, 22))),
}


@pytest.mark.parametrize("unit", WHERE)
def test_an_action_changes_its_part_of_the_face_and_no_other(people, unit):
    calm, moved = synthetic.draw(people, {}), synthetic.draw(people, {unit: np.ones(24)})
    change = np.abs(calm.astype(int) - moved).max(axis=2)  # (B, rows)
    part, elsewhere = WHERE[unit]
    assert np.all(change[:, part].max(axis=1) > 15)
    assert change[:, elsewhere].max() == 0


@pytest.mark.parametrize("direction", ["yaw", "pitch"])
def test_turning_the_head_moves_the_whole_face(people, direction):
    calm, turned = synthetic.draw(people, {}), synthetic.draw(people, {direction: np.ones(24)})
    change = np.abs(calm.astype(int) - turned).max(axis=2)
    assert min(change[:, EYES].max(axis=1).min(), change[:, MOUTH].max(axis=1).min()) > 30


def test_the_background_has_no_stray_marks(people):
    """A curve of the face that goes on beyond the face would show there, at its strongest."""
    bare = synthetic.draw(people, {})[:, 14:30, :3].astype(int)
    for unit in (*synthetic.UNITS, "closure"):
        assert np.abs(synthetic.draw(people, {unit: np.ones(24)})[:, 14:30, :3] - bare).max() <= 1


def test_a_stronger_action_shows_more(people):
    calm, weak, strong = (synthetic.draw(people, {"AU26": np.full(24, amount)}).astype(int) for amount in (0, 0.3, 1))
    assert np.all(np.abs(strong - calm).sum(axis=(1, 2)) > np.abs(weak - calm).sum(axis=(1, 2)))


def test_actions_stay_in_range_and_follow_the_prototypes():
    labels, subjects = np.arange(2100) % 7, np.arange(2100) // 20
    actions = synthetic.draw_actions("expression", labels, subjects, [0], [1])
    assert tuple(actions) == synthetic.ACTIONS
    for name, values in actions.items():
        low = -1 if name in synthetic.DIRECTED else 0
        assert low <= values.min() <= values.max() <= 1
    for label, modes in enumerate(synthetic.PROTOTYPES["expression"].values()):
        for name, amount in modes[0].items():
            assert actions[name][labels == label].mean() > actions[name][labels == 6].mean() + 0.3 * amount


def latents(task, stream, num_images=4000):
    labels = np.arange(num_images) % len(synthetic.PROTOTYPES[task])
    actions = synthetic.draw_actions(task, labels, np.arange(num_images) // 20, [stream, 0], [stream, 1])
    values = np.stack(list(actions.values()), axis=1)
    return np.concatenate([values, np.abs(values[:, -4:])], axis=1), labels


def test_engaged_and_disengaged_differ_and_overlap():
    """Even whoever sees the action units themselves cannot always tell."""
    train, test = latents("engagement", 1), latents("engagement", 2)
    assert 0.8 < LogisticRegression(max_iter=500).fit(*train).score(*test) < 0.97


def test_label_noise_is_as_stated():
    sizes = {"num_train": 1500, "num_val": 20, "num_test": 20}
    clean, noisy = (synthetic.render("engagement", **sizes, label_noise=share) for share in (0.0, None))
    assert np.array_equal(clean.images, noisy.images)
    share = synthetic.LABEL_NOISE["engagement"]
    assert np.mean(clean.labels != noisy.labels) == pytest.approx(share, abs=3 * (share * (1 - share) / 1540) ** 0.5)
    assert noisy.recipe["label_noise"] == share


@pytest.mark.parametrize(("task", "chance"), [("expression", 1 / 7), ("engagement", 1 / 2)])
def test_a_simple_classifier_beats_chance_and_is_not_perfect(task, chance):
    faces = synthetic.render(task, num_train=1400, num_val=70, num_test=500)
    slopes = np.stack(np.gradient(faces.images[:, 0] / 255, axis=(1, 2)), axis=1)
    signed = np.concatenate([np.maximum(slopes, 0), np.maximum(-slopes, 0)], axis=1)
    features = signed.reshape(len(faces), 4, 12, 4, 12, 4).mean(axis=(3, 5)).reshape(len(faces), -1)
    features /= features.mean(axis=1, keepdims=True)
    train, test = faces.splits == "train", faces.splits == "test"
    model = RidgeClassifier(alpha=30.0).fit(features[train], faces.labels[train])
    accuracy = model.score(features[test], faces.labels[test])
    assert chance + 0.05 < accuracy < 0.9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "emotion"}, "dataset.task=emotion is unknown; allowed: expression, engagement"),
        ({"num_train": 3}, "dataset.num_train=3.*must be a whole number from 7 up, one image for each class"),
        ({"num_val": 0}, "dataset.num_val=0"),
        ({"num_test": 10.5}, "dataset.num_test=10.5.*whole number"),
        ({"images_per_subject": 2}, "dataset.images_per_subject=2"),
        ({"seed": -1}, "dataset.seed=-1.*from 0 up"),
        ({"label_noise": 1.5}, "dataset.label_noise=1.5"),
    ],
)
def test_a_mistake_is_explained(wrong, message):
    with pytest.raises(ValueError, match=message):
        synthetic.render(**wrong)
