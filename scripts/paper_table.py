"""The paper's table on any prepared engagement set: HOG + SVM, CNN, VGG from scratch, and the engagement model.

python scripts/paper_table.py dataset=wacv2016
python scripts/paper_table.py dataset=wacv2016 dataset.classes=null --seeds 0,1,2 --init-from outputs/fer2013/best.ckpt
python scripts/paper_table.py --preset quick

Every row, seed and fold is a run of its own in OUT/ROW/seedS-foldK; expressions are learned once for all of them, in
OUT/pretrain/seed0. The same command again goes on where it was stopped, and leaves alone what is done.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from engrec.config import composed
from engrec.errors import errors_in_one_line
from engrec.machine.signals import signals_end_the_run
from engrec.pages.paper import ROWS, make_table

if TYPE_CHECKING:  # torch loads when there is a table to make, so that --help and --dry-run answer at once
    pass

ROOT = Path(__file__).resolve().parents[1]
ALIKE = {"engagement": "vgg_scratch", "vgg_scratch": "engagement"}  # in the time that a run takes
OURS = ("stage", "model", "experiment", "seed", "split.fold", "split.num_folds", "output_dir", "init_from", "ckpt_path")


@dataclass(frozen=True)
class Preset:
    """What the rows are: overrides for train.py, and the data set and split that those come to by themselves."""

    about: str
    dataset: str
    split: str
    pretrain: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]


QUICK = ("model=vgg_small", "model.width=0.25", "optimizer.lr=0.05")
PRESETS = {
    "quick": Preset(
        "drawn faces, and a VGG a quarter as wide and batch-normalised: minutes on a CPU",
        dataset="synthetic",
        split="official",
        pretrain=("stage=pretrain", *QUICK, "max_epochs=8"),
        rows={
            "cnn": ("stage=scratch", "model=cnn"),
            "vgg_scratch": ("stage=scratch", *QUICK),
            "engagement": ("stage=finetune", *QUICK),
        },
    ),
    "small": Preset(
        "the paper's CNN, for its VGG one half as wide and batch-normalised: for a CPU",
        dataset="wacv2016",
        split="kfold",
        pretrain=("experiment=fer2013",),
        rows={
            # At the learning rate of the others it learns nothing; on validation people it stays as it is from epoch 6.
            "cnn": ("experiment=wacv2016", "stage=scratch", "model=cnn", "optimizer.lr=0.005", "max_epochs=8"),
            "vgg_scratch": ("experiment=wacv2016", "stage=scratch"),
            "engagement": ("experiment=wacv2016", "stage=finetune"),
        },
    ),
    "full": Preset(
        "the paper's networks and, as far as they are known, its hyper-parameters: for a GPU",
        dataset="wacv2016",
        split="kfold",
        pretrain=("experiment=nezami2019/pretrain",),
        rows={
            "cnn": ("experiment=nezami2019/cnn", "dataset=wacv2016", "split=kfold"),
            "vgg_scratch": ("experiment=nezami2019/vgg", "dataset=wacv2016", "split=kfold"),
            "engagement": ("experiment=nezami2019/engagement", "dataset=wacv2016", "split=kfold"),
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One training (or baseline) in one folder; fold is None where the split has none."""

    row: str
    seed: int
    fold: int | None
    overrides: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.row} seed {self.seed}" + ("" if self.fold is None else f" fold {self.fold}")

    @property
    def script(self) -> list[str]:
        return ["scripts/baseline.py", "hog_svm"] if self.row == "hog_svm" else ["train.py"]

    @property
    def arguments(self) -> list[str]:
        """As for a new run, or to go on with one that was stopped."""
        if self.state != "stopped":
            return [*self.overrides, f"output_dir={self.folder}"]
        given = ["init_from=null" if o.startswith("init_from=") else o for o in self.overrides]
        return [*given, f"output_dir={self.folder}", f"ckpt_path={self.folder / 'last.ckpt'}"]

    @property
    def state(self) -> str:
        if (self.folder / "result.json").is_file():
            return "done"
        return "stopped" if (self.folder / "last.ckpt").is_file() else "new"

    @property
    def seconds(self) -> float:
        """How long it took, NaN where that is not written."""
        return float(json.loads((self.folder / "result.json").read_text(encoding="utf-8")).get("seconds", "nan"))


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    if options.resamples < 100:
        raise ValueError(f"--resamples {options.resamples}: too few for an interval, at least 100")
    check_overrides(options.overrides)
    out = options.out or default_out(options.preset, options.overrides)
    if options.table_only:
        make_table(out, options.resamples)
        return
    runs = plan(options, out)
    for run in runs:
        check_settings(run)
    if options.dry_run:
        for run in runs:
            print(f"{run.state:8}", shlex.join(["python", *run.script, *run.arguments]))
        return
    with stopping_says(shlex.join(["python", "scripts/paper_table.py", *arguments])):
        run_all(runs, options.jobs)
    make_table(out, options.resamples)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", help="for all engagement runs: dataset=er, split=official, max_epochs=5"
    )
    about = "; ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="small", help=f"{about} (default: %(default)s)")
    parser.add_argument("--seeds", type=numbers, default=[0], help="such as 0,1,2 (default: 0); HOG + SVM needs one")
    parser.add_argument("--folds", type=positive, help="of split=kfold (default: 5) or split=loso")
    parser.add_argument("--rows", type=rows, default=list(ROWS), help=f"some of {','.join(ROWS)} (default: all)")
    parser.add_argument("--pretrain", help='other overrides for the expressions: "experiment=fer2013 max_epochs=2"')
    parser.add_argument("--init-from", type=Path, help="an expression checkpoint, in place of pre-training")
    parser.add_argument("--out", type=Path, help="(default: outputs/paper_table/DATASET-CLASSES, and the preset)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="print the commands, and which are done")
    what.add_argument("--table-only", action="store_true", help="make the table of the runs that are there")
    return parser.parse_intermixed_args(arguments)


def numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if len(set(found)) < len(found) or min(found) < 0:
        raise ValueError(text)
    return found


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def rows(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(ROWS)}")
    return [name for name in ROWS if name in found]


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise ValueError for what is no override, and for what the rows, seeds and folds decide."""
    for override in overrides:
        key, equals, _ = override.lstrip("+~").partition("=")
        if not equals:
            raise ValueError(f"{override}: every argument is KEY=VALUE, such as dataset=wacv2016")
        if key in OURS:
            raise ValueError(f"{override} is decided for each run here: see --preset, --seeds, --folds and --init-from")


def plan(options: argparse.Namespace, out: Path) -> list[Run]:
    """Every run of the table, the expressions first; HOG + SVM has no randomness, and is run once a fold."""
    preset, given = PRESETS[options.preset], options.overrides
    dataset, split = chosen(given, "dataset", preset.dataset), chosen(given, "split", preset.split)
    folds = folds_of(split, options.folds)
    other = [f"split.num_folds={len(folds)}"] if split == "kfold" and len(folds) != 5 else []
    first = Run("pretrain", 0, None, pretraining(preset, options.pretrain), out / "pretrain" / "seed0")
    checkpoint = options.init_from or first.folder / "best.ckpt"
    if options.init_from is not None and not checkpoint.is_file():
        raise ValueError(f"--init-from {checkpoint} is not a file")
    found = [first] if "engagement" in options.rows and options.init_from is None else []
    for row in options.rows:
        if row == "hog_svm":
            base = [f"dataset={dataset}", f"split={split}"]
            base += [o for o in given if o.lstrip("+~").startswith(("dataset.", "split."))]
        else:
            base = joined(preset, preset.rows[row], given)
        base += [*other, *([f"init_from={checkpoint}"] if row == "engagement" else [])]
        for seed in [0] if row == "hog_svm" else options.seeds:
            for fold in folds:
                overrides = [*base, *([] if row == "hog_svm" else [f"seed={seed}"])]
                overrides += [] if fold is None else [f"split.fold={fold}"]
                name = f"seed{seed}" + ("" if fold is None else f"-fold{fold}")
                found.append(Run(row, seed, fold, tuple(overrides), out / row / name))
    return found


def folds_of(split: str, num_folds: int | None) -> list[int | None]:
    """The folds that are run, or None in their place for a split without."""
    if split not in ("kfold", "loso"):
        if num_folds is not None:
            raise ValueError(f"--folds {num_folds}: split={split} has none; leave it out")
        return [None]
    if split == "loso" and num_folds is None:
        raise ValueError("split=loso has a fold for each person: type --folds with their number")
    return list(range(num_folds or 5))


def pretraining(preset: Preset, given: str | None) -> tuple[str, ...]:
    overrides = preset.pretrain if given is None else tuple(shlex.split(given))
    if unfit := [o for o in overrides if not re.match(r"[^=]+=", o) or o.startswith(("output_dir=", "seed="))]:
        raise ValueError(
            f"--pretrain {unfit[0]}: overrides of train.py, such as experiment=fer2013, but not the folder"
        )
    return overrides


def chosen(overrides: Iterable[str], key: str, default: str) -> str:
    """The last value that is given for a key."""
    return ([default] + [o.partition("=")[2] for o in overrides if o.partition("=")[0] == key])[-1]


def joined(preset: Preset, overrides: Sequence[str], given: Sequence[str]) -> list[str]:
    """A row's overrides and the user's, who wins; the preset's own data set and split are not said twice."""
    given = [o for o in given if o not in (f"dataset={preset.dataset}", f"split={preset.split}")]
    keys = {o.partition("=")[0] for o in given}
    return [*(o for o in overrides if o.partition("=")[0] not in keys), *given]


def default_out(name: str, given: Sequence[str]) -> Path:
    """Another folder for another data set, number of classes or preset: runs of other settings do not mix."""
    from hydra.utils import instantiate

    cfg = composed(joined(PRESETS[name], PRESETS[name].rows["vgg_scratch"], given))
    faces = instantiate(cfg.dataset, _convert_="all")
    suffix = "" if name == "small" else f"-{name}"
    return Path("outputs/paper_table") / f"{faces.name}-{len(faces.class_names)}{suffix}"


def check_settings(run: Run) -> None:
    """Raise ValueError where the folder holds a run, finished or stopped, of another command."""
    said = recorded(run.folder) if run.state != "new" else None
    if said is None:
        return
    there, here = settings(said), settings(run.overrides)
    if "init_from=null" in said:  # a training that was gone on with no longer says what it started from
        here = {o for o in here if not o.startswith("init_from=")}
    if there != here:
        more, less = " ".join(sorted(there - here)) or "less", " ".join(sorted(here - there)) or "less"
        raise ValueError(
            f"{run.folder} holds a run with other settings: {more} there, {less} here; type --out with another folder, "
            "or remove that one"
        )


def recorded(folder: Path) -> list[str] | None:
    """The overrides that a folder's run was started with; None where nobody wrote them."""
    started, result = folder / "command.txt", folder / "result.json"
    if started.is_file():
        command = started.read_text(encoding="utf-8")
    elif result.is_file():
        try:
            command = json.loads(result.read_text(encoding="utf-8"))["command"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{result} is damaged ({error}): remove that folder, and run it again") from error
    else:
        return None
    return [word for word in shlex.split(command) if "=" in word]


def settings(overrides: Iterable[str]) -> set[str]:
    """What overrides come to, whatever their order: without the folder, and without what is the default anyway."""
    found = {o for o in overrides if not o.startswith(("output_dir=", "ckpt_path="))}
    found -= {"seed=0", "split.fold=0", "init_from=null"}
    if "experiment=wacv2016" in found:
        found -= {"dataset=wacv2016", "split=kfold"}
    starts = {o for o in found if o.startswith("init_from=")}
    return (found - starts) | {f"init_from={Path(o.partition('=')[2]).resolve()}" for o in starts}


@contextmanager
def stopping_says(command: str) -> Iterator[None]:
    """Stopped by a signal, say the command that goes on."""
    try:
        with signals_end_the_run():
            yield
    except SystemExit:
        print(f"\nstopped; nothing that was saved is lost. Go on with: {command}", flush=True)
        raise


@dataclass
class Clock:
    """What runs of each row took, to say how long the others will."""

    at_once: int
    took: dict[str, list[float]] = field(default_factory=dict)

    def add(self, run: Run, seconds: float) -> None:
        if not isnan(seconds):
            self.took.setdefault(run.row, []).append(seconds)

    def left(self, waiting: Sequence[Run]) -> str:
        """In words; nothing where no run with such a network has ended yet."""
        if not waiting:
            return ""
        each = [self.took.get(run.row) or self.took.get(ALIKE.get(run.row, ""), []) for run in waiting]
        return f", about {span(sum(map(mean, each)) / self.at_once)} left" if all(each) else ""


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def run_all(runs: Sequence[Run], at_once: int) -> None:
    """Every run that is not done, `at_once` at a time. Raises ValueError, and ends the others, when one fails."""
    waiting, running, clock = [run for run in runs if run.state != "done"], {}, Clock(at_once)
    for run in runs:
        if run.state == "done":
            clock.add(run, run.seconds)
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are done already", flush=True)
    try:
        while waiting or running:
            while len(running) < at_once and (run := ready(waiting, running)) is not None:
                waiting.remove(run)
                say = f"[{runs.index(run) + 1}/{len(runs)}] {run.name} …"
                print(say, end=" " if at_once == 1 else "\n", flush=True)
                running[run] = start(run, at_once), time.perf_counter()
            time.sleep(0.1)
            for run, (process, started) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                if run.state != "done":
                    print()  # the run's line is not ended yet
                check_ended_well(run, process.returncode)
                clock.add(run, seconds := time.perf_counter() - started)
                name = "" if at_once == 1 else f"{run.name}: "
                print(f"{name}{span(seconds)}{clock.left([*waiting, *running])}", flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def ready(waiting: Sequence[Run], running: Iterable[Run]) -> Run | None:
    """The first run that need not wait for the expressions."""
    pending = any(run.row == "pretrain" for run in (*waiting, *running))
    return next((run for run in waiting if run.row != "engagement" or not pending), None)


def start(run: Run, at_once: int) -> subprocess.Popen[bytes]:
    """The process, which writes what it says to the run's folder. In a session of its own, so that Ctrl-C reaches it
    once, from here, and it ends by itself."""
    arguments = run.arguments
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.state == "new":
        (run.folder / "command.txt").write_text(shlex.join([*run.script, *run.overrides]) + "\n", encoding="utf-8")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // at_once))
    with (run.folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, str(ROOT / run.script[0]), *run.script[1:], *arguments],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_ended_well(run: Run, status: int) -> None:
    if status == 0 and run.state == "done":
        return
    written = run.folder / "output.txt"
    lines = written.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").strip().splitlines() or [
        "nothing"
    ]
    raise ValueError(f"{run.name} ended with status {status}, saying: {lines[-1].strip()} (all of it: {written})")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
