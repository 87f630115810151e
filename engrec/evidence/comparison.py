"""Groups of runs compared: scores with intervals, beside the controls, and paired differences."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engrec.evidence.controls import CONTROLS
from engrec.evidence.groups import Group
from engrec.evidence.statistics import Draws, auc, interval, mcnemar, p_text, p_value, score_names, scores


@dataclass(frozen=True)
class Figure:
    """A score, its 95 % interval, and its standard deviation over seeds, NaN for one seed."""

    value: float
    low: float
    high: float
    sd: float = np.nan

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "undefined"
        seeds = "" if np.isnan(self.sd) else f" ±{100 * self.sd:.1f}"
        between = "" if np.isnan(self.low) else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{100 * self.value:.1f}{between}{seeds}"


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
        """Value with interval, and p: parts of a cell of a table."""
        figure, p = self.figures[score]
        if np.isnan(figure.value):
            return ("undefined",)
        value = f"{100 * figure.value:+.1f}"
        if np.isnan(figure.low):
            return (value,)
        return f"{value} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]", p_text(p)


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
        people = f" of {len(set(group.people)):,} people" if group.by_subject else ""
        check = " (leakage check, not a result)" if group.leaks else ""
        data = " and ".join(dict.fromkeys(g.name["data"] for g in self.groups))
        return (
            f"{data}, {' / '.join(group.class_names)}: {len(group.labels):,} test images{people}, "
            f"split {group.name['split']}{check}"
        )

    @cached_property
    def labels(self) -> list[str]:
        """Each group's name: stage and model, and whatever else is not the same in all groups here."""
        keys = [k for k in self.groups[0].name if k in ("stage", "model") or len({g.name[k] for g in self.groups}) > 1]
        return [" ".join(filter(None, (_view(k, g.name[k]) for k in keys))) for g in self.groups]

    @cached_property
    def predictors(self) -> dict[str, np.ndarray]:
        """Name to probabilities (num_seeds, N, K): the groups, then the controls."""
        models = {label: group.probabilities for label, group in zip(self.labels, self.groups, strict=True)}
        found = {name: array for group in reversed(self.groups) for name, array in group.controls.items()}
        ordered = [name for name in CONTROLS if name in found] + sorted(found.keys() - CONTROLS)
        return models | {CONTROLS.get(name, name): found[name][None] for name in ordered}

    @cached_property
    def points(self) -> dict[str, dict[str, np.ndarray]]:
        """Predictor to score to its values for each seed (num_seeds,), on all images."""
        once = Draws.all_once(len(self.groups[0].labels))
        return {name: self._per_seed(p, once, first=True) for name, p in self.predictors.items()}

    @cached_property
    def resampled(self) -> dict[str, dict[str, np.ndarray]]:
        """Predictor to score to its mean over seeds on each draw (R,)."""
        return {name: self._per_seed(p, self.draws) for name, p in self.predictors.items()}

    def _per_seed(self, probabilities: np.ndarray, draws: Draws, first: bool = False) -> dict[str, np.ndarray]:
        every = [scores(p, self.groups[0].labels, draws) for p in probabilities]
        if first:
            return {score: np.array([one[score][0] for one in every]) for score in score_names()}
        return {score: np.mean([one[score] for one in every], axis=0) for score in score_names()}

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure]]:
        """Predictor to score to figure."""
        return {
            name: {
                score: Figure(
                    float(points[score].mean()),
                    *interval(self.resampled[name][score], self.draws.num_groups),
                    float(points[score].std(ddof=1)) if len(points[score]) > 1 else np.nan,
                )
                for score in score_names()
            }
            for name, points in self.points.items()
        }

    @cached_property
    def calibrated(self) -> dict[str, float]:
        """The ECE after temperature scaling, mean over seeds, of the groups in which every run has a temperature."""
        once, labels = Draws.all_once(len(self.groups[0].labels)), self.groups[0].labels
        return {
            name: float(np.mean([scores(p, labels, once)["ECE"] for p in group.calibrated]))
            for name, group in zip(self.labels, self.groups, strict=True)
            if group.calibrated is not None
        }

    @cached_property
    def fold_auc(self) -> dict[str, float]:
        """Groups of several folds: the mean of the folds' own AUCs. Each ranks the images of one network alone."""
        return {
            name: mean_fold_auc(group)
            for name, group in zip(self.labels, self.groups, strict=True)
            if len(group.runs) > len(group.seeds)
        }

    @cached_property
    def differences(self) -> list[Difference]:
        """Between every two groups."""
        return [self.difference(one, other) for one, other in itertools.combinations(self.labels, 2)]

    def difference(self, one: str, other: str) -> Difference:
        number, figures = self.draws.num_groups, {}
        for score in score_names():
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
                rows.append((label, name or "unknown", int(count), self._inside(label, inside, part)))
        return rows

    def _inside(self, label: str, inside: np.ndarray, draws: Draws) -> dict[str, Figure]:
        labels, seeds = self.groups[0].labels[inside], [p[inside] for p in self.predictors[label]]
        points = [scores(p, labels, Draws.all_once(len(labels))) for p in seeds]
        drawn = [scores(p, labels, draws) for p in seeds]
        return {
            s: Figure(
                float(np.mean([p[s] for p in points])),
                *interval(np.mean([d[s] for d in drawn], axis=0), draws.num_groups),
            )
            for s in score_names()
        }

    @cached_property
    def subjects(self) -> list[dict[str, str]]:
        """A row per subject: images, how many of each class, each predictor's accuracy (mean over seeds)."""
        group, rows = self.groups[0], []
        if not group.by_subject:
            return rows
        for subject in np.unique(group.subjects):
            of = group.subjects == subject
            counts = np.bincount(group.labels[of], minlength=len(group.class_names))
            row = {"subject": str(subject), "images": str(of.sum())}
            row |= {name: str(count) for name, count in zip(group.class_names, counts, strict=True)}
            for name, p in self.predictors.items():
                row[name] = f"{100 * (p[:, of].argmax(2) == group.labels[of]).mean():.1f}"
            rows.append(row)
        return rows


def mean_fold_auc(group: Group) -> float:
    """The mean over seeds of the mean over the folds in which the AUC is defined; NaN if a seed has no such fold."""
    seeds = []
    for probabilities, folds in zip(group.probabilities, group.folds, strict=True):
        parts = [folds == fold for fold in np.unique(folds)]
        areas = np.array([auc(probabilities[i], group.labels[i], Draws.all_once(int(i.sum())))[0] for i in parts])
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
            if group.same_images(members[0]) and group.name["split"] == members[0].name["split"]:
                members.append(group)
                break
        else:
            sets.append([group])
    return [
        Comparison(members, Draws.sample(members[0].people, num_resamples), [g for g in groups if g not in members])
        for members in sets
    ]
