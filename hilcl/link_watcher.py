"""Who is told of every message between the program and an instrument."""

from typing import Protocol


class LinkWatcher(Protocol):
    """Watches one link. Called by the thread that uses the link, so it may also let time pass there."""

    def sent(self, size: int) -> None:
        """Take note that ``size`` bytes are about to leave."""
        ...

    def received(self, size: int) -> None:
        """Take note that an answer of ``size`` bytes has come."""
        ...
