"""Whom the page's server answers, what it answers to frames, and the page as files."""

import asyncio
import base64
import importlib
import json
import re
import socket

import aiohttp
import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestServer
from tiny_networks import expressions, faking, picture

from engrec.errors import errors_in_one_line
from engrec.faces.crop import crop
from engrec.use.network import load_network
from engrec.use.page import contents, server, static
from engrec.use.rows import Columns

command = importlib.import_module("try")  # a keyword
LOCK = contents.HERE / "web" / "package-lock.json"


def asking(talk, predictor=None):
    """What talk(session, address) returns, of a server with networks without weights."""

    async def served():
        serving = TestServer(server.Server(predictor or faking()).app())
        await serving.start_server()
        try:
            async with aiohttp.ClientSession() as session:
                return await talk(session, f"http://127.0.0.1:{serving.port}")
        finally:
            await serving.close()

    return asyncio.run(served())


def frame(rgb, seconds=np.nan, sides=None):
    """The message of a frame, as the page sends it."""
    height, width = rgb.shape[:2]
    head = np.array([seconds, *(sides or (width, height))], "<f8").tobytes()
    return head + rgb.tobytes()


def sending(*messages):
    """The answers to messages on one websocket, opened as the page opens it."""

    async def talk(session, address):
        answers = []
        async with session.ws_connect(f"{address}/frames", headers={"Origin": address}) as socket:
            for message in messages:
                if isinstance(message, str):
                    await socket.send_str(message)
                else:
                    await socket.send_bytes(message)
                    answers.append(await socket.receive_json())
        return answers

    return asking(talk)


def test_the_page_and_refusals_forbid_what_is_foreign():
    async def talk(session, address):
        answers = []
        for method, path, headers in (
            ("GET", "/", {}),
            ("GET", "/main.js", {}),
            ("GET", "/about.json", {}),
            ("GET", "/other.js", {}),
            ("GET", "/server.py", {}),
            ("GET", "/../contents.py", {}),
            ("GET", "/web/package.json", {}),
            ("POST", "/", {}),
            ("GET", "/", {"Host": "evil.example"}),
            ("GET", "/frames", {"Host": "evil.example"}),
            ("GET", "/frames", {}),
        ):
            async with session.request(method, f"{address}{path}", headers=headers) as answer:
                answers.append((answer.status, answer.headers, await answer.text()))
        return answers

    answers = asking(talk)
    assert [status for status, *_ in answers] == [200, 200, 200, 404, 404, 404, 404, 405, 403, 403, 403]
    for _, headers, _ in answers:
        assert headers["Content-Security-Policy"] == f"{contents.POLICY}; frame-ancestors 'none'"
        assert headers["Cache-Control"] == "no-store"
    assert not re.search(r"https?:|wss?:|\*", contents.POLICY)


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_only_the_page_itself_may_send_frames(origin):
    async def talk(session, address):
        headers = {} if origin is None else {"Origin": origin}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{address}/frames", headers=headers)
        return refused.value

    refused = asking(talk)
    assert refused.status == 403
    assert refused.headers["Content-Security-Policy"].startswith(contents.POLICY)


def test_a_picture_is_answered_as_by_predict():
    rgb = picture(x=30, y=20, side=50, value=200)
    [answer] = sending(frame(rgb))
    [face] = answer["faces"]
    predictor = faking()
    [seen] = predictor.pictures(iter([("", command_image(rgb))]))
    assert face["box"] == list(seen.faces[0].box)
    assert (face["id"], face["px"], face["roll"]) == (0, 50.0, 0.0)
    np.testing.assert_allclose(
        [p for row in face["answers"] for p in row],
        [p for one in seen.faces[0].answers for p in one.probabilities.values()],
    )
    expected = crop(rgb, predictor.in_photos(rgb)[0])
    assert base64.b64decode(face["crop"]) == expected.tobytes()


def command_image(rgb):
    from PIL import Image

    return Image.fromarray(rgb)


def test_faces_of_a_video_are_followed_until_it_starts_again():
    near, far = picture(x=10), picture(x=70)
    cut = np.full_like(near, 255)
    cut[0] = 0
    messages = [frame(near, 0.0), frame(near, 0.1), frame(far, 0.2), frame(cut, 0.3), server.RESTART, frame(near, 9.0)]
    ids = [[face["id"] for face in answer["faces"]] for answer in sending(*messages)]
    assert ids == [[0], [0], [1], [2], [0]]


def test_a_picture_without_a_face_has_an_empty_answer():
    assert sending(frame(np.zeros((30, 40, 3), np.uint8))) == [{"faces": []}]


def test_a_damaged_frame_is_answered_in_one_line_and_the_next_as_usual():
    rgb = picture()
    bad = [
        b"",
        b"short",
        frame(rgb)[:-1],
        frame(rgb, sides=(0, 0)),
        frame(rgb, sides=(np.nan, 80)),
        frame(rgb, sides=(120.5, 80)),
        frame(rgb, sides=(-120, -80)),
        frame(rgb, sides=(1e9, 1e9)),
        frame(rgb, np.inf),
        frame(rgb, -1.0),
    ]
    *refused, good = sending(*bad, frame(rgb))
    for answer in refused:
        assert answer["error"].startswith("the frame cannot be read: ")
        assert "\n" not in answer["error"]
    assert len(good["faces"]) == 1


def test_another_message_ends_the_connection():
    async def talk(session, address):
        async with session.ws_connect(f"{address}/frames", headers={"Origin": address}) as socket:
            await socket.send_str("anything else")
            return (await socket.receive()).data

    assert asking(talk) == aiohttp.WSCloseCode.POLICY_VIOLATION


def test_the_page_knows_the_networks_and_the_columns_of_predict():
    answerer = faking().answerer
    about = json.loads(contents.about(answerer, "local"))
    assert [network["task"] for network in about["networks"]] == ["expression", "engagement"]
    assert [network["class_names"] for network in about["networks"]] == [["angry", "happy"], ["low", "high"]]
    assert about["columns"] == Columns(answerer).of_faces


@pytest.mark.parametrize("engine", ["local", "browser"])
def test_the_first_screen_states_the_intended_use(engine):
    text = contents.page(faking().answerer, engine)
    first = text[: text.index('id="agree"')]
    for part in ("consented", "not what the person felt", "Not for judging", "Article 5(1)(f)", "Nobody is recognised"):
        assert part in first
    assert "{" not in text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)


def test_the_lock_file_has_checksums_and_no_addresses():
    lock = json.loads(LOCK.read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages["node_modules/onnxruntime-web"]["version"] == "1.30.0"
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not re.search(r"https?:|resolved", LOCK.read_text())


# The command.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "best.ckpt"
    torch.save(expressions(), path)
    return path


def refused(*arguments):
    with pytest.raises(SystemExit) as stopped, errors_in_one_line():
        command.main([str(argument) for argument in arguments])
    return str(stopped.value)


def test_mistakes_are_said_in_one_line(checkpoint, tmp_path, monkeypatch):
    assert refused("--weights", tmp_path / "gone.ckpt", "--port", 0) == "65"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve on 127.0.0.1:{port}" in refused("--weights", checkpoint, "--port", port)
    assert "2" in refused("--port", 70000)
    monkeypatch.setattr(static, "DIST", tmp_path)
    message = refused("--weights", checkpoint, "--export", tmp_path / "page")
    assert message.startswith("error: the page needs onnxruntime-web")
    assert "make web" in message
    assert not (tmp_path / "page").exists()


def test_an_export_does_not_replace_other_files(checkpoint, tmp_path, monkeypatch):
    for name in static.RUNTIME:
        (tmp_path / name).touch()
    monkeypatch.setattr(static, "DIST", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert "holds other files (thesis.txt)" in refused("--weights", checkpoint, "--export", tmp_path / "mine")
    assert "is a file" in refused("--weights", checkpoint, "--export", tmp_path / "mine" / "thesis.txt")


@pytest.mark.slow
def test_a_checkpoint_is_exported_with_the_page(checkpoint, tmp_path, monkeypatch):
    for name in static.RUNTIME:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(static, "DIST", tmp_path)
    folder = tmp_path / "page"
    for weights in ([str(checkpoint)] * 2, [str(checkpoint)]):  # the second page replaces the first
        assert static.export(weights, folder) == sum(path.stat().st_size for path in folder.iterdir())
    about = json.loads((folder / "about.json").read_text())
    [network] = about["networks"]
    assert (network["name"], network["file"]) == (checkpoint.parent.name, "network0.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (5, 1, 48, 48), np.uint8)
    theirs, ours = (load_network(str(path))(crops) for path in (folder / network["file"], checkpoint))
    np.testing.assert_allclose(theirs, ours, atol=0.01)  # it is stored in half precision
    assert {path.name for path in folder.iterdir()} >= {"index.html", "yunet.onnx", *static.RUNTIME}
    assert len(list(folder.glob("*.onnx"))) == 2
    assert str(tmp_path) not in "".join(path.read_text(errors="replace") for path in folder.iterdir())
