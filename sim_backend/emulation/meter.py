"""The analogue half of a scanning voltmeter: what a channel reads of its node, and what that takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hilcl.errors import InputError
from hilcl.sim_backend.emulation.port import Clock, Port


@dataclass(frozen=True)
class ChannelError:
    """How one channel differs from the truth: reading = (1 + ``gain``)·volts + ``offset`` volts."""

    gain: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class MeterErrors:
    """What the meter adds, all off by default.

    ``channels`` by number; ``noise`` volts rms per reading at 1 NPLC, falling with its square root; ``resolution``
    volts per count (0 for none); ``digits`` significant digits on the wire, None for all that a double has.
    """

    channels: Mapping[int, ChannelError] = field(default_factory=dict)
    noise: float = 0.0
    resolution: float = 0.0
    digits: int | None = None

    def __post_init__(self) -> None:
        for name in ("noise", "resolution"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"meter: {name} must be a number and not negative, got {value}")
        if self.digits is not None and not 1 <= self.digits <= 17:
            raise InputError(f"meter: digits must lie between 1 and 17, got {self.digits}")


IDEAL_METER = MeterErrors()


class ScanningMeter:
    """Multiplexer and voltmeter: channels by number, each wired to a port.

    A channel that is not wired reads 0 V. The input resistance is the circuit's: it is there whether or not the
    channel is closed, as the board's leakage is.
    """

    def __init__(
        self,
        ports: Mapping[int, Port],
        clock: Clock,
        errors: MeterErrors = IDEAL_METER,
        *,
        relay_seconds: float,
        seed: int = 0,
    ) -> None:
        self._ports, self._clock, self._errors = dict(ports), clock, errors
        self._relay_seconds = relay_seconds
        self._noise = np.random.default_rng(seed)
        self.closed: int | None = None

    @property
    def now(self) -> float:
        """Emulated seconds now."""
        return self._clock.now()

    def close(self, channel: int) -> None:
        """Close a channel and open the one before; nothing happens where it is closed already."""
        if channel != self.closed:
            self.closed = channel
            self._clock.spend(self._relay_seconds)

    def open(self) -> None:
        """Open the channel that is closed."""
        if self.closed is not None:
            self.closed = None
            self._clock.spend(self._relay_seconds)

    def wait(self, seconds: float) -> None:
        """Let emulated time pass."""
        if seconds > 0:
            self._clock.spend(seconds)

    def read(self, seconds: float, cycles: float) -> float:
        """Integrate the closed channel for ``seconds``, that is ``cycles`` power line cycles; return volts."""
        self.wait(seconds)
        port = None if self.closed is None else self._ports.get(self.closed)
        volts = 0.0 if port is None else port.see().volts
        error = self._errors.channels.get(self.closed or 0, ChannelError())
        volts = volts * (1 + error.gain) + error.offset
        if self._errors.noise:
            volts += self._errors.noise / math.sqrt(max(cycles, 1e-3)) * float(self._noise.standard_normal())
        if self._errors.resolution:
            volts = round(volts / self._errors.resolution) * self._errors.resolution
        return volts
