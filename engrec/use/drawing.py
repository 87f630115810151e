"""Boxes and answers drawn into pictures and into the frames of a video."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engrec.machine.files import atomic_write
from engrec.use.answers import Seen, SeenFace
from engrec.use.inputs import read_picture
from engrec.use.limits import NOT_FELT, NOT_FOR

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
BOX, INK, PAPER = (255, 214, 10), (255, 255, 255), (20, 20, 20)
MOST_PICTURES, COLUMNS = 12, 4  # of a sheet
SIDE, ALONE = 480, 960  # longest side of a picture of a sheet, and of one that is alone there, in pixels
LINE, TEXT = 22, 14  # pixels, of a sheet


@lru_cache(maxsize=8)  # a video asks for each frame
def font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib brings it; file and class names may be in Cyrillic or Greek."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def drawn(seen: Seen, note: str = "") -> np.ndarray:
    """A copy of the frame, rgb uint8 (H, W, 3), with a box around each face and its smoothed answers beside it; its
    number alone where these would cover another face. note: a line in the lower left corner."""
    assert seen.rgb is not None
    picture = Image.fromarray(seen.rgb)
    draw = ImageDraw.Draw(picture)
    size = max(11, round(picture.height / 32))
    letters = font(size)
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (face.box for face in seen.faces)]
    labels = [_noted(draw, note, picture.size, size)] if note else []
    for number, (face, box) in enumerate(zip(seen.faces, boxes, strict=True)):
        draw.rectangle(box, outline=BOX, width=max(2, size // 8))
        covered = [*boxes[:number], *boxes[number + 1 :], *labels]
        answers, alone = words(face), [str(face.face_id)]
        for lines, above in ((answers, False), (answers, True), (alone, False), (alone, True)):
            label = _placed(lines, box, picture.size, letters, above)
            if not any(_overlap(label, other) for other in covered):
                break
        labels.append(label)
        _write(draw, lines, label, letters)
    return np.asarray(picture)


def _noted(draw: ImageDraw.ImageDraw, note: str, size: tuple[int, int], height: int) -> Rectangle:
    """Write the note into the lower left corner, smaller where it would not fit; returns its rectangle."""
    share = size[0] / (font(height).getlength(note) + 2 * _padding(font(height))[1])
    letters = font(max(5, int(height * min(1, share))))
    label = _placed([note], (0, size[1], 0, size[1]), size, letters)
    _write(draw, [note], label, letters)
    return label


def words(face: SeenFace) -> list[str]:
    """The lines beside a face: its id, whether it is small, and of each network the class that is most probable."""
    lines = [f"face {face.face_id}" + (" (small)" if face.is_small else "")]
    for answer in face.answers:
        shares = answer.smoothed or answer.probabilities
        label = max(shares, key=shares.__getitem__)
        lines.append(f"{label.replace('_', ' ')} {shares[label]:.0%}")
    return lines


def _padding(letters: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """From line to line, and around all of them, in pixels."""
    return round(1.25 * letters.size), max(4, int(letters.size) // 3)


def _placed(
    lines: Sequence[str], box: Rectangle, size: tuple[int, int], letters: ImageFont.FreeTypeFont, above: bool = False
) -> Rectangle:
    """Where the lines go: below the box or above it, where there is no room on the other side, and always inside the
    picture."""
    (left, top, _, bottom), (step, pad) = box, _padding(letters)
    wide = max(letters.getlength(text) for text in lines) + 2 * pad
    high = len(lines) * step + 2 * pad
    over, under = top - high - pad, bottom + pad
    y = over if (above and over >= 0) or under + high > size[1] else under
    x, y = max(0, min(left, size[0] - wide)), max(0, min(y, size[1] - high))
    return x, y, x + wide, y + high


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], label: Rectangle, letters: ImageFont.FreeTypeFont) -> None:
    step, pad = _padding(letters)
    draw.rectangle(label, fill=PAPER)
    for number, text in enumerate(lines):
        draw.text((label[0] + pad, label[1] + pad + number * step), text, INK, letters)


class Sheet:
    """The first pictures with faces, side by side, with boxes and answers. Only paths are kept until it is written."""

    def __init__(self) -> None:
        self.pictures: list[tuple[Path, Seen]] = []
        self.number = 0  # of pictures with faces

    def add(self, path: Path, seen: Seen) -> None:
        if seen.faces:
            self.number += 1
            self.pictures = [*self.pictures, (path, seen)][:MOST_PICTURES]

    def write(self, path: Path) -> bool:
        """Whether there was anything to write: a PNG."""
        side = ALONE if len(self.pictures) == 1 else SIDE
        cells: list[tuple[str, Image.Image]] = []
        for source, seen in self.pictures:
            with suppress(ValueError):  # it has been removed in between
                cells.append((seen.source, _cell(source, seen, side)))
        if not cells:
            return False
        notes = [NOT_FELT, NOT_FOR]
        if self.number > len(cells):
            notes = [f"The first {len(cells)} of {self.number:,} pictures with faces.", *notes]
        with atomic_write(path, "wb") as file:
            _arranged(cells, notes).save(file, "PNG")
        return True


def _cell(path: Path, seen: Seen, side: int) -> Image.Image:
    """The picture with boxes, its longest side of that many pixels."""
    picture = read_picture(path).convert("RGB")
    scale = side / max(picture.size)
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    faces = [replace(face, box=tuple(scale * value for value in face.box)) for face in seen.faces]
    return Image.fromarray(drawn(replace(seen, faces=tuple(faces), rgb=np.asarray(small))))


def _arranged(cells: Sequence[tuple[str, Image.Image]], notes: Sequence[str]) -> Image.Image:
    """Pictures in rows, each with its name below, and notes at the end."""
    letters = font(TEXT)
    columns = min(COLUMNS, math.ceil(math.sqrt(len(cells))))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    wide = max(picture.width for _, picture in cells) + LINE
    heights = [max(picture.height for _, picture in row) + 2 * LINE for row in rows]
    needed = max(math.ceil(letters.getlength(note)) for note in notes) + LINE
    sheet = Image.new("RGB", (max(columns * wide, needed), sum(heights) + (len(notes) + 1) * LINE), "white")
    draw, top = ImageDraw.Draw(sheet), LINE // 2
    for row, height in zip(rows, heights, strict=True):
        for column, (name, picture) in enumerate(row):
            left = LINE // 2 + column * wide
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height + 2), _shortened(name, letters, wide - LINE), PAPER, letters)
        top += height
    for number, note in enumerate(notes):
        draw.text((LINE // 2, top + number * LINE), note, (90, 90, 90), letters)
    return sheet


def _shortened(name: str, letters: ImageFont.FreeTypeFont, wide: int) -> str:
    """The end of a long path says more than its beginning."""
    starts = range(len(name))
    return next((f"…{name[i:]}" if i else name for i in starts if letters.getlength(f"…{name[i:]}") <= wide), "…")
