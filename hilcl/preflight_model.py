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
"""The same for a pot that is held to be faulty, and for the edge that no pot moves."""

SERIES, SERIES_SPREAD = 2.0, 1.3
"""Median in ohms of the resistance between a source and its node, and standard deviation of its ln: up to 30 Ω."""

INPUT, INPUT_SPREAD = 1e-7, 1.7
"""Median in siemens of what a node's meter draws, and standard deviation of its ln: 300 kΩ to a few gigaohms."""

OPEN, SHORTED = -6.0, 4.0
"""Where the search for a faulty pot's ln g starts, next to its nominal value."""

CORNER = 5.0
"""Residuals in standard deviations beyond which a reading loses weight (Cauchy's loss): no fault may bend the fit."""

IGNORED = 4.0
"""Loss (squared standard deviations) of a reading that is left out."""


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
    ``usable`` likewise; ``sigma`` (R, N + T) their standard deviations.
    """

    drives: FloatArray
    pot: IntArray
    values: FloatArray
    usable: BoolArray
    sigma: FloatArray

    def joined(self, other: "Readings") -> "Readings":
        """Return both sets of rows as one."""
        return Readings(
            np.concatenate([self.drives, other.drives]),
            np.concatenate([self.pot, other.pot]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.usable, other.usable]),
            np.concatenate([self.sigma, other.sigma]),
        )

    def of(self, rows: IntArray | BoolArray) -> "Readings":
        """Return some of the rows."""
        return Readings(self.drives[rows], self.pot[rows], self.values[rows], self.usable[rows], self.sigma[rows])


@dataclass(frozen=True)
class Values:
    """Logarithms of what a board consists of, in the model's units.

    ``log_g`` (M,): each edge's conductance at rest. ``log_move`` (M,): the factor by which each pot moves it.
    ``log_series`` (T,): the resistance of each source and its leads. ``log_input`` (N,): the input conductance of the
    meter at each node.
    """

    log_g: FloatArray
    log_move: FloatArray
    log_series: FloatArray
    log_input: FloatArray

    @property
    def joined(self) -> FloatArray:
        """Return all as one vector (2M + T + N,)."""
        return np.concatenate([self.log_g, self.log_move, self.log_series, self.log_input])

    def like(self, joined: FloatArray) -> "Values":
        """Return a vector (2M + T + N,) taken apart."""
        n_edges, n_terminals = len(self.log_g), len(self.log_series)
        return Values(*np.split(joined, [n_edges, 2 * n_edges, 2 * n_edges + n_terminals]))


@dataclass(frozen=True)
class Fit:
    """The most likely values under a wiring, and the ``cost`` of what is left over.

    ``strain`` is the largest deviation of a value from its nominal one, in standard deviations.
    """

    wires: Wires
    values: Values
    cost: float
    strain: float


@dataclass(frozen=True)
class Solved:
    """The model's answer to R rows: ``seen`` (R, N + T), and the arrays it was found with."""

    seen: FloatArray
    held: BoolArray
    resistance: FloatArray
    conductances: FloatArray
    potentials: FloatArray
    currents: FloatArray
    inverse: FloatArray
    laplacian: FloatArray


@dataclass(frozen=True)
class BoardModel:
    """The board's network with the nominal conductance of every pot at rest and moved, each (M,) in ``unit`` S."""

    network: Network
    base: FloatArray
    moved: FloatArray
    unit: float
    incidence: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "incidence", self.network.incidence.toarray())

    def nominal(self) -> Values:
        """Return what every value should be."""
        return Values(
            np.log(self.base),
            np.log(self.moved / self.base),
            np.full(len(self.network.terminals), np.log(SERIES * self.unit)),
            np.full(self.network.n_nodes, np.log(INPUT / self.unit)),
        )

    def expected(self, wires: Wires) -> Values:
        """Return what every value should be under a wiring: an edge has the conductance of the pot that moves it."""
        values = self.nominal()
        wired = np.flatnonzero(wires.pot_edge >= 0)
        at_edge = values.log_g.copy()
        at_edge[wires.pot_edge[wired]] = values.log_g[wired]
        return replace(values, log_g=at_edge)

    def guess(self, wires: Wires, known: Fit) -> Values:
        """Return the expected values, with the fitted ones of pots already known to be faulty."""
        values, loose = self.expected(wires), _unknown(known.wires)
        return replace(
            values,
            log_g=np.where(loose, known.values.log_g, values.log_g),
            log_move=np.where(known.wires.loose, known.values.log_move, values.log_move),
        )

    def predict(self, readings: Readings, wires: Wires, values: Values) -> FloatArray:
        """Return what every row should have read, (R, N + T)."""
        return self._solve(readings, wires, values).seen

    def fit(self, readings: Readings, wires: Wires, *, rounds: int = 8, start: Fit | None = None) -> Fit:
        """Return the values that explain readings best: damped Gauss-Newton on Cauchy's loss and the prior."""
        n_edges = self.network.n_edges
        expected = self.expected(wires)
        prior = expected.joined
        unknown = _unknown(wires)
        spread = np.concatenate(
            [
                np.where(unknown, UNKNOWN, TOLERANCE),
                np.where(wires.loose, UNKNOWN, MOVE_TOLERANCE),
                np.full(len(expected.log_series), SERIES_SPREAD),
                np.full(len(expected.log_input), INPUT_SPREAD),
            ]
        )
        place = prior.copy()
        before = np.zeros(n_edges, dtype=np.bool_)
        if start is not None:
            # A source or a meter may have taken the blame for what a fault explains now: they start afresh.
            before = wires.loose & start.wires.loose
            known = np.concatenate([before, before, np.zeros(len(prior) - 2 * n_edges, dtype=np.bool_)])
            place[known] = start.values.joined[known]
        cost = self._cost(readings, wires, place, prior, spread)
        # Far from its nominal value a pot's slope vanishes, so open and shorted pots are tried as they are.
        new = np.flatnonzero(unknown & ~before)
        for far in (OPEN, SHORTED) if len(new) else ():
            other = place.copy()
            other[new] += far
            there = self._cost(readings, wires, other, prior, spread)
            if there < cost:
                place, cost = other, there
        if start is not None and len(new):
            other = np.where(np.arange(len(prior)) < 2 * n_edges, start.values.joined, prior)
            there = self._cost(readings, wires, other, prior, spread)
            if there < cost:
                place, cost = other, there
        for _ in range(rounds):
            hessian, downhill = self._normal_equations(readings, wires, expected.like(place))
            hessian[np.diag_indices(len(prior))] += spread**-2
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
        return Fit(wires, expected.like(place), cost, strain)

    def nominal_cost(self, readings: Readings, wires: Wires, known: Fit) -> float:
        """Return the cost at the guessed values."""
        return float(self.misfit(readings, wires, self.predict(readings, wires, self.guess(wires, known))).sum())

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
        predicted = self.predict(readings, wires, self.nominal().like(place))
        return float(self.misfit(readings, wires, predicted).sum() + (((place - prior) / spread) ** 2).sum())

    def _normal_equations(self, readings: Readings, wires: Wires, values: Values) -> tuple[FloatArray, FloatArray]:
        """Return the weighted JᵀJ and Jᵀr over all values (2M + T + N,)."""
        network, n_edges, n_nodes = self.network, self.network.n_edges, self.network.n_nodes
        n_terminals, rows = len(network.terminals), len(readings.pot)
        solved = self._solve(readings, wires, values)
        carried = (solved.conductances * network.edge_voltages(solved.potentials))[:, None, :]
        # What each value adds to the current out of each node at fixed potentials, then to the rows of A V = b.
        out = np.zeros((rows, n_nodes, n_edges + n_terminals + n_nodes))
        out[:, :, :n_edges] = self.incidence * carried
        nodes = np.arange(n_nodes)
        out[:, nodes, n_edges + n_terminals + nodes] = np.exp(values.log_input) * solved.potentials
        added = np.where(solved.held, solved.resistance, 1.0)[:, :, None] * out
        wired = np.flatnonzero(wires.source_node >= 0)
        for terminal in wired.tolist():
            node = wires.source_node[terminal]
            drop = solved.resistance[:, node] * solved.currents[:, node]
            added[:, node, n_edges + terminal] = np.where(np.isnan(readings.drives[:, terminal]), 0.0, drop)
        potentials = -solved.inverse @ added
        currents = out + solved.laplacian @ potentials
        jacobian = np.zeros((rows, n_nodes + n_terminals, 2 * n_edges + n_terminals + n_nodes))
        places = np.concatenate([np.arange(n_edges), np.arange(2 * n_edges, jacobian.shape[2])])
        read = np.flatnonzero(wires.meter_node >= 0)
        jacobian[:, read[:, None], places] = wires.meter_gain[read][:, None] * potentials[:, wires.meter_node[read]]
        sign = np.where(wires.source_gain < 0, -1.0, 1.0)[wired]
        jacobian[:, (n_nodes + wired)[:, None], places] = sign[:, None] * currents[:, wires.source_node[wired]]
        moving = np.flatnonzero((readings.pot >= 0) & (wires.pot_edge[readings.pot] >= 0))
        pots = readings.pot[moving]
        jacobian[moving, :, n_edges + pots] = jacobian[moving, :, wires.pot_edge[pots]]
        residual = self._residual(readings, wires, solved.seen)
        counted = (residual != 0.0) / readings.sigma
        weight = 1.0 / (1.0 + (residual / CORNER) ** 2)
        scaled = (jacobian * counted[..., None]).reshape(-1, jacobian.shape[2])
        return scaled.T @ (scaled * weight.reshape(-1, 1)), scaled.T @ (residual * weight).ravel()

    def _solve(self, readings: Readings, wires: Wires, values: Values) -> Solved:
        network, rows = self.network, len(readings.pot)
        logs = np.tile(values.log_g, (rows, 1))
        moving = np.flatnonzero((readings.pot >= 0) & (wires.pot_edge[readings.pot] >= 0))
        pots = readings.pot[moving]
        logs[moving, wires.pot_edge[pots]] += values.log_move[pots]
        conductances = np.exp(np.clip(logs, -18.0, 18.0))
        unit = np.eye(network.n_nodes)
        laplacian = (self.incidence * conductances[:, None, :]) @ self.incidence.T
        laplacian += np.diag(np.exp(np.clip(values.log_input, -18.0, 18.0)))
        held = np.zeros((rows, network.n_nodes), dtype=np.bool_)
        level, resistance = np.zeros(held.shape), np.zeros(held.shape)
        ohms = np.exp(np.clip(values.log_series, -18.0, 18.0))
        for terminal, node in enumerate(wires.source_node.tolist()):
            if node >= 0:
                driven = ~np.isnan(readings.drives[:, terminal])
                held[driven, node] = True
                level[driven, node] = wires.source_gain[terminal] * readings.drives[driven, terminal]
                resistance[driven, node] = ohms[terminal]
        # At a node that is held: V + R I = level, with the current I into the board.
        matrix = np.where(held[:, :, None], unit + resistance[:, :, None] * laplacian, laplacian)
        inverse = np.linalg.inv(matrix)
        potentials = (inverse @ level[:, :, None])[:, :, 0]
        currents = (laplacian @ potentials[:, :, None])[:, :, 0]
        seen = np.where(wires.meter_node >= 0, wires.meter_gain * potentials[:, wires.meter_node], 0.0)
        sign = np.where(wires.source_gain < 0, -1.0, 1.0)
        given = np.where(wires.source_node >= 0, sign * currents[:, wires.source_node], 0.0)
        return Solved(
            np.hstack([seen, given]), held, resistance, conductances, potentials, currents, inverse, laplacian
        )


def _unknown(wires: Wires) -> BoolArray:
    """Return the edges (M,) whose conductance nothing says: those of faulty pots and those that no pot moves."""
    moved = np.zeros(len(wires.loose), dtype=np.bool_)
    moved[wires.pot_edge[wires.pot_edge >= 0]] = True
    unknown: BoolArray = wires.loose | ~moved
    return unknown


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
