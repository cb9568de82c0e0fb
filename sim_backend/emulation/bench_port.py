"""What lies between an emulated instrument and its node: the bench's source and meter errors."""

from dataclasses import dataclass, replace

import numpy as np

from hilcl.sim_backend.emulation.port import Applied, Port, Seen
from hilcl.sim_backend.imperfections import SourceDefects


@dataclass(frozen=True)
class MeterError:
    """What one meter channel makes of its node: ``gain``·volts + ``offset``, ``noise`` rms, steps of ``resolution``."""

    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    resolution: float = 0.0


class BenchPort:
    """A port with the errors of one source and one meter channel; ``generator`` draws the noise of its readings."""

    def __init__(
        self,
        port: Port,
        generator: np.random.Generator,
        *,
        source: SourceDefects | None = None,
        source_offset: float = 0.0,
        meter: MeterError | None = None,
    ) -> None:
        self._port, self.generator = port, generator
        self._source, self._source_offset = source or SourceDefects(), source_offset
        self._meter = meter or MeterError()
        self.tripped = False
        """Whether the source reports its limit, whatever the circuit does."""

    def apply(self, applied: Applied) -> None:
        """Apply it with the source's offset, series resistance and current limit."""
        if applied.kind == "voltage":
            source = self._source
            applied = replace(
                applied,
                level=applied.level + self._source_offset,
                series=applied.series + source.series,
                limit=min(applied.limit, source.compliance),
            )
        self._port.apply(applied)

    def see(self) -> Seen:
        """Return the node as the meter reads it."""
        seen, meter = self._port.see(), self._meter
        volts = seen.volts * meter.gain + meter.offset
        if meter.noise:
            volts += meter.noise * float(self.generator.standard_normal())
        if meter.resolution:
            volts = float(np.rint(volts / meter.resolution) * meter.resolution)
        return replace(seen, volts=volts, limited=seen.limited or self.tripped)
