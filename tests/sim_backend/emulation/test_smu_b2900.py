import struct

import pytest

from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.smu_b2900 import CHANNELS, SmuB2900, reading_reach
from tests.sim_backend.emulation.bench import ManualClock, Node, ask, divider, numbers, tell


def smu() -> tuple[SmuB2900, Node, Node]:
    a, b = Node(1000.0), divider()
    return SmuB2900((a, b), ManualClock()), a, b


def error(instrument: SmuB2900) -> int:
    return int(ask(instrument, "SYST:ERR?").split(",")[0])


def test_power_on_has_the_relays_open() -> None:
    instrument, _, b = smu()
    assert instrument.applied == (OPEN, OPEN)
    assert b.see().volts == 2.5
    assert ask(instrument, "OUTP1?;:OUTP2?;:OUTP1:ON:AUTO?;:OUTP1:OFF:MODE?") == "0;0;1;NORM"
    assert ask(instrument, "SYST:ERR?") == '+0,"No error"'


def test_two_channels_source_and_measure_independently() -> None:
    instrument, _, _ = smu()
    tell(
        instrument,
        [
            ":SOUR1:FUNC:MODE VOLT;:SOUR1:VOLT 1;:SENS1:CURR:PROT 0.01;:OUTP1 ON",
            ":SOUR2:FUNC:MODE CURR;:SOUR2:CURR 0;:SENS2:VOLT:PROT 5;:OUTP2 ON",
            ":FORM:ELEM:SENS STAT,CURR,VOLT",
        ],
    )
    assert numbers(ask(instrument, ":MEAS? (@1,2)")) == [1.0, pytest.approx(1e-3), 0, 2.5, 0.0, 1]
    assert numbers(ask(instrument, ":MEAS:CURR? (@1)")) == [pytest.approx(1e-3)]
    assert instrument.outputs_on == (True, True)


def test_compliance_is_told_in_status_and_trip() -> None:
    instrument, _, _ = smu()
    tell(instrument, [":SOUR1:VOLT 1;:SENS1:CURR:PROT 1E-4;:OUTP1 ON;:FORM:ELEM:SENS VOLT,CURR,STAT"])
    assert numbers(ask(instrument, ":READ? (@1)")) == [pytest.approx(0.1), pytest.approx(1e-4), 2]
    assert ask(instrument, ":SENS1:CURR:PROT:TRIP?;:SENS1:VOLT:PROT:TRIP?") == "1;0"


def test_protection_switches_off_in_compliance() -> None:
    instrument, a, _ = smu()
    tell(instrument, [":OUTP1:PROT ON;:OUTP1:OFF:MODE ZERO;:SOUR1:VOLT 1;:SENS1:CURR:PROT 1E-4;:OUTP1 ON"])
    assert instrument.outputs_on == (False, False)
    assert a.see().volts == 0.0
    assert ask(instrument, ":SENS1:CURR:PROT:TRIP?") == "1"


def test_read_and_init_turn_the_output_on_unless_told_not_to() -> None:
    instrument, _, _ = smu()
    ask(instrument, ":MEAS? (@1)")
    assert instrument.outputs_on == (False, False)
    ask(instrument, ":READ? (@2)")
    assert instrument.outputs_on == (False, True)
    tell(instrument, [":INIT (@1)"])
    assert instrument.outputs_on == (True, True)
    tell(instrument, [":OUTP1 OFF;:OUTP1:ON:AUTO OFF"])
    assert numbers(ask(instrument, ":READ:VOLT? (@1)")) == [9.91e37]
    assert instrument.outputs_on == (False, True)


@pytest.mark.parametrize(
    ("mode", "states"),
    [("NORM", [Applied("voltage", 0.0, 1e-4), OPEN]), ("HIZ", [OPEN]), ("ZERO", [Applied("voltage", 0.0, 1e-4)])],
)
def test_output_off_modes(mode: str, states: list[Applied]) -> None:
    instrument, _, b = smu()
    tell(instrument, [f":OUTP2:OFF:MODE {mode};:SOUR2:VOLT 1;:SENS2:CURR:PROT 0.01;:OUTP2 ON"])
    before = len(b.applied)
    tell(instrument, [":OUTP2 OFF"])
    assert b.applied[before:] == states


def test_triggered_readings() -> None:
    instrument, _, _ = smu()
    tell(instrument, [":OUTP1 ON;:SOUR1:VOLT 1;:SENS1:CURR:PROT 0.01;:TRIG1:COUN 3;:ARM1:COUN 2"])
    assert numbers(ask(instrument, ":READ:ARR:VOLT? (@1)")) == [1.0] * 6
    assert numbers(ask(instrument, ":FETC:VOLT? (@1)")) == [1.0]
    tell(instrument, [":TRIG1:SOUR BUS"])
    assert instrument.handle(":READ? (@1)") is None
    assert error(instrument) == -214


def test_binary_data() -> None:
    instrument, _, _ = smu()
    tell(instrument, [":OUTP1 ON;:SOUR1:VOLT 1.5;:SENS1:CURR:PROT 0.01;:FORM REAL,64"])
    assert ask(instrument, ":FORM?") == "REAL,64"
    assert ask(instrument, ":MEAS:VOLT? (@1)") == "#18" + struct.pack(">d", 1.5).decode("latin-1")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (":OUTP3 ON", -114),
        (":SOUR3:VOLT 1", -114),
        (":MEAS? (@3)", -222),
        (":MEAS? 1", -104),
        (":SENS1:CURR:PROT 10", -222),
        (":FOO", -113),
        (":FETC? (@1)", -230),
    ],
)
def test_errors(message: str, code: int) -> None:
    instrument, _, _ = smu()
    assert instrument.handle(message) is None
    assert error(instrument) == code


def test_fixed_ranges_limit_and_overflow() -> None:
    instrument, _, b = smu()
    tell(instrument, [":SENS2:CURR:PROT 0.1;:SENS2:CURR:RANG 1E-3;:SOUR2:VOLT 0;:OUTP2 ON"])
    assert b.see().amperes == pytest.approx(-1.06e-3)


@pytest.mark.parametrize(
    ("quantity", "full_scale", "reach"),
    [("volts", 20.0, 21.2), ("amperes", 0.01, 0.0106), ("amperes", 1.5, 1.53), ("amperes", 3.0, 3.06)],
)
def test_how_far_readings_reach(quantity: str, full_scale: float, reach: float) -> None:
    assert reading_reach(quantity, full_scale) == pytest.approx(reach)


def test_reset() -> None:
    instrument, _, _ = smu()
    tell(instrument, [":OUTP1 ON;:OUTP2 ON;:SOUR2:VOLT 3", "*RST"])
    assert instrument.outputs_on == (False, False)
    assert float(ask(instrument, ":SOUR2:VOLT?")) == 0.0


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_every_model_starts(name: str) -> None:
    instrument = SmuB2900(tuple(Node() for _ in range(CHANNELS[name])), ManualClock(), model=name)
    assert ask(instrument, "*IDN?").split(",")[1] == name
    with pytest.raises(ValueError, match="channels"):
        SmuB2900((), ManualClock(), model=name)


def test_channels_read_together_integrate_at_the_same_time() -> None:
    clock = ManualClock()
    instrument = SmuB2900((divider(), divider()), clock, line_frequency=50)
    tell(
        instrument, [":SENS1:VOLT:NPLC 1;:SENS2:VOLT:NPLC 2;:SENS1:CURR:NPLC 1;:SENS2:CURR:NPLC 2;:OUTP1 ON;:OUTP2 ON"]
    )
    begun = clock.now()
    ask(instrument, ":READ? (@1,2)")
    assert clock.now() - begun == pytest.approx(0.04)
    ask(instrument, ":READ? (@1)")
    assert clock.now() - begun == pytest.approx(0.06)
