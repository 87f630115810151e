"""What Slurm's variables mean; test_slurm.py has Slurm itself."""

import os
import re
import subprocess
import sys

import pytest

from engrec.machine import cluster
from engrec.machine.cluster import check_tasks, is_step, job, preempted, requeue, restarted, run_name, sweep_name

SHOWN = "JobId=7 JobState={state} Restarts=0 {preempted}NodeList=n1"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def in_job(monkeypatch):
    def in_job(**variables):
        for name, value in ({"JOB_ID": 7} | variables).items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))

    return in_job


@pytest.fixture
def step(in_job):
    """A process that srun has started."""

    def step(tasks, nodes):
        in_job(STEP_ID=0, STEP_NUM_TASKS=tasks, STEP_NUM_NODES=nodes, STEP_NODELIST="localhost", NTASKS=99, PROCID=0)

    return step


@pytest.fixture
def says(monkeypatch, tmp_path):
    """A scontrol that writes down what it is asked, and answers."""

    def says(answer, status=0):
        path = tmp_path / "scontrol"
        path.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"print({answer!r}, file=sys.stderr if {status} else sys.stdout)\nsys.exit({status})\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return tmp_path / "asked"

    return says


def test_outside_a_job_the_name_is_the_time():
    assert job() is None
    assert run_name(["seed=1"], "12:30") == "12:30"
    assert not restarted()


def test_a_jobs_name_is_one_for_each_command(in_job, monkeypatch):
    in_job()
    names = {run_name(command, "12:30") for command in ([], ["seed=1"], ["seed=2"], ["seed=1", "tta=flip"])}
    assert len(names) == 4
    assert all(name.startswith("slurm-7-") for name in names)
    in_job(RESTART_COUNT=2)
    assert run_name(["seed=1"], "13:30") in names
    assert restarted()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert run_name(["seed=1"], "12:30") not in names


def test_processes_of_torchrun_have_the_name_of_their_rendezvous(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert run_name([], "12:30") == "12:30"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "0123456789abcdef")
    names = {run_name(command, "12:30") for command in ([], ["seed=1"])}
    assert len(names) == 2
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "../0123456789abcdeF")
    names |= {run_name(command, "12:30") for command in ([], ["seed=1"])}
    assert len(names) == 4
    assert all(re.fullmatch(r"torchrun-[0-9a-f]{8}", name) for name in names)
    assert not restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted()


def test_torchrun_in_a_step_starts_as_many_processes_as_it_likes(step, monkeypatch):
    step(1, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "0123456789abcdef")
    check_tasks(2, 2)
    assert os.environ["SLURM_NTASKS"] == "99"


def test_a_task_of_an_array_is_named_by_its_array(in_job):
    in_job(ARRAY_JOB_ID=3, ARRAY_TASK_ID=0)
    assert job() == "3_0"


def test_a_job_that_starts_for_the_first_time_has_not_been_started_before(in_job):
    in_job(RESTART_COUNT=0)
    assert not restarted()


@pytest.mark.parametrize(
    ("tasks", "nodes", "devices", "num_nodes"), [(1, 1, 1, 1), (4, 2, 2, 2), (2, 2, "-1", 2), (2, 1, "2", 1)]
)
def test_as_many_processes_as_the_run_is_to_have(step, tasks, nodes, devices, num_nodes):
    step(tasks, nodes)
    check_tasks(devices, num_nodes)
    assert os.environ["SLURM_NTASKS"] == str(tasks)
    assert int(os.environ["SLURM_NTASKS_PER_NODE"]) * nodes == tasks


@pytest.mark.parametrize(
    ("tasks", "nodes", "devices", "num_nodes", "message"),
    [
        (4, 2, 1, 1, "trainer=ddp trainer.devices=2 trainer.num_nodes=2"),
        (2, 1, 1, 1, "trainer=ddp trainer.devices=2 trainer.num_nodes=1"),
        (4, 2, -1, 1, "trainer.num_nodes=2"),
        (1, 1, 2, 1, "set trainer.devices=1"),
        (3, 2, 2, 2, "same number on each"),
    ],
)
def test_other_numbers_are_an_error_with_the_overrides_to_set(step, tasks, nodes, devices, num_nodes, message):
    step(tasks, nodes)
    with pytest.raises(ValueError, match=message):
        check_tasks(devices, num_nodes)


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_a_shell_that_srun_started_is_no_step_of_the_run(step, monkeypatch, name):
    step(1, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    assert not is_step()
    check_tasks(2, 1)


def test_a_sweep_has_one_name_whatever_its_trials_have(in_job, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
    assert sweep_name("12:30") == "12:30"
    in_job()
    assert sweep_name("12:30") == run_name(["-m", "seed=1,2"], "")


@pytest.mark.parametrize("nodes", ["nowhere.invalid", "nowhere-[07-09].invalid,other1"])
def test_a_first_node_whose_name_cannot_be_resolved_is_an_error(step, monkeypatch, nodes):
    step(2, 2)
    monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
    with pytest.raises(ValueError, match=r"the name of the first node, nowhere.* export MASTER_ADDR"):
        check_tasks(1, 2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    check_tasks(1, 2)


def test_several_nodes_need_srun(in_job):
    in_job(NTASKS=4)
    check_tasks(4, 1)
    with pytest.raises(ValueError, match=r"srun python train\.py"):
        check_tasks(2, 2)


def test_outside_slurm_several_nodes_need_an_address(monkeypatch):
    check_tasks(2, 1)
    with pytest.raises(ValueError, match=r"trainer\.num_nodes=2 needs a process on each node"):
        check_tasks(2, 2)
    monkeypatch.setenv("MASTER_ADDR", "node0")
    check_tasks(2, 2)


@pytest.mark.parametrize(
    ("state", "told", "expected"),
    [
        ("RUNNING", "PreemptTime=2026-11-23T00:40:00 ", True),
        ("SIGNALING", "PreemptTime=2026-11-23T00:40:00 ", True),
        ("RUNNING", "PreemptTime=None ", False),
        ("SIGNALING", "PreemptTime=None ", False),
        ("RUNNING", "", False),
        ("COMPLETING", "PreemptTime=None ", False),
        ("COMPLETING", "", False),
    ],
)
def test_a_job_in_its_time_of_grace_is_preempted(in_job, says, state, told, expected):
    in_job()
    asked = says(SHOWN.format(state=state, preempted=told))
    assert preempted() is expected
    assert asked.read_text() == "-o show job 7\n"


def test_slurm_is_asked_for_the_task_and_not_for_its_whole_array(in_job, says):
    in_job(ARRAY_JOB_ID=7, ARRAY_TASK_ID=2)
    asked = says("")
    assert requeue() is None
    assert asked.read_text() == "requeue 7_2\n"


def test_a_job_that_another_process_has_requeued_is_well(in_job, monkeypatch):
    in_job()
    answers = {"requeue": (1, "", "Job is pending execution"), "-o": (0, "JobState=PENDING Restarts=1", "")}
    monkeypatch.setattr(cluster, "scontrol", lambda *asked: subprocess.CompletedProcess(asked, *answers[asked[0]]))
    assert requeue() is None


def test_why_a_job_is_not_requeued(in_job, says):
    in_job()
    says("Requested operation is\npresently disabled for job 7", status=1)
    assert requeue() == "Requested operation is presently disabled for job 7"


def test_without_scontrol_it_is_said(in_job, monkeypatch):
    in_job()
    monkeypatch.setenv("PATH", "")
    assert "scontrol" in (requeue() or "")
    assert not cluster.preempted()
