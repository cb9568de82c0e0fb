"""The wiring of a pot board as an experiment file has it, checked against the chip catalogue and the board's pins."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from hilcl.drivers.chips import Chip, address_of, chip
from hilcl.drivers.chips.layouts import Counter
from hilcl.drivers.firmware.boards import BOARDS, McuBoard
from hilcl.errors import InputError

Bus = Literal["spi", "i2c", "updown"]

MOST_POTS = {"atmega328p": 96, "atmega2560": 1000}
"""Pots whose codes fit the memory beside everything else."""

MOST_SOURCES = 16
ADC_BITS = 10
ADC_CYCLES = 13
"""Clock cycles of a conversion of the AVR's own ADC (ATmega328P data sheet, ADC conversion time)."""

DAC_CHANNELS = {"MCP4921": 1, "MCP4922": 2}
DAC_BITS = 12


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PotChips(_Table):
    """Like chips on one bus, as ``[[firmware.pots]]``; their wipers are numbered on, chip after chip.

    ``select``: one pin per chip, for SPI and up/down chips. ``address``: one per I2C chip, as a number or as the levels
    of its address pins ("gnd,vdd"). ``up_down`` and ``clock``: pins all up/down chips of the group share. ``safe``: the
    code in the safe state, by default the highest. ``power_on``: the code after a restart, by default the chip's own.
    """

    chip: str
    select: tuple[str, ...] = ()
    address: tuple[int | str, ...] = ()
    up_down: str | None = None
    clock: str | None = None
    safe: int | None = None
    power_on: int | None = None


class Adc(_Table):
    """The microcontroller's own ADC, as ``[firmware.adc]``: ``volts`` is its reference, AVCC or the pin AREF."""

    channels: tuple[str, ...]
    volts: PositiveFloat = 5.0
    reference: Literal["avcc", "aref"] = "avcc"
    prescaler: Literal[16, 32, 64, 128] = 128


class DacSources(_Table):
    """Sources out of one DAC chip, as ``[[firmware.sources]]``: ``volts`` at full scale.

    ``switches``: for each channel the number of the clamp switch that connects it, -1 where it always is.
    """

    chip: Literal["MCP4921", "MCP4922"] = "MCP4922"
    select: str
    volts: PositiveFloat = 5.0
    switches: tuple[Annotated[int, Field(ge=-1)], ...] = ()


class BoardWiring(_Table):
    """The table ``[firmware]`` of an experiment file.

    ``switches`` are pins in order; ``active`` is the level that closes a switch.
    """

    board: Literal["uno", "nano", "mega"] = "nano"
    maker: Annotated[str, Field(pattern=r"^[ -+\--~]{1,16}$")] = "hilcl"
    serial: Annotated[str, Field(pattern=r"^[ -+\--~]{1,16}$")] = "0"
    baud: Literal[9600, 19200, 38400, 57600, 115200, 250000, 500000, 1000000] = 115_200
    pots: tuple[PotChips, ...]
    adc: Adc | None = None
    sources: tuple[DacSources, ...] = ()
    switches: tuple[str, ...] = ()
    active: Literal["high", "low"] = "high"


@dataclass(frozen=True)
class Group:
    """Like chips: ``places`` are their select pins or addresses."""

    chip: Chip
    bus: Bus
    first: int
    places: tuple[str | int, ...]
    power_on: int
    safe: int
    up_down: str = ""
    clock: str = ""

    @property
    def count(self) -> int:
        """Number of pots."""
        return len(self.places) * self.chip.wipers

    def pots(self) -> Iterator[tuple[str | int, int]]:
        """Return (place, wiper) of each pot."""
        for place in self.places:
            for wiper in range(self.chip.wipers):
                yield place, wiper


@dataclass(frozen=True)
class SourceChannel:
    """One source: a DAC channel."""

    select: str
    channel: int
    volts: float
    switch: int | None


@dataclass(frozen=True)
class Wiring:
    """A checked wiring."""

    board: McuBoard
    identity: str
    baud: int
    groups: tuple[Group, ...]
    adc: Adc | None
    sources: tuple[SourceChannel, ...]
    switches: tuple[str, ...]
    active_high: bool

    @property
    def pots(self) -> int:
        """Number of pots."""
        return sum(group.count for group in self.groups)

    @property
    def adc_conversion(self) -> float:
        """Seconds of one ADC conversion."""
        return 0.0 if self.adc is None else ADC_CYCLES * self.adc.prescaler / self.board.clock


def load_wiring(path: Path, version: str) -> Wiring:
    """Return the checked wiring of an experiment file: its table ``[firmware]``.

    Raises InputError for a file that cannot be read or has no such table, and as ``read_wiring`` does.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise InputError(f"{path} cannot be read ({cause.strerror}): check its name") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} is not TOML: {cause}") from cause
    table = content.get("firmware")
    if not isinstance(table, dict):
        raise InputError(f"{path} has no table [firmware]: add the pot board's wiring, see docs/firmware.md")
    return read_wiring(table, version)


def read_wiring(table: Mapping[str, Any], version: str) -> Wiring:
    """Return the checked wiring out of the table ``[firmware]``; ``version`` becomes part of the identity.

    Raises InputError with the key at fault and the remedy.
    """
    try:
        return check_wiring(BoardWiring.model_validate(dict(table)), version)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["firmware", *(str(part) for part in first["loc"])])
        raise InputError(f"{key}: {first['msg'].lower()}: correct it in the experiment file") from error


def check_wiring(table: BoardWiring, version: str) -> Wiring:
    """Return the checked wiring.

    Raises InputError for a chip that is not in the catalogue, a pin the board has not or that is used twice, addresses
    that clash, and codes a chip does not have.
    """
    board = BOARDS[table.board]
    pins = _Pins(board)
    groups: list[Group] = []
    addresses: dict[int, str] = {}
    for index, chips in enumerate(table.pots):
        first = sum(group.count for group in groups)
        groups.append(_group(chips, f"firmware.pots[{index}]", first, pins, addresses))
    if not groups:
        raise InputError("firmware.pots: a pot board needs pots: list at least one chip")
    count = sum(group.count for group in groups)
    if count > MOST_POTS[board.mcu]:
        raise InputError(f"firmware.pots: {board.title} has memory for {MOST_POTS[board.mcu]} pots, not for {count}")
    if table.adc is not None:
        for channel in table.adc.channels:
            if channel not in board.analog:
                raise InputError(
                    f"firmware.adc.channels: {board.title} has no analog pin {channel}: choose of "
                    f"{', '.join(board.analog)}"
                )
            pins.take(channel, "firmware.adc.channels")
    for pin in table.switches:
        pins.take(pin, "firmware.switches", output=True)
    sources = _sources(table, pins)
    if sources or any(group.bus == "spi" for group in groups):
        pins.take_spi()
    if addresses:
        pins.take_i2c()
    return Wiring(
        board,
        f"{table.maker},pot board {board.name},{table.serial},{version}",
        table.baud,
        tuple(groups),
        table.adc,
        sources,
        table.switches,
        table.active == "high",
    )


def automatic_wiring(
    chip_name: str,
    pots: int,
    *,
    adcs: int = 0,
    volts: float = 5.0,
    sources: int = 0,
    switches: int = 0,
    serial: str = "0",
    baud: int = 115_200,
) -> dict[str, Any]:
    """Return a table ``[firmware]`` for like pots on an Arduino Mega: the first pins that are free, in order.

    Source n is connected by switch n, as far as there are switches. For an emulated board, whose wires cost nothing.
    Raises InputError where the pots are no whole number of chips, or the Mega has not pins enough.
    """
    known = chip(chip_name)
    chips, rest = divmod(pots, known.wipers)
    if rest or not chips:
        raise InputError(f"{pots} pots are no whole number of {known.name} with {known.wipers} pots each: wire others")
    pins = [f"D{pin}" for pin in (*range(22, 50), *range(2, 10), *range(14, 20))]
    dacs = (sources + 1) // 2
    needed = chips * (known.buses[0] != "i2c") + dacs + switches + 2 * (known.buses == ("updown",))
    if needed > len(pins) or adcs > len(BOARDS["mega"].analog):
        raise InputError(
            f"an Arduino Mega has not pins enough for {chips} {known.name} and {adcs} ADC channels: wire less"
        )
    group: dict[str, Any] = {"chip": known.name}
    if known.buses[0] == "i2c":
        addresses = [] if known.address is None else sorted(set(known.address.all().values()))
        if chips > len(addresses):
            raise InputError(f"{chips} {known.name} cannot share an I2C bus: it has {len(addresses)} addresses")
        group["address"] = addresses[:chips]
    else:
        group["select"] = [pins.pop(0) for _ in range(chips)]
    if known.buses == ("updown",):
        group |= {"up_down": pins.pop(0), "clock": pins.pop(0)}
    table: dict[str, Any] = {"board": "mega", "serial": serial, "baud": baud, "pots": [group]}
    if adcs:
        table["adc"] = {"channels": [f"A{pin}" for pin in range(adcs)], "volts": volts}
    table["switches"] = [pins.pop(0) for _ in range(switches)]
    table["sources"] = [
        {
            "chip": "MCP4922" if 2 * dac + 1 < sources else "MCP4921",
            "select": pins.pop(0),
            "volts": volts,
            "switches": [one if one < switches else -1 for one in range(2 * dac, min(2 * dac + 2, sources))],
        }
        for dac in range(dacs)
    ]
    return table


class _Pins:
    """Who has which pin."""

    def __init__(self, board: McuBoard) -> None:
        self._board = board
        self._taken = dict.fromkeys(board.reserved, "the serial port")

    def take(self, name: str, key: str, *, output: bool = False) -> None:
        """Give a pin to a key of the file."""
        board = self._board
        if name not in board.pins and (output or name not in board.analog):
            raise InputError(f"{key}: {board.title} has no digital pin {name}: use D2, D3, ... or A0, A1, ...")
        if name in self._taken:
            raise InputError(f"{key}: pin {name} is already used for {self._taken[name]}: choose another one")
        self._taken[name] = key

    def take_spi(self) -> None:
        """Reserve the pins of the SPI bus; its select pin SS may select a chip, since it is an output anyhow."""
        for line, name in self._board.spi.items():
            if line != "ss" or name not in self._taken:
                self.take(name, "the SPI bus")

    def take_i2c(self) -> None:
        """Reserve the pins of the I2C bus."""
        for name in self._board.i2c:
            self.take(name, "the I2C bus")


def _group(chips: PotChips, key: str, first: int, pins: _Pins, addresses: dict[int, str]) -> Group:
    known = chip(chips.chip)
    highest = known.positions - 1
    safe = highest if chips.safe is None else chips.safe
    power_on = chips.power_on
    if power_on is None:
        power_on = safe if known.power_on == "memory" else known.power_on
    for name, code in (("safe", safe), ("power_on", power_on)):
        if not 0 <= code <= highest:
            raise InputError(f"{key}.{name}: {known.name} has codes 0 to {highest}, not {code}")
    bus = _bus(chips, known, key)
    if bus == "i2c":
        places = tuple(_address(known, given, key) for given in chips.address)
        for place in places:
            if place in addresses:
                raise InputError(
                    f"{key}.address: 0x{place:02X} is already that of {addresses[place]}: wire another one"
                )
            addresses[place] = f"a {known.name} in {key}"
        return Group(known, bus, first, places, power_on, safe)
    for pin in chips.select:
        pins.take(pin, f"{key}.select", output=True)
    up_down = clock = ""
    if bus == "updown":
        if chips.up_down is None or chips.clock is None:
            raise InputError(f"{key}: {known.name} counts, so name the pins its chips share as up_down and clock")
        up_down, clock = chips.up_down, chips.clock
        pins.take(up_down, f"{key}.up_down", output=True)
        pins.take(clock, f"{key}.clock", output=True)
    return Group(known, bus, first, chips.select, power_on, safe, up_down, clock)


def _bus(chips: PotChips, known: Chip, key: str) -> Bus:
    if bool(chips.select) == bool(chips.address):
        raise InputError(f"{key}: give select (pins, for SPI and up/down) or address (for I2C), one per {known.name}")
    if isinstance(known.layout, Counter):
        bus: Bus = "updown"
    else:
        bus = "i2c" if chips.address else "spi"
    if bus not in known.buses:
        raise InputError(f"{key}: {known.name} is on {' or '.join(known.buses)}, not on {bus}")
    if bus != "updown" and (chips.up_down or chips.clock):
        raise InputError(f"{key}: {known.name} has no up_down and clock: leave them out")
    return bus


def _address(known: Chip, given: int | str, key: str) -> int:
    if isinstance(given, int):
        if known.address is None or given not in known.address.all().values():
            has = (
                ""
                if known.address is None
                else ", ".join(f"0x{one:02X}" for one in sorted(known.address.all().values()))
            )
            raise InputError(f"{key}.address: {known.name} cannot be at 0x{given:02X}: it can be at {has}")
        return given
    levels = [level.strip() for level in given.split(",") if level.strip()]
    if known.address is None or len(levels) != len(known.address.pins):
        named = "none" if known.address is None else ", ".join(known.address.pins) or "none"
        raise InputError(f"{key}.address: {known.name} has the address pins {named}, and {given!r} does not say them")
    return address_of(known, dict(zip(known.address.pins, levels, strict=True)))


def _sources(table: BoardWiring, pins: _Pins) -> tuple[SourceChannel, ...]:
    found: list[SourceChannel] = []
    for index, dac in enumerate(table.sources):
        key = f"firmware.sources[{index}]"
        pins.take(dac.select, f"{key}.select", output=True)
        channels = DAC_CHANNELS[dac.chip]
        if len(dac.switches) not in {0, channels}:
            raise InputError(f"{key}.switches: {dac.chip} has {channels} channels: give a switch or -1 for each")
        for channel in range(channels):
            switch = dac.switches[channel] if dac.switches else -1
            if switch >= len(table.switches):
                raise InputError(f"{key}.switches: there is no switch {switch}: list its pin in firmware.switches")
            found.append(SourceChannel(dac.select, channel, dac.volts, None if switch < 0 else switch))
    _refuse_twice([source.switch for source in found if source.switch is not None])
    if len(found) > MOST_SOURCES:
        raise InputError(f"firmware.sources: {len(found)} sources are more than the {MOST_SOURCES} that fit a frame")
    return tuple(found)


def _refuse_twice(switches: Sequence[int]) -> None:
    twice = [switch for switch in switches if switches.count(switch) > 1]
    if twice:
        raise InputError(f"firmware.sources: switch {twice[0]} belongs to two sources: give each its own")
