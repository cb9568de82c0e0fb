"""The [calibration] section of an experiment file: which calibration is used, and how one is made."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from hilcl.file_values import Number, Section, Switch, Whole
from hilcl.units import Amperes, Ohms, Seconds, Share, Volts


def _terms(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 8):
        return value
    raise ValueError('is "auto" or a number of terms from 0 to 8')


class SpecSection(Section):
    """What data sheets say of the instruments, as standard uncertainties (a limit ±a is a/√3)."""

    source_gain: Share = Field(default=1e-4, ge=0)
    source_offset: Volts = Field(default=2e-3, ge=0)
    source_series: Ohms = Field(default=10.0, ge=0)
    ammeter_gain: Share = Field(default=2e-4, ge=0)
    ammeter_offset: Amperes = Field(default=1e-6, ge=0)
    meter_gain: Share = Field(default=0.05, ge=0)
    meter_offset: Volts = Field(default=0.1, ge=0)
    meter_resistance: Ohms | None = Field(default=None, gt=0)


class WatchSection(Section):
    """How a board is watched while it trains."""

    enabled: Switch = True
    false_alarms: Number = Field(default=1e-3, gt=0, lt=1)
    smallest_change: Share = Field(default=5e-3, gt=0)
    update: Switch = False


class CalibrationSection(Section):
    """``file`` is used where it is given; the other keys say how `hilcl calibrate` measures."""

    file: str | None = None
    accept_expired: Switch = False
    valid_days: Number = Field(default=90.0, gt=0)
    patterns: Whole = Field(default=60, ge=1)
    drives: Whole = Field(default=4, ge=1)
    verification: Whole = Field(default=4, ge=0)
    budget: Seconds | None = Field(default=None, gt=0)
    target: Share | None = Field(default=None, gt=0)
    inl: Annotated[int | Literal["auto"], BeforeValidator(_terms)] = "auto"
    seed: Whole = Field(default=0, ge=0)
    instruments: SpecSection = Field(default_factory=SpecSection)
    watch: WatchSection = Field(default_factory=WatchSection)
