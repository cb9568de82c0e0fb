"""A bench under a run: what is written goes on record before, and readings across a suspension are taken again."""

from collections.abc import Callable
from typing import TypeVar

from hilcl.arrays import FloatArray, IntArray
from hilcl.board import Board, BoardAround, Contrast, Response
from hilcl.errors import BoardError
from hilcl.events import Event, events_of
from hilcl.suspension import Suspensions

T = TypeVar("T")

MOST_SUSPENSIONS = 10
"""How often one measurement is begun again."""


class JournalledBoard(BoardAround):
    """A ``Board``: the bench, or what calibrates and watches it.

    ``intend`` is called with the codes (M,) before they are written.

    A measurement during which ``suspensions`` counts one is discarded and done again on the board as it was before.
    """

    def __init__(self, board: Board, intend: Callable[[IntArray], None], suspensions: Suspensions) -> None:
        super().__init__(board)
        self._intend, self._suspensions = intend, suspensions
        self._events: list[Event] = []

    def program(self, conductances: FloatArray) -> FloatArray:
        """Put the codes of (M,) siemens on record, write them, and return their conductances (M,)."""
        codes = self.board.device_range.project(conductances).codes
        if codes is not None:
            self._intend(codes)
        return self.board.program(conductances)

    def respond(self, drives: FloatArray) -> Response:
        """Drive and read the terminals."""
        return self._undisturbed(lambda: self.board.respond(drives))

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure both phases of every sample."""
        return self._undisturbed(lambda: self.board.contrast(inputs, targets, nudge))

    def take_events(self) -> list[Event]:
        """Return the events since the last call, those of the bench itself first."""
        taken, self._events = self._events, []
        return [*events_of([self.board]), *taken]

    def _undisturbed(self, measure: Callable[[], T]) -> T:
        for _ in range(MOST_SUSPENSIONS):
            before, count = self.board.snapshot(), self._suspensions.count
            try:
                found = measure()
            except BoardError as error:
                if self._suspensions.count == count:
                    raise
                raise BoardError(f"{error} (hilcl had been suspended during the measurement)") from error
            if self._suspensions.count == count:
                return found
            self.board.restore(before)
            self._events.append(
                Event("", "hilcl was suspended during a measurement", "discarded it and measured again")
            )
        raise BoardError(
            f"hilcl was suspended during each of {MOST_SUSPENSIONS} tries to measure: let it run without stopping it"
        )
