"""What a user got wrong, in one line."""

import difflib
import errno
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

CONF = Path(__file__).parents[1] / "conf"
log = logging.getLogger(__name__)
BAD_CHECKPOINT, DISK_FULL = 65, 74  # exit statuses that a search acts upon: EX_DATAERR and EX_IOERR of sysexits.h


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: damaged, of another program, or of another network than this run's."""


def nearest(word: str, known: Any) -> str:
    """What to say of a misspelt word: the known ones that are close to it, in brackets; nothing where none is."""
    close = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def quoted(path: Path) -> str:
    """A path as Hydra's command line has it."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", str(path)):
        return str(path)
    # A backslash stands for itself there, but before a quotation mark.
    inside = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), str(path))
    return f"'{inside}'"


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what a user can get wrong into one line and an exit status; hydra.verbose=true shows the traceback too."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not _is_users(error):
            raise
        if any(argument.startswith("hydra.verbose=") for argument in sys.argv):
            traceback.print_exc()
        message, status = f"error: {explain(error)}", exit_status(error)
        if status == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(status)


def exit_status(error: BaseException | None) -> int:
    """1, or what tells a bad checkpoint or a full disk from all other errors."""
    if error is None:
        return 1
    if isinstance(error, CheckpointError):
        return BAD_CHECKPOINT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK_FULL
    return exit_status(error.__cause__)


@contextmanager
def errors_wait_for_the_others(trial: int) -> Iterator[None]:
    """Say what is wrong with this trial of a sweep, and raise it again: Hydra ends with it after the other trials."""
    try:
        yield
    except Exception as error:
        if not _is_users(error):
            raise
        message = f"trial {trial}: {explain(error)}"
        log.error("%s", message)
        raise ValueError(message) from error


@contextmanager
def every_error_named() -> Iterator[None]:
    """Hydra raises the error of the first trial that failed; the errors of the others are printed before."""
    try:
        yield
    except Exception as error:
        failed = failed_trials(error)
        for number, cause in failed[:-1]:
            print(f"error: trial {number}: {explain(cause).removeprefix(f'trial {number}: ')}", file=sys.stderr)
        raise failed[-1][1] if failed else error  # noqa: B904 (each has its own cause)


def failed_trials(error: BaseException) -> list[tuple[int, Exception]]:
    """Number and error of each trial that failed. Hydra gives them to nobody: a frame of its sweeper has them all."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    sweep = next((f.f_locals for f in frames if f.f_code.co_qualname == "BasicSweeper.sweep"), {})
    failed = [r for r in sweep.get("results", ()) if r.status.name == "FAILED"]
    return [(r.hydra_cfg.hydra.job.num, r._return_value) for r in failed]


def _is_users(error: BaseException) -> bool:
    package = type(error).__module__.split(".")[0]
    named = type(error).__name__ == "MisconfigurationException"  # Lightning's, which is not loaded here
    named |= "are you indeed on a slurm cluster" in str(error)  # submitit's RuntimeError
    return named or package in ("hydra", "omegaconf", "submitit") or isinstance(error, ValueError | OSError)


def explain(error: BaseException) -> str:
    """What an exception means to whoever typed the command, on one line."""
    while type(error).__name__ == "InstantiationException" and _is_users(error.__cause__ or KeyError()):
        error = error.__cause__ or error  # what the part itself said
    text = f"{error}. {error.__cause__}" if str(error).startswith("Error merging override") else str(error)
    if found := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        key = found[1] or found[3]
        return f"there is no {key} in the configuration{_nearest_key(key, error)}"
    if found := re.search(r"(?:Could not find|In '[^']*': Could not find) '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t(\w+)$", text, flags=re.MULTILINE)
        return f"{found[1]}={found[2]} is not there{nearest(found[2], options)}; allowed: {', '.join(options)}"
    if re.search(r"Could not load 'hydra/launcher/", text):
        return "hydra/launcher=gpus and hydra/launcher=slurm need more packages: pip install -e '.[launchers]'"
    if "are you indeed on a slurm cluster" in text:
        return "hydra/launcher=slurm needs sbatch and srun: type this on a machine that submits to the cluster"
    if type(error).__name__ == "UncompletedJobError":  # submitit's, with the whole log of the job in it
        return " ".join(text.partition("\nError stream")[0].split())
    if found := re.search(r"Error parsing override '([^']*)'", text):
        return f"{found[1]}: every argument is KEY=VALUE, such as stage=pretrain or dataset=fer2013"
    return " ".join(text.split())


def _nearest_key(key: str, error: BaseException) -> str:
    """The key of the configuration nearest to a misspelt one, else the keys that stand beside it."""
    node = getattr(error, "parent_node", None) or getattr(error.__cause__, "parent_node", None)
    while node is not None and node._get_parent() is not None:
        node = node._get_parent()
    known = _keys(node)
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    allowed = f"; {section or 'at the top'} has {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else ""
    return nearest(key, siblings) or nearest(key, known) or allowed


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, DictConfig) or node._is_missing() or node._is_none():
        return []
    return [k for name in node for k in (f"{prefix}{name}", *_keys(node._get_node(name), f"{prefix}{name}."))]
