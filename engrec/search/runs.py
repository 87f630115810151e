"""What a trial's run leaves in its folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engrec.search.space import Objective


def figures(result: dict[str, Any], objectives: Sequence[Objective]) -> dict[str, float]:
    """The objectives of a run's result.json. Raises ValueError for one that is missing or not a finite number."""
    found = {}
    for metric in (objective.metric for objective in objectives):
        try:
            value = _figure(result, metric)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"{metric} is not in it") from error
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{metric} is undefined")
        found[metric] = float(value)
    return found


def _figure(result: dict[str, Any], metric: str) -> Any:
    if metric.startswith("val/"):
        return result["validation"][metric]
    if metric == "seconds_per_epoch":  # of training; the test and the start of the process are not in it
        return result["num_images"]["train"] / result["train_images_per_second"]
    return result[metric]


def remove_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        path.unlink(missing_ok=True)


def saved_at(folder: Path) -> int:
    """When the last checkpoint was written, in nanoseconds; 0 if there is none."""
    try:
        return (folder / "last.ckpt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def last_lines(path: Path, number: int = 5) -> str:
    """The end of a log, without what a progress bar has overwritten."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = [line.rstrip().rpartition("\r")[2] for line in file.read().decode("utf-8", "replace").split("\n")]
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in lines if line.strip()][-number:])
