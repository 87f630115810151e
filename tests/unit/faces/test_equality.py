"""The table of docs/faces.md: how equal crops are that should be equal."""

import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from engrec.faces.crop import crop
from engrec.faces.detect import Detector, Face
from engrec.importers import photos

DOCS = (Path(__file__).parents[3] / "docs" / "faces.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) (?:of 255|pixels) \|$", DOCS, re.MULTILINE))


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def faces(photo):
    return {engine: Detector(engine=engine)(photo)[0] for engine in ("onnxruntime", "torch")}


def difference(one, other):
    return abs(one.astype(int) - other).max()


def prepared(photo, faces, folder):
    for label in "ab":
        (folder / label).mkdir()
        Image.fromarray(photo).save(folder / label / "1.png")
    arguments, _ = photos.read([folder], photos.Settings("mine"))
    return difference(arguments["images"][1], crop(photo, faces["onnxruntime"]))


def kinds(photo, faces, folder):
    image, face = Image.fromarray(photo), faces["onnxruntime"]
    crops = [crop(picture, face) for picture in (photo, image, image.convert("L"), np.asarray(image.convert("L")))]
    return max(difference(crops[0], other) for other in crops)


def pillow(photo, faces, folder):
    x, y, width, height = faces["onnxruntime"].box
    x, y, side = x + width / 2, y + height / 2, max(width, height)
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    resized = Image.fromarray(photo).convert("L").resize((48, 48), Image.Resampling.BILINEAR, box=box)
    return difference(crop(photo, faces["onnxruntime"])[0], np.asarray(resized))


def border(photo, faces, folder):
    x, y, width, height = faces["onnxruntime"].box
    part, left, top = photo[: int(y + height * 0.8), int(x + 20) :], int(x + 20), 0
    wide = np.pad(part, ((200, 200), (200, 200), (0, 0)), mode="edge")
    cut = crop(part, Face((x - left, y - top, width, height)))
    return difference(cut, crop(wide, Face((x - left + 200, y - top + 200, width, height))))


def boxes(photo, faces, folder):
    return abs(np.subtract(faces["torch"].box, faces["onnxruntime"].box)).max()


def engines(photo, faces, folder):
    return difference(crop(photo, faces["torch"]), crop(photo, faces["onnxruntime"]))


MEASURED = {
    "a prepared photograph, and the crop of the same file": prepared,
    "a picture as an array, as a PIL image, and already grey": kinds,
    "the crop, and Pillow's resize of that part of the whole grey picture": pillow,
    "a face at the border, and the same face after the border's pixels were repeated around the picture": border,
    "boxes by torch and by onnxruntime": boxes,
    "crops of the boxes by torch and by onnxruntime": engines,
}


def test_every_row_is_measured():
    assert TABLE.keys() == MEASURED.keys()


@pytest.mark.parametrize("row", MEASURED)
def test_the_difference_is_at_most_what_the_docs_say(photo, faces, tmp_path, row):
    assert MEASURED[row](photo, faces, tmp_path) <= float(TABLE[row])
