"""Scanning multimeters as a Voltmeter: a scan list, a delay per channel, fixed range and integration time, averages."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilcl.devices import VoltReadings
from hilcl.drivers.instrument import VisaInstrument
from hilcl.drivers.properties import Property
from hilcl.drivers.smu import NOT_A_NUMBER
from hilcl.drivers.smu_voltmeter import averaged, check_averages
from hilcl.drivers.visa_session import LinkError, LinkOptions
from hilcl.errors import InputError, MeasurementError


@dataclass(frozen=True)
class ScannerModel:
    """What a model can do: voltage ranges (V), line cycles, the most sweeps of one scan, and its resolutions.

    ``resolutions`` are pairs in ascending order: from that many line cycles on, a reading is good to that fraction of
    its range. ``nplc_values`` lists the only integration times where a model has no continuous choice.
    """

    name: str
    volt_ranges: tuple[float, ...]
    nplc: tuple[float, float]
    most_averages: int
    resolutions: tuple[tuple[float, float], ...]
    nplc_values: tuple[float, ...] = ()

    @property
    def volt_range(self) -> tuple[float, float]:
        """Values that select a range, V."""
        return 0.0, self.volt_ranges[-1]

    @property
    def averages(self) -> tuple[float, float]:
        """Numbers of sweeps one scan can take."""
        return 1, self.most_averages

    def resolution(self, nplc: float) -> float:
        """Return the smallest step of a reading as a fraction of its range."""
        return next(step for least, step in reversed(self.resolutions) if least <= nplc)


@dataclass(frozen=True)
class ScannerSettings:
    """How the channels are read, all alike: range in V, integration in line cycles, delay after the relay in seconds.

    ``delay`` None leaves it to the instrument. ``autozero`` off takes half the time and drifts.
    """

    volts_range: float = 10.0
    nplc: float = 1.0
    delay: float | None = None
    autozero: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.volts_range) and self.volts_range > 0):
            raise InputError(
                f"the range of a voltmeter must be a positive number of volts, but it is {self.volts_range}"
            )
        if self.delay is not None and not 0 <= self.delay <= 60:
            raise InputError(f"the channel delay must lie between 0 and 60 s, but it is {self.delay}")


class Scanner(VisaInstrument[ScannerModel], ABC):
    """A scanning multimeter: a Voltmeter.

    Every reading comes with the number of its channel, so that none can be taken for another's. Nothing is ever
    sourced.
    """

    def __init__(
        self,
        name: str,
        resource: str,
        channels: Sequence[str],
        settings: ScannerSettings | None = None,
        *,
        link: LinkOptions | None = None,
        model: str | None = None,
        serial: str | None = None,
    ) -> None:
        super().__init__(name, resource, link=link, model=model, serial=serial)
        self._channels = tuple(channels)
        bad = [channel for channel in self._channels if not (channel.isdecimal() and len(channel) in {3, 4})]
        if bad or not self._channels:
            raise InputError(
                f"{name}: channels are numbers such as 101 (slot 1, channel 01), not {bad[0] if bad else 'none'}"
            )
        repeated = [channel for channel in self._channels if self._channels.count(channel) > 1]
        if repeated:
            raise InputError(f"{name}: channel {repeated[0]} is listed twice")
        self.settings = ScannerSettings() if settings is None else settings
        self._averages = 0

    @property
    def address(self) -> str:
        """The channel list, which stands for ``{c}`` in commands: ``(@101,102)``."""
        return f"(@{','.join(self._channels)})"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels: ``("101", "102")``."""
        return self._channels

    def read(self, averages: int = 1) -> VoltReadings:
        """Scan the channels ``averages`` times in one message, and return their means.

        ``volts_u`` combines the scatter of the mean with the resolution; a single reading has no scatter to tell.
        Raises MeasurementError naming a channel that read no number.
        """
        check_averages(self.name, averages)
        return self.run(lambda: self._step(lambda: self._read(averages)))

    def start_read(self, averages: int = 1) -> "Future[VoltReadings]":
        """Start ``read`` in the owner thread."""
        check_averages(self.name, averages)
        return self.submit(lambda: self._step(lambda: self._read(averages)))

    # What families declare.

    @abstractmethod
    def setup(self) -> list[list[str]]:
        """Return the messages, as lists of commands, that set everything that matters."""
        ...

    def setup_checks(self) -> list[tuple[Property[Any], object]]:
        """Return properties to be read back after the set-up, with the values they must have."""
        return []

    @abstractmethod
    def _scan(self, averages: int, timeout: float) -> str:
        """Scan and return the answer: pairs of reading and channel, all separated by commas."""

    @abstractmethod
    def _averages_command(self, averages: int) -> str:
        """Return the command for the number of sweeps."""

    # The owner thread's work.

    def put(self, declared: Property[Any], value: object) -> str:
        """Return the message part that sets a property."""
        return declared.command(self, value)

    def _prepare(self) -> None:
        model, settings = self.model, self.settings
        low, high = model.nplc
        if not low <= settings.nplc <= high or (model.nplc_values and settings.nplc not in model.nplc_values):
            known = ", ".join(f"{value:g}" for value in model.nplc_values) or f"{low:g} to {high:g}"
            raise InputError(f"{self.name}: a {model.name} integrates over {known} line cycles, not {settings.nplc:g}")
        if settings.volts_range > model.volt_ranges[-1]:
            raise InputError(
                f"{self.name}: a {model.name} reads up to {model.volt_ranges[-1]:g} V, not {settings.volts_range:g} V"
            )
        for commands in self.setup():
            self._exchange(commands, [])
        self._averages = 0

    @property
    def used_range(self) -> float:
        """Range the instrument takes for the one asked for, V."""
        return next(value for value in self.model.volt_ranges if self.settings.volts_range <= value)

    def _read(self, averages: int) -> VoltReadings:
        if averages != self._averages:
            self._exchange([self._averages_command(averages)], [])
            self._averages = averages
        settings = self.settings
        delay = 0.1 if settings.delay is None else settings.delay
        # Twice, for autozero, at 50 Hz; plus the relay, and once more for good measure.
        duration = 2 * averages * len(self._channels) * (2 * settings.nplc / 50 + delay + 0.02)
        rows = self._parse(self._scan(averages, duration), averages)
        return averaged(rows, np.full(len(self._channels), self.model.resolution(settings.nplc) * self.used_range))

    def _parse(self, answer: str, averages: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        """Return the readings (A, C) in the order of ``channels``, whatever order the instrument scanned in."""
        fields = answer.split(",")
        count = averages * len(self._channels)
        try:
            values = [float(field) for field in fields[0::2]]
            names = [str(int(float(field))) for field in fields[1::2]]
        except (OverflowError, ValueError) as cause:  # int() of an infinite channel overflows
            raise self._no_scan(answer) from cause
        if len(values) != count or len(names) != count or any(names.count(name) != averages for name in self._channels):
            raise self._no_scan(answer)
        rows = np.empty((averages, len(self._channels)))
        seen = dict.fromkeys(self._channels, 0)
        for value, name in zip(values, names, strict=True):
            if not math.isfinite(value) or abs(value) >= NOT_A_NUMBER:
                raise MeasurementError(
                    f"{self.name} ({self.resource}) channel {name} read no number ({value:g}): its voltage is beyond "
                    "the range "
                    f"of {self.used_range:g} V or its wire is open"
                )
            rows[seen[name], self._channels.index(name)] = value
            seen[name] += 1
        return rows

    def _no_scan(self, answer: str) -> LinkError:
        return LinkError(
            f"{self.name} ({self.resource}) answered {answer[:80]!r} to a scan of {len(self._channels)} channels: "
            "check that "
            "the module is in its slot and that no other program uses the instrument",
            "garbage",
        )
