from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Potentiometer
from hilcl.errors import DeviceRangeError


def test_the_law_with_the_number_of_positions_as_denominator() -> None:
    pot = Potentiometer(256, 10e3, wiper=75.0, series=100.0)
    resistances = pot.resistances()
    assert resistances.shape == (256,)
    assert resistances[0] == 175.0
    assert resistances[128] == 5175.0
    assert resistances[255] == pytest.approx(175 + 10e3 * 255 / 256, rel=1e-15)
    np.testing.assert_array_equal(pot.conductances(), 1 / resistances)


def test_a_chip_that_divides_by_one_less_reaches_the_end() -> None:
    pot = Potentiometer(100, 10e3, wiper=40.0, denominator=99)
    assert pot.resistances()[[0, 99]].tolist() == [40.0, 10040.0]


def test_an_inverted_scale_starts_at_the_largest_resistance() -> None:
    pot = Potentiometer(4, 1000.0, wiper=10.0, inverted=True)
    assert pot.travel().tolist() == [1.0, 0.75, 0.5, 0.25]
    assert pot.resistances().tolist() == [1010.0, 760.0, 510.0, 260.0]


def test_an_inverted_scale_that_stops_short_of_zero_needs_no_wiper() -> None:
    assert Potentiometer(4, 1000.0, inverted=True).resistances().min() == 250.0


@settings(deadline=None)
@given(
    st.integers(2, 1024),
    st.floats(100, 1e6),
    st.floats(1, 500),
    st.floats(0, 1e4),
    st.booleans(),
    st.booleans(),
)
def test_resistance_is_linear_and_conductance_monotonic_in_the_code(
    positions: int, end_to_end: float, wiper: float, series: float, inverted: bool, reaches_end: bool
) -> None:
    pot = Potentiometer(
        positions, end_to_end, wiper, series, denominator=positions - 1 if reaches_end else None, inverted=inverted
    )
    # A chip with 2^n + 1 taps reaches its end whatever is said.
    reaches_end = pot.divisor == positions - 1
    step = end_to_end / pot.divisor
    np.testing.assert_allclose(
        np.diff(pot.resistances()), -step if inverted else step, rtol=1e-6, atol=1e-9 * (end_to_end + series)
    )
    assert (np.diff(pot.conductances()) * (1 if inverted else -1) > 0).all()
    lowest = wiper + series + (step if inverted and not reaches_end else 0.0)
    assert pot.resistances().min() == pytest.approx(lowest, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Potentiometer(1, 1e4, 75.0), "at least 2 positions, got 1"),
        (lambda: Potentiometer(256, 1e4, 75.0, denominator=254), "256 positions cannot have the denominator 254"),
        (lambda: Potentiometer(256, 0.0, 75.0), "end-to-end resistance must be positive, got 0.0"),
        (lambda: Potentiometer(256, float("nan"), 75.0), "end-to-end resistance"),
        (lambda: Potentiometer(256, float("inf"), 75.0), "end-to-end resistance"),
        (lambda: Potentiometer(256, 1e4, -1.0), "wiper resistance cannot be negative, got -1.0"),
        (lambda: Potentiometer(256, 1e4, 75.0, series=float("nan")), "series resistance"),
        (lambda: Potentiometer(256, 1e4), "0 Ω: give its wiper resistance or a series resistor"),
        (lambda: Potentiometer(256, 1e4, inverted=True, denominator=255), "0 Ω"),
    ],
)
def test_what_no_chip_is(build: Callable[[], object], message: str) -> None:
    with pytest.raises(DeviceRangeError, match=message):
        build()


@pytest.mark.parametrize(("positions", "divisor"), [(128, 128), (129, 128), (257, 256), (100, 100), (256, 256)])
def test_chips_with_an_odd_tap_divide_by_a_power_of_two(positions: int, divisor: int) -> None:
    """An MCP4251 has 257 taps, and R = R_AB·k/256 (Microchip DS22060)."""
    pot = Potentiometer(positions, 100e3, wiper=75.0)
    assert pot.divisor == divisor
    assert pot.resistances()[-1] == pytest.approx(75.0 + 100e3 * (positions - 1) / divisor)
