"""Potentials to thirty digits, with as little memory as the board itself: what certified accuracy is held against.

Numbers are pairs of doubles whose sum is meant (Dekker, Numerische Mathematik 18, 1971; Ogita, Rump and Oishi, SIAM J.
Sci. Comput. 26, 2005). Residuals formed edge by edge in such pairs refine the solution of any solver far beyond its own
digits; what they leave bounds what is wrong with the result, whatever the solver did.
"""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.network import Network
from hilcl.sim_backend.solvers import make_solver

Pair = tuple[FloatArray, FloatArray]

SPLITTER = 2.0**27 + 1.0

MOST_ROUNDS = 12

SETTLED = 1e-26
"""Part of the driven span below which a change of potentials ends the refinement."""

TELLING = 1e-9
"""Part of the driven span from which relative errors are those of the state, not of the reference."""


@dataclass(frozen=True)
class Deviation:
    """How far a state is from the reference.

    ``potentials``: largest relative error of a node. ``edge_voltages``: median of their relative errors. Both leave out
    what is below TELLING of the driven span. ``kirchhoff``: largest |Σ I| / Σ |I| at a node that may move.
    """

    potentials: float
    edge_voltages: float
    kirchhoff: float


def deviation(
    network: Network,
    conductances: FloatArray,
    drives: FloatArray,
    potentials: FloatArray,
    edge_voltages: FloatArray,
) -> Deviation:
    """Return how far potentials (N,) and edge voltages (M,), in volts, are from those at ``drives`` (T,), NaN floating.

    Meant for one terminal at a volt and the others at zero or floating: all potentials are then of one sign.
    """
    driven = ~np.isnan(drives)
    volts = drives[driven]
    circuit = _Circuit(network, conductances, network.terminals[driven])
    exact = circuit.refined(volts)
    given = edge_voltages, np.zeros_like(edge_voltages)
    least = TELLING * float(np.ptp(volts))
    currents, traffic = circuit.balance(given)
    carrying = traffic > least * circuit.degree
    return Deviation(
        potentials=float(_relative((potentials, np.zeros_like(potentials)), exact, least).max(initial=0.0)),
        edge_voltages=float(np.median(_relative(given, _difference(exact, network.edges), least))),
        kirchhoff=float((np.abs(_sum(currents))[carrying] / traffic[carrying]).max(initial=0.0)),
    )


def reference(network: Network, conductances: FloatArray, drives: FloatArray) -> Pair:
    """Return node potentials as a pair of arrays (N,) in volts for ``drives`` (T,) in volts, NaN floating.

    Raises SolverError where they do not settle.
    """
    driven = ~np.isnan(drives)
    return _Circuit(network, conductances, network.terminals[driven]).refined(drives[driven])


class _Circuit:
    """A board with some nodes held, and its currents in pairs of doubles."""

    def __init__(self, network: Network, conductances: FloatArray, held: IntArray) -> None:
        self._network, self._conductances, self._held = network, conductances, held
        self._moving = np.setdiff1d(np.arange(network.n_nodes), held)
        # Every edge at each of its two ends, grouped by how many came before it there: sums run over whole groups.
        nodes = network.edges.T.ravel()
        order = np.argsort(nodes, kind="stable")
        rank = np.arange(len(nodes)) - np.searchsorted(nodes[order], nodes[order])
        self._groups = [order[rank == level] for level in range(rank.max(initial=-1) + 1)]
        self.degree = np.bincount(nodes, np.tile(conductances, 2), network.n_nodes)[self._moving]

    def refined(self, volts: FloatArray) -> Pair:
        """Return the potentials with the held nodes at ``volts``."""
        solver = make_solver(self._network.n_nodes, self._network.edges, self._moving)
        solver.factor(self._conductances)
        high, low = np.zeros((2, self._network.n_nodes))
        high[self._held] = volts
        span = np.ptp(volts)
        for _ in range(MOST_ROUNDS):
            missing = -_sum(self.balance(_difference((high, low), self._network.edges))[0])
            change = solver.solve(np.asfortranarray(missing[:, None]))[:, 0]
            moved, lost = _two_sum(high[self._moving], change)
            high[self._moving], low[self._moving] = _two_sum(moved, low[self._moving] + lost)
            if np.abs(change).max(initial=0.0) <= SETTLED * span:
                return high, low
        raise SolverError("the reference did not settle on this board: narrow the conductance range")

    def balance(self, edge_voltages: Pair) -> tuple[Pair, FloatArray]:
        """Return the currents leaving each node that may move, and the sums of their magnitudes, in amperes."""
        n_edges, n_nodes = self._network.n_edges, self._network.n_nodes
        current, rest = _two_product(self._conductances, edge_voltages[0])
        rest += self._conductances * edge_voltages[1]
        high, low, traffic = np.zeros((3, n_nodes))
        ends = self._network.edges.T.ravel()
        for group in self._groups:
            node, edge = ends[group], group % n_edges
            sign = np.where(group < n_edges, 1.0, -1.0)
            total, lost = _two_sum(high[node], sign * current[edge])
            high[node], low[node] = total, low[node] + (lost + sign * rest[edge])
            traffic[node] += np.abs(current[edge])
        return (high[self._moving], low[self._moving]), traffic[self._moving]


def _relative(values: Pair, exact: Pair, least: float) -> FloatArray:
    """Return the relative errors of values whose exact magnitude is above ``least``."""
    known = np.abs(exact[0]) > least
    errors: FloatArray = np.abs(_sum(_difference_of(values, exact)))[known] / np.abs(exact[0][known])
    return errors


def _sum(pair: Pair) -> FloatArray:
    return pair[0] + pair[1]


def _difference(values: Pair, edges: IntArray) -> Pair:
    """Return the differences along the edges."""
    first, second = edges.T
    return _difference_of((values[0][first], values[1][first]), (values[0][second], values[1][second]))


def _difference_of(left: Pair, right: Pair) -> Pair:
    high, lost = _two_sum(left[0], -right[0])
    return _two_sum(high, lost + (left[1] - right[1]))


def _two_sum(a: FloatArray, b: FloatArray) -> Pair:
    """Return the rounded sum and what rounding lost (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a: FloatArray, b: FloatArray) -> Pair:
    """Return the rounded product and what rounding lost (Dekker and Veltkamp)."""
    product = a * b
    a_high, b_high = (SPLITTER * x - (SPLITTER * x - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
