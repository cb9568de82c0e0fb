"""What a board should answer under a supposed wiring, and how well that explains what it did answer.

Volts are in units of the test voltage and conductances in units of a typical one, so that all figures are near 1.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.network import Network

TOLERANCE = 0.3
"""Standard deviation of ln g about its nominal value: ±30 % and an unknown wiper."""

MOVE_TOLERANCE = 0.1
"""Standard deviation of ln(g moved / g) about its nominal value."""

UNKNOWN = 4.0
"""The same for a pot that is held to be faulty."""

OPEN, SHORTED = -6.0, 4.0
"""Where the search for a faulty pot's ln g starts, next to its nominal value."""

CORNER = 5.0
"""Residuals in standard deviations beyond which a reading loses weight (Cauchy's loss): no fault may bend the fit."""

IGNORED = 4.0
"""Loss (squared standard deviations) of a reading that is left out."""

LEAK = 1e-9
"""Conductance from each node to ground, so that a part of the board that nothing drives still has a potential."""


@dataclass(frozen=True)
class Wires:
    """A supposed wiring of T sources, N meters and M pots, by default the one the experiment file states.

    ``source_node`` (T,) is where each source really ends, −1 nowhere; ``source_gain`` (T,) is −1 where its leads are
    exchanged and 0 where it stays at 0 V. ``meter_node`` (N,) is what the meter of each node really reads, −1 nothing;
    ``meter_gain`` (N,). ``pot_edge`` (M,) is the edge each pot really moves, −1 none; ``loose`` (M,) marks pots whose
    values are unknown, ``ignored`` (N,) meters whose readings say nothing.
    """

    source_node: IntArray
    source_gain: FloatArray
    meter_node: IntArray
    meter_gain: FloatArray
    pot_edge: IntArray
    loose: BoolArray
    ignored: BoolArray

    @classmethod
    def stated(cls, network: Network) -> Self:
        """Return the wiring without any fault."""
        n_nodes, n_edges = network.n_nodes, network.n_edges
        return cls(
            np.array(network.terminals),
            np.ones(len(network.terminals)),
            np.arange(n_nodes),
            np.ones(n_nodes),
            np.arange(n_edges),
            np.zeros(n_edges, dtype=np.bool_),
            np.zeros(n_nodes, dtype=np.bool_),
        )


@dataclass(frozen=True)
class Readings:
    """R measured rows: ``drives`` (R, T) in test volts, NaN floating; ``pot`` (R,) the pot that was moved, −1 none.

    ``values`` (R, N + T): node potentials, then terminal currents, both less those with all terminals at 0 V;
    ``usable`` likewise; ``sigma`` (N + T,) their standard deviations.
    """

    drives: FloatArray
    pot: IntArray
    values: FloatArray
    usable: BoolArray
    sigma: FloatArray

    def joined(self, other: "Readings") -> "Readings":
        """Return both sets of rows as one, with the first one's deviations."""
        return Readings(
            np.concatenate([self.drives, other.drives]),
            np.concatenate([self.pot, other.pot]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.usable, other.usable]),
            self.sigma,
        )

    def of(self, rows: IntArray | BoolArray) -> "Readings":
        """Return some of the rows."""
        return Readings(self.drives[rows], self.pot[rows], self.values[rows], self.usable[rows], self.sigma)


@dataclass(frozen=True)
class Fit:
    """The most likely ln g of each edge (M,) and ln of each pot's move (M,), and the ``cost`` of what is left over.

    ``strain`` is the largest deviation of a conductance or a move from its nominal value, in standard deviations.
    """

    wires: Wires
    log_g: FloatArray
    log_move: FloatArray
    cost: float
    strain: float


@dataclass(frozen=True)
class BoardModel:
    """The board's network with the nominal conductance of every pot at rest and moved, each (M,)."""

    network: Network
    base: FloatArray
    moved: FloatArray
    incidence: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "incidence", self.network.incidence.toarray())

    def nominal(self, wires: Wires) -> tuple[FloatArray, FloatArray]:
        """Return the nominal ln g of every edge and the ln of every pot's move, (M,) each, under a wiring."""
        at_edge = np.log(self.base)
        wired = np.flatnonzero(wires.pot_edge >= 0)
        at_edge[wires.pot_edge[wired]] = np.log(self.base[wired])
        return at_edge, np.log(self.moved / self.base)

    def predict(self, readings: Readings, wires: Wires, log_g: FloatArray, log_move: FloatArray) -> FloatArray:
        """Return what every row should have read, (R, N + T)."""
        return self._solve(readings, wires, log_g, log_move)[0]

    def fit(self, readings: Readings, wires: Wires, *, rounds: int = 8, start: Fit | None = None) -> Fit:
        """Return the conductances that explain readings best: damped Gauss-Newton on Cauchy's loss and the prior."""
        n_edges = self.network.n_edges
        prior = np.concatenate(self.nominal(wires))
        spread = np.repeat([TOLERANCE, MOVE_TOLERANCE], n_edges)
        spread[np.tile(wires.loose, 2)] = UNKNOWN
        place = prior.copy()
        before = wires.loose & start.wires.loose if start is not None else np.zeros(n_edges, dtype=np.bool_)
        if start is not None:
            place[np.tile(before, 2)] = np.concatenate([start.log_g, start.log_move])[np.tile(before, 2)]
        cost = self._cost(readings, wires, place, prior, spread)
        # Far from its nominal value a pot's slope vanishes, so open and shorted pots are tried as they are.
        for far in (OPEN, SHORTED):
            other = place.copy()
            other[:n_edges][wires.loose & ~before] += far
            there = self._cost(readings, wires, other, prior, spread)
            if there < cost:
                place, cost = other, there
        for _ in range(rounds):
            hessian, downhill = self._normal_equations(readings, wires, place)
            hessian[np.diag_indices(2 * n_edges)] += spread**-2
            step = np.linalg.solve(hessian, downhill - (place - prior) / spread**2)
            step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
            for _ in range(6):
                there = self._cost(readings, wires, place + step, prior, spread)
                if there < cost:
                    break
                step /= 3.0
            else:
                break
            gained, place, cost = cost - there, place + step, there
            if gained < 0.01 + 1e-4 * cost:
                break
        strain = float(np.abs((place - prior) / spread).max())
        return Fit(wires, place[:n_edges], place[n_edges:], cost, strain)

    def nominal_cost(self, readings: Readings, wires: Wires, known: Fit) -> float:
        """Return the cost at nominal conductances (those of pots already known to be faulty as fitted)."""
        log_g, log_move = self.guess(wires, known)
        return float(self.misfit(readings, wires, self.predict(readings, wires, log_g, log_move)).sum())

    def guess(self, wires: Wires, known: Fit) -> tuple[FloatArray, FloatArray]:
        """Return nominal ln g and ln moves, with the fitted ones of pots already known to be faulty."""
        log_g, log_move = self.nominal(wires)
        loose = known.wires.loose
        return np.where(loose, known.log_g, log_g), np.where(loose, known.log_move, log_move)

    def misfit(self, readings: Readings, wires: Wires, predicted: FloatArray) -> FloatArray:
        """Return Cauchy's loss of every reading, (R, N + T), 0 where there is none."""
        residual = self._residual(readings, wires, predicted)
        loss: FloatArray = CORNER**2 * np.log1p((residual / CORNER) ** 2)
        # To leave readings out must cost more than a good explanation of them would.
        n_nodes = self.network.n_nodes
        loss[:, :n_nodes][:, wires.ignored] = IGNORED * readings.usable[:, :n_nodes][:, wires.ignored]
        return loss

    def _residual(self, readings: Readings, wires: Wires, predicted: FloatArray) -> FloatArray:
        counted = readings.usable.copy()
        counted[:, : self.network.n_nodes] &= ~wires.ignored
        return np.where(counted, (readings.values - predicted) / readings.sigma, 0.0)

    def _cost(
        self, readings: Readings, wires: Wires, place: FloatArray, prior: FloatArray, spread: FloatArray
    ) -> float:
        n_edges = self.network.n_edges
        predicted = self.predict(readings, wires, place[:n_edges], place[n_edges:])
        return float(self.misfit(readings, wires, predicted).sum() + (((place - prior) / spread) ** 2).sum())

    def _normal_equations(self, readings: Readings, wires: Wires, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the weighted JᵀJ and Jᵀr over ln g (M,) and ln moves (M,)."""
        network, n_edges = self.network, self.network.n_edges
        predicted, conductances, voltages, inverse, laplacian = self._solve(
            readings, wires, place[:n_edges], place[n_edges:]
        )
        # dV = −A⁻¹ d_f (g_f v_f), with the rows of A that hold a source left as they are.
        held = self._held(readings, wires)[0]
        carried = (conductances * voltages)[:, None, :]
        slope = -np.where(held[:, :, None], 0.0, self.incidence) * carried
        potentials = inverse @ slope
        currents = self.incidence * carried + laplacian @ potentials
        rows, terminals = len(readings.pot), len(network.terminals)
        jacobian = np.zeros((rows, network.n_nodes + terminals, 2 * n_edges))
        read = np.flatnonzero(wires.meter_node >= 0)
        jacobian[:, read, :n_edges] = wires.meter_gain[read][:, None] * potentials[:, wires.meter_node[read]]
        wired = np.flatnonzero(wires.source_node >= 0)
        sign = np.where(wires.source_gain < 0, -1.0, 1.0)[wired]
        jacobian[:, network.n_nodes + wired, :n_edges] = sign[:, None] * currents[:, wires.source_node[wired]]
        moving = np.flatnonzero((readings.pot >= 0) & (wires.pot_edge[readings.pot] >= 0))
        pots = readings.pot[moving]
        jacobian[moving, :, n_edges + pots] = jacobian[moving, :, wires.pot_edge[pots]]
        residual = self._residual(readings, wires, predicted)
        counted = (residual != 0.0) / readings.sigma
        weight = 1.0 / (1.0 + (residual / CORNER) ** 2)
        scaled = (jacobian * counted[..., None]).reshape(-1, 2 * n_edges)
        return scaled.T @ (scaled * weight.reshape(-1, 1)), scaled.T @ (residual * weight).ravel()

    def _held(self, readings: Readings, wires: Wires) -> tuple[BoolArray, FloatArray]:
        """Return which nodes are held (R, N), and at what."""
        shape = (len(readings.pot), self.network.n_nodes)
        held, level = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
        for terminal, node in enumerate(wires.source_node.tolist()):
            if node >= 0:
                driven = ~np.isnan(readings.drives[:, terminal])
                held[driven, node] = True
                level[driven, node] = wires.source_gain[terminal] * readings.drives[driven, terminal]
        return held, level

    def _solve(
        self, readings: Readings, wires: Wires, log_g: FloatArray, log_move: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        network = self.network
        logs = np.tile(log_g, (len(readings.pot), 1))
        moving = np.flatnonzero((readings.pot >= 0) & (wires.pot_edge[readings.pot] >= 0))
        pots = readings.pot[moving]
        logs[moving, wires.pot_edge[pots]] += log_move[pots]
        conductances = np.exp(np.clip(logs, -18.0, 18.0))
        laplacian = (self.incidence * conductances[:, None, :]) @ self.incidence.T
        held, level = self._held(readings, wires)
        unit = np.eye(network.n_nodes)
        inverse = np.linalg.inv(np.where(held[:, :, None], unit, laplacian + LEAK * unit))
        potentials = (inverse @ level[:, :, None])[:, :, 0]
        currents = (laplacian @ potentials[:, :, None])[:, :, 0]
        seen = np.where(wires.meter_node >= 0, wires.meter_gain * potentials[:, wires.meter_node], 0.0)
        sign = np.where(wires.source_gain < 0, -1.0, 1.0)
        given = np.where(wires.source_node >= 0, sign * currents[:, wires.source_node], 0.0)
        return (
            np.hstack([seen, given]),
            conductances,
            network.edge_voltages(potentials),
            inverse,
            laplacian,
        )


def with_source(wires: Wires, terminal: int, node: int, gain: float = 1.0) -> Wires:
    """Return the wiring with one source ending elsewhere."""
    nodes, gains = wires.source_node.copy(), wires.source_gain.copy()
    nodes[terminal], gains[terminal] = node, gain
    return replace(wires, source_node=nodes, source_gain=gains)


def with_meter(wires: Wires, meter: int, node: int, gain: float = 1.0) -> Wires:
    """Return the wiring with one meter reading another node, or with another gain."""
    nodes, gains = wires.meter_node.copy(), wires.meter_gain.copy()
    nodes[meter], gains[meter] = node, gain
    return replace(wires, meter_node=nodes, meter_gain=gains)


def with_pot(wires: Wires, pot: int, edge: int) -> Wires:
    """Return the wiring with one pot moving another edge."""
    edges = wires.pot_edge.copy()
    edges[pot] = edge
    return replace(wires, pot_edge=edges)


def with_loose_pot(wires: Wires, pot: int) -> Wires:
    """Return the wiring with one pot of unknown value and move."""
    loose = wires.loose.copy()
    loose[pot] = True
    return replace(wires, loose=loose)


def ignoring(wires: Wires, meter: int) -> Wires:
    """Return the wiring with one meter's readings left out."""
    ignored = wires.ignored.copy()
    ignored[meter] = True
    return replace(wires, ignored=ignored)
