"""Signals: Ctrl-C and kill end a run as an exception does; what must be complete is not interrupted."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def signals_end_the_run(**more: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and kill leave the run as an exception does, with the exit status that a signal gives: 130 and 143.

    Lightning would make 1 of the KeyboardInterrupt that Python raises. A signal that is ignored, as Ctrl-C is by a
    shell's background job, stays ignored. more: what is done first at other signals, by their names.
    """
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    for name, first in more.items():

        def stop_after(signum: int, frame: Any, first: Callable[[], None] = first) -> None:
            first()
            stop(signum, frame)

        number = signal.Signals[name]
        before.setdefault(number, signal.signal(number, stop_after))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(signum: int, _: Any) -> NoReturn:
    sys.exit(128 + signum)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that end the run wait until this is done, so that it is done whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda signum, _: came.append(signum)) for n in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
