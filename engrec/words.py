"""Words for messages."""


def counted(number: int, noun: str, several: str = "") -> str:
    """A number with its noun, "1 face" or "2,000 faces". several: the plural where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"
