"""A lab's own instrument objects (PyMeasure, QCoDeS, tm_devices, home-made) as sources and voltmeters.

Nothing of those packages is imported: a channel is described by paths of attributes from the lab's object, and a path
is read by calling its end if that can be called (a QCoDeS parameter, a method), else by reading it (a PyMeasure
property); it is set likewise. ``commands.smu[a].source.levelv`` goes through an item. The functions at the end give
the paths of some drivers. The lab's object stays the lab's: it must be open and set up (limits, ranges, integration
time), and ``close`` makes it safe without closing it.
"""

import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.devices import SourceReadings, VoltReadings
from hilcl.drivers.owner_thread import OwnerThread
from hilcl.drivers.smu_voltmeter import averaged, check_averages
from hilcl.errors import BoardError, InputError

T = TypeVar("T")
_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")


@dataclass(frozen=True)
class AdaptedSourceChannel:
    """One channel of a lab's instrument, by paths of attributes from ``instrument``.

    ``output`` is set to ``on`` and ``off`` and read back; ``volts`` takes the level. ``source`` are (path, value)
    pairs set before the level to make it a voltage source, ``free`` those that let it float with the output on.
    ``limits`` are (path, value) pairs set and read back before the output is first on; those under ``free_limits``
    belong to ``free``. ``read_volts``, ``read_amperes`` and ``in_compliance`` are read, None where the instrument
    cannot tell.
    """

    instrument: object
    output: str
    volts: str
    free: tuple[tuple[str, object], ...]
    source: tuple[tuple[str, object], ...] = ()
    limits: tuple[tuple[str, float], ...] = ()
    free_limits: tuple[tuple[str, float], ...] = ()
    read_volts: str | None = None
    read_amperes: str | None = None
    in_compliance: str | None = None
    on: object = True
    off: object = False


@dataclass
class _State:
    powered: bool = False
    floating: bool = False


class AdaptedSource:
    """Channels of lab instruments on one link, as a SourceBank."""

    def __init__(
        self, name: str, channels: Mapping[str, AdaptedSourceChannel], *, identity: str, limit_volts: float
    ) -> None:
        if not channels:
            raise InputError(f"{name} needs at least one channel")
        if not (math.isfinite(limit_volts) and limit_volts > 0):
            raise InputError(f"{name}: limit_volts must be a positive number, but it is {limit_volts}")
        self.name, self.limit_volts = name, limit_volts
        self._channels = dict(channels)
        self._states = {channel: _State() for channel in channels}
        self._identity = identity
        self._owner = OwnerThread(name)
        self._closed = False

    @property
    def identity(self) -> str:
        """What the lab says the instrument is; ``identity_of`` asks the object."""
        return self._identity

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(self._channels)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the owner thread do ``work`` and return its future."""
        return self._owner.submit(work)

    def drive(self, volts: FloatArray) -> None:
        """Set every channel, (C,) in volts; NaN floats."""
        levels = self._levels(volts)
        self._owner.run(lambda: self._drive(levels))

    def start_drive(self, volts: FloatArray) -> "Future[None]":
        """Start ``drive`` in the owner thread."""
        levels = self._levels(volts)
        return self.submit(lambda: self._drive(levels))

    def read(self) -> SourceReadings:
        """Measure every channel once."""
        return self._owner.run(self._read)

    def start_read(self) -> "Future[SourceReadings]":
        """Start ``read`` in the owner thread."""
        return self.submit(self._read)

    def make_safe(self) -> None:
        """Set every channel to 0 V and off, and verify; raises BoardError after all channels were tried."""
        if not self._closed:
            self._owner.run(self._make_safe)

    def close(self) -> None:
        """Make the channels safe and let go of the lab's objects, which stay open."""
        if self._closed:
            return
        try:
            self.make_safe()
        finally:
            self._closed = True
            self._owner.close()

    def _levels(self, volts: FloatArray) -> FloatArray:
        levels = np.asarray(volts, dtype=np.float64)
        if levels.shape != (len(self._channels),):
            raise InputError(f"{self.name} has {len(self._channels)} channels, but {levels.shape} levels were given")
        if (np.abs(levels) > self.limit_volts).any():
            raise InputError(
                f"{self.name}: {float(np.nanmax(np.abs(levels))):g} V is beyond limit_volts = {self.limit_volts:g} "
                "V: lower "
                "the drive or raise the limit in the file"
            )
        return levels

    def _drive(self, levels: FloatArray) -> None:
        for (name, channel), level in zip(self._channels.items(), levels, strict=True):
            state, floating = self._states[name], math.isnan(level)
            if floating and not (state.powered and state.floating):
                self._assign(name, channel, channel.free)
                self._limit(name, channel, channel.free_limits)
            elif not floating:
                if state.floating or not state.powered:
                    self._assign(name, channel, channel.source)
                    self._limit(name, channel, channel.limits)
                self._set(name, channel.instrument, channel.volts, float(level))
            if state.floating != floating or not state.powered:
                self._set(name, channel.instrument, channel.output, channel.on)
                if not _same(self._get(name, channel.instrument, channel.output), channel.on):
                    raise BoardError(f"{self.name} channel {name} did not switch its output on: check its front panel")
            state.powered, state.floating = True, floating

    def _read(self) -> SourceReadings:
        count = len(self._channels)
        volts, amperes, limited = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count, dtype=np.bool_)
        for index, (name, channel) in enumerate(self._channels.items()):
            if not self._states[name].powered:
                raise BoardError(f"{self.name} cannot read channel {name}, whose output is off: drive it first")
            if channel.read_volts is not None:
                volts[index] = self._number(name, channel.instrument, channel.read_volts)
            if channel.read_amperes is not None:
                amperes[index] = self._number(name, channel.instrument, channel.read_amperes)
            if channel.in_compliance is not None:
                limited[index] = _same(self._get(name, channel.instrument, channel.in_compliance), True)
        return SourceReadings(volts=volts, amperes=amperes, in_compliance=limited)

    def _make_safe(self) -> None:
        failures: list[str] = []
        for name, channel in self._channels.items():
            state = self._states[name]
            try:
                if state.powered and not state.floating:
                    self._set(name, channel.instrument, channel.volts, 0.0)
            except BoardError as error:
                failures.append(str(error))
            try:
                self._set(name, channel.instrument, channel.output, channel.off)
                if not _same(self._get(name, channel.instrument, channel.output), channel.off):
                    failures.append(f"{self.name} channel {name} still has its output on: switch it off by hand")
                state.powered = state.floating = False
            except BoardError as error:
                failures.append(f"{error}; switch its output off by hand")
        if failures:
            raise BoardError("; ".join(failures))

    def _assign(self, name: str, channel: AdaptedSourceChannel, pairs: tuple[tuple[str, object], ...]) -> None:
        for path, value in pairs:
            self._set(name, channel.instrument, path, value)

    def _limit(self, name: str, channel: AdaptedSourceChannel, pairs: tuple[tuple[str, float], ...]) -> None:
        for path, value in pairs:
            self._set(name, channel.instrument, path, value)
            found = self._number(name, channel.instrument, path)
            if not math.isclose(found, value, rel_tol=0.01):
                raise BoardError(
                    f"{self.name} channel {name} was told {path} = {value:g} but has {found:g}: check the limits in "
                    "the file"
                )

    def _set(self, channel: str, instrument: object, path: str, value: object) -> None:
        _guarded(self.name, channel, path, lambda: assign(instrument, path, value))

    def _get(self, channel: str, instrument: object, path: str) -> object:
        return _guarded(self.name, channel, path, lambda: fetch(instrument, path))

    def _number(self, channel: str, instrument: object, path: str) -> float:
        return _guarded(self.name, channel, path, lambda: float(str(fetch(instrument, path))))


@dataclass(frozen=True)
class AdaptedMeterChannel:
    """One channel of a lab's meter: ``before`` are (path, value) pairs set before ``volts`` is read (such as a relay).

    ``resolution`` is the smallest step of a reading, V.
    """

    instrument: object
    volts: str
    before: tuple[tuple[str, object], ...] = field(default=())
    resolution: float = 0.0


class AdaptedVoltmeter:
    """Channels of lab meters on one link, as a Voltmeter."""

    def __init__(self, name: str, channels: Mapping[str, AdaptedMeterChannel], *, identity: str) -> None:
        if not channels:
            raise InputError(f"{name} needs at least one channel")
        self.name = name
        self._channels = dict(channels)
        self._identity = identity
        self._owner = OwnerThread(name)

    @property
    def identity(self) -> str:
        """What the lab says the instrument is; ``identity_of`` asks the object."""
        return self._identity

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(self._channels)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the owner thread do ``work`` and return its future."""
        return self._owner.submit(work)

    def read(self, averages: int = 1) -> VoltReadings:
        """Read every channel, the mean of ``averages`` readings each."""
        check_averages(self.name, averages)
        return self._owner.run(lambda: self._read(averages))

    def start_read(self, averages: int = 1) -> "Future[VoltReadings]":
        """Start ``read`` in the owner thread."""
        check_averages(self.name, averages)
        return self.submit(lambda: self._read(averages))

    def make_safe(self) -> None:
        """Nothing to be made safe: a meter drives nothing."""

    def close(self) -> None:
        """Let go of the lab's objects, which stay open."""
        self._owner.close()

    def _read(self, averages: int) -> VoltReadings:
        rows = np.array(
            [[self._one(name, channel) for name, channel in self._channels.items()] for _ in range(averages)]
        )
        return averaged(rows, np.array([channel.resolution for channel in self._channels.values()]))

    def _one(self, name: str, channel: AdaptedMeterChannel) -> float:
        for path, value in channel.before:
            self._assign(name, channel.instrument, path, value)
        return _guarded(self.name, name, channel.volts, lambda: float(str(fetch(channel.instrument, channel.volts))))

    def _assign(self, channel: str, instrument: object, path: str, value: object) -> None:
        _guarded(self.name, channel, path, lambda: assign(instrument, path, value))


def fetch(instrument: object, path: str) -> object:
    """Return what a path leads to, called if it can be called."""
    found = _walk(instrument, _steps(path))
    return found() if callable(found) else found


def assign(instrument: object, path: str, value: object) -> None:
    """Set what a path leads to: call it with the value if it can be called, else assign it."""
    steps = _steps(path)
    parent = _walk(instrument, steps[:-1])
    kind, name = steps[-1]
    if kind == "item":
        parent[name] = value  # type: ignore[index]
        return
    # Ask the class first: reading a property of an instrument would talk to it.
    declared = getattr(type(parent), name, None)
    if not isinstance(declared, property) and callable(found := getattr(parent, name)):
        found(value)
        return
    setattr(parent, name, value)


def identity_of(instrument: object, path: str = "id") -> str:
    """Return who a lab's object says it is: ``id`` (PyMeasure), ``get_idn`` (QCoDeS), ``idn_string`` (tm_devices)."""
    found = _guarded(type(instrument).__name__, "", path, lambda: fetch(instrument, path))
    if isinstance(found, Mapping):
        return ",".join(str(found.get(key) or "") for key in ("vendor", "model", "serial", "firmware"))
    return str(found)


def pymeasure_keithley2400(instrument: object, limit_amperes: float, float_volts: float) -> AdaptedSourceChannel:
    """Return the paths of ``pymeasure.instruments.keithley.Keithley2400`` (PyMeasure 0.16).

    Its readings use ``:MEASure?``, which resets the limit it does not use; compliance cannot be told from them.
    """
    return AdaptedSourceChannel(
        instrument,
        output="source_enabled",
        source=(("source_mode", "voltage"),),
        volts="source_voltage",
        free=(("source_current", 0.0), ("source_mode", "current")),
        limits=(("compliance_current", limit_amperes),),
        free_limits=(("compliance_voltage", float_volts),),
        read_volts="voltage",
        read_amperes="current",
    )


def qcodes_keithley2450(instrument: object, limit_amperes: float, float_volts: float) -> AdaptedSourceChannel:
    """Return the paths of the ``Keithley2450`` of QCoDeS, whose ``source`` follows its function."""
    return AdaptedSourceChannel(
        instrument,
        output="output_enabled",
        source=(("source.function", "voltage"), ("sense.function", "current")),
        volts="source.voltage",
        free=(("source.function", "current"), ("source.current", 0.0), ("sense.function", "voltage")),
        limits=(("source.limit", limit_amperes),),
        free_limits=(("source.limit", float_volts),),
        in_compliance="source.limit_tripped",
    )


def qcodes_keithley2600_channel(channel: object, limit_amperes: float, float_volts: float) -> AdaptedSourceChannel:
    """Return the paths of one channel (``smua``) of QCoDeS' ``Keithley2602B`` and its relatives."""
    return AdaptedSourceChannel(
        channel,
        output="output",
        source=(("mode", "voltage"),),
        volts="volt",
        free=(("mode", "current"), ("curr", 0.0)),
        limits=(("limiti", limit_amperes),),
        free_limits=(("limitv", float_volts),),
        read_volts="volt",
        read_amperes="curr",
        on="on",
        off="off",
    )


def tm_devices_2600b(
    instrument: object, channel: str, limit_amperes: float, float_volts: float
) -> AdaptedSourceChannel:
    """Return the paths of one channel (``a`` or ``b``) of a Series 2600B of ``tm_devices``."""
    smu = f"commands.smu[{channel}]"
    return AdaptedSourceChannel(
        instrument,
        output=f"{smu}.source.output",
        source=((f"{smu}.source.func", 1),),
        volts=f"{smu}.source.levelv",
        free=((f"{smu}.source.leveli", 0), (f"{smu}.source.func", 0)),
        limits=((f"{smu}.source.limiti", limit_amperes),),
        free_limits=((f"{smu}.source.limitv", float_volts),),
        read_volts=f"{smu}.measure.v",
        read_amperes=f"{smu}.measure.i",
        in_compliance=f"{smu}.source.compliance",
        on=1,
        off=0,
    )


def _steps(path: str) -> list[tuple[str, str]]:
    steps = [("item", item) if item else ("attribute", name) for name, item in _STEP.findall(path)]
    if not steps:
        raise InputError(f"{path!r} is no path of attributes: write it like 'source.voltage' or 'smu[a].level'")
    return steps


def _walk(instrument: object, steps: list[tuple[str, str]]) -> object:
    found = instrument
    for kind, name in steps:
        found = found[name] if kind == "item" else getattr(found, name)  # type: ignore[index]
    return found


def _same(found: object, wanted: object) -> bool:
    """Compare what instrument libraries answer: True, 1, "1.00000e+00", "on", "true"."""
    if isinstance(wanted, bool) and isinstance(found, str) and found.strip().lower() in {"true", "false", "on", "off"}:
        return (found.strip().lower() in {"true", "on"}) == wanted
    try:
        return float(str(found if not isinstance(found, bool) else int(found))) == float(
            str(wanted if not isinstance(wanted, bool) else int(wanted))
        )
    except ValueError:
        return str(found).strip().lower() == str(wanted).strip().lower()


def _guarded(device: str, channel: str, path: str, work: Callable[[], T]) -> T:
    """Do something with a lab's object, whatever it may raise."""
    try:
        return work()
    except BoardError:
        raise
    except Exception as cause:
        where = f"{device} channel {channel}" if channel else device
        reason = str(cause).strip().splitlines()[:1] or [type(cause).__name__]
        raise BoardError(
            f"{where}: {path!r} of the lab's own driver failed ({reason[0]}): check that instrument"
        ) from cause
