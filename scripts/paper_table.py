"""The paper's table on any prepared engagement set: HOG + SVM, CNN, VGG from scratch, and the engagement model.

python scripts/paper_table.py dataset=wacv2016
python scripts/paper_table.py dataset=wacv2016 dataset.classes=null --seeds 0,1,2 --init-from outputs/fer2013/best.ckpt
python scripts/paper_table.py --preset quick

Every row, seed and fold is a run of its own in OUT/ROW/seedS-foldK. Expressions are learned once for all of them, in
OUT/pretrain/seed0. The same command resumes where it was stopped, and skips runs that are done.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line
    from engrec.machine.signals import signals_end_the_run
    from engrec.search import paper


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    if options.resamples < 100:
        raise ValueError(f"--resamples {options.resamples}: too few for an interval, at least 100")
    paper.check_overrides(options.overrides)
    out = options.out or paper.default_out(options.preset, options.overrides)
    if not options.table_only:
        runs = paper.plan(choice_of(options), out)
        paper.check_rows(runs)
        for run in runs:
            paper.check_settings(run)
        if options.dry_run:
            for run in runs:
                print(f"{run.state:8}", shlex.join(["python", *run.command]))
            return
        with resumed_by(shlex.join(["python", "scripts/paper_table.py", *arguments])):
            paper.run_all(runs, paper.launcher_of(options.overrides, options.jobs))
    from engrec.pages.paper import make_table  # with torch, so that --help answers at once

    make_table(out, options.resamples)


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
    what.add_argument("--dry-run", action="store_true", help="print the commands, and which runs are done")
    what.add_argument("--table-only", action="store_true", help="make the table of the runs that are done")
    return parser.parse_intermixed_args(arguments)


def choice_of(options: argparse.Namespace) -> paper.Choice:
    return paper.Choice(
        paper.PRESETS[options.preset], options.overrides, options.rows, options.seeds, options.folds, options.pretrain,
        options.init_from,
    )  # fmt: skip


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
