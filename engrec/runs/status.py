"""The state of a run on disk (status.json)."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from engrec.errors import explain
from engrec.machine.files import lock, write_text
from engrec.machine.processes import process
from engrec.runs.reading import FileError, read_json
from engrec.schema import Record, arguments, misfit

FILE = "status.json"
State = Literal["running", "finished", "stopped", "failed", "unknown"]
Time = Annotated[float, Field(ge=0, le=1e11)]
KILLED = "killed: its process is gone"
CHANGING = ("metrics.csv", "train.log", FILE)
SILENCE = 24 * 3600.0  # seconds, after which a run on another machine no longer counts as running


@dataclass(frozen=True)
class Status:
    """state: running, finished, stopped (by a signal; it can be resumed), failed, or unknown.

    started, ended: seconds since 1970; error: why it failed, on one line; command: as typed. Of a resumed run, begun:
    when it was last resumed; earlier: seconds of work before that.
    """

    state: State
    started: Time | None = None
    ended: Time | None = None
    error: str | None = None
    command: str | None = None
    host: str | None = None
    begun: Time | None = None
    earlier: Time = 0.0
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
    state: State = "failed"
    error = None
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
            ended = replace(status, state=state, ended=time.time(), error=error)
            try:
                write(folder, ended)
            except OSError:  # the disk is full, which the run itself reports: the old file has room for a new text
                with suppress(OSError), (folder / FILE).open("r+", encoding="utf-8") as file:
                    file.write(as_text(ended))
                    file.truncate()


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
    write_text(folder / FILE, as_text(status))


def as_text(status: Status) -> str:
    return json.dumps(asdict(status) | {"process": process(os.getpid())})


def status_of(folder: Path) -> Status:
    """The state of the run in this folder. If status.json says "running" but the process is gone, it has failed."""
    ended = (folder / "result.json").is_file()
    if not os.path.lexists(folder / FILE):
        return Status("finished" if ended else "unknown")
    try:
        owner, status = read(folder)
    except FileError as error:
        return Status("unknown", error=str(error))
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
    written = [0.0]
    for name in CHANGING:
        with suppress(OSError):
            written.append((folder / name).stat().st_mtime)
    return max(written)


class Process(Record):
    pid: Annotated[int, Field(gt=0, lt=2**31)]


class Owner(Record):
    process: Process | None


def read(folder: Path) -> tuple[dict[str, Any] | None, Status]:
    """The process and the state in status.json. Raises FileError for anything that no run writes."""
    record = read_json(folder / FILE)
    known = {field.name: record[field.name] for field in fields(Status) if field.name in record}
    if found := misfit(arguments(Status), known) or misfit(Owner, record):
        raise FileError("damaged", folder / FILE, f"is damaged ({found})")
    return record["process"], Status(**known)
