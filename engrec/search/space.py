"""A sweep's YAML: its objectives and the space that values are drawn from; values in Hydra's syntax."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from engrec.errors import nearest
from engrec.metrics import higher_is_better, logged

Direction = Literal["minimize", "maximize"]
COSTS: dict[str, Direction] = {
    "seconds_per_epoch": "minimize",
    "train_images_per_second": "maximize",
    "num_parameters": "minimize",
}
SAMPLERS: dict[str, dict[str, int]] = {"tpe": {"n_startup_trials": 10}, "random": {}}
PRUNERS: dict[str, dict[str, int]] = {
    "median": {"n_startup_trials": 5, "n_warmup_steps": 1},
    "hyperband": {"min_resource": 1, "reduction_factor": 3},
}

CRITERION = ("label_smoothing", "class_weights", "logit_adjustment", "ordinal", "soft_labels")  # of module: the loss
MOST_STEPS = 1e15  # beyond them, steps are lost in the rounding of low and high


@dataclass(frozen=True)
class Objective:
    """A number in a run's result.json: a validation score of its best epoch, or what the run costs."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> int:
        """What to multiply by so that more is better."""
        return 1 if self.direction == "maximize" else -1

    @property
    def is_score(self) -> bool:
        return self.metric.startswith("val/")


@dataclass(frozen=True)
class Sweep:
    """What conf/sweep/NAME.yaml says: fixed overrides of train.py, and the space from which the others are drawn."""

    name: str
    overrides: tuple[str, ...]
    search: dict[str, BaseDistribution]
    objectives: tuple[Objective, ...]
    folds: tuple[int, ...] = ()  # a trial is the mean over them; none: one run as it is
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: dict[str, Any] | None = None
    seed: int = 0

    def fixed(self, overrides: Sequence[str]) -> "Sweep":
        """The sweep with more overrides, the later ones being those that count; a key that they fix is not searched."""
        keys = {key_of(override) for override in overrides}
        space = {key: values for key, values in self.search.items() if key not in keys}
        if not space:
            raise ValueError("the overrides leave nothing to search for: do not set all of " + ", ".join(self.search))
        return replace(self, overrides=tuple(merged(self.overrides, overrides)), search=space)

    def spec(self) -> dict[str, Any]:
        """What two commands must have in common to work on the same search, as JSON."""
        return {
            "overrides": sorted(self.overrides),
            "search": {key: _in_words(values) for key, values in self.search.items()},
            "objectives": [[objective.metric, objective.direction] for objective in self.objectives],
            "folds": list(self.folds),
            "sampler": self.sampler,
            "pruner": self.pruner,
            "seed": self.seed,
        }


def read(path: Path) -> Sweep:
    """A sweep's YAML. Raises ValueError, in one line, for what is unknown, missing or contradictory in it."""
    try:
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError:
        raise
    except Exception as error:  # YAML's own errors have no common type with OmegaConf's
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _parsed(path.stem, node)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parsed(name: str, node: Any) -> Sweep:
    allowed = ("overrides", "search", "objectives", "folds", "sampler", "pruner", "seed")
    _check_keys("", node, allowed)
    for key in ("search", "objectives"):
        if not node.get(key):
            raise ValueError(f"{key} is missing")
    overrides = tuple(map(str, _list("overrides", node.get("overrides"), "[stage=scratch, max_epochs=8]")))
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"overrides: {override} must be KEY=VALUE, as for train.py")
    _check_keys("search", node["search"], node["search"])
    objectives = [_objective(entry) for entry in _list("objectives", node["objectives"], "[{metric: val/auc}]")]
    metrics = [objective.metric for objective in objectives]
    if twice := next((metric for metric in metrics if metrics.count(metric) > 1), None):
        raise ValueError(f"objectives: {twice} is listed twice")
    for metric in metrics:
        check_comparable(metric, node["search"])
    sampler = _named("sampler", node.get("sampler") or {"name": "tpe"}, SAMPLERS)
    pruner = None if node.get("pruner") is None else _named("pruner", node["pruner"], PRUNERS)
    if pruner and len(objectives) > 1:
        raise ValueError("pruner: several objectives allow no pruning: set pruner: null")
    if pruner and not objectives[0].is_score:
        raise ValueError(f"pruner: {objectives[0].metric} is known only at the end of a run: set pruner: null")
    folds, seed = tuple(_list("folds", node.get("folds"), "[0, 1, 2]")), node.get("seed", 0)
    check_folds(folds)
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed={seed} must be a whole number from 0")
    space = {key: _distribution(key, entry) for key, entry in node["search"].items()}
    return Sweep(name, overrides, space, tuple(objectives), folds, sampler, pruner, seed)


def unknown(word: Any, known: Iterable[str]) -> str:
    """What is wrong with a word that must be one of the known ones."""
    return f"is unknown{nearest(str(word), known)}; it must be one of {', '.join(known)}"


def check_comparable(metric: str, keys: Iterable[str]) -> None:
    """Raise ValueError where the loss is to choose a value that changes what the loss is."""
    changing = sorted({*(f"module.{name}" for name in CRITERION), "balance"} & set(keys))  # balance: by class_weights
    if metric.endswith("/loss") and changing:
        raise ValueError(f"{metric} cannot choose {changing[0]}, as it is another loss with each value: set val/auc")


def check_folds(folds: Sequence[Any]) -> None:
    if not all(type(fold) is int and fold >= 0 for fold in folds) or len(set(folds)) < len(folds):
        raise ValueError(f"folds={list(folds)} must be different whole numbers from 0, such as [0,1,2]")


def _list(key: str, found: Any, example: str) -> list[Any]:
    """Empty where the key is missing or null."""
    if found is not None and not isinstance(found, list):
        raise ValueError(f"{key}={found} must be a list such as {example}")
    return found or []


def _check_keys(where: str, node: Any, allowed: Any) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{where or 'the file'} must be a mapping (KEY: VALUE on each line)")
    for key in node:
        if key not in allowed:
            name = f"{where}.{key}".lstrip(".")
            raise ValueError(f"{name} {unknown(key, allowed)}")


def _named(where: str, node: Any, known: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    found = node.get("name") if isinstance(node, dict) else node
    if not isinstance(node, dict) or not isinstance(found, str) or found not in known:
        raise ValueError(f"{where}.name={found} {unknown(found, known)}")
    defaults = known[found]
    _check_keys(where, node, ("name", *defaults))
    for key in defaults:
        if type(node.get(key, 0)) is not int or node.get(key, 0) < 0:
            raise ValueError(f"{where}.{key}={node[key]} must be a whole number from 0")
    return {**defaults, **node}


def _objective(node: Any) -> Objective:
    _check_keys("objectives", node, ("metric", "direction"))
    metric = str(node.get("metric"))
    if metric.startswith("test/"):
        raise ValueError(
            f"objectives: {metric} would select on the test images, and leave nothing to report: use val/…"
        )
    if metric not in (known := [*(f"val/{key}" for key in logged()), *COSTS]):
        raise ValueError(f"objectives: {metric} {unknown(metric, known)}")
    natural = COSTS.get(metric, "maximize" if higher_is_better(metric) else "minimize")
    direction = node.get("direction", natural)
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"objectives: direction={direction} must be minimize or maximize")
    return Objective(metric, direction)


def _distribution(key: str, node: Any) -> BaseDistribution:
    """From {low, high, log: true}, {low, high, step} or {choices}; whole numbers stay whole."""
    where = f"search.{key}"
    _check_keys(
        where, node, ("choices",) if isinstance(node, dict) and "choices" in node else ("low", "high", "log", "step")
    )
    if "choices" in node:
        if not isinstance(node["choices"], list) or not node["choices"]:
            raise ValueError(f"{where}.choices must be a list such as [16, 32]")
        return CategoricalDistribution([text(c) if isinstance(c, list | dict) else c for c in node["choices"]])
    low, high, step, log = node.get("low", ""), node.get("high", ""), node.get("step"), node.get("log", False)
    for name, value in (("low", low), ("high", high), ("step", 1 if step is None else step)):
        if type(value) not in (int, float):
            raise ValueError(f"{where}.{name}={value} must be a number; it needs low and high, or choices")
        if not abs(value) <= 1e300:  # nor NaN; Optuna computes with the differences
            raise ValueError(f"{where}.{name}={value} must be a number from -1e300 to 1e300")
    if type(log) is not bool:
        raise ValueError(f"{where}.log={log} must be true or false")
    if not low < high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise ValueError(f"{where} must have low < high; with log: true, low > 0 and no step")
    if step is not None and (high - low) / step > MOST_STEPS:
        raise ValueError(f"{where}.step={step} must be larger: from low to high are more than {MOST_STEPS:.0e} steps")
    if all(type(value) is int for value in (low, high, 1 if step is None else step)):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _in_words(values: BaseDistribution) -> dict[str, Any]:
    if isinstance(values, CategoricalDistribution):
        return {"choices": list(values.choices)}
    assert isinstance(values, FloatDistribution | IntDistribution)
    return {"low": values.low, "high": values.high, "log": values.log, "step": values.step}


def text(value: Any) -> str:
    """A value in the syntax of Hydra's command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text(part)}" for key, part in value.items()) + "}"
    return str(value)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def merged(*overrides: Sequence[str]) -> list[str]:
    """One override for each key: the last."""
    return list({key_of(override): override for some in overrides for override in some}.values())


def arguments(params: Mapping[str, Any]) -> list[str]:
    """Drawn values as overrides."""
    return [f"{key}={text(value)}" for key, value in params.items()]


def figures(result: dict[str, Any], objectives: Sequence[Objective]) -> dict[str, float]:
    """The objectives of a run's result.json. Raises ValueError for one that is missing or not a finite number."""
    found = {}
    for metric in (objective.metric for objective in objectives):
        try:
            value = _figure(result, metric)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"{metric} is not in it") from error
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{metric} is undefined")
        found[metric] = float(value)
    return found


def _figure(result: dict[str, Any], metric: str) -> Any:
    if metric.startswith("val/"):
        return result["validation"][metric]
    if metric == "seconds_per_epoch":  # of training; the test and the start of the process are not in it
        return result["num_images"]["train"] / result["train_images_per_second"]
    return result[metric]
