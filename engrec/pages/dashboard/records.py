"""Runs and searches below a folder, as records for a table; read again only where files have changed.

Nothing that lies there is trusted: what cannot be read is a record that says why. Symbolic links are not followed.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engrec.metrics import higher_is_better, logged
from engrec.runs.reading import (
    MOST_BYTES,
    mapping,
    number,
    parse_history,
    plain,
    read_json,
    read_settings,
    read_text,
    word,
)
from engrec.runs.record import STAGES
from engrec.runs.settings import is_setting
from engrec.runs.status import status_of

RUN_FILES = ("config.yaml", "result.json", "metrics.csv", "status.json")  # one of them makes a folder a run's
READ = (*RUN_FILES, "sweep.json", "predictions.csv", "train.log", "stderr.log")
DEEPEST = 24  # folders
SKIPPED = {"controls", "wandb", "checkpoints", "lightning_logs", "__pycache__"}
SILENT = 60.0  # seconds without a new sweep.json, after which a search no longer goes on
NAMED = ("dataset", "model", "split")  # groups of options that a run has a name for once it is finished
NOT_PLAIN = (0, -1)  # a link, a pipe, a folder

Seen = dict[str, tuple[int, int]]  # name of a file to when it was written, in ns, and its size


@dataclass
class Entry:
    """A folder of a run or a search. read: what its files say; record: what the page is told, since `version`."""

    folder: Path
    files: Seen
    read: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    version: int = 0


class Outputs:
    """What lies below a folder, kept between looks. Whoever names a version is told what came after it."""

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
            self._tell(entry, finished_record(entry.read, names, trials))
        for entry in self.searches.values():
            self._tell(entry, dict(entry.read, state=search_state(entry)))

    def since(self, version: int = 0, token: str = "") -> dict[str, Any]:
        """Records that are new since then, or all of them."""
        version = version if token == self.token else 0
        new = {
            name: [entry.record for entry in entries.values() if entry.version > version]
            for name, entries in (("runs", self.runs), ("searches", self.searches))
        }
        gone = [key for key, at in self.gone.items() if version and at > version]
        return {"token": self.token, "version": self.version, "whole": version == 0, "gone": gone, **new}

    def forget(self) -> None:
        """That the folder cannot be read."""
        self.version += 1
        for entries in (self.runs, self.searches):
            self.gone |= dict.fromkeys(entries, self.version)
            entries.clear()

    def _take(self, entries: dict[str, Entry], found: Mapping[str, Seen], read: Callable[..., dict[str, Any]]) -> None:
        for key in [key for key, entry in entries.items() if entry.read["path"] not in found]:
            del entries[key]
            self.gone[key] = self.version
        for path, files in found.items():
            key, folder = identity(path), self.root / path
            before = entries.get(key)
            if before is None or before.files != files or before.read.get("state") in ("running", "unknown"):
                said = read(folder, path, files, before.read if before and before.files == files else None)
                record, version = (before.record, before.version) if before else ({}, 0)
                entries[key] = Entry(folder, files, said, record, version)
            self.gone.pop(key, None)

    def _tell(self, entry: Entry, record: dict[str, Any]) -> None:
        if record != entry.record:
            entry.record, entry.version = record, self.version

    def _trials(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The folder of each trial of each search, from which its runs learn that they were pruned."""
        for key, entry in self.searches.items():
            for trial, state, error in entry.read["trials"]:
                path = str(Path(entry.read["path"]) / "trials" / str(trial))
                yield path, {"search": key, "trial": trial, "state": state, "error": error}


def identity(path: str) -> str:
    """What a folder is called by in addresses: never a path, so that none can be asked for."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def walk(root: Path) -> Iterator[tuple[str, Seen]]:
    """Each folder from the root down, relative to it, with those of its files that are read here."""
    waiting = [("", 0)]
    while waiting:
        path, depth = waiting.pop()
        files: Seen = {}
        try:
            with os.scandir(root / path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in SKIPPED:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if depth < DEEPEST:
                            waiting.append((f"{path}/{entry.name}" if path else entry.name, depth + 1))
                    elif entry.name in READ:
                        at = entry.stat(follow_symlinks=False)
                        files[entry.name] = (at.st_mtime_ns, at.st_size) if stat.S_ISREG(at.st_mode) else NOT_PLAIN
        except OSError:
            if not path:
                raise
            continue  # gone meanwhile, or not ours to read
        if files:
            yield path or ".", files


def read_history(path: Path) -> tuple[dict[str, list[float | None]], str]:
    """metrics.csv: column to values, and what is wrong with it, up to where that is; empty if nothing."""
    try:
        columns, problem = parse_history(read_text(path))
    except ValueError as error:
        return {}, str(error)
    finite = {name: [number(value) for value in values] for name, values in columns.items()}
    return finite, f"{path.name}, {problem}" if problem else ""


def read_run(folder: Path, path: str, files: Seen, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a run's files say. before: what they said already, if only its state can be another."""
    said = dict(before) if before else _from_files(folder, path, files)
    at: dict[str, Any] = dict.fromkeys(("started", "ended", "begun", "earlier"))
    at |= {"state": "unknown", "error": "", "command": ""}
    problems: list[str] = []
    if not 0 <= files.get("status.json", (0, 0))[1] <= MOST_BYTES["status.json"]:
        problems.append("status.json is no plain file, or larger than any run writes")
    else:
        try:
            status = status_of(folder)
            at = {"state": word(status.state), "started": number(status.started), "ended": number(status.ended)}
            at |= {"begun": number(status.begun), "earlier": number(status.earlier)}
            at |= {"error": word(status.error), "command": word(status.command)}
        except Exception as error:  # of whatever a damaged file makes of it
            problems.append(f"status.json is damaged ({type(error).__name__})")
    at["error"] = " ".join(at["error"].split())
    if at["error"].startswith("status.json cannot be read"):
        problems.append(at["error"])
    if at["state"] not in ("running", "finished", "failed", "stopped", "unknown"):
        problems.append("status.json names a state that there is not")
        at["state"] = "unknown"
    at["started"] = at["started"] or said["dated"]
    said.update(at, command=at["command"] or said["typed"], problems=[*said["broken"], *problems])
    if said["unusable"] or (problems and at["state"] == "unknown"):
        said["state"] = "damaged"
    return said


def _from_files(folder: Path, path: str, files: Seen) -> dict[str, Any]:
    broken, unusable = [], False
    settings, result = {}, {}
    try:
        settings = read_settings(folder / "config.yaml") if "config.yaml" in files else {}
        result = read_json(folder / "result.json") if "result.json" in files else {}
        if "result.json" in files and not {"stage", "metrics"} <= result.keys():
            raise ValueError("result.json is not that of a run")
        if "config.yaml" in files and "stage" not in settings:
            settings = {}
            raise ValueError("config.yaml is not that of a run")
    except ValueError as error:
        broken.append(str(error))
        unusable = True
    history, wrong = read_history(folder / "metrics.csv") if "metrics.csv" in files else ({}, "")
    broken += [wrong] if wrong else []
    for name in ("predictions.csv", "train.log"):
        broken += [f"{name} is no plain file"] if files.get(name) == NOT_PLAIN else []
    if "predictions.csv" in files and files["predictions.csv"][1] > MOST_BYTES["predictions.csv"]:
        broken.append(f"predictions.csv has {files['predictions.csv'][1] / 1e6:,.0f} MB, which is too much to show")
    choices = {key: word(value) for key, value in mapping(result.get("choices")).items() if isinstance(key, str)}
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
        "choices": choices | ({"dataset": name} if name else {}),
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
        "broken": broken,
        "unusable": unusable,
    }


def _dated(run: Any) -> float | None:
    """When a run began by its name, which is a date; as an older one without status.json has it."""
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
    """The settings of each group of options as text, by which finished runs name those of others."""
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


def finished_record(
    read: Mapping[str, Any], names: Mapping[tuple[str, str], str], trials: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """With what other folders know of this run: what its parts are called, and what became of its trial."""
    record = {
        key: value
        for key, value in read.items()
        if key not in ("broken", "unusable", "typed", "dated", "choices", "sections")
    }
    choices = dict(read["choices"])
    for group in {*NAMED, *(group for group, _ in names)} - choices.keys():
        if option := names.get((group, read["sections"].get(group, ""))):
            choices[group] = option
    record |= {group: choices.get(group) or _guessed(read, group) for group in NAMED} | {"choices": choices}
    alike = [record["stage"], *(record[group] for group in NAMED), *read["sections"].values()]
    record["group"] = identity("\n".join(alike))
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
    """From the command, else from what is built."""
    if typed := re.search(rf"(?:^|\s)['\"]?{group}=([\w.-]+)", read["command"]):
        return typed[1]
    settings = read["settings"]
    if group == "dataset" and isinstance(path := settings.get("dataset.path"), str):
        return Path(path).stem
    target = str(settings.get(f"{group}._target_", ""))
    return "synthetic" if target == "engrec.datasets.synthetic.render" else target.rpartition(".")[2].lower()


def read_search(folder: Path, path: str, files: Seen, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the table of searches shows of sweep.json."""
    said: dict[str, Any] = {"id": identity(path), "path": path, "problems": []}
    said |= {"name": folder.name, "said": "", "counts": {}, "trials": [], "objectives": [], "best": None}
    said |= {"n_trials": None, "workers": None, "command": "", "written": files["sweep.json"][0] / 1e9}
    try:
        node = read_json(folder / "sweep.json")
        trials = [mapping(trial) for trial in node["trials"]]
        objectives = [(word(mapping(o).get("metric")), word(mapping(o).get("direction"))) for o in node["objectives"]]
        numbers = [(int(t["number"]), word(t.get("state")), word(t.get("error"))) for t in trials]
        values = [(number((t.get("values") or [None])[0]), t["number"]) for t in trials]
    except (ValueError, TypeError, KeyError, LookupError) as error:
        wrong = str(error) if str(error).startswith("sweep.json") else f"sweep.json is damaged ({type(error).__name__})"
        return said | {"problems": [wrong]}
    said |= {"name": word(node.get("name")) or folder.name, "said": word(node.get("state")), "trials": numbers}
    said |= {"n_trials": number(node.get("n_trials")), "workers": number(node.get("workers"))}
    said |= {"command": word(node.get("command")), "objectives": [{"metric": m, "direction": d} for m, d in objectives]}
    said["counts"] = {state: sum(of == state for _, of, _ in numbers) for state in sorted({s for _, s, _ in numbers})}
    known = [(value, which) for value, which in values if value is not None]
    if known and objectives:
        said["best"] = (min if objectives[0][1] == "minimize" else max)(known)
    return said


def search_state(entry: Entry) -> str:
    """running, stopped or done; a search that writes nothing more has been killed."""
    if entry.read["problems"]:
        return "damaged"
    silent = time.time() - entry.read["written"] > SILENT
    return "stopped" if entry.read["said"] == "running" and silent else entry.read["said"]
