import struct

import pytest

from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.source_measure import Analogue
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, divider, numbers, tell


def smu(node: Node | None = None, analogue: Analogue | None = None) -> tuple[Smu2450, Node]:
    node = node or divider()
    return Smu2450(node, ManualClock(), analogue=analogue or Analogue()), node


def error(instrument: Smu2450) -> int:
    return int(ask(instrument, "SYST:ERR?").split(",")[0])


def test_identity_and_language() -> None:
    instrument, _ = smu()
    assert "MODEL 2450" in ask(instrument, "*IDN?")
    assert ask(instrument, "*LANG?") == "SCPI"
    tell(instrument, ["*LANG TSP"])
    assert ask(instrument, "*LANG?") == "SCPI"
    assert instrument.handle("*LANG BASIC") is None
    assert ask(instrument, "SYST:ERR?").startswith('-141,"Invalid character data;1;')
    assert ask(instrument, "SYST:ERR?") == '0,"No error;0;0 0"'


def test_power_on_is_off_and_normal() -> None:
    instrument, _ = smu()
    assert ask(instrument, "OUTP?;:OUTP:SMOD?;:SOUR:FUNC?") == "0;NORM;VOLT"
    assert (instrument.applied.kind, instrument.applied.level) == ("voltage", 0.0)
    assert instrument.applied.limit == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("state", "applied", "volts"),
    [
        ("NORM", Applied("voltage", 0.0, 1e-3), 2.0),
        ("ZERO", Applied("voltage", 0.0, 1e-2), 0.0),
        ("HIMP", OPEN, 2.5),
        ("GUAR", Applied("current", 0.0, 2.0), 2.0),
    ],
)
def test_output_off_states(state: str, applied: Applied, volts: float) -> None:
    instrument, node = smu()
    tell(instrument, ["SOUR:VOLT:ILIM 0.01", "SOUR:VOLT:RANG 20", f"OUTP:SMOD {state}"])
    assert instrument.applied.kind == applied.kind
    assert instrument.applied.limit == pytest.approx(applied.limit)
    assert node.see().volts == pytest.approx(volts)


def test_off_states_belong_to_the_source_function() -> None:
    instrument, _ = smu()
    tell(instrument, ["OUTP:VOLT:SMOD HIMP"])
    assert ask(instrument, "OUTP:SMOD?;:OUTP:CURR:SMOD?") == "HIMP;NORM"
    tell(instrument, ["SOUR:FUNC CURR"])
    assert ask(instrument, "OUTP:SMOD?") == "NORM"


def test_a_reading_in_high_impedance_is_no_reading() -> None:
    instrument, _ = smu()
    tell(instrument, ["OUTP:SMOD HIMP"])
    assert float(ask(instrument, "MEAS:VOLT?")) == 9.9e37


def test_voltage_source_with_its_limit() -> None:
    instrument, _ = smu()
    tell(instrument, ["SOUR:VOLT:ILIM 0.01", "SOUR:VOLT 1.5", "SENS:FUNC 'CURR'", "OUTP ON"])
    amperes, source, status = numbers(ask(instrument, "READ? 'defbuffer1', READ, SOUR, SOURSTAT"))
    assert [amperes, source] == pytest.approx([-2e-3, 1.5])
    assert (int(status) & 32, int(status) & 128) == (0, 128)
    tell(instrument, ["SOUR:VOLT:ILIM 1E-3"])
    amperes, source, status = numbers(ask(instrument, 'READ? "defbuffer1",READ,SOUR,SOURSTAT'))
    assert [amperes, source] == pytest.approx([-1e-3, 2.0])
    assert int(status) & 32
    assert ask(instrument, "SOUR:VOLT:ILIM:TRIP?;:SOUR:CURR:VLIM:TRIP?") == "1;0"


def test_no_current_sourced_lets_the_node_float() -> None:
    instrument, _ = smu(analogue=Analogue(offset_amperes=1e-6))
    tell(instrument, ["SOUR:FUNC CURR", "SOUR:CURR 0", "SOUR:CURR:VLIM 10", "SENS:FUNC 'VOLT'", "OUTP ON"])
    assert float(ask(instrument, "READ?")) == pytest.approx(2.5 + 0.5e-3)


def test_readback_off_reports_the_programmed_level() -> None:
    instrument, _ = smu()
    tell(instrument, ["SOUR:VOLT:ILIM 1E-3", "SOUR:VOLT 1", "SOUR:VOLT:READ:BACK OFF", "OUTP ON"])
    assert float(ask(instrument, "READ? 'defbuffer1',SOUR")) == 1.0


def test_buffers() -> None:
    instrument, _ = smu()
    tell(instrument, ["TRAC:MAKE 'mine', 3", "SENS:COUN 5", "OUTP ON", "TRAC:TRIG 'mine'"])
    assert ask(instrument, "TRAC:ACT? 'mine';:TRAC:POIN? 'mine';:TRAC:ACT?") == "3;3;0"
    assert len(ask(instrument, "TRAC:DATA? 1,3,'mine',READ,REL,UNIT,TST").split(",")) == 12
    assert float(ask(instrument, "TRAC:STAT:AVER? 'mine'")) == pytest.approx(float(ask(instrument, "FETC? 'mine'")))
    tell(instrument, ["TRAC:CLE 'mine'", "TRAC:DEL 'mine'"])
    assert instrument.handle("READ? 'mine'") is None
    assert error(instrument) == 1133
    for message in ("TRAC:DEL 'defbuffer1'", "TRAC:DATA? 2,1", "TRAC:MAKE 'x', 0"):
        assert instrument.handle(message) is None
        assert error(instrument) < 0


def test_the_number_of_buffers_is_bounded() -> None:
    instrument, _ = smu()
    for index in range(40):
        instrument.handle(f"TRAC:MAKE 'b{index}', 10")
    assert len(instrument.buffers) == 16
    assert error(instrument) == -225


def test_sweep_runs_on_init_and_leaves_the_output_off() -> None:
    instrument, _ = smu(Node(1000.0))
    assert instrument.handle("INIT") is None
    assert error(instrument) == -221
    tell(instrument, ["SOUR:VOLT:ILIM 0.1", "SOUR:SWE:VOLT:LIN 0, 1, 3, 0, 1, AUTO, ON, OFF, 'defbuffer1'"])
    ask(instrument, "READ?")
    tell(instrument, ["INIT", "*WAI"])
    assert numbers(ask(instrument, "TRAC:DATA? 1,3")) == [0.0, 0.5e-3, 1e-3]
    assert ask(instrument, "TRAC:ACT?;:OUTP?") == "3;0"


def test_limits_out_of_range_leave_the_old_one() -> None:
    instrument, _ = smu()
    tell(instrument, ["SOUR:VOLT:ILIM 0.01", "SOUR:VOLT:ILIM 2"])
    assert error(instrument) == -222
    assert float(ask(instrument, "SOUR:VOLT:ILIM?")) == 0.01


def test_over_range_is_an_overflow() -> None:
    instrument, _ = smu()
    tell(instrument, ["SOUR:FUNC CURR", "SOUR:CURR:VLIM 10", "SENS:FUNC 'VOLT'", "OUTP ON", "SENS:VOLT:RANG 2"])
    # A fixed range below the limit holds the output within the range.
    assert float(ask(instrument, "READ?")) == pytest.approx(2.1)


def test_binary_data() -> None:
    instrument, _ = smu()
    tell(instrument, ["OUTP ON", "SOUR:VOLT:ILIM 0.1", "SOUR:VOLT 1", "FORM REAL"])
    reply = ask(instrument, "READ? 'defbuffer1', READ, SOUR")
    assert struct.unpack("<2d", reply[2:].encode("latin-1")) == pytest.approx((-3e-3, 1.0))
    assert instrument.handle("READ? 'defbuffer1', UNIT") is None
    assert error(instrument) == 1133


def test_reset() -> None:
    instrument, _ = smu()
    tell(instrument, ["OUTP ON", "SOUR:VOLT 5", "TRAC:MAKE 'mine', 3", "*RST"])
    assert ask(instrument, "OUTP?;:SOUR:VOLT?") == "0;+0.0000000000000000E+00"
    assert set(instrument.buffers) == {"defbuffer1", "defbuffer2"}
