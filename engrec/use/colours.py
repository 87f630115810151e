"""The colour of each class, the same on the page and in the timeline: one for white paper, one for dark paper.

No colour judges a person: levels are shades of one blue, the stronger the higher. Colours were chosen so that they
stand out from the paper, and differ from each other also for people who see no red, no green or no blue.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from engrec.importers.fer2013 import CLASS_ALIASES

Paper = Literal["light", "dark"]
PAPERS: tuple[Paper, ...] = get_args(Paper)
EXPRESSIONS: dict[str, dict[Paper, str]] = {
    "angry": {"light": "#a22515", "dark": "#cc2914"},
    "disgust": {"light": "#4a6b4b", "dark": "#9ab07f"},
    "fear": {"light": "#3d2f6b", "dark": "#7953cc"},
    "happy": {"light": "#a6851c", "dark": "#fccc24"},
    "sad": {"light": "#1a8fdc", "dark": "#87d2ff"},
    "surprise": {"light": "#d261a2", "dark": "#db78ac"},
    "neutral": {"light": "#797979", "dark": "#ebebeb"},
    "contempt": {"light": "#382015", "dark": "#8b6b5f"},
}
LEVELS: dict[Paper, tuple[str, str]] = {"light": ("#5b93c9", "#10296a"), "dark": ("#3d74b8", "#e8f6ff")}


def of_classes(class_names: Sequence[str], paper: Paper) -> list[str]:
    """A hex colour for each class: known ones for expressions; for others, such as levels, steps of one scale."""
    names = [CLASS_ALIASES.get(name, name) for name in class_names]
    if all(name in EXPRESSIONS for name in names):
        return [EXPRESSIONS[name][paper] for name in names]
    first, last = (bytes.fromhex(end.removeprefix("#")) for end in LEVELS[paper])
    shares = [number / max(1, len(class_names) - 1) for number in range(len(class_names))]
    return ["#" + bytes(round(a + s * (b - a)) for a, b in zip(first, last, strict=True)).hex() for s in shares]
