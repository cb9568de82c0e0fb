"""Whether readings can be those of a board of resistors; nothing here needs to know the conductances."""

from collections.abc import Sequence

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.network import Network

SLACK = 0.05
"""Part of the highest drive by which a node may lie outside its neighbours: imperfect meters stay far below."""

DISAGREEMENT = 0.02
"""Part of the highest drive by which two meters of one node may differ."""

UNBALANCED = 0.5
"""Part of the currents at a node that may be missing in their sum: uncalibrated pots are within some 30 %."""

SCATTER = 0.005
"""Standard uncertainty of a mean of readings above which one of them was none, as a part of the highest drive."""


class Plausibility:
    """The checks of one board, whose drives reach ``volts``; without such a limit nothing is implausible."""

    def __init__(self, network: Network, volts: float) -> None:
        self._network, self._volts = network, volts

    def doubt(
        self,
        drive: FloatArray,
        potentials: FloatArray,
        sourced: FloatArray,
        conductances: FloatArray,
        currents: FloatArray,
    ) -> str | None:
        """Return what is impossible about a response, None where nothing is.

        ``drive`` (T,) volts with NaN floating, ``potentials`` (N,) as read, NaN where nobody reads, and ``sourced``
        (N,), the same as the sources' own meters have it, NaN where they cannot tell. ``conductances`` (M,) in siemens
        are what the pots should have, ``currents`` (T,) in amperes those of the sources, NaN where they cannot tell.

        A node read by two meters has one potential, a floating node lies between its neighbours (the maximum
        principle for resistor networks), and the currents at a node add up to zero.
        """
        if not np.isfinite(self._volts):
            return None
        slack = SLACK * self._volts
        apart = np.abs(potentials - sourced) > DISAGREEMENT * self._volts
        if apart.any():
            node = int(np.flatnonzero(apart)[0])
            return (
                f"{self._network.name(node)} reads {potentials[node]:.4g} V on its meter and {sourced[node]:.4g} V "
                "on its source: check the relay or the wire between them"
            )
        return self._outside(drive, potentials, slack) or self._unbalanced(drive, potentials, conductances, currents)

    def _outside(self, drive: FloatArray, potentials: FloatArray, slack: float) -> str | None:
        network = self._network
        low, high = np.full(network.n_nodes, np.inf), np.full(network.n_nodes, -np.inf)
        known = np.isfinite(potentials)
        for one, other in (network.edges.T, network.edges.T[::-1]):
            # Where a neighbour is not read, nothing is known.
            np.minimum.at(low, one, np.where(known[other], potentials[other], -np.inf))
            np.maximum.at(high, one, np.where(known[other], potentials[other], np.inf))
        free = known & (low <= high)
        free[network.terminals[~np.isnan(drive)]] = False
        wrong = free & ((potentials < low - slack) | (potentials > high + slack))
        if not wrong.any():
            return None
        node = int(np.flatnonzero(wrong)[0])
        return (
            f"{network.name(node)} floats and reads {potentials[node]:.4g} V, but its neighbours lie between "
            f"{low[node]:.4g} V and {high[node]:.4g} V: check its meter and that nothing else drives it"
        )

    def _unbalanced(
        self, drive: FloatArray, potentials: FloatArray, conductances: FloatArray, currents: FloatArray
    ) -> str | None:
        network = self._network
        (one, other), nodes = network.edges.T, network.n_nodes
        amperes = conductances * (potentials[one] - potentials[other])
        fed = np.zeros(nodes)
        # Where all say zero, they may not know.
        told = bool(np.nan_to_num(currents).any())
        fed[network.terminals] = np.where(np.isnan(drive), 0.0, currents if told else np.nan)
        # A neighbour that is not read, or a source that does not tell its current, makes NaN, which is never wrong.
        missing = fed + np.bincount(other, amperes, nodes) - np.bincount(one, amperes, nodes)
        flowing = np.bincount(one, np.abs(amperes), nodes) + np.bincount(other, np.abs(amperes), nodes)
        held = np.bincount(one, conductances, nodes) + np.bincount(other, conductances, nodes)
        wrong = np.abs(missing) > UNBALANCED * flowing + DISAGREEMENT * self._volts * held
        if not wrong.any():
            return None
        node = int(np.flatnonzero(wrong)[0])
        return (
            f"{network.name(node)}: by the codes of its pots, {abs(missing[node]):.3g} A of {flowing[node]:.3g} A "
            "come from nowhere: check the output relays of the sources at it and beside it, its meter and its pots"
        )

    def scattered(self, nodes: Sequence[int], volts_u: FloatArray) -> str | None:
        """Return which of the means read at ``nodes`` scatters too much to be one, (C,) standard uncertainties in V."""
        if not np.isfinite(self._volts):
            return None
        for node, uncertainty in zip(nodes, volts_u.tolist(), strict=True):
            if node >= 0 and uncertainty > SCATTER * self._volts:
                return (
                    f"the readings of {self._network.name(node)} scatter by {uncertainty:.2g} V: check its wiring and "
                    "shielding"
                )
        return None
