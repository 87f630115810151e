"""EngageNet (Singh et al., ICMI 2023): Train/, Validation/, Test/ with subject_ID_….mp4, and its label files."""

import re
from pathlib import Path
from typing import Any

from engrec.importers import video

CLASS_NAMES = ("not_engaged", "barely_engaged", "engaged", "highly_engaged")
NO_SUBJECT = "snp"  # SNP(Subject Not Present)


def read(source: Path, every: float = 1.0) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `Faces`: one frame in each `every` seconds, levels of engagement, the official split by person. And
    what is wrong with each clip, see `video.read`.

    Label files: the columns chunk and label, as .csv or .xlsx. Clips labelled as without a subject are left out. The
    splits are the folders Train, Validation and Test, or else train.txt, valid.txt and test.txt with a name a line.
    """
    videos = video.find(source)
    labels = video.labels_of(video.tables(source), ("chunk",), "label")
    notes = video.unmatched(videos, labels, source)
    absent = [name for name in videos if name in labels and labels[name][0].lower().startswith(NO_SUBJECT)]
    notes += [video.listed("left out, as labelled without a subject", absent)] if absent else []
    lists = _lists(source)
    used = [(name, path) for name, path in videos.items() if name in labels and name not in set(absent)]
    clips = [_clip(path, source, lists, *labels[name]) for name, path in used]
    return video.read(source, "engagenet", clips, CLASS_NAMES, every, notes)


def _clip(path: Path, source: Path, lists: dict[str, str], label: str, where: str) -> video.Clip:
    class_name = re.sub(r"[\s-]+", "_", label).lower()
    if class_name not in CLASS_NAMES:
        allowed = "Not-Engaged, Barely-engaged, Engaged, Highly-Engaged, SNP(Subject Not Present)"
        raise ValueError(f"{where} has the label {label!r}, allowed: {allowed}")
    split = video.parts_below_split(path, source)[0] or lists.get(path.stem)
    if split is None:
        raise ValueError(f"{source.name}: {path.name} is not in Train, Validation or Test: move it to its split")
    return video.Clip(
        path, path.stem, CLASS_NAMES.index(class_name), video.subject_of(path, video.SUBJECT, source), split
    )


def _lists(source: Path) -> dict[str, str]:
    """Name of a clip to its split, from text files that list some."""
    named = {"train.txt": "train", "valid.txt": "val", "validation.txt": "val", "test.txt": "test"}
    found = {}
    for path in sorted(source.rglob("*.txt")):
        if path.name.lower() in named and path.is_file():
            names = path.read_text(encoding="utf-8", errors="replace").split()
            found |= {Path(name).stem: named[path.name.lower()] for name in names}
    return found
