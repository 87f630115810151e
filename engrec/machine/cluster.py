"""Runs that Slurm or torchrun start: one name for all their processes, and one that is started again goes on."""

import hashlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from engrec.machine import processes


def job() -> str | None:
    """The id of the Slurm job that this process belongs to, ARRAY_TASK in an array; None outside of one."""
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"
    return os.environ.get("SLURM_JOB_ID")


def launched() -> str | None:
    """What all processes of a run that torchrun starts have in common, and no other run has: the id of their
    rendezvous, where it has one (torchrun --standalone, --rdzv-id)."""
    found = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if found == "none" else found


def run_name(overrides: Sequence[str], otherwise: str) -> str:
    """A run's name: that of a Slurm job is the same in all its processes, when it is started again too, and another for
    each command; that of torchrun's processes is theirs."""
    if job() is not None:
        return f"slurm-{job()}-{digest(*overrides)[:6]}"
    return otherwise if launched() is None else f"torchrun-{digest(str(launched()), *overrides)[:8]}"


def sweep_name(otherwise: str) -> str:
    """The same for a sweep, whose trials have other overrides than the command that starts them."""
    return run_name(sys.argv[1:], otherwise)


def digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def restarted() -> bool:
    """Whether Slurm has started this job before, because it was preempted, its node failed, or it was requeued; or
    torchrun its processes, because one of them failed."""
    counts = ("SLURM_RESTART_COUNT" if job() else "", "TORCHELASTIC_RESTART_COUNT" if launched() else "")
    return any(int(os.environ.get(name) or 0) > 0 for name in counts)


def is_step() -> bool:
    """Whether srun started this process for itself; if not, it is the job's script, typed in an allocation or a shell
    that srun started (which Lightning knows by these names), or started by a torchrun."""
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return job() is not None and "SLURM_STEP_NUM_TASKS" in os.environ and not shell and not by_torchrun()


def by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def check_tasks(devices: object, num_nodes: int) -> None:
    """Raise ValueError where srun has started more or fewer processes than the run is to have."""
    if not is_step():
        if job() is not None and num_nodes > 1 and not by_torchrun():
            raise ValueError(f"trainer.num_nodes={num_nodes} needs a process on each node: type srun python train.py …")
        return
    tasks, nodes = (int(os.environ[f"SLURM_STEP_NUM_{kind}"]) for kind in ("TASKS", "NODES"))
    per_node, uneven = divmod(tasks, nodes)
    if uneven:
        raise ValueError(f"srun started {tasks} processes on {nodes} nodes: ask for the same number on each of them")
    if num_nodes != nodes or str(devices) not in (str(per_node), "-1"):
        started = f"{tasks} process{'es' * (tasks > 1)} on {nodes} node{'s' * (nodes > 1)}"
        way = "trainer=ddp " if tasks > 1 else ""
        raise ValueError(
            f"srun started {started}, for trainer.devices={devices} trainer.num_nodes={num_nodes}: "
            f"type {way}trainer.devices={per_node} trainer.num_nodes={nodes}"
        )
    if nodes > 1:
        check_first_node()
    os.environ["SLURM_NTASKS"], os.environ["SLURM_NNODES"] = str(tasks), str(nodes)  # of the step, not of the job
    os.environ["SLURM_NTASKS_PER_NODE"] = str(per_node)


def check_first_node() -> None:
    """Raise ValueError where the address at which all processes meet leads nowhere: they would wait for ever."""
    listed = os.environ.get("SLURM_STEP_NODELIST", "")
    address = os.environ.get("MASTER_ADDR") or re.sub(r"\[(\w+).*", r"\1", listed).partition(",")[0]
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise ValueError(
            f"the first node, {address}, cannot be found by its name ({error.strerror}): "
            "export MASTER_ADDR=ITS_ADDRESS before srun"
        ) from error


def requeue() -> str | None:
    """Ask Slurm to start this job again. What it says if it does not, on one line.

    Every process of a job may ask: one that waits for the others in a computation does not come to it.
    """
    done = scontrol("requeue", str(job()))
    under_way = {"JobState=PENDING", "JobState=COMPLETING", "JobState=REQUEUED"}  # another process was first
    if done.returncode == 0 or under_way & set(shown()):
        return None
    return " ".join(done.stderr.split())


def preempted() -> bool:
    """Whether this job makes room for another and is still in its time of grace, after which Slurm would not start it
    again by itself if it had ended meanwhile."""
    told = shown()
    return "JobState=RUNNING" in told and any(re.fullmatch(r"PreemptTime=\d.*", field) for field in told)


def shown() -> list[str]:
    return scontrol("-o", "show", "job", str(job())).stdout.split()


def scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["scontrol", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


log = logging.getLogger(__name__)


def end_with_the_first() -> None:
    """For a process that Lightning has started: it would wait for ever for a first one that is killed."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and not by_torchrun() and not is_step():
        processes.end_with(os.getppid(), signal.SIGKILL)


def slurm_signals() -> dict[str, Callable[[], None]]:
    """What is done first at the signals of a job: Slurm is asked to start it again where its time is over (sbatch
    --signal=USR1@120) or where another job needs its place; not where a user cancels it."""
    if job() is None:
        return {}

    def ask() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm's own, which now comes: this one is at its end already
        if why := requeue():
            log.warning("Slurm does not start this job again: %s", why)

    return {"SIGUSR1": ask, "SIGTERM": lambda: ask() if preempted() else None}
