"""Boxes and answers in frames, and on a sheet of pictures."""

import numpy as np
import pytest
from PIL import Image
from tiny_networks import picture

from engrec.use.answers import Answer, Seen, SeenFace
from engrec.use.drawing import ALONE, BOX, MOST_PICTURES, PAPER, SIDE, Sheet, drawn

ANSWERS = (
    Answer("expression", "expression", {"angry": 0.2, "neutral": 0.8}, {"angry": 0.1, "neutral": 0.9}),
    Answer("engagement", "engagement", {"low": 0.1, "middle": 0.4, "high": 0.5}),
)


def seen(*boxes, source="a.mp4", rgb=None):
    faces = tuple(SeenFace(source, 0, None, n, box, 0.9, box[3], 0.0, ANSWERS) for n, box in enumerate(boxes))
    return Seen(source, 0, None, faces, (), rgb)


def grey():
    return np.full((200, 300, 3), 90, np.uint8)


def test_a_frame_is_drawn_on_around_the_face_alone():
    frame = seen((30.0, 40.0, 50.0, 50.0), rgb=grey())
    picture = drawn(frame)
    assert picture.shape == frame.rgb.shape
    assert (frame.rgb == 90).all()
    assert (picture[42:88, 34:76] == 90).all()  # the face itself
    assert (picture[60, 29:32] != 90).any()
    assert (drawn(seen(rgb=grey())) == 90).all()


@pytest.mark.parametrize("box", [(-20.0, -20.0, 40.0, 40.0), (270.0, 170.0, 60.0, 60.0), (0.0, 0.0, 300.0, 200.0)])
def test_words_stay_in_the_picture(box):
    inks = set()
    for where in ((80.0, 60.0, 40.0, 40.0), box):
        picture = drawn(seen(where, rgb=grey()))
        inks.add(int((picture.min(axis=2) > 150).sum()))
    assert len(inks) == 1
    assert inks.pop() > 20


def test_answers_do_not_cover_other_faces():
    boxes = [(20.0 + 60 * n % 240, 20.0 + 70 * (n // 4), 30.0, 30.0) for n in range(8)]
    alone, crowd = (drawn(seen(*some, rgb=grey())) for some in (boxes[:1], boxes))
    for x, y, width, height in boxes:
        inner = crowd[int(y) + 4 : int(y + height) - 4, int(x) + 4 : int(x + width) - 4]
        assert (inner == 90).all()
    dark = [(picture[52:] == PAPER).all(axis=2).sum() for picture in (alone, crowd)]
    assert 0 < dark[1] < 4 * dark[0]  # numbers alone


@pytest.mark.parametrize("width", [40, 300])
def test_a_note_is_in_the_lower_left_corner_and_nothing_covers_it(width):
    rgb = grey()[:, :width]
    alone = drawn(seen(rgb=rgb), "Not for judging people.")
    noted = (alone != 90).any(axis=2)
    rows, columns = np.flatnonzero(noted.any(axis=1)), np.flatnonzero(noted.any(axis=0))
    assert rows[0] > 150
    assert columns[0] == 0
    if width > 100:
        with_face = drawn(seen((5.0, 150.0, 30.0, 30.0), rgb=rgb), "Not for judging people.")
        assert (with_face[rows[0] :, : columns[-1]] == alone[rows[0] :, : columns[-1]])[:, 40:].all()


def on_sheet(tmp_path, number, size=(80, 120)):
    """The sheet of so many pictures with one face each, and one without, as pixels; None if there is none."""
    sheet = Sheet()
    for n in range(number):
        path = tmp_path / f"{n}.png"
        Image.fromarray(picture(size=size)).save(path)
        sheet.add(path, seen((10.0, 10.0, 40.0, 40.0), source=path.name))
    sheet.add(tmp_path / "none.png", seen(source="none.png"))
    return np.asarray(Image.open(tmp_path / "sheet.png")) if sheet.write(tmp_path / "sheet.png") else None


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (7, 3, 3), (MOST_PICTURES + 5, 4, 3)]
)
def test_a_sheet_has_the_first_pictures_with_their_boxes(tmp_path, number, columns, rows):
    sheet = on_sheet(tmp_path, number)
    side = ALONE if number == 1 else SIDE
    assert columns * side < sheet.shape[1] < columns * (side + 30) + 200
    assert rows * side * 80 / 120 < sheet.shape[0] < rows * (side * 80 / 120 + 50) + 120
    left, top = (round(10 * side / 120), round(30 * side / 120))
    boxes = (sheet == BOX).all(axis=2)
    assert boxes[11 + top, 11 + left]  # of the first face, in the middle of its left side
    assert boxes.any(axis=0).sum() >= min(number, columns) * side // 4


def test_pictures_of_any_shape_fit_and_those_that_are_gone_are_left_out(tmp_path):
    sheet = Sheet()
    for name, size in (("wide.png", (60, 1200)), ("high.png", (1200, 60)), ("gone.png", (80, 80))):
        Image.fromarray(picture(size=size)).save(tmp_path / name)
        sheet.add(tmp_path / name, seen((10.0, 10.0, 40.0, 40.0), source="a long folder/" * 20 + name))
    (tmp_path / "gone.png").unlink()
    assert sheet.write(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (2 * (SIDE + 22), SIDE + 2 * 22 + 4 * 22)


def test_without_a_face_there_is_no_sheet(tmp_path):
    assert on_sheet(tmp_path, 0) is None
    assert not (tmp_path / "sheet.png").exists()
