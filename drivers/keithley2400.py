"""Keithley 2400 series over SCPI.

Commands: "Series 2400 SourceMeter User's Manual", 2400S-900-01 Rev. K, section 18,
whose page or full command stands with each property.
Greatest levels: 18-75 and 18-84.
``:MEASure?`` is never sent: it turns the output on and resets the limits (page 18-72).
"""

from collections.abc import Sequence
from typing import ClassVar

from hilcl.drivers.dialects import Scpi
from hilcl.drivers.properties import choice, integer, number, switch, text
from hilcl.drivers.smu import Smu, SmuChannel, SmuModel, SmuReading, parsed, reading_of

_MICRO_TO_1 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_TEN_MICRO_TO_1 = _MICRO_TO_1[1:]
MODELS = {
    model.name: model
    for model in (
        SmuModel("2400", ("1",), (0.2, 2.0, 20.0, 200.0), _MICRO_TO_1, 210.0, 1.05, (0.01, 10.0), 5e-6),
        SmuModel("2401", ("1",), (0.2, 2.0, 20.0), _MICRO_TO_1, 21.0, 1.05, (0.01, 10.0), 5e-6),
        SmuModel(
            "2410",
            ("1",),
            (0.2, 2.0, 20.0, 1000.0),
            (1e-6, 1e-5, 1e-4, 1e-3, 2e-2, 1e-1, 1.0),
            1100.0,
            1.05,
            (0.01, 10.0),
            5e-6,
        ),
        SmuModel("2420", ("1",), (0.2, 2.0, 20.0, 60.0), (*_TEN_MICRO_TO_1, 3.0), 63.0, 3.15, (0.01, 10.0), 5e-6),
        SmuModel("2425", ("1",), (0.2, 2.0, 20.0, 100.0), (*_TEN_MICRO_TO_1, 3.0), 105.0, 3.15, (0.01, 10.0), 5e-6),
        SmuModel("2430", ("1",), (0.2, 2.0, 20.0, 100.0), (*_TEN_MICRO_TO_1, 3.0), 105.0, 3.15, (0.01, 10.0), 5e-6),
        SmuModel("2440", ("1",), (0.2, 2.0, 10.0, 40.0), (*_TEN_MICRO_TO_1, 5.0), 42.0, 5.25, (0.01, 10.0), 5e-6),
    )
}
OVERFLOW, COMPLIANCE, RANGE_COMPLIANCE = 1 << 0, 1 << 3, 1 << 16
"""Bits of the status element that make a reading none (18-50, 18-51): over range, at the limit, at the range's end."""


class Keithley2400Channel(SmuChannel):
    """The one channel of a 2400."""

    output = switch(":OUTP {v}", ":OUTP?", "Output on or off (:OUTPut[1][:STATe]).")
    off_state = choice(
        ":OUTP:SMOD {v}",
        ":OUTP:SMOD?",
        "What the terminals are when the output is off (18-58, :OUTPut[1]:SMODe): himp opens the relay.",
        {"himp": "HIMP", "normal": "NORM", "zero": "ZERO", "guard": "GUAR"},
    )
    source_function = choice(
        ":SOUR:FUNC {v}",
        ":SOUR:FUNC?",
        "What is sourced (18-73, :SOURce[1]:FUNCtion[:MODE]).",
        {"volts": "VOLT", "amps": "CURR", "memory": "MEM"},
    )
    source_volts = number(":SOUR:VOLT {v}", ":SOUR:VOLT?", "V", "Level of the voltage source (18-77).", within="volts")
    source_amps = number(":SOUR:CURR {v}", ":SOUR:CURR?", "A", "Level of the current source (18-77).", within="amps")
    source_volts_range = number(
        ":SOUR:VOLT:RANG {v}", ":SOUR:VOLT:RANG?", "V", "Range of the voltage source (18-74).", within="volt_range"
    )
    source_amps_range = number(
        ":SOUR:CURR:RANG {v}", ":SOUR:CURR:RANG?", "A", "Range of the current source (18-74).", within="amp_range"
    )
    volts_mode = choice(
        ":SOUR:VOLT:MODE {v}",
        ":SOUR:VOLT:MODE?",
        "How the voltage source gets its levels (18-73).",
        {"fixed": "FIX", "list": "LIST", "sweep": "SWE"},
    )
    amps_mode = choice(
        ":SOUR:CURR:MODE {v}",
        ":SOUR:CURR:MODE?",
        "How the current source gets its levels (18-73).",
        {"fixed": "FIX", "list": "LIST", "sweep": "SWE"},
    )
    auto_off = switch(":SOUR:CLE:AUTO {v}", ":SOUR:CLE:AUTO?", "Output off after every measurement (18-72).")
    amps_limit = number(
        ":SENS:CURR:PROT {v}",
        ":SENS:CURR:PROT?",
        "A",
        "Current limit of the voltage source (18-68, :PROTection[:LEVel]).",
        within="amp_limit",
    )
    volts_limit = number(
        ":SENS:VOLT:PROT {v}",
        ":SENS:VOLT:PROT?",
        "V",
        "Voltage limit of the current source (18-68, :PROTection[:LEVel]).",
        within="volt_limit",
    )
    amps_tripped = switch(None, ":SENS:CURR:PROT:TRIP?", "Whether the voltage source is at its current limit (18-68).")
    volts_tripped = switch(None, ":SENS:VOLT:PROT:TRIP?", "Whether the current source is at its voltage limit (18-68).")
    sense_amps_range = number(
        ":SENS:CURR:RANG {v}",
        ":SENS:CURR:RANG?",
        "A",
        "Range of current readings (18-64); error +823 while current is sourced.",
        within="amp_range",
    )
    sense_volts_range = number(
        ":SENS:VOLT:RANG {v}",
        ":SENS:VOLT:RANG?",
        "V",
        "Range of voltage readings (18-64); error +823 while voltage is sourced.",
        within="volt_range",
    )
    nplc = number(
        ":SENS:CURR:NPLC {v}",
        ":SENS:CURR:NPLC?",
        "line cycles",
        "Integration time, one for all functions (:SENSe[1]:CURRent:NPLCycles).",
        within="nplc",
    )
    four_wire = switch(":SYST:RSEN {v}", ":SYST:RSEN?", "Four-wire sensing (:SYSTem:RSENse).")
    autozero = switch(
        ":SYST:AZER {v}", ":SYST:AZER?", "Zero and reference read with every reading (:SYSTem:AZERo[:STATe])."
    )
    average = switch(":SENS:AVER {v}", ":SENS:AVER?", "The instrument's own filter (:SENSe[1]:AVERage[:STATe]).")
    concurrent = switch(
        ":SENS:FUNC:CONC {v}", ":SENS:FUNC:CONC?", "Several functions in one reading (:SENSe[1]:FUNCtion:CONCurrent)."
    )
    functions = text(":SENS:FUNC {v}", ":SENS:FUNC?", "Functions that are measured (:SENSe[1]:FUNCtion[:ON]).")
    elements = text(
        ":FORM:ELEM {v}", ":FORM:ELEM?", "What a reading consists of, in the instrument's order (:FORMat:ELEMents)."
    )
    data_format = choice(
        ":FORM {v}",
        ":FORM?",
        "How readings are coded (:FORMat[:DATA]).",
        {"ascii": "ASC", "real": "REAL", "swapped": "SRE"},
    )
    trigger_count = integer(
        ":TRIG:COUN {v}", ":TRIG:COUN?", "Readings of one :READ? (:TRIGger:COUNt).", within=(1, 2500)
    )
    arm_count = integer(":ARM:COUN {v}", ":ARM:COUN?", "Passes of one :READ? (:ARM:COUNt).", within=(1, 2500))

    def setup(self) -> list[list[str]]:
        """Set all that matters except the function, the level and the output."""
        kind, settings = type(self), self.settings
        return [
            [
                self.put(kind.data_format, "ascii"),
                self.put(kind.elements, "VOLT,CURR,STAT"),
                self.put(kind.concurrent, True),
                self.put(kind.functions, '"VOLT","CURR"'),
                self.put(kind.average, False),
                self.put(kind.nplc, settings.nplc),
                self.put(kind.autozero, settings.autozero),
                self.put(kind.four_wire, settings.four_wire),
                self.put(kind.trigger_count, 1),
                self.put(kind.arm_count, 1),
            ],
            [
                self.put(kind.auto_off, False),
                self.put(kind.volts_mode, "fixed"),
                self.put(kind.amps_mode, "fixed"),
                self.put(kind.source_volts_range, self.volts_range),
                self.put(kind.source_amps_range, self.float_range),
                self.put(kind.amps_limit, settings.limit_amperes),
                self.put(kind.volts_limit, settings.floating_limit),
            ],
        ]

    def select_volts(self, volts: float) -> list[str]:
        """The range of current readings can only be set while volts are sourced."""
        kind = type(self)
        return [
            self.put(kind.source_volts, volts),
            self.put(kind.source_function, "volts"),
            self.put(kind.sense_amps_range, self.amps_range),
        ]

    def select_float(self) -> list[str]:
        """The range of voltage readings can only be set while current is sourced."""
        kind = type(self)
        return [
            self.put(kind.source_amps, self.trim),
            self.put(kind.source_function, "amps"),
            self.put(kind.sense_volts_range, self.floating_range),
        ]


class Keithley2400(Smu):
    """Driver of the 2400 series: ``:READ?`` returns volts, amperes and the status word."""

    family = "Keithley 2400 series"
    makers = ("KEITHLEY",)
    dialect = Scpi()
    models = MODELS
    channel_class = Keithley2400Channel
    reading: ClassVar[str] = ":READ?"

    def _measure(self, channels: Sequence[SmuChannel]) -> list[SmuReading]:
        answer = self._take([], [self.reading], channels)[0]

        def parse() -> SmuReading:
            volts, amperes, status = answer.split(",")
            bits = int(float(status))
            return reading_of(volts, amperes, bool(bits & (OVERFLOW | COMPLIANCE | RANGE_COMPLIANCE)))

        return [parsed(channels[0], answer, parse)]
