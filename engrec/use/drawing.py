"""Boxes and answers drawn into pictures and into the frames of a video."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engrec.machine.files import atomic_write
from engrec.use.answers import Seen, SeenFace
from engrec.use.inputs import read_picture
from engrec.use.limits import NOT_FELT, NOT_FOR

BOX, INK, PAPER = (255, 214, 10), (255, 255, 255), (20, 20, 20)
MOST_PICTURES, COLUMNS = 12, 4  # of a sheet
SIDE, ALONE = 480, 960  # longest side of a picture of a sheet, and of one that is alone there, in pixels
LINE, TEXT = 22, 14  # pixels, of a sheet


def font(size: float) -> ImageFont.FreeTypeFont:
    """Matplotlib brings it; file and class names may be in Cyrillic or Greek."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def drawn(seen: Seen) -> np.ndarray:
    """A copy of the frame, rgb uint8 (H, W, 3), with a box around each face and its smoothed answers beside it."""
    assert seen.rgb is not None
    picture = Image.fromarray(seen.rgb)
    draw = ImageDraw.Draw(picture)
    size = max(11, round(picture.height / 32))
    letters = font(size)
    for face in seen.faces:
        x, y, width, height = face.box
        draw.rectangle((x, y, x + width, y + height), outline=BOX, width=max(2, size // 8))
        _write(draw, picture.size, face, letters, size)
    return np.asarray(picture)


def words(face: SeenFace) -> list[str]:
    """The lines beside a face: its id, and of each network the class that is most probable at the time."""
    lines = [f"face {face.face_id}"]
    for answer in face.answers:
        shares = answer.smoothed or answer.probabilities
        label = max(shares, key=shares.__getitem__)
        lines.append(f"{label.replace('_', ' ')} {shares[label]:.0%}")
    return lines


def _write(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], face: SeenFace, letters: ImageFont.FreeTypeFont, line: int
) -> None:
    """Below the box, or where there is no room above it, and always inside the picture."""
    x, y, _, height = face.box
    lines = words(face)
    step, pad = round(1.25 * line), max(4, line // 3)
    wide = max(draw.textlength(text, letters) for text in lines) + 2 * pad
    high = len(lines) * step + 2 * pad
    top = y + height + pad if y + height + pad + high <= size[1] else y - high - pad
    left, top = max(0, min(x, size[0] - wide)), max(0, min(top, size[1] - high))
    draw.rectangle((left, top, left + wide, top + high), fill=PAPER)
    for number, text in enumerate(lines):
        draw.text((left + pad, top + pad + number * step), text, INK, letters)


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
