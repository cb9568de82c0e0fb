import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hilcl import units
from hilcl.units import EXAMPLES, step_size, to_si

OHM_LETTER, OHM_SIGN = "\u03a9", "\u2126"
MICRO_SIGN, MU_LETTER = "\u00b5", "\u03bc"
PREFIXES = {"": 1.0, "p": 1e-12, "n": 1e-9, "u": 1e-6, MICRO_SIGN: 1e-6, MU_LETTER: 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6}
PREFIXED = {
    "ohm": ["ohm", OHM_LETTER, OHM_SIGN],
    "volt": ["V"],
    "ampere": ["A"],
    "watt": ["W"],
    "siemens": ["S"],
    "kelvin": ["K"],
    "second": ["s"],
    "siemens/volt**2": ["S/V²", "S/V^2", "S/V**2"],
}
TYPES = {
    "Ohms": ("10 kΩ", 1e4),
    "Volts": ("-250 mV", -0.25),
    "Amperes": ("2.5 mA", 2.5e-3),
    "Watts": ("10 mW", 1e-2),
    "Siemens": ("1 mS", 1e-3),
    "Kelvins": ("15 K", 15.0),
    "PerKelvin": ("700 ppm/K", 7e-4),
    "Seconds": ("10 min", 600.0),
    "SquareVolts": ("1e-6 V²", 1e-6),
    "Share": ("20 %", 0.2),
}

QUANTITIES = [
    ("10 kΩ", "ohm", 1e4),
    (f"10 k{OHM_LETTER}", "ohm", 1e4),
    (f"10 k{OHM_SIGN}", "ohm", 1e4),
    (f"40 {OHM_SIGN}", "ohm", 40.0),
    ("10 kohm", "ohm", 1e4),
    ("10kohm", "ohm", 1e4),
    (" 10 kΩ ", "ohm", 1e4),
    ("2.2e3 Ω", "ohm", 2200.0),
    ("+.5 MΩ", "ohm", 5e5),
    ("5. V", "volt", 5.0),
    ("-5 V", "volt", -5.0),
    ("0 V", "volt", 0.0),
    (f"5 {MICRO_SIGN}S", "siemens", 5e-6),
    (f"5 {MU_LETTER}S", "siemens", 5e-6),
    ("20 %", "", 0.2),
    ("20%", "", 0.2),
    ("0.2", "", 0.2),
    ("200 ppm", "", 2e-4),
    ("700 ppm/K", "1/kelvin", 7e-4),
    ("0.1 %/K", "1/kelvin", 1e-3),
    ("1e-4 S/V²", "siemens/volt**2", 1e-4),
    ("1e-4 S/V^2", "siemens/volt**2", 1e-4),
    ("1e-4 S/V**2", "siemens/volt**2", 1e-4),
    ("3 mS/V²", "siemens/volt**2", 3e-3),
    ("1e-6 V²", "volt**2", 1e-6),
    ("4 mV²", "volt**2", 4e-6),
    ("10 min", "second", 600.0),
    ("1.5 h", "second", 5400.0),
    ("15 K", "kelvin", 15.0),
]

NOT_QUANTITIES = [
    "",
    " ",
    "\x00",
    "auto",
    "true",
    "Ω",
    "kΩ 10",
    "1 K\N{GREEK CAPITAL LETTER OMEGA}",
    "__import__('os')",
    "__import__('os').system('true') Ω",
    "1 Ω if True else 2 Ω",
    "lambda: 1 Ω",
    "[1] Ω",
    "'1' Ω",
    "{} Ω",
    "1j Ω",
    "0x10 Ω",
    "1 Ω # 2 Ω",
    "1..2 Ω",
    "1 2 Ω",
    "4k7",
    "1/0 Ω",
    "5 Ω/0",
    "10 ± 1 Ω",
    "10+/-1 Ω",
]


@pytest.mark.parametrize(("text", "unit", "expected"), QUANTITIES)
def test_quantities(text: str, unit: str, expected: float) -> None:
    assert to_si(text, unit) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("unit", EXAMPLES)
def test_the_example_of_every_unit_is_a_quantity_of_that_unit(unit: str) -> None:
    assert math.isfinite(to_si(EXAMPLES[unit], unit))
    assert to_si(EXAMPLES[unit], unit) > 0


@pytest.mark.parametrize(("name", "text", "expected"), [(name, *case) for name, case in TYPES.items()])
def test_the_types_of_the_file_read_quantities(name: str, text: str, expected: float) -> None:
    read = TypeAdapter[float](getattr(units, name)).validate_python
    assert read(text) == pytest.approx(expected, rel=1e-14)
    assert read(0) == 0.0


@given(
    data=st.data(),
    number=st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6),
    unit=st.sampled_from(sorted(PREFIXED)),
    gap=st.sampled_from(["", " "]),
)
def test_every_prefix_of_every_unit(data: st.DataObject, number: float, unit: str, gap: str) -> None:
    symbol, prefix = data.draw(st.sampled_from(PREFIXED[unit])), data.draw(st.sampled_from(sorted(PREFIXES)))
    assert to_si(f"{number!r}{gap}{prefix}{symbol}", unit) == pytest.approx(number * PREFIXES[prefix], rel=1e-12)


@given(share=st.floats(-1e3, 1e3))
def test_percent_and_ppm(share: float) -> None:
    assert to_si(f"{share!r} %", "") == pytest.approx(share / 100, rel=1e-12)
    assert to_si(f"{share!r} ppm", "") == pytest.approx(share / 1e6, rel=1e-12)
    assert to_si(share, "") == share


@pytest.mark.parametrize("unit", EXAMPLES)
@pytest.mark.parametrize("other", EXAMPLES)
def test_a_quantity_of_another_kind_is_refused(unit: str, other: str) -> None:
    if unit == other:
        return
    with pytest.raises(ValueError, match=r"wrong unit|no unit") as caught:
        to_si(EXAMPLES[other], unit)
    assert repr(EXAMPLES[other]) in str(caught.value)


@pytest.mark.parametrize("text", ["10", "1e4", "10 k", "10 R", "10 K"])
def test_text_without_the_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unit.*'10 kΩ'"):
        to_si(text, "ohm")


@pytest.mark.parametrize("value", [1, -3, 2.5, 1e-9, math.nan, math.inf, pytest.param(10**400, id="huge")])
def test_a_bare_number_has_no_unit(value: float) -> None:
    with pytest.raises(ValueError, match=r"has no unit: .*'10 kΩ'"):
        to_si(value, "ohm")


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_zero_needs_no_unit(value: float) -> None:
    assert to_si(value, "ohm") == 0.0


@pytest.mark.parametrize("value", [True, False, None, [], {}, (1, "V"), b"1 V", 1j])
@pytest.mark.parametrize("unit", ["volt", ""])
def test_other_types_are_refused(value: object, unit: str) -> None:
    with pytest.raises(ValueError, match="needs a quantity such as"):
        to_si(value, unit)


@pytest.mark.parametrize("text", ["nan V", "inf V", "-inf V", "1e400 V", "-1e999 kV"])
def test_what_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (finite )?quantity"):
        to_si(text, "volt")


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf %", "1e999", math.nan, math.inf, -math.inf, pytest.param(10**400, id="huge")]
)
def test_shares_are_finite(value: object) -> None:
    with pytest.raises(ValueError, match=r"quantity|finite"):
        to_si(value, "")


@pytest.mark.parametrize("text", NOT_QUANTITIES)
def test_text_that_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit") as caught:
        to_si(text, "ohm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1 kΩ; rm", "2 Ω + 3 Ω", "2**3 Ω", "(1 Ω)", "2*5 Ω", "10 Ω - 3 Ω", "Ω*Ω/Ω"])
def test_nothing_is_computed(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit"):
        to_si(text, "ohm")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["9**9**9 Ω", "9^9^9^9 Ω", "10**10**8 V", "1 V**9**9**9"])
def test_a_tower_of_powers_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit"):
        to_si(text, "ohm")


@pytest.mark.parametrize("text", ["2,5 mA", "1,000 mA", "0,1 mA", "1.000,5 mA", "1'000 mA"])
def test_a_decimal_comma_never_changes_the_size(text: str) -> None:
    """2,5 mA read as 25 mA would be ten times the limit somebody wrote down."""
    with pytest.raises(ValueError, match=r"'2\.5 mA'"):
        to_si(text, "ampere")


@pytest.mark.parametrize("text", ["15 degC", "15 °C", "59 degF", "59 °F"])
def test_a_temperature_rise_is_in_kelvin(text: str) -> None:
    """15 °C is a temperature; as a difference it is 15 K, not 288.15 K."""
    with pytest.raises(ValueError, match="'15 K'"):
        to_si(text, "kelvin")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "1" * 5_000 + " V",
        "(" * 100_000,
        "-" * 5_000 + "1 V",
        "V*" * 2_000 + "V",
        "1 " + "k" * 5_000 + "V",
    ],
    ids=["word", "digits", "brackets", "signs", "product", "prefixes"],
)
def test_very_long_text_gets_a_short_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit") as caught:
        to_si(text, "volt")
    assert len(str(caught.value)) < 300


@pytest.mark.timeout(60)
@given(
    text=st.one_of(st.text(max_size=40), st.text("0123456789.,eE+-*/^()[]_ kKmMµuΩohmVASWs%²", max_size=16)),
    unit=st.sampled_from(sorted(EXAMPLES)),
)
@example("9**9**9", "")
@example("1e400", "")
@example("0", "volt")
@example("1 V\n", "volt")
def test_any_text_is_a_finite_number_or_a_sentence(text: str, unit: str) -> None:
    found: float | str
    try:
        found = to_si(text, unit)
    except ValueError as error:
        found = str(error)
    if isinstance(found, str):
        assert found
        assert "\n" not in found
    else:
        assert isinstance(found, float)
        assert math.isfinite(found)


def test_step_sizes() -> None:
    assert step_size("auto") == "auto"
    assert step_size("2e-4 S/V²") == pytest.approx(2e-4)
    assert step_size("0.2 mS/V^2") == pytest.approx(2e-4)
    for wrong in (1e-4, "1e-4", "1 S", "Auto", None, True):
        with pytest.raises(ValueError, match="S/V²"):
            step_size(wrong)
