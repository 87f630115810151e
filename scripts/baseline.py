"""A baseline without a network, on the data and the split that train.py would use: every fold, or one.

python scripts/baseline.py hog_svm dataset=wacv2016 split=kfold
python scripts/baseline.py hog_svm dataset=wacv2016 dataset.classes=null split=kfold split.fold=2 output_dir=outputs/hog
"""

import argparse
import shlex
import sys

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    from hydra.utils import instantiate

    from engrec.evidence.baselines import BASELINES, Baseline, announce, composed, folder_of, folds_of, run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", choices=sorted(BASELINES), help="hog_svm: oriented gradients and a linear SVM")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as for train.py: dataset=wacv2016 split=kfold split.fold=2 seed=1 output_dir=outputs/hog; synthetic "
        "faces (dataset=synthetic) have engagement labels, or expressions with stage=pretrain",
    )
    options = parser.parse_intermixed_args(arguments)
    cfg, choices = composed(options.overrides)
    faces = instantiate(cfg.dataset, _convert_="all")
    folder = folder_of(options.baseline, cfg, choices, options.overrides)
    folds = folds_of(cfg, faces, folder, chosen=any(o.startswith("split.fold=") for o in options.overrides))
    plan = Baseline(options.baseline, cfg, choices, folder, folds, arguments)
    announce(plan, faces)
    run(plan, faces)
    summarize = shlex.join(["python", "scripts/summarize.py", str(folder)])
    print(f"results are in {folder}; pooled, with intervals: {summarize}")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
