"""The Keysight 34970A and 34972A with 34901A multiplexers on the wire (34970A User's Guide, 34970-90003, chapter 5)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.channel_settings import ChannelSettings
from hilcl.sim_backend.emulation.instrument import wire_number
from hilcl.sim_backend.emulation.meter import IDEAL_METER, MeterErrors, ScanningMeter
from hilcl.sim_backend.emulation.port import Clock, Port
from hilcl.sim_backend.emulation.scpi import OVERFLOW, Argument, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import (
    AutoZero,
    Boolean,
    Choice,
    Real,
    Request,
    ScpiInstrument,
    Setting,
    Whole,
)
from hilcl.sim_backend.emulation.source_measure import smallest_range
from hilcl.sim_backend.emulation.status import QueuedError, RegisterSet, Status

RANGES = (0.1, 1.0, 10.0, 100.0, 300.0)
OVERRANGE = 1.2
RELAY_SECONDS = 0.003
MEMORY = 50_000
"""Readings kept; later ones push out the first (chapter 4, reading memory)."""
MOST_READINGS = 10 * MEMORY
"""The longest scan this emulator takes in one go; error −223 beyond."""

CHANNELS = tuple(slot * 100 + channel for slot in (1, 2, 3) for channel in range(1, 21))
"""Voltage channels of three 34901A modules."""

NPLC = (0.02, 0.2, 1.0, 2.0, 10.0, 20.0, 100.0, 200.0)


@dataclass(frozen=True)
class Sweeps(Whole):
    """A number of sweeps, which a query answers like a reading: ``+1.00000000E+01`` (TRIGger:COUNt)."""

    def show(self, value: Any, digits: int | None) -> str:
        """Return ``+1.000000E+01``."""
        return wire_number(float(value), digits)


CHANNEL_SETTINGS = (
    Setting("[:SENSe#]:VOLTage:DC:RANGe", "range", Real(0, 300, "V"), 10.0),
    Setting("[:SENSe#]:VOLTage:DC:RANGe:AUTO", "auto", Boolean(), True),
    Setting("[:SENSe#]:VOLTage:DC:NPLC", "nplc", Real(0.02, 200, "PLC"), 1.0),
    Setting("[:SENSe#]:VOLTage:DC:RESolution", "resolution", Real(0, 300, "V"), 3e-5),
    Setting("[:SENSe#]:ZERO:AUTO", "autozero", AutoZero(), True),
    Setting(":INPut:IMPedance:AUTO", "impedance", Boolean(), False),
    Setting(":ROUTe:CHANnel:DELay", "delay", Real(0, 60, "S"), 0.0),
    Setting(":ROUTe:CHANnel:DELay:AUTO", "delay_auto", Boolean(), True),
)

SETTINGS = (
    Setting(":FORMat:READing:CHANnel", "show_channel", Boolean(), False),
    Setting(":FORMat:READing:TIME", "show_time", Boolean(), False),
    Setting(":FORMat:READing:UNIT", "show_unit", Boolean(), False),
    Setting(":FORMat:READing:ALARm", "show_alarm", Boolean(), False),
    Setting(":FORMat:READing:TIME:TYPE", "time_type", Choice(("ABSolute", "RELative")), "REL"),
    Setting(":TRIGger:SOURce", "trigger_source", Choice(("BUS", "IMMediate", "EXTernal", "TIMer")), "IMM"),
    Setting(":TRIGger:COUNt", "trigger_count", Sweeps(1, MEMORY), 1),
    Setting(":TRIGger:TIMer", "trigger_timer", Real(0, 359_999, "S"), 10.0),
    Setting(":DISPlay[:STATe]", "display", Boolean(), True),
)


@dataclass(frozen=True)
class Stored:
    """One reading in memory."""

    volts: float
    channel: int
    seconds: float


class Dmm34970A(ScpiInstrument):
    """A 34970A, or a 34972A by ``model``; ``ports`` are the wired channels by number, 101 to 320."""

    def __init__(
        self,
        ports: Mapping[int, Port],
        clock: Clock,
        *,
        model: str = "34970A",
        serial: str = "0",
        errors: MeterErrors = IDEAL_METER,
        line_frequency: int = 60,
        seed: int = 0,
    ) -> None:
        unknown = sorted(set(ports) - set(CHANNELS))
        if unknown:
            raise ValueError(f"a {model} has no channel {unknown[0]}")
        status = Status(
            capacity=20,
            registers={"QUEStionable": (RegisterSet(), 1 << 3), "OPERation": (RegisterSet(), 1 << 7)},
        )
        self._mains = line_frequency
        self._meter = ScanningMeter(ports, clock, errors, relay_seconds=RELAY_SECONDS, seed=seed)
        self._scan: tuple[int, ...] = ()
        self._memory: list[Stored] = []
        self._waiting = False
        self._epoch = clock.now()
        self._settings_by_channel = ChannelSettings(
            CHANNEL_SETTINGS, CHANNELS, lambda: self._scan, _rounded, self._wrote
        )
        identity = f"HEWLETT-PACKARD,34970A,{serial},13-2-2" if model == "34970A" else ""
        identity = identity or f"Agilent Technologies,{model},{serial},1.17-1.12-02-02"
        super().__init__(identity, SETTINGS, status, digits=errors.digits)
        self._add_commands()

    def error_text(self, entry: QueuedError) -> str:
        """Return ``+0,"No error"``: the code always has a sign."""
        return f'{entry.code:+d},"{entry.message}"'

    def reset(self) -> None:
        """``*RST``: scan list and memory empty, settings to their defaults."""
        super().reset()
        self._scan, self._memory, self._waiting = (), [], False
        self._settings_by_channel.reset()
        self._meter.open()

    def trigger(self) -> None:
        """``*TRG``: sweep once where that is waited for."""
        if not self._waiting:
            raise ScpiError(-211)
        self._waiting = False
        self._store(self._sweep())

    def _begin(self) -> None:
        # A new scan starts with an empty memory (chapter 4, viewing readings stored in memory).
        if not self._scan:
            raise ScpiError(-221, "Settings conflict")
        self._memory = []
        self._epoch = self._meter.now

    def _initiate(self) -> None:
        self._begin()
        if self.state[1]["trigger_source"] in {"BUS", "EXT"}:
            self._waiting = True
            return
        for readings in self._sweeps():
            self._store(readings)

    def _sweeps(self) -> Iterator[list[Stored]]:
        if self.state[1]["trigger_count"] * len(self._scan) > MOST_READINGS:
            raise ScpiError(-223)
        for number in range(self.state[1]["trigger_count"]):
            if self.state[1]["trigger_source"] == "TIM":
                self._meter.wait(self._epoch + number * self.state[1]["trigger_timer"] - self._meter.now)
            yield self._sweep()

    def _store(self, readings: list[Stored]) -> None:
        self._memory += readings
        del self._memory[:-MEMORY]

    def _sweep(self) -> list[Stored]:
        values = self._settings_by_channel
        readings = []
        for channel in self._scan:
            self._meter.close(channel)
            self._meter.wait(0.0 if values["delay_auto", channel] else values["delay", channel])
            nplc = values["nplc", channel]
            volts = self._meter.read(nplc / self._mains, nplc)
            reach = (RANGES[-1] if values["auto", channel] else values["range", channel]) * OVERRANGE
            if abs(volts) > reach:
                volts = math.copysign(OVERFLOW, volts)
            readings.append(Stored(volts, channel, self._meter.now - self._epoch))
        self._meter.open()
        return readings

    def _show(self, readings: Sequence[Stored]) -> str:
        state = self.state[1]
        fields: list[str] = []
        for reading in readings:
            fields.append(self.number(reading.volts) + (" VDC" if state["show_unit"] else ""))
            if state["show_time"]:
                fields.append(self.number(reading.seconds))
            if state["show_channel"]:
                fields.append(str(reading.channel))
            if state["show_alarm"]:
                fields.append("0")
        return ",".join(fields)

    def _fetch(self, _: Request) -> str:
        if not self._memory:
            raise ScpiError(-230)
        return self._show(self._memory)

    def _read(self, _: Request) -> str:
        if self.state[1]["trigger_source"] in {"BUS", "EXT"}:
            raise ScpiError(-214)
        self._begin()
        # READ? sends readings straight to the output and keeps none (chapter 5, READ?).
        return self._show([reading for readings in self._sweeps() for reading in readings])

    def _remove(self, request: Request) -> str:
        (given,) = request.take(1, 1)
        count = Whole(1, MEMORY).parse(given, 1)
        if count > len(self._memory):
            raise ScpiError(-222)
        taken, self._memory = self._memory[:count], self._memory[count:]
        return self._show(taken)

    def _remove_block(self, request: Request) -> str:
        given = request.take(0, 1)
        count = min(Whole(1, MEMORY).parse(given[0], 1) if given else MEMORY, len(self._memory))
        taken, self._memory = self._memory[:count], self._memory[count:]
        return _block(self._show(taken))

    def _configure(self, request: Request) -> None:
        *given, listed = request.take(1, 3) if request.arguments else _missing()
        if listed.kind != "channels":
            raise ScpiError(-109)
        _, channels = self._settings_by_channel.split([listed])
        values = self._settings_by_channel
        for channel in channels:
            for setting in CHANNEL_SETTINGS:
                values[setting.name, channel] = setting.reset
            if given and not (given[0].is_word("AUTO") or given[0].is_word("DEFault")):
                values["range", channel] = _rounded("range", Real(0, 300, "V").parse(given[0], 10.0))
                values["auto", channel] = False
        self._set_scan(channels)

    def _measure(self, request: Request) -> str:
        self._configure(request)
        self.state[1].update(trigger_source="IMM", trigger_count=1)
        return self._read(request)

    def _set_scan(self, channels: tuple[int, ...]) -> None:
        # Channels are scanned in ascending order, whatever the order of the list (chapter 4, scanning).
        self._scan = tuple(sorted(set(channels)))
        self._memory = []

    def _route_scan(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        if given.kind != "channels":
            raise ScpiError(-104)
        known = [channel for channel in given.channels if channel in CHANNELS]
        # "The range may contain invalid channels (they are ignored), but the first and last must be valid."
        if given.channels and (given.channels[0] not in CHANNELS or given.channels[-1] not in CHANNELS):
            raise ScpiError(-222)
        self._set_scan(tuple(known))

    def _wrote(self, name: str, channel: int) -> None:
        if name == "range":
            self._settings_by_channel["auto", channel] = False
        elif name == "delay":
            self._settings_by_channel["delay_auto", channel] = False

    def _add_commands(self) -> None:
        for setting in CHANNEL_SETTINGS:
            self.add(
                setting.header,
                partial(self._settings_by_channel.write, setting.name),
                partial(self._settings_by_channel.ask, setting.name, digits=self.digits),
            )
        self.add(":CONFigure:VOLTage:DC", self._configure)
        self.add(":CONFigure", ask=self._ask_configuration)
        self.add(":MEASure:VOLTage:DC", ask=self._measure)
        self.add("[:SENSe#]:FUNCtion", self._set_function, self._ask_function)
        self.add(":ROUTe:SCAN", self._route_scan, lambda _: _block(_listed(self._scan)))
        self.add(":ROUTe:SCAN:SIZE", ask=lambda _: f"{len(self._scan):+d}")
        self.add(":INITiate", lambda _: self._initiate())
        self.add(":FETCh", ask=self._fetch)
        self.add(":READ", ask=self._read)
        self.add(":R", ask=self._remove_block)
        self.add(":ABORt", lambda _: self._stop())
        self.add(":DATA:POINts", ask=lambda _: f"{len(self._memory):+d}")
        self.add(":DATA:REMove", ask=self._remove)
        self.add(":SYSTem:CTYPe", ask=self._card)
        self.add(":SYSTem:LFRequency", ask=lambda _: f"{self._mains:+d}")
        self.add(":SYSTem:PRESet", lambda _: self.reset())
        self.add(":ROUTe:DONE", ask=lambda _: "1")

    def _stop(self) -> None:
        self._waiting = False

    def _set_function(self, request: Request) -> None:
        arguments, _ = self._settings_by_channel.split(request.arguments)
        if len(arguments) != 1:
            raise ScpiError(-109)
        Choice(("VOLTage:DC", "VOLTage")).parse(arguments[0], None)

    def _ask_function(self, request: Request) -> str:
        _, channels = self._settings_by_channel.split(request.arguments)
        return ",".join('"VOLT"' for _ in channels)

    def _ask_configuration(self, request: Request) -> str:
        _, channels = self._settings_by_channel.split(request.arguments)
        values = self._settings_by_channel
        return ",".join(
            f'"VOLT {self.number(values["range", channel])},{self.number(values["resolution", channel])}"'
            for channel in channels
        )

    def _card(self, request: Request) -> str:
        (given,) = request.take(1, 1)
        if Whole(100, 300).parse(given, 100) % 100:
            raise ScpiError(-222)
        return "HEWLETT-PACKARD,34901A,0,2.3"


def _missing() -> tuple[Argument, ...]:
    raise ScpiError(-109)


def _listed(channels: tuple[int, ...]) -> str:
    return "(@" + ",".join(str(channel) for channel in channels) + ")"


def _block(text: str) -> str:
    """Return a definite length block: ``#214(@101,102,103)`` (IEEE 488.2-1992, 8.7.9)."""
    length = str(len(text))
    return f"#{len(length)}{length}{text}"


def _rounded(name: str, value: Any) -> Any:
    if name == "range":
        return smallest_range(RANGES, value, OVERRANGE)
    return smallest_range(NPLC, value) if name == "nplc" else value
