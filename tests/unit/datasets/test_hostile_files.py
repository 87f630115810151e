"""Whatever a prepared file contains, it loads or is refused in one line, and what loads can be used."""

import io
import json
import os
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD_TEXTS, damaged, drawn, in_one_line

from engrec.datasets.prepared import load
from engrec.datasets.schema import ARRAYS, is_file_name
from engrec.faces.crop import STANDARD

NAMES = list(ARRAYS)
ODD_VALUES = (
    None, True, 0, -1, 14, 1e300, float("nan"), float("inf"), "../../x", "", [], {}, [1, [2]], {"name": 1}, "\ud800",
)  # fmt: skip
ODD_ARRAYS = (
    np.array(3), np.array("x"), np.array([]), np.zeros((24, 0)), np.array(["a", 1, None], dtype=object),
    np.full(24, np.nan),
    np.full(24, 2**40), np.full(24, -1), np.full((24, 3), 14, np.float32), np.full((24, 3), -1, np.float32),
    np.full((24, 3), np.nan, np.float32), np.full((24, 3), np.inf, np.float32), np.zeros((24, 2, 8, 8), np.uint8),
    np.zeros((24, 1, 0, 8), np.uint8), np.zeros((0, 1, 8, 8), np.uint8), np.zeros((24, 64), np.uint8),
    np.array([b"a"] * 24), np.zeros(24, np.complex128), np.zeros(24, "M8[s]"), np.zeros(24, [("a", "i4")]),
    np.array(["s1", "s1 "] * 12), np.array([""] * 24), np.array(["x"] * 24), np.full(24, 0x110000, "u4").view("U1"),
    np.full(24, 0xD800, "u4").view("U1"), np.arange(24.0), np.zeros(24, bool), np.zeros(24, ">i8"),
    np.array(["a", "a", "b"]), np.array(["a\nb", "c", "d"]), np.array([str(i) for i in range(2000)]),
)  # fmt: skip


@pytest.fixture(scope="module")
def arrays(make_faces):
    """The members of a valid file with everything, as np.savez would name them."""
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 24).astype(np.float32)
    marks = {"near_duplicates": np.arange(24) % 5 == 0, "placeholders": np.arange(24) % 7 == 0}
    splits, formats = np.repeat(["train", "val", "test"], 8), np.array(["JPEG L 48x48", "PNG RGB 640x480"] * 12)
    optional = {"splits": splits, "soft_labels": soft, "clips": np.array([f"clip{i}" for i in range(24)])}
    faces = make_faces(num_classes=3, size=8, formats=formats, **optional, **marks)
    recipe = faces.recipe | {"task": "expression", "notes": ["a note"]}
    return faces.arrays() | {"class_names": np.array(faces.class_names), "recipe": np.array(json.dumps(recipe))}


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def pack(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def members(arrays):
    return [(name, npy(array)) for name, array in arrays.items()]


def use(faces):
    """What every command does with a data set."""
    assert is_file_name(faces.file_name)
    assert len(set(faces.class_names)) == len(faces.class_names)
    json.dumps(faces.recipe, allow_nan=False)
    for texts in (faces.sources, faces.subjects, faces.formats, faces.clips):
        if texts is not None:
            "".join(texts.tolist()).encode()
    if faces.soft_labels is not None:
        np.testing.assert_allclose(faces.soft_labels.sum(1), 1, atol=2e-3)


def tried(path, content):
    path.write_bytes(content)
    if (faces := in_one_line(load, path)) is not None:
        use(faces)
    return faces


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_file_that_the_others_are_made_from_loads(arrays, tmp_path, compression):
    faces = tried(tmp_path / "faces.npz", pack(members(arrays), compression))
    for name, array in faces.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.flags.writeable


@drawn(4)
@given(data=st.data())
def test_damaged_bytes(arrays, tmp_path_factory, data):
    compression = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    content = data.draw(damaged(pack(members(arrays), compression)))
    tried(tmp_path_factory.getbasetemp() / "faces.npz", content)


@drawn(4)
@given(data=st.data())
def test_damaged_members(arrays, tmp_path_factory, data):
    """The zip is whole and its checksums are right; what is in it is not."""
    changed = dict(members(arrays))
    for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2)):
        # Mostly the header, which is short beside the pixels.
        head = data.draw(damaged(changed[name][:128]))
        changed[name] = head + changed[name][128:] if data.draw(st.booleans()) else data.draw(damaged(changed[name]))
    tried(tmp_path_factory.getbasetemp() / "faces.npz", pack(changed.items()))


@drawn(4)
@given(data=st.data())
def test_other_members(arrays, tmp_path_factory, data):
    changed = members(arrays)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        name, content = changed[at]
        kinds = ["value", "drop", "twice", "unknown", "element"] if name in arrays else ["drop"]
        match data.draw(st.sampled_from(kinds)):
            case "value":
                changed[at] = name, npy(ODD_ARRAYS[data.draw(st.integers(0, len(ODD_ARRAYS) - 1))])
            case "drop":
                del changed[at]
            case "twice":
                changed.append((name, content))
            case "unknown":
                changed.append((data.draw(st.sampled_from(["new", "../x", "", "images.npy"])), b"text"))
            case "element":
                array = arrays[name].copy()
                if array.dtype.kind == "U":
                    array = array.astype("U400")
                odd = {"U": ODD_TEXTS, "f": (np.nan, np.inf, -1, 14, 1e38), "i": (-1, 3, 2**62)}
                array.flat[0] = data.draw(st.sampled_from(odd.get(array.dtype.kind, (0, 1))))
                changed[at] = name, npy(array)
    tried(tmp_path_factory.getbasetemp() / "faces.npz", pack(changed))


RECIPES = st.recursive(
    st.sampled_from(ODD_VALUES),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
)


@drawn(4)
@given(
    key=st.sampled_from(
        ["name", "importer", "task", "notes", "excluded_from_training", "distillation", "size", "crop"]
    ),
    value=RECIPES,
)
def test_other_recipes(arrays, tmp_path_factory, key, value):
    recipe = json.loads(arrays["recipe"].item()) | {key: value}
    changed = arrays | {"recipe": np.array(json.dumps(recipe))}
    tried(tmp_path_factory.getbasetemp() / "faces.npz", pack(members(changed)))


@pytest.mark.parametrize("value", [5, [], {"runs": "x"}, {"runs": [], "share": "1", "temperature": 1}])
def test_a_recipe_with_an_odd_distillation_is_refused(arrays, tmp_path, value):
    recipe = json.loads(arrays["recipe"].item()) | {"distillation": value}
    changed = arrays | {"recipe": np.array(json.dumps(recipe))}
    assert "recipe.distillation must be the runs, share" in refused(tmp_path / "faces.npz", pack(members(changed)))


@pytest.mark.parametrize("value", [5, [], {}, STANDARD.as_dict() | {"side": -1}, STANDARD.as_dict() | {"shift": "x"}])
def test_a_recipe_with_an_odd_crop_is_refused(arrays, tmp_path, value):
    recipe = json.loads(arrays["recipe"].item()) | {"crop": value}
    changed = arrays | {"recipe": np.array(json.dumps(recipe))}
    assert "recipe.crop must be a text, or the recipe of" in refused(tmp_path / "faces.npz", pack(members(changed)))


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "NaN", '"' + "x" * 10, "{", '{"name": 1e999}'])
def test_a_recipe_that_is_no_json(arrays, tmp_path, text):
    assert tried(tmp_path / "faces.npz", pack(members(arrays | {"recipe": np.array(text)}))) is None


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"faces\.npz is not a prepared data set") as error:
        load(path)
    assert "make it again" in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("subjects", np.where(np.arange(24) > 3, 1.0, np.nan), ["subjects must be str (24,)", "found float64 (24,)"]),
        ("subjects", np.array(["a", 1] * 12, dtype=object), ["subjects", "'|O' of Python objects"]),
        ("subjects", np.array(["s1", "s1 "] * 12), ["random: subjects must be names", "no space", "found 's1 '"]),
        ("subjects", np.array(["s1", ""] * 12), ["random: subjects must be names", "found ''"]),
        ("soft_labels", np.full((24, 3), 14, np.float32), ["with the sum 1", "14.0], of sum 42, for image 0"]),
        ("soft_labels", np.full((24, 3), np.nan, np.float32), ["from 0 up", "[nan, nan, nan]"]),
        ("soft_labels", np.tile(np.float32([2, -1, 0]), (24, 1)), ["from 0 up", "[2.0, -1.0, 0.0]"]),
        ("class_names", np.array(["a", "a", "b"]), ["class_names must be different names, found 'a' twice"]),
        ("class_names", np.array(["a", "", "b"]), ["class_names must be names", "found ''"]),
        ("class_names", np.arange(3), ["class_names must be str (3,)", "found int64 (3,)"]),
        ("labels", np.arange(24.0), ["labels must be int64 (24,)", "found float64 (24,)"]),
        ("images", np.zeros((24, 2, 8, 8), np.uint8), ["images must be uint8", "C = 1 or 3", "(24, 2, 8, 8)"]),
        ("images", np.zeros((24, 1, 0, 8), np.uint8), ["no side 0"]),
        ("recipe", np.array(3), ["recipe must be str ()", "found int64 ()"]),
        ("recipe", np.array('{"name": "../../x"}'), ["recipe.name must be 1 to 100 letters", "found ../../x"]),
        ("recipe", np.array('{"name": "/etc/x"}'), ["recipe.name", "found /etc/x"]),
        ("recipe", np.array('{"name": "a", "task": "../x"}'), ["recipe.task", "found ../x"]),
        ("recipe", np.array('{"name": "a", "size": NaN}'), ["recipe must be what JSON can store"]),
        ("recipe", np.array('{"name": "a", "notes": "x"}'), ["recipe.notes must be a list of texts, found x"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(arrays, tmp_path, name, value, words):
    message = refused(tmp_path / "faces.npz", pack(members(arrays | {name: value})))
    for word in words:
        assert word in message


def test_an_encrypted_member(arrays, tmp_path):
    content = bytearray(pack(members(arrays)))
    content[6] |= 1  # the first file's own flags
    content[content.index(b"PK\x01\x02") + 8] |= 1  # those in the directory
    assert "password" in refused(tmp_path / "faces.npz", bytes(content))


def test_an_array_twice(arrays, tmp_path):
    both = [*members(arrays), ("labels", npy(1 - arrays["labels"]))]
    assert "it contains an array twice" in refused(tmp_path / "faces.npz", pack(both))


def test_a_zip_bomb_is_not_unpacked(arrays, tmp_path):
    zeros = npy(np.zeros((1100, 1, 256, 256), np.uint8))
    bomb = pack([*members(arrays)[1:], ("images", zeros)], zipfile.ZIP_DEFLATED)
    assert "more than its size can stand for" in refused(tmp_path / "faces.npz", bomb)


def test_memory_is_not_used_for_what_is_only_claimed(arrays, tmp_path):
    images = npy(arrays["images"]).replace(b"(24, 1, 8, 8)", b"(24, 1, 8, 8000000)"[:19])
    assert "its header" in refused(tmp_path / "faces.npz", pack(list(dict(members(arrays), images=images).items())))


@pytest.mark.parametrize("path", ["x" * 5000, "folder", "pipe", "loop"])
def test_a_path_that_is_no_plain_file(tmp_path, path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="does not exist: make it with"):
        load(tmp_path / path)
