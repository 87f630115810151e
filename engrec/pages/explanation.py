"""The sheet of an explanation: the most confident right and wrong images, each above its map, as a PNG."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps

from engrec.pages.contact_sheet import Sheet
from engrec.runs.pictures import write
from engrec.use.explain import RANKINGS, Deletion, Explanation, Shown
from engrec.use.limits import LIMITS
from engrec.words import counted

SIDE, GAP, LEFT = 0.95, 0.1, 1.45  # inches
TABLE = (0.2, 3.0, 3.85, 4.65, 5.8)  # where its columns start
COLOURS, FIRST = colormaps["inferno"], 0.4  # from red to yellow: darker ones would look like shadows
STRONGEST = 0.85  # share of the colour where the map is 1
WIDEST = 14  # characters of a caption that stand above one image


def sheet(explanation: Explanation, path: str | Path) -> Path:
    """Returns the path."""
    faces, material = explanation.material.faces, explanation.material
    columns = max(7, *(len(part.index) for part in explanation.shown))
    warning = caution(explanation)
    row, top = 2 * SIDE + 0.55, 1.65 if warning else 1.45
    bottom = top + row * len(explanation.shown) + 0.15
    page = Sheet(LEFT + columns * (SIDE + GAP) + 0.2, bottom + 0.25)
    network = type(material.network.backbone).__name__
    page.text(0.2, 0.3, f"{network} on {len(material.test):,} test images of {faces.title}", size=13, weight="bold")
    height, width = explanation.size
    bright = f"Bright: what speaks for the answer, by LayerCAM ({height}×{width})."
    page.text(0.2, 0.56, bright, size=8, color="0.35")
    for i, cells in enumerate(table(explanation)):
        for cell, x in zip(cells, TABLE, strict=True):
            page.text(x, 0.82 + 0.18 * i, cell, size=8, color="0.35")
    page.text(0.2, 1.38, warning, size=8, color="tab:red", weight="bold")
    for i, part in enumerate(explanation.shown):
        draw(page, part, explanation, top + i * row)
    page.text(0.2, bottom, LIMITS, size=8, color="0.35")
    return write(page.figure, path, dpi=160)


def table(explanation: Explanation) -> list[list[str]]:
    """The deletion scores in words: a heading, and a row for each share of blurred pixels."""
    drawn = "people" if explanation.by_person else "images"
    heading = [
        f"Drop in the answer's probability, {counted(explanation.num_images, 'image')}",
        "by the map",
        "at random",
        "by another's map",
    ]
    return [[*heading, f"map − random [95 %, over {drawn}]"], *map(cells, explanation.deletions)]


def cells(deletion: Deletion) -> list[str]:
    falls = [number(deletion.falls[name]) for name in RANKINGS]
    between = "" if np.isnan(deletion.low) else f" [{number(deletion.low)}, {number(deletion.high)}]"
    return [f"{100 * deletion.share:.0f} % of the pixels blurred", *falls, f"{number(deletion.better)}{between}"]


def number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def caution(explanation: Explanation) -> str:
    """What to say where the maps are no better than random ones; empty if they are."""
    unproven = [f"{100 * one.share:.0f} %" for one in explanation.deletions if not one.low > 0]
    if not unproven:
        return ""
    alone = any(np.isnan(one.low) for one in explanation.deletions)
    why = "No interval, as all images are of one person. " if alone else ""
    return f"{why}Not shown to be better than random maps (at {' and '.join(unproven)}): do not trust these maps."


def draw(page: Sheet, part: Shown, explanation: Explanation, top: float) -> None:
    faces = explanation.material.faces
    page.text(0.2, top + 0.45, part.kind, size=11)
    page.text(0.2, top + 0.66, f"{part.of:,} image{'s'[: part.of != 1]}", size=8, color="0.45")
    page.text(0.2, top + 0.82, "most confident first", size=7, color="0.45")
    for column, i in enumerate(part.index.tolist()):
        x = LEFT + column * (SIDE + GAP)
        answer, label = faces.class_names[part.predicted[column]], faces.class_names[faces.labels[i]]
        wrong = answer != label
        page.text(x, top + 0.17 - 0.13 * wrong, f"{answer[:WIDEST]} {part.probability[column]:.2f}", size=7.5)
        if wrong:
            page.text(x, top + 0.17, f"label: {label}"[: WIDEST + 4], size=7, color="0.45")
        page.image(x, top + 0.27, SIDE, faces.images[i])
        page.image(x, top + 0.31 + SIDE, SIDE, overlaid(faces.images[i], part.maps[column]))


def overlaid(image: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """uint8 (3, H, W): the image uint8 (C, H, W) in grey, coloured where the map (H, W) in 0 … 1 is strong."""
    grey = np.repeat(image.mean(0, keepdims=True), 3, axis=0)
    colour = 255 * COLOURS(FIRST + (1 - FIRST) * strength)[..., :3].transpose(2, 0, 1)
    share = STRONGEST * strength
    return ((1 - share) * grey + share * colour).round().astype(np.uint8)
