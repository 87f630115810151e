"""Verdicts: what a comparison shows, as sentences of a known kind."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engrec.evidence.comparison import Comparison
from engrec.evidence.controls import CONTROLS
from engrec.evidence.groups import Group
from engrec.evidence.statistics import scores_by_seed
from engrec.metrics import METRICS
from engrec.runs.settings import is_setting


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
        (better if figure.low > 0 and p < 0.05 else rest).append(f"{score} ({here:.1f} against {there:.1f})")
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


def leakage_check(comparison: Comparison, label: str, group: Group) -> Verdict:
    """The same model under split=random, where there are such runs: how much of its score comes from known people."""
    found = [other for other in comparison.others if other.name["split"] == "random" and _same_model(group, other)]
    if not found:
        return Verdict("note", f"{label}: no leakage check. To add one, run the same command with split=random.")
    check = next((other for other in found if other.name["settings"] == group.name["settings"]), found[0])
    checked = scores_by_seed(check.probabilities, check.labels)
    values = ", ".join(
        f"{score} {100 * checked[score].mean():.1f} against {100 * comparison.figures[label][score].value:.1f}"
        for score in ("accuracy", "balanced accuracy", "AUC")
    )
    settings = f", {check.name['settings']}" if check.name["settings"] != group.name["settings"] else ""
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
    one, two = (
        {k: v for k, v in of.runs[0].settings.items() if is_setting(k) and k != "baseline.transductive"}
        for of in (group, other)
    )
    same_name = all(group.name[key] == other.name[key] for key in ("stage", "data", "split"))
    return one == two and same_name and group.same_images(other)


def _same_model(group: Group, other: Group) -> bool:
    keys = ("stage", "data", "model", "views")
    alike = group.class_names == other.class_names and group.unit == other.unit
    return alike and all(group.name[key] == other.name[key] for key in keys)
