"""Faces are found where they are, whatever runs the network, and at whatever angle the picture was taken."""

import hashlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from engrec.faces import detect
from engrec.faces.detect import Detector, Face

CENTRE = (223, 120)  # of the face in the photograph


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()[:260, 60:400]  # with the face, in the public domain


@pytest.fixture(scope="module")
def detectors():
    return {engine: Detector(engine=engine) for engine in ("onnxruntime", "torch")}


def turned(photo, angle):
    return np.asarray(Image.fromarray(photo).rotate(angle, Image.Resampling.BILINEAR, expand=True))


def test_the_recipe_names_the_weights_that_are_used():
    assert hashlib.sha256(detect.PATH.read_bytes()).hexdigest() == detect.SHA256


def test_the_face_is_found_with_its_landmarks(photo, detectors):
    (face,) = detectors["onnxruntime"](photo)
    x, y, width, height = face.box
    assert face.score > 0.9
    assert (x + width / 2 + 60, y + height / 2) == pytest.approx(CENTRE, abs=6)
    assert 75 < width < 105
    assert 95 < height < 130
    assert face.px == height
    right_eye, left_eye, nose, right_corner, left_corner = face.landmarks
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] < nose[1] < right_corner[1]
    assert right_corner[0] < left_corner[0]
    assert abs(face.roll) < 5


@pytest.mark.parametrize("angle", [0, 90])
def test_both_engines_find_the_same_boxes(photo, detectors, angle):
    ours, theirs = (detector(turned(photo, angle)) for detector in detectors.values())
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.box, other.box, atol=1e-3)
        assert np.allclose(one.landmarks, other.landmarks, atol=1e-3)
        assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("angle", [90, -90, 45])
def test_a_picture_that_lies_on_its_side_has_the_same_face(photo, angle):
    small = np.pad(photo[::3, ::3], ((20, 20), (20, 20), (0, 0)), mode="edge")  # so small that -90 must be turned
    upright, lying = Detector()(small)[0], turned(small, angle)
    face = Detector()(lying)[0]
    assert (upright.turned, face.turned) == (False, angle == -90)
    middle = np.array([upright.box[0] + upright.box[2] / 2, upright.box[1] + upright.box[3] / 2])
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    expected = rotation @ (middle - np.array(small.shape[1::-1]) / 2) + np.array(lying.shape[1::-1]) / 2
    found = np.array([face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2])
    assert found == pytest.approx(expected, abs=0.15 * upright.px)


@pytest.mark.parametrize("size", [320, 640])
@pytest.mark.parametrize("thing", ["coffee", "moon", "colorwheel"])
def test_a_thing_is_no_face_however_it_is_turned(thing, size):
    picture = getattr(skimage.data, thing)()
    rgb = np.ascontiguousarray(np.broadcast_to(picture.reshape(*picture.shape[:2], -1), (*picture.shape[:2], 3)))
    for seen in (rgb, np.ascontiguousarray(rgb[:, ::-1])):
        assert Detector(size)(seen) == []


def test_a_box_that_cannot_be_cropped_is_no_face(monkeypatch):
    boxes = [(-40.0, 5.0, 30.0, 30.0), (5.0, 5.0, 0.5, 0.5), (5.0, 5.0, 300.0, 300.0), (50.0, 5.0, 30.0, 30.0)]
    monkeypatch.setattr(Detector, "_found", lambda *_: [Face(box) for box in boxes])
    assert [face.box for face in Detector()(np.zeros((130, 130, 3), np.uint8))] == boxes[3:]


def test_the_user_s_threshold_counts_where_it_is_higher(photo):
    small = np.pad(photo[::3, ::3], ((20, 20), (20, 20), (0, 0)), mode="edge")
    score = Detector()(turned(small, -90))[0].score
    assert Detector(threshold=score - 0.001)(turned(small, -90))
    assert Detector(threshold=score + 0.001)(turned(small, -90)) == []


@pytest.mark.parametrize("angle", detect.ANGLES)
def test_turning_back_undoes_turning(angle):
    size, inside = (90, 60), (20.0, 17.0)
    image = np.zeros((60, 90, 3), np.uint8)
    image[17, 20] = 255
    large = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, expand=True))
    y, x = np.unravel_index(large[..., 0].argmax(), large.shape[:2])
    face = Face((x - 4.5, y - 9.5, 10.0, 20.0), 0.9, ((x + 0.5, y + 0.5),) * 5)
    back = detect.turned_back(face, angle, large.shape[1::-1], size)
    assert back.landmarks[0] == pytest.approx((inside[0] + 0.5, inside[1] + 0.5), abs=1)
    assert back.box[0] + back.box[2] / 2 == pytest.approx(inside[0] + 0.5, abs=1)
    assert back.box[1] + back.box[3] / 2 == pytest.approx(inside[1] + 0.5, abs=1)
    assert back.px == 20


def test_a_large_picture_is_reduced_and_boxes_are_in_its_pixels(photo):
    large = np.asarray(Image.fromarray(photo).resize((1360, 1040)))
    ours, reference = Detector(size=340)(large)[0], Detector(size=340)(photo)[0]
    assert np.allclose(np.array(ours.box) / 4, reference.box, atol=2)


def test_a_face_that_fills_a_small_picture_is_found(photo, detectors):
    close = Image.fromarray(photo).crop((112, 55, 222, 180)).resize((44, 50))
    (face,) = detectors["onnxruntime"](np.asarray(close))
    x, y, width, height = face.box
    assert (x + width / 2, y + height / 2) == pytest.approx((21, 26), abs=5)
    assert 35 < face.px < 55


def test_several_faces_come_from_left_to_right_and_none_twice(photo, detectors):
    both = np.concatenate([photo, photo[:, ::-1]], axis=1)
    faces = detectors["onnxruntime"](both)
    assert len(faces) == 2
    assert faces[1].box[0] - faces[0].box[0] > 100
    assert faces[1].score > faces[0].score


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (33, 31, 3), (300, 5, 3)])
def test_a_picture_of_any_size_without_a_face_gives_none(detectors, shape):
    for detector in detectors.values():
        assert detector(np.full(shape, 128, np.uint8)) == []


@pytest.mark.parametrize("picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_picture_is_refused(detectors, picture):
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), found"):
        detectors["onnxruntime"](picture)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"size": 0}, "detect_size"), ({"threshold": 0}, "threshold"), ({"engine": "cv2"}, "engine must be one of auto")],
)
def test_settings_out_of_range_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        Detector(**settings)


def test_torch_is_used_where_onnxruntime_is_not_installed(monkeypatch):
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    assert Detector().engine == "torch"
    with pytest.raises(ValueError, match=r"onnxruntime is not installed: pip install 'engrec\[use\]'"):
        Detector(engine="onnxruntime")
