"""What signals do to a command."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hilcl.uninterrupted import SIGNALS, say

_Handler = Callable[[int, FrameType | None], Any] | int | None
"""What ``signal.getsignal`` returns; None: set by no Python program."""


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command the way Ctrl-C does: board safe, steps stored.

    The first signal ends it; those that come while it is ending change nothing and are answered in words, until it has
    ended: then there is nothing to wait for.
    """
    ended = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if ended:
            return
        if _interrupted():
            say("hilcl: stopping already, please wait\n")
            return
        raise KeyboardInterrupt

    # What the caller ignores stays ignored: that is how nohup works.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler not in {signal.SIG_IGN, None}]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        # Where a signal ended it, more of them must not break off what is still to be said: see ``handlers_kept``.
        if not (ended := _interrupted()):
            _set(before)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Leave the signals as they were found."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _set(before)


def ignore_signals() -> None:
    """Let the process end undisturbed, now that everything is done."""
    # Blocked first: Python complains of a signal whose handler is taken away between its coming and its handling.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _set(handlers: dict[int, _Handler]) -> None:
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)


def _interrupted() -> bool:
    """Return whether an interrupt is being dealt with right now, by whatever other error it has become since."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
