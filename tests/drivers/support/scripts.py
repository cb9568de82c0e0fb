"""What each driver says when it connects and sets up, as scripts for a Wire."""

import itertools
from collections.abc import Sequence

from hilcl.drivers.dialects import Scpi, Tsp
from tests.drivers.support.wire import Hear

NO_ERROR = '0,"No error"'
IDN = {
    "keithley2400": "KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C32 Oct 4 2010 14:20:11/A02 /E/H",
    "keithley2450": "KEITHLEY INSTRUMENTS,MODEL 2450,04312345,1.7.12b",
    "keithley2600b": "Keithley Instruments Inc., Model 2602B, 4012345, 3.3.5",
    "keysight-b2900": "Keysight Technologies,B2902A,MY51140123,3.1.1618.5390",
    "daq6510": "KEITHLEY INSTRUMENTS,MODEL DAQ6510,04340543,1.7.12b",
    "34970a": "HEWLETT-PACKARD,34970A,0,13-2-2",
}


def scpi(commands: Sequence[str], *exchanges: tuple[str, str], error: str = NO_ERROR) -> Hear:
    """One compound SCPI message: commands, (question, answer) pairs, and the error queue."""
    line = ";".join([*commands, *(question for question, _ in exchanges), ":SYST:ERR?"])
    return Hear(line, ";".join([*(answer for _, answer in exchanges), error]))


def tsp(commands: Sequence[str], *exchanges: tuple[str, str], errors: str = "0.00000e+00") -> Hear:
    """One compound TSP message: statements, (expression, answer) pairs, and the number of errors."""
    questions = ", ".join([*(question for question, _ in exchanges), "errorqueue.count"])
    line = " ".join([*commands, f"print({questions})"])
    return Hear(line, "\t".join([*(answer for _, answer in exchanges), errors]))


def greeting(driver: str, idn: str | None = None, errors: Sequence[str] = ()) -> list[Hear]:
    """Identity, language where it is asked for, and the error queue drained."""
    is_tsp = driver == "keithley2600b"
    ask = (Tsp if is_tsp else Scpi).next_error
    steps = [Hear("*IDN?", IDN[driver] if idn is None else idn)]
    if driver in {"keithley2450", "daq6510"}:
        steps.append(Hear("*LANG?", "SCPI"))
    steps += [Hear(ask, error) for error in errors]
    return [*steps, Hear(ask, "0.00000e+00\tQueue Is Empty\t0.00000e+00\t1.00000e+00" if is_tsp else NO_ERROR)]


def k2400_setup(*, amps: str = "0.01", volts: str = "6.0", found: tuple[str, str] | None = None) -> list[Hear]:
    """A 2400 with limits of 5 V and 10 mA; ``found`` are the limits it answers."""
    answers = (amps, volts) if found is None else found
    return [
        scpi(
            [
                ":FORM ASC",
                ":FORM:ELEM VOLT,CURR,STAT",
                ":SENS:FUNC:CONC ON",
                ':SENS:FUNC "VOLT","CURR"',
                ":SENS:AVER OFF",
                ":SENS:CURR:NPLC 1.0",
                ":SYST:AZER ON",
                ":SYST:RSEN OFF",
                ":TRIG:COUN 1",
                ":ARM:COUN 1",
            ]
        ),
        scpi(
            [
                ":SOUR:CLE:AUTO OFF",
                ":SOUR:VOLT:MODE FIX",
                ":SOUR:CURR:MODE FIX",
                ":SOUR:VOLT:RANG 20.0",
                ":SOUR:CURR:RANG 1e-06",
                f":SENS:CURR:PROT {amps}",
                f":SENS:VOLT:PROT {volts}",
            ]
        ),
        scpi([], (":SENS:CURR:PROT?", answers[0]), (":SENS:VOLT:PROT?", answers[1])),
    ]


def k2400_open(**options: str) -> list[Hear]:
    """A 2400 found with its output off."""
    return [*greeting("keithley2400", **options), scpi([], (":OUTP?", "0")), *k2400_setup()]


def k2400_on(volts: str) -> list[Hear]:
    """A 2400 whose output goes on at a voltage."""
    return [
        scpi([f":SOUR:VOLT {volts}", ":SOUR:FUNC VOLT", ":SENS:CURR:RANG 0.01"], (":SENS:CURR:PROT?", "1.000000E-02")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
    ]


def k2400_off(*levels: str) -> list[Hear]:
    """A 2400 that is asked, ramped down and switched off."""
    return [
        scpi([], (":OUTP?", "1")),
        *(scpi([f":SOUR:VOLT {level}"]) for level in levels),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]


def k2450_open() -> list[Hear]:
    """A 2450 with limits of 5 V and 10 mA, found with its output off."""
    return [
        *greeting("keithley2450"),
        scpi([], (":OUTP?", "0")),
        scpi(
            [
                ":FORM ASC",
                ":FORM:ASC:PREC 0",
                ":SENS:COUN 1",
                ":SENS:CURR:NPLC 1.0",
                ":SENS:VOLT:NPLC 1.0",
                ":SENS:CURR:RSEN OFF",
                ":SENS:VOLT:RSEN OFF",
                ":SENS:CURR:AZER ON",
                ":SENS:VOLT:AZER ON",
                ":SENS:CURR:AVER OFF",
                ":SENS:VOLT:AVER OFF",
            ]
        ),
        scpi(
            [
                ":SOUR:VOLT:READ:BACK ON",
                ":SOUR:CURR:READ:BACK ON",
                ":SOUR:VOLT:RANG 20.0",
                ":SOUR:CURR:RANG 1e-08",
                ":SOUR:VOLT:ILIM 0.01",
                ":SOUR:CURR:VLIM 6.0",
                ":SENS:CURR:RANG 0.01",
                ":SENS:VOLT:RANG 20.0",
            ]
        ),
        scpi([], (":SOUR:VOLT:ILIM?", "0.01"), (":SOUR:CURR:VLIM?", "6")),
    ]


def k2600b_setup(channel: str) -> list[Hear]:
    """One channel of a 2602B with limits of 5 V and 10 mA."""
    smu = f"smu{channel}"
    return [
        tsp(
            [
                "localnode.prompts = 0",
                "localnode.showerrors = 0",
                "format.data = 1",
                "format.asciiprecision = 16",
                f"{smu}.measure.nplc = 1.0",
                f"{smu}.measure.autozero = 2",
                f"{smu}.measure.filter.enable = 0",
                f"{smu}.measure.count = 1",
                f"{smu}.nvbuffer1.clear()",
                f"{smu}.nvbuffer2.clear()",
                f"{smu}.nvbuffer1.appendmode = 0",
                f"{smu}.nvbuffer2.appendmode = 0",
                f"{smu}.sense = 0",
            ]
        ),
        tsp(
            [
                f"{smu}.source.rangev = 6.0",
                f"{smu}.source.rangei = 1e-07",
                f"{smu}.source.limiti = 0.01",
                f"{smu}.source.limitv = 6.0",
                f"{smu}.measure.rangei = 0.01",
                f"{smu}.measure.rangev = 6.0",
            ]
        ),
        tsp([], (f"{smu}.source.limiti", "1.00000e-02"), (f"{smu}.source.limitv", "6.00000e+00")),
    ]


def k2600b_open() -> list[Hear]:
    """A 2602B found with its outputs off."""
    return [
        *greeting("keithley2600b"),
        tsp([], ("smua.source.output", "0.00000e+00")),
        tsp([], ("smub.source.output", "0.00000e+00")),
        *k2600b_setup("a"),
        *k2600b_setup("b"),
    ]


def b2900_setup(channel: str) -> list[Hear]:
    """One channel of a B2902A with limits of 5 V and 10 mA."""
    c = channel
    return [
        scpi(
            [
                ":FORM ASC",
                ":FORM:ELEM:SENS VOLT,CURR,STAT",
                f":OUTP{c}:ON:AUTO OFF",
                f":OUTP{c}:OFF:AUTO OFF",
                f":OUTP{c}:PROT OFF",
                f':SENS{c}:FUNC "VOLT","CURR"',
                f":SENS{c}:CURR:NPLC 1.0",
                f":SENS{c}:VOLT:NPLC 1.0",
                f":SENS{c}:REM OFF",
                f":TRIG{c}:SOUR AINT",
                f":TRIG{c}:COUN 1",
                f":ARM{c}:COUN 1",
            ],
            error='+0,"No error"',
        ),
        scpi(
            [
                f":SOUR{c}:VOLT:MODE FIX",
                f":SOUR{c}:CURR:MODE FIX",
                f":SOUR{c}:VOLT:RANG:AUTO OFF",
                f":SOUR{c}:VOLT:RANG 20.0",
                f":SOUR{c}:CURR:RANG:AUTO OFF",
                f":SOUR{c}:CURR:RANG 1e-07",
                f":SENS{c}:CURR:PROT 0.01",
                f":SENS{c}:VOLT:PROT 6.0",
                f":SENS{c}:CURR:RANG:AUTO OFF",
                f":SENS{c}:CURR:RANG 0.01",
                f":SENS{c}:VOLT:RANG:AUTO OFF",
                f":SENS{c}:VOLT:RANG 20.0",
            ],
            error='+0,"No error"',
        ),
        scpi(
            [],
            (f":OUTP{c}:ON:AUTO?", "0"),
            (f":OUTP{c}:PROT?", "0"),
            (f":SENS{c}:CURR:PROT?", "+1.00000000E-002"),
            (f":SENS{c}:VOLT:PROT?", "+6.00000000E+000"),
            error='+0,"No error"',
        ),
    ]


def b2900_open() -> list[Hear]:
    """A B2902A found with its outputs off."""
    return [
        *greeting("keysight-b2900"),
        scpi([], (":OUTP1?", "0")),
        scpi([], (":OUTP2?", "0")),
        *b2900_setup("1"),
        *b2900_setup("2"),
    ]


def daq6510_open(channels: str = "101,102") -> list[Hear]:
    """A DAQ6510 with two channels on its 10 V range."""
    c = f"(@{channels})"
    return [
        *greeting("daq6510"),
        scpi(
            [
                ":FORM ASC",
                ":FORM:ASC:PREC 0",
                f':SENS:FUNC "VOLT",{c}',
                f":SENS:VOLT:RANG 10.0,{c}",
                f":SENS:VOLT:NPLC 1.0,{c}",
                f":SENS:VOLT:AZER ON,{c}",
                f":SENS:VOLT:AVER OFF,{c}",
                f":ROUT:DEL 0.01,{c}",
                f":ROUT:SCAN:CRE {c}",
                ":ROUT:SCAN:INT 0.0",
                ':ROUT:SCAN:BUFF "defbuffer1"',
            ]
        ),
    ]


def k34970a_open(channels: str = "101,102") -> list[Hear]:
    """A 34970A with two channels on its 10 V range and its own delay."""
    c = f"(@{channels})"
    return [
        *greeting("34970a"),
        scpi(
            [
                f':SENS:FUNC "VOLT:DC",{c}',
                f":SENS:VOLT:DC:RANG 10.0,{c}",
                f":SENS:VOLT:DC:NPLC 1.0,{c}",
                f":SENS:ZERO:AUTO ON,{c}",
                f":ROUT:CHAN:DEL:AUTO ON,{c}",
                f":ROUT:SCAN {c}",
                ":TRIG:SOUR IMM",
                ":FORM:READ:CHAN ON",
                ":FORM:READ:TIME OFF",
                ":FORM:READ:UNIT OFF",
                ":FORM:READ:ALAR OFF",
            ],
            error='+0,"No error"',
        ),
    ]


OPEN = {
    "keithley2400": k2400_open,
    "keithley2450": k2450_open,
    "keithley2600b": k2600b_open,
    "keysight-b2900": b2900_open,
    "daq6510": daq6510_open,
    "34970a": k34970a_open,
}
ALL_OFF = {
    "keithley2400": [scpi([], (":OUTP?", "0"))],
    "keithley2450": [scpi([], (":OUTP?", "0"))],
    "keithley2600b": [tsp([], (f"smu{c}.source.output", "0.00000e+00")) for c in "ab"],
    "keysight-b2900": [scpi([], (f":OUTP{c}?", "0")) for c in "12"],
    "daq6510": [],
    "34970a": [],
}
"""What is said when a device that drove nothing is closed."""


def joined(*parts: Sequence[Hear]) -> list[Hear]:
    """One script of several parts."""
    return list(itertools.chain(*parts))
