"""The law of a digital potentiometer used as a rheostat: code to resistance."""

import math
from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.errors import DeviceRangeError


@dataclass(frozen=True)
class Potentiometer:
    """A digital potentiometer with a series resistor, used as one edge: R(k) = R_s + R_w + R_AB·x(k).

    ``positions`` codes 0 … positions−1; ``end_to_end`` R_AB, ``wiper`` R_w and ``series`` R_s in ohms; x(k) =
    k/denominator. The denominator is the number of positions, or one less for 2ⁿ + 1 positions (MCP4xxx with 129 or
    257 taps), unless the chip divides by another (X9C and MCP41HV: positions − 1). ``inverted`` turns the scale round,
    so that code 0 is the largest resistance.

    Raises DeviceRangeError when a figure is not positive or a code would be a short circuit.
    """

    positions: int
    end_to_end: float
    wiper: float = 0.0
    series: float = 0.0
    denominator: int | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.positions, int):
            raise DeviceRangeError(f"the positions of a potentiometer are a whole number, got {self.positions}")
        if self.positions < 2:
            raise DeviceRangeError(f"a potentiometer needs at least 2 positions, got {self.positions}")
        if self.denominator is not None and self.denominator < self.positions - 1:
            raise DeviceRangeError(
                f"a potentiometer of {self.positions} positions cannot have the denominator {self.denominator}"
            )
        if not (math.isfinite(self.end_to_end) and self.end_to_end > 0):
            raise DeviceRangeError(f"the end-to-end resistance must be positive, got {self.end_to_end} Ω")
        for name, value in (("wiper", self.wiper), ("series", self.series)):
            if not (math.isfinite(value) and value >= 0):
                raise DeviceRangeError(f"the {name} resistance cannot be negative, got {value} Ω")
        if self.resistances().min() <= 0:
            raise DeviceRangeError(
                "a code of this potentiometer is 0 Ω: give its wiper resistance or a series resistor"
            )

    @property
    def divisor(self) -> int:
        """The denominator in force."""
        if self.denominator is not None:
            return self.denominator
        steps = self.positions - 1
        return steps if steps >= 16 and steps & (steps - 1) == 0 else self.positions

    def travel(self) -> FloatArray:
        """Return x(k), the part of the track in the edge, for every code: shape (positions,)."""
        fraction = np.arange(self.positions) / self.divisor
        return 1.0 - fraction if self.inverted else fraction

    def resistances(self) -> FloatArray:
        """Return R(k) in ohms for every code: shape (positions,)."""
        return self.series + self.wiper + self.end_to_end * self.travel()

    def conductances(self) -> FloatArray:
        """Return g(k) = 1/R(k) in siemens for every code: shape (positions,)."""
        return 1.0 / self.resistances()
