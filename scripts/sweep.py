"""A search for better hyper-parameters: many runs of train.py, each with values drawn where it looks promising.

python scripts/sweep.py sweep=small n_trials=20 workers=2
python scripts/sweep.py sweep=vgg_finetune init_from=outputs/fer2013/best.ckpt model=vgg_small n_trials=50 workers=4
python scripts/sweep.py sweep=speed workers=1 max_epochs=2 seed=3

The same command again goes on where it was stopped. What is drawn and what counts is written in conf/sweep/NAME.yaml;
docs/sweeps.md says the rest.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import inf, isfinite, isnan
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from engrec import search
from engrec.config import Config, check, errors_in_one_line, nearest

ROOT = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, str(ROOT / "train.py"))
OURS = ("sweep", "n_trials", "workers", "folder", "timeout", "folds")
RESERVED = {
    "output_dir": "each trial has its own folder: type folder= for that of the search",
    "ckpt_path": "each trial starts anew: type init_from= for the weights to start from",
    "run": "each trial has its own folder: type folder= for that of the search",
}


@dataclass(frozen=True)
class Typed:
    """The command's own arguments; overrides are train.py's."""

    sweep: search.Sweep
    folder: Path
    n_trials: int
    workers: int | None
    timeout: float
    freed: tuple[str, ...]  # keys that the overrides took out of the search
    command: str


def main(arguments: list[str], command: Sequence[str] = TRAIN) -> None:
    """command: what stands before each trial's overrides, which the tests replace."""
    typed = parse(arguments)
    new = not (typed.folder / "journal.log").is_file()
    cfg = composed(typed.sweep, whole=new)
    with search.locked(typed.folder):
        study = search.open_study(typed.folder, typed.sweep)
        slots = machine(cfg, typed.workers)
        table = Table(sys.stdout.isatty())
        epochs = most_epochs(typed.sweep, cfg)
        launcher = search.Launcher(slots)
        searching = search.Search(
            typed.sweep, study, typed.folder, launcher, [*command, *quiet(cfg)], typed.n_trials, epochs, table,
            typed.timeout, typed.command,
        )  # fmt: skip
        announce(typed, searching)
        with signals_stop(searching):
            try:
                searching.run()
            finally:
                table.clear()
        conclude(typed, searching)


# What is typed.


def parse(arguments: list[str]) -> Typed:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE",
        help=f"sweep={{{','.join(sweeps())}}} or a YAML; n_trials (20): results in all; workers: trials at a time (one "
        "for each GPU, else 1); folder (outputs/sweeps/NAME); timeout: seconds; folds=[0,1,2]: a trial is their mean; "
        "and any override of train.py",
    )  # fmt: skip
    given = parser.parse_args(arguments).arguments
    for argument in given:
        if "=" not in argument:
            raise ValueError(f"{argument}: every argument is KEY=VALUE, such as sweep=small or n_trials=20")
    ours = {key: value for key, _, value in (a.partition("=") for a in given) if key in OURS}
    overrides = [argument for argument in given if argument.partition("=")[0] not in OURS]
    for override in overrides:
        check_override(search.key_of(override))
    sweep = search.read(sweep_file(ours.get("sweep")))
    freed = tuple(key for key in sweep.search if key in {search.key_of(override) for override in overrides})
    sweep = with_folds(sweep.fixed(overrides), ours.get("folds"))
    return Typed(
        sweep=sweep,
        folder=Path(ours.get("folder") or Path("outputs", "sweeps", sweep.name)),
        n_trials=whole("n_trials", ours.get("n_trials", "20")),
        workers=whole("workers", ours["workers"]) if "workers" in ours else None,
        timeout=seconds(ours.get("timeout")),
        freed=freed,
        command=shlex.join(["python", "scripts/sweep.py", *given]),
    )


def check_override(key: str) -> None:
    """Raise ValueError for what a trial cannot have, and for misspelt arguments of the search itself."""
    if key in RESERVED:
        raise ValueError(f"{key} cannot be set in a search: {RESERVED[key]}")
    if key.partition(".")[0] == "hydra":
        raise ValueError(f"{key} cannot be set in a search: its trials are plain runs")
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    known = groups | {field.name for field in fields(Config)}
    if key.partition(".")[0] not in known and "@" not in key and (close := nearest(key, OURS)):
        raise ValueError(f"there is no {key}{close}; the search takes {', '.join(OURS)} and train.py's overrides")


def sweeps() -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))


def sweep_file(name: str | None) -> Path:
    """From the name of one of conf/sweep, or the path of another YAML."""
    if not name:
        raise ValueError(f"missing sweep, what is searched: sweep= with {', '.join(sweeps())}, or the path of a YAML")
    if name in sweeps():
        return ROOT / "conf" / "sweep" / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise ValueError(f"sweep={name} is not a file")
        return Path(name)
    raise ValueError(f"sweep={name} is not there{nearest(name, sweeps())}; allowed: {', '.join(sweeps())}, or a YAML")


def whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{key}={value} is not a whole number from 1")
    return int(value)


def seconds(value: str | None) -> float:
    try:
        number = inf if value is None else float(value)
    except ValueError:
        number = -1.0
    if isnan(number) or number <= 0:
        raise ValueError(f"timeout={value} is not a number of seconds, such as timeout=3600")
    return number


def with_folds(sweep: search.Sweep, value: str | None) -> search.Sweep:
    """folds=[0,1,2], or null for one run as it is."""
    if value is None:
        return sweep
    folds = OmegaConf.to_container(OmegaConf.create({"folds": OmegaConf.create(f"folds: {value}").folds}))
    assert isinstance(folds, dict)
    found = folds["folds"]
    found = [] if found is None else found if isinstance(found, list) else [found]
    search.check_folds(found)
    return search.replace(sweep, folds=tuple(found))


# What the trials will be, checked before the first.


def composed(sweep: search.Sweep, whole: bool) -> DictConfig:
    """The configuration of a trial. whole: with every choice that a key has, and what train.py would say to each.

    Raises ValueError for what train.py would not run, and for what makes trials incomparable.
    """
    for index in range(most_choices(sweep) if whole else 1):
        check_fits(sweep, compose_one(sweep, index))
    if whole:  # in a process of its own: this one is forked for each trial, and forks faster without torch
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            pool.submit(check_all, sweep).result()
    return compose_one(sweep, 0)


def check_all(sweep: search.Sweep) -> None:
    for index in range(most_choices(sweep)):
        check(compose_one(sweep, index))


def compose_one(sweep: search.Sweep, index: int) -> DictConfig:
    """As train.py composes it, with the choice of that number for each key."""
    drawn = {key: example(values, index) for key, values in sweep.search.items()}
    fold = [f"split.fold={sweep.folds[0]}"] if sweep.folds else []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = search.merged(sweep.overrides, search.arguments(drawn), fold)
        cfg = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
        cfg.output_dir = "outputs"
    return cfg


def example(values: BaseDistribution, index: int) -> Any:
    if isinstance(values, CategoricalDistribution):
        return values.choices[index % len(values.choices)]
    return (values.low, values.high)[index % 2]  # pyright: ignore[reportAttributeAccessIssue]


def most_choices(sweep: search.Sweep) -> int:
    return max([2, *(len(v.choices) for v in sweep.search.values() if isinstance(v, CategoricalDistribution))])


def check_fits(sweep: search.Sweep, cfg: DictConfig) -> None:
    if cfg.stage == "test":
        raise ValueError("stage=test trains nothing: a search needs pretrain, finetune or scratch")
    scores = [objective.metric for objective in sweep.objectives if objective.is_score]
    if scores and cfg.monitor != scores[0]:
        raise ValueError(f"the search is for {scores[0]}, and each run keeps its best epoch: type monitor={scores[0]}")
    if str(cfg.trainer.devices) not in ("1", "auto"):
        raise ValueError(f"trainer.devices={cfg.trainer.devices}: a trial has one device; type trainer.devices=1")


def most_epochs(sweep: search.Sweep, cfg: DictConfig) -> int:
    searched = sweep.search.get("max_epochs")
    if isinstance(searched, CategoricalDistribution):
        return max(int(value or 1) for value in searched.choices)
    return int(getattr(searched, "high", cfg.max_epochs))


def quiet(cfg: DictConfig) -> list[str]:
    """No progress bar, of which the log would be full."""
    bar = cfg.callbacks.get("progress")
    return ["+callbacks.progress.refresh_rate=0"] if bar is not None and "refresh_rate" not in bar else []


def machine(cfg: DictConfig, workers: int | None) -> list[dict[str, str]]:
    """The environment of each trial at a time: a GPU of its own, or its share of the cores."""
    gpus = [] if str(cfg.trainer.accelerator) == "cpu" else visible_gpus()
    number = workers or max(1, len(gpus))
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // number))
    slots = [{"OMP_NUM_THREADS": threads} for _ in range(number)]
    for index, slot in enumerate(slots if gpus else []):
        slot["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return slots


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; torch, which takes seconds to load, is not asked."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    done = search.subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    return [str(i) for i, _ in enumerate(line for line in done.stdout.splitlines() if line.startswith("GPU "))]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is said meanwhile.


class Table:
    """Running trials and the best so far: redrawn on a terminal, elsewhere a line for each trial that has ended."""

    def __init__(self, on_terminal: bool) -> None:
        self.on_terminal, self.height, self.drawn = on_terminal, 0, 0.0

    def draw(self, searching: search.Search) -> None:
        if not self.on_terminal or time.monotonic() - self.drawn < 0.2:
            return
        self.drawn = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        lines = [head(searching), *(row(searching, run) for run in searching.running)]
        self.clear()
        sys.stdout.write("".join(f"{line[:width]}\n" for line in lines))
        sys.stdout.flush()
        self.height = len(lines)

    def clear(self) -> None:
        if self.height:
            sys.stdout.write(f"\x1b[{self.height}F\x1b[J")
            sys.stdout.flush()
        self.height = 0

    def settled(self, searching: search.Search, record: dict[str, Any]) -> None:
        self.clear()
        print("\n".join(ended(searching, record)), flush=True)


def head(searching: search.Search) -> str:
    """vgg_finetune: 12 of 50 done (3 pruned, 1 failed), best val/auc 0.8312 (trial 7), about 13 min 2 s left"""
    counts = {
        "pruned": len(searching.trials(TrialState.PRUNED)), "failed": len(searching.trials(TrialState.FAIL)),
    }  # fmt: skip
    of_them = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    parts = [f"{searching.sweep.name}: {searching.num_settled} of {searching.n_trials} done"]
    parts[0] += f" ({of_them})" if of_them else ""
    parts += best_so_far(searching)
    left = searching.seconds_left()
    parts += [f"about {span(left)} left"] if left else []
    return ", ".join(parts)


def best_so_far(searching: search.Search) -> list[str]:
    best, objective = searching.best(), searching.sweep.objectives[0]
    if best is None:
        return []
    return [f"best {objective.metric} {best.values[0]:.4g} (trial {best.number})"]


def row(searching: search.Search, run: search.Running) -> str:
    objective = searching.sweep.objectives[0]
    fold = f"fold {searching.sweep.folds[run.fold]}, " if searching.sweep.folds else ""
    value = f"{objective.metric} {run.value:.4f}" if isfinite(run.value) else "…"
    doing = "stopping" if run.stopped is not None else f"{fold}epoch {run.epoch} of {searching.epochs}"
    drawn = " ".join(f"{key.rpartition('.')[2]}={search.short(value)}" for key, value in run.trial.params.items())
    return f"  trial {run.number}: {doing}, {value}, {span(time.monotonic() - run.started)}   {drawn}"


def ended(searching: search.Search, record: dict[str, Any]) -> list[str]:
    """A line for a trial that has ended; for one that failed, what it said last."""
    took = "" if record["seconds"] is None else f", {span(record['seconds'])}"
    start = f"trial {record['number']}"
    state = head(searching).partition(": ")[2]
    if record["state"] == "complete":
        return [f"{start}: {search.said(searching.sweep.objectives, record['values'])}{took}; {state}"]
    if record["state"] == "pruned":
        return [f"{start}: pruned after epoch {record['epochs']}{took}; {state}"]
    lines = [f"    {line}" for line in record["error"].splitlines()]
    return [f"{start}: failed{took} (all it said: {record['folder']}); {state}", *lines]


def span(length: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(round(length), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def announce(typed: Typed, searching: search.Search) -> None:
    sweep, slots = typed.sweep, searching.launcher.slots
    for key in typed.freed:
        print(f"{key} is fixed by the command line: not searched")
    print(f"searching {', '.join(sweep.search)}")
    if len(sweep.objectives) > 1:
        print("several objectives: no trial is pruned, and several may be best")
    gpus = {slot["CUDA_VISIBLE_DEVICES"] for slot in slots if "CUDA_VISIBLE_DEVICES" in slot}
    share = f"on {len(gpus)} GPUs" if gpus else f"with {slots[0]['OMP_NUM_THREADS']} threads each"
    print(f"{len(slots)} at a time, {share}")
    if gpus and len(slots) > len(gpus):
        print(f"workers={len(slots)} share {len(gpus)} GPUs: times say less, and memory may run out")
    if searching.num_settled or searching.waiting:
        interrupted = f", {len(searching.waiting)} interrupted are taken up" if searching.waiting else ""
        print(f"going on: {searching.num_settled} of {typed.n_trials} done{interrupted}", flush=True)


@contextmanager
def signals_stop(searching: search.Search) -> Iterator[None]:
    """Ctrl-C, kill and a closed terminal end the search between two looks; one that is ignored stays ignored."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, searching.stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(typed: Typed, searching: search.Search) -> None:
    text, paths = search.write_summary(typed.sweep, searching.study, typed.folder, typed.command)
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
