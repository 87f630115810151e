"""Optuna's part of a search: its journal or database, samplers and pruners."""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from engrec.machine.files import lock
from engrec.search.shared import open_database, turn
from engrec.search.space import Sweep, text


def quiet_optuna() -> None:
    """Hide Optuna's line for each trial, which the table of the search replaces, and its warnings on experimental
    options."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Journal(JournalFileBackend):
    """Optuna's file of a line per change, for the one process that holds the search's lock: Optuna's own lock is not
    needed, nor left behind. A write that fails leaves none of it in the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 0
        repair(path)
        super().__init__(str(path))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        for self.line, log in enumerate(super().read_logs(log_number_from), start=log_number_from + 1):
            yield log

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = self.path.stat().st_size
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self.path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if any("state" in log for log in logs):  # results; with them, what was written before
                    os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise OSError(f"{self.path} cannot be written ({error.strerror}): nothing that is in it is lost") from error


def repair(path: Path) -> None:
    """Cut off a last line that a crash left unfinished. Raises ValueError for damage elsewhere."""
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n") and _is_json(line):
            continue
        if number < len(lines):
            raise _damaged(path, number)
        os.truncate(path, sum(map(len, lines[:-1])))


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _damaged(path: Path, line: int) -> ValueError:
    return ValueError(f"{path}, line {line} is damaged: restore that file from a copy, or remove its folder")


def replayed(journal: Journal) -> JournalStorage:
    """What the journal's lines make. Raises ValueError for a line that is JSON, and no change that Optuna knows."""
    try:
        return JournalStorage(journal)
    except OSError:
        raise
    except Exception as error:  # whatever Optuna meets in it
        raise _damaged(journal.path, journal.line) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises ValueError if another search uses the folder.

    The lock goes with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        if not lock(file.fileno()):
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by another search, process {file.read().strip() or 'unknown'}: stop that one, set "
                "another folder=, or share the search with storage="
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def open_study(folder: Path, sweep: Sweep, url: str | None = None) -> optuna.Study:
    """The folder's study, new or as it was left; of a database the one with the folder's name. Raises ValueError where
    it is another search."""
    with turn(folder) if url else nullcontext():  # two that create the tables of a database disturb each other
        study = optuna.create_study(
            study_name=folder.resolve().name if url else sweep.name,
            storage=open_database(url) if url else replayed(Journal(folder / "journal.log")),
            directions=[objective.direction for objective in sweep.objectives],
            load_if_exists=True,
        )
        _check_same(study, folder, sweep, "the database does not have" if url else "have no journal")
    return study


def _check_same(study: optuna.Study, folder: Path, sweep: Sweep, unknown: str) -> None:
    spec = json.loads(json.dumps(sweep.spec()))
    before = study.user_attrs.get("spec")
    if before is None:
        if study.trials or any(folder.glob("trials/*")):
            raise ValueError(f"{folder} has trials that {unknown}: remove it, or set another folder=")
        study.set_user_attr("spec", spec)
    elif differing := [key for key in spec if before.get(key) != spec[key]]:
        key = differing[0]
        raise ValueError(
            f"{folder} holds a search with other {', '.join(differing)} ({_difference(before.get(key), spec[key])}): "
            "use the same command to resume it, or set another folder="
        )


def reopened(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that another process has begun. Optuna has no public way to continue one."""
    frozen = study.get_trials(deepcopy=False)[number]
    return optuna.Trial(study, frozen._trial_id)


def forget(study: optuna.Study, folder: Path, url: str | None = None) -> None:
    """Remove a search that has just begun; the lock stays, as it is held."""
    for name in ("trials", "slurm"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("journal.log", "sweep.json", "trials.csv"):
        (folder / name).unlink(missing_ok=True)
    if url is not None:
        optuna.delete_study(study_name=study.study_name, storage=url)


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        gone, new = ([x for x in one if x not in other] for one, other in ((before, now), (now, before)))
        return f"there {_shown(gone)}, here {_shown(new)}"
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(keys)
    return f"there {before}, here {now}"


def _shown(values: Sequence[Any]) -> str:
    return " ".join(text(value) for value in values) or "nothing"


class LastValue(MedianPruner):
    """Optuna's median, for values that are the best so far: the last one is compared, as a mean over folds may fall."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        trial, step = copy.copy(trial), trial.last_step
        if step is not None:
            trial.intermediate_values = {step: trial.intermediate_values[step]}
        return super().prune(study, trial)


def build_pruner(node: Mapping[str, Any] | None, steps: int) -> BasePruner:
    """steps: of a complete trial, counted from 1."""
    if node is None:
        return NopPruner()
    numbers = {key: value for key, value in node.items() if key != "name"}
    return LastValue(**numbers) if node["name"] == "median" else HyperbandPruner(max_resource=steps, **numbers)


def build_sampler(sweep: Sweep, number: int, draw: int = 0) -> BaseSampler:
    """For one value of one trial: the same with a restart and without."""
    seed = int(np.random.SeedSequence([sweep.seed, number, draw]).generate_state(1)[0])
    if sweep.sampler["name"] == "random":
        return RandomSampler(seed)
    numbers = {key: value for key, value in sweep.sampler.items() if key != "name"}
    return TPESampler(seed=seed, constant_liar=True, **numbers)
