"""Three lines of Python: pictures, arrays, own boxes, folders and videos to typed answers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from tiny_networks import engagement, expressions, fake, faking, picture

import engrec
from engrec import weights_file
from engrec.faces.video import write_video
from engrec.use import command
from engrec.use import predict as predicting
from engrec.use.answers import SeenFace
from engrec.use.inputs import read_picture
from engrec.use.predict import Predictor, as_picture, described, sources_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(expressions(), folder / "faces.ckpt")
    torch.save(engagement(), folder / "engaged.ckpt")
    return [folder / "faces.ckpt", folder / "engaged.ckpt"]


@pytest.fixture
def fakes(monkeypatch):
    """engrec.predict with networks and a detector that need no weights."""
    monkeypatch.setattr(predicting, "_loaded", lambda _: faking())


def refused(*arguments, **options):
    with pytest.raises(ValueError, match=r"\S") as error:
        engrec.predict(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_photograph_of_a_face(weights, tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "photo.png")
    [face] = engrec.predict(tmp_path / "photo.png", weights)
    assert isinstance(face, SeenFace)
    assert face.source == str(tmp_path / "photo.png")
    x, y, width, height = face.box
    assert 150 < x + width / 2 < 290
    assert 40 < y + height / 2 < 190
    assert face.face_px == max(width, height) > 60
    assert not face.is_small
    assert face.confidence > 0.8
    assert face.seconds is None
    for answer, names in ((face.expression, 7), (face.engagement, 3)):
        assert len(answer.probabilities) == names
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.smoothed is None
    for same in (str(tmp_path / "photo.png"), astronaut(), Image.fromarray(astronaut())):
        [other] = engrec.predict(same, weights)
        assert (other.box, other.answers) == (face.box, face.answers)
    [given] = engrec.predict(astronaut(), weights, boxes=[face.box])
    assert given.confidence == 1
    if abs(face.roll) < 15:
        assert given.answers == face.answers


def test_nothing_is_fetched_from_a_network(tmp_path, monkeypatch, capsys):
    asked = []

    def offline(*address, **_):
        asked.append(address)
        raise OSError("offline")

    for place, name in ((socket.socket, "connect"), (socket, "create_connection"), (socket, "getaddrinfo")):
        monkeypatch.setattr(place, name, offline)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut()).save("photo.png")
    assert len(engrec.predict("photo.png")) == 1
    command.main(["photo.png"])
    assert "1 picture, 1 face" in capsys.readouterr().out
    assert asked == []


def test_onnxruntime_keeps_no_identifier_of_the_machine(tmp_path):
    detect = "from engrec.faces.detect import Detector; import numpy; Detector(320)(numpy.zeros((80, 80, 3), 'u1'))"
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", detect], env=env, check=True, capture_output=True)
    assert list(tmp_path.rglob("*")) == []


def test_a_forked_process_answers_too(weights):
    """PyTorch's threads are not forked, and a fork that waits for them would wait for ever."""
    script = f"""
import multiprocessing, engrec
from skimage.data import astronaut

def answer(_):
    return engrec.predict(astronaut(), {str(weights[0])!r})[0].expression.label

here = answer(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(answer, range(2)).get(60) == [here, here]
"""
    env = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("fakes")
def test_a_picture_is_read_alike_wherever_it_is_given():
    turned = Image.fromarray(np.rot90(picture()))
    turned.getexif()[0x0112] = 6  # the camera lay on its side
    [seen] = faking().pictures(iter([("0", turned)]))
    [face] = engrec.predict(picture())
    assert seen.rgb is None or seen.rgb.shape == picture().shape
    assert list(seen.faces) == engrec.predict(turned)
    assert seen.faces[0].box == face.box


@pytest.mark.usefixtures("fakes")
def test_what_is_no_picture_is_said():
    assert "the path is empty" in refused("")
    assert "in a list of boxes; found 10" in refused(picture(), boxes=(10, 10, 40, 30))


@pytest.mark.usefixtures("fakes")
def test_several_sources_come_in_order():
    faces = engrec.predict([picture(value=50), Image.fromarray(picture(value=0)), picture(value=250)])
    assert [face.source for face in faces] == ["0", "2"]
    assert [face.expression.label for face in faces] == ["angry", "happy"]


@pytest.mark.usefixtures("fakes")
def test_grey_arrays_and_no_face():
    [face] = engrec.predict(picture()[..., 0])
    assert face.box == (10.0, 10.0, 40.0, 40.0)
    assert engrec.predict(picture(value=0)) == []


@pytest.mark.usefixtures("fakes")
def test_own_boxes_are_taken_as_they_are():
    faces = engrec.predict(picture(), boxes=[(0, 0, 20, 20), (10, 10, 40, 30)])
    assert [face.box for face in faces] == [(0.0, 0.0, 20.0, 20.0), (10.0, 10.0, 40.0, 30.0)]
    assert [face.face_id for face in faces] == [0, 1]
    assert engrec.predict(picture(), boxes=[]) == []
    assert "is beside the picture of 120×80 pixels" in refused(picture(), boxes=[(500, 0, 20, 20)])


@pytest.mark.usefixtures("fakes")
def test_a_folder_and_a_video(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "b.png")
    write_video(tmp_path / "a.mp4", [picture()] * 12, 10)
    faces = engrec.predict(tmp_path)
    assert [Path(face.source).name for face in faces] == ["a.mp4"] * 12 + ["b.png"]
    assert [face.seconds for face in faces[:3]] == pytest.approx([0, 0.1, 0.2], abs=1e-3)
    assert {face.face_id for face in faces[:12]} == {0}
    assert faces[0].expression.smoothed is not None
    every = engrec.predict(tmp_path / "a.mp4", every=0.5)
    assert [face.seconds for face in every] == pytest.approx([0, 0.5, 1.0], abs=1e-3)
    assert "boxes= goes with a single picture" in refused(tmp_path / "a.mp4", boxes=[(0, 0, 9, 9)])
    assert "boxes= goes with a single picture" in refused([picture()] * 2, boxes=[(0, 0, 9, 9)])


@pytest.mark.usefixtures("fakes")
def test_answers_for_a_camera_come_with_the_next_detection():
    read = []

    def camera():
        for number in range(60):
            read.append(number / 30)
            yield number / 30, picture(x=number)

    def late(**options):
        read.clear()
        return max(read[-1] - seen.seconds for seen in faking().frames("camera", camera(), **options))

    assert late(at_once=1) <= 0.101
    assert late() > 0.9


@pytest.mark.usefixtures("fakes")
def test_a_file_that_cannot_be_read_costs_no_other_one(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning, match="^left out: ") as warned:
        [face] = engrec.predict(tmp_path)
    assert Path(face.source).name == "good.png"
    assert [Path(str(one.message).split(" ")[2]).name for one in warned] == ["bad.jpg", "bad.mp4"]
    assert {one.filename for one in warned} == {__file__}
    with pytest.warns(UserWarning, match=r"left out: .*none\.png"):
        assert engrec.predict([tmp_path / "none.png", picture(), tmp_path / "good.png"])[1].source == face.source
    for alone in (tmp_path / "bad.jpg", [tmp_path / "bad.mp4", tmp_path / "none.png"]):
        with pytest.raises(ValueError, match="bad"):
            engrec.predict(alone)
    with pytest.raises(ValueError, match="a picture must be"):
        engrec.predict([tmp_path / "good.png", np.zeros(3)])


@pytest.mark.usefixtures("fakes")
def test_a_damaged_video_is_read_as_far_as_it_goes(tmp_path):
    write_video(tmp_path / "a.mkv", [picture(x=n % 60) for n in range(60)], 10)
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) * 2 // 3])
    with pytest.warns(UserWarning, match=r"a\.mkv is damaged: read \d+ frames"):
        faces = engrec.predict(tmp_path / "a.mkv")
    assert 0 < len(faces) < 60


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.png", "none.png does not exist"),
        (picture().astype(float), "found float64 (80, 120, 3)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "found uint8 (2, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "found uint8 (0, 8, 3)"),
        (Image.new("F", (8, 8)), "floating-point pixels have no fixed range"),
        (3, "found int"),
        (None, "found NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(source, said):
    assert said in refused(source)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16"])
def test_a_pil_image_is_read_as_its_file_is(tmp_path, mode):
    values = np.arange(0, 65536, 8, np.uint16).reshape(64, 128)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    image = Image.fromarray(values) if mode == "I;16" else grey.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray((values % 256).astype(np.uint8)))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    read, given = read_picture(path), as_picture(image)
    assert given.mode == read.mode
    assert (np.asarray(given) == np.asarray(read)).all()


def test_networks_stay_loaded_until_their_file_changes(weights, tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    path.write_bytes(weights[0].read_bytes())
    loads = []
    load = Predictor.load.__func__
    monkeypatch.setattr(Predictor, "load", classmethod(lambda cls, given: loads.append(given) or load(cls, given)))
    for _ in range(3):
        engrec.predict(picture(), path, boxes=[(0, 0, 20, 20)])
    assert len(loads) == 1
    path.write_bytes(weights[1].read_bytes())
    [face] = engrec.predict(picture(), path, boxes=[(0, 0, 20, 20)])
    assert face.expression is None
    assert face.engagement is not None


def test_photographs_are_read_at_640_pixels_and_videos_at_320():
    predictor = Predictor([fake()])
    assert (predictor.in_photos.size, predictor.in_photos.turned) == (640, True)
    assert (predictor.in_videos.size, predictor.in_videos.turned) == (320, False)


def test_by_default_expressions_and_engagement_are_read(monkeypatch):
    monkeypatch.setattr(weights_file, "names", lambda: ["another", "engagement", "expressions"])
    assert sources_of(None) == ["engrec:expressions", "engrec:engagement"]
    monkeypatch.setattr(weights_file, "names", list)
    with pytest.raises(ValueError, match="this copy of engrec has no weights: give some"):
        sources_of(None)
    assert sources_of("a.ckpt") == sources_of([Path("a.ckpt")]) == ["a.ckpt"]
    with pytest.raises(ValueError, match="at least one"):
        sources_of([])


def test_a_turned_photograph_of_a_camera_is_upright():
    image = Image.fromarray(picture(size=(80, 120)))
    image.getexif()[274] = 6  # taken with the camera turned
    assert as_picture(image).size == (80, 120)


def test_importing_engrec_loads_nothing_of_weight():
    code = "import sys, engrec; print(hasattr(engrec, 'x'), {'torch', 'numpy', 'PIL', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False set()\n"
    assert engrec.predict is predicting.predict


def test_the_file_beside_predictions_names_networks_as_the_columns_do():
    about = described([fake(name="mine"), fake(name="mine")], {})
    assert [one["name"] for one in about["weights"]] == ["mine", "mine_2"]
