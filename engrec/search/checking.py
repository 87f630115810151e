"""Whether every choice of a sweep makes a run that train.py accepts."""

from typing import Any

from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution

from engrec.config import check, composed
from engrec.search import space
from engrec.search.grid import check_fold
from engrec.search.space import Sweep


def check_all(sweep: Sweep) -> None:
    """Raises ValueError for a choice of any key, or a fold, that train.py would refuse. It loads torch, which takes
    seconds."""
    if sweep.folds and "fold" not in composed(sweep.overrides).split:
        raise ValueError("folds= needs a split that has folds: set split=kfold, or split=loso")
    for fold in sweep.folds:
        check_fold(compose_one(sweep, fold=fold))
    configurations = [compose_one(sweep, index) for index in range(most_choices(sweep))]
    for cfg in configurations:
        check_fits(sweep, cfg)
    for cfg in configurations:
        check(cfg)


def compose_one(sweep: Sweep, index: int = 0, fold: int | None = None) -> DictConfig:
    """As train.py composes it, with the choice of that number for each key, and the first fold if none is given."""
    drawn = {key: example(values, index) for key, values in sweep.search.items()}
    folds = [f"split.fold={sweep.folds[0] if fold is None else fold}"] if sweep.folds else []
    cfg = composed(space.merged(sweep.overrides, space.arguments(drawn), folds))
    cfg.output_dir = "outputs"
    return cfg


def example(values: BaseDistribution, index: int) -> Any:
    if isinstance(values, CategoricalDistribution):
        return values.choices[index % len(values.choices)]
    return (values.low, values.high)[index % 2]  # pyright: ignore[reportAttributeAccessIssue]


def most_choices(sweep: Sweep) -> int:
    return max([2, *(len(v.choices) for v in sweep.search.values() if isinstance(v, CategoricalDistribution))])


def check_fits(sweep: Sweep, cfg: DictConfig) -> None:
    """Raises ValueError for runs that are no trials, or could not be compared."""
    if cfg.stage == "test":
        raise ValueError("stage=test trains nothing: a search needs pretrain, finetune or scratch")
    scores = [objective.metric for objective in sweep.objectives if objective.is_score]
    if scores and cfg.monitor != scores[0]:
        raise ValueError(f"the search is for {scores[0]}, and each run keeps its best epoch: set monitor={scores[0]}")
    if str(cfg.trainer.devices) not in ("1", "auto"):
        raise ValueError(f"trainer.devices={cfg.trainer.devices}: a trial has one device; set trainer.devices=1")


def most_epochs(sweep: Sweep, cfg: DictConfig) -> int:
    searched = sweep.search.get("max_epochs")
    if isinstance(searched, CategoricalDistribution):
        return max(int(value or 1) for value in searched.choices)
    return int(getattr(searched, "high", cfg.max_epochs))
