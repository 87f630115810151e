"""Photographs from anywhere: decoded, upright, 8 bits a channel, and every error is one line."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

PHONES = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")  # brands of ISO 14496-12
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS: Pillow hands that to Ghostscript


def open_picture(content: bytes, where: str) -> tuple[Image.Image, str]:
    """The picture of one image file, of mode L or RGB, and the file's format, such as "JPEG L 48x48".

    The camera's orientation is applied, transparent pixels are put on black, 16 bits are scaled to 8, and of several
    frames the first is used. Raises ValueError for a file that cannot be read; `where` is its name in the message.
    """
    if not content:
        raise ValueError(f"{where} is empty (0 bytes): download it again or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a palette or a tag that Pillow can do without
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            found = f"{image.format} {image.mode} {image.width}x{image.height}"
            return upright(image), found
    except UnidentifiedImageError as error:
        if content[4:8] == b"ftyp" and content[8:12] in PHONES:
            raise ValueError(
                f"{where} is a picture in HEIC or AVIF, which is not read: save it as JPEG or remove it"
            ) from error
        if Path(where).suffix.upper().lstrip(".") in (*FORMATS, "JPG"):
            raise ValueError(f"{where} is damaged, or no picture: replace or remove it") from error
        raise ValueError(f"{where} must be one of {', '.join(FORMATS)}: save it as PNG or remove it") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        most = f"{Image.MAX_IMAGE_PIXELS or 0:,} pixels"
        raise ValueError(f"{where} has more than {most}, the most allowed: make it smaller or remove it") from error
    except Exception as error:  # Pillow raises a dozen kinds on damaged files
        raise ValueError(f"{where} cannot be read as an image ({one_line(error)}): replace or remove it") from error


def upright(image: Image.Image) -> Image.Image:
    """A picture of mode L or RGB: the camera's orientation applied, without transparency, 8 bits a channel. Raises
    whatever Pillow raises where the file is damaged."""
    image = _eight_bit(ImageOps.exif_transpose(image))
    image.load()  # here, where its errors become one line
    return image


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _eight_bit(image: Image.Image) -> Image.Image:
    """Image with 8 bits per channel and no transparency; modes that PIL's convert would clip are scaled."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("pixels exceed 16 bits; save it with 8 or 16 bits")
        return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image if image.mode == "L" else image.convert("RGB")
