"""Scanning voltmeters on the wire."""

import math

import pytest

from hilcl.devices import Voltmeter
from hilcl.drivers.daq6510 import Daq6510
from hilcl.drivers.keysight_34970a import Keysight34970A
from hilcl.drivers.registry import VOLTMETERS
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.visa_session import LinkError, LinkOptions
from hilcl.errors import BoardError, InputError, MeasurementError
from tests.drivers.support.scripts import NO_ERROR, daq6510_open, greeting, joined, k34970a_open, scpi
from tests.drivers.support.wire import Hear, Wire

DELAY = ScannerSettings(delay=0.01)
SCAN_DAQ = [":TRAC:CLE", ":INIT", "*WAI"]
STEP = 10.0 * 1e-6 / math.sqrt(12)


def daq_scan(count: int, answer: str) -> Hear:
    return scpi(SCAN_DAQ, (f':TRAC:DATA? 1,{count},"defbuffer1",READ,CHAN', answer))


def test_a_daq6510_scans_in_one_message_and_averages_sweeps() -> None:
    script = [
        *daq6510_open(),
        scpi([":ROUT:SCAN:COUN:SCAN 1"]),
        daq_scan(2, "1.5,101,2.5,102"),
        daq_scan(2, "1.6,101,2.6,102"),
        scpi([":ROUT:SCAN:COUN:SCAN 2"]),
        daq_scan(4, "1.0,101,2.0,102,1.2,101,2.0,102"),
    ]
    with Wire(script) as wire, Daq6510("dmm", wire.resource, ["101", "102"], DELAY) as meter:
        first = meter.read()
        assert first.volts.tolist() == [1.5, 2.5]
        assert first.volts_u.tolist() == pytest.approx([STEP, STEP])
        assert meter.start_read().result(30).volts.tolist() == [1.6, 2.6]
        mean = meter.read(2)
        assert mean.volts.tolist() == pytest.approx([1.1, 2.0])
        assert mean.volts_u.tolist() == pytest.approx([math.hypot(0.1, STEP), STEP])


def test_a_34970a_scans_in_its_own_order_and_channels_stay_what_they_are() -> None:
    script = [
        *k34970a_open("205,101"),
        scpi([":TRIG:COUN 2"], error='+0,"No error"'),
        scpi(
            [],
            (":READ?", "+1.00000000E+00,101,+2.00000000E+00,205,+1.20000000E+00,101,+2.20000000E+00,205"),
            error='+0,"No error"',
        ),
    ]
    with Wire(script) as wire, Keysight34970A("dmm", wire.resource, ["205", "101"]) as meter:
        assert meter.channels == ("205", "101")
        readings = meter.read(2)
        assert readings.volts.tolist() == pytest.approx([2.1, 1.1])
        # Means of two that lie 0.2 V apart, on 10 V at 1 line cycle: 30 µV.
        assert readings.volts_u.tolist() == pytest.approx([math.hypot(0.1, 3e-5 / math.sqrt(12))] * 2)


@pytest.mark.parametrize(
    ("driver", "model", "nplc", "resolution"),
    [
        ("34970a", "34970A", 0.02, 1e-4),
        ("34970a", "34972A", 1.0, 3e-6),
        ("34970a", "34970A", 200.0, 2.2e-7),
        ("daq6510", "DAQ6510", 0.0005, 1e-4),
        ("daq6510", "DAQ6510", 0.5, 1e-5),
        ("daq6510", "DAQ6510", 12.0, 1e-6),
    ],
)
def test_resolution_goes_with_the_integration_time(driver: str, model: str, nplc: float, resolution: float) -> None:
    assert VOLTMETERS[driver].models[model].resolution(nplc) == resolution


@pytest.mark.parametrize(
    "answer", ["1.5,101", "1.5,101,2.5,103", "1.5,101,2.5,101", "1.5,101,x,102", "", "1.5,101,2.5,102,3.5,102"]
)
def test_a_scan_that_is_none_is_asked_for_again_and_then_said(answer: str) -> None:
    once = [scpi([":ROUT:SCAN:COUN:SCAN 1"]), daq_scan(2, answer)]
    with (
        Wire(joined(daq6510_open(), once), joined(daq6510_open(), once)) as wire,
        Daq6510("dmm", wire.resource, ["101", "102"], DELAY, link=LinkOptions(retries=1)) as meter,
        pytest.raises(BoardError, match=r"dmm .* answered .* to a scan of 2 channels: check that the module"),
    ):
        meter.read()


@pytest.mark.parametrize("value", ["9.9e37", "-9.9E+37", "nan"])
def test_an_overflow_names_its_channel(value: str) -> None:
    script = [*daq6510_open(), scpi([":ROUT:SCAN:COUN:SCAN 1"]), daq_scan(2, f"1.5,101,{value},102")]
    with (
        Wire(script) as wire,
        Daq6510("dmm", wire.resource, ["101", "102"], DELAY) as meter,
        pytest.raises(MeasurementError, match=r"dmm .* channel 102 read no number .*beyond the range of 10 V"),
    ):
        meter.read()


def test_after_a_lost_link_the_scan_is_set_up_again() -> None:
    count = scpi([":TRIG:COUN 1"], error='+0,"No error"')
    scan = ";".join([":READ?", ":SYST:ERR?"])
    with (
        Wire(
            [*k34970a_open(), count, Hear(scan, "+1.0E+00,1", then="mid-line")],
            [*k34970a_open(), count, Hear(scan, f"+1.0E+00,101,+2.0E+00,102;{NO_ERROR}")],
        ) as wire,
        Keysight34970A("dmm", wire.resource, ["101", "102"]) as meter,
    ):
        assert meter.read().volts.tolist() == [1.0, 2.0]


def test_another_instrument_at_the_address_is_named() -> None:
    with Wire([Hear("*IDN?", "HEWLETT-PACKARD,34970A,0,13-2-2")]) as wire:
        meter = Daq6510("dmm", wire.resource, ["101"])
        with pytest.raises(InputError, match=r"34970A,0,13-2-2 answers at .* but a Keithley DAQ6510 is expected"):
            meter.open()
        meter.close()


def test_silence_at_the_greeting_is_said() -> None:
    with Wire([Hear("*IDN?")]) as wire:
        meter = Daq6510("dmm", wire.resource, ["101"], link=LinkOptions(timeout=0.5))
        with pytest.raises(LinkError, match=r"dmm .* gave no answer in time .command '.IDN.'"):
            meter.open()
        meter.close()


@pytest.mark.parametrize(
    ("channels", "message"),
    [([], "not none"), (["1"], "not 1"), (["a01"], "not a01"), (["101", "102", "101"], "channel 101 is listed twice")],
)
def test_channels_that_are_none_are_refused(channels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Daq6510("dmm", "TCPIP0::127.0.0.1::1::SOCKET", channels)


@pytest.mark.parametrize(
    ("driver", "settings", "message"),
    [
        ("daq6510", ScannerSettings(nplc=13.0), "a DAQ6510 integrates over 0.0005 to 12 line cycles, not 13"),
        ("daq6510", ScannerSettings(volts_range=2000.0), "reads up to 1000 V, not 2000 V"),
        ("34970a", ScannerSettings(nplc=0.5), "integrates over 0.02, 0.2, 1, 2, 10, 20, 100, 200 line cycles, not 0.5"),
    ],
)
def test_settings_the_model_cannot_take_are_refused(driver: str, settings: ScannerSettings, message: str) -> None:
    with Wire(greeting(driver)) as wire:
        meter = VOLTMETERS[driver]("dmm", wire.resource, ["101"], settings)
        with pytest.raises(InputError, match=message):
            meter.open()
        meter.close()


@pytest.mark.parametrize("settings", [{"volts_range": 0.0}, {"delay": -1.0}, {"delay": 61.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ScannerSettings(**settings)  # type: ignore[arg-type]


def test_a_number_of_averages_must_be_one() -> None:
    with (
        Wire(daq6510_open()) as wire,
        Daq6510("dmm", wire.resource, ["101", "102"], DELAY) as meter,
        pytest.raises(InputError, match="1 or more readings, not 0"),
    ):
        meter.read(0)


@pytest.mark.parametrize("driver", VOLTMETERS)
def test_every_driver_is_a_voltmeter(driver: str) -> None:
    meter = VOLTMETERS[driver]("dmm", "TCPIP0::127.0.0.1::1::SOCKET", ["101"])
    assert isinstance(meter, Voltmeter)
    meter.make_safe()
    meter.close()
