"""Results over many runs: folds pooled, seeds averaged, intervals over people, controls beside every model.

python scripts/summarize.py outputs/finetune outputs/scratch
"""

import argparse
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders that hold some")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/summary"), help="for the tables and the page (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.resamples < 100:
        parser.error(f"--resamples {options.resamples}: too few for an interval, at least 100")
    import torch

    from engrec.evidence import comparison
    from engrec.evidence.clips import per_clip
    from engrec.evidence.groups import read_groups
    from engrec.pages import report, tables
    from engrec.runs.record import find_runs

    torch.set_num_threads(1)  # small operations, in which threads would only wait for each other
    runs = find_runs(options.folders)
    for folder in options.folders:
        if not any(run.folder.resolve().is_relative_to(folder.resolve()) for run in runs):
            print(f"warning: {folder} is left out: it has no finished run (result.json)", file=sys.stderr)
    groups = read_groups(runs)
    blocks = comparison.build([*groups, *per_clip(groups)], options.resamples)
    print(tables.text(blocks))
    print("written:", *report.write(blocks, options.out))


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
