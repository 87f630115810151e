"""The command line: compose the configuration, run it."""

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    import hydra
    from omegaconf import DictConfig

    from engrec.config import Registered
    from engrec.errors import errors_in_one_line, errors_wait_for_the_others, every_error_named

registered = Registered()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig, registered: Registered = registered) -> None:
    from engrec.experiment import run  # with torch and Lightning; here, so that --help answers at once
    from engrec.plan import command

    number = command().number
    with errors_in_one_line() if number is None else errors_wait_for_the_others(number):
        run(cfg)


if __name__ == "__main__":
    with errors_in_one_line(), every_error_named():
        main()
