"""Learning rules: how a free and a clamped phase become an update, and how large the step is."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.board import Contrast
from hilcl.errors import RuleError

Draw = Literal["shuffled", "independent"]


@dataclass(frozen=True)
class RobbinsMonro:
    """A falling step size γ_t = γ_0 / (1 + t/τ)^p, t counting updates.

    ``initial`` γ_0 in S/V², or "auto" for the safe side of 2/L; ``time_constant`` τ in updates; 0.5 < ``power`` ≤ 1
    gives Σγ_t = ∞ and Σγ_t² < ∞ (Robbins and Monro, Annals of Mathematical Statistics 22, 1951).
    """

    initial: float | Literal["auto"]
    time_constant: float
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_step(self.initial)
        if not (math.isfinite(self.time_constant) and self.time_constant > 0):
            raise RuleError(f"the time constant of a falling step size must be positive, got {self.time_constant}")
        if not 0 < self.power <= 1:
            raise RuleError(f"the power of a falling step size must lie in 0 … 1, got {self.power}")

    def at(self, update: int) -> float:
        """Return γ_t / γ_0."""
        return float((1.0 + update / self.time_constant) ** -self.power)

    @property
    def is_square_summable(self) -> bool:
        """True where Σγ_t² is finite."""
        return self.power > 0.5


class Rule(Protocol):
    """What the loop needs to know of a rule."""

    @property
    def step_size(self) -> float | Literal["auto"] | RobbinsMonro:
        """γ in S/V², "auto", or a schedule."""
        ...

    @property
    def nudge(self) -> float:
        """η of the second phase: 1 clamps the outputs at their targets."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Samples per update; None takes all of them."""
        ...

    @property
    def draw(self) -> Draw:
        """How mini-batches are drawn."""
        ...

    def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
        """Return h (M,) in V²: the update is g ← Π(g − γh)."""
        ...


@dataclass(frozen=True)
class ContrastiveLearning:
    """Contrastive Learning (arXiv:2503.00349), with nudge < 1 the coupled-learning rule.

    ``step_size`` γ in S/V², "auto" for the safe side of 2/L, or a ``RobbinsMonro`` schedule. ``nudge`` η in (0, 1].
    ``batch_size`` samples make one update, None takes them all. ``draw``: "shuffled" goes through all samples once an
    epoch, "independent" draws each sample anew, as the convergence theory of the stochastic form assumes.

    Raises RuleError for parameters outside these ranges.
    """

    step_size: float | Literal["auto"] | RobbinsMonro
    nudge: float = 1.0
    batch_size: int | None = None
    draw: Draw = "shuffled"

    def __post_init__(self) -> None:
        if not isinstance(self.step_size, RobbinsMonro):
            _check_step(self.step_size)
        if not 0 < self.nudge <= 1:
            raise RuleError(f"the nudge must lie in 0 < η ≤ 1, got {self.nudge}: 1 is the full clamp")
        size = self.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
            raise RuleError(f"the batch size must be a whole number of at least 1, got {size}")
        if self.draw not in ("shuffled", "independent"):
            raise RuleError(f"samples are drawn 'shuffled' or 'independent', not {self.draw!r}")

    def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
        """Return h = (1/S) Σ_s (v_N² − v_F²)/η, (M,) in V² (docs/theory.md)."""
        return contrast.gradient / (n_samples * self.nudge)


def _check_step(step: object) -> None:
    if step == "auto":
        return
    if isinstance(step, bool) or not isinstance(step, int | float | np.integer | np.floating):
        raise RuleError(f"the step size must be a number of S/V², 'auto', or a schedule, got {step!r}")
    if not (math.isfinite(step) and step > 0):
        raise RuleError(f"the step size must be positive, got {step} S/V²: 'auto' takes a safe one")
