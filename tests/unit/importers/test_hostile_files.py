"""Whatever the files of a data set contain, an importer reads them or refuses them in one line."""

import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD_TEXTS, damaged, drawn, in_one_line

from engrec.datasets.prepared import Faces
from engrec.importers import er, fer2013, ferplus, manifest, wacv2016
from engrec.importers.manifest import Options

USAGES = ("Training", "PublicTest", "PrivateTest")
FER = [["emotion", "pixels", "Usage"]] + [
    [str(i % 7), " ".join([str(9 * i)] * 2304), USAGES[i % 3]] for i in range(16)
]  # fmt: skip
VOTES = [["Usage", "Image name", *ferplus.COLUMNS]] + [
    [USAGES[i % 3], f"fer{i:07}.png", *(str(10 * (column == i % 8)) for column in range(10))] for i in range(16)
]  # fmt: skip
TABLE = [["path", "label", "subject", "split"]] + [
    [f"img/{i}.png", "ab"[i % 2], f"s{i}", ("train", "val", "test")[i % 3]] for i in range(8)
]  # fmt: skip
ENCODINGS = ("utf-8", "utf-16", "latin-1", "utf-8-sig", "cp037")
PACKINGS = ("zip", "tar", "tar.gz", "tar.xz")


def text_of(rows):
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


@st.composite
def tables(draw, rows):
    """The bytes of a CSV file in which a few cells, rows or columns are others."""
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, max(len(rows[at]) - 1, 0)))
        match draw(
            st.sampled_from(["cell", "drop row", "double row", "drop cell", "add cell", "drop column", "order"])
        ):
            case "cell" if rows[at]:
                rows[at][column] = draw(st.sampled_from(ODD_TEXTS))
            case "drop row" if len(rows) > 1:
                del rows[at]
            case "double row":
                rows.insert(at, rows[at])
            case "drop cell":
                del rows[at][column : column + 1]
            case "add cell":
                rows[at] = [*rows[at], draw(st.sampled_from(ODD_TEXTS))]
            case "drop column":
                rows = [row[:column] + row[column + 1 :] for row in rows]
            case "order":
                rows = draw(st.permutations(rows))
    content = text_of(rows).encode(draw(st.sampled_from(ENCODINGS)), errors="replace")
    return draw(damaged(content)) if draw(st.booleans()) else content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def imported(read, *arguments):
    """Import, and build the data set as scripts/prepare.py does."""
    return in_one_line(lambda: Faces(**read(*arguments)))


def write(path, content):
    path.write_bytes(content)
    return path


def test_the_tables_that_the_others_are_made_from_are_read(folder, encode):
    (folder / "img").mkdir()
    for number in range(8):
        write(folder / "img" / f"{number}.png", encode(seed=number))
    fer, votes = (write(folder / name, text_of(rows).encode()) for name, rows in (("fer.csv", FER), ("v.csv", VOTES)))
    assert len(imported(fer2013.read, fer)) == 16
    assert len(imported(ferplus.read, fer, votes)) == 16
    assert len(imported(manifest.read, write(folder / "t.csv", text_of(TABLE).encode()), Options("mine"))) == 8


@drawn()
@given(content=tables(FER))
def test_fer2013(folder, content):
    imported(fer2013.read, write(folder / "fer2013.csv", content))


@drawn()
@given(content=tables(VOTES), rule=st.sampled_from(ferplus.RULES))
def test_votes(folder, content, rule):
    fer = folder / "rows.csv"
    if not fer.exists():
        write(fer, text_of(FER).encode())
    imported(ferplus.read, fer, write(folder / "votes.csv", content), rule)


@drawn()
@given(content=tables(TABLE), name=st.sampled_from(["table.csv", "table.tsv"]))
def test_manifest(folder, content, name):
    imported(manifest.read, write(folder / name, content), Options("mine"))


LEVELS = [f"dataset/{level}/img{subject}_{frame}.jpg" for level in "123" for subject in (1, 12) for frame in (1, 2)]
CLASSES = [f"{split}/{label}/s{subject}.png" for split in ("train", "test") for label in "ab" for subject in (1, 2)]
ODD_NAMES = (
    "img1_1.jpg", "dataset/4/img1_1.jpg", "dataset/1/img" + "9" * 200 + "_1.jpg", "dataset/1/img٣_1.jpg", "a.png",
    "a/b/c/d.png",
    "../a.png", "/a.png", "C:/a.png", "a//b.png", "a/./b.png", "train/a/ .png", "train/ /x.png", "train/a/\u202e.png",
    "x" * 300 + ".png", "train/a", "train/a/.png", ".hidden/x.png", "a\x00.png", "train/a/\n.png", "test/c/1.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def picture():
    from PIL import Image

    def picture(seed, kind="PNG", size=(20, 20)):
        file = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return picture


@drawn()
@given(data=st.data())
def test_archives(pack, folder, picture, data):
    """Members that are damaged, missing, doubled or named oddly, then the archive itself damaged."""
    names, read = data.draw(
        st.sampled_from(
            [
                (LEVELS, wacv2016.read),
                (CLASSES, lambda path: manifest.read(path, Options("mine"))),
                (CLASSES, fer2013.read),
            ]
        )
    )
    content = {name: picture(number, "JPEG" if name.endswith("jpg") else "PNG") for number, name in enumerate(names)}
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from(names))
        match data.draw(st.sampled_from(["damage", "drop", "name", "empty", "foreign"])):
            case "damage":
                content[name] = data.draw(damaged(content.get(name, picture(0))))
            case "drop":
                content.pop(name, None)
            case "name":
                content[data.draw(st.sampled_from(ODD_NAMES))] = picture(99)
            case "empty":
                content[name] = b""
            case "foreign":
                content[name] = data.draw(st.sampled_from([b"text", b"P5 99999 99999 255\n", b"GIF89a" + bytes(7)]))
    source = pack(content, data.draw(st.sampled_from(PACKINGS)))
    if data.draw(st.booleans()):
        source.write_bytes(data.draw(damaged(source.read_bytes())))
    imported(read, source)


def test_a_member_with_a_password(pack, picture):
    source = pack({name: picture(0) for name in CLASSES}, "zip")
    content = bytearray(source.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"faces\.zip cannot be unpacked .*password"):
        manifest.read(source, Options("mine"))


def test_a_zip_whose_names_are_not_utf8(pack, picture):
    source = pack({name: picture(0) for name in [*CLASSES, "train/a/é.png"]}, "zip")
    source.write_bytes(source.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(ValueError, match=r"faces\.zip is truncated or damaged"):
        manifest.read(source, Options("mine"))


ARRAYS = {"X": np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8), "Y": np.array([0, 1, 0, 1])}
ODD_ARRAYS = (
    np.array(1), np.array([0, 1, np.nan, 1]), np.array([0, 1, np.inf, 1]), np.array([0, 1, 2, 1]),
    np.array(["0", "1", "0", "1"]),
    np.array([0, 1, None, 1], dtype=object), np.zeros((4, 48, 48)), np.full((4, 48, 48), 1e300),
    np.full((4, 48, 48), np.nan),
    np.zeros((0, 48, 48), np.uint8), np.zeros((4, 0), np.uint8), np.zeros((4, 48, 48), bool),
    np.zeros((4, 48, 48), "c16"),
    np.full((4, 48, 48), -1e308), np.array([True, False, True, False]), np.zeros((4, 48, 48, 1), np.float16),
    np.zeros(4, ">i8"),
    np.zeros((4, 2304), np.uint8), np.zeros((4, 48, 48, 3), np.uint8), np.array([b"a"] * 4), np.zeros(4, [("a", "i4")]),
)  # fmt: skip


@drawn()
@given(data=st.data())
def test_er(folder, data):
    for name, array in ARRAYS.items():
        if data.draw(st.booleans()):
            array = data.draw(st.sampled_from(range(len(ODD_ARRAYS))).map(ODD_ARRAYS.__getitem__))
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        content = file.getvalue()
        if data.draw(st.booleans()):
            content = data.draw(damaged(content[:128])) + content[128:]
        write(folder / f"{name}_train.npy", content)
    imported(er.read, folder)


def test_a_claimed_terabyte_takes_no_memory(tmp_path):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**9}, 48, 48), }}".ljust(117) + "\n"
    (tmp_path / "X_train.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    np.save(tmp_path / "Y_train.npy", np.array([0, 1]))
    with pytest.raises(ValueError, match=r"X_train\.npy cannot be read .*claims 2,304,000,000,000 bytes"):
        er.read(tmp_path)


def test_labels_that_are_no_number_are_named(tmp_path):
    np.save(tmp_path / "X_train.npy", ARRAYS["X"])
    np.save(tmp_path / "Y_train.npy", np.array([0, 1, np.nan, 1]))
    with pytest.raises(ValueError, match=r"Y_train\.npy row 2 is nan: labels must be 1"):
        er.read(tmp_path)


@pytest.mark.parametrize(
    ("row", "cell", "words"),
    [
        (3, "-1", "line 4 has votes that are not whole numbers: .*-1"),
        (3, "nan", "line 4 has votes that are not whole numbers: .*nan"),
        (3, "9" * 500, "line 4 has votes that are not whole numbers"),
        (3, "7", r"line 4 has 17 votes, allowed: 1 to 10"),
        (0, "usage", "line 1 lacks the column neutral"),
    ],
)
def test_votes_that_no_ten_people_gave(folder, tmp_path, row, cell, words):
    rows = [list(one) for one in VOTES]
    rows[row][2] = cell
    fer, votes = (write(tmp_path / n, text_of(r).encode()) for n, r in (("fer.csv", FER), ("votes.csv", rows)))
    with pytest.raises(ValueError, match=rf"^votes\.csv {words}"):
        ferplus.read(fer, votes)


def test_a_huge_number_in_an_image_name_takes_no_memory():
    assert [ferplus._number(name) for name in ("fer0000012.png", "fer0.png", "", "fer" + "9" * 30 + ".png")] == [
        12,
        0,
        -1,
        -1,
    ]


def test_links_that_name_each_other(tmp_path):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    table = write(tmp_path / "faces.csv", b"path,label\na.png,x\nb.png,y\n")
    with pytest.raises(ValueError, match=r"line 2: a\.png is not in"):
        manifest.read(table, Options("mine"))


def test_a_path_that_is_too_long(tmp_path):
    table = write(tmp_path / "faces.csv", b"path,label\n" + b"x" * 900 + b".png,x\nb.png,y\n")
    with pytest.raises(ValueError, match=r"line 2: x{900}\.png is not in"):
        manifest.read(table, Options("mine"))
    table.write_bytes(b"path,label\n" + b"x" * 5000 + b".png,x\nb.png,y\n")
    with pytest.raises(ValueError, match=r"line 2 has a cell of 5004 letters, allowed: 1000"):
        manifest.read(table, Options("mine"))


def test_a_folder_with_a_name_that_is_not_utf8(tmp_path, picture):
    for name in (b"a/1.png", b"b/2.png", b"a/\xff.txt"):
        path = tmp_path / "faces" / name.decode(errors="surrogateescape")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1))
    with pytest.raises(ValueError, match=r"'a/\\udcff\.txt' is not a printable UTF-8 name"):
        manifest.read(tmp_path / "faces", Options("mine"))
    (tmp_path / "faces" / "a" / "\udcff.txt").rename(tmp_path / "faces" / "a" / ".\udcff")
    assert len(imported(manifest.read, tmp_path / "faces", Options("mine"))) == 2
    renamed = (tmp_path / "faces").rename(tmp_path / "\udcff")
    assert imported(manifest.read, renamed, Options("mine")).recipe["source"] == "\\udcff"


def test_a_class_for_each_image_is_not_compared_with_every_other(tmp_path):
    rows = [manifest.Row("x", "", f"label {i}", None, None) for i in range(30_000)]
    manifest._check_lookalikes(rows)


def test_root_without_a_csv_names_the_source(tmp_path):
    with pytest.raises(ValueError, match=f"and {tmp_path.name} is not one"):
        manifest.read(tmp_path, Options("mine", root=tmp_path))


@pytest.mark.parametrize("text", ["a{99999999999}", "(" * 5000 + ")" * 5000])
def test_an_expression_that_cannot_be_compiled(text):
    with pytest.raises(ValueError, match=r"--subject-regex .* is not a regular expression"):
        manifest.subject_pattern(text)


def test_a_zip_with_an_empty_name(pack, picture):
    source = pack({name: picture(0) for name in [*CLASSES, "EMPTYNAME"]}, "zip")
    source.write_bytes(source.read_bytes().replace(b"EMPTYNAME", b"\0MPTYNAME"))
    with pytest.raises(ValueError, match=r"faces\.zip: '' is not a printable UTF-8 name"):
        manifest.read(source, Options("mine"))


def test_zip_directories_are_no_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.mkdir("train")
    with pytest.raises(ValueError, match=r"x\.zip contains no images"):
        manifest.read(tmp_path / "x.zip", Options("mine"))
