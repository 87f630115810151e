"""Pictures of faces on pages: which, how large, and what stands below them."""

from pathlib import Path

import numpy as np
from PIL import Image

from engrec.evidence.groups import Group
from engrec.importers import files
from engrec.runs.record import Run


def surest_mistakes(group: Group) -> np.ndarray:
    """Indices of the images that the first seed predicts wrongly, the most confident first."""
    p = group.probabilities[0]
    wrong = np.flatnonzero(p.argmax(1) != group.labels)
    return wrong[np.argsort(-p[wrong].max(1), kind="stable")]


def prepared_path(run: Run) -> Path:
    """The prepared file that a run read. Raises ValueError where it read another data set, or the file is gone.

    The function that a run names is never called: only the one for prepared files is known here.
    """
    target, path = run.settings.get("dataset._target_"), Path(str(run.settings.get("dataset.path")))
    if target != "engrec.datasets.prepared.load":
        raise ValueError(f"the data set is not a prepared file ({target or 'the run does not name it'})")
    if not files.is_file(path):
        raise ValueError(f"{path} does not exist (in {Path.cwd()})")
    return path


def shrunk(image: np.ndarray) -> np.ndarray:
    """An image uint8 (C, H, W), no larger than it is shown on the page."""
    if max(image.shape[1:]) <= SIDE:
        return image
    channels = (Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BOX) for channel in image)
    return np.stack([np.asarray(channel) for channel in channels])


def caption(group: Group, i: int) -> str:
    p, names = group.probabilities[0, i], group.class_names
    who = f", {group.subjects[i]}" if group.subjects[i] else ""
    return f"{names[group.labels[i]]} → {names[p.argmax()]} {p.max():.3f}{who} · {group.sources[i]}"


MOST_PICTURES, PICTURES_EACH, SIDE = 144, 24, 96  # on the page; of a model; pixels on a side
