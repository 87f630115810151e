"""The same face gives the same pixels, wherever it is in whatever picture."""

import math

import numpy as np
import pytest
import skimage.data
from PIL import Image

from engrec.faces.crop import RESIZE, STANDARD, Crop, crop, crop_of
from engrec.faces.detect import Face

BOX = (178.25, 62.5, 89.75, 113.0)


def eyes(angle, centre=(40.0, 40.0)):
    """Landmarks whose line of the eyes is turned clockwise by `angle` degrees."""
    x, y = (10 * math.cos(math.radians(angle)), 10 * math.sin(math.radians(angle)))
    left, right = (centre[0] + x, centre[1] + y), (centre[0] - x, centre[1] - y)
    return (right, left, centre, right, left)


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()


def test_the_crop_is_pillow_s_of_the_square_around_the_box(photo):
    x, y, width, height = BOX
    left = x + width / 2 - height / 2
    grey = Image.fromarray(photo).convert("L")
    expected = grey.resize((48, 48), Image.Resampling.BILINEAR, box=(left, y, left + height, y + height))
    assert np.array_equal(crop(photo, Face(BOX))[0], np.asarray(expected))


def test_arrays_and_pictures_of_both_modes_give_the_same_pixels(photo):
    image, face = Image.fromarray(photo), Face(BOX)
    ours = crop(photo, face)
    assert ours.dtype == np.uint8
    assert ours.shape == (1, 48, 48)
    assert np.array_equal(ours, crop(image, face))
    assert np.array_equal(ours, crop(image.convert("L"), face))
    assert crop(photo, face, size=32, colour="rgb").shape == (3, 32, 32)
    assert crop(image.convert("L"), face, colour="rgb").shape == (3, 48, 48)


def test_a_square_of_the_right_size_is_taken_as_it_is(photo):
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    assert np.array_equal(crop(grey, Face((30, 20, 48, 48)))[0], grey[20:68, 30:78])


@pytest.mark.parametrize("box", [(-30.0, -20.0, 80.0, 90.0), (450.5, 430.0, 100.0, 90.0), (-100.0, 0.0, 600.0, 700.0)])
def test_pixels_beyond_the_border_repeat_those_at_it(photo, box):
    wide = np.pad(photo, ((500, 500), (500, 500), (0, 0)), mode="edge")
    inside = Face((box[0] + 500, box[1] + 500, *box[2:]))
    difference = crop(photo, Face(box)).astype(int) - crop(wide, inside)
    assert abs(difference).max() <= 1  # the filter's weights round by the place in the picture


@pytest.mark.parametrize("angle", [20, -30, 90])
def test_a_leaning_face_is_levelled(photo, angle):
    turned = np.asarray(Image.fromarray(photo).rotate(-angle, Image.Resampling.BICUBIC, center=(223, 119)))
    box = (223 - 45.0, 119 - 56.0, 90.0, 112.0)
    levelled = crop(turned, Face(box, landmarks=eyes(angle)))
    assert abs(levelled.astype(int) - crop(photo, Face(box))).mean() < 3
    assert abs(crop(turned, Face(box)).astype(int) - crop(photo, Face(box))).mean() > 15


def test_a_face_that_leans_a_little_is_left_as_it_is(photo):
    assert np.array_equal(crop(photo, Face(BOX, landmarks=eyes(14))), crop(photo, Face(BOX)))


def test_a_large_face_is_levelled_in_parts(photo, monkeypatch):
    face = Face(BOX, landmarks=eyes(30))
    whole = crop(photo, face)
    monkeypatch.setattr("engrec.faces.crop.MOST_AT_ONCE", 1000)
    assert np.array_equal(crop(photo, face), whole)


@pytest.mark.parametrize("roll", [0, 40])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_the_smallest_pictures_can_be_cropped(roll, colour):
    picture = np.full((1, 1, 3), 77, np.uint8)
    assert (crop(picture, Face((0, 0, 1, 1), landmarks=eyes(roll)), colour=colour) == 77).all()


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0, 0, math.nan, 10), "finite"),
        ((0, 0, 10, math.inf), "finite"),
        ((0, 0, -10, 10), "above 0"),
        ((0, 0, 0.1, 0.2), "longer side of 1 to 1024"),
        ((0, 0, 1e9, 10), "longer side of 1 to 1024"),
        ((600, 0, 10, 10), "beside the picture of 512×512"),
        ((0, -20, 10, 10), "beside the picture"),
    ],
)
def test_impossible_boxes_are_refused_in_one_line(photo, box, said):
    with pytest.raises(ValueError, match=said):
        crop(photo, Face(box))


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)])
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(ValueError, match="a picture must be uint8"):
        crop(picture, Face((0, 0, 2, 2)))


# The recipe.


def test_the_recipe_survives_json():
    import json

    assert Crop.from_dict(json.loads(json.dumps(STANDARD.as_dict()))) == STANDARD
    assert STANDARD.as_dict()["resize"] == RESIZE


def test_recipes_are_equal_if_they_give_the_same_pixels():
    assert Crop(detect_size=320, threshold=0.7) == STANDARD
    assert Crop(side=1.3) != STANDARD
    assert Crop(side=1.3).difference(STANDARD) == "side 1.3, not 1.0"
    assert STANDARD.difference(Crop(detect_size=320)) == ""


REPEATED = ["x"] * 10
for _ in range(9):  # a few bytes in a checkpoint, 30 GB as text
    REPEATED = [REPEATED] * 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": "1"}, "crop.side must be from 0.01 to 100, found '1'"),
        ({"side": math.nan}, "crop.side must be"),
        ({"side": True}, "crop.side must be"),
        ({"shift": [0]}, "crop.shift must be two numbers"),
        ({"shift": [0, math.inf]}, "crop.shift must be two numbers"),
        ({"grey": "a\nb"}, r"crop.grey must be a short text, found 'a\\nb'"),
        ({"side": [REPEATED]}, "crop.side must be from 0.01 to 100, found a list"),
        ({"detector": "x" * 5000}, "crop.detector must be a short text"),
        ({"detect_size": 10**400}, "crop.detect_size must be"),
    ],
)
def test_foreign_values_are_named_in_one_line(change, said):
    with pytest.raises(ValueError, match=said) as caught:
        Crop.from_dict(STANDARD.as_dict() | change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("stored", [None, 3, [], "as distributed", {}, {"side": 1.0}])
def test_what_is_no_recipe_is_refused(stored):
    with pytest.raises(ValueError, match=r"^crop (must be a mapping|lacks detector)"):
        Crop.from_dict(stored)


def test_data_sets_whose_crops_were_measured_count_as_the_standard():
    assert crop_of("as distributed", "fer2013") == crop_of(None, "wacv2016") == STANDARD
    assert crop_of("as distributed", "manifest") is crop_of(None, None) is None
    assert crop_of("by hand", "fer2013") is None
    assert crop_of(Crop(side=2.0).as_dict(), "fer2013") == Crop(side=2.0)
