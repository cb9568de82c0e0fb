"""The time that messages take between the program and an emulated instrument, on the bench's clock."""

import time

from hilcl.sim_backend.emulation.bench_clock import BenchClock
from hilcl.sim_backend.emulation.potboard_wire import BreakingFaults, WireControl, WireFaults
from hilcl.sim_backend.emulation.server import Delivery, Faults, Line, LineFaults

BITS_PER_BYTE = 10
"""Of a serial line: a start bit, eight, and a stop bit."""


class TimedLink:
    """One link. ``delay`` seconds pass each way, and ``per_byte`` for each byte.

    The program's side is a ``LinkWatcher``. A message of a strand that does not follow the clock, such as a heartbeat
    or another program, takes no time.
    """

    def __init__(self, clock: BenchClock, *, delay: float = 0.0, per_byte: float = 0.0) -> None:
        self._clock, self._delay, self._per_byte = clock, delay, per_byte
        self._arrives = self._answered = 0.0
        self._connection: int | None = None
        self._sent = 0
        # What the instrument took and gave on a connection until it last had nothing to do, and that at the opening.
        self._rest = self._start = (0, 0, 0)

    def now(self) -> float:
        """Return the seconds by which a fault lasts: the bench's, real ones where no program follows its clock."""
        return time.monotonic() if self._connection is None else self._clock.now()

    # The program's side.

    def opened(self, connection: int) -> None:
        """Count from here on."""
        rest = self._rest
        self._start = rest if rest[0] == connection else (connection, 0, 0)
        self._connection, self._sent = connection, 0

    def sent(self, size: int) -> None:
        """Note when the instrument will have the message; a scaled clock waits for that."""
        self._sent += size
        seconds = self._delay + self._per_byte * size
        if self._clock.scale:
            self._clock.spend(seconds)
        elif (own := self._clock.own_time()) is not None:
            self._arrives = own + seconds

    def received(self, size: int) -> None:
        """Let the program wait for the answer it has just got."""
        seconds = self._delay + self._per_byte * size
        if self._clock.scale:
            self._clock.spend(seconds)
        else:
            self._clock.catch_up(self._answered + seconds)

    def silent(self, heard: int, seconds: float) -> bool:
        """Return whether all that was sent is done with and all that was answered is heard; then let time pass."""
        connection, taken, given = self._start
        if self._rest != (connection, taken + self._sent, given + heard):
            return False
        if not self._clock.scale and self._clock.own_time() is None:
            # A heartbeat has no time to let pass.
            return False
        self._clock.spend(seconds)
        return True

    # The instrument's side, in the thread that serves it.

    def arrived(self) -> None:
        """Let the instrument begin, no sooner than it has the message."""
        self._clock.be_instrument()
        self._clock.catch_up(self._arrives)

    def answered(self) -> None:
        """Note when the instrument has its answer ready."""
        self._answered = self._clock.own_time() or 0.0

    def at_rest(self, connection: int, taken: int, given: int) -> None:
        """Take note of the bytes taken and given on a connection when all that was taken is done with."""
        self._rest = (connection, taken, given)


class TimedLine:
    """A line to an instrument on the network, with its time; ``faults`` lie between the time and the instrument."""

    def __init__(self, link: TimedLink, faults: Faults) -> None:
        self._link, self._faults = link, faults

    def received(self, line: str) -> str | None:
        """Return the line as the instrument gets it."""
        self._link.arrived()
        return self._faults.received(line)

    def replied(self, reply: bytes) -> Delivery | None:
        """Return what leaves for the client."""
        self._link.answered()
        return self._faults.replied(reply)

    def attach(self, line: Line) -> None:
        """Hand on what breaks connections."""
        if isinstance(self._faults, LineFaults):
            self._faults.attach(line)


class TimedWire:
    """A pot board's serial wire, with its time."""

    def __init__(self, link: TimedLink, faults: WireFaults) -> None:
        self._link, self._faults = link, faults

    def received(self, data: bytes) -> bytes:
        """Return the bytes as the board gets them."""
        self._link.arrived()
        return self._faults.received(data)

    def replied(self, data: bytes) -> bytes:
        """Return the bytes as they leave for the host."""
        self._link.answered()
        return self._faults.replied(data)


class TimedBreakableWire(TimedWire):
    """A wire whose faults also break the connection."""

    def attach(self, wire: WireControl) -> None:
        """Hand on what breaks the connection."""
        if isinstance(self._faults, BreakingFaults):
            self._faults.attach(wire)
