"""The Keithley 2450 on the wire, in its own SCPI command set (Model 2450 Reference Manual, 2450-901-01, section 6)."""

import math
import statistics
from functools import partial
from typing import Any

from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port
from hilcl.sim_backend.emulation.reading_buffers import BufferedInstrument, Row
from hilcl.sim_backend.emulation.scpi import OVERFLOW, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import Boolean, Choice, Real, Request, Setting, Whole
from hilcl.sim_backend.emulation.source_measure import IDEAL, Analogue, SourceMeasure, smallest_range

VOLT_RANGES = (0.02, 0.2, 2.0, 20.0, 200.0)
AMPERE_RANGES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
OHM_RANGES = (2e1, 2e2, 2e3, 2e4, 2e5, 2e6, 2e7, 2e8)
OVERRANGE = 1.05

OFF_FRACTION = 0.1
"""Limit in the NORMal and GUARd output-off states, of the present range (:OUTPut[1]:<function>:SMODe)."""

MAX_SWEEP = 100_000
OFF_STATES = Choice(("NORMal", "HIMPedance", "ZERO", "GUARd"))
UNITS = {"VOLT:DC": "Volt DC", "CURR:DC": "Amp DC", "RES": "Ohm"}
FUNCTIONS = Choice(("VOLTage:DC", "VOLTage", "CURRent:DC", "CURRent", "RESistance"))

_MEASURED = (
    ("volts", "VOLTage[:DC]", Real(0, 210, "V"), VOLT_RANGES[0]),
    ("amperes", "CURRent[:DC]", Real(0, 1.05, "A"), AMPERE_RANGES[0]),
    ("ohms", "RESistance", Real(0, 210e6, "OHM"), OHM_RANGES[-1]),
)

SETTINGS = (
    Setting(":ROUTe:TERMinals", "terminals", Choice(("FRONt", "REAR")), "FRON"),
    Setting(":SOURce#:FUNCtion[:MODE]", "function", Choice(("VOLTage", "CURRent")), "VOLT"),
    *(
        setting
        for name, header, level, limit_name, limit_header, limit, limit_reset, first in (
            ("volts", "VOLTage", Real(-210, 210, "V"), "limit_amperes", "ILIMit", Real(1e-9, 1.05, "A"), 1.05e-4, 0.02),
            ("amperes", "CURRent", Real(-1.05, 1.05, "A"), "limit_volts", "VLIMit", Real(0.02, 210, "V"), 21.0, 1e-8),
        )
        for setting in (
            Setting(f":SOURce#:{header}[:LEVel][:IMMediate][:AMPLitude]", f"source_{name}", level, 0.0),
            Setting(f":SOURce#:{header}:RANGe", f"source_{name}_range", level, first),
            Setting(f":SOURce#:{header}:RANGe:AUTO", f"source_{name}_auto", Boolean(), True),
            Setting(f":SOURce#:{header}:{limit_header}[:LEVel]", limit_name, limit, limit_reset),
            Setting(f":SOURce#:{header}:DELay", f"source_{name}_delay", Real(0, 1e4, "S"), 0.0),
            Setting(f":SOURce#:{header}:DELay:AUTO", f"source_{name}_delay_auto", Boolean(), True),
            Setting(f":SOURce#:{header}:READ:BACK", f"source_{name}_readback", Boolean(), True),
            Setting(f":SOURce#:{header}:HIGH:CAPacitance", f"source_{name}_highc", Boolean(), False),
        )
    ),
    Setting(
        ":SOURce#:VOLTage:PROTection[:LEVel]",
        "over_volts",
        Choice(("NONE", *(f"PROT{volts}" for volts in (2, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180)))),
        "NONE",
    ),
    *(
        setting
        for name, header, reach, first in _MEASURED
        for setting in (
            Setting(f"[:SENSe#]:{header}:RANGe[:UPPer]", f"{name}_range", reach, first),
            Setting(f"[:SENSe#]:{header}:RANGe:AUTO", f"{name}_auto", Boolean(), True),
            Setting(f"[:SENSe#]:{header}:NPLCycles", f"{name}_nplc", Real(0.01, 10, "PLC"), 1.0),
            Setting(f"[:SENSe#]:{header}:AZERo[:STATe]", f"{name}_autozero", Boolean(), True),
            Setting(f"[:SENSe#]:{header}:RSENse", f"{name}_four_wire", Boolean(), False),
            Setting(f"[:SENSe#]:{header}:AVERage[:STATe]", f"{name}_filter", Boolean(), False),
            Setting(f"[:SENSe#]:{header}:AVERage:COUNt", f"{name}_filter_count", Whole(1, 100), 10),
            Setting(f"[:SENSe#]:{header}:AVERage:TCONtrol", f"{name}_filter_type", Choice(("REPeat", "MOVing")), "REP"),
        )
    ),
    Setting("[:SENSe#]:RESistance:OCOMpensated", "ohms_compensated", Boolean(), False),
)

QUANTITY = {"VOLT:DC": "volts", "CURR:DC": "amperes", "RES": "ohms"}


class Smu2450(BufferedInstrument):
    """A Keithley 2450 whose terminals are wired to ``port``."""

    def __init__(
        self,
        port: Port,
        clock: Clock,
        *,
        model: str = "2450",
        serial: str = "04500001",
        analogue: Analogue = IDEAL,
        line_frequency: int = 60,
        seed: int = 0,
        function_change_switches_off: bool = True,
    ) -> None:
        self._smu = SourceMeasure(port, clock, analogue, seed=seed)
        self._switches_off = function_change_switches_off
        identity = f"KEITHLEY INSTRUMENTS,MODEL {model},{serial},1.7.12b"
        self._power_on()
        super().__init__(identity, SETTINGS, clock, line_frequency=line_frequency, digits=analogue.digits)
        self._add_commands()
        self._drive()

    def _power_on(self) -> None:
        self.output = False
        self.sense = "CURR:DC"
        self.off_states = {"VOLT": "NORM", "CURR": "NORM"}
        self._user_delays: dict[tuple[str, int], float] = {}
        self._sweep: tuple[str, tuple[float, ...], float, str] | None = None

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
        self._power_on()
        self._drive()

    def before(self, channel: int, name: str, value: Any) -> Any:
        """Round to ranges and refuse what conflicts."""
        state = self.state[1]
        if name in {"source_volts", "source_amperes"}:
            if not state[f"{name}_auto"] and abs(value) > state[f"{name}_range"] * OVERRANGE * (1 + 1e-9):
                raise ScpiError(-222)
            return value
        if name.endswith("_range"):
            return smallest_range(_ranges(name), value, OVERRANGE)
        return value

    def after(self, channel: int, name: str) -> None:
        """Keep what depends on a setting in step with it."""
        state = self.state[1]
        if name.endswith("_range"):
            state[name.replace("_range", "_auto")] = False
        elif name in {"source_volts_delay", "source_amperes_delay"}:
            state[f"{name}_auto"] = False
        elif name == "function" and self.output and self._switches_off:
            self.output = False
        for quantity, ranges in (("volts", VOLT_RANGES), ("amperes", AMPERE_RANGES)):
            if state[f"source_{quantity}_auto"]:
                state[f"source_{quantity}_range"] = smallest_range(ranges, state[f"source_{quantity}"], OVERRANGE)
        if name.endswith("_four_wire"):
            # One switch for all functions of a 2450's input (:SENSe:<function>:RSENse).
            for quantity in QUANTITY.values():
                state[f"{quantity}_four_wire"] = state[name]
        self._drive()

    # The output

    def _drive(self) -> None:
        state = self.state[1]
        if not self.output:
            self._smu.drive(self._off())
            return
        if state["function"] == "VOLT":
            wanted = Applied("voltage", state["source_volts"], self._limit("amperes"))
            source_range = state["source_volts_range"]
        else:
            wanted = Applied("current", state["source_amperes"], self._limit("volts"))
            source_range = state["source_amperes_range"]
        self._smu.drive(wanted, source_range, four_wire=state["volts_four_wire"])

    def _limit(self, quantity: str) -> float:
        state = self.state[1]
        limit = float(state[f"limit_{quantity}"])
        # A fixed measurement range below the limit holds the output within that range.
        return limit if state[f"{quantity}_auto"] else min(limit, state[f"{quantity}_range"] * OVERRANGE)

    def _present_range(self, quantity: str) -> float:
        state = self.state[1]
        if (quantity == "volts") == (state["function"] == "VOLT"):
            return float(state[f"source_{quantity}_range"])
        if state[f"{quantity}_auto"]:
            ranges = VOLT_RANGES if quantity == "volts" else AMPERE_RANGES
            return smallest_range(ranges, state[f"limit_{quantity}"], OVERRANGE)
        return float(state[f"{quantity}_range"])

    def _off(self) -> Applied:
        off_state = self.off_states[self.state[1]["function"]]
        if off_state == "HIMP":
            return OPEN
        if off_state == "GUAR":
            return Applied("current", 0.0, OFF_FRACTION * self._present_range("volts"))
        full_scale = self._present_range("amperes")
        return Applied("voltage", 0.0, full_scale if off_state == "ZERO" else OFF_FRACTION * full_scale)

    def _switch(self, on: bool) -> None:
        self.output = on
        self._drive()

    def _tripped(self) -> bool:
        return self.output and self._smu.limited()

    # Readings

    def take(self) -> list[Row]:
        """Take one reading of the measure function, with the source read back."""
        state = self.state[1]
        quantity = QUANTITY[self.sense]
        nplc = state[f"{quantity}_nplc"]
        # Output off means two-wire sense (:OUTPut[1]:<function>:SMODe).
        four_wire = state["volts_four_wire"] and self.output
        sourced = "volts" if state["function"] == "VOLT" else "amperes"
        self._smu.wait(0.0 if state[f"source_{sourced}_delay_auto"] else state[f"source_{sourced}_delay"])
        repeats = state[f"{quantity}_filter_count"] if state[f"{quantity}_filter"] else 1
        taken = [self._smu.measure(nplc / self.mains, nplc, four_wire=four_wire) for _ in range(repeats)]
        limited = self.output and any(reading.limited for reading in taken)
        values = {
            "volts": statistics.fmean(reading.volts for reading in taken),
            "amperes": statistics.fmean(reading.amperes for reading in taken),
        }
        values["ohms"] = values["volts"] / values["amperes"] if values["amperes"] else math.inf
        readback = state[f"source_{sourced}_readback"]
        source = values[sourced] if readback else state[f"source_{sourced}"]
        source_status = (8 if readback else 0) | (32 if limited else 0) | (64 if four_wire else 0)
        return [
            Row(
                self._shown(quantity, values[quantity]),
                taken[-1].seconds,
                UNITS[self.sense],
                source,
                "Volt DC" if sourced == "volts" else "Amp DC",
                status=8 if state["terminals"] == "FRON" else 0,
                source_status=source_status | (128 if self.output else 0),
            )
        ]

    def _shown(self, quantity: str, value: float) -> float:
        if self._smu.applied.kind == "open" or not math.isfinite(value):
            return OVERFLOW
        state = self.state[1]
        sourced = quantity == ("volts" if state["function"] == "VOLT" else "amperes")
        fixed = not state[f"source_{quantity}_auto"] if sourced else not state[f"{quantity}_auto"]
        reach = state[f"source_{quantity}_range"] if sourced else state[f"{quantity}_range"]
        if fixed and abs(value) > reach * OVERRANGE * (1 + 1e-6):
            return math.copysign(OVERFLOW, value)
        return value

    def _initiate(self) -> None:
        if self._sweep is None:
            raise ScpiError(-221, "Settings conflict, no trigger model is defined")
        function, levels, delay, name = self._sweep
        if name not in self.buffers:
            raise ScpiError(1133, "Parameter 1, Syntax error, no such reading buffer")
        quantity = "source_volts" if function == "VOLT" else "source_amperes"
        state = self.state[1]
        state["function"] = function
        # The sweep's trigger model begins with a block that clears the buffer.
        self.buffers[name].rows.clear()
        self._switch(True)
        for level in levels:
            self.write_setting(1, quantity, level)
            self._smu.wait(delay)
            for row in self.take():
                self.buffers[name].add(row)
        self._switch(False)

    # Commands

    def _add_commands(self) -> None:
        self.add(":OUTPut#[:STATe]", self._set_output, lambda _: str(int(self.output)))
        self.add(":OUTPut#:SMODe", self._set_off_states, lambda _: self.off_states[self.state[1]["function"]])
        for function, header in (("VOLT", "VOLTage"), ("CURR", "CURRent")):
            limit = "ILIMit" if function == "VOLT" else "VLIMit"
            self.add(
                f":OUTPut#:{header}:SMODe",
                partial(self._set_off_state, function),
                partial(self._ask_off_state, function),
            )
            self.add(
                f":SOURce#:{header}:{limit}[:LEVel]:TRIPped",
                ask=partial(self._ask_tripped, function),
            )
            self.add(
                f":SOURce#:SWEep:{header}:LINear",
                partial(self._set_sweep, function),
            )
            self._add_user_delay(f":SOURce#:{header}", f"source {function}")
        for name, header, _, _ in _MEASURED:
            self._add_user_delay(f"[:SENSe#]:{header}", name)
        self.add("[:SENSe#]:FUNCtion[:ON]", self._set_sense, lambda _: f'"{self.sense}"')
        self.add("[:SENSe#]:AZERo:ONCE", lambda _: None)
        self.add(":MEASure", ask=self.read)
        for sense, header in (("VOLT:DC", "VOLTage[:DC]"), ("CURR:DC", "CURRent[:DC]"), ("RES", "RESistance")):
            self.add(
                f":MEASure:{header}",
                ask=partial(self._measure, sense),
            )
        self.add(":INITiate[:IMMediate]", lambda _: self._initiate())
        self.add(":ABORt", lambda _: None)

    def _add_user_delay(self, header: str, name: str) -> None:
        kind = Real(0, 1e4, "S")

        def number(request: Request) -> int:
            if not 1 <= request.suffixes[-1] <= 5:
                raise ScpiError(-114)
            return request.suffixes[-1]

        def write(request: Request) -> None:
            (given,) = request.take(1, 1)
            self._user_delays[name, number(request)] = kind.parse(given, 0.0)

        self.add(
            f"{header}:DELay:USER#",
            write,
            lambda request: self.number(self._user_delays.get((name, number(request)), 0.0)),
        )

    def _set_output(self, request: Request) -> None:
        if request.channel != 1:
            raise ScpiError(-114)
        (given,) = request.take(1, 1)
        self._switch(Boolean().parse(given, False))

    def _set_off_states(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        chosen = OFF_STATES.parse(given, None)
        self.off_states = dict.fromkeys(self.off_states, chosen)
        self._drive()

    def _ask_off_state(self, function: str, _: Request) -> str:
        return self.off_states[function]

    def _ask_tripped(self, function: str, _: Request) -> str:
        return str(int(self._tripped() and self.state[1]["function"] == function))

    def _set_off_state(self, function: str, request: Request) -> None:
        (given,) = request.take(1, 1)
        self.off_states[function] = OFF_STATES.parse(given, None)
        self._drive()

    def _set_sense(self, request: Request) -> None:
        (given,) = request.take(1, 1)
        short = FUNCTIONS.parse(given, None)
        self.sense = short if short in UNITS else f"{short}:DC"

    def _measure(self, sense: str, request: Request) -> str:
        self.sense = sense
        return self.read(request)

    def _set_sweep(self, function: str, request: Request) -> None:
        given = request.take(3, 9)
        level = Real(-210, 210, "V") if function == "VOLT" else Real(-1.05, 1.05, "A")
        start, stop = level.parse(given[0], 0.0), level.parse(given[1], 0.0)
        points = Whole(2, MAX_SWEEP).parse(given[2], 2)
        delay = Real(-1, 1e4, "S").parse(given[3], 0.0) if len(given) > 3 else -1.0
        count = Whole(1, 1000).parse(given[4], 1) if len(given) > 4 else 1
        dual = len(given) > 7 and Boolean().parse(given[7], False)
        if points * count * (1 + dual) > MAX_SWEEP:
            raise ScpiError(-223)
        once = tuple(start + (stop - start) * index / (points - 1) for index in range(points))
        levels = (once + once[::-1] if dual else once) * count
        name = given[8].text if len(given) > 8 else "defbuffer1"
        self._sweep = (function, levels, max(delay, 0.0), name)


def _ranges(name: str) -> tuple[float, ...]:
    if "volts" in name:
        return VOLT_RANGES
    return AMPERE_RANGES if "amperes" in name else OHM_RANGES
