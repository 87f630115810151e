"""Trials as processes of this machine."""

import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engrec.machine import processes
from engrec.machine.processes import outside_of_jobs, read_record, signal_groups, tied_to
from engrec.runs.folder import last_lines

GRACE = 15.0  # seconds that a process has to end after SIGTERM


class Job:
    """A process group of this machine."""

    doing = ""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.fd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        self.patience = math.inf  # until when it may take to end

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives. What it started itself ends with it."""
        if time.monotonic() > self.patience:
            self.kill()
        if self.process.returncode is None and hasattr(os, "waitid"):
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.kill()  # before it is reaped, as its number may be another's afterwards
        status = self.process.poll()
        if status is not None and self.fd is not None:
            os.close(self.fd)
            self.fd = None
        return status

    def stop(self) -> None:
        self.patience = min(self.patience, time.monotonic() + GRACE)
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if self.process.returncode is None:
            signal_groups([self.process.pid], signum)


class Launcher:
    """Starts runs as processes of this machine.

    slots: the environment variables that each run in parallel has besides the search's own.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.slots = slots

    def start(self, command: Sequence[str], folder: Path, slot: int) -> Job:
        """In a session of its own, so that Ctrl-C reaches it through the search alone."""
        record, parent = folder / "process.json", os.getpid()
        with (folder / "stderr.log").open("ab") as errors:
            try:
                process = subprocess.Popen(
                    command,
                    env={**outside_of_jobs(os.environ), **self.slots[slot]},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    preexec_fn=lambda: tied_to(parent, record),
                )
            except subprocess.SubprocessError as error:
                raise OSError(f"{record} cannot be written") from error
        return Job(process)

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Until one of them ends, at most so many seconds."""
        fds = [job.fd for job in jobs if job.fd is not None]
        if not fds:
            time.sleep(min(seconds, 0.05))
            return
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        poll.poll(1000 * seconds)

    def end(self, jobs: Sequence[Job]) -> None:
        """Stop them all, and return when they have ended."""
        for job in jobs:
            job.stop()
        while left := [job for job in jobs if job.ended() is None]:
            self.wait(left, 0.1)

    def left_over(self, folders: Sequence[Path]) -> dict[Path, Job]:
        """None: processes that a killed search left running in these folders are ended."""
        found = [record for folder in folders if (record := read_record(folder / "process.json")) is not None]
        until, alive = time.monotonic() + GRACE, [one["pid"] for one in found if processes.process(one["pid"]) == one]
        signal_groups(alive, signal.SIGTERM)
        while alive := [one["pid"] for one in found if processes.process(one["pid"]) == one]:
            time.sleep(0.02)
            if time.monotonic() > until:
                signal_groups(alive, signal.SIGKILL)
        return {}

    def message(self, folder: Path) -> str:
        return last_lines(folder / "stderr.log")
