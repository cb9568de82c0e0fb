"""Source-measure units as a bank of sources: volts with a current limit, or floating, with every change verified."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.devices import SourceReadings
from hilcl.drivers.instrument import VisaInstrument
from hilcl.drivers.properties import Property
from hilcl.drivers.visa_session import LinkError, LinkOptions, VisaSession, patiently
from hilcl.errors import BoardError, InputError, MeasurementError

FreeMode = Literal["zero_amp", "himp", "relay"]
Mode = Literal["off", "volts", "float"]
NOT_A_NUMBER = 9.9e37
"""SCPI's "not a number" and "infinity" are 9.91e37 and 9.9e37 (SCPI-99, volume 1, 7.2.1.5)."""
RELAY_LEAKAGE = 1e-3
"""Part of the current limit that an ammeter may show behind an open relay, for its offset."""
RELAY_DRIFT = 5e-5
"""Part of the current limit by which it may change from one open relay to the next."""
LIMIT_TOLERANCE = 0.01
"""A limit read back may differ from the one asked for by this much, for the instrument's rounding."""

RAMP_PATIENCE = 1.0
"""Seconds an answer may take while a source that somebody left on is ramped; then it is switched off at once."""


@dataclass(frozen=True)
class SmuModel:
    """What a model can do: ranges in ascending order (V and A), the highest level, line cycles, and its resolution.

    ``resolution`` is the smallest step of a voltage reading as a fraction of the range.
    """

    name: str
    channels: tuple[str, ...]
    volt_ranges: tuple[float, ...]
    amp_ranges: tuple[float, ...]
    most_volts: float
    most_amps: float
    nplc: tuple[float, float]
    resolution: float

    @property
    def volts(self) -> tuple[float, float]:
        """Levels a voltage source can take, V."""
        return -self.most_volts, self.most_volts

    @property
    def amps(self) -> tuple[float, float]:
        """Levels a current source can take, A."""
        return -self.most_amps, self.most_amps

    @property
    def volt_limit(self) -> tuple[float, float]:
        """Voltage limits of a current source, V; 0.1 % of the lowest range is the least any family takes."""
        return self.volt_ranges[0] * 1e-3, self.most_volts

    @property
    def amp_limit(self) -> tuple[float, float]:
        """Current limits of a voltage source, A."""
        return self.amp_ranges[0] * 1e-3, self.most_amps

    @property
    def volt_range(self) -> tuple[float, float]:
        """Values that select a voltage range, V."""
        return 0.0, self.most_volts

    @property
    def amp_range(self) -> tuple[float, float]:
        """Values that select a current range, A."""
        return 0.0, self.most_amps


class Relay(Protocol):
    """A switch between a source channel and the board, operated by someone else (the pot board, a switch matrix)."""

    def switch(self, channel: str, closed: bool) -> None:
        """Close or open the switch of a channel and return when it has settled."""
        ...


@dataclass(frozen=True)
class SmuSettings:
    """How the channels of an SMU are used; ranges stay fixed inside the training loop.

    ``limit_volts`` is the highest |level| that may be asked for and ``limit_amperes`` the current limit while
    sourcing volts. ``float_volts`` is the voltage limit while floating by ``zero_amp``; it must lie above the highest
    node voltage and is 1.2 times ``limit_volts`` if None. ``free_mode``: "zero_amp" sources 0 A with the output on;
    "himp" turns the output off with its relay open (slow, and it wears the relay); "relay" opens a ``Relay``.
    ``nplc`` is the integration time in power line cycles. Ranges are the smallest that hold the limits if None;
    ``float_range`` is the instrument's lowest.
    """

    limit_volts: float
    limit_amperes: float
    float_volts: float | None = None
    free_mode: FreeMode = "zero_amp"
    nplc: float = 1.0
    four_wire: bool = False
    volts_range: float | None = None
    amperes_range: float | None = None
    float_range: float | None = None
    autozero: bool = True
    ramp_steps: int = 4

    def __post_init__(self) -> None:
        for key in ("limit_volts", "limit_amperes"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{key} must be a positive number, but it is {value}")
        if self.float_volts is not None and not self.float_volts > self.limit_volts:
            raise InputError(
                f"float_volts ({self.float_volts:g} V) must lie above limit_volts ({self.limit_volts:g} V), or a "
                "floating "
                "node would be clamped"
            )
        if self.free_mode not in {"zero_amp", "himp", "relay"}:
            raise InputError(f"free_mode must be zero_amp, himp or relay, but it is {self.free_mode!r}")
        if self.ramp_steps < 1:
            raise InputError(f"ramp_steps must be at least 1, but it is {self.ramp_steps}")

    @property
    def floating_limit(self) -> float:
        """Voltage limit while floating, V."""
        return 1.2 * self.limit_volts if self.float_volts is None else self.float_volts


@dataclass(frozen=True)
class SmuReading:
    """What one channel measured: volts, amperes, and whether it was at a limit or over its range."""

    volts: float
    amperes: float
    in_compliance: bool


@dataclass(frozen=True)
class FloatOffset:
    """Current a floating channel sources at 0 A, before and after its correction, and the standard uncertainty, A."""

    channel: str
    before: float
    after: float
    uncertainty: float


class SmuChannel(ABC):
    """One channel: its properties, and the parts of messages that change its state.

    Families declare the properties below and what is particular to them.
    """

    output: Property[bool]
    source_function: Property[str]
    source_volts: Property[float]
    source_amps: Property[float]
    amps_limit: Property[float]
    volts_limit: Property[float]
    off_state: Property[str]

    def __init__(self, smu: "Smu", name: str) -> None:
        self.smu, self.name = smu, name
        self.mode: Mode = "off"
        self.level = math.nan
        self.powered = False
        """Whether the output is meant to be on."""
        self.leakage: float | None = None
        """Current first read behind an open relay, A: the ammeter's offset."""
        self.trim = 0.0
        """Current sourced while floating, A: the opposite of the offset current found by calibration."""

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.smu.name if len(self.smu.model.channels) == 1 else f"{self.smu.name} channel {self.name}"

    @property
    def address(self) -> str:
        """What stands for the channel in commands."""
        return self.name

    @property
    def model(self) -> SmuModel:
        """Data of the instrument's model."""
        return self.smu.model

    @property
    def settings(self) -> SmuSettings:
        """How the channel is used."""
        return self.smu.settings

    def exchange(self, commands: list[str], questions: list[str]) -> list[str]:
        """Send one message through the instrument's link."""
        return self.smu.exchange(commands, questions)

    def put(self, declared: Property[Any], value: object) -> str:
        """Return the message part that sets a property."""
        return declared.command(self, value)

    @property
    def volts_range(self) -> float:
        """Range of the voltage source, V."""
        return self.settings.volts_range or self._holding("volt_ranges", self.settings.limit_volts, "limit_volts", "V")

    @property
    def amps_range(self) -> float:
        """Range of current readings while sourcing volts, A."""
        ranged = self.settings.amperes_range
        return ranged or self._holding("amp_ranges", self.settings.limit_amperes, "limit_amperes", "A")

    @property
    def floating_range(self) -> float:
        """Range of voltage readings while floating, V."""
        return self._holding("volt_ranges", self.settings.floating_limit, "float_volts", "V")

    @property
    def float_range(self) -> float:
        """Range of the current source while floating, A: the lowest, whose offset is least."""
        return self.settings.float_range or self.model.amp_ranges[0]

    def _holding(self, ranges: str, value: float, key: str, unit: str) -> float:
        available: tuple[float, ...] = getattr(self.model, ranges)
        for candidate in available:
            if value <= candidate:
                return candidate
        most = self.model.most_volts if unit == "V" else self.model.most_amps
        if value <= most:
            return available[-1]
        raise InputError(
            f"{self.label}: {key} = {value:g} {unit} is more than a {self.model.name} can do ({most:g} {unit}): "
            "lower it"
        )

    # Families fill these in. None of them may change what is at the terminals while the output is off.

    @abstractmethod
    def setup(self) -> list[list[str]]:
        """Return the messages, as lists of commands, that bring every setting that matters to a known value."""
        ...

    def setup_checks(self) -> list[tuple[Property[Any], object]]:
        """Return properties to be read back after the set-up, with the values they must have."""
        return [
            (type(self).amps_limit, self.settings.limit_amperes),
            (type(self).volts_limit, self.settings.floating_limit),
        ]

    def canaries(self) -> list[tuple[Property[Any], object]]:
        """Return properties read with every measurement, whose change tells that the settings were lost."""
        return []

    @abstractmethod
    def select_volts(self, volts: float) -> list[str]:
        """Return the commands after which the channel is a voltage source of that level, on or off as it was.

        The level comes first, so that the source never passes through an old one.
        """
        ...

    @abstractmethod
    def select_float(self) -> list[str]:
        """Return the commands after which the channel is a current source of 0 A, corrected for its offset."""
        ...


class Smu(VisaInstrument[SmuModel], ABC):
    """An SMU of one or more channels: a SourceBank of those named in ``channels``, all if None.

    ``open`` changes no output. If all outputs are off it sets everything up, limits included, and reads the limits
    back; an output found on is left alone until the first ``drive``, which then switches it off before it sets up.
    """

    channel_class: ClassVar[type[SmuChannel]]
    resting: ClassVar[str] = "normal"
    """Output-off state between functions: one that keeps the relay closed."""

    def __init__(
        self,
        name: str,
        resource: str,
        settings: SmuSettings,
        *,
        link: LinkOptions | None = None,
        model: str | None = None,
        serial: str | None = None,
        relay: Relay | None = None,
        channels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, resource, link=link, model=model, serial=serial)
        if (settings.free_mode == "relay") != (relay is not None):
            raise InputError(
                f'{name}: free_mode = "relay" needs a relay to switch, and no other mode has a use for one'
            )
        self.settings = settings
        self._relay = relay
        self._used = None if channels is None else tuple(channels)
        self._channels: tuple[SmuChannel, ...] = ()
        self._set_up = False
        self._unreachable = False
        self._powered: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are used: ``("a", "b")``."""
        return self.model.channels if self._used is None else self._used

    @property
    def read_last(self) -> bool:
        """Whether its reading also tells if a relay is open now, so that it should come after those of other meters."""
        return self._relay is not None and any(channel.mode == "float" for channel in self._channels)

    @property
    def powered_at_open(self) -> tuple[str, ...]:
        """Channels whose output was on when the instrument was opened: an earlier program left them so."""
        return self._powered

    def channel(self, name: str) -> SmuChannel:
        """Return one channel, whose properties can be read and assigned.

        Raises InputError for a channel the model has not.
        """
        for candidate in self._channels:
            if candidate.name == name:
                return candidate
        known = ", ".join(channel.name for channel in self._channels)
        raise InputError(f"{self.name} has no channel {name!r}: it has {known or 'none before it is opened'}")

    def drive(self, volts: FloatArray) -> None:
        """Set every channel, (C,) in volts; NaN floats. Returns when the instrument has taken it, its outputs verified.

        Raises InputError for a level beyond ``limit_volts``, BoardError if the instrument did not do it.
        """
        levels = self._levels(volts)
        self.run(lambda: self._step(lambda: self._drive(levels)))

    def start_drive(self, volts: FloatArray) -> "Future[None]":
        """Start ``drive`` in the owner thread; a level beyond the limit raises InputError here and now."""
        levels = self._levels(volts)
        return self.submit(lambda: self._step(lambda: self._drive(levels)))

    def read(self) -> SourceReadings:
        """Measure every channel once; a channel that is cut off from the board reads NaN volts and 0 A.

        Raises BoardError if a channel has not been driven: a reading with the output off is none (2400: error 803).
        """
        return self.run(lambda: self._step(self._read))

    def start_read(self) -> "Future[SourceReadings]":
        """Start ``read`` in the owner thread."""
        return self.submit(lambda: self._step(self._read))

    def calibrate_float(self, averages: int = 10, volts: FloatArray | None = None) -> tuple[FloatOffset, ...]:
        """Let channels float, measure the current they source nevertheless, and correct for it from now on.

        The channel's own ammeter is the reference. ``volts`` (C,) are driven meanwhile and the channels with NaN are
        calibrated; None calibrates all. The terminals must be as they are in the free phase, the board's inputs at 0 V
        or floating. Raises InputError unless channels float by ``zero_amp``, BoardError if a channel
        is in compliance or the correction makes it worse than the scatter explains.
        """
        if self.settings.free_mode != "zero_amp":
            raise InputError(
                f"{self.name} floats by {self.settings.free_mode!r}, which has no offset current to calibrate"
            )
        if averages < 2:
            raise InputError(f"the offset of {self.name} needs at least 2 readings, not {averages}")
        levels = self._levels(np.full(len(self.channels), np.nan) if volts is None else volts)
        return self.run(lambda: self._calibrate(averages, levels))

    def make_safe(self) -> None:
        """Ramp every channel to 0 V, switch all outputs off, verify, and open their relays.

        Where the link does not answer, the outputs are switched off first, on a fresh session. Raises BoardError
        naming the instrument when everything that could be done was done.
        """
        if self._identity is None or self._closed:
            return
        self.run(self._make_safe)

    def force_off(self, *, ramp: bool = False) -> None:
        """Switch the channels off whoever drove them, verify it, then see who answered; needs no ``open``.

        ``ramp`` first brings sourced volts to 0 in steps, where the instrument tells them at once; whatever hinders
        that is passed over. Raises BoardError naming the instrument that could not be verified to be off.
        """
        self.run(lambda: self._force_off(ramp))

    # The owner thread's work.

    def _prepare(self) -> None:
        unknown = sorted(set(self.channels) - set(self.model.channels))
        if unknown:
            raise InputError(
                f"{self.name}: a {self.model.name} has no channel {unknown[0]}, only "
                f"{', '.join(self.model.channels)}: correct the wiring"
            )
        self._channels = tuple(self.channel_class(self, name) for name in self.channels)
        self._check_ranges()
        self._powered = tuple(channel.name for channel in self._channels if self._is_on(channel))
        self._set_up = False
        if not self._powered:
            self._configure()

    def _restore(self) -> None:
        """Set up again and bring every channel back to where it was."""
        self._configure()
        for channel in self._channels:
            if not channel.powered:
                continue
            if channel.mode == "float" and self.settings.free_mode == "zero_amp":
                self._select(channel, channel.select_float(), floating=True)
            else:
                self._select(channel, channel.select_volts(channel.level), floating=False)
            declared = type(channel).output
            answer = self._exchange(self._energise(channel), [declared.question(channel)])[0]
            self._verify_output(channel, answer)

    def _check_ranges(self) -> None:
        """Raise InputError for settings the model cannot take, before anything is written."""
        model = self.model
        for channel in self._channels:
            _ = channel.volts_range, channel.amps_range, channel.floating_range
        low, high = model.nplc
        if not low <= self.settings.nplc <= high:
            raise InputError(
                f"{self.name}: a {model.name} integrates over {low:g} to {high:g} line cycles, not "
                f"{self.settings.nplc:g}"
            )
        for key, ranges in (("volts_range", model.volt_ranges), ("amperes_range", model.amp_ranges)):
            value: float | None = getattr(self.settings, key)
            limit = self.settings.limit_volts if key == "volts_range" else self.settings.limit_amperes
            if value is not None and not (value <= ranges[-1] and limit <= max(value * 1.05, ranges[0])):
                raise InputError(
                    f"{self.name}: {key} = {value:g} does not hold the limit of {limit:g}: raise the range"
                )

    def _configure(self) -> None:
        """Write every setting that matters, and read the limits back."""
        for channel in self._channels:
            for commands in channel.setup():
                self._exchange(commands, [])
            checks = channel.setup_checks()
            answers = self._exchange([], [declared.question(channel) for declared, _ in checks])
            for (declared, wanted), answer in zip(checks, answers, strict=True):
                _verify_setting(channel, declared, wanted, answer)
        self._set_up = True

    def _levels(self, volts: FloatArray) -> tuple[float, ...]:
        levels = np.asarray(volts, dtype=np.float64)
        count = len(self.channels)
        if levels.shape != (count,):
            raise InputError(f"{self.name} has {count} channels, but {levels.shape} levels were given")
        high = np.abs(levels) > self.settings.limit_volts
        if high.any():
            index = int(np.flatnonzero(high)[0])
            raise InputError(
                f"{self.name} channel {self.channels[index]}: {levels[index]:g} V is beyond limit_volts = "
                f"{self.settings.limit_volts:g} V: lower the drive or raise the limit in the file"
            )
        return tuple(float(level) for level in levels)

    def _drive(self, levels: tuple[float, ...]) -> None:
        if not self._set_up:
            for channel in self._channels:
                if self._is_on(channel):
                    self._switch_off(channel)
            self._configure()
        commands: list[str] = []
        turned: list[SmuChannel] = []
        for channel, level in zip(self._channels, levels, strict=True):
            hot = channel.powered
            before = channel.mode
            commands += self._float(channel) if math.isnan(level) else self._source(channel, level)
            if hot and channel.powered and channel.mode != before and self.settings.free_mode == "zero_amp":
                turned.append(channel)
        questions = [type(channel).output.question(channel) for channel in self._channels]
        questions += [_limit(channel).question(channel) for channel in turned]
        answers = self._exchange(commands, questions)
        for channel, answer in zip(self._channels, answers, strict=False):
            self._verify_output(channel, answer)
        for channel, answer in zip(turned, answers[len(self._channels) :], strict=True):
            _verify_setting(channel, _limit(channel), self._wanted_limit(channel.mode == "float"), answer)
        if self._relay is not None:
            for channel in self._channels:
                if channel.mode == "volts":
                    self._relay.switch(channel.name, closed=True)

    def _source(self, channel: SmuChannel, level: float) -> list[str]:
        """Return the commands that make a channel source a level; its limit is read back before its output goes on."""
        declared = type(channel)
        if not channel.powered:
            self._select(channel, channel.select_volts(level), floating=False)
            commands = self._energise(channel)
        elif channel.mode == "float" and self.settings.free_mode == "zero_amp":
            commands = [*channel.select_volts(level), channel.put(declared.output, True)]
        else:
            commands = [channel.put(declared.source_volts, level)]
        channel.mode, channel.level, channel.powered = "volts", level, True
        return commands

    def _float(self, channel: SmuChannel) -> list[str]:
        """Return the commands that let a channel float."""
        declared = type(channel)
        if channel.mode == "float":
            return []
        commands: list[str] = []
        if self.settings.free_mode == "himp":
            commands = [channel.put(declared.off_state, "himp"), channel.put(declared.output, False)]
            channel.powered = False
        elif self._relay is not None:
            self._relay.switch(channel.name, closed=False)
            if channel.powered:
                # At 0 V behind it, a relay that did not open draws a current that tells.
                commands = [channel.put(declared.source_volts, 0.0)]
                channel.level = 0.0
        elif channel.powered:
            commands = [*channel.select_float(), channel.put(declared.output, True)]
        else:
            self._select(channel, channel.select_float(), floating=True)
            commands = self._energise(channel)
            channel.powered = True
        channel.mode = "float"
        return commands

    def _select(self, channel: SmuChannel, commands: list[str], *, floating: bool) -> None:
        """Choose what a channel sources, and verify the limit that will hold."""
        limit = type(channel).volts_limit if floating else type(channel).amps_limit
        answer = self._exchange(commands, [limit.question(channel)])[0]
        _verify_setting(channel, limit, self._wanted_limit(floating), answer)

    def _wanted_limit(self, floating: bool) -> float:
        return self.settings.floating_limit if floating else self.settings.limit_amperes

    def _energise(self, channel: SmuChannel) -> list[str]:
        """Return the commands that turn an output on.

        Some models turn it off for a moment when the function changes; with the relay kept closed that wears nothing.
        """
        declared = type(channel)
        resting = "himp" if self.settings.free_mode == "himp" else self.resting
        return [channel.put(declared.off_state, resting), channel.put(declared.output, True)]

    def _verify_output(self, channel: SmuChannel, answer: str) -> None:
        is_on = type(channel).output.decode(channel, answer)
        if is_on != channel.powered:
            state, wanted = ("on", "off") if is_on else ("off", "on")
            raise BoardError(
                f"{channel.label} ({self.resource}) has its output {state}, but it was told to be {wanted}: check its "
                "interlock, its protection and its front panel"
            )

    def _is_on(self, channel: SmuChannel) -> bool:
        declared = type(channel).output
        return declared.decode(channel, self._exchange([], [declared.question(channel)])[0])

    def _read(self) -> SourceReadings:
        idle = [channel.name for channel in self._channels if channel.mode == "off"]
        if idle:
            raise BoardError(
                f"{self.name} cannot read channel {idle[0]}, whose output is off (a 2400 would answer error 803): "
                "drive it "
                "first"
            )
        count = len(self._channels)
        volts, amperes, limited = np.full(count, np.nan), np.zeros(count), np.zeros(count, dtype=np.bool_)
        cut_off = self.settings.free_mode != "zero_amp"
        away = [channel for channel in self._channels if cut_off and channel.mode == "float"]
        # Behind an open relay no current flows: one that flows tells of a relay that does not open.
        watched = [channel for channel in away if self._relay is not None and channel.powered]
        reading = [channel for channel in self._channels if channel not in away or channel in watched]
        if reading:
            for channel, measured in zip(reading, self._measure(reading), strict=True):
                index = self._channels.index(channel)
                if channel in watched:
                    self._check_cut_off(channel, measured)
                    continue
                volts[index], amperes[index], limited[index] = measured.volts, measured.amperes, measured.in_compliance
        return SourceReadings(volts=volts, amperes=amperes, in_compliance=limited)

    @abstractmethod
    def _measure(self, channels: Sequence[SmuChannel]) -> list[SmuReading]:
        """Measure channels whose outputs are on, in one message."""

    def _check_cut_off(self, channel: SmuChannel, measured: SmuReading) -> None:
        limit = self.settings.limit_amperes
        offset = measured.amperes if channel.leakage is None else channel.leakage
        if not (abs(offset) <= RELAY_LEAKAGE * limit and abs(measured.amperes - offset) <= RELAY_DRIFT * limit):
            raise MeasurementError(
                f"{channel.label} ({self.resource}) sources {measured.amperes:.3g} A through its relay, which was told "
                "to open: check the relay and its wiring"
            )
        channel.leakage = offset

    def _take(self, commands: list[str], questions: list[str], channels: Sequence[SmuChannel]) -> list[str]:
        """Send one message that measures, and return the answers to the questions.

        The channels' outputs and canaries are asked for with it: an instrument that lost its settings for a moment
        answers as if nothing had happened.
        """
        canaries = [(channel, declared, wanted) for channel in channels for declared, wanted in channel.canaries()]
        asked = [type(channel).output.question(channel) for channel in channels]
        asked += [declared.question(channel) for channel, declared, _ in canaries]
        answers = self._exchange(commands, [*questions, *asked], self._reading_time(len(channels)))
        states = answers[len(questions) :]
        for channel, answer in zip(channels, states, strict=False):
            self._verify_output(channel, answer)
        for (channel, declared, wanted), answer in zip(canaries, states[len(channels) :], strict=True):
            if declared.decode(channel, answer) != wanted:
                raise BoardError(
                    f"{channel.label} ({self.resource}) has lost its settings, as after a moment without power: check "
                    "its supply and that nobody else uses it"
                )
        return answers[: len(questions)]

    def _reading_time(self, channels: int) -> float:
        """Return how long a measurement may take on top of the link's time-out, seconds: volts and current at 50 Hz."""
        return 4 * 2 * channels * self.settings.nplc / 50

    def _calibrate(self, averages: int, levels: tuple[float, ...]) -> tuple[FloatOffset, ...]:
        floating = [index for index, level in enumerate(levels) if math.isnan(level)]
        for index in floating:
            self._channels[index].trim = 0.0
        before, _ = self._float_currents(levels, averages)
        for index in floating:
            self._channels[index].trim = -float(before[index])
        after, scatter = self._float_currents(levels, averages)
        found = []
        for index in floating:
            channel = self._channels[index]
            if abs(after[index]) > max(abs(before[index]), 5 * scatter[index]):
                channel.trim = 0.0
                raise BoardError(
                    f"{channel.label}: floating at 0 A it sources {before[index]:.3g} A, and {after[index]:.3g} A "
                    "after the "
                    "correction: let it warm up, and check that nothing else drives its node"
                )
            found.append(FloatOffset(channel.name, float(before[index]), float(after[index]), float(scatter[index])))
        return tuple(found)

    def _float_currents(self, levels: tuple[float, ...], averages: int) -> tuple[FloatArray, FloatArray]:
        """Return the mean current of every floating channel and its standard uncertainty, (C,) each, A."""

        def measured() -> FloatArray:
            for channel in self._channels:
                if channel.mode == "float":
                    # Its correction may have changed: bring it in again. Some models switch off meanwhile.
                    self._exchange([*channel.select_float(), channel.put(type(channel).output, True)], [])
            self._drive(levels)
            rows = []
            for _ in range(averages):
                readings = self._read()
                if readings.in_compliance.any() or not np.isfinite(readings.amperes).all():
                    name = self.channels[int(np.argmax(readings.in_compliance))]
                    raise BoardError(
                        f"{self.name} channel {name} is at its voltage limit while floating: raise float_volts or "
                        "check "
                        "what drives its node"
                    )
                rows.append(readings.amperes)
            return np.array(rows)

        currents = self._step(measured)
        return currents.mean(axis=0), currents.std(axis=0, ddof=1) / math.sqrt(averages)

    def _make_safe(self) -> None:
        if self._session is None:
            self._switch_off_afresh()
            return
        try:
            for channel in self._channels:
                if self._is_on(channel):
                    self._switch_off(channel)
                _forget(channel)
        except LinkError:
            self._drop_session()
            self._switch_off_afresh()
        except BoardError as refusal:
            # The instrument answers but complains: switch off without asking what else is wrong.
            self._switch_off_bluntly(refusal)

    def _switch_off(self, channel: SmuChannel) -> None:
        """Ramp a channel to zero, switch it off with its relay open, and verify."""
        declared = type(channel)
        if math.isfinite(channel.level) and channel.level != 0 and (channel.mode == "volts" or self._relay is not None):
            self._ramp(channel, channel.level)
        _forget(channel)
        commands = [channel.put(declared.off_state, "himp"), channel.put(declared.output, False)]
        answer = self._exchange(commands, [declared.output.question(channel)])[0]
        if declared.output.decode(channel, answer):
            raise BoardError(
                f"{channel.label} ({self.resource}) still has its output on after it was told to switch off"
            )

    def _ramp(self, channel: SmuChannel, level: float) -> None:
        for step in range(self.settings.ramp_steps - 1, -1, -1):
            volts = level * step / self.settings.ramp_steps
            self._exchange([channel.put(type(channel).source_volts, volts)], [])

    def _stop_safe(self) -> None:
        self._switch_off_afresh()

    def _force_off(self, ramp: bool) -> None:
        self._drop_session()
        if not self._channels:
            self._channels = tuple(self.channel_class(self, name) for name in self.channels)
        if ramp:
            patient, self.link = self.link, replace(self.link, timeout=min(RAMP_PATIENCE, self.link.timeout))
            with suppress(BoardError, InputError):
                self._ramp_unseen()
            # What was read out of step there must not be taken for an answer here.
            self._drop_session()
            self.link = patient
        self._switch_off_afresh()
        # The outputs are off; an open relay besides is good to have. Not every model takes it in every state.
        with suppress(BoardError):
            for channel in self._channels:
                self._exchange([channel.put(type(channel).off_state, "himp")], [])

    def _ramp_unseen(self) -> None:
        """Ramp to 0 V what another program left on."""
        self._connect()
        for channel in self._channels:
            declared = type(channel)
            asked: tuple[Property[Any], ...] = (declared.output, declared.source_function, declared.source_volts)
            answers = self._exchange([], [each.question(channel) for each in asked])
            is_on, function, level = (each.decode(channel, answer) for each, answer in zip(asked, answers, strict=True))
            if is_on and function == "volts":
                self._ramp(channel, level)

    def _switch_off_afresh(self) -> None:
        """Open a session, switch all outputs off before anything else, verify, and only then see who answered."""
        failures: list[str] = []
        # Who could not be reached before is asked once more, but not waited for again.
        patience, tries = (0.0, 1) if self._unreachable else (self.link.patience, self.link.retries + 1)
        for _ in range(tries):
            try:
                left_on = patiently(self._off_afresh, patience)
            except (BoardError, InputError) as error:
                failures.append(str(error))
                continue
            self._unreachable = False
            self._off_or_raise(left_on)
            return
        self._unreachable = True
        raise BoardError(
            f"{self.name} ({self.resource}) could not be verified to be off: switch its output off at its front panel "
            f"({failures[-1]})"
        )

    def _off_afresh(self) -> list[str]:
        self._drop_session()
        self._session = VisaSession(self.name, self.resource, self.link)
        try:
            left_on = self._blunt_off(self._session)
            self._verify(self._session.query("*IDN?"))
            self._drain()
        except BaseException:
            self._drop_session()
            raise
        self._since_clean.clear()
        return left_on

    def _switch_off_bluntly(self, refusal: BoardError) -> None:
        try:
            left_on = self._blunt_off(self._open_session())
        except LinkError:
            self._drop_session()
            self._switch_off_afresh()
            return
        self._off_or_raise(left_on, refusal)

    def _blunt_off(self, session: VisaSession) -> list[str]:
        """Switch every output off, one message each, and return the channels that are still on.

        Where the link fails, the channels after it are told so all the same, without waiting for an answer.
        """
        left_on = []
        for index, channel in enumerate(self._channels):
            declared = type(channel)
            off = channel.put(declared.output, False)
            message = self.dialect.join([off], [declared.output.question(channel)])
            try:
                # Twice the time: a slow instrument is not a dead one, and here it counts.
                fields = self.dialect.split(session.query(message, 2 * self.link.timeout), 1)
            except LinkError:
                self._tell_off(self._channels[index + 1 :])
                raise
            _forget(channel)
            if declared.output.decode(channel, fields[0]):
                left_on.append(channel.name)
        return left_on

    def _tell_off(self, channels: Sequence[SmuChannel]) -> None:
        for channel in channels:
            with suppress(LinkError), VisaSession(self.name, self.resource, self.link) as session:
                session.write(channel.put(type(channel).output, False))

    def _off_or_raise(self, left_on: list[str], cause: BoardError | None = None) -> None:
        self._set_up = False
        if left_on:
            raise BoardError(
                f"{self.name} ({self.resource}) still has the output of channel {', '.join(left_on)} on after it was "
                "told "
                "to switch off: switch it off at its front panel"
            ) from cause


def _limit(channel: SmuChannel) -> Property[float]:
    return type(channel).volts_limit if channel.mode == "float" else type(channel).amps_limit


def _forget(channel: SmuChannel) -> None:
    channel.mode, channel.level, channel.powered = "off", math.nan, False


def _verify_setting(channel: SmuChannel, declared: Property[Any], wanted: object, answer: str) -> None:
    found = declared.decode(channel, answer)
    if isinstance(wanted, float) and isinstance(found, float):
        same = abs(found - wanted) <= LIMIT_TOLERANCE * abs(wanted)
    else:
        same = found == wanted
    if not same:
        unit = f" {declared.unit}" if declared.unit else ""
        shown, kept = (f"{value:g}" if isinstance(value, float) else str(value) for value in (wanted, found))
        raise BoardError(
            f"{channel.label} ({channel.smu.resource}) was told {declared.name} = {shown}{unit} but has "
            f"{kept}{unit}; its "
            "output stays off: check the limits in the file against the instrument's ranges"
        )


def reading_of(volts: str, amperes: str, in_compliance: bool) -> SmuReading:
    """Return the reading in two answers; a value that is not a number is no reading, as in compliance."""
    values = [float(volts), float(amperes)]
    bad = [not math.isfinite(value) or abs(value) >= NOT_A_NUMBER for value in values]
    volts_read, amperes_read = (math.nan if wrong else value for value, wrong in zip(values, bad, strict=True))
    return SmuReading(volts_read, amperes_read, in_compliance or any(bad))


def parsed(channel: SmuChannel, answer: str, parse: Callable[[], SmuReading]) -> SmuReading:
    """Return what ``parse`` makes of an answer.

    Raises LinkError for an answer that is no reading: the link is out of step.
    """
    try:
        return parse()
    except (IndexError, OverflowError, ValueError) as cause:  # int() of an infinite status overflows
        raise LinkError(
            f"{channel.label} ({channel.smu.resource}) answered {answer[:80]!r} where a reading was asked for: check "
            "that no "
            "other program uses the instrument",
            "garbage",
        ) from cause
