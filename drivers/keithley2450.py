"""Keithley 2450, 2460, 2461 and 2470 in their own SCPI set.

Commands: "Model 2450 Reference Manual", 2450-901-01 Rev. B, section 6, whose page stands with each property; the 2461
manual (2461-901-01 A) and the 2470 manual (2470-901-01 A) have the same ones. Ranges and levels: 2450 manual, 6-70 and
6-75, and SPEC-2450 Rev. A, page 2; 2461 manual, 6-60, 6-93 and 6-98; 2470 manual, 12-53, and its specifications, whose
1000 V range alone is coarser (10 mV).
"""

from collections.abc import Sequence

from hilcl.drivers.dialects import Scpi
from hilcl.drivers.properties import choice, integer, number, switch, text
from hilcl.drivers.smu import Smu, SmuChannel, SmuModel, SmuReading, parsed, reading_of
from hilcl.errors import InputError

_FROM_10_NANO = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FROM_MICRO = _FROM_10_NANO[2:]
_2461_VOLTS = (0.2, 2.0, 7.0, 10.0, 20.0, 100.0)
MODELS = {
    model.name: model
    for model in (
        SmuModel("2450", ("1",), (0.02, 0.2, 2.0, 20.0, 200.0), _FROM_10_NANO, 210.0, 1.05, (0.01, 10.0), 5e-7),
        SmuModel(
            "2460",
            ("1",),
            _2461_VOLTS,
            (*_FROM_MICRO, 4.0, 5.0, 7.0),
            105.0,
            7.35,
            (0.01, 10.0),
            5e-7,
        ),
        SmuModel(
            "2461",
            ("1",),
            _2461_VOLTS,
            (*_FROM_MICRO, 4.0, 5.0, 7.0),
            105.0,
            7.35,
            (0.01, 10.0),
            5e-7,
        ),
        SmuModel("2470", ("1",), (0.2, 2.0, 20.0, 200.0, 1000.0), _FROM_10_NANO, 1100.0, 1.05, (0.01, 10.0), 5e-7),
    )
}
OVER_TEMPERATURE, LIMIT = 1 << 4, 1 << 5
"""Bits of the source status (8-29) that make a reading none."""


class Keithley2450Channel(SmuChannel):
    """The one channel of a 2450."""

    output = switch(":OUTP {v}", ":OUTP?", "Output on or off (6-34, :OUTPut[1][:STATe]).")
    off_state = choice(
        ":OUTP:SMOD {v}",
        ":OUTP:SMOD?",
        "What the terminals are when the output is off (6-32, :OUTPut[1]:SMODe): himp opens the relay.",
        {"himp": "HIMP", "normal": "NORM", "zero": "ZERO", "guard": "GUAR"},
    )
    source_function = choice(
        ":SOUR:FUNC {v}", ":SOUR:FUNC?", "What is sourced (6-72).", {"volts": "VOLT", "amps": "CURR"}
    )
    source_volts = number(":SOUR:VOLT {v}", ":SOUR:VOLT?", "V", "Level of the voltage source (6-70).", within="volts")
    source_amps = number(":SOUR:CURR {v}", ":SOUR:CURR?", "A", "Level of the current source (6-70).", within="amps")
    source_volts_range = number(
        ":SOUR:VOLT:RANG {v}", ":SOUR:VOLT:RANG?", "V", "Range of the voltage source (6-74).", within="volt_range"
    )
    source_amps_range = number(
        ":SOUR:CURR:RANG {v}", ":SOUR:CURR:RANG?", "A", "Range of the current source (6-74).", within="amp_range"
    )
    volts_readback = switch(
        ":SOUR:VOLT:READ:BACK {v}",
        ":SOUR:VOLT:READ:BACK?",
        "Readings carry the voltage measured, not the one set (:SOURce[1]:<function>:READ:BACK).",
    )
    amps_readback = switch(
        ":SOUR:CURR:READ:BACK {v}",
        ":SOUR:CURR:READ:BACK?",
        "Readings carry the current measured, not the one set (:SOURce[1]:<function>:READ:BACK).",
    )
    amps_limit = number(
        ":SOUR:VOLT:ILIM {v}",
        ":SOUR:VOLT:ILIM?",
        "A",
        "Current limit of the voltage source (6-71).",
        within="amp_limit",
    )
    volts_limit = number(
        ":SOUR:CURR:VLIM {v}",
        ":SOUR:CURR:VLIM?",
        "V",
        "Voltage limit of the current source (6-71).",
        within="volt_limit",
    )
    amps_tripped = switch(None, ":SOUR:VOLT:ILIM:TRIP?", "Whether the voltage source is at its current limit (6-72).")
    volts_tripped = switch(None, ":SOUR:CURR:VLIM:TRIP?", "Whether the current source is at its voltage limit (6-72).")
    sense_function = choice(
        ":SENS:FUNC {v}",
        ":SENS:FUNC?",
        "What is measured ([:SENSe[1]]:FUNCtion[:ON]).",
        {"volts": '"VOLT"', "amps": '"CURR"', "ohms": '"RES"'},
    )
    sense_amps_range = number(
        ":SENS:CURR:RANG {v}",
        ":SENS:CURR:RANG?",
        "A",
        "Range of current readings while volts are sourced (6-53).",
        within="amp_range",
    )
    sense_volts_range = number(
        ":SENS:VOLT:RANG {v}",
        ":SENS:VOLT:RANG?",
        "V",
        "Range of voltage readings while current is sourced (6-53).",
        within="volt_range",
    )
    amps_nplc = number(
        ":SENS:CURR:NPLC {v}",
        ":SENS:CURR:NPLC?",
        "line cycles",
        "Integration time of current readings ([:SENSe[1]]:<function>:NPLCycles).",
        within="nplc",
    )
    volts_nplc = number(
        ":SENS:VOLT:NPLC {v}",
        ":SENS:VOLT:NPLC?",
        "line cycles",
        "Integration time of voltage readings ([:SENSe[1]]:<function>:NPLCycles).",
        within="nplc",
    )
    amps_four_wire = switch(
        ":SENS:CURR:RSEN {v}",
        ":SENS:CURR:RSEN?",
        "Four-wire sensing for current readings ([:SENSe[1]]:<function>:RSENse).",
    )
    volts_four_wire = switch(
        ":SENS:VOLT:RSEN {v}",
        ":SENS:VOLT:RSEN?",
        "Four-wire sensing for voltage readings ([:SENSe[1]]:<function>:RSENse).",
    )
    amps_autozero = switch(
        ":SENS:CURR:AZER {v}",
        ":SENS:CURR:AZER?",
        "Zero and reference read with current readings ([:SENSe[1]]:<function>:AZERo[:STATe]).",
    )
    volts_autozero = switch(
        ":SENS:VOLT:AZER {v}",
        ":SENS:VOLT:AZER?",
        "Zero and reference read with voltage readings ([:SENSe[1]]:<function>:AZERo[:STATe]).",
    )
    amps_average = switch(
        ":SENS:CURR:AVER {v}",
        ":SENS:CURR:AVER?",
        "The instrument's own filter of current readings ([:SENSe[1]]:<function>:AVERage[:STATe]).",
    )
    volts_average = switch(
        ":SENS:VOLT:AVER {v}",
        ":SENS:VOLT:AVER?",
        "The instrument's own filter of voltage readings ([:SENSe[1]]:<function>:AVERage[:STATe]).",
    )
    count = integer(":SENS:COUN {v}", ":SENS:COUN?", "Readings of one :READ? ([:SENSe[1]]:COUNt).", within=(1, 300000))
    data_format = choice(
        ":FORM {v}",
        ":FORM?",
        "How readings are coded (:FORMat[:DATA]).",
        {"ascii": "ASC", "real": "REAL", "single": "SRE"},
    )
    precision = integer(
        ":FORM:ASC:PREC {v}",
        ":FORM:ASC:PREC?",
        "Digits of a reading, 0 for automatic (:FORMat:ASCii:PRECision).",
        within=(0, 16),
    )
    language = text(None, "*LANG?", "Command set in use (*LANG?); this driver needs SCPI.")

    def setup(self) -> list[list[str]]:
        """Set all that matters except function, level and output; both functions keep their own settings."""
        kind, settings = type(self), self.settings
        return [
            [
                self.put(kind.data_format, "ascii"),
                self.put(kind.precision, 0),
                self.put(kind.count, 1),
                self.put(kind.amps_nplc, settings.nplc),
                self.put(kind.volts_nplc, settings.nplc),
                self.put(kind.amps_four_wire, settings.four_wire),
                self.put(kind.volts_four_wire, settings.four_wire),
                self.put(kind.amps_autozero, settings.autozero),
                self.put(kind.volts_autozero, settings.autozero),
                self.put(kind.amps_average, False),
                self.put(kind.volts_average, False),
            ],
            [
                self.put(kind.volts_readback, True),
                self.put(kind.amps_readback, True),
                self.put(kind.source_volts_range, self.volts_range),
                self.put(kind.source_amps_range, self.float_range),
                self.put(kind.amps_limit, settings.limit_amperes),
                self.put(kind.volts_limit, settings.floating_limit),
                self.put(kind.sense_amps_range, self.amps_range),
                self.put(kind.sense_volts_range, self.floating_range),
            ],
        ]

    def select_volts(self, volts: float) -> list[str]:
        """Source volts, measure amperes; the volts come with them, read back.

        The measure function goes before the source function, which it may change (2461 manual, 2-100).
        """
        kind = type(self)
        return [
            self.put(kind.source_volts, volts),
            self.put(kind.sense_function, "amps"),
            self.put(kind.source_function, "volts"),
        ]

    def select_float(self) -> list[str]:
        """Source no current, measure volts; the current comes with them, read back."""
        kind = type(self)
        return [
            self.put(kind.source_amps, self.trim),
            self.put(kind.sense_function, "volts"),
            self.put(kind.source_function, "amps"),
        ]


class Keithley2450(Smu):
    """Driver of the 2450: one reading carries what is measured, what is sourced and the source's status."""

    family = "Keithley 2450 series"
    makers = ("KEITHLEY",)
    dialect = Scpi()
    models = MODELS
    channel_class = Keithley2450Channel
    reading = ':READ? "defbuffer1",SOUR,READ,SOURSTAT'

    def _check_language(self) -> None:
        check_language(self.name, self._open_session().query("*LANG?"))

    def _measure(self, channels: Sequence[SmuChannel]) -> list[SmuReading]:
        channel = channels[0]
        answer = self._take([], [self.reading], channels)[0]

        def parse() -> SmuReading:
            sourced, measured, status = answer.split(",")
            limited = bool(int(float(status)) & (OVER_TEMPERATURE | LIMIT))
            # Behind an open relay the channel goes on sourcing volts.
            floating = channel.mode == "float" and self.settings.free_mode == "zero_amp"
            return reading_of(measured if floating else sourced, sourced if floating else measured, limited)

        return [parsed(channel, answer, parse)]


def check_language(name: str, answer: str) -> None:
    """Raise InputError unless an instrument answers ``SCPI`` to ``*LANG?`` (2450 manual, *LANG)."""
    if answer.strip().upper() != "SCPI":
        raise InputError(
            f"{name} speaks {answer.strip() or 'nothing'} where SCPI is needed (command '*LANG?'): choose SCPI in "
            "its menu, or "
            "send '*LANG SCPI', then switch it off and on"
        )
