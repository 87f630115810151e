"""A search that several controllers share: its trials are in a database, and each trial has an owner."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from engrec.machine.files import lock
from engrec.machine.processes import process

BEAT = 60.0  # seconds between two signs of life of an owner
SILENCE = 600.0  # seconds without one, after which the owner is dead; on the same machine it is known at once
ATTRIBUTE = "owner"


def masked(url: str) -> str:
    """The URL of a database without its password. Raises ValueError for what is no URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string()
    except ArgumentError as error:
        raise ValueError(
            "storage= takes the URL of a database, such as sqlite:///search.db or postgresql://USER@HOST/NAME"
        ) from error


def open_database(url: str) -> RDBStorage:
    """Raises an error of SQLAlchemy's for a database that cannot be reached."""
    wait = {"timeout": 60} if url.startswith("sqlite") else {}  # for the other controllers' writes
    return RDBStorage(url, {"connect_args": wait, "pool_pre_ping": True})


@contextmanager
def database_errors(url: str | None) -> Iterator[None]:
    """Whatever is wrong with the database, as an OSError of one line."""
    if url is None:
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        install = ": pip install -e '.[postgres]'" if isinstance(error, ImportError) else ""
        raise OSError(f"storage={masked(url)} cannot be used: {reason}{install}") from error


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One controller at a time takes trials, so that none is taken twice, and none is one too many."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "turn").open("a") as file:
        while not lock(file.fileno()):
            time.sleep(0.02)
        yield


def own(trial: optuna.Trial) -> None:
    """Put on record that this process is alive and has the trial."""
    trial.set_user_attr(ATTRIBUTE, {**_myself(), "seen": time.time()})


def release(trial: optuna.Trial) -> None:
    trial.set_user_attr(ATTRIBUTE, None)


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": process(os.getpid())}


def is_mine(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(ATTRIBUTE)
    return owner is not None and {**owner, **_myself()} == owner


def is_owned(trial: FrozenTrial) -> bool:
    """Whether a controller that is alive has the trial."""
    owner = trial.user_attrs.get(ATTRIBUTE)
    if owner is None:
        return False
    if owner["host"] == socket.gethostname() and process(owner["process"]["pid"]) != owner["process"]:
        return False
    return time.time() - owner["seen"] < SILENCE
