"""Whether clamps take: a source that carries no current into an output that is not where it was told is cut off.

A clamp that lets go between the readings of its current and of its voltage shows by what it did the last time.
"""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import BoolArray, FloatArray
from hilcl.board import Response
from hilcl.errors import MeasurementError
from hilcl.network import Network

CONNECTED = 0.03
"""Part of the largest clamp current of a measurement that shows a source to be connected to its output."""

KNOWN_AFTER = 5
"""Readings after which it is known how far meter and source of an output differ."""

SLACK, SLACK_BEFORE = 5e-4, 5e-3
"""Part of the highest drive by which they may differ otherwise than so far, when that is known and before."""

REPEATED = 1e-5
"""Part of the highest drive by which meter and source may differ otherwise than when the source was last told the same,
on top of noise and of what leads explain, once the noise is known."""

REPEATS = 4
"""Readings with the source told the same as before after which the noise is known."""

DEVIATIONS = 7.0
"""Standard deviations allowed, and more while few readings say how large they are: a run compares millions."""


@dataclass(frozen=True)
class _Measured:
    """What one measurement showed, each (S, O): volts told and found otherwise, and amperes."""

    told: FloatArray
    apart: FloatArray
    amperes: FloatArray

    def moved(self, before: "_Measured") -> FloatArray:
        """Return by how many volts (S, O) outputs are elsewhere than when told the same, NaN where told others."""
        if before.told.shape != self.told.shape:
            return np.full(self.told.shape, np.nan)
        moved: FloatArray = np.where(self.told == before.told, np.abs(self.apart - before.apart), np.nan)
        return moved


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
        self._before: _Measured | None = None
        self._lead = np.full(len(network.outputs), np.inf)
        self._noise = _Noise(len(network.outputs))

    def check(self, clamp: FloatArray, nudged: Response) -> None:
        """Raise MeasurementError for an output whose source is cut off; ``clamp`` (S, O) volts is what was told."""
        if not np.isfinite(self._volts) or not clamp.size:
            return
        outputs = self._network.outputs
        apart = nudged.potentials[:, outputs] - clamp
        self._noise.state(nudged.potentials_u[:, outputs])
        noise = self._noise.allowed()
        currents = nudged.currents[:, -len(outputs) :]
        amperes = np.abs(currents)
        # Where no source tells its current, nothing can be said.
        largest = np.max(amperes, initial=0.0, where=np.isfinite(amperes))
        connected = amperes > CONNECTED * largest
        cut_off = amperes <= CONNECTED * largest
        now = _Measured(clamp.copy(), apart, currents)
        moved, explained = self._moved(now)
        still = np.where(self._noise.known(), REPEATED, SLACK_BEFORE) * self._volts
        let_go = moved > still + noise + explained
        for sample in range(len(clamp)):
            known = self._seen >= KNOWN_AFTER
            slack = np.where(known, SLACK * self._volts + np.maximum(self._high - self._low, 0.0), 0.0)
            slack = np.where(known, slack, SLACK_BEFORE * self._volts) + noise
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
            if self._before is not None and let_go[sample].any():
                output = int(np.flatnonzero(let_go[sample])[0])
                raise MeasurementError(
                    f"sample {sample}: {self._network.name(int(outputs[output]))} is {apart[sample, output]:.3g} V "
                    f"from what its source was told, and was {self._before.apart[sample, output]:.3g} V from the same "
                    "before: check the clamp's relay and its wiring"
                )
            learnt = connected[sample] & np.isfinite(apart[sample])
            self._low = np.where(learnt, np.minimum(self._low, apart[sample]), self._low)
            self._high = np.where(learnt, np.maximum(self._high, apart[sample]), self._high)
            self._seen = self._seen + learnt
        self._noise.see(moved - explained)
        self._learn_leads(now, moved)
        self._before = now

    def _moved(self, now: _Measured) -> tuple[FloatArray, FloatArray]:
        """Return the volts (S, O) by which outputs are elsewhere than before, and what their leads explain."""
        if self._before is None:
            return np.full(now.told.shape, np.nan), np.zeros(now.told.shape)
        change = np.abs(now.amperes - self._before.amperes)
        return now.moved(self._before), np.where(change == 0.0, 0.0, self._lead) * change

    def _learn_leads(self, now: _Measured, moved: FloatArray) -> None:
        """Bound the ohms of each lead: by what meter and source are apart, and by how that changes with the current."""
        noise = self._noise.allowed()
        most = _ohms(np.abs(now.apart) + SLACK_BEFORE * self._volts + noise, now.amperes)
        if self._before is not None and self._before.told.shape == now.told.shape:
            change = moved + REPEATED * self._volts + noise
            most = np.fmin(most, _ohms(change, now.amperes - self._before.amperes))
        self._lead = np.fmin(self._lead, np.fmin.reduce(most, axis=0))


class _Noise:
    """How far readings of one potential differ: by what they state, and by what is seen when a source is told the same.

    A meter that does not average states nothing but its resolution, and one that is coarser than its noise shows
    none for long: the larger of the two counts.
    """

    def __init__(self, n_outputs: int) -> None:
        self._stated, self._seen = np.zeros((2, n_outputs))
        self._n_stated, self._n_seen = np.zeros((2, n_outputs), dtype=np.int64)

    def state(self, volts_u: FloatArray) -> None:
        """Take standard uncertainties (S, O) of readings, NaN where there are none."""
        self._stated += np.nansum(volts_u**2, axis=0)
        self._n_stated += np.isfinite(volts_u).sum(axis=0)

    def see(self, moved: FloatArray) -> None:
        """Take differences (S, O) of readings that should be the same, NaN where they should not."""
        self._seen += np.nansum(np.maximum(moved, 0.0) ** 2, axis=0)
        self._n_seen += np.isfinite(moved).sum(axis=0)

    def known(self) -> BoolArray:
        """Return for which outputs (O,) enough was seen."""
        enough: BoolArray = self._n_seen >= REPEATS
        return enough

    def allowed(self) -> FloatArray:
        """Return the volts (O,) by which two readings of one potential may differ."""
        stated = 2.0 * self._stated / np.maximum(self._n_stated, 1)
        seen = self._seen / np.maximum(self._n_seen, 1)
        few = 1.0 + REPEATS / np.maximum(self._n_seen, 1)
        allowed: FloatArray = DEVIATIONS * few * np.sqrt(np.maximum(stated, seen))
        return allowed


def _ohms(volts: FloatArray, amperes: FloatArray) -> FloatArray:
    """Return quotients, NaN where nothing flows."""
    ohms: FloatArray = volts / np.where(amperes == 0.0, np.nan, np.abs(amperes))
    return ohms
