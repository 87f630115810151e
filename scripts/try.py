"""A page to try networks on pictures, videos and the camera.

python scripts/try.py                                   # on 127.0.0.1, with engrec:expressions and engrec:engagement
python scripts/try.py --weights outputs/mine/best.ckpt --open
make web && python scripts/try.py --export exported/page  # files for any host: the browser computes

No picture leaves the machine. A prediction is what annotators would say of a picture, not what a person felt: it is
not for judging, grading or watching people.
"""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line

PORT = 8766


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", nargs="+", action="extend", metavar="FILE",
        help="a .ckpt, .safetensors or .onnx, or engrec:NAME; several are shown beside each other (default: "
        "engrec:expressions and engrec:engagement)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=PORT, help="0 takes any free port (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the page as files instead of serving it")
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port}: must be from 0 to 65535")
    if options.export:
        export(options.weights, options.export)
    else:
        serve(options.weights, options.port, options.open)


def serve(weights: list[str] | None, port: int, shown: bool) -> None:
    with ctrl_c_exits():
        from engrec.machine.local_server import LOOPBACK, bound

        listening = bound(LOOPBACK, port)  # before the networks, which take seconds to load
        from engrec.use.page import server
        from engrec.use.predict import Predictor

        predictor = Predictor.load(weights)

    def ready(address: str) -> None:
        names = ", ".join(predictor.answerer.names)
        print(f"{names}: {address} (Ctrl-C stops it)", flush=True)
        if shown:
            webbrowser.open(address)

    try:
        server.serve(predictor, listening, ready)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)  # a computation in a thread would keep the process alive


def export(weights: list[str] | None, folder: Path) -> None:
    with ctrl_c_exits():
        from engrec.use.page import static

    print("writing the networks as ONNX …", flush=True)
    num_bytes = static.export(weights, folder)
    print(f"{folder}: {num_bytes / 1e6:.1f} MB. To look at it here: python -m http.server -b 127.0.0.1 -d {folder}")
    print("Any host for files will do. The camera works by https, and on localhost.")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
