"""Predictions of pictures and videos are written as they are made: complete, described, and whatever the input is."""

import csv
import json
import os
import signal
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny_networks import fake, faking, picture

from engrec.faces import video as videos
from engrec.faces.video import Video, write_video
from engrec.use import recording
from engrec.use.answers import Seen
from engrec.use.command import end
from engrec.use.inputs import Input, find
from engrec.use.recording import record, with_boxes
from engrec.use.timeline import Timeline

TABLES, SHEET = ["predictions.csv", "predictions.json"], "pictures.png"
OF_VIDEO = ["predictions_windows.csv"]


@pytest.fixture(autouse=True)
def small_timelines(monkeypatch):
    """test_timeline.py looks at real ones."""
    monkeypatch.setattr(Timeline, "figure", lambda _: Figure(figsize=(1, 1)))


@pytest.fixture
def said():
    return []


@pytest.fixture
def write(tmp_path, said):
    """Record the given files of tmp_path to tmp_path/out."""

    def write(*names, predictor=None, **options):
        inputs, problems = find([tmp_path / name for name in names])
        options = {"failed": problems, "say": said.append} | options
        return record(predictor or faking(), inputs, tmp_path / "out", **options)

    return write


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def lesson(path, number=36, rate=10, faces=True):
    """A video in which a square moves, and is away in the middle third."""
    away = range(number // 3, 2 * number // 3) if faces else range(number)
    frames = [picture(x=10 + n, value=0 if n in away else 180, size=(120, 160)) for n in range(number)]
    write_video(path, frames, rate)


def test_a_video_and_pictures(write, tmp_path, said):
    lesson(tmp_path / "lesson.mp4")
    Image.fromarray(picture()).save(tmp_path / "face.png")
    Image.fromarray(picture(value=0)).save(tmp_path / "empty.png")
    done = write("lesson.mp4", "face.png", "empty.png")
    assert said == done.failed == []
    assert names_in(tmp_path / "out") == sorted([SHEET, *TABLES, *OF_VIDEO, "lesson_timeline.png"])
    assert done.answers == [f"{tmp_path / 'face.png'}: face 0, happy 78%, high 78%"]
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert len(rows) == done.num_rows == 36 + 2
    of_video, (face, empty) = rows[:36], rows[36:]
    assert [int(row["frame"]) for row in of_video] == list(range(36))
    assert [float(row["timestamp"]) for row in of_video] == pytest.approx([n / 10 for n in range(36)], abs=1e-3)
    assert [row["success"] for row in of_video] == ["1"] * 12 + ["0"] * 12 + ["1"] * 12
    assert {row["face_id"] for row in of_video} == {"0", ""}
    assert (face["input"], face["success"], face["timestamp"]) == (str(tmp_path / "face.png"), "1", "")
    assert (empty["success"], empty["happy"], empty["prediction_engagement"]) == ("0", "", "")
    [window] = rows_of(tmp_path / "out" / "predictions_windows.csv")
    assert float(window["share"]) == pytest.approx(24 / 36, abs=1e-3)
    of_one = [one for one in done.counted if one.kind == "video"]
    assert [(one.read, one.faces, one.none, one.ids) for one in of_one] == [(36, 24, 12, 1)]


def test_the_description_says_how_they_were_made(write, tmp_path):
    lesson(tmp_path / "lesson.mp4", 12)
    write("lesson.mp4", "missing.png", every=0.5)
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert about["complete"] is False
    assert about["unreadable"] == [f"{tmp_path / 'missing.png'} does not exist"]
    assert "Article 5(1)(f)" in " ".join(about["intended_use"])
    assert [one["name"] for one in about["weights"]] == ["expression", "engagement"]
    assert about["weights"][0]["sha256"] == "0" * 64
    assert about["weights"][0]["crop"]["side"] == about["crop"]["side"] == 1.0
    assert {"python", "torch", "numpy", "engrec"} <= set(about["versions"])
    assert about["inputs"][0]["read"] == about["rows"] == 3
    assert about["faces"]["seconds_between_frames"] == 0.5


def test_answers_of_many_faces_are_in_the_table_alone(write, tmp_path):
    for number in range(11):
        Image.fromarray(picture()).save(tmp_path / f"{number}.png")
    assert len(write(*(f"{number}.png" for number in range(10))).answers) == 10
    assert write(*(f"{number}.png" for number in range(11))).answers == []


def test_pictures_alone_have_no_windows(write, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    write("face.png")
    assert names_in(tmp_path / "out") == [SHEET, *TABLES]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["complete"] is True


def test_a_copy_with_boxes_has_the_same_frames(write, tmp_path):
    lesson(tmp_path / "lesson.mp4", 24)
    done = write("lesson.mp4", boxes=True)
    assert done.num_rows == 24
    with Video(tmp_path / "out" / "lesson_boxes.mp4") as copy, Video(tmp_path / "lesson.mp4") as original:
        pairs = list(zip(copy.frames(), original.frames(), strict=True))
    assert len(pairs) == 24
    assert [ours[0] for ours, _ in pairs] == pytest.approx([theirs[0] for _, theirs in pairs], abs=2e-3)
    changed = [np.abs(ours[1].astype(int) - theirs[1])[:100].max() > 100 for ours, theirs in pairs]  # not the note
    assert changed == [True] * 8 + [False] * 8 + [True] * 8


def test_frames_of_one_time_are_a_tick_apart_in_the_copy():
    frames = [Seen("a.mp4", n, seconds, (), (), picture()) for n, seconds in enumerate([0.0, 0.0, 0.0, 0.5, 0.5])]
    assert [seconds for seconds, _ in with_boxes(frames)] == pytest.approx([0, 0.001, 0.002, 0.5, 0.501])


def test_videos_that_are_called_alike_keep_their_pictures(write, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        lesson(tmp_path / folder / "lesson.mp4", 6)
    write("one", "two")
    assert names_in(tmp_path / "out") == sorted([*TABLES, *OF_VIDEO, "lesson-2_timeline.png", "lesson_timeline.png"])


def test_videos_with_names_that_are_long_or_no_text_keep_their_pictures(write, tmp_path):
    names = ["é" * 120 + ".mp4", os.fsdecode(b"\xff.mp4")]
    lesson(tmp_path / "lesson.mp4", 6)
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "lesson.mp4").read_bytes())
    assert write(*names, boxes=True).failed == []
    endings = [f"{stem}{ending}" for stem in ("", "é" * 90) for ending in ("_boxes.mp4", "_timeline.png")]
    assert names_in(tmp_path / "out") == sorted([*TABLES, *OF_VIDEO, *endings])
    write(*names, boxes=True)


def test_pictures_of_earlier_predictions_are_no_inputs(write, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    lesson(tmp_path / "lesson.mp4", 6)
    for _ in range(2):
        write(".", boxes=True)
        assert [one.name for one in find([tmp_path])[0]] == [
            str(tmp_path / name) for name in ("face.png", "lesson.mp4")
        ]
        assert "lesson_boxes.mp4" in names_in(tmp_path / "out")


def test_what_cannot_be_read_is_one_line_each_and_the_rest_is_read(write, tmp_path, said):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.png").write_bytes((tmp_path / "face.png").read_bytes()[:60])
    lesson(tmp_path / "lesson.mkv", 60)
    content = (tmp_path / "lesson.mkv").read_bytes()
    (tmp_path / "lesson.mkv").write_bytes(content[: len(content) * 2 // 3])
    done = write("")
    assert len(said) == len(done.failed) == 5
    for name in ("text.png", "empty.jpg", "text.mp4", "cut.png", "lesson.mkv"):
        [line] = [line for line in said if name in line]
        assert line.startswith(f"error: {tmp_path / name}")
        assert line.count(name) == 1
        assert "\n" not in line
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert {Path(row["input"]).name for row in rows} == {"face.png", "lesson.mkv"}
    assert "lesson_timeline.png" in names_in(tmp_path / "out")


def test_where_nothing_can_be_read_nothing_is_written(write, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.mp4").write_text("no video")
    done = write("text.png", "text.mp4")
    assert len(done.failed) == 2
    assert not (tmp_path / "out").exists()


def test_without_av_a_video_says_what_to_install(write, tmp_path, said, monkeypatch):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    lesson(tmp_path / "lesson.mp4", 4)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    write("face.png", "lesson.mp4")
    assert names_in(tmp_path / "out") == [SHEET, *TABLES]
    [line] = said
    assert "pip install -e '.[use]'" in line
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 1


def test_another_folder_is_not_touched_and_earlier_predictions_are_replaced(write, tmp_path):
    lesson(tmp_path / "lesson.mp4", 6)
    Image.fromarray(picture()).save(tmp_path / "face.png")
    write("lesson.mp4", boxes=True)
    write("face.png")
    assert names_in(tmp_path / "out") == [SHEET, *TABLES]
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"out holds other files \(mine\.txt\): choose another folder"):
        write("face.png")


def test_files_of_others_stay_whatever_they_are_called(write, tmp_path):
    """They may end as predictions do, or be called as those; and the input may be in the folder of earlier ones."""
    lesson(tmp_path / "lesson.mp4", 6)
    Image.fromarray(picture()).save(tmp_path / "face.png")
    (tmp_path / "out").mkdir()
    for name in ("holiday_boxes.mp4", "x_timeline.png", "predictions.csv"):
        (tmp_path / "out" / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds other files .{name}.: choose another folder"):
            write("face.png")
        assert (tmp_path / "out" / name).read_text() == "mine"
        (tmp_path / "out" / name).unlink()
    write("lesson.mp4", boxes=True)
    with pytest.raises(ValueError, match=r"holds other files .lesson_boxes\.mp4."):
        write("out/lesson_boxes.mp4")


def test_what_a_killed_run_has_left_of_the_same_video_is_replaced(write, tmp_path):
    lesson(tmp_path / "lesson.mp4", 6)
    (tmp_path / "out").mkdir()
    (tmp_path / "again").mkdir()
    lesson(tmp_path / "again/lesson.mp4", 6)
    for name in ("lesson_timeline.png", "lesson-2_timeline.png"):
        (tmp_path / "out" / name).write_text("of a run that has no tables")
    write("lesson.mp4", "again/lesson.mp4")
    assert (tmp_path / "out" / "lesson_timeline.png").read_bytes().startswith(b"\x89PNG")


def test_a_video_that_the_system_does_not_open_costs_one_line(write, tmp_path, said, monkeypatch):
    """As without the right to read it, which root always has, or on a broken disk."""
    Image.fromarray(picture()).save(tmp_path / "face.png")
    lesson(tmp_path / "lesson.mp4", 6)
    opened = Path.open

    def refusing(path, *arguments, **options):
        if path.name == "lesson.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    assert write("lesson.mp4", "face.png").num_rows == 1
    assert said == [f"error: {tmp_path / 'lesson.mp4'} cannot be opened: Permission denied"]


def test_a_video_too_low_for_a_copy_costs_one_line(write, tmp_path, said):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    with av.open(tmp_path / "low.avi", "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 1, "bgr24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((1, 64, 3), np.uint8), "bgr24")))
        container.mux(stream.encode())
    write("low.avi", "face.png", boxes=True)
    assert said == [f"error: {tmp_path / 'low.avi'}: frames of 64 × 1 pixels are too small for a video"]
    assert TABLES[0] in names_in(tmp_path / "out")


def test_names_of_py_feat(write, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    write("face.png", names="py-feat")
    [row] = rows_of(tmp_path / "out" / "predictions.csv")
    assert {"approx_time", "Identity", "FaceScore", "anger", "happiness"} <= set(row)
    assert row["prediction_expression"] == "happiness"


class Endless:
    """A video of any length, that takes no time to decode."""

    def __init__(self, number, at=None, rate=30):
        self.num_frames, self.duration, self.damage, self.at = number, number / rate, None, at or {}
        self.rate = rate

    def __call__(self, path):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def frames(self, every=None):
        for n in range(self.num_frames):
            self.at.get(n, lambda: None)()
            yield n / self.rate, picture(x=5 + abs(n % 40 - 20), side=12, size=(24, 48))


@pytest.fixture
def endless(monkeypatch, tmp_path):
    def endless(number, boxes=False, **how):
        monkeypatch.setattr(recording, "Video", Endless(number, **how))
        inputs = [Input(tmp_path / "a.mp4", "a.mp4", is_video=True)]
        return record(faking(fake()), inputs, tmp_path / "out", boxes=boxes, say=lambda _: None)

    return endless


@pytest.mark.parametrize(("number", "boxes"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_ctrl_c_keeps_complete_rows_and_says_so(endless, tmp_path, capsys, number, boxes):
    done = endless(120, boxes, at={100: lambda: signal.raise_signal(number)})
    assert done.stopped == 128 + number
    with pytest.raises(SystemExit):
        end(done, 1)
    copy = "; a_boxes.mp4 was not complete, and is not kept" if boxes else ""
    assert capsys.readouterr().err == f"stopped: {done.num_rows} rows kept in {tmp_path / 'out'}{copy}\n"
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert len(rows) == done.num_rows >= 64
    assert all(None not in row.values() and row["happy"] for row in rows)
    assert rows_of(tmp_path / "out" / "predictions_windows.csv")[0]["face_id"] == "0"
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["complete"] is False
    assert names_in(tmp_path / "out") == sorted([*TABLES, *OF_VIDEO, "a_timeline.png"])


def test_ctrl_c_before_the_first_row_leaves_nothing(endless, tmp_path):
    done = endless(500, at={1: lambda: signal.raise_signal(signal.SIGINT)})
    assert (done.stopped, done.num_rows) == (130, 0)
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_nothing_half_written(endless, tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        endless(120, at={100: full})
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert not list(tmp_path.glob("out/.*"))


def grown(endless, number):
    """Bytes at most while so many frames are read."""
    tracemalloc.start()
    endless(number, rate=4)  # so that the timeline is full after a few
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_video(endless, monkeypatch):
    monkeypatch.setattr(Timeline, "write", lambda *_: None)
    grown(endless, 100)  # what is loaded once
    assert grown(endless, 500) < grown(endless, 200) + 100_000


@pytest.mark.slow
def test_memory_does_not_grow_over_ten_thousand_frames(endless, monkeypatch):
    monkeypatch.setattr(Timeline, "write", lambda *_: None)
    grown(endless, 100)
    assert grown(endless, 10_000) < grown(endless, 1000) + 300_000


def test_videos_are_read_by_the_module_that_the_tests_replace():
    assert recording.Video is videos.Video
