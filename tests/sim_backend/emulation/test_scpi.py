import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.scpi import (
    MAX_CHANNELS,
    Argument,
    CommandTree,
    ScpiError,
    argument,
    channel_list,
    forms,
    pattern_keywords,
    units,
)

PATTERNS = (
    "[:SOURce#]:VOLTage[:LEVel][:IMMediate][:AMPLitude]",
    "[:SOURce#]:VOLTage:RANGe",
    "[:SOURce#]:VOLTage:RANGe:AUTO",
    ":SENSe#:CURRent[:DC]:PROTection[:LEVel]",
    ":CALCulate3:DATA",
    ":OUTPut#[:STATe]",
    ":SENSe#:VOLTage:DELay:USER#",
    "*IDN",
)


def tree() -> CommandTree[str]:
    made: CommandTree[str] = CommandTree()
    for pattern in PATTERNS:
        made.add(pattern, pattern)
    return made


def found(message: str) -> list[tuple[str, tuple[int, ...]]]:
    commands = tree()
    return [commands.find(unit) for unit in units(message)]


COMMAND_ERRORS = {0, -223, *range(-199, -99)}


def code_of(action: Callable[[], object]) -> int:
    """Return the code of the SCPI error the action ends with, 0 for none; anything else passes through."""
    try:
        action()
    except ScpiError as error:
        return error.code
    return 0


def error_of(message: str) -> int:
    with pytest.raises(ScpiError) as caught:
        found(message)
    return caught.value.code


@given(st.text(max_size=200))
@example('SOUR:VOLT "')
@example("(@1")
@example("*")
@example(";;;:::")
@example("SOUR:VOLT #H")
@example("SOUR:VOLT 1e999")
@example("SOUR:VOLT²")
@settings(max_examples=500)
def test_any_text_is_units_or_a_scpi_error(message: str) -> None:
    assert code_of(lambda: all(unit.keywords for unit in units(message)) or None) in COMMAND_ERRORS


ALPHABET = st.sampled_from([*"SOURVOLT:;?,*@()'\"0123456789.eE+-# \t\n", "SOUR", ":VOLT", "(@1:9999)", "1E3", "#B2"])


@given(st.lists(ALPHABET, max_size=30).map("".join))
@settings(max_examples=500)
def test_near_scpi_is_units_or_a_scpi_error(message: str) -> None:
    assert code_of(lambda: found(message)) in COMMAND_ERRORS


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern and one of the ways to write its header."""
    pattern = draw(st.sampled_from(PATTERNS))
    header = ""
    for keyword in pattern_keywords(pattern):
        if keyword.optional and draw(st.booleans()):
            continue
        word = draw(st.sampled_from(forms(keyword.mnemonic)))
        word = "".join(draw(st.sampled_from((letter.lower(), letter.upper()))) for letter in word)
        suffix = "1" if keyword.suffix and draw(st.booleans()) else ""
        header += f":{word}{suffix}"
    if pattern.startswith("*") or draw(st.booleans()):
        header = header.removeprefix(":")
    return pattern, header


@given(written())
def test_every_way_to_write_a_header_means_the_same(case: tuple[str, str]) -> None:
    pattern, header = case
    ((command, suffixes),) = found(header)
    assert command == pattern
    assert set(suffixes) <= {1}
    assert len(suffixes) == pattern.count("#")


@given(written(), written())
def test_headers_after_a_semicolon_start_anew_with_a_colon(first: tuple[str, str], second: tuple[str, str]) -> None:
    root = second[1] if second[0].startswith("*") else f":{second[1].removeprefix(':')}"
    assert [command for command, _ in found(f"{first[1]};{root};")] == [first[0], second[0]]


@pytest.mark.parametrize(
    ("message", "commands"),
    [
        (":SOUR:VOLT:RANG 2;RANG:AUTO 1", [PATTERNS[1], PATTERNS[2]]),
        (":SOUR:VOLT 1;VOLT:RANG 2", [PATTERNS[0], PATTERNS[1]]),
        (":SOUR:VOLT:RANG 2;*IDN?;RANG 3", [PATTERNS[1], PATTERNS[7], PATTERNS[1]]),
        (":*IDN?", [PATTERNS[7]]),
        (" ; :OUTP ON ; ", [PATTERNS[5]]),
    ],
)
def test_relative_headers_continue_where_the_last_one_stood(message: str, commands: list[str]) -> None:
    assert [command for command, _ in found(message)] == commands


def test_relative_header_of_another_branch_is_undefined() -> None:
    assert error_of(":SOUR:VOLT:RANG 2;:OUTP 1;RANG 2") == -113
    assert error_of(":SOUR:VOLT:RANG 2;OUTP 1") == -113


@pytest.mark.parametrize(
    ("header", "suffixes"),
    [("SOUR2:VOLT", (2,)), ("VOLT", (1,)), ("OUTP17?", (17,)), ("SENS2:VOLT:DEL:USER3", (2, 3)), ("VOLT1", (1,))],
)
def test_numeric_suffixes(header: str, suffixes: tuple[int, ...]) -> None:
    assert found(header)[0][1] == suffixes


@pytest.mark.parametrize("header", ["VOLTA", "VOLTAG", "SOURCES:VOLT", "VOLT2", "CALC:DATA?", "CALC2:DATA?", "*IDNX?"])
def test_what_is_neither_short_nor_long_form_is_undefined(header: str) -> None:
    assert error_of(header) == -113


def test_units_before_an_error_are_yielded() -> None:
    parsed = units(":OUTP 1;:OUTP ¡")
    assert next(parsed).header == ":OUTP"
    with pytest.raises(ScpiError, match="Invalid character"):
        next(parsed)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1.5", 1.5, ""),
        ("-.5e-3", -5e-4, ""),
        ("+2.E+2", 200.0, ""),
        ("10 mA", 0.01, "A"),
        ("1uV", 1e-6, "V"),
        ("2.5kOHM", 2500.0, "OHM"),
        ("3MOHM", 3e6, "OHM"),
        ("3MV", 3e-3, "V"),
        ("3MAV", 3e6, "V"),
        ("#H1F", 31.0, ""),
        ("#b101", 5.0, ""),
        ("#Q17", 15.0, ""),
    ],
)
def test_numbers(text: str, value: float, unit: str) -> None:
    parsed = argument(text)
    assert (parsed.kind, parsed.unit) == ("number", unit)
    assert parsed.value == pytest.approx(value, rel=1e-15)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_survives(value: float) -> None:
    assert argument(repr(value)).value == value


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40), st.sampled_from("\"'"))
def test_strings_of_either_quote(text: str, quote: str) -> None:
    quoted = quote + text.replace(quote, quote * 2) + quote
    assert argument(quoted) == Argument("string", text)
    (unit,) = units(f":DISP:TEXT {quoted}")
    assert unit.arguments[0].text == text


def test_quoted_separators_do_not_separate() -> None:
    (unit,) = units(":TRAC:DATA? 1, 2, 'a;b,c', (@1,2)")
    assert [given.kind for given in unit.arguments] == ["number", "number", "string", "channels"]
    assert unit.arguments[2].text == "a;b,c"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1.5X", -131),
        ("1.2.3", -121),
        ("1e400", -123),
        ("'open", -151),
        ("'a'b'", -151),
        ("(@1,)", -171),
        ("(1,2)", -171),
        ("", -109),
        ("$", -101),
    ],
)
def test_arguments_that_are_none(text: str, code: int) -> None:
    with pytest.raises(ScpiError) as caught:
        argument(text)
    assert caught.value.code == code


def test_channel_lists() -> None:
    assert channel_list("(@101,103:105)") == (101, 103, 104, 105)
    assert channel_list("( @ 3 : 1 )") == (3, 2, 1)
    assert channel_list("(@)") == ()


@given(st.integers(0, 999_999_999), st.integers(0, 999_999_999))
def test_channel_lists_are_bounded(first: int, last: int) -> None:
    text = f"(@{first}:{last})"
    if abs(first - last) >= MAX_CHANNELS:
        assert code_of(lambda: channel_list(text)) == -223
    else:
        assert len(channel_list(text)) == abs(first - last) + 1


def test_words_and_names() -> None:
    assert argument("min").is_word("MINimum")
    assert not argument("mini").is_word("MINimum")
    assert not argument("'MIN'").is_word("MINimum")
    assert math.isnan(argument("MAX").value)


def test_patterns_are_checked() -> None:
    with pytest.raises(ValueError, match="no command pattern"):
        pattern_keywords("[:SOURce:VOLTage")
    made = tree()
    with pytest.raises(ValueError, match="already a command"):
        made.add(":VOLTage:RANGe", "again")
