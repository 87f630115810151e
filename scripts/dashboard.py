"""All runs on one page: table, learning curves, folds and seeds, single runs, two side by side.

python scripts/dashboard.py                                  # serves outputs on 127.0.0.1, also while runs train
python scripts/dashboard.py outputs/wacv2016 --port 9000
python scripts/dashboard.py --export outputs/dashboard.html  # one file that opens anywhere
"""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line
    from engrec.machine.files import atomic_write

PORT = 8765


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        help="folder of the runs (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=PORT, help="0 takes any free port (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0: anyone can connect (default: %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--export", type=Path, metavar="PAGE.html", help="write one file instead of serving")
    parser.add_argument(
        "--faces",
        action="store_true",
        help="include real faces in an export, or when other machines can connect; synthetic faces are always shown",
    )
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        wrong = "is not a folder" if options.folder.exists() else "does not exist"
        message = f"{options.folder} {wrong}; python train.py makes a run in outputs"
        if options.export or options.folder.exists():
            raise ValueError(message)
        print(message, file=sys.stderr)  # it may come: the page waits for it
    if not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port}: must be from 0 to 65535")
    if options.export:
        export(options.folder, options.export, options.faces)
    else:
        serve(options.folder, options.host, options.port, options.faces, options.open)


def serve(folder: Path, host: str, port: int, faces: bool, shown: bool) -> None:
    from engrec.machine.local_server import is_loopback
    from engrec.pages.dashboard import server

    def ready(address: str) -> None:
        print(f"{folder} is at {address} (Ctrl-C stops it)", flush=True)
        if not is_loopback(host):
            print("Everybody who can reach this machine can read it: there is no password.", flush=True)
        if shown:
            webbrowser.open(address)

    try:
        server.serve(folder, host, port, faces or is_loopback(host), ready)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)  # a computation in a thread would keep the process alive


def export(folder: Path, path: Path, faces: bool) -> None:
    from engrec.pages.dashboard import html
    from engrec.pages.dashboard.answers import Details
    from engrec.pages.dashboard.records import Outputs
    from engrec.words import counted

    outputs = Outputs(folder)
    try:
        outputs.scan()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be read ({error.strerror}); python train.py makes a run in outputs"
        ) from error
    if not outputs.runs:
        raise ValueError(f"there is no run in {folder}; python train.py makes one in outputs")
    print(f"reading {folder} …", flush=True)
    with atomic_write(path) as file:
        for part in html.exported(outputs, Details(outputs, faces), str(folder)):
            file.write(part)
    runs = counted(len(outputs.runs), "run")
    print(f"{path}: {runs}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
