"""How the potentials of a circuit with capacitances to ground move from one state to the next."""

from collections.abc import Callable

import numpy as np

from hilcl.arrays import BoolArray, FloatArray
from hilcl.network import Network


class Transient:
    """C dv/dt = −G (v − v_settled) at the nodes that no voltage source holds, by the eigenvectors of C^-½ G C^-½.

    ``capacitances`` (N,) in farads; ``now`` gives the seconds. Held nodes follow their sources at once, and currents
    are told as they are when all has settled.
    """

    def __init__(self, network: Network, capacitances: FloatArray, now: Callable[[], float]) -> None:
        self._network, self._root, self._now = network, np.sqrt(capacitances), now
        self._start: FloatArray | None = None
        self._since = -np.inf
        self._modes: tuple[FloatArray, FloatArray] | None = None

    def leave(self, potentials: FloatArray) -> None:
        """Note the potentials (N,) at which the circuit leaves a state, and that it does so now."""
        self._start, self._since = potentials, max(self._since, self._now())
        self._modes = None

    def potentials(self, settled: FloatArray, conductances: FloatArray, held: BoolArray) -> FloatArray:
        """Return the potentials (N,) now, on the way to ``settled``; ``held`` (N,) by voltage sources."""
        if self._start is None:
            return settled
        free = ~held
        root = self._root[free]
        if self._modes is None:
            rows = self._network.incidence.toarray()[free]
            self._modes = _eigh((rows * conductances) @ rows.T / root[:, None] / root)
        rates, modes = self._modes
        passed = max(0.0, self._now() - self._since)
        left = modes.T @ (root * (self._start - settled)[free])
        found = settled.copy()
        found[free] += modes @ (np.exp(-np.maximum(rates, 0.0) * passed) * left) / root
        return found


def _eigh(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    rates, modes = np.linalg.eigh(matrix)
    return rates, modes
