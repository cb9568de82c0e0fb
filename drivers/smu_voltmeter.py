"""An SMU that reads its own terminals, as a Voltmeter."""

import math
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from hilcl.devices import SourceReadings, VoltReadings
from hilcl.drivers.smu import Smu
from hilcl.errors import InputError, MeasurementError


class SmuVoltmeter:
    """Some or all channels of an SMU as meter channels; what they source is left to whoever drives the SMU.

    To use a channel as a meter alone, drive it with NaN: it then sources 0 A and reads the node it is on. The SMU
    must be open. ``close`` closes it.
    """

    def __init__(self, smu: Smu, channels: Sequence[str] | None = None) -> None:
        self.smu = smu
        self._channels = smu.channels if channels is None else tuple(channels)
        unknown = [channel for channel in self._channels if channel not in smu.channels]
        if unknown or not self._channels:
            raise InputError(
                f"{smu.name} has channels {', '.join(smu.channels)}, but {unknown or 'none'} are to be read"
            )
        if smu.settings.free_mode != "zero_amp":
            raise InputError(
                f"{smu.name} floats by {smu.settings.free_mode!r} and is then cut off from the node it should read"
            )
        self._indices = [smu.channels.index(channel) for channel in self._channels]

    @property
    def identity(self) -> str:
        """Identity of the SMU."""
        return self.smu.identity

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are read."""
        return self._channels

    def read(self, averages: int = 1) -> VoltReadings:
        """Read the terminals, the mean of ``averages`` readings.

        ``volts_u`` combines the scatter of the mean with the resolution; a single reading has no scatter to tell.
        Raises MeasurementError for a reading in compliance.
        """
        return self.read_both(averages)[1]

    @property
    def bank(self) -> Smu:
        """The SMU, whose other channels are read in the same measurements."""
        return self.smu

    def read_both(self, averages: int = 1) -> tuple[SourceReadings, VoltReadings]:
        """Return the readings of all channels of the SMU, currents of the first measurement, and those of ``read``."""
        check_averages(self.smu.name, averages)
        return self.smu.run(lambda: self._read(averages))

    def start_read(self, averages: int = 1) -> "Future[VoltReadings]":
        """Start ``read`` in the SMU's owner thread."""
        check_averages(self.smu.name, averages)
        return self.smu.submit(lambda: self._read(averages)[1])

    def make_safe(self) -> None:
        """Make the SMU safe."""
        self.smu.make_safe()

    def close(self) -> None:
        """Close the SMU."""
        self.smu.close()

    def _read(self, averages: int) -> tuple[SourceReadings, VoltReadings]:
        rows, taken = [], []
        for _ in range(averages):
            readings = self.smu.read()
            at_limit = [
                name for name, index in zip(self._channels, self._indices, strict=True) if readings.in_compliance[index]
            ]
            if at_limit:
                raise MeasurementError(
                    f"{self.smu.name} channel {at_limit[0]} is in compliance, so its reading is none: raise its "
                    "limits or check "
                    "what drives its node"
                )
            taken.append(readings)
            rows.append(readings.volts[self._indices])
        ranges = [
            channel.floating_range if channel.mode == "float" else channel.volts_range
            for channel in (self.smu.channel(name) for name in self._channels)
        ]
        limited = np.any([readings.in_compliance for readings in taken], axis=0)
        sourced = SourceReadings(taken[0].volts, taken[0].amperes, limited)
        return sourced, averaged(np.array(rows), self.smu.model.resolution * np.array(ranges))


def averaged(
    rows: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", steps: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> VoltReadings:
    """Return the mean of readings (A, C) and its standard uncertainty, for a meter of that resolution (C,), V.

    The variance of the mean is that of the scatter over A, plus step²/12 for the rounding, which averaging need not
    remove (JCGM 100:2008, F.2.2.1).
    """
    count = rows.shape[0]
    scatter = rows.var(axis=0, ddof=1) / count if count > 1 else np.zeros(rows.shape[1])
    return VoltReadings(volts=rows.mean(axis=0), volts_u=np.sqrt(scatter + steps**2 / 12))


def check_averages(name: str, averages: int) -> None:
    """Raise InputError for a number of readings that makes no sense."""
    if averages < 1 or not math.isfinite(averages):
        raise InputError(f"{name} averages 1 or more readings, not {averages}")
