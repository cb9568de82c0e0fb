"""Whether the process or the computer was suspended: a reading that spans a suspension is none."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

SLEEP_SECONDS = 0.5
"""Seconds of sleep of the computer from which on it counts."""


class Suspensions:
    """Counts suspensions: stopped and continued by signals (SIGSTOP or Ctrl-Z, then SIGCONT), or asleep as a whole.

    Signals are noticed between ``__enter__`` and ``__exit__`` in the main thread; the computer's sleep everywhere where
    the system has a clock that goes on meanwhile (Linux, clock_gettime(2), CLOCK_BOOTTIME).
    """

    def __init__(self) -> None:
        self._continued = self._slept = 0
        self._asleep = _asleep()
        self._before: object = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGCONT)
            signal.signal(signal.SIGCONT, self._continue)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGCONT, self._before)  # type: ignore[arg-type]  # what getsignal returned
            self._before = None

    @property
    def count(self) -> int:
        """How many suspensions were noticed so far."""
        asleep = _asleep()
        if asleep - self._asleep > SLEEP_SECONDS:
            self._slept += 1
        self._asleep = asleep
        return self._continued + self._slept

    def _continue(self, number: int, frame: FrameType | None) -> None:
        self._continued += 1
        if callable(self._before):
            self._before(number, frame)


def _asleep() -> float:
    """Return how long the computer has been asleep since it started, seconds; 0 where the system does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
