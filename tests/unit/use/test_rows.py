"""The tables: columns that OpenFace and py-feat users know, empty cells where there is no face, means by window."""

import csv
import io
from pathlib import Path

import pytest
from tiny_networks import fake

from engrec.use.answers import Answer, Answerer, Seen, SeenFace
from engrec.use.rows import FACE, OF_WINDOW, PY_FEAT, Columns, Table, Windows, face_rows

TWO = Answerer([fake("expression", ("angry", "happy", "sad")), fake("engagement", ("low", "high"))])


def seen(seconds=None, *faces, number=0):
    """A frame with faces given by id and probability of the last class of a network with two."""
    return Seen("a.mp4", number, seconds, tuple(face(seconds, *one) for one in faces), ())


def face(seconds, track, high):
    probabilities = {"low": 1 - high, "high": high}
    answer = Answer("mine", "engagement", probabilities, None if seconds is None else probabilities)
    return SeenFace("a.mp4", 0, seconds, track, (1.0, 2.0, 30.0, 40.0), 0.9, 40.0, 3.0, (answer,))


def read(header, rows):
    """The rows as somebody reads them from the file."""
    file = io.StringIO()
    Table(file, header).write(rows)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


ONE = Answerer([fake("engagement", ("low", "high"))])


def test_columns_of_one_network():
    columns = Columns(ONE)
    of_openface = ["input", "frame", "timestamp", "face_id", "success", "confidence"]
    box = ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "face_px", "roll"]
    assert columns.of_faces == [*of_openface, *box, "low", "high", "prediction", "smoothed_low", "smoothed_high"]
    assert columns.of_windows[:6] == ["input", "face_id", "start", "end", "seconds", "share"]
    assert columns.of_windows[6:] == ["low", "high", "prediction"]


def test_the_documentation_explains_every_column():
    text = (Path(__file__).parents[3] / "docs" / "predict.md").read_text(encoding="utf-8")
    names = [*FACE, *OF_WINDOW, *PY_FEAT.values(), "prediction", "prediction_expression", "prediction_engagement"]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_columns_of_two_networks():
    assert Columns(TWO).of_faces[12:] == [
        *["angry", "happy", "sad", "prediction_expression", "low", "high", "prediction_engagement"],
        *["smoothed_angry", "smoothed_happy", "smoothed_sad", "smoothed_low", "smoothed_high"],
    ]


def test_names_of_py_feat():
    columns = Columns(TWO, "py-feat")
    assert columns.of_faces[:6] == ["input", "frame", "approx_time", "Identity", "success", "FaceScore"]
    assert columns.of_faces[12:16] == ["anger", "happiness", "sadness", "prediction_expression"]
    assert "smoothed_anger" in columns.of_faces
    assert columns.label("angry") == "anger"
    assert columns.of_windows[:2] == ["input", "Identity"]


@pytest.mark.parametrize(
    "networks",
    [
        [fake(name="one"), fake(name="two")],
        [fake(name="one"), fake(name="one")],
        [fake(class_names=("frame", "roll"))],
        [fake(class_names=("prediction", "x"))],
        [fake(class_names=("a", "smoothed_a"))],
    ],
)
@pytest.mark.parametrize("names", ["engrec", "py-feat"])
def test_no_two_columns_have_one_name(networks, names):
    columns = Columns(Answerer(networks), names)
    for header in (columns.of_faces, columns.of_windows):
        assert len(set(header)) == len(header)


def test_a_face_is_a_row():
    [row] = read(Columns(ONE).of_faces, face_rows(seen(0.5, (3, 0.75), number=15), Columns(ONE)))
    assert row == {
        "input": "a.mp4",
        "frame": "15",
        "timestamp": "0.500",
        "face_id": "3",
        "success": "1",
        "confidence": "0.900",
        "FaceRectX": "1.0",
        "FaceRectY": "2.0",
        "FaceRectWidth": "30.0",
        "FaceRectHeight": "40.0",
        "face_px": "40.0",
        "roll": "3.0",
        "low": "0.2500",
        "high": "0.7500",
        "prediction": "high",
        "smoothed_low": "0.2500",
        "smoothed_high": "0.7500",
    }


def test_a_photograph_has_no_time_and_nothing_to_smooth():
    [row] = read(Columns(ONE).of_faces, face_rows(seen(None, (0, 0.75)), Columns(ONE)))
    assert row["timestamp"] == row["smoothed_low"] == row["smoothed_high"] == ""
    assert row["high"] == "0.7500"


def test_without_a_face_success_is_zero_and_every_answer_is_empty():
    [row] = read(Columns(TWO).of_faces, face_rows(seen(1.0, number=30), Columns(TWO)))
    assert row.pop("success") == "0"
    assert {name: value for name, value in row.items() if value} == {
        "input": "a.mp4", "frame": "30", "timestamp": "1.000",
    }  # fmt: skip


def windows_of(frames):
    windows = Windows("a.mp4", ONE, Columns(ONE))
    rows = [row for frame in frames for row in windows.add(frame)]
    return read(Columns(ONE).of_windows, rows + windows.finished())


def test_windows_have_means_of_the_frames_with_the_face():
    frames = [seen(n / 10, (0, 0.2 if n < 50 else 0.4), *([(1, 0.9)] if n % 2 else [])) for n in range(100)]
    frames += [seen(10 + n / 10, (1, 0.6)) for n in range(41)]
    first, second, third = windows_of(frames)
    assert {**first} == {
        "input": "a.mp4",
        "face_id": "0",
        "start": "0.000",
        "end": "10.000",
        "seconds": "10.000",
        "share": "1.000",
        "low": "0.7000",
        "high": "0.3000",
        "prediction": "low",
    }
    assert [second[name] for name in ("face_id", "seconds", "share", "high")] == ["1", "5.000", "0.500", "0.9000"]
    assert [third[name] for name in ("face_id", "start", "end", "seconds")] == ["1", "10.000", "14.000", "4.000"]


def test_a_window_without_faces_is_a_row_of_empty_cells():
    frames = [seen(n / 10, *([(0, 0.5)] if n >= 100 else [])) for n in range(150)]
    empty, full = windows_of(frames)
    assert empty == {
        "input": "a.mp4",
        "face_id": "",
        "start": "0.000",
        "end": "10.000",
        "seconds": "0.000",
        "share": "0.000",
        "low": "",
        "high": "",
        "prediction": "",
    }
    assert full["share"] == "1.000"


def test_windows_of_no_frames_and_of_one():
    assert windows_of([]) == []
    [row] = windows_of([seen(0.0, (0, 0.5))])
    assert (row["start"], row["end"], row["share"]) == ("0.000", "0.000", "1.000")
