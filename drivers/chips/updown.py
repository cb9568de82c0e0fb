"""Up/down chips: how a number of steps looks on the three lines CS, U/D and CLK (called INC on an X9C)."""

from dataclasses import dataclass
from itertools import pairwise

from hilcl.drivers.chips.frames import UpDownFrame


@dataclass(frozen=True)
class Lines:
    """Levels of the three lines: ``deselected`` is CS high, ``up`` is U/D high, ``clock`` is CLK or INC high."""

    deselected: bool
    up: bool
    clock: bool


def waveform(frame: UpDownFrame) -> tuple[Lines, ...]:
    """Return the levels to set one after the other, each at least as long as the chip's set-up times ask for.

    A falling clock steps the wiper. CS rises while the clock is low: an X9C would store its wiper in EEPROM if the
    clock were high (Renesas X9C102/103/104/503 data sheet FN8222, mode selection), and a clock gated by CS cannot make
    a stray edge. The clock returns to its high rest level only after that. No steps are no levels: selecting and
    deselecting an X9C without a step stores too.
    """
    if frame.pulses == 0:
        return ()
    rest, selected = Lines(True, frame.up, True), Lines(False, frame.up, True)
    low = Lines(False, frame.up, False)
    steps = (low, *(level for _ in range(frame.pulses - 1) for level in (selected, low)))
    return (rest, selected, *steps, Lines(True, frame.up, False), rest)


def stores(levels: tuple[Lines, ...]) -> bool:
    """Return whether an X9C would write its EEPROM: CS rising while INC is high."""
    return any(not before.deselected and after.deselected and after.clock for before, after in pairwise(levels))


def steps(levels: tuple[Lines, ...]) -> int:
    """Return by how many codes the levels move the wiper, down counted negative: falling clocks while selected."""
    moves = (
        (1 if after.up else -1)
        for before, after in pairwise(levels)
        if not after.deselected and not before.deselected and before.clock and not after.clock
    )
    return sum(moves)
