"""What separates a real bench from an ideal one: pots, meters and sources, each off by default, drawn by seed.

Spreads are limits, as in data sheets: a value given as ±x is drawn uniformly from −x … +x, once per device.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.errors import InputError
from hilcl.potentiometer import Potentiometer

OPEN_CONDUCTANCE = 1e-9
"""Siemens across a pot whose wiper has lost contact: the leakage of the board around it."""


@dataclass(frozen=True)
class PotDefects:
    """What the pots really are, against their nominal law.

    ``tolerance``: ± of the end-to-end resistance, relative. ``wiper_spread`` and ``series_spread``: ± of the wiper
    and the series resistance, relative. ``inl``: peak integral non-linearity in codes, a smooth bow per pot.
    ``temperature_coefficient`` of the end-to-end resistance per kelvin and ``temperature_rise`` in kelvin. ``stuck``:
    edge → code it always has. ``opened``: edges whose wiper has no contact.
    """

    tolerance: float = 0.0
    wiper_spread: float = 0.0
    series_spread: float = 0.0
    inl: float = 0.0
    temperature_coefficient: float = 0.0
    temperature_rise: float = 0.0
    stuck: Mapping[int, int] = field(default_factory=dict)
    opened: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tolerance", "wiper_spread", "series_spread"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"pots: {name} must lie between 0 and 1 (0.2 is ±20 %), got {value}")
        if not (math.isfinite(self.inl) and self.inl >= 0):
            raise InputError(f"pots: inl must not be negative, got {self.inl} codes")
        if not 1 + self.temperature_coefficient * self.temperature_rise > 0:
            raise InputError("pots: this temperature rise would make the end-to-end resistance negative")


@dataclass(frozen=True)
class MeterDefects:
    """What the node meters add.

    ``gain`` ± relative and ``offset`` ± volts per channel, ``noise`` volts rms per reading, ``resolution`` volts per
    count (0 for none), ``input_resistance`` ohms from each node to ground (inf for none).
    """

    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    resolution: float = 0.0
    input_resistance: float = math.inf

    def __post_init__(self) -> None:
        _refuse_negative("meters", self, ("gain", "offset", "noise", "resolution"))
        if not self.input_resistance > 0:
            raise InputError(f"meters: input_resistance must be positive, got {self.input_resistance} Ω")


@dataclass(frozen=True)
class SourceDefects:
    """What the sources add: ``series`` ohms, ``offset`` ± volts per source, ``compliance`` amperes (inf for none)."""

    series: float = 0.0
    offset: float = 0.0
    compliance: float = math.inf

    def __post_init__(self) -> None:
        _refuse_negative("sources", self, ("series", "offset"))
        if not self.compliance > 0:
            raise InputError(f"sources: compliance must be positive, got {self.compliance} A")


@dataclass(frozen=True)
class Imperfections:
    """All that is not ideal about a simulated bench."""

    pots: PotDefects = field(default_factory=PotDefects)
    meters: MeterDefects = field(default_factory=MeterDefects)
    sources: SourceDefects = field(default_factory=SourceDefects)

    @property
    def none_at_all(self) -> bool:
        """True for an ideal bench."""
        return self == Imperfections()

    @property
    def ideal_terminals(self) -> bool:
        """True where sources and meters are ideal, whatever the pots are."""
        return self == Imperfections(pots=self.pots)


def true_tables(pots: list[Potentiometer], defects: PotDefects, generator: np.random.Generator) -> list[FloatArray]:
    """Return for each edge the conductances in siemens, in code order, that its codes really have.

    R(k) = R_s(1+ε_s) + R_w(1+ε_w) + R_AB(1+ε)(1+αΔT)(x(k) + bow(k)/den); a bow that would take a resistance below
    its fixed part stops there.
    """
    # One draw per figure and edge, whether the figure is used or not: switching one on does not move the others.
    draws = generator.uniform(-1.0, 1.0, size=(len(pots), 5))
    warmth = 1 + defects.temperature_coefficient * defects.temperature_rise
    tables = []
    for pot, (end, wiper, series, bow, skew) in zip(pots, draws, strict=True):
        travel = pot.travel()
        place = np.linspace(0.0, 1.0, pot.positions)
        shape = np.sin(np.pi * place) * (1.0 + skew * np.cos(np.pi * place))
        shape *= bow / np.abs(shape).max()
        bent = np.maximum(travel + defects.inl * shape / pot.divisor, 0.0)
        track = pot.end_to_end * (1 + defects.tolerance * end) * warmth * bent
        fixed = pot.series * (1 + defects.series_spread * series) + pot.wiper * (1 + defects.wiper_spread * wiper)
        resistance = fixed + track
        if resistance.min() <= 0:
            raise InputError("pots: a code would be 0 Ω with this inl: give the pots a wiper or a series resistance")
        tables.append(1.0 / resistance)
    return tables


def _refuse_negative(device: str, defects: MeterDefects | SourceDefects, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(defects, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{device}: {name} must be a number and not negative, got {value}")
