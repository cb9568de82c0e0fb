"""How an emulated instrument touches the circuit: what it applies to a node, and what it sees there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Applied:
    """What an output does to its node.

    ``kind`` "voltage": ``level`` volts behind ``series`` ohms, current limited to ±``limit`` amperes. "current":
    ``level`` amperes into the node, voltage limited to ±``limit`` volts. "open": nothing is connected.
    """

    kind: Literal["voltage", "current", "open"]
    level: float = 0.0
    limit: float = float("inf")
    series: float = 0.0


OPEN = Applied("open")


@dataclass(frozen=True)
class Seen:
    """True values at a port: ``volts`` at the node to ground, ``amperes`` into the board, ``limited`` at the limit."""

    volts: float
    amperes: float
    limited: bool


class Port(Protocol):
    """One pair of terminals of an emulated instrument, wired to a node of the circuit (or to nothing)."""

    def apply(self, applied: Applied) -> None:
        """Change what the instrument does to its node."""
        ...

    def see(self) -> Seen:
        """Return the true state at the node once the circuit has settled."""
        ...


class Clock(Protocol):
    """The bench's one clock: emulated durations pass on it, scaled or skipped."""

    def now(self) -> float:
        """Return emulated seconds since the bench was switched on."""
        ...

    def spend(self, seconds: float) -> None:
        """Let emulated time pass (integration, settling, relays); blocks ``seconds`` times the bench's time scale."""
        ...

    def aside(self, work: Callable[[], T]) -> tuple[T, float]:
        """Do ``work`` and return its result and the seconds it takes, which do not pass here: they run in parallel."""
        ...
