"""The paper's own arrays: grey levels come back from standardised floats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engrec.datasets.prepared import Faces
from engrec.importers import er


def standardise(images):
    """What the paper's preparation does: mean 0 and L2 norm 100 per image."""
    images = np.asarray(images, np.float64)
    images = images - images.mean(axis=(-2, -1), keepdims=True)
    return images * (100 / np.linalg.norm(images, axis=(-2, -1), keepdims=True))


GREY = np.random.default_rng(0).integers(20, 240, (4, 48, 48), np.uint8)
LABELS = np.array([0, 1, 1, 0])


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        folder = tmp_path / "er"
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return folder

    return write


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(seed=st.integers(0, 2**32 - 1), low=st.integers(0, 254), span=st.integers(1, 255))
@settings(max_examples=25, deadline=None)
def test_grey_levels_come_back_but_for_their_mean(dtype, seed, low, span):
    high = min(low + span, 255)
    grey = np.random.default_rng(seed).integers(low, high + 1, (48, 48))
    grey[0, :2] = low, low + 1  # two neighbours, or the steps could be taken for larger ones
    stored = er._to_grey(standardise(grey).astype(dtype), "x").astype(int)
    assert len(np.unique(stored - grey)) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_image_on_no_lattice_comes_back_to_half_a_level(dtype):
    image = standardise(np.random.default_rng(0).normal(size=(48, 48)))
    stored = er._to_grey(image.astype(dtype), "x").astype(float)
    assert np.ptp(stored) == 255
    level = np.ptp(image) / 255
    scale = np.polyfit(stored.ravel(), image.ravel(), 1)
    assert np.abs(np.polyval(scale, stored) - image).max() < 0.51 * level


@pytest.mark.parametrize("shape", [(4, 48, 48), (4, 48, 48, 1), (4, 2304)])
def test_uint8_is_kept(write, shape):
    faces = er.read(write(X_train=GREY.reshape(shape), Y_train=LABELS))
    np.testing.assert_array_equal(faces["images"][:, 0], GREY)
    assert faces["labels"].tolist() == LABELS.tolist()


@pytest.mark.parametrize("val", ["val", "valid"])
def test_files_are_splits(write, val):
    arrays = {f"X_{split}": GREY[i : i + 2] for i, split in enumerate(("train", val, "test"))}
    labels = {f"Y_{split}": LABELS[i : i + 2] for i, split in enumerate(("train", val, "test"))}
    faces = er.read(write(**arrays, **labels))
    assert faces["splits"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert faces["sources"][3] == f"X_{val}.npy:1"
    assert faces["class_names"] == ("disengaged", "engaged")
    Faces(**faces)


def test_a_blank_image_is_grey(write):
    blank = np.concatenate([np.zeros((1, 48, 48)), standardise(GREY[1:])])
    assert set(er.read(write(X_train=blank, Y_train=LABELS))["images"][0].ravel()) == {128}


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({}, ["er contains none of X_train.npy"]),
        ({"X_train": GREY}, ["Y_train.npy is not in", "needs images X_… and labels Y_…"]),
        ({"X_train": GREY, "Y_train": LABELS[:3]}, ["Y_train.npy", "(3,)", "expected (4,)"]),
        ({"X_train": GREY, "Y_train": np.eye(2)[LABELS]}, ["Y_train.npy", "(4, 2)", "expected (4,): a 0 or 1"]),
        ({"X_train": GREY, "Y_train": LABELS + 1}, ["Y_train.npy row 1 is 2", "1 (engaged)"]),
        ({"X_train": GREY, "Y_train": LABELS * 0}, ["er contains no image of class engaged"]),
        ({"X_train": GREY[:, :40], "Y_train": LABELS}, ["X_train.npy", "(4, 40, 48)", "expected (N, 48, 48)"]),
        ({"X_train": GREY.astype(int), "Y_train": LABELS}, ["X_train.npy contains int64", "expected uint8, or float"]),
        ({"X_train": GREY / 255, "Y_train": LABELS}, ["X_train.npy image 0", "norm", "expected uint8, or float"]),
        ({"X_train": standardise(GREY) * np.nan, "Y_train": LABELS}, ["X_train.npy image 0", "NaN or infinite"]),
        ({"X_train": GREY.astype(object), "Y_train": LABELS}, ["X_train.npy cannot be read", "np.save"]),
        ({"X_train": np.array(["a"] * 4), "Y_train": LABELS}, ["X_train.npy contains no array of numbers"]),
        ({"X_train": GREY[:0], "Y_train": LABELS[:0]}, ["X_train.npy contains no array of numbers"]),
    ],
)
def test_arrays_that_do_not_fit_are_named(write, refused, arrays, parts):
    message = refused("er", write(**arrays))
    for part in parts:
        assert part in message


def test_a_truncated_file_is_named(write, refused):
    folder = write(X_train=GREY, Y_train=LABELS)
    (folder / "X_train.npy").write_bytes((folder / "X_train.npy").read_bytes()[:5000])
    assert "X_train.npy cannot be read" in refused("er", folder)


def test_a_file_instead_of_the_folder(write, refused):
    assert "is not a folder" in refused("er", write(X_train=GREY) / "X_train.npy")
