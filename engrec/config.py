"""The schema of the configuration, and its check: everything wrong is reported before anything is built."""

import inspect
import logging
import netrc
import os
import pkgutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlparse

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from engrec.errors import CONF, CheckpointError, nearest, quoted
from engrec.machine import cluster, gpus
from engrec.ranges import Count, NotNegative, Positive, Probability, Range, expected, problems
from engrec.weights_file import SUFFIX, is_shipped, located

log = logging.getLogger(__name__)

STAGES = ("pretrain", "finetune", "scratch", "test")
TTA = ("none", "flip", "ten_crop", "ten_crop_zoom")
BALANCE = ("subject", None)
REMEDY = {
    "init_from": "the expression checkpoint to start from: init_from=outputs/pretrain/…/best.ckpt, or "
    "init_from=engrec:expressions model=resnet_small (or stage=scratch)",
    "ckpt_path": "the checkpoint to test: ckpt_path=outputs/…/best.ckpt",
    "split.fold": "the part to test: split.fold=0 (all of them, one after another: -m 'split.fold=range(N)')",
    "distill.runs": "the teachers' runs: distill.runs=outputs/teachers (train.py -m split=teachers … makes them)",
    "dataset.path": "the prepared file: dataset.path=data/NAME.npz (python scripts/prepare.py makes one)",
}

# Arguments of classes that are not ours; ours have the ranges in their signatures.
LIMITS: dict[str, Any] = {
    "optimizer.lr": Positive,
    "optimizer.momentum": Probability,
    "optimizer.weight_decay": NotNegative,
    "lr_scheduler.gamma": Annotated[float, Range(0, 1, above=True)],
    "lr_scheduler.factor": Annotated[float, Range(0, 1, above=True, below=True)],
    "lr_scheduler.patience": Annotated[int, Range(0, whole=True)],
    "callbacks.early_stopping.patience": Annotated[int, Range(0, whole=True)],
    "callbacks.early_stopping.min_delta": NotNegative,
    "trainer.devices": Annotated[int, Range(1, 1024, whole=True)] | Literal[-1, "auto"] | Sequence[int],
    "trainer.num_nodes": Annotated[int, Range(1, 1024, whole=True)],
    "trainer.gradient_clip_val": Positive | None,  # pyright: ignore[reportOperatorIssue]
    "trainer.max_epochs": Count,
    "trainer.limit_train_batches": Positive,
    "trainer.limit_val_batches": Positive,
    "trainer.accumulate_grad_batches": Count,
    "trainer.precision": Literal["auto", "32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16", 32, 16],
}
# With these, an epoch could end without a validation or a checkpoint, or the test before its last image.
NOT_OURS = (
    "barebones", "check_val_every_n_epoch", "fast_dev_run", "limit_test_batches", "max_steps", "max_time",
    "overfit_batches", "val_check_interval",
)  # fmt: skip
# With others, callbacks.best and callbacks.last would not be written after every epoch.
SAVED = {
    "save_on_train_epoch_end": (True,), "every_n_epochs": (None, 1), "every_n_train_steps": (None, 0),
    "train_time_interval": (None,),
}  # fmt: skip


@dataclass
class Config:
    """The values of conf/config.yaml. Missing values are set by the user, or to null by the stages that do not need
    them."""

    stage: str = MISSING
    task: str | None = MISSING
    seed: int = 0
    batch_size: int = 128
    balance: str | None = None
    max_epochs: int = MISSING
    monitor: str = MISSING
    init_from: str | None = MISSING
    ckpt_path: str | None = MISSING
    tta: str = "none"
    selected: Any = None
    run: str = MISSING
    output_dir: str = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    split: Any = MISSING
    augment: Any = MISSING
    mixup: Any = MISSING
    distill: Any = MISSING
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


def groups() -> str:
    """A line for each group that train.py takes, with its options. Hydra's own list has conf/sweep too, of
    scripts/sweep.py, and takes a folder inside a group for another one."""
    lines = []
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "sweep")):
        options = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        lines.append(f"{folder.name}: {', '.join(options)}")
    return "\n".join(lines)


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
            "groups": groups,
            "not": lambda value: not value,
            "mode": mode,
        }
        for name, function in resolvers.items():
            OmegaConf.register_new_resolver(name, function, replace=True)
        # Cached, as Hydra caches its "now": runs of a sweep are resolved in other processes, and later.
        OmegaConf.register_new_resolver("sweep_name", cluster.sweep_name, replace=True, use_cache=True)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that train.py would have with these overrides, for commands that Hydra does not start.

    HydraConfig then has the option that was chosen in each group.
    """
    from hydra import compose, initialize_config_dir

    Registered()
    started = GlobalHydra.instance().is_initialized()  # by train.py, before the first run of a sweep
    with nullcontext() if started else initialize_config_dir(str(CONF), version_base="1.3"):
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
    nodes = ("model", "dataset", "split", "augment", "optimizer", "callbacks", "trainer", "speed")
    if null := [name for name in (*nodes, *(["module"] if cfg.stage != "test" else [])) if cfg[name] is None]:
        raise ValueError(f"{null[0]}=null: a run cannot do without it, remove the override")
    if problems := [*_values(cfg), *_combinations(cfg), *_signatures(cfg)]:
        raise ValueError("; ".join(problems))
    _check_constructors(cfg)


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
    if not str(cfg.output_dir).strip():
        yield "output_dir is empty: set output_dir=outputs/NAME, or leave it out"
    if cfg.stage not in STAGES:
        yield f"stage={cfg.stage} must be one of {', '.join(STAGES)}"
    if cfg.tta not in TTA:
        yield f"tta={cfg.tta} must be one of {', '.join(TTA)}"
    if cfg.balance not in BALANCE:
        yield f"balance={cfg.balance} must be subject or null"
    for key in ("init_from", "ckpt_path"):
        if cfg[key] is not None and (problem := _file_problem(key, cfg)):
            yield problem
    from engrec.metrics import logged  # imported here: numpy would delay --help

    if cfg.monitor not in (allowed := [f"val/{key}" for key in logged()]):
        yield f"monitor={cfg.monitor} must be one of {', '.join(allowed)}"
    for name, node in cfg.callbacks.items():
        monitor = node.get("monitor") if OmegaConf.is_dict(node) else None
        if monitor not in (None, *allowed, *(f"train/{key}" for key in logged())):
            yield f"callbacks.{name}.monitor={monitor} must be one of {', '.join(allowed)}"


def _file_problem(key: str, cfg: DictConfig) -> str:
    """What is wrong with the path or name of a checkpoint; empty if it is a file."""
    try:
        if located(cfg[key]).is_file():
            return ""
    except CheckpointError as error:
        return f"{key}={error}"
    meant = nearest(cfg[key], ["last"] if key == "ckpt_path" and cfg.stage != "test" else [])
    return f"{key}={cfg[key]} is not a file{meant or _checkpoints_nearby(Path(cfg[key]))}"


def _checkpoints_nearby(path: Path) -> str:
    folder = next((p for p in (path, *path.parents) if p.is_dir()), Path())
    found = sorted(folder.rglob("best.ckpt"), key=lambda p: p.stat().st_mtime)[-3:] if folder != Path() else []
    return f"; there are {', '.join(map(str, found))}" if found else ""


def _combinations(cfg: DictConfig) -> Iterator[str]:
    if problem := _start_problem(cfg):
        yield problem
    if cfg.batch_size == 1 and cfg.model.get("norm") == "batch" and cfg.model.get("dense"):
        yield "batch_size=1 leaves batch normalisation nothing to average over: set batch_size=2 or more"
    if cfg.optimizer.get("nesterov") and cfg.optimizer.get("momentum") == 0:
        yield "optimizer.momentum=0 leaves Nesterov momentum nothing to do: set optimizer.nesterov=false"
    if cfg.distill and cfg.stage != "pretrain":
        yield f"distill=teachers is for stage=pretrain: set distill=none for stage={cfg.stage}"
    elif cfg.distill and not cfg.module.get("soft_labels"):
        yield "distill=teachers makes soft labels: do not set module.soft_labels=false"
    for name in ("best", "last"):  # the first is tested, the second resumed
        node = cfg.callbacks.get(name)
        if not node or (node.get("filename"), str(node.get("dirpath"))) != (name, str(cfg.output_dir)):
            yield f"callbacks.{name} must write {name}.ckpt into output_dir: do not change its filename and dirpath"
        yield from (
            f"callbacks.{name}.{key} could leave an epoch without a checkpoint: remove it"
            for key, value in (node or {}).items()
            if value not in SAVED.get(key, [value])
        )
    best = cfg.callbacks.get("best")
    given = best and (best.get("monitor"), best.get("mode"), best.get("save_top_k", 1))
    if best and given != (cfg.monitor, mode(cfg.monitor), 1):
        yield "callbacks.best must keep the best epoch by monitor: set monitor=, not its monitor, mode or save_top_k"
    for key in NOT_OURS:
        if key in cfg.trainer:
            yield (
                f"trainer.{key} could leave an epoch without validation or checkpoint, or test images out: remove it "
                "(max_epochs= sets how long to train)"
            )
    for name, node in cfg.callbacks.items():
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            yield f"callbacks.{name} must be a node with a _target_, as in conf/callbacks; ~callbacks.{name} removes it"
    for name in ("lr_scheduler", "mixup", "distill"):
        if cfg[name] and "_target_" not in cfg[name]:
            keys = ", ".join(f"{name}.{key}" for key in cfg[name])
            yield f"{keys} has no effect with {name}=none: leave it out, or choose another option of {name}"
    if cfg.logger and "_target_" not in cfg.logger:
        yield f"logger.{next(iter(cfg.logger))} needs a logger: set logger=tensorboard or logger=wandb"


def _start_problem(cfg: DictConfig) -> str:
    """What is contradictory in what a run starts from; empty if nothing is."""
    if cfg.init_from is not None and cfg.ckpt_path is not None:
        return "init_from starts a training and ckpt_path resumes one: set init_from=null or ckpt_path=null"
    if cfg.init_from is not None and cfg.stage == "test":
        return "stage=test uses only ckpt_path: set init_from=null"
    if cfg.init_from is not None and cfg.stage == "scratch":
        return "stage=scratch starts from random weights: leave out init_from=, or set stage=finetune"
    if cfg.ckpt_path is not None and cfg.stage != "test" and _has_only_weights(cfg.ckpt_path):
        return f"ckpt_path={cfg.ckpt_path} has only weights: fine-tune from them with init_from={cfg.ckpt_path}"
    if cfg.ckpt_path is not None and cfg.stage != "test" and Path(cfg.ckpt_path).is_file():
        folder = Path(cfg.ckpt_path).parent
        same = folder.resolve() == Path(cfg.output_dir).resolve()
        return "" if same else f"a training resumes in the folder of its best.ckpt: set output_dir={quoted(folder)}"
    if cfg.stage == "scratch" and (problem := _pretrained_problem(cfg.module)):
        return f"{problem}: set stage=finetune init_from=…"
    if cfg.init_from is None and cfg.stage == "finetune" and cfg.ckpt_path is None:
        return "stage=finetune needs init_from=outputs/pretrain/…/best.ckpt; without a checkpoint use stage=scratch"
    return ""


def _has_only_weights(path: str) -> bool:
    return is_shipped(path) or Path(path).suffix == SUFFIX


def _pretrained_problem(module: DictConfig) -> str:
    """What asks for pre-trained weights where there are none; empty if nothing does."""
    if module.get("freeze_backbone") == "statistics":
        return "stage=scratch with module.freeze_backbone=statistics has no pre-trained statistics to keep"
    if module.get("freeze_backbone"):
        return "stage=scratch with a frozen backbone would learn from random features"
    return "stage=scratch with module.l2_sp would stay near random weights" if module.get("l2_sp") else ""


def _signatures(cfg: DictConfig) -> Iterator[str]:
    """Each `_target_` node against the signature of what it names."""
    for key, node in _targets(cfg):
        try:
            target = pkgutil.resolve_name(node["_target_"])
            parameters = inspect.signature(target).parameters
        except Exception as error:
            yield f"{key}._target_={node['_target_']} cannot be imported ({error})"
            continue
        values = {name: value for name, value in _plain(node).items() if name != "_target_"}
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in values:
            if name.startswith("_") or (name not in parameters and not takes_all):
                yield f"{key}.{name} is unknown{nearest(name, parameters)}; {key} takes {', '.join(parameters)}"
        if node["_target_"].startswith("engrec."):
            yield from problems(target, values, key)
            continue
        for name, value in values.items():
            default = parameters[name].default if name in parameters else None
            allowed = LIMITS.get(f"{key}.{name}", {bool: bool, int: float, float: float}.get(type(default)))
            if words := expected(value, allowed):
                yield f"{key}.{name}={value} must be {words}"


def _check_constructors(cfg: DictConfig) -> None:
    """Raise ValueError for what a constructor refuses beyond its signature, such as model.widths=[8]."""
    import torch  # imported here: it would delay --help

    with torch.device("meta"):  # a network without memory
        for name in ("split", "augment", "mixup", *(["model"] if cfg.stage != "test" else [])):
            instantiate(cfg[name], _convert_="all")


def _plain(node: DictConfig) -> dict[str, Any]:
    """Names and values, lists as lists; nodes inside are left out, as each is checked on its own."""
    values = {str(name): node[name] for name in node}
    plain = {name: OmegaConf.to_container(v) if OmegaConf.is_list(v) else v for name, v in values.items()}
    return {name: value for name, value in plain.items() if not OmegaConf.is_dict(value)}


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield key, node
        for name, inner in node.items_ex(resolve=False):
            yield from _targets(inner, f"{key}.{name}".lstrip("."))
