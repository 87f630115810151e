"""EngageWild of EmotiW (Kaur et al., DICTA 2018): Train/ and Validation/ with videos, and their label files."""

import re
from pathlib import Path
from typing import Any

from engrec.importers import video
from engrec.importers.manifest import subject_pattern

CLASS_NAMES = ("disengaged", "barely_engaged", "engaged", "highly_engaged")
LEVELS = (0.0, 0.33, 0.66, 1.0)  # the numbers in the label files, of which the challenges took the squared error
CLOSE = 0.02  # as thirds are written 0.33, 0.333, 0.66, 0.67
NAMES = ("chunk", "video", "video_name", "filename", "name")  # of the column with the videos


def read(
    source: Path, every: float = 5.0, subject_regex: str = video.SUBJECT.pattern
) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `Faces`: one frame in each `every` seconds of videos of about five minutes, four levels, and the
    official split where folders are named after it. And what is wrong with each clip, see `video.read`.

    Label files: a column with the video (one of NAMES) and one named label, as .csv or .xlsx. subject_regex: its one
    group matches the subject in the name of a video.
    """
    videos = video.find(source)
    labels = video.labels_of(video.tables(source), NAMES, "label")
    notes = video.unmatched(videos, labels, source)
    pattern = subject_pattern(subject_regex)
    used = [(name, path) for name, path in videos.items() if name in labels]
    clips = [_clip(path, source, pattern, *labels[name]) for name, path in used]
    faces, problems = video.read(source, "engagewild", clips, CLASS_NAMES, every, notes)
    return faces | {"recipe": faces["recipe"] | {"levels": dict(zip(CLASS_NAMES, LEVELS, strict=True))}}, problems


def _clip(path: Path, source: Path, pattern: re.Pattern[str], label: str, where: str) -> video.Clip:
    try:
        distances = [abs(float(label) - level) for level in LEVELS]
    except ValueError:
        distances = [1.0]
    if not min(distances) <= CLOSE:
        raise ValueError(f"{where} has the label {label!r}, allowed: 0, 0.33, 0.66, 1")
    split, _ = video.parts_below_split(path, source)
    subject = video.subject_of(path, pattern, source)
    return video.Clip(path, path.stem, distances.index(min(distances)), subject, split)
