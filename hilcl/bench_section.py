"""The [bench] section of an experiment file: instruments, wiring, and how the bench is used."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hilcl.file_values import LARGEST, Node, Number, Section, Switch, Whole
from hilcl.pot_bank_section import BankInstrument, IioInstrument
from hilcl.settle_section import SettleSection, settle_section
from hilcl.units import Amperes, Seconds, Volts, to_si

SmuDriver = Literal["keithley2400", "keithley2450", "keithley2600b", "keysight-b2900"]
ScannerDriver = Literal["daq6510", "34970a"]

LEAST_SILENCE = 2.0
"""Seconds of silence that a guard may at least be told to act upon: a busy computer can be silent for a while."""


def _watchdog(value: object) -> float | None:
    return None if value == "off" else to_si(value, "second")


def _guard(value: object) -> float | None:
    if value == "off":
        return None
    seconds = to_si(value, "second")
    if not LEAST_SILENCE <= seconds <= 3600:
        raise ValueError(f'is "off", or a silence from {LEAST_SILENCE:g} s to 1 h, not {seconds:g} s')
    return seconds


def _numbers(value: list[object], lowest: int) -> list[int]:
    for each in value:
        if isinstance(each, bool) or not isinstance(each, int) or not lowest <= each < LARGEST:
            raise ValueError(f"lists whole numbers from {lowest} on, not {each!r}")
    return [int(str(each)) for each in value]


def _pots(value: object) -> object:
    """Return the edge of each pot in order, or "all"."""
    if value == "all":
        return value
    if not isinstance(value, list) or not value:
        raise ValueError('is "all", or lists the edge of each pot in order, -1 for a pot that is not used')
    return _numbers(value, -1)


def _channels(value: object) -> object:
    """Return nodes by channel name, ranges such as "101:104" = [4, 5, 6, 7] spelt out; or nodes in channel order."""
    if isinstance(value, list):
        return _numbers(value, -1)
    if not isinstance(value, dict):
        raise ValueError(
            'lists the node of each channel in order, or names channels: { "101" = 4, "102:104" = [5, 6, 7] }'
        )
    found: dict[str, int] = {}
    for key, nodes in value.items():
        names = [key]
        if span := re.fullmatch(r"(\d{1,4}):(\d{1,4})", key):
            names = [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
        listed = _numbers(nodes if isinstance(nodes, list) else [nodes], 0)
        if len(listed) != len(names):
            raise ValueError(f"has {len(listed)} nodes for the {len(names)} channels {key!r}: give one node each")
        for name, node in zip(names, listed, strict=True):
            if name in found:
                raise ValueError(f"has two wires on channel {name}: each channel takes one")
            found[name] = node
    return found


class SmuInstrument(Section):
    """A source-measure unit: volts within ``limit_volts`` and ``compliance`` at most, or floating by ``free_mode``."""

    driver: SmuDriver
    resource: str
    compliance: Amperes = Field(gt=0)
    model: str | None = None
    serial: str | None = None
    limit_volts: Volts | None = Field(default=None, gt=0)
    float_volts: Volts | None = Field(default=None, gt=0)
    free_mode: Literal["zero_amp", "himp", "relay"] = "zero_amp"
    nplc: Number = Field(default=1.0, gt=0)
    four_wire: Switch = False
    volts_range: Volts | None = Field(default=None, gt=0)
    amperes_range: Amperes | None = Field(default=None, gt=0)
    float_range: Amperes | None = Field(default=None, gt=0)
    autozero: Switch = True
    calibrate_float: Switch = True
    timeout: Seconds = Field(default=3.0, gt=0)
    baud: Whole = Field(default=9600, gt=0)


class ScannerInstrument(Section):
    """A scanning multimeter."""

    driver: ScannerDriver
    resource: str
    model: str | None = None
    serial: str | None = None
    range: Volts = Field(default=10.0, gt=0)
    nplc: Number = Field(default=1.0, gt=0)
    delay: Seconds | None = Field(default=None, ge=0)
    autozero: Switch = True
    timeout: Seconds = Field(default=3.0, gt=0)
    baud: Whole = Field(default=9600, gt=0)


class PotBoardInstrument(Section):
    """A pot board on a serial port: pots, and whatever ADC, sources and clamp switches it has."""

    driver: Literal["potboard"]
    resource: str
    serial: str | None = None
    baud: Whole = Field(default=115_200, gt=0)
    fast_baud: Whole | None = Field(default=None, gt=0)
    turnaround: Seconds = Field(default=0.02, ge=0)
    boot_time: Seconds = Field(default=3.0, ge=0)
    watchdog: Annotated[float | None, BeforeValidator(_watchdog)] = 2.0

    @property
    def line_baud(self) -> int:
        """Bits a second once the board has been greeted."""
        return self.fast_baud or self.baud


class PythonInstrument(Section):
    """A device that the Python program which opens the bench hands over, such as a lab's own driver in an adapter."""

    driver: Literal["python"]


AnyInstrument = SmuInstrument | ScannerInstrument | PotBoardInstrument | BankInstrument | PythonInstrument

Instrument = Annotated[AnyInstrument, Field(discriminator="driver")]

_SECTIONS: tuple[type[Section], ...] = get_args(AnyInstrument)
_SECTION_OF = {driver: kind for kind in _SECTIONS for driver in get_args(kind.model_fields["driver"].annotation)}

DRIVERS: tuple[str, ...] = tuple(_SECTION_OF)
"""What ``driver`` can be."""


def instrument_section(driver: str) -> type[Section]:
    """Return the section that goes with a driver of ``DRIVERS``."""
    return _SECTION_OF[driver]


Pots = Annotated[Any, BeforeValidator(_pots)]
Channels = Annotated[Any, BeforeValidator(_channels)]


class WiringSection(Section):
    """What is connected to what: pots to edges, channels to nodes.

    ``pots``: "all" or a list of edges per instrument; ``sources`` and ``meters``: a list of nodes in channel order, or
    nodes by channel name; ``switches``: by board and switch, the node of the source that it connects.
    """

    pots: dict[str, Pots]
    sources: dict[str, Channels] = Field(default_factory=dict)
    meters: dict[str, Channels] = Field(default_factory=dict)
    switches: dict[str, Channels] = Field(default_factory=dict)
    grounded: list[Node] = Field(default_factory=list)


class BenchSection(Section):
    """The instruments of a bench, their wiring, and how long and how often is waited and measured.

    ``guard``: seconds of silence of this program after which the guard makes the bench safe; None for no guard.
    """

    instruments: dict[str, Instrument]
    wiring: WiringSection
    settle: Annotated[SettleSection, BeforeValidator(settle_section)] = Field(
        default_factory=lambda: SettleSection.model_construct(seconds=1e-3)
    )
    averages: Whole = Field(default=1, ge=1, le=65_535)
    retries: Whole = Field(default=2, ge=0, le=10)
    visa: str = "@py"
    guard: Annotated[float | None, BeforeValidator(_guard)] = 30.0

    @field_validator("instruments")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("is empty: name at least the pots' board and a source")
        return value

    @model_validator(mode="after")
    def _one_place_each(self) -> Self:
        """Two instruments on one port would take each other's answers."""
        seen: dict[str, str] = {}
        for name, instrument in self.instruments.items():
            # Two banks may share the tree of kernel devices.
            if isinstance(instrument, PythonInstrument | IioInstrument):
                continue
            place = instrument.resource.strip().upper()
            if place in seen:
                raise ValueError(
                    f"has {seen[place]} and {name} both at {instrument.resource}: give each instrument its own resource"
                )
            seen[place] = name
        return self
