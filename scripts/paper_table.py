"""The paper's table on any prepared engagement set: HOG + SVM, CNN, VGG from scratch, and the engagement model.

python scripts/paper_table.py dataset=wacv2016
python scripts/paper_table.py dataset=wacv2016 --seeds 0,1,2 --init-from outputs/fer2013_short/best.ckpt
python scripts/paper_table.py --preset quick

Every row, seed and fold is a run of its own in OUT/ROW/seedS-foldK. Expressions are learned once for all of them, in
OUT/pretrain/seed0. The same command resumes where it was stopped, and skips runs that are done.
"""

import argparse
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import CheckpointError, errors_in_one_line, explain, quoted
    from engrec.machine.files import check_folder
    from engrec.machine.signals import signals_end_the_run
    from engrec.search import paper

if TYPE_CHECKING:
    from engrec.datasets.prepared import Faces
    from engrec.plan import Backbone

# A check chooses nothing by measurement and leaves the GPUs to the runs.
UNTIMED = (
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true", "speed.memory_format=contiguous",
    "speed.keep_memory=false",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    if options.resamples < 100:
        raise ValueError(f"--resamples {options.resamples}: too few for an interval, at least 100")
    paper.check_overrides(options.overrides)
    out = options.out or paper.default_out(options.preset, options.overrides)
    if not options.table_only:
        runs = paper.plan(choice_of(options), out)
        for run in runs:
            paper.check_settings(run)
        check_folder(next(path for path in (out, *out.parents) if path.exists()))
        if any(run.state != "done" for run in runs):
            paper.check_folds(runs, paper.faces_of(options.preset, tuple(options.overrides)))
            check(runs)
        if options.dry_run:
            for run in runs:
                print(f"{run.state:8}", shlex.join(["python", *run.command]))
            return
        with resumed_by(shlex.join(["python", "scripts/paper_table.py", *arguments])):
            paper.run_all(runs, paper.launcher_of(options.overrides, options.jobs))
    from engrec.pages.paper import make_table  # with torch, so that --help answers at once

    make_table(out, options.resamples)


def check(runs: Sequence[paper.Run]) -> None:
    """Begin a run of each row, up to its first step, and divide the data set into every fold.

    Raises ValueError for whatever would end a run there.
    """
    expressions: Backbone | None = None  # of a run that has not ended yet
    waiting = [run for run in runs if run.state != "done"]
    for row in dict.fromkeys(run.row for run in waiting):
        found = [run for run in waiting if run.row == row]
        with warnings.catch_warnings(action="ignore"), errors_of(row):  # each run gives its own warnings
            if row == "hog_svm":
                check_baseline(found)
                continue
            made = check_trainings(found, expressions if row == "engagement" else None)
            expressions = made if row == "pretrain" else expressions


@contextmanager
def errors_of(row: str) -> Iterator[None]:
    """What is refused in one row may be right in another: say which it is."""
    from hydra.errors import HydraException

    try:
        yield
    except (ValueError, HydraException) as error:
        raise ValueError(f"{'--pretrain' if row == 'pretrain' else row}: {explain(error)}") from error


def check_baseline(runs: Sequence[paper.Run]) -> None:
    from hydra.utils import instantiate

    from engrec.evidence import baselines
    from engrec.plan import plain

    cfg, _ = baselines.composed([*runs[0].overrides, f"output_dir={quoted(runs[0].folder)}"])
    faces = instantiate(cfg.dataset, _convert_="all")
    divide_all(runs, faces, plain(cfg.split))
    baselines.hog_features(faces.images[:1])


def check_trainings(runs: Sequence[paper.Run], expressions: "Backbone | None" = None) -> "Backbone":
    """expressions: what they will start from, where it is not a file yet. Returns their network, with random weights,
    in place of such a file."""
    from engrec.config import composed
    from engrec.experiment import build_data
    from engrec.modules.build import build_module
    from engrec.plan import Backbone, Plan, plan

    nowhere = f"output_dir={quoted(runs[0].folder / 'checked')}"  # a folder that nobody makes
    overrides = [*runs[0].overrides, *UNTIMED, nowhere]
    if expressions is not None:
        overrides = [*(o for o in overrides if not o.startswith("init_from=")), "init_from=engrec:expressions"]
    planned = plan(composed(overrides))
    assert isinstance(planned, Plan)
    planned = planned if expressions is None else replace(planned, start=expressions)
    data = build_data(planned)
    divide_all(runs, data.faces, planned.config["split"])
    try:
        module = build_module(planned, data)
    except CheckpointError as error:
        what, advice, _ = str(error).rpartition(": set ")  # another model=, which is not the user's here
        if not advice:
            raise
        raise CheckpointError(f"{what}: set another --init-from, --pretrain or --preset") from error
    saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    return Backbone("--pretrain", saved | {"dataset": data.faces.name, "task": planned.task})


def divide_all(runs: Sequence[paper.Run], faces: "Faces", split: dict[str, Any]) -> None:
    from hydra.utils import instantiate

    from engrec.data import divide

    for run in runs:
        divide(faces, instantiate(split if run.fold is None else split | {"fold": run.fold}))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", help="for all engagement runs: dataset=er, split=official, max_epochs=5"
    )
    about = "; ".join(f"{name}: {preset.about}" for name, preset in paper.PRESETS.items())
    parser.add_argument("--preset", choices=paper.PRESETS, default="small", help=f"{about} (default: %(default)s)")
    parser.add_argument("--seeds", type=numbers, default=[0], help="such as 0,1,2 (default: 0); HOG + SVM needs one")
    parser.add_argument("--folds", type=positive, help="of split=kfold (default: 5) or split=loso")
    parser.add_argument(
        "--rows", type=rows, default=list(paper.ROWS), help=f"some of {','.join(paper.ROWS)} (default: all)"
    )
    parser.add_argument(
        "--pretrain", help='other overrides for the expressions: "stage=pretrain model=vgg max_epochs=2"'
    )
    parser.add_argument("--init-from", type=Path, help="an expression checkpoint, instead of pre-training")
    parser.add_argument("--out", type=Path, help="(default: outputs/paper_table/DATASET-CLASSES, and the preset)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs in parallel (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run", action="store_true", help="check all of them, print the commands, and which are done"
    )
    what.add_argument("--table-only", action="store_true", help="make the table of the runs that are done")
    return parser.parse_intermixed_args(arguments)


def choice_of(options: argparse.Namespace) -> paper.Choice:
    return paper.Choice(
        paper.PRESETS[options.preset], options.overrides, options.rows, options.seeds, options.folds, options.pretrain,
        options.init_from,
    )  # fmt: skip


def numbers(text: str) -> list[int]:
    found = [int(part) if part.isdecimal() else -1 for part in text.split(",")]
    if len(set(found)) < len(found) or not 0 <= min(found) <= max(found) < 2**32:
        raise argparse.ArgumentTypeError(f"{text} must be numbers from 0 to {2**32 - 1}, each once, such as 0,1,2")
    return found


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 1")
    return int(text)


def rows(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in paper.ROWS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} must be one of {', '.join(paper.ROWS)}")
    return [name for name in paper.ROWS if name in found]


@contextmanager
def resumed_by(command: str) -> Iterator[None]:
    """When a signal stops it, print the command that resumes."""
    try:
        with signals_end_the_run():
            yield
    except SystemExit:
        print(f"\nstopped; everything saved is kept. Resume with: {command}", flush=True)
        raise


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
