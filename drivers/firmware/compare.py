"""Whether a board on a port is the one an experiment file wires."""

from collections.abc import Sequence

from hilcl.drivers.firmware.wiring import Group, Wiring
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_protocol import PotsDescription
from hilcl.errors import InputError


def check_board(wiring: Wiring, board: PotBoard) -> None:
    """Compare an open board with a wiring.

    Raises InputError naming the first thing that differs.
    """
    difference = _difference(wiring, board)
    if difference:
        raise InputError(
            f"{board.label} was built for another wiring, {difference}: correct [firmware] or flash the board again"
        )


def _difference(wiring: Wiring, board: PotBoard) -> str | None:
    pots = _pots(wiring.groups, board.pots)
    if pots is not None:
        return pots
    greeting = board.greeting
    adcs = 0 if wiring.adc is None else len(wiring.adc.channels)
    for what, has, wired in (
        ("ADC channels", greeting.adcs, adcs),
        ("sources", greeting.sources, len(wiring.sources)),
        ("switches", greeting.switches, len(wiring.switches)),
    ):
        if has != wired:
            return f"it has {has} {what} and the file wires {wired}"
    return None


def _pots(groups: Sequence[Group], described: Sequence[PotsDescription]) -> str | None:
    for group, description in zip(groups, described, strict=False):
        if (group.chip.name, group.count) != (description.chip, description.count):
            return (
                f"pots {description.first} and on are {description.count} of {description.chip} on the board and "
                f"{group.count} of {group.chip.name} in the file"
            )
        if group.safe != description.safe:
            return f"pots {group.first} and on go to code {description.safe} when safe and to {group.safe} in the file"
    has, wired = sum(each.count for each in described), sum(group.count for group in groups)
    return None if has == wired else f"it has {has} pots and the file wires {wired}"
