"""The folder of a run: its configuration, log, and checkpoints."""

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from engrec.machine.files import write_text
from engrec.runs.reading import FileError, read_yaml
from engrec.runs.record import read_result

log = logging.getLogger(__name__)


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder that Hydra has created for this run if nothing was written to it."""
    try:
        yield
    finally:
        with suppress(OSError):
            os.removedirs(folder)


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of the run in this folder. Raises ValueError if it cannot be read."""
    try:
        return read_yaml(folder / "config.yaml", links=True)
    except FileError as error:
        raise ValueError(f"{folder}/{error}: set another output_dir, or remove that folder") from error


def finished(folder: Path) -> dict[str, float]:
    """The metrics in result.json, if a resumed run has finished already. Raises ValueError if the file is damaged."""
    try:
        metrics = read_result(folder / "result.json", links=True).get("metrics")
        if metrics is None:
            raise FileError("damaged", folder / "result.json", "is damaged (it lacks metrics)")
    except FileError as error:
        raise ValueError(f"{folder}/{error}: remove it to test the run again") from error
    log.info("%s is finished already", folder)
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


class Log(logging.FileHandler):
    """train.log. On a full disk a line is lost: the run itself says why it ends, in one line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def open_log(folder: Path, first: bool) -> None:
    """Open train.log in the first process; the others log only errors."""
    root = logging.getLogger()
    if not first:
        root.setLevel(logging.ERROR)
        return
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)  # of the sweep's previous run
    handler = Log(folder / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def remove_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        path.unlink(missing_ok=True)


def saved_at(folder: Path) -> int:
    """When last.ckpt was written, in nanoseconds; 0 if there is none."""
    try:
        return (folder / "last.ckpt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def last_lines(path: Path, number: int = 5) -> str:
    """The last lines of a log, without text that a progress bar has overwritten."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = [line.rstrip().rpartition("\r")[2] for line in file.read().decode("utf-8", "replace").split("\n")]
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in lines if line.strip()][-number:])
