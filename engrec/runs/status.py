"""The state of a run on disk (status.json)."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engrec.errors import explain
from engrec.machine.files import lock, write_text
from engrec.machine.processes import process

FILE = "status.json"
STATES = ("running", "finished", "stopped", "failed")
KILLED = "killed: its process is gone"
CHANGING = ("metrics.csv", "train.log", FILE)
SILENCE = 24 * 3600.0  # seconds, after which a run on another machine no longer counts as running


@dataclass(frozen=True)
class Status:
    """state: running, finished, stopped (by a signal; it can be resumed), failed, or unknown.

    started, ended: seconds since 1970; error: why it failed, on one line; command: as typed. Of a resumed run, begun:
    when it was last resumed; earlier: seconds of work before that.
    """

    state: str
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    command: str | None = None
    host: str | None = None
    begun: float | None = None
    earlier: float = 0.0
    choices: dict[str, str] | None = None  # the option of each config group

    @property
    def last_begun(self) -> float | None:
        return self.begun or self.started

    @property
    def seconds(self) -> float | None:
        """Seconds of work, over all resumptions; None if unknown."""
        begun = self.last_begun
        until = time.time() if self.state == "running" else self.ended
        return None if begun is None or until is None else self.earlier + max(0.0, until - begun)


@contextmanager
def reported(folder: Path, command: str, choices: Mapping[str, str | None] | None = None) -> Iterator[None]:
    """Write status.json: "running" until this block is left, then how it was left.

    Raises ValueError if another process runs in this folder.
    """
    state, error = "failed", None
    with alone(folder):
        now, before = time.time(), status_of(folder) if (folder / "last.ckpt").is_file() else Status("unknown")
        started, earlier = before.started or now, before.seconds or 0.0
        about = {
            "command": command,
            "host": socket.gethostname(),
            "choices": None if choices is None else {k: v for k, v in choices.items() if v is not None},
        }
        status = Status("running", started, begun=now, earlier=earlier, **about)
        write(folder, status)
        try:
            yield
            state = "finished"
        except SystemExit as left:
            stopped = isinstance(left.code, int) and left.code >= 128
            state = "finished" if left.code in (None, 0) else "stopped" if stopped else "failed"
            error = str(left.code) if state == "failed" else None
            raise
        except BaseException as raised:
            error = explain(raised) or type(raised).__name__
            raise
        finally:
            with suppress(OSError):  # a full disk is reported by the run itself
                write(folder, replace(status, state=state, ended=time.time(), error=error))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine out of the folder; the kernel releases the lock when the process ends.

    Raises ValueError if another process has the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            free = lock(descriptor)
        except (OSError, ImportError):
            free = True  # the file system or the operating system does not support locks
        if not free:
            raise ValueError(f"another run is active in {folder}: wait for it, or set another output_dir")
        yield
    finally:
        os.close(descriptor)


def write(folder: Path, status: Status) -> None:
    write_text(folder / FILE, json.dumps(asdict(status) | {"process": process(os.getpid())}))


def status_of(folder: Path) -> Status:
    """The state of the run in this folder. If status.json says "running" but the process is gone, it has failed."""
    ended = (folder / "result.json").is_file()
    try:
        owner, status = read(folder)
    except FileNotFoundError:
        return Status("finished" if ended else "unknown")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        return Status("unknown", error=f"{FILE} cannot be read: {type(error).__name__}")
    if status.state != "running":
        return status
    written = last_written(folder)
    if status.host == socket.gethostname():
        if owner is not None and process(owner["pid"]) == owner:
            return status
        status = replace(status, ended=written)
        return replace(status, state="finished") if ended else replace(status, state="failed", error=KILLED)
    if time.time() - written < SILENCE:
        return status
    return replace(status, state="unknown", ended=written, error=f"{status.host} has written nothing for a day")


def last_written(folder: Path) -> float:
    return max((path.stat().st_mtime for name in CHANGING if (path := folder / name).is_file()), default=0.0)


def read(folder: Path) -> tuple[dict[str, Any] | None, Status]:
    """The process and the state in status.json."""
    record: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    owner, status = record.pop("process"), Status(**record)
    texts = (status.error, status.command, status.host)
    times = (status.started, status.ended, status.begun, status.earlier)
    if status.state not in STATES or not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{FILE} is invalid: unknown state")
    if not all(when is None or type(when) in (int, float) for when in times):
        raise ValueError(f"{FILE} is invalid: a time is not a number")
    choices = status.choices
    if choices is not None and not all(isinstance(word, str) for item in choices.items() for word in item):
        raise ValueError(f"{FILE} is invalid: a choice is not text")
    if owner is not None and not 0 < int(owner["pid"]) < 2**31:
        raise ValueError(f"{FILE} is invalid: no process id")
    return owner, status
