"""What a board may offer the loop besides measuring: an epoch's phases, update and projection in one computation."""

from typing import NamedTuple, Protocol, runtime_checkable

from hilcl.arrays import FloatArray, IntArray
from hilcl.device_range import DeviceRange
from hilcl.task import Task


class WholeStep(NamedTuple):
    """What one computation found; names and units as in ``hilcl.training.Step``.

    ``bound`` in watts is the lower bound on Q that this gradient proves, 0 with a nudge below 1. ``state`` (M,) is the
    new state within the limits, read-only: what is to be programmed, by its projection where devices have codes.
    """

    loss: float
    contrast: float
    power: float
    bound: float
    residual: float
    outputs: FloatArray
    state: FloatArray
    pinned: IntArray


class Stepper(Protocol):
    """Epochs of one task on one board."""

    def step(self, state: FloatArray, step_size: float) -> WholeStep | None:
        """Measure the board as it is and update the unrounded state (M,) in siemens by γ in S/V².

        None where the update is not a number: the loop then goes its ordinary way, which says where.
        """
        ...


@runtime_checkable
class StepsWhole(Protocol):
    """A board that may have a stepper."""

    def stepper(self, task: Task, nudge: float, limits: DeviceRange) -> Stepper | None:
        """Return a stepper for plain Contrastive Learning from all samples of a task, or None where there is none."""
        ...
