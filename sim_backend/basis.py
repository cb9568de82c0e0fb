"""The exact network: one factorisation per step answers every sample and both phases.

The potentials of a linear network are linear in what drives it. A basis holds its response to one volt at each input
and to one ampere into each output; every free, clamped or nudged state is a combination of these. Rows of the arrays
here are basis functions: (p, N) for nodes and (p, M) for edges.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.solvers import LaplacianSolver, SolverName, make_solver

Accuracy = Literal["standard", "certified"]

KIRCHHOFF_BOUND = 1e-14
"""Certified: |Σ I| ≤ this times Σ |I| at every floating node, in every basis function."""

DEAD = 1e-12 * np.finfo(np.float64).eps
"""A branch that leads nowhere carries no current: this part of node conductance times potential counts as none."""

MAX_REFINEMENTS = 6


@dataclass(frozen=True)
class ClampBasis:
    """How the network moves when some outputs are displaced while inputs stay: rows (C, N) and (C, M), and their use.

    In standard accuracy the rows are per ampere; displacements are turned into amperes by ``impedance`` (C, C). In
    certified accuracy they are per volt, each refined with the outputs held exactly, and ``admittance`` (C, C) gives
    the amperes: inverting the impedance of outputs behind a weak link would lose the digits that were just gained.
    """

    potentials: FloatArray
    voltages: FloatArray
    impedance: FloatArray | None = None
    admittance: FloatArray | None = None

    def coefficients(self, displacement: FloatArray) -> FloatArray:
        """Return the combinations (S, C) of the rows for displacements (S, C) in volts."""
        if self.impedance is None:
            return displacement
        if not displacement.size:
            return np.zeros(displacement.shape)
        _, amperes, failed = lapack.dposv(self.impedance, displacement.T)
        if failed:
            raise SolverError("outputs joined too tightly cannot be clamped apart: lower the conductances between them")
        return np.asarray(amperes, dtype=np.float64).T

    def currents(self, displacement: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Return the amperes (S, C) into the displaced outputs."""
        return coefficients if self.admittance is None else displacement @ self.admittance


@dataclass(frozen=True)
class Basis:
    """Responses of the network to unit drives at one set of conductances.

    ``inputs`` and ``input_voltages``: rows per volt at an input, the others at zero; in standard accuracy the first
    input has no row, being the reference. ``outputs`` and ``output_voltages``: rows per ampere into each output, inputs
    at zero. Edge voltages carry the refinement's correction, so they are more accurate than differences of potentials.
    """

    network: Network
    conductances: FloatArray
    inputs: FloatArray
    input_voltages: FloatArray
    outputs: FloatArray
    output_voltages: FloatArray
    solver: "BasisSolver" = field(repr=False)
    _clamps: dict[bytes, ClampBasis] = field(default_factory=dict, repr=False)
    _held: dict[bytes, tuple[FloatArray, FloatArray]] = field(default_factory=dict, repr=False)

    @property
    def is_certified(self) -> bool:
        """True where the rows are refined, and every input has one."""
        return self.solver.accuracy == "certified"

    @property
    def transfer(self) -> FloatArray:
        """Output volts per volt at an input row, (rows, O)."""
        return self.inputs[:, self.network.outputs]

    @property
    def impedance(self) -> FloatArray:
        """Output volts per ampere into an output, X_O, (O, O) in ohms, made exactly symmetric."""
        raw = self.outputs.take(self.network.outputs, axis=1)
        return (raw + raw.T) / 2

    def input_currents(self, voltages: FloatArray) -> FloatArray:
        """Return the amperes into the board at each input, (rows, I), of rows of edge voltages (rows, M)."""
        edges, signs, starts = self.network.edges_at_inputs
        flow = voltages.take(edges, axis=1)
        flow *= self.conductances.take(edges) * signs
        return np.asarray(np.add.reduceat(flow, starts, axis=1), dtype=np.float64)

    def input_coefficients(self, volts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the offset (S, 1) in volts and the combinations (S, rows) of the input rows for inputs (S, I)."""
        if not self.is_certified:
            return volts[:, :1], volts[:, 1:] - volts[:, :1]
        # Offset by the lowest input every term is positive: small potentials keep their digits.
        lowest = volts.min(axis=1, keepdims=True)
        return lowest, volts - lowest

    def free_outputs(self, volts: FloatArray) -> FloatArray:
        """Return the outputs (S, O) in volts of the free phase."""
        offset, combinations = self.input_coefficients(volts)
        outputs: FloatArray = combinations @ self.transfer + offset
        return outputs

    def clamp(self, held: IntArray) -> ClampBasis:
        """Return the clamp basis of the outputs in ``held``, numbers 0 … O−1, ascending."""
        key = held.tobytes()
        if key not in self._clamps:
            impedance = self.impedance if len(held) == len(self.outputs) else self.impedance[np.ix_(held, held)]
            raw = ClampBasis(self.outputs[held], self.output_voltages[held], impedance=impedance)
            self._clamps[key] = self.solver.refined_clamp(self, held, raw)
        return self._clamps[key]

    def clamp_all(self) -> ClampBasis:
        """Return the clamp basis of all outputs."""
        if self.is_certified:
            return self.clamp(np.arange(len(self.outputs)))
        return ClampBasis(self.outputs, self.output_voltages, impedance=self.impedance)

    def held_inputs(self, held: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return rows (I, N) and (I, M) per volt at each input with the outputs in ``held`` at zero; certified only."""
        key = held.tobytes()
        if key not in self._held:
            self._held[key] = self.solver.refined_inputs(self, held, self.clamp(held))
        return self._held[key]

    def node_potentials(self, volts: FloatArray, amperes: FloatArray | None = None) -> FloatArray:
        """Return potentials (S, N) for inputs (S, I) in volts and amperes (S, O) into the outputs, if any."""
        offset, combinations = self.input_coefficients(volts)
        states: FloatArray = combinations @ self.inputs + offset
        if amperes is not None:
            states += amperes @ self.outputs
        states[:, self.network.inputs] = volts
        return states


class BasisSolver:
    """Computes the basis of one network at any conductances."""

    def __init__(self, network: Network, solver: SolverName = "auto", accuracy: Accuracy = "standard") -> None:
        self.network = network
        self.accuracy = accuracy
        self._floating = network.floating
        self._solver: LaplacianSolver = make_solver(network.n_nodes, network.edges, self._floating, solver)
        self._rows = network.inputs if accuracy == "certified" else network.inputs[1:]
        self._n_rows = len(self._rows)
        self._row_numbers = np.arange(self._n_rows)
        self._n_basis = self._n_rows + len(network.outputs)
        self._first, self._second = network.edges[:, 0].copy(), network.edges[:, 1].copy()
        self._incidence = network.incidence[self._floating, :]
        self._magnitude = abs(self._incidence)
        self._right_hand_side_layout()

    @property
    def solver_name(self) -> str:
        """Which solver was chosen."""
        return self._solver.name

    def solve(self, conductances: FloatArray) -> Basis:
        """Return the basis at conductances (M,) in siemens.

        With accuracy "certified" every row is refined with residuals formed edge by edge until Kirchhoff's current law
        holds to 1e-14 at every floating node (docs/accuracy-and-speed.md).

        Raises SolverError where the circuit is singular in floating point or the accuracy is not reached.
        """
        potentials = np.zeros((self._n_basis, self.network.n_nodes))
        potentials[self._row_numbers, self._rows] = 1.0
        if len(self._floating):
            self._solver.factor(conductances)
            potentials[:, self._floating] = self._solver.solve(self._right_hand_sides(conductances)).T
        voltages = self._edge_voltages(potentials)
        if self.accuracy == "certified" and len(self._floating):
            injected = np.zeros((self._n_basis, self.network.n_nodes))
            injected[np.arange(self._n_rows, self._n_basis), self.network.outputs] = 1.0
            potentials, voltages = self._refined(conductances, potentials, voltages, injected[:, self._floating])
        rows = self._n_rows
        return Basis(
            self.network, conductances, potentials[:rows], voltages[:rows], potentials[rows:], voltages[rows:], self
        )

    def refined_clamp(self, basis: Basis, held: IntArray, raw: ClampBasis) -> ClampBasis:
        """Return the clamp basis in the accuracy of this solver; see ``ClampBasis``."""
        if self.accuracy == "standard" or not len(held) or raw.impedance is None:
            return raw
        nodes = self.network.outputs[held]
        per_volt = np.linalg.solve(raw.impedance, np.eye(len(held)))
        potentials = per_volt @ raw.potentials
        potentials[:, nodes] = np.eye(len(held))
        voltages = self._edge_voltages(potentials)
        moving = np.isin(self._floating, nodes, invert=True)
        nothing = np.zeros((len(held), len(self._floating)))
        potentials, voltages = self._refined(basis.conductances, potentials, voltages, nothing, raw, nodes, moving)
        flow = voltages * basis.conductances
        admittance = np.asarray((self.network.incidence[nodes, :] @ flow.T).T)
        return ClampBasis(potentials, voltages, admittance=(admittance + admittance.T) / 2)

    def refined_inputs(self, basis: Basis, held: IntArray, clamp: ClampBasis) -> tuple[FloatArray, FloatArray]:
        """Return the input rows of a certified basis with the outputs in ``held`` at zero instead of floating."""
        nodes = self.network.outputs[held]
        shift = basis.inputs[:, nodes]
        potentials = basis.inputs - shift @ clamp.potentials
        potentials[:, nodes] = 0.0
        moving = np.isin(self._floating, nodes, invert=True)
        nothing = np.zeros((len(potentials), len(self._floating)))
        voltages = self._edge_voltages(potentials)
        return self._refined(basis.conductances, potentials, voltages, nothing, clamp, nodes, moving)

    def _edge_voltages(self, potentials: FloatArray) -> FloatArray:
        voltages = potentials.take(self._first, axis=1)
        voltages -= potentials.take(self._second, axis=1)
        return voltages

    def _right_hand_side_layout(self) -> None:
        """Prepare where conductances of edges at driven inputs and unit output currents go in the right-hand sides."""
        size = len(self._floating)
        row = np.full(self.network.n_nodes, -1)
        row[self._floating] = np.arange(size)
        column = np.full(self.network.n_nodes, -1)
        column[self._rows] = np.arange(self._n_rows)
        ends = np.concatenate([self.network.edges, self.network.edges[:, ::-1]])
        into = (column[ends[:, 0]] >= 0) & (row[ends[:, 1]] >= 0)
        self._driven_edges = np.tile(np.arange(self.network.n_edges), 2)[into]
        self._driven_cells = column[ends[into, 0]] * size + row[ends[into, 1]]
        self._unit_cells = np.arange(self._n_rows, self._n_basis) * size + row[self.network.outputs]

    def _right_hand_sides(self, conductances: FloatArray) -> FloatArray:
        size = len(self._floating)
        weights = conductances.take(self._driven_edges)
        cells = np.bincount(self._driven_cells, weights, size * self._n_basis).astype(np.float64, copy=False)
        cells[self._unit_cells] = 1.0
        columns: FloatArray = cells.reshape(self._n_basis, size).T
        return columns

    def _refined(
        self,
        conductances: FloatArray,
        potentials: FloatArray,
        voltages: FloatArray,
        injected: FloatArray,
        clamp: ClampBasis | None = None,
        nodes: IntArray | None = None,
        moving: BoolArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return potentials and edge voltages refined until Kirchhoff's law holds at every node that may move.

        ``injected`` (rows, F) are amperes into the floating nodes. With ``clamp``, ``nodes`` are held where they are.
        """
        correction = np.zeros_like(potentials)
        refined = voltages
        degree = self._magnitude @ conductances
        floor = DEAD * np.abs(potentials).max(axis=1, keepdims=True) * degree
        for _ in range(MAX_REFINEMENTS):
            residual = injected - self._outflow(self._incidence, refined * conductances)
            if moving is not None:
                residual[:, ~moving] = 0.0
            change = np.zeros_like(potentials)
            change[:, self._floating] = self._solver.solve(np.asfortranarray(residual.T)).T
            if clamp is not None:
                change -= clamp.coefficients(change[:, nodes]) @ clamp.potentials
                change[:, nodes] = 0.0
            # Edge voltages are corrected apart from the potentials, which would round the correction away.
            correction += change
            refined = refined + self._edge_voltages(change)
            current = refined * conductances
            imbalance = np.abs(self._outflow(self._incidence, current) - injected)
            traffic = self._outflow(self._magnitude, np.abs(current)) + injected
            fine = imbalance <= KIRCHHOFF_BOUND * traffic + floor
            if fine.all() if moving is None else fine[:, moving].all():
                return potentials + correction, refined
        raise SolverError(
            "the refinement did not reach Kirchhoff's law to 1e-14 on this board: narrow the conductance range, "
            'or use accuracy = "standard"'
        )

    @staticmethod
    def _outflow(incidence: "sparse.csr_array[np.float64]", current: FloatArray) -> FloatArray:
        """Return the sums (rows, F) over each node's edges of edge quantities (rows, M)."""
        return np.asarray((incidence @ current.T).T, dtype=np.float64)
