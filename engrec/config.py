"""The schema of what no part owns, and everything that can be said about a configuration before anything is built."""

import difflib
import inspect
import logging
import math
import netrc
import os
import pkgutil
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlparse

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from engrec.machine import cluster

# Hydra hands exceptions on instead of printing them, so that errors_in_one_line can say them its way.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")

CONF = Path(__file__).parents[1] / "conf"
log = logging.getLogger(__name__)

STAGES = ("pretrain", "finetune", "scratch", "test")
TTA = ("none", "flip", "ten_crop")
ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
REMEDY = {
    "init_from": "the expression checkpoint to start from: init_from=outputs/pretrain/…/best.ckpt (or stage=scratch)",
    "ckpt_path": "the checkpoint to test: ckpt_path=outputs/…/best.ckpt",
    "dataset.path": "the prepared file: dataset.path=data/NAME.npz (python scripts/prepare.py makes one)",
}


@dataclass
class Config:
    """The values of conf/config.yaml. What starts missing is filled by the user, or nulled by the stages without it."""

    stage: str = MISSING
    task: str | None = MISSING
    seed: int = 0
    batch_size: int = 128
    max_epochs: int = MISSING
    monitor: str = MISSING
    init_from: str | None = MISSING
    ckpt_path: str | None = MISSING
    tta: str = "none"
    run: str = MISSING
    output_dir: str = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    split: Any = MISSING
    augment: Any = MISSING
    optimizer: Any = MISSING
    lr_scheduler: Any = MISSING
    module: Any = MISSING
    callbacks: Any = MISSING
    trainer: Any = MISSING
    speed: Any = MISSING
    logger: Any = MISSING


def logged_in(variable: str, url: str) -> bool:
    """Whether this user has a key for the service at `url`: in the environment variable, or in the netrc file."""
    if os.environ.get(variable):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(url).hostname or url) is not None
    except (OSError, netrc.NetrcParseError):
        return False


ConfigStore.instance().store(name="schema", node=Config)
# Hydra copies the whole store for each group that --help lists, half of its time; what it loads, it copies anyway.
ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]
OmegaConf.register_new_resolver("logged_in", logged_in, replace=True)
OmegaConf.register_new_resolver("run_name", cluster.run_name, replace=True)
# Kept once it is known, as Hydra keeps its "now": trials are resolved elsewhere, and later.
OmegaConf.register_new_resolver("sweep_name", cluster.sweep_name, replace=True, use_cache=True)
OmegaConf.register_new_resolver("not", lambda value: not value, replace=True)
OmegaConf.register_new_resolver("mode", lambda monitor: "min" if monitor.endswith("loss") else "max", replace=True)


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that train.py would have with these overrides, for commands that Hydra does not start; what was
    chosen in each group is known to HydraConfig."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def check(cfg: DictConfig) -> None:
    """Raise ValueError, all on one line, for what is missing, unknown or contradictory in a composed configuration."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError("missing " + "; ".join(f"{key}, {REMEDY.get(key, f'set it with {key}=…')}" for key in missing))
    if problems := [*_values(cfg), *_combinations(cfg), *_signatures(cfg)]:
        raise ValueError("; ".join(problems))


def _values(cfg: DictConfig) -> Iterator[str]:
    for key in ("batch_size", "max_epochs"):
        if cfg[key] < 1:
            yield f"{key}={cfg[key]} must be at least 1"
    if not 0 <= cfg.seed < 2**32:
        yield f"seed={cfg.seed} must be from 0 to {2**32 - 1}"
    if cfg.stage not in STAGES:
        yield f"stage={cfg.stage} is none of {', '.join(STAGES)}"
    if cfg.tta not in TTA:
        yield f"tta={cfg.tta} is none of {', '.join(TTA)}"
    for key in ("init_from", "ckpt_path"):
        if cfg[key] is not None and not Path(cfg[key]).is_file():
            meant = nearest(cfg[key], ["last"] if key == "ckpt_path" and cfg.stage != "test" else [])
            yield f"{key}={cfg[key]} is not a file{meant or _checkpoints_nearby(Path(cfg[key]))}"
    if not re.fullmatch(r"val/(accuracy|balanced_accuracy|f1|auc|loss)", cfg.monitor):
        yield f"monitor={cfg.monitor} is not logged; allowed: val/ with accuracy, balanced_accuracy, f1, auc or loss"


def _checkpoints_nearby(path: Path) -> str:
    folder = next((p for p in (path, *path.parents) if p.is_dir()), Path())
    found = sorted(folder.rglob("best.ckpt"), key=lambda p: p.stat().st_mtime)[-3:] if folder != Path() else []
    return f"; there are {', '.join(map(str, found))}" if found else ""


def _combinations(cfg: DictConfig) -> Iterator[str]:
    if cfg.init_from is not None and cfg.ckpt_path is not None:
        yield "init_from starts a training and ckpt_path goes on with one: type init_from=null or ckpt_path=null"
    elif cfg.init_from is not None and cfg.stage == "test":
        yield "stage=test uses ckpt_path alone: type init_from=null"
    elif cfg.ckpt_path is not None and cfg.stage != "test" and Path(cfg.ckpt_path).is_file():
        folder = Path(cfg.ckpt_path).parent
        if folder.resolve() != Path(cfg.output_dir).resolve():
            yield f"a training goes on in the folder that has its best.ckpt: type output_dir={folder}"
    elif cfg.stage == "scratch" and cfg.module.get("freeze_backbone"):
        yield "stage=scratch with a frozen backbone would learn from random features: type stage=finetune init_from=…"
    elif cfg.init_from is None and cfg.stage == "finetune" and cfg.ckpt_path is None:
        yield "stage=finetune needs init_from=outputs/pretrain/…/best.ckpt; without one it is stage=scratch"


def _signatures(cfg: DictConfig) -> Iterator[str]:
    """Each `_target_` node against the signature of what it names."""
    for key, node in _targets(cfg):
        try:
            parameters = inspect.signature(pkgutil.resolve_name(node["_target_"])).parameters
        except Exception as error:
            yield f"{key}._target_={node['_target_']} cannot be imported ({error})"
            continue
        for name in map(str, node):
            if name.startswith("_"):
                continue
            if name not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                yield f"{key}.{name} is unknown{nearest(name, parameters)}; {key} takes {', '.join(parameters)}"
            elif name in parameters and isinstance(node[name], str) and _is_number(parameters[name].default):
                yield f"{key}.{name}={node[name]} is not a number"
            elif isinstance(node[name], float) and math.isnan(node[name]):
                yield f"{key}.{name}=nan is not a number"


def _is_number(default: Any) -> bool:
    return type(default) in (int, float)


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield key, node
        for name in node:
            yield from _targets(node._get_node(name), f"{key}.{name}".lstrip("."))


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
    """Turn what a user can get wrong into one line and exit status 1; hydra.verbose=true shows the traceback too."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not _is_users(error):
            raise
        if any(argument.startswith("hydra.verbose=") for argument in sys.argv):
            traceback.print_exc()
        sys.exit(f"error: {explain(error)}")


@contextmanager
def errors_wait_for_the_others() -> Iterator[None]:
    """Say what is wrong with a trial, and raise it again: Hydra ends with it when the sweep's other trials are over."""
    from hydra.core.hydra_config import HydraConfig

    try:
        yield
    except Exception as error:
        if not _is_users(error):
            raise
        told = f"trial {HydraConfig.get().job.num}: {explain(error)}"
        log.error("%s", told)
        raise ValueError(told) from error


@contextmanager
def every_error_named() -> Iterator[None]:
    """Hydra raises the error of the first trial that failed; its sweeper, a frame of the traceback, has all results."""
    from hydra.core.utils import JobStatus

    try:
        yield
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        sweep = next((f.f_locals for f in frames if f.f_code.co_qualname == "BasicSweeper.sweep"), {})
        failed = [r for r in sweep.get("results", ()) if r.status is JobStatus.FAILED]
        for result in failed[:-1]:
            trial = f"trial {result.hydra_cfg.hydra.job.num}: "
            print(f"error: {trial}{explain(result._return_value).removeprefix(trial)}", file=sys.stderr)
        raise failed[-1]._return_value if failed else error  # noqa: B904 (each has its own cause)


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
        return f"there is no {key} in the configuration{_nearest_key(key)}"
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


def _nearest_key(key: str) -> str:
    """The known key nearest to a misspelt one: a key of the default configuration, or a config group."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    groups = [
        argument for argument in sys.argv[1:] if re.fullmatch(r"(model|dataset|split|optimizer|stage)=\w+", argument)
    ]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            known = _keys(compose("config", groups))
    except Exception:
        return ""
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    allowed = f"; {section or 'at the top'} has {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else ""
    return nearest(key, siblings) or nearest(key, known) or allowed


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, DictConfig) or node._is_missing() or node._is_none():
        return []
    return [k for name in node for k in (f"{prefix}{name}", *_keys(node._get_node(name), f"{prefix}{name}."))]


@contextmanager
def signals_end_the_run(**more: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and kill leave the run as an exception does, with the exit status that a signal gives: 130 and 143.

    Lightning would make 1 of the KeyboardInterrupt that Python raises. A signal that is ignored, as Ctrl-C is by a
    shell's background job, stays ignored. more: what is done first at other signals, by their names.
    """
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    for name, first in more.items():

        def stop_after(signum: int, frame: Any, first: Callable[[], None] = first) -> None:
            first()
            stop(signum, frame)

        number = signal.Signals[name]
        before.setdefault(number, signal.signal(number, stop_after))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(signum: int, _: Any) -> NoReturn:
    sys.exit(128 + signum)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that end the run wait until this is done, so that it is done whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda signum, _: came.append(signum)) for n in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
