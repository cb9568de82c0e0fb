"""Bring a pot board to its safe state from outside, whoever used it before."""

from contextlib import suppress

from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_link import PotBoardLink, PotBoardOptions
from hilcl.drivers.potboard_protocol import NOTHING, Reason
from hilcl.errors import BoardError


def latch_safe(name: str, port: str, options: PotBoardOptions, serial: str | None = None) -> str:
    """Switch sources off, open switches, move the pots to their safe codes and latch; return the board's identity.

    The latch is the board's own word for the first two; codes are read back where chips can be read. The next program
    that opens the board releases the latch. Raises InputError where the port cannot be opened, and BoardError where
    the board does not answer, is another than ``serial``, or holds another code.
    """
    link = PotBoardLink(name, port, options)
    try:
        greeting = link.greet(options.boot_time)
        latched = link.ask(wire.Safe(wire.SafeAction.LATCH), wire.Latched)
        if latched.reason == Reason.NONE:
            raise BoardError(f"{link.label} did not go to its safe state: unplug its supply")
        found = greeting.identity.split(",")[2:3]
        if serial is not None and found != [serial]:
            raise BoardError(
                f"{link.label} is {greeting.identity}, but serial number {serial} is expected: that board is safe now, "
                "the one of the file is elsewhere"
            )
        for index in range(greeting.pot_groups):
            _check_codes(link, link.ask(wire.Describe(wire.Kind.POTS, index), wire.PotsDescription))
        with suppress(BoardError):
            link.leave()
    finally:
        link.close()
    return greeting.identity


def _check_codes(link: PotBoardLink, group: wire.PotsDescription) -> None:
    room = max(1, (link.frame_limit - 5) // 2)
    for start in range(0, group.count, room):
        first, count = group.first + start, min(room, group.count - start)
        held = link.ask(wire.Read(first, count), wire.Codes).codes
        for pot, code in enumerate(held, first):
            if code not in {group.safe, NOTHING}:
                raise BoardError(
                    f"{link.label}: pot {pot} holds code {code} and not its safe code {group.safe}: unplug the board's "
                    "supply"
                )
