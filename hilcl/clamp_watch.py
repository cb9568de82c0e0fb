"""Whether clamps take: a source that carries no current into an output that is not where it was told is cut off."""

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.board import Response
from hilcl.errors import MeasurementError
from hilcl.network import Network

CONNECTED = 0.03
"""Part of the largest clamp current of a measurement that shows a source to be connected to its output."""

KNOWN_AFTER = 5
"""Readings after which it is known how far meter and source of an output differ."""

SLACK, SLACK_BEFORE = 5e-4, 5e-3
"""Part of the highest drive by which they may differ otherwise than so far, when that is known and before."""

SCATTERS = 6.0
"""Standard uncertainties allowed on top."""


class ClampWatch:
    """Learns from clamps that carry current how far the meter of each output is from its source, and watches the rest.

    A clamp may rightly carry no current, but then its output is where it was told. Drives reach ``volts``; without such
    a limit nothing is judged.
    """

    def __init__(self, network: Network, volts: float) -> None:
        self._network, self._volts = network, volts
        self._low = np.full(len(network.outputs), np.inf)
        self._high = np.full(len(network.outputs), -np.inf)
        self._seen = np.zeros(len(network.outputs), dtype=np.int64)

    def check(self, clamp: FloatArray, nudged: Response) -> None:
        """Raise MeasurementError for an output whose source is cut off; ``clamp`` (S, O) volts is what was told."""
        if not np.isfinite(self._volts) or not clamp.size:
            return
        outputs = self._network.outputs
        apart = nudged.potentials[:, outputs] - clamp
        scatter = SCATTERS * np.nan_to_num(nudged.potentials_u[:, outputs])
        amperes = np.abs(nudged.currents[:, -len(outputs) :])
        # Where no source tells its current, nothing can be said.
        largest = np.max(amperes, initial=0.0, where=np.isfinite(amperes))
        connected = amperes > CONNECTED * largest
        cut_off = amperes <= CONNECTED * largest
        for sample in range(len(clamp)):
            known = self._seen >= KNOWN_AFTER
            slack = np.where(known, SLACK * self._volts + np.maximum(self._high - self._low, 0.0), 0.0)
            slack = np.where(known, slack, SLACK_BEFORE * self._volts) + scatter[sample]
            unseen = self._seen == 0
            low, high = np.where(unseen, 0.0, self._low) - slack, np.where(unseen, 0.0, self._high) + slack
            wrong = cut_off[sample] & ((apart[sample] < low) | (apart[sample] > high))
            if wrong.any():
                output = int(np.flatnonzero(wrong)[0])
                raise MeasurementError(
                    f"sample {sample}: the source at {self._network.name(int(outputs[output]))} carries no current, "
                    f"but its meter is {apart[sample, output]:.3g} V from what the source was told: check the clamp's "
                    "relay and its wiring"
                )
            learnt = connected[sample] & np.isfinite(apart[sample])
            self._low = np.where(learnt, np.minimum(self._low, apart[sample]), self._low)
            self._high = np.where(learnt, np.maximum(self._high, apart[sample]), self._high)
            self._seen = self._seen + learnt
