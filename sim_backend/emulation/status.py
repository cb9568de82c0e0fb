"""The status model of IEEE 488.2 and SCPI: error queue, event registers, status byte. No I/O."""

from collections import deque
from dataclasses import dataclass, field

from hilcl.sim_backend.emulation.scpi import ScpiError

OPERATION_COMPLETE = 1 << 0
QUERY_ERROR = 1 << 2
DEVICE_ERROR = 1 << 3
EXECUTION_ERROR = 1 << 4
COMMAND_ERROR = 1 << 5
POWER_ON = 1 << 7

ERROR_AVAILABLE = 1 << 2
MESSAGE_AVAILABLE = 1 << 4
EVENT_SUMMARY = 1 << 5
MASTER_SUMMARY = 1 << 6


@dataclass(frozen=True)
class QueuedError:
    """One entry of an error queue."""

    code: int
    message: str


NO_ERROR = QueuedError(0, "No error")


class ErrorQueue:
    """First in, first out, bounded: what does not fit turns the last entry into −350 (SCPI-1999 volume 2, 21.8.1)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: deque[QueuedError] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, code: int, message: str) -> None:
        """Add an entry."""
        if len(self._entries) >= self._capacity:
            self._entries[-1] = QueuedError(-350, "Queue overflow")
        else:
            self._entries.append(QueuedError(code, message))

    def pop(self) -> QueuedError:
        """Take the oldest entry, NO_ERROR where there is none."""
        return self._entries.popleft() if self._entries else NO_ERROR

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()


@dataclass
class RegisterSet:
    """One SCPI status register: its condition now, the events latched since they were last read, what is enabled."""

    condition: int = 0
    event: int = 0
    enable: int = 0

    def set_condition(self, bits: int) -> None:
        """Change the condition; bits that rise are latched as events."""
        self.event |= bits & ~self.condition
        self.condition = bits

    def raise_event(self, bits: int) -> None:
        """Latch events that have no lasting condition."""
        self.event |= bits

    def read_event(self) -> int:
        """Return and clear the events."""
        event, self.event = self.event, 0
        return event

    @property
    def summary(self) -> bool:
        """Whether an enabled event is latched."""
        return bool(self.event & self.enable)


@dataclass
class Status:
    """The status of one instrument.

    ``registers`` are SCPI registers by name, each with its bit in the status byte. The error queue survives ``*RST``
    and is cleared by ``*CLS`` (IEEE 488.2-1992, 10.3 and 10.32).
    """

    capacity: int = 10
    event: int = POWER_ON
    event_enable: int = 0
    service_enable: int = 0
    registers: dict[str, tuple[RegisterSet, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.errors = ErrorQueue(self.capacity)

    def add_error(self, error: ScpiError) -> None:
        """Queue an error and latch its class in the standard event register."""
        self.errors.push(error.code, error.message)
        self.event |= event_bit(error.code)

    def read_event(self) -> int:
        """``*ESR?``: return and clear the standard events."""
        event, self.event = self.event, 0
        return event

    def status_byte(self) -> int:
        """``*STB?``: the summaries of everything; reading it changes nothing."""
        byte = 0
        for register, bit in self.registers.values():
            byte |= bit if register.summary else 0
        if self.errors:
            byte |= ERROR_AVAILABLE
        if self.event & self.event_enable:
            byte |= EVENT_SUMMARY
        if byte & self.service_enable & ~MASTER_SUMMARY:
            byte |= MASTER_SUMMARY
        return byte

    def clear(self) -> None:
        """``*CLS``: clear the queue and all events; what is enabled stays enabled."""
        self.errors.clear()
        self.event = 0
        for register, _ in self.registers.values():
            register.event = 0

    def preset(self) -> None:
        """``:STATus:PRESet``: enable no event of the SCPI registers."""
        for register, _ in self.registers.values():
            register.enable = 0


def event_bit(code: int) -> int:
    """Return the standard event bit an error sets (SCPI-1999 volume 2, 21.8.9; 2400 User's Manual, table B-1)."""
    if -199 <= code <= -100:
        return COMMAND_ERROR
    if -299 <= code <= -200 or 800 <= code <= 899:
        return EXECUTION_ERROR
    if -499 <= code <= -400:
        return QUERY_ERROR
    return DEVICE_ERROR
