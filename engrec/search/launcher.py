"""The protocol of the launchers: processes of this machine, or Slurm jobs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

INTERRUPTED = 1000  # exit status of a run whose machine was taken away, or whose time was over


class Job(Protocol):
    """A run that was started.

    ended: its exit status, negative for a signal, or INTERRUPTED; None while it lives. stop: ask it to end, which takes
    a while. doing: its state if it is not running yet, such as pending.
    """

    @property
    def doing(self) -> str: ...
    def ended(self) -> int | None: ...
    def stop(self) -> None: ...


AnyJob = TypeVar("AnyJob", bound=Job)


class Launcher(Protocol[AnyJob]):
    """Starts runs. slots: an entry for each run in parallel.

    left_over: runs of a dead search, by folder. wait: until one of them ends, at most so many seconds. end: stop them
    all, and return when they have ended. message: the last lines of the run in this folder.
    """

    @property
    def slots(self) -> Sequence[Any]: ...
    def start(self, command: Sequence[str], folder: Path, slot: int) -> AnyJob: ...
    def left_over(self, folders: Sequence[Path]) -> Mapping[Path, AnyJob]: ...
    def wait(self, jobs: Sequence[AnyJob], seconds: float) -> None: ...
    def end(self, jobs: Sequence[AnyJob]) -> None: ...
    def message(self, folder: Path) -> str: ...
