"""The Keithley 2400 on the wire (2400 Series SourceMeter User's Manual, 2400S-900-01, section 18, appendix B)."""

import math
import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port
from hilcl.sim_backend.emulation.scpi import NAN, OVERFLOW, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import (
    AutoZero,
    Boolean,
    Choice,
    Real,
    Request,
    ScpiInstrument,
    Setting,
    Text,
    Whole,
)
from hilcl.sim_backend.emulation.source_measure import IDEAL, Analogue, Reading, SourceMeasure, smallest_range
from hilcl.sim_backend.emulation.status import RegisterSet, Status

VOLT_RANGES = (0.2, 2.0, 20.0, 200.0)
AMPERE_RANGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
OHM_RANGES = (2e1, 2e2, 2e3, 2e4, 2e5, 2e6, 2e7, 2e8)
OVERRANGE = 1.05
READING_OVERRANGE = 1.055
"""A reading reaches 105.5 % of its range: 2.11 V, 105.5 mA (section 7, maximum readings); limits and sources 105 %."""
"""Ranges are named by their nominal value and reach 5 % further (section 7); queries answer the reach."""

OFF_FRACTION = 0.005
"""Compliance in the NORMal and GUARd output-off states, of the present range (section 18, :OUTPut:SMODe)."""

AUTO_DELAY = 0.001
"""Seconds of the automatic source delay."""

READING_OVERHEAD = 0.012
"""Seconds a reading takes besides integrating, from about 80 readings/s at 0.01 NPLC over SCPI."""

LOW_POWER_VOLTS, HIGH_POWER_AMPERES = 21.0, 0.105
"""Above 21 V no more than 105 mA (section 7, table 7-1)."""

BUFFER_SIZE = 2500


SETTINGS = (
    Setting(":OUTPut#:SMODe", "off_state", Choice(("NORMal", "ZERO", "HIMPedance", "GUARd")), "NORM"),
    Setting(":ROUTe:TERMinals", "terminals", Choice(("FRONt", "REAR")), "FRON"),
    Setting(":SOURce#:FUNCtion[:MODE]", "function", Choice(("VOLTage", "CURRent")), "VOLT"),
    Setting(":SOURce#:CLEar:AUTO", "auto_off", Boolean(), False),
    Setting(":SOURce#:DELay", "delay", Real(0, 999.9999, "S"), 0.001),
    Setting(":SOURce#:DELay:AUTO", "delay_auto", Boolean(), True),
    Setting(":SOURce#:VOLTage[:LEVel][:IMMediate][:AMPLitude]", "source_volts", Real(-210, 210, "V"), 0.0),
    Setting(":SOURce#:CURRent[:LEVel][:IMMediate][:AMPLitude]", "source_amperes", Real(-1.05, 1.05, "A"), 0.0),
    Setting(":SOURce#:VOLTage:RANGe", "source_volts_range", Real(-210, 210, "V"), 21.0),
    Setting(":SOURce#:CURRent:RANGe", "source_amperes_range", Real(-1.05, 1.05, "A"), 1.05e-4),
    Setting(":SOURce#:VOLTage:RANGe:AUTO", "source_volts_auto", Boolean(), True),
    Setting(":SOURce#:CURRent:RANGe:AUTO", "source_amperes_auto", Boolean(), True),
    Setting(":SOURce#:VOLTage:MODE", "source_volts_mode", Choice(("FIXed", "SWEep", "LIST")), "FIX"),
    Setting(":SOURce#:CURRent:MODE", "source_amperes_mode", Choice(("FIXed", "SWEep", "LIST")), "FIX"),
    Setting(":SOURce#:VOLTage:STARt", "volts_start", Real(-210, 210, "V"), 0.0),
    Setting(":SOURce#:VOLTage:STOP", "volts_stop", Real(-210, 210, "V"), 0.0),
    Setting(":SOURce#:CURRent:STARt", "amperes_start", Real(-1.05, 1.05, "A"), 0.0),
    Setting(":SOURce#:CURRent:STOP", "amperes_stop", Real(-1.05, 1.05, "A"), 0.0),
    Setting(":SOURce#:SWEep:POINts", "sweep_points", Whole(1, BUFFER_SIZE), BUFFER_SIZE),
    Setting(":SOURce#:VOLTage:PROTection[:LEVel]", "over_volts", Real(-210, 210, "V"), 210.0),
    Setting("[:SENSe#]:FUNCtion:CONCurrent", "concurrent", Boolean(), True),
    Setting("[:SENSe#]:CURRent[:DC]:RANGe[:UPPer]", "amperes_range", Real(-1.05, 1.05, "A"), 1.05e-4),
    Setting("[:SENSe#]:VOLTage[:DC]:RANGe[:UPPer]", "volts_range", Real(-210, 210, "V"), 21.0),
    Setting("[:SENSe#]:RESistance:RANGe[:UPPer]", "ohms_range", Real(0, 210e6, "OHM"), 2.1e5),
    Setting("[:SENSe#]:CURRent[:DC]:RANGe:AUTO", "amperes_auto", Boolean(), True),
    Setting("[:SENSe#]:VOLTage[:DC]:RANGe:AUTO", "volts_auto", Boolean(), True),
    Setting("[:SENSe#]:RESistance:RANGe:AUTO", "ohms_auto", Boolean(), True),
    Setting("[:SENSe#]:CURRent[:DC]:PROTection[:LEVel]", "limit_amperes", Real(-1.05, 1.05, "A"), 1.05e-4),
    Setting("[:SENSe#]:VOLTage[:DC]:PROTection[:LEVel]", "limit_volts", Real(-210, 210, "V"), 21.0),
    Setting("[:SENSe#]:RESistance:MODE", "ohms_mode", Choice(("MANual", "AUTO")), "AUTO"),
    Setting("[:SENSe#]:RESistance:OCOMpensated", "ohms_compensated", Boolean(), False),
    Setting("[:SENSe#]:AVERage[:STATe]", "filter", Boolean(), False),
    Setting("[:SENSe#]:AVERage:TCONtrol", "filter_type", Choice(("REPeat", "MOVing")), "REP"),
    Setting("[:SENSe#]:AVERage:COUNt", "filter_count", Whole(1, 100), 10),
    Setting(":SYSTem:AZERo[:STATe]", "autozero", AutoZero(), True),
    Setting(":SYSTem:RSENse", "four_wire", Boolean(), False),
    Setting(":SYSTem:LFRequency", "line_frequency", Whole(50, 60), 60),
    Setting(":SYSTem:LFRequency:AUTO", "line_frequency_auto", Boolean(), True),
    Setting(":SYSTem:BEEPer:STATe", "beeper", Boolean(), True),
    Setting(":DISPlay:ENABle", "display", Boolean(), True),
    Setting(":DISPlay:DIGits", "display_digits", Whole(4, 7), 6),
    Setting(":DISPlay[:WINDow#]:TEXT[:DATA]", "display_text", Text(32), ""),
    Setting(":DISPlay[:WINDow#]:TEXT:STATe", "display_text_on", Boolean(), False),
    Setting(":ARM[:SEQuence#][:LAYer#]:COUNt", "arm_count", Whole(1, BUFFER_SIZE), 1),
    Setting(
        ":ARM[:SEQuence#][:LAYer#]:SOURce",
        "arm_source",
        Choice(("IMMediate", "TLINk", "TIMer", "MANual", "BUS", "NSTest", "PSTest", "BSTest")),
        "IMM",
    ),
    Setting(":ARM[:SEQuence#][:LAYer#]:TIMer", "arm_timer", Real(0.001, 99999.99, "S"), 0.1),
    Setting(":ARM[:SEQuence#][:LAYer#]:ILINe", "arm_input", Whole(1, 4), 1),
    Setting(":ARM[:SEQuence#][:LAYer#]:OLINe", "arm_output_line", Whole(1, 4), 2),
    Setting(":ARM[:SEQuence#][:LAYer#]:OUTPut", "arm_output", Choice(("NONE", "TENTer", "TEXit")), "NONE"),
    Setting(":TRIGger[:SEQuence#]:COUNt", "trigger_count", Whole(1, BUFFER_SIZE), 1),
    Setting(":TRIGger[:SEQuence#]:DELay", "trigger_delay", Real(0, 999.9999, "S"), 0.0),
    Setting(":TRIGger[:SEQuence#]:SOURce", "trigger_source", Choice(("IMMediate", "TLINk")), "IMM"),
    Setting(":TRIGger[:SEQuence#]:ILINe", "trigger_input", Whole(1, 4), 1),
    Setting(":TRIGger[:SEQuence#]:OLINe", "trigger_output_line", Whole(1, 4), 2),
    Setting(":TRIGger[:SEQuence#]:OUTPut", "trigger_output", Choice(("NONE", "SOURce", "DELay", "SENSe")), "NONE"),
    Setting(":TRACe:POINts", "buffer_points", Whole(1, BUFFER_SIZE), 100),
    Setting(":TRACe:FEED", "buffer_feed", Choice(("SENSe", "SENSe1", "CALCulate1", "CALCulate2")), "SENS"),
    Setting(":TRACe:FEED:CONTrol", "buffer_control", Choice(("NEVer", "NEXT")), "NEV"),
    Setting(":TRACe:TSTamp:FORMat", "buffer_time", Choice(("ABSolute", "DELta")), "ABS"),
    Setting(":CALCulate3:FORMat", "statistic", Choice(("MEAN", "SDEViation", "MAXimum", "MINimum", "PKPK")), "MEAN"),
)

FUNCTIONS = {"VOLT:DC": "VOLTage[:DC]", "CURR:DC": "CURRent[:DC]", "RES": "RESistance"}
FUNCTION_WORDS = Choice(("VOLTage:DC", "VOLTage", "CURRent:DC", "CURRent", "RESistance"))
ELEMENTS = Choice(("VOLTage", "CURRent", "RESistance", "TIME", "STATus"))
ELEMENT_ORDER = ("VOLT", "CURR", "RES", "TIME", "STAT")

BUFFER_FULL = 1 << 9
READING_AVAILABLE = 1 << 6
IN_COMPLIANCE = 1 << 14


@dataclass(frozen=True)
class Sample:
    """One reading with all its elements."""

    volts: float
    amperes: float
    ohms: float
    seconds: float
    status: int

    def element(self, name: str) -> float:
        """Return one of the elements of ``:FORMat:ELEMents``."""
        values = {"VOLT": self.volts, "CURR": self.amperes, "RES": self.ohms, "TIME": self.seconds, "STAT": self.status}
        return float(values[name])


class Smu2400(ScpiInstrument):
    """A Keithley 2400 whose INPUT/OUTPUT terminals are wired to ``port``.

    ``function_change_switches_off``: whether selecting the other source function turns an output off.
    """

    def __init__(
        self,
        port: Port,
        clock: Clock,
        *,
        model: str = "2400",
        serial: str = "4000001",
        analogue: Analogue = IDEAL,
        line_frequency: int = 60,
        seed: int = 0,
        function_change_switches_off: bool = True,
    ) -> None:
        status = Status(
            capacity=10,
            registers={
                "MEASurement": (RegisterSet(), 1 << 0),
                "QUEStionable": (RegisterSet(), 1 << 3),
                "OPERation": (RegisterSet(), 1 << 7),
            },
        )
        self._clock = clock
        self._smu = SourceMeasure(port, clock, analogue, seed=seed)
        self._mains = line_frequency
        self._switches_off = function_change_switches_off
        identity = f"KEITHLEY INSTRUMENTS INC.,MODEL {model},{serial},C34 Sep 21 2016 15:30:00/A02  /K/M"
        super().__init__(identity, SETTINGS, status, digits=analogue.digits)
        self._power_on()
        self._add_commands()
        self.state[1]["line_frequency"] = line_frequency
        self._drive()

    def _power_on(self) -> None:
        self.output = False
        self.functions: tuple[str, ...] = ("CURR:DC",)
        self.elements: tuple[str, ...] = ELEMENT_ORDER
        self.nplc = 1.0
        self.latest: list[Sample] = []
        self.buffer: list[Sample] = []
        self.waiting_for_bus = False
        self.list_volts: tuple[float, ...] = (0.0,)
        self.list_amperes: tuple[float, ...] = (0.0,)
        self._epoch = self._clock.now()

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Whether the output is on."""
        return (self.output,)

    @property
    def applied(self) -> Applied:
        """What the terminals apply to the node now."""
        return self._smu.applied

    def reset(self) -> None:
        """``*RST``: output off, settings to their defaults."""
        super().reset()
        buffer = self.buffer
        self._power_on()
        # The buffer is not cleared by *RST (section 8), nor is the mains frequency changed.
        self.buffer = buffer
        self.state[1]["line_frequency"] = self._mains
        self._drive()

    # Settings with rules

    def before(self, channel: int, name: str, value: Any) -> Any:
        """Round to ranges and refuse what conflicts."""
        state = self.state[channel]
        if name in {"source_volts", "source_amperes"}:
            if not state[f"{name}_auto"] and abs(value) > state[f"{name}_range"] * (1 + 1e-9):
                raise ScpiError(-222)
            self._check_power(**{name: value})
        elif name in _RANGES:
            reach = OVERRANGE * smallest_range(_RANGES[name], value, OVERRANGE)
            self._check_sense_range(name, reach)
            return reach
        elif name in {"limit_amperes", "limit_volts"}:
            return self._checked_limit(name, abs(value))
        elif name == "line_frequency" and value not in {50, 60}:
            raise ScpiError(-222)
        elif name in {"arm_count", "trigger_count"}:
            other = "trigger_count" if name == "arm_count" else "arm_count"
            if value * state[other] > BUFFER_SIZE:
                raise ScpiError(-222)
        return value

    def after(self, channel: int, name: str) -> None:
        """Keep what depends on a setting in step with it."""
        state = self.state[channel]
        if name in _RANGES:
            state[name.replace("_range", "_auto")] = False
        elif name == "delay":
            state["delay_auto"] = False
        elif name == "line_frequency":
            state["line_frequency_auto"] = False
            self._mains = state["line_frequency"]
        elif name == "function" and self.output and self._switches_off:
            self.output = False
        elif name == "buffer_control" and state["buffer_control"] == "NEXT":
            self.buffer.clear()
            self._update_status()
        for quantity, ranges in (("volts", VOLT_RANGES), ("amperes", AMPERE_RANGES)):
            if state[f"source_{quantity}_auto"]:
                full_scale = smallest_range(ranges, state[f"source_{quantity}"], OVERRANGE)
                least = 0.2 if quantity == "volts" else 1e-6
                if state[f"source_{quantity}"]:
                    state[f"source_{quantity}_range"] = OVERRANGE * max(full_scale, least)
        if name in _DRIVING:
            self._drive()

    def _check_power(self, **changed: float) -> None:
        state = {**self.state[1], **changed}
        if state["function"] == "VOLT":
            volts, amperes = abs(state["source_volts"]), state["limit_amperes"]
        else:
            volts, amperes = state["limit_volts"], abs(state["source_amperes"])
        if volts > LOW_POWER_VOLTS * (1 + 1e-9) and amperes > HIGH_POWER_AMPERES * (1 + 1e-9):
            raise ScpiError(826, "Attempt to exceed power limit")

    def _check_sense_range(self, name: str, reach: float) -> None:
        # "The highest current measurement range that can be selected is limited by the current compliance range"
        # (section 18, :SENSe:<function>:RANGe, note 3).
        limits = {"amperes_range": ("limit_amperes", AMPERE_RANGES), "volts_range": ("limit_volts", VOLT_RANGES)}
        sourced = "volts_range" if self.state[1]["function"] == "VOLT" else "amperes_range"
        if name in limits and name != sourced:
            limit, ranges = limits[name]
            highest = OVERRANGE * smallest_range(ranges, self.state[1][limit], OVERRANGE)
            if reach > highest * (1 + 1e-9):
                raise ScpiError(824, "Cannot exceed compliance range")

    def _checked_limit(self, name: str, value: float) -> float:
        # Compliance cannot be below 0.1 % of a fixed measurement range (section 6, compliance limit).
        quantity = name.removeprefix("limit_")
        ranges = AMPERE_RANGES if quantity == "amperes" else VOLT_RANGES
        state = self.state[1]
        present = ranges[0] if state[f"{quantity}_auto"] else state[f"{quantity}_range"] / OVERRANGE
        if value < 0.001 * present * (1 - 1e-9):
            raise ScpiError(822, "Too small for sense range")
        self._check_power(**{name: value})
        return value

    # The output

    def _drive(self) -> None:
        state = self.state[1]
        if self.output:
            source_range = state["source_volts_range" if state["function"] == "VOLT" else "source_amperes_range"]
            self._smu.drive(self._wanted(), source_range / OVERRANGE, four_wire=state["four_wire"])
        else:
            self._smu.drive(self._off(), 0.0, four_wire=False)
        self._update_status()

    def _wanted(self) -> Applied:
        state = self.state[1]
        if state["function"] == "VOLT":
            return Applied("voltage", state["source_volts"], self._limit("amperes")[0])
        return Applied("current", state["source_amperes"], self._limit("volts")[0])

    def _limit(self, quantity: str) -> tuple[float, bool]:
        """Return the limit in force, and whether it is that of a fixed measurement range (section 6)."""
        state = self.state[1]
        real = state[f"limit_{quantity}"]
        if not state[f"{quantity}_auto"] and state[f"{quantity}_range"] < real:
            return state[f"{quantity}_range"], True
        return real, False

    def _present_range(self, quantity: str) -> float:
        """Return the nominal range of a quantity: of the source where it is sourced, else of meter and compliance."""
        state = self.state[1]
        ranges = VOLT_RANGES if quantity == "volts" else AMPERE_RANGES
        if (quantity == "volts") == (state["function"] == "VOLT"):
            return float(state[f"source_{quantity}_range"]) / OVERRANGE
        if state[f"{quantity}_auto"]:
            return smallest_range(ranges, state[f"limit_{quantity}"], OVERRANGE)
        return float(state[f"{quantity}_range"]) / OVERRANGE

    def _off(self) -> Applied:
        state = self.state[1]
        if state["off_state"] == "HIMP":
            return OPEN
        if state["off_state"] == "GUAR":
            return Applied("current", 0.0, OFF_FRACTION * self._present_range("volts"))
        least = OFF_FRACTION * self._present_range("amperes")
        if state["off_state"] == "NORM":
            return Applied("voltage", 0.0, least)
        if state["function"] == "VOLT":
            return Applied("voltage", 0.0, self._limit("amperes")[0])
        return Applied("voltage", 0.0, max(abs(state["source_amperes"]), least))

    def _switch(self, on: bool) -> None:
        self.output = on
        self.waiting_for_bus = self.waiting_for_bus and on
        self._drive()

    # Readings

    def _read(self) -> Sample:
        state = self.state[1]
        delay = AUTO_DELAY if state["delay_auto"] else state["delay"]
        self._smu.wait(state["trigger_delay"] + delay)
        count = state["filter_count"] if state["filter"] and state["filter_type"] == "REP" else 1
        seconds = READING_OVERHEAD + self.nplc / state["line_frequency"]
        readings = [self._smu.measure(seconds, self.nplc, four_wire=state["four_wire"]) for _ in range(count)]
        return self._sample(readings)

    def _sample(self, readings: list[Reading]) -> Sample:
        state = self.state[1]
        sourcing_volts = state["function"] == "VOLT"
        bits = (1 << 14) if sourcing_volts else (1 << 15)
        volts = amperes = ohms = NAN
        if sourcing_volts:
            volts = state["source_volts"]
        else:
            amperes = state["source_amperes"]
        overflow = False
        if "VOLT:DC" in self.functions:
            volts, over = self._shown(statistics.fmean(reading.volts for reading in readings), "volts")
            overflow |= over
            bits |= 1 << 11
        if "CURR:DC" in self.functions:
            amperes, over = self._shown(statistics.fmean(reading.amperes for reading in readings), "amperes")
            overflow |= over
            bits |= 1 << 12
        if "RES" in self.functions:
            ohms = statistics.fmean(reading.ohms for reading in readings)
            if not math.isfinite(ohms) or abs(ohms) > 1e12:
                ohms, overflow = OVERFLOW, True
            bits |= 1 << 13
        if any(reading.limited for reading in readings):
            by_range = self._limit("amperes" if sourcing_volts else "volts")[1]
            bits |= (1 << 16) if by_range else (1 << 3)
        bits |= (1 << 0) if overflow else 0
        bits |= (1 << 1) if state["filter"] else 0
        bits |= (1 << 2) if state["terminals"] == "FRON" else 0
        bits |= (1 << 22) if state["four_wire"] else 0
        return Sample(volts, amperes, ohms, readings[-1].seconds - self._epoch, bits)

    def _shown(self, value: float, quantity: str) -> tuple[float, bool]:
        state = self.state[1]
        sourced = (quantity == "volts") == (state["function"] == "VOLT")
        reach = state[f"source_{quantity}_range"] if sourced else state[f"{quantity}_range"]
        automatic = state[f"source_{quantity}_auto"] if sourced else state[f"{quantity}_auto"]
        if automatic:
            reach = OVERRANGE * (VOLT_RANGES[-1] if quantity == "volts" else AMPERE_RANGES[-1])
        reach *= READING_OVERRANGE / OVERRANGE
        return (OVERFLOW, True) if abs(value) > reach * (1 + 1e-6) else (value, False)

    def _acquire(self) -> None:
        state = self.state[1]
        if not self.output and not state["auto_off"]:
            raise ScpiError(803, "Not permitted with OUTPUT off")
        if state["arm_source"] not in {"IMM", "TIM"} or state["trigger_source"] != "IMM":
            self.waiting_for_bus = state["arm_source"] == "BUS"
            return
        self._run()

    def _run(self) -> None:
        state = self.state[1]
        levels = self._levels()
        self.latest = []
        for index in range(state["arm_count"] * state["trigger_count"]):
            if levels:
                state[self._level_name()] = levels[index % len(levels)]
            if state["auto_off"] or not self.output:
                self._switch(True)
            elif levels:
                self._drive()
            sample = self._read()
            self.latest.append(sample)
            if state["buffer_control"] == "NEXT" and len(self.buffer) < state["buffer_points"]:
                self.buffer.append(sample)
                if len(self.buffer) == state["buffer_points"]:
                    state["buffer_control"] = "NEV"
                    self.status.registers["MEASurement"][0].raise_event(BUFFER_FULL)
            if state["auto_off"]:
                self._switch(False)
        self.status.registers["MEASurement"][0].raise_event(READING_AVAILABLE)
        self._update_status()

    def _level_name(self) -> str:
        return "source_volts" if self.state[1]["function"] == "VOLT" else "source_amperes"

    def _levels(self) -> tuple[float, ...]:
        state = self.state[1]
        quantity = "volts" if state["function"] == "VOLT" else "amperes"
        mode = state[f"source_{quantity}_mode"]
        if mode == "LIST":
            return self.list_volts if quantity == "volts" else self.list_amperes
        if mode == "SWE":
            points = state["sweep_points"]
            first, last = state[f"{quantity}_start"], state[f"{quantity}_stop"]
            return tuple(first + (last - first) * index / max(points - 1, 1) for index in range(points))
        return ()

    def _data(self, samples: list[Sample]) -> str:
        if not samples:
            raise ScpiError(-230)
        return self.data([sample.element(name) for sample in samples for name in self.elements])

    def _ask_read(self, _: Request) -> str:
        state = self.state[1]
        if state["arm_source"] not in {"IMM", "TIM"} or state["trigger_source"] != "IMM":
            raise ScpiError(-214)
        self._acquire()
        return self._data(self.latest)

    def _measure(self, function: str | None) -> str:
        if function is not None:
            self._configure(function)
        # ":MEASure? ... the output will be turned on" (section 18, signal-oriented commands).
        if not self.output:
            self._switch(True)
        self.state[1].update(arm_count=1, trigger_count=1, arm_source="IMM", trigger_source="IMM")
        self._acquire()
        return self._data(self.latest)

    def _ask_measure(self, function: str, _: Request) -> str:
        return self._measure(function)

    def _do_configure(self, function: str, _: Request) -> None:
        self._configure(function)

    def _configure(self, function: str) -> None:
        self.functions = (function,)
        self.state[1].update(arm_count=1, trigger_count=1, arm_source="IMM", trigger_source="IMM")
        if not self.output:
            self._switch(True)

    def trigger(self) -> None:
        """``*TRG``: start what waits for the bus."""
        if not self.waiting_for_bus:
            raise ScpiError(-211)
        self.waiting_for_bus = False
        self._run()

    def condition(self, name: str) -> int:
        """Return a register's condition, the limit looked up now."""
        self._update_status()
        return super().condition(name)

    def _update_status(self) -> None:
        measurement = self.status.registers["MEASurement"][0]
        full = len(self.buffer) >= self.state[1]["buffer_points"]
        limited = self._tripped()
        measurement.set_condition((BUFFER_FULL if full else 0) | (IN_COMPLIANCE if limited else 0))

    def _tripped(self) -> bool:
        return self.output and self._smu.limited()

    # Commands

    def _add_commands(self) -> None:
        self.add_data_format({"ASC": None, "REAL": "f", "SRE": "f"}, border="NORM")
        self.add(":OUTPut#[:STATe]", self._set_output, lambda _: str(int(self.output)))
        self.add(":SOURce#:CLEar[:IMMediate]", lambda _: self._switch(False))
        self.add("[:SENSe#]:FUNCtion[:ON]", self._enable, lambda _: _quoted(self.functions))
        self.add("[:SENSe#]:FUNCtion:OFF", self._disable, lambda _: _quoted(set(FUNCTIONS) - set(self.functions)))
        self.add("[:SENSe#]:FUNCtion:ALL", lambda _: self._select(tuple(FUNCTIONS)))
        self.add("[:SENSe#]:FUNCtion:OFF:ALL", lambda _: self._select(()))
        self.add("[:SENSe#]:DATA[:LATest]", ask=lambda _: self._data(self.latest[-1:]))
        for name, header in FUNCTIONS.items():
            self.add(f"[:SENSe#]:{header}:NPLCycles", self._set_nplc, self._ask_nplc)
            self.add(f":MEASure:{header}", ask=partial(self._ask_measure, name))
            self.add(f":CONFigure:{header}", partial(self._do_configure, name))
            if name != "RES":
                self.add(f"[:SENSe#]:{header}:PROTection:TRIPped", ask=lambda _: str(int(self._tripped())))
        self.add(":MEASure", ask=lambda _: self._measure(None))
        self.add(":CONFigure", ask=lambda _: _quoted(self.functions))
        self.add(":READ", ask=self._ask_read)
        self.add(":FETCh", ask=lambda _: self._data(self.latest))
        self.add(":INITiate[:IMMediate]", lambda _: self._acquire())
        self.add(":ABORt", lambda _: self._abort())
        self.add(":TRIGger[:SEQuence#]:CLEar", lambda _: self._abort())
        self.add(":FORMat:ELEMents[:SENSe#]", self._set_elements, lambda _: ",".join(self.elements))
        self.add(":TRACe:DATA", ask=lambda _: self._data(self.buffer))
        self.add(":TRACe:CLEar", lambda _: self._clear_buffer())
        self.add(":TRACe:POINts:ACTual", ask=lambda _: str(len(self.buffer)))
        self.add(":TRACe:FREE", ask=lambda _: f"{(BUFFER_SIZE - len(self.buffer)) * 24},{len(self.buffer) * 24}")
        self.add(":CALCulate3:DATA", ask=lambda _: self._statistics())
        self.add(":SOURce#:LIST:VOLTage", self._set_list_volts, lambda _: self._listed(self.list_volts))
        self.add(":SOURce#:LIST:CURRent", self._set_list_amperes, lambda _: self._listed(self.list_amperes))
        self.add(":SOURce#:LIST:VOLTage:POINts", ask=lambda _: str(len(self.list_volts)))
        self.add(":SOURce#:LIST:CURRent:POINts", ask=lambda _: str(len(self.list_amperes)))
        self.add(":SYSTem:BEEPer[:IMMediate]", lambda request: _ignore(request, 2))
        self.add(":SYSTem:PRESet", lambda _: self.reset())
        self.add(":SYSTem:LOCal", lambda _: None)
        self.add(":SYSTem:REMote", lambda _: None)
        self.add(":SYSTem:TIME:RESet", lambda _: self._reset_time())
        self.add(":SYSTem:TIME", ask=lambda _: self.number(self._clock.now() - self._epoch))

    def _set_output(self, request: Request) -> None:
        if request.channel != 1:
            raise ScpiError(-114)
        (given,) = request.take(1, 1)
        self._switch(Boolean().parse(given, False))

    def _enable(self, request: Request) -> None:
        wanted = self._named_functions(request)
        if self.state[1]["concurrent"]:
            self._select(tuple(name for name in FUNCTIONS if name in {*wanted, *self.functions}))
        else:
            self._select(tuple(wanted[-1:]))

    def _disable(self, request: Request) -> None:
        unwanted = self._named_functions(request)
        self._select(tuple(name for name in self.functions if name not in unwanted))

    def _named_functions(self, request: Request) -> list[str]:
        if not request.arguments:
            raise ScpiError(-109)
        names = []
        for given in request.arguments:
            short = FUNCTION_WORDS.parse(given, None)
            names.append(short if short in FUNCTIONS else f"{short}:DC")
        return names

    def _select(self, functions: tuple[str, ...]) -> None:
        self.functions = functions

    def _set_nplc(self, request: Request) -> None:
        # One value for all functions (section 18, :NPLCycles).
        (given,) = request.take(1, 1)
        self.nplc = float(Real(0.01, 10).parse(given, 1.0))

    def _ask_nplc(self, request: Request) -> str:
        given = request.take(0, 1)
        return self.number(Real(0.01, 10).named(given[0], 1.0) if given else self.nplc)

    def _set_elements(self, request: Request) -> None:
        if not request.arguments:
            raise ScpiError(-109)
        wanted = {ELEMENTS.parse(given, None) for given in request.arguments}
        # Data come in a fixed order whatever the order of the list (section 18, figure 18-1).
        self.elements = tuple(name for name in ELEMENT_ORDER if name in wanted)

    def _set_list_volts(self, request: Request) -> None:
        self.list_volts = _values(request, Real(-210, 210, "V"))

    def _set_list_amperes(self, request: Request) -> None:
        self.list_amperes = _values(request, Real(-1.05, 1.05, "A"))

    def _listed(self, values: tuple[float, ...]) -> str:
        return ",".join(self.number(value) for value in values)

    def _abort(self) -> None:
        self.waiting_for_bus = False

    def _clear_buffer(self) -> None:
        self.buffer.clear()
        self._update_status()

    def _reset_time(self) -> None:
        self._epoch = self._clock.now()

    def _statistics(self) -> str:
        if not self.buffer:
            raise ScpiError(-230)
        names = [name for name in ("VOLT", "CURR", "RES") if name in self.elements]
        return ",".join(self.number(self._statistic([s.element(name) for s in self.buffer])) for name in names)

    def _statistic(self, values: list[float]) -> float:
        if any(abs(value) >= OVERFLOW for value in values):
            return NAN
        match self.state[1]["statistic"]:
            case "MEAN":
                return statistics.fmean(values)
            case "SDEV":
                return statistics.stdev(values) if len(values) > 1 else 0.0
            case "MAX":
                return max(values)
            case "MIN":
                return min(values)
            case _:
                return max(values) - min(values)


_RANGES = {
    "source_volts_range": VOLT_RANGES,
    "source_amperes_range": AMPERE_RANGES,
    "volts_range": VOLT_RANGES,
    "amperes_range": AMPERE_RANGES,
    "ohms_range": OHM_RANGES,
}

_DRIVING = {
    "off_state",
    "function",
    "source_volts",
    "source_amperes",
    "source_volts_range",
    "source_amperes_range",
    "source_volts_auto",
    "source_amperes_auto",
    "volts_range",
    "amperes_range",
    "volts_auto",
    "amperes_auto",
    "limit_amperes",
    "limit_volts",
    "four_wire",
}


def _quoted(names: tuple[str, ...] | set[str]) -> str:
    return ",".join(f'"{name}"' for name in FUNCTIONS if name in names) or '""'


def _values(request: Request, kind: Real) -> tuple[float, ...]:
    if not request.arguments:
        raise ScpiError(-109)
    if len(request.arguments) > BUFFER_SIZE:
        raise ScpiError(-223)
    return tuple(kind.parse(given, 0.0) for given in request.arguments)


def _ignore(request: Request, most: int) -> None:
    request.take(0, most)
