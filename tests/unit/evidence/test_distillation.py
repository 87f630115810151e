"""A student's soft labels: which images get them, from whom, and what is refused."""

import json

import numpy as np
import pytest
from finished_runs import some_images, take, write_run

from engrec.data import seen
from engrec.datasets.prepared import Faces
from engrec.evidence.distillation import Distillation, check_start, softened
from engrec.splits import Official, Split

CLASSES = ("no", "yes", "perhaps")
TRAIN = 24


@pytest.fixture
def images():
    return some_images(36, CLASSES)


@pytest.fixture
def faces(images):
    """24 training images, 6 of validation, 6 of test, in another order than that of their sources."""
    order = np.random.default_rng(0).permutation(36)
    splits = np.array(["train"] * TRAIN + ["val"] * 6 + ["test"] * 6)
    return Faces(
        images=np.zeros((36, 1, 4, 4), np.uint8),
        labels=images.labels[order],
        class_names=CLASSES,
        sources=images.sources[order],
        recipe={"name": "mine"},
        splits=splits[order],
    )


def official(faces):
    return Official()(faces.labels, faces.subjects, faces.splits)


def teach(folder, images, parts, split="Teachers", **settings):
    for fold, part in enumerate(parts):
        write_run(
            folder / str(fold), take(images, np.array(part)), "pretrain", fold=fold, data="mine",
            choices={"split": split.lower()}, settings={"split._target_": f"engrec.splits.{split}"}, **settings,
        )  # fmt: skip
    return folder


@pytest.fixture
def teachers(images, tmp_path):
    return teach(tmp_path / "teachers", images, np.array_split(np.random.default_rng(3).permutation(TRAIN), 3))


def test_training_images_get_the_mixture_and_all_others_their_label(images, faces, teachers):
    split = official(faces)
    taught = Distillation(str(teachers), share=0.3)(faces, split)
    certain, number = np.eye(3)[faces.labels], {source: i for i, source in enumerate(images.sources)}
    rows = [number[source] for source in faces.sources]
    mixed = 0.7 * certain + 0.3 * images.probabilities[rows]
    assert taught.soft_labels.dtype == np.float32
    assert taught.soft_labels[split.train] == pytest.approx(mixed[split.train], abs=1e-6)
    held = np.concatenate((split.val, split.test))
    assert np.array_equal(taught.soft_labels[held], certain[held])
    for name in ("labels", "images", "sources", "splits"):
        assert np.array_equal(getattr(taught, name), getattr(faces, name))


def test_the_share_of_the_teachers_goes_from_none_to_all(images, faces, teachers):
    split = official(faces)
    none, whole = (Distillation(str(teachers), share=share)(faces, split).soft_labels for share in (0, 1))
    assert np.array_equal(none, np.eye(3)[faces.labels])
    number = {source: i for i, source in enumerate(images.sources)}
    rows = [number[source] for source in faces.sources[split.train]]
    assert whole[split.train] == pytest.approx(images.probabilities[rows], abs=1e-6)


def test_votes_of_annotators_take_the_place_of_the_label(faces, teachers):
    votes = np.random.default_rng(1).dirichlet(np.ones(3), 36).astype(np.float32)
    given = Faces(**vars(faces) | {"soft_labels": votes})
    split = official(faces)
    none, half, whole = (Distillation(str(teachers), share=s)(given, split).soft_labels for s in (0, 0.5, 1))
    assert none == pytest.approx(votes)
    assert half == pytest.approx((votes + whole) / 2)
    assert np.array_equal(votes, given.soft_labels)  # in place it would change the data set


def test_a_temperature_is_that_of_the_logits():
    logits = np.random.default_rng(0).normal(0, 3, (5, 4))
    p, softer = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (logits, logits / 2.5))
    assert softened(p, 2.5) == pytest.approx(softer)
    assert softened(p, 1) == pytest.approx(p)
    sharp = softened(np.array([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0]]), 1e-4)
    assert sharp == pytest.approx(np.array([[1, 0, 0], [0, 0, 1]]))


def test_the_result_names_the_teachers(faces, teachers):
    about = Distillation(str(teachers), temperature=2)(faces, official(faces)).recipe["distillation"]
    assert about["runs"] == [str(teachers / str(fold)) for fold in range(3)]
    assert (about["images"], about["share"], about["temperature"], about["views"]) == (24, 0.5, 2, "none")
    json.dumps(about)


def test_teachers_may_lie_in_several_folders(faces, teachers):
    split, together = official(faces), Distillation(str(teachers))
    apart = Distillation([str(teachers / str(fold)) for fold in range(3)])
    assert np.array_equal(apart(faces, split).soft_labels, together(faces, split).soft_labels)


def test_a_training_image_without_a_teacher_is_named(images, faces, tmp_path):
    folder = teach(tmp_path / "two", images, [range(8), range(8, 22)])
    with pytest.raises(
        ValueError, match=r"2 of 24 training images have no teacher, such as image00(22|23)\.png: run the"
    ):
        Distillation(str(folder))(faces, official(faces))


@pytest.mark.parametrize("number", [TRAIN, 30])  # of validation, of test
def test_predictions_for_validation_or_test_images_are_refused(images, faces, tmp_path, number):
    folder = teach(tmp_path / "all", images, [range(8), [*range(8, 24), number]])
    message = rf"predicted 1 image that training leaves out here, such as image00{number}\.png: set split=official"
    with pytest.raises(ValueError, match=message):
        Distillation(str(folder))(faces, official(faces))


def test_a_student_that_tests_what_its_teachers_know_is_refused(faces, teachers):
    every = official(faces)
    split = Split(every.train[2:], every.val, every.train[:2])
    with pytest.raises(ValueError, match="2 images that training leaves out here"):
        Distillation(str(teachers))(faces, split)


@pytest.mark.parametrize("trained_on", ["random", "fer2013"])
def test_a_teacher_that_starts_from_what_has_seen_its_test_images_is_refused(make_faces, trained_on):
    faces = make_faces(24, recipe={"name": "random" if trained_on == "random" else "ferplus", "importer": "test"})
    own, other = Split(np.arange(12), np.arange(12, 18), np.arange(18, 24)), Split(*np.split(np.arange(24)[::-1], 3))

    def saved(dataset, split, **more):
        return {"dataset": dataset, "task": "expression", "seen": seen(faces, split)} | more

    with pytest.raises(ValueError, match=rf"x\.ckpt was trained on {trained_on} and has seen images that this teacher"):
        check_start(saved(trained_on, other), "x.ckpt", faces, own)
    check_start(saved(trained_on, own), "x.ckpt", faces, own)
    check_start(saved("wacv2016", other), "x.ckpt", faces, own)
    with pytest.raises(ValueError, match=rf"x\.ckpt was trained on {trained_on} and has seen images"):
        check_start(saved("wacv2016", own, before=[saved(trained_on, other)]), "x.ckpt", faces, own)


def test_folds_of_all_images_are_no_teachers(images, faces, tmp_path):
    folder = teach(tmp_path / "kfold", images, [range(12), range(12, 24)], split="KFold")
    with pytest.raises(ValueError, match=r"has split=kfold: only teachers of split=teachers"):
        Distillation(str(folder))(faces, official(faces))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, r"distill\.share=1\.5 must be a number from 0 to 1"),
        ({"temperature": 0}, r"distill\.temperature=0 must be a number above 0"),
        ({"views": "five_crop"}, r"distill\.views=five_crop must be one of none, flip"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Distillation("outputs/teachers", **arguments)
