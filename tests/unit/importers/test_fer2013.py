"""FER-2013 in the forms found in the wild, and what is said about broken ones."""

import numpy as np
import pytest

from engrec.datasets.prepared import Faces
from engrec.importers import fer2013

PACKINGS = ("folder", "zip", "tar", "tar.gz", "tar.xz", "tar.bz2")
USAGES = ("Training", "PublicTest", "PrivateTest")
IMAGES = np.random.default_rng(0).integers(0, 256, (21, 48 * 48), np.uint8)
ROWS = [(row % 7, " ".join(map(str, pixels)), USAGES[row % 3]) for row, pixels in enumerate(IMAGES)]


def table(rows=ROWS, header="emotion,pixels,Usage", line="{0},{1},{2}", end="\n"):
    return (end.join([header, *(line.format(*row) for row in rows)]) + end).encode()


@pytest.fixture
def write(tmp_path):
    def write(content, name="fer2013.csv"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def assert_is_the_set(faces):
    np.testing.assert_array_equal(faces["images"], IMAGES.reshape(21, 1, 48, 48))
    assert faces["labels"].tolist() == [row % 7 for row in range(21)]
    assert faces["splits"].tolist() == ["train", "val", "test"] * 7
    assert faces["class_names"] == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    Faces(**faces)


@pytest.mark.parametrize(
    "content",
    [
        table(),
        table(header="emotion, Usage, pixels", line="{0},{2},{1}"),
        table(header=" emotion , pixels , Usage", line="{0}, {1} , {2} "),
        table(header='"emotion","pixels","Usage"', line='"{0}","{1}","{2}"'),
        table(header="Usage,pixels,emotion", line="{2},{1},{0}", end="\r\n"),
        table(header="EMOTION,Pixels,usage"),
        b"\xef\xbb\xbf" + table(),
        table()[:-1],
        table() + b"\n\n",
        table(header="index,emotion,pixels,Usage", line="9,{0},{1},{2}"),
    ],
    ids=[
        "challenge",
        "icml",
        "spaces",
        "quotes",
        "crlf",
        "case",
        "bom",
        "no-last-newline",
        "blank-lines",
        "extra-column",
    ],
)
def test_header_variants_give_the_same_set(write, content):
    assert_is_the_set(fer2013.read(write(content)))


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_csv_is_found_in_every_packing(pack, packing):
    other = {"fer2013/README": b"text", "a_train.csv": b"emotion,pixels\n0,1 2\n", "z_test.csv": b"pixels\n1 2\n"}
    faces = fer2013.read(pack({**other, "fer2013/fer2013.csv": table()}, packing))
    assert_is_the_set(faces)
    assert faces["sources"][[0, 20]].tolist() == ["fer2013.csv:2", "fer2013.csv:22"]


def test_a_csv_without_usage_has_no_official_split(write):
    faces = fer2013.read(write(table(header="emotion,pixels", line="{0},{1}"), "train.csv"))
    assert faces["splits"] is None
    assert "split=holdout" in faces["recipe"]["notes"][0]
    np.testing.assert_array_equal(faces["images"], IMAGES.reshape(21, 1, 48, 48))


def bad(row, emotion=None, pixels=None, usage=None, rows=ROWS):
    old = rows[row]
    new = tuple(new if new is not None else was for new, was in zip((emotion, pixels, usage), old, strict=True))
    return table([*rows[:row], new, *rows[row + 1 :]])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (bad(3, pixels=ROWS[3][1] + " 7"), ["line 5", "2305 pixels", "expected 2304", "delete the row"]),
        (bad(3, pixels=""), ["line 5", "0 pixels", "delete the row"]),
        (bad(3, pixels="256 " * 2304), ["line 5", "256", "allowed: 0 to 255"]),
        (bad(3, pixels="-1 " * 2304), ["line 5", "-1", "allowed: 0 to 255"]),
        (bad(3, pixels="0.5 " * 2304), ["line 5", "not whole numbers", "correct or delete"]),
        (bad(3, pixels=ROWS[3][1] + " x"), ["line 5", "not whole numbers", "correct or delete"]),
        (bad(3, emotion="7"), ["line 5", "emotion '7'", "0 to 6"]),
        (bad(3, emotion="happy"), ["line 5", "emotion 'happy'", "0 to 6"]),
        (bad(3, usage="Testing"), ["line 5", "Usage 'Testing'", "Training, PublicTest, PrivateTest"]),
        (table()[: len(table()) // 2], ["line 12", "truncated", "download it again"]),
        (table()[:-14], ["line 22", "truncated", "download it again"]),
        (table(header="emotion,pixel,Usage"), ["line 1", "lacks the column pixels", "found emotion, pixel, usage"]),
        (table()[len("emotion,pixels,Usage\n") :], ["line 1", "lacks the column emotion, pixels", "header"]),
        (b"emotion,pixels,Usage\n", ["no rows", "download it again"]),
        (b"", ["line 1", "lacks the column"]),
        (table([row for row in ROWS if row[0] != 1]), ["no image of class disgust", "complete"]),
    ],
)
def test_a_broken_row_is_named(write, refused, content, parts):
    message = refused("fer2013", write(content))
    assert "fer2013.csv" in message
    for part in parts:
        assert part in message


def test_a_broken_row_in_an_archive_is_named(pack, refused):
    message = refused("fer2013", pack({"fer2013/fer2013.csv": bad(0, emotion="9")}, "tar.gz", "fer"))
    assert "fer.tar.gz: fer2013/fer2013.csv line 2 has emotion '9'" in message


@pytest.mark.parametrize("packing", ["zip", "tar.gz", "tar.xz"])
def test_a_truncated_archive(pack, refused, packing):
    source = pack({"fer2013/fer2013.csv": table()}, packing)
    source.write_bytes(source.read_bytes()[:-3000])
    message = refused("fer2013", source)
    assert f"faces.{packing} is truncated or damaged" in message
    assert "download it again" in message


@pytest.fixture
def folders(encode):
    """{name: bytes} of the image folders: three images of every class, one of each official split."""
    content = {}
    for label, name in enumerate(fer2013.CLASS_NAMES):
        for index, usage in enumerate(USAGES):
            folder = "train" if usage == "Training" else "test"
            content[f"{folder}/{name}/{usage}_{label}.png"] = encode(seed=3 * label + index)
    return content


@pytest.mark.parametrize("packing", PACKINGS)
def test_image_folders_in_every_packing(pack, folders, packing, assert_same):
    faces = fer2013.read(pack(folders, packing))
    assert_same(faces, fer2013.read(pack(folders, name="reference")))
    assert np.unique(faces["splits"], return_counts=True)[1].tolist() == [7, 7, 7]
    assert np.bincount(faces["labels"]).tolist() == [3] * 7
    assert set(faces["formats"]) == {"PNG L 48x48"}
    assert str(faces["sources"][0]) == "test/angry/PrivateTest_0.png"
    assert faces["splits"][0] == "test"


def test_a_leading_folder_and_other_class_names(pack, folders, assert_same):
    aliases = {"angry": "Anger", "disgust": "disgusted", "fear": "Fearful", "happy": "happiness", "sad": "sadness"}
    renamed = {}
    for name, data in folders.items():
        folder, label, file = name.split("/")
        renamed[f"images/{folder}/{aliases.get(label, label)}/{file}"] = data
    one, other = fer2013.read(pack(folders)), fer2013.read(pack(renamed, name="renamed"))
    assert one.pop("sources").tolist() != other.pop("sources").tolist()
    order = np.lexsort([one["splits"], one["labels"]]), np.lexsort([other["splits"], other["labels"]])
    for key in ("images", "labels", "splits"):
        np.testing.assert_array_equal(one[key][order[0]], other[key][order[1]])


def test_without_usage_in_the_names_the_folder_is_the_split(pack, folders):
    renamed = {name.replace("Training_", "").replace("Test_", "_"): data for name, data in folders.items()}
    renamed = {name.replace("Public_", "a").replace("Private_", "b"): data for name, data in renamed.items()}
    faces = fer2013.read(pack(renamed))
    assert sorted(set(faces["splits"])) == ["test", "train"]
    assert any("val is empty" in note for note in faces["recipe"]["notes"])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train/bored/Training_1.png", ["faces/train/bored/Training_1.png", "angry, disgust"]),
        ("Training_1.png", ["faces/Training_1.png", "not in a class folder"]),
        ("train/angry/PublicTest_1.png", ["faces/train/angry/PublicTest_1.png", "do not agree on a split"]),
        ("angry/1.png", ["faces/angry/1.png", "do not agree on a split"]),
    ],
)
def test_a_misplaced_image_is_named(pack, folders, refused, name, parts):
    message = refused("fer2013", pack({**folders, name: folders["train/angry/Training_0.png"]}))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_unreadable_image_is_named(pack, folders, refused, content):
    message = refused("fer2013", pack({**folders, "train/angry/Training_9.png": content}, "tar.gz"))
    assert "faces.tar.gz: train/angry/Training_9.png" in message
    assert "remove it" in message


def test_nothing_of_the_set(pack, refused):
    assert "contains neither a CSV" in refused("fer2013", pack({"a.txt": b"x"}, "zip"))


def test_a_bare_csv_of_something_else(pack, refused):
    assert "contains neither a CSV" in refused("fer2013", pack({"a.csv": b"x,y\n1,2\n"}, "zip"))
