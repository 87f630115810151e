"""Verdicts: what a comparison shows, as sentences of a known kind."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engrec.evidence.comparison import Comparison
from engrec.evidence.controls import CONTROLS
from engrec.evidence.groups import Group, differing, differs
from engrec.evidence.statistics import scores_by_seed
from engrec.metrics import METRICS
from engrec.weights_file import is_shipped

PREPARED = ("sha256", "crop")  # of the data set: the files that it was prepared from, and how


@dataclass(frozen=True)
class Verdict:
    """A finding. beats: the model is better than a control in every score that counts; fails: in one at least it is
    not; note: everything else that a reader should know."""

    kind: Literal["beats", "fails", "note"]
    text: str


def judge(comparison: Comparison) -> list[Verdict]:
    """Everything that can be said of each group, the leakage check included. A leakage check itself is not judged."""
    judged = {label: group for label, group in _results(comparison).items() if group.name["stage"] != "pretrain"}
    found = judge_alone(comparison) + [leakage_check(comparison, *item) for item in judged.items()]
    given = {label: group for label, group in judged.items() if group.transductive}
    return [transductive_check(comparison, *item) for item in given.items()] + found


def judge_alone(comparison: Comparison) -> list[Verdict]:
    """What can be said of each group without the runs of others: the controls it beats, and the folds it lacks."""
    found: list[Verdict] = []
    for label, group in _results(comparison).items():
        for control in (CONTROLS["majority"], CONTROLS["subject_majority"]):
            if control in comparison.predictors:
                found.append(against_control(comparison, label, control))
        found += missing_folds(label, group)
        found += doubts(label, group)
    return found


def _results(comparison: Comparison) -> dict[str, Group]:
    return {label: group for label, group in comparison.models.items() if not group.leaks}


def against_control(comparison: Comparison, label: str, control: str) -> Verdict:
    difference = comparison.difference(label, control)
    better: list[str] = []
    rest: list[str] = []
    # An answer that is constant per person is bounded by the oracle in accuracy and in AUC alone.
    for score in ("accuracy", "AUC" if control == CONTROLS["subject_majority"] else "balanced accuracy"):
        here, there = (100 * comparison.figures[name][score].value for name in (label, control))
        figure, p = difference.figures[score]
        if not np.isnan(here):  # AUC is undefined where the test lacks a class of several
            is_better = figure.low > 0 and p < 0.05
            chance = "" if is_better or here <= there or np.isnan(figure.low) else ", which may be chance"
            (better if is_better else rest).append(f"{score} ({here:.1f} against {there:.1f}{chance})")
    if np.isnan(difference.figures["accuracy"][0].low):
        values = f"{label} against “{control}”: {', '.join(rest)}"
        return Verdict("note", f"{values}. A single test person allows no conclusion about others.")
    if not better:
        return Verdict("fails", f"{label} does NOT beat “{control}”: neither in {' nor in '.join(rest)}.")
    beats = f"{label} beats “{control}” in {' and in '.join(better)}"
    return Verdict("fails", f"{beats}, but NOT in {rest[0]}.") if rest else Verdict("beats", f"{beats}.")


def missing_folds(label: str, group: Group) -> Iterator[Verdict]:
    folds = len({run.settings.get("split.fold") for run in group.runs})
    total = max(run.num_folds for run in group.runs)
    if folds < total:
        yield Verdict("note", f"{label}: {folds} of {total} folds; the people of the other folds are not tested.")


def doubts(label: str, group: Group) -> Iterator[Verdict]:
    """What may make the figures of a group better than the network is, or mixes several experiments."""
    if any(run.result.get("may_know_test") for run in group.runs):
        known = f"{'people' if group.by_subject else group.unit} that are tested here"
        yield Verdict("note", f"{label}: trained before on the same data with another split; it may know {known}.")
    starts = sorted({start for run in group.runs if is_shipped(start := str(run.settings.get("init_from")))})
    if len(starts) > 1:
        yield Verdict(
            "note", f"{label}: its runs start from {' and '.join(starts)}: seeds and folds of several recipes."
        )
    recipes = [recipe for run in group.runs if (recipe := run.result.get("dataset") or {}).get("sha256")]
    versions = {json.dumps([recipe.get(key) for key in PREPARED]) for recipe in recipes}
    if len(versions) > 1:
        several = f"its runs have {len(versions)} versions of the data, of other files or with other crops"
        yield Verdict("note", f"{label}: {several}; run those of the older ones again.")


def leakage_check(comparison: Comparison, label: str, group: Group) -> Verdict:
    """The same model under split=random, where there are such runs: how much of its score comes from known people."""
    found = [other for other in comparison.others if other.name["split"] == "random" and _same_model(group, other)]
    if not found:
        how = "To add one, run the same command with split=random, without split.fold=, into another folder."
        return Verdict("note", f"{label}: no leakage check. {how}")
    check, differ = min(((other, _differing(group, other)) for other in found), key=lambda pair: len(pair[1]))
    checked = scores_by_seed(check.probabilities, check.labels)
    values = ", ".join(
        f"{score} {100 * checked[score].mean():.1f} against {100 * comparison.figures[label][score].value:.1f}"
        for score in ("accuracy", "balanced accuracy", "AUC")
    )
    settings = f", with another {', '.join(differ)}" if differ else ""
    how = f"split=random{settings}: the same people in train, validation and test"
    where = "on unseen people" if group.by_subject else "under its own split"
    return Verdict("note", f"{label}, leakage check ({how}): {values} {where}.")


def transductive_check(comparison: Comparison, label: str, group: Group) -> Verdict:
    """What a group was given, and its difference to the same model without that, where there are such runs."""
    about = f"{label} is transductive: it needs images of the very people it is tested on, though no labels"
    found = [other for other in comparison.others if not other.transductive and _same_but_given(group, other)]
    if not found:
        return Verdict("note", f"{about}. To compare, run the same command without --transductive.")
    pair = Comparison([replace(of, controls={}) for of in (group, found[0])], comparison.draws, [])
    difference = pair.difference(*pair.labels)
    shown = [score for score in ("balanced accuracy", "AUC", METRICS["auc_within"].label) if score in pair.scores]
    values = ", ".join(f"{score} {' '.join(difference.cell(score))}" for score in shown)
    return Verdict("note", f"{about}. Minus {pair.labels[1]}, on the same images: {values}.")


def _same_but_given(group: Group, other: Group) -> bool:
    """Whether the second is the same model on the same images, without what the first was given."""
    runs = [group.runs[0], other.runs[0]]
    alike = set(differing(runs)) <= {"baseline.transductive"} and not differs("init_from", runs)
    same_name = all(group.name[key] == other.name[key] for key in ("stage", "data", "split"))
    return alike and same_name and group.same_images(other)


def _differing(group: Group, other: Group) -> list[str]:
    """The settings that two groups do not share, but for those of the split."""
    keys = differing([group.runs[0], other.runs[0]])
    return [key for key in keys if key != "selected" and not key.startswith("split.")]


def _same_model(group: Group, other: Group) -> bool:
    keys = ("stage", "data", "model", "views")
    alike = group.class_names == other.class_names and group.unit == other.unit
    return alike and all(group.name[key] == other.name[key] for key in keys)
