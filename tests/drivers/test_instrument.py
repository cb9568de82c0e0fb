"""Connecting, verifying who answers, the error queue, and recovery on a fresh session."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hilcl.drivers.instrument import MOST_ERRORS, Identity
from hilcl.drivers.keithley2400 import Keithley2400
from hilcl.drivers.keithley2450 import Keithley2450
from hilcl.drivers.smu import SmuSettings
from hilcl.drivers.visa_session import LinkError, LinkOptions
from hilcl.errors import BoardError, InputError
from tests.drivers.support.scripts import (
    ALL_OFF,
    IDN,
    NO_ERROR,
    greeting,
    k2400_off,
    k2400_on,
    k2400_open,
    k2400_setup,
    scpi,
)
from tests.drivers.support.wire import Hear, Wire
from tests.drivers.test_visa_session import nobody

SETTINGS = SmuSettings(limit_volts=5.0, limit_amperes=0.01)
QUICK = LinkOptions(timeout=0.5)
OFF = ALL_OFF["keithley2400"]
READING = "+1.500000E+00,+1.200000E-03,+2.150800E+04"


def k2400(
    wire: Wire, link: LinkOptions | None = None, *, model: str | None = None, serial: str | None = None
) -> Keithley2400:
    return Keithley2400("smu1", wire.resource, SETTINGS, link=link, model=model, serial=serial)


def restored(volts: str) -> list[Hear]:
    """A 2400 that was at a voltage when the link was lost: greeted, set up, and brought back."""
    return [*greeting("keithley2400"), *k2400_setup(), *k2400_on(volts)]


def test_open_says_who_is_there_and_changes_no_output() -> None:
    with Wire([*k2400_open(), *OFF]) as wire, k2400(wire) as smu:
        assert smu.identity == IDN["keithley2400"]
        assert smu.model.name == "2400"
        assert smu.powered_at_open == ()


def test_opening_twice_talks_once() -> None:
    with Wire([*k2400_open(), *OFF]) as wire, k2400(wire) as smu:
        assert smu.open() is smu


def test_nobody_listening_is_the_files_mistake() -> None:
    smu = Keithley2400("smu1", nobody(), SETTINGS)
    with pytest.raises(InputError, match="smu1: nothing answers at TCPIP0::127"):
        smu.open()
    smu.close()


@pytest.mark.parametrize(
    ("idn", "message"),
    [
        ("KEITHLEY INSTRUMENTS,MODEL 2450,04312345,1.7.12b", "but a Keithley 2400 series is expected there"),
        ("ACME,MODEL 2400,1,1", "but a Keithley 2400 series is expected there"),
    ],
)
def test_another_instrument_at_the_address_is_named(idn: str, message: str) -> None:
    with Wire([Hear("*IDN?", idn)]) as wire:
        smu = k2400(wire)
        with pytest.raises(InputError, match=message) as caught:
            smu.open()
        assert idn in str(caught.value)
        assert wire.resource in str(caught.value)
        smu.close()


def test_another_model_of_the_series_is_refused_where_the_file_names_one() -> None:
    with Wire([Hear("*IDN?", IDN["keithley2400"])]) as wire:
        smu = k2400(wire, model="2410")
        with pytest.raises(InputError, match="but a 2410 is expected there"):
            smu.open()
        smu.close()


def test_a_model_no_driver_knows_is_refused_before_connecting() -> None:
    with pytest.raises(InputError, match="knows no model '2499', only 2400, 2401"):
        Keithley2400("smu1", "TCPIP0::127.0.0.1::1::SOCKET", SETTINGS, model="2499")


def test_another_serial_number_is_refused_where_the_file_names_one() -> None:
    with Wire([Hear("*IDN?", IDN["keithley2400"])]) as wire:
        smu = k2400(wire, serial="7654321")
        with pytest.raises(InputError, match="has serial number 1234567, but 7654321 is expected"):
            smu.open()
        smu.close()


@pytest.mark.parametrize("answer", ["\n", "+1.234E-03", "a,b,c", r"\xff\xfe"])
def test_garbage_instead_of_an_identity_is_shown(answer: str) -> None:
    with Wire([Hear("*IDN?", answer)]) as wire:
        smu = k2400(wire)
        with pytest.raises(LinkError, match="which is no identity") as caught:
            smu.open()
        assert caught.value.fault == "garbage"
        smu.close()


def test_an_instrument_in_another_language_is_named() -> None:
    with Wire([Hear("*IDN?", IDN["keithley2450"]), Hear("*LANG?", "TSP")]) as wire:
        smu = Keithley2450("smu2", wire.resource, SETTINGS)
        with pytest.raises(InputError, match=r"smu2 speaks TSP where SCPI is needed.*\*LANG SCPI"):
            smu.open()
        smu.close()


def test_errors_of_an_earlier_program_are_taken_from_the_queue_and_kept_apart() -> None:
    errors = ('-113,"Undefined header;x"', '+803,"Not permitted with OUTPUT off"')
    script = [*greeting("keithley2400", errors=errors), *k2400_open()[len(greeting("keithley2400")) :], *OFF]
    with Wire(script) as wire, k2400(wire) as smu:
        assert smu.found_errors == errors


def test_an_error_queue_without_end_is_given_up() -> None:
    script = [Hear("*IDN?", IDN["keithley2400"]), *[Hear(":SYST:ERR?", '-350,"Queue overflow"')] * MOST_ERRORS]
    script += [Hear("*CLS"), Hear(":SYST:ERR?", '-350,"Queue overflow"')]
    with Wire(script) as wire:
        smu = k2400(wire)
        with pytest.raises(BoardError, match="still has errors in its queue after 32"):
            smu.open()
        smu.close()


def test_an_error_queue_that_overflowed_is_cleared_as_a_whole() -> None:
    errors = ['-222,"Parameter data out of range"'] * MOST_ERRORS
    cleared = [*greeting("keithley2400", errors=errors)[:-1], Hear("*CLS"), Hear(":SYST:ERR?", NO_ERROR)]
    rest = k2400_open()[len(greeting("keithley2400")) :]
    with Wire([*cleared, *rest, *OFF]) as wire, k2400(wire) as smu:
        assert len(smu.found_errors) == MOST_ERRORS


@pytest.mark.parametrize("zero", ['0,"No error"', '+0,"No error"', "0", '0,"no error;queue empty"', "+0.0000E+00"])
def test_no_error_is_a_number_not_a_text(zero: str) -> None:
    script = [*k2400_open(), replace(scpi([], (":OUTP?", "0")), say=f"0;{zero}")]
    with Wire(script) as wire, k2400(wire):
        pass


def test_a_refusal_names_what_was_sent_and_all_that_was_in_the_queue() -> None:
    bad = scpi([":SOUR:VOLT 1.0"], error='-222,"Parameter data out of range; or so"')
    script = [
        *k2400_open(),
        bad,
        Hear(":SYST:ERR?", '+824,"Cannot exceed compliance range"'),
        Hear(":SYST:ERR?", NO_ERROR),
        *OFF,
    ]
    with Wire(script) as wire, k2400(wire) as smu:
        with pytest.raises(BoardError, match=r"smu1 .* refused what it was told") as caught:
            smu.channel("1").source_volts = 1.0
        for part in ("-222", "+824", "':SOUR:VOLT 1.0;:SYST:ERR?'", wire.resource):
            assert part in str(caught.value)


def test_a_limit_that_is_silently_not_taken_is_found_before_the_output_is_on() -> None:
    script = [*greeting("keithley2400"), scpi([], (":OUTP?", "0")), *k2400_setup(found=("0.01", "2.100000E+01"))]
    with Wire(script) as wire:
        smu = k2400(wire)
        with pytest.raises(BoardError, match="told volts_limit = 6 V but has 21 V; its output stays off"):
            smu.open()
        smu.abandon()


def test_late_answers_are_never_taken_for_the_next_question() -> None:
    moved_on = threading.Event()
    late = Hear(":READ?;:OUTP?;:SYST:ERR?", f"9.9,9.9,0;1;{NO_ERROR}", before=moved_on)
    again = restored("1.5")
    again[0] = replace(again[0], heard=moved_on)
    with (
        Wire(
            [*k2400_open(), *k2400_on("1.5"), late],
            [*again, scpi([], (":READ?", READING), (":OUTP?", "1")), *k2400_off("1.125", "0.75", "0.375", "0.0")],
        ) as wire,
        k2400(wire, QUICK) as smu,
    ):
        smu.drive(np.array([1.5]))
        found = smu.read()
        assert (found.volts[0], found.amperes[0]) == (1.5, 0.0012)


def test_a_peer_that_hangs_up_in_mid_answer_is_replaced_and_the_step_done_again() -> None:
    with (
        Wire(
            [*k2400_open(), *k2400_on("1.5"), Hear(":READ?;:OUTP?;:SYST:ERR?", "+1.5000", then="mid-line")],
            [
                *restored("1.5"),
                scpi([], (":READ?", READING), (":OUTP?", "1")),
                *k2400_off("1.125", "0.75", "0.375", "0.0"),
            ],
        ) as wire,
        k2400(wire, LinkOptions(timeout=60)) as smu,
    ):
        smu.drive(np.array([1.5]))
        assert smu.read().volts[0] == 1.5


def test_another_instrument_after_the_link_was_lost_is_not_driven() -> None:
    other = IDN["keithley2400"].replace("1234567", "7777777")
    other_again = [Hear("*IDN?", other)]
    blunt_off = scpi([":OUTP OFF"], (":OUTP?", "0"))
    with Wire(
        [*k2400_open(), *k2400_on("1.5"), Hear(":READ?;:OUTP?;:SYST:ERR?", then="hang up")],
        other_again,
        [blunt_off, *other_again],
    ) as wire:
        smu = k2400(wire, LinkOptions(retries=0))
        smu.open()
        smu.drive(np.array([1.5]))
        smu.link = LinkOptions(retries=1)
        with pytest.raises(BoardError, match=r"7777777.* answers at .* after the link was lost, where .*1234567"):
            smu.read()
        smu.link = LinkOptions(retries=0)
        with pytest.raises(BoardError, match="could not be verified to be off"):
            smu.close()


def test_a_refusal_that_looked_like_silence_is_not_repeated() -> None:
    after = greeting("keithley2400", errors=['-113,"Undefined header"'])
    with (
        Wire(
            [*k2400_open(), Hear(":SOUR:VOLT 1.0;:SYST:ERR?")],
            after,
            [scpi([":OUTP OFF"], (":OUTP?", "0")), *greeting("keithley2400")],
        ) as wire,
        k2400(wire, QUICK) as smu,
        pytest.raises(BoardError, match=r'-113,"Undefined header".*:SOUR:VOLT 1.0'),
    ):
        smu.channel("1").source_volts = 1.0


def test_a_link_that_stays_dead_ends_in_one_sentence_after_switching_off_was_tried() -> None:
    silence: Sequence[Hear] = [Hear(":READ?;:OUTP?;:SYST:ERR?")]
    off = [scpi([":OUTP OFF"], (":OUTP?", "0")), *greeting("keithley2400")]
    with Wire(
        [*k2400_open(), *k2400_on("1.5"), *silence],
        [*restored("1.5"), *silence],
        off,
    ) as wire:
        smu = k2400(wire, LinkOptions(timeout=0.5, retries=1))
        smu.open()
        smu.drive(np.array([1.5]))
        with pytest.raises(BoardError, match=r"smu1 .* gave no answer in time .*':READ\?.*tried 2 times"):
            smu.read()
        smu.abandon()


def test_work_of_many_callers_is_done_by_one_thread() -> None:
    with Wire([*k2400_open(), *OFF]) as wire, k2400(wire) as smu:
        names = {smu.submit(lambda: threading.current_thread().name).result(20) for _ in range(5)}
        assert names == {"hilcl-smu1_0"}


def test_a_closed_instrument_says_so() -> None:
    with Wire([*k2400_open(), *OFF]) as wire:
        smu = k2400(wire).open()
        smu.close()
        smu.close()
        smu.make_safe()
        with pytest.raises(BoardError, match="smu1 has been closed"):
            smu.read()


def test_an_instrument_that_was_not_opened_says_so() -> None:
    smu = Keithley2400("smu1", "TCPIP0::127.0.0.1::1::SOCKET", SETTINGS)
    with pytest.raises(BoardError, match="smu1 has not been opened yet"):
        _ = smu.channels
    smu.make_safe()
    smu.close()


def test_identity_has_four_fields() -> None:
    found = Identity.parse("Keithley Instruments Inc., Model 2602B, 4012345, 3.3.5")
    assert (found.maker, found.model, found.serial, found.firmware) == (
        "Keithley Instruments Inc.",
        "Model 2602B",
        "4012345",
        "3.3.5",
    )


def test_an_answer_with_too_few_fields_is_out_of_step_and_redone() -> None:
    extra = Hear(":SOUR:VOLT?;:SYST:ERR?", "1.0")
    with (
        Wire(
            [*k2400_open(), extra],
            [*greeting("keithley2400"), *k2400_setup(), scpi([], (":SOUR:VOLT?", "1.0")), *OFF],
        ) as wire,
        k2400(wire) as smu,
    ):
        assert smu.channel("1").source_volts == 1.0
