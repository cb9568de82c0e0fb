"""The output relay of an emulated source, which may fail: then it stays open, or closed."""

from hilcl.sim_backend.emulation.port import Applied, Port, Seen
from hilcl.sim_backend.emulation.potboard import SwitchedPort

BEHIND = Applied("voltage", 0.0, 1e-3)
"""What is behind the relay of an output that is off: 0 V, with the limit of a 2600B's ``source.offlimiti``."""


class OutputRelay:
    """The relay between a source and its ``port``; it follows what is applied unless it is ``stuck``."""

    def __init__(self, port: Port) -> None:
        self._contacts = SwitchedPort(port)
        self._contacts.set(True)
        self._applied: Applied | None = None
        self._closed: bool | None = None

    def stick(self, closed: bool | None) -> None:
        """Let the relay stay closed or open from now on; None repairs it."""
        if closed == self._closed:
            return
        self._closed = closed
        self._contacts.set(closed is not False)
        if self._applied is not None:
            self.apply(self._applied)

    def apply(self, applied: Applied) -> None:
        """Change what the source does to its side of the relay."""
        self._applied = applied
        self._contacts.apply(BEHIND if self._closed and applied.kind == "open" else applied)

    def see(self) -> Seen:
        """Return the state at the source's terminals."""
        return self._contacts.see()
