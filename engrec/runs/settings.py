"""Which keys of a run's configuration are settings of the experiment, and which only say where and how it ran."""

from functools import lru_cache
from pathlib import Path
from typing import Any

# Neither list counts these. A key stands for everything below it.
ALWAYS_IGNORED = (
    "output_dir",  # where the run lies
    "run",  # what it is called: the time at which it started
    "ckpt_path",  # how it was resumed
    "logger",  # where it is reported
    "task",  # follows from the stage
)
# Runs that differ in these alone belong to one group: their folds are pooled, their seeds averaged.
IGNORED_IN_GROUPS = (
    *ALWAYS_IGNORED,
    "seed",  # averaged over
    "split.fold",  # pooled
    "init_from",  # each fold and seed may have its own
    "stage",  # part of a group's name anyway
    "tta",  # its predictions are a group of their own
    "speed",  # how fast, not what
    "trainer.accelerator",  # chosen by the machine, as the next three are
    "trainer.precision",
    "trainer.benchmark",
    "trainer.strategy",
    "trainer.max_epochs",  # the same as max_epochs
    "callbacks.history",  # has a folder and nothing else
    "callbacks.progress",  # the bar
    *(f"callbacks.{name}.dirpath" for name in ("best", "last")),  # the folder again
    *(f"callbacks.{name}.{key}" for name in ("best", "last") for key in ("monitor", "mode")),  # follow from monitor
)
# A run can be resumed although these differ. All others must be as they were.
IGNORED_ON_RESUME = (
    *ALWAYS_IGNORED,
    "callbacks.progress",  # the bar
    "trainer.devices",  # a run may be resumed on another machine
    "speed._target_",  # the class has moved: older runs have engrec.hardware.Speed
)
FOLDERS = ("folder", "dirpath", "default_root_dir")  # the run's own, at whatever depth


@lru_cache(4096)
def is_setting(key: str) -> bool:
    """Whether runs that differ in this dotted key are different experiments, and so belong to different groups."""
    return not any(key == ignored or key.startswith(f"{ignored}.") for ignored in IGNORED_IN_GROUPS)


def with_selected(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys and values, with "selected" for those that scripts/nested.py has chosen for each fold by itself: the
    folds of such runs belong together although their values differ. A config group stands for all keys below it, as
    its options have different ones."""
    chosen = settings.get("selected")
    if not isinstance(chosen, list):
        return settings
    names = [str(name) for name in chosen]
    below = tuple(f"{name}." for name in names)
    others = {key: value for key, value in settings.items() if key not in names and not key.startswith(below)}
    return others | dict.fromkeys(names, "selected")


def differences(now: dict[str, Any], before: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings of a run, nested, that were others when it was started, in words; empty if it can be resumed.

    "auto" fits whatever was chosen before. The checkpoint that it started from (init_from) may be left out.
    """
    found = []
    for name in sorted(now.keys() | before.keys()):
        key, one, other = f"{prefix}{name}", now.get(name), before.get(name)
        new = name not in before and one == {}  # a group that older runs did not have, and that chooses nothing
        if key in IGNORED_ON_RESUME or name in FOLDERS or one == "auto" or one == other or new:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{key}.")
        elif key != "init_from":
            found.append(f"with {key}={other} and not {one}" if name in before else f"without {key}")
        elif isinstance(one, str) and (not isinstance(other, str) or Path(one).resolve() != Path(other).resolve()):
            found.append(f"which started from {other or 'random weights'}")
    return found
