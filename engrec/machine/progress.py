"""Progress of long work: a bar in a terminal, a line a minute in a log file."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

MINUTE = 60.0


class _Lines:
    """A file in which each report of a bar becomes a line of its own."""

    def write(self, text: str) -> None:
        if report := text.strip():  # "\r" and blanks erase a bar
            print(report, file=sys.stderr, flush=True)

    def flush(self) -> None: ...


def progress_bar(
    items: Iterable[Any] | None = None, name: str = "", unit: str = "", total: int | None = None, hide: bool = False
) -> tqdm:
    """A bar over the items, or one that is updated by hand; it disappears at its end. Work of less than a second shows
    no bar, work of less than a minute writes no line."""
    if hide or sys.stderr.isatty():
        return tqdm(items, name, total, unit=f" {unit}", delay=1, leave=False, disable=hide)
    is_known = total is not None or hasattr(items, "__len__")
    of_all, left = (" of {total_fmt}", ", {remaining} left") if is_known else ("", "")
    every: dict[str, Any] = {"delay": MINUTE, "mininterval": MINUTE, "maxinterval": MINUTE}
    form = f"{{desc}}: {{n_fmt}}{of_all}{{unit}}, {{elapsed}} passed{left}"
    return tqdm(items, name, total, unit=f" {unit}", leave=False, file=_Lines(), position=0, bar_format=form, **every)
