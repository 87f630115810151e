"""DAiSEE (Gupta et al., 2016): DataSet/SPLIT/SUBJECT/CLIP/CLIP.avi and Labels/SPLITLabels.csv, the unpacked folder."""

from pathlib import Path
from typing import Any

from engrec.importers import video

CLASS_NAMES = ("very_low", "low", "high", "very_high")  # the levels 0 to 3 of engagement


def read(source: Path, every: float = 1.0) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `Faces`: one frame in each `every` seconds, levels of engagement, the official split by person. And
    what is wrong with each clip, see `video.read`.

    Labels and videos are matched without their suffixes, which disagree for one clip. AllLabels.csv lists more clips
    than the three splits do, on which results are published: it is read only where it is alone.
    """
    videos = video.find(source)
    tables = video.tables(source, (".csv",))
    of_splits = [path for path in tables if not path.name.lower().startswith("all")]
    labels = video.labels_of(of_splits or tables, ("clipid",), "engagement")
    notes = video.unmatched(videos, labels, source)
    clips = [_clip(path, source, *labels[name]) for name, path in videos.items() if name in labels]
    return video.read(source, "daisee", clips, CLASS_NAMES, every, notes)


def _clip(path: Path, source: Path, label: str, where: str) -> video.Clip:
    if label not in ("0", "1", "2", "3"):
        raise ValueError(f"{where} has the engagement {label!r}, allowed: 0, 1, 2, 3; download the labels again")
    split, parts = video.parts_below_split(path, source)
    if split is None or len(parts) < 2:
        place = path.relative_to(source).as_posix()
        raise ValueError(f"{source.name}/{place} is not in SPLIT/SUBJECT/, such as Train/110001/: restore the folders")
    return video.Clip(path, path.stem, int(label), parts[0], split)
