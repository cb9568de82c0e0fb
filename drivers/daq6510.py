"""Keithley DAQ6510 over SCPI.

Commands: "DAQ6510 Reference Manual", DAQ6510-901-01, SCPI command reference, under the names given with each property;
``{c}`` is the channel list. A scan is set up, started, waited for and read as in the maker's own program
Instrument_Examples/DAQ6510/Mixed_Function_Multi-Channel_Scanning/DAQ6510_Mixed_Function_Multi-Channel_Scanning_SCPI.py
(GitHub, tektronix/keithley); line cycles as in PyMeasure's KeithleyDAQ6510: 0.0005 to 15 at 60 Hz, to 12 at 50 Hz.
"""

from hilcl.drivers.dialects import Scpi
from hilcl.drivers.keithley2450 import check_language
from hilcl.drivers.properties import choice, integer, number, switch, text
from hilcl.drivers.scanner import Scanner, ScannerModel

_DIGITS = ((0.0005, 1e-4), (0.01, 1e-5), (1.0, 1e-6))
"""4½, 5½ and 6½ digits (DAQ6510 data sheet, page 13, measurement rate and digits)."""
MODELS = {
    model.name: model
    for model in (ScannerModel("DAQ6510", (0.1, 1.0, 10.0, 100.0, 1000.0), (0.0005, 12.0), 100000, _DIGITS),)
}


class Daq6510(Scanner):
    """Driver of the DAQ6510: one message clears the buffer, scans, waits, and returns readings with their channels."""

    family = "Keithley DAQ6510"
    makers = ("KEITHLEY",)
    dialect = Scpi()
    models = MODELS

    function = choice(
        ":SENS:FUNC {v},{c}",
        ":SENS:FUNC? {c}",
        "What the channels measure ([:SENSe[1]]:FUNCtion[:ON]).",
        {"volts": '"VOLT"', "amps": '"CURR"', "ohms": '"RES"'},
        per_channel=True,
    )
    volts_range = number(
        ":SENS:VOLT:RANG {v},{c}",
        ":SENS:VOLT:RANG? {c}",
        "V",
        "Range ([:SENSe[1]]:VOLTage:RANGe).",
        within="volt_range",
        per_channel=True,
    )
    nplc = number(
        ":SENS:VOLT:NPLC {v},{c}",
        ":SENS:VOLT:NPLC? {c}",
        "line cycles",
        "Integration time ([:SENSe[1]]:VOLTage:NPLCycles).",
        within="nplc",
        per_channel=True,
    )
    autozero = switch(
        ":SENS:VOLT:AZER {v},{c}",
        ":SENS:VOLT:AZER? {c}",
        "Zero and reference read with every reading ([:SENSe[1]]:VOLTage:AZERo[:STATe]).",
        per_channel=True,
    )
    average = switch(
        ":SENS:VOLT:AVER {v},{c}",
        ":SENS:VOLT:AVER? {c}",
        "The instrument's own filter ([:SENSe[1]]:VOLTage:AVERage[:STATe]).",
        per_channel=True,
    )
    delay = number(
        ":ROUT:DEL {v},{c}",
        ":ROUT:DEL? {c}",
        "s",
        "Delay after the relay (:ROUTe[:CHANnel]:DELay).",
        within=(0.0, 60.0),
        per_channel=True,
    )
    scan_buffer = text(":ROUT:SCAN:BUFF {v}", ":ROUT:SCAN:BUFF?", "Buffer the readings go to (:ROUTe:SCAN:BUFFer).")
    scan_list = text(":ROUT:SCAN:CRE {v}", ":ROUT:SCAN?", "Channels scanned, in this order (:ROUTe:SCAN:CREate).")
    scan_count = integer(
        ":ROUT:SCAN:COUN:SCAN {v}",
        ":ROUT:SCAN:COUN:SCAN?",
        "Sweeps of one scan (:ROUTe:SCAN:COUNt:SCAN).",
        within="averages",
    )
    scan_interval = number(
        ":ROUT:SCAN:INT {v}",
        ":ROUT:SCAN:INT?",
        "s",
        "Time between the starts of sweeps (:ROUTe:SCAN:INTerval).",
        within=(0.0, 1e5),
    )
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

    def _check_language(self) -> None:
        check_language(self.name, self._open_session().query("*LANG?"))

    def setup(self) -> list[list[str]]:
        """Set every channel and the scan."""
        kind, settings = type(self), self.settings
        delay = [] if settings.delay is None else [self.put(kind.delay, settings.delay)]
        return [
            [
                self.put(kind.data_format, "ascii"),
                self.put(kind.precision, 0),
                self.put(kind.function, "volts"),
                self.put(kind.volts_range, settings.volts_range),
                self.put(kind.nplc, settings.nplc),
                self.put(kind.autozero, settings.autozero),
                self.put(kind.average, False),
                *delay,
                self.put(kind.scan_list, self.address),
                self.put(kind.scan_interval, 0.0),
                self.put(kind.scan_buffer, '"defbuffer1"'),
            ]
        ]

    def _averages_command(self, averages: int) -> str:
        return self.put(type(self).scan_count, averages)

    def _scan(self, averages: int, timeout: float) -> str:
        count = averages * len(self.channels)
        commands = [":TRAC:CLE", ":INIT", "*WAI"]
        return self._exchange(commands, [f':TRAC:DATA? 1,{count},"defbuffer1",READ,CHAN'], timeout)[0]
