import pytest

from hilcl.errors import InputError
from hilcl.sim_backend.emulation.daq6510 import Daq6510
from hilcl.sim_backend.emulation.dmm_34970a import Dmm34970A
from hilcl.sim_backend.emulation.meter import ChannelError, MeterErrors
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, numbers, tell


def daq(errors: MeterErrors | None = None) -> tuple[Daq6510, ManualClock]:
    clock = ManualClock()
    ports = {101: Node(1.0, 1.5), 102: Node(1.0, -0.25), 220: Node(1.0, 30.0)}
    return Daq6510(ports, clock, errors=errors or MeterErrors()), clock


def dmm(errors: MeterErrors | None = None) -> tuple[Dmm34970A, ManualClock]:
    clock = ManualClock()
    ports = {101: Node(1.0, 1.5), 102: Node(1.0, -0.25), 320: Node(1.0, 30.0)}
    return Dmm34970A(ports, clock, errors=errors or MeterErrors()), clock


def error(instrument: Daq6510 | Dmm34970A) -> int:
    return int(ask(instrument, "SYST:ERR?").split(",")[0])


def test_daq_reads_the_closed_channel() -> None:
    instrument, _ = daq()
    assert ask(instrument, "ROUT:CLOS?;:READ?") == "(@);+0.0000000000000000E+00"
    tell(instrument, ["ROUT:CLOS (@102)"])
    assert ask(instrument, "ROUT:CLOS?") == "(@102)"
    assert numbers(ask(instrument, "READ?")) == [-0.25]
    tell(instrument, ["ROUT:CLOS (@101)", "ROUT:OPEN (@102)"])
    assert numbers(ask(instrument, "READ?")) == [1.5]
    tell(instrument, ["ROUT:OPEN:ALL"])
    assert numbers(ask(instrument, "READ?")) == [0.0]


def test_daq_scans_into_the_buffer() -> None:
    instrument, _ = daq()
    tell(instrument, ["ROUT:SCAN:CRE (@102,101,220)", "ROUT:SCAN:COUN:SCAN 2", "TRAC:CLE", "INIT", "*WAI"])
    reply = ask(instrument, "ROUT:SCAN?;:TRAC:ACT?;:TRAC:DATA? 1,6,'defbuffer1',READ,CHAN").split(";")
    assert reply[:2] == ["(@102,101,220)", "6"]
    assert numbers(reply[2]) == [-0.25, 102, 1.5, 101, 30.0, 220] * 2
    tell(instrument, ["TRAC:MAKE 'mine', 100", "ROUT:SCAN:BUFF 'mine'", "INIT"])
    assert ask(instrument, "ROUT:SCAN:BUFF?;:TRAC:ACT? 'mine'") == '"mine";6'


def test_daq_read_scans_where_nothing_is_closed() -> None:
    instrument, _ = daq()
    tell(instrument, ["ROUT:SCAN (@101:102)"])
    assert numbers(ask(instrument, "READ?")) == [-0.25]
    assert ask(instrument, "TRAC:ACT?") == "2"


def test_daq_settings_by_channel() -> None:
    instrument, _ = daq()
    tell(instrument, ["SENS:VOLT:NPLC 0.1,(@101)", "SENS:FUNC 'VOLT',(@101:102)"])
    assert numbers(ask(instrument, "SENS:VOLT:NPLC? (@101,102)")) == [0.1, 1.0]
    tell(instrument, ["SENS:VOLT:RANG 12,(@220)", "ROUT:CLOS (@220)"])
    assert numbers(ask(instrument, "SENS:VOLT:RANG? (@220)")) == [10.0]
    assert numbers(ask(instrument, "READ?")) == [9.9e37]
    tell(instrument, ["SENS:VOLT:RANG:AUTO ON,(@220)"])
    assert numbers(ask(instrument, "READ?")) == [30.0]


def test_daq_time() -> None:
    instrument, clock = daq()
    tell(instrument, ["SENS:VOLT:NPLC 6,(@101,102)", "ROUT:DEL 0.05,(@101,102)", "ROUT:SCAN (@101,102)", "INIT"])
    # Two relays closed and one opened at the end, two delays, two integrations.
    assert clock.seconds == pytest.approx(3 * 0.003 + 2 * 0.05 + 2 * 6 / 60)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("ROUT:CLOS (@121)", -222),
        ("ROUT:CLOS (@101,102)", -222),
        ("ROUT:CLOS 101", -104),
        ("SENS:VOLT:NPLC 20", -222),
        ("SENS:VOLT:NPLC 1,(@999)", -222),
        ("INIT", -221),
        ("ROUT:SCAN:BUFF 'none'", 1133),
        ("SENS:FUNC 'CURR',(@101)", -224),
    ],
)
def test_daq_errors(message: str, code: int) -> None:
    instrument, _ = daq()
    assert instrument.handle(message) is None
    assert error(instrument) == code


def test_dmm_configures_and_reads() -> None:
    instrument, _ = dmm()
    tell(instrument, ["CONF:VOLT:DC 10,(@101:102)"])
    assert ask(instrument, "ROUT:SCAN?;:ROUT:SCAN:SIZE?") == "#210(@101,102);+2"
    assert numbers(ask(instrument, "READ?")) == [1.5, -0.25]
    assert ask(instrument, "DATA:POIN?") == "+0"
    tell(instrument, ["FORM:READ:CHAN ON", "TRIG:COUN 2", "INIT"])
    assert float(ask(instrument, "TRIG:COUN?")) == 2.0
    assert ask(instrument, "TRIG:COUN?").startswith("+2.0")
    assert numbers(ask(instrument, "FETC?")) == [1.5, 101, -0.25, 102] * 2
    assert ask(instrument, "DATA:POIN?") == "+4"
    assert numbers(ask(instrument, "DATA:REM? 1")) == [1.5, 101]
    assert ask(instrument, "R? 1").startswith("#2")
    assert ask(instrument, "DATA:POIN?;:FETC?").startswith("+2;")
    assert numbers(ask(instrument, "MEAS:VOLT:DC? (@320)")) == [30.0, 320]


def test_dmm_keeps_the_last_readings_of_a_long_scan_and_sends_all_when_asked_to_read() -> None:
    instrument, _ = dmm()
    tell(instrument, ["ROUT:SCAN (@101,102)", "TRIG:COUN 25001", "INIT"])
    assert ask(instrument, "DATA:POIN?") == "+50000"
    assert len(numbers(ask(instrument, "READ?"))) == 50_002
    assert ask(instrument, "DATA:POIN?") == "+0"


def test_dmm_scans_in_ascending_order_and_skips_what_is_not_there() -> None:
    instrument, _ = dmm()
    tell(instrument, ["ROUT:SCAN (@102,101)"])
    assert numbers(ask(instrument, "READ?")) == [1.5, -0.25]
    tell(instrument, ["ROUT:SCAN (@119:202)"])
    assert ask(instrument, "ROUT:SCAN:SIZE?") == "+4"


def test_dmm_settings_by_channel() -> None:
    instrument, _ = dmm()
    tell(instrument, ["ROUT:SCAN (@101,320)", "VOLT:DC:NPLC 5,(@101)", "VOLT:DC:RANG 20,(@320)"])
    assert numbers(ask(instrument, "VOLT:DC:NPLC? (@101,320)")) == [10.0, 1.0]
    assert numbers(ask(instrument, "READ?")) == [1.5, 30.0]
    tell(instrument, ["VOLT:DC:RANG 10,(@320)"])
    assert numbers(ask(instrument, "READ?")) == [1.5, 9.9e37]


def test_dmm_time() -> None:
    instrument, clock = dmm()
    tell(instrument, ["ROUT:SCAN (@101,102)", "ROUT:CHAN:DEL 0.1,(@101,102)", "INIT"])
    assert clock.seconds == pytest.approx(3 * 0.003 + 2 * 0.1 + 2 / 60)
    assert ask(instrument, "ROUT:CHAN:DEL:AUTO? (@101,103)") == "0,1"


def test_dmm_waits_for_the_bus() -> None:
    instrument, _ = dmm()
    tell(instrument, ["ROUT:SCAN (@101)", "TRIG:SOUR BUS", "INIT"])
    assert instrument.handle("READ?") is None
    assert error(instrument) == -214
    tell(instrument, ["*TRG"])
    assert numbers(ask(instrument, "FETC?")) == [1.5]
    tell(instrument, ["*TRG"])
    assert error(instrument) == -211


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("READ?", -221),
        ("FETC?", -230),
        ("ROUT:SCAN (@121)", -222),
        ("CONF:VOLT:DC", -109),
        ("CONF:VOLT:DC 10", -109),
        ("CONF:VOLT:DC 1000,(@101)", -222),
        ("DATA:REM? 1", -222),
    ],
)
def test_dmm_errors(message: str, code: int) -> None:
    instrument, _ = dmm()
    assert instrument.handle(message) is None
    assert ask(instrument, "SYST:ERR?").startswith(f"{code:+d},")
    assert ask(instrument, "SYST:ERR?") == '+0,"No error"'


def test_meter_errors() -> None:
    errors = MeterErrors({101: ChannelError(0.01, 1e-3)}, resolution=1e-4)
    for instrument in (daq(errors)[0], dmm(errors)[0]):
        tell(instrument, ["ROUT:SCAN (@101,102)", "INIT"])
        first, second = (
            numbers(ask(instrument, "TRAC:DATA? 1,2"))
            if isinstance(instrument, Daq6510)
            else numbers(ask(instrument, "FETC?"))
        )
        assert first == pytest.approx(1.516, abs=1e-12)
        assert second == -0.25
    noisy, _ = dmm(MeterErrors(noise=1e-3))
    tell(noisy, ["ROUT:SCAN (@101)", "TRIG:COUN 50"])
    readings = numbers(ask(noisy, "READ?"))
    assert len(set(readings)) == 50
    assert max(abs(reading - 1.5) for reading in readings) < 6e-3


def test_wrong_arguments_are_refused() -> None:
    for made in (lambda: Daq6510({99: Node()}, ManualClock()), lambda: Dmm34970A({121: Node()}, ManualClock())):
        with pytest.raises(ValueError, match="has no channel"):
            made()
    with pytest.raises(InputError, match="noise must be a number"):
        MeterErrors(noise=-1.0)
    with pytest.raises(InputError, match="digits must lie"):
        MeterErrors(digits=0)


def test_resets_open_the_channel_and_forget_the_scan() -> None:
    one, _ = daq()
    tell(one, ["ROUT:CLOS (@101)", "ROUT:SCAN (@101)", "*RST"])
    assert ask(one, "ROUT:CLOS?;:ROUT:SCAN?") == "(@);(@)"
    other, _ = dmm()
    tell(other, ["ROUT:SCAN (@101)", "*RST"])
    assert ask(other, "ROUT:SCAN?") == "#13(@)"
