"""Groups of finished runs: runs that differ only in fold and seed belong together, and their folds are pooled."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from engrec.datasets.prepared import are_levels
from engrec.runs.reading import FileError, format_value
from engrec.runs.record import STAGES, Predictions, Run, read_predictions
from engrec.runs.settings import is_setting
from engrec.splits import LEAKING

Fold = tuple[Run, Predictions]


@dataclass(frozen=True, eq=False)
class Group(Predictions):
    """The predictions of runs that differ only in fold and seed, on the same N test images.

    probabilities: float64 (num_seeds, N, K), pooled over folds. name: stage, data, split, model, the settings in which
    they differ from other groups, where they start if several starts were tried, and the kind of test-time augmentation
    ("views"). calibrated: the probabilities after
    each run's temperature, None where a run has no temperature. folds: int (num_seeds, N), which of its seed's runs
    tested an image. controls: name to probabilities (N, K) of what a model must beat; empty where the runs have none.
    unit: what a row is, "images" or "clips".
    """

    name: dict[str, str]
    runs: list[Run]
    seeds: list[int]
    calibrated: np.ndarray | None
    folds: np.ndarray
    controls: dict[str, np.ndarray]
    unit: str = field(default="images", kw_only=True)

    @property
    def people(self) -> np.ndarray:
        """The units of the bootstrap (N,): subjects, or clips or images if the subject of any image is unknown."""
        if self.by_subject:
            return self.subjects
        return self.sources if self.clips is None else self.clips

    @property
    def leaks(self) -> bool:
        """Whether its split puts one person into train and test on purpose: its scores are no result."""
        return self.name["split"] in LEAKING

    @property
    def kind(self) -> dict[str, str]:
        return self.runs[0].kind

    @property
    def transductive(self) -> bool:
        """Whether images of the people who are tested were given, without labels: not a result for unknown people."""
        return any(run.result.get("transductive") is not None for run in self.runs)

    @cached_property
    def vote(self) -> "Group":
        """The soft vote: the mean of the seeds' probabilities as the predictions of one seed.

        Each seed's prediction of an image comes from the run that tested it, whose network has seen nobody of that
        run's test part: so has none of those that vote on an image, even where seeds divide people into other folds.
        """
        mean = self.probabilities.mean(0, keepdims=True)
        runs = [run for run in self.runs if run.seed == self.seeds[0]]
        return replace(self, probabilities=mean, runs=runs, seeds=self.seeds[:1], calibrated=None, folds=self.folds[:1])

    @property
    def same_folds(self) -> bool:
        """Whether all seeds divide the images into the same folds."""
        return len(np.unique(self.folds, axis=1).T) == len(np.unique(self.folds[0]))

    @property
    def ordered(self) -> bool:
        """Whether the classes are levels in order, which have scores of their own."""
        return all(are_levels(self.class_names, run.result.get("dataset") or {}) for run in self.runs)

    def same_images(self, other: "Group") -> bool:
        """Whether both predict the same images, or clips, with the same labels, of the same people."""
        return (
            self.class_names == other.class_names
            and self.unit == other.unit
            and np.array_equal(self.sources, other.sources)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.people, other.people)
        )


def read_groups(runs: Iterable[Run]) -> list[Group]:
    """One group for all runs that differ only in fold and seed, and one more for each kind of test-time augmentation.

    Raises ValueError when a prediction file is missing, damaged or does not fit the others of its group.
    """
    by_kind: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_kind.setdefault(tuple(run.kind.values()), []).append(run)
    groups = []
    for same_kind in by_kind.values():
        keys = differing(same_kind)
        by_settings: dict[str, list[Run]] = {}
        for run in same_kind:
            by_settings.setdefault(json.dumps([run.settings.get(k) for k in keys], default=str), []).append(run)
        for same_settings in by_settings.values():
            settings = describe(same_settings[0], same_kind)
            for start, members in by_start(same_settings).items():
                name = members[0].kind | {"settings": settings, "start": start}
                groups += [pool(name | {"views": views}, members, file) for views, file in prediction_files(members)]
    return sorted(groups, key=lambda g: (STAGES.index(g.name["stage"]), *list(g.name.values())[1:]))


def by_start(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same settings, divided by init_from, or by the checkpoint that they test, where several were tried on
    the same folds and seeds. A checkpoint of its own for each fold, or for each seed, does not divide them."""
    starts: dict[str, list[Run]] = {}
    for run in runs:
        key = "ckpt_path" if run.result["stage"] == "test" else "init_from"
        starts.setdefault(f"{key}={format_value(run.settings.get(key))}", []).append(run)
    tested = [[(run.seed, format_value(run.settings.get("split.fold"))) for run in same] for same in starts.values()]
    folds = [{fold for _, fold in same} for same in tested]
    repeated = len(set().union(*tested)) < len(runs)
    several = repeated and all(found == folds[0] for found in folds)
    return starts if several and len(starts) > 1 else {"": list(runs)}


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings that are not the same in all of these runs."""
    keys = sorted({key for run in runs for key in run.settings})
    return [key for key in keys if is_setting(key) and differs(key, runs)]


def differs(key: str, runs: Sequence[Run]) -> bool:
    return len({json.dumps(run.settings.get(key), default=str) for run in runs}) > 1


def describe(run: Run, runs: Sequence[Run]) -> str:
    """The settings in which a run differs from others, as overrides.

    A config group is named where another option of it is chosen; then the settings that differ under the same option.
    """
    words: dict[str, None] = {}
    for key in differing(runs):
        same_option = [other for other in runs if option(other, key) == option(run, key)]
        if len(same_option) < len(runs):
            words[option(run, key)] = None
        if differs(key, same_option):
            words[f"{key}={format_value(run.settings.get(key))}"] = None
    return " ".join(filter(None, words))  # runs of older versions name fewer options


def option(run: Run, key: str) -> str:
    """The option that a setting comes from, as an override such as model=vgg; empty where it comes from none."""
    if key.startswith("dataset.classes"):
        names = [name.removeprefix("dataset.classes.") for name in run.settings if name.startswith("dataset.classes.")]
        return f"classes={','.join(names) or 'all'}"
    group = key.partition(".")[0]
    if run.settings.get(group) == "selected":
        return f"{group}=selected"
    return f"{group}={run.result['choices'][group]}" if group in run.result["choices"] else ""


def prediction_files(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The plain predictions, and those of each kind of test-time augmentation that every one of the runs has."""
    kinds = [{path.name for path in run.folder.glob("predictions_*.csv")} for run in runs]
    more = sorted(set.intersection(*kinds))
    return [("", "predictions.csv"), *((name[len("predictions_") : -len(".csv")], name) for name in more)]


def pool(name: dict[str, str], runs: list[Run], file: str = "predictions.csv") -> Group:
    """Join the folds of each seed. Raises ValueError when an image was tested twice, or not under every seed."""
    by_seed: dict[int, list[Fold]] = {}
    for run in sorted(runs, key=lambda r: (r.seed, str(r.folder))):
        by_seed.setdefault(run.seed, []).append((run, read_predictions(run.folder / file, run.links)))
    pooled = {seed: join(folds) for seed, folds in by_seed.items()}
    check_seeds(" ".join(filter(None, name.values())), pooled)
    first = pooled[min(pooled)]
    calibrated = [calibrate(folds) for folds in by_seed.values()] if file == "predictions.csv" else [None]
    every = [probabilities for probabilities in calibrated if probabilities is not None]
    numbers = [[np.full(len(part.sources), i) for i, (_, part) in enumerate(folds)] for folds in by_seed.values()]
    shared: dict[str, Any] = vars(first) | {"probabilities": np.stack([one.probabilities for one in pooled.values()])}
    return Group(
        **shared,
        name=name,
        runs=runs,
        seeds=sorted(pooled),
        calibrated=np.stack(every) if len(every) == len(calibrated) else None,
        folds=np.stack([in_order(*pair) for pair in zip(by_seed.values(), numbers, strict=True)]),
        controls=read_controls([run for run, _ in by_seed[min(by_seed)]], first),
    )


def check_seeds(name: str, pooled: dict[int, Predictions]) -> None:
    """Raise ValueError where two seeds are not tested on the same images with the same labels."""
    least = min(pooled)
    first = pooled[least]
    for seed, other in pooled.items():
        if not np.array_equal(other.sources, first.sources):
            missing = set(first.sources.tolist()) ^ set(other.sources.tolist())
            raise ValueError(
                f"{name}: seeds {least} and {seed} are tested on different images ({len(missing)} differ, such as "
                f"{min(missing)}): run the missing folds"
            )
        if other.class_names != first.class_names or not np.array_equal(other.labels, first.labels):
            raise ValueError(f"{name}: seeds {least} and {seed} differ in classes or labels")
        if not np.array_equal(other.subjects, first.subjects):
            raise ValueError(
                f"{name}: seeds {least} and {seed} differ in the subjects of the images: run one of them again"
            )


def join(folds: Sequence[Fold]) -> Predictions:
    """The folds of one seed as one, in the order of their sources."""
    tested_by: dict[str, Run] = {}
    first_run, first = folds[0]
    for run, part in folds:
        if part.class_names != first.class_names:
            one, other = (", ".join(names) for names in (first.class_names, part.class_names))
            raise ValueError(f"{run.folder} has the classes {other}, but {first_run.folder} has {one}")
        for source in part.sources.tolist():
            if source in tested_by:
                raise ValueError(
                    f"{tested_by[source].folder} and {run.folder} were tested on the same images, such as {source}, "
                    "with the same seed and the same settings: name only one"
                )
        tested_by |= dict.fromkeys(part.sources.tolist(), run)
    clips = ["clips"] if all(part.clips is not None for _, part in folds) else []
    fields = ("sources", "subjects", "formats", "labels", "probabilities", *clips)
    arrays = {field: in_order(folds, [getattr(part, field) for _, part in folds]) for field in fields}
    return Predictions(first.class_names, **arrays)


def in_order(folds: Sequence[Fold], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """An array of each fold, joined and put into the order of all sources."""
    order = np.argsort(np.concatenate([part.sources for _, part in folds]), kind="stable")
    return np.concatenate(arrays)[order]


def calibrate(folds: Sequence[Fold]) -> np.ndarray | None:
    """The pooled probabilities (N, K) after each run's own temperature."""
    from scipy.special import softmax  # the dashboard starts without scipy

    scaled = []
    for run, part in folds:
        temperature = (run.result.get("calibration") or {}).get("temperature")
        if temperature is None:
            return None
        scaled.append(softmax(np.log(part.probabilities.clip(1e-45)) / temperature, axis=1))
    return in_order(folds, scaled)


def read_controls(runs: Sequence[Run], images: Predictions) -> dict[str, np.ndarray]:
    """The controls that every fold has, pooled, in the order of `images`."""
    pooled = {}
    for name in sorted(set.intersection(*map(_control_names, runs))):
        control = join([(run, read_predictions(run.folder / "controls" / f"{name}.csv", run.links)) for run in runs])
        fields = ("class_names", "sources", "labels")
        if not all(np.array_equal(getattr(control, field), getattr(images, field)) for field in fields):
            path = runs[0].folder / "controls" / f"{name}.csv"
            raise ValueError(f"{path} does not have the same images as predictions.csv")
        pooled[name] = control.probabilities
    return pooled


def _control_names(run: Run) -> set[str]:
    folder = run.folder / "controls"
    if folder.is_symlink() and not run.links:
        raise FileError("refused", folder, "is a link, which is not followed")
    return {path.stem for path in folder.glob("*.csv")}
