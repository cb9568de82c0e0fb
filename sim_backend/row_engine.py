"""Unit responses as rows of NumPy arrays: for boards of up to some ten thousand nodes, and without numba for all."""

from typing import Any

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.solvers import LaplacianSolver
from hilcl.sim_backend.states import (
    DEAD,
    FINE_SHIFT,
    KIRCHHOFF_BOUND,
    MAX_REFINEMENTS,
    NOT_CERTIFIED,
    RowStates,
    States,
    gradient_by_rows,
)

DENSE_INCIDENCE = 30_000
"""Entries of the incidence matrix up to which it is multiplied as a dense one."""


class RowEngine:
    """``hilcl.sim_backend.states.Engine`` on any solver of L_FF; ``driven`` are the inputs that have a row."""

    def __init__(self, network: Network, solver: LaplacianSolver, driven: IntArray) -> None:
        self._network, self._solver, self._driven = network, solver, driven
        self._floating = network.floating
        self._n_rows = len(driven)
        self._n_basis = len(driven) + len(network.outputs)
        self._first, self._second = network.edges[:, 0].copy(), network.edges[:, 1].copy()
        incidence = network.incidence[self._floating, :]
        small = incidence.shape[0] * incidence.shape[1] <= DENSE_INCIDENCE
        self._incidence: Any = incidence.toarray() if small else incidence
        self._magnitude: Any = abs(self._incidence)
        self._units = np.zeros((self._n_basis, network.n_nodes))
        self._units[np.arange(self._n_rows), driven] = 1.0
        self._factored: FloatArray | None = None
        self._right_hand_side_layout()

    @property
    def solver_name(self) -> str:
        """Which solver computes."""
        return self._solver.name

    def solve(self, conductances: FloatArray) -> tuple[States, States]:
        """Return the responses per volt and per ampere."""
        potentials = self._units.copy()
        if len(self._floating):
            self._factored = None
            self._solver.factor(conductances)
            self._factored = conductances
            potentials[:, self._floating] = self._solver.solve(self._right_hand_sides(conductances)).T
        voltages = self._edge_voltages(potentials)
        rows = self._n_rows
        return RowStates(potentials[:rows], voltages[:rows]), RowStates(potentials[rows:], voltages[rows:])

    def refine_outputs(self, conductances: FloatArray, outputs: States) -> States:
        """Return refined responses per ampere."""
        injected = np.zeros((len(outputs.potentials), self._network.n_nodes))
        injected[np.arange(len(injected)), self._network.outputs] = 1.0
        nothing = np.zeros(0, dtype=np.int64)
        of_inputs = outputs.potentials[:0]
        return self._refined(
            conductances, outputs.potentials, len(injected), of_inputs, nothing, injected[:, self._floating]
        )

    def refine_clamp(
        self, conductances: FloatArray, inputs: States | None, outputs: States, per_volt: FloatArray, nodes: IntArray
    ) -> tuple[States | None, States]:
        """Return refined inputs and clamp, all in one."""
        clamp = per_volt @ outputs.potentials
        clamp[:, nodes] = np.eye(len(nodes))
        if inputs is None:
            return None, self._refined(conductances, clamp, 0, clamp, nodes)
        free = len(inputs.potentials)
        states = self._refined(conductances, np.concatenate([inputs.potentials, clamp]), free, clamp, nodes)
        return (
            RowStates(states.potentials[:free], states.voltages[:free]),
            RowStates(states.potentials[free:], states.voltages[free:]),
        )

    def refine_held(self, conductances: FloatArray, inputs: States, clamp: States, nodes: IntArray) -> States:
        """Return refined responses with ``nodes`` at zero."""
        potentials = inputs.potentials - inputs.potentials[:, nodes] @ clamp.potentials
        potentials[:, nodes] = 0.0
        return self._refined(conductances, potentials, 0, clamp.potentials, nodes)

    def gradient(
        self, inputs: States, clamp: States, mixing: FloatArray, clamping: FloatArray, per: FloatArray
    ) -> FloatArray:
        """Return the quadratic form at every edge."""
        return gradient_by_rows(inputs, clamp, mixing, clamping, per)

    def _edge_voltages(self, potentials: FloatArray) -> FloatArray:
        voltages = potentials.take(self._first, axis=1)
        voltages -= potentials.take(self._second, axis=1)
        return voltages

    def _right_hand_side_layout(self) -> None:
        """Prepare where conductances of edges at driven inputs and unit output currents go in the right-hand sides."""
        size = len(self._floating)
        row = np.full(self._network.n_nodes, -1)
        row[self._floating] = np.arange(size)
        column = np.full(self._network.n_nodes, -1)
        column[self._driven] = np.arange(self._n_rows)
        ends = np.concatenate([self._network.edges, self._network.edges[:, ::-1]])
        into = (column[ends[:, 0]] >= 0) & (row[ends[:, 1]] >= 0)
        self._driven_edges = np.tile(np.arange(self._network.n_edges), 2)[into]
        self._driven_cells = column[ends[into, 0]] * size + row[ends[into, 1]]
        self._unit_cells = np.arange(self._n_rows, self._n_basis) * size + row[self._network.outputs]

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
        free: int,
        clamp: FloatArray,
        nodes: IntArray,
        injected: FloatArray | float = 0.0,
    ) -> RowStates:
        """Return potentials and edge voltages refined until Kirchhoff's law holds at every node that may move.

        ``injected`` (rows, F) are amperes into the floating nodes. In rows from ``free`` on, ``nodes`` stay put;
        ``clamp`` (C, N) moves each of them alone by a volt.
        """
        if self._factored is not conductances:
            self._solver.factor(conductances)
            self._factored = conductances
        voltages = self._edge_voltages(potentials)
        held = np.searchsorted(self._floating, nodes)
        degree = self._magnitude @ conductances
        floor = DEAD * np.abs(potentials).max(axis=1, keepdims=True) * degree
        residual = injected - self._outflow(self._incidence, voltages * conductances)
        correction: FloatArray | float = 0.0
        for _ in range(MAX_REFINEMENTS):
            change = np.zeros_like(potentials)
            residual[free:, held] = 0.0
            change[:, self._floating] = self._solver.solve(residual.T).T
            shift = np.abs(change[free:, nodes]).max(initial=0.0)
            if len(nodes):
                change[free:] -= change[free:, nodes] @ clamp
                change[free:, nodes] = 0.0
            # Edge voltages are corrected apart from the potentials, which would round the correction away.
            correction = correction + change
            voltages = voltages + self._edge_voltages(change)
            current = voltages * conductances
            residual = injected - self._outflow(self._incidence, current)
            traffic = self._outflow(self._magnitude, np.abs(current)) + injected
            fine = np.abs(residual) <= KIRCHHOFF_BOUND * traffic + floor
            fine[free:, held] = True
            if shift <= FINE_SHIFT and fine.all():
                return RowStates(potentials + correction, voltages)
        raise SolverError(NOT_CERTIFIED)

    @staticmethod
    def _outflow(incidence: Any, current: FloatArray) -> FloatArray:
        """Return the sums (rows, F) over each node's edges of edge quantities (rows, M)."""
        return np.asarray((incidence @ current.T).T, dtype=np.float64)
