"""The resolved run: what it starts from, where it writes, what this machine chose. The configuration stops here."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from engrec import checkpoint
from engrec.config import check
from engrec.errors import CONF, quoted
from engrec.machine import cluster
from engrec.machine.hardware import AUTOCAST, Speed, accelerator_type, choose, fuses, keep_memory, usable
from engrec.runs import folder as run_folder
from engrec.runs.settings import differences

chosen_once = cache(choose)  # so that all runs of a sweep in one process have the same


@dataclass(frozen=True)
class Fresh:
    """Random weights."""


@dataclass(frozen=True)
class Backbone:
    """The backbone of a checkpoint of stage 1."""

    path: str
    saved: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Resume:
    """The last checkpoint of this run."""

    path: str
    saved: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Test:
    """A checkpoint that is tested and not trained."""

    path: str
    saved: dict[str, Any] = field(repr=False)


Start = Fresh | Backbone | Resume | Test


@dataclass(frozen=True)
class Command:
    """What was typed. choices: the option of each config group; number: of a run of a sweep (-m), or None;
    folder: the run's, as Hydra opened it; names_folder: whether the user chose that folder.

    As text, it can be pasted into a shell, and makes this run again: that of a sweep alone, in its own folder."""

    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    number: int | None
    folder: Path | None
    names_folder: bool

    def __str__(self) -> str:
        given = self.overrides
        if self.number is not None:
            given = (*map(_unescaped, given), f"output_dir={quoted(str(self.folder))}")
        return shlex.join(["python", "train.py", *given])

    @property
    def folder_key(self) -> str:
        """What to set for another folder."""
        return "output_dir" if self.number is None else "hydra.sweep.dir"

    def gives(self, key: str) -> bool:
        return any(override.lstrip("+").startswith(f"{key}=") for override in self.overrides)


def _unescaped(override: str) -> str:
    """As one types it: Hydra escapes the colons of a sweep's values, which need that in lists and mappings alone."""
    return override if set("'\"[{") & set(override) else re.sub(r"(\\\\)|\\:", lambda x: x[1] or ":", override)


def command() -> Command:
    """The command that Hydra has parsed."""
    hydra = HydraConfig.get()
    opened = OmegaConf.select(cast(DictConfig, hydra), "runtime.output_dir")
    folder = None if opened is None else Path(opened)
    if folder is not None and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    task, own = _unresolved(hydra.overrides.task), _unresolved(hydra.overrides.hydra)
    typed = [override.lstrip("+") for override in (*task, *own)]
    return Command(
        task,
        {str(group): option for group, option in hydra.runtime.choices.items()},
        hydra.job.num if hydra.mode is RunMode.MULTIRUN else None,
        folder,
        any(override.startswith(("output_dir=", "hydra.sweep.dir=")) for override in typed),
    )


def _unresolved(overrides: Any) -> tuple[str, ...]:
    """As they were typed: an interpolation in them is resolved in the configuration alone."""
    return tuple(cast(list[str], OmegaConf.to_container(overrides, resolve=False)))


@dataclass(frozen=True)
class Plan:
    """A run in which nothing is open: no missing value, no "auto", no "last".

    start: what it starts from; resumed: whether its folder held it already; why: what precision and layout were chosen
    by. config: everything, as config.yaml has it, dicts and numbers: the nodes of model, dataset, split and so on;
    before: the same as it was when a resumed run was stopped, else empty.
    """

    command: Command
    folder: Path
    stage: str
    task: str
    start: Start
    resumed: bool
    speed: Speed
    why: str
    config: dict[str, Any] = field(repr=False)
    before: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def trains(self) -> bool:
        return not isinstance(self.start, Test)

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def strategy(self) -> Any:
        """The class of its split."""
        return get_object(self.config["split"]["_target_"])

    @property
    def leaks(self) -> bool:
        """Whether its split puts the same people into train, validation and test on purpose."""
        return self.strategy.leaks


class Finished(NamedTuple):
    """A run whose folder holds its results already."""

    metrics: dict[str, float]


def plan(cfg: DictConfig) -> Plan | Finished:
    """Check the configuration and resolve it. Raises ValueError, in the user's words, for whatever is wrong with it."""
    typed, cfg = command(), cfg.copy()
    check_one_option(typed)
    folder = typed.folder or Path(cfg.output_dir)
    if folder == Path() and not (typed.gives("output_dir") and cfg.output_dir):
        raise ValueError("output_dir is empty: set output_dir=outputs/NAME, or leave it out")
    cfg.output_dir = str(folder)
    cfg.trainer.precision = usable(cfg.trainer.precision, accelerator_type(cfg.trainer.accelerator))
    cluster.check_tasks(cfg.trainer.devices, cfg.trainer.num_nodes)
    resumed = resolve_resuming(cfg, folder, typed)
    if resumed and (folder / "result.json").is_file():
        return Finished(run_folder.finished(folder))
    check(cfg)
    check_sweep(cfg, typed)
    start = read_start(cfg)
    if not isinstance(start, Resume):
        check_not_overwriting(folder, typed)
    before = run_folder.config_of(folder) if isinstance(start, Resume) else {}
    why = choose_for_machine(cfg, before)
    if isinstance(start, Test):
        cfg.task = checkpoint.task_of(start.saved)
    config = plain(cfg)
    if isinstance(start, Test):  # after the configuration is resolved: a checkpoint could ask for environment variables
        config["model"] = start.saved["hyper_parameters"]["model"]
    if before:
        config["init_from"] = before.get("init_from")  # a resumed run started there all the same
    return Plan(typed, folder, cfg.stage, cfg.task, start, resumed, instantiate(config["speed"]), why, config, before)


def resolve_resuming(cfg: DictConfig, folder: Path, typed: Command) -> bool:
    """Whether the folder holds this run already: ckpt_path=last asks for that, and so does a job that Slurm has started
    again. Its last checkpoint, if there is one, then takes the place of what it starts from.

    Raises ValueError where the folder holds another run.
    """
    given = OmegaConf.select(cfg, "ckpt_path")  # None where it is missing, which check reports
    if cfg.stage == "test":
        if given == "last":
            raise ValueError("ckpt_path=last resumes training. To test, give a file: ckpt_path=outputs/…/best.ckpt")
    elif given == "last":
        cfg.ckpt_path = None
        automatic = cluster.job() or cluster.launched()
        if not (typed.names_folder or automatic or (folder / "config.yaml").is_file()):
            raise ValueError(f"ckpt_path=last needs a fixed folder to resume from: add {typed.folder_key}=outputs/NAME")
    asked = (given == "last" and cfg.stage != "test") or cluster.restarted()
    if not asked or not (folder / "config.yaml").is_file():
        return False
    if found := differences(plain(cfg), run_folder.config_of(folder)):
        advice = f"resume it with its own settings, or choose another {typed.folder_key}"
        raise ValueError(f"{folder} holds another run, {found[0]}: {advice}")
    if cfg.stage != "test" and (folder / "last.ckpt").is_file():
        cfg.ckpt_path, cfg.init_from = str(folder / "last.ckpt"), None
    return True


def read_start(cfg: DictConfig) -> Start:
    """What the run starts from, read from the disk once."""
    if cfg.stage == "test":
        return Test(cfg.ckpt_path, checkpoint.read(cfg.ckpt_path))
    if cfg.ckpt_path is not None:
        return Resume(cfg.ckpt_path, checkpoint.read(cfg.ckpt_path))
    return Fresh() if cfg.init_from is None else Backbone(cfg.init_from, checkpoint.read(cfg.init_from))


def check_one_option(typed: Command) -> None:
    """Raise ValueError for a list of options, of which Hydra would merge the values."""
    for override in typed.overrides:
        group = override.partition("=[")[0].lstrip("+")
        if group != override and (CONF / group).is_dir():
            raise ValueError(f"{override} is a list: a run has one {group}; -m {group}=A,B runs one after another")


def check_sweep(cfg: DictConfig, typed: Command) -> None:
    """Raise ValueError where each process of a distributed run would start the whole sweep again, and for a folder that
    all its runs would share."""
    if typed.number is None:
        return
    if typed.gives("output_dir"):
        raise ValueError(
            "each run of a sweep has its own folder: set hydra.sweep.dir= for the sweep's, not output_dir="
        )
    if str(cfg.trainer.devices) not in ("1", "auto"):
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices} in a sweep would start the sweep on each device; "
            "give each run one: trainer.devices=1"
        )


def check_not_overwriting(folder: Path, typed: Command) -> None:
    """Raise ValueError where another run's results or its last checkpoint would be lost."""
    if (folder / "result.json").is_file():
        raise ValueError(f"{folder} holds a finished run: choose another {typed.folder_key}, or remove that folder")
    if (folder / "last.ckpt").is_file():
        raise ValueError(
            f"{folder} holds a run that was stopped: resume it with ckpt_path=last, choose another "
            f"{typed.folder_key}, or remove that folder"
        )


def choose_for_machine(cfg: DictConfig, before: Mapping[str, Any] | None = None) -> str:
    """Put in the place of "auto" what this machine does well, and say why; before: the configuration of a run that is
    resumed, which keeps what it had; else empty."""
    speed: Speed = instantiate(cfg.speed)
    if speed.keep_memory:
        keep_memory()
    for group, key in (("trainer", "precision"), ("speed", "memory_format"), ("speed", "fused_optimizer")):
        value = ((before or {}).get(group) or {}).get(key)
        if cfg[group][key] == "auto" and isinstance(value, bool | str) and re.fullmatch(r"[\w-]+", str(value)):
            cfg[group][key] = value  # a foreign file may ask for environment variables in it
    device, alone = accelerator_type(cfg.trainer.accelerator), str(cfg.trainer.devices) == "1"
    if device == "cpu" and str(cfg.trainer.devices) == "-1":
        raise ValueError("trainer=ddp uses all GPUs and there is none: set trainer.devices=2 for two processes")
    choice = chosen_once(device, str(cfg.trainer.precision), cfg.speed.memory_format, alone)
    cfg.trainer.precision, cfg.speed.memory_format = choice.precision, choice.memory_format
    clips = bool(cfg.trainer.get("gradient_clip_val"))
    if cfg.speed.fused_optimizer == "auto":
        cfg.speed.fused_optimizer = fuses(cfg.optimizer, choice.precision, clips)
    elif cfg.speed.fused_optimizer and clips and choice.precision in AUTOCAST:
        raise ValueError(
            f"gradients are not clipped in {choice.precision} with speed.fused_optimizer=true: "
            "set speed.fused_optimizer=false"
        )
    return "as before it was stopped" if before else choice.why


def plain(node: Any) -> Any:
    """A configuration node as dicts, lists and numbers."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
