"""One file per data set: what goes in comes out, what does not fit is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engrec.datasets import prepared
from engrec.datasets.prepared import Faces, blank, conflicting, identical, load, regroup, without

OPTIONAL = {
    "subjects": np.array([f"person {i // 4}" for i in range(24)]),
    "splits": np.repeat(["train", "val", "test"], 8),
    "soft_labels": np.random.default_rng(0).dirichlet(np.ones(3), 24).astype(np.float32),
    "clips": np.array([f"clip {i // 6} {i % 3} {i // 4}" for i in range(24)]),
    "formats": np.array(["JPEG L 48x48", "PNG RGB 640x480"] * 12),
    "near_duplicates": np.arange(24) % 5 == 0,
    "placeholders": np.arange(24) % 7 == 0,
}
NONE = dict.fromkeys(OPTIONAL)


@pytest.fixture
def faces(make_faces):
    return make_faces(num_classes=3, **OPTIONAL)


@pytest.fixture
def saved(faces, tmp_path):
    faces.save(tmp_path / "faces.npz")
    return tmp_path / "faces.npz"


def same(one, other):
    assert one.class_names == other.class_names
    assert one.recipe == other.recipe
    for field in ("images", "labels", "sources", *OPTIONAL):
        a, b = getattr(one, field), getattr(other, field)
        assert (a is None) == (b is None), field
        if a is not None:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype, field


def refused(*arguments, **settings):
    with pytest.raises(ValueError, match=r"\S") as error:
        load(*arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "images",
            np.zeros((24, 1, 8, 8), np.float32),
            "images must be uint8 (N, C, H, W), C = 1 or 3, no side 0, found float32 (24, 1, 8, 8)",
        ),
        ("images", np.zeros((24, 8, 8), np.uint8), "found uint8 (24, 8, 8)"),
        ("images", np.zeros((0, 1, 8, 8), np.uint8), "found uint8 (0, 1, 8, 8)"),
        ("labels", np.zeros(23, np.int64), "labels must be int64 (24,), for 24 images, found int64 (23,)"),
        ("sources", np.array(["a"] * 25), "sources must be str (24,), for 24 images, found str (25,)"),
        ("subjects", np.array(["a"]), "subjects must be str (24,), for 24 images, found str (1,)"),
        ("splits", np.array(["train"] * 2), "splits must be str (24,), for 24 images, found str (2,)"),
        ("splits", np.array(["train", "dev"] * 12), "splits must be one of train, val, test, found dev"),
        (
            "soft_labels",
            np.ones((24, 2), np.float32),
            "soft_labels must be float32 (24, 3), for 24 images, found float32 (24, 2)",
        ),
        (
            "soft_labels",
            np.ones((12, 3), np.float32),
            "soft_labels must be float32 (24, 3), for 24 images, found float32 (12, 3)",
        ),
        ("formats", np.array(["PNG"]), "formats must be str (24,), for 24 images, found str (1,)"),
        ("clips", np.array([""] * 24), "clips must be texts of at most 4096 letters, none empty, found ''"),
        ("clips", np.array(["a"] * 24), "labels must be one for each clip, found several in the clip a"),
        ("clips", np.array(["a", "b", "c"] * 8), "subjects must be one for each clip, found several in the clip a"),
        ("labels", np.arange(24) % 4, "labels must be from 0 to 2, for 3 class names, found 3"),
        ("labels", np.arange(24) % 3 - 1, "labels must be from 0 to 2, for 3 class names, found -1"),
        ("labels", np.arange(24) % 2, "no image of class class2"),
        ("class_names", ("a", "b"), "labels must be from 0 to 1, for 2 class names, found 2"),
    ],
)
def test_what_does_not_fit_is_refused(make_faces, field, value, said):
    with pytest.raises(ValueError, match="random: ") as error:
        make_faces(num_classes=3, **{field: value})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [OPTIONAL, NONE, *({**NONE, name: value} for name, value in OPTIONAL.items())])
def test_a_saved_data_set_comes_back(make_faces, tmp_path, given):
    faces = make_faces(num_classes=3, **given)
    faces.save(tmp_path / "new" / "folder" / "faces.npz")
    same(load(tmp_path / "new" / "folder" / "faces.npz"), faces)


def test_colour_and_foreign_letters_come_back(make_faces, tmp_path):
    names = np.array([f"Gesichter/Müller_{i}.jpg" for i in range(24)])
    faces = make_faces(channels=3, class_names=("gelangweilt", "interessé"), sources=names)
    faces.save(tmp_path / "faces.npz")
    same(load(tmp_path / "faces.npz"), faces)


@pytest.mark.parametrize("index", [np.array([5, 4, 3, 0]), np.arange(24) < 6])
def test_select_takes_all_that_belongs_to_an_image(faces, index):
    some = faces.select(index)
    for field in ("images", "labels", "sources", *OPTIONAL):
        np.testing.assert_array_equal(getattr(some, field), getattr(faces, field)[index])


def test_a_failed_save_leaves_the_old_file_and_nothing_else(faces, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(prepared.np, "savez", fail)
    for path in (saved, saved.with_name("another.npz")):
        with pytest.raises(OSError, match="disk full"):
            faces.save(path)
    assert [p.name for p in saved.parent.iterdir()] == ["faces.npz"]
    assert saved.read_bytes() == before


def test_a_missing_file_names_the_remedy(tmp_path):
    message = refused(tmp_path / "none.npz")
    assert "none.npz does not exist" in message
    assert "scripts/prepare.py" in message


class Payload:
    def __reduce__(self):
        return open, ("executed", "w")


def test_pickled_objects_are_not_executed(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = dict(np.load(saved))
    np.savez(saved, **{**arrays, "subjects": np.array([Payload()] * 24, dtype=object)}, allow_pickle=True)
    assert "faces.npz is not a prepared data set" in refused(saved)
    assert not (tmp_path / "executed").exists()


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert "make it again with: python scripts/prepare.py" in refused(saved)


def test_a_damaged_file_is_refused(saved):
    damaged = bytearray(saved.read_bytes())
    middle = len(damaged) // 4
    damaged[middle : middle + 64] = bytes(byte ^ 255 for byte in damaged[middle : middle + 64])
    saved.write_bytes(damaged)
    assert "is not a prepared data set" in refused(saved)


@pytest.mark.parametrize("lacking", ["images", "labels", "sources", "class_names", "recipe"])
def test_a_file_that_lacks_a_part_is_refused(saved, lacking):
    arrays = dict(np.load(saved))
    del arrays[lacking]
    np.savez(saved, **arrays)
    message = refused(saved)
    assert lacking in message
    assert "make it again" in message


@pytest.mark.parametrize("content", [b"hello", b"PK\x05\x06" + bytes(18), b"\x80\x04N."])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "faces.npz").write_bytes(content)
    assert "make it again" in refused(tmp_path / "faces.npz")


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "faces.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "make it again" in refused(tmp_path / "faces.npz")


@pytest.mark.parametrize("recipe", ["not JSON", "[1, 2]", "{}", json.dumps({"importer": "x"})])
def test_a_recipe_without_a_name_is_refused(saved, recipe):
    np.savez(saved, **{**dict(np.load(saved)), "recipe": np.array(recipe)})
    assert "make it again" in refused(saved)


def test_classes_are_joined_and_the_rest_is_left_out(saved, faces):
    joined = load(saved, {"high": ["class2"], "low": ["class0"]})
    keep = faces.labels != 1
    assert joined.class_names == ("high", "low")
    np.testing.assert_array_equal(joined.labels, np.where(faces.labels[keep] == 2, 0, 1))
    for field in ("images", "sources", "subjects", "splits", "formats"):
        np.testing.assert_array_equal(getattr(joined, field), getattr(faces, field)[keep])


def test_soft_labels_of_joined_classes_add_up(faces):
    joined = regroup(faces, {"low": ["class0", "class1"], "high": ["class2"]})
    assert len(joined) == len(faces)
    np.testing.assert_allclose(joined.soft_labels[:, 0], faces.soft_labels[:, :2].sum(1), rtol=1e-6)
    np.testing.assert_allclose(joined.soft_labels.sum(1), 1, rtol=1e-6)


def test_soft_labels_are_renormalised_over_what_is_left(faces):
    joined = regroup(faces, {"a": ["class0"], "b": ["class1"]})
    left = faces.soft_labels[faces.labels < 2][:, :2].astype(float)
    np.testing.assert_allclose(joined.soft_labels, left / left.sum(1, keepdims=True), rtol=1e-5)
    assert joined.soft_labels.dtype == np.float32


def test_an_image_with_no_vote_left_has_its_label_as_its_soft_label(make_faces):
    soft = np.eye(3, dtype=np.float32)[np.full(24, 2)]
    joined = regroup(make_faces(num_classes=3, soft_labels=soft), {"a": ["class0"], "b": ["class1"]})
    np.testing.assert_array_equal(joined.soft_labels, np.eye(2)[joined.labels])


@pytest.mark.parametrize(
    ("classes", "ordered"),
    [
        (None, True),
        ({"low": ["class0", "class1"], "middle": ["class2"], "high": ["class3"]}, True),
        ({"high": ["class3"], "middle": ["class1", "class2"], "low": ["class0"]}, True),
        ({"a": ["class0"], "b": ["class1"], "d": ["class3"]}, True),
        ({"a": ["class0", "class2"], "b": ["class1"], "c": ["class3"]}, False),
        ({"b": ["class1"], "a": ["class0"], "c": ["class2"]}, False),
        ({"low": ["class0", "class1"], "high": ["class2", "class3"]}, False),
    ],
)
@pytest.mark.parametrize("fact", [{"ordered": True}, {"levels": {"1": "class0"}}])
def test_classes_are_in_order_if_the_recipe_says_so_and_joining_keeps_it(make_faces, classes, ordered, fact):
    """Of two classes order says nothing."""
    plain = make_faces(num_classes=4)
    faces = make_faces(num_classes=4, recipe=plain.recipe | fact)
    faces, plain = (one if classes is None else regroup(one, classes) for one in (faces, plain))
    assert faces.ordered == ordered
    assert not plain.ordered
    assert plain.recipe == {"name": "random", "importer": "test"}


def test_joining_none_changes_nothing(saved, faces):
    same(load(saved, None), faces)
    assert load(saved, {name: [name] for name in faces.class_names}).class_names == faces.class_names


def test_an_unknown_class_is_named_with_the_known_ones(saved):
    message = refused(saved, {"low": ["class0"], "high": ["clas2"]})
    assert "no class clas2; allowed: class0, class1, class2" in message


@pytest.mark.parametrize("groups", [{"a": ["class0", "class1"], "b": ["class1"]}, {"a": ["class0", "class0"]}])
def test_a_class_named_twice_is_refused(saved, groups):
    assert "names a class of random twice" in refused(saved, groups)


@pytest.fixture
def with_faults(make_faces):
    """Train 0 … 11, val 12 … 17, test 18 … 23: blank are 0 and 12, copies are 1 = 13, 2 = 18, 3 = 4, 14 = 19.

    Of these 3 = 4 differ in their labels, and so do the further copies 5 = 15 and 16 = 20; 6 = 7 do not. 1, 8 and 9 are
    marked as near duplicates, of which 1 is a copy; 0, 9 and 15 are marked as placeholders.
    """
    images, labels = make_faces().images.copy(), make_faces().labels.copy()
    images[[0, 12]] = np.array([7, 200]).reshape(2, 1, 1, 1)
    for copy, original in ((1, 13), (2, 18), (3, 4), (5, 15), (6, 7), (14, 19), (16, 20)):
        images[copy], labels[copy] = images[original], labels[original]
    for copy, original in ((3, 4), (5, 15), (16, 20)):
        labels[copy] = 1 - labels[original]
    splits, number = np.repeat(["train", "val", "test"], [12, 6, 6]), np.arange(24)
    marks = {"near_duplicates": np.isin(number, [1, 8, 9]), "placeholders": np.isin(number, [0, 9, 15])}
    return make_faces(images=images, labels=labels, splits=splits, **marks)


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        (["blank"], [0]),
        (["test_duplicates"], [1, 2, 5]),
        (["conflicts"], [3, 4, 5]),
        (["blank", "test_duplicates"], [0, 1, 2, 5]),
        (["blank", "test_duplicates", "conflicts"], [0, 1, 2, 3, 4, 5]),
        (["near_duplicates"], [8, 9]),
        (["test_duplicates", "near_duplicates"], [1, 2, 5, 8, 9]),
        (["placeholders", "near_duplicates"], [0, 8, 9]),
        (["blank", "placeholders"], [0, 9]),
        ([], []),
    ],
)
def test_exclude_acts_on_training_alone(with_faults, tmp_path, exclude, gone):
    with_faults.save(tmp_path / "faces.npz")
    left = load(tmp_path / "faces.npz", exclude=exclude)
    np.testing.assert_array_equal(left.sources, np.delete(with_faults.sources, gone))
    np.testing.assert_array_equal(left.images, np.delete(with_faults.images, gone, axis=0))
    recorded = left.recipe.get("excluded_from_training")
    assert (recorded is None) == (exclude == [])
    if recorded is not None:
        kinds = {"blank": 1, "test_duplicates": 3, "conflicts": 3, "near_duplicates": 2, "placeholders": 2}
        assert (recorded["kinds"], recorded["images"]) == (exclude, len(gone))
        assert recorded["of_each_kind"] == {kind: kinds[kind] for kind in exclude}
    assert "excluded_from_training" not in with_faults.recipe


def shots(seed, num_images, channels, size):
    """Images of which some are copies and some differ from another in a single pixel."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num_images, channels, size, size), np.uint8)
    for one, other in rng.integers(0, num_images, (num_images, 2)):
        images[one] = images[other]
        images[one, rng.integers(channels), rng.integers(size), rng.integers(size)] ^= rng.integers(2, dtype=np.uint8)
    return images


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 20), st.sampled_from([1, 3]), st.sampled_from([1, 2, 6, 7, 16]))
def test_identical_images_have_the_number_of_the_first_of_them(seed, num_images, channels, size):
    images = shots(seed, num_images, channels, size)
    for seen in (images, images[::-1], images[..., ::2], images.transpose(0, 2, 3, 1)):
        expected, kinds = [], []
        for image in seen:
            known = next((k for k, kind in enumerate(kinds) if np.array_equal(kind, image)), len(kinds))
            kinds += [image] if known == len(kinds) else []
            expected.append(known)
        number = identical(seen)
        assert number.tolist() == expected
        assert number.dtype == np.int64


def test_a_difference_in_any_one_pixel_counts():
    images = np.repeat(np.full((1, 3, 8, 8), 9, np.uint8), 193, axis=0)
    images.reshape(193, -1)[np.arange(192), np.arange(192)] += 1
    assert identical(images).tolist() == list(range(193))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 4, 48]), st.integers(1, 255), st.floats(0, 1))
def test_blank_is_a_standard_deviation_under_one(seed, size, contrast, share):
    rng = np.random.default_rng(seed)
    # From a few odd pixels to none: what is blank may have a speck as far from the rest as black is from white.
    odd = rng.random((40, 1, size, size)) < share * rng.random((40, 1, 1, 1)) ** 8
    images = np.where(odd, contrast, 0).astype(np.uint8) ^ rng.integers(2, dtype=np.uint8)
    deviation = images.reshape(40, -1).astype(np.float64).std(axis=1)
    decided = np.abs(deviation - 1) > 1e-5
    np.testing.assert_array_equal(blank(images)[decided], (deviation < 1)[decided])


def test_a_blank_image_may_have_a_speck_and_not_two():
    images = np.zeros((3, 1, 48, 48), np.uint8)
    images[0, 0, 0, 0], images[1, 0, 0, :2], images[2, 0, 0, 0] = 47, 47, 255
    assert blank(images).tolist() == [True, False, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=20))
def test_conflicting_images_are_equal_and_differ_in_their_labels(pairs):
    pixels, labels = np.array(pairs).T
    expected = [len({other for same, other in pairs if same == pixel}) > 1 for pixel, _ in pairs]
    assert conflicting(pixels, labels).tolist() == expected


def test_exclude_refuses_an_unknown_kind(with_faults):
    allowed = "blank, test_duplicates, conflicts, near_duplicates, placeholders"
    with pytest.raises(ValueError, match=f"dup is unknown; allowed: {allowed}"):
        without(with_faults, ["dup"])


@pytest.mark.parametrize("kind", ["near_duplicates", "placeholders"])
def test_an_old_file_must_be_prepared_again_if_a_new_kind_is_to_be_left_out(with_faults, tmp_path, kind):
    """The file of an older version: the kinds that it knew can be left out as before."""
    replace(with_faults, **{kind: None}).save(tmp_path / "faces.npz")
    assert len(load(tmp_path / "faces.npz", exclude=["blank", "test_duplicates", "conflicts"])) == 18
    with pytest.raises(
        ValueError, match=rf"older version, .* mark {kind}; prepare it again: python scripts/prepare.py"
    ):
        load(tmp_path / "faces.npz", exclude=["blank", kind])


def test_marks_belong_to_their_images(with_faults):
    joined = regroup(with_faults, {"one": with_faults.class_names[:1], "two": with_faults.class_names[1:]})
    picked = with_faults.select(np.array([9, 0, 8]))
    assert joined.near_duplicates.tolist() == with_faults.near_duplicates.tolist()
    assert (picked.near_duplicates.tolist(), picked.placeholders.tolist()) == ([True, False, True], [True, True, False])


def test_exclude_needs_an_official_split(make_faces):
    with pytest.raises(ValueError, match=r"no official split, .* dataset.exclude=\[\]"):
        without(make_faces(splits=None), ["blank"])


def test_a_face_set_is_its_length_and_name(faces):
    assert isinstance(faces, Faces)
    assert len(faces) == 24
    assert faces.name == "random"
