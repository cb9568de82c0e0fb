"""The settle key of the [bench] section: a time, or what it is computed from."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from hilcl.file_values import Section, Switch
from hilcl.units import Seconds, Share, to_si

LONGEST = 60.0
"""Seconds of a wait that are believed."""


def _farads(value: object) -> object:
    """Return the capacitance of every node, or of each."""
    each = [to_si(one, "farad") for one in (value if isinstance(value, list) else [value])]
    for farads in each:
        if not 0 < farads <= 1:
            raise ValueError(f"must be more than 0 F and at most 1 F, not {farads:g} F")
    return each if isinstance(value, list) else each[0]


class SettleSection(Section):
    """How long is waited after every change of the drives: ``seconds``, or what ``capacitance`` (farads) needs.

    ``capacitance`` of each node to ground, one for all or a list; ``accuracy`` is what may be left of the largest
    change of a node's potential; ``sources`` seconds come on top, for the sources themselves. ``measured``: the board
    is watched settling when it is opened.
    """

    seconds: Seconds | None = Field(default=None, ge=0, le=LONGEST)
    capacitance: Annotated[float | list[float] | None, BeforeValidator(_farads)] = None
    accuracy: Share = Field(default=1e-5, gt=0, lt=1)
    sources: Seconds = Field(default=0.0, ge=0, le=LONGEST)
    measured: Switch = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.seconds is not None) + (self.capacitance is not None) + self.measured != 1:
            raise ValueError('needs either a time, settle = "1 ms", a capacitance, or measured = true')
        return self


def settle_section(value: object) -> object:
    """Return the table that a plain time stands for, or the table as it is."""
    if isinstance(value, dict | SettleSection):
        return value
    seconds = to_si(value, "second")
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"must lie between 0 and {LONGEST:g} s, not {seconds:g} s")
    return {"seconds": value}
