"""What every emulated instrument is to the wire: lines in, replies out."""

from typing import Protocol, runtime_checkable

from hilcl.sim_backend.emulation.scpi import ScpiError


@runtime_checkable
class EmulatedInstrument(Protocol):
    """An instrument without its wire. Calls come from one thread at a time."""

    @property
    def identity(self) -> str:
        """The answer to ``*IDN?``: ``"KEITHLEY INSTRUMENTS INC.,MODEL 2400,4000001,C34"``."""
        ...

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which outputs are on, one per source channel; ``()`` for a meter."""
        ...

    def handle(self, line: str) -> str | None:
        """Carry out one line, its terminator removed, and return the reply without terminator, or None.

        Every character of the reply is one byte on the wire (latin-1), so binary blocks pass too.
        """
        ...

    def refuse(self, error: ScpiError) -> None:
        """Queue an error that the transport found, such as a line too long."""
        ...


def wire_number(value: float, digits: int | None) -> str:
    """Return a number as ASCII data: ``digits`` significant digits, None for all the digits a double has."""
    return f"{value:+.{16 if digits is None else digits - 1}E}"
