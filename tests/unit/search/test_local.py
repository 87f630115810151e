"""Trials as processes of this machine."""

import json
import signal
import subprocess
import time

import pytest

from engrec.machine import processes
from engrec.runs.folder import last_lines
from engrec.search import local


def test_a_process_is_known_by_more_than_its_number():
    one = subprocess.Popen(["sleep", "60"])
    time.sleep(0.02)
    two = subprocess.Popen(["sleep", "60"])
    assert processes.process(one.pid) == processes.process(one.pid)
    assert processes.process(one.pid)["began"] != processes.process(two.pid)["began"]
    for process in (one, two):
        process.kill()
        process.wait()
    assert processes.process(one.pid) is None


def test_what_a_trial_started_itself_ends_with_it(tmp_path):
    launcher = local.Launcher([{"ENGREC_SLOT": "7"}])
    job = launcher.start(
        ["sh", "-c", f"echo $ENGREC_SLOT > {tmp_path}/slot; sleep 60 & echo $! > {tmp_path}/child"], tmp_path, 0
    )
    start = time.monotonic()
    launcher.wait([job], 30)
    assert time.monotonic() - start < 10
    assert job.ended() == 0
    assert (tmp_path / "slot").read_text() == "7\n"
    child = int((tmp_path / "child").read_text())
    while processes.process(child) is not None:
        assert time.monotonic() - start < 10


def test_another_process_with_the_number_of_a_dead_trial_is_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    record = {"pid": other.pid, "began": "another boot 17"}
    (tmp_path / "process.json").write_text(json.dumps(record))
    local.Launcher([{}]).left_over([tmp_path])
    assert other.poll() is None
    (tmp_path / "process.json").write_text(json.dumps(processes.process(other.pid)))
    local.Launcher([{}]).left_over([tmp_path])
    assert other.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(
    "text", ["", "[]", '{"pid": 1}', '{"pid": 1e999, "began": "x"}', '{"pid":' * 100_000], ids=range(5)
)
def test_a_damaged_record_of_a_process_is_none(tmp_path, text):
    (tmp_path / "process.json").write_text(text)
    assert processes.read_record(tmp_path / "process.json") is None


def test_a_trial_in_an_allocation_does_not_take_itself_for_a_task_of_the_job(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_RESTART_COUNT", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "1")
    launcher = local.Launcher([{}])
    job = launcher.start(["sh", "-c", f"env > {tmp_path}/env"], tmp_path, 0)
    while job.ended() is None:
        launcher.wait([job], 1)
    seen = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {name for name in seen if name.startswith(("SLURM", "SBATCH"))} == {"SLURM_CONF", "SBATCH_ACCOUNT"}


def test_a_process_that_does_not_heed_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "GRACE", 0.1)
    launcher = local.Launcher([{}])
    job = launcher.start(["sh", "-c", "trap '' TERM; while true; do sleep 0.01; done"], tmp_path, 0)
    time.sleep(0.1)
    start = time.monotonic()
    launcher.end([job])
    assert job.ended() == -signal.SIGKILL
    assert 0.1 <= time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("log", "message"),
    [("", ""), ("a\n\nb\n", "a\nb"), ("1%\r2%\r3%\nerror: it\n", "3%\nerror: it"), ("x\n" * 9, "x\nx\nx\nx\nx")],
)
def test_the_end_of_a_log_is_without_what_a_bar_has_overwritten(tmp_path, log, message):
    (tmp_path / "log").write_text(log)
    assert last_lines(tmp_path / "log") == message
    assert last_lines(tmp_path / "none") == ""
