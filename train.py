"""The command line: compose the configuration, run it."""

import gc
from collections.abc import Callable
from functools import cache

import hydra
from omegaconf import DictConfig

from engrec.config import errors_in_one_line


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    run = loaded()  # here, so that --help answers at once
    with errors_in_one_line():
        run(cfg)


@cache
def loaded() -> Callable[[DictConfig], dict[str, float]]:
    """experiment.run, with torch and Lightning; they leave no garbage, and looking for it takes a fifth of the time."""
    gc.disable()
    from engrec.experiment import run

    gc.freeze()  # nor does anyone look later, at exit for one
    gc.enable()
    return run


if __name__ == "__main__":
    with errors_in_one_line():
        main()
