"""Where a run stands, in its folder: status.json says how it began and how it ended."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engrec.config import explain

FILE = "status.json"
CHANGING = ("metrics.csv", "train.log", FILE)
SILENCE = 24 * 3600.0  # seconds, after which a run on another machine no longer counts as running


@dataclass(frozen=True)
class Status:
    """state: running, finished, stopped (by a signal; it can go on), failed, or unknown.

    started, ended: seconds since 1970; error: what ended it, on one line; command: what was typed.
    """

    state: str
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    command: str | None = None
    host: str | None = None


@contextmanager
def reported(folder: Path, command: str) -> Iterator[None]:
    """The run in `folder` is running until this block is left, and is then what it was left by."""
    status = Status("running", time.time(), command=command, host=socket.gethostname())
    write(folder, status)
    state, error = "failed", None
    try:
        yield
        state = "finished"
    except SystemExit as stopped:
        state = "stopped" if isinstance(stopped.code, int) and stopped.code >= 128 else "failed"
        error = None if state == "stopped" else str(stopped.code)
        raise
    except BaseException as raised:
        error = explain(raised) or type(raised).__name__
        raise
    finally:
        with suppress(OSError):  # of a full disk the run itself speaks
            write(folder, replace(status, state=state, ended=time.time(), error=error))


def write(folder: Path, status: Status) -> None:
    partial = folder / f".{FILE}.{os.getpid()}.part"
    try:
        partial.write_text(json.dumps(asdict(status) | {"process": process(os.getpid())}), encoding="utf-8")
        partial.replace(folder / FILE)
    finally:
        partial.unlink(missing_ok=True)


def status_of(folder: Path) -> Status:
    """What is known of the run in this folder. One that says it is running, and whose process is gone, has failed."""
    try:
        said: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known, at = said.pop("process"), Status(**said)
        alive = known is not None and process(int(known["pid"])) == known
    except FileNotFoundError:
        return Status("finished" if (folder / "result.json").is_file() else "unknown")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return Status("unknown", error=f"{FILE} cannot be read: {type(error).__name__}")
    if at.state != "running":
        return at
    if at.host == socket.gethostname():
        gone = replace(at, state="failed", error="killed: its process is gone")
        return at if alive else gone
    recent = max((path.stat().st_mtime for name in CHANGING if (path := folder / name).is_file()), default=0.0)
    silent = replace(at, state="unknown", error=f"nothing was written on {at.host} for a day")
    return at if time.time() - recent < SILENCE else silent


def process(pid: int) -> dict[str, Any] | None:
    """A process of this machine, told apart from a later one with its number where /proc says when it began; None where
    there is none."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        began = None
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except OSError:
        return None
    return {"pid": pid, "began": began}
