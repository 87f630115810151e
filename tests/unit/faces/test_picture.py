"""Whatever the file, a picture is upright and has 8 bits, or one line says why not; see importers/test_files too."""

import io

import numpy as np
import pytest
from PIL import Image

from engrec.faces.picture import open_picture


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "L"), ("RGB", "RGB"), ("RGBA", "RGB"), ("LA", "RGB"), ("P", "RGB"), ("1", "RGB"), ("I;16", "L")],
)
def test_pictures_are_grey_or_rgb(mode, expected):
    image = Image.new(mode, (7, 5))
    picture, found = open_picture(encoded(image), "x.png")
    assert (picture.mode, picture.size) == (expected, (7, 5))
    assert found == f"PNG {mode} 7x5"


def test_the_camera_s_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 8
    picture, found = open_picture(encoded(Image.new("RGB", (9, 4)), "JPEG", exif=exif), "x.jpg")
    assert picture.size == (4, 9)
    assert found == "JPEG RGB 9x4"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x is empty"),
        (b"%!PS-Adobe", "x must be one of BMP"),
        (
            encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))[:900],
            "x cannot be read",
        ),
        (encoded(Image.new("F", (3, 3)), "TIFF"), "floating-point pixels"),
    ],
)
def test_what_cannot_be_read_is_one_line(content, said):
    with pytest.raises(ValueError, match=said) as caught:
        open_picture(content, "x")
    assert "\n" not in str(caught.value)
