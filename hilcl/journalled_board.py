"""A bench under a run: what is written goes on record before, and readings across a suspension are taken again."""

from collections.abc import Callable
from typing import TypeVar

from hilcl.arrays import FloatArray, IntArray
from hilcl.board import Board, BoardSnapshot, Contrast, Response, SafeExit
from hilcl.device_range import DeviceRange
from hilcl.errors import BoardError
from hilcl.events import Event, events_of
from hilcl.network import Network
from hilcl.suspension import Suspensions

T = TypeVar("T")

MOST_SUSPENSIONS = 10
"""How often one measurement is begun again."""


class JournalledBoard(SafeExit):
    """A ``Board``: the bench, or what calibrates and watches it.

    ``intend`` is called with the codes (M,) before they are written.

    A measurement during which ``suspensions`` counts one is discarded and done again on the board as it was before.
    """

    def __init__(self, board: Board, intend: Callable[[IntArray], None], suspensions: Suspensions) -> None:
        self._board, self._intend, self._suspensions = board, intend, suspensions
        self._events: list[Event] = []

    @property
    def network(self) -> Network:
        """The wiring of the board itself."""
        return self._board.network

    @property
    def device_range(self) -> DeviceRange:
        """Limits and codes of every edge, as best known."""
        return self._board.device_range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens, as best known."""
        return self._board.conductances

    @property
    def exact(self) -> bool:
        """Readings of a bench always carry errors."""
        return self._board.exact

    def program(self, conductances: FloatArray) -> FloatArray:
        """Put the codes of (M,) siemens on record, write them, and return their conductances (M,)."""
        codes = self._board.device_range.project(conductances).codes
        if codes is not None:
            self._intend(codes)
        return self._board.program(conductances)

    def respond(self, drives: FloatArray) -> Response:
        """Drive and read the terminals."""
        return self._undisturbed(lambda: self._board.respond(drives))

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure both phases of every sample."""
        return self._undisturbed(lambda: self._board.contrast(inputs, targets, nudge))

    def snapshot(self) -> BoardSnapshot:
        """Return what an emulated bench remembers."""
        return self._board.snapshot()

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what an emulated bench remembered."""
        self._board.restore(snapshot)

    def make_safe(self) -> None:
        """Make the bench safe."""
        self._board.make_safe()

    def close(self) -> None:
        """Close the bench."""
        self._board.close()

    def take_events(self) -> list[Event]:
        """Return the events since the last call, those of the bench itself first."""
        taken, self._events = self._events, []
        return [*events_of([self._board]), *taken]

    def _undisturbed(self, measure: Callable[[], T]) -> T:
        for _ in range(MOST_SUSPENSIONS):
            before, count = self._board.snapshot(), self._suspensions.count
            try:
                found = measure()
            except BoardError as error:
                if self._suspensions.count == count:
                    raise
                raise BoardError(f"{error} (hilcl had been suspended during the measurement)") from error
            if self._suspensions.count == count:
                return found
            self._board.restore(before)
            self._events.append(
                Event("", "hilcl was suspended during a measurement", "discarded it and measured again")
            )
        raise BoardError(
            f"hilcl was suspended during each of {MOST_SUSPENSIONS} tries to measure: let it run without stopping it"
        )
