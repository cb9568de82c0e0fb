"""SMUs as sources: every way a channel can go, on the wire, for every family."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hilcl.devices import SourceBank, Voltmeter
from hilcl.drivers.keithley2400 import Keithley2400
from hilcl.drivers.keithley2450 import Keithley2450
from hilcl.drivers.keithley2600b import Keithley2600B
from hilcl.drivers.keysight_b2900 import KeysightB2900
from hilcl.drivers.registry import SOURCES
from hilcl.drivers.smu import SmuSettings
from hilcl.drivers.smu_voltmeter import SmuVoltmeter
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import BoardError, InputError, MeasurementError
from tests.drivers.support.scripts import (
    ALL_OFF,
    IDN,
    b2900_open,
    greeting,
    k2400_off,
    k2400_on,
    k2400_open,
    k2400_setup,
    k2450_open,
    k2600b_open,
    scpi,
    tsp,
)
from tests.drivers.support.wire import Hear, Wire

SETTINGS = SmuSettings(limit_volts=5.0, limit_amperes=0.01)
FLOAT = math.nan
OFF = ALL_OFF["keithley2400"]
K2400_FLOAT = [":SOUR:CURR 0.0", ":SOUR:FUNC CURR", ":SENS:VOLT:RANG 20.0"]


def levels(*volts: float) -> Any:
    return np.array(volts)


@dataclass
class Switches:
    """A relay that writes down what it is told."""

    told: list[tuple[str, bool]] = field(default_factory=list)

    def switch(self, channel: str, closed: bool) -> None:
        self.told.append((channel, closed))


def test_a_2400_sources_floats_and_reads_in_one_message_each() -> None:
    script = [
        *k2400_open(),
        *k2400_on("1.5"),
        scpi([], (":READ?", "+1.500000E+00,+1.200000E-03,+2.150800E+04"), (":OUTP?", "1")),
        scpi([":SOUR:VOLT -0.1"], (":OUTP?", "1")),
        scpi([*K2400_FLOAT, ":OUTP ON"], (":OUTP?", "1"), (":SENS:VOLT:PROT?", "6.000000E+00")),
        scpi([], (":OUTP?", "1")),
        scpi([], (":READ?", "+7.400000E-01,+1.000000E-10,+3.788000E+04"), (":OUTP?", "1")),
        scpi(
            [":SOUR:VOLT 2.0", ":SOUR:FUNC VOLT", ":SENS:CURR:RANG 0.01", ":OUTP ON"],
            (":OUTP?", "1"),
            (":SENS:CURR:PROT?", "1.000000E-02"),
        ),
        *k2400_off("1.5", "1.0", "0.5", "0.0"),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(1.5))
        readings = smu.read()
        assert (readings.volts[0], readings.amperes[0], readings.in_compliance[0]) == (1.5, 0.0012, False)
        smu.drive(levels(-0.1))
        smu.drive(levels(FLOAT))
        smu.drive(levels(FLOAT))
        assert smu.read().volts[0] == 0.74
        smu.drive(levels(2.0))


@pytest.mark.parametrize(
    ("status", "limited"), [(0, False), (1 << 3, True), (1 << 16, True), (1, True), (0b1010100000000100, False)]
)
def test_a_2400_tells_compliance_by_its_status_bits(status: int, limited: bool) -> None:
    script = [
        *k2400_open(),
        *k2400_on("0.0"),
        scpi([], (":READ?", f"+1.0E+00,+1.0E-02,{status:+.6E}"), (":OUTP?", "1")),
        *k2400_off(),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(0.0))
        assert smu.read().in_compliance[0] == limited


def test_a_value_that_is_no_number_is_no_reading() -> None:
    script = [
        *k2400_open(),
        *k2400_on("0.0"),
        scpi([], (":READ?", "+9.910000E+37,+1.0E-03,+0.0E+00"), (":OUTP?", "1")),
        *k2400_off(),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(0.0))
        readings = smu.read()
        assert math.isnan(readings.volts[0])
        assert readings.in_compliance[0]


def test_a_2450_reads_what_it_sources_back() -> None:
    script = [
        *k2450_open(),
        scpi([":SOUR:VOLT 1.5", ':SENS:FUNC "CURR"', ":SOUR:FUNC VOLT"], (":SOUR:VOLT:ILIM?", "0.01")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
        scpi([], (':READ? "defbuffer1",SOUR,READ,SOURSTAT', "1.50001,0.0012,136"), (":OUTP?", "1")),
        scpi(
            [":SOUR:CURR 0.0", ':SENS:FUNC "VOLT"', ":SOUR:FUNC CURR", ":OUTP ON"],
            (":OUTP?", "1"),
            (":SOUR:CURR:VLIM?", "6"),
        ),
        scpi([], (':READ? "defbuffer1",SOUR,READ,SOURSTAT', "-1E-10,0.74,136"), (":OUTP?", "1")),
        scpi([], (':READ? "defbuffer1",SOUR,READ,SOURSTAT', "-1E-10,6.00,168"), (":OUTP?", "1")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire, Keithley2450("smu2", wire.resource, SETTINGS) as smu:
        smu.drive(levels(1.5))
        assert smu.read().volts[0] == 1.50001
        smu.drive(levels(FLOAT))
        floating = smu.read()
        assert (floating.volts[0], floating.amperes[0], floating.in_compliance[0]) == (0.74, -1e-10, False)
        assert smu.read().in_compliance[0]


def test_a_2602b_does_both_channels_in_one_chunk() -> None:
    script = [
        *k2600b_open(),
        tsp(["smua.source.levelv = 1.5", "smua.source.func = 1"], ("smua.source.limiti", "1.00000e-02")),
        tsp(["smub.source.leveli = 0.0", "smub.source.func = 0"], ("smub.source.limitv", "6.00000e+00")),
        tsp(
            [
                "smua.source.offmode = 0",
                "smua.source.output = 1",
                "smub.source.offmode = 0",
                "smub.source.output = 1",
            ],
            ("smua.source.output", "1.00000e+00"),
            ("smub.source.output", "1.00000e+00"),
        ),
        tsp(
            [
                "smua.measure.overlappediv(smua.nvbuffer1, smua.nvbuffer2)",
                "smub.measure.overlappediv(smub.nvbuffer1, smub.nvbuffer2)",
                "waitcomplete()",
            ],
            ("smua.nvbuffer2.readings[1]", "1.49990e+00"),
            ("smua.nvbuffer1.readings[1]", "1.20000e-03"),
            ("smua.source.compliance", "false"),
            ("smub.nvbuffer2.readings[1]", "6.00000e+00"),
            ("smub.nvbuffer1.readings[1]", "2.00000e-10"),
            ("smub.source.compliance", "true"),
            ("smua.source.output", "1.00000e+00"),
            ("smub.source.output", "1.00000e+00"),
        ),
        tsp(
            [
                "smua.source.leveli = 0.0",
                "smua.source.func = 0",
                "smua.source.output = 1",
                "smub.source.levelv = -0.5",
                "smub.source.func = 1",
                "smub.source.output = 1",
            ],
            ("smua.source.output", "1.00000e+00"),
            ("smub.source.output", "1.00000e+00"),
            ("smua.source.limitv", "6.00000e+00"),
            ("smub.source.limiti", "1.00000e-02"),
        ),
        tsp([], ("smua.source.output", "1.00000e+00")),
        tsp(["smua.source.offmode = 2", "smua.source.output = 0"], ("smua.source.output", "0.00000e+00")),
        tsp([], ("smub.source.output", "1.00000e+00")),
        *(tsp([f"smub.source.levelv = {level}"]) for level in ("-0.375", "-0.25", "-0.125", "-0.0")),
        tsp(["smub.source.offmode = 2", "smub.source.output = 0"], ("smub.source.output", "0.00000e+00")),
    ]
    with Wire(script) as wire, Keithley2600B("smu3", wire.resource, SETTINGS, model="2602B") as smu:
        assert smu.channels == ("a", "b")
        smu.drive(levels(1.5, FLOAT))
        readings = smu.read()
        assert readings.volts.tolist() == [1.4999, 6.0]
        assert readings.amperes.tolist() == [1.2e-3, 2e-10]
        assert readings.in_compliance.tolist() == [False, True]
        smu.drive(levels(FLOAT, -0.5))


def test_a_b2902a_does_both_channels_in_one_message() -> None:
    script = [
        *b2900_open(),
        scpi([":SOUR1:VOLT 1.5", ":SOUR1:FUNC:MODE VOLT"], (":SENS1:CURR:PROT?", "+1.00000000E-002")),
        scpi([":SOUR2:CURR 0.0", ":SOUR2:FUNC:MODE CURR"], (":SENS2:VOLT:PROT?", "+6.00000000E+000")),
        scpi(
            [":OUTP1:OFF:MODE ZERO", ":OUTP1 ON", ":OUTP2:OFF:MODE ZERO", ":OUTP2 ON"],
            (":OUTP1?", "1"),
            (":OUTP2?", "1"),
        ),
        scpi(
            [],
            (":READ? (@1,2)", "+1.5E+00,+1.2E-03,+0.0E+00,+7.4E-01,+1.0E-10,+5.0E+00"),
            (":OUTP1?", "1"),
            (":OUTP2?", "1"),
            (":OUTP1:ON:AUTO?", "0"),
            (":OUTP2:ON:AUTO?", "0"),
        ),
        scpi([], (":OUTP1?", "1")),
        *(scpi([f":SOUR1:VOLT {level}"]) for level in ("1.125", "0.75", "0.375", "0.0")),
        scpi([":OUTP1:OFF:MODE HIZ", ":OUTP1 OFF"], (":OUTP1?", "0")),
        scpi([], (":OUTP2?", "1")),
        scpi([":OUTP2:OFF:MODE HIZ", ":OUTP2 OFF"], (":OUTP2?", "0")),
    ]
    with Wire(script) as wire, KeysightB2900("smu4", wire.resource, SETTINGS) as smu:
        smu.drive(levels(1.5, FLOAT))
        readings = smu.read()
        assert readings.volts.tolist() == [1.5, 0.74]
        assert readings.in_compliance.tolist() == [False, True]


def test_automatic_output_on_that_stays_on_is_refused() -> None:
    script = b2900_open()
    checks = next(index for index, step in enumerate(script) if step.line.startswith(":OUTP1:ON:AUTO?"))
    script[checks] = replace(script[checks], say="1" + script[checks].say[1:])
    with Wire(script[: checks + 1]) as wire:
        smu = KeysightB2900("smu4", wire.resource, SETTINGS)
        with pytest.raises(BoardError, match=r"smu4 channel 1 .* told auto_on = False but has True"):
            smu.open()
        smu.close()


def test_a_reading_with_the_output_off_is_refused_without_a_word() -> None:
    with (
        Wire([*k2400_open(), *OFF]) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
        pytest.raises(BoardError, match=r"channel 1, whose output is off .*error 803.*drive it first"),
    ):
        smu.read()


def test_an_output_found_on_is_left_alone_until_the_first_drive() -> None:
    script = [
        *greeting("keithley2400"),
        scpi([], (":OUTP?", "1")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
        *k2400_setup(),
        *k2400_on("1.0"),
        *k2400_off("0.75", "0.5", "0.25", "0.0"),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        assert smu.powered_at_open == ("1",)
        smu.drive(levels(1.0))


def test_an_output_found_on_and_never_driven_is_switched_off_at_the_end() -> None:
    script = [
        *greeting("keithley2400"),
        scpi([], (":OUTP?", "1")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS):
        pass


@pytest.mark.parametrize("volts", [5.0001, -6.0])
def test_a_level_beyond_the_limit_is_refused_without_a_word(volts: float) -> None:
    with Wire([*k2400_open(), *OFF]) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        for call in (smu.drive, smu.start_drive):
            with pytest.raises(InputError, match="beyond limit_volts = 5 V"):
                call(levels(volts))
        with pytest.raises(InputError, match="has 1 channels"):
            smu.drive(levels(1.0, 1.0))


def test_an_output_that_does_not_go_on_is_noticed() -> None:
    script = [
        *k2400_open(),
        k2400_on("1.0")[0],
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "0")),
        *OFF,
    ]
    with (
        Wire(script) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
        pytest.raises(BoardError, match=r"smu1 .* has its output off, but it was told to be on: check its interlock"),
    ):
        smu.drive(levels(1.0))


def test_an_output_that_went_off_by_itself_is_noticed() -> None:
    script = [*k2400_open(), *k2400_on("1.0"), scpi([":SOUR:VOLT 2.0"], (":OUTP?", "0")), *OFF]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(1.0))
        with pytest.raises(BoardError, match="has its output off, but it was told to be on"):
            smu.drive(levels(2.0))


def test_a_limit_lost_on_the_way_to_floating_is_noticed() -> None:
    script = [
        *k2400_open(),
        *k2400_on("0.0"),
        scpi([*K2400_FLOAT, ":OUTP ON"], (":OUTP?", "1"), (":SENS:VOLT:PROT?", "2.100000E+01")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(0.0))
        with pytest.raises(BoardError, match="told volts_limit = 6 V but has 21 V"):
            smu.drive(levels(FLOAT))


def test_floating_by_an_open_relay_of_the_instrument() -> None:
    himp = SmuSettings(limit_volts=5.0, limit_amperes=0.01, free_mode="himp")
    select = k2400_on("1.0")[0]
    on = scpi([":OUTP:SMOD HIMP", ":OUTP ON"], (":OUTP?", "1"))
    script = [
        *k2400_open(),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
        select,
        on,
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
        *OFF,
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, himp) as smu:
        smu.drive(levels(FLOAT))
        readings = smu.read()
        assert math.isnan(readings.volts[0])
        assert readings.amperes[0] == 0
        smu.drive(levels(1.0))
        smu.drive(levels(FLOAT))
        with pytest.raises(InputError, match="floats by 'himp', which has no offset current"):
            smu.calibrate_float()
        with pytest.raises(InputError, match="cut off from the node"):
            SmuVoltmeter(smu)


def test_floating_by_a_switch_of_someone_else() -> None:
    relay = Switches()
    outside = SmuSettings(limit_volts=5.0, limit_amperes=0.01, free_mode="relay")
    script = [
        *k2400_open(),
        scpi([], (":OUTP?", "0")),
        *k2400_on("1.0"),
        scpi([":SOUR:VOLT 0.0"], (":OUTP?", "1")),
        scpi([], (":READ?", "+0.0E+00,+1.0E-06,+0.0E+00"), (":OUTP?", "1")),
        scpi([":SOUR:VOLT 2.0"], (":OUTP?", "1")),
        *k2400_off("1.5", "1.0", "0.5", "0.0"),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, outside, relay=relay) as smu:
        smu.drive(levels(FLOAT))
        smu.drive(levels(1.0))
        smu.drive(levels(FLOAT))
        assert math.isnan(smu.read().volts[0])
        smu.drive(levels(2.0))
    assert relay.told == [("1", False), ("1", True), ("1", False), ("1", True)]


def test_a_relay_that_does_not_open_is_found_by_the_current_through_it() -> None:
    outside = SmuSettings(limit_volts=5.0, limit_amperes=0.01, free_mode="relay")
    script = [
        *k2400_open(),
        *k2400_on("1.0"),
        scpi([":SOUR:VOLT 0.0"], (":OUTP?", "1")),
        scpi([], (":READ?", "+0.0E+00,+2.0E-06,+0.0E+00"), (":OUTP?", "1")),
        scpi([], (":READ?", "+0.0E+00,-4.0E-06,+0.0E+00"), (":OUTP?", "1")),
        *k2400_off(),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, outside, relay=Switches()) as smu:
        smu.drive(levels(1.0))
        smu.drive(levels(FLOAT))
        assert math.isnan(smu.read().volts[0])
        with pytest.raises(MeasurementError, match=r"sources -4e-06 A through its relay, which was told to open"):
            smu.read()


def test_an_output_that_went_off_is_found_with_the_reading() -> None:
    reading = scpi([], (":READ?", "+1.0E+00,+1.0E-04,+0.0E+00"), (":OUTP?", "0"))
    with (
        Wire([*k2400_open(), *k2400_on("1.0"), reading, *OFF]) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
    ):
        smu.drive(levels(1.0))
        with pytest.raises(BoardError, match="has its output off, but it was told to be on"):
            smu.read()


def test_a_relay_is_asked_for_just_where_it_is_of_use() -> None:
    with pytest.raises(InputError, match="needs a relay"):
        Keithley2400("smu1", "x", SmuSettings(5.0, 0.01, free_mode="relay"))
    with pytest.raises(InputError, match="needs a relay"):
        Keithley2400("smu1", "x", SETTINGS, relay=Switches())


def test_the_offset_of_a_floating_channel_is_measured_and_taken_away() -> None:
    def floating(trim: str, *amperes: str) -> list[Hear]:
        return [
            scpi([f":SOUR:CURR {trim}", ":SOUR:FUNC CURR", ":SENS:VOLT:RANG 20.0", ":OUTP ON"]),
            scpi([], (":OUTP?", "1")),
            *(scpi([], (":READ?", f"+1.0E-01,{value},+0.0E+00"), (":OUTP?", "1")) for value in amperes),
        ]

    script = [
        *k2400_open(),
        scpi(K2400_FLOAT, (":SENS:VOLT:PROT?", "6.0")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
        *(scpi([], (":READ?", f"+1.0E-01,{value},+0.0E+00"), (":OUTP?", "1")) for value in ("2e-10", "4e-10")),
        *floating("-3e-10", "1e-11", "-1e-11"),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        (offset,) = smu.calibrate_float(averages=2)
        assert offset.before == pytest.approx(3e-10)
        assert offset.after == pytest.approx(0, abs=1e-20)
        assert offset.uncertainty == pytest.approx(1e-11)
        with pytest.raises(InputError, match="at least 2 readings"):
            smu.calibrate_float(averages=1)


def test_an_offset_that_the_correction_does_not_cure_is_said() -> None:
    script = [
        *k2400_open(),
        scpi(K2400_FLOAT, (":SENS:VOLT:PROT?", "6.0")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
        *[scpi([], (":READ?", "+1.0E-01,2e-10,+0.0E+00"), (":OUTP?", "1"))] * 2,
        scpi([":SOUR:CURR -2e-10", ":SOUR:FUNC CURR", ":SENS:VOLT:RANG 20.0", ":OUTP ON"]),
        scpi([], (":OUTP?", "1")),
        *[scpi([], (":READ?", "+1.0E-01,5e-10,+0.0E+00"), (":OUTP?", "1"))] * 2,
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with (
        Wire(script) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
        pytest.raises(BoardError, match="2e-10 A, and 5e-10 A after the correction: let it warm up"),
    ):
        smu.calibrate_float(averages=2)


def test_an_offset_cannot_be_measured_in_compliance() -> None:
    script = [
        *k2400_open(),
        scpi(K2400_FLOAT, (":SENS:VOLT:PROT?", "6.0")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
        scpi([], (":READ?", "+6.0E+00,2e-10,+8.0E+00"), (":OUTP?", "1")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with (
        Wire(script) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
        pytest.raises(BoardError, match="at its voltage limit while floating"),
    ):
        smu.calibrate_float()


def test_making_safe_twice_asks_twice_and_changes_once() -> None:
    script = [*k2400_open(), *k2400_on("0.0"), *k2400_off(), *OFF, *OFF]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(0.0))
        smu.make_safe()
        smu.make_safe()
        with pytest.raises(BoardError, match="drive it first"):
            smu.read()


def test_a_driver_can_go_on_after_it_was_made_safe() -> None:
    script = [*k2400_open(), *k2400_on("0.0"), *k2400_off(), *k2400_on("0.0"), *k2400_off()]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(0.0))
        smu.make_safe()
        smu.drive(levels(0.0))


def test_on_a_dead_link_off_comes_first_on_a_fresh_session() -> None:
    with (
        Wire(
            [*k2400_open(), *k2400_on("1.0"), Hear(":OUTP?;:SYST:ERR?", then="hang up")],
            [scpi([":OUTP OFF"], (":OUTP?", "0")), *greeting("keithley2400")],
        ) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
    ):
        smu.drive(levels(1.0))


def test_a_dead_instrument_is_named_and_everything_was_tried() -> None:
    silent = [Hear("smua.source.output = 0 print(smua.source.output, errorqueue.count)", then="hang up")]
    # The second channel is told too, though the link failed at the first.
    told = [Hear("smub.source.output = 0")]
    with Wire(
        [*k2600b_open(), Hear("print(smua.source.output, errorqueue.count)", then="hang up")],
        silent,
        told,
        silent,
        told,
    ) as wire:
        smu = Keithley2600B("smu3", wire.resource, SETTINGS, link=LinkOptions(retries=1)).open()
        with pytest.raises(
            BoardError,
            match=f"smu3 .{wire.resource}. could not be verified to be off: switch its output off at its front",
        ):
            smu.close()
        smu.close()


def test_one_channel_that_will_not_go_off_does_not_keep_the_other_on() -> None:
    script = [
        *k2600b_open(),
        tsp([], ("smua.source.output", "1.00000e+00")),
        tsp(["smua.source.offmode = 2", "smua.source.output = 0"], ("smua.source.output", "1.00000e+00")),
        tsp(["smua.source.output = 0"], ("smua.source.output", "1.00000e+00")),
        tsp(["smub.source.output = 0"], ("smub.source.output", "0.00000e+00")),
    ]
    with Wire(script) as wire:
        smu = Keithley2600B("smu3", wire.resource, SETTINGS).open()
        with pytest.raises(BoardError, match="still has the output of channel a on"):
            smu.close()


def test_an_instrument_that_complains_is_switched_off_all_the_same() -> None:
    script = [
        *k2400_open(),
        *k2400_on("1.0"),
        scpi([], (":OUTP?", "1"), error='-410,"Query interrupted"'),
        Hear(":SYST:ERR?", '0,"No error"'),
        scpi([":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire, Keithley2400("smu1", wire.resource, SETTINGS) as smu:
        smu.drive(levels(1.0))


def test_links_work_in_parallel() -> None:
    with (
        Wire([*k2400_open(), *k2400_on("1.0"), *k2400_off("0.75", "0.5", "0.25", "0.0")]) as one,
        Wire(
            [
                *k2400_open(idn=IDN["keithley2400"].replace("1234567", "7654321")),
                *k2400_on("2.0"),
                *k2400_off("1.5", "1.0", "0.5", "0.0"),
            ]
        ) as two,
        Keithley2400("a", one.resource, SETTINGS) as first,
        Keithley2400("b", two.resource, SETTINGS) as second,
    ):
        futures = [first.start_drive(levels(1.0)), second.start_drive(levels(2.0))]
        assert [future.result(30) for future in futures] == [None, None]


def test_an_smu_reads_its_own_terminals_as_a_voltmeter() -> None:
    script = [
        *k2400_open(),
        scpi(K2400_FLOAT, (":SENS:VOLT:PROT?", "6.0")),
        scpi([":OUTP:SMOD NORM", ":OUTP ON"], (":OUTP?", "1")),
        *(
            scpi([], (":READ?", f"{value},+1.0E-10,+0.0E+00"), (":OUTP?", "1"))
            for value in ("1.0", "1.2", "1.5", "9.0")
        ),
        scpi([], (":READ?", "+6.0E+00,+1.0E-10,+8.0E+00"), (":OUTP?", "1")),
        scpi([], (":OUTP?", "1")),
        scpi([":OUTP:SMOD HIMP", ":OUTP OFF"], (":OUTP?", "0")),
    ]
    with Wire(script) as wire:
        smu = Keithley2400("smu1", wire.resource, SETTINGS).open()
        meter = SmuVoltmeter(smu)
        assert isinstance(meter, Voltmeter)
        assert (meter.channels, meter.identity) == (("1",), IDN["keithley2400"])
        smu.drive(levels(FLOAT))
        readings = meter.read(2)
        step = 20.0 * 5e-6
        assert readings.volts[0] == pytest.approx(1.1)
        assert readings.volts_u[0] == pytest.approx(math.sqrt(0.1**2 + step**2 / 12))
        assert meter.start_read().result(30).volts_u[0] == pytest.approx(step / math.sqrt(12))
        assert meter.read().volts[0] == 9.0
        with pytest.raises(BoardError, match="smu1 channel 1 is in compliance"):
            meter.read()
        with pytest.raises(InputError, match="1 or more readings"):
            meter.read(0)
        with pytest.raises(InputError, match="are to be read"):
            SmuVoltmeter(smu, ["b"])
        meter.close()


@pytest.mark.parametrize("driver", SOURCES)
def test_every_driver_is_a_source_bank(driver: str) -> None:
    smu = SOURCES[driver]("dut", "TCPIP0::127.0.0.1::1::SOCKET", SETTINGS, model=next(iter(SOURCES[driver].models)))
    assert isinstance(smu, SourceBank)
    smu.close()


@pytest.mark.parametrize("driver", SOURCES)
def test_models_are_told_by_what_they_answer(driver: str) -> None:
    for name, model in SOURCES[driver].models.items():
        assert model.name == name
        assert model.channels
        assert list(model.volt_ranges) == sorted(model.volt_ranges)
        assert list(model.amp_ranges) == sorted(model.amp_ranges)
        assert model.volt_ranges[-1] <= model.most_volts
        assert model.amp_ranges[-1] <= model.most_amps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit_volts": 0.0}, "limit_volts must be a positive"),
        ({"limit_amperes": math.nan}, "limit_amperes must be a positive"),
        ({"float_volts": 5.0}, "float_volts .5 V. must lie above limit_volts"),
        ({"free_mode": "guard"}, "free_mode must be zero_amp, himp or relay"),
        ({"ramp_steps": 0}, "ramp_steps must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SmuSettings(**{"limit_volts": 5.0, "limit_amperes": 0.01, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SmuSettings(300.0, 0.01), "limit_volts = 300 V is more than a 2400 can do .210 V."),
        (SmuSettings(5.0, 2.0), "limit_amperes = 2 A is more than a 2400 can do .1.05 A."),
        (SmuSettings(200.0, 0.01, float_volts=300.0), "float_volts = 300 V is more than"),
        (SmuSettings(5.0, 0.01, nplc=25.0), "integrates over 0.01 to 10 line cycles, not 25"),
        (SmuSettings(5.0, 0.01, volts_range=2.0), "volts_range = 2 does not hold the limit of 5"),
        (SmuSettings(5.0, 0.01, amperes_range=0.001), "amperes_range = 0.001 does not hold the limit"),
    ],
)
def test_settings_the_model_cannot_take_are_refused_before_anything_is_written(
    settings: SmuSettings, message: str
) -> None:
    with Wire(greeting("keithley2400")) as wire:
        smu = Keithley2400("smu1", wire.resource, settings)
        with pytest.raises(InputError, match=message):
            smu.open()
        smu.close()


def test_a_channel_the_model_has_not_is_named() -> None:
    with (
        Wire([*k2400_open(), *OFF]) as wire,
        Keithley2400("smu1", wire.resource, SETTINGS) as smu,
        pytest.raises(InputError, match="smu1 has no channel 'b': it has 1"),
    ):
        smu.channel("b")


def test_drivers_never_send_what_turns_an_output_on_behind_ones_back() -> None:
    for driver in SOURCES.values():
        for declaration in vars(driver.channel_class).values():
            for template in (getattr(declaration, "write", None), getattr(declaration, "query", None)):
                assert "MEAS" not in (template or "").replace("measure", "")
