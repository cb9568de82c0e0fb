"""Quantities with units in files: "10 kΩ", "2.5 mA", "20 %" become SI numbers."""

import math
import re
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

if TYPE_CHECKING:
    import pint

EXAMPLES = {
    "ohm": "10 kΩ",
    "volt": "1 V",
    "ampere": "2.5 mA",
    "watt": "10 mW",
    "siemens": "1 mS",
    "kelvin": "15 K",
    "1/kelvin": "700 ppm/K",
    "second": "10 min",
    "farad": "100 pF",
    "siemens/volt**2": "1e-4 S/V²",
    "volt**2": "1e-6 V²",
    "": "20 %",
}


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf)"
_UNIT = r"[A-Za-zΩµμ%°_]+(?:(?:\*\*|\^)\d|[²³])?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*((?:/\s*)?{_UNIT}(?:\s*[*/·]\s*{_UNIT})*)?", re.ASCII)
"""A number and a unit. Nothing else may reach pint, which evaluates sums and powers, and drops a decimal comma."""

LONGEST = 60
"""Characters: more is not a quantity, and is not repeated in a message."""


@cache
def _registry() -> "pint.UnitRegistry[float]":
    import pint

    return pint.UnitRegistry()


def to_si(value: object, unit: str) -> float:
    """Return a quantity given as text ("10 kΩ") in the SI unit named; a bare number only where there is no unit.

    Raises ValueError with the sentence a reader of the file needs.
    """
    example = EXAMPLES[unit]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"needs a quantity such as {example!r}")
    if not isinstance(value, str):
        if unit and value != 0:
            raise ValueError(f"has no unit: write it as text with one, such as {example!r}")
        if abs(value) > 1e300 or math.isnan(value):
            raise ValueError("is not a finite quantity")
        return float(value)
    text = value.replace("\N{OHM SIGN}", "\N{GREEK CAPITAL LETTER OMEGA}").replace("Ohm", "ohm").strip()
    parts = _QUANTITY.fullmatch(text) if len(text) <= LONGEST else None
    if parts is None:
        shown = repr(value) if len(value) <= LONGEST else f"{value[:20]!r} …"
        raise ValueError(f"{shown} is not a quantity: write a number and a unit, such as {example!r}")
    if unit and parts[2] is None:
        raise ValueError(f"{value!r} has no unit: write one, such as {example!r}")
    import pint

    try:
        magnitude = float(_registry().Quantity(text).to(unit).magnitude)
    except pint.DimensionalityError as cause:
        wanted = f"a unit like that of {example!r}" if unit else "no unit"
        raise ValueError(f"{value!r} has the wrong unit: it needs {wanted}") from cause
    except Exception as cause:  # pint raises many kinds for text it cannot read
        raise ValueError(f"{value!r} is not a quantity: write a number and a unit, such as {example!r}") from cause
    if not math.isfinite(magnitude):
        raise ValueError(f"{value!r} is not a finite quantity")
    return magnitude


Ohms = Annotated[float, BeforeValidator(partial(to_si, unit="ohm"))]
Volts = Annotated[float, BeforeValidator(partial(to_si, unit="volt"))]
Amperes = Annotated[float, BeforeValidator(partial(to_si, unit="ampere"))]
Watts = Annotated[float, BeforeValidator(partial(to_si, unit="watt"))]
Farads = Annotated[float, BeforeValidator(partial(to_si, unit="farad"))]
Siemens = Annotated[float, BeforeValidator(partial(to_si, unit="siemens"))]
Kelvins = Annotated[float, BeforeValidator(partial(to_si, unit="kelvin"))]
PerKelvin = Annotated[float, BeforeValidator(partial(to_si, unit="1/kelvin"))]
Seconds = Annotated[float, BeforeValidator(partial(to_si, unit="second"))]
SquareVolts = Annotated[float, BeforeValidator(partial(to_si, unit="volt**2"))]
Share = Annotated[float, BeforeValidator(partial(to_si, unit=""))]


def step_size(value: object) -> object:
    """Return a step size in S/V², or "auto" as it is."""
    return value if value == "auto" else to_si(value, "siemens/volt**2")
