"""A picture of a data set: a row of random faces per class.

python scripts/contact_sheet.py dataset=fer2013
python scripts/contact_sheet.py dataset=synthetic stage=scratch --per-class 20
"""

import argparse
import sys
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

from engrec.config import REMEDY, composed, errors_in_one_line
from engrec.datasets.prepared import Faces
from engrec.runs import pictures

ROOT = Path(__file__).resolve().parents[1]


def build_dataset(overrides: list[str]) -> Faces:
    """The data set that train.py would use with these overrides."""
    cfg = composed(overrides)
    if missing := sorted(OmegaConf.missing_keys(cfg.dataset)):
        raise ValueError("missing " + "; ".join(f"{key}, {REMEDY.get(key, f'set it with {key}=…')}" for key in missing))
    return instantiate(cfg.dataset, _convert_="all")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: dataset=synthetic, dataset.path=data/mine.npz")
    parser.add_argument("--out", type=Path, help="the PNG (default: outputs/contact_sheets/NAME.png)")
    parser.add_argument("--per-class", type=int, default=12, help="faces in a row (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="which faces (default: 0)")
    options = parser.parse_intermixed_args(arguments)
    faces = build_dataset(options.overrides)
    name = " ".join(filter(None, (faces.name, faces.recipe.get("task"))))
    people = "" if faces.subjects is None else f" of {len(set(faces.subjects)):,} people"
    path = pictures.contact_sheet(
        faces.images,
        faces.labels,
        faces.class_names,
        options.out or ROOT / "outputs" / "contact_sheets" / f"{name.replace(' ', '-')}.png",
        title=f"{name}: {len(faces):,} faces{people}",
        per_class=options.per_class,
        captions=faces.subjects,
        seed=options.seed,
    )
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
