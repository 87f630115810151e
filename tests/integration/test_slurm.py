"""Runs as jobs of a real Slurm: over two nodes, preempted, out of time, cancelled, and as the trials of a sweep.

Starting a process takes seconds, so the jobs are submitted together, and each test looks at its own.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import FEW, SMALL, Folder
from hydra.utils import instantiate
from slurm_cluster import Cluster, free_ports, missing

from engrec import checkpoint
from engrec.experiment import build_data, build_trainer
from engrec.plan import plan

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
RUN = ["stage=scratch", *SMALL, *FEW, "trainer=plain", "max_epochs=5"]
PLAIN = ["trainer.precision=32-true", "speed.memory_format=contiguous", "speed.fused_optimizer=false"]
TWO = [*RUN, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", *PLAIN]
SPREAD = "--nodes=2 --ntasks-per-node=1"
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name} --open-mode=append --output={name}.out {options}
export MASTER_ADDR=127.0.0.1 MASTER_PORT={port}
srun {python} train.py {arguments}
"""
WATCHED = ["+callbacks.seen._target_=watching.Seen", "+callbacks.seen.dirpath=${output_dir}"]
HELD = "+callbacks.held._target_=watching.Held"
NAMES = ("loss", "accuracy", "balanced_accuracy", "f1", "auc")


@dataclass
class Job:
    """A run that was submitted. It stands still in the midst of an epoch for as long as the file `held` exists."""

    id: str
    cluster: Cluster
    held: Path

    def wait_until_held(self, processes=1, timeout=150):
        end = time.monotonic() + timeout
        while not all(self.held.with_suffix(f".{rank}").exists() for rank in range(processes)):
            shown = self.cluster.show(self.id)
            assert shown["JobState"] in ("PENDING", "RUNNING"), self.cluster.output(shown)
            assert time.monotonic() < end, self.cluster.output(shown)
            time.sleep(0.1)

    def wait_until_requeued_and_let_go(self):
        """Slurm has stopped it and is about to start it again, which it then does, to the job's end."""
        shown = self.cluster.wait(self.id, "PENDING")
        assert shown["Restarts"] == "1", self.cluster.output(shown)
        self.held.unlink()
        self.cluster.start_now(self.id)
        self.cluster.wait(self.id, "COMPLETED")

    @property
    def run(self):
        """The one folder that its run has, however often it was started."""
        [found] = self.held.parent.glob(f"outputs/scratch/*/slurm-{self.id}-*")
        return found


@pytest.fixture(scope="module")
def cluster():
    with Cluster(nodes=5, cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    folder = Folder(tmp_path_factory.mktemp("slurm"))
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    folder.env |= {name: cluster.env[name] for name in ("PATH", "SLURM_CONF")}
    folder.env |= {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1"}
    return folder


@pytest.fixture(scope="module")
def jobs(cluster, folder):
    def submit(name, options, command, held=True):
        job = Job("", cluster, folder.path / f"{name}.held")
        if held:
            job.held.touch()
        arguments = " ".join([*command, HELD, f"+callbacks.held.path={job.held}"])
        script = SCRIPT.format(
            name=name, options=options, port=free_ports(1)[0], python=sys.executable, arguments=arguments
        )
        job.id = cluster.sbatch(script, cwd=folder.path, env=folder.env)
        return job

    limited = submit("limited", "--nodelist=n1 --time=1 --signal=USR1@5", RUN)
    limited.wait_until_held()  # before the signal comes, half a minute later at the earliest
    return {
        "limited": limited,
        "preempted": submit("preempted", "--nodelist=n2", [*RUN, "logger=wandb"]),
        "gentle": submit("gentle", f"--partition=gentle --nodelist=n3,n4 {SPREAD}", TWO),
        "cancelled": submit("cancelled", "--nodelist=n1", RUN),
        "whole": submit("whole", "--nodelist=n4", RUN, held=False),
        "spread": submit("spread", f"--nodelist=n1,n5 {SPREAD}", TWO, held=False),
    }


def written(run):
    """All that a run says of its epochs and its test."""
    result = json.loads((run / "result.json").read_text())
    kept = {name: result[name] for name in ("metrics", "validation", "calibration", "epochs")}
    return (run / "metrics.csv").read_text(), (run / "predictions.csv").read_text(), kept


def preempt(cluster, nodes):
    """A job of a better partition that needs the whole of these nodes."""
    return cluster.sbatch(
        "#!/bin/bash\nsleep 0.5", f"--nodelist={nodes}", "--partition=high", "--exclusive", "--output=/dev/null"
    )


def test_a_cluster_goes_with_all_its_processes_when_a_test_fails():
    def fails():
        with cluster, other:
            job = cluster.sbatch("#!/bin/bash\nsrun sleep 600", "--nodes=2", "--output=/dev/null")
            cluster.wait(job, "RUNNING")
            assert other.sbatch("#!/bin/bash\ntrue", "--output=/dev/null") == job == "1"
            while "sleep" not in " ".join(Path(f"/proc/{pid}/comm").read_text() for pid in cluster.processes()):
                time.sleep(0.05)
            raise ZeroDivisionError

    cluster, other = Cluster(), Cluster()
    with pytest.raises(ZeroDivisionError):
        fails()
    assert cluster.processes() == other.processes() == []
    assert not cluster.folder.exists()


def test_a_run_stops_before_its_time_is_over_and_goes_on(cluster, jobs):
    """Before the others: two minutes later Slurm starts it again by itself, and its time is over once more."""
    job = jobs["limited"]
    cluster.wait(job.id, "PENDING", timeout=120)
    job.wait_until_requeued_and_let_go()
    cluster.wait(jobs["whole"].id, "COMPLETED")
    assert written(job.run) == written(jobs["whole"].run)


def test_two_nodes_say_what_one_process_says(compose, cluster, jobs):
    cluster.wait(jobs["spread"].id, "COMPLETED")
    run = jobs["spread"].run
    planned = plan(compose(*RUN, "+trainer.enable_checkpointing=false", f"output_dir={run / 'alone'}"))
    planned.config["callbacks"] = {}
    data, saved = build_data(planned), checkpoint.read(run / "best.ckpt")
    module = instantiate(planned.config["module"], **saved["hyper_parameters"], _recursive_=False, _convert_="all")
    module.load_state_dict(saved["state_dict"])
    trainer, result = build_trainer(planned), json.loads((run / "result.json").read_text())
    for side, said in (("val", result["validation"]), ("test", result["metrics"])):
        [alone] = (trainer.validate if side == "val" else trainer.test)(module, data, verbose=False)
        for name in NAMES:
            assert said[f"{side}/{name}"] == pytest.approx(alone[f"{side}/{name}"], abs=1e-6)


def test_a_preempted_run_goes_on_as_if_it_had_not_been(cluster, jobs):
    """In the same folder and the same run of the tracker."""
    job = jobs["preempted"]
    job.wait_until_held()
    run, tracked = job.run, json.loads((job.run / "wandb.json").read_text())["id"]
    cluster.wait(preempt(cluster, "n2"), "COMPLETED")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    job.wait_until_requeued_and_let_go()
    assert job.run == run
    cluster.wait(jobs["whole"].id, "COMPLETED")
    assert written(run) == written(jobs["whole"].run)
    assert json.loads((run / "wandb.json").read_text())["id"] == tracked
    assert len([*run.glob("wandb/offline-run-*")]) == len([*run.glob(f"wandb/offline-run-*-{tracked}")]) == 2


def test_a_run_on_two_nodes_that_is_told_before_it_is_preempted_goes_on_too(cluster, jobs):
    """Slurm does not requeue by itself what ends in its time of grace."""
    job = jobs["gentle"]
    job.wait_until_held(processes=2)
    cluster.wait(preempt(cluster, "n3"), "COMPLETED")
    job.wait_until_requeued_and_let_go()
    cluster.wait(jobs["spread"].id, "COMPLETED")
    assert written(job.run) == written(jobs["spread"].run)


def test_a_cancelled_run_is_not_started_again(cluster, jobs):
    job = jobs["cancelled"]
    job.wait_until_held()
    cluster.scancel(job.id)
    shown = cluster.wait(job.id, "CANCELLED")
    assert shown["Restarts"] == "0"
    assert json.loads((job.run / "status.json").read_text())["state"] == "stopped"


def test_trials_of_a_sweep_are_jobs_with_a_gpu_each_and_go_on_as_others_do(cluster, folder):
    """Two trials that differ in nothing but where they stand still."""
    held, passing = folder.path / "trial.held", folder.path / "passing.held"
    held.touch()
    settings = ["-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *settings, *RUN, *WATCHED, HELD, f"+callbacks.held.path={held},{passing}"],
        cwd=folder.path,
        env=folder.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        script = folder.path / "sweep" / ".submitit"
        while not (found := [*script.glob("*/*_submission.sh")]):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        job = Job(f"{found[0].parent.name}_0", cluster, held)
        job.wait_until_held()
        cluster.scancel(job.id, "--signal=USR1")  # as Slurm does before the time is over
        job.wait_until_requeued_and_let_go()
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert "#SBATCH --signal=USR1@120" in found[0].read_text()
    first, second = folder.path / "sweep" / "0", folder.path / "sweep" / "1"
    assert written(first) == written(second)
    assert [json.loads((run / "seen.json").read_text())["gpu"] for run in (first, second)] in (["0", "1"], ["0", "0"])
    assert "resuming from sweep/0/last.ckpt" in (first / "train.log").read_text()
