"""A search for better hyper-parameters: many runs of train.py, each with values that Optuna chooses.

python scripts/sweep.py sweep=small n_trials=20 workers=2
python scripts/sweep.py sweep=vgg_finetune init_from=outputs/fer2013_short/best.ckpt model=vgg_small n_trials=50
python scripts/sweep.py sweep=speed workers=1 max_epochs=2 seed=3

The same command resumes a search that was stopped. The space and the objectives are in conf/sweep/NAME.yaml; see also
docs/sweeps.md.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from omegaconf import DictConfig
    from optuna.trial import TrialState

    from engrec.errors import errors_in_one_line
    from engrec.machine.gpus import slots
    from engrec.search import local, slurm
    from engrec.search.arguments import Options, parse
    from engrec.search.checking import check_all, check_fits, compose_one, most_epochs
    from engrec.search.progress import Table, announce, conclude
    from engrec.search.search import Search
    from engrec.search.shared import database_errors, is_mine
    from engrec.search.study import forget, locked, open_study, quiet_optuna

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, str(ROOT / "train.py"))


def main(arguments: list[str], command: Sequence[str] = TRAIN) -> None:
    """command: what stands before each trial's overrides, which the tests replace."""
    quiet_optuna()
    options = parse(arguments, __doc__)
    cfg = compose_one(options.sweep, 0)
    check_fits(options.sweep, cfg)
    jobs = options.slurm and slurm.Launcher(options.workers or 1, options.slurm, options.folder / "slurm")
    with database_errors(options.storage), nullcontext() if options.storage else locked(options.folder):
        new = not (options.folder / "journal.log").exists() and not (options.folder / "trials").exists()
        if new:
            check_all(options.sweep)
        study = open_study(options.folder, options.sweep, options.storage)
        launcher = jobs or local.Launcher(slots(str(cfg.trainer.accelerator), options.workers))
        table = Table(sys.stdout.isatty())
        search = Search(
            options.sweep, study, options.folder, launcher, [*command, *quiet(cfg)], options.n_trials,
            most_epochs(options.sweep, cfg), table, options.timeout, options.command, options.storage is not None,
        )  # fmt: skip
        announce(options, search)
        with signals_stop(search), nothing_left(options, search) if new else nullcontext():
            try:
                search.run()
            finally:
                table.clear()
        from engrec.pages.search import write_summary  # with plotly, which a search that is refused does not need

        conclude(options, search, *write_summary(options.sweep, search.study, options.folder, options.command))
        if search.signal:
            sys.exit(128 + search.signal)
        if not search.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
            sys.exit("error: all trials have failed")


def quiet(cfg: DictConfig) -> list[str]:
    """No progress bar, which would fill the log."""
    bar = cfg.callbacks.get("progress")
    return ["+callbacks.progress.refresh_rate=0"] if bar is not None and "refresh_rate" not in bar else []


@contextmanager
def nothing_left(options: Options, search: Search) -> Iterator[None]:
    """A new search of which Slurm takes no job leaves nothing behind, so that the command can be corrected."""
    try:
        yield
    except slurm.RefusedError:
        alone = options.storage is None or all(map(is_mine, search.trials()))
        if alone and not any(options.folder.glob("trials/**/job.json")):
            forget(search.study, options.folder, options.storage)
        raise


@contextmanager
def signals_stop(search: Search) -> Iterator[None]:
    """Ctrl-C, kill and a closed terminal end the search between two looks; one that is ignored stays ignored."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, search.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
