"""Engagement levels in the wild (Kamath et al., WACV 2016): dataset/LEVEL/imgSUBJECT_FRAME.jpg, as .zip or folder."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from engrec.importers import files

CLASS_NAMES = ("not_engaged", "nominally_engaged", "very_engaged")  # the folders 1, 2, 3
NAME = re.compile(
    r"(?:.*/)?(?P<level>[^/]+)/img(?P<subject>\d{1,6})_(?P<frame>\d{1,9})\.jpe?g", re.IGNORECASE | re.ASCII
)
# Level, subject and frame in the name, then the true subject. The pixels correlate by 0.98 with frames of subject 1;
# subject 12 looks different. Uncorrected, subject 1 would be in both training and test images.
MISFILED = {("2", "12", "1"): 1}


def read(source: Path, size: int = 48) -> dict[str, Any]:
    """Arguments of `Faces` with three levels and the subjects from the file names; there is no official split.

    Some files are colour and most are grey, at several sizes, and the format is associated with the label. So all
    become grey at one size. The colour files also show more of the head, which resizing cannot undo: `formats` keeps
    each file's format, so that results can be checked on the grey files alone. One misfiled frame is corrected.
    """
    images = sorted(files.read_images(source, size), key=lambda image: image[0])
    if not images:
        raise ValueError(f"{source.name} contains no images: expected dataset/LEVEL/imgSUBJECT_FRAME.jpg")
    names, pixels, formats = zip(*images, strict=True)
    levels, subjects = zip(*(_place(name, files.place(source, name)) for name in names), strict=True)
    labels = np.array(levels, np.int64) - 1
    files.check_no_empty_class(labels, CLASS_NAMES, source)
    recipe = files.recipe(
        source,
        "wacv2016",
        size=size,
        resize=files.RESIZE,
        levels=dict(zip("123", CLASS_NAMES, strict=True)),
        misfiled={f"{level}/img{subject}_{frame}.jpg": who for (level, subject, frame), who in MISFILED.items()},
    )
    return {
        "images": np.stack(pixels),
        "labels": labels,
        "class_names": CLASS_NAMES,
        "subjects": np.array([f"subject{subject:02d}" for subject in subjects]),
        "sources": np.array(names),
        "formats": np.array(formats),
        "recipe": recipe,
    }


def _place(name: str, where: str) -> tuple[int, int]:
    """Level and subject in the name of one file."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{where} is not named LEVEL/imgSUBJECT_FRAME.jpg, such as 1/img10_100.jpg: rename or remove it"
        )
    if match["level"] not in ("1", "2", "3"):
        raise ValueError(f"{where} is in level {match['level']}, allowed: the folders 1, 2, 3; move or remove it")
    filed_under = (match["level"], match["subject"], match["frame"])
    return int(match["level"]), MISFILED.get(filed_under, int(match["subject"]))
