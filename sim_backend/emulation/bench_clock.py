"""The one clock of an emulated bench, on which durations pass scaled or are skipped."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from hilcl.errors import InputError
from hilcl.strand import own_strand, present_strand

T = TypeVar("T")


class BenchClock:
    """Emulated seconds. ``scale`` real seconds pass for each of them where somebody waits; 0 waits for nothing.

    Where nothing is waited for, every instrument and every strand of the program (hilcl.strand) has a time of its own,
    and messages carry it: an instrument begins when the program has sent, and the program goes on when the instrument
    has answered (Lamport, Communications of the ACM 21 (1978) 558). So what one thread does one after another adds up,
    and what threads do at once counts once, however the computer happens to run them.
    """

    def __init__(self, scale: float = 0.0) -> None:
        if not 0 <= scale < float("inf"):
            raise InputError(f"the time scale of an emulated bench must be 0 or more, but it is {scale}")
        self.scale = scale
        self._lock = threading.Lock()
        self._local = threading.local()
        self._start = time.monotonic()
        self._latest = self._jumped = 0.0

    def now(self) -> float:
        """Return emulated seconds since the bench was switched on, those of the instrument or strand that asks.

        Who has no time of its own gets the latest of all.
        """
        aside: float = getattr(self._local, "aside", None) or 0.0
        if self.scale:
            return (time.monotonic() - self._start) / self.scale + self._jumped + aside
        own = self.own_time()
        with self._lock:
            return (self._latest if own is None else own) + self._jumped + aside

    def jump(self, seconds: float) -> None:
        """Set the clock forward or back; nothing waits for that."""
        with self._lock:
            self._jumped += seconds

    def follow(self) -> None:
        """Let the caller's strand, and what is forked from it, have a time of its own."""
        with self._lock:
            latest = self._latest
        own_strand().reached.setdefault(self, latest)

    def spend(self, seconds: float) -> None:
        """Let emulated time pass; blocks ``seconds`` times the scale."""
        aside: float | None = getattr(self._local, "aside", None)
        if aside is not None:
            self._local.aside = aside + seconds
            return
        if self.scale:
            time.sleep(seconds * self.scale)
            return
        own = self.own_time()
        # A thread that nobody follows counts from 0, so that such threads wait in parallel.
        self._keep((getattr(self._local, "seconds", 0.0) if own is None else own) + seconds)

    def aside(self, work: Callable[[], T]) -> tuple[T, float]:
        """Do ``work`` and return what it returned and the seconds it takes, which do not pass here.

        For what an instrument does while it goes on with something else; to wait for it, spend the seconds.
        """
        before: float | None = getattr(self._local, "aside", None)
        begun = before or 0.0
        self._local.aside = begun
        try:
            result = work()
            return result, self._local.aside - begun
        finally:
            self._local.aside = before

    # What messages need.

    def own_time(self) -> float | None:
        """Return the time of the caller's strand, or of the instrument the caller's thread is; None without one."""
        strand = present_strand()
        if strand is not None:
            return strand.reached.get(self)
        return self._local.seconds if getattr(self._local, "instrument", False) else None

    def catch_up(self, seconds: float) -> None:
        """Let the caller, a strand that follows this clock or an instrument, be at a time at least."""
        own = self.own_time()
        if own is not None and seconds > own:
            self._keep(seconds)

    def be_instrument(self) -> None:
        """Let the caller's thread be an instrument, with a time of its own."""
        if not getattr(self._local, "instrument", False):
            self._local.seconds = getattr(self._local, "seconds", 0.0)
            self._local.instrument = True

    def _keep(self, seconds: float) -> None:
        strand = present_strand()
        if strand is not None and self in strand.reached:
            strand.reached[self] = seconds
        else:
            self._local.seconds = seconds
        with self._lock:
            self._latest = max(self._latest, seconds)
