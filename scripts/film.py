"""A film of two synthetic faces whose expressions change, one minute of 640×360: to try predict.py.

One of the two leaves and returns.

python scripts/film.py film.mp4
python scripts/predict.py film.mp4
"""

import argparse
import sys
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line, in_shell


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the video to write: .mp4, .mkv, .webm")
    path = parser.parse_args(arguments).path
    from engrec.faces.video import write_video
    from engrec.machine.progress import progress_bar
    from engrec.use.film import RATE, SECONDS, film

    write_video(path, progress_bar(film(), path.name, "frames", RATE * SECONDS), RATE)
    print(f"wrote {path}; next: python scripts/predict.py {in_shell(str(path))}")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
