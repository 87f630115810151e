"""Slurm and torchrun: run names, task checks, requeueing."""

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
from engrec.words import counted


def job() -> str | None:
    """The id of the Slurm job that this process belongs to, ARRAY_TASK in an array; None outside of one."""
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"
    return os.environ.get("SLURM_JOB_ID")


def launched() -> str | None:
    """The rendezvous id of torchrun, which only the processes of one run share; None outside of torchrun, and without
    --standalone or --rdzv-id."""
    rendezvous = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if rendezvous == "none" else rendezvous


def run_name(overrides: Sequence[str], otherwise: str) -> str:
    """The name of a run. Under Slurm it follows from job id and command, so that all processes have the same one, after
    a requeue too; under torchrun from the rendezvous id and command; else it is `otherwise`."""
    if job() is not None:
        return f"slurm-{job()}-{digest(*overrides)[:6]}"
    return otherwise if launched() is None else f"torchrun-{digest(str(launched()), *overrides)[:8]}"


def sweep_name(otherwise: str) -> str:
    """The name of a sweep: from the command that was typed, as the overrides of its runs differ from it."""
    return run_name(sys.argv[1:], otherwise)


def digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def restarted() -> bool:
    """Whether Slurm has started this job again (after preemption, a node failure or a requeue), or torchrun has started
    its processes again after one of them failed."""
    counts = ("SLURM_RESTART_COUNT" if job() else "", "TORCHELASTIC_RESTART_COUNT" if launched() else "")
    return any(int(os.environ.get(name) or 0) > 0 for name in counts)


def is_step() -> bool:
    """Whether srun started this process directly as a task. If not, it runs in the job's script, in an allocation, in
    an interactive shell that srun started, or under torchrun."""
    # Lightning too tells an interactive shell by these names.
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return job() is not None and "SLURM_STEP_NUM_TASKS" in os.environ and not shell and not by_torchrun()


def by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def check_tasks(devices: object, num_nodes: int) -> None:
    """Raise ValueError if the number of tasks that srun started differs from trainer.devices × trainer.num_nodes."""
    if not is_step():
        by_hand = job() is None and "MASTER_ADDR" in os.environ
        if num_nodes > 1 and not (by_torchrun() or by_hand):
            raise ValueError(
                f"trainer.num_nodes={num_nodes} needs a process on each node: use srun python train.py … or torchrun, "
                "or set trainer.num_nodes=1"
            )
        return
    tasks, nodes = (int(os.environ[f"SLURM_STEP_NUM_{kind}"]) for kind in ("TASKS", "NODES"))
    per_node, uneven = divmod(tasks, nodes)
    if uneven:
        raise ValueError(f"srun started {tasks} processes on {nodes} nodes: request the same number on each node")
    if num_nodes != nodes or str(devices) not in (str(per_node), "-1"):
        started = f"{counted(tasks, 'process', 'processes')} on {counted(nodes, 'node')}"
        way = "trainer=ddp " if tasks > 1 else ""
        raise ValueError(
            f"srun started {started}, but trainer.devices={devices} trainer.num_nodes={num_nodes}: "
            f"set {way}trainer.devices={per_node} trainer.num_nodes={nodes}"
        )
    if nodes > 1:
        check_first_node()
    os.environ["SLURM_NTASKS"], os.environ["SLURM_NNODES"] = str(tasks), str(nodes)  # srun sets them for the job
    os.environ["SLURM_NTASKS_PER_NODE"] = str(per_node)


def check_first_node() -> None:
    """Raise ValueError if the address of the first node cannot be resolved: all processes would wait forever."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    address = os.environ.get("MASTER_ADDR") or re.sub(r"\[(\w+).*", r"\1", nodes).partition(",")[0]
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise ValueError(
            f"the name of the first node, {address}, cannot be resolved ({error.strerror}): "
            "export MASTER_ADDR=ITS_ADDRESS before srun"
        ) from error


def requeue() -> str | None:
    """Ask Slurm to requeue this job; returns its error message if it refuses.

    Every process of a job asks, because any of them may be blocked in a collective operation.
    """
    done = scontrol("requeue", str(job()))
    requeued = {"JobState=PENDING", "JobState=COMPLETING", "JobState=REQUEUED"}  # by another process
    if done.returncode == 0 or requeued & set(job_fields()):
        return None
    return " ".join(done.stderr.split())


def preempted() -> bool:
    """Whether this job is preempted and in its grace period. If it ends in that time, Slurm does not requeue it by
    itself."""
    fields = job_fields()
    # While Slurm sends a signal, a job that runs is shown as SIGNALING.
    runs = not {"JobState=RUNNING", "JobState=SIGNALING"}.isdisjoint(fields)
    return runs and any(re.fullmatch(r"PreemptTime=\d.*", field) for field in fields)


def job_fields() -> list[str]:
    """KEY=VALUE pairs that Slurm has on this job; empty without an answer."""
    return scontrol("-o", "show", "job", str(job())).stdout.split()


def scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["scontrol", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


log = logging.getLogger(__name__)


def end_with_the_first() -> None:
    """End a process that Lightning has started when the first one is killed; it would wait for it forever."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and not by_torchrun() and not is_step():
        processes.end_with(os.getppid(), signal.SIGKILL)


def slurm_signals() -> dict[str, Callable[[], None]]:
    """Handlers that requeue a job before it stops: at USR1, when its time limit is near (sbatch --signal=USR1@120), and
    at TERM if it is preempted, but not if a user cancels it."""
    if job() is None:
        return {}

    def ask_to_requeue() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm now sends SIGTERM, but the run is stopping already
        if reason := requeue():
            log.warning("Slurm does not requeue this job: %s", reason)

    return {"SIGUSR1": ask_to_requeue, "SIGTERM": lambda: ask_to_requeue() if preempted() else None}
