"""The one exact circuit all emulated instruments are wired to."""

import threading

import numpy as np

from hilcl.arrays import FloatArray, frozen, per_edge
from hilcl.errors import InputError
from hilcl.network import Network
from hilcl.sim_backend.basis import Basis, BasisSolver
from hilcl.sim_backend.emulation.port import OPEN, Applied, Seen
from hilcl.sim_backend.emulation.transient import Transient
from hilcl.sim_backend.terminals import Sources, TerminalState, settle_sources


class EmulatedCircuit:
    """A board whose terminals are driven by any mixture of voltage sources, current sources and open ends.

    It is solved anew whenever a conductance or an applied quantity has changed and somebody looks. May be used from
    several threads. A board that nothing drives lies at ground, as a real one does through its leakage. It settles at
    once, unless ``transient`` says how it moves.
    """

    def __init__(self, network: Network, conductances: FloatArray, transient: Transient | None = None) -> None:
        self.network, self._transient = network, transient
        self._lock = threading.RLock()
        self._solver = BasisSolver(network)
        self._applied = [OPEN] * len(network.terminals)
        self._terminal_of = {int(node): index for index, node in enumerate(network.terminals)}
        self._conductances = frozen(per_edge("conductances", conductances, network.n_edges, InputError))
        self._basis: Basis | None = None
        self._state: TerminalState | None = None

    def set_conductances(self, conductances: FloatArray) -> None:
        """Change the true conductances (M,) in siemens."""
        with self._lock:
            self._leave()
            self._conductances = frozen(per_edge("conductances", conductances, self.network.n_edges, InputError))
            self._basis = self._state = None

    def port(self, node: int) -> "CircuitPort":
        """Return a port at a node; only terminals can be driven, any node can be looked at.

        Raises InputError for a node the network does not have.
        """
        if not 0 <= node < self.network.n_nodes:
            raise InputError(f"node {node} cannot be wired: nodes are numbered 0 to {self.network.n_nodes - 1}")
        return CircuitPort(self, node)

    def potentials(self) -> FloatArray:
        """Return the true potentials (N,) in volts."""
        with self._lock:
            return self._present(self._settled())

    def apply(self, node: int, applied: Applied) -> None:
        """Change what drives a terminal; InputError where the node is none."""
        with self._lock:
            terminal = self._terminal_of.get(node)
            if terminal is None:
                if applied.kind == "open":
                    return
                raise InputError(f"{self.network.name(node)} is neither input nor output, so no source may drive it")
            if self._applied[terminal] != applied:
                self._leave()
                self._applied[terminal] = applied
                self._state = None

    def see(self, node: int) -> Seen:
        """Return the true state at a node."""
        with self._lock:
            state = self._settled()
            volts = float(self._present(state)[node])
            terminal = self._terminal_of.get(node)
            if terminal is None or self._applied[terminal].kind == "open":
                return Seen(volts, 0.0, limited=False)
            return Seen(volts, float(state.currents[0, terminal]), bool(state.in_compliance[0, terminal]))

    def _leave(self) -> None:
        if self._transient is not None:
            self._transient.leave(self._present(self._settled()))

    def _present(self, state: TerminalState) -> FloatArray:
        settled: FloatArray = state.potentials[0]
        if self._transient is None:
            return settled
        held = np.zeros(self.network.n_nodes, dtype=np.bool_)
        for terminal, node in enumerate(self.network.terminals.tolist()):
            held[node] = self._applied[terminal].kind == "voltage" and not state.in_compliance[0, terminal]
        return self._transient.potentials(settled, self._conductances, held)

    def _settled(self) -> TerminalState:
        with self._lock:
            if self._state is None:
                if self._basis is None:
                    self._basis = self._solver.solve(self._conductances)
                applied = self._applied
                sources = Sources(
                    by_voltage=np.array([[each.kind == "voltage" for each in applied]]),
                    level=np.array([[each.level if each.kind != "open" else 0.0 for each in applied]]),
                    limit=np.array([[each.limit if each.kind != "open" else np.inf for each in applied]]),
                    resistance=np.array([each.series for each in applied]),
                )
                self._state = settle_sources(self._basis, sources)
            return self._state


class CircuitPort:
    """A port of an instrument wired to one node of the circuit."""

    def __init__(self, circuit: EmulatedCircuit, node: int) -> None:
        self._circuit, self._node = circuit, node

    def apply(self, applied: Applied) -> None:
        """Change what the instrument does to its node."""
        self._circuit.apply(self._node, applied)

    def see(self) -> Seen:
        """Return the true state at the node."""
        return self._circuit.see(self._node)
