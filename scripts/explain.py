"""What the answers of a network depend on: LayerCAM maps of its most confident right and wrong test images, and how
far its answers fall where what a map marks is blurred, beside random maps.

python scripts/explain.py outputs/fer2013_short/best.ckpt dataset=fer2013
python scripts/explain.py outputs/mine/best.ckpt dataset=prepared dataset.path=data/mine.npz split=kfold split.fold=0

The folder gets sheet.png, to look at, and scores.json. The sheet has faces of the data set in it.
"""

import argparse
import json
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    from engrec.machine.files import check_folder, write_text
    from engrec.pages.explanation import caution, sheet, table
    from engrec.runs.folder import removed_if_empty
    from engrec.use.explain import explain, read
    from engrec.weights_file import located

    material = read(options.checkpoint, options.overrides)
    run = located(options.checkpoint).resolve().parent
    # A number alone, of a fold or a seed, is that of many runs.
    name = "-".join([material.faces.file_name, *([run.parent.name] if run.name.isdigit() else []), run.name])
    folder = options.out or Path("outputs/explain") / name
    if material.caution:
        print(material.caution)
    with removed_if_empty(folder):
        check_folder(folder)
        found = explain(material, options.per_row, options.images, options.seed)
        sheet(found, folder / "sheet.png")
        write_text(folder / "scores.json", json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n")
    print(f"LayerCAM of {found.layer}, {found.size[0]}×{found.size[1]}")
    for first, *numbers in table(found):
        print(f"{first:<48}" + "".join(f"{number:<18}" for number in numbers).rstrip())
    if warning := caution(found):
        print(warning)
    print(f"{folder}: sheet.png, scores.json")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="best.ckpt of a run, a .safetensors of scripts/export.py, or engrec:NAME")
    parser.add_argument(
        "overrides", nargs="*", help="as for train.py stage=test: dataset=fer2013 split=kfold split.fold=0"
    )
    parser.add_argument("--out", type=Path, help="the folder (default: outputs/explain/DATASET-RUN)")
    parser.add_argument("--per-row", type=int, default=8, help="right images, and as many wrong ones (default: 8)")
    parser.add_argument("--images", type=int, default=200, help="random ones for the deletion score (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of these and of the random maps (default: 0)")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
