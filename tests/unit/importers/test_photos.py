"""scripts/prepare.py faces: the face of each raw photograph and video frame, and an account of what is left out."""

import csv
import signal

import numpy as np
import prepare
import pytest
import skimage.data
from PIL import Image

from engrec.datasets.prepared import load
from engrec.faces.crop import STANDARD, Crop, crop
from engrec.faces.detect import Detector
from engrec.importers import photos


@pytest.fixture(scope="module")
def portrait():
    return skimage.data.astronaut()[20:240, 110:330]  # in the public domain


@pytest.fixture
def nobody():
    return np.full((64, 80, 3), 120, np.uint8)


@pytest.fixture
def jpeg(encode):
    return lambda pixels, **options: encode(pixels, kind="JPEG", quality=95, **options)


def run(out, *arguments):
    return prepare.main(["faces", *map(str, arguments), "--name", "mine", "--out", str(out)])


def rows_of(out):
    with (out.parent / f"{out.stem}_pictures.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_photographs_in_class_folders(pack, encode, jpeg, portrait, nobody, tmp_path, capsys):
    both = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    small = np.asarray(Image.fromarray(portrait).resize((64, 64)))
    lying = np.rot90(np.pad(small, ((20, 20), (20, 20), (0, 0)), mode="edge"))
    source = pack(
        {
            "bored/s1_1.png": encode(portrait),
            "bored/s1_2.png": encode(nobody),
            "engaged/s1_1.jpg": jpeg(both),
            "engaged/s2_2.png": encode(small),
            "engaged/s2_3.png": encode(lying),
            "engaged/notes.txt": b"x",
        }
    )
    out = tmp_path / "data" / "mine.npz"
    assert run(out, source, "--subject-regex", r"(s\d)_") == 0
    faces, printed = load(out), capsys.readouterr().out
    assert faces.sources.tolist() == ["bored/s1_1.png", "engaged/s1_1.jpg", "engaged/s2_2.png", "engaged/s2_3.png"]
    assert faces.class_names == ("bored", "engaged")
    assert faces.subjects.tolist() == ["s1", "s1", "s2", "s2"]
    assert faces.clips is None
    assert faces.formats.tolist() == ["PNG RGB 220x220", "JPEG RGB 440x220", "PNG RGB 64x64", "PNG RGB 104x104"]
    assert np.array_equal(faces.images[0], crop(portrait, Detector()(portrait)[0]))
    assert faces.recipe["importer"] == "faces"
    assert Crop.from_dict(faces.recipe["crop"]) == STANDARD
    assert faces.recipe["crop"]["detect_size"] == 640
    assert faces.recipe["left_out"] == {"no face": 1}
    assert "no face was found in 1 of 5 pictures, which were left out: bored 1 of 2, engaged 0 of 3" in printed
    assert "photographs with more than one face, of which the largest was taken: 1" in printed
    assert "faces smaller than 40 pixels: 2" in printed
    assert "faces found only after turning the picture: 1; look at them" in printed
    assert "files that are neither photographs nor videos, left out: 1, such as engaged/notes.txt" in printed
    assert "left out: no face: bored/s1_2.png" in printed
    check = "(no result about new people, only a leakage check: found 2 people, at least 3 are needed)"
    assert f"dataset.path={out} split=random\n  {check}" in printed
    rows = rows_of(out)
    assert [row["source"] for row in rows] == [
        "bored/s1_1.png", "bored/s1_2.png", "engaged/s1_1.jpg", "engaged/s2_2.png", "engaged/s2_3.png"
    ]  # fmt: skip
    assert [row["left_out"] for row in rows] == ["", "no face", "", "", ""]
    assert [row["small"] for row in rows] == ["0", "", "0", "1", "1"]
    assert [row["turned"] for row in rows] == ["0", "", "0", "0", "1"]
    assert [row["faces"] for row in rows] == ["1", "0", "2", "1", "1"]
    assert [path.name for path in sorted(out.parent.iterdir())] == ["mine.npz", "mine_pictures.csv"]


def test_the_largest_face_is_taken(pack, encode, portrait, tmp_path):
    half = np.zeros_like(portrait)
    half[:110, :110] = np.asarray(Image.fromarray(portrait).resize((110, 110)))
    source = pack({"a/1.png": encode(np.concatenate([half, portrait], axis=1)), "b/1.png": encode(portrait)})
    run(tmp_path / "mine.npz", source)
    of_two, alone = (float(row["face_px"]) for row in rows_of(tmp_path / "mine.npz"))
    assert of_two == pytest.approx(alone, rel=0.1)


def test_a_csv_with_subjects_and_splits(pack, encode, portrait, tmp_path):
    source = pack({f"{name}.png": encode(portrait) for name in ("1", "2", "3", "4")})
    table = "path,label,subject,split\n1.png,b,ann,train\n2.png,a,ann,train\n3.png,a,bob,test\n4.png,b,bob,test\n"
    (source / "faces.csv").write_text(table)
    assert run(tmp_path / "mine.npz", source / "faces.csv", "--size", "32", "--colour", "rgb") == 0
    faces = load(tmp_path / "mine.npz")
    assert faces.images.shape == (4, 3, 32, 32)
    assert faces.sources.tolist() == ["1.png", "2.png", "3.png", "4.png"]
    assert faces.subjects.tolist() == ["ann", "ann", "bob", "bob"]
    assert faces.splits.tolist() == ["train", "train", "test", "test"]
    assert faces.labels.tolist() == [1, 0, 0, 1]


def test_a_format_that_is_not_read_is_left_out_and_counted_in_its_class(pack, encode, portrait, tmp_path, capsys):
    image = encode(portrait)
    source = pack({"a/1.png": image, "b/1.png": image, "b/IMG_1.HEIC": b"\0\0\0\x18ftypheic"})
    assert run(tmp_path / "mine.npz", source) == 1
    said = capsys.readouterr()
    assert "left out: unreadable: b/IMG_1.HEIC is a picture in HEIC or AVIF, which is not read" in said.out
    assert "1 of 3 files could not be read" in said.err


def test_a_folder_that_cannot_be_written_to_is_said_before_faces_are_looked_for(
    pack, encode, portrait, tmp_path, capsys
):
    source = pack({"a/1.png": encode(portrait), "b/1.png": encode(portrait)})
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "mine.npz", source) == 1
    said = capsys.readouterr()
    assert "file cannot be written to (File exists): choose another folder" in said.err
    assert "no face" not in said.out


def test_a_folder_for_each_person(pack, encode, portrait, tmp_path):
    image = encode(portrait)
    source = pack({"a/ann/1.png": image, "a/bob/1.png": image, "b/ann/1.png": image})
    assert run(tmp_path / "mine.npz", source, "--person-folders") == 0
    faces = load(tmp_path / "mine.npz")
    assert faces.subjects.tolist() == ["ann", "bob", "ann"]
    assert faces.labels.tolist() == [0, 0, 1]


def test_the_folders_of_classes_may_be_in_those_of_people(pack, encode, portrait, tmp_path):
    image = encode(portrait)
    source = pack({"ann/a/1.png": image, "ann/b/1.png": image, "bob/a/1.png": image})
    assert run(tmp_path / "mine.npz", source, "--person-folders", "--classes", "b,a") == 0
    faces = load(tmp_path / "mine.npz")
    assert faces.subjects.tolist() == ["ann", "ann", "bob"]
    assert faces.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("above", ["", "all/", "train/"])
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["bored/ann/1.png", "engaged/ann/1.png"], "has folders in folders, ann in bored, engaged: if"),
        (["ann/bored/1.png", "bob/bored/1.png"], "has folders in folders, bored in ann, bob: if"),
    ],
)
def test_folders_of_people_name_the_option(pack, refused, names, found, above):
    message = refused("faces", pack({above + name: b"x" for name in names}), "--name", "mine")
    assert found in message
    assert (
        "if they are CLASS/PERSON, set --person-folders; if they are PERSON/CLASS, set --person-folders and" in message
    )


def test_what_cannot_be_read_is_left_out_with_a_line_each(pack, encode, jpeg, portrait, tmp_path, capsys):
    image = encode(portrait)
    source = pack(
        {
            "a/1.png": image,
            "a/2.png": image[:500],
            "a/3.jpg": b"",
            "a/4.jpg": b"not an image",
            "a/5.mp4": image,
            "b/1.png": image,
        }
    )
    (source / "b" / "2.png").symlink_to("/etc/hostname")
    out = tmp_path / "mine.npz"
    assert run(out, source) == 1
    printed = capsys.readouterr()
    assert printed.err == f"error: 5 of 7 files could not be read, or only in part: {out} has the rest\n"
    assert load(out).sources.tolist() == ["a/1.png", "b/1.png"]
    for name, said in {
        "a/2.png": "cannot be read as an image",
        "a/3.jpg": "is empty",
        "a/4.jpg": "is damaged, or no picture",
        "5.mp4": "is a picture, not a video",
        "b/2.png": "is a link",
    }.items():
        [line] = [line for line in printed.out.splitlines() if line.startswith(f"left out: unreadable: {name} ")]
        assert said in line
    assert sum(row["left_out"].startswith("unreadable: ") for row in rows_of(out)) == 5


def test_photographs_of_every_kind_are_upright_and_the_same(pack, encode, jpeg, portrait, tmp_path):
    image, rotated = Image.fromarray(portrait), Image.Exif()
    rotated[0x0112] = 6  # to be turned clockwise
    lying = image.rotate(90, expand=True)
    grey16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    source = pack(
        {
            "a/1.png": encode(portrait),
            "a/cmyk.jpg": jpeg(image.convert("CMYK")),
            "a/exif.jpg": jpeg(lying, exif=rotated),
            "a/grey16.png": encode(grey16),
            "b/animated.gif": encode(image, kind="GIF", save_all=True, append_images=[image.rotate(90)]),
        }
    )
    assert run(tmp_path / "mine.npz", source) == 0
    faces = load(tmp_path / "mine.npz")
    assert len(faces) == 5
    for other in faces.images[1:]:
        assert abs(faces.images[0].astype(int) - other).mean() < 12  # turned by 90°, it would be more than 40


def test_an_image_larger_than_any_camera_s_is_one_line(pack, encode, portrait, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    source = pack({"a/1.png": encode(portrait), "a/2.png": encode(portrait[:99]), "b/1.png": encode(portrait[:100])})
    assert run(tmp_path / "mine.npz", source, "--threshold", "0.3") == 1
    assert "left out: unreadable: a/1.png has more than 40,000 pixels, the most allowed: make it smaller" in (
        capsys.readouterr().out
    )


@pytest.fixture
def videos(tmp_path, portrait):
    pytest.importorskip("av")
    from engrec.faces.video import write_video

    scene = np.ascontiguousarray(portrait[:160])
    frames = [scene] * 12 + [np.zeros_like(scene)] * 6
    for label in ("bored", "engaged"):
        (tmp_path / label).mkdir()
        write_video(tmp_path / label / f"{label}.mp4", frames if label == "bored" else frames[:12], rate=6)
    return [tmp_path / label / f"{label}.mp4" for label in ("bored", "engaged")]


def test_videos_whose_folder_is_their_class(videos, tmp_path, capsys):
    out = tmp_path / "data" / "mine.npz"
    assert run(out, *videos, "--every", "0.5") == 0
    faces, printed = load(out), capsys.readouterr().out
    assert faces.sources.tolist() == [
        *(f"bored/bored.mp4@{seconds}" for seconds in ("0.000", "0.500", "1.000", "1.500")),
        *(f"engaged/engaged.mp4@{seconds}" for seconds in ("0.000", "0.500", "1.000", "1.500")),
    ]
    assert faces.clips.tolist() == ["bored/bored.mp4"] * 4 + ["engaged/engaged.mp4"] * 4
    assert faces.recipe["crop"]["detect_size"] == 320
    assert Crop.from_dict(faces.recipe["crop"]) == STANDARD
    assert (faces.recipe["every"], faces.recipe["source"]) == (0.5, "2 files")
    assert faces.clips.tolist() == ["bored/bored.mp4"] * 4 + ["engaged/engaged.mp4"] * 4
    assert "left out: bored 2 of 6, engaged 0 of 4" in printed
    assert [row["left_out"] for row in rows_of(out)] == [""] * 4 + ["no face"] * 2 + [""] * 4


def test_the_face_of_one_person_is_followed_through_a_video(videos, portrait, tmp_path, capsys):
    """Of the one who is seen longest, not of the one who passes in front."""
    from engrec.faces.video import write_video

    def scene(*sides):
        wide = np.zeros((220, 440, 3), np.uint8)
        for place, side in enumerate(sides):
            if side:
                wide[:side, 220 * place : 220 * place + side] = Image.fromarray(portrait).resize((side, side))
        return wide

    frames = [scene(160, 0)] * 5 + [scene(160, 220)] * 3 + [scene(0, 220)] * 2 + [scene(160, 0)] * 2
    write_video(tmp_path / "bored" / "class.mp4", frames, rate=1)
    out = tmp_path / "mine.npz"
    assert run(out, *videos, tmp_path / "bored" / "class.mp4") == 0
    rows = [row for row in rows_of(out) if row["source"].startswith("bored/class.mp4")]
    assert [row["left_out"] for row in rows] == [""] * 8 + ["only faces of others"] * 2 + [""] * 2
    assert [row["face_id"] for row in rows] == ["0"] * 8 + [""] * 2 + [rows[-1]["face_id"]] * 2
    assert all(float(row["x"]) < 160 for row in rows if row["x"])
    printed = capsys.readouterr().out
    assert (
        "videos with several people, of whom the one was taken who is seen longest and largest: 1 (bored/class.mp4)"
        in (printed)
    )
    assert "frames without that person, left out: 2" in printed


def test_a_face_that_follows_another_in_a_video_is_reported(videos, portrait, tmp_path, capsys):
    from engrec.faces.video import write_video

    scene = np.ascontiguousarray(portrait[:160])
    frames = [scene] * 4 + [np.zeros_like(scene)] * 4 + [scene] * 4
    write_video(tmp_path / "bored" / "away.mp4", frames, rate=1)
    assert run(tmp_path / "mine.npz", *videos, tmp_path / "bored" / "away.mp4") == 0
    printed = capsys.readouterr().out
    assert "videos in which one face follows another, perhaps another person's: 1 (bored/away.mp4)" in printed
    assert "videos with several people" not in printed


def test_a_truncated_video_is_used_as_far_as_it_goes(videos, tmp_path, capsys):
    from engrec.faces.video import Video, write_video

    cut, noise = tmp_path / "bored" / "cut.mkv", np.random.default_rng(0)
    with Video(videos[1]) as video:
        frames = [rgb // 2 + noise.integers(0, 50, rgb.shape, np.uint8) for _, rgb in video.frames()]
    write_video(cut, frames, rate=6)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 3 // 4])
    assert run(tmp_path / "mine.npz", cut, videos[1]) == 1
    printed = capsys.readouterr()
    assert "used in part, damaged: bored/cut.mkv: read " in printed.out
    assert printed.err.startswith("error: 1 of 2 files could not be read, or only in part: ")
    assert {"bored", "engaged"} == {source.split("/")[0] for source in load(tmp_path / "mine.npz").sources.tolist()}


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({}, (), "contains no photographs or videos: expected CLASS/photo.jpg"),
        ({"a/1.txt": b"x"}, (), "contains no photographs or videos"),
        ({"a/1.png": b"x"}, (), "has only one class"),
        ({"1.png": b"x"}, (), "is not in a class folder"),
        (
            {"a/1.png": b"x", "b/1.png": b"x"},
            (),
            "class a, b (2 unreadable, such as unreadable: a/1.png is damaged, or no picture",
        ),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--every", "0"), "--every must be 0.01 to 3600 seconds, found 0"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--every", "nan"), "--every must be 0.01 to 3600 seconds"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--detect-size", "5"), "detect_size must be 32 to 8192 pixels, found 5"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--detect-size", "0"), "detect_size must be 32 to 8192 pixels, found 0"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--threshold", "2"), "threshold must be above 0 and at most 1, found 2"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--person-folders",), "is not in the folder of a person"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--ordered",), "--ordered needs the levels"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--root", "x"), "--root is for the paths of a CSV"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, ("--size", "0"), "size must be 1 to 1024"),
    ],
)
def test_bad_input_is_one_line(pack, tmp_path, refused, content, options, said):
    source = pack(content)
    source.mkdir(exist_ok=True)
    assert said in refused("faces", source, "--name", "mine", *options)


def test_a_class_without_faces_is_refused(pack, encode, portrait, nobody, refused):
    source = pack({"a/1.png": encode(portrait), "b/1.png": encode(nobody)})
    assert "no face was found in the pictures of class b: look at them" in refused("faces", source, "--name", "mine")


def test_several_sources_must_be_files(pack, encode, portrait, tmp_path, refused):
    source = pack({"a/1.png": encode(portrait), "b/1.png": encode(portrait), "b/x.txt": b"x"})
    one, other, text = source / "a" / "1.png", source / "b" / "1.png", source / "b" / "x.txt"
    assert "more than one source" in refused("faces", source, one, "--name", "mine")
    assert "nowhere does not exist" in refused("faces", source / "nowhere", "--name", "mine")
    assert "is neither a folder, a CSV, a photograph nor a video" in refused("faces", one, text, "--name", "mine")
    assert "a/1.png is given twice" in refused("faces", one, other, one, "--name", "mine")


def test_videos_without_pyav_are_one_line(pack, refused, monkeypatch):
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    assert "videos need PyAV: pip install" in refused("faces", pack({"a/1.mp4": b"", "b/1.mp4": b""}), "--name", "mine")


def test_a_file_that_may_not_be_read_is_left_out(pack, encode, portrait, tmp_path, monkeypatch, capsys):
    source = pack({"a/1.png": encode(portrait), "a/2.png": encode(portrait), "b/1.png": encode(portrait)})
    opened = photos.files.read

    def read(file, folder, name):
        if name == "2.png":
            raise PermissionError(13, "Permission denied")
        return opened(file, folder, name)

    monkeypatch.setattr(photos.files, "read", read)
    assert run(tmp_path / "mine.npz", source) == 1
    assert "left out: unreadable: a/2.png: Permission denied" in capsys.readouterr().out


def test_ctrl_c_leaves_nothing(pack, encode, portrait, tmp_path, monkeypatch, capsys):
    source = pack({"a/1.png": encode(portrait), "b/1.png": encode(portrait)})
    monkeypatch.setattr(photos, "crop", lambda *_: signal.raise_signal(signal.SIGINT))
    out = tmp_path / "data" / "mine.npz"
    assert run(out, source) == 130
    assert capsys.readouterr().err == f"interrupted: {out} was not written\n"
    assert not out.parent.exists()
