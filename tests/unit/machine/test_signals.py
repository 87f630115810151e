"""Signals end a run as an exception does, and wait for what must be complete."""

import signal
import subprocess

import pytest

from engrec.machine import cluster
from engrec.machine.signals import signals_end_the_run, uninterrupted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_status_and_its_handler_comes_back(number, status):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, signals_end_the_run():
        signal.raise_signal(number)
    assert end.value.code == status
    assert signal.getsignal(number) is before


def test_what_is_done_first_at_a_signal_is_done_once_and_its_handler_comes_back():
    done, before = [], {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    for number in before:
        with pytest.raises(SystemExit) as end, signals_end_the_run(**{number.name: lambda n=number: done.append(n)}):
            signal.raise_signal(number)
        assert end.value.code == 128 + number
    assert done == [signal.SIGTERM, signal.SIGUSR1]
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_signal_waits_for_what_is_to_be_whole():
    written = []

    def write():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            written.append("whole")
        written.append("more")

    with pytest.raises(SystemExit) as end, signals_end_the_run():
        write()
    assert end.value.code == 143
    assert written == ["whole"]


def test_without_a_signal_nothing_waits():
    with signals_end_the_run(), uninterrupted():
        pass


@pytest.mark.parametrize(
    ("state", "asked"), [("JobState=RUNNING PreemptTime=2026-11-23", 1), ("JobState=COMPLETING PreemptTime=None", 0)]
)
def test_a_terminated_job_is_requeued_if_it_was_preempted(monkeypatch, state, asked):
    said = []

    def scontrol(*arguments):
        said.append(arguments[0])
        return subprocess.CompletedProcess(arguments, 0, state, "")

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(cluster, "scontrol", scontrol)
    with pytest.raises(SystemExit) as end, signals_end_the_run(**cluster.slurm_signals()):
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143
    assert said.count("requeue") == asked


def test_outside_slurm_its_signals_are_left_alone(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert cluster.slurm_signals() == {}


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_end_the_run():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
