"""The Keysight B2900 series on the wire (B2900 SCPI Command Reference, B2910-90030, chapters 1, 2 and 4)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port
from hilcl.sim_backend.emulation.scpi import NAN, OVERFLOW, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import Boolean, Choice, Real, Request, ScpiInstrument, Setting, Whole
from hilcl.sim_backend.emulation.source_measure import IDEAL, Analogue, Reading, SourceMeasure, smallest_range
from hilcl.sim_backend.emulation.status import QueuedError, RegisterSet, Status

VOLT_RANGES = (0.2, 2.0, 20.0, 200.0)
AMPERE_RANGES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 1.5, 3.0)
OVERRANGE = 1.05
HIGH_CURRENT = 1.5
"""From this range on, A, readings reach less far ("B2900A Series Precision SMU" data sheet, page 16, over range)."""


def reading_reach(quantity: str, full_scale: float) -> float:
    """Return the greatest reading on a range: 106 % of it, 102 % of the two highest current ranges."""
    return full_scale * (1.02 if quantity == "amperes" and full_scale >= HIGH_CURRENT else 1.06)


CHANNELS = {
    "B2901A": 1,
    "B2902A": 2,
    "B2911A": 1,
    "B2912A": 2,
    "B2901B": 1,
    "B2902B": 2,
    "B2911B": 1,
    "B2912B": 2,
}

OFF_AMPERES = 1e-4
"""Compliance of the 0 V source in the output-off states NORMal and ZERO (:OUTPut:OFF:MODE)."""

MAX_POINTS = 100_000

TRIGGERS = Choice(("AINT", "BUS", "TIMer", "INT1", "INT2", "LAN"))
SETTINGS = (
    Setting(":OUTPut#:ON:AUTO", "on_auto", Boolean(), True),
    Setting(":OUTPut#:OFF:AUTO", "off_auto", Boolean(), False),
    Setting(":OUTPut#:OFF:MODE", "off_mode", Choice(("NORMal", "HIZ", "ZERO")), "NORM"),
    Setting(":OUTPut#:PROTection[:STATe]", "trip", Boolean(), False),
    Setting(":OUTPut#:LOW", "low", Choice(("GROund", "FLOat")), "GRO"),
    Setting(":OUTPut#:HCAPacitance[:STATe]", "highc", Boolean(), False),
    Setting(":OUTPut#:FILTer[:LPASs][:STATe]", "filter", Boolean(), True),
    Setting("[:SOURce#]:FUNCtion:MODE", "function", Choice(("VOLTage", "CURRent")), "VOLT"),
    Setting("[:SOURce#]:FUNCtion[:SHAPe]", "shape", Choice(("DC", "PULSe")), "DC"),
    Setting("[:SOURce#]:FUNCtion:TRIGgered:CONTinuous", "continuous", Boolean(), False),
    Setting("[:SOURce#]:VOLTage[:LEVel][:IMMediate][:AMPLitude]", "source_volts", Real(-210, 210, "V"), 0.0),
    Setting("[:SOURce#]:CURRent[:LEVel][:IMMediate][:AMPLitude]", "source_amperes", Real(-3.03, 3.03, "A"), 0.0),
    Setting("[:SOURce#]:VOLTage:MODE", "volts_mode", Choice(("FIXed", "SWEep", "LIST")), "FIX"),
    Setting("[:SOURce#]:CURRent:MODE", "amperes_mode", Choice(("FIXed", "SWEep", "LIST")), "FIX"),
    Setting("[:SOURce#]:VOLTage:RANGe", "source_volts_range", Real(-210, 210, "V"), 2.0),
    Setting("[:SOURce#]:CURRent:RANGe", "source_amperes_range", Real(-3.03, 3.03, "A"), 1e-4),
    Setting("[:SOURce#]:VOLTage:RANGe:AUTO", "source_volts_auto", Boolean(), True),
    Setting("[:SOURce#]:CURRent:RANGe:AUTO", "source_amperes_auto", Boolean(), True),
    Setting("[:SOURce#]:WAIT[:STATe]", "source_wait", Boolean(), True),
    Setting(":SENSe#:WAIT[:STATe]", "sense_wait", Boolean(), True),
    Setting(":SENSe#:CURRent[:DC]:PROTection[:LEVel][:BOTH]", "limit_amperes", Real(1e-9, 3.03, "A"), 1e-4),
    Setting(":SENSe#:VOLTage[:DC]:PROTection[:LEVel][:BOTH]", "limit_volts", Real(2e-3, 210, "V"), 2.0),
    Setting(":SENSe#:CURRent[:DC]:RANGe[:UPPer]", "amperes_range", Real(-3.03, 3.03, "A"), 1e-4),
    Setting(":SENSe#:VOLTage[:DC]:RANGe[:UPPer]", "volts_range", Real(-210, 210, "V"), 2.0),
    Setting(":SENSe#:CURRent[:DC]:RANGe:AUTO", "amperes_auto", Boolean(), True),
    Setting(":SENSe#:VOLTage[:DC]:RANGe:AUTO", "volts_auto", Boolean(), True),
    Setting(":SENSe#:CURRent[:DC]:RANGe:AUTO:LLIMit", "amperes_least", Real(0, 3.03, "A"), 1e-6),
    Setting(":SENSe#:VOLTage[:DC]:RANGe:AUTO:LLIMit", "volts_least", Real(0, 210, "V"), 0.2),
    Setting(":SENSe#:CURRent[:DC]:APERture:AUTO", "amperes_aperture_auto", Boolean(), True),
    Setting(":SENSe#:VOLTage[:DC]:APERture:AUTO", "volts_aperture_auto", Boolean(), True),
    Setting(":SENSe#:CURRent[:DC]:NPLCycles:AUTO", "amperes_nplc_auto", Boolean(), True),
    Setting(":SENSe#:VOLTage[:DC]:NPLCycles:AUTO", "volts_nplc_auto", Boolean(), True),
    Setting(":SENSe#:REMote", "four_wire", Boolean(), False),
    *(
        setting
        for layer, header in (("meter", ":ACQuire"), ("source", ":TRANsient"), ("all", "[:ALL]"))
        for setting in (
            Setting(f":TRIGger#{header}:COUNt", f"{layer}_count", Whole(1, MAX_POINTS), 1),
            Setting(f":TRIGger#{header}:DELay", f"{layer}_delay", Real(0, 1e5, "S"), 0.0),
            Setting(f":TRIGger#{header}:TIMer", f"{layer}_timer", Real(2e-5, 1e5, "S"), 2e-5),
            Setting(f":TRIGger#{header}:SOURce", f"{layer}_trigger", TRIGGERS, "AINT"),
            Setting(f":ARM#{header}:COUNt", f"{layer}_arm_count", Whole(1, MAX_POINTS), 1),
            Setting(f":ARM#{header}:SOURce", f"{layer}_arm", TRIGGERS, "AINT"),
        )
    ),
)

FUNCTIONS = Choice(("VOLTage", "VOLTage:DC", "CURRent", "CURRent:DC", "RESistance"))
ELEMENTS = Choice(("VOLTage", "CURRent", "RESistance", "TIME", "STATus", "SOURce"))
ELEMENT_ORDER = ("VOLT", "CURR", "RES", "TIME", "STAT", "SOUR")


@dataclass(frozen=True)
class Sample:
    """One reading of one channel with all its elements."""

    volts: float
    amperes: float
    ohms: float
    seconds: float
    status: int
    source: float

    def element(self, name: str) -> float:
        """Return one of the elements of ``:FORMat:ELEMents:SENSe``."""
        values = {"VOLT": self.volts, "CURR": self.amperes, "RES": self.ohms, "TIME": self.seconds}
        return float({**values, "STAT": self.status, "SOUR": self.source}[name])


class SmuB2900(ScpiInstrument):
    """A B2900 with one port per channel; ``model`` is one of CHANNELS."""

    def __init__(
        self,
        ports: tuple[Port, ...],
        clock: Clock,
        *,
        model: str = "B2912A",
        serial: str = "MY51140001",
        analogue: Analogue = IDEAL,
        line_frequency: int = 60,
        seed: int = 0,
        function_change_switches_off: bool = True,
    ) -> None:
        if len(ports) != CHANNELS[model]:
            raise ValueError(f"a {model} has {CHANNELS[model]} channels, got {len(ports)} ports")
        status = Status(
            capacity=100,
            registers={
                "MEASurement": (RegisterSet(), 1 << 0),
                "QUEStionable": (RegisterSet(), 1 << 3),
                "OPERation": (RegisterSet(), 1 << 7),
            },
        )
        self._clock, self._mains = clock, line_frequency
        self._switches_off = function_change_switches_off
        self._smus = {
            number: SourceMeasure(port, clock, analogue, seed=seed + number) for number, port in enumerate(ports, 1)
        }
        identity = f"Keysight Technologies,{model},{serial},4.0.1933.4160"
        self._power_on()
        super().__init__(identity, SETTINGS, status, channels=len(ports), digits=analogue.digits)
        self._add_commands()
        for number in self.channels:
            self._drive(number)

    def _power_on(self) -> None:
        self.outputs = dict.fromkeys(self._smus, False)
        self.tripped = dict.fromkeys(self._smus, False)
        self.functions: dict[int, tuple[str, ...]] = dict.fromkeys(self._smus, ("VOLT", "CURR"))
        self.nplc = dict.fromkeys(self._smus, 1.0)
        self.samples: dict[int, list[Sample]] = {number: [] for number in self._smus}
        self.elements: tuple[str, ...] = ELEMENT_ORDER
        self._epoch = self._clock.now()

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which outputs are on, channel 1 first."""
        return tuple(self.outputs.values())

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What each channel applies to its node now."""
        return tuple(smu.applied for smu in self._smus.values())

    def error_text(self, entry: QueuedError) -> str:
        """Return ``+0,"No error"``: the code always has a sign."""
        return f'{entry.code:+d},"{entry.message}"'

    def reset(self) -> None:
        """``*RST``: outputs off, settings to their defaults."""
        super().reset()
        self._power_on()
        for number in self.channels:
            self._drive(number)

    def before(self, channel: int, name: str, value: Any) -> Any:
        """Round to ranges and refuse what conflicts."""
        state = self.state[channel]
        if name in {"source_volts", "source_amperes"}:
            if not state[f"{name}_auto"] and abs(value) > state[f"{name}_range"] * OVERRANGE * (1 + 1e-9):
                raise ScpiError(-222)
        elif name.endswith("_range"):
            return smallest_range(VOLT_RANGES if "volts" in name else AMPERE_RANGES, value, OVERRANGE)
        return value

    def after(self, channel: int, name: str) -> None:
        """Keep what depends on a setting in step with it."""
        state = self.state[channel]
        if name.startswith("all_"):
            # :TRIGger[:ALL] and :ARM[:ALL] set the layers of source and meter together.
            for layer in ("meter", "source"):
                state[layer + name.removeprefix("all")] = state[name]
        if name.endswith("_range"):
            state[name.replace("_range", "_auto")] = False
        elif name == "function" and self.outputs[channel] and self._switches_off:
            self.outputs[channel] = False
        for quantity, ranges in (("volts", VOLT_RANGES), ("amperes", AMPERE_RANGES)):
            if state[f"source_{quantity}_auto"]:
                state[f"source_{quantity}_range"] = smallest_range(ranges, state[f"source_{quantity}"], OVERRANGE)
        self._drive(channel)

    # The outputs

    def _drive(self, channel: int) -> None:
        state, smu = self.state[channel], self._smus[channel]
        if not self.outputs[channel]:
            if state["off_mode"] != "HIZ" and smu.applied.kind != "open":
                smu.drive(Applied("voltage", 0.0, OFF_AMPERES))
            smu.drive(Applied("voltage", 0.0, OFF_AMPERES) if state["off_mode"] == "ZERO" else OPEN)
            return
        if state["function"] == "VOLT":
            wanted = Applied("voltage", state["source_volts"], self._limit(channel, "amperes"))
            source_range = state["source_volts_range"]
        else:
            wanted = Applied("current", state["source_amperes"], self._limit(channel, "volts"))
            source_range = state["source_amperes_range"]
        smu.drive(wanted, source_range, four_wire=state["four_wire"])
        if state["trip"] and smu.limited():
            # Over-voltage and over-current protection: 0 V and off at once (:OUTPut:PROTection).
            self.tripped[channel] = True
            self.outputs[channel] = False
            self._drive(channel)

    def _limit(self, channel: int, quantity: str) -> float:
        state = self.state[channel]
        limit = float(state[f"limit_{quantity}"])
        return limit if state[f"{quantity}_auto"] else min(limit, reading_reach(quantity, state[f"{quantity}_range"]))

    def _switch(self, channel: int, on: bool) -> None:
        self.outputs[channel] = on
        if on:
            self.tripped[channel] = False
        self._drive(channel)

    def _compliance(self, channel: int) -> bool:
        return self.outputs[channel] and self._smus[channel].limited()

    # Readings

    def _sample(self, channel: int) -> Sample:
        state, smu = self.state[channel], self._smus[channel]
        if state["trip"]:
            self._drive(channel)
        nplc = self.nplc[channel]
        reading = smu.measure(nplc / self._mains, nplc, four_wire=state["four_wire"])
        closed = smu.applied.kind != "open"
        limited = self.outputs[channel] and reading.limited
        volts, amperes, ohms = self._values(channel, reading) if closed else (NAN, NAN, NAN)
        sourcing_volts = state["function"] == "VOLT"
        overflow = OVERFLOW in (abs(volts), abs(amperes))
        bits = (0 if sourcing_volts else 1) | (2 if limited else 0) | (8192 if overflow else 0)
        source = state["source_volts"] if sourcing_volts else state["source_amperes"]
        return Sample(volts, amperes, ohms, reading.seconds - self._epoch, bits, source)

    def _values(self, channel: int, reading: Reading) -> tuple[float, float, float]:
        state, functions = self.state[channel], self.functions[channel]
        shown = {}
        for name, quantity, value in (("VOLT", "volts", reading.volts), ("CURR", "amperes", reading.amperes)):
            sourced = state["function"] == name
            fixed = not sourced and not state[f"{quantity}_auto"]
            over = fixed and abs(value) > reading_reach(quantity, state[f"{quantity}_range"]) * (1 + 1e-6)
            wanted = name in functions or "RES" in functions
            shown[name] = OVERFLOW if over else value if wanted else NAN
        ohms = reading.ohms if reading.amperes and "RES" in functions else NAN
        return shown["VOLT"], shown["CURR"], ohms

    def _acquire(self, channels: tuple[int, ...]) -> None:
        for channel in channels:
            if not self.outputs[channel] and self.state[channel]["on_auto"]:
                self._switch(channel, True)
        for channel in channels:
            state = self.state[channel]
            if state["meter_arm_count"] * state["meter_count"] > MAX_POINTS:
                raise ScpiError(-223)
            if "BUS" in {state["meter_trigger"], state["meter_arm"]}:
                raise ScpiError(-214)
        # Channels listed together measure at the same time.
        taken = [self._clock.aside(partial(self._points, channel)) for channel in channels]
        self._clock.spend(max((seconds for _, seconds in taken), default=0.0))
        for channel, (samples, _) in zip(channels, taken, strict=True):
            self.samples[channel] = samples
            if self.state[channel]["off_auto"]:
                self._switch(channel, False)

    def _points(self, channel: int) -> list[Sample]:
        state = self.state[channel]
        self._smus[channel].wait(state["source_delay"] + state["meter_delay"])
        return [self._sample(channel) for _ in range(state["meter_arm_count"] * state["meter_count"])]

    def _listed(self, request: Request) -> tuple[int, ...]:
        given = request.take(0, 1)
        if not given:
            return (1,)
        if given[0].kind != "channels":
            raise ScpiError(-104)
        return self._known(given[0].channels)

    def _known(self, channels: tuple[int, ...]) -> tuple[int, ...]:
        if not channels or any(channel not in self.state for channel in channels):
            raise ScpiError(-222)
        return channels

    def _show(self, samples: list[Sample], elements: tuple[str, ...]) -> str:
        if not samples:
            raise ScpiError(-230)
        return self.data([sample.element(name) for sample in samples for name in elements])

    def _measure(self, elements: tuple[str, ...] | None, request: Request) -> str:
        channels = self._listed(request)
        for channel in channels:
            self.samples[channel] = [self._sample(channel)]
        return self._show([self.samples[channel][-1] for channel in channels], elements or self.elements)

    def _read(self, elements: tuple[str, ...] | None, request: Request) -> str:
        self._acquire(self._listed(request))
        return self._fetch(elements, request)

    def _fetch(self, elements: tuple[str, ...] | None, request: Request, *, every: bool = False) -> str:
        channels = self._listed(request)
        samples = [sample for channel in channels for sample in self.samples[channel][0 if every else -1 :]]
        return self._show(samples, elements or self.elements)

    def _read_array(self, elements: tuple[str, ...] | None, request: Request) -> str:
        self._acquire(self._listed(request))
        return self._fetch(elements, request, every=True)

    # Commands

    def _add_commands(self) -> None:
        self.add_data_format({"ASC": None, "REAL,32": "f", "REAL,64": "d"}, border="NORM", definite=True)
        self.add(":OUTPut#[:STATe]", self._set_output, lambda request: str(int(self.outputs[self._channel(request)])))
        self.add(":SENSe#:FUNCtion[:ON]", self._enable, self._ask_functions)
        self.add(":SENSe#:FUNCtion:OFF", self._disable)
        self.add(":SENSe#:FUNCtion[:ON]:ALL", self._enable_all)
        self.add(":SENSe#:FUNCtion:OFF:ALL", self._disable_all)
        for header in ("CURRent[:DC]", "VOLTage[:DC]", "RESistance"):
            self.add(f":SENSe#:{header}:NPLCycles", self._set_nplc, self._ask_nplc)
            self.add(f":SENSe#:{header}:APERture", self._set_aperture, self._ask_aperture)
        for header, function in (("CURRent[:DC]", "CURR"), ("VOLTage[:DC]", "VOLT")):
            self.add(
                f":SENSe#:{header}:PROTection:TRIPped",
                ask=partial(self._ask_tripped, function),
            )
        for header, elements in (
            ("", None),
            (":CURRent[:DC]", ("CURR",)),
            (":VOLTage[:DC]", ("VOLT",)),
            (":RESistance", ("RES",)),
        ):
            for verb, ask in (
                (":MEASure", self._measure),
                (":READ[:SCALar]", self._read),
                (":FETCh[:SCALar]", self._fetch),
                (":READ:ARRay", self._read_array),
                (":FETCh:ARRay", self._fetch_array),
            ):
                self.add(
                    verb + header,
                    ask=partial(ask, elements),
                )
        self.add(":INITiate[:IMMediate][:ALL]", lambda request: self._acquire(self._listed(request)))
        self.add(":INITiate[:IMMediate]:ACQuire", lambda request: self._acquire(self._listed(request)))
        self.add(":ABORt[:ALL]", self._aborted)
        self.add(":FORMat:ELEMents:SENSe", self._set_elements, lambda _: ",".join(self.elements))
        self.add(":SYSTem:LFRequency", self._set_line_frequency, lambda _: str(self._mains))
        self.add(":SYSTem:BEEPer[:IMMediate]", lambda request: _discard(request, 2))
        self.add(":SYSTem:BEEPer:STATe", lambda request: _discard(request, 1), lambda _: "0")
        self.add(":DISPlay:ENABle", lambda request: _discard(request, 1), lambda _: "1")
        self.add(":SYSTem:TIME:TIMer:COUNt:RESet:AUTO", lambda request: _discard(request, 1))

    def _channel(self, request: Request) -> int:
        if request.channel not in self.state:
            raise ScpiError(-114)
        return request.channel

    def _set_output(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        self._switch(self._channel(request), Boolean().parse(given, False))

    def _named(self, request: Request) -> set[str]:
        if not request.arguments:
            raise ScpiError(-109)
        return {FUNCTIONS.parse(given, None).removesuffix(":DC") for given in request.arguments}

    def _enable(self, request: Request) -> None:
        channel, named = self._channel(request), self._named(request)
        self.functions[channel] = tuple(
            name for name in ELEMENT_ORDER if name in named or name in self.functions[channel]
        )

    def _disable(self, request: Request) -> None:
        channel, named = self._channel(request), self._named(request)
        self.functions[channel] = tuple(name for name in self.functions[channel] if name not in named)

    def _enable_all(self, request: Request) -> None:
        self.functions[self._channel(request)] = ("VOLT", "CURR", "RES")

    def _disable_all(self, request: Request) -> None:
        self.functions[self._channel(request)] = ()

    def _ask_functions(self, request: Request) -> str:
        return ",".join(f'"{name}"' for name in self.functions[self._channel(request)]) or '""'

    def _set_nplc(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        self.nplc[self._channel(request)] = Real(4.8e-4, 120, "PLC").parse(given, 1.0)

    def _ask_nplc(self, request: Request) -> str:
        return self.number(self.nplc[self._channel(request)])

    def _set_aperture(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        self.nplc[self._channel(request)] = Real(8e-6, 2, "S").parse(given, 0.1) * self._mains

    def _ask_aperture(self, request: Request) -> str:
        return self.number(self.nplc[self._channel(request)] / self._mains)

    def _ask_tripped(self, function: str, request: Request) -> str:
        channel = self._channel(request)
        limits = "CURR" if self.state[channel]["function"] == "VOLT" else "VOLT"
        return str(int(function == limits and (self._compliance(channel) or self.tripped[channel])))

    def _fetch_array(self, elements: tuple[str, ...] | None, request: Request) -> str:
        return self._fetch(elements, request, every=True)

    def _aborted(self, request: Request) -> None:
        self._listed(request)

    def _set_elements(self, request: Request) -> None:
        if not request.arguments:
            raise ScpiError(-109)
        wanted = {ELEMENTS.parse(given, None) for given in request.arguments}
        self.elements = tuple(name for name in ELEMENT_ORDER if name in wanted)

    def _set_line_frequency(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        frequency = Whole(50, 60).parse(given, 60)
        if frequency not in {50, 60}:
            raise ScpiError(-222)
        self._mains = frequency


def _discard(request: Request, most: int) -> None:
    request.take(0, most)
