"""The page's own modules compute what Python does: run by node, without a browser."""

import base64
import json
import math
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, coffee
from tiny_networks import fake, faking, picture

from engrec.faces import detect
from engrec.faces.crop import crop
from engrec.faces.detect import Face
from engrec.faces.track import Tracker, is_cut
from engrec.use import page
from engrec.use.inputs import find
from engrec.use.page import contents
from engrec.use.page.server import Session
from engrec.use.recording import record
from engrec.use.timeline import _clock

FOLDER = page.__path__[0]
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on PATH to run the page's modules")


def node(tmp_path, code, given, pictures=()):
    """What the code returns for `given` and the pictures, as JSON. pictures: uint8 (H, W, 3)."""
    for number, rgb in enumerate(pictures):
        alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
        (tmp_path / f"{number}.rgba").write_bytes(np.concatenate([rgb, alpha], 2).tobytes())
    sizes = [rgb.shape[:2] for rgb in pictures]
    script = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ crop, resized }} from "file://{FOLDER}/crop.js";
        import {{ decoded, detect }} from "file://{FOLDER}/yunet.js";
        import {{ clock, plot }} from "file://{FOLDER}/plot.js";
        import {{ Record }} from "file://{FOLDER}/record.js";
        import {{ Tracker, assigned, histogram, isCut }} from "file://{FOLDER}/track.js";
        const given = JSON.parse(readFileSync("given.json"));
        const pictures = {json.dumps(sizes)}.map(([height, width], number) =>
          ({{ data: new Uint8ClampedArray(readFileSync(`${{number}}.rgba`)), width, height }}));
        const base64 = (bytes) => Buffer.from(bytes).toString("base64");
        {code}"""
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "test.mjs").write_text(script)
    done = subprocess.run([NODE, "test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def leaning(box, degrees):
    """A face whose eyes are turned by that angle."""
    x, y, width, height = box
    middle = (x + width / 2, y + height / 2)
    across, down = (width / 5 * turn(math.radians(degrees)) for turn in (math.cos, math.sin))
    eyes = (middle[0] - across, middle[1] - down), (middle[0] + across, middle[1] + down)
    return Face(box, 0.9, (*eyes, middle, middle, middle))


def faces_of(rng, width, height, number=60):
    """Boxes of all sizes, with odd corners, some of them partly or mostly beyond the picture, and all angles."""
    faces = []
    for degrees in np.resize([0, 3, -14.9, 15.1, -33.3, 90, -120, 45], number):
        w, h = rng.uniform(4, 200, 2)
        x, y = rng.uniform(-0.8 * w, width - 0.2 * w), rng.uniform(-0.8 * h, height - 0.2 * h)
        faces.append(leaning((float(x), float(y), float(w), float(h)), float(degrees)))
    return faces


@pytest.mark.parametrize(("size", "colour"), [(48, "grey"), (40, "rgb")])
def test_the_crop_is_that_of_python_bit_for_bit(tmp_path, size, colour):
    rng = np.random.default_rng(size)
    photograph, noise = astronaut()[:300, 100:421], rng.integers(0, 256, (97, 131, 3), np.uint8)
    cases = [(k, face) for k, p in enumerate((photograph, noise)) for face in faces_of(rng, *p.shape[1::-1])]
    cases += [(0, Face(box)) for box in ((60, 40, 96, 96), (10, 10, 48, 48), (0, 0, 321, 300), (80.5, 60.25, 61, 70))]
    given = [{"picture": k, "face": {"box": face.box, "roll": face.roll}} for k, face in cases]
    code = f"""console.log(JSON.stringify(given.map(({{ picture, face }}) =>
        base64(crop(pictures[picture], face, {size}, "{colour}")))));"""
    found = node(tmp_path, code, given, (photograph, noise))
    for (k, face), text in zip(cases, found, strict=True):
        expected = crop((photograph, noise)[k], face, size, colour)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), np.uint8).reshape(expected.shape), expected)


def test_faces_are_found_where_python_finds_them(tmp_path):
    """With outputs of the same network; in pictures that are reduced first, of a face that lies on its side too."""
    upright = np.ascontiguousarray(astronaut()[:300, 60:361])
    small = np.ascontiguousarray(upright[50:160, 110:210])  # which is enlarged
    cup = np.ascontiguousarray(coffee()[:, ::-1])
    pictures = (upright, np.ascontiguousarray(np.rot90(upright)), small, cup)
    network, asked = detect.Detector(200, engine="onnxruntime").network, []

    def answered(images):
        asked.append((images.copy(), network(images)))
        return asked[-1][1]

    expected = []
    for rgb in pictures:
        detector = detect.Detector(200, engine="onnxruntime")
        detector.network = answered
        expected.append(detector(rgb))
    outputs = [{name: found.ravel().tolist() for name, found in outputs.items()} for _, outputs in asked]
    images = [base64.b64encode(images.astype(np.uint8).tobytes()).decode() for images, _ in asked]
    code = """
        const seen = [];
        const run = async (images) => {
          seen.push(base64(Uint8Array.from(images)));
          const found = given[seen.length - 1];
          return Object.fromEntries(Object.entries(found).map(([name, values]) => [name, Float32Array.from(values)]));
        };
        const faces = [];
        for (const picture of pictures) faces.push(await detect(run, picture, 200, true));
        console.log(JSON.stringify({ faces, seen }));"""
    found = node(tmp_path, code, outputs, pictures)
    assert found["seen"][:2] == images[:2]  # as they are, not turned
    assert [len(faces) for faces in expected] == [len(faces) for faces in found["faces"]] == [1, 1, 1, 0]
    for faces, theirs in zip(expected[:3], found["faces"], strict=False):
        face, [other] = faces[0], theirs
        np.testing.assert_allclose([*face.box, face.score, face.roll, face.px],
                                   [*other["box"], other["score"], other["roll"], other["px"]], rtol=1e-5)  # fmt: skip


def scene(rng, num_frames=120):
    """Boxes of four people who sway and cross, of whom some are missed, at uneven times; seconds and boxes a frame."""
    seconds = np.cumsum(rng.uniform(0.02, 0.3, num_frames) + 2 * (rng.random(num_frames) < 0.1))
    frames = []
    for now in seconds.tolist():
        boxes = []
        for person in range(4):
            if rng.random() < 0.85 and (now + 3 * person) % 9 > 2:
                centre = 150 + 90 * person + 120 * math.sin(now * (0.4 + 0.1 * person) + person)
                side = 60 + 8 * person + rng.normal(0, 2)
                boxes.append((centre - side / 2, 100 + rng.normal(0, 3), side * 0.8, side))
        order = rng.permutation(len(boxes))
        frames.append((now, [tuple(map(float, boxes[k])) for k in order]))
    return frames


def test_faces_have_the_numbers_that_python_gives_them(tmp_path):
    frames = scene(np.random.default_rng(0))
    tracker, cuts = Tracker(), (40, 80)
    expected = []
    for number, (seconds, boxes) in enumerate(frames):
        if number in cuts:
            tracker.cut()
        expected.append(tracker([Face(box) for box in boxes], seconds))
    code = f"""
        const tracker = new Tracker();
        console.log(JSON.stringify(given.map(([seconds, boxes], number) => {{
          if ({list(cuts)}.includes(number)) tracker.cut();
          return tracker.number(boxes.map((box) => ({{ box }})), seconds);
        }})));"""
    assert node(tmp_path, code, frames) == expected
    assert max(max(ids, default=0) for ids in expected) > 12  # the cuts, and people who were away


def test_a_cut_is_seen_as_in_python(tmp_path):
    rng = np.random.default_rng(0)
    photograph = astronaut()[:203, :301]
    dimmed = [(photograph * light).astype(np.uint8) for light in np.linspace(0.3, 1, 40)]
    noise = rng.integers(0, 256, photograph.shape, np.uint8)
    others = [np.roll(photograph, 9, 1), *dimmed, photograph[..., ::-1], noise, photograph[:, :150]]
    pictures = [np.ascontiguousarray(one) for one in (photograph, *others)]
    expected = [is_cut(pictures[0], other) for other in pictures[1:]]
    code = "console.log(JSON.stringify(pictures.slice(1).map((one) => isCut(histogram(pictures[0]), histogram(one)))));"
    assert node(tmp_path, code, [], pictures) == expected
    assert set(expected) == {True, False}


def saved(tmp_path, about, frames, kind="picture", is_complete=True):
    """The description that is saved of frames: pairs of seconds and faces."""
    code = """const record = new Record(given.about, "face.png", given.kind);
        given.frames.forEach(([seconds, faces], number) => record.add(number, seconds, faces));
        record.isComplete = given.isComplete;
        console.log(record.sidecar("node"));"""
    return node(tmp_path, code, {"about": about, "frames": frames, "kind": kind, "isComplete": is_complete})


def test_what_is_saved_beside_the_csv_is_what_predict_writes(tmp_path):
    predictor, rgb = faking(), picture(side=30)
    Image.fromarray(rgb).save(tmp_path / "face.png")
    record(predictor, find([tmp_path / "face.png"])[0], tmp_path / "out")
    theirs = json.loads((tmp_path / "out" / "predictions.json").read_text())
    about = json.loads(contents.about(predictor.answerer, "local"))
    ours = saved(tmp_path, about, [(None, Session(predictor).faces(None, rgb))])
    assert ours.keys() == theirs.keys()
    for key in ("intended_use", "weights", "crop", "complete", "unreadable", "rows"):
        assert ours[key] == theirs[key]
    assert ours["versions"] == theirs["versions"] | {"browser": "node"}
    assert ours["inputs"] == [theirs["inputs"][0] | {"input": "face.png"}]
    assert ours["inputs"][0]["small"] == 1
    assert len(ours["written"]) == len(theirs["written"])
    assert set(theirs["faces"]) - set(ours["faces"]) == {"window_seconds"}
    assert ours["faces"]["seconds_between_detections"] == 0


def test_boxes_are_saved_in_pixels_of_the_file(tmp_path):
    predictor = faking()
    about = json.loads(contents.about(predictor.answerer, "local"))
    code = """const lines = [1, 0.5].map((share) => {
          const record = new Record(given.about, "face.png", "picture");
          record.add(0, null, given.faces, share);
          return record.csv().trim().split("\\n").map((line) => line.split(","));
        });
        console.log(JSON.stringify(lines));"""
    faces = Session(predictor).faces(None, picture(x=10, side=30))
    (names, whole), (_, half) = node(tmp_path, code, {"about": about, "faces": faces})
    scaled = [names.index(name) for name in names[6:11]]
    assert names[6:11] == ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "face_px"]
    assert [float(half[i]) for i in scaled] == [2 * float(whole[i]) for i in scaled]
    assert [half[i] for i in range(len(names)) if i not in scaled] == [
        whole[i] for i in range(len(names)) if i not in scaled
    ]


def test_what_is_saved_of_a_video_before_its_end_says_so(tmp_path):
    predictor = faking()
    about, session = json.loads(contents.about(predictor.answerer, "local")), Session(predictor)
    frames = [(s, session.faces(s, picture(x=x, value=200 * (s != 0.2)))) for s, x in ((0, 10), (0.1, 11), (0.2, 0))]
    found = saved(tmp_path, about, frames, "video", is_complete=False)
    assert not found["complete"]
    counted = {"kind": "video", "read": 3, "faces": 2, "none": 1, "small": 0, "seconds": 0.2, "ids": 1}
    assert found["inputs"] == [counted | {"input": "face.png", "damage": None}]
    assert found["rows"] == 3


# A canvas that keeps what is drawn: texts with their ends, and lines. A letter is 7 pixels wide.
CANVAS = """
    globalThis.window = { devicePixelRatio: 1 };
    globalThis.getComputedStyle = () => ({ fontFamily: "", getPropertyValue: () => "axes" });
    const drawn = (width, ...asked) => {
      const [texts, lines] = [[], []];
      const draw = {
        setTransform() {}, clearRect() {}, stroke() {},
        measureText: (text) => ({ width: 7 * text.length }),
        fillText(text, x) {
          const [left, right] = { right: [1, 0], center: [0.5, 0.5] }[this.textAlign];
          texts.push([text, x - left * 7 * text.length, x + right * 7 * text.length]);
        },
        beginPath() { lines.push({ colour: this.strokeStyle, x: [] }); },
        moveTo(x) { lines.at(-1).x.push(x); },
        lineTo(x) { lines.at(-1).x.push(x); },
      };
      plot({ clientWidth: width, clientHeight: 120, getContext: () => draw }, ...asked);
      return { texts, lines: lines.filter(({ colour }) => colour !== "axes") };
    };"""


@pytest.mark.parametrize("width", [250, 362, 510, 788])
def test_no_time_below_the_lines_is_cut_off_or_covers_another(tmp_path, width):
    ends = [0.4, 1, 1.5, 3, 7, 15, 59.9, 60, 61, 600, 1234.5, 3600, 7200, 86399]
    code = "console.log(JSON.stringify(given.map(([w, now, end]) => drawn(w, undefined, 0, [], now, end).texts)));"
    given = [(width, 0, end) for end in ends] + [(width, now, None) for now in (0.1, 30, 75.3, 4000)]
    for texts in node(tmp_path, CANVAS + code, given):
        assert all(left >= 0 and right <= width for _, left, right in texts)
        times = [(left, right) for text, left, right in texts if "%" not in text]
        assert all(one[1] < other[0] for one, other in pairwise(times))


def test_a_line_breaks_where_the_face_was_away_not_where_frames_are_late(tmp_path):
    frames = [(n, 0.2 * n, n not in (7, 8, 9, 10)) for n in range(20)] + [(20 + n, 5 + 3 * n, True) for n in range(4)]
    numbers, times = zip(*((number, seconds) for number, seconds, is_seen in frames if is_seen), strict=True)
    series = {"numbers": numbers, "times": times, "values": [[[0.25, 0.75]]] * len(times)}
    code = "console.log(JSON.stringify(drawn(400, given, 0, ['one', 'other'], 20, 20).lines));"
    lines = node(tmp_path, CANVAS + code, series)
    assert [(line["colour"], len(line["x"])) for line in lines] == [
        ("one", 7),
        ("one", 13),
        ("other", 7),
        ("other", 13),
    ]


def test_times_are_written_as_in_the_timeline(tmp_path):
    seconds = [0, 0.4, 45, 59.4, 59.6, 75, 3599.7, 3661, 86399]
    assert node(tmp_path, "console.log(JSON.stringify(given.map((one) => clock(one))));", seconds) == [
        _clock(one) for one in seconds
    ]
    assert node(tmp_path, "console.log(JSON.stringify(clock(59.96, 0.5)));", []) == "1:00.0"


def test_where_the_browser_computes_the_networks_are_the_files_beside_the_page():
    networks = faking(fake(name="mine"), fake("engagement", ("low", "high"))).answerer
    text = contents.about(networks, "browser", ["network0.onnx", "network1.onnx"])
    sidecar = json.loads(text)["sidecar"]
    assert [one["source"] for one in sidecar["weights"]] == ["network0.onnx", "network1.onnx"]
    assert {one["engine"] for one in sidecar["weights"]} == {"onnxruntime-web 1.30.0, wasm"}
    assert sidecar["weights"][0]["sha256"] == "0" * 64
    assert sidecar["versions"].keys() == {"engrec", "onnxruntime-web"}
    assert ".ckpt" not in text
