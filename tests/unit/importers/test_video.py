"""DAiSEE, EngageNet and EngageWild: small stand-ins in their layouts, with their oddities."""

import re
import shutil
import sys

import numpy as np
import prepare
import pytest
import video_sets

from engrec.datasets.prepared import Faces, load
from engrec.faces.crop import Crop
from engrec.faces.video import write_video
from engrec.importers import daisee, engagenet, engagewild

IMPORTERS = {"daisee": daisee, "engagenet": engagenet, "engagewild": engagewild}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The three folders, by name."""
    root = tmp_path_factory.mktemp("sets")
    return {name: getattr(video_sets, f"make_{name}")(root / name) for name in IMPORTERS}


@pytest.fixture(scope="module")
def prepared(sets):
    return {name: faces_of(importer, sets[name]) for name, importer in IMPORTERS.items()}


def faces_of(importer, folder, every=0.25):
    return Faces(**importer.read(folder, every)[0])


def notes(faces):
    return "\n".join(faces.recipe["notes"])


@pytest.mark.parametrize("name", ["daisee", "engagenet", "engagewild"])
def test_a_row_is_the_face_in_one_frame_of_a_clip(prepared, name):
    faces = prepared[name]
    assert faces.images.shape[1:] == (1, 48, 48)
    assert faces.images.std(axis=(1, 2, 3)).min() > 10
    assert faces.ordered
    assert len(faces.class_names) == 4
    assert len(np.unique(faces.sources)) == len(faces)
    for clip, source in zip(faces.clips, faces.sources, strict=True):
        name, _, seconds = source.partition("@")
        assert name == clip
        assert float(seconds) in (0.0, 0.25, 0.5, 0.75)
    assert Crop.from_dict(faces.recipe["crop"]) == Crop(detect_size=320)
    assert faces.recipe["every"] == 0.25


@pytest.mark.parametrize("name", ["daisee", "engagenet", "engagewild"])
def test_labels_people_and_splits_are_those_of_the_clips(prepared, name):
    """The stand-ins are lighter the higher the level is, in the photograph of one and the same person."""
    faces = prepared[name]
    brightness = [faces.images[faces.labels == level].mean() for level in range(4)]
    assert np.diff(brightness).min() > 5
    for split, people in video_sets.SPLITS.items():
        here = faces.splits == {"Train": "train", "Validation": "val", "Test": "test"}[split]
        expected = set() if (name, split) == ("engagewild", "Test") else {str(number) for number in people}
        assert {subject[-1] for subject in faces.subjects[here]} == expected


def test_daisee_matches_clips_without_suffix_and_says_what_is_missing(prepared):
    faces = prepared["daisee"]
    assert set(faces.subjects[faces.clips == "1100011000"]) == {"110001"}
    mp4 = [format for format in faces.formats if format.startswith("H264")]
    assert len(mp4) == 4  # of a clip that the labels call .avi
    assert set(faces.formats.tolist()) == {"H264 RGB 160x120", "MPEG4 RGB 160x120"}
    assert "videos left out, as the label files do not list them: 1 (1100011093)" in notes(faces)
    assert "videos in the label files, but not in the folder: 1 (1100011094)" in notes(faces)
    assert "videos left out, as no frame has a face: 1 (1100011091)" in notes(faces)
    assert "videos that could not be read, or only in part: 1 (unreadable: 1100011092.avi cannot be read" in notes(
        faces
    )


def test_daisee_with_all_labels_in_one_file(copied):
    folder = copied("daisee")
    for path in folder.glob("Labels/T*.csv"):
        path.unlink()
    (folder / "Labels" / "ValidationLabels.csv").unlink()
    assert "1100011093" in faces_of(daisee, folder, every=0.5).clips


def test_frames_without_a_face_are_counted_by_class(prepared):
    assert "frames left out, as no face was found: 5 of 68 (7.4%); very_low 5 of 20 (25.0%), low 0 of 16" in (
        notes(prepared["daisee"])
    )
    assert (np.bincount(prepared["daisee"].labels) == [15, 16, 16, 16]).all()
    assert "no face" not in notes(prepared["engagewild"])


def test_engagenet_leaves_out_clips_without_a_subject(prepared):
    faces = prepared["engagenet"]
    assert faces.class_names == ("not_engaged", "barely_engaged", "engaged", "highly_engaged")
    assert "videos left out, as labelled without a subject: 1 (subject_2_as2uk9lhe9_vid_1_0)" in notes(faces)
    assert not np.isin("subject_2_as2uk9lhe9_vid_1_0", faces.clips)


def test_engagenet_with_one_table_and_lists_of_the_splits(sets, prepared, tmp_path):
    lists = {"Train": "train", "Validation": "valid", "Test": "test"}
    rows = ["chunk,label"]
    for split, name in lists.items():
        videos = sorted(sets["engagenet"].glob(f"{split}/*.mp4"))
        (tmp_path / f"{name}.txt").write_text("\n".join(path.name for path in videos))
        for path in videos:
            (tmp_path / "videos").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "videos")
            level = prepared["engagenet"].labels[prepared["engagenet"].clips == path.stem][:1]
            rows += [f"{path.name},{video_sets.SPELLED[level[0]] if len(level) else video_sets.ABSENT}"]
    (tmp_path / "final_labels.csv").write_text("\n".join(rows))
    faces = faces_of(engagenet, tmp_path)
    order = [np.argsort(one.sources) for one in (faces, prepared["engagenet"])]
    for array in ("images", "labels", "subjects", "splits", "clips"):
        one, other = (getattr(f, array)[o] for f, o in zip((faces, prepared["engagenet"]), order, strict=True))
        np.testing.assert_array_equal(one, other)


def test_engagewild_takes_numbers_for_levels(prepared):
    assert list(prepared["engagewild"].recipe["levels"].values()) == [0.0, 0.33, 0.66, 1.0]
    assert set(prepared["engagewild"].splits.tolist()) == {"train", "val"}


def test_the_command_and_the_file(sets, tmp_path, capsys):
    out = tmp_path / "engagewild.npz"
    assert prepare.main(["engagewild", str(sets["engagewild"]), "--every", "0.5", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "clips: 12; results are given per clip too" in printed
    assert re.search(r"^all +16 +8 +24$", printed, re.MULTILINE)
    assert load(out).clips.dtype.kind == "U"


@pytest.fixture
def copied(sets, tmp_path):
    """A data set that a test may change: its smallest person only, if that will do."""

    def copied(name):
        return shutil.copytree(sets[name], tmp_path / name)

    return copied


def test_a_person_in_two_splits_is_refused(copied, refused):
    folder = copied("daisee")
    shutil.move(folder / "DataSet" / "Test" / "110008", folder / "DataSet" / "Test" / "110001")
    message = refused("daisee", folder)
    assert "subject 110001 in test" in message or "puts subject 110001" in message
    assert "by person" in message


TWICE = ",0,3,1,0\n1100081015.mp4,0,2,1,0"


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "expected"),
    [
        ("daisee", "Labels/TestLabels.csv", ",0,3,1,0", ",0,4,1,0", "has the engagement '4', allowed: 0, 1, 2, 3"),
        ("daisee", "Labels/TestLabels.csv", ",0,3,1,0", TWICE, "the label 2, but TestLabels.csv line 5 gives 3"),
        ("daisee", "Labels/TestLabels.csv", "Engagement", "Level", "lacks the column engagement"),
        ("engagenet", "test_engagement_labels.csv", "Highly-Engaged", "Bored", "has the label 'Bored', allowed: Not"),
        ("engagewild", "train_labels.csv", ",1", ",0.5", "has the label '0.5', allowed: 0, 0.33, 0.66, 1"),
        ("engagewild", "train_labels.csv", ",1", ",nan", "has the label 'nan'"),
    ],
)
def test_labels_that_do_not_belong_are_refused_with_their_line(copied, refused, name, path, old, new, expected):
    folder = copied(name)
    text = (folder / path).read_text()
    assert old in text
    (folder / path).write_text(text.replace(old, new))
    message = refused(name, folder)
    assert expected in message
    assert (folder / path).name in message


def test_wrong_folders_are_refused(tmp_path, refused, sets):
    (tmp_path / "nothing").mkdir()
    assert "contains no videos" in refused("daisee", tmp_path / "nothing")
    assert "is not a folder" in refused("daisee", tmp_path / "missing")
    assert "lacks the column clipid" in refused("daisee", sets["engagenet"])
    assert "--every 0.0 must be" in refused("engagewild", sets["engagewild"], "--every", "0")
    pattern = refused("engagewild", sets["engagewild"], "--subject-regex", r"(person\d+)_")
    assert "no subject found in the name" in pattern


def test_without_labels_or_with_labels_of_others(copied, refused):
    folder = copied("engagewild")
    for path in (folder / "train_labels.csv", folder / "validation_labels.xlsx"):
        path.unlink()
    assert "contains no label file" in refused("engagewild", folder)
    (folder / "labels.csv").write_text("video,label\nother.mp4,1\n")
    assert "no video has a label" in refused("engagewild", folder)
    video = next((folder / "Train").glob("*.mp4"))
    shutil.copy(video, folder / "Validation")
    assert f"has the video {video.stem} twice" in refused("engagewild", folder)


def test_clips_that_cannot_be_read_are_left_out_with_a_line_each(copied, tmp_path, capsys):
    folder, out = copied("daisee"), tmp_path / "daisee.npz"
    broken = sorted(folder.rglob("*10[01]?.avi"))[:7]
    for path in broken:
        path.write_bytes(b"no video")
    assert prepare.main(["daisee", str(folder), "--every", "0.25", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"error: 8 of 18 files could not be read, or only in part: {out} has the rest\n"
    assert not set(load(out).clips) & {path.stem for path in broken}
    lines = [line for line in printed.out.splitlines() if line.startswith("left out: unreadable: ")]
    assert {line.split()[3] for line in lines} == {"1100011092.avi", *(path.name for path in broken)}


def test_a_damaged_clip_is_used_as_far_as_it_goes(copied, tmp_path, capsys):
    folder = copied("daisee")
    clip = next((folder / "DataSet" / "Test" / "110007").rglob("*.avi"))
    rng = np.random.default_rng(0)
    frames = [video_sets.face(2, 7) // 2 + rng.integers(0, 60, (120, 160, 3), np.uint8) for _ in range(12)]
    write_video(clip.with_suffix(".mkv"), frames, rate=4)
    content = clip.with_suffix(".mkv").read_bytes()
    clip.with_suffix(".mkv").write_bytes(content[: len(content) * 3 // 5])
    clip.unlink()
    assert prepare.main(["daisee", str(folder), "--every", "0.25", "--out", str(tmp_path / "daisee.npz")]) == 1
    printed, faces = capsys.readouterr(), load(tmp_path / "daisee.npz")
    assert f"used in part, damaged: {clip.stem}.mkv: read " in printed.out
    assert printed.err.startswith("error: 2 of 18 files could not be read, or only in part: ")
    assert f": 2 (damaged: {clip.stem}.mkv: read " in notes(faces)
    assert 0 < (faces.clips == clip.stem).sum() < 12


def test_who_passes_in_front_is_not_taken(copied):
    folder = copied("daisee")
    clip = next((folder / "DataSet" / "Test" / "110007").rglob("*.avi"))
    left, right = video_sets.face(2, 7), np.kron(video_sets.face(3, 7)[20:90, 40:130], np.ones((2, 2, 1), np.uint8))
    alone, both, other = (np.full((200, 480, 3), 90, np.uint8) for _ in range(3))
    for scene in (alone, both):
        scene[:120, :160] = left
    for scene in (both, other):
        scene[:140, 160:340] = right
    write_video(clip, [alone] * 5 + [both] * 2 + [other], rate=4)
    faces = faces_of(daisee, folder)
    here = faces.clips == clip.stem
    assert faces.sources[here].tolist() == [f"{clip.stem}@{number / 4:.3f}" for number in range(7)]
    assert np.ptp(faces.images[here].astype(int), axis=0).max() < 60  # one face in all of them
    assert "frames left out, as only others were found: 1 of 7" in notes(faces)
    assert f"taken who is seen longest and largest: 1 ({clip.stem})" in notes(faces)


def test_without_pyav_the_command_to_install_it_is_named(sets, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install -e '.[use]'" in refused("daisee", sets["daisee"])
