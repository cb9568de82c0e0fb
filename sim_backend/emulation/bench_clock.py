"""The one clock of an emulated bench, on which durations pass scaled or are skipped."""

import threading
import time

from hilcl.errors import InputError


class BenchClock:
    """Emulated seconds. ``scale`` real seconds pass for each of them where somebody waits; 0 waits for nothing.

    Threads that wait at the same time wait in parallel, as instruments do: the time is that of the one furthest ahead.
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
        """Return emulated seconds since the bench was switched on."""
        if self.scale:
            return (time.monotonic() - self._start) / self.scale + self._jumped
        with self._lock:
            return self._latest + self._jumped

    def jump(self, seconds: float) -> None:
        """Set the clock forward or back; nothing waits for that."""
        with self._lock:
            self._jumped += seconds

    def spend(self, seconds: float) -> None:
        """Let emulated time pass; blocks ``seconds`` times the scale."""
        if self.scale:
            time.sleep(seconds * self.scale)
            return
        # Nothing blocks, so each thread keeps its own time; one that lagged behind while it was idle catches up with
        # what all had reached when it last waited.
        mine: float = getattr(self._local, "seconds", 0.0) + seconds
        with self._lock:
            self._latest = max(self._latest, mine)
        self._local.seconds = mine
