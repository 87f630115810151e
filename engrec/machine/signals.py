"""Signal handling: Ctrl-C and kill raise SystemExit in a run; critical sections are not interrupted."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def ctrl_c_exits() -> Iterator[None]:
    """Ctrl-C ends the process at once, without a traceback: for the seconds in which a command loads its modules."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signals_end_the_run(**more: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and kill raise SystemExit, with the usual exit status of a signal: 130 and 143.

    With Python's KeyboardInterrupt, Lightning would exit with 1. An ignored signal, as Ctrl-C in a background job of a
    shell, stays ignored. more: functions to call first, by the names of further signals.
    """
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
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
    """Delay signals that end the run until this block is complete."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {n: signal.signal(n, lambda signum, _: received.append(signum)) for n in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
