"""The exact network: one factorisation per step answers every sample and both phases.

The potentials of a linear network are linear in what drives it. A basis holds its response to one volt at each input
and to one ampere into each output; every free, clamped or nudged state is a combination of these. Rows of the arrays
here are basis functions: (p, N) for nodes and (p, M) for edges.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.linalg import lapack

from hilcl.arrays import FloatArray, IntArray, frozen
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.lazily import lazily
from hilcl.sim_backend.row_engine import RowEngine
from hilcl.sim_backend.solvers import SolverName, is_by_node, make_solver
from hilcl.sim_backend.states import Engine, RowStates, States

Accuracy = Literal["standard", "certified"]


@dataclass(frozen=True)
class ClampBasis:
    """How the network moves when some outputs are displaced while inputs stay: rows (C, N) and (C, M), and their use.

    In standard accuracy the rows are per ampere; displacements are turned into amperes by ``impedance`` (C, C). In
    certified accuracy they are per volt, each refined with the outputs held exactly, and ``admittance`` (C, C) gives
    the amperes: inverting the impedance of outputs behind a weak link would lose the digits that were just gained.
    """

    states: States
    impedance: FloatArray | None = None
    admittance: FloatArray | None = None

    @property
    def potentials(self) -> FloatArray:
        """Rows (C, N) of node potentials."""
        return self.states.potentials

    @property
    def voltages(self) -> FloatArray:
        """Rows (C, M) of edge voltages."""
        return self.states.voltages

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

    ``input_states``: per volt at an input, the others at zero; in standard accuracy the first input has no row, being
    the reference. ``output_states``: per ampere into each output, inputs at zero; ``raw_outputs`` are not refined. Edge
    voltages carry the refinement's correction, so they are more accurate than differences of potentials.
    """

    network: Network
    conductances: FloatArray
    input_states: States
    raw_outputs: States
    solver: "BasisSolver" = field(repr=False)
    _clamps: dict[bytes, ClampBasis] = field(default_factory=dict, repr=False)
    _held: dict[bytes, States] = field(default_factory=dict, repr=False)

    @property
    def is_certified(self) -> bool:
        """True where the rows are refined, and every input has one."""
        return self.solver.accuracy == "certified"

    @property
    def inputs(self) -> FloatArray:
        """Node potentials per volt at an input."""
        return self.input_states.potentials

    @property
    def input_voltages(self) -> FloatArray:
        """Edge voltages per volt at an input."""
        return self.input_states.voltages

    @lazily
    def output_states(self) -> States:
        """Responses per ampere, refined at their first use."""
        return self.solver.refined_outputs(self)

    @property
    def outputs(self) -> FloatArray:
        """Node potentials per ampere into an output."""
        return self.output_states.potentials

    @lazily
    def transfer(self) -> FloatArray:
        """Output volts per volt at an input row, (rows, O)."""
        return self.input_states.at_nodes(self.network.outputs)

    @lazily
    def impedance(self) -> FloatArray:
        """Output volts per ampere into an output, X_O, (O, O) in ohms, made exactly symmetric."""
        return _impedance(self.network, self.output_states)

    def inflow(self, states: States) -> FloatArray:
        """Return the amperes into the board at each input, (rows, I), of some states."""
        edges, signs, starts = self.network.edges_at_inputs
        flow = states.at_edges(edges)
        flow *= self.conductances.take(edges) * signs
        return np.asarray(np.add.reduceat(flow, starts, axis=1), dtype=np.float64)

    @lazily
    def input_admittance(self) -> FloatArray:
        """Amperes into the board at each input per volt at an input row, (rows, I)."""
        return self.inflow(self.input_states)

    def input_coefficients(self, volts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the offset (S, 1) in volts and the combinations (S, rows) of the input rows for inputs (S, I)."""
        if not self.is_certified:
            return volts[:, :1], volts[:, 1:] - volts[:, :1]
        # Offset by the lowest input every term is positive: small potentials keep their digits.
        lowest = volts.min(axis=1, keepdims=True)
        return lowest, volts - lowest

    def clamp(self, held: IntArray) -> ClampBasis:
        """Return the clamp basis of the outputs in ``held``, numbers 0 … O−1, ascending."""
        key = held.tobytes()
        if key not in self._clamps:
            self._clamps[key] = self.solver.clamp(self, held)
        return self._clamps[key]

    def clamp_all(self) -> ClampBasis:
        """Return the clamp basis of all outputs."""
        if self.is_certified:
            return self.clamp(self.solver.every_output)
        return ClampBasis(self.output_states, impedance=self.impedance)

    def held_inputs(self, held: IntArray) -> States:
        """Return the states per volt at each input with the outputs in ``held`` at zero; certified only."""
        key = held.tobytes()
        if key not in self._held:
            self._held[key] = self.solver.refined_inputs(self, held, self.clamp(held))
        return self._held[key]

    def gradient(self, clamp: ClampBasis, relative: FloatArray, displacement: FloatArray) -> FloatArray:
        """Return Σ_s (v_C² − v_F²) at every edge (M,), in V².

        ``relative`` (S, rows) are the combinations of the input rows, ``displacement`` (S, C) the volts the clamp adds.
        Σ_s δ_s(2v_s + δ_s) with v = a·V, δ = b·V is a quadratic form in the basis voltages V: its matrix,
        Σ_s b(2a + b)ᵀ, is formed from the samples first, so that the cost per edge does not grow with their number.
        """
        # Per volt, not per ampere: outputs joined tightly behind weak links lose digits in amperes.
        per_volt = clamp.coefficients(self.solver.one_volt_each)
        mixing, clamping = 2.0 * displacement.T.dot(relative), displacement.T.dot(displacement)
        return self.solver.engine.gradient(self.input_states, clamp.states, mixing, clamping, per_volt)

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
        driven = network.inputs if accuracy == "certified" else network.inputs[1:]
        chosen = make_solver(
            network.n_nodes, network.edges, network.floating, solver, certified=accuracy == "certified"
        )
        self.one_volt_each = frozen(np.eye(len(network.outputs)))
        self.every_output = frozen(np.arange(len(network.outputs)))
        self.engine: Engine
        if is_by_node(chosen):
            from hilcl.sim_backend.node_engine import NodeEngine

            self.engine = NodeEngine(network, chosen, driven, certified=accuracy == "certified")
        else:
            self.engine = RowEngine(network, chosen, driven)

    @property
    def solver_name(self) -> str:
        """Which solver was chosen."""
        return self.engine.solver_name

    def solve(self, conductances: FloatArray) -> Basis:
        """Return the basis at conductances (M,) in siemens.

        With accuracy "certified" every row is refined with residuals formed edge by edge until Kirchhoff's current law
        holds to 1e-14 at every floating node (docs/accuracy-and-speed.md).

        Raises SolverError where the circuit is singular in floating point or the accuracy is not reached.
        """
        inputs, outputs = self.engine.solve(conductances)
        if self.accuracy == "standard" or not len(self.network.floating):
            return Basis(self.network, conductances, inputs, outputs, self)
        every = self.every_output
        try:
            # Inputs and the clamp of all outputs are what a contrast needs: refined together they cost one solve.
            states, clamp = self.engine.refine_clamp(conductances, inputs, outputs, *self._held(outputs, every))
        except SolverError:
            states, clamp = self.engine.refine_clamp(conductances, inputs, outputs, *self._held(outputs, every[:0]))
            every = every[:0]
        assert states is not None  # noqa: S101
        basis = Basis(self.network, conductances, states, outputs, self)
        basis._clamps[every.tobytes()] = self._certified(basis, every, clamp)
        return basis

    def clamp(self, basis: Basis, held: IntArray) -> ClampBasis:
        """Return the clamp basis in the accuracy of this solver; see ``ClampBasis``."""
        outputs = basis.raw_outputs
        if self.accuracy == "standard" or not len(self.network.floating):
            impedance = basis.impedance
            if len(held) == len(impedance):
                return ClampBasis(outputs, impedance)
            rows = RowStates(outputs.potentials[held], outputs.voltages[held])
            return ClampBasis(rows, impedance[np.ix_(held, held)])
        _, clamp = self.engine.refine_clamp(basis.conductances, None, outputs, *self._held(outputs, held))
        return self._certified(basis, held, clamp)

    def refined_outputs(self, basis: Basis) -> States:
        """Return the responses per ampere in the accuracy of this solver."""
        if self.accuracy == "standard" or not len(self.network.floating):
            return basis.raw_outputs
        return self.engine.refine_outputs(basis.conductances, basis.raw_outputs)

    def refined_inputs(self, basis: Basis, held: IntArray, clamp: ClampBasis) -> States:
        """Return the input rows of a certified basis with the outputs in ``held`` at zero instead of floating."""
        return self.engine.refine_held(basis.conductances, basis.input_states, clamp.states, self.network.outputs[held])

    def _held(self, outputs: States, held: IntArray) -> tuple[FloatArray, IntArray]:
        """Return amperes (C, O) per volt at the outputs in ``held`` as far as raw states tell, and their nodes."""
        impedance = _impedance(self.network, outputs)
        if len(held) == len(impedance):
            return ClampBasis(outputs, impedance).coefficients(self.one_volt_each), self.network.outputs
        amperes = np.zeros((len(held), len(impedance)))
        amperes[:, held] = ClampBasis(outputs, impedance[np.ix_(held, held)]).coefficients(np.eye(len(held)))
        return amperes, self.network.outputs[held]

    def _certified(self, basis: Basis, held: IntArray, states: States) -> ClampBasis:
        edges, signs, owner = self._edges_at_outputs
        flow = states.at_edges(edges) * (basis.conductances[edges] * signs)
        into = np.zeros((len(flow), len(self.network.outputs)))
        np.add.at(into.T, owner, flow.T)
        admittance = into[:, held]
        return ClampBasis(states, admittance=(admittance + admittance.T) / 2)

    @lazily
    def _edges_at_outputs(self) -> tuple[IntArray, FloatArray, IntArray]:
        """Edges at outputs, the sign of the current each carries away from the output, and the number of the output."""
        number = np.full(self.network.n_nodes, -1)
        number[self.network.outputs] = np.arange(len(self.network.outputs))
        owner = number[self.network.edges]
        edges, end = np.nonzero(owner >= 0)
        return edges, np.where(end == 0, 1.0, -1.0), owner[edges, end]


def _impedance(network: Network, outputs: States) -> FloatArray:
    raw = outputs.at_nodes(network.outputs)
    return (raw + raw.T) / 2
