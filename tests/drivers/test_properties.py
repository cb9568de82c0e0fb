"""Every property of every driver on the wire: the exact message, the exact answer, and nothing more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hilcl.drivers.instrument import VisaInstrument
from hilcl.drivers.properties import Property, declared
from hilcl.drivers.registry import SOURCES, VOLTMETERS
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.smu import SmuSettings
from hilcl.errors import BoardError, InputError
from tests.drivers.support.scripts import ALL_OFF, OPEN, joined, scpi, tsp
from tests.drivers.support.wire import Hear, Wire

CHANNELS = {"keithley2400": "1", "keithley2450": "1", "keithley2600b": "b", "keysight-b2900": "2"}
SCAN = "(@101,102)"

# driver, property, value, the command that sets it (None: read only), the question, the answer to it
Row = tuple[str, str, Any, str | None, str, str]


def on_off(driver: str, name: str, header: str) -> list[Row]:
    return [
        (driver, name, True, f"{header} ON", f"{header}?", "1"),
        (driver, name, False, f"{header} OFF", f"{header}?", "0"),
    ]


def listed(driver: str, name: str, header: str, value: Any, sent: str, answer: str) -> list[Row]:
    return [(driver, name, value, f"{header} {sent},{SCAN}", f"{header}? {SCAN}", f"{answer},{answer}")]


def plain(driver: str, name: str, header: str, *cases: tuple[Any, str, str]) -> list[Row]:
    return [(driver, name, value, f"{header} {sent}", f"{header}?", answer) for value, sent, answer in cases]


def lua(name: str, path: str, *cases: tuple[Any, str, str]) -> list[Row]:
    return [("keithley2600b", name, value, f"{path} = {sent}", path, answer) for value, sent, answer in cases]


FIXED = [("fixed", "FIX", "FIX"), ("list", "LIST", "LIST"), ("sweep", "SWE", "SWE")]
STATES = [("himp", "HIMP", "HIMP"), ("normal", "NORM", "NORM"), ("zero", "ZERO", "ZERO"), ("guard", "GUAR", "GUAR")]
K24, K45, B29, DAQ, A34 = "keithley2400", "keithley2450", "keysight-b2900", "daq6510", "34970a"
ROWS: list[Row] = [
    *on_off(K24, "output", ":OUTP"),
    *plain(K24, "off_state", ":OUTP:SMOD", *STATES),
    *plain(
        K24,
        "source_function",
        ":SOUR:FUNC",
        ("volts", "VOLT", "VOLT"),
        ("amps", "CURR", "CURR"),
        ("memory", "MEM", "MEM"),
    ),
    *plain(K24, "source_volts", ":SOUR:VOLT", (1.5, "1.5", "1.500000E+00"), (-210.0, "-210.0", "-2.100000E+02")),
    *plain(K24, "source_amps", ":SOUR:CURR", (1e-6, "1e-06", "1.000000E-06"), (1.05, "1.05", "1.050000E+00")),
    *plain(K24, "source_volts_range", ":SOUR:VOLT:RANG", (20.0, "20.0", "2.000000E+01")),
    *plain(K24, "source_amps_range", ":SOUR:CURR:RANG", (1e-6, "1e-06", "1.000000E-06")),
    *plain(K24, "volts_mode", ":SOUR:VOLT:MODE", *FIXED),
    *plain(K24, "amps_mode", ":SOUR:CURR:MODE", *FIXED),
    *on_off(K24, "auto_off", ":SOUR:CLE:AUTO"),
    *plain(K24, "amps_limit", ":SENS:CURR:PROT", (0.01, "0.01", "1.000000E-02")),
    *plain(K24, "volts_limit", ":SENS:VOLT:PROT", (6.0, "6.0", "6.000000E+00")),
    (K24, "amps_tripped", True, None, ":SENS:CURR:PROT:TRIP?", "1"),
    (K24, "volts_tripped", False, None, ":SENS:VOLT:PROT:TRIP?", "0"),
    *plain(K24, "sense_amps_range", ":SENS:CURR:RANG", (0.01, "0.01", "1.050000E-02")),
    *plain(K24, "sense_volts_range", ":SENS:VOLT:RANG", (20.0, "20.0", "2.100000E+01")),
    *plain(K24, "nplc", ":SENS:CURR:NPLC", (0.01, "0.01", "0.01"), (10.0, "10.0", "10.00")),
    *on_off(K24, "four_wire", ":SYST:RSEN"),
    *on_off(K24, "autozero", ":SYST:AZER"),
    *on_off(K24, "average", ":SENS:AVER"),
    *on_off(K24, "concurrent", ":SENS:FUNC:CONC"),
    *plain(K24, "functions", ":SENS:FUNC", ('"VOLT"', '"VOLT"', '"VOLT:DC"')),
    *plain(K24, "elements", ":FORM:ELEM", ("VOLT,CURR", "VOLT,CURR", "VOLT,CURR")),
    *plain(
        K24, "data_format", ":FORM", ("ascii", "ASC", "ASC"), ("real", "REAL", "REAL,32"), ("swapped", "SRE", "SRE,32")
    ),
    *plain(K24, "trigger_count", ":TRIG:COUN", (1, "1", "1")),
    *plain(K24, "arm_count", ":ARM:COUN", (2500, "2500", "2500")),
    *on_off(K45, "output", ":OUTP"),
    *plain(K45, "off_state", ":OUTP:SMOD", *STATES),
    *plain(K45, "source_function", ":SOUR:FUNC", ("volts", "VOLT", "VOLT"), ("amps", "CURR", "CURR")),
    *plain(K45, "source_volts", ":SOUR:VOLT", (-1.25, "-1.25", "-1.25")),
    *plain(K45, "source_amps", ":SOUR:CURR", (1e-9, "1e-09", "1E-09")),
    *plain(K45, "source_volts_range", ":SOUR:VOLT:RANG", (2.0, "2.0", "2")),
    *plain(K45, "source_amps_range", ":SOUR:CURR:RANG", (1e-8, "1e-08", "1E-08")),
    *on_off(K45, "volts_readback", ":SOUR:VOLT:READ:BACK"),
    *on_off(K45, "amps_readback", ":SOUR:CURR:READ:BACK"),
    *plain(K45, "amps_limit", ":SOUR:VOLT:ILIM", (0.01, "0.01", "0.01")),
    *plain(K45, "volts_limit", ":SOUR:CURR:VLIM", (6.0, "6.0", "6")),
    (K45, "amps_tripped", False, None, ":SOUR:VOLT:ILIM:TRIP?", "0"),
    (K45, "volts_tripped", True, None, ":SOUR:CURR:VLIM:TRIP?", "1"),
    *plain(
        K45,
        "sense_function",
        ":SENS:FUNC",
        ("volts", '"VOLT"', '"VOLT:DC"'),
        ("amps", '"CURR"', '"CURR:DC"'),
        ("ohms", '"RES"', '"RES"'),
    ),
    *plain(K45, "sense_amps_range", ":SENS:CURR:RANG", (0.01, "0.01", "0.01")),
    *plain(K45, "sense_volts_range", ":SENS:VOLT:RANG", (20.0, "20.0", "20")),
    *plain(K45, "amps_nplc", ":SENS:CURR:NPLC", (1.0, "1.0", "1")),
    *plain(K45, "volts_nplc", ":SENS:VOLT:NPLC", (0.01, "0.01", "0.01")),
    *on_off(K45, "amps_four_wire", ":SENS:CURR:RSEN"),
    *on_off(K45, "volts_four_wire", ":SENS:VOLT:RSEN"),
    *on_off(K45, "amps_autozero", ":SENS:CURR:AZER"),
    *on_off(K45, "volts_autozero", ":SENS:VOLT:AZER"),
    *on_off(K45, "amps_average", ":SENS:CURR:AVER"),
    *on_off(K45, "volts_average", ":SENS:VOLT:AVER"),
    *plain(K45, "count", ":SENS:COUN", (10, "10", "10")),
    *plain(K45, "data_format", ":FORM", ("ascii", "ASC", "ASC"), ("real", "REAL", "REAL"), ("single", "SRE", "SREAL")),
    *plain(K45, "precision", ":FORM:ASC:PREC", (0, "0", "0")),
    (K45, "language", "SCPI", None, "*LANG?", "SCPI"),
    *lua("output", "smub.source.output", (True, "1", "1.00000e+00"), (False, "0", "0.00000e+00")),
    *lua(
        "off_state",
        "smub.source.offmode",
        ("himp", "2", "2.00000e+00"),
        ("normal", "0", "0.00000e+00"),
        ("zero", "1", "1"),
    ),
    *lua("source_function", "smub.source.func", ("volts", "1", "1.00000e+00"), ("amps", "0", "0.00000e+00")),
    *lua("source_volts", "smub.source.levelv", (0.1, "0.1", "1.00000e-01")),
    *lua("source_amps", "smub.source.leveli", (-1e-9, "-1e-09", "-1.00000e-09")),
    *lua("source_volts_range", "smub.source.rangev", (6.0, "6.0", "6.00000e+00")),
    *lua("source_amps_range", "smub.source.rangei", (1e-7, "1e-07", "1.00000e-07")),
    *lua("amps_limit", "smub.source.limiti", (0.01, "0.01", "1.00000e-02")),
    *lua("volts_limit", "smub.source.limitv", (6.0, "6.0", "6.00000e+00")),
    ("keithley2600b", "tripped", True, None, "smub.source.compliance", "true"),
    *lua("sense_amps_range", "smub.measure.rangei", (0.01, "0.01", "1.00000e-02")),
    *lua("sense_volts_range", "smub.measure.rangev", (6.0, "6.0", "6.00000e+00")),
    *lua("nplc", "smub.measure.nplc", (0.001, "0.001", "1.00000e-03"), (25.0, "25.0", "2.50000e+01")),
    *lua("count", "smub.measure.count", (3, "3", "3.00000e+00")),
    *lua("four_wire", "smub.sense", (True, "1", "1.00000e+00"), (False, "0", "0.00000e+00")),
    *lua("autozero", "smub.measure.autozero", ("auto", "2", "2.00000e+00"), ("once", "1", "1"), ("off", "0", "0")),
    *lua("average", "smub.measure.filter.enable", (False, "0", "0.00000e+00")),
    *lua("append_amps", "smub.nvbuffer1.appendmode", (False, "0", "0.00000e+00")),
    *lua("append_volts", "smub.nvbuffer2.appendmode", (False, "0", "0.00000e+00")),
    *lua("prompts", "localnode.prompts", (False, "0", "0.00000e+00")),
    *lua("shown_errors", "localnode.showerrors", (False, "0", "0.00000e+00")),
    *lua("precision", "format.asciiprecision", (16, "16", "1.60000e+01")),
    *lua("data_format", "format.data", ("ascii", "1", "1.00000e+00"), ("single", "2", "2"), ("double", "3", "3")),
    *on_off(B29, "output", ":OUTP2"),
    *plain(
        B29,
        "off_state",
        ":OUTP2:OFF:MODE",
        ("himp", "HIZ", "HIZ"),
        ("normal", "NORM", "NORM"),
        ("zero", "ZERO", "ZERO"),
    ),
    *on_off(B29, "auto_on", ":OUTP2:ON:AUTO"),
    *on_off(B29, "auto_off", ":OUTP2:OFF:AUTO"),
    *on_off(B29, "protection", ":OUTP2:PROT"),
    *plain(B29, "source_function", ":SOUR2:FUNC:MODE", ("volts", "VOLT", "VOLT"), ("amps", "CURR", "CURR")),
    *plain(B29, "source_volts", ":SOUR2:VOLT", (3.3, "3.3", "+3.30000000E+000")),
    *plain(B29, "source_amps", ":SOUR2:CURR", (-3.03, "-3.03", "-3.03000000E+000")),
    *on_off(B29, "source_volts_auto", ":SOUR2:VOLT:RANG:AUTO"),
    *on_off(B29, "source_amps_auto", ":SOUR2:CURR:RANG:AUTO"),
    *plain(B29, "source_volts_range", ":SOUR2:VOLT:RANG", (20.0, "20.0", "+2.00000000E+001")),
    *plain(B29, "source_amps_range", ":SOUR2:CURR:RANG", (1e-7, "1e-07", "+1.00000000E-007")),
    *plain(B29, "volts_mode", ":SOUR2:VOLT:MODE", *FIXED),
    *plain(B29, "amps_mode", ":SOUR2:CURR:MODE", *FIXED),
    *plain(B29, "amps_limit", ":SENS2:CURR:PROT", (0.01, "0.01", "+1.00000000E-002")),
    *plain(B29, "volts_limit", ":SENS2:VOLT:PROT", (6.0, "6.0", "+6.00000000E+000")),
    (B29, "amps_tripped", True, None, ":SENS2:CURR:PROT:TRIP?", "1"),
    (B29, "volts_tripped", False, None, ":SENS2:VOLT:PROT:TRIP?", "0"),
    *plain(B29, "functions", ":SENS2:FUNC", ('"VOLT","CURR"', '"VOLT","CURR"', '"VOLT","CURR"')),
    *on_off(B29, "sense_amps_auto", ":SENS2:CURR:RANG:AUTO"),
    *on_off(B29, "sense_volts_auto", ":SENS2:VOLT:RANG:AUTO"),
    *plain(B29, "sense_amps_range", ":SENS2:CURR:RANG", (0.01, "0.01", "+1.00000000E-002")),
    *plain(B29, "sense_volts_range", ":SENS2:VOLT:RANG", (20.0, "20.0", "+2.00000000E+001")),
    *plain(B29, "amps_nplc", ":SENS2:CURR:NPLC", (100.0, "100.0", "+1.00000000E+002")),
    *plain(B29, "volts_nplc", ":SENS2:VOLT:NPLC", (1.0, "1.0", "+1.00000000E+000")),
    *on_off(B29, "four_wire", ":SENS2:REM"),
    *plain(
        B29, "trigger_source", ":TRIG2:SOUR", ("auto", "AINT", "AINT"), ("bus", "BUS", "BUS"), ("timer", "TIM", "TIM")
    ),
    *plain(B29, "trigger_count", ":TRIG2:COUN", (1, "1", "1")),
    *plain(B29, "arm_count", ":ARM2:COUN", (1, "1", "1")),
    *plain(
        B29,
        "data_format",
        ":FORM",
        ("ascii", "ASC", "ASC"),
        ("real32", "REAL,32", "REAL,32"),
        ("real64", "REAL,64", "REAL,64"),
    ),
    *plain(B29, "elements", ":FORM:ELEM:SENS", ("VOLT,CURR,STAT", "VOLT,CURR,STAT", "VOLT,CURR,STAT")),
    *listed(DAQ, "function", ":SENS:FUNC", "volts", '"VOLT"', '"VOLT:DC"'),
    *listed(DAQ, "function", ":SENS:FUNC", "amps", '"CURR"', '"CURR:DC"'),
    *listed(DAQ, "function", ":SENS:FUNC", "ohms", '"RES"', '"RES"'),
    *listed(DAQ, "volts_range", ":SENS:VOLT:RANG", 10.0, "10.0", "10"),
    *listed(DAQ, "nplc", ":SENS:VOLT:NPLC", 0.0005, "0.0005", "0.0005"),
    *listed(DAQ, "autozero", ":SENS:VOLT:AZER", False, "OFF", "0"),
    *listed(DAQ, "average", ":SENS:VOLT:AVER", True, "ON", "1"),
    *listed(DAQ, "delay", ":ROUT:DEL", 0.01, "0.01", "0.01"),
    *plain(DAQ, "scan_buffer", ":ROUT:SCAN:BUFF", ("defbuffer1", "defbuffer1", "defbuffer1")),
    (DAQ, "scan_list", SCAN, f":ROUT:SCAN:CRE {SCAN}", ":ROUT:SCAN?", SCAN),
    *plain(DAQ, "scan_count", ":ROUT:SCAN:COUN:SCAN", (4, "4", "4")),
    *plain(DAQ, "scan_interval", ":ROUT:SCAN:INT", (0.0, "0.0", "0")),
    *plain(DAQ, "data_format", ":FORM", ("ascii", "ASC", "ASC"), ("real", "REAL", "REAL"), ("single", "SRE", "SREAL")),
    *plain(DAQ, "precision", ":FORM:ASC:PREC", (16, "16", "16")),
    (DAQ, "language", "SCPI", None, "*LANG?", "SCPI"),
    *listed(A34, "function", ":SENS:FUNC", "volts", '"VOLT:DC"', '"VOLT"'),
    *listed(A34, "function", ":SENS:FUNC", "ohms", '"RES"', '"RES"'),
    *listed(A34, "volts_range", ":SENS:VOLT:DC:RANG", 10.0, "10.0", "+1.00000000E+01"),
    *listed(A34, "nplc", ":SENS:VOLT:DC:NPLC", 0.02, "0.02", "+2.00000000E-02"),
    *listed(A34, "autozero", ":SENS:ZERO:AUTO", True, "ON", "1"),
    *listed(A34, "delay", ":ROUT:CHAN:DEL", 0.002, "0.002", "+2.00000000E-03"),
    *listed(A34, "auto_delay", ":ROUT:CHAN:DEL:AUTO", True, "ON", "1"),
    (A34, "scan_list", SCAN, f":ROUT:SCAN {SCAN}", ":ROUT:SCAN?", SCAN),
    *plain(
        A34,
        "trigger_source",
        ":TRIG:SOUR",
        ("immediate", "IMM", "IMM"),
        ("bus", "BUS", "BUS"),
        ("external", "EXT", "EXT"),
        ("timer", "TIM", "TIM"),
    ),
    *plain(A34, "scan_count", ":TRIG:COUN", (3, "3", "+3.00000000E+00")),
    *on_off(A34, "with_channel", ":FORM:READ:CHAN"),
    *on_off(A34, "with_time", ":FORM:READ:TIME"),
    *on_off(A34, "with_unit", ":FORM:READ:UNIT"),
    *on_off(A34, "with_alarm", ":FORM:READ:ALAR"),
]


def properties_of(driver: str) -> dict[str, Property[Any]]:
    return declared(SOURCES[driver].channel_class) if driver in SOURCES else declared(VOLTMETERS[driver])


def message(driver: str, commands: list[str], *exchanges: tuple[str, str]) -> Hear:
    return (tsp if driver == "keithley2600b" else scpi)(commands, *exchanges)


@contextmanager
def opened(driver: str, *steps: Hear) -> Iterator[tuple[VisaInstrument[Any], Any]]:
    """The driver on a wire that expects just these messages after opening, and what owns its properties."""
    with Wire(joined(OPEN[driver](), steps, ALL_OFF[driver])) as wire:
        if driver in SOURCES:
            with SOURCES[driver]("dut", wire.resource, SmuSettings(5.0, 0.01)) as smu:
                yield smu, smu.channel(CHANNELS[driver])
        else:
            delay = 0.01 if driver == DAQ else None
            with VOLTMETERS[driver]("dut", wire.resource, ["101", "102"], ScannerSettings(delay=delay)) as meter:
                yield meter, meter


@pytest.mark.parametrize("driver", [*SOURCES, *VOLTMETERS])
def test_every_property_says_and_understands_what_the_manual_says(driver: str) -> None:
    rows = [row for row in ROWS if row[0] == driver]
    steps = []
    for _, _, _, command, question, answer in rows:
        if command is not None:
            steps.append(message(driver, [command]))
        steps.append(message(driver, [], (question, answer)))
    with opened(driver, *steps) as (_, owner):
        for _, name, value, command, _, answer in rows:
            if command is not None:
                setattr(owner, name, value)
            found = getattr(owner, name)
            if isinstance(value, str) and name in {"functions", "elements", "scan_list"}:
                assert found == answer.strip("\"'")
            elif "range" in name and driver == K24:
                assert found == pytest.approx(value, rel=0.051)  # a 2400 answers 105 % of the range
            else:
                assert found == value


@pytest.mark.parametrize("driver", [*SOURCES, *VOLTMETERS])
def test_the_table_above_leaves_no_property_out(driver: str) -> None:
    assert {row[1] for row in ROWS if row[0] == driver} == set(properties_of(driver))


@pytest.mark.parametrize("driver", [*SOURCES, *VOLTMETERS])
def test_every_property_says_what_it_is_and_where_that_is_written(driver: str) -> None:
    models = (SOURCES[driver].models if driver in SOURCES else VOLTMETERS[driver].models).values()
    for name, declaration in properties_of(driver).items():
        assert declaration.__doc__, name
        assert "(" in declaration.__doc__, f"{name} names no command of the manual"
        if isinstance(declaration.within, str):
            for model in models:
                low, high = getattr(model, declaration.within)
                assert low < high


@pytest.mark.parametrize(
    ("driver", "name", "value", "bounds"),
    [
        (K24, "source_volts", 210.1, "-210 and 210 V"),
        (K45, "source_amps", -1.06, "-1.05 and 1.05 A"),
        ("keithley2600b", "source_volts", 41.0, "-40.4 and 40.4 V"),
        (B29, "amps_limit", 3.1, "and 3.03 A"),
        (DAQ, "nplc", 12.5, "0.0005 and 12 line cycles"),
        (A34, "delay", -1.0, "0 and 60 s"),
    ],
)
def test_a_value_the_model_cannot_take_is_never_sent(driver: str, name: str, value: float, bounds: str) -> None:
    with opened(driver) as (_, owner), pytest.raises(InputError, match=bounds):
        setattr(owner, name, value)


def test_a_word_that_is_no_choice_is_never_sent() -> None:
    with opened(K24) as (_, channel), pytest.raises(InputError, match="source_function cannot be 'ohms'"):
        channel.source_function = "ohms"


def test_what_can_only_be_read_cannot_be_set() -> None:
    with opened(K24) as (_, channel), pytest.raises(InputError, match="amps_tripped can only be read"):
        channel.amps_tripped = True


def test_an_answer_that_is_no_value_is_named() -> None:
    step = message(K24, [], (":SOUR:VOLT?", "zero"))
    with opened(K24, step) as (_, channel), pytest.raises(BoardError, match="'zero' to ':SOUR:VOLT\\?'"):
        _ = channel.source_volts


def test_channels_that_differ_have_no_common_value() -> None:
    step = message(A34, [], (f":SENS:VOLT:DC:NPLC? {SCAN}", "+1.0E+00,+2.0E+00"))
    with opened(A34, step) as (_, meter), pytest.raises(BoardError, match="no nplc"):
        _ = meter.nplc
