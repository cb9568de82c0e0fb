"""The smallest bench: a node behind a resistor, and a clock that only counts."""

import threading
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from hilcl.sim_backend.emulation.port import OPEN, Applied, Seen

T = TypeVar("T")


class Node:
    """A port wired to ``volts`` behind ``ohms``; 5 V over 1 kΩ and 1 kΩ is ``Node(500, 2.5)``."""

    def __init__(self, ohms: float = 1000.0, volts: float = 0.0) -> None:
        self.ohms, self.volts = ohms, volts
        self.applied: list[Applied] = [OPEN]

    def apply(self, applied: Applied) -> None:
        self.applied.append(applied)

    def see(self) -> Seen:
        applied = self.applied[-1]
        if applied.kind == "open":
            return Seen(self.volts, 0.0, limited=False)
        if applied.kind == "voltage":
            amperes = (applied.level - self.volts) / (self.ohms + applied.series)
            limited = abs(amperes) > applied.limit
            amperes = max(-applied.limit, min(applied.limit, amperes))
            return Seen(self.volts + amperes * self.ohms, amperes, limited)
        volts = self.volts + applied.level * self.ohms
        limited = abs(volts) > applied.limit
        volts = max(-applied.limit, min(applied.limit, volts))
        return Seen(volts, (volts - self.volts) / self.ohms, limited)


class ManualClock:
    """Emulated time that passes without waiting; instruments may spend it in threads of their own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock, self._local = threading.Lock(), threading.local()

    def now(self) -> float:
        aside: float | None = getattr(self._local, "aside", None)
        return self.seconds + (aside or 0.0)

    def spend(self, seconds: float) -> None:
        assert seconds >= 0
        aside: float | None = getattr(self._local, "aside", None)
        if aside is not None:
            self._local.aside = aside + seconds
            return
        with self._lock:
            self.seconds += seconds

    def aside(self, work: Callable[[], T]) -> tuple[T, float]:
        before: float | None = getattr(self._local, "aside", None)
        self._local.aside = begun = before or 0.0
        try:
            result = work()
            return result, self._local.aside - begun
        finally:
            self._local.aside = before


def divider() -> Node:
    """The middle of 1 kΩ and 1 kΩ across 5 V."""
    return Node(500.0, 2.5)


class Handles(Protocol):
    def handle(self, line: str) -> str | None: ...


def ask(instrument: Handles, line: str) -> str:
    """Return the reply, which there must be."""
    reply = instrument.handle(line)
    assert reply is not None, line
    return reply


def tell(instrument: Handles, lines: Iterable[str]) -> None:
    """Send lines that must not be answered."""
    for line in lines:
        assert instrument.handle(line) is None, line


def numbers(reply: str) -> list[float]:
    return [float(field) for field in reply.split(",")]
