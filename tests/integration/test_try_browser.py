"""The page to try networks, used as somebody would: served by Python, and as files with which the browser computes."""

import csv
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from browsing import opened
from onnx import TensorProto, helper
from PIL import Image
from skimage.data import astronaut
from tiny_networks import IMAGES

from engrec.faces.crop import STANDARD
from engrec.faces.video import Video, write_video
from engrec.importers import fer2013, wacv2016
from engrec.use.colours import PAPERS, of_classes
from engrec.use.page import static
from engrec.use.predict import Predictor
from engrec.use.rows import Columns, face_rows

SCRIPT = Path(__file__).parents[2] / "scripts" / "try.py"
RATES = {}  # frames a second of each engine, to be read with -s
MEASURED = 10  # seconds of the camera
# Counts how often the camera is asked for, and keeps what is saved.
WATCH = """
window.asked = 0;
if (navigator.mediaDevices) {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = (wanted) => {
    window.asked++;
    return window.refusal ? Promise.reject(window.refusal) : ask(wanted);
  };
}
const keep = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  if (blob.type === "text/csv") blob.text().then((text) => (window.saved = text));
  if (blob.type === "application/json") blob.text().then((text) => (window.beside = text));
  return keep(blob);
};
HTMLAnchorElement.prototype.click = () => {};
"""


def graph(path, task, dataset, names, seed):
    """An .onnx in whose answers every pixel of the crop counts."""
    weights = np.random.default_rng(seed).normal(0, 0.002, (48 * 48, len(names))).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 48, 48])
    answers = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(names)])
    stored = [onnx.numpy_helper.from_array(weights, "weights")]
    body = helper.make_graph(nodes, "tiny", [images], [answers], stored)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {"class_names": list(names), "task": task, "dataset": dataset, "preprocessing": IMAGES}
    helper.set_model_props(model, {"engrec": json.dumps(about | {"crop": STANDARD.as_dict()})})
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return [
        graph(folder / "expressions.onnx", "expression", "fer2013", fer2013.CLASS_NAMES, 1),
        graph(folder / "engagement.onnx", "engagement", "wacv2016", wacv2016.CLASS_NAMES, 2),
    ]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with pictures and videos made of one photograph, and a file that is no picture. The photograph is
    scikit-image's astronaut, by NASA, in the public domain."""
    folder = tmp_path_factory.mktemp("given")
    photograph = astronaut()[:400]
    Image.fromarray(photograph).save(folder / "one.png")
    Image.fromarray(np.hstack([photograph, photograph[:, ::-1]])).save(folder / "two.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    wide = np.asarray(Image.fromarray(astronaut()[:300, 60:460]).resize((760, 570)))
    places = (60 + 60 * np.sin(np.linspace(0, 2 * np.pi, 30, endpoint=False))).astype(int)
    frames = [np.ascontiguousarray(wide[:480, x : x + 640]) for x in places]
    write_video(folder / "camera.mjpeg", frames, 30)
    small = [frame[::2, ::2] for frame in frames]
    write_video(folder / "video.webm", small[:15], 15)
    for name in ("long.webm", "long.mp4"):
        write_video(folder / name, 2 * small, 15)
    whole = (folder / "long.webm").read_bytes()
    (folder / "cut.webm").write_bytes(whole[: len(whole) * 6 // 10])
    whole = bytearray((folder / "long.mp4").read_bytes())
    middle = slice(len(whole) // 2, len(whole) * 7 // 10)
    whole[middle] = bytes(len(whole[middle]))
    (folder / "damaged.mp4").write_bytes(whole)
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory, given):
    camera = f"--use-file-for-fake-video-capture={given / 'camera.mjpeg'}"
    options = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", camera)
    with opened(tmp_path_factory.mktemp("profile"), *options) as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        yield tab
    print("".join(f"\n{engine}: {rate:.1f} frames a second" for engine, rate in RATES.items()))


@pytest.fixture(scope="module")
def served(weights):
    with serving("--weights", *weights) as address:
        yield address


@contextmanager
def serving(*options, env=None):
    """The address of scripts/try.py with these options, which is stopped with Ctrl-C."""
    words = [sys.executable, str(SCRIPT), *options, "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    line = process.stdout.readline()
    try:
        yield re.fullmatch(r"expressions, engagement: (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\n", line)[1]
    finally:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "")


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    with exporting(weights, tmp_path_factory.mktemp("exported") / "page") as address:
        yield address


@contextmanager
def exporting(weights, folder):
    """The address of the page as files, on a plain host."""
    if not all((static.DIST / name).is_file() for name in static.RUNTIME):
        pytest.skip("no onnxruntime-web to compute with in the browser: make web")
    static.export(weights, folder)
    assert not [path for path in folder.iterdir() if path.suffix in (".py", ".json") and path.name != "about.json"]
    with hosted(partial(Quiet, directory=folder)) as (address, _):
        yield address


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@contextmanager
def hosted(handler):
    """A plain server on this machine: its address, and the paths that it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server.asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["served", "exported"])
def page(request, tab):
    """The first screen, freshly opened; afterwards no script has failed, and only the page's own host was asked."""
    address = request.getfixturevalue(request.param)
    tab.open(address)
    tab.engine = request.param
    yield tab
    assert not tab.errors
    assert [asked for asked in tab.asked if asked.startswith(address)]
    assert not [asked for asked in tab.asked if not asked.startswith((address, "data:", "blob:"))]


def agree(tab):
    tab.click("#agree")
    tab.until("document.body.dataset.open", 60)


def choose(tab, path):
    """Choose a file, as in the dialogue of the button."""
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    place = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    tab.call("DOM.setFileInputFiles", files=[str(path)], nodeId=place)


def give(tab, path):
    """Choose a file, and read it to its end; what the page says then."""
    tab.js("document.querySelector('#message').textContent = ''")
    choose(tab, path)
    return tab.until("document.querySelector('#message').textContent", 60)


def saved(tab):
    """The CSV, as a list of rows."""
    tab.js("window.saved = ''")
    tab.click("#save")
    return list(csv.reader(io.StringIO(tab.until("window.saved"))))


def predicted(weights, path):
    """What scripts/predict.py writes of a picture."""
    predictor = Predictor.load(weights)
    columns = Columns(predictor.answerer)
    [seen] = predictor.pictures(iter([(path.name, Image.open(path))]))
    return [columns.of_faces, *([str(value) for value in row] for row in face_rows(seen, columns))]


def numbers(rows):
    def number(cell):
        try:
            return float(cell)
        except ValueError:
            return np.nan

    return np.array([[number(cell) for cell in row] for row in rows[1:]])


def test_a_picture_is_answered_as_by_predict(page, given, weights):
    agree(page)
    assert give(page, given / "broken.jpg").startswith("This browser cannot read broken.jpg")
    assert give(page, given / "two.png") == "2 faces found."
    rows, expected = saved(page), predicted(weights, given / "two.png")
    assert rows[0] == expected[0]
    if page.engine == "served":
        assert rows == expected
    else:  # another build of onnxruntime: the boxes differ in the fifth digit
        np.testing.assert_allclose(numbers(rows), numbers(expected), atol=0.11)
        np.testing.assert_allclose(numbers(rows)[:, 12:], numbers(expected)[:, 12:], atol=0.01)
    beside = json.loads(page.until("window.beside"))
    assert (beside["complete"], beside["rows"], beside["inputs"][0]["input"]) == (True, 2, "two.png")
    assert beside["crop"] == STANDARD.as_dict()
    sums = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in weights]
    assert [one["sha256"] for one in beside["weights"]] == sums
    sources = weights if page.engine == "served" else ["network0.onnx", "network1.onnx"]
    assert [one["source"] for one in beside["weights"]] == sources
    assert ("onnxruntime-web" in beside["versions"]) == (page.engine == "exported")
    assert "Chrome" in beside["versions"]["browser"]
    page.until("document.querySelectorAll('.chip').length === 2")
    first = page.js("document.querySelector('.facts strong').textContent")
    page.click('.chip[aria-pressed="false"]')
    page.until(f"document.querySelector('.facts strong').textContent !== '{first}'")


BARS = "[...document.querySelectorAll('.bars .bar')].map((bar) => {}"
FILLED = BARS.format("bar.firstChild.getBoundingClientRect().width / bar.getBoundingClientRect().width)")
NUMBERS = "[...document.querySelectorAll('.bars .number')].map((number) => number.textContent)"


def test_bars_are_empty_until_there_is_an_answer(page, given):
    bars = len(fer2013.CLASS_NAMES) + len(wacv2016.CLASS_NAMES)
    page.click("#agree")
    assert page.js(FILLED) == [0] * bars
    page.until("document.body.dataset.open", 60)
    assert give(page, given / "broken.jpg").startswith("This browser cannot read")
    assert page.js(FILLED) == [0] * bars
    assert page.js(NUMBERS) == ["–"] * bars
    assert page.js("[...document.querySelectorAll('.plot')].every((plot) => !plot.clientHeight)")
    give(page, given / "one.png")
    page.until(f"{NUMBERS}.every((text) => text.endsWith('%'))")
    shares = page.js(FILLED)
    assert sum(shares[:7]) == pytest.approx(1, abs=0.02)
    assert [f"{100 * share:.0f} %" for share in shares] == page.js(NUMBERS)
    assert page.js("document.querySelector('.facts').innerText").count("found with score 0.9") == 1


@pytest.mark.parametrize("paper", PAPERS)
def test_bars_and_lines_have_the_colours_of_the_timeline(page, given, paper):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": paper}])
    agree(page)
    give(page, given / "video.webm")
    expressions, levels = (of_classes(one.CLASS_NAMES, paper) for one in (fer2013, wacv2016))
    shown = page.js(BARS.format("getComputedStyle(bar.firstChild).backgroundColor)"))
    ours = ["#" + bytes(map(int, re.findall(r"\d+", colour))).hex() for colour in shown]
    assert ours == expressions + levels
    pixels = "(() => { const c = document.querySelectorAll('.plot')[1], w = c.width, h = c.height;"
    pixels += "const d = c.getContext('2d').getImageData(0, 0, w, h).data;"
    pixels += "return [...new Set(new Uint32Array(d.buffer))].map((one) => one % 2 ** 24); })()"
    drawn = {"#" + pixel.to_bytes(3, "little").hex() for pixel in page.js(pixels)}
    assert drawn & set(levels)  # not all, as a steep line has no pixel of its own
    page.call("Emulation.setEmulatedMedia", features=[])


def test_the_camera_is_asked_for_after_agreement_and_on_demand_alone(page):
    assert page.js("document.querySelector('#work').hidden")
    for text in ("consented", "Not for judging", "Article 5(1)(f)"):
        assert text in page.js("document.querySelector('#start').innerText")
    agree(page)
    assert page.js("window.asked") == 0
    page.js("window.refusal = new DOMException('', 'NotAllowedError')")
    page.click("#camera")
    assert page.until("document.querySelector('#message.error')?.textContent").startswith("The camera was refused.")
    page.js("window.refusal = null")
    page.click("#camera")
    page.until("document.querySelector('.facts strong')?.textContent === 'Face 0'", 60)
    time.sleep(2)
    assert page.js("window.asked") == 2
    page.click("#stop")
    page.until("document.querySelector('#message').textContent === 'The camera has stopped.'")
    rows = saved(page)
    seconds = [float(row[2]) for row in rows[1:]]
    assert len(rows) > 4
    assert seconds == sorted(set(seconds))
    assert {row[3] for row in rows[1:]} == {"0"}
    smoothed = numbers(rows)[:, rows[0].index("smoothed_angry") :]
    assert np.isfinite(smoothed).all()
    drawn = "(() => { const c = document.querySelector('.plot'), d = c.getContext('2d').getImageData(0, 0, c.width,"
    drawn += " c.height).data; return new Set(new Uint32Array(d.buffer)).size; })()"
    assert page.js(drawn) > 8  # a line for each class, in its colour


@pytest.mark.parametrize("engine", ["Python, by websocket", "browser"])
def test_the_speed_as_shipped(tab, tmp_path, engine):
    """With the networks that come with engrec, as scripts/try.py and its --export take them: frames of the camera a
    second, after the first two."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # which is of the tests
    shipped = exporting(None, tmp_path / "page") if engine == "browser" else serving(env=env)
    with shipped as address:
        tab.open(address)
        agree(tab)
        tab.click("#camera")
        tab.until("document.querySelector('.facts strong')?.textContent === 'Face 0'", 60)
        time.sleep(2 + MEASURED)
        tab.click("#stop")
        tab.until("document.querySelector('#message').textContent === 'The camera has stopped.'")
        rows = saved(tab)
    assert not tab.errors
    seconds = np.unique(numbers(rows)[:, 2])  # a frame may have two faces
    seconds = seconds[seconds > seconds[0] + 2]
    assert len(seconds) > 1
    RATES[engine] = (len(seconds) - 1) / np.ptp(seconds)


def test_a_video_is_read_to_its_end(page, given):
    agree(page)
    assert give(page, given / "video.webm") == "The video is at its end."
    seconds = numbers(saved(page))[:, 2]
    assert len(seconds) >= 2
    assert 0 <= seconds[0] < seconds[-1] <= 1
    assert page.js("document.querySelector('#play').textContent") == "Play again"
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    assert page.js("document.documentElement.scrollWidth") <= 390
    page.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.webm", "it ends before the 4.0 s that its header states"),
        ("damaged.mp4", "this browser cannot decode the rest"),
    ],
)
def test_a_video_that_breaks_off_is_read_until_there(page, given, name, reason):
    agree(page)
    message = give(page, given / name)
    assert page.js("document.querySelector('#message').className") == "error"
    seconds = float(re.fullmatch(rf"{name} breaks off after ([\d.]+) s: {reason}\.", message)[1])
    assert 0.5 < seconds < 3.5
    assert page.js("document.querySelector('#play').textContent") == "Play again"
    rows = saved(page)
    assert float(rows[-1][2]) == pytest.approx(seconds, abs=0.051)
    beside = json.loads(page.until("window.beside"))
    damage = f"read {beside['inputs'][0]['read']} frames, {seconds:.1f} s, then: {reason}"
    assert (beside["complete"], beside["inputs"][0]["damage"]) == (False, damage)
    assert beside["unreadable"] == [f"{name}: {damage}"]
    if name == "cut.webm":  # as scripts/predict.py, in the same words
        with Video(given / name) as video:
            *_, (last, _) = video.frames()
        assert video.damage.endswith(f" s, then: {reason}")
        assert seconds <= last + 0.05
    assert give(page, given / "video.webm") == "The video is at its end."  # which clears what was said


KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}
FOCUSED = "(({ id, tagName, className }) => id || className || tagName)(document.activeElement)"
PLAY = "document.querySelector('#play').textContent"


def press(tab, *keys):
    """What has the focus then."""
    for key in keys:
        code, text = KEYS[key]
        tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        tab.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
    return tab.js(FOCUSED)


def test_the_keyboard_is_enough(page, given):
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.js("window.dialogues = 0; document.querySelector('#file').addEventListener('click', () => window.dialogues++)")
    assert press(page, "Tab") == "agree"
    press(page, "Enter")
    page.until("document.body.dataset.open", 60)
    assert page.js(FOCUSED) == "open"
    press(page, "Enter")
    assert page.js("window.dialogues") == 1
    choose(page, given / "long.webm")
    page.until("!document.querySelector('#save').disabled", 60)
    assert [press(page, "Tab") for _ in range(2)] == ["camera", "play"]
    press(page, " ")
    assert page.js(PLAY) == "Resume"
    assert press(page, "Tab") == "save"
    page.js("window.saved = ''")
    press(page, "Enter")
    assert page.until("window.saved").startswith("input,")
    press(page, "Tab")  # Intended use
    assert page.js("document.activeElement.tagName") == "SUMMARY"


def test_the_keyboard_keeps_its_place(page, given):
    """Where the button that was pressed goes away, or its source starts again."""
    agree(page)
    give(page, given / "video.webm")
    assert [press(page, "Tab") for _ in range(2)] == ["camera", "play"]
    page.js("document.querySelector('#message').textContent = ''")
    assert press(page, "Enter") == "play"
    assert page.until("document.querySelector('#message').textContent") == "The video is at its end."
    assert page.js(FOCUSED) == "play"
    give(page, given / "two.png")
    page.until("document.querySelectorAll('.chip').length === 2")
    page.js("document.querySelector('#camera').focus()")
    assert [press(page, "Tab") for _ in range(3)] == ["save", "chip", "chip"]
    number = page.js("document.activeElement.dataset.id")
    press(page, "Enter")
    page.until(f"document.querySelector('.facts strong').textContent === 'Face {number}'")
    page.js("document.querySelector('#camera').focus()")
    press(page, "Enter")
    page.until("document.querySelector('.facts strong')?.textContent === 'Face 0'", 60)
    assert press(page, "Tab") == "stop"
    press(page, "Enter")
    page.until("document.querySelector('#message').textContent === 'The camera has stopped.'")
    assert page.js(FOCUSED) == "camera"


def test_nothing_can_leave_the_page(page):
    """Neither the page nor its worker reaches another server, whatever a script tries."""
    tries = """(address) => [
        () => fetch(address), () => fetch(address, { method: "POST", body: "picture", mode: "no-cors" }),
        () => navigator.sendBeacon?.(address, "picture"), () => new WebSocket(address.replace("http", "ws")),
        () => new EventSource(address), () => import(address + "x.js"), () => (new Image().src = address),
    ].map((one) => { try { return Promise.resolve(one()).catch(() => 0); } catch { return 0; } })"""
    with hosted(Quiet) as (address, asked):
        page.js(f"Promise.all(({tries})('{address}')).then(() => 1)")
        if page.engine == "exported":
            code = f"Promise.all(({tries})('{address}')).then(() => postMessage(1))"
            page.js(
                f"new Promise((done) => {{ const code = new Blob([{json.dumps(code)}], {{ type: 'text/javascript' }});"
                "new Worker(URL.createObjectURL(code), { type: 'module' }).onmessage = done; }).then(() => 1)"
            )
        page.js(f"new Promise((done) => setTimeout(done, 200)).then(() => location.href !== '{address}')")
        page.asked[:] = [one for one in page.asked if not one.startswith((address, address.replace("http", "ws")))]
        assert asked == []
