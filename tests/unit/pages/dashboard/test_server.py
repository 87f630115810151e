"""Whom the dashboard answers, and its command."""

import asyncio
import base64
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dashboard
import pytest
from aiohttp.test_utils import TestServer
from dashboard_runs import made

from engrec.errors import errors_in_one_line
from engrec.pages import page
from engrec.pages.dashboard import records, server

SCRIPT = Path(dashboard.__file__)


async def asked_of(root, requests, host="127.0.0.1"):
    """(status, headers, body) for each request line and its headers, sent as they are."""
    serving = TestServer(server.Server(root, host, True).app())
    await serving.start_server()

    def talk():
        answers = []
        for method, path, headers in requests:
            connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": "127.0.0.1", **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            answers.append((answer.status, dict(answer.getheaders()), answer.read().decode()))
            connection.close()
        return answers

    try:
        return await asyncio.get_running_loop().run_in_executor(None, talk)
    finally:
        await serving.close()


def answers(root, *requests, **options):
    return asyncio.run(asked_of(root, [(m, p, h[0] if h else {}) for m, p, *h in requests], **options))


def test_the_server_answers_get_of_its_own_paths_alone(tmp_path):
    made(tmp_path / "outputs" / "run")
    (tmp_path / "secret").write_text("secret")
    run = records.identity("run")
    good = [
        "/",
        "/style.css",
        "/main.js",
        "/tables.js",
        "/plotly.js",
        "/api/state",
        f"/api/texts/{run}",
        f"/api/history/{run}",
        "/api/intervals/all",
    ]
    bad = [
        "/../secret", "/%2e%2e/secret", "/..%2fsecret", "/run/config.yaml", "/outputs/run/config.yaml", "/other.js",
        "/api/texts/..%2f..%2fsecret", "/api/texts/" + "0" * 16, "/api/texts/run", "/api/secret/" + run,
        f"/api/pair/{run}", f"/api/texts/{run}+{run}", f"/api/texts/{run}/..", "//etc/passwd", "/api/answer/" + run,
    ]  # fmt: skip
    told = answers(tmp_path / "outputs", *(("GET", path) for path in good + bad))
    assert [status for status, *_ in told] == [200] * len(good) + [404] * len(bad)
    assert "secret" not in "".join(body for *_, body in told[len(good) :])
    others = answers(tmp_path / "outputs", *((method, "/") for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")))
    assert {status for status, *_ in others} == {405}
    for _, headers, _ in told + others:
        assert headers["Content-Security-Policy"].startswith(page.policy("'self'"))
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_from_elsewhere_gets_nothing(tmp_path):
    made(tmp_path / "run")
    [(status, headers, body)] = answers(tmp_path, ("GET", "/api/state", {"Host": "evil.example"}))
    assert status == 403
    assert headers["Content-Security-Policy"].startswith(page.policy("'self'"))
    assert "run" not in json.dumps(body.replace("dashboard", ""))


def test_the_state_is_told_once_and_then_what_is_new(tmp_path):
    made(tmp_path / "run")

    async def twice():
        serving = server.Server(tmp_path, "127.0.0.1", True)
        await serving.look()
        first = serving.outputs.since()
        return first, serving.outputs.since(first["version"], first["token"])

    first, second = asyncio.run(twice())
    assert ([run["path"] for run in first["runs"]], second["runs"]) == (["run"], [])


def test_a_folder_that_cannot_be_read_is_said_in_the_page(tmp_path):
    [(status, _, body)] = answers(tmp_path / "gone", ("GET", "/api/state"))
    assert status == 200
    assert json.loads(body)["error"].endswith("gone: No such file or directory")


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=" + "9" * 5000, "token=%ff", "since=²"])
def test_an_odd_question_is_answered_whole(tmp_path, query):
    made(tmp_path / "run")
    [(status, _, body)] = answers(tmp_path, ("GET", "/api/state?" + query.replace("²", "%C2%B2")))
    assert status == 200
    assert len(json.loads(body)["runs"]) == 1


# The command.


def command(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_the_command_prints_its_address_serves_and_ends_quietly(tmp_path):
    made(tmp_path / "run")
    process = command(tmp_path, "--port", 0)
    line = process.stdout.readline()
    address = re.search(r"http://(127\.0\.0\.1:\d+)/", line)[1]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/api/state")
    assert len(json.load(connection.getresponse())["runs"]) == 1
    for sent in (b"0123456789GET / HTTP/1.1\r\n\r\n", b"\0\xff\r\n\r\n", b"GET / HTTP/9.9\r\nA\0B: c\r\n\r\n"):
        with socket.create_connection(tuple(address.split(":"))) as hostile:
            hostile.sendall(sent)
            assert hostile.recv(100).startswith(b"HTTP/1.")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "")


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(tmp_path, "--port", port)
        out, errors = done.communicate(timeout=60)
    assert (done.returncode, out) == (1, "")
    why = f"cannot serve on 127.0.0.1:{port} (Address already in use)"
    assert errors == f"error: {why}: use another --port, or --port 0 for any free one\n"


def main(*arguments):
    with errors_in_one_line():
        dashboard.main([str(argument) for argument in arguments])


def test_an_export_is_one_file_and_real_faces_are_not_in_it(faces_run, tmp_path, capsys):
    faces_run("wacv2016")
    for options, pictures in (([], False), (["--faces"], True)):
        main(tmp_path / "outputs", "--export", tmp_path / "out" / "page.html", *options)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]
        text = (tmp_path / "out" / "page.html").read_text()
        packed = re.findall(r'<script type="text/plain" id="[^"]*">(.*?)</script>', text, flags=re.DOTALL)
        answers = [gzip.decompress(base64.b64decode(part)).decode() for part in packed]
        assert any('"src":"data:image/png' in answer for answer in answers) is pictures
        assert ('"src":"data:image/png' in text) is False
    assert "page.html: 1 run, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{}/gone", "--export", "{}/page.html"],
            r"error: .*/gone does not exist; python train.py",
        ),
        (["{}/file"], r"error: .*/file is not a folder; python train.py"),
        (["{}/empty", "--export", "{}/page.html"], r"error: there is no run in .*/empty; python train.py"),
        (["{}", "--export", "{}/file/page.html"], r"error: .*/file: [A-Z][a-z ]+$"),
        (["{}", "--host", "nowhere.invalid", "--port", "0"], r"error: cannot serve on nowhere.invalid:0 \("),
    ],
)
def test_a_mistake_is_said_in_one_line(tmp_path, arguments, message):
    made(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=message):
        main(*(argument.format(tmp_path) for argument in arguments))


def test_the_command_starts_without_what_only_single_runs_need():
    lines = "import json, sys; import dashboard; from engrec.pages.dashboard import server; "
    lines += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    path = f"{SCRIPT.parent}{os.pathsep}{SCRIPT.parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    loaded = set(json.loads(done.stdout))
    assert {"aiohttp", "engrec", "yaml"} <= loaded
    assert not {"torch", "scipy", "sklearn", "optuna", "pandas", "pytorch_lightning", "itables"} & loaded
