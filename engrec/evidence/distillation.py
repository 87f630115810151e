"""Self-distillation: a student learns from the given labels and from teachers that have not seen them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engrec import checkpoint
from engrec.data import seen
from engrec.datasets.prepared import Faces
from engrec.evidence.out_of_fold import OutOfFold, out_of_fold
from engrec.ranges import Positive, Share, check
from engrec.splits import Split
from engrec.words import counted

TEACHERS = "engrec.splits.Teachers"
SAME_IMAGES = {"fer2013", "ferplus"}


@dataclass(frozen=True)
class Distillation:
    """Soft labels for the training images: `share` of the teachers' probabilities, the rest of the given label, or of
    the annotators' votes where the data set has them.

    runs: a folder of finished runs of split=teachers, or several; temperature: probabilities p become proportional to
    p^(1/temperature), above 1 softer (Hinton et al. 2015, arXiv 1503.02531); views: the teachers' tta whose predictions
    are read. The student itself is trained at temperature 1, with the cross entropy of the mixed distribution.

    Raises ValueError for numbers out of their range.
    """

    runs: str | Sequence[str]
    share: Share = 0.5
    temperature: Positive = 1.0
    views: Literal["none", "flip", "ten_crop", "ten_crop_zoom"] = "none"

    def __post_init__(self) -> None:
        check(Distillation, vars(self), "distill")

    def __call__(self, faces: Faces, split: Split) -> Faces:
        """The data set with soft labels; those of validation and test images are as certain as they were given.

        Raises ValueError unless the teachers have tested each training image once, and no other image.
        """
        folders = [Path(folder) for folder in ([self.runs] if isinstance(self.runs, str) else self.runs)]
        found = out_of_fold(folders, faces, self.views)
        check_teachers(found, faces, split)
        certain = np.eye(len(faces.class_names))[faces.labels]
        soft = certain if faces.soft_labels is None else faces.soft_labels.astype(np.float64)
        taught = softened(found.probabilities, self.temperature)
        soft[found.index] = (1 - self.share) * soft[found.index] + self.share * taught
        about = {"runs": sorted(str(run.folder) for run in found.runs), "images": len(found.index)}
        about |= {"share": self.share, "temperature": self.temperature, "views": self.views}
        return replace(faces, soft_labels=soft.astype(np.float32), recipe=faces.recipe | {"distillation": about})


def softened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, K) at another temperature: rows proportional to p^(1/temperature)."""
    powers = (probabilities / probabilities.max(1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def check_start(saved: dict[str, Any], path: str, faces: Faces, split: Split) -> None:
    """Raise ValueError where a teacher would start from a network that may have seen the images which it predicts."""
    own = seen(faces, split)
    for data, images in ((one.get("dataset"), one.get("seen")) for one in checkpoint.trainings(saved)):
        if images != own and (data == faces.name or {data, faces.name} <= SAME_IMAGES):
            raise ValueError(
                f"{path} was trained on {data} and has seen images that this teacher is to predict: leave out "
                "init_from=, or name a checkpoint that was trained on other data"
            )


def check_teachers(found: OutOfFold, faces: Faces, split: Split) -> None:
    """Raise ValueError where a teacher may know a validation or test image, or a training image has no teacher."""
    if other := [run for run in found.runs if run.settings.get("split._target_") != TEACHERS]:
        raise ValueError(
            f"{other[0].folder} has split={other[0].kind['split']}: only teachers of split=teachers have not seen "
            "validation and test images"
        )
    if len(held := np.setdiff1d(found.index, split.train)):
        raise ValueError(
            f"the teachers predicted {counted(len(held), 'image')} that training leaves out here, such as "
            f"{faces.sources[held[0]]}: set split=official, and dataset.exclude as for the teachers"
        )
    if len(lacking := np.setdiff1d(split.train, found.index)):
        raise ValueError(
            f"{len(lacking):,} of {len(split.train):,} training images have no teacher, such as "
            f"{faces.sources[lacking[0]]}: run the missing folds, with dataset.exclude as here"
        )
