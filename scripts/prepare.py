"""Convert a data set as distributed into the file that training reads: python scripts/prepare.py --help"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    import numpy as np

    from engrec.datasets.faults import mark_faults
    from engrec.datasets.prepared import Faces, excludable
    from engrec.datasets.schema import FILE_NAME_RULE, SPLITS, is_file_name
    from engrec.errors import errors_in_one_line, quoted, shell_line
    from engrec.importers import (
        daisee,
        engagenet,
        engagewild,
        er,
        fer2013,
        ferplus,
        files,
        manifest,
        photos,
        video,
        wacv2016,
    )
    from engrec.machine.files import check_folder, write_text
    from engrec.words import counted

EXAMPLES = {
    "fer2013": """\
  python scripts/prepare.py fer2013 fer2013.tar.gz
  python scripts/prepare.py fer2013 icml_face_data.csv
  python scripts/prepare.py fer2013 archive.zip            (train/CLASS/*.jpg and test/CLASS/*.jpg)""",
    "ferplus": """\
  python scripts/prepare.py ferplus fer2013.tar.gz fer2013new.csv
  python scripts/prepare.py ferplus fer2013.csv fer2013new.csv --rule probability --out data/ferplus_probability.npz""",
    "wacv2016": """\
  python scripts/prepare.py wacv2016 wacv2016.zip""",
    "er": """\
  python scripts/prepare.py er folder_with_X_train.npy_and_Y_train.npy""",
    "daisee": """\
  python scripts/prepare.py daisee DAiSEE                  (DataSet/ and Labels/, unpacked)
  python scripts/prepare.py daisee DAiSEE --every 0.5      (two frames a second)""",
    "engagenet": """\
  python scripts/prepare.py engagenet EngageNet            (Train/, Validation/, Test/ and the label files)""",
    "engagewild": """\
  python scripts/prepare.py engagewild EngageWild          (Train/, Validation/ and the label files)
  python scripts/prepare.py engagewild EngageWild --subject-regex '(p\\d+)_'""",
    "manifest": """\
  python scripts/prepare.py manifest faces.csv --name mydata --classes disengaged,engaged
  python scripts/prepare.py manifest faces.zip --name mydata --subject-regex '(s\\d+)_' --size 96 --colour rgb

  faces.csv holds               or faces/, faces.zip, faces.tar.gz hold
    path,label,subject,split      engaged/s12_0001.png            train/engaged/s12_0001.png
    img/1.png,engaged,s12,train   disengaged/s07_0044.png    or   test/disengaged/s07_0044.png
  subject and split are optional. With subjects, results are about people the network has never seen.""",
    "faces": """\
  python scripts/prepare.py faces photos/ --name mine --classes disengaged,engaged --subject-regex '(s\\d+)_'
  python scripts/prepare.py faces photos/ --name mine --person-folders        (engaged/anna/IMG_0001.jpg)
  python scripts/prepare.py faces photos.csv --name mine                      (path,label[,subject][,split])
  python scripts/prepare.py faces engaged/*.mp4 disengaged/*.mp4 --name mine --every 2

  An image is the largest face of a photograph, or one person's face in one frame per second of a video. What
  was found in each picture, and what was left out, is written to a CSV beside the data set.""",
}
FINETUNE = ("stage=finetune", "init_from=engrec:expressions")
RECIPES = {  # of conf/experiment
    "fer2013": ("experiment=fer2013",),
    "ferplus": ("experiment=fer2013", "dataset=ferplus", "module.soft_labels=true"),
    "wacv2016": ("experiment=wacv2016", *FINETUNE),
    "daisee": ("experiment=daisee", *FINETUNE),
    "engagenet": ("experiment=engagenet", *FINETUNE),
}
OWN = ("manifest", "faces")  # importers of the user's own data
LISTED = 10  # pictures that were left out; the others are in the CSV


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    out = args.out or Path("data", f"{getattr(args, 'name', args.importer)}.npz")
    pictures: list[photos.Picture] = []
    problems: dict[str, str] = {}
    try:
        if out.is_dir() or out.suffix != ".npz":
            raise ValueError(f"--out {out} must be a file name that ends in .npz")
        check_folder(next(folder for folder in out.absolute().parents if folder.exists()))
        faces = mark_faults(Faces(**_read(args, pictures, problems)))
        faces.save(out)
        if pictures:
            write_text(_list_of(out), photos.report(pictures))
    except (ValueError, OSError, MemoryError) as error:
        if args.traceback:
            raise
        print(f"error: {files.one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {out} was not written", file=sys.stderr)
        return 130
    unreadable = [line for line in problems.values() if line]
    left_out = _left_out(pictures, _list_of(out)) if pictures else "".join(f"\n{_said(line)}" for line in unreadable)
    wrote = f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); next:\n  {_next(args, faces, out)}"
    print(f"{_summary(faces)}{left_out}\n\n{wrote}")
    if unreadable:
        what = f"{len(unreadable)} of {len(problems)} files could not be read, or only in part"
        print(f"error: {what}: {out} has the rest", file=sys.stderr)
        return 1
    return 0


def _list_of(out: Path) -> Path:
    """Where the pictures of a data set are listed."""
    return out.with_name(f"{out.stem}_pictures.csv")


def _left_out(pictures: list[photos.Picture], path: Path) -> str:
    """The pictures that were left out, those that cannot be read first, and the file that lists all of them."""
    left_out = sorted((picture for picture in pictures if picture.left_out), key=lambda p: not photos.is_unreadable(p))
    named = [_reason(picture) for picture in left_out[:LISTED]]
    more = [f"left out: {len(left_out) - LISTED} more"] if len(left_out) > LISTED else []
    return "\n".join(["", *named, *more, f"every picture, with what was found in it: {path}"])


def _reason(picture: photos.Picture) -> str:
    return _said(picture.left_out if photos.is_unreadable(picture) else f"{picture.left_out}: {picture.source}")


def _said(line: str) -> str:
    return f"used in part, {line}" if files.is_damaged(line) else f"left out: {line}"


def _read(args: argparse.Namespace, pictures: list[photos.Picture], problems: dict[str, str]) -> dict[str, Any]:
    """Arguments of `Faces`. Photographs and frames of raw videos are added to `pictures`; to `problems` each file that
    may fail alone, with the line that says why."""
    match args.importer:
        case "fer2013":
            return fer2013.read(args.source)
        case "ferplus":
            return ferplus.read(args.source, args.votes, args.rule)
        case "wacv2016":
            return wacv2016.read(args.source)
        case "er":
            return er.read(args.source)
        case "daisee":
            faces, found = daisee.read(args.source, args.every)
        case "engagenet":
            faces, found = engagenet.read(args.source, args.every)
        case "engagewild":
            faces, found = engagewild.read(args.source, args.every, args.subject_regex)
        case _:
            return _own(args, pictures, problems)
    problems |= found
    return faces


def _own(args: argparse.Namespace, pictures: list[photos.Picture], problems: dict[str, str]) -> dict[str, Any]:
    """Arguments of `Faces` from the user's own data."""
    classes = args.classes and [name.strip() for name in args.classes.split(",")]
    options = (args.name, classes, args.subject_regex, args.size, args.colour, args.root, args.ordered)
    if args.importer == "manifest":
        return manifest.read(args.source, manifest.Options(*options))
    looked_at = (args.person_folders, args.every, args.detect_size, args.threshold)
    faces, found = photos.read(args.source, photos.Settings(*options, *looked_at))
    pictures += found
    problems |= photos.problems(found)
    return faces


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    importers = parser.add_subparsers(dest="importer", required=True, metavar="DATASET")

    def add(name: str, module: Any, source: str, number: str | None = None) -> argparse.ArgumentParser:
        sub = importers.add_parser(
            name,
            help=module.__doc__,
            description=module.__doc__,
            epilog=f"examples:\n{EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("source", type=Path, metavar="SOURCE", help=source, nargs=number)
        default = "NAME" if name in OWN else name
        sub.add_argument("--out", type=Path, help=f"file to write (default: data/{default}.npz)")
        sub.add_argument("--traceback", action="store_true", help="show where an error came from")
        return sub

    def add_videos(name: str, module: Any, every: float) -> argparse.ArgumentParser:
        sub = add(name, module, "unpacked folder with the videos and the label files")
        sub.add_argument(
            "--every", type=float, default=every, help="seconds from one frame to the next (default: %(default)s)"
        )
        return sub

    add("fer2013", fer2013, "fer2013.csv, or an archive or folder with it or with the image folders")
    plus = add("ferplus", ferplus, "FER-2013 as CSV: fer2013.csv, fer2013.tar.gz")
    plus.add_argument("votes", type=Path, metavar="VOTES_CSV", help="fer2013new.csv, the annotators' votes")
    plus.add_argument(
        "--rule", choices=ferplus.RULES, default="majority", help="FER+'s rule that selects images (default: majority)"
    )
    add("wacv2016", wacv2016, "wacv2016.zip, or the unpacked folder")
    add("er", er, "folder with X_train.npy and Y_train.npy, and the same for val and test")
    add_videos("daisee", daisee, every=1)
    add_videos("engagenet", engagenet, every=1)
    add_videos("engagewild", engagewild, every=5).add_argument(
        "--subject-regex",
        metavar="RE",
        default=video.SUBJECT.pattern,
        help="its one group matches the subject in the name of a video (default: %(default)s)",
    )
    crops = add("manifest", manifest, "CSV of path,label[,subject][,split]; or class folders, plain, .zip or .tar.*")
    raw = add(
        "faces", photos, "class folders; or a CSV of path,label[,subject][,split]; or files in class folders", "+"
    )
    for own in (crops, raw):
        _add_own(own)
    raw.add_argument(
        "--person-folders", action="store_true", help="CLASS/PERSON/photo.jpg, or with --classes PERSON/CLASS/photo.jpg"
    )
    raw.add_argument("--every", type=float, default=1.0, help="seconds between the frames of a video (default: 1)")
    raw.add_argument(
        "--detect-size",
        type=int,
        metavar="PIXELS",
        help=f"longer side given to the detector (default: {photos.SIZE}; {photos.VIDEO_SIZE} where all are videos)",
    )
    raw.add_argument(
        "--threshold",
        type=float,
        default=photos.THRESHOLD,
        help=f"least score of a face, from 0 to 1 (default: {photos.THRESHOLD})",
    )
    return parser


def _add_own(own: argparse.ArgumentParser) -> None:
    """The options for the user's own data."""
    own.add_argument("--name", type=_name, required=True, help=f"name of the data set: {FILE_NAME_RULE}")
    own.add_argument(
        "--classes",
        metavar="A,B,…",
        help="class names in order; of two, F1 is that of the second (default: sorted)",
    )
    own.add_argument(
        "--ordered",
        action="store_true",
        help="the classes are levels, in the order of --classes: three or more get kappa, mean absolute and mean "
        "squared error",
    )
    own.add_argument(
        "--subject-regex", metavar="RE", help="regular expression whose one group matches the subject in each path"
    )
    own.add_argument("--root", type=Path, help="folder that the CSV's paths start from (default: the CSV's own)")
    own.add_argument("--size", type=int, default=48, help="height and width of the images (default: 48)")
    own.add_argument("--colour", choices=manifest.COLOURS, default="grey", help="(default: grey)")


def _name(text: str) -> str:
    if not is_file_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} must have {FILE_NAME_RULE}")
    return text


def _summary(faces: Faces) -> str:
    """Summary: images per class and split, subjects, file formats, excludable images, and the importer's notes."""
    splits = [] if faces.splits is None else [split for split in SPLITS if (faces.splits == split).any()]
    width = max(len(name) for name in (*faces.class_names, "class")) + 2
    lines = ["".join(["class".ljust(width), *(f"{head:>8}" for head in (*splits, "all"))])]
    for name, mask in [
        *((name, faces.labels == index) for index, name in enumerate(faces.class_names)),
        ("all", np.ones(len(faces), bool)),
    ]:
        counts = [int((mask & (faces.splits == split)).sum()) for split in splits] + [int(mask.sum())]
        lines.append("".join([name.ljust(width), *(f"{count:>8}" for count in counts)]))
    _, channels, height, pixel_width = faces.images.shape
    lines.append(f"\n{faces.name}: {counted(len(faces), 'image')}, {channels} × {height} × {pixel_width}")
    if faces.clips is not None:
        lines.append(f"clips: {len(np.unique(faces.clips)):,}; results are given per clip too")
    lines.append(f"subjects: {'unknown' if faces.subjects is None else len(np.unique(faces.subjects))}")
    if len(faces.class_names) == 2:
        order = "; --classes sets their order" if faces.recipe.get("importer") in OWN else ""
        lines.append(f"F1 will be that of {faces.class_names[1]}, the second class{order}")
    if faces.formats is not None:
        kinds = Counter(found.rsplit(" ", 1)[0] for found in faces.formats.tolist())
        lines.append("files: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    if faces.splits is not None:
        counts = ", ".join(f"{mask.sum()} {kind}" for kind, mask in excludable(faces).items())
        lines.append(f"training images with faults, which dataset.exclude can leave out: {counts}")
    return "\n".join(lines + [f"note: {note}" for note in faces.recipe.get("notes", [])])


def _next(args: argparse.Namespace, faces: Faces, out: Path) -> str:
    """The command that trains on the file just written: the recipe of conf/experiment, where there is one."""
    path = [] if args.out is None and args.importer not in OWN else [f"dataset.path={quoted(out)}"]
    if args.importer in RECIPES:
        words = [*RECIPES[args.importer], *path]
    else:
        fits = faces.images.shape[1:] == (1, 48, 48)  # the expressions that come with engrec are of one size
        start = FINETUNE if fits else ("stage=scratch",)
        words = [
            *start,
            "model=resnet_small",
            f"dataset={'prepared' if args.importer in OWN else args.importer}",
            *path,
        ]
    if faces.splits is not None and {"train", "test"} <= set(faces.splits.tolist()):
        return shell_line(["python", "train.py", *words])
    people = 0 if faces.subjects is None else len(np.unique(faces.subjects))
    if people < 3:  # to train, to validate, to test
        why = (
            f"found {counted(people, 'person', 'people')}, at least 3 are needed"
            if people
            else "nobody knows who is who: use --subject-regex or a subject column"
        )
        check = f"(no result about new people, only a leakage check: {why})"
        return f"{shell_line(['python', 'train.py', *words, 'split=random'])}\n  {check}"
    fewer = [f"split.num_folds={people}"] if people < 5 else []
    folds = ["split=kfold", *fewer, f"split.fold=range({min(people, 5)})"]
    return shell_line(["python", "train.py", "-m", *words, *folds])


if __name__ == "__main__":
    with errors_in_one_line():
        sys.exit(main())
