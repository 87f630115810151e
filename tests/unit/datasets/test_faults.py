"""Near duplicates and placeholders in small images, held against all correlations and against known answers."""

from dataclasses import replace

import numpy as np
import pytest
from different_people import different_people, noisy_copies, standard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engrec.datasets import faults
from engrec.datasets.faults import kept_together, mark_faults, near_duplicates, placeholders
from engrec.datasets.prepared import identical, load, without


@pytest.fixture(scope="module")
def people():
    return different_people(12)


def brighter(image):
    return (image * 0.7 + 40).astype(np.uint8)


def sign(seed=0, ground=255, share=0.8):
    """A picture with a flat background of this share, noise on the rest."""
    rng, rows = np.random.default_rng(seed), round(48 * (1 - share))
    picture = np.full((1, 48, 48), ground, np.uint8)
    picture[0, :rows] = rng.integers(0, 256, (rows, 48))
    return picture


@pytest.fixture
def marked(people, make_faces):
    """Train: 0 … 8 are people, 9 … 12 variants, 13 a sign. Val: 14 is 9 exactly, 15 is 10 exactly and like 0, 16 is
    like 1 and 11. Test: 17 is like 2 mirrored, 18 is another person."""
    variants = [brighter(people[4]), brighter(people[0]), people[1], brighter(people[3]), sign()]
    held = [variants[0], brighter(people[0]), brighter(people[1]), brighter(people[2])[..., ::-1], people[11]]
    splits = np.array(["train"] * 14 + ["val"] * 3 + ["test"] * 2)
    return mark_faults(make_faces(19, images=np.stack([*people[:9], *variants, *held]), splits=splits))


def test_training_images_that_nearly_repeat_another_split_are_marked(marked):
    """9 and 10 are exact copies, so no near duplicates. 3 and 12 are alike, but both are training images."""
    assert np.flatnonzero(marked.near_duplicates).tolist() == [0, 1, 2, 4, 11]
    assert np.flatnonzero(marked.placeholders).tolist() == [13]


def test_marks_are_saved_and_left_out_of_training(marked, tmp_path):
    marked.save(tmp_path / "faces.npz")
    left = load(tmp_path / "faces.npz", exclude=["test_duplicates", "near_duplicates", "placeholders"])
    counts = {"test_duplicates": 2, "near_duplicates": 5, "placeholders": 1}
    assert left.recipe["excluded_from_training"]["of_each_kind"] == counts
    train = left.images[left.splits == "train"]
    held = left.images[left.splits != "train"]
    assert (standard(train) @ standard(held).T).max() < faults.NEAR
    assert (standard(train) @ standard(held[..., ::-1]).T).max() < faults.NEAR
    assert len(held) == 5
    assert (without(marked, ["near_duplicates"]).images == marked.select(~marked.near_duplicates).images).all()


def test_without_an_official_split_there_is_nothing_to_mark(make_faces):
    faces = make_faces(splits=None)
    assert mark_faults(faces) is faces


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_single_split_repeats_no_other(marked, split):
    alone = replace(marked, splits=np.full(len(marked), split), near_duplicates=None)
    assert not mark_faults(alone).near_duplicates.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(5, 9), (16, 16), (20, 14)]), st.floats(0.8, 0.99))
def test_near_duplicates_are_those_that_all_correlations_show(seed, size, near):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(4, 1, *size)).cumsum(-1)
    images, train = noisy_copies(rng, base), rng.random(30) < 0.6
    images[0] = images[1]
    flat, turned = standard(images), standard(images[..., ::-1])
    pixels = identical(images)
    score = np.where(pixels[:, None] == pixels, -1, np.maximum(flat @ flat.T, flat @ turned.T))
    best = score[:, ~train].max(1, initial=-1)
    found, clear = near_duplicates(images[:, 0], pixels, train, near), abs(best - near) > 1e-5
    assert (found[clear] == (train & (best >= near))[clear]).all()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (sign(ground=255), True),
        (sign(ground=0), True),
        (sign(ground=128, share=0.7), True),
        (sign(share=0.6), False),  # some drawings have it
        (np.full((1, 48, 48), 9, np.uint8), False),  # blank
        (np.random.default_rng(0).normal(100, 2, (1, 48, 48)).astype(np.uint8), False),  # low contrast
    ],
)
def test_a_placeholder_is_a_flat_background_with_something_on_it(picture, expected):
    assert placeholders(picture).tolist() == [expected]


def test_no_face_is_a_placeholder(people):
    assert not placeholders(people[:, 0]).any()


def test_large_colour_images_become_small_and_grey(people):
    grey = np.asarray(Image.fromarray(people[0, 0]).resize((96, 96), Image.Resampling.NEAREST))
    assert (faults.to_grey(np.stack([grey] * 3)[None]) == people[0]).all()


def groups(faces):
    """The groups of two or more images, as sorted lists."""
    number = kept_together(faces)
    found = [np.flatnonzero(number == k).tolist() for k in np.unique(number)]
    return [group for group in found if len(group) > 1]


def test_copies_and_near_duplicates_are_kept_together_mirrored_or_not(people, make_faces):
    """7 is 0 exactly, 8 is like 1, 9 like 2 mirrored, 10 is 3 mirrored exactly, 11 and 12 are blank."""
    changed = [people[0], brighter(people[1]), brighter(people[2])[..., ::-1], people[3][..., ::-1]]
    images = np.stack([*people[:7], *changed, *2 * [np.full_like(people[0], 9)]])
    faces = make_faces(13, images=images, splits=np.array(["train"] * 13), subjects=None)
    assert groups(faces) == [[0, 7], [1, 8], [2, 9], [3, 10], [11, 12]]


def test_images_are_kept_together_over_those_between_them(people, make_faces):
    """0 and 2 are both like 1; subject a has 2 and 4, 5 is a copy of 4."""
    noise = np.random.default_rng(0).normal(0, 12, (2, *people[0].shape))
    apart = [np.clip(people[0] + one, 0, 255).astype(np.uint8) for one in noise]
    images = np.stack([apart[0], people[0], apart[1], people[1], people[2], people[2]])
    pixels = standard(images)
    assert (pixels[0] @ pixels[2]) < faults.NEAR < min(pixels[0] @ pixels[1], pixels[1] @ pixels[2])
    splits = np.array(["train"] * 6)
    assert groups(make_faces(6, images=images, splits=splits, subjects=None)) == [[0, 1, 2], [4, 5]]
    subjects = np.array(["b", "c", "a", "d", "a", "e"])
    assert groups(make_faces(6, images=images, splits=splits, subjects=subjects)) == [[0, 1, 2, 4, 5]]


def test_official_validation_and_test_images_tie_nothing_together(people, make_faces):
    """As if they were not there: 3 and 4 are copies of 0, and 5 has the subject of 1 and 2."""
    images = np.stack([people[0], people[1], people[2], people[0], people[0], people[3]])
    splits = np.array(["train", "train", "train", "val", "test", "test"])
    subjects = np.array(["a", "b", "c", "d", "e", "b"])
    assert groups(make_faces(6, images=images, splits=splits, subjects=subjects)) == []


def test_without_official_training_images_nothing_is_kept_together(make_faces):
    assert groups(make_faces(6, images=np.zeros((6, 1, 8, 8), np.uint8))) == []
    nothing = make_faces(6, images=np.zeros((6, 1, 8, 8), np.uint8), splits=np.array(["test"] * 6))
    assert groups(nothing) == []
