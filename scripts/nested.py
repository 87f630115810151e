"""Choose values for each fold on people of its own training part, then train and test the fold with them.

python scripts/nested.py experiment=wacv2016 init_from=engrec:expressions \\
    optimizer.lr=0.005,0.01,0.02 max_epochs=6,12
python scripts/nested.py experiment=wacv2016 stage=scratch optimizer.lr=0.01,0.02 max_epochs=12,24 --seeds 0,1,2

Overrides are those of train.py; keys with several values are chosen. For each fold, every combination is trained and
tested on folds of the people whom the fold does not test (split=nested), and the best mean wins; values with which a
training diverges cannot. The same command resumes where it was stopped. OUT/chosen has the runs to report,
OUT/choices.json what was chosen, OUT/inner the rest.
"""

import argparse
import shlex
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from paper_table import numbers, positive, resumed_by

    from engrec.errors import errors_in_one_line
    from engrec.search import nested, paper


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    selection = nested.read(options.overrides, options.inner, options.seeds, options.out, options.inner_seeds)
    inner = selection.all_inner_runs()
    nested.check(selection)
    if options.dry_run:
        for run in inner:
            print(f"{run.state:8}", shlex.join(["python", *run.command]))
        return
    for run in inner:
        paper.check_settings(run)
    launcher = paper.launcher_of(options.overrides, options.jobs)
    with resumed_by(shlex.join(["python", "scripts/nested.py", *arguments])):
        diverged = paper.run_all(inner, launcher, may_diverge=True)
        choices = [selection.choose(fold, diverged) for fold in range(selection.num_outer)]
        path = nested.write(choices, selection.out)
        for choice in choices:
            print(f"fold {choice['fold']}: {' '.join(choice['chosen'])}", flush=True)
        chosen = [run for choice in choices for run in selection.outer_runs(choice["fold"], tuple(choice["chosen"]))]
        for run in chosen:
            paper.check_settings(run)
        paper.run_all(chosen, launcher)
    print(f"the choices are in {path}; next: python scripts/summarize.py {selection.out / 'chosen'}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="of train.py; those with several values are chosen")
    parser.add_argument("--inner", type=positive, default=3, help="folds inside the training people (default: 3)")
    parser.add_argument(
        "--seeds", type=numbers, default=[0], help="of inner and outer runs, such as 0,1,2 (default: 0)"
    )
    parser.add_argument("--inner-seeds", type=numbers, help="of inner runs, if not those of --seeds: fewer cost less")
    parser.add_argument("--out", type=Path, default=Path("outputs/nested"), help="(default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs in parallel (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the inner runs, and which are done")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
