"""Unit responses of the network, and the seam between their mathematics and how they are stored and refined."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hilcl.arrays import FloatArray, IntArray

KIRCHHOFF_BOUND = 1e-14
"""Certified: |Σ I| ≤ this times Σ |I| at every floating node, in every basis function."""

DEAD = 1e-12 * 2.0**-52
"""A branch that leads nowhere carries no current: this part of node conductance times potential counts as none."""

MAX_REFINEMENTS = 6

FINE_SHIFT = 1e-9
"""Volts at held nodes that a correction may take back; beyond, its rounding counts and it is itself refined."""

NOT_CERTIFIED = (
    "the refinement did not reach Kirchhoff's law to 1e-14 on this board: narrow the conductance range, "
    'or use accuracy = "standard"'
)


class States(Protocol):
    """Responses to p unit drives, in volts."""

    @property
    def potentials(self) -> FloatArray:
        """Node potentials (p, N)."""
        ...

    @property
    def voltages(self) -> FloatArray:
        """Edge voltages (p, M), more accurate than differences of the potentials where refined."""
        ...

    def at_nodes(self, nodes: IntArray) -> FloatArray:
        """Return the potentials (p, len(nodes)) of some nodes."""
        ...

    def at_edges(self, edges: IntArray) -> FloatArray:
        """Return the voltages (p, len(edges)) of some edges."""
        ...


@dataclass(frozen=True)
class RowStates:
    """States as rows, one per drive."""

    potentials: FloatArray
    voltages: FloatArray

    def at_nodes(self, nodes: IntArray) -> FloatArray:
        """Return the potentials of some nodes."""
        return self.potentials[:, nodes]

    def at_edges(self, edges: IntArray) -> FloatArray:
        """Return the voltages of some edges."""
        return self.voltages.take(edges, axis=1)


class Engine(Protocol):
    """Solves for unit responses, and refines them with residuals formed edge by edge (docs/accuracy-and-speed.md).

    ``per_volt`` (C, O) are amperes into the outputs that lift each of C outputs, ``nodes``, by a volt, the others of
    these held and the other outputs floating. Methods raise SolverError where the circuit is singular or Kirchhoff's
    law is not reached.
    """

    @property
    def solver_name(self) -> str:
        """Which solver computes."""
        ...

    def solve(self, conductances: FloatArray) -> tuple[States, States]:
        """Factor, and return the responses per volt at the driven inputs and per ampere into the outputs."""
        ...

    def refine_outputs(self, conductances: FloatArray, outputs: States) -> States:
        """Return refined responses per ampere into the outputs."""
        ...

    def refine_clamp(
        self, conductances: FloatArray, inputs: States | None, outputs: States, per_volt: FloatArray, nodes: IntArray
    ) -> tuple[States | None, States]:
        """Return refined inputs, where given, and refined responses per volt at ``nodes``, inputs at zero."""
        ...

    def refine_held(self, conductances: FloatArray, inputs: States, clamp: States, nodes: IntArray) -> States:
        """Return refined responses per volt at the inputs with ``nodes`` at zero."""
        ...

    def gradient(
        self, inputs: States, clamp: States, mixing: FloatArray, clamping: FloatArray, per: FloatArray
    ) -> FloatArray:
        """Return Σ_c (mixing · v_inputs + clamping · w)_c w_c at every edge (M,), where w = per · v_clamp."""
        ...


def gradient_by_rows(
    inputs: States, clamp: States, mixing: FloatArray, clamping: FloatArray, per: FloatArray
) -> FloatArray:
    """Return ``Engine.gradient`` from rows of edge voltages."""
    per_volt = per.dot(clamp.voltages)
    quadratic = mixing.dot(inputs.voltages)
    quadratic += clamping.dot(per_volt)
    quadratic *= per_volt
    gradient: FloatArray = np.add.reduce(quadratic, axis=0)
    return gradient
