"""A picture of a data set: a row of random faces per class.

python scripts/contact_sheet.py dataset=fer2013
python scripts/contact_sheet.py dataset=synthetic stage=scratch --per-class 20
"""

import argparse
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits
from engrec.words import counted

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    from engrec.config import composed_dataset
    from engrec.pages.contact_sheet import contact_sheet

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: dataset=synthetic, dataset.path=data/mine.npz")
    parser.add_argument("--out", type=Path, help="the PNG (default: outputs/contact_sheets/NAME.png)")
    parser.add_argument("--per-class", type=int, default=12, help="faces in a row (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="which faces (default: 0)")
    options = parser.parse_intermixed_args(arguments)
    faces = composed_dataset(options.overrides)
    shown = sum(min(options.per_class, (faces.labels == k).sum()) for k in range(len(faces.class_names)))
    number = f"{len(faces):,}" if shown == len(faces) else f"{shown:,} of {len(faces):,}"
    people = "" if faces.subjects is None else f", {counted(len(set(faces.subjects)), 'person', 'people')}"
    path = contact_sheet(
        faces.images,
        faces.labels,
        faces.class_names,
        options.out or Path("outputs/contact_sheets") / f"{faces.file_name}.png",
        title=f"{faces.title}: {number} faces{people}",
        per_class=options.per_class,
        captions=faces.subjects,
        seed=options.seed,
    )
    print(path)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
