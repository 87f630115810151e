"""A search for better hyper-parameters: many runs of train.py, each with values drawn where it looks promising.

python scripts/sweep.py sweep=small n_trials=20 workers=2
python scripts/sweep.py sweep=vgg_finetune init_from=outputs/fer2013/best.ckpt model=vgg_small n_trials=50 workers=4
python scripts/sweep.py sweep=speed workers=1 max_epochs=2 seed=3

The same command again goes on where it was stopped. What is drawn and what counts is written in conf/sweep/NAME.yaml;
docs/sweeps.md says the rest.
"""

import gc
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from optuna.trial import TrialState

from engrec.errors import errors_in_one_line
from engrec.machine import gpus
from engrec.machine.gpus import slots
from engrec.search import local, slurm
from engrec.search.arguments import Options, parse
from engrec.search.checking import check_fits, checked, compose_one, most_epochs
from engrec.search.progress import Table
from engrec.search.search import Search
from engrec.search.study import locked, open_study, quiet_optuna

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, str(ROOT / "train.py"))


def main(arguments: list[str], command: Sequence[str] = TRAIN) -> None:
    """command: what stands before each trial's overrides, which the tests replace."""
    quiet_optuna()
    typed = parse(arguments)
    cfg = compose_one(typed.sweep, 0)
    check_fits(typed.sweep, cfg)
    in_queue = typed.slurm and slurm.Launcher(typed.workers or 1, typed.slurm, typed.folder / "slurm")
    with locked(typed.folder) as lock:
        new = not (typed.folder / "journal.log").is_file()
        study = open_study(typed.folder, typed.sweep)
        launcher = in_queue or local.Launcher(slots(str(cfg.trainer.accelerator), typed.workers))
        table = Table(sys.stdout.isatty())
        searching = Search(
            typed.sweep, study, typed.folder, launcher, [*command, *quiet(cfg)], typed.n_trials,
            most_epochs(typed.sweep, cfg), table, typed.timeout, typed.command,
        )  # fmt: skip
        announce(typed, searching)
        with checked(typed, searching, lock, new), signals_stop(searching):
            gc.freeze()  # what is forked for each trial copies less
            try:
                searching.run()
            finally:
                table.clear()
        conclude(typed, searching)


# What is typed.


# What the trials will be.


def quiet(cfg: DictConfig) -> list[str]:
    """No progress bar, of which the log would be full."""
    bar = cfg.callbacks.get("progress")
    return ["+callbacks.progress.refresh_rate=0"] if bar is not None and "refresh_rate" not in bar else []


# What is said at the start and at the end.


def announce(typed: Options, searching: Search) -> None:
    sweep = typed.sweep
    for key in typed.freed:
        print(f"{key} is fixed by the command line: not searched")
    print(f"searching {', '.join(sweep.search)}")
    if len(sweep.objectives) > 1:
        print("several objectives: no trial is pruned, and several may be best")
    print(where(searching.launcher.slots) if typed.slurm is None else in_slurm(searching, typed.slurm), flush=True)
    if searching.num_settled or searching.waiting:
        interrupted = f", {len(searching.waiting)} interrupted are taken up" if searching.waiting else ""
        print(f"going on: {searching.num_settled} of {typed.n_trials} done{interrupted}", flush=True)


def where(slots: Sequence[dict[str, str]]) -> str:
    """2 at a time, with 1 threads each"""
    gpus_used = {slot[gpus.VARIABLE] for slot in slots if gpus.VARIABLE in slot}
    if not gpus_used:
        return f"{len(slots)} at a time, with {slots[0]['OMP_NUM_THREADS']} threads each"
    shared = f"\nworkers={len(slots)} share {len(gpus_used)} GPUs: times say less, and memory may run out"
    return f"{len(slots)} at a time, on {len(gpus_used)} GPUs{shared if len(slots) > len(gpus_used) else ''}"


def in_slurm(searching: Search, options: slurm.Options) -> str:
    found = f"{options.gpus_per_node} GPUs" if options.gpus_per_node else "no GPU (slurm.gpus_per_node=1 asks for one)"
    number = len(searching.launcher.slots)
    return f"jobs of Slurm, {number} at a time, each with {options.cpus_per_task} CPUs and {found}"


@contextmanager
def signals_stop(searching: Search) -> Iterator[None]:
    """Ctrl-C, kill and a closed terminal end the search between two looks; one that is ignored stays ignored."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, searching.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(typed: Options, searching: Search) -> None:
    from engrec.pages.search import write_summary  # with plotly

    text, paths = write_summary(typed.sweep, searching.study, typed.folder, typed.command)
    if searching.signal:
        print(f"\nstopped; nothing that was finished is lost. Go on with: {typed.command}", flush=True)
        sys.exit(128 + searching.signal)
    print(f"\n{text}")
    if searching.out_of_time and searching.num_settled < typed.n_trials:
        print(f"timeout={typed.timeout:g}: go on with: {typed.command}")
    print("written:", *(str(path) for path in [*paths, typed.folder / "trials.csv", typed.folder / "sweep.json"]))
    if not searching.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
        sys.exit("error: all trials have failed")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
