"""Unit responses node by node, computed by kernels of numba: for large boards.

Memory for numbers, beside the solver's: 8 bytes times nodes times columns (inputs and outputs, in fours), twice that
in certified accuracy.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.compiled import IndexArray
from hilcl.sim_backend.graphs import padded
from hilcl.sim_backend.node_states import (
    count_imbalanced,
    edge_volts,
    edges_by_row,
    mix_columns,
    node_residual,
    pin,
    squared_differences,
    unit_loads,
)
from hilcl.sim_backend.states import (
    DEAD,
    FINE_SHIFT,
    KIRCHHOFF_BOUND,
    MAX_REFINEMENTS,
    NOT_CERTIFIED,
    States,
    gradient_by_rows,
)


class NodeSolver(Protocol):
    """Solves L_FF x = b node by node, in an order of its own."""

    name: str
    place: IntArray
    """Row of each node (N,): floating nodes first, driven ones last."""

    def factor(self, conductances: FloatArray) -> None:
        """Prepare for conductances (M,) in siemens; raises SolverError where L_FF is singular."""
        ...

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Return x (n, p), columns contiguous, for right-hand sides (n, p) over the floating nodes."""
        ...

    def substitute(self, x: FloatArray, loaded: IntArray | None = None) -> None:
        """Solve in place for x (N, 4q), driven rows left alone; only the rows ``loaded`` are not zero, where given."""
        ...


class NodeStates:
    """States in some columns of potentials node by node, (parts, N, 4q); see ``node_states``.

    ``mixed``: the states are these columns times the inverse of a square matrix.
    """

    def __init__(self, parts: FloatArray, columns: range, place: IntArray, ends: IndexArray) -> None:
        self.parts, self.columns, self._place, self._ends = parts, columns, place, ends
        self.mixed: FloatArray | None = None

    @cached_property
    def potentials(self) -> FloatArray:
        """Node potentials (p, N)."""
        return self.at_nodes(np.arange(len(self._place)))

    @cached_property
    def voltages(self) -> FloatArray:
        """Edge voltages (p, M)."""
        return self.at_edges(np.arange(len(self._ends)))

    def at_nodes(self, nodes: IntArray) -> FloatArray:
        """Return the potentials of some nodes."""
        low, high = self.columns.start, self.columns.stop
        rows = self._place[nodes]
        values = self.parts[0].take(rows, axis=0)[:, low:high]
        for part in self.parts[1:]:
            values = values + part.take(rows, axis=0)[:, low:high]
        return self._unmixed(values.T)

    def at_edges(self, edges: IntArray) -> FloatArray:
        """Return the voltages of some edges."""
        result = np.empty((len(self.columns), len(edges)))
        edge_volts(self.parts, self._ends, edges, self.columns.start, result)
        return self._unmixed(result)

    def _unmixed(self, rows: FloatArray) -> FloatArray:
        return rows if self.mixed is None else np.asarray(np.linalg.solve(self.mixed.T, rows), dtype=np.float64)


class NodeEngine:
    """``hilcl.sim_backend.states.Engine`` for large boards; ``driven`` are the inputs that have a column."""

    def __init__(self, network: Network, solver: NodeSolver, driven: IntArray, *, certified: bool) -> None:
        self._network, self._solver = network, solver
        self._n_parts = 2 if certified else 1
        self._place = solver.place
        self._ends = self._place[network.edges].astype(np.int32)
        self._n_floating = len(network.floating)
        self._n_rows, self._n_outputs = len(driven), len(network.outputs)
        self._driven_rows, self._output_rows = self._place[driven], self._place[network.outputs]
        self._factored: FloatArray | None = None
        # Which conductances of edges at driven inputs go into which cells of the loads.
        column = np.full(network.n_nodes, -1)
        column[self._driven_rows] = np.arange(len(driven))
        ends = np.concatenate([self._ends, self._ends[:, ::-1]])
        into = (column[ends[:, 0]] >= 0) & (ends[:, 1] < self._n_floating)
        self._load_edges = np.tile(np.arange(network.n_edges), 2)[into]
        self._loaded = np.unique(np.concatenate([ends[into, 1], self._output_rows]))
        self._width = padded(len(driven) + self._n_outputs)
        self._load_cells = ends[into, 1].astype(np.int64) * self._width + column[ends[into, 0]]
        # A volt at each driven input, an ampere into each output.
        units = np.concatenate([self._driven_rows, self._output_rows])
        self._unit_cells = units * self._width + np.arange(len(units))

    @property
    def solver_name(self) -> str:
        """Which solver computes."""
        return self._solver.name

    def solve(self, conductances: FloatArray) -> tuple[States, States]:
        """Return the responses per volt and per ampere."""
        self._factored = None
        self._solver.factor(conductances)
        self._factored = conductances
        # With room for the corrections, where there will be any.
        room = np.empty((self._n_parts, self._network.n_nodes, self._width))
        parts = room[:1]
        parts[:] = 0.0
        unit_loads(parts[0], self._unit_cells, self._load_cells, self._load_edges, conductances)
        self._solver.substitute(parts[0], self._loaded)
        used = self._n_rows + self._n_outputs
        return self._states(parts, range(self._n_rows)), self._states(parts, range(self._n_rows, used))

    def refine_outputs(self, conductances: FloatArray, outputs: States) -> States:
        """Return refined responses per ampere."""
        room = self._columns_of([(outputs, np.eye(self._n_outputs))])
        injected = np.zeros(room.shape[1:])
        injected[self._output_rows, np.arange(self._n_outputs)] = 1.0
        nothing = np.zeros(0, dtype=np.int64)
        parts = self._refined(conductances, room, self._n_outputs, range(0), nothing, injected)
        return self._states(parts, range(self._n_outputs))

    def refine_clamp(
        self, conductances: FloatArray, inputs: States | None, outputs: States, per_volt: FloatArray, nodes: IntArray
    ) -> tuple[States | None, States]:
        """Return refined inputs and clamp, all in one; where all outputs are held, these make room for the clamp."""
        free = 0 if inputs is None else self._n_rows
        at, clamped = self._place[nodes], range(free, free + len(nodes))
        if inputs is None:
            room = self._columns_of([(outputs, per_volt.T)])
        elif len(nodes) == self._n_outputs and isinstance(outputs, NodeStates) and outputs.mixed is None:
            room = np.asarray(outputs.parts.base)
            fours = free & ~3
            mixing = np.eye(room.shape[2] - fours)
            mixing[clamped.start - fours : clamped.stop - fours, free - fours : clamped.stop - fours] = per_volt.T
            mix_columns(room[0], fours, mixing)
            outputs.mixed = per_volt.T
        else:
            room = self._columns_of([(inputs, np.eye(free)), (outputs, per_volt.T)])
        pin(room[0], at, free, 1.0)
        parts = self._refined(conductances, room, free, clamped, at)
        return None if inputs is None else self._states(parts, range(free)), self._states(parts, clamped)

    def refine_held(self, conductances: FloatArray, inputs: States, clamp: States, nodes: IntArray) -> States:
        """Return refined responses with ``nodes`` at zero."""
        at, count = self._place[nodes], len(nodes)
        # The clamp's columns come along: corrections are made of them.
        room = self._columns_of([(inputs, np.eye(self._n_rows)), (clamp, np.eye(count))])
        moved = self._columns_of([(clamp, inputs.at_nodes(nodes).T)])
        room[0, :, : self._n_rows] -= moved[0, :, : self._n_rows]
        room[0, at, : self._n_rows] = 0.0
        parts = self._refined(conductances, room, 0, range(self._n_rows, self._n_rows + count), at)
        return self._states(parts, range(self._n_rows))

    def gradient(
        self, inputs: States, clamp: States, mixing: FloatArray, clamping: FloatArray, per: FloatArray
    ) -> FloatArray:
        """Return the quadratic form at every edge."""
        if not (isinstance(inputs, NodeStates) and isinstance(clamp, NodeStates) and inputs.parts is clamp.parts):
            return gradient_by_rows(inputs, clamp, mixing, clamping, per)
        count, width = len(per), padded(len(per))
        mixed, moved = np.zeros((2, inputs.parts.shape[2], width))
        mixed[inputs.columns.start : inputs.columns.stop, :count] = mixing.T
        mixed[clamp.columns.start : clamp.columns.stop, :count] = (clamping @ per).T
        moved[clamp.columns.start : clamp.columns.stop, :count] = per.T
        result = np.empty(self._network.n_edges)
        squared_differences(inputs.parts, self._ends, mixed, moved, clamp.columns.start, clamp.columns.stop, result)
        return result

    def _states(self, parts: FloatArray, columns: range) -> NodeStates:
        return NodeStates(parts, columns, self._place, self._ends)

    @cached_property
    def _edges_by_row(self) -> tuple[IntArray, IndexArray, IndexArray]:
        """Edges of the floating nodes, row by row, as the kernels take them."""
        return edges_by_row(self._ends, self._n_floating)

    def _columns_of(self, wanted: Sequence[tuple[States, FloatArray]]) -> FloatArray:
        """Return room (2, N, 4q) whose first part has the potentials of states, each times a matrix, side by side."""
        used = sum(matrix.shape[1] for _, matrix in wanted)
        room = np.zeros((2, self._network.n_nodes, padded(used)))
        begin = 0
        for state, matrix in wanted:
            assert isinstance(state, NodeStates)  # noqa: S101
            mixing = matrix if state.mixed is None else np.linalg.solve(state.mixed, matrix)
            for part in state.parts:
                room[0, :, begin : begin + matrix.shape[1]] += part[:, state.columns] @ mixing
            begin += matrix.shape[1]
        return room

    def _refined(
        self,
        conductances: FloatArray,
        room: FloatArray,
        free: int,
        clamped: range,
        held: IntArray,
        injected: FloatArray | None = None,
    ) -> FloatArray:
        """Return the first part of ``room`` and its corrections, Kirchhoff's law holding at every node that may move.

        In columns from ``free`` on, the rows ``held`` stay as they are; the columns ``clamped`` move each of
        them alone by a volt. ``injected`` (N, 4q) are amperes into the nodes.
        """
        if self._factored is not conductances:
            self._solver.factor(conductances)
            self._factored = conductances
        into = np.empty((0, room.shape[2])) if injected is None else injected
        for n_parts in range(1, 1 + MAX_REFINEMENTS):
            change = room[n_parts]
            node_residual(room[:n_parts], *self._edges_by_row, conductances, into, held, free, clamped.start, change)
            self._solver.substitute(change)
            # The held nodes stay where they are, but for rounding.
            shift = pin(change, held, free, 0.0)
            parts = room[: n_parts + 1]
            if shift <= FINE_SHIFT and not count_imbalanced(
                parts, *self._edges_by_row, conductances, into, held, free, KIRCHHOFF_BOUND, DEAD
            ):
                return parts
            if len(room) == n_parts + 1:
                room = np.concatenate([room, np.empty((1, *room.shape[1:]))])
        raise SolverError(NOT_CERTIFIED)
