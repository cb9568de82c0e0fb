"""``[simulation.faults]``: what goes wrong on an emulated bench, where and when, or at random."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from hilcl.file_values import Number, Section, Whole
from hilcl.units import Seconds, Volts

FaultKind = Literal[
    "delayed",
    "lost",
    "dropped",
    "duplicated",
    "half",
    "garbled",
    "slow",
    "noise",
    "lost_bytes",
    "reset",
    "refused",
    "dead",
    "power_cycle",
    "brown_out",
    "wrong_serial",
    "error_overflow",
    "nan",
    "overflow",
    "compliance",
    "glitch",
    "stuck_relay",
    "output_open",
    "output_closed",
    "stuck_pot",
    "pots_reset",
    "clock_jump",
]
"""Every class of faults (docs/reliability.md says what each is and what hilcl does about it)."""

KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


def _known(value: object) -> object:
    if isinstance(value, str) and value not in KINDS:
        raise ValueError(f"{value!r} is no fault: choose among {', '.join(KINDS)}")
    return value


Kind = Annotated[FaultKind, BeforeValidator(_known)]


class PlannedFault(Section):
    """One fault at one place.

    It happens to ``instrument`` with its ``message``-th message from the start, or, where ``step`` is given, from the
    moment the pots were programmed for the ``step``-th time (0: the start values); both count from 0. ``seconds`` is
    how long what lasts lasts, ``times`` how many replies or readings it hits, ``volts`` how far a glitch is off.
    """

    kind: Kind
    instrument: str
    message: Whole = Field(default=0, ge=0)
    step: Whole | None = Field(default=None, ge=0)
    seconds: Seconds = Field(default=0.3, ge=0)
    times: Whole = Field(default=1, ge=1)
    volts: Volts = 0.3


class FaultsSection(Section):
    """Faults of the emulated bench: ``planned`` ones, and ``rate`` random ones a step out of ``kinds``, by ``seed``."""

    seed: Whole = Field(default=0, ge=0)
    rate: Number = Field(default=0.0, ge=0, le=1)
    kinds: list[Kind] = Field(default_factory=list)
    seconds: Seconds = Field(default=0.3, ge=0)
    volts: Volts = 0.3
    planned: list[PlannedFault] = Field(default_factory=list)

    @model_validator(mode="after")
    def _kinds_with_a_rate(self) -> Self:
        if self.kinds and not self.rate:
            raise ValueError("kinds needs a rate, the random faults per step: rate = 0.002")
        return self
