"""Who draws values and who stops trials: Optuna's samplers and pruners, the same after a restart as without one."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from engrec.search.space import Sweep


class LastValue(MedianPruner):
    """Optuna's median, for values that are the best so far: the last one is compared, as a mean over folds may fall."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        trial, step = copy.copy(trial), trial.last_step
        if step is not None:
            trial.intermediate_values = {step: trial.intermediate_values[step]}
        return super().prune(study, trial)


def build_pruner(node: Mapping[str, Any] | None, steps: int) -> BasePruner:
    """steps: of a whole trial, counted from 1."""
    if node is None:
        return NopPruner()
    numbers = {key: value for key, value in node.items() if key != "name"}
    return LastValue(**numbers) if node["name"] == "median" else HyperbandPruner(max_resource=steps, **numbers)


def build_sampler(sweep: Sweep, number: int, draw: int = 0) -> BaseSampler:
    """For one draw of one trial: the same after a restart as without one."""
    seed = int(np.random.SeedSequence([sweep.seed, number, draw]).generate_state(1)[0])
    if sweep.sampler["name"] == "random":
        return RandomSampler(seed)
    numbers = {key: value for key, value in sweep.sampler.items() if key != "name"}
    return TPESampler(seed=seed, constant_liar=True, **numbers)
