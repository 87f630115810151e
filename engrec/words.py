"""Words for messages."""

import re

# Also half of a surrogate pair: what Python makes of the bytes of a file name that is not UTF-8.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with its control characters spelt out, \\x1b for ESC: they act on a terminal, or fit no file."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def counted(number: int, noun: str, several: str = "") -> str:
    """A number with its noun, "1 face" or "2,000 faces". several: the plural where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"
