"""The command line: compose the configuration, run it."""

import hydra
from omegaconf import DictConfig

from engrec.config import errors_in_one_line


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    from engrec.experiment import run  # torch and Lightning load when a run starts, so that --help answers at once

    with errors_in_one_line():
        run(cfg)


if __name__ == "__main__":
    with errors_in_one_line():
        main()
