"""Keysight (Agilent) B2900 series over SCPI, one or two channels.

Commands: "Agilent B2900 Series SCPI Command Reference", B2910-90030 Edition 2, chapter 4, under the names given with
each property; ``{c}`` is the channel, 1 or 2. Automatic output on, on after a reset, is switched off and checked:
with it a ``:READ?`` would turn the output on. Figures of the models: "B2900A Series Precision SMU" data sheet, page 16
(ranges, resolution), and the command reference, :SENSe:VOLTage:NPLCycles (+4E-4 to +100 line cycles at 50 Hz).
"""

from collections.abc import Sequence
from typing import Any

from hilcl.drivers.dialects import Scpi
from hilcl.drivers.properties import Property, choice, integer, number, switch, text
from hilcl.drivers.smu import Smu, SmuChannel, SmuModel, SmuReading, parsed, reading_of

_VOLTS = (0.2, 2.0, 20.0, 200.0)
_FROM_100_NANO = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1.5, 3.0)
_ONE, _TWO = ("1",), ("1", "2")
MODELS = {
    model.name: model
    for model in (
        *(
            SmuModel(f"B29{kind}", channels, _VOLTS, _FROM_100_NANO, 210.0, 3.03, (4e-4, 100.0), 5e-7)
            for kind, channels in (("01A", _ONE), ("02A", _TWO), ("01B", _ONE), ("02B", _TWO))
        ),
        *(
            SmuModel(f"B29{kind}", channels, _VOLTS, (1e-8, *_FROM_100_NANO), 210.0, 3.03, (4e-4, 100.0), 5e-7)
            for kind, channels in (("11A", _ONE), ("12A", _TWO), ("11B", _ONE), ("12B", _TWO))
        ),
    )
}
COMPLIANCE, OVER_VOLTAGE, OVER_CURRENT, OVER_TEMPERATURE, OVERFLOW = 0b110, 1 << 3, 1 << 4, 1 << 5, 1 << 13
"""Bits of the status element that make a reading none (table 1-2): two for the compliance condition, and the faults."""


class KeysightB2900Channel(SmuChannel):
    """One channel of a B2900."""

    output = switch(":OUTP{c} {v}", ":OUTP{c}?", "Output on or off (:OUTPut[:STATe]).")
    off_state = choice(
        ":OUTP{c}:OFF:MODE {v}",
        ":OUTP{c}:OFF:MODE?",
        "What the terminals are when the output is off (:OUTPut:OFF:MODE): himp opens the relay.",
        {"himp": "HIZ", "normal": "NORM", "zero": "ZERO"},
    )
    auto_on = switch(
        ":OUTP{c}:ON:AUTO {v}", ":OUTP{c}:ON:AUTO?", "Output on by :INITiate and :READ? (:OUTPut:ON:AUTO)."
    )
    auto_off = switch(":OUTP{c}:OFF:AUTO {v}", ":OUTP{c}:OFF:AUTO?", "Output off after a reading (:OUTPut:OFF:AUTO).")
    protection = switch(
        ":OUTP{c}:PROT {v}", ":OUTP{c}:PROT?", "Output off as soon as a limit is reached (:OUTPut:PROTection[:STATe])."
    )
    source_function = choice(
        ":SOUR{c}:FUNC:MODE {v}",
        ":SOUR{c}:FUNC:MODE?",
        "What is sourced ([:SOURce]:FUNCtion:MODE).",
        {"volts": "VOLT", "amps": "CURR"},
    )
    source_volts = number(
        ":SOUR{c}:VOLT {v}", ":SOUR{c}:VOLT?", "V", "Level of the voltage source (page 4-93).", within="volts"
    )
    source_amps = number(
        ":SOUR{c}:CURR {v}", ":SOUR{c}:CURR?", "A", "Level of the current source (page 4-93).", within="amps"
    )
    source_volts_auto = switch(
        ":SOUR{c}:VOLT:RANG:AUTO {v}", ":SOUR{c}:VOLT:RANG:AUTO?", "Autoranging of the voltage source (:RANGe:AUTO)."
    )
    source_amps_auto = switch(
        ":SOUR{c}:CURR:RANG:AUTO {v}", ":SOUR{c}:CURR:RANG:AUTO?", "Autoranging of the current source (:RANGe:AUTO)."
    )
    source_volts_range = number(
        ":SOUR{c}:VOLT:RANG {v}",
        ":SOUR{c}:VOLT:RANG?",
        "V",
        "Range of the voltage source (page 4-95).",
        within="volt_range",
    )
    source_amps_range = number(
        ":SOUR{c}:CURR:RANG {v}",
        ":SOUR{c}:CURR:RANG?",
        "A",
        "Range of the current source (page 4-95).",
        within="amp_range",
    )
    volts_mode = choice(
        ":SOUR{c}:VOLT:MODE {v}",
        ":SOUR{c}:VOLT:MODE?",
        "How the voltage source gets its levels ([:SOURce]:VOLTage:MODE).",
        {"fixed": "FIX", "list": "LIST", "sweep": "SWE"},
    )
    amps_mode = choice(
        ":SOUR{c}:CURR:MODE {v}",
        ":SOUR{c}:CURR:MODE?",
        "How the current source gets its levels ([:SOURce]:CURRent:MODE).",
        {"fixed": "FIX", "list": "LIST", "sweep": "SWE"},
    )
    amps_limit = number(
        ":SENS{c}:CURR:PROT {v}",
        ":SENS{c}:CURR:PROT?",
        "A",
        "Current limit of the voltage source (:SENSe:CURRent:PROTection).",
        within="amp_limit",
    )
    volts_limit = number(
        ":SENS{c}:VOLT:PROT {v}",
        ":SENS{c}:VOLT:PROT?",
        "V",
        "Voltage limit of the current source (:SENSe:VOLTage:PROTection).",
        within="volt_limit",
    )
    amps_tripped = switch(None, ":SENS{c}:CURR:PROT:TRIP?", "Whether the source is at its current limit (page 4-77).")
    volts_tripped = switch(None, ":SENS{c}:VOLT:PROT:TRIP?", "Whether the source is at its voltage limit (page 4-77).")
    functions = text(":SENS{c}:FUNC {v}", ":SENS{c}:FUNC?", "Functions that are measured (:SENSe:FUNCtion[:ON]).")
    sense_amps_auto = switch(
        ":SENS{c}:CURR:RANG:AUTO {v}", ":SENS{c}:CURR:RANG:AUTO?", "Autoranging of current readings (page 4-77)."
    )
    sense_volts_auto = switch(
        ":SENS{c}:VOLT:RANG:AUTO {v}", ":SENS{c}:VOLT:RANG:AUTO?", "Autoranging of voltage readings (page 4-77)."
    )
    sense_amps_range = number(
        ":SENS{c}:CURR:RANG {v}",
        ":SENS{c}:CURR:RANG?",
        "A",
        "Range of current readings (:SENSe:CURRent:RANGe[:UPPer]).",
        within="amp_range",
    )
    sense_volts_range = number(
        ":SENS{c}:VOLT:RANG {v}",
        ":SENS{c}:VOLT:RANG?",
        "V",
        "Range of voltage readings (:SENSe:VOLTage:RANGe[:UPPer]).",
        within="volt_range",
    )
    amps_nplc = number(
        ":SENS{c}:CURR:NPLC {v}",
        ":SENS{c}:CURR:NPLC?",
        "line cycles",
        "Integration time of current readings (:SENSe:CURRent:NPLCycles).",
        within="nplc",
    )
    volts_nplc = number(
        ":SENS{c}:VOLT:NPLC {v}",
        ":SENS{c}:VOLT:NPLC?",
        "line cycles",
        "Integration time of voltage readings (:SENSe:VOLTage:NPLCycles).",
        within="nplc",
    )
    four_wire = switch(":SENS{c}:REM {v}", ":SENS{c}:REM?", "Four-wire sensing (:SENSe:REMote).")
    trigger_source = choice(
        ":TRIG{c}:SOUR {v}",
        ":TRIG{c}:SOUR?",
        "What triggers a reading (:TRIGger[:ALL]:SOURce[:SIGNal]).",
        {"auto": "AINT", "bus": "BUS", "timer": "TIM"},
    )
    trigger_count = integer(
        ":TRIG{c}:COUN {v}", ":TRIG{c}:COUN?", "Readings of one :READ? (:TRIGger:COUNt).", within=(1, 100000)
    )
    arm_count = integer(":ARM{c}:COUN {v}", ":ARM{c}:COUN?", "Passes of one :READ? (:ARM:COUNt).", within=(1, 100000))
    data_format = choice(
        ":FORM {v}",
        ":FORM?",
        "How readings are coded (:FORMat[:DATA]).",
        {"ascii": "ASC", "real32": "REAL,32", "real64": "REAL,64"},
    )
    elements = text(
        ":FORM:ELEM:SENS {v}",
        ":FORM:ELEM:SENS?",
        "What a reading consists of, in the instrument's order (:FORMat:ELEMents:SENSe).",
    )

    def setup(self) -> list[list[str]]:
        """Set all that matters except function, level and output; both functions keep their own settings."""
        kind, settings = type(self), self.settings
        return [
            [
                self.put(kind.data_format, "ascii"),
                self.put(kind.elements, "VOLT,CURR,STAT"),
                self.put(kind.auto_on, False),
                self.put(kind.auto_off, False),
                self.put(kind.protection, False),
                self.put(kind.functions, '"VOLT","CURR"'),
                self.put(kind.amps_nplc, settings.nplc),
                self.put(kind.volts_nplc, settings.nplc),
                self.put(kind.four_wire, settings.four_wire),
                self.put(kind.trigger_source, "auto"),
                self.put(kind.trigger_count, 1),
                self.put(kind.arm_count, 1),
            ],
            [
                self.put(kind.volts_mode, "fixed"),
                self.put(kind.amps_mode, "fixed"),
                self.put(kind.source_volts_auto, False),
                self.put(kind.source_volts_range, self.volts_range),
                self.put(kind.source_amps_auto, False),
                self.put(kind.source_amps_range, self.float_range),
                self.put(kind.amps_limit, settings.limit_amperes),
                self.put(kind.volts_limit, settings.floating_limit),
                self.put(kind.sense_amps_auto, False),
                self.put(kind.sense_amps_range, self.amps_range),
                self.put(kind.sense_volts_auto, False),
                self.put(kind.sense_volts_range, self.floating_range),
            ],
        ]

    def setup_checks(self) -> list[tuple[Property[Any], object]]:
        """A reading must not turn an output on, nor a limit turn it off."""
        kind = type(self)
        return [(kind.auto_on, False), (kind.protection, False), *super().setup_checks()]

    def canaries(self) -> list[tuple[Property[Any], object]]:
        """A reading would turn an output on that went off, and hide that its settings are lost."""
        return [(type(self).auto_on, False)]

    def select_volts(self, volts: float) -> list[str]:
        """Source volts; both quantities are measured whatever is sourced."""
        return [self.put(type(self).source_volts, volts), self.put(type(self).source_function, "volts")]

    def select_float(self) -> list[str]:
        """Source no current."""
        return [self.put(type(self).source_amps, self.trim), self.put(type(self).source_function, "amps")]


class KeysightB2900(Smu):
    """Driver of the B2900 series: both channels are set, and read, in one message."""

    family = "Keysight B2900 series"
    makers = ("KEYSIGHT", "AGILENT")
    dialect = Scpi()
    models = MODELS
    channel_class = KeysightB2900Channel
    # NORMAL opens the relay, ZERO does not ("Agilent B2900 User's Guide", Edition 2, table 6-1).
    resting = "zero"

    def _measure(self, channels: Sequence[SmuChannel]) -> list[SmuReading]:
        # Channel 1's elements, then channel 2's, each set in the order volts, amperes, status
        # (:READ[:SCALar]?, :FORMat:ELEMents:SENSe).
        names = ",".join(channel.name for channel in channels)
        answer = self._take([], [f":READ? (@{names})"], channels)[0]
        fields = answer.split(",")
        bad = COMPLIANCE | OVER_VOLTAGE | OVER_CURRENT | OVER_TEMPERATURE | OVERFLOW
        readings = []
        for index, channel in enumerate(channels):

            def parse(start: int = 3 * index) -> SmuReading:
                if len(fields) != 3 * len(channels):
                    raise ValueError(answer)
                volts, amperes, status = fields[start : start + 3]
                return reading_of(volts, amperes, bool(int(float(status)) & bad))

            readings.append(parsed(channel, answer, parse))
        return readings
