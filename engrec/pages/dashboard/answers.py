"""What is computed of single runs, groups and searches when somebody looks at them, kept while their files stay.

Raises ValueError, in one line, for what cannot be shown.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from engrec.datasets import prepared, synthetic
from engrec.datasets.prepared import Faces
from engrec.evidence.groups import Group, pool, read_groups
from engrec.metrics import confusion_matrix, log_odds_of
from engrec.pages import page
from engrec.pages.dashboard.records import Entry, Outputs, read_history
from engrec.runs.reading import MOST_BYTES, number, read_json, read_text
from engrec.runs.record import Run, read_predictions, read_run

MOST_POINTS = 1000  # of a learning curve
MOST_KEPT = 1000  # answers
MOST_MISTAKES = 36  # pictures
MOST_DRAWN = 50_000  # faces that are drawn again to show some of them
MOST_RUNS = 400  # pooled at once
TAIL = 24_000  # bytes of a log
RESAMPLES = 2000
ENOUGH = 5  # people; with fewer and so many draws no p-value is below 0.05
FEW = "† Over fewer than five people: too few for an interval that holds in 95 %, and for a p-value below 0.05."
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal


class Details:
    """Answers to the page's questions. all_faces: whether pictures of people may be shown, or drawn faces alone."""

    def __init__(self, outputs: Outputs, all_faces: bool) -> None:
        self.outputs, self.all_faces = outputs, all_faces
        self.lock = Lock()  # two threads ask
        self.kept: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
        self.questions: dict[str, Callable[..., dict[str, Any]]] = {
            "history": self.history,
            "texts": self.texts,
            "tested": self.tested,
            "mistakes": self.mistakes,
            "group": self.group,
            "pair": self.pair,
            "search": self.search,
        }

    def answer(self, question: str, key: str) -> dict[str, Any]:
        """With {"why": …} for what cannot be shown. Raises KeyError for what is not there at all."""
        ask = self.questions[question]
        entries = self._entries(question, key)
        state = (question, key, *(str((entry.files, entry.record.get("state"))) for entry in entries))
        with self.lock:
            known = self.kept.get(state)
        if known is None:
            known = self._asked(ask, [entries] if question == "group" else entries)
        with self.lock:
            self.kept[state] = known
            self.kept.move_to_end(state)
            while len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        return known

    def _asked(self, ask: Callable[..., dict[str, Any]], given: Sequence[Any]) -> dict[str, Any]:
        try:
            return ask(*given)
        except (ValueError, OSError) as error:
            return {"why": " ".join(str(error).split())}
        except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            return {"why": f"its files are damaged ({type(error).__name__}: {error})"}

    def _entries(self, question: str, key: str) -> list[Entry]:
        if question == "search":
            return [self.outputs.searches[key]]
        if question == "group":
            runs = self.outputs.runs.values()
            found = [entry for entry in runs if entry.record["group"] == key and entry.record["state"] == "finished"]
            if not found and not any(entry.record["group"] == key for entry in runs):
                raise KeyError(key)
            return sorted(found, key=lambda entry: entry.record["path"])
        keys = key.split("+")
        if len(keys) != (2 if question == "pair" else 1):
            raise KeyError(key)
        return [self.outputs.runs[one] for one in keys]

    def history(self, entry: Entry) -> dict[str, Any]:
        """The columns of metrics.csv, of a long run every so many epochs."""
        columns, wrong = read_history(entry.folder / "metrics.csv") if "metrics.csv" in entry.files else ({}, "")
        length = len(next(iter(columns.values()), ()))
        keep = np.unique(np.linspace(0, length - 1, min(length, MOST_POINTS)).round().astype(int)) if length else []
        return {"columns": {name: [values[i] for i in keep] for name, values in columns.items()}, "wrong": wrong}

    def texts(self, entry: Entry) -> dict[str, Any]:
        """config.yaml, and the ends of the logs."""
        said = {}
        for name in ("config.yaml", "train.log", "stderr.log"):
            try:
                tail = None if name in MOST_BYTES else TAIL
                said[name] = read_text(entry.folder / name, tail) if name in entry.files else ""
            except ValueError as error:
                said[name] = f"({error})"
        return {
            "config": said["config.yaml"],
            "log": _lines(said["train.log"], entry.files.get("train.log", (0, 0))[1] > TAIL),
            "errors": _lines(said["stderr.log"], entry.files.get("stderr.log", (0, 0))[1] > TAIL),
        }

    def tested(self, entry: Entry) -> dict[str, Any]:
        """Confusion matrix and ROC curves of predictions.csv."""
        import torch

        from engrec.evidence.statistics import Draws, scores
        from engrec.pages.figures import GRID, roc

        said = read_predictions(_plain(entry, "predictions.csv"))
        labels, p, size = said.labels, said.probabilities, len(said.class_names)
        confusion = confusion_matrix(*map(torch.from_numpy, (p, labels))).int()
        ranked = log_odds_of(p)
        curves = []
        for k in [1] if size == 2 else range(size):
            if 0 < (labels == k).sum() < len(labels):
                curves.append({"name": said.class_names[k], "true": rounded([0, *roc(labels == k, ranked[:, k])])})
        found = scores(p, labels, Draws.all_once(len(labels)))
        return {
            "classes": list(said.class_names),
            "confusion": confusion.tolist(),
            "false": rounded([0, *GRID]),
            "curves": curves,
            "images": len(labels),
            "people": len(set(said.subjects.tolist())) if (said.subjects != "").all() else None,
            "scores": {score: rounded(values, 6)[0] for score, values in found.items()},
        }

    def mistakes(self, entry: Entry) -> dict[str, Any]:
        """The images that the run is surest of and wrong about."""
        from engrec.pages.faces import caption, shrunk, surest_mistakes

        _plain(entry, "predictions.csv")
        run = _run(entry)
        group = pool({"model": "", "stage": "", "split": ""}, [run])
        wrong = surest_mistakes(group)
        faces = faces_of(run)
        drawn = faces.recipe.get("importer") == "synthetic"
        if not (drawn or self.all_faces):
            raise ValueError("real faces are shown on this machine alone; --faces puts them into the page all the same")
        where = {source: i for i, source in enumerate(faces.sources.tolist())}
        shown = [int(i) for i in wrong[:MOST_MISTAKES]]
        if lacking := [source for source in group.sources[shown].tolist() if source not in where]:
            raise ValueError(f"the data set has no image {lacking[0]}: it is not what was tested on")
        pictures = [page.picture(shrunk(faces.images[where[source]])) for source in group.sources[shown].tolist()]
        captions = [caption(group, i) for i in shown]
        return {
            "drawn": drawn,
            "wrong": len(wrong),
            "images": len(group.labels),
            "pictures": [{"src": src, "caption": text} for src, text in zip(pictures, captions, strict=True)],
        }

    def group(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Folds pooled, seeds averaged: each score with its interval, for the model and its controls."""
        from engrec.evidence import comparison
        from engrec.evidence.verdicts import judge_alone

        if not entries:
            raise ValueError("none of its runs has finished")
        if len(entries) > MOST_RUNS:
            raise ValueError(f"{len(entries)} runs are too many to pool at once: name a folder with fewer")
        latest = {(entry.record["seed"], entry.record["fold"]): entry for entry in sorted(entries, key=_began)}
        kept = whole_seeds(latest)
        groups = read_groups(_run(entry) for entry in kept)
        blocks = comparison.build([group for group in groups if not group.name["views"]], RESAMPLES)
        [block] = blocks
        return {
            "figures": {name: _figures(of) for name, of in block.figures.items()},
            "models": block.labels,
            "repeated": len(entries) - len(latest),  # earlier runs of a fold and seed that was run again
            "incomplete": len(latest) - len(kept),  # of seeds that lack folds which others have
            "title": block.title,
            **_intervals(block),
            "verdicts": [verdict.text for verdict in judge_alone(block)],
        }

    def pair(self, one: Entry, other: Entry) -> dict[str, Any]:
        """The second run's scores minus the first's on the same images and the same draws of people."""
        from engrec.evidence import comparison

        groups = []
        for name, entry in (("first", one), ("second", other)):
            _plain(entry, "predictions.csv")
            run = _run(entry)
            groups.append(pool(run.kind | {"settings": name, "views": ""}, [run]))
        first, second = groups
        if not first.same_images(second):
            raise ValueError("the two were not tested on the same images, so that their difference has no interval")
        [block] = comparison.build([_alike(first, second), second], RESAMPLES)
        found = block.difference(block.labels[1], block.labels[0])
        figures = {score: figure for score, (figure, _) in found.figures.items()}
        return {
            "figures": _figures(figures),
            "p": {score: rounded([p], 4)[0] for score, (_, p) in found.figures.items()},
            **_intervals(block),
        }

    def search(self, entry: Entry) -> dict[str, Any]:
        """Trials, which values matter, and the best as a command, from sweep.json; the journal is left alone."""
        from engrec.pages.dashboard import trials

        node = read_json(entry.folder / "sweep.json")
        if entry.read["problems"]:
            raise ValueError(entry.read["problems"][0])
        return trials.described(node)


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    return [round(float(value), digits) if math.isfinite(value) else None for value in values]


def _figures(figures: Any) -> dict[str, dict[str, Any]]:
    named = {score: rounded([f.value, f.low, f.high, f.sd], 6) for score, f in figures.items()}
    return {score: dict(zip(("value", "low", "high", "sd"), f, strict=True)) for score, f in named.items()}


def _intervals(block: Any) -> dict[str, Any]:
    """What they are over, and the sign of those that are over few."""
    from engrec.pages.tables import legend

    few = 2 <= block.draws.num_groups < ENOUGH
    return {
        "legend": f"{FEW} {legend(block)}" if few else legend(block),
        "sign": " †" if few else "",
    }


def _alike(first: Group, second: Group) -> Group:
    """The first under the split of the second, so that one block takes both."""
    first.name["split"] = second.name["split"]
    return first


def whole_seeds(latest: Mapping[tuple[Any, Any], Entry]) -> list[Entry]:
    """The runs of those seeds that have the most folds: only seeds on the same images can be averaged."""
    folds: dict[Any, set[Any]] = {}
    for seed, fold in latest:
        folds.setdefault(seed, set()).add(fold)
    most = max(folds.values(), key=len)
    return [entry for (seed, _), entry in latest.items() if folds[seed] == most]


def _began(entry: Entry) -> tuple[float, str]:
    return entry.record["started"] or entry.record["written"], entry.record["path"]


def _plain(entry: Entry, name: str) -> Path:
    """A file of a run that was there, plain and not too large when its folder was looked at."""
    if name not in entry.files:
        raise ValueError(f"there is no {name} (yet): a run writes it at its end")
    if not 0 <= entry.files[name][1] <= MOST_BYTES[name]:
        raise ValueError(f"{name} is no plain file, or too large to show")
    for path in (*entry.folder.glob("predictions*.csv"), *(entry.folder / "controls").glob("*.csv")):
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path.name} is no plain file")
    return entry.folder / name


def _run(entry: Entry) -> Run:
    if "result.json" not in entry.files or entry.record["state"] == "damaged":
        raise ValueError(
            "; ".join(entry.record["problems"]) or "there is no result.json (yet): a run writes it at its end"
        )
    return read_run(entry.folder)


def faces_of(run: Run) -> Faces:
    """The data set of a run: a prepared file, or drawn faces, drawn again. Raises ValueError for any other.

    What a run says is read, never called: these two functions alone are known here.
    """
    from engrec.pages.faces import prepared_path

    if run.settings.get("dataset._target_") != "engrec.datasets.synthetic.render":
        path = prepared_path(run)
        return _prepared(path, path.stat().st_mtime_ns)
    names = ("task", "num_train", "num_val", "num_test", "images_per_subject", "seed", "label_noise")
    given = {name: run.settings[f"dataset.{name}"] for name in names if f"dataset.{name}" in run.settings}
    if sum(number(given.get(name)) or 0 for name in names[1:4]) > MOST_DRAWN:
        raise ValueError(f"more than {MOST_DRAWN:,} drawn faces are not drawn again to show some")
    return _drawn(**given)


@lru_cache(2)
def _prepared(path: Path, written: int) -> Faces:
    return prepared.load(path)


@lru_cache(2)
def _drawn(**given: Any) -> Faces:
    return synthetic.render(**given)


def _lines(text: str, cut: bool) -> str:
    """Without what a progress bar has overwritten, terminal colours, and a first line that is not whole."""
    lines = text.split("\n")[1:] if cut else text.split("\n")
    return "\n".join(SEQUENCE.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines).strip("\n")
