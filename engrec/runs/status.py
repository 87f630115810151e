"""Where a run stands, in its folder: status.json says how it began and how it ended."""

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
    """state: running, finished, stopped (by a signal; it can go on), failed, or unknown.

    started, ended: seconds since 1970; error: what ended it, on one line; command: what was typed. Of a run that went
    on, begun: when it did so last; earlier: seconds that it was at work before.
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
        """At work, all parts together; None where nobody knows."""
        begun = self.last_begun
        until = time.time() if self.state == "running" else self.ended
        return None if begun is None or until is None else self.earlier + max(0.0, until - begun)


@contextmanager
def reported(folder: Path, command: str, choices: Mapping[str, str | None] | None = None) -> Iterator[None]:
    """The run in `folder` is running until this block is left, and is then what it was left by.

    Raises ValueError where another process runs there.
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
            with suppress(OSError):  # of a full disk the run itself speaks
                write(folder, replace(status, state=state, ended=time.time(), error=error))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine out of the folder; the lock is the system's, and goes with the process.

    Raises ValueError where one is in it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            free = lock(descriptor)
        except (OSError, ImportError):
            free = True  # a file system, or a system, that has no such locks
        if not free:
            raise ValueError(f"a run is at work in {folder}: wait for it, or choose another output_dir")
        yield
    finally:
        os.close(descriptor)


def write(folder: Path, status: Status) -> None:
    write_text(folder / FILE, json.dumps(asdict(status) | {"process": process(os.getpid())}))


def status_of(folder: Path) -> Status:
    """What is known of the run in this folder. One that says it is running, and whose process is gone, has failed."""
    ended = (folder / "result.json").is_file()
    try:
        known, at = read(folder)
    except FileNotFoundError:
        return Status("finished" if ended else "unknown")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        return Status("unknown", error=f"{FILE} cannot be read: {type(error).__name__}")
    if at.state != "running":
        return at
    if at.host == socket.gethostname():
        if known is not None and process(known["pid"]) == known:
            return at
        at = replace(at, ended=last_written(folder))
        return replace(at, state="finished") if ended else replace(at, state="failed", error=KILLED)
    recent = last_written(folder)
    silent = replace(at, state="unknown", ended=recent, error=f"nothing was written on {at.host} for a day")
    return at if time.time() - recent < SILENCE else silent


def last_written(folder: Path) -> float:
    return max((path.stat().st_mtime for name in CHANGING if (path := folder / name).is_file()), default=0.0)


def read(folder: Path) -> tuple[dict[str, Any] | None, Status]:
    """The process that a run says it is, and what it says of itself."""
    said: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    known, at = said.pop("process"), Status(**said)
    texts, times = (at.error, at.command, at.host), (at.started, at.ended, at.begun, at.earlier)
    if at.state not in STATES or not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{FILE} is invalid: unknown state")
    if not all(when is None or type(when) in (int, float) for when in times):
        raise ValueError(f"{FILE} is invalid: a time is not a number")
    if at.choices is not None and not all(isinstance(word, str) for item in at.choices.items() for word in item):
        raise ValueError(f"{FILE} is invalid: a choice is not text")
    if known is not None and not 0 < int(known["pid"]) < 2**31:
        raise ValueError(f"{FILE} is invalid: no process id")
    return known, at
