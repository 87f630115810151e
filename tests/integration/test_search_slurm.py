"""scripts/sweep.py launcher=slurm with a real Slurm, and a stand-in for train.py."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState
from searching import ROOT, STANDIN, Searching, assert_each_once, one_line
from slurm_cluster import Cluster, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def searching(tmp_path, cluster):
    found = Searching(tmp_path, cluster.env)
    found.always = ("launcher=slurm", "slurm.cpus_per_task=1")
    return found


def job_of(searching, number):
    return json.loads((searching.folder / "trials" / str(number) / "job.json").read_text())["slurm"]


def in_queue(cluster):
    """All that Slurm has not ended."""
    return cluster._run("squeue", "--noheader", "--format=%i").split()


def running(searching, number):
    return lambda: len(searching.noted("start")) >= number


def test_every_trial_is_one_job(searching, cluster):
    status, out, err = searching.run("n_trials=5", "slurm.timeout_min=7", "slurm.partition=gentle")
    assert (status, err) == (0, "")
    assert "2 Slurm jobs in parallel, each with 1 CPU and no GPU" in out
    trials, ended = assert_each_once(searching, 5)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    shown = [cluster.show(job_of(searching, number)) for number in range(5)]
    assert len({job["JobId"] for job in shown}) == len(ended) == 5
    assert {(job["JobState"], job["Restarts"], job["NumCPUs"]) for job in shown} == {("COMPLETED", "0", "1")}
    assert {(job["TimeLimit"], job["Partition"], job["Requeue"]) for job in shown} == {("00:07:00", "gentle", "1")}


def test_jobs_of_a_killed_search_are_taken_over(searching, cluster):
    """None is run twice, and none is lost; those that end while nobody looks are told too."""
    process = searching.start("n_trials=6", mode="brief")
    searching.until(running(searching, 2), process)
    process.kill()
    process.communicate()
    assert len(in_queue(cluster)) == 2
    process = searching.start("n_trials=6", mode="brief")
    searching.until(running(searching, 3), process)
    process.kill()
    process.communicate()
    while in_queue(cluster):
        time.sleep(0.1)
    status, out, err = searching.run("n_trials=6")
    assert status == 0, err
    assert "interrupted will be resumed" in out
    trials, _ = assert_each_once(searching, 6)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(searching.noted("start")) == len(searching.noted("end")) == 6


def test_jobs_that_fail_are_shown_with_their_last_lines(searching):
    status, out, err = searching.run("n_trials=2", mode="fails")
    assert status == 1
    assert "all trials have failed" in one_line(err)
    assert len(re.findall(r"^trial \d: failed.*\n    Traceback .*\n    error: the data are nowhere$", out, re.M)) == 2
    assert len(searching.noted("start")) == 2


def test_the_job_of_a_pruned_trial_is_cancelled(searching, cluster, tmp_path):
    text = "overrides: [stage=scratch, model=vgg_small, max_epochs=2]\n"
    text += "search: {optimizer.lr: {low: 0.01, high: 0.1}}\nobjectives: [{metric: val/auc}]\n"
    text += "pruner: {name: median, n_startup_trials: 1, n_warmup_steps: 1}\n"
    (tmp_path / "mine.yaml").write_text(text)
    arguments = ["n_trials=3", "workers=1", f"sweep={tmp_path / 'mine.yaml'}"]
    status, _, err = searching.run(*arguments, mode="worse")
    assert status == 0, err
    assert [trial.state.name for trial in searching.trials()] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [cluster.state(job_of(searching, number)) for number in range(3)] == ["COMPLETED", "CANCELLED", "CANCELLED"]


def test_a_job_that_is_requeued_is_no_failure(searching, cluster):
    says = "import os, sys; print('start', os.environ.get('SLURM_RESTART_COUNT', 0), file=sys.stderr)"
    (searching.path / "standin.py").write_text(f"{says}\n{STANDIN}")
    process = searching.start("n_trials=1", mode="slow")
    searching.until(running(searching, 1), process)
    number = job_of(searching, 0)
    cluster.requeue(number)
    cluster.wait(number, "PENDING")
    time.sleep(1)
    cluster.start_now(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert_each_once(searching, 1)
    assert job_of(searching, 0) == number
    assert cluster.restarts(number) == 1
    assert (searching.folder / "trials" / "0" / "stderr.log").read_text() == "start 1\n"


STOPS = """
import json, os, sys, time
folder = dict(word.split("=", 1) for word in sys.argv[1:])["output_dir"]
with open(folder + "/tries", "a+") as tries:
    tries.write("x")
    number = tries.tell()
if number < 4:
    if number != 2:
        open(folder + "/last.ckpt", "w").close()
    with open(folder + "/status.json", "w") as file:
        json.dump({"state": "stopped", "started": time.time(), "ended": time.time(), "process": None}, file)
    sys.exit(138)
"""


def test_a_job_that_stops_and_is_not_taken_back_is_submitted_again(searching, cluster):
    """As one that has no time left, where requeuing it is refused; three times, the second without another epoch."""
    (searching.path / "standin.py").write_text(STOPS + STANDIN)
    status, _, err = searching.run("n_trials=1")
    assert status == 0, err
    assert_each_once(searching, 1)
    assert (searching.folder / "trials" / "0" / "tries").read_text() == "xxxx"
    last = int(job_of(searching, 0))
    shown = [cluster.show(job) for job in range(last - 3, last + 1)]
    ended = [(job["JobState"], job["ExitCode"]) for job in shown]
    assert ended == [("FAILED", "138:0")] * 3 + [("COMPLETED", "0:0")]


def test_stopped_it_cancels_its_jobs_and_resumes(searching, cluster):
    process = searching.start("n_trials=2", mode="slow")
    searching.until(running(searching, 2), process)
    before = [job_of(searching, number) for number in (0, 1)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert [cluster.state(number) for number in before] == ["CANCELLED"] * 2
    assert searching.run("n_trials=2")[0] == 0
    assert_each_once(searching, 2)


def test_what_slurm_refuses_is_reported_in_one_line(searching):
    status, _, err = searching.run("n_trials=2", "slurm.partition=nowhere")
    assert status == 1
    assert "Slurm refuses the job: sbatch: error: " in one_line(err)
    assert "nvalid partition" in err
    assert not (searching.folder / "journal.log").exists()
    assert not (searching.folder / "trials").exists()


def test_without_slurm_it_says_where_to_run_it(searching, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").symlink_to(shutil.which("true"))
    searching.around = {**searching.around, "PATH": str(tmp_path / "bin")}
    status, _, err = searching.run("n_trials=2")
    assert status == 1
    assert "launcher=slurm needs sbatch" in one_line(err)
    assert not searching.folder.exists()


def test_a_real_trial(cluster, tmp_path):
    words = [
        "sweep=small", "n_trials=1", "launcher=slurm", "slurm.cpus_per_task=1", f"folder={tmp_path / 'a 100% folder'}",
        "max_epochs=1", "model.width=0.1", "trainer.accelerator=cpu", "dataset.num_train=70", "dataset.num_val=14",
        "dataset.num_test=21",
    ]  # fmt: skip
    command = [sys.executable, ROOT / "scripts" / "sweep.py", *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=cluster.env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads((tmp_path / "a 100% folder" / "trials" / "0" / "result.json").read_text())
    assert f"trial 0: val/auc {result['validation']['val/auc']:.4g}" in done.stdout
