import math

import pytest

from hilcl.bench_ratings import bench_limits, check_ratings
from hilcl.errors import ExperimentError
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

HIGH_VOLTAGE = replaced(
    DIVIDER_BENCH,
    ('volts = "2 V"', 'volts = "20 V"'),
    ("[[1.0, 0.0]]", "[[6.0, 0.0]]"),
)


def check(text: str) -> None:
    check_ratings(prepared(text))


def refusal(text: str, *changes: tuple[str, str]) -> str:
    with pytest.raises(ExperimentError) as caught:
        check(replaced(text, *changes))
    return str(caught.value)


def test_what_the_catalogue_says_is_accepted() -> None:
    check(DIVIDER_BENCH)


def test_pots_without_a_chip_are_taken_as_they_are() -> None:
    check(GRID_BENCH)
    assert bench_limits(prepared(GRID_BENCH)).amperes_per_pot == math.inf


@pytest.mark.parametrize("name", ["mcp4251", "Mcp4251"])
def test_a_chip_may_be_written_in_any_case(name: str) -> None:
    check(replaced(DIVIDER_BENCH, ("MCP4251", name)))


def test_the_lowest_code_that_is_named_is_enough_and_no_more() -> None:
    tight = (DIVIDER_BENCH, ('"1.2 kΩ"', '"10 Ω"'), ('end_to_end = "100 kΩ"', 'end_to_end = "5 kΩ"'))
    said = refusal(*tight)
    assert said.startswith("bench.toml, [board.pots]: a wiper of the MCP4251 could carry ")
    lowest = int(said.split("set lowest_code to ")[1].split(",")[0])
    assert lowest > 1
    with_code = ("denominator = 256", f"denominator = 256\nlowest_code = {lowest}")
    check(replaced(*tight, with_code))
    refusal(*tight, ("denominator = 256", f"denominator = 256\nlowest_code = {lowest - 1}"))


def test_more_volts_than_the_chip_stands_are_refused() -> None:
    assert "6 V across a MCP4251 is more than the 5.5 V it stands" in refusal(HIGH_VOLTAGE)
    check(HIGH_VOLTAGE.replace("[[6.0, 0.0]]", "[[5.5, 0.0]]").replace('"1.2 kΩ"', '"2.2 kΩ"'))


@pytest.mark.parametrize(
    ("inputs", "targets", "reach"),
    [("[[4.0, 1.0], [-1.0, -4.0]]", "[[2.0], [-2.0]]", "8"), ("[[12.0, 11.0]]", "[[11.5]]", "12")],
    ids=["samples far apart", "a sample far from 0 V"],
)
def test_volts_that_no_supply_of_the_chip_could_hold_are_refused(inputs: str, targets: str, reach: str) -> None:
    """No sample has more than 3 V across it, but the pins of the chip see all of them, and 0 V at the end."""
    said = refusal(HIGH_VOLTAGE, ("[[6.0, 0.0]]", inputs), ("[[0.2]]", targets))
    assert f"lie {reach} V apart, but the pins of a MCP4251 stand 5.5 V: scale the data down" in said


def test_no_volts_of_a_test_sample_are_overlooked() -> None:
    text = replaced(
        HIGH_VOLTAGE,
        ("[[6.0, 0.0]]", "[[1.0, 0.0], [6.0, 0.0]]\ntest_fraction = 0.5"),
        ("[[0.2]]", "[[0.2], [0.2]]"),
    )
    assert "6 V across a MCP4251" in refusal(text)
    assert "6 V across a MCP4251" in refusal(text, ("test_fraction = 0.5", "test_fraction = 0.5\nsplit_seed = 1"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("MCP4251", "MCP42S1")], "bench.toml, board.pots.chip: there is no digital potentiometer"),
        ([("positions = 257", "positions = 129")], "positions is 129, but a MCP4251 has 257 codes"),
        ([("denominator = 256", "denominator = 257")], "the denominator is 257, but that of a MCP4251 is 256: set it"),
        ([('"100 kΩ"', '"20 kΩ"')], "bench.toml, board.pots.chip: MCP4251 is not made with 20000 Ω: choose 5000 Ω"),
    ],
)
def test_figures_that_are_not_the_chips_are_refused(changes: list[tuple[str, str]], said: str) -> None:
    assert said in refusal(DIVIDER_BENCH, *changes)


@pytest.mark.parametrize(
    ("limits", "amperes", "watts"),
    [
        ("", 2.5e-3, math.inf),
        ('amperes_per_pot = "1 mA"\n', 1e-3, math.inf),
        ('amperes_per_pot = "9 mA"\nwatts_per_pot = "2 mW"\n', 2.5e-3, 2e-3),
    ],
)
def test_what_a_pot_may_carry_is_the_smaller_of_file_and_chip(limits: str, amperes: float, watts: float) -> None:
    found = bench_limits(prepared(replaced(DIVIDER_BENCH, ('volts = "2 V"\n', f'volts = "2 V"\n{limits}'))))
    assert (found.volts, found.amperes_per_pot, found.watts_per_pot) == (2.0, amperes, watts)
