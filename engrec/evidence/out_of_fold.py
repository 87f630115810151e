"""Out-of-fold probabilities: what networks say about images that they have not seen, read from finished runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engrec.datasets.prepared import Faces
from engrec.evidence.groups import Group, read_groups
from engrec.runs.record import Run, find_runs
from engrec.splits import LEAKING
from engrec.words import counted


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The mean prediction for each of N images of a data set, by the networks that have not seen it.

    index: int (N,), which images of the data set; probabilities: float64 (N, K); runs: those that predicted them.
    """

    index: np.ndarray
    probabilities: np.ndarray
    runs: list[Run]


def out_of_fold(folders: Sequence[Path], faces: Faces, views: str = "none") -> OutOfFold:
    """The test predictions of all finished runs below these folders, joined with the images by their sources.

    Folds are pooled; the mean is over seeds and over runs with other settings, such as another network. views: the kind
    of test-time augmentation (tta) whose predictions are read. Raises ValueError for runs whose network may have seen
    what it predicted, for predictions that do not fit each other, and for those of another data set.
    """
    runs = find_runs(folders)
    for run in runs:
        _check_unseen(run)
    every_kind = read_groups(runs)
    groups = [group for group in every_kind if group.name["views"] == ("" if views == "none" else views)]
    if len(groups) < sum(group.name["views"] == "" for group in every_kind):
        below = ", ".join(map(str, folders))
        raise ValueError(f"not every run below {below} has predictions_{views}.csv: train them with tta={views}")
    _check_same_images(groups)
    every = np.concatenate([group.probabilities for group in groups])  # each seed of each network counts the same
    return OutOfFold(_index_of(groups[0], faces), every.mean(0), runs)


def _check_unseen(run: Run) -> None:
    """Raise ValueError for a run whose network may have seen the images that it was tested on."""
    if run.result["stage"] == "test":
        raise ValueError(
            f"{run.folder} tested a checkpoint that may have been trained on these images: name runs that trained on "
            "their own split, such as split=teachers"
        )
    if (split := run.kind["split"]) in LEAKING:
        raise ValueError(
            f"{run.folder} has split={split}: its network knows the people that it was tested on; name runs of "
            "split=teachers, split=kfold or split=loso"
        )


def _check_same_images(groups: list[Group]) -> None:
    """Raise ValueError where some runs predicted other images than others."""
    for other in groups[1:]:
        if not groups[0].same_images(other):
            one, two = groups[0].runs[0].folder, other.runs[0].folder
            raise ValueError(f"{one} and {two} belong to runs of different images or labels: name one kind, all folds")


def _index_of(group: Group, faces: Faces) -> np.ndarray:
    """Where the data set has the predicted images, int (N,)."""
    folder = group.runs[0].folder.parent
    if group.class_names != faces.class_names:
        theirs, own = (", ".join(names) for names in (group.class_names, faces.class_names))
        raise ValueError(f"the runs in {folder} have the classes {theirs}, {faces.name} has {own}: set dataset.classes")
    where = {source: i for i, source in enumerate(faces.sources.tolist())}
    if len(where) < len(faces):
        raise ValueError(f"{faces.name} has two images of one source, so that no prediction can be joined with them")
    if foreign := [source for source in group.sources.tolist() if source not in where]:
        raise ValueError(
            f"the runs in {folder} predicted {counted(len(foreign), 'image')} that {faces.name} does not have, "
            "such as "
            f"{foreign[0]}: set dataset.path and dataset.exclude as in these runs"
        )
    index = np.array([where[source] for source in group.sources.tolist()])
    if (other := np.flatnonzero(faces.labels[index] != group.labels)).size:
        i = other[0]
        theirs, own = group.class_names[group.labels[i]], faces.class_names[faces.labels[index[i]]]
        raise ValueError(
            f"the runs in {folder} have {theirs} as the label of {group.sources[i]}, {faces.name} has {own}: it is "
            "another version of the data set"
        )
    return index
