"""The command line: compose the configuration, run it."""

import gc
import sys
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from engrec.config import errors_in_one_line, errors_wait_for_the_others, every_error_named


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    run = loaded()  # here, so that --help answers at once
    with errors_wait_for_the_others() if HydraConfig.get().mode is RunMode.MULTIRUN else errors_in_one_line():
        run(cfg)


def loaded() -> Callable[[DictConfig], dict[str, float]]:
    """experiment.run, with torch and Lightning; they leave no garbage, and looking for it takes a fifth of the time."""
    first = "engrec.experiment" not in sys.modules
    if first:
        gc.disable()
    from engrec.experiment import run

    if first:
        gc.freeze()  # nor does anyone look later, at exit for one
        gc.enable()
    return run


if __name__ == "__main__":
    with errors_in_one_line(), every_error_named():
        main()
