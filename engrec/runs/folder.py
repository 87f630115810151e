"""The folder of a run: new, resumed, or refused."""

import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from engrec.errors import quoted
from engrec.machine import cluster
from engrec.machine.files import atomic_write
from engrec.runs.settings import differences

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)


@contextmanager
def run_folder(cfg: DictConfig) -> Iterator[Path]:
    """The folder that Hydra opened for this run; it goes again if nothing is written to it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    cfg.output_dir = str(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            os.removedirs(folder)


def going_on(cfg: DictConfig, folder: Path) -> bool:
    """Whether the run goes on where its folder stands: ckpt_path=last asks for that, and so does a job that Slurm has
    started again. Its last checkpoint, if there is one, then takes the place of what it starts from.

    Raises ValueError where the folder is another run's.
    """
    typed = OmegaConf.select(cfg, "ckpt_path")  # None where it is missing, of which check speaks
    if (cfg.stage, typed) == ("test", "last"):
        raise ValueError("ckpt_path=last is for a training that goes on: type the checkpoint to test, …/best.ckpt")
    last = folder / "last.ckpt"
    given = typed if cfg.stage != "test" else None
    if given == "last":
        check_folder_is_named(folder)
        cfg.ckpt_path = None
    if not (folder / "config.yaml").is_file() or not (given == "last" or cluster.restarted()):
        return False
    if differ := differences(plain(cfg), written(folder)):
        raise ValueError(f"{folder} holds another run, {differ[0]}: choose another {key_of_folder()}")
    if cfg.stage != "test" and last.is_file():
        cfg.ckpt_path, cfg.init_from = str(last), None
    return True


def check_folder_is_named(folder: Path) -> None:
    """Raise ValueError where ckpt_path=last would look into a folder that is new each time."""
    typed = HydraConfig.get().overrides
    named = any(o.lstrip("+").startswith(("output_dir=", "hydra.sweep.dir=")) for o in (*typed.task, *typed.hydra))
    if not (named or cluster.job() or cluster.launched()) and not (folder / "config.yaml").is_file():
        raise ValueError(f"ckpt_path=last goes on in a folder of yours: type {key_of_folder()}=outputs/… too")


def written(folder: Path) -> dict[str, Any]:
    """The configuration of the run in this folder. Raises ValueError where it cannot be read."""
    path = folder / "config.yaml"
    try:
        had = plain(OmegaConf.load(path))
    except (YAMLError, ValueError) as error:
        had = error
    if not isinstance(had, dict) or not had:
        raise ValueError(f"{path} is damaged: choose another output_dir, or remove that folder")
    return had


def finished(folder: Path) -> dict[str, float]:
    """What a run that goes on has found already."""
    path = folder / "result.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        found = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: remove it, and the run is tested again") from error
    log.info("%s is finished", folder)
    return found


def check_not_overwriting(cfg: DictConfig, folder: Path) -> None:
    """Raise ValueError where another run's results or its last checkpoint would be lost."""
    going_on = cfg.ckpt_path is not None and cfg.stage != "test"
    if (folder / "result.json").is_file() and not going_on:
        raise ValueError(f"{folder} holds a finished run: choose another {key_of_folder()}, or remove that folder")
    if (folder / "last.ckpt").is_file() and not going_on:
        raise ValueError(
            f"{folder} holds a run that was stopped: go on with ckpt_path=last, choose another {key_of_folder()}, or "
            "remove that folder"
        )


def key_of_folder() -> str:
    return "hydra.sweep.dir" if HydraConfig.get().mode is RunMode.MULTIRUN else "output_dir"


def open_folder(cfg: DictConfig, folder: Path, trainer: "pl.Trainer") -> None:
    """The log and the resolved configuration, of the first process; the others keep silent but for errors."""
    root = logging.getLogger()
    if not trainer.is_global_zero:
        root.setLevel(logging.ERROR)
        return
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)  # the previous trial's
    handler = logging.FileHandler(folder / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    cfg = cfg.copy()
    if cfg.ckpt_path is not None and cfg.stage != "test" and (folder / "config.yaml").is_file():
        cfg.init_from = written(folder).get("init_from")  # a run that goes on started there all the same
    with atomic_write(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True))


def say_how_to_resume(cfg: DictConfig) -> None:
    last = Path(cfg.output_dir) / "last.ckpt"
    if cluster.job() is not None:
        log.info("\nstopped in Slurm's job %s; if Slurm starts that again, it goes on by itself", cluster.job())
    if not last.is_file():
        log.info("stopped before the first epoch was over: there is nothing to resume")
        return
    started = ("ckpt_path=", "output_dir=", "init_from=")
    given = [o for o in HydraConfig.get().overrides.task if not o.lstrip("+").startswith(started)]
    again = ["init_from=null"] if cfg.stage == "finetune" else []
    where = [f"output_dir={quoted(Path(cfg.output_dir))}", f"ckpt_path={quoted(last)}"]
    command = shlex.join(["python", "train.py", *given, *again, *where])
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        given = [a for a in sys.argv[1:] if not a.startswith(("hydra.sweep.dir=", "ckpt_path="))]
        sweep = f"hydra.sweep.dir={quoted(Path(cfg.output_dir).parent)}"
        command = shlex.join(["python", "train.py", *given, sweep, "ckpt_path=last"])
    log.info("\nstopped; nothing that was saved is lost. Go on with: %s", command)  # the progress bar ends without one


def typed() -> str:
    return shlex.join(["python", "train.py", *HydraConfig.get().overrides.task])


def plain(node: Any) -> Any:
    """A configuration node as dicts, lists and numbers."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


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
