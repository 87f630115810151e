"""The runs below a folder, read back: those that differ in fold and seed alone are one group, their folds pooled."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engrec.runs.reading import shown
from engrec.runs.record import STAGES, Predictions, Run, read_predictions
from engrec.runs.settings import is_setting


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in fold and seed alone, over the same N test images.

    name: what the runs are, and the settings in which they differ from the other groups.
    probabilities: float64 (num_seeds, N, K), pooled over folds; calibrated: the same after each run's temperature, or
    None where a run has none; controls: name to (N, K), what a model must beat, empty where the runs have none.
    """

    name: dict[str, str]
    runs: list[Run]
    seeds: list[int]
    class_names: tuple[str, ...]
    sources: np.ndarray
    subjects: np.ndarray
    formats: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    calibrated: np.ndarray | None
    controls: dict[str, np.ndarray]

    @property
    def by_subject(self) -> bool:
        return bool((self.subjects != "").all())

    @property
    def people(self) -> np.ndarray:
        """Who is drawn by a bootstrap (N,): subjects, or each image by itself where somebody is not known."""
        return self.subjects if self.by_subject else self.sources

    @property
    def leaks(self) -> bool:
        """Whether its split puts one person into train and test on purpose: a leakage check, not a result."""
        return self.name["split"] == "random"

    def same_images(self, other: "Group") -> bool:
        return (
            self.class_names == other.class_names
            and np.array_equal(self.sources, other.sources)
            and np.array_equal(self.labels, other.labels)
        )


def read_groups(runs: Iterable[Run]) -> list[Group]:
    """One group for all runs that differ in fold and seed alone, and one more for each kind of test-time augmentation.

    Raises ValueError when a prediction file is missing, damaged or does not fit the others of its group.
    """
    kinds: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        kinds.setdefault(tuple(run.kind.values()), []).append(run)
    groups = []
    for alike in kinds.values():
        varied = differing(alike)
        by_settings: dict[str, list[Run]] = {}
        for run in alike:
            by_settings.setdefault(json.dumps([run.settings.get(k) for k in varied], default=str), []).append(run)
        for members in by_settings.values():
            name = members[0].kind | {"settings": describe(members[0], alike)}
            groups += [pool(name | {"views": views}, members, file) for views, file in prediction_files(members)]
    return sorted(groups, key=lambda g: (STAGES.index(g.name["stage"]), *list(g.name.values())[1:]))


def differing(runs: list[Run]) -> list[str]:
    """The settings that are not the same in all of these runs."""
    keys = sorted({key for run in runs for key in run.settings})
    return [key for key in keys if is_setting(key) and differ(key, runs)]


def differ(key: str, runs: list[Run]) -> bool:
    return len({json.dumps(run.settings.get(key), default=str) for run in runs}) > 1


def describe(run: Run, runs: list[Run]) -> str:
    """The settings in which a run differs from others, as one would type them.

    A group of options that differs as a whole is named alone, and then what differs inside the group of that name.
    """
    words: dict[str, None] = {}
    for key in differing(runs):
        alike = [other for other in runs if option(other, key) == option(run, key)]
        if len(alike) < len(runs):
            words[option(run, key)] = None
        if differ(key, alike):
            words[f"{key}={shown(run.settings.get(key))}"] = None
    return " ".join(words)


def option(run: Run, key: str) -> str:
    """The group of options that a setting is part of, as one would type it; empty where it is part of none."""
    if key.startswith("dataset.classes"):
        names = [name.removeprefix("dataset.classes.") for name in run.settings if name.startswith("dataset.classes.")]
        return f"classes={','.join(names) or 'all'}"
    group = key.partition(".")[0]
    return f"{group}={run.result['choices'][group]}" if group in run.result["choices"] else ""


def prediction_files(runs: list[Run]) -> list[tuple[str, str]]:
    """The plain predictions, and those of each kind of test-time augmentation that every one of the runs has."""
    kinds = [{path.name for path in run.folder.glob("predictions_*.csv")} for run in runs]
    more = sorted(set.intersection(*kinds))
    return [("", "predictions.csv"), *((name[len("predictions_") : -len(".csv")], name) for name in more)]


def pool(name: dict[str, str], runs: list[Run], file: str = "predictions.csv") -> Group:
    """Join the folds of each seed. Raises ValueError when an image was tested twice, or not under every seed."""
    by_seed: dict[int, list[tuple[Run, Predictions]]] = {}
    for run in sorted(runs, key=lambda r: (r.seed, str(r.folder))):
        by_seed.setdefault(run.seed, []).append((run, read_predictions(run.folder / file)))
    pooled = {seed: join(members) for seed, members in by_seed.items()}
    first = pooled[min(pooled)]
    for seed, other in pooled.items():
        if not np.array_equal(other.sources, first.sources):
            lacking = set(first.sources.tolist()) ^ set(other.sources.tolist())
            raise ValueError(
                f"{' '.join(filter(None, name.values()))}: seeds {min(pooled)} and {seed} do not test the same images "
                f"({len(lacking)} differ, such as {min(lacking)}): run the folds that are missing"
            )
        if other.class_names != first.class_names or not np.array_equal(other.labels, first.labels):
            raise ValueError(
                f"{' '.join(filter(None, name.values()))}: seeds {min(pooled)} and {seed} differ in classes or labels"
            )
    calibrated = [calibrate(members) for members in by_seed.values()]
    return Group(
        name=name,
        runs=runs,
        seeds=sorted(pooled),
        class_names=first.class_names,
        sources=first.sources,
        subjects=first.subjects,
        formats=first.formats,
        labels=first.labels,
        probabilities=np.stack([one.probabilities for one in pooled.values()]),
        calibrated=None if file != "predictions.csv" or any(c is None for c in calibrated) else np.stack(calibrated),  # pyright: ignore[reportArgumentType, reportCallIssue]
        controls=read_controls([run for run, _ in by_seed[min(by_seed)]], first),
    )


def join(members: list[tuple[Run, Predictions]]) -> Predictions:
    """The folds of one seed in one, in the order of their sources."""
    tested_by: dict[str, Run] = {}
    for run, part in members:
        if part.class_names != members[0][1].class_names:
            raise ValueError(
                f"{run.folder} has the classes {', '.join(part.class_names)}, {members[0][0].folder} others"
            )
        for source in part.sources.tolist():
            if source in tested_by:
                raise ValueError(
                    f"{tested_by[source].folder} and {run.folder} test the same images, such as {source}, with one "
                    "seed and the same settings (init_from and ckpt_path do not count): name one of them"
                )
        tested_by |= dict.fromkeys(part.sources.tolist(), run)
    fields = ("sources", "subjects", "formats", "labels", "probabilities")
    whole = {field: np.concatenate([getattr(part, field) for _, part in members]) for field in fields}
    order = np.argsort(whole["sources"], kind="stable")
    return Predictions(members[0][1].class_names, **{field: array[order] for field, array in whole.items()})


def calibrate(members: list[tuple[Run, Predictions]]) -> np.ndarray | None:
    """The pooled probabilities (N, K) after each run's own temperature."""
    temperatures = [(run.result.get("calibration") or {}).get("temperature") for run, _ in members]
    if any(t is None for t in temperatures):
        return None
    scaled = []
    for t, (_, part) in zip(temperatures, members, strict=True):
        logits = np.log(part.probabilities.clip(1e-45)) / t
        powers = np.exp(logits - logits.max(1, keepdims=True))
        scaled.append(powers / powers.sum(1, keepdims=True))
    return np.concatenate(scaled)[np.argsort(np.concatenate([part.sources for _, part in members]), kind="stable")]


def read_controls(runs: list[Run], images: Predictions) -> dict[str, np.ndarray]:
    """The controls that every fold has, pooled, in the order of `images`."""
    names = [{path.stem for path in (run.folder / "controls").glob("*.csv")} for run in runs]
    pooled = {}
    for name in sorted(set.intersection(*names)):
        whole = join([(run, read_predictions(run.folder / "controls" / f"{name}.csv")) for run in runs])
        same = (np.array_equal(getattr(whole, f), getattr(images, f)) for f in ("class_names", "sources", "labels"))
        if not all(same):
            raise ValueError(f"{runs[0].folder / 'controls' / name}.csv is not of the images of predictions.csv")
        pooled[name] = whole.probabilities
    return pooled
