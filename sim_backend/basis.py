"""The exact network: one factorisation per step answers every sample and both phases.

The potentials of a linear network are linear in what drives it. A basis holds the response to one volt at each input
but the first (which is the reference) and to one ampere into each output; every free, clamped or nudged state is a
combination of these p = I − 1 + O columns. Rows of the arrays here are basis functions: (p, N) and (p, M).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from hilcl.arrays import FloatArray
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.solvers import SolverName, make_solver

Accuracy = Literal["standard", "certified"]

KIRCHHOFF_BOUND = 1e-14
"""Certified: |Σ I| ≤ this times Σ |I| at every floating node, in every basis function."""

MAX_REFINEMENTS = 4


@dataclass(frozen=True)
class Basis:
    """Responses of the network to unit drives at one set of conductances.

    ``potentials`` (p, N): volts, the first I−1 rows per volt at inputs 1 … I−1 with input 0 at zero, the other O
    rows per ampere into each output with all inputs at zero. ``voltages`` (p, M): their edge voltages, which carry
    the correction of the refinement and so are more accurate than differences of ``potentials``.
    """

    network: Network
    conductances: FloatArray
    potentials: FloatArray
    voltages: FloatArray

    @property
    def n_driven(self) -> int:
        """Number of input rows, I − 1."""
        return len(self.network.inputs) - 1

    @cached_property
    def transfer(self) -> FloatArray:
        """Output volts per input volt, (I−1, O)."""
        return self.potentials[: self.n_driven, self.network.outputs]

    @cached_property
    def impedance(self) -> FloatArray:
        """Output volts per ampere into an output, X_O, (O, O) in ohms, made exactly symmetric."""
        raw = self.potentials[self.n_driven :, self.network.outputs]
        return (raw + raw.T) / 2

    @cached_property
    def input_currents(self) -> FloatArray:
        """Current into the board at each input for every basis function, (p, I) in amperes."""
        edges, signs, starts = self.network.edges_at_inputs
        flow = self.voltages[:, edges] * (self.conductances[edges] * signs)
        return np.asarray(np.add.reduceat(flow, starts, axis=1), dtype=np.float64)

    def coefficients(self, input_volts: FloatArray, clamp_currents: FloatArray | None = None) -> FloatArray:
        """Return combinations (S, p) for inputs (S, I) in volts and currents into the outputs (S, O) in amperes."""
        relative = input_volts[:, 1:] - input_volts[:, :1]
        if clamp_currents is None:
            clamp_currents = np.zeros((len(input_volts), len(self.network.outputs)))
        return np.hstack([relative, clamp_currents])

    def node_potentials(self, input_volts: FloatArray, clamp_currents: FloatArray | None = None) -> FloatArray:
        """Return every node's potential (S, N) in volts; the driven inputs are exactly their volts."""
        states = self.coefficients(input_volts, clamp_currents) @ self.potentials + input_volts[:, :1]
        states[:, self.network.inputs] = input_volts
        return states

    def edge_voltages(self, input_volts: FloatArray, clamp_currents: FloatArray | None = None) -> FloatArray:
        """Return every edge's voltage (S, M) in volts, to the accuracy of ``voltages``."""
        return self.coefficients(input_volts, clamp_currents) @ self.voltages

    def free_outputs(self, input_volts: FloatArray) -> FloatArray:
        """Return the outputs (S, O) in volts of the free phase."""
        outputs: FloatArray = (input_volts[:, 1:] - input_volts[:, :1]) @ self.transfer + input_volts[:, :1]
        return outputs

    def clamp_currents(self, displacement: FloatArray) -> FloatArray:
        """Return the currents (S, O) in amperes that move the outputs by (S, O) volts from the free phase (λ)."""
        _, currents, failed = lapack.dposv(self.impedance, displacement.T)
        if failed:
            raise SolverError("the outputs cannot be clamped apart: two of them are joined too tightly for their volts")
        return np.asarray(currents, dtype=np.float64).T


class BasisSolver:
    """Computes the basis of one network at any conductances."""

    def __init__(self, network: Network, solver: SolverName = "auto", accuracy: Accuracy = "standard") -> None:
        self.network = network
        self.accuracy = accuracy
        self._floating = network.floating
        self._solver = make_solver(network.n_nodes, network.edges, self._floating, solver)
        self._n_driven = len(network.inputs) - 1
        self._n_basis = self._n_driven + len(network.outputs)
        self._first, self._second = network.edges[:, 0].copy(), network.edges[:, 1].copy()
        self._right_hand_side_layout()

    @property
    def solver_name(self) -> str:
        """Which solver was chosen."""
        return self._solver.name

    def solve(self, conductances: FloatArray) -> Basis:
        """Return the basis at conductances (M,) in siemens.

        With accuracy "certified" the potentials are refined with residuals formed edge by edge (THEORY section 5) until
        Kirchhoff's current law holds to 1e-14 at every floating node.

        Raises SolverError where the circuit is singular in floating point or the accuracy is not reached.
        """
        potentials = np.zeros((self._n_basis, self.network.n_nodes))
        potentials[np.arange(self._n_driven), self.network.inputs[1:]] = 1.0
        if len(self._floating):
            self._solver.factor(conductances)
            solution = self._solver.solve(self._right_hand_sides(conductances))
            potentials[:, self._floating] = solution.T
        voltages = potentials.take(self._first, axis=1) - potentials.take(self._second, axis=1)
        if self.accuracy == "certified" and len(self._floating):
            potentials, voltages = self._refined(conductances, potentials, voltages)
        return Basis(self.network, conductances, potentials, voltages)

    def _right_hand_side_layout(self) -> None:
        """Prepare where conductances of edges at driven inputs and unit output currents go in the right-hand sides."""
        size = len(self._floating)
        row = np.full(self.network.n_nodes, -1)
        row[self._floating] = np.arange(size)
        column = np.full(self.network.n_nodes, -1)
        column[self.network.inputs[1:]] = np.arange(self._n_driven)
        ends = np.concatenate([self.network.edges, self.network.edges[:, ::-1]])
        into = (column[ends[:, 0]] >= 0) & (row[ends[:, 1]] >= 0)
        self._driven_edges = np.tile(np.arange(self.network.n_edges), 2)[into]
        self._driven_cells = column[ends[into, 0]] * size + row[ends[into, 1]]
        self._unit_cells = np.arange(self._n_driven, self._n_basis) * size + row[self.network.outputs]

    def _right_hand_sides(self, conductances: FloatArray) -> FloatArray:
        size = len(self._floating)
        weights = conductances[self._driven_edges]
        cells = np.bincount(self._driven_cells, weights, size * self._n_basis).astype(np.float64, copy=False)
        cells[self._unit_cells] = 1.0
        columns: FloatArray = cells.reshape(self._n_basis, size).T
        return columns

    @cached_property
    def _floating_incidence(self) -> "tuple[sparse.csr_array[np.float64], sparse.csr_array[np.float64]]":
        rows = self.network.incidence[self._floating, :]
        return rows, abs(rows)

    def _refined(
        self, conductances: FloatArray, potentials: FloatArray, voltages: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        incidence, magnitude = self._floating_incidence
        injected = np.zeros((len(self._floating), self._n_basis))
        row = np.searchsorted(self._floating, self.network.outputs)
        injected[row, np.arange(self._n_driven, self._n_basis)] = 1.0
        correction = np.zeros_like(potentials)
        refined = voltages
        for _ in range(MAX_REFINEMENTS):
            current = (refined * conductances).T
            residual = injected - incidence @ current
            correction[:, self._floating] += self._solver.solve(np.asfortranarray(residual)).T
            # The correction stays apart: adding it to the potentials first would round it away.
            refined = voltages + (correction.take(self._first, axis=1) - correction.take(self._second, axis=1))
            if self._satisfies_kirchhoff(incidence, magnitude, (refined * conductances).T, injected):
                return potentials + correction, refined
        raise SolverError(
            "the refinement did not reach Kirchhoff's law to 1e-14 on this board: narrow the conductance range, "
            'or use accuracy = "standard"'
        )

    @staticmethod
    def _satisfies_kirchhoff(
        incidence: "sparse.csr_array[np.float64]",
        magnitude: "sparse.csr_array[np.float64]",
        current: FloatArray,
        injected: FloatArray,
    ) -> bool:
        imbalance = np.abs(incidence @ current - injected)
        traffic = magnitude @ np.abs(current) + injected
        # A branch that leads nowhere carries no current at all: there rounding is measured against the whole board.
        floor = np.finfo(np.float64).eps ** 2 * traffic.max(axis=0)
        return bool(np.all(imbalance <= KIRCHHOFF_BOUND * traffic + floor))
