"""The analogue half of a source-measure unit: what it applies to its node, what it measures there, what that takes."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hilcl.errors import InputError
from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port


@dataclass(frozen=True)
class Analogue:
    """How the electronics differ from the ideal, all off by default.

    ``offset_volts`` and ``offset_amperes`` add to what is sourced, ``range_offset`` adds this fraction of the source
    range (a 2400 may have 200 nA on its 1 mA range: 2e-4). ``volts_gain``, ``volts_zero``, ``amperes_gain`` and
    ``amperes_zero`` belong to the meter, ``noise_volts`` and ``noise_amperes`` are rms values per reading at 1 NPLC and
    fall with its square root. ``lead_resistance`` in ohms lies between terminals and node and is taken out by four-wire
    sense. ``digits`` are the significant digits on the wire, None for all that a double has.
    """

    offset_volts: float = 0.0
    offset_amperes: float = 0.0
    range_offset: float = 0.0
    volts_gain: float = 0.0
    volts_zero: float = 0.0
    amperes_gain: float = 0.0
    amperes_zero: float = 0.0
    noise_volts: float = 0.0
    noise_amperes: float = 0.0
    lead_resistance: float = 0.0
    digits: int | None = None

    def __post_init__(self) -> None:
        for name in ("noise_volts", "noise_amperes", "lead_resistance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"analogue: {name} must be a number and not negative, got {value}")
        if self.digits is not None and not 1 <= self.digits <= 17:
            raise InputError(f"analogue: digits must lie between 1 and 17, got {self.digits}")


IDEAL = Analogue()


@dataclass(frozen=True)
class Reading:
    """One measurement: volts and amperes as the meter sees them, whether the source was at its limit, and when."""

    volts: float
    amperes: float
    limited: bool
    seconds: float

    @property
    def ohms(self) -> float:
        """The quotient, NaN where no current flows."""
        return self.volts / self.amperes if self.amperes else math.nan


class SourceMeasure:
    """One channel: it drives its port, spends the time that takes, and reads the port through its meter.

    ``relay_seconds`` is what the output relay needs; ``seed`` draws the noise.
    """

    def __init__(
        self, port: Port, clock: Clock, analogue: Analogue = IDEAL, *, relay_seconds: float = 0.015, seed: int = 0
    ) -> None:
        self._port, self._clock = port, clock
        self.analogue = analogue
        self._relay_seconds = relay_seconds
        self._noise = np.random.default_rng(seed)
        self._applied: Applied | None = None

    @property
    def applied(self) -> Applied:
        """What the port was last told."""
        return OPEN if self._applied is None else self._applied

    def drive(self, wanted: Applied, source_range: float = 0.0, *, four_wire: bool = False) -> None:
        """Apply what the settings ask for, offsets added; nothing happens where nothing changes."""
        if wanted.kind != "open":
            offset = self.analogue.offset_volts if wanted.kind == "voltage" else self.analogue.offset_amperes
            series = self.analogue.lead_resistance if wanted.kind == "voltage" and not four_wire else 0.0
            level = wanted.level + offset + self.analogue.range_offset * source_range
            wanted = replace(wanted, level=level, series=series)
        if wanted == self._applied:
            return
        moved = self._applied is not None and (self._applied.kind == "open") != (wanted.kind == "open")
        self._applied = wanted
        self._port.apply(wanted)
        if moved:
            self._clock.spend(self._relay_seconds)

    @property
    def now(self) -> float:
        """Emulated seconds now, as timestamps count them."""
        return self._clock.now()

    def wait(self, seconds: float) -> None:
        """Let emulated time pass."""
        if seconds > 0:
            self._clock.spend(seconds)

    def measure(self, seconds: float, cycles: float = 1.0, *, four_wire: bool = False) -> Reading:
        """Integrate for ``seconds``, that is ``cycles`` power line cycles, and return the reading."""
        self.wait(seconds)
        seen = self._port.see()
        analogue = self.analogue
        drop = 0.0 if four_wire else seen.amperes * analogue.lead_resistance
        volts = (seen.volts + drop) * (1 + analogue.volts_gain) + analogue.volts_zero
        amperes = seen.amperes * (1 + analogue.amperes_gain) + analogue.amperes_zero
        scale = 1 / math.sqrt(max(cycles, 1e-3))
        if analogue.noise_volts:
            volts += analogue.noise_volts * scale * float(self._noise.standard_normal())
        if analogue.noise_amperes:
            amperes += analogue.noise_amperes * scale * float(self._noise.standard_normal())
        return Reading(volts, amperes, seen.limited, self._clock.now())

    def limited(self) -> bool:
        """Whether the source is at its limit now; takes no reading."""
        return self._port.see().limited


def smallest_range(ranges: tuple[float, ...], value: float, overrange: float = 1.0) -> float:
    """Return the lowest range that takes ``value``, the highest where none does."""
    for full_scale in ranges:
        if abs(value) <= full_scale * overrange * (1 + 1e-9):
            return full_scale
    return ranges[-1]
