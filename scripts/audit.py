"""Audit of a data set before training: duplicates, conflicting labels, blank images, balance, and whether the file
format predicts the label. All images are checked: dataset.exclude has no effect.

python scripts/audit.py dataset=fer2013
python scripts/audit.py dataset=prepared dataset.path=data/mine.npz --out outputs/audit/mine
python scripts/audit.py dataset=fer2013 --probabilities outputs/teachers

With the predictions of networks for images that they have not seen, it also lists suspicious labels.
"""

import argparse
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    from engrec.config import composed_dataset
    from engrec.evidence.audit import NEAR, audit
    from engrec.evidence.out_of_fold import out_of_fold
    from engrec.machine.files import write_text
    from engrec.pages.audit import faults, html, markdown, suspects

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: dataset=synthetic, dataset.path=data/mine.npz")
    parser.add_argument("--out", type=Path, help="folder of its files (default: outputs/audit/NAME)")
    parser.add_argument(
        "--near", type=float, default=NEAR, help=f"correlation of nearly identical images (default: {NEAR})"
    )
    parser.add_argument(
        "--probabilities",
        type=Path,
        action="append",
        metavar="RUNS",
        help="folder of finished runs that tested these images, such as the folds of split=teachers or split=kfold; "
        "may be given several times",
    )
    options = parser.parse_intermixed_args(arguments)
    faces = composed_dataset([*options.overrides, *_nothing_excluded(options.overrides)])
    predicted = out_of_fold(options.probabilities, faces) if options.probabilities else None
    found = audit(faces, options.near, predicted)
    folder = options.out or Path("outputs/audit") / faces.file_name
    text = markdown(found)
    files = {"audit.html": html(found, faces), "audit.md": text, "faults.csv": faults(found, faces)}
    if found.suspicious is not None:
        files["suspicious.csv"] = suspects(found.suspicious, faces)
    for name, content in files.items():
        write_text(folder / name, content)
    print(f"{text}\n{folder}: {', '.join(files)}; audit.html shows the pictures")


def _nothing_excluded(overrides: list[str]) -> list[str]:
    """Override that keeps all images, for a data set with dataset.exclude."""
    from engrec.config import composed

    return ["dataset.exclude=[]"] if "exclude" in composed(overrides).dataset else []


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
