"""What a calibrated board must read: the network model of every reading, and its derivatives by every parameter.

A driven terminal t is a source of gain·setting + offset volts behind r_t ohms. Node potentials p and source currents
i solve   [L  −E] [p]   [0]
          [Eᵀ  R] [i] = [V]   with L the Laplacian and E the driven terminals.
Call its matrix K. By the adjoint, dz/dg_e = −(K⁻¹ D_e)·v_e: one inverse per pattern and set of driven terminals gives
the derivatives of every reading by every parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.calibration.parameters import law_of
from hilcl.calibration.readings import PatternReadings
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer


@dataclass(frozen=True)
class Layout:
    """Where each quantity stands in the parameter vector θ (P,).

    Pots (M·Q, edge by edge; ohms), then per terminal the source's gain, offset (V), series (Ω), the ammeter's gain and
    offset (A), then per node the meter's gain and offset (V), then the meters' input conductance (S).
    """

    edges: int
    terms: int
    terminals: int
    nodes: int

    @property
    def pots(self) -> slice:
        """The pots' values."""
        return slice(0, self.edges * self.terms)

    @property
    def sources(self) -> slice:
        """The five quantities of the terminals, one after the other."""
        return slice(self.pots.stop, self.pots.stop + 5 * self.terminals)

    @property
    def meters(self) -> slice:
        """The two quantities of the nodes' meters."""
        return slice(self.sources.stop, self.sources.stop + 2 * self.nodes)

    @property
    def leak(self) -> int:
        """What each meter puts between its node and 0 V, one number for all, in siemens."""
        return int(self.meters.stop)

    @property
    def size(self) -> int:
        """Length P of θ."""
        return self.leak + 1

    def of_terminal(self, quantity: int) -> slice:
        """Return quantity 0 … 4 (gain, offset, series, ammeter gain, ammeter offset) of all terminals."""
        start = self.sources.start + quantity * self.terminals
        return slice(start, start + self.terminals)

    def of_node(self, quantity: int) -> slice:
        """Return quantity 0 or 1 (gain, offset) of all nodes' meters."""
        start = self.meters.start + quantity * self.nodes
        return slice(start, start + self.nodes)


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted readings (R,) of a pattern, sample by sample: the nodes' volts, then the driven terminals' amperes.

    ``jacobian`` (R, P) by θ, or None. ``sample``, ``is_volts`` and ``place`` (R,): of which drive, of which kind, and
    at which node or terminal each reading is.
    """

    values: FloatArray
    jacobian: FloatArray | None
    sample: IntArray
    is_volts: BoolArray
    place: IntArray


class BoardModel:
    """Predicts readings of a network whose edges are potentiometers.

    ``terms``: number of non-linearity terms of each pot's law. ``leaky`` (N,): nodes whose meter has an input
    resistance to 0 V. ``constant`` (M,): edges that do not follow their codes; their first value is a
    conductance in siemens and their others are not used.
    """

    def __init__(
        self,
        network: Network,
        pots: Sequence[Potentiometer],
        terms: int = 0,
        *,
        leaky: BoolArray | None = None,
        constant: BoolArray | None = None,
    ) -> None:
        self.network, self.pots, self.terms = network, tuple(pots), terms
        self.layout = Layout(network.n_edges, 2 + terms, len(network.terminals), network.n_nodes)
        self.leaky = np.zeros(network.n_nodes, dtype=np.bool_) if leaky is None else leaky
        self.constant = np.zeros(network.n_edges, dtype=np.bool_) if constant is None else constant
        positions = max(pot.positions for pot in self.pots)
        laws: dict[Potentiometer, FloatArray] = {}
        self._law = np.full((network.n_edges, positions, 2 + terms), np.nan)
        for row, pot in zip(self._law, self.pots, strict=True):
            row[: pot.positions] = laws.setdefault(pot, law_of(pot, terms))
        self._first, self._second = network.edges[:, 0], network.edges[:, 1]

    def nominal(self) -> FloatArray:
        """Return θ (P,) of the data sheet: nominal pots, ideal sources and meters."""
        layout = self.layout
        theta = np.zeros(layout.size)
        pots = theta[layout.pots].reshape(layout.edges, layout.terms)
        pots[:, 0] = [pot.series + pot.wiper for pot in self.pots]
        pots[:, 1] = [pot.end_to_end for pot in self.pots]
        theta[layout.of_terminal(0)] = theta[layout.of_terminal(3)] = theta[layout.of_node(0)] = 1.0
        return theta

    def conductances(self, theta: FloatArray, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return g (M,) in siemens at these codes and dg/dθ (M, Q) by each edge's own values."""
        values = theta[self.layout.pots].reshape(self.layout.edges, self.layout.terms)
        law = self._law[np.arange(len(codes)), codes]
        resistance = (law * values).sum(axis=1)
        resistance[self.constant] = 1.0
        follows = 1.0 / resistance
        slopes = -(follows**2)[:, None] * law
        slopes[self.constant] = 0.0
        slopes[self.constant, 0] = 1.0
        return np.where(self.constant, values[:, 0], follows), slopes

    def states(
        self, theta: FloatArray, conductances: FloatArray, drives: FloatArray
    ) -> list[tuple[IntArray, IntArray, FloatArray, FloatArray]]:
        """Return for each set of driven terminals: sample numbers, the terminals, K⁻¹, and z = (p, i) by sample."""
        layout, n = self.layout, self.layout.nodes
        gain, offset, series = (theta[layout.of_terminal(quantity)] for quantity in range(3))
        laplacian = np.zeros((n, n))
        np.add.at(laplacian, (self._first, self._first), conductances)
        np.add.at(laplacian, (self._second, self._second), conductances)
        np.add.at(laplacian, (self._first, self._second), -conductances)
        np.add.at(laplacian, (self._second, self._first), -conductances)
        laplacian[np.arange(n), np.arange(n)] += theta[layout.leak] * self.leaky
        # Amperes in units of the board's own conductance times volts: K is then well scaled.
        unit = float(np.abs(np.diagonal(laplacian)).max())
        answers: list[tuple[IntArray, IntArray, FloatArray, FloatArray]] = []
        masks, member = np.unique(np.isfinite(drives), axis=0, return_inverse=True)
        for index, mask in enumerate(masks):
            rows, driven = np.flatnonzero(member.reshape(-1) == index), np.flatnonzero(mask)
            size = n + len(driven)
            matrix = np.zeros((size, size))
            matrix[:n, :n] = laplacian / unit
            nodes = self.network.terminals[driven]
            matrix[nodes, np.arange(n, size)] = -1.0
            matrix[np.arange(n, size), nodes] = 1.0
            matrix[np.arange(n, size), np.arange(n, size)] = series[driven] * unit
            inverse: FloatArray = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
            inverse[:, :n] /= unit
            inverse[n:] *= unit
            applied = gain[driven] * drives[np.ix_(rows, driven)] + offset[driven]
            answers.append((rows, driven, inverse, applied @ inverse[:, n:].T))
        return answers

    def predict(
        self,
        theta: FloatArray,
        codes: IntArray,
        drives: FloatArray,
        metered: BoolArray,
        ammeters: BoolArray,
        *,
        jacobian: bool = True,
    ) -> Predicted:
        """Return what ``metered`` nodes (N,) and ``ammeters`` (T,) read at codes (M,) under drives (S, T)."""
        layout, n, edges = self.layout, self.layout.nodes, self.layout.edges
        conductances, slopes = self.conductances(theta, codes)
        node_gain, node_offset = theta[layout.of_node(0)], theta[layout.of_node(1)]
        amp_gain, amp_offset = theta[layout.of_terminal(3)], theta[layout.of_terminal(4)]
        nodes = np.flatnonzero(metered)
        values, derivatives, samples, kinds, places = [], [], [], [], []
        for rows, driven, inverse, state in self.states(theta, conductances, drives):
            seen = driven[ammeters[driven]]
            picked = np.concatenate([nodes, n + np.flatnonzero(ammeters[driven])])
            gain = np.concatenate([node_gain[nodes], amp_gain[seen]])
            offset = np.concatenate([node_offset[nodes], amp_offset[seen]])
            raw = state[:, picked]
            values.append((gain * raw + offset).ravel())
            samples.append(np.repeat(rows, len(picked)))
            kinds.append(np.tile(np.arange(len(picked)) < len(nodes), len(rows)))
            places.append(np.tile(np.concatenate([nodes, seen]), len(rows)))
            if not jacobian:
                continue
            block = np.zeros((len(rows), len(picked), layout.size))
            by_node = gain[:, None] * inverse[picked]
            adjoint = by_node[:, self._first] - by_node[:, self._second]
            voltages = state[:, self._first] - state[:, self._second]
            by_conductance = -adjoint[None] * voltages[:, None, :]
            block[:, :, layout.pots] = (by_conductance[..., None] * slopes).reshape(
                len(rows), len(picked), edges * layout.terms
            )
            by_volt = by_node[:, n:]
            columns = driven
            block[:, :, layout.of_terminal(0).start + columns] = by_volt * drives[np.ix_(rows, driven)][:, None, :]
            block[:, :, layout.of_terminal(1).start + columns] = by_volt
            block[:, :, layout.of_terminal(2).start + columns] = -by_volt * state[:, None, n:]
            block[:, :, layout.leak] = -(state[:, :n] * self.leaky) @ by_node[:, :n].T
            at_nodes, at_seen = np.arange(len(nodes)), len(nodes) + np.arange(len(seen))
            block[:, at_seen, layout.of_terminal(3).start + seen] = raw[:, at_seen]
            block[:, at_seen, layout.of_terminal(4).start + seen] = 1.0
            block[:, at_nodes, layout.of_node(0).start + nodes] = raw[:, at_nodes]
            block[:, at_nodes, layout.of_node(1).start + nodes] = 1.0
            derivatives.append(block.reshape(-1, layout.size))
        return Predicted(
            np.concatenate(values),
            np.concatenate(derivatives) if jacobian else None,
            np.concatenate(samples),
            np.concatenate(kinds),
            np.concatenate(places),
        )

    def measured(self, record: PatternReadings, predicted: Predicted) -> FloatArray:
        """Return the readings (R,) of a record in the order of a prediction."""
        where = predicted.sample, predicted.place
        terminals = np.where(predicted.is_volts, 0, predicted.place)
        nodes = np.where(predicted.is_volts, predicted.place, 0)
        volts: FloatArray = record.potentials[where[0], nodes]
        return np.where(predicted.is_volts, volts, record.currents[where[0], terminals])
