"""The schema of the configuration, and its check: everything wrong is reported before anything is built."""

import inspect
import logging
import math
import netrc
import os
import pkgutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from engrec.errors import CONF, nearest
from engrec.machine import cluster, gpus

log = logging.getLogger(__name__)

STAGES = ("pretrain", "finetune", "scratch", "test")
TTA = ("none", "flip", "ten_crop", "ten_crop_zoom")
REMEDY = {
    "init_from": "the expression checkpoint to start from: init_from=outputs/pretrain/…/best.ckpt (or stage=scratch)",
    "ckpt_path": "the checkpoint to test: ckpt_path=outputs/…/best.ckpt",
    "split.fold": "the part to test: split.fold=0 (all of them, one after another: -m 'split.fold=range(N)')",
    "dataset.path": "the prepared file: dataset.path=data/NAME.npz (python scripts/prepare.py makes one)",
}


@dataclass
class Config:
    """The values of conf/config.yaml. Missing values are set by the user, or to null by the stages that do not need
    them."""

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
    mixup: Any = MISSING
    optimizer: Any = MISSING
    lr_scheduler: Any = MISSING
    module: Any = MISSING
    callbacks: Any = MISSING
    trainer: Any = MISSING
    speed: Any = MISSING
    logger: Any = MISSING


def logged_in(variable: str, url: str) -> bool:
    """Whether the user has a key for the service at `url`: in the environment variable, or in the netrc file."""
    if os.environ.get(variable):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(url).hostname or url) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Registered:
    """Registers the schema with Hydra and the resolvers of conf/ with OmegaConf: on creation, and again when it is
    unpickled in a process of a sweep, where it arrives with the function to run."""

    def __init__(self) -> None:
        # Hydra then raises exceptions instead of printing them; errors_in_one_line prints them.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        ConfigStore.instance().store(name="schema", node=Config)
        resolvers: dict[str, Callable[..., Any]] = {
            "logged_in": logged_in,
            "run_name": cluster.run_name,
            "num_gpus": lambda: len(gpus.visible()) or 1,
            "not": lambda value: not value,
            "mode": mode,
        }
        for name, function in resolvers.items():
            OmegaConf.register_new_resolver(name, function, replace=True)
        # Cached, as Hydra caches its "now": trials are resolved in other processes, and later.
        OmegaConf.register_new_resolver("sweep_name", cluster.sweep_name, replace=True, use_cache=True)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that train.py would have with these overrides, for commands that Hydra does not start.

    HydraConfig then has the option that was chosen in each group.
    """
    from hydra import compose, initialize_config_dir

    Registered()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def composed_dataset(overrides: Sequence[str]) -> Any:
    """The data set that train.py would use with these overrides. Raises ValueError where it is not complete."""
    cfg = composed(overrides)
    check_missing(cfg.dataset)
    return instantiate(cfg.dataset, _convert_="all")


def check_missing(node: DictConfig, optional: Collection[str] = ()) -> None:
    """Raise ValueError, with what to set, for the values that are missing in a node of the configuration."""
    if missing := sorted(OmegaConf.missing_keys(node) - set(optional)):
        raise ValueError("missing " + "; ".join(f"{key}, {REMEDY.get(key, f'set it with {key}=…')}" for key in missing))


def check(cfg: DictConfig) -> None:
    """Raise ValueError, all on one line, for what is missing, unknown or contradictory in a composed configuration."""
    check_missing(cfg)
    if problems := [*_values(cfg), *_combinations(cfg), *_signatures(cfg)]:
        raise ValueError("; ".join(problems))


def mode(monitor: str) -> str:
    """Whether the smallest or the largest value of a metric is the best."""
    from engrec.metrics import higher_is_better

    return "max" if higher_is_better(monitor) else "min"


def _values(cfg: DictConfig) -> Iterator[str]:
    for key in ("batch_size", "max_epochs"):
        if cfg[key] < 1:
            yield f"{key}={cfg[key]} must be at least 1"
    if not 0 <= cfg.seed < 2**32:
        yield f"seed={cfg.seed} must be from 0 to {2**32 - 1}"
    if cfg.stage not in STAGES:
        yield f"stage={cfg.stage} must be one of {', '.join(STAGES)}"
    if cfg.tta not in TTA:
        yield f"tta={cfg.tta} must be one of {', '.join(TTA)}"
    for key in ("init_from", "ckpt_path"):
        if cfg[key] is not None and not Path(cfg[key]).is_file():
            meant = nearest(cfg[key], ["last"] if key == "ckpt_path" and cfg.stage != "test" else [])
            yield f"{key}={cfg[key]} is not a file{meant or _checkpoints_nearby(Path(cfg[key]))}"
    from engrec.metrics import logged  # imported here: numpy would delay --help

    if cfg.monitor not in (allowed := [f"val/{key}" for key in logged()]):
        yield f"monitor={cfg.monitor} must be one of {', '.join(allowed)}"


def _checkpoints_nearby(path: Path) -> str:
    folder = next((p for p in (path, *path.parents) if p.is_dir()), Path())
    found = sorted(folder.rglob("best.ckpt"), key=lambda p: p.stat().st_mtime)[-3:] if folder != Path() else []
    return f"; there are {', '.join(map(str, found))}" if found else ""


def _combinations(cfg: DictConfig) -> Iterator[str]:
    if cfg.init_from is not None and cfg.ckpt_path is not None:
        yield "init_from starts a training and ckpt_path resumes one: set init_from=null or ckpt_path=null"
    elif cfg.init_from is not None and cfg.stage == "test":
        yield "stage=test uses only ckpt_path: set init_from=null"
    elif cfg.ckpt_path is not None and cfg.stage != "test" and Path(cfg.ckpt_path).is_file():
        folder = Path(cfg.ckpt_path).parent
        if folder.resolve() != Path(cfg.output_dir).resolve():
            yield f"a training resumes in the folder of its best.ckpt: set output_dir={folder}"
    elif cfg.stage == "scratch" and cfg.module.get("freeze_backbone"):
        yield "stage=scratch with a frozen backbone would learn from random features: set stage=finetune init_from=…"
    elif cfg.init_from is None and cfg.stage == "finetune" and cfg.ckpt_path is None:
        yield "stage=finetune needs init_from=outputs/pretrain/…/best.ckpt; without a checkpoint use stage=scratch"


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
