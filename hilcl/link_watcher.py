"""Who is told of every message between the program and an instrument."""

from typing import Protocol


class LinkWatcher(Protocol):
    """Watches one link. Called by the thread that uses the link, so it may also let time pass there."""

    def opened(self, connection: int) -> None:
        """Take note of a new connection, by the port number of its own end or 0; what older ones carried is over."""
        ...

    def sent(self, size: int) -> None:
        """Take note that ``size`` bytes are about to leave."""
        ...

    def received(self, size: int) -> None:
        """Take note that an answer of ``size`` bytes has come."""
        ...

    def silent(self, heard: int, seconds: float) -> bool:
        """Return whether nothing will come after the ``heard`` bytes of this connection; then ``seconds`` are over.

        They are those of the time-out, which need not be waited for. Only who made the other end can know.
        """
        ...
