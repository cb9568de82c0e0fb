"""The Keithley DAQ6510 with 7700 multiplexers on the wire (DAQ6510 Reference Manual, DAQ6510-901-01, section 12)."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.channel_settings import FRONT, ChannelSettings
from hilcl.sim_backend.emulation.meter import IDEAL_METER, MeterErrors, ScanningMeter
from hilcl.sim_backend.emulation.port import Clock, Port
from hilcl.sim_backend.emulation.reading_buffers import BufferedInstrument, Row
from hilcl.sim_backend.emulation.scpi import OVERFLOW, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import Boolean, Choice, Real, Request, Setting, Whole
from hilcl.sim_backend.emulation.source_measure import smallest_range

RANGES = (0.1, 1.0, 10.0, 100.0, 1000.0)
OVERRANGE = 1.2
RELAY_SECONDS = 0.003
"""Actuation time of the 7700's electromechanical relays."""

CHANNELS = tuple(slot * 100 + channel for slot in (1, 2) for channel in range(1, 21))
"""Voltage channels of two 7700 modules (21 and 22 of each measure current)."""

FUNCTIONS = Choice(("VOLTage:DC", "VOLTage", "NONE"))

CHANNEL_SETTINGS = (
    Setting("[:SENSe#]:VOLTage[:DC]:RANGe[:UPPer]", "range", Real(0, 1000, "V"), RANGES[-1]),
    Setting("[:SENSe#]:VOLTage[:DC]:RANGe:AUTO", "auto", Boolean(), True),
    Setting("[:SENSe#]:VOLTage[:DC]:NPLCycles", "nplc", Real(0.0005, 15, "PLC"), 1.0),
    Setting("[:SENSe#]:VOLTage[:DC]:APERture", "aperture", Real(8.333e-6, 0.25, "S"), 1 / 60),
    Setting("[:SENSe#]:VOLTage[:DC]:AZERo[:STATe]", "autozero", Boolean(), True),
    Setting("[:SENSe#]:VOLTage[:DC]:INPutimpedance", "impedance", Choice(("AUTO", "MOHM10")), "MOHM10"),
    Setting("[:SENSe#]:VOLTage[:DC]:AVERage[:STATe]", "average", Boolean(), False),
    Setting("[:SENSe#]:VOLTage[:DC]:AVERage:COUNt", "average_count", Whole(1, 100), 10),
    Setting("[:SENSe#]:VOLTage[:DC]:AVERage:TCONtrol", "average_type", Choice(("REPeat", "MOVing", "HYBRid")), "REP"),
    Setting("[:SENSe#]:VOLTage[:DC]:DELay:AUTO", "delay_auto", Boolean(), True),
    Setting(":ROUTe[:CHANnel]:DELay", "delay", Real(0, 60, "S"), 0.0),
)

SETTINGS = (
    Setting(":ROUTe:SCAN:COUNt:SCAN", "scan_count", Whole(0, 100_000_000), 1),
    Setting(":ROUTe:SCAN:INTerval", "scan_interval", Real(0, 1e5, "S"), 0.0),
    Setting(":ROUTe:SCAN:MEASure:INTerval", "measure_interval", Real(0, 1e5, "S"), 0.0),
)

MAX_SCAN_ROWS = 100_000


class Daq6510(BufferedInstrument):
    """A DAQ6510 with two 7700 modules; ``ports`` are the wired channels by number, 101 to 120 and 201 to 220."""

    def __init__(
        self,
        ports: Mapping[int, Port],
        clock: Clock,
        *,
        serial: str = "04510001",
        errors: MeterErrors = IDEAL_METER,
        line_frequency: int = 60,
        seed: int = 0,
    ) -> None:
        unknown = sorted(set(ports) - set(CHANNELS))
        if unknown:
            raise ValueError(f"a DAQ6510 has no channel {unknown[0]}")
        self._meter = ScanningMeter(ports, clock, errors, relay_seconds=RELAY_SECONDS, seed=seed)
        self._scan: tuple[int, ...] = ()
        self.scan_buffer = "defbuffer1"
        self._functions = dict.fromkeys((FRONT, *CHANNELS), "VOLT:DC")
        self._settings_by_channel = ChannelSettings(CHANNEL_SETTINGS, CHANNELS, self._meant, _rounded, self._wrote)
        identity = f"KEITHLEY INSTRUMENTS,MODEL DAQ6510,{serial},1.7.12b"
        super().__init__(identity, SETTINGS, clock, line_frequency=line_frequency, digits=errors.digits)
        self._add_commands()

    def reset(self) -> None:
        """``*RST``: channels open, scan list empty, settings to their defaults."""
        super().reset()
        self._meter.open()
        self._scan = ()
        self.scan_buffer = "defbuffer1"
        self._settings_by_channel.reset()

    def take(self) -> list[Row]:
        """Read the closed channel; where none is closed and there is a scan list, scan it once."""
        if self._meter.closed is None and self._scan:
            return self._scan_once()
        return [self._read(self._meter.closed or FRONT)]

    def _scan_once(self) -> list[Row]:
        rows = []
        for channel in self._scan:
            begun = self._meter.now
            self._meter.close(channel)
            rows.append(self._read(channel))
            self._meter.wait(self.state[1]["measure_interval"] - (self._meter.now - begun))
        self._meter.open()
        return rows

    def _read(self, channel: int) -> Row:
        values = self._settings_by_channel
        self._meter.wait(values["delay", channel])
        nplc = values["nplc", channel]
        repeats = values["average_count", channel] if values["average", channel] else 1
        taken = [self._meter.read(nplc / self.mains, nplc) for _ in range(repeats)]
        volts = math.fsum(taken) / repeats
        reach = (RANGES[-1] if values["auto", channel] else values["range", channel]) * OVERRANGE
        if abs(volts) > reach:
            volts = math.copysign(OVERFLOW, volts)
        return Row(volts, self._meter.now, "Volt DC", channel=channel)

    def _initiate(self) -> None:
        if not self._scan:
            raise ScpiError(-221, "Settings conflict, no scan is defined")
        if self.scan_buffer not in self.buffers:
            raise ScpiError(1133, f"Parameter 1, Syntax error, no reading buffer {self.scan_buffer}")
        buffer = self.buffers[self.scan_buffer]
        # A new scan starts with an empty buffer; 0 scans means endless, which one bench step never wants.
        buffer.rows.clear()
        scans = max(self.state[1]["scan_count"], 1)
        if scans * len(self._scan) > MAX_SCAN_ROWS:
            raise ScpiError(-223)
        for _ in range(scans):
            begun = self._meter.now
            for row in self._scan_once():
                buffer.add(row)
            self._meter.wait(self.state[1]["scan_interval"] - (self._meter.now - begun))

    def _meant(self) -> tuple[int, ...]:
        return (FRONT if self._meter.closed is None else self._meter.closed,)

    def _wrote(self, name: str, channel: int) -> None:
        values = self._settings_by_channel
        if name == "range":
            values["auto", channel] = False
        elif name == "nplc":
            values["aperture", channel] = values["nplc", channel] / self.mains
        elif name == "aperture":
            values["nplc", channel] = values["aperture", channel] * self.mains

    def _add_commands(self) -> None:
        for setting in CHANNEL_SETTINGS:
            self.add(
                setting.header,
                partial(self._settings_by_channel.write, setting.name),
                partial(self._settings_by_channel.ask, setting.name, digits=self.digits),
            )
        self.add("[:SENSe#]:FUNCtion[:ON]", self._set_function, self._ask_function)
        self.add(":ROUTe[:CHANnel]:CLOSe", self._close, lambda _: self._closed())
        self.add(":ROUTe[:CHANnel]:OPEN", self._open)
        self.add(":ROUTe[:CHANnel]:OPEN:ALL", lambda _: self._meter.open())
        self.add(":ROUTe:SCAN[:CREate]", self._create_scan, lambda _: _listed(self._scan))
        self.add(":ROUTe:SCAN:BUFFer", self._set_scan_buffer, lambda _: f'"{self.scan_buffer}"')
        self.add(":ROUTe:SCAN:ADD", self._add_to_scan)
        self.add(":ROUTe:TERMinals", ask=lambda _: "REAR")
        self.add(":INITiate[:IMMediate]", lambda _: self._initiate())
        self.add(":ABORt", lambda _: None)
        for slot in (1, 2):
            self.add(f":SYSTem:CARD{slot}:IDN", ask=lambda _: "7700,20Ch Mux w/CJC,0.0.0a,1234567")
            self.add(f":SYSTem:CARD{slot}:VCHannel:STARt", ask=partial(_constant, str(100 * slot + 1)))
            self.add(f":SYSTem:CARD{slot}:VCHannel:END", ask=partial(_constant, str(100 * slot + 20)))
            self.add(f":SYSTem:CARD{slot}:VMAX", ask=lambda _: "300")
        for header in ("", ":VOLTage[:DC]"):
            self.add(f":MEASure{header}", ask=self.read)

    def _set_function(self, request: Request) -> None:
        arguments, channels = self._settings_by_channel.split(request.arguments)
        if len(arguments) != 1:
            raise ScpiError(-109 if not arguments else -108)
        short = FUNCTIONS.parse(arguments[0], None)
        self._functions.update(dict.fromkeys(channels, "VOLT:DC" if short == "VOLT" else short))

    def _ask_function(self, request: Request) -> str:
        _, channels = self._settings_by_channel.split(request.arguments)
        return ",".join(f'"{self._functions[channel]}"' for channel in channels)

    def _channels(self, request: Request, least: int = 1) -> tuple[int, ...]:
        (given,) = request.take(1, 1)
        if given.kind != "channels":
            raise ScpiError(-104)
        if len(given.channels) < least or any(channel not in CHANNELS for channel in given.channels):
            raise ScpiError(-222)
        return given.channels

    def _close(self, request: Request) -> None:
        channels = self._channels(request)
        if len(channels) > 1:
            raise ScpiError(-222)
        self._meter.close(channels[0])

    def _open(self, request: Request) -> None:
        if self._meter.closed in self._channels(request):
            self._meter.open()

    def _closed(self) -> str:
        return _listed(() if self._meter.closed is None else (self._meter.closed,))

    def _create_scan(self, request: Request) -> None:
        self._scan = self._channels(request, least=0)
        self._meter.open()

    def _set_scan_buffer(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        self.buffer_named(given)
        self.scan_buffer = given.text

    def _add_to_scan(self, request: Request) -> None:
        self._scan += self._channels(request)
        if len(self._scan) > MAX_SCAN_ROWS:
            self._scan = ()
            raise ScpiError(-223)


def _listed(channels: tuple[int, ...]) -> str:
    return "(@" + ",".join(str(channel) for channel in channels) + ")"


def _constant(text: str, _: Request) -> str:
    return text


def _rounded(name: str, value: Any) -> Any:
    return smallest_range(RANGES, value, OVERRANGE) if name == "range" else value
