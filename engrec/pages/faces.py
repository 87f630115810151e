"""Pictures of faces on pages: which, how large, and what stands below them."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from engrec.datasets import prepared
from engrec.datasets.prepared import Faces
from engrec.evidence.groups import Group
from engrec.importers import files
from engrec.pages import page
from engrec.runs.record import Run

SIDE = 96  # pixels, of a picture on a page


def mistakes(group: Group, faces: Faces, most: int) -> tuple[int, list[tuple[str, str]]]:
    """How many images the first seed predicts wrongly; of the most confident, the picture as a data URI and a caption.

    Raises ValueError where these are not the faces that the group was tested on.
    """
    wrong = surest_mistakes(group)
    shown = wrong[:most].tolist()
    sources = group.sources[shown].tolist()
    where = {source: i for i, source in enumerate(faces.sources.tolist())}
    if lacking := set(sources) - where.keys():
        path = group.runs[0].settings.get("dataset.path", "the data set")
        raise ValueError(f"{path} has no image {min(lacking)}: it is not the one that was tested on")
    pictures = [page.picture(shrunk(faces.images[where[source]])) for source in sources]
    return len(wrong), list(zip(pictures, (caption(group, i) for i in shown), strict=True))


def surest_mistakes(group: Group) -> np.ndarray:
    """Indices of the images that the first seed predicts wrongly, the most confident first."""
    p = group.probabilities[0]
    wrong = np.flatnonzero(p.argmax(1) != group.labels)
    return wrong[np.argsort(-p[wrong].max(1), kind="stable")]


def prepared_faces(run: Run) -> Faces:
    """The prepared file that a run read. Raises ValueError where it read another data set, or the file is gone.

    The function that a run names is never called: only the one for prepared files is known here.
    """
    target, path = run.settings.get("dataset._target_"), Path(str(run.settings.get("dataset.path")))
    if target != "engrec.datasets.prepared.load":
        raise ValueError(f"the data set is not a prepared file ({target or 'the run does not name it'})")
    if not files.is_file(path):
        raise ValueError(f"{path} does not exist (in {Path.cwd()})")
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(2)
def _load(path: Path, written: int) -> Faces:
    return prepared.load(path)


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
