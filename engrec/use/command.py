"""The command `engrec-predict`, which scripts/predict.py is too: faces in pictures and videos, read by networks."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from engrec.machine.signals import ctrl_c_exits
from engrec.words import counted

if TYPE_CHECKING:
    from engrec.use.network import Network
    from engrec.use.recording import Counted, Recorded

DESCRIPTION = """\
What networks say of every face in pictures, folders and videos: expressions and engagement.

engrec-predict photo.jpg
engrec-predict lessons/ --video
engrec-predict lesson.mp4 --every 0.2 --weights outputs/mine/best.ckpt --weights engrec:expressions

It writes a folder with predictions.csv (a row for each face and frame), for pictures a sheet of them with boxes and
answers, for videos predictions_windows.csv (a row for each face and ten seconds) and a timeline as a picture, and
predictions.json, which says how they were made. Everything is computed on this machine. A prediction is what annotators
would say of a picture, not what a person felt: it is not for judging, grading or watching people.
"""
ROOM = Path("outputs/predictions")


def main(arguments: Sequence[str] | None = None) -> None:
    """What the console command calls."""
    with ctrl_c_exits():
        from engrec.errors import errors_in_one_line
    with errors_in_one_line():
        run(parse(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "engrec-predict", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=path, metavar="PATH", help="a picture, a video, or a folder of these")
    parser.add_argument(
        "--weights", action="append", metavar="FILE",
        help="a .ckpt, .safetensors or .onnx, or engrec:NAME; may be given several times (default: engrec:expressions "
        "and engrec:engagement)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"a new folder; earlier predictions in it are replaced (default: "
        f"{ROOM}/NAME)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=seconds, metavar="SECONDS", help="read a frame of a video each so many seconds (default: all)"
    )
    parser.add_argument("--video", action="store_true", help="also a copy of each video with boxes and answers")
    parser.add_argument(
        "--names", choices=("engrec", "py-feat"), default="engrec", help="of the columns and expressions"
    )
    return parser.parse_intermixed_args(without_dashes(arguments))


def without_dashes(arguments: Sequence[str]) -> list[str]:
    """The arguments without "--", which names the rest as paths: argparse does not take it between options."""
    if "--" not in arguments:
        return list(arguments)
    here = list(arguments).index("--")
    return [*arguments[:here], *(f"./{name}" if name.startswith("-") else name for name in arguments[here + 1 :])]


def path(text: str) -> Path:
    if not text:  # of a variable that is not set; as a Path it would be the current folder
        raise argparse.ArgumentTypeError("is empty: give the path of a picture, a video or a folder")
    return Path(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0, such as 0.2")
    return value


def run(options: argparse.Namespace) -> None:
    """Read, write, and say what was written. Ends with status 1 if an input could not be read, 130 after Ctrl-C."""
    with ctrl_c_exits():
        from engrec.use.inputs import find
        from engrec.use.predict import Predictor
        from engrec.use.recording import check_free, record
        from engrec.weights_file import is_shipped

        if names := [path for path in options.paths if is_shipped(path)]:
            raise ValueError(f"{names[0]} is a network: give each its own --weights, as --weights A --weights B")
        folder = options.out or free_folder(options.paths[0])
        inputs, problems = find(options.paths)
        check_free(folder, inputs)
        for line in problems:
            print(f"error: {line}", file=sys.stderr)
        if not inputs:
            sys.exit(f"error: {len(problems):,} of {len(problems):,} inputs could not be read")
        predictor = Predictor.load(options.weights)
        for network in predictor.networks:
            print(described(network), flush=True)
    done = record(predictor, inputs, folder, options.names, options.every, options.video, problems)
    for line in summary(done):
        print(line)
    end(done, len(inputs) + len(problems))


def free_folder(path: Path) -> Path:
    """Below ROOM, named after the first input, with a number where there is one already."""
    name = (path.stem if path.is_file() else path.resolve().name) or "predictions"
    folders = (ROOM / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in folders if not folder.exists())


def described(network: Network) -> str:
    """A line about a network, with what is known of the crops that it has learned from."""
    crops = "cropped as here" if network.crop else "whose crops are not known to be like these: trust it less"
    trained = f"trained on {network.dataset or 'unknown images'}, {crops}"
    return f"{network.task}: {network.source} ({', '.join(network.class_names)}), {trained}; {network.engine}"


def summary(done: Recorded) -> list[str]:
    from engrec.faces.crop import SMALL
    from engrec.use.limits import LIMITS

    lines = [*done.answers, *(_of(one) for one in done.counted if one.read)]
    if small := sum(one.small for one in done.counted):
        number = sum(one.faces for one in done.counted)
        lines.append(f"{small:,} of {number:,} faces under {SMALL} pixels: trust those rows less")
    if done.num_rows:
        lines += [f"{done.folder}: {', '.join(done.files)}", LIMITS]
    return lines


def _of(one: Counted) -> str:
    if one.kind == "picture":
        return f"{counted(one.read, 'picture')}, {counted(one.faces, 'face')}; {one.none:,} without a face"
    length = f"{counted(one.read, 'frame')}, {one.seconds or 0:.1f} s"
    again = " (a person who leaves and returns counts again)" if one.ids > 1 else ""
    faces = f"{counted(one.ids, 'face')} followed{again}"
    return f"{one.input}: {length}, {faces}; {counted(one.none, 'frame')} without a face"


def end(done: Recorded, total: int) -> None:
    """Exit as the result is, with one line where it is not complete."""
    if done.stopped is not None:
        kept = f"{counted(done.num_rows, 'row')} kept in {done.folder}" if done.num_rows else "nothing was written yet"
        lost = f"; {done.lost} was not complete, and is not kept" if done.lost else ""
        print(f"stopped: {kept}{lost}", file=sys.stderr)
        sys.exit(done.stopped)
    if failed := len(done.failed):
        sys.exit(f"error: {failed:,} of {total:,} inputs could not be read, or not to their end")
