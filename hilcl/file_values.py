"""What the sections of every file are made of: strict numbers, nodes, and the base all sections share."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hilcl.units import step_size

# pydantic would take true for 1 and "5" for 5.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]

LARGEST = 10_000_000
"""Nodes or edges of a board: more is a slip of the pen, and would take the computer's memory with it."""

Node = Annotated[int, Field(strict=True, ge=0, lt=LARGEST)]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]

StepSize = Annotated[float | Literal["auto"], BeforeValidator(step_size)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
