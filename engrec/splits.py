"""Train, validation and test splits by subject: nobody is in two of them."""

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from engrec.ranges import Count, Seed
from engrec.words import counted


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the images in train, validation and test: int64, sorted."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


class Undivided(Split):
    """The same images in train, validation and test."""


class Strategy:
    """A way to split, called with labels (N,), subjects (N,) or None and the official split (N,) or None.

    It returns a Split of all N images (Nested, Teachers, and KFold with train_people: of some). val_fraction: of the
    images that are not in the test part. leaks: a person may be in several parts; such a one says in `caution` why its
    scores are no result, and in `mark` what stands beside them. parts_copies: images that look the same may be in
    several parts, too; if not, it is called with numbers of groups (N,) in the place of subjects, see
    datasets.faults.kept_together.
    """

    leaks: ClassVar[bool] = False
    parts_copies: ClassVar[bool] = True

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        raise NotImplementedError


@dataclass(frozen=True)
class Official(Strategy):
    """The data set's own split. Where that has no "val", val is held out inside train: by subject, where subjects are
    unknown by clip, and where there are no clips by image."""

    val_fraction: float = 0.15
    seed: Seed = 0

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        if official is None:
            raise ValueError(
                "the data set has no official split; set split=kfold split.fold=0 (or split=holdout, split=loso)"
            )
        if missing := {"train", "test"} - set(np.unique(official)):
            raise ValueError(f"the official split has no {', '.join(sorted(missing))}; set split=holdout")
        train, val, test = (np.flatnonzero(official == side) for side in ("train", "val", "test"))
        if len(val):
            return Split(train, val, test)
        return _with_val(train, test, labels, subjects, self.val_fraction, self.seed)


@dataclass(frozen=True)
class Holdout(Strategy):
    """Hold-out split by subject, with classes in proportion as far as complete subjects allow."""

    test_fraction: float = 0.2
    val_fraction: float = 0.15
    seed: Seed = 0

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        rest, test = _hold_out(
            np.arange(len(labels)), labels, required(subjects), self.test_fraction, self.seed, "test_fraction"
        )
        return _with_val(rest, test, labels, subjects, self.val_fraction, self.seed)


@dataclass(frozen=True)
class KFold(Strategy):
    """Fold `fold` of num_folds by subject: each subject is in the test part of exactly one fold.

    train_people: train on so many subjects alone, drawn with this seed, to see how many labels are needed; the others
    of the training part are in no part. None: on all.
    """

    fold: int
    num_folds: Count = 5
    val_fraction: float = 0.15
    seed: Seed = 0
    train_people: Count | None = None

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        from sklearn.model_selection import StratifiedGroupKFold  # slow to load, and used by no other split

        groups = required(subjects)
        num_subjects = len(np.unique(groups))
        if not 2 <= self.num_folds <= num_subjects:
            advice = f": set split.num_folds={min(num_subjects, 5)}" if num_subjects > 1 else ""
            raise ValueError(
                f"split.num_folds={self.num_folds} for {counted(num_subjects, 'subject')} must be from 2 to "
                f"{num_subjects}{advice}"
            )
        check_fold(self.fold, self.num_folds)
        folds = StratifiedGroupKFold(self.num_folds, shuffle=True, random_state=self.seed)
        rest, test = list(folds.split(labels, labels, groups))[self.fold]
        split = _with_val(rest, test, labels, subjects, self.val_fraction, self.seed)
        if self.train_people is None:
            return split
        return replace(split, train=_of_few(split.train, labels, groups, self.train_people, self.seed))


@dataclass(frozen=True)
class LeaveOneSubjectOut(Strategy):
    """Leave one subject out: subject number `fold`, in sorted order, is the test part."""

    fold: int
    val_fraction: float = 0.15
    seed: Seed = 0

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        names, group = np.unique(required(subjects), return_inverse=True)
        check_fold(self.fold, len(names))
        rest, test = np.flatnonzero(group != self.fold), np.flatnonzero(group == self.fold)
        return _with_val(rest, test, labels, subjects, self.val_fraction, self.seed)


@dataclass(frozen=True)
class Nested(Strategy):
    """Fold `fold` of num_folds inside the people whom fold `outer` of num_outer does not test: KFold of these people
    alone, so that what is chosen by its test part has never seen the test people of the outer fold.

    The outer split is KFold with num_outer folds and this seed, or LeaveOneSubjectOut where num_outer is None.
    """

    outer: int
    fold: int
    num_outer: Count | None = 5
    num_folds: Count = 3
    val_fraction: float = 0.15
    seed: Seed = 0

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        people = required(subjects)
        outer = (
            LeaveOneSubjectOut(self.outer)
            if self.num_outer is None
            else KFold(self.outer, self.num_outer, seed=self.seed)
        )
        whole = outer(labels, people, None)
        kept = np.sort(np.concatenate([whole.train, whole.val]))
        return _within(kept, KFold(self.fold, self.num_folds, self.val_fraction, self.seed), labels, people)


@dataclass(frozen=True)
class Teachers(Strategy):
    """Fold `fold` of num_folds of the official training images, for probabilities that are out of fold: each training
    image is tested once, by a network that has seen neither it nor a copy of it nor, where there are subjects, its
    person. Official validation and test images are in no part.
    """

    fold: int
    num_folds: Count = 5
    val_fraction: float = 0.1
    seed: Seed = 0
    parts_copies: ClassVar[bool] = False

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        if official is None or "train" not in official:
            raise ValueError(
                "the data set has no official split, whose training images split=teachers divides; set split=kfold"
            )
        kept = np.flatnonzero(official == "train")
        groups = required(subjects)
        return _within(kept, KFold(self.fold, self.num_folds, self.val_fraction, self.seed), labels, groups)


@dataclass(frozen=True)
class Random(Strategy):
    """A random split, to estimate leakage: images are divided without regard to subjects, on purpose.

    What a network scores here above its score under a split by subject is recognition of people: do not report it as a
    result.
    """

    test_fraction: float = 0.2
    val_fraction: float = 0.15
    seed: Seed = 0
    leaks: ClassVar[bool] = True
    mark: ClassVar[str] = "leakage check, not a result"
    caution: ClassVar[str] = (
        "split=random puts the same people into train, validation and test: use it to estimate leakage, do not report "
        "it as a result"
    )

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        rest, test = _hold_out(np.arange(len(labels)), labels, None, self.test_fraction, self.seed, "test_fraction")
        return _with_val(rest, test, labels, None, self.val_fraction, self.seed)


@dataclass(frozen=True)
class Everyone(Strategy):
    """All images in each part, for the last training of a network that is to be used: nobody is left to test it on.

    Its quality is measured before, on folds of people, with the same settings.
    """

    leaks: ClassVar[bool] = True
    mark: ClassVar[str] = "on the training images, not a result"
    caution: ClassVar[str] = (
        "split=everyone trains on all images and tests on the same ones: its scores are no result; measure the same "
        "settings with split=kfold. No epoch can be chosen: use last.ckpt, not best.ckpt"
    )

    def __call__(self, labels: np.ndarray, subjects: np.ndarray | None, official: np.ndarray | None) -> Split:
        everyone = np.arange(len(labels))
        return Undivided(everyone, everyone, everyone)


LEAKING = {"random": Random, "everyone": Everyone}  # by their name in conf/split, as result.json has it


def check(split: Split, labels: np.ndarray, subjects: np.ndarray | None, num_classes: int, leaks: bool) -> None:
    """Raise ValueError for a split that cannot give an honest number.

    That is: a part is empty, an image (unless Undivided) or (unless `leaks`) a subject is used twice, train lacks a
    class, or validation or test has one class only, where AUC is undefined. A single test subject often has one class:
    this only warns, and AUC and F1 are then those of the pooled folds.
    """
    sides = {"train": split.train, "val": split.val, "test": split.test}
    if empty := [name for name, index in sides.items() if len(index) == 0]:
        raise ValueError(
            f"no image in {', '.join(empty)}; set another split.val_fraction, split.test_fraction or split"
        )
    index, count = np.unique(np.concatenate(list(sides.values())), return_counts=True)
    if count.max() > 1 and not isinstance(split, Undivided):
        raise ValueError(f"image {index[count.argmax()]} is used {count.max()} times; every image must be in one part")
    if subjects is not None and not leaks:
        _check_subjects({name: set(subjects[index].tolist()) for name, index in sides.items()})
    if missing := set(range(num_classes)) - set(labels[split.train].tolist()):
        raise ValueError(
            f"no image of class {', '.join(map(str, sorted(missing)))} in train; set another split.seed or a smaller "
            "split.val_fraction, or join classes in dataset.classes"
        )
    for name in ("val", "test"):
        classes = np.unique(labels[sides[name]])
        if len(classes) > 1:
            continue
        message = f"{name} has images of class {classes[0]} only, {len(sides[name])} in all: AUC is undefined there"
        if name == "test" and subjects is not None and len(np.unique(subjects[split.test])) == 1:
            warnings.warn(f"{message}; pool the predictions of all folds before scoring", stacklevel=2)
        else:
            raise ValueError(f"{message}; set another split.seed or a larger split.{name}_fraction")


def _check_subjects(seen: dict[str, set]) -> None:
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(seen[one] & seen[other]):
            raise ValueError(
                f"{one} and {other} share subjects ({len(both)}, such as {both[0]}): the score would measure "
                "recognition of people; set split=holdout, split=kfold or split=loso (split=random estimates leakage)"
            )


def required(subjects: np.ndarray | None) -> np.ndarray:
    """The subject ids. Raises ValueError where there are none."""
    if subjects is None:
        raise ValueError(
            "the data set has no subjects; prepare it with --subject-regex, or a subject column "
            "(split=random needs none, but only estimates leakage)"
        )
    return subjects


def _within(kept: np.ndarray, fold: KFold, labels: np.ndarray, groups: np.ndarray) -> Split:
    """A fold of the images at `kept`, as if there were no others."""
    inner = fold(labels[kept], groups[kept], None)
    return Split(kept[inner.train], kept[inner.val], kept[inner.test])


def _of_few(index: np.ndarray, labels: np.ndarray, subjects: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The images at `index` of so many subjects. Of random orders of the subjects, it is the first whose first ones
    have every class, so that more subjects mostly are the same ones and others."""
    names, classes = np.unique(subjects[index]), np.unique(labels[index])
    if not 1 <= number <= len(names):
        raise ValueError(f"split.train_people={number} must be from 1 to {len(names)}, the people in training")
    rng = np.random.default_rng(seed)
    few = index
    for _ in range(100):
        few = index[np.isin(subjects[index], rng.permutation(names)[:number])]
        if len(np.unique(labels[few])) == len(classes):
            break
    return few


def check_fold(fold: int, num_folds: int) -> None:
    if not 0 <= fold < num_folds:
        raise ValueError(
            f"split.fold={fold} must be from 0 to {num_folds - 1}, such as split.fold=0 "
            f"(all of them: -m 'split.fold=range({num_folds})')"
        )


def _with_val(
    rest: np.ndarray, test: np.ndarray, labels: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int
) -> Split:
    train, val = _hold_out(rest, labels, subjects, fraction, seed, "val_fraction")
    return Split(train, val, np.sort(test))


def _hold_out(
    index: np.ndarray, labels: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Divide `index` into the images kept and about `fraction` of them held out, classes in proportion."""
    if not 0 < fraction < 1:
        raise ValueError(f"split.{name}={fraction} must be above 0 and below 1")
    rng = np.random.default_rng(seed)
    if subjects is None:
        held = _some_images(labels[index], fraction, rng)
    else:
        held = _some_subjects(labels[index], subjects[index], fraction, rng)
    return np.sort(index[~held]), np.sort(index[held])


def _some_images(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of about `fraction` of each class; of a class with a single image, none."""
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: np.clip(round(fraction * len(members)), 1, len(members) - 1)]] = True
    return held


def _some_subjects(labels: np.ndarray, subjects: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of complete subjects.

    Of many random choices: the one that leaves every class in both parts, if any does, and whose class counts are
    nearest to `fraction` of all class counts.
    """
    names, group = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"subject {names[0]} alone cannot be divided into two parts; a split by subject needs three or more "
            "subjects, and none of them with most of the images"
        )
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group, label), 1)
    total, best, chosen = counts.sum(0), (np.inf, np.inf, np.inf), group[:0]
    for _ in range(100):
        order = rng.permutation(len(names))
        held = counts[order].cumsum(0)[:-1]  # row i: the first i + 1 subjects are held out
        missing = (held == total).sum(1), (held == 0).sum(1)
        distance = np.abs(held - fraction * total).sum(1)
        i = np.lexsort((distance, missing[1], missing[0]))[0]
        if (score := (missing[0][i], missing[1][i], distance[i])) < best:
            best, chosen = score, order[: i + 1]
    return np.isin(group, chosen)
