"""The protocol of what starts runs: processes of this machine, or jobs of Slurm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

TAKEN = 1000  # status of a run whose machine was taken away, or its time over, which is no fault of its own


class Job(Protocol):
    """A run that was started. ended: its exit status, negative for a signal, or TAKEN; None while it lives. stop: have
    it end, which takes a while. doing: what it does if it does not run yet, such as waiting in a queue."""

    @property
    def doing(self) -> str: ...
    def ended(self) -> int | None: ...
    def stop(self) -> None: ...


AnyJob = TypeVar("AnyJob", bound=Job)


class Launcher(Protocol[AnyJob]):
    """Where runs are: slots has an entry for each that goes on at the same time, left_over what a dead search left.

    wait: until one of them ends, or so long. end: stop them all, and return when they are gone. message: the last
    lines of a run that ended in this folder.
    """

    @property
    def slots(self) -> Sequence[Any]: ...
    def start(self, command: Sequence[str], folder: Path, slot: int) -> AnyJob: ...
    def left_over(self, folders: Sequence[Path]) -> Mapping[Path, AnyJob]: ...
    def wait(self, jobs: Sequence[AnyJob], seconds: float) -> None: ...
    def end(self, jobs: Sequence[AnyJob]) -> None: ...
    def message(self, folder: Path) -> str: ...
