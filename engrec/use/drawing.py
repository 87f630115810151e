"""Boxes and answers drawn into the frames of a video."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engrec.use.answers import Seen, SeenFace

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
BOX, INK, PAPER = (255, 214, 10), (255, 255, 255), (20, 20, 20)


def drawn(seen: Seen) -> np.ndarray:
    """A copy of the frame, rgb uint8 (H, W, 3), with a box around each face and its smoothed answers beside it."""
    assert seen.rgb is not None
    picture = Image.fromarray(seen.rgb)
    draw = ImageDraw.Draw(picture)
    size = max(11, round(picture.height / 32))
    font = ImageFont.load_default(size)
    for face in seen.faces:
        x, y, width, height = face.box
        draw.rectangle((x, y, x + width, y + height), outline=BOX, width=max(2, size // 8))
        _write(draw, picture.size, face, font, size)
    return np.asarray(picture)


def words(face: SeenFace) -> list[str]:
    """The lines beside a face: its id, and of each network the class that is most probable at the time."""
    lines = [f"face {face.face_id}"]
    for answer in face.answers:
        shares = answer.smoothed or answer.probabilities
        label = max(shares, key=shares.__getitem__)
        lines.append(f"{label.replace('_', ' ')} {shares[label]:.0%}")
    return lines


def _write(draw: ImageDraw.ImageDraw, size: tuple[int, int], face: SeenFace, font: Font, line: int) -> None:
    """Below the box, or where there is no room above it, and always inside the picture."""
    x, y, _, height = face.box
    lines = words(face)
    step, pad = round(1.25 * line), max(4, line // 3)
    wide = max(draw.textlength(text, font) for text in lines) + 2 * pad
    high = len(lines) * step + 2 * pad
    top = y + height + pad if y + height + pad + high <= size[1] else y - high - pad
    left, top = max(0, min(x, size[0] - wide)), max(0, min(top, size[1] - high))
    draw.rectangle((left, top, left + wide, top + high), fill=PAPER)
    for number, text in enumerate(lines):
        draw.text((left + pad, top + pad + number * step), text, INK, font)
