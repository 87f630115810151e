"""Groups of runs compared: scores with intervals, beside the controls, and paired differences."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from engrec.evidence.controls import CONTROLS, OF_CLIPS
from engrec.evidence.groups import Group, describe
from engrec.evidence.people import PeopleScore, people_scores
from engrec.evidence.statistics import (
    Draws,
    interval,
    logit_interval,
    mcnemar,
    mean_scores,
    p_text,
    p_value,
    scores_by_seed,
)
from engrec.metrics import METRICS, auc, compared, logits_of
from engrec.splits import LEAKING
from engrec.words import counted


@dataclass(frozen=True)
class Figure:
    """A score, its 95 % interval, and its standard deviation over seeds, NaN for one seed."""

    value: float
    low: float
    high: float
    sd: float = np.nan

    def parts(self, sign: str = "") -> tuple[str, ...]:
        """Value, interval and deviation: what may stand below each other in a table. sign: "+" of a difference."""
        if np.isnan(self.value):
            return ("undefined",)
        value, low, high = (f"{100 * number:{sign}.1f}" for number in (self.value, self.low, self.high))
        interval = () if np.isnan(self.low) else (f"[{low}, {high}]",)
        return (value, *interval, *(() if np.isnan(self.sd) else (f"±{100 * self.sd:.1f}",)))

    def __str__(self) -> str:
        return " ".join(self.parts())


@dataclass(frozen=True)
class Difference:
    """One predictor's scores minus another's on the same images and draws: value, interval and p-value of each score.

    mcnemar: the exact p-value of McNemar's test on the first seed's predictions, which treats images as independent.
    """

    one: str
    other: str
    figures: dict[str, tuple[Figure, float]]
    mcnemar: float

    def cell(self, score: str) -> tuple[str, ...]:
        """Value, interval and p: parts of a cell of a table."""
        figure, p = self.figures[score]
        return figure.parts("+") if np.isnan(p) else (*figure.parts("+"), p_text(p))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups tested on the same images, and the controls on those images. All are scored on the same draws, so that
    differences are paired. others: groups on other test images, among them those for the leakage check."""

    groups: list[Group]
    draws: Draws
    others: list[Group]

    @cached_property
    def title(self) -> str:
        group = self.groups[0]
        people = f" of {counted(len(set(group.people)), 'person', 'people')}" if group.by_subject else ""
        check = f" ({LEAKING[group.name['split']].mark})" if group.leaks else ""
        check += " (transductive: beside the results, not one of them)" if group.transductive else ""
        data = " and ".join(dict.fromkeys(g.name["data"] for g in self.groups))
        return (
            f"{data}, {' / '.join(group.class_names)}: {len(group.labels):,} test {group.unit}{people}, "
            f"split {group.name['split']}{check}"
        )

    @cached_property
    def ordered(self) -> bool:
        return all(group.ordered for group in self.groups)

    @cached_property
    def labels(self) -> list[str]:
        """Each group's name: stage and model, and whatever else is not the same in all groups here."""
        names = [group.name | {"settings": self._settings(group)} for group in self.groups]
        if len({tuple(name.values()) for name in names}) < len(names):
            names = [group.name for group in self.groups]
        keys = [k for k in names[0] if k in ("stage", "model") or len({name[k] for name in names}) > 1]
        return [" ".join(filter(None, (_view(k, name[k]) for k in keys))) for name in names]

    def _settings(self, group: Group) -> str:
        """The settings in which a group differs from those here: its name also has what these share, and groups on
        other images have not. Names that somebody else has given are kept."""
        if not group.name["settings"] or "start" not in group.name:
            return group.name["settings"]
        return describe(group.runs[0], [run for one in self.groups if one.kind == group.kind for run in one.runs])

    @cached_property
    def models(self) -> dict[str, Group]:
        return dict(zip(self.labels, self.groups, strict=True))

    @cached_property
    def votes(self) -> dict[str, str]:
        """The name of each soft vote to the label of its group: of those groups that have several seeds."""
        several = {label: len(group.seeds) for label, group in self.models.items() if len(group.seeds) > 1}
        return {f"{label}, vote of {number} seeds": label for label, number in several.items()}

    @cached_property
    def predictors(self) -> dict[str, np.ndarray]:
        """Name to probabilities (num_seeds, N, K): the groups, each with its vote, then the controls."""
        vote_of = {label: vote for vote, label in self.votes.items()}
        models = {}
        for label, group in self.models.items():
            models[label] = group.probabilities
            if label in vote_of:
                models[vote_of[label]] = group.vote.probabilities
        ordered = [name for name in CONTROLS if name in self.controls] + sorted(self.controls.keys() - CONTROLS)
        return models | {CONTROLS.get(name, name): self.controls[name][None] for name in ordered}

    @cached_property
    def controls(self) -> dict[str, np.ndarray]:
        found = {name: array for group in reversed(self.groups) for name, array in group.controls.items()}
        return {name: array for name, array in found.items() if name != OF_CLIPS}

    @cached_property
    def people_scores(self) -> dict[str, PeopleScore]:
        """Label to score, of those that are means over people; empty where they are not known."""
        group = self.groups[0]
        if not group.by_subject:
            return {}
        return people_scores(group.labels, self.draws, self.controls.get("nearest_neighbour"))

    @cached_property
    def scores(self) -> list[str]:
        """The labels of all scores here, in their order."""
        found = compared(self.ordered, of_people=True)
        return [label for label, metric in found.items() if not metric.of_people or label in self.people_scores]

    @cached_property
    def points(self) -> dict[str, dict[str, np.ndarray]]:
        """Predictor to score to its values for each seed (num_seeds,), on all images."""
        labels = self.groups[0].labels
        return {
            name: self._in_order(
                scores_by_seed(p, labels, self.ordered),
                {score: mean.points(p) for score, mean in self.people_scores.items()},
            )
            for name, p in self.predictors.items()
        }

    @cached_property
    def resampled(self) -> dict[str, dict[str, np.ndarray]]:
        """Predictor to score to its mean over seeds on each draw (R,)."""
        labels = self.groups[0].labels
        return {
            name: self._in_order(
                mean_scores(p, labels, self.draws, self.ordered),
                {score: mean.resampled(p) for score, mean in self.people_scores.items()},
            )
            for name, p in self.predictors.items()
        }

    def _in_order(self, *parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {score: values for part in parts for score, values in part.items()}
        return {score: found[score] for score in self.scores}

    def num_people(self, score: str) -> int:
        """How many people, or images where people are not known, the interval of a score is over."""
        return self.people_scores[score].num_people if score in self.people_scores else self.draws.num_groups

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure]]:
        """Predictor to score to figure."""
        return {name: _figures(self.points[name], self.resampled[name], self.num_people) for name in self.predictors}

    @cached_property
    def calibrated(self) -> dict[str, float]:
        """The ECE after temperature scaling, mean over seeds, of the groups in which every run has a temperature."""
        return {
            name: float(scores_by_seed(group.calibrated, group.labels)["ECE"].mean())
            for name, group in self.models.items()
            if group.calibrated is not None
        }

    @cached_property
    def fold_auc(self) -> dict[str, float]:
        """Groups of several folds: the mean of the folds' own AUCs. Each ranks the images of one network alone."""
        several = {name: of for name, of in self.models.items() if len(of.runs) > len(of.seeds)}
        voted = {vote: several[label] for vote, label in self.votes.items() if label in several}
        votes = {vote: mean_fold_auc(of.vote) for vote, of in voted.items() if of.same_folds}
        return {name: mean_fold_auc(of) for name, of in several.items()} | votes

    @cached_property
    def differences(self) -> list[Difference]:
        """Between every two groups, between each vote and its group, and between every two votes."""
        pairs = itertools.chain(
            itertools.combinations(self.labels, 2), self.votes.items(), itertools.combinations(self.votes, 2)
        )
        return [self.difference(one, other) for one, other in pairs]

    def difference(self, one: str, other: str) -> Difference:
        figures = {}
        for score in self.points[one]:
            number = self.num_people(score)
            drawn = self.resampled[one][score] - self.resampled[other][score]
            value = float(self.points[one][score].mean() - self.points[other][score].mean())
            figures[score] = (Figure(value, *interval(drawn, number)), p_value(drawn, number))
        labels = self.groups[0].labels
        right = [self.predictors[name][0].argmax(1) == labels for name in (one, other)]
        return Difference(one, other, figures, mcnemar(*right))

    @cached_property
    def within_formats(self) -> list[tuple[str, str, int, dict[str, Figure]]]:
        """Rows of predictor, format (codec and colour mode), number of images, scores; empty for a single format.

        The control that sees only the file format is included: image sizes still differ within a format.
        """
        kinds = np.array([" ".join(text.split()[:2]) for text in self.groups[0].formats])
        names, counts = np.unique(kinds, return_counts=True)
        if len(names) < 2:
            return []
        rows = []
        for name, count in zip(names, counts, strict=True):
            inside = kinds == name
            part = Draws.sample(self.groups[0].people[inside], len(self.draws.counts))
            for label in (*self.labels, *(n for n in self.predictors if n == CONTROLS["file_format"])):
                labels, seeds = self.groups[0].labels[inside], self.predictors[label][:, inside]
                points, resampled = (
                    scores_by_seed(seeds, labels, self.ordered),
                    mean_scores(seeds, labels, part, self.ordered),
                )
                figures = _figures(points, resampled, lambda _, part=part: part.num_groups)
                without_sd = {score: replace(figure, sd=np.nan) for score, figure in figures.items()}
                rows.append((label, name or "unknown", int(count), without_sd))
        return rows

    @cached_property
    def people(self) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
        """P subjects, their images of each class (P, K), and of each predictor how many of those are right (P, K), mean
        over seeds."""
        group = self.groups[0]
        names, who = np.unique(group.subjects, return_inverse=True)
        counts = np.zeros((len(names), len(group.class_names)), dtype=int)
        np.add.at(counts, (who, group.labels), 1)
        right = {name: np.zeros(counts.shape) for name in self.predictors}
        for name, p in self.predictors.items():
            np.add.at(right[name], (who, group.labels), (p.argmax(2) == group.labels).mean(0))
        return names.tolist(), counts, right

    @cached_property
    def worst_people(self) -> list[str]:
        """The subjects of whom the score of the worst people is; empty where there is none."""
        found = self.people_scores.get(METRICS["worst_people"].label)
        return [] if found is None else np.array(self.people[0])[found.once > 0].tolist()

    @cached_property
    def subjects(self) -> list[dict[str, str]]:
        """A row per subject: images, how many of each class, whether among the worst people, each predictor's
        accuracy."""
        if not self.groups[0].by_subject:
            return []
        rows = []
        for i, (subject, counts) in enumerate(zip(*self.people[:2], strict=True)):
            row = {"subject": subject, self.groups[0].unit: str(counts.sum())}
            row |= dict(zip(self.groups[0].class_names, map(str, counts), strict=True))
            if self.worst_people:
                row["among the worst people"] = "yes" if subject in self.worst_people else "no"
            row |= {name: f"{100 * right[i].sum() / counts.sum():.1f}" for name, right in self.people[2].items()}
            rows.append(row)
        return rows


def _figures(
    points: dict[str, np.ndarray], resampled: dict[str, np.ndarray], num_people: Callable[[str], int]
) -> dict[str, Figure]:
    """Score to figure, of its values for each seed, (num_seeds,), and on each draw, (R,)."""
    areas = METRICS["auc"].label, METRICS["auc_within"].label
    figures = {}
    for score, values in points.items():
        value, drawn, number = float(values.mean()), resampled[score], num_people(score)
        edges = logit_interval(value, drawn, number) if score in areas else interval(drawn, number)
        figures[score] = Figure(value, *edges, float(values.std(ddof=1)) if len(values) > 1 else np.nan)
    return figures


def mean_fold_auc(group: Group) -> float:
    """The mean over seeds of the mean over the folds in which the AUC is defined; NaN if a seed has no such fold."""
    seeds, labels = [], torch.from_numpy(group.labels)
    for probabilities, folds in zip(group.probabilities, group.folds, strict=True):
        parts = [folds == fold for fold in np.unique(folds)]
        areas = np.array([auc(logits_of(probabilities[i]), labels[torch.from_numpy(i)]) for i in parts])
        defined = areas[~np.isnan(areas)]
        seeds.append(defined.mean() if len(defined) else np.nan)
    return float(np.mean(seeds))


def _view(key: str, value: str) -> str:
    return f"+ {value}" if key == "views" and value else value


def build(groups: Sequence[Group], num_resamples: int = 2000) -> list[Comparison]:
    """A comparison for each set of test images, in the order of the groups."""
    sets: list[list[Group]] = []
    for group in groups:
        for members in sets:
            first = members[0]
            alike = (group.name["split"], group.transductive) == (first.name["split"], first.transductive)
            if alike and group.same_images(first):
                members.append(group)
                break
        else:
            sets.append([group])
    return [
        Comparison(members, Draws.sample(members[0].people, num_resamples), [g for g in groups if g not in members])
        for members in sets
    ]
