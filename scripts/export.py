"""Weights for others: a checkpoint in half precision, what describes it, a model card, and the network as ONNX.

python scripts/export.py outputs/fer2013_short/best.ckpt exported/expressions --license mit
python scripts/export.py outputs/everyone/last.ckpt exported/engagement --runs outputs/wacv2016/finetune
python scripts/export.py outputs/fer2013_short/best.ckpt exported/expressions --int8 data/fer2013.npz

The folder gets model.safetensors, config.json, README.md and, where the packages of the extra `export` are installed,
onnx/model.onnx; with --int8, onnx/model_int8.onnx too. Both run without PyTorch: uint8 images in, probabilities out.
train.py takes the .safetensors as init_from= and, with stage=test, as ckpt_path=.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    notes = "" if options.notes is None else text_of(options.notes)
    from engrec.use import onnx  # with torch, so that --help answers at once
    from engrec.use.export import export

    as_onnx = not onnx.needed() if options.onnx is None else options.onnx
    done = export(
        options.checkpoint, options.folder, options.runs, not options.float32, options.license, notes,
        as_onnx, options.int8,
    )  # fmt: skip
    kind = "float32" if options.float32 else "half precision"
    about = f"{done.num_bytes / 1e6:.2f} MB, {kind}, temperature {done.temperature:.3f}"
    print(f"{done.folder / 'model.safetensors'}: {about}")
    print(f"probabilities differ from the checkpoint's by at most {done.apart:.4f} on random images")
    if done.graphs is not None:
        tell(done.folder / "onnx", done.graphs)
    elif options.onnx is None:
        print(f"not written as ONNX, which needs {onnx.needed()}")
    print(f"read, and complete, the card: {done.folder / 'README.md'}")


def tell(folder: Path, graphs: Any) -> None:
    """What was measured of the ONNX files. graphs: engrec.use.card.Graphs."""
    size = len(graphs.content) / 1e6
    print(f"{folder / 'model.onnx'}: {size:.2f} MB, probabilities differ from torch's by at most {graphs.apart:.1g}")
    if graphs.int8 is not None:
        print(f"{folder / 'model_int8.onnx'}: {len(graphs.int8) / 1e6:.2f} MB, {graphs.agreement}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="best.ckpt or last.ckpt of a run, or another .safetensors")
    parser.add_argument("folder", type=Path, help="a new folder; an earlier export in it is replaced")
    parser.add_argument(
        "--runs", nargs="+", type=Path,
        help="finished runs that differ in fold and seed alone, from which scores and temperature come (default: the "
        "run that the checkpoint lies in)",
    )  # fmt: skip
    parser.add_argument("--float32", action="store_true", help="full precision, twice as large")
    parser.add_argument(
        "--onnx",
        action=argparse.BooleanOptionalAction,
        help="also as ONNX, compared with torch (default: if the packages of pip install -e '.[export]' are there)",
    )
    parser.add_argument(
        "--int8", type=Path, metavar="PREPARED",
        help="the ONNX in 8-bit integers too, calibrated on training images of this prepared data set, such "
        "as data/fer2013.npz",
    )  # fmt: skip
    parser.add_argument(
        "--license", type=licence, default="unknown", help="of the weights, such as mit (default: unknown)"
    )
    parser.add_argument("--notes", type=Path, help="a Markdown file of your own, which becomes the end of the card")
    options = parser.parse_args(arguments)
    if options.int8 is not None and options.onnx is False:
        parser.error("--int8 is made of the ONNX: leave out --no-onnx")
    return options


def licence(text: str) -> str:
    if re.fullmatch(r"[a-z0-9.+-]{2,40}", text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be an identifier such as mit, apache-2.0, cc-by-nc-4.0 or other"
        )
    return text


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--notes {path} is not text in UTF-8") from error


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
