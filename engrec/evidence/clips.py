"""Predictions for clips: the frames of one video are one observation."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from engrec.datasets.prepared import Faces
from engrec.evidence.controls import OF_CLIPS, label_shares
from engrec.evidence.groups import Group
from engrec.metrics import logits_of, score_all
from engrec.splits import Split


def per_clip(groups: Iterable[Group]) -> list[Group]:
    """Each group that has clips, with a row a clip: the mean of its frames' probabilities. Groups without are left out.

    Raises ValueError for a clip with several labels or subjects.
    """
    return [_of_clips(group, group.clips) for group in groups if group.clips is not None]


def clip_metrics(faces: Faces, split: Split, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What `score_all` returns, of clips; empty where images are no frames. logits (N, K) and labels (N,) are those of
    split.test in ascending order."""
    if faces.clips is None:
        return {}
    clips = faces.clips[np.sort(split.test)]
    first = np.unique(clips, return_index=True)[1]
    means = average(clips, logits.softmax(1).cpu().numpy())
    return score_all(logits_of(means), labels.cpu()[first], faces.ordered)


def average(clips: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """From frames to clips, (N, K) to (number of clips, K): the mean of each clip, in the order of their names (N,)."""
    _, clip, frames = np.unique(clips, return_inverse=True, return_counts=True)
    sums = np.zeros((len(frames), probabilities.shape[1]))
    np.add.at(sums, clip, probabilities)
    return sums / frames[:, None]


def _of_clips(group: Group, clips: np.ndarray) -> Group:
    names, first, clip = np.unique(clips, return_index=True, return_inverse=True)
    for field in ("labels", "subjects"):
        values = getattr(group, field)
        if (differ := values != values[first][clip]).any():
            raise ValueError(f"{group.runs[0].folder}: the clip {clips[differ.argmax()]} has several {field}")
    mean = partial(average, clips)
    return replace(
        group,
        unit="clips",
        clips=None,
        sources=names,
        **{field: getattr(group, field)[first] for field in ("subjects", "formats", "labels")},
        probabilities=np.stack([mean(seed) for seed in group.probabilities]),
        calibrated=None if group.calibrated is None else np.stack([mean(seed) for seed in group.calibrated]),
        folds=group.folds[:, first],
        controls=_controls(group, clips, first),
    )


def _controls(group: Group, clips: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """Those of clips: each counts once, however many frames it has. first: where each clip begins."""
    found = {name: average(clips, control) for name, control in group.controls.items()}
    found |= {"majority": found.pop(OF_CLIPS)} if OF_CLIPS in found else {}
    if "subject_majority" in found:
        subjects, labels = group.subjects[first], group.labels[first]
        found["subject_majority"] = label_shares(subjects, labels, len(group.class_names))
    return found
