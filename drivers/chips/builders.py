"""The frames a chip is written, read and unlocked with, as pure functions, checked against what must never be sent.

No frame that stores a wiper in EEPROM or burns a fuse can be built: the layouts know volatile registers only, chips
that would store every write get their volatile bit set before each one, and every payload is compared with the
catalogue's list of forbidden words.
"""

import operator
from collections.abc import Mapping
from typing import NamedTuple

from hilcl.drivers.chips import i2c, spi
from hilcl.drivers.chips.frames import Frame, I2cFrame, SpiFrame, UpDownFrame
from hilcl.drivers.chips.layouts import Counter, Word, decode, word
from hilcl.drivers.chips.model import Chip, End
from hilcl.errors import BoardError, InputError


class _Place(NamedTuple):
    """Where a chip sits: its I2C address, or the identifier in the first byte of its SPI words (0 without one)."""

    on_i2c: bool
    address: int


def address_of(chip: Chip, pins: Mapping[str, str]) -> int:
    """Return the address chosen by the levels ("gnd", "vdd", "open") of a chip's address pins: ``{"AD1": "gnd", ...}``.

    Raises InputError naming the pins and the levels there are.
    """
    if chip.address is None:
        raise InputError(f"{chip.name} has no address")
    addresses = chip.address.all()
    if set(pins) != set(chip.address.pins):
        named = ", ".join(chip.address.pins) or "none"
        raise InputError(f"the address pins of {chip.name} are {named}, not {', '.join(pins) or 'none'}")
    levels = ",".join(str(pins[pin]).lower() for pin in chip.address.pins)
    if levels not in addresses:
        raise InputError(
            f"{chip.name} has no address for {levels} on {', '.join(chip.address.pins)}: choose {'; '.join(addresses)}"
        )
    return addresses[levels]


def write_frames(
    chip: Chip,
    channel: int,
    code: int,
    *,
    address: int | None = None,
    current: int | None = None,
    home: End = "high",
) -> tuple[Frame, ...]:
    """Return the frames that put wiper ``channel`` (from 0) at ``code``.

    ``address``: of the chip on its bus, where more than one is possible; a chip with both buses is on I2C when it is
    given, on SPI otherwise. An up/down chip counts from its ``current`` code or, when that is not known, from an end it
    reaches in any case: ``home`` "high" by default, the end of the greatest resistance to the low end.
    Raises InputError for a channel, a code or an address the chip does not have.
    """
    channel, code = _channel(chip, channel), _code(chip, code)
    if isinstance(chip.layout, Counter):
        _place(chip, address)
        return _count(chip, code, None if current is None else _code(chip, current), home)
    frame = _frame(chip, word(chip.layout, channel, code), address)
    return (*(unlock_frames(chip, address=address) if chip.guard else ()), frame)


def read_frames(chip: Chip, channel: int, *, address: int | None = None) -> tuple[Frame, ...]:
    """Return the frames that ask for the code of wiper ``channel``; the last one brings the reply for ``decode_reply``.

    Raises InputError for a channel or an address the chip does not have, and for a chip that cannot be read.
    """
    channel = _channel(chip, channel)
    if not chip.readable:
        raise InputError(f"{chip.name} cannot be read back: keep the codes that were written")
    place = _place(chip, address)
    frames: tuple[SpiFrame | I2cFrame, ...]
    frames = (i2c.read if place.on_i2c else spi.read)(chip.layout, channel, place.address)
    for frame in frames:
        refuse_stores(chip, frame.payload)
    return frames


def unlock_frames(chip: Chip, *, address: int | None = None) -> tuple[Frame, ...]:
    """Return the frames to send after each power-on before wiper writes count; none for most chips.

    Raises InputError for an address the chip does not have.
    """
    return tuple(_frame(chip, Word(int.from_bytes(payload), 8 * len(payload)), address) for payload in chip.unlock)


def decode_reply(chip: Chip, channel: int, reply: bytes, *, address: int | None = None) -> int:
    """Return the code in the reply to ``read_frames``.

    Raises InputError as ``read_frames`` does, BoardError for a reply no such chip gives.
    """
    wanted = read_frames(chip, channel, address=address)[-1].reply_bytes
    if len(reply) != wanted:
        raise BoardError(f"{chip.name} answered with {len(reply)} bytes instead of {wanted}: check its wiring")
    code = decode(chip.layout, _channel(chip, channel), reply)
    if code is None or code >= chip.positions:
        raise BoardError(f"{chip.name} answered {reply.hex(' ')}, which holds none of its codes: check its wiring")
    return code


def refuse_stores(chip: Chip, payload: bytes) -> None:
    """Check that a payload neither wears nor burns the chip.

    Raises InputError saying what the payload would do.
    """
    head = int.from_bytes(payload[:2].ljust(2, b"\0"))
    for forbidden in chip.forbidden:
        if payload and head & forbidden.mask == forbidden.value:
            raise InputError(f"{payload.hex(' ')} is never sent to {chip.name}: it {forbidden.why}")


def _frame(chip: Chip, content: Word, address: int | None) -> SpiFrame | I2cFrame:
    """Return a word on the bus the chip is on."""
    refuse_stores(chip, content.payload)
    place = _place(chip, address)
    return (i2c.frame if place.on_i2c else spi.frame)(content, place.address)


def _place(chip: Chip, address: int | None) -> _Place:
    """Return where the chip is, given the address or its absence."""
    if chip.address is None:
        if address is not None:
            raise InputError(f"{chip.name} has no address: leave it out")
        return _Place(on_i2c=False, address=0)
    if address is None and chip.buses == ("spi", "i2c"):
        return _Place(on_i2c=False, address=0)
    known = sorted(set(chip.address.all().values()))
    if address is None and len(known) > 1:
        raise InputError(f"{chip.name} needs its address: one of {_hex(known)}")
    chosen = known[0] if address is None else address
    if chosen not in known:
        raise InputError(f"{chip.name} cannot be at address 0x{chosen:02X}: it can be at {_hex(known)}")
    return _Place(on_i2c="i2c" in chip.buses, address=chosen)


def _hex(values: list[int]) -> str:
    return ", ".join(f"0x{value:02X}" for value in values)


def _channel(chip: Chip, channel: int) -> int:
    number = _whole(channel, f"a channel of {chip.name}")
    if not 0 <= number < chip.wipers:
        raise InputError(f"{chip.name} has no channel {number}: its channels are 0 to {chip.wipers - 1}")
    return number


def _code(chip: Chip, code: int) -> int:
    number = _whole(code, f"a code of {chip.name}")
    if not 0 <= number < chip.positions:
        raise InputError(f"{chip.name} has no code {number}: its codes are 0 to {chip.positions - 1}")
    return number


def _whole(value: int, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} is a whole number, not {value!r}") from None


def _count(chip: Chip, code: int, current: int | None, home: End) -> tuple[UpDownFrame, ...]:
    """Return the counts that lead to a code, by way of an end stop when the current code is not known."""
    homing: tuple[UpDownFrame, ...] = ()
    if current is None:
        homing = (UpDownFrame(up=home == "high", pulses=chip.positions - 1),)
        current = chip.positions - 1 if home == "high" else 0
    if code == current:
        return homing
    return (*homing, UpDownFrame(up=code > current, pulses=abs(code - current)))
