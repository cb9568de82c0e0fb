"""Keysight (Agilent, HP) 34970A and 34972A over SCPI.

Commands: "Agilent 34970A Data Acquisition/Switch Unit User's Guide", chapter 5, under the names given with each
property; ``{c}`` is the channel list. ``READ?`` sends every reading of the scan as it is taken and keeps none, so
that the 50 000 readings of the memory are no bound; ``INITiate`` with ``FETCh?`` would go through that memory, which
can be read at any time, even during a scan (chapter 4, viewing readings stored in memory; chapter 5, READ?).
"""

from hilcl.drivers.dialects import Scpi
from hilcl.drivers.properties import choice, integer, number, switch, text
from hilcl.drivers.scanner import Scanner, ScannerModel

_NPLC = (0.02, 0.2, 1.0, 2.0, 10.0, 20.0, 100.0, 200.0)
_RANGES = (0.1, 1.0, 10.0, 100.0, 300.0)
_RESOLUTIONS = tuple(zip(_NPLC, (1e-4, 1e-5, 3e-6, 2.2e-6, 1e-6, 8e-7, 3e-7, 2.2e-7), strict=True))
"""Integration time and resolution (User's Guide, chapter 4, custom A/D integration time)."""
MODELS = {
    model.name: model
    for model in (
        ScannerModel("34970A", _RANGES, (_NPLC[0], _NPLC[-1]), 50000, _RESOLUTIONS, _NPLC),
        ScannerModel("34972A", _RANGES, (_NPLC[0], _NPLC[-1]), 50000, _RESOLUTIONS, _NPLC),
    )
}


class Keysight34970A(Scanner):
    """Driver of the 34970A: one query scans and returns readings with their channels."""

    family = "Keysight 34970A"
    makers = ("KEYSIGHT", "AGILENT", "HEWLETT-PACKARD")
    dialect = Scpi()
    models = MODELS

    function = choice(
        ":SENS:FUNC {v},{c}",
        ":SENS:FUNC? {c}",
        "What the channels measure ([SENSe:]FUNCtion).",
        {"volts": '"VOLT:DC"', "ohms": '"RES"'},
        answers={"volts": "VOLT", "ohms": "RES"},
        per_channel=True,
    )
    volts_range = number(
        ":SENS:VOLT:DC:RANG {v},{c}",
        ":SENS:VOLT:DC:RANG? {c}",
        "V",
        "Range ([SENSe:]VOLTage:DC:RANGe).",
        within="volt_range",
        per_channel=True,
    )
    nplc = number(
        ":SENS:VOLT:DC:NPLC {v},{c}",
        ":SENS:VOLT:DC:NPLC? {c}",
        "line cycles",
        "Integration time, one of 0.02 to 200 ([SENSe:]VOLTage:DC:NPLCycles).",
        within="nplc",
        per_channel=True,
    )
    autozero = switch(
        ":SENS:ZERO:AUTO {v},{c}",
        ":SENS:ZERO:AUTO? {c}",
        "Zero read with every reading ([SENSe:]ZERO:AUTO).",
        per_channel=True,
    )
    delay = number(
        ":ROUT:CHAN:DEL {v},{c}",
        ":ROUT:CHAN:DEL? {c}",
        "s",
        "Delay after the relay (ROUTe:CHANnel:DELay).",
        within=(0.0, 60.0),
        per_channel=True,
    )
    auto_delay = switch(
        ":ROUT:CHAN:DEL:AUTO {v},{c}",
        ":ROUT:CHAN:DEL:AUTO? {c}",
        "Delay left to the instrument (ROUTe:CHANnel:DELay:AUTO).",
        per_channel=True,
    )
    scan_list = text(":ROUT:SCAN {v}", ":ROUT:SCAN?", "Channels scanned, in ascending order (ROUTe:SCAN).")
    trigger_source = choice(
        ":TRIG:SOUR {v}",
        ":TRIG:SOUR?",
        "What starts a sweep (TRIGger:SOURce).",
        {"immediate": "IMM", "bus": "BUS", "external": "EXT", "timer": "TIM"},
    )
    scan_count = integer(":TRIG:COUN {v}", ":TRIG:COUN?", "Sweeps of one scan (TRIGger:COUNt).", within="averages")
    with_channel = switch(
        ":FORM:READ:CHAN {v}", ":FORM:READ:CHAN?", "Readings carry their channel (FORMat:READing:CHANnel)."
    )
    with_time = switch(":FORM:READ:TIME {v}", ":FORM:READ:TIME?", "Readings carry their time (FORMat:READing:TIME).")
    with_unit = switch(":FORM:READ:UNIT {v}", ":FORM:READ:UNIT?", "Readings carry their unit (FORMat:READing:UNIT).")
    with_alarm = switch(":FORM:READ:ALAR {v}", ":FORM:READ:ALAR?", "Readings carry alarms (FORMat:READing:ALARm).")

    def setup(self) -> list[list[str]]:
        """Set every channel and the scan."""
        kind, settings = type(self), self.settings
        delay = self.put(kind.auto_delay, True) if settings.delay is None else self.put(kind.delay, settings.delay)
        return [
            [
                self.put(kind.function, "volts"),
                self.put(kind.volts_range, settings.volts_range),
                self.put(kind.nplc, settings.nplc),
                self.put(kind.autozero, settings.autozero),
                delay,
                self.put(kind.scan_list, self.address),
                self.put(kind.trigger_source, "immediate"),
                self.put(kind.with_channel, True),
                self.put(kind.with_time, False),
                self.put(kind.with_unit, False),
                self.put(kind.with_alarm, False),
            ]
        ]

    def _averages_command(self, averages: int) -> str:
        return self.put(type(self).scan_count, averages)

    def _scan(self, averages: int, timeout: float) -> str:
        return self._exchange([], [":READ?"], timeout)[0]
