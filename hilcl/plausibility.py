"""Whether readings can be those of a board of resistors; nothing here needs to know the conductances."""

from collections.abc import Sequence

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.network import Network

SLACK = 0.05
"""Part of the highest drive by which a node may lie outside its neighbours: imperfect meters stay far below."""

DISAGREEMENT = 0.02
"""Part of the highest drive by which two meters of one node may differ."""

SCATTER = 0.005
"""Standard uncertainty of a mean of readings above which one of them was none, as a part of the highest drive."""


class Plausibility:
    """The checks of one board, whose drives reach ``volts``; without such a limit nothing is implausible."""

    def __init__(self, network: Network, volts: float) -> None:
        self._network, self._volts = network, volts

    def doubt(self, drive: FloatArray, potentials: FloatArray, sourced: FloatArray) -> str | None:
        """Return what is impossible about a response, None where nothing is.

        ``drive`` (T,) volts with NaN floating, ``potentials`` (N,) as read, NaN where nobody reads, and ``sourced``
        (N,), the same as the sources' own meters have it, NaN where they cannot tell.

        A node read by two meters has one potential, and a floating node lies between its neighbours (the maximum
        principle for resistor networks).
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
        return self._outside(drive, potentials, slack)

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
