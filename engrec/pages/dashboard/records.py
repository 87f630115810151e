"""Runs below a folder, as records for a table; read again only where files have changed.

No file there is trusted: a run that cannot be read has a record that says why. Symbolic links are not followed.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engrec.metrics import higher_is_better, logged
from engrec.runs import status as statuses
from engrec.runs.reading import (
    MOST_BYTES,
    FileError,
    Problem,
    mapping,
    number,
    parse_history,
    plain,
    read_json,
    read_settings,
    read_text,
    word,
)
from engrec.runs.record import STAGES, Count, read_result
from engrec.runs.settings import is_setting
from engrec.schema import Record, misfit

RUN_FILES = ("config.yaml", "result.json", "metrics.csv", "status.json")  # one of them makes a folder a run's
READ = (*RUN_FILES, "sweep.json", "predictions.csv", "train.log", "stderr.log")
DEEPEST = 24  # folders
SKIPPED = {"controls", "wandb", "checkpoints", "lightning_logs", "__pycache__"}
NAMED = ("dataset", "model", "split")  # groups of options that a run has a name for once it is finished
NOT_PLAIN = (0, -1)  # a link, a pipe, a folder

Seen = dict[str, tuple[int, int]]  # name of a file to when it was written, in ns, and its size


@dataclass
class Entry:
    """A folder of a run or a search. read: what its files say; record: what the page shows, since `version`."""

    folder: Path
    files: Seen
    read: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    version: int = 0


class Outputs:
    """What lies below a folder, kept between scans. `since` gives what is newer than a version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.token = os.urandom(6).hex()  # versions of another process mean nothing here
        self.version = 0
        self.runs: dict[str, Entry] = {}
        self.searches: dict[str, Entry] = {}
        self.gone: dict[str, int] = {}

    def scan(self) -> None:
        """Look again. Raises OSError where the folder itself cannot be read."""
        found = dict(walk(self.root))
        self.version += 1
        runs = {path: files for path, files in found.items() if files.keys() & set(RUN_FILES)}
        searches = {path: files for path, files in found.items() if "sweep.json" in files}
        self._take(self.searches, searches, read_search)
        self._take(self.runs, runs, read_run)
        trials = dict(self._trials())
        names = _names(entry.read for entry in self.runs.values())
        for entry in self.runs.values():
            record = full_record(entry.read, names, trials)
            if record != entry.record:
                entry.record, entry.version = record, self.version

    def since(self, version: int = 0, token: str = "") -> dict[str, Any]:
        """Records that are new since then, or all of them."""
        version = version if token == self.token else 0
        new = [entry.record for entry in self.runs.values() if entry.version > version]
        gone = [key for key, at in self.gone.items() if version and at > version]
        return {"token": self.token, "version": self.version, "complete": version == 0, "gone": gone, "runs": new}

    def forget(self) -> None:
        """Drop all records: the folder cannot be read."""
        self.version += 1
        self.gone |= dict.fromkeys(self.runs, self.version)
        self.runs.clear()
        self.searches.clear()

    def _take(self, entries: dict[str, Entry], found: Mapping[str, Seen], read: Callable[..., dict[str, Any]]) -> None:
        for key in [key for key, entry in entries.items() if entry.read["path"] not in found]:
            del entries[key]
            self.gone[key] = self.version
        for path, files in found.items():
            key, folder = identity(path), self.root / path
            before = entries.get(key)
            if before is None or before.files != files or before.read.get("state") in ("running", "unknown"):
                found_before = before.read if before and before.files == files else None
                record, version = (before.record, before.version) if before else ({}, 0)
                entries[key] = Entry(folder, files, read(folder, path, files, found_before), record, version)
            self.gone.pop(key, None)

    def _trials(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The folder of each trial, and what its runs do not know: that it was pruned, or why it failed."""
        for entry in self.searches.values():
            search = entry.read["path"]
            for trial, state, error in entry.read["trials"]:
                path = str(Path(search) / "trials" / str(trial))
                yield path, {"search": search, "trial": trial, "state": state, "error": error}


def identity(path: str) -> str:
    """The name of a folder in addresses: never a path, so that nobody can ask for one."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def walk(root: Path) -> Iterator[tuple[str, Seen]]:
    """Each folder from the root down, relative to it, with those of its files that are read here."""

    def passed_over(error: OSError) -> None:
        if error.filename == str(root):  # others were removed meanwhile, or are not readable for this user
            raise error

    for folder, folders, names in os.walk(root, onerror=passed_over):
        path, found = os.path.relpath(folder, root), {*names, *folders}.intersection(READ)
        deeper = len(Path(path).parts) < DEEPEST
        folders[:] = [name for name in folders if deeper and not name.startswith(".") and name not in SKIPPED]
        files: Seen = {}
        for name in sorted(found):
            with suppress(OSError):
                at = Path(folder, name).lstat()
                if not stat.S_ISDIR(at.st_mode):
                    files[name] = (at.st_mtime_ns, at.st_size) if stat.S_ISREG(at.st_mode) else NOT_PLAIN
        if files:
            yield path, files


def read_history(path: Path) -> tuple[dict[str, list[float | None]], Problem | None]:
    """metrics.csv: column to values, up to where something is wrong with it, and what that is."""
    try:
        columns, problem = parse_history(read_text(path))
    except FileError as error:
        return {}, error.problem
    finite = {name: [number(value) for value in values] for name, values in columns.items()}
    return finite, Problem("damaged", path.name, f"{path.name}, {problem}") if problem else None


def read_run(folder: Path, path: str, files: Seen, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a run's files say. before: what they said already, where only its state can have changed."""
    found = dict(before) if before else _from_files(folder, path, files)
    at, problem = _read_status(folder, files)
    at["started"] = at["started"] or found["dated"]
    found.update(at, command=at["command"] or found["typed"], choices=at["choices"] | found["own_choices"])
    found["problems"] = [*found["broken"], *([asdict(problem)] if problem else [])]
    if found["unusable"] or (problem and at["state"] == "unknown"):
        found["state"] = "damaged"
    return found


def _read_status(folder: Path, files: Seen) -> tuple[dict[str, Any], Problem | None]:
    """What status.json says, checked against the process that it names."""
    at: dict[str, Any] = dict.fromkeys(("started", "ended", "begun", "earlier"))
    at |= {"state": "unknown", "error": "", "command": "", "choices": {}}
    try:
        if statuses.FILE in files:
            statuses.read(folder)
    except FileError as error:
        return at, error.problem
    status = statuses.status_of(folder)
    at |= {key: number(getattr(status, key)) for key in ("started", "ended", "begun", "earlier")}
    at |= {"state": status.state, "command": word(status.command), "choices": words(status.choices)}
    return at | {"error": " ".join(word(status.error).split())}, None


def _from_files(folder: Path, path: str, files: Seen) -> dict[str, Any]:
    broken: list[Problem] = []
    settings, result = {}, {}
    try:
        settings = read_settings(folder / "config.yaml") if "config.yaml" in files else {}
        result = read_result(folder / "result.json") if "result.json" in files else {}
        if "result.json" in files and not {"stage", "metrics"} <= result.keys():
            raise FileError("damaged", folder / "result.json", "is not that of a run")
        if "config.yaml" in files and "stage" not in settings:
            settings = {}
            raise FileError("damaged", folder / "config.yaml", "is not that of a run")
    except FileError as error:
        broken.append(error.problem)
    unusable = bool(broken)
    history, problem = read_history(folder / "metrics.csv") if "metrics.csv" in files else ({}, None)
    broken += [problem] if problem else []
    for name in ("predictions.csv", "train.log"):
        broken += [Problem("refused", name, f"{name} is not a plain file")] if files.get(name) == NOT_PLAIN else []
    if (size := files.get("predictions.csv", (0, 0))[1]) > MOST_BYTES["predictions.csv"]:
        text = f"predictions.csv has {size / 1e6:,.0f} MB, which is too much to show"
        broken.append(Problem("refused", "predictions.csv", text))
    choices = words(result.get("choices"))
    name = word(mapping(result.get("dataset")).get("name"))
    validation = mapping(result.get("validation")) or best_epoch(history, settings.get("monitor"))
    scores = mapping(result.get("metrics"))
    epochs = number(result.get("epochs")) or len(history.get("epoch", ()))
    stage = result.get("stage", settings.get("stage"))
    compared = {key: value for key, value in settings.items() if is_setting(key)}
    return {
        "id": identity(path),
        "path": path,
        "stage": stage if stage in STAGES else "",
        "own_choices": choices | ({"dataset": name} if name else {}),
        "fold": plain(settings.get("split.fold")),
        "folds": number(settings.get("split.num_folds")),
        "seed": number(result.get("seed", settings.get("seed"))),
        "monitor": word(settings.get("monitor")),
        "epochs": epochs,
        "max_epochs": number(settings.get("max_epochs")),
        "best_epoch": number(validation.get("epoch")),
        "val": {score: number(validation.get(f"val/{score}")) for score in logged()},
        "test": {score: number(scores.get(f"test/{score}")) for score in logged()},
        "seconds": number(result.get("seconds")),
        "written": max(at for at, _ in files.values()) / 1e9,
        "dated": _dated(settings.get("run")),
        "typed": word(result.get("command")),
        "settings": compared,
        "sections": _sections(compared),
        "has": sorted(files),
        "broken": [asdict(problem) for problem in broken],
        "unusable": unusable,
    }


def words(value: Any) -> dict[str, str]:
    return {key: word(text) for key, text in mapping(value).items() if isinstance(key, str)}


def _dated(run: Any) -> float | None:
    """When a run began by its name, a date: older runs have no status.json."""
    try:
        return time.mktime(time.strptime(str(run), "%Y-%m-%d_%H-%M-%S"))
    except (ValueError, OverflowError):
        return None


def best_epoch(history: Mapping[str, list[float | None]], monitor: Any) -> dict[str, float | None]:
    """The row of the history with the best value of the monitored metric, the lowest of a loss."""
    column = history.get(monitor if isinstance(monitor, str) else "", [])
    known = [i for i, value in enumerate(column) if value is not None]
    if not known:
        return {}
    sign = 1 if higher_is_better(str(monitor)) else -1
    best = max(known, key=lambda i: sign * (column[i] or 0.0))
    return {name: values[best] for name, values in history.items()}


def _sections(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings of each group of options as text, by which the names in finished runs are found for others."""
    parts: dict[str, list[Any]] = {}
    for key in sorted(settings):
        parts.setdefault(key.partition(".")[0], []).append([key, settings[key]])
    return {group: json.dumps(part) for group, part in parts.items()}


def _names(reads: Any) -> dict[tuple[str, str], str]:
    """What finished runs call their sections of the configuration."""
    names: dict[tuple[str, str], str] = {}
    for read in reads:
        for group, option in read["choices"].items():
            if section := read["sections"].get(group):
                names.setdefault((group, section), option)
    return names


def full_record(
    read: Mapping[str, Any], names: Mapping[tuple[str, str], str], trials: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """What was read, with what other folders know: the names of this run's options, and what became of its trial."""
    internal = ("broken", "unusable", "typed", "dated", "choices", "own_choices", "sections")
    record = {key: value for key, value in read.items() if key not in internal}
    choices = dict(read["choices"])
    for group in {*NAMED, *(group for group, _ in names)} - choices.keys():
        if option := names.get((group, read["sections"].get(group, ""))):
            choices[group] = option
    record |= {group: choices.get(group) or _guessed(read, group) for group in NAMED} | {"choices": choices}
    kind = [record["stage"], *(record[group] for group in NAMED), *read["sections"].values()]
    record["group"] = identity("\n".join(kind))
    path = Path(read["path"])
    trial = trials.get(str(path)) or trials.get(str(path.parent))  # a run of its own, or one of its folds
    if trial:
        record |= {"search": trial["search"], "trial": trial["trial"]}
        ended = read["state"] not in ("finished", "damaged", "running")
        if ended and trial["state"] in ("pruned", "failed"):
            own = read["error"] if trial["state"] == "failed" else ""
            record |= {"state": trial["state"], "error": trial["error"].rpartition("\n")[2] or own}
    return record


def _guessed(read: Mapping[str, Any], group: str) -> str:
    """The name of an option from the command, else from the class that is built."""
    if typed := re.search(rf"(?:^|\s)['\"]?{group}=([\w.-]+)", read["command"]):
        return typed[1]
    settings = read["settings"]
    if group == "dataset" and isinstance(path := settings.get("dataset.path"), str):
        return Path(path).stem
    target = str(settings.get(f"{group}._target_", ""))
    return "synthetic" if target == "engrec.datasets.synthetic.render" else target.rpartition(".")[2].lower()


class Trial(Record):
    number: Count
    state: str | None = None
    error: str | None = None


class Search(Record):
    """What sweep.json holds."""

    trials: list[Trial]


def read_search(folder: Path, path: str, _files: Seen, _before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The trials of sweep.json: number, state and error; none where it is damaged."""
    search: dict[str, Any] = {}
    with suppress(FileError):
        search = read_json(folder / "sweep.json")
    found = [] if misfit(Search, search) else search["trials"]
    trials = [(trial["number"], word(trial.get("state")), word(trial.get("error"))) for trial in found]
    return {"path": path, "trials": trials}
