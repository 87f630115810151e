"""Error messages and exit statuses: a user's mistake becomes one line."""

import difflib
import errno
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import Container, OmegaConf

from engrec.machine.streams import unbreakable_output
from engrec.words import printable

CONF = Path(__file__).parents[1] / "conf"
log = logging.getLogger(__name__)
NO_TEXT = r"-?\.?\d[\d_]*\.?[\d_]*(e-?\d[\d_]*)?|-?(inf|nan)|true|false|null"  # what Hydra reads as something else
# Exit statuses that a search and a selection act upon: EX_DATAERR, EX_SOFTWARE and EX_IOERR of sysexits.h.
BAD_CHECKPOINT, DIVERGED, DISK_FULL = 65, 70, 74


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: it is damaged, not engrec's, or of another network than this run's."""


class DivergedError(ValueError):
    """A training whose loss is NaN or infinite."""


def nearest(word: str, options: Any) -> str:
    """A suggestion for a misspelt word, " (did you mean …?)"; empty if no option is close to it."""
    close = difflib.get_close_matches(word, list(options), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def expectation_line(where: Any, field: str, found: Any, expected: str) -> str:
    """The message for a value of a file that does not fit: file, field, value expected, value found (shortened)."""
    plain = isinstance(found, str) and found.isprintable() and found == found.strip() != ""
    text = found if plain else repr(found)
    return f"{where}: {field} must be {expected}, found {text if len(text) <= 120 else text[:117] + '…'}"


def quoted(path: Path | str) -> str:
    """A path, quoted for Hydra's command line if it needs to be; the configuration then has the path as it is."""
    text = str(path)
    if re.fullmatch(r"(engrec:)?[A-Za-z0-9_./-]+", text) and not re.fullmatch(NO_TEXT, text, flags=re.IGNORECASE):
        return text
    # To OmegaConf a backslash is literal unless ${ follows.
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def in_quotes(text: str) -> str:
    # In Hydra's grammar a backslash is literal unless a quotation mark follows.
    inside = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{inside}'"


def in_shell(argument: str) -> str:
    """An argument as it is typed in a shell, in the quotes that are easier to read."""
    return f'"{argument}"' if re.fullmatch(r"[^\"$`\\!]*'[^\"$`\\!]*", argument) else shlex.quote(argument)


def shell_line(arguments: Iterable[str]) -> str:
    return " ".join(map(in_shell, arguments))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What every command runs in: a user's mistake is printed as one line and becomes the exit status, Ctrl-C is 130.

    hydra.verbose=true shows the traceback too.
    """
    try:
        with unbreakable_output():
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
    """65 for a checkpoint that cannot be used, 70 for a training that diverged, 74 for a full disk, 1 for every other
    error."""
    if error is None:
        return 1
    if isinstance(error, CheckpointError):
        return BAD_CHECKPOINT
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK_FULL
    return exit_status(error.__cause__)


@contextmanager
def errors_wait_for_the_others(number: int) -> Iterator[None]:
    """Log the error of this run of a sweep and raise it again: Hydra raises it once the other runs have ended."""
    try:
        yield
    except Exception as error:
        if not _is_users(error):
            raise
        message = f"run {number}: {explain(error)}"
        log.error("%s", message)
        raise ValueError(message) from error


@contextmanager
def every_error_named() -> Iterator[None]:
    """Print the error of each failed run and raise the last one; Hydra would raise the first and hide the others."""
    try:
        yield
    except Exception as error:
        failed = failed_runs(error)
        for number, cause in failed[:-1]:
            print(f"error: run {number}: {explain(cause).removeprefix(f'run {number}: ')}", file=sys.stderr)
        raise failed[-1][1] if failed else error  # noqa: B904 (each has its own cause)


def failed_runs(error: BaseException) -> list[tuple[int, Exception]]:
    """Number and error of each failed run. Hydra has no public way to get them: they are read from a local variable
    of its sweeper, and from a private attribute because the public one prints and raises the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    sweep = next((f.f_locals for f in frames if f.f_code.co_qualname == "BasicSweeper.sweep"), {})
    failed = [r for r in sweep.get("results", ()) if r.status.name == "FAILED"]
    return [(r.hydra_cfg.hydra.job.num, r._return_value) for r in failed]


def _is_users(error: BaseException) -> bool:
    package = type(error).__module__.split(".")[0]
    named = type(error).__name__ == "MisconfigurationException"  # by name, as this module does not load Lightning
    named |= "are you indeed on a slurm cluster" in str(error)  # a RuntimeError of submitit
    named |= _out_of_memory(error)
    return named or package in ("hydra", "omegaconf", "submitit") or isinstance(error, ValueError | OSError)


def _out_of_memory(error: BaseException) -> bool:
    """Also torch's errors: a class of its own on a GPU, a RuntimeError on a CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def explain(error: BaseException) -> str:
    """The message of an exception for the person who typed the command, on one line."""
    while type(error).__name__ == "InstantiationException" and _is_users(error.__cause__ or KeyError()):
        error = error.__cause__ or error  # the message of the class that Hydra could not build
    if _out_of_memory(error):
        return "not enough memory: set a smaller batch_size=, network (model.width=) or data set, or trainer.precision="
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{os.fsdecode(error.filename)}: {error.strerror}")
    text = f"{error}. {error.__cause__}" if str(error).startswith("Error merging override") else str(error)
    if found := re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        key = found[1] or found[3]
        if key == "sweep":
            return (
                "sweep= is not an option of train.py; to search, run: python scripts/sweep.py sweep=small n_trials=20"
            )
        return f"there is no {key} in the configuration{_nearest_key(key, error)}"
    if found := re.search(r"(?:Could not find|In '[^']*': Could not find) '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t(\w+)$", text, flags=re.MULTILINE)
        return f"{found[1]}={found[2]} must be one of {', '.join(options)}{nearest(found[2], options)}"
    if found := re.fullmatch(r"(.*\S)\s+full_key: (\S+)\s+object_type=\S+", text, re.DOTALL):
        return f"{found[2]}: {' '.join(found[1].split())}"
    if text.startswith("Config group override must be a string or a list"):
        return "; ".join(filter(None, map(_without_option, sys.argv[1:]))) or text
    if re.search(r"Could not load 'hydra/launcher/", text):
        return "hydra/launcher=gpus and hydra/launcher=slurm need more packages: pip install -e '.[launchers]'"
    if "are you indeed on a slurm cluster" in text:
        return "hydra/launcher=slurm needs sbatch and srun: run this on a machine that can submit jobs to the cluster"
    if type(error).__name__ == "UncompletedJobError":  # of submitit; its message ends with the log of the job
        return " ".join(text.partition("\nError stream")[0].split())
    if (override := getattr(error, "override", None)) is not None:
        return _unparsed(override)
    return printable(" ".join(text.split()))


def _unparsed(override: str) -> str:
    """Of an argument that is no override in Hydra's grammar, which gives characters such as = ( , a meaning."""
    key, equals, value = override.partition("=")
    if not equals or not value or re.fullmatch(r"[\w.@/+~-]+", key) is None:
        return f"{override}: every argument must be KEY=VALUE, such as stage=pretrain or dataset=fer2013"
    return f"{override} has characters that need quotes: {in_shell(f'{key}={in_quotes(value)}')}"


def _without_option(override: str) -> str:
    """What a group of options can be, if an override gives it something that is not the name of an option."""
    group, _, value = override.partition("=")
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []
    return f"{override} must be one of {', '.join(options)}" if options and value not in options else ""


def _nearest_key(key: str, error: BaseException) -> str:
    """A suggestion for a misspelt key, or the list of keys in its section."""
    node = getattr(error, "parent_node", None) or getattr(error.__cause__, "parent_node", None)
    keys = [] if node is None else _keys(OmegaConf.to_container(_root(node)))
    section = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == section]
    allowed = f"; {section or 'at the top'} has {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else ""
    return nearest(key, siblings) or nearest(key, keys) or allowed


def _root(node: Container) -> Container:
    """The configuration that a node is part of. OmegaConf has no public way from an error's node up to it."""
    return node._get_root()


def _keys(node: Any, prefix: str = "") -> list[str]:
    """The dotted paths of all keys, sections included."""
    if not isinstance(node, dict):
        return []
    return [k for name, value in node.items() for k in (f"{prefix}{name}", *_keys(value, f"{prefix}{name}."))]
