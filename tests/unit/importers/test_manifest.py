"""People's own data: a CSV or class folders, and a message for everything that can be wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from video_sets import write_xlsx

from engrec.datasets.prepared import Faces
from engrec.importers import manifest
from engrec.importers.manifest import Options

PACKINGS = ("folder", "zip", "tar", "tar.gz", "tar.xz", "tar.bz2")
TABLE = """path,label,subject,split
img/1.png,engaged,s1,train
img/2.png,bored,s1,train
img/3.png,engaged,s2,val
img/4.png,bored,s3,test
"""


@pytest.fixture
def write(tmp_path, encode):
    """The table beside its four images."""

    def write(text=TABLE, name="faces.csv", encoding="utf-8"):
        (tmp_path / "img").mkdir(exist_ok=True)
        for number in range(1, 5):
            (tmp_path / "img" / f"{number}.png").write_bytes(encode(seed=number))
        (tmp_path / name).write_text(text, encoding)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace("path,label,subject,split", "Path , LABEL, Subject ,Split"),
        "\n".join(",".join(reversed(line.split(","))) for line in TABLE.splitlines()),
        TABLE.replace("val", "Validation").replace("test", "testing").replace("train", "training"),
        TABLE.replace("img/1.png", '"./img/1.png"'),
        TABLE.replace("img/1.png", "img\\1.png"),
        "\ufeff" + TABLE.replace("\n", "\r\n"),
        TABLE + "\n,,,\n",
        "\n".join(line + (",age" if line.startswith("path") else ",17") for line in TABLE.splitlines()),
    ],
    ids=["comma", "semicolon", "tab", "case", "order", "aliases", "quotes", "backslash", "bom-crlf", "blank", "extra"],
)
def test_csv_variants_give_the_same_set(write, text, assert_same):
    faces = manifest.read(write(text, "other.csv"), Options("mine"))
    reference = manifest.read(write(), Options("mine"))
    faces["sources"] = np.char.replace(faces["sources"], "./", "")
    assert_same(faces, reference)
    assert reference["class_names"] == ("bored", "engaged")
    assert reference["labels"].tolist() == [1, 0, 1, 0]
    assert reference["subjects"].tolist() == ["s1", "s1", "s2", "s3"]
    assert reference["splits"].tolist() == ["train", "train", "val", "test"]
    assert reference["sources"].tolist() == [f"img/{number}.png" for number in range(1, 5)]
    assert Faces(**reference).name == "mine"


def test_subject_and_split_are_optional(write):
    faces = manifest.read(
        write("\n".join(",".join(line.split(",")[:2]) for line in TABLE.splitlines())), Options("mine")
    )
    assert "subjects" not in faces
    assert "splits" not in faces


def test_columns_that_are_not_used_are_said(write):
    lines = TABLE.splitlines()
    more = "\n".join(line + (",clip,Age" if line.startswith("path") else ",c,17") for line in lines)
    assert manifest.read(write(more), Options("mine"))["recipe"]["notes"] == ["columns that are not used: clip, age"]
    assert manifest.read(write(), Options("mine"))["recipe"]["notes"] == []


def test_options(write):
    faces = manifest.read(write(), Options("mine", classes=["engaged", "bored"], size=20, colour="rgb"))
    assert faces["images"].shape == (4, 3, 20, 20)
    assert faces["labels"].tolist() == [0, 1, 0, 1]
    assert faces["recipe"]["size"] == [20, 20]
    assert faces["recipe"]["colour"] == "rgb"


def test_classes_may_be_levels_in_order(write):
    levels = ["engaged", "bored", "asleep"]
    source = write(TABLE.replace("bored", "asleep", 1))
    for ordered in (True, False):
        assert Faces(**manifest.read(source, Options("mine", classes=levels, ordered=ordered))).ordered == ordered


def test_paths_may_start_from_another_root(write, tmp_path):
    source = write()
    (tmp_path / "lists").mkdir()
    moved = source.rename(tmp_path / "lists" / "faces.csv")
    assert manifest.read(moved, Options("mine", root=tmp_path))["labels"].tolist() == [1, 0, 1, 0]


def test_a_spreadsheet_is_read_as_its_csv(write, tmp_path, assert_same):
    reference = manifest.read(write(), Options("mine"))
    write_xlsx(tmp_path / "faces.xlsx", [line.split(",") for line in TABLE.splitlines()])
    assert_same(manifest.read(tmp_path / "faces.xlsx", Options("mine")), reference)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("path,", "file,", ["line 1 lacks the column path", "found file, label", "must name path and label"]),
        ("label,", "class,", ["line 1 lacks the column label"]),
        ("subject,", "label,", ["line 1 names the column label twice"]),
        ("img/3.png", "img/9.png", ["line 4: img/9.png is not in", "--root"]),
        ("img/3.png", "../3.png", ["line 4: ../3.png leads out of the folder", "--root"]),
        ("img/3.png", "/etc/passwd", ["line 4: /etc/passwd leads out of the folder", "--root"]),
        ("img/3.png", "link.png", ["line 4: link.png leads out of the folder"]),
        ("img/3.png", "img/1.png", ["line 4: img/1.png is in faces.csv line 2 already", "delete"]),
        ("img/3.png", "./img/1.png", ["line 4", "is in faces.csv line 2 already"]),
        ("img/3.png", "zero.png", ["line 4: zero.png is empty (0 bytes)"]),
        ("img/3.png", "faces.csv", ["line 4: faces.csv must be one of BMP, GIF, JPEG", "remove it"]),
        ("img/3.png,engaged", "img/3.png,", ["line 4 has no label", "fill it in"]),
        ("s2,val", ",val", ["line 4 has no subject", "fill it in, or delete the column"]),
        ("s2,val", "s2,later", ["line 4 has split 'later'", "train, val, test"]),
        ("s2,val", "s1,val", ["line 4 puts subject s1 in val", "faces.csv line 2 in train", "split=kfold"]),
        ("img/3.png", "img/\x003.png", ["line 4 has a line break or control character in path"]),
        ("s2,val", "s2", ["line 4 has 3 cells, expected 4", "quote"]),
        ("bored", "engaged", ["only one class, 'engaged'", "two or more"]),
    ],
)
def test_a_wrong_row_is_named(write, refused, tmp_path, old, new, parts):
    source = write(TABLE.replace(old, new))
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    message = refused("manifest", source, "--name", "mine")
    for part in ["faces.csv", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--classes", "bored,happy"], ["line 2 has label 'engaged'", "bored, happy"]),
        (["--classes", "bored,engaged,happy"], ["no image of class happy", "remove it from --classes"]),
        (["--classes", "bored,engaged,bored"], ["--classes bored,engaged,bored has an empty or repeated name"]),
        (["--subject-regex", r"(\d)"], ["line 2 has a subject already"]),
        (["--subject-regex", "("], ["--subject-regex '('", "not a regular expression"]),
        (["--subject-regex", r"\d+"], ["0 groups", "in parentheses"]),
        (["--size", "0"], ["size must be 1 to 1024"]),
        (["--ordered"], ["--ordered needs the levels in their order", "--classes low,middle,high"]),
    ],
)
def test_a_wrong_option_is_named(write, refused, options, parts):
    message = refused("manifest", write(), "--name", "mine", *options)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "encoding", "parts"),
    [
        ("", "utf-8", ["line 1 lacks the column path, label", "found nothing"]),
        ("path,label\n", "utf-8", ["no rows"]),
        (TABLE.replace("bored", "gelangwéilt"), "latin-1", ["not UTF-8", "save it as CSV in UTF-8"]),
        (TABLE.replace("bored", "b" * 200_000), "utf-8", ["not a CSV file", "field limit"]),
    ],
)
def test_a_file_that_is_no_table(write, refused, text, encoding, parts):
    message = refused("manifest", write(text, encoding=encoding), "--name", "mine")
    for part in ["faces.csv", *parts]:
        assert part in message


@pytest.fixture
def folders(encode):
    return {
        f"{label}/s{subject}_{frame}.png": encode(seed=subject * 10 + frame)
        for label in ("bored", "engaged")
        for subject in (1, 2)
        for frame in (1, 2)
    }


@pytest.mark.parametrize("packing", PACKINGS)
def test_class_folders_in_every_packing(pack, folders, packing, assert_same):
    faces = manifest.read(pack(dict(reversed(folders.items())), packing), Options("mine", subject_regex=r"(s\d+)_"))
    assert_same(faces, manifest.read(pack(folders, name="reference"), Options("mine", subject_regex=r"(s\d+)_")))
    assert faces["class_names"] == ("bored", "engaged")
    assert faces["labels"].tolist() == [0] * 4 + [1] * 4
    assert faces["subjects"].tolist() == ["s1", "s1", "s2", "s2"] * 2
    assert "splits" not in faces


@pytest.mark.parametrize("lead", ["", "faces_v2/"])
def test_split_folders(pack, folders, lead):
    content = {f"{lead}{'train' if '/s1' in name else 'Validation'}/{name}": data for name, data in folders.items()}
    faces = manifest.read(pack(content, "zip"), Options("mine", subject_regex=r"(s\d+)_"))
    assert np.unique(faces["splits"], return_counts=True)[1].tolist() == [4, 4]
    assert set(zip(faces["splits"].tolist(), faces["subjects"].tolist(), strict=True)) == {
        ("train", "s1"),
        ("val", "s2"),
    }


def test_files_that_are_no_images_are_counted(pack, folders):
    faces = manifest.read(pack({**folders, "bored/notes.txt": b"x"}), Options("mine"))
    assert faces["recipe"]["notes"] == ["files that are not images, left out: 1, such as bored/notes.txt"]
    assert len(faces["images"]) == 8


@pytest.mark.parametrize(
    ("extra", "options", "parts"),
    [
        ("loose.png", [], ["faces/loose.png is not in a class folder", "expected CLASS/image.png"]),
        ("bored/deep/s1_1.png", [], ["not as deep as", "expected CLASS/image.png"]),
        ("test/bored/s9_1.png", [], ["has no split, but others have one"]),
        (
            "bored/x.png",
            ["--subject-regex", r"(s\d+)_"],
            ["faces/bored/x.png", "no subject in 1 of 9 images, such as 'bored/x.png'", "example"],
        ),
        ("empty/notes.txt", [], ["faces/empty contains no image", "class is empty", "remove the folder"]),
        ("sad/s1_1.png", ["--classes", "bored,engaged"], ["faces/sad/s1_1.png has label 'sad'", "--classes"]),
        ("bored/zero.png", [], ["faces/bored/zero.png is empty"]),
        ("bored/s9_1.png", ["--root", "."], ["--root", "remove --root"]),
    ],
)
def test_a_misplaced_file_is_named(pack, folders, encode, refused, extra, options, parts):
    content = b"" if "zero" in extra else encode()
    message = refused("manifest", pack({**folders, extra: content}), "--name", "mine", *options)
    for part in parts:
        assert part in message


def test_a_subject_in_two_split_folders_is_named(pack, folders, refused):
    content = {f"{split}/{name}": data for split in ("train", "test") for name, data in folders.items()}
    message = refused("manifest", pack(content, "tar.gz"), "--name", "mine", "--subject-regex", r"(s\d+)_")
    assert "faces.tar.gz: train/bored/s1_1.png puts subject s1 in train" in message
    assert "faces.tar.gz: test/bored/s1_1.png in test" in message


def test_no_images(pack, refused):
    assert "contains no images" in refused("manifest", pack({"a.txt": b"x"}, "zip"), "--name", "mine")


def rows_of(*labels):
    return [manifest.Row(f"faces.csv line {line}", "", label, None, None) for line, label in enumerate(labels, 2)]


def test_a_slip_in_a_label_is_no_class():
    with pytest.raises(ValueError, match=r"line 22 has label 'Engagd'.*mean 'engaged'.*--classes Engagd,engaged"):
        manifest._class_names(rows_of(*["engaged"] * 20, "Engagd"), Path("faces.csv"), None)
    named = manifest._class_names(rows_of(*["engaged"] * 20, "Engagd"), Path("faces.csv"), ["Engagd", "engaged"])
    assert named == ("Engagd", "engaged")
    assert manifest._class_names(rows_of(*["level1"] * 9, "level2"), Path("faces.csv"), None) == ("level1", "level2")


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (("engaged", "ann"), ("Engaged", "bob"), "line 3 has label 'Engaged', but faces.csv line 2 has 'engaged'"),
        (("engaged", "ann"), ("bored", "Ann"), "line 3 has subject 'Ann', but faces.csv line 2 has 'ann': write it in"),
        (("engaged", "é"), ("bored", "e\u0301"), "line 3 has subject"),
    ],
)
def test_two_spellings_of_a_class_or_person_are_refused(one, other, message):
    """As two people they could be in training and in test."""
    rows = [manifest.Row(f"faces.csv line {i}", "", *row, None) for i, row in enumerate((one, other), 2)]
    with pytest.raises(ValueError, match=message):
        manifest.checked(rows, Path("faces.csv"), manifest.Options("mine"))


def test_classes_that_are_named_may_differ_in_case_alone():
    rows, classes = rows_of("a", "A"), ["a", "A"]
    assert manifest.checked(rows, Path("faces.csv"), manifest.Options("mine", classes=classes))[1] == ("a", "A")
