"""The method on synthetic faces: expressions first, then engagement, fine-tuned and from scratch, then the table."""

import argparse
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from engrec.machine.signals import ctrl_c_exits, signals_end_the_run

with ctrl_c_exits():
    from engrec.errors import errors_in_one_line

ROOT = Path(__file__).parents[1]
OUT = Path("outputs/demo")  # below the root; emptied first
SEEDS = "0,1,2"
NETWORK = ("model=vgg_small", "model.width=0.25", "optimizer.lr=0.05")
OURS = ("stage", "seed", "output_dir", "init_from", "ckpt_path")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="for all runs, such as model=vgg")
    options = parser.parse_args(arguments)
    check(options.overrides)
    shutil.rmtree(ROOT / OUT, ignore_errors=True)
    started = time.perf_counter()
    pretrained = OUT / "pretrain"
    network = [*NETWORK, *options.overrides]
    engagement = ["train.py", "-m", *network, f"seed={SEEDS}"]  # Hydra takes -m before the overrides alone
    run("1/3  expressions", ["train.py", *network, "stage=pretrain", "max_epochs=8", f"output_dir={pretrained}"])
    start = [f"init_from={pretrained / 'best.ckpt'}", f"hydra.sweep.dir={OUT / 'finetune'}"]
    run("2/3  engagement, fine-tuned from expressions, three seeds", [*engagement, "stage=finetune", *start])
    run(
        "3/3  engagement, from scratch, three seeds",
        [*engagement, "stage=scratch", f"hydra.sweep.dir={OUT / 'scratch'}"],
    )
    run("the table", ["scripts/summarize.py", str(OUT), "--out", str(OUT / "summary")])
    print(f"{time.perf_counter() - started:.0f} seconds. Faces: python scripts/contact_sheet.py dataset=synthetic.")
    print("Real data: python scripts/prepare.py --help, and the README.")


def check(overrides: list[str]) -> None:
    """Raise ValueError for what one of the runs would refuse, before the earlier demo is removed."""
    from engrec import config

    if ours := [o for o in overrides if o.lstrip("+~").partition("=")[0] in OURS]:
        raise ValueError(f"{ours[0]} is decided by the demo for each run: leave it out")
    for stage in ("pretrain", "scratch"):
        config.check(config.composed([*NETWORK, *overrides, f"stage={stage}", f"output_dir={OUT}"]))


def run(title: str, command: list[str]) -> None:
    """Print the command and run it as a user would. Exits with its status if it fails."""
    print(f"\n{title}\n  python {' '.join(command)}\n", flush=True)
    with signals_end_the_run(), subprocess.Popen([sys.executable, *command], cwd=ROOT) as child:
        try:
            status = child.wait()
        except SystemExit:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=2)  # Ctrl-C reaches both
            child.terminate()
            raise
    if status:
        sys.exit(status)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
