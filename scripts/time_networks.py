"""How fast small networks compute at several image sizes: python scripts/time_networks.py

Forward and backward of one batch in bfloat16, channels-last, on one thread of the CPU. Each time is the least of some
steps, taken in turn, in CPU time of the thread, so that a busy machine measures nearly what an idle one does.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from engrec.errors import errors_in_one_line
    from engrec.machine.hardware import keep_memory
    from engrec.models.resnet_small import ResNetSmall
    from engrec.models.vgg import VGG

WIDTHS = ((64, 128, 256), (80, 160, 320), (96, 192, 384), (128, 256, 512))


class Timed(NamedTuple):
    """step: forward and backward of a batch. gflop: its multiplications and additions, in billions."""

    network: str
    side: int
    step: Callable[[], None]
    gflop: float


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 40, 48])
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_memory()
    timed = [prepared(*network, side, args.batch_size) for network in networks().items() for side in args.sides]
    seconds = dict.fromkeys(range(len(timed)), math.inf)
    for _ in range(args.repeats):
        for i, one in enumerate(timed):
            started = time.thread_time()
            one.step()
            seconds[i] = min(seconds[i], time.thread_time() - started)
    print("| network | pixels | images/s | GFLOP/s |\n| --- | --- | --- | --- |")
    for i, one in enumerate(timed):
        rate = args.batch_size / seconds[i]
        print(f"| {one.network} | {one.side} | {rate:.0f} | {one.gflop / seconds[i]:.0f} |")


def networks() -> dict[str, nn.Module]:
    small = VGG(norm="batch", width=0.5, dense=[], block_dropout=0.1)  # conf/model/vgg_small.yaml
    variants = {f"resnet_small {'-'.join(map(str, widths))}": ResNetSmall(widths=widths) for widths in WIDTHS}
    return {"vgg_small": small, **variants}


def prepared(name: str, network: nn.Module, side: int, batch_size: int) -> Timed:
    """The step, taken once to count and to warm up."""
    network.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.randn(batch_size, 1, side, side)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            features = network(images)
        features.float().sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    return Timed(name, side, step, counter.get_total_flops() / 1e9)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
