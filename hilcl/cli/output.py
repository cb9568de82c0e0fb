"""Output whose reader may go away in the middle of a run: a closed terminal must not end it."""

import contextlib
import sys

import click


def remark(line: str) -> None:
    """Write a line to standard error, if anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)


class PatientStream:
    """Standard error for a live display: a terminal that has gone takes nothing more, and nobody is told."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    @property
    def encoding(self) -> str:
        """Encoding of the terminal."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether it was a terminal at the start."""
        return True

    def fileno(self) -> int:
        """Return the number of the stream."""
        return self._stream.fileno()
