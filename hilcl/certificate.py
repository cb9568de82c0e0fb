"""What the convergence theory promises for a run, and what was measured of it.

Source: Huijzer, Chaffey, Besselink and van Waarde, arXiv:2503.00349; the constants are derived in docs/theory.md.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.board import Board
from hilcl.device_range import UNBOUNDED_LOW, DeviceRange
from hilcl.errors import RuleError
from hilcl.learning import ContrastiveLearning, RobbinsMonro, Rule
from hilcl.network import Network
from hilcl.task import Task

if TYPE_CHECKING:
    from hilcl.training import Step, StepFigures

Coverage = Literal["convex", "stationary", "none"]

SAFE_SHARE = 0.9
"""Part of 2/L that "auto" takes."""


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed for this run, and why.

    ``coverage``: "convex" (converges to a global minimum of the contrast over the box), "stationary" (every step lowers
    the contrast, limit points are stationary), or "none". ``why`` says it in words. ``convex_landscape``: the contrast
    is a convex function of the conductances and is measured exactly, so that its lower bound is valid. ``lipschitz`` L
    in V²/S, ``critical_step`` 2/L and ``step_size`` γ (the largest of the run) in S/V².

    Of the last step, None before it: ``contrast`` Q in watts, ``residual`` ‖g − Π(g − γh)‖/γ in V², ``lower_bound``:
    no conductances in the box have a smaller Q; ``gap``: Q minus that.
    """

    coverage: Coverage
    why: str
    convex_landscape: bool
    lipschitz: float
    critical_step: float
    step_size: float
    contrast: float | None = None
    residual: float | None = None
    lower_bound: float | None = None

    @classmethod
    def of(cls, board: Board, task: Task, rule: Rule, step: "Step | StepFigures | None" = None) -> Self:
        """Return the certificate of training ``board`` on ``task`` with ``rule``, completed by a step where given."""
        return cls.from_parts(board.network, board.device_range, task, rule, exact=board.exact, step=step)

    @classmethod
    def from_parts(
        cls,
        network: Network,
        device_range: DeviceRange,
        task: Task,
        rule: Rule,
        *,
        exact: bool = True,
        step: "Step | StepFigures | None" = None,
    ) -> Self:
        """Return the certificate from the parts that decide it; ``exact`` says that readings carry no error."""
        lipschitz = lipschitz_constant(network, device_range, task, rule.batch_size)
        critical = 2.0 / lipschitz if lipschitz > 0 else np.inf
        gamma = safe_step_size(rule, device_range, lipschitz)
        coverage, why = _coverage(network, device_range, rule, gamma, critical, exact=exact)
        # A bound needs the whole gradient, measured exactly: see contrast_lower_bound.
        convex = not len(network.hidden) and rule.nudge == 1.0 and exact and rule.batch_size is None
        certificate = cls(coverage, why, convex, lipschitz, critical, gamma)
        return certificate if step is None else certificate.after(step)

    def after(self, step: "Step | StepFigures") -> Self:
        """Return the certificate completed with what a step measured."""
        bound = step.lower_bound if self.convex_landscape else None
        return replace(self, contrast=step.contrast, residual=step.residual, lower_bound=bound)

    @property
    def gap(self) -> float | None:
        """How far, at most, Q is above its global minimum over the box, in watts; None where nothing can be said."""
        if self.contrast is None or self.lower_bound is None:
            return None
        return max(0.0, self.contrast - self.lower_bound)

    @property
    def realisable(self) -> bool | None:
        """False where it is proven that no conductances in the box fit every sample; None where it is open."""
        return False if self.lower_bound is not None and self.lower_bound > 0 else None

    def sentences(self) -> list[str]:
        """Return the certificate in plain words, one statement each."""
        said = [f"Guarantee: {self.coverage}. {self.why}", self._about_step()]
        if self.contrast is not None and self.residual is not None:
            said.append(f"Contrast Q = {self.contrast:.4g} W; projected-gradient residual {self.residual:.3g} V².")
        if self.gap is not None:
            said.append(f"Q is at most {self.gap:.3g} W above the smallest that the conductance limits allow.")
        if self.realisable is False:
            said.append(
                f"The targets cannot all be met: no conductances within the limits have Q below "
                f"{self.lower_bound:.4g} W, so the rule also drives conductances towards their lower limit."
            )
        return said

    def _about_step(self) -> str:
        share = self.step_size / self.critical_step
        numbers = f"Step size γ = {self.step_size:.3g} S/V², {share:.3g} times 2/L = {self.critical_step:.3g} S/V²"
        if share < 1 and self.coverage == "none":
            return f"{numbers}, which for an exact and continuous board with a full clamp would be the safe side."
        if share < 1:
            return f"{numbers}: on the safe side."
        return f"{numbers}: beyond the safe side, where a constant step may still converge or may cycle."


def lipschitz_constant(network: Network, device_range: DeviceRange, task: Task, batch_size: int | None = None) -> float:
    """Return L = (2/g_min)·mean_s U_s² in V²/S, a Lipschitz constant of h on the box (docs/theory.md).

    U_s is the span of the driven volts of sample s: its inputs, and its targets too where nodes are hidden. With
    mini-batches any batch may hold the widest samples, so the largest U_s² takes the place of the mean.
    """
    driven = task.inputs if not len(network.hidden) else np.hstack([task.inputs, task.targets])
    squares = (driven.max(axis=1) - driven.min(axis=1)) ** 2
    span = squares.mean() if batch_size is None else squares.max()
    return float(2.0 / device_range.g_min.min() * span)


def resolved_step_size(rule: Rule, lipschitz: float) -> float:
    """Return γ (of a schedule: γ_0) in S/V², with "auto" replaced by 0.9 times 2/L."""
    wanted = rule.step_size.initial if isinstance(rule.step_size, RobbinsMonro) else rule.step_size
    if wanted != "auto":
        return float(wanted)
    # Samples that drive no voltage cannot move anything: any step is as good.
    return SAFE_SHARE * 2.0 / lipschitz if lipschitz > 0 else 1.0


def safe_step_size(rule: Rule, device_range: DeviceRange, lipschitz: float) -> float:
    """Return γ as ``resolved_step_size``; RuleError where "auto" has no lower conductance limit to go by.

    2/L is proportional to g_min: without a real limit the step would be too small to move anything.
    """
    initial = rule.step_size.initial if isinstance(rule.step_size, RobbinsMonro) else rule.step_size
    if initial == "auto" and float(device_range.g_min.min()) <= UNBOUNDED_LOW and lipschitz > 0:
        raise RuleError(
            "an automatic step size needs a lower conductance limit: give the board a DeviceRange, or γ in S/V²"
        )
    return resolved_step_size(rule, lipschitz)


def rounding_per_siemens(task: Task) -> float:
    """Return (1e-12 U)², mean over the samples, in V²: times Σg, the watts of Q that are the rounding of volts."""
    driven = np.hstack([task.inputs, task.targets])
    squares = (driven.max(axis=1) - driven.min(axis=1)) ** 2
    return float(1e-24 * squares.mean())


def contrast_lower_bound(direction: FloatArray, device_range: DeviceRange, allowance: float = 0.0) -> float:
    """Return a lower bound in watts of Q over the box from h (M,) in V² anywhere, where Q is convex.

    Q(x) ≥ Q(g) + h·(x − g), and Q is homogeneous of degree 1 in g, so Q(g) = h·g and the bound is the smallest h·x over
    the box, edge by edge. It is lowered by the rounding of the sum and by ``allowance``, so that a positive bound is a
    proof. h must be the gradient itself, whatever direction a rule takes.
    """
    terms = direction * np.where(direction < 0, device_range.g_max, device_range.g_min)
    magnitude = float(np.add.reduce(np.abs(terms)))
    # An edge without an upper limit may take the bound down without end.
    if not math.isfinite(magnitude):
        return 0.0
    return max(0.0, float(np.add.reduce(terms)) - 1e-12 * magnitude - allowance)


def _coverage(
    network: Network, device_range: DeviceRange, rule: Rule, gamma: float, critical: float, *, exact: bool
) -> tuple[Coverage, str]:
    if getattr(type(rule), "direction", None) is not ContrastiveLearning.direction:
        return "none", "The rule goes its own way, and the theorem is about Contrastive Learning."
    schedule = rule.step_size if isinstance(rule.step_size, RobbinsMonro) else None
    if rule.nudge < 1:
        return "none", (
            f"The nudge is {rule.nudge:g}: the theorem is about the full clamp (nudge 1); with a smaller nudge the "
            "update is the coupled-learning rule, which has no certificate."
        )
    if not exact:
        return (
            "none",
            "Readings or conductances carry errors, so the measured update is not exactly the gradient.",
        )
    if device_range.is_discrete:
        return "none", (
            "Conductances are rounded to device codes; the theorem is about continuous conductances in a box."
        )
    if rule.batch_size is not None:
        if len(network.hidden) or schedule is None or not schedule.is_square_summable or rule.draw != "independent":
            return "none", (
                "Mini-batches are covered only without hidden nodes, with independent draws and a falling step size of "
                "power above 0.5."
            )
        return "convex", (
            "No hidden nodes, full clamp, independent draws and a Robbins–Monro step size: with probability one "
            f"{_what_converges(device_range)}."
        )
    if gamma >= critical:
        return (
            "none",
            f"The step size is {gamma / critical:.3g} times 2/L, the largest one the theorem covers.",
        )
    if len(network.hidden):
        hidden = len(network.hidden)
        return "stationary", (
            f"{hidden} {'node is' if hidden == 1 else 'nodes are'} hidden, so the contrast need not be convex: every "
            "step lowers it and limit points are stationary, but a global minimum is not promised."
        )
    return "convex", (
        "No hidden nodes, full clamp and a step size below 2/L: the contrast is convex, and "
        f"{_what_converges(device_range)}."
    )


def _what_converges(device_range: DeviceRange) -> str:
    if np.isfinite(device_range.g_max).all():
        return "the conductances converge to a global minimum of it over their limits"
    # Without an upper limit the smallest contrast may only be approached as a conductance grows for ever.
    return "it converges to its smallest value over the conductance limits"
