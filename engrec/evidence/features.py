"""A baseline on the features of a frozen network: standardised, and classified by logistic regression."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from engrec import checkpoint
from engrec.data import may_know, preprocessing_of
from engrec.datasets.prepared import Faces
from engrec.errors import CheckpointError
from engrec.evidence import linear
from engrec.machine.progress import progress_bar
from engrec.splits import Split
from engrec.transforms import standardize, to_float

CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
BATCH_SIZE = 256
Given = Literal["all"] | int  # unlabelled frames of each person


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """The baseline `features`. path: of the checkpoint, a file or whatever else checkpoint.read takes; saved: what it
    holds; given: how many unlabelled frames of each person are given, see `centred`; seed: by which they are drawn."""

    path: str
    saved: dict[str, Any]
    given: Given | None = None
    seed: int = 0
    name: ClassVar[str] = "features"
    packages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, path: str | None, given: Given | None, seed: int) -> Self:
        """Raises ValueError where there is no path, CheckpointError for what cannot be read."""
        if path is None:
            raise ValueError(
                "missing init_from, the checkpoint whose features to classify: init_from=outputs/…/best.ckpt"
            )
        return cls(path, checkpoint.read(path), given, seed)

    @property
    def row(self) -> str:
        """What the rows of its results are called."""
        return self.name if self.given is None else f"{self.name}, {words(self.given)}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"transductive": self.given, "c_grid": list(CS)}

    def check(self, faces: Faces, splits: Iterable[Split]) -> None:
        """Raise CheckpointError for a network that was trained on images prepared otherwise, or on images of this data
        set that are not exactly those in training and validation: it may know the people who are tested. Raise
        ValueError where people have no ids, and their frames are to be given."""
        checkpoint.check_preprocessing(self.saved, self.path, preprocessing_of(faces))
        if self.given is not None and faces.subjects is None:
            raise ValueError(f"{faces.name} has no subject ids, so people have no means: leave out --transductive")
        trainings = checkpoint.trainings(self.saved)
        if any(may_know(trainings, faces, split) is not False for split in splits):
            raise CheckpointError(
                f"{self.path} or its start was trained on {faces.name}, perhaps on people who are tested here: set "
                "init_from= a checkpoint trained on other data, or the split= and split.fold= that it was trained with"
            )

    def features(self, faces: Faces) -> np.ndarray:
        """float32 (N, D) of all images, centred if frames are given."""
        from engrec.modules.build import loaded_module  # it takes Lightning, which HOG + SVM does without

        backbone = loaded_module(self.path, self.saved).backbone
        rows = features_of(backbone, faces.images, progress=True)
        return rows if self.given is None else centred(rows, faces, self.given, self.seed)

    def predict(self, faces: Faces, split: Split, seed: int, features: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """See `logistic`, which is deterministic: it has no use for a seed."""
        probabilities, found = logistic(faces, split, features)
        return probabilities, self.about() | found

    def about(self) -> dict[str, Any]:
        """The network, for result.json."""
        model = self.saved["hyper_parameters"]["model"]
        return {"init_from": self.path, "network": model["_target_"], "trained_on": self.saved.get("dataset")}


def features_of(backbone: nn.Module, images: np.ndarray, progress: bool = False) -> np.ndarray:
    """float32 (N, D) of images uint8 (N, C, H, W), which are prepared as for validation and test."""
    starts = range(0, len(images), BATCH_SIZE)
    rows = []
    with torch.inference_mode():
        for start in progress_bar(starts, "features", "batches", hide=not progress):
            batch = torch.from_numpy(images[start : start + BATCH_SIZE])
            rows.append(backbone(standardize(to_float(batch))).float().numpy())
    return np.concatenate(rows)


def centred(features: np.ndarray, faces: Faces, given: Given, seed: int = 0) -> np.ndarray:
    """Features (N, D) without the mean of the person in each image, over all images of that person or over `given` of
    them, or all if there are fewer. Transductive: it takes images of the people who are tested, without their labels.

    Which images are given is drawn at random. The first ones would not do: where each class has a folder, they are
    all of one class, and the mean would tell the labels. Those that are given are tested like the others.
    """
    assert faces.subjects is not None
    rng, moved = np.random.default_rng(seed), features.copy()
    for who in np.unique(faces.subjects):
        own = np.flatnonzero(faces.subjects == who)
        some = own if given == "all" else rng.permutation(own)[:given]
        moved[own] -= features[some].mean(0)
    return moved


def words(given: Given) -> str:
    """What is said wherever such a result is shown."""
    return f"given {given} unlabelled frame{'s' if given != 1 else ''} of the person"


def logistic(faces: Faces, split: Split, features: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities float64 (N, K) of the images of split.test, in its order, and what was chosen; features: of all of
    `faces`. Features are standardised by the training images, and classes are weighted to be balanced; C and
    temperature are chosen as for HOG + SVM."""
    return linear.chosen(_fit, CS, features, faces, split)


def _fit(c: float, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    regression = LogisticRegression(C=c, class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), regression).fit(features, labels)
