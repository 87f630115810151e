"""What is computed of single runs and groups of runs when somebody looks at them, kept until their files change."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from engrec.datasets import synthetic
from engrec.datasets.prepared import Faces
from engrec.evidence.groups import Group, describe, pool, read_groups
from engrec.pages.dashboard.records import Entry, Outputs, read_history
from engrec.pages.faces import mistakes, prepared_faces
from engrec.pages.learning import learning_curve, metric_title
from engrec.pages.panels import Chart, Look, assign_looks, look, short, text
from engrec.runs.reading import MOST_BYTES, number, read_text
from engrec.runs.record import Run, read_run

MOST_KEPT = 1000  # answers
MOST_MISTAKES = 36  # pictures
MOST_RENDERED = 50_000  # synthetic faces that are rendered again to show some of them
MOST_RUNS = 400  # pooled at once
MOST_ROWS, WITH_CONTROLS = 40, 6  # groups in a figure, and up to how many the controls are in it too
TAIL = 24_000  # bytes of a log
RESAMPLES = 2000
ENOUGH = 5  # people; with fewer and so many draws no p-value is below 0.05
FEW = "† Fewer than five people: too few for a reliable 95 % interval, or for a p-value below 0.05."
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal


class Details:
    """Answers to the page's questions. all_faces: whether pictures of people may be shown, or synthetic faces only."""

    questions = ("history", "texts", "tested", "mistakes", "group", "intervals", "pair")

    def __init__(self, outputs: Outputs, all_faces: bool) -> None:
        self.outputs, self.all_faces = outputs, all_faces
        self.kept = lru_cache(MOST_KEPT)(self._ask)

    def answer(self, question: str, key: str) -> dict[str, Any]:
        """{"why": …} where there is nothing to show. Raises KeyError for what does not exist."""
        state = [str((entry.files, entry.record.get("state"))) for entry in self._entries(question, key)]
        return self.kept(question, key, tuple(state))

    def _ask(self, question: str, key: str, _state: tuple[str, ...]) -> dict[str, Any]:
        entries = self._entries(question, key)
        try:
            return getattr(self, question)(*([entries] if question in ("group", "intervals") else entries))
        except (ValueError, OSError) as error:
            return {"why": " ".join(str(error).split())}
        except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            return {"why": f"its files are damaged ({type(error).__name__}: {error})"}

    def _entries(self, question: str, key: str) -> list[Entry]:
        runs = self.outputs.runs
        if question in ("group", "intervals"):
            members = [entry for entry in runs.values() if key in (entry.record["group"], "all")]
            if not members and key != "all":
                raise KeyError(key)
            finished = [entry for entry in members if entry.record["state"] == "finished"]
            return sorted(finished, key=lambda entry: entry.record["path"])
        keys = key.split("+")
        if len(keys) != (2 if question == "pair" else 1):
            raise KeyError(key)
        return [runs[one] for one in keys]

    def history(self, entry: Entry) -> dict[str, Any]:
        """Learning curves: for each metric the traces of training and validation. The page gives them their colours,
        since they depend on which runs somebody has chosen."""
        columns, problem = read_history(entry.folder / "metrics.csv") if "metrics.csv" in entry.files else ({}, None)
        path, kept = entry.record["path"], entry.record["best_epoch"]
        curves: dict[str, dict[str, Any]] = {}
        for column in (column for column in columns if column != "epoch"):
            split, _, metric = column.rpartition("/")
            dash = "dot" if split == "train" else "solid"
            traces = learning_curve(columns, column, Look(dash=dash), path, kept if split == "val" else None)
            curve = curves.setdefault(metric, {"title": text(metric_title(metric)), "traces": []})
            curve["traces"] += [trace | {"name": text(split)} for trace in traces]
        last = max((int(epoch or 0) + 1 for epoch in columns.get("epoch", ())), default=0)
        return {"curves": curves, "epochs": last, "wrong": problem.text if problem else ""}

    def texts(self, entry: Entry) -> dict[str, Any]:
        """config.yaml, and the ends of the logs."""
        texts = {}
        for name in ("config.yaml", "train.log", "stderr.log"):
            try:
                tail = None if name in MOST_BYTES else TAIL
                texts[name] = read_text(entry.folder / name, tail) if name in entry.files else ""
            except ValueError as error:
                texts[name] = f"({error})"
        log, errors = (
            _lines(texts[name], cut=entry.files.get(name, (0, 0))[1] > TAIL) for name in ("train.log", "stderr.log")
        )
        return {"config": texts["config.yaml"], "log": log, "errors": errors}

    def tested(self, entry: Entry) -> dict[str, Any]:
        """Scores and figures of predictions.csv."""
        from engrec.evidence import comparison

        group = _tested_group(entry)
        [block] = comparison.build([group], 1)
        [points] = [block.points[label] for label in block.models]
        return {
            "images": len(group.labels),
            "people": len(set(group.people.tolist())) if group.by_subject else None,
            "scores": {score: short(values, 6)[0] for score, values in points.items()},
            "charts": _charts(block),
        }

    def mistakes(self, entry: Entry) -> dict[str, Any]:
        """The images that the run is surest of and wrong about."""
        group, faces = _tested_group(entry), faces_of(_run(entry))
        synthetic = faces.is_synthetic
        if not (synthetic or self.all_faces):
            raise ValueError("real faces are shown on this machine only; --faces includes them in the page")
        wrong, shown = mistakes(group, faces, MOST_MISTAKES)
        pictures = [{"src": source, "caption": words} for source, words in shown]
        return {"synthetic": synthetic, "wrong": wrong, "images": len(group.labels), "pictures": pictures}

    def group(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Folds pooled, seeds averaged: each score with its interval, for the model and its controls."""
        from engrec.evidence import comparison
        from engrec.evidence.verdicts import judge_alone

        if not entries:
            raise ValueError("none of its runs has finished")
        if len(entries) > MOST_RUNS:
            raise ValueError(f"{len(entries)} runs are too many to pool: start the dashboard on a folder with fewer")
        latest = {(entry.record["seed"], entry.record["fold"]): entry for entry in sorted(entries, key=_began)}
        kept = complete_seeds(latest)
        groups = read_groups(_run(entry) for entry in kept)
        [block] = comparison.build([group for group in groups if not group.name["views"]], RESAMPLES)
        return {
            "figures": {name: _numbers(of) for name, of in block.figures.items()},
            "models": block.labels,
            "votes": list(block.votes),
            "repeated": len(entries) - len(latest),  # earlier runs of a fold and seed that was run again
            "incomplete": len(latest) - len(kept),  # of seeds that lack folds which others have
            "title": block.title,
            **_intervals(block),
            "verdicts": [vars(verdict) for verdict in judge_alone(block)],
        }

    def intervals(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """The groups of runs in one figure, those with the most runs first."""
        from engrec.evidence.comparison import Figure
        from engrec.pages import figures

        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.record["group"], []).append(entry)
        first = sorted(groups.values(), key=_rank)[:MOST_ROWS]
        names = group_names([members[0] for members in first])
        answers = [self.answer("group", members[0].record["group"]) for members in first]
        rows: list[tuple[str, Look, dict[str, Figure]]] = []
        for name, answer in zip(names, answers, strict=True):
            for label, scores in answer.get("figures", {}).items():
                model = label in answer["models"]
                control = not model and label not in answer["votes"]
                if model or (control and len(first) <= WITH_CONTROLS):
                    known = {score: Figure(**_with_nan(numbers)) for score, numbers in scores.items()}
                    style = look(0) if model else Look()
                    rows.append((f"{name if model else label}{answer['sign']}", style, known))
        if not rows:
            raise ValueError("no group of runs can be pooled yet")
        grey = "Grey: the controls, on the same test images. " if len(rows) > len(first) else ""
        few = FEW if any(answer.get("sign") for answer in answers) else ""
        chart = Chart(figures.intervals(rows, {}), f"{grey}{few}".strip())
        return {"chart": vars(chart)}

    def pair(self, one: Entry, other: Entry) -> dict[str, Any]:
        """The second run's scores minus the first's on the same images and the same draws of people."""
        from engrec.evidence import comparison

        first, second = _tested_group(one, "A"), _tested_group(other, "B")
        if not first.same_images(second):
            raise ValueError("the two were not tested on the same images, so their difference has no interval")
        first = replace(first, name=first.name | {"split": second.name["split"]})  # one block takes both
        [block] = comparison.build([first, second], RESAMPLES)
        found = block.difference(block.labels[1], block.labels[0])
        return {
            "figures": _numbers({score: figure for score, (figure, _) in found.figures.items()}),
            "p": {score: short([p])[0] for score, (_, p) in found.figures.items()},
            **_intervals(block),
            "charts": _charts(block),
        }


def _tested_group(entry: Entry, name: str = "") -> Group:
    """The predictions of one run, under a name. They are there before result.json, and stay if that is damaged."""
    if "predictions.csv" not in entry.files:
        raise ValueError("there is no predictions.csv yet: a run writes it at its end")
    try:
        run = _run(entry)
    except ValueError:
        choices = {"dataset": "", "split": "", "model": "this run"}
        run = Run(entry.folder, {"seed": 0, "stage": "", "choices": choices}, {})
    return pool(run.kind | {"settings": name, "views": ""}, [run])


def _charts(block: Any) -> dict[str, dict[str, Any]]:
    from engrec.pages.figures import of_test

    return {heading: vars(chart) for heading, chart in of_test(block, assign_looks(block.labels)).items()}


def group_names(entries: Sequence[Entry]) -> list[str]:
    """Names for groups, of which each has one entry: stage, data set and model, and the settings in which those of the
    same name differ."""
    base = [" ".join(filter(None, (entry.record[key] for key in ("stage", "dataset", "model")))) for entry in entries]
    runs = [Run(entry.folder, {"choices": entry.record["choices"]}, entry.record["settings"]) for entry in entries]
    names = []
    for name, run in zip(base, runs, strict=True):
        words = describe(run, [other for other, of in zip(runs, base, strict=True) if of == name]).split()
        names.append("\n".join(filter(None, (name, " ".join(words[:6]) + " …" * (len(words) > 6)))))
    return names


def _rank(members: Sequence[Entry]) -> tuple[int, float]:
    best = max(-1.0 if (auc := entry.record["val"]["auc"]) is None else auc for entry in members)
    return -len(members), -best


def _numbers(figures: Any) -> dict[str, dict[str, Any]]:
    named = {score: short([f.value, f.low, f.high, f.sd], 6) for score, f in figures.items()}
    return {score: dict(zip(("value", "low", "high", "sd"), f, strict=True)) for score, f in named.items()}


def _with_nan(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in numbers.items()}


def _intervals(block: Any) -> dict[str, Any]:
    """What the intervals are over, and the sign of those over few people."""
    from engrec.pages.tables import legend

    few = 2 <= block.draws.num_groups < ENOUGH
    return {"legend": f"{FEW} {legend(block)}" if few else legend(block), "sign": " †" if few else ""}


def complete_seeds(latest: Mapping[tuple[Any, Any], Entry]) -> list[Entry]:
    """The runs of those seeds that have the most folds: only seeds on the same images can be averaged."""
    folds: dict[Any, set[Any]] = {}
    for seed, fold in latest:
        folds.setdefault(seed, set()).add(fold)
    most = max(folds.values(), key=len)
    return [entry for (seed, _), entry in latest.items() if folds[seed] == most]


def _began(entry: Entry) -> tuple[float, str]:
    return entry.record["started"] or entry.record["written"], entry.record["path"]


def _run(entry: Entry) -> Run:
    if "result.json" not in entry.files or entry.record["state"] == "damaged":
        problems = "; ".join(problem["text"] for problem in entry.record["problems"])
        raise ValueError(problems or "there is no result.json yet: a run writes it at its end")
    return read_run(entry.folder, links=False)


def faces_of(run: Run) -> Faces:
    """The data set of a run: a prepared file, or synthetic faces, rendered again. Raises ValueError for any other.

    The function that a run names is never called: only these two are known here.
    """
    if run.settings.get("dataset._target_") != "engrec.datasets.synthetic.render":
        return prepared_faces(run)
    names = ("task", "num_train", "num_val", "num_test", "images_per_subject", "seed", "label_noise")
    given = {name: run.settings[f"dataset.{name}"] for name in names if f"dataset.{name}" in run.settings}
    if sum(number(given.get(name)) or 0 for name in names[1:4]) > MOST_RENDERED:
        raise ValueError(f"more than {MOST_RENDERED:,} synthetic faces are not rendered again to show some of them")
    return _rendered(**given)


@lru_cache(2)
def _rendered(**given: Any) -> Faces:
    return synthetic.render(**given)


def _lines(text: str, cut: bool) -> str:
    """Without what a progress bar has overwritten, terminal colours, and an incomplete first line."""
    lines = text.split("\n")[1:] if cut else text.split("\n")
    return "\n".join(SEQUENCE.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines).strip("\n")
