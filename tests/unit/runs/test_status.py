"""The state of a run: what is written while it runs, and what is read when its process is gone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engrec.machine.processes import process
from engrec.runs.status import FILE, SILENCE, reported, status_of


def written(folder):
    return json.loads((folder / FILE).read_text())


def test_it_is_running_and_then_it_is_finished(tmp_path):
    before = time.time()
    with reported(tmp_path, "python train.py seed=1"):
        during = status_of(tmp_path)
        assert (during.state, during.ended) == ("running", None)
    after = status_of(tmp_path)
    assert after.state == "finished"
    assert before <= during.started == after.started <= after.ended <= time.time()
    assert after.command == "python train.py seed=1"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("raised", "state", "error"),
    [
        (SystemExit(), "finished", None),
        (SystemExit(130), "stopped", None),
        (SystemExit(143), "stopped", None),
        (SystemExit("error: no"), "failed", "error: no"),
        (ValueError("the loss is\nno number"), "failed", "the loss is no number"),
        (
            MemoryError(),
            "failed",
            "not enough memory: set a smaller batch_size=, network (model.width=) or data set, or trainer.precision=",
        ),
        (AssertionError(), "failed", "AssertionError"),
    ],
)
def test_how_it_ended(tmp_path, raised, state, error):
    with pytest.raises(type(raised)), reported(tmp_path, ""):
        raise raised
    status = status_of(tmp_path)
    assert (status.state, status.error) == (state, error)


def test_a_resumed_run_runs_again(tmp_path):
    with pytest.raises(SystemExit), reported(tmp_path, ""):
        sys.exit(143)
    with reported(tmp_path, ""):
        assert status_of(tmp_path).state == "running"
    assert status_of(tmp_path).state == "finished"


def test_a_resumed_run_counts_all_its_parts(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def work(seconds):
        with reported(tmp_path, ""):
            (tmp_path / "last.ckpt").touch()
            now[0] += seconds

    work(10)
    now[0] += 1000
    work(5)
    status = status_of(tmp_path)
    assert (status.started, status.begun, status.ended, status.seconds) == (100, 1110, 1115, 15)
    os.utime(tmp_path / FILE, (1120, 1120))
    (tmp_path / FILE).write_text(json.dumps(written(tmp_path) | {"state": "running", "ended": None, "process": None}))
    os.utime(tmp_path / FILE, (1120, 1120))  # it was killed after another five seconds
    now[0] = 2000
    work(1)
    assert status_of(tmp_path).seconds == pytest.approx(10 + 10 + 1)


def test_another_run_in_the_folder_starts_from_scratch(tmp_path):
    for _ in range(2):
        with reported(tmp_path, ""):
            pass
    status = status_of(tmp_path)
    assert status.started == status.begun
    assert status.earlier == 0


def test_a_killed_run_has_failed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from engrec.runs.status import reported\n"
        f"with reported(Path({str(tmp_path)!r}), ''): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert status_of(tmp_path).state == "running"
        running.kill()
    status = status_of(tmp_path)
    assert status.state == "failed"
    assert "killed" in status.error


def test_a_run_that_was_killed_with_its_result_written_is_finished(tmp_path):
    with reported(tmp_path, ""):
        (tmp_path / FILE).write_text(json.dumps(written(tmp_path) | {"process": {"pid": os.getpid(), "began": "1"}}))
        (tmp_path / "result.json").write_text("{}")
        assert status_of(tmp_path).state == "finished"


def test_a_process_that_has_ended_is_none_though_nobody_took_notice(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        ended.stdout.read()
        deadline = time.monotonic() + 10
        while process(ended.pid) is not None:
            assert time.monotonic() < deadline
        os.kill(ended.pid, 0)  # it is there still


def test_two_runs_do_not_share_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from engrec.runs.status import reported\n"
        f"with reported(Path({str(tmp_path)!r}), 'first'): print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as first:
        first.stdout.readline()
        with pytest.raises(ValueError, match="another run is active in"), reported(tmp_path, "second"):
            pass
        assert status_of(tmp_path).command == "first"
        first.kill()
    with reported(tmp_path, "third"):
        assert status_of(tmp_path).command == "third"


def test_another_process_with_its_number_is_not_it(tmp_path):
    with reported(tmp_path, ""):
        own = written(tmp_path)
        assert own["process"] == process(os.getpid())
        boot, _, ticks = own["process"]["began"].rpartition(" ")
        assert boot
        for began in (f"{boot} 1", f"another-boot {ticks}"):
            (tmp_path / FILE).write_text(json.dumps(own | {"process": own["process"] | {"began": began}}))
            assert status_of(tmp_path).state == "failed"


def test_its_process_is_looked_at_once(tmp_path, monkeypatch):
    with reported(tmp_path, ""):
        looked = []
        monkeypatch.setattr("engrec.runs.status.process", lambda pid: looked.append(pid) or process(pid))
        assert status_of(tmp_path).state == "running"
        assert looked == [os.getpid()]


def test_elsewhere_it_runs_for_as_long_as_it_writes(tmp_path):
    with reported(tmp_path, ""):
        (tmp_path / FILE).write_text(json.dumps(written(tmp_path) | {"host": "elsewhere", "process": None}))
        assert status_of(tmp_path).state == "running"
        long_ago = time.time() - SILENCE - 60
        os.utime(tmp_path / FILE, (long_ago, long_ago))
        assert status_of(tmp_path).state == "unknown"
        (tmp_path / "metrics.csv").touch()
        assert status_of(tmp_path).state == "running"


def test_older_runs_say_it_by_their_result(tmp_path):
    assert status_of(tmp_path).state == "unknown"
    (tmp_path / "result.json").write_text("{}")
    assert status_of(tmp_path).state == "finished"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "{}", '{"state": "running"}', '{"process": 1, "what": 2}', 9999 * "["),
        *(f'{{"process": {{"pid": {pid}}}, "state": "running"}}' for pid in ('"me"', "null", 10**20, "[]")),
        *(f'{{"process": null, {field}}}' for field in ('"state": ["x"]', '"state": "running", "started": "soon"')),
        '{"process": null, "state": "running", "error": 3}',
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_file_is_an_error(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    status = status_of(tmp_path)
    assert status.state == "unknown"
    assert FILE in status.error


def test_a_folder_that_is_gone_does_not_hide_how_it_ended(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def fail():
        (folder / FILE).unlink()
        folder.rmdir()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), reported(folder, ""):
        fail()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which is Linux's")
def test_a_run_that_a_full_disk_ended_is_not_said_to_run(tmp_path):
    def fill():
        (tmp_path / f".{FILE}.{os.getpid()}.part").symlink_to("/dev/full")
        raise OSError(28, "No space left on device", "last.ckpt")

    with pytest.raises(OSError, match="No space"), reported(tmp_path, "python train.py"):
        fill()
    status = status_of(tmp_path)
    assert (status.state, status.error) == ("failed", "last.ckpt: No space left on device")
    assert status.ended is not None
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_status_of_a_later_version_is_read(tmp_path):
    with reported(tmp_path, ""):
        pass
    (tmp_path / FILE).write_text(json.dumps(written(tmp_path) | {"node": 3}))
    assert status_of(tmp_path).state == "finished"
