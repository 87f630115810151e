"""WACV-2016: three levels, subjects from file names, every file grey at one size."""

import numpy as np
import pytest

from engrec.datasets.prepared import Faces
from engrec.importers import wacv2016


@pytest.fixture
def content(encode):
    colour = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    return {
        "dataset/1/img10_100.jpg": encode(colour, "JPEG"),
        "dataset/2/img2_7.jpg": encode(kind="JPEG", seed=1),
        "dataset/3/img10_3.JPG": encode(kind="JPEG", seed=2),
        "dataset/readme.txt": b"text",
    }


@pytest.mark.parametrize("packing", ["folder", "zip", "tar.gz"])
def test_levels_subjects_and_formats(pack, content, packing):
    faces = wacv2016.read(pack(content, packing))
    assert faces["images"].shape == (3, 1, 48, 48)
    assert faces["labels"].tolist() == [0, 1, 2]
    assert faces["subjects"].tolist() == ["subject10", "subject02", "subject10"]
    assert faces["formats"].tolist() == ["JPEG RGB 70x90", "JPEG L 48x48", "JPEG L 48x48"]
    assert faces["recipe"]["levels"] == {"1": "not_engaged", "2": "nominally_engaged", "3": "very_engaged"}
    assert Faces(**faces).splits is None
    assert Faces(**faces).ordered


def test_the_frame_filed_under_another_person_is_put_right(pack, content, encode):
    more = {f"dataset/{name}.jpg": encode(kind="JPEG", seed=i) for i, name in enumerate(("2/img12_1", "2/img12_2"), 3)}
    faces = wacv2016.read(pack(content | more))
    subject_of = dict(zip(faces["sources"].tolist(), faces["subjects"].tolist(), strict=True))
    assert subject_of["dataset/2/img12_1.jpg"] == "subject01"
    assert subject_of["dataset/2/img12_2.jpg"] == "subject12"
    assert faces["recipe"]["misfiled"] == {"2/img12_1.jpg": 1}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("dataset/4/img1_1.jpg", ["level 4", "1, 2, 3"]),
        ("dataset/1/face.jpg", ["not named LEVEL/imgSUBJECT_FRAME.jpg", "1/img10_100.jpg"]),
        ("dataset/1/img1_2.jpg", ["empty (0 bytes)", "remove it"]),
    ],
)
def test_a_file_that_does_not_belong_is_named(pack, content, encode, refused, name, parts):
    message = refused("wacv2016", pack({**content, name: b"" if "img1_2" in name else encode()}, "zip"))
    for part in [f"faces.zip: {name}", *parts]:
        assert part in message


def test_an_empty_level(pack, content, refused):
    del content["dataset/2/img2_7.jpg"]
    assert "no image of class nominally_engaged" in refused("wacv2016", pack(content))


def test_no_images(pack, refused):
    assert "contains no images: expected dataset/LEVEL" in refused("wacv2016", pack({"a.txt": b"x"}))
