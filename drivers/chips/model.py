"""One digital potentiometer: its law, its ratings, how it is talked to, and where each figure comes from."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from hilcl.drivers.chips.layouts import AnyLayout, Counter, readable, room
from hilcl.errors import InputError
from hilcl.potentiometer import Potentiometer

Bus = Literal["spi", "i2c", "updown"]
End = Literal["low", "high"]
Origin = Literal["K", "D", "P", "M"]

FIGURES = (
    "positions",
    "law",
    "end_to_end",
    "tolerance",
    "wiper",
    "wiper_max",
    "tempco",
    "wiper_current",
    "supply",
    "terminals",
    "frame",
    "readback",
    "unlock",
    "address",
    "clock",
    "power_on",
    "memory",
)

_Hex = Annotated[int, BeforeValidator(lambda value: int(value, 16) if isinstance(value, str) else value)]
_HexBytes = Annotated[bytes, BeforeValidator(lambda value: bytes.fromhex(value) if isinstance(value, str) else value)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(NamedTuple):
    """Where a figure comes from: K kernel source, D another public driver, P a data sheet, M nothing that was found."""

    origin: Origin
    reference: str


class Option(_Entry):
    """One end-to-end resistance a chip is sold with, and what goes with it.

    Ohms, ohms per ohm, amperes. ``wiper`` is the typical resistance of the closed switches in the edge at the usual
    supply, ``wiper_max`` the greatest; ``wiper_current`` the greatest continuous current through the wiper.
    """

    end_to_end: PositiveFloat
    tolerance: PositiveFloat
    wiper: PositiveFloat | None
    wiper_max: PositiveFloat | None
    wiper_current: PositiveFloat


class Supply(_Entry):
    """Supply ranges in volts: ``single`` against ground, ``dual`` each rail's magnitude where the chip takes two."""

    single: tuple[PositiveFloat, PositiveFloat] | None
    dual: tuple[PositiveFloat, PositiveFloat] | None = None


class Clock(_Entry):
    """Greatest clock in hertz and the SPI mode (CPOL·2 + CPHA), None where not known or not fitting."""

    max_hz: PositiveFloat | None = None
    spi_mode: Literal[0, 1, 2, 3] | None = None


class Address(_Entry):
    """The address on the bus as a function of ``pins``, most significant first.

    Pins with two levels are the low bits of the address after ``base``. ``table`` lists the levels of others
    ("vdd,open") with their addresses.
    """

    base: _Hex
    pins: tuple[str, ...] = ()
    table: dict[str, _Hex] | None = None

    def all(self) -> dict[str, int]:
        """Return every address with the levels of the pins that choose it: ``{"gnd,vdd": 0x2D, ...}``."""
        if self.table is not None:
            return dict(self.table)
        count = len(self.pins)
        return {
            ",".join("vdd" if value >> (count - 1 - pin) & 1 else "gnd" for pin in range(count)): self.base | value
            for value in range(1 << count)
        }


class Memory(_Entry):
    """What keeps the wiper without supply: ``endurance`` in writes, ``seconds`` a write takes.

    ``every_write`` marks chips that also store each wiper write unless a volatile bit is set first.
    """

    kind: Literal["EEPROM", "fuse"]
    endurance: PositiveInt
    seconds: PositiveFloat | None = None
    every_write: bool = False


class Forbidden(_Entry):
    """Words that wear or burn: those whose first two bytes, masked, equal ``value``."""

    mask: _Hex
    value: _Hex
    why: str


class Chip(_Entry):
    """A digital potentiometer as data.

    A code k puts the wiper k/``denominator`` of the track away from the end ``zero_end`` ("A" or "B"; "L" counts as
    "B"): R(k) = R_w + R_AB·k/denominator between the wiper and that end. ``terminals`` are the pins a wiper brings out.
    ``free_edge``: two of them may be wired anywhere between the supplies, so that the chip can be an edge of a network.
    ``span``: the greatest voltage across the track in volts. ``power_max``: watts in one track. ``tempco`` in 1/K.
    ``unlock``: payloads to send after power-on before wiper writes count; with ``guard`` also before every write,
    because a brown-out would otherwise turn the next write into a wearing one. ``power_on``: code after power-on,
    "memory" if it is recalled.
    """

    name: str
    family: str
    maker: str
    wipers: PositiveInt
    positions: PositiveInt
    denominator: PositiveInt
    terminals: Literal["AWB", "WB", "AW"]
    zero_end: Literal["A", "B"]
    free_edge: bool
    options: tuple[Option, ...]
    tempco: PositiveFloat | None
    power_max: PositiveFloat | None = None
    supply: Supply
    terminal_range: str
    span: PositiveFloat
    buses: tuple[Bus, ...]
    clock: Clock = Clock()
    address: Address | None = None
    layout: AnyLayout
    unlock: tuple[_HexBytes, ...] = ()
    guard: bool = False
    power_on: int | Literal["memory"]
    memory: Memory | None = None
    forbidden: tuple[Forbidden, ...] = ()
    atomic: str | None = None
    notes: str = ""
    sources: Mapping[str, Source] = Field(repr=False)

    @model_validator(mode="after")
    def _consistent(self) -> "Chip":
        wipers, positions = room(self.layout)
        if self.wipers > wipers or self.positions > positions:
            raise ValueError(f"{self.name}: its layout has no room for its wipers and codes")
        if isinstance(self.layout, Counter) != (self.buses == ("updown",)):
            raise ValueError(f"{self.name}: a counter goes with an up/down interface")
        if "i2c" in self.buses and self.address is None:
            raise ValueError(f"{self.name}: an I2C chip needs an address")
        if self.power_on != "memory" and not 0 <= self.power_on < self.positions:
            raise ValueError(f"{self.name}: its power-on code is none of its codes")
        if self.free_edge and any(option.wiper is None for option in self.options):
            raise ValueError(f"{self.name}: an edge needs a wiper resistance")
        if self.guard and not (self.unlock and self.memory and self.memory.every_write):
            raise ValueError(f"{self.name}: a guard is the unlocking of a chip that stores every write")
        if set(self.sources) != set(FIGURES):
            raise ValueError(f"{self.name}: its sources must name {', '.join(FIGURES)}")
        return self

    @property
    def readable(self) -> bool:
        """Return whether the code can be read back from the chip."""
        return readable(self.layout)

    @property
    def unverified(self) -> tuple[str, ...]:
        """Return the figures for which no source was found, in the order of FIGURES: ``("wiper_max",)``."""
        absent = {"address"} if self.address is None else set()
        if self.clock == Clock():
            absent.add("clock")
        return tuple(figure for figure in FIGURES if self.sources[figure].origin == "M" and figure not in absent)

    def option(self, end_to_end: float) -> Option:
        """Return what goes with an end-to-end resistance in ohms.

        Raises InputError listing the values the chip is made with.
        """
        for option in self.options:
            if math.isclose(option.end_to_end, end_to_end, rel_tol=1e-6):
                return option
        values = _listed(f"{option.end_to_end:g} Ω" for option in self.options)
        raise InputError(f"{self.name} is not made with {end_to_end:g} Ω: choose {values}")

    def potentiometer(self, end_to_end: float, series: float = 0.0, end: End = "low") -> Potentiometer:
        """Return the edge a wiper makes: its nominal law with a series resistor, both in ohms.

        ``end``: the track's end that is wired, "low" for the one code 0 puts the wiper at, "high" for the other.
        Raises InputError for a chip that cannot be an edge, an end it has no pin for, or a value it is not made with.
        """
        option, wiper = self._edge(end_to_end, end)
        return Potentiometer(
            positions=self.positions,
            end_to_end=option.end_to_end,
            wiper=wiper,
            series=series,
            denominator=self.denominator,
            inverted=end == "high",
        )

    def codes(self, volts: float, end_to_end: float, series: float = 0.0, end: End = "low") -> range:
        """Return the codes whose wiper current stays within the rating with ``volts`` across edge and series resistor.

        Raises InputError when the volts exceed the track's rating or no code keeps the current small enough.
        """
        option, wiper = self._edge(end_to_end, end)
        if not abs(volts) <= self.span:
            raise InputError(f"{volts:g} V is more than the {self.span:g} V that {self.name} stands across its track")
        needed = abs(volts) / option.wiper_current - wiper - series
        least = max(0, math.ceil(self.denominator * needed / option.end_to_end - 1e-9))
        first, last = (least, self.positions - 1) if end == "low" else (0, self.denominator - least)
        if first > self.positions - 1 or last < 0:
            raise InputError(
                f"no code of {self.name} with {end_to_end:g} Ω keeps {volts:g} V below its wiper rating of "
                f"{option.wiper_current * 1e3:g} mA: lower the volts or add a series resistor"
            )
        return range(first, min(last, self.positions - 1) + 1)

    def lowest_code(self, volts: float, end_to_end: float, series: float = 0.0) -> int:
        """Return the code floor of an edge from the wiper to the low end: ⌈den·(V/I_max − R_w − R_s)/R_AB⌉, at least 0.

        Volts and ohms; nominal figures. Raises InputError as ``codes`` does.
        """
        return self.codes(volts, end_to_end, series).start

    def _edge(self, end_to_end: float, end: End) -> tuple[Option, float]:
        option = self.option(end_to_end)
        if not self.free_edge or option.wiper is None:
            raise InputError(f"{self.name} cannot be an edge of a network: {self.notes}")
        if end == "high" and len(self.terminals) == 2:
            raise InputError(f'{self.name} has the pins {" and ".join(self.terminals)} only: wire the "low" end')
        return option, option.wiper


def _listed(items: Iterable[str]) -> str:
    """Return "a", "a or b", "a, b or c"."""
    *head, last = items
    return f"{', '.join(head)} or {last}" if head else last
