"""The command line of a search."""

import argparse
import shlex
from dataclasses import dataclass, fields, replace
from math import inf, isnan
from pathlib import Path

import yaml

from engrec.config import Config
from engrec.errors import CONF, nearest
from engrec.machine import gpus
from engrec.search import slurm, space
from engrec.search.shared import masked
from engrec.search.space import Sweep, key_of

OURS = ("sweep", "n_trials", "workers", "folder", "timeout", "folds", "launcher", "storage")
RESERVED = {
    "output_dir": "each trial has its own folder; folder= is that of the search",
    "ckpt_path": "each trial resumes from its own; init_from= is for the weights to start from",
    "run": "each trial has its own folder; folder= is that of the search",
}


@dataclass(frozen=True)
class Options:
    """The command's own arguments; overrides are train.py's."""

    sweep: Sweep
    folder: Path
    n_trials: int
    workers: int | None
    timeout: float
    slurm: slurm.Options | None  # None: trials are processes of this machine
    fixed: tuple[str, ...]  # keys that the overrides took out of the search
    storage: str | None  # the URL of a database; None: a journal in the folder
    command: str  # without the database's password


def parse(arguments: list[str], description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE",
        help=f"sweep={{{','.join(sweeps())}}} or a YAML; n_trials (20): trials in all; workers: trials in parallel "
        "(one for each GPU, else 1); folder (outputs/sweeps/NAME); timeout: seconds; folds=[0,1,2]: a trial is their "
        "mean; launcher=slurm: runs are Slurm jobs, with slurm.partition= and the like; storage: the URL of a "
        "database that several commands share; and any override of train.py",
    )  # fmt: skip
    given = parser.parse_args(arguments).arguments
    ours: dict[str, str] = {}
    of_slurm: dict[str, str] = {}
    overrides = []
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ValueError(f"{argument}: every argument is KEY=VALUE, such as sweep=small or n_trials=20")
        if key in OURS:
            ours[key] = value
        elif key.startswith("slurm."):
            of_slurm[key.removeprefix("slurm.")] = value
        else:
            check_override(key_of(argument))
            overrides.append(argument)
    sweep = space.read(sweep_file(ours.get("sweep")))
    fixed = tuple(key for key in sweep.search if key in {key_of(override) for override in overrides})
    workers = whole("workers", ours["workers"]) if "workers" in ours else None
    gpus.check_parallel(workers or 1)
    sweep = with_folds(sweep.fixed(overrides), ours.get("folds"))
    return Options(
        sweep=sweep,
        folder=Path(ours.get("folder") or Path("outputs", "sweeps", sweep.name)),
        n_trials=whole("n_trials", ours.get("n_trials", "20")),
        workers=workers,
        timeout=seconds(ours.get("timeout")),
        slurm=options_of_slurm(ours.get("launcher", "local"), of_slurm),
        fixed=fixed,
        storage=ours.get("storage"),
        command=shlex.join(["python", "scripts/sweep.py", *map(_without_password, given)]),
    )


def _without_password(argument: str) -> str:
    key, _, value = argument.partition("=")
    return f"storage={masked(value)}" if key == "storage" else argument


def options_of_slurm(launcher: str, given: dict[str, str]) -> slurm.Options | None:
    """None for launcher=local."""
    if launcher not in ("local", "slurm"):
        close = nearest(launcher, ("local", "slurm"))
        raise ValueError(f"launcher={launcher} is unknown{close}; it must be local or slurm")
    if given and launcher == "local":
        raise ValueError(f"slurm.{next(iter(given))} needs launcher=slurm")
    return slurm.read_options(given) if launcher == "slurm" else None


def check_override(key: str) -> None:
    """Raise ValueError for what a trial cannot have, and for misspelt arguments of the search itself."""
    if key in RESERVED:
        raise ValueError(f"{key} cannot be set in a search: {RESERVED[key]}")
    if key.partition(".")[0] == "hydra":
        raise ValueError(f"{key} cannot be set in a search: it is for single runs")
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    known = groups | {field.name for field in fields(Config)}
    if key.partition(".")[0] not in known and "@" not in key and (close := nearest(key, OURS)):
        raise ValueError(f"there is no {key}{close}; the search takes {', '.join(OURS)} and train.py's overrides")


def sweeps() -> list[str]:
    return sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))


def sweep_file(name: str | None) -> Path:
    """From the name of one of conf/sweep, or the path of another YAML."""
    if not name:
        raise ValueError(f"sweep= is missing: set it to {', '.join(sweeps())}, or the path of a YAML")
    if name in sweeps():
        return CONF / "sweep" / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise ValueError(f"sweep={name} is not a file")
        return Path(name)
    raise ValueError(
        f"sweep={name} does not exist{nearest(name, sweeps())}; it must be one of {', '.join(sweeps())}, or a YAML"
    )


def whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{key}={value} must be a whole number from 1")
    return int(value)


def seconds(value: str | None) -> float:
    try:
        number = inf if value is None else float(value)
    except ValueError:
        number = -1.0
    if isnan(number) or number <= 0:
        raise ValueError(f"timeout={value} must be a number of seconds, such as timeout=3600")
    return number


def with_folds(sweep: Sweep, value: str | None) -> Sweep:
    """folds=[0,1,2], or null for one run as it is."""
    if value is None:
        return sweep
    try:
        found = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"folds={value} must be a list such as [0,1,2], or null") from error
    found = [] if found is None else found if isinstance(found, list) else [found]
    space.check_folds(found)
    return replace(sweep, folds=tuple(found))
