"""Work that signals may not break off: making a bench safe, and noting how a run ended."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def uninterrupted(what: str) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait until the block is done; each is answered with ``what`` is being done.

    They take effect afterwards, unless an exception was on its way already: then the program is ending anyway. In
    threads other than the main one, which signals do not reach, this does nothing. Also a decorator.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        say(f"hilcl: {what}, please wait\n")

    ending = sys.exc_info()[1] is not None
    # None stands for a handler that Python did not set and cannot set again.
    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came and not ending and sys.exc_info()[1] is None:
            signal.raise_signal(came[0])


def say(text: str) -> None:
    """Write to standard error from a signal handler, where the stream itself may be in use, if anybody reads it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), text.encode("utf-8", "replace"))
