import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.source_measure import Analogue
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, divider, numbers, tell

COMPLIANCE, RANGE_COMPLIANCE = 1 << 3, 1 << 16


def smu(node: Node | None = None, analogue: Analogue | None = None) -> tuple[Smu2400, Node, ManualClock]:
    node, clock = node or divider(), ManualClock()
    return Smu2400(node, clock, analogue=analogue or Analogue()), node, clock


def error(instrument: Smu2400) -> int:
    return int(ask(instrument, "SYST:ERR?").split(",")[0])


def test_power_on_is_off_and_normal() -> None:
    instrument, node, _ = smu()
    assert instrument.outputs_on == (False,)
    assert ask(instrument, "OUTP?;:OUTP:SMOD?;:SOUR:FUNC?;:SENS:CURR:PROT?") == "0;NORM;VOLT;+1.0500000000000000E-04"
    assert node.applied[-1].kind == "voltage"
    assert ask(instrument, "*ESR?") == "128"
    assert ask(instrument, "*ESR?") == "0"


def test_normal_off_drags_the_middle_of_a_divider() -> None:
    instrument, node, _ = smu()
    tell(instrument, [":SENS:CURR:PROT 0.1"])
    assert instrument.applied == Applied("voltage", 0.0, 0.5e-3)
    assert node.see().volts == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("settings_", "state", "applied", "volts"),
    [
        (["SENS:CURR:PROT 0.1"], "ZERO", Applied("voltage", 0.0, 0.1), 0.0),
        (["SENS:CURR:PROT 0.1"], "HIMP", OPEN, 2.5),
        (["SOUR:VOLT:RANG 20"], "GUAR", Applied("current", 0.0, 0.1), 0.1),
        (["SOUR:FUNC CURR", "SOUR:CURR 2E-3"], "ZERO", Applied("voltage", 0.0, 2e-3), 1.5),
        (["SOUR:FUNC CURR", "SOUR:CURR 2E-3"], "NORM", Applied("voltage", 0.0, 5e-5), 2.475),
    ],
)
def test_output_off_states(settings_: list[str], state: str, applied: Applied, volts: float) -> None:
    instrument, node, _ = smu()
    tell(instrument, [*settings_, f"OUTP:SMOD {state}"])
    assert instrument.applied.kind == applied.kind
    assert instrument.applied.limit == pytest.approx(applied.limit)
    assert node.see().volts == pytest.approx(volts)


def test_high_impedance_costs_relay_time_both_ways() -> None:
    instrument, _, clock = smu()
    tell(instrument, ["OUTP:SMOD HIMP"])
    assert clock.seconds == pytest.approx(0.015)
    tell(instrument, ["OUTP ON", "SOUR:VOLT 1"])
    assert clock.seconds == pytest.approx(0.030)
    tell(instrument, ["OUTP OFF"])
    assert clock.seconds == pytest.approx(0.045)


def test_voltage_source_with_current_compliance() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["SENS:FUNC:ALL", "SENS:CURR:PROT 0.01", "SOUR:VOLT 1.5", "OUTP ON"])
    volts, amperes, ohms, _, status = numbers(ask(instrument, "READ?"))
    assert [volts, amperes] == pytest.approx([1.5, -2e-3])
    assert ohms == pytest.approx(1.5 / -2e-3)
    assert not int(status) & COMPLIANCE
    tell(instrument, ["SENS:CURR:PROT 1E-3"])
    volts, amperes, _, _, status = numbers(ask(instrument, "READ?"))
    assert [volts, amperes] == pytest.approx([2.0, -1e-3])
    assert int(status) & COMPLIANCE
    assert ask(instrument, "SENS:CURR:PROT:TRIP?;:STAT:MEAS:COND?") == "1;16384"


def test_no_current_sourced_lets_the_node_float() -> None:
    instrument, node, _ = smu()
    tell(instrument, ["SOUR:FUNC CURR", "SOUR:CURR 0", "SENS:VOLT:PROT 10", "SENS:FUNC 'VOLT'", "OUTP ON"])
    volts, amperes, *_ = numbers(ask(instrument, "READ?"))
    assert (volts, amperes) == (2.5, 0.0)
    tell(instrument, ["SENS:VOLT:PROT 2"])
    assert node.see().volts == 2.0
    assert int(numbers(ask(instrument, "READ?"))[4]) & COMPLIANCE


def test_offset_current_of_the_range_moves_the_floating_node() -> None:
    instrument, node, _ = smu(Node(5000.0, 2.5), Analogue(range_offset=2e-4))
    tell(instrument, ["SOUR:FUNC CURR", "SOUR:CURR:RANG 1E-3", "SOUR:CURR 0", "OUTP ON"])
    assert node.see().volts - 2.5 == pytest.approx(1e-3)
    tell(instrument, ["SOUR:CURR:RANG 1E-6"])
    assert node.see().volts - 2.5 == pytest.approx(1e-6, rel=1e-3)


def test_a_fixed_measurement_range_limits_the_current_too() -> None:
    instrument, node, _ = smu()
    tell(instrument, ["SENS:CURR:PROT 0.01", "SENS:CURR:RANG 1E-3", "SOUR:VOLT 0", "OUTP ON"])
    assert node.see().amperes == pytest.approx(-1.05e-3)
    status = int(numbers(ask(instrument, "READ?"))[4])
    assert status & RANGE_COMPLIANCE
    assert not status & COMPLIANCE


def test_reading_with_the_output_off_is_error_803() -> None:
    instrument, _, _ = smu()
    for message in ("READ?", "INIT"):
        assert instrument.handle(message) is None
        assert ask(instrument, "SYST:ERR?") == '803,"Not permitted with OUTPUT off"'
    assert ask(instrument, "*ESR?;OUTP?") == "144;0"


def test_measure_turns_the_output_on() -> None:
    instrument, _, _ = smu()
    assert len(numbers(ask(instrument, ":MEASURE:CURRENT?"))) == 5
    assert instrument.outputs_on == (True,)


def test_auto_clear_turns_the_output_off_after_the_reading() -> None:
    instrument, node, _ = smu()
    tell(instrument, ["SOUR:CLE:AUTO ON", "SENS:CURR:PROT 0.1", "SOUR:VOLT 1"])
    assert numbers(ask(instrument, "READ?"))[1] == pytest.approx(-3e-3)
    assert instrument.outputs_on == (False,)
    assert node.see().volts == pytest.approx(2.25)


def test_changing_the_source_function_turns_the_output_off_unless_told_otherwise() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["OUTP ON", "SOUR:FUNC VOLT"])
    tell(instrument, ["SOUR:FUNC CURR"])
    assert instrument.outputs_on == (False,)
    keeping = Smu2400(Node(), ManualClock(), function_change_switches_off=False)
    tell(keeping, ["OUTP ON", "SOUR:FUNC CURR"])
    assert keeping.outputs_on == (True,)


def test_a_refused_limit_leaves_the_old_one() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["SENS:VOLT:PROT 20", "SENS:VOLT:PROT 1E-4"])
    assert error(instrument) == 822
    assert float(ask(instrument, "SENS:VOLT:PROT?")) == 20.0


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (":FOO:BAR", -113),
        ("SOUR:VOLT 300", -222),
        ("SOUR:VOLT 1 A", -131),
        ("SOUR:VOLT", -109),
        ("SOUR:VOLT 1,2", -108),
        ("SOUR:VOLT ON", -141),
        ("SOUR:VOLT 'a'", -104),
        ("SOUR2:VOLT 1", -114),
        ("OUTP:SMOD SOFT", -141),
        ("FETC?", -230),
        ("*TRG", -211),
        ("SENS:CURR:RANG 1", 824),
        ("SENS:CURR:PROT 1;:SOUR:VOLT 100", 826),
        ("SOUR:VOLT:RANG 2;:SOUR:VOLT 10", -222),
        ("SYST:LFR 55", -222),
    ],
)
def test_errors(message: str, code: int) -> None:
    instrument, _, _ = smu()
    assert instrument.handle(message) is None
    assert error(instrument) == code
    assert error(instrument) == 0


def test_a_command_error_ends_the_message_and_an_execution_error_does_not() -> None:
    instrument, _, _ = smu()
    assert instrument.handle("SOUR:VOLT 300;:SOUR:VOLT 1;:SOUR:VOLT?") == "+1.0000000000000000E+00"
    assert instrument.handle("SOUR:VOLT 2;:FOO 1;:SOUR:VOLT 3") is None
    assert float(ask(instrument, "SOUR:VOLT?")) == 2.0


def test_reset_keeps_the_error_queue_and_clear_empties_it() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["FOO", "SOUR:VOLT 1", "OUTP ON", "*RST"])
    assert ask(instrument, "OUTP?;:SOUR:VOLT?") == "0;+0.0000000000000000E+00"
    assert error(instrument) == -113
    tell(instrument, ["FOO", "*CLS"])
    assert error(instrument) == 0


def test_the_queue_overflows_at_ten() -> None:
    instrument, _, _ = smu()
    for _ in range(12):
        instrument.handle("FOO")
    assert [error(instrument) for _ in range(11)] == [-113] * 9 + [-350, 0]


def test_integration_time_is_spent() -> None:
    instrument, _, clock = smu()
    tell(instrument, ["OUTP ON", "SOUR:DEL 0"])
    before = clock.seconds
    ask(instrument, "READ?")
    single = clock.seconds - before
    tell(instrument, ["SENS:VOLT:NPLC 10"])
    before = clock.seconds
    ask(instrument, "READ?")
    assert clock.seconds - before - single == pytest.approx(9 / 60)
    tell(instrument, ["SYST:LFR 50"])
    before = clock.seconds
    ask(instrument, "READ?")
    assert clock.seconds - before - single == pytest.approx(10 / 50 - 1 / 60)


def test_elements_come_in_their_own_order() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["FORM:ELEM CURR, VOLTAGE", "SOUR:VOLT 1", "SENS:CURR:PROT 0.1", "OUTP ON"])
    assert numbers(ask(instrument, "READ?")) == [1.0, pytest.approx(-3e-3)]
    assert ask(instrument, "FORM:ELEM?") == "VOLT,CURR"


def test_what_is_neither_sourced_nor_measured_is_not_a_number() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["SOUR:FUNC CURR", "OUTP ON"])
    assert numbers(ask(instrument, "READ?"))[0] == 9.91e37


def test_wire_precision() -> None:
    coarse, _, _ = smu(analogue=Analogue(digits=7))
    tell(coarse, ["SOUR:VOLT 1.23456789"])
    assert ask(coarse, "SOUR:VOLT?") == "+1.234568E+00"


@given(st.floats(-20, 20))
@settings(max_examples=50)
def test_levels_and_readings_pass_the_wire_exactly(volts: float) -> None:
    instrument, node, _ = smu(Node(1000.0))
    tell(instrument, ["SENS:FUNC 'VOLT','CURR'", "SENS:CURR:PROT 0.1", f"SOUR:VOLT {volts!r}", "OUTP ON"])
    reading = numbers(ask(instrument, "READ?"))
    assert reading[:2] == [node.see().volts, node.see().amperes]
    assert float(ask(instrument, "SOUR:VOLT?")) == volts


def test_binary_data() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["FORM:ELEM VOLT,CURR", "SOUR:VOLT 1", "SENS:CURR:PROT 0.1", "OUTP ON", "FORM REAL,32"])
    reply = ask(instrument, "READ?")
    assert reply.startswith("#0")
    assert struct.unpack(">2f", reply[2:].encode("latin-1")) == pytest.approx((1.0, -3e-3), rel=1e-6)
    tell(instrument, ["FORM ASC"])
    assert ask(instrument, "FORM?") == "ASC"


def test_noise_is_drawn_by_seed_and_falls_with_integration() -> None:
    def readings(seed: int, nplc: str) -> list[float]:
        instrument = Smu2400(Node(), ManualClock(), analogue=Analogue(noise_amperes=1e-6), seed=seed)
        tell(instrument, ["OUTP ON", f"SENS:CURR:NPLC {nplc}", "TRIG:COUN 200", "FORM:ELEM CURR"])
        return numbers(ask(instrument, "READ?"))

    assert readings(1, "1") == readings(1, "1")
    assert readings(1, "1") != readings(2, "1")
    slow, fast = readings(3, "10"), readings(3, "0.1")
    assert [round(value / 1e-6, 9) for value in fast] == [round(value * 10 / 1e-6, 9) for value in slow]


def test_lead_resistance_is_taken_out_by_four_wires() -> None:
    instrument, node, _ = smu(Node(1000.0), Analogue(lead_resistance=100.0))
    tell(instrument, ["SENS:FUNC 'VOLT'", "SENS:CURR:PROT 0.1", "SOUR:VOLT 1.1", "OUTP ON"])
    assert node.see().volts == pytest.approx(1.0)
    assert numbers(ask(instrument, "READ?"))[0] == pytest.approx(1.1)
    tell(instrument, ["SYST:RSEN ON"])
    assert node.see().volts == pytest.approx(1.1)
    assert numbers(ask(instrument, "READ?"))[0] == pytest.approx(1.1)


def test_list_and_linear_sweeps_fill_the_buffer() -> None:
    instrument, _, _ = smu(Node(1000.0))
    tell(
        instrument,
        [
            "FORM:ELEM VOLT,CURR",
            "SENS:CURR:PROT 0.1",
            "SOUR:LIST:VOLT 1,2,3",
            "SOUR:VOLT:MODE LIST",
            "TRIG:COUN 3",
            "TRAC:POIN 3",
            "TRAC:FEED:CONT NEXT",
            "STAT:MEAS:ENAB 512",
            "*SRE 1",
            "OUTP ON",
            "INIT",
        ],
    )
    assert numbers(ask(instrument, "TRAC:DATA?")) == [1.0, 1e-3, 2.0, 2e-3, 3.0, 3e-3]
    assert int(ask(instrument, "*STB?")) & 65 == 65
    assert numbers(ask(instrument, "CALC3:FORM MAX;:CALC3:DATA?;")) == [3.0, 3e-3]
    tell(instrument, ["SOUR:VOLT:MODE SWE", "SOUR:VOLT:STAR 0", "SOUR:VOLT:STOP 1", "SOUR:SWE:POIN 3"])
    assert numbers(ask(instrument, "READ?"))[::2] == [0.0, 0.5, 1.0]


def test_bus_trigger() -> None:
    instrument, _, _ = smu()
    tell(instrument, ["OUTP ON", "ARM:SOUR BUS", "INIT"])
    assert instrument.handle("FETC?") is None
    assert error(instrument) == -230
    tell(instrument, ["*TRG"])
    assert len(numbers(ask(instrument, "FETC?"))) == 5
    assert instrument.handle("READ?") is None
    assert error(instrument) == -214
