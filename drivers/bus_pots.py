"""Banks of digital potentiometers on SPI, I2C or up/down lines, without a microcontroller in between.

Only volatile writes are ever sent: every frame comes from the builders of ``hilcl.drivers.chips``, which refuse what
wears a chip's memory or burns its fuses.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from hilcl.drivers.buses import I2C_HZ, LEVEL_HZ, SPI_HZ, I2cBus, SpiBus, UpDownBus, i2c_bus, spi_bus, updown_bus
from hilcl.drivers.chips import (
    Chip,
    Frame,
    I2cFrame,
    Lines,
    SpiFrame,
    UpDownFrame,
    chip,
    decode_reply,
    read_frames,
    refuse_stores,
    unlock_frames,
    waveform,
    write_frames,
)
from hilcl.drivers.pot_bank import Pot, PotBank
from hilcl.errors import BoardError, InputError

T = TypeVar("T")

TRIES = 3
"""How often what is to be done to one pot is begun, when the bus reports a failure."""

_TOGETHER = "AD514x"
"""The family whose wipers can be loaded first and moved at once by a command."""


@dataclass(frozen=True)
class PlacedChip:
    """A chip of the catalogue and where it is.

    ``place``: its address on I2C, its chip select on SPI, the line of its chip select on up/down lines. ``channels``:
    its wipers in the order of the pots, all by default. ``identifier``: first byte of SPI words, for chips that share a
    chip select (X9250). ``readback``: False where the chip could be read but its answer is not wired. ``together``: all
    wipers of a chip that can do so (AD5123 to AD5144A) move at once. ``home``: the end an up/down chip is homed to,
    "high" for its greatest resistance to the low end.
    """

    chip: str
    place: int
    channels: tuple[int, ...] | None = None
    identifier: int | None = None
    readback: bool = True
    together: bool = False
    home: Literal["low", "high"] = "high"


@dataclass(frozen=True)
class _Seat:
    """A chip found in the catalogue, its place and the wipers that are pots."""

    chip: Chip
    placed: PlacedChip
    address: int | None
    channels: tuple[int, ...]


class BusPots(PotBank):
    """A RheostatBank of chips on one bus; subclasses say which.

    Opening it unlocks chips that need it, and reads every pot that can be read, so that a chip that is not there is
    found before anything moves. What fails on the bus is begun again, ``tries`` times in all; ``retries`` counts.

    Raises InputError for chips that the catalogue or the bus does not have, places taken twice, and codes or addresses
    no such chip has.
    """

    kind: Literal["spi", "i2c", "updown"]

    def __init__(
        self,
        name: str,
        label: str,
        placed: Sequence[PlacedChip],
        *,
        tries: int = TRIES,
        safe_codes: Sequence[int] | None = None,
    ) -> None:
        if tries < 1:
            raise InputError(f"{name} needs at least one try, not {tries}")
        if not placed:
            raise InputError(f"{name} lists no chips: name at least one")
        self.label, self.tries, self.retries = label, tries, 0
        self._seats = tuple(self._seat(name, one) for one in placed)
        _refuse_shared_places(name, self._seats, self._where_is)
        self._wipers = tuple((seat, channel) for seat in self._seats for channel in seat.channels)
        pots = [
            Pot(
                seat.chip.name,
                self._where_is(seat.placed),
                channel,
                seat.chip.positions,
                seat.chip.readable and seat.placed.readback,
            )
            for seat, channel in self._wipers
        ]
        super().__init__(name, pots, safe_codes)

    @property
    def identity(self) -> str:
        """Bus and chips: ``"/dev/i2c-1: 4 × AD5254, 1 × AD5272"``."""
        counts = Counter(seat.chip.name for seat in self._seats)
        return f"{self.label}: {', '.join(f'{count} × {name}' for name, count in counts.items())}"

    # What a kind of bus fills in.

    @abstractmethod
    def _exchange(self, seat: _Seat, frame: Frame) -> bytes:
        """Send one frame and return the reply; raises OSError."""

    @abstractmethod
    def _where_is(self, placed: PlacedChip) -> str:
        """Return a place as a sentence says it: "at 0x2C"."""

    def _address(self, placed: PlacedChip) -> int | None:
        """Return what the frame builders call the address."""
        return placed.identifier

    # The owner's work.

    def _seat(self, bank: str, placed: PlacedChip) -> _Seat:
        known = chip(placed.chip)
        if self.kind not in known.buses:
            raise InputError(f"{bank}: {known.name} sits on {' or '.join(known.buses)}, not on {self.kind}")
        if placed.place < 0:
            raise InputError(f"{bank}: {known.name} cannot be {self._where_is(placed)}: places count from 0")
        if placed.identifier is not None and (self.kind != "spi" or "i2c" in known.buses):
            raise InputError(f"{bank}: {known.name} {self._where_is(placed)} takes no identifier: leave it out")
        address = self._address(placed)
        channels = tuple(range(known.wipers)) if placed.channels is None else placed.channels
        if not channels or len(set(channels)) != len(channels):
            raise InputError(f"{bank}: the channels of {known.name} {self._where_is(placed)} are named once each")
        if placed.together and (known.family != _TOGETHER or set(channels) != set(range(known.wipers))):
            raise InputError(
                f"{bank}: {known.name} {self._where_is(placed)} cannot move its pots together: that takes a chip of "
                "the AD514x family with all its wipers in the bank"
            )
        for channel in channels:
            write_frames(known, channel, 0, address=address)
        return _Seat(known, placed, address, channels)

    def _start(self) -> None:
        self._unlock()
        for pot, which in enumerate(self.pots):
            if which.readable:
                self._get(pot)

    def _unlock(self) -> None:
        """Let the chips take codes, as they do not after power-on."""
        pot = 0
        for seat in self._seats:
            if seat.chip.unlock:
                frames = unlock_frames(seat.chip, address=seat.address)
                self._try(pot, "could not be unlocked", partial(self._send, seat, frames))
            pot += len(seat.channels)

    def _write_all(self, codes: Sequence[int]) -> None:
        start = 0
        for seat in self._seats:
            own = codes[start : start + len(seat.channels)]
            if seat.placed.together:
                frames = self._frames_together(seat, dict(zip(seat.channels, own, strict=True)))
                self._try(start, "did not take its code", partial(self._send, seat, frames))
            else:
                for pot, code in enumerate(own, start):
                    self._put(pot, code)
            start += len(own)

    def _put(self, pot: int, code: int) -> None:
        seat, channel = self._wipers[pot]
        frames = write_frames(seat.chip, channel, code, address=seat.address)
        self._try(pot, f"did not take code {code}", partial(self._send, seat, frames))

    def _get(self, pot: int) -> int:
        seat, channel = self._wipers[pot]
        frames = read_frames(seat.chip, channel, address=seat.address)
        reply = self._try(pot, "could not be read", partial(self._send, seat, frames))
        try:
            return decode_reply(seat.chip, channel, reply, address=seat.address)
        except BoardError as cause:
            raise BoardError(f"{self._where(pot)}: {cause}") from cause

    def _send(self, seat: _Seat, frames: Sequence[Frame]) -> bytes:
        """Send frames and return the last one's reply."""
        reply = b""
        for frame in frames:
            reply = self._exchange(seat, frame)
        return reply

    def _try(self, pot: int, what: str, work: Callable[[], T]) -> T:
        """Do work that may be begun anew, again where the bus fails."""
        for left in reversed(range(self.tries)):
            try:
                return work()
            except OSError as cause:
                if not left:
                    raise BoardError(
                        f"{self._where(pot)} {what} on {self.label} ({cause}): check its supply, its wiring and its "
                        "place"
                    ) from cause
                self.retries += 1
        raise AssertionError("there is at least one try")

    def _frames_together(self, seat: _Seat, codes: dict[int, int]) -> tuple[Frame, ...]:
        """Return frames that fill the input registers and then move all wipers at once.

        Command 2 fills one input register, command 8 copies them, address bit A3 set all at once: AD5124/AD5144/AD5144A
        data sheet Rev. A, table 20.
        """
        frames = []
        for channel, code in codes.items():
            (direct,) = write_frames(seat.chip, channel, code, address=seat.address)
            # Command 1 writes the wiper (0001 in the upper half of the first byte), command 2 its input register.
            frames.append(_with_first_byte(seat.chip, direct, 0x20 | channel))
        return (*frames, _with_first_byte(seat.chip, frames[0], 0x68, 0x00))


class SpiPots(BusPots):
    """Chips on SPI, each with a chip select; X9250s may share one."""

    kind = "spi"

    def __init__(
        self,
        name: str,
        bus: SpiBus,
        placed: Sequence[PlacedChip],
        *,
        tries: int = TRIES,
        safe_codes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, bus.label, placed, tries=tries, safe_codes=safe_codes)
        self._bus = bus

    def _start(self) -> None:
        pot = 0
        for seat in self._seats:
            clock = seat.chip.clock
            # The clock of a chip with both buses is that of I2C, the slower one.
            most = clock.max_hz if seat.chip.buses == ("spi",) else None
            prepare = partial(self._bus.prepare, seat.placed.place, clock.spi_mode or 0, most)
            self._try(pot, "could not be prepared", prepare)
            pot += len(seat.channels)
        super()._start()

    def _exchange(self, seat: _Seat, frame: Frame) -> bytes:
        if not isinstance(frame, SpiFrame):
            raise TypeError(f"a chip on SPI takes no {frame}")
        return self._bus.exchange(seat.placed.place, frame.payload)

    def _where_is(self, placed: PlacedChip) -> str:
        identifier = "" if placed.identifier is None else f" with identifier 0x{placed.identifier:02X}"
        return f"on chip select {placed.place}{identifier}"

    def _release(self) -> None:
        self._bus.close()


class I2cPots(BusPots):
    """Chips on I2C, each with an address of its own."""

    kind = "i2c"

    def __init__(
        self,
        name: str,
        bus: I2cBus,
        placed: Sequence[PlacedChip],
        *,
        tries: int = TRIES,
        safe_codes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, bus.label, placed, tries=tries, safe_codes=safe_codes)
        self._bus = bus

    def _address(self, placed: PlacedChip) -> int:
        return placed.place

    def _exchange(self, seat: _Seat, frame: Frame) -> bytes:
        if not isinstance(frame, I2cFrame):
            raise TypeError(f"a chip on I2C takes no {frame}")
        return self._bus.exchange(frame.address, frame.payload, frame.read)

    def _where_is(self, placed: PlacedChip) -> str:
        return f"at 0x{placed.place:02X}"

    def _release(self) -> None:
        self._bus.close()


class UpDownPots(BusPots):
    """Chips that count: nobody can read them, so opening the bank drives each to an end stop first.

    From there they are moved by differences. After a failure on the way a chip's code is not known, and it is homed
    again before it moves on; ``home`` does so at any time.
    """

    kind = "updown"

    def __init__(
        self,
        name: str,
        bus: UpDownBus,
        placed: Sequence[PlacedChip],
        *,
        tries: int = TRIES,
        safe_codes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, bus.label, placed, tries=tries, safe_codes=safe_codes)
        self._bus = bus
        self._current: list[int | None] = [None] * len(self.pots)

    def home(self) -> None:
        """Drive every chip to its end stop, whatever its code was thought to be.

        Raises BoardError naming the first pot whose lines could not be driven.
        """
        with self._lock:
            self._require_open()
            self._start()

    def _start(self) -> None:
        for pot, (seat, _) in enumerate(self._wipers):
            self._current[pot] = None
            self._put(pot, seat.chip.positions - 1 if seat.placed.home == "high" else 0)

    def _put(self, pot: int, code: int) -> None:
        self._try(pot, f"could not be moved to code {code}", partial(self._move, pot, code))

    def _move(self, pot: int, code: int) -> None:
        seat, channel = self._wipers[pot]
        current = self._current[pot]
        frames = write_frames(seat.chip, channel, code, current=current, home=seat.placed.home)
        self._current[pot] = None
        if current is None:
            self._bus.play(seat.placed.place, _LOST)
        self._send(seat, frames)
        self._current[pot] = code

    def _exchange(self, seat: _Seat, frame: Frame) -> bytes:
        if not isinstance(frame, UpDownFrame):
            raise TypeError(f"a chip that counts takes no {frame}")
        self._bus.play(seat.placed.place, waveform(frame))
        return b""

    def _where_is(self, placed: PlacedChip) -> str:
        return f"on line {placed.place}"

    def _release(self) -> None:
        self._bus.close()


# A chip that was left selected with its clock high would store if its chip select simply rose.
_LOST = (Lines(False, True, False), Lines(True, True, False), Lines(True, True, True))


def open_spi(
    name: str,
    resource: str,
    placed: Sequence[PlacedChip],
    *,
    speed: float = SPI_HZ,
    tries: int = TRIES,
    safe_codes: Sequence[int] | None = None,
) -> SpiPots:
    """Return an open bank on ``"/dev/spidev0"`` or ``"ftdi://ftdi:232h/1"`` at ``speed`` hertz; no wiper has moved.

    Raises InputError or BoardError, and then nothing stays open.
    """
    bus = spi_bus(resource, [one.place for one in placed], speed)
    return _opened(bus, lambda: SpiPots(name, bus, placed, tries=tries, safe_codes=safe_codes))


def open_i2c(
    name: str,
    resource: str,
    placed: Sequence[PlacedChip],
    *,
    speed: float = I2C_HZ,
    tries: int = TRIES,
    safe_codes: Sequence[int] | None = None,
) -> I2cPots:
    """Return an open bank on ``"/dev/i2c-1"`` or ``"ftdi://ftdi:232h/1"``; no wiper has moved.

    ``speed`` in hertz counts for FTDI adapters only. Raises InputError or BoardError, and then nothing stays open.
    """
    bus = i2c_bus(resource, speed)
    return _opened(bus, lambda: I2cPots(name, bus, placed, tries=tries, safe_codes=safe_codes))


def open_updown(
    name: str,
    resource: str,
    placed: Sequence[PlacedChip],
    *,
    up: int,
    clock: int,
    rate: float = LEVEL_HZ,
    tries: int = TRIES,
    safe_codes: Sequence[int] | None = None,
) -> UpDownPots:
    """Return an open bank on the lines of ``"/dev/gpiochip0"`` or ``"ftdi://ftdi:232h/1"``, each chip at its home end.

    ``up`` and ``clock``: the lines of direction and of CLK or INC; ``rate``: levels a second, for FTDI adapters only.
    Raises InputError or BoardError, and then nothing stays open.
    """
    bus = updown_bus(resource, up, clock, [one.place for one in placed], rate)
    return _opened(bus, lambda: UpDownPots(name, bus, placed, tries=tries, safe_codes=safe_codes))


Bank = TypeVar("Bank", SpiPots, I2cPots, UpDownPots)


def _opened(bus: SpiBus | I2cBus | UpDownBus, build: Callable[[], Bank]) -> Bank:
    try:
        bank = build()
        bank.open()
    except BaseException:
        bus.close()
        raise
    return bank


def _refuse_shared_places(name: str, seats: Sequence[_Seat], where: Callable[[PlacedChip], str]) -> None:
    taken: dict[tuple[int, int | None], _Seat] = {}
    for seat in seats:
        key = (seat.placed.place, seat.placed.identifier)
        # A chip without an identifier hears everything on its chip select.
        others = [other for place, other in taken.items() if place[0] == key[0] and (None in {place[1], key[1]})]
        if key in taken or others:
            other = taken[key] if key in taken else others[0]
            raise InputError(
                f"{name}: {other.chip.name} and {seat.chip.name} are both {where(seat.placed)}: give each a place of "
                "its own"
            )
        taken[key] = seat


def _with_first_byte(known: Chip, frame: Frame, first: int, second: int | None = None) -> SpiFrame | I2cFrame:
    """Return a two-byte frame with another first byte, and another second one if given."""
    if isinstance(frame, UpDownFrame):
        raise TypeError(f"{known.name} takes words, no {frame}")
    payload = bytes([first, frame.payload[1] if second is None else second])
    refuse_stores(known, payload)
    return SpiFrame(payload, frame.bits) if isinstance(frame, SpiFrame) else I2cFrame(frame.address, payload)
