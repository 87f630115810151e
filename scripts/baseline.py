"""A baseline without training a network, on the data and the split that train.py would use: every fold, or one.

python scripts/baseline.py hog_svm dataset=wacv2016 split=kfold
python scripts/baseline.py features init_from=outputs/fer2013_short/best.ckpt dataset=wacv2016 split=kfold
python scripts/baseline.py hog_svm dataset=wacv2016 dataset.classes=null split=kfold split.fold=2 output_dir=outputs/hog
"""

import argparse
import shlex
import sys

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    options = parse(arguments)

    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from engrec.evidence.baselines import TAKEN, Baseline, HogSvm, announce, composed, folder_of, folds_of, run
    from engrec.evidence.features import FrozenFeatures

    on_features = options.baseline == "features"
    cfg, choices = composed(options.overrides, (*TAKEN, "init_from") if on_features else TAKEN)
    method = (
        FrozenFeatures.read(OmegaConf.select(cfg, "init_from"), options.transductive, cfg.seed)
        if on_features
        else HogSvm()
    )
    faces = instantiate(cfg.dataset, _convert_="all")
    folder = folder_of(options.baseline, cfg, choices, options.overrides)
    folds = folds_of(cfg, faces, folder, chosen=any(o.startswith("split.fold=") for o in options.overrides))
    method.check(faces, [split for _, _, split in folds])
    plan = Baseline(method, cfg, choices, folder, folds, arguments)
    announce(plan, faces)
    run(plan, faces)
    summarize = shlex.join(["python", "scripts/summarize.py", str(folder)])
    print(f"results are in {folder}; pooled, with intervals: {summarize}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "baseline",
        choices=("hog_svm", "features"),
        help="hog_svm: oriented gradients and a linear SVM; features: logistic regression on the features of a frozen "
        "network, the checkpoint of init_from=",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as for train.py: dataset=wacv2016 split=kfold split.fold=2 seed=1 output_dir=outputs/hog; synthetic "
        "faces (dataset=synthetic) have engagement labels, or expressions with stage=pretrain",
    )
    parser.add_argument(
        "--transductive",
        type=given,
        metavar="all|20",
        help="with features: subtract each person's mean feature, of all or of 20 unlabelled frames. Such a result "
        "presumes frames of the people it is tested on, and is shown apart",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.transductive is not None and options.baseline != "features":
        parser.error(f"--transductive has no effect on {options.baseline}: leave it out, or set features")
    return options


def given(text: str) -> str | int:
    """all, or a number of frames. Raises ArgumentTypeError for anything else."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be all, or a number of frames such as 20")
    return int(text)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
