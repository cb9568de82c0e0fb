"""What went wrong and was put right again while a board worked: events, for the records of a run."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

MOST_EVENTS = 1000
"""Events a device keeps until somebody takes them; older ones are dropped first."""


@dataclass(frozen=True)
class Event:
    """One thing that went wrong and what was done about it.

    ``instrument`` as the experiment file names it ("" for the board as a whole), ``what`` happened and what ``action``
    was taken, each a few words without a full stop. ``step`` is the epoch it happened in, None until whoever counts
    epochs fills it in.
    """

    instrument: str
    what: str
    action: str
    step: int | None = None

    def __str__(self) -> str:
        where = f"{self.instrument}: " if self.instrument else ""
        return f"{where}{self.what}; {self.action}"


@runtime_checkable
class Eventful(Protocol):
    """What has events to tell; drivers and boards may have, and need not."""

    def take_events(self) -> list[Event]:
        """Return the events since the last call, oldest first."""
        ...


class EventLog:
    """Events of one device until they are taken; may be used from several threads, and is bounded."""

    def __init__(self, instrument: str = "") -> None:
        self._instrument = instrument
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)

    def note(self, what: str, action: str) -> None:
        """Add an event."""
        with self._lock:
            self._events.append(Event(self._instrument, what, action))

    def add(self, events: Iterable[Event]) -> None:
        """Add events of others."""
        with self._lock:
            self._events.extend(events)

    def take(self) -> list[Event]:
        """Return the events since the last call, oldest first."""
        with self._lock:
            taken = list(self._events)
            self._events.clear()
        return taken


def events_of(sources: Iterable[object]) -> list[Event]:
    """Return and take the events of all that have some to tell."""
    return [event for source in sources if isinstance(source, Eventful) for event in source.take_events()]
