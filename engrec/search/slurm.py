"""Trials as Slurm jobs, submitted with submitit. A search that is started again finds its jobs by their names."""

import hashlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engrec.machine.files import write_text
from engrec.machine.processes import outside_of_jobs
from engrec.runs.folder import last_lines
from engrec.runs.status import KILLED, status_of
from engrec.search.launcher import INTERRUPTED
from engrec.search.space import unknown

EVERY = 5.0  # seconds between two questions to Slurm, each about all jobs
UNANSWERED = 600.0  # seconds without an answer that end a search
LATE = 60.0  # seconds that a result may take to be seen here, on a file system that several machines share
FORGOTTEN = "FORGOTTEN"  # of a job that Slurm no longer knows, some minutes after it has ended
# In all other states a job is running or will run: PENDING, RUNNING, COMPLETING, REQUEUED, …
STATUS = {
    "COMPLETED": 0,
    "FAILED": 1,
    "CANCELLED": 143,
    "DEADLINE": 143,
    "OUT_OF_MEMORY": -9,
    "TIMEOUT": INTERRUPTED,
    "PREEMPTED": INTERRUPTED,
    "NODE_FAIL": INTERRUPTED,
    "BOOT_FAIL": INTERRUPTED,
    FORGOTTEN: INTERRUPTED,
}
BUSY = re.compile("Unable to contact|[Tt]imed out|[Tt]emporarily|try again", re.IGNORECASE)


class RefusedError(ValueError):
    """Slurm's message about a job that it refuses."""


@dataclass(frozen=True)
class Options:
    """What each job asks Slurm for, by submitit's names: slurm.partition=gpu. None: what the cluster gives by default.

    timeout_min: after which Slurm starts the job again, and it resumes. signal_delay_s: how long before that it gets a
    signal to save. setup: a line of shell before the run, such as module load cuda.
    """

    timeout_min: int = 240
    cpus_per_task: int = 4
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    signal_delay_s: int = 120
    setup: str | None = None


def read_options(given: Mapping[str, str]) -> Options:
    """From the arguments slurm.KEY=VALUE. Raises ValueError for unknown keys and bad numbers."""
    types = {field.name: str(field.type) for field in fields(Options)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in types:
            raise ValueError(f"slurm.{key} {unknown(key, types)}")
        if "str" in types[key]:
            values[key] = value
            continue
        whole = "int" in types[key]
        if not re.fullmatch(r"[1-9]\d*" if whole else r"\d+(\.\d+)?", value) or float(value) == 0:
            raise ValueError(f"slurm.{key}={value} must be a {'whole ' if whole else ''}number above 0")
        values[key] = int(value) if whole else float(value)
    options = Options(**values)
    if 60 * options.timeout_min <= options.signal_delay_s:
        raise ValueError(
            f"slurm.timeout_min={options.timeout_min} is over before slurm.signal_delay_s={options.signal_delay_s}"
        )
    return options


class Job:
    """A job of Slurm, in the state in which the launcher saw it last.

    before: when the earlier run began that status.json described when the job was submitted.
    """

    def __init__(self, number: str, folder: Path, before: float | None = None) -> None:
        self.number, self.folder, self.before = number, folder, before
        self.state, self.code, self.since = "PENDING", 0, time.monotonic()
        self.stopped = False

    @property
    def doing(self) -> str:
        """Its state, if it is not running."""
        return "" if self.state == "RUNNING" else self.state.lower()

    def saw(self, state: str, code: int = 0) -> None:
        """code: the exit status of the run, of a job that has failed."""
        if state != self.state:
            self.state, self.code, self.since = state, code, time.monotonic()

    def ended(self) -> int | None:
        """Its exit status, as a process would have it; or INTERRUPTED; None while it lives."""
        status, passed = self._status(), time.monotonic() - self.since
        if status == INTERRUPTED and passed < 3 * EVERY:  # a job on its way back to the queue may look like this
            return None
        if status == 0 and passed < LATE and not any(path.name == "result.json" for path in self.folder.iterdir()):
            return None
        return status

    def _status(self) -> int | None:
        """By Slurm; by the run's status.json where Slurm has forgotten the job, or calls a stopped run failed."""
        status = STATUS.get(self.state)
        if self.state == "FAILED":
            status = self.code or status
        if self.state not in ("FAILED", FORGOTTEN) or (status_file := status_of(self.folder)).last_begun == self.before:
            return status
        if status_file.state == "stopped":
            return INTERRUPTED
        if self.state == FORGOTTEN and status_file.error != KILLED:  # a run that was killed could not write that itself
            return {"finished": 0, "failed": 1}.get(status_file.state, status)
        return status

    def stop(self) -> None:
        """Slurm sends SIGTERM, and SIGKILL after its KillWait; one that waits in the queue just goes."""
        if not self.stopped:
            self.stopped = True
            with suppress(OSError):  # Slurm does not answer, or the job is over; the next search finds it
                ask("scancel", self.number)


class Launcher:
    """Starts runs as Slurm jobs: as many are queued or running as there are slots.

    Raises ValueError where there is no Slurm, and where it refuses the job.
    """

    def __init__(self, workers: int, options: Options, scripts: Path) -> None:
        if absent := [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]:
            raise ValueError(
                f"launcher=slurm needs {' and '.join(absent)}: run this on a machine that submits to the cluster"
            )
        if importlib.util.find_spec("submitit") is None:
            raise ValueError("launcher=slurm needs submitit: pip install -e '.[launchers]'")
        self.slots, self.options, self.scripts = range(workers), options, scripts
        self.asked = self.answered = time.monotonic()
        self.jobs: dict[str, Job] = {}  # that have not ended, by number

    def start(self, command: Sequence[str], folder: Path, slot: int) -> Job:
        """Its number is written to job.json as soon as it has one; until then it is found by its name."""
        (folder / "job.json").unlink(missing_ok=True)
        before = status_of(folder).last_begun
        with _outside_of_jobs():
            number = _submit(command, folder, self.options, self.scripts)
        return self._track(number, folder, before)

    def _track(self, number: str, folder: Path, before: float | None = None) -> Job:
        write_text(folder / "job.json", json.dumps({"slurm": number}))
        self.jobs[number] = job = Job(number, folder, before)
        return job

    def left_over(self, folders: Sequence[Path]) -> dict[Path, Job]:
        """Jobs of a dead search that are still running, and those that have finished or failed since."""
        if not folders:
            return {}
        by_name, found = {job_name(folder): folder for folder in folders}, {}
        for number, state, name, code in _queue(by_name):
            folder = by_name[name]
            own = state not in STATUS or (STATUS[state] in (0, 1) and number == _recorded(folder))
            if own and (folder not in found or int(number) > int(found[folder].number)):
                found[folder] = self._track(number, folder)
                found[folder].saw(state, code)
        return found

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """So many seconds; Slurm is asked rarely."""
        time.sleep(min(seconds, EVERY))
        if time.monotonic() - self.asked >= EVERY:
            self.look()

    def look(self) -> None:
        """Ask Slurm, once, for the states of all jobs. Raises OSError if it has not answered for ten minutes."""
        self.asked = time.monotonic()
        self.jobs = {number: job for number, job in self.jobs.items() if job.ended() is None}
        self.answered = self.answered if self.jobs else self.asked
        try:
            found = {row[0]: row for row in _queue(job_name(job.folder) for job in self.jobs.values())}
        except OSError as error:
            if self.asked - self.answered > UNANSWERED:
                raise OSError(f"Slurm does not answer: {error}. Run the same command again when it does") from error
            return
        self.answered = self.asked
        for number, job in self.jobs.items():
            _, state, _, code = found.get(number, (number, FORGOTTEN, "", 0))
            job.saw(state, code)

    def end(self, jobs: Sequence[Job]) -> None:
        """Cancel them all, and return when they have ended; if that takes too long, the next search finds them."""
        for job in jobs:
            job.stop()
        until = time.monotonic() + LATE
        while any(job.state not in STATUS for job in jobs) and time.monotonic() < until:
            time.sleep(min(1.0, EVERY))
            with suppress(OSError):
                self.look()

    def message(self, folder: Path) -> str:
        """Slurm's own log where the run printed nothing."""
        logs = sorted(self.scripts.glob(f"{_recorded(folder)}_*.err"))
        return last_lines(folder / "stderr.log") or "\n".join(filter(None, map(last_lines, logs)))


def job_name(folder: Path) -> str:
    """One for each run folder of all searches."""
    return f"engrec-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"


def _submit(command: Sequence[str], folder: Path, options: Options, scripts: Path) -> str:
    """The number of a job that runs the command; Slurm starts it again when it was preempted."""
    from submitit import SlurmExecutor  # not needed by the searches of one machine
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    asked = {key: value for key, value in asdict(options).items() if value is not None}
    delay, setup, minutes = asked.pop("signal_delay_s"), asked.pop("setup", None), asked.pop("timeout_min")
    memory = {"mem": f"{round(1024 * asked.pop('mem_gb'))}MB"} if "mem_gb" in asked else {}
    threads = os.environ.get("OMP_NUM_THREADS") or options.cpus_per_task
    log = str((folder / "stderr.log").resolve()).replace("%", "%%")  # else it begins a pattern of Slurm's
    scripts.mkdir(parents=True, exist_ok=True)
    executor = SlurmExecutor(scripts)
    executor.update_parameters(
        **asked,
        **memory,
        time=minutes,
        job_name=job_name(folder),
        setup=[f"export OMP_NUM_THREADS={threads}", *([setup] if setup else [])],
        srun_args=[
            f"--cpus-per-task={options.cpus_per_task}", "--open-mode=truncate", "--output=/dev/null", f"--error={log}",
        ],
        additional_parameters={"ntasks": 1, "requeue": True, "signal": f"USR1@{delay}"},
    )  # fmt: skip
    until = time.monotonic() + UNANSWERED
    while True:
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints the error that it raises
                return _submit_command(executor, command)
        except (FailedJobError, FailedSubmissionError) as error:
            message = " ".join(str(error).split())
            if not BUSY.search(message) or time.monotonic() > until:
                raise RefusedError(f"Slurm refuses the job: {message}") from error
        time.sleep(EVERY)
        if submitted := [number for number, state, *_ in _queue([job_name(folder)]) if state not in STATUS]:
            return submitted[-1]  # it was accepted all the same


def _submit_command(executor: Any, command: Sequence[str]) -> str:
    """The number of the job. submitit's public submit() pickles a Python function: signals would not reach the command,
    and a job that is submitted while the search is killed would lack its pickle."""
    return executor._submit_command(shlex.join(command)).job_id


def _queue(names: Iterable[str]) -> list[tuple[str, str, str, int]]:
    """Number, state, name and exit status of all jobs with these names that Slurm knows of. Raises OSError if it does
    not answer."""
    listed = ",".join(names)
    if not listed:
        return []
    user, form = f"--user={os.getuid()}", "--Format=JobID:|,State:|,Name:|,exit_code:|"
    lines = ask("squeue", "--noheader", "--states=all", user, form, f"--name={listed}").splitlines()
    rows = (line.strip().split("|") for line in lines)
    return [(number, state, name, _exit_status(code)) for number, state, name, code, *_ in rows]


def _exit_status(code: str) -> int:
    """Of 65:0, or of the 16640 that wait(2) makes of it; which one depends on Slurm's version."""
    status, colon, _ = code.partition(":")
    return int(status) if colon else int(status) >> 8


def ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} takes more than a minute") from error
    if done.returncode:
        raise OSError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def _recorded(folder: Path) -> str | None:
    """The number of the last job that was submitted for this folder."""
    try:
        number = str(json.loads((folder / "job.json").read_text(encoding="utf-8"))["slurm"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if number.isdecimal() else None  # it is a part of the name of a log


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """A job that is submitted in another one would have what that one has, and not what it asks for."""
    before = dict(os.environ)
    for key in before.keys() - outside_of_jobs(before).keys():
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(before)
