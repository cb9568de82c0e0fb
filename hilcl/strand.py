"""Strands of the program: what it does one after another. Parallel work forks strands, and waiting for it joins them.

A bench whose time is not the computer's (an emulated one) keeps here how far each strand has come on its clock, so that
work counts as parallel only where threads really do it in parallel. On a real bench nobody asks.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


class Strand:
    """One strand: ``reached`` holds, by clock, the seconds it has come to; a clock it does not follow is not in it."""

    def __init__(self, reached: dict[object, float] | None = None) -> None:
        self.reached: dict[object, float] = dict(reached or {})

    def join(self, other: "Strand") -> None:
        """Wait for another strand: of two times the later one holds."""
        for clock, seconds in other.reached.items():
            self.reached[clock] = max(seconds, self.reached.get(clock, seconds))


_STRAND: ContextVar[Strand] = ContextVar("hilcl_strand")


def present_strand() -> Strand | None:
    """Return the strand the caller is on, None where it is on none yet."""
    return _STRAND.get(None)


def own_strand() -> Strand:
    """Return the strand the caller is on, a new one where it was on none."""
    strand = _STRAND.get(None)
    if strand is None:
        strand = Strand()
        _STRAND.set(strand)
    return strand


def forked(work: Callable[[], T]) -> tuple[Strand, Callable[[], T]]:
    """Return a strand that begins where the caller's is, and ``work`` to be done on it, in any thread."""
    strand = Strand(own_strand().reached)

    def on_strand() -> T:
        before = _STRAND.set(strand)
        try:
            return work()
        finally:
            _STRAND.reset(before)

    return strand, on_strand
