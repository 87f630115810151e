"""Trials as jobs of Slurm, with its answers made up; a real one answers in tests/integration/test_search_slurm.py."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from searches import parsed, result, searched, states

from engrec.runs import status
from engrec.search import slurm
from engrec.search.launcher import INTERRUPTED
from engrec.search.trial import FROM_OUTSIDE


class Slurm:
    """What squeue knows, a job a line, and all that is asked."""

    def __init__(self):
        self.known, self.asked, self.dead = [], [], False

    def ask(self, *command):
        self.asked.append(command)
        if self.dead:
            raise OSError("squeue: Unable to contact slurm controller")
        if command[0] == "squeue":
            names = command[-1].removeprefix("--name=").split(",")
            return "".join(f"{number}|{state}|{name}|0|\n" for number, state, name in self.known if name in names)
        self.known = [(n, "CANCELLED" if n == command[1] else state, name) for n, state, name in self.known]
        return ""


@pytest.fixture
def cluster(monkeypatch):
    cluster = Slurm()
    monkeypatch.setattr(slurm, "ask", cluster.ask)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm, "EVERY", 0.01)
    return cluster


@pytest.fixture
def launcher(cluster, tmp_path):
    return slurm.Launcher(2, slurm.Options(), tmp_path / "slurm")


def folders(tmp_path, number):
    made = [tmp_path / "trials" / str(n) for n in range(number)]
    for folder in made:
        folder.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"partiton": "gpu"},
            r"slurm.partiton is unknown \(did you mean partition\?\); it must be one of timeout_m",
        ),
        ({"timeout_min": "1h"}, "slurm.timeout_min=1h must be a whole number above 0"),
        ({"cpus_per_task": "0"}, "slurm.cpus_per_task=0 must be a whole number above 0"),
        ({"mem_gb": "-1"}, "slurm.mem_gb=-1 must be a number above 0"),
        ({"timeout_min": "2"}, "slurm.timeout_min=2 is over before slurm.signal_delay_s=120"),
    ],
)
def test_wrong_options_are_reported(given, said):
    with pytest.raises(ValueError, match=said):
        slurm.read_options(given)


def test_options_are_numbers_where_slurm_has_numbers():
    options = slurm.read_options({"gpus_per_node": "1", "mem_gb": "7.5", "partition": "12"})
    assert (options.gpus_per_node, options.mem_gb, options.partition) == (1, 7.5, "12")
    assert options.timeout_min == slurm.Options().timeout_min


def test_a_run_folder_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    one, other = folders(tmp_path, 2)
    monkeypatch.chdir(one)
    assert slurm.job_name(one) == slurm.job_name(one.relative_to(one)) != slurm.job_name(other)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "NEW"])
def test_these_states_are_no_end(tmp_path, state):
    job = slurm.Job("1", tmp_path)
    job.saw(state)
    assert job.ended() is None


@pytest.mark.parametrize("state", ["CANCELLED", "OUT_OF_MEMORY", "DEADLINE"])
def test_what_was_ended_from_outside_counts_as_that(tmp_path, state):
    job = slurm.Job("1", tmp_path)
    job.saw(state)
    assert job.ended() in FROM_OUTSIDE


@pytest.mark.parametrize("state", ["TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"])
def test_a_lost_machine_counts_when_slurm_does_not_requeue_the_job(tmp_path, state):
    job = slurm.Job("1", tmp_path)
    job.saw(state)
    assert job.ended() is None
    job.since -= 4 * slurm.EVERY
    job.saw(state)
    assert job.ended() == INTERRUPTED
    job.saw("PENDING")
    assert job.ended() is None


def test_a_result_may_come_later_than_the_end(tmp_path):
    job = slurm.Job("1", tmp_path)
    job.saw("COMPLETED")
    assert job.ended() is None
    (tmp_path / "result.json").touch()
    assert job.ended() == 0
    (tmp_path / "result.json").unlink()
    job.since -= 2 * slurm.LATE
    assert job.ended() == 0


def test_slurm_is_asked_once_for_all_and_rarely(cluster, launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "EVERY", 60.0)
    runs = [launcher._track(str(n), folder) for n, folder in enumerate(folders(tmp_path, 5))]
    cluster.known = [(job.number, "RUNNING", slurm.job_name(job.folder)) for job in runs]
    for _ in range(10):
        launcher.wait(runs, 0.001)
    assert cluster.asked == []
    launcher.asked -= 61
    for _ in range(10):
        launcher.wait(runs, 0.001)
    assert len(cluster.asked) == 1
    assert {job.state for job in runs} == {"RUNNING"}


def says(folder, state, started=1.0):
    """What a run on another machine leaves in its folder."""
    ended = None if state == "running" else started + 1
    status.write(folder, status.Status(state, started, ended, host="elsewhere"))


def test_a_job_that_slurm_has_forgotten_and_that_wrote_nothing_runs_again(cluster, launcher, tmp_path):
    job = launcher._track("7", *folders(tmp_path, 1))
    launcher.look()
    assert job.ended() is None
    job.since -= 1
    launcher.look()
    assert job.ended() == INTERRUPTED


@pytest.mark.parametrize(
    ("said", "slurms", "expected"),
    [
        ("failed", slurm.FORGOTTEN, 1),
        ("stopped", slurm.FORGOTTEN, INTERRUPTED),
        ("running", slurm.FORGOTTEN, INTERRUPTED),
        ("finished", slurm.FORGOTTEN, 0),
        ("stopped", "FAILED", INTERRUPTED),  # Slurm did not take it back into its queue
        ("failed", "FAILED", 1),
        ("running", "FAILED", 1),
        ("stopped", "CANCELLED", 143),
        ("stopped", "RUNNING", None),
    ],
)
def test_status_json_counts_where_slurm_does_not_know_how_a_run_ended(tmp_path, said, slurms, expected):
    job = slurm.Job("7", tmp_path)
    says(tmp_path, said)
    if said == "finished":
        (tmp_path / "result.json").touch()
    job.saw(slurms)
    job.since -= 4 * slurm.EVERY
    assert job.ended() == expected


@pytest.mark.parametrize(("code", "expected"), [("16640", 65), ("65:0", 65), ("18944", 74), ("0", 1), ("9", 1)])
def test_a_failed_job_has_the_exit_status_of_its_run(cluster, launcher, tmp_path, monkeypatch, code, expected):
    job = launcher._track("7", *folders(tmp_path, 1))
    monkeypatch.setattr(slurm, "ask", lambda *_: f"7|FAILED|{slurm.job_name(job.folder)}|{code}|\n")
    launcher.look()
    assert job.ended() == expected


def test_a_run_that_was_killed_beside_the_search_and_forgotten_has_not_failed(tmp_path):
    job = slurm.Job("7", tmp_path)
    status.write(tmp_path, status.Status("running", 1.0, host=status.socket.gethostname()))
    (tmp_path / status.FILE).write_text(
        json.dumps(json.loads((tmp_path / status.FILE).read_text()) | {"process": None})
    )
    assert status.status_of(tmp_path).state == "failed"
    job.saw(slurm.FORGOTTEN)
    job.since -= 4 * slurm.EVERY
    assert job.ended() == INTERRUPTED


@pytest.mark.parametrize(("slurms", "expected"), [("FAILED", 1), (slurm.FORGOTTEN, INTERRUPTED)])
def test_the_status_of_an_earlier_run_does_not_count(launcher, tmp_path, monkeypatch, slurms, expected):
    [folder] = folders(tmp_path, 1)
    says(folder, "stopped" if slurms == "FAILED" else "failed", started=5.0)
    monkeypatch.setattr(slurm, "_submit", lambda *_: "9")
    job = launcher.start([], folder, 0)
    job.saw(slurms)
    job.since -= 1
    assert job.ended() == expected
    says(folder, "stopped" if slurms == "FAILED" else "failed", started=7.0)
    assert job.ended() == (INTERRUPTED if slurms == "FAILED" else 1)


@pytest.mark.parametrize(("said", "submitted"), [("failed", 1), (None, 2), ("stopped", 2)])
def test_jobs_that_are_forgotten_as_soon_as_they_end_are_not_submitted_for_ever(
    launcher, tmp_path, monkeypatch, said, submitted
):
    numbers = []

    def submit(command, folder, *_):
        assert len(numbers) < 9
        numbers.append(str(len(numbers)))
        if said:
            says(folder, said, started=float(len(numbers)))
        (folder / "stderr.log").write_text("error: the data are nowhere\n")
        return numbers[-1]

    monkeypatch.setattr(slurm, "_submit", submit)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert (states(searching), len(numbers)) == (["FAIL"], submitted)
    assert searching.trials()[0].user_attrs["error"].splitlines()[-1] == "error: the data are nowhere"


def test_a_forgotten_job_that_finished_has_its_value(launcher, tmp_path, monkeypatch):
    def submit(command, folder, *_):
        says(folder, "finished")
        (folder / "result.json").write_text(json.dumps(result(0.7)))
        return "1"

    monkeypatch.setattr(slurm, "_submit", submit)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert [trial.values for trial in searching.trials()] == [[0.7]]


def test_slurm_may_be_away_for_a_while(cluster, launcher, tmp_path):
    job = launcher._track("7", *folders(tmp_path, 1))
    cluster.dead = True
    launcher.look()
    assert (job.state, job.ended()) == ("PENDING", None)
    launcher.answered -= 2 * slurm.UNANSWERED
    with pytest.raises(OSError, match="Slurm does not answer: squeue: Unable to contact"):
        launcher.look()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"slurm":' * 100_000, '{"slurm": "../../3"}'], ids=range(5))
def test_a_damaged_record_of_a_job_is_as_none(cluster, launcher, tmp_path, text):
    [folder] = folders(tmp_path, 1)
    (folder / "job.json").write_text(text)
    cluster.known = [("3", "FAILED", slurm.job_name(folder))]
    assert launcher.left_over([folder]) == {}


def test_what_a_dead_search_left_is_known_by_name(cluster, launcher, tmp_path):
    """Even where the search died before it had written the number down."""
    goes_on, unrecorded, failed, failed_before, cancelled, twice, none = folders(tmp_path, 7)
    for folder, number in ((goes_on, "1"), (failed, "3"), (cancelled, "5"), (twice, "6")):
        (folder / "job.json").write_text(json.dumps({"slurm": number}))
    known = [
        ("1", "RUNNING", goes_on), ("2", "PENDING", unrecorded), ("3", "FAILED", failed),
        ("4", "FAILED", failed_before), ("5", "CANCELLED", cancelled), ("6", "COMPLETED", twice),
        ("10", "RUNNING", twice),
    ]  # fmt: skip
    cluster.known = [(number, state, slurm.job_name(folder)) for number, state, folder in known]
    found = launcher.left_over([goes_on, unrecorded, failed, failed_before, cancelled, twice, none])
    assert {folder: job.number for folder, job in found.items()} == {
        goes_on: "1", unrecorded: "2", failed: "3", twice: "10",
    }  # fmt: skip
    assert found[failed].ended() == 1
    assert len(cluster.asked) == 1


def test_at_the_end_each_job_is_cancelled_once(cluster, launcher, tmp_path):
    runs = [launcher._track(str(n), folder) for n, folder in enumerate(folders(tmp_path, 2))]
    cluster.known = [(job.number, "RUNNING", slurm.job_name(job.folder)) for job in runs]
    runs[0].stop()
    launcher.end(runs)
    assert [command[1] for command in cluster.asked if command[0] == "scancel"] == ["0", "1"]
    assert {job.state for job in runs} == {"CANCELLED"}


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "sbatch" else name)
    with pytest.raises(ValueError, match="launcher=slurm needs sbatch: run this on a machine that submits"):
        slurm.Launcher(1, slurm.Options(), tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    with pytest.raises(ValueError, match=r"submitit: pip install -e '\.\[launchers\]'"):
        slurm.Launcher(1, slurm.Options(), tmp_path)


def test_submitit_submits_the_command_itself(tmp_path, monkeypatch):
    """With a method of submitit's that is private: this fails where an upgrade changes it."""
    for name, text in (("sbatch", 'echo "Submitted batch job 12"'), ("srun", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    options = slurm.Options(timeout_min=7, cpus_per_task=3)
    assert slurm._submit(["python", "-c", "print(1)"], tmp_path, options, tmp_path / "slurm") == "12"
    script = (tmp_path / "slurm" / "12_submission.sh").read_text()
    assert "#SBATCH --time=7\n" in script
    assert re.search(r"^srun .*--cpus-per-task=3 .*python -c 'print\(1\)'$", script, re.MULTILINE)
