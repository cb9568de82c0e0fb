import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hilcl.drivers.chips import Chip, chip, chips
from hilcl.drivers.chips.model import FIGURES, End
from hilcl.errors import InputError

REQUIRED = {
    *("AD5220", "AD5204", "AD5206", "AD5241", "AD5242", "AD5245", "AD5252", "AD5254", "AD5260", "AD5270", "AD5271"),
    *("AD5272", "AD5274", "AD5290", "AD5291", "AD5292", "AD5293", "AD5141", "AD5144", "MCP41010", "MCP42010"),
    *("MCP41HV31", "MCP41HV51", "X9C102", "X9C103", "X9C104", "X9C503", "X9250T", "X9250U", "DS1803", "DS3502"),
    *("MAX5481", "MAX5487", "MAX5488", "MAX5489", "TPL0102"),
    *(f"MCP4{bus}{size}{ends}" for bus in "123456" for size in "3456" for ends in "12"),
}

EDGES = [known for known in chips() if known.free_edge]


def test_the_catalogue_has_what_boards_are_made_of() -> None:
    names = [known.name for known in chips()]
    assert len(names) == len(set(names))
    assert set(names) >= REQUIRED
    assert len({known.family for known in chips()}) >= 25


def test_every_figure_of_every_chip_says_where_it_comes_from() -> None:
    for known in chips():
        assert tuple(known.sources) == FIGURES
        for source in known.sources.values():
            assert (source.reference == "no source found") == (source.origin == "M")


def test_what_was_not_found_is_named() -> None:
    assert chip("AD5206").unverified == ("wiper_current",)
    assert chip("MCP4251").unverified == ()
    assert "wiper_max" in chip("CAT5171").unverified


# Read in the data sheets the catalogue names: greatest deviations of a value, and the greatest wiper resistance.
@pytest.mark.parametrize(
    ("name", "end_to_end", "tolerance", "wiper_max"),
    [
        ("AD5241", 10e3, 0.3, 120),
        ("AD5242", 100e3, 0.5, 120),  # −30 % to +50 %
        ("AD8402", 1e3, 0.6, 100),  # 0.8 kΩ to 1.6 kΩ
        ("MCP4017", 10e3, 0.2, 170),
        ("CAT5140", 50e3, 0.2, 200),
    ],
)
def test_figures_of_a_value(name: str, end_to_end: float, tolerance: float, wiper_max: float) -> None:
    option = chip(name).option(end_to_end)
    assert (option.tolerance, option.wiper_max) == (tolerance, wiper_max)


def test_frames_of_edges_are_never_from_memory() -> None:
    assert not [known.name for known in chips() if {"frame", "positions"} & set(known.unverified)]


@pytest.mark.parametrize("name", ["AD5206", "ad5206", " AD 5206", "AD-5206"])
def test_names_are_found_however_they_are_written(name: str) -> None:
    assert chip(name).name == "AD5206"


def test_a_misspelt_name_gets_its_neighbours() -> None:
    with pytest.raises(InputError, match=r'"AD5207".*did you mean .*AD5206'):
        chip("AD5207")
    with pytest.raises(InputError, match="lists those there are"):
        chip("potato")


# Code floors from the ratings, worked out by hand: ⌈den·(V/I − R_w − R_s)/R_AB⌉.
@pytest.mark.parametrize(
    ("name", "end_to_end", "volts", "series", "floor"),
    [
        ("MCP4251", 10e3, 5.0, 0.0, 50),  # 256·(2000 − 75)/10000 = 49.3
        ("MCP42010", 10e3, 5.0, 0.0, 127),  # 256·(5000 − 52)/10000 = 126.7
        ("AD5144", 10e3, 5.0, 0.0, 20),  # 256·(833.3 − 55)/10000 = 19.9
        ("X9C103", 10e3, 4.4, 0.0, 10),  # 99·(1000 − 40)/10000 = 9.5
        ("MCP41HV51", 5e3, 30.0, 0.0, 58),  # 255·(1200 − 75)/5000 = 57.4
        ("MCP4251", 10e3, 5.0, 1200.0, 19),  # 256·(2000 − 75 − 1200)/10000 = 18.6
        ("MCP4251", 10e3, -5.0, 0.0, 50),
        ("MCP4251", 10e3, 0.1, 0.0, 0),
    ],
)
def test_code_floors(name: str, end_to_end: float, volts: float, series: float, floor: int) -> None:
    assert chip(name).lowest_code(volts, end_to_end, series) == floor


@given(st.sampled_from(EDGES), st.data())
def test_allowed_codes_are_those_within_the_wiper_rating(known: Chip, data: st.DataObject) -> None:
    option = data.draw(st.sampled_from(known.options))
    volts = data.draw(st.floats(0.01, known.span))
    series = data.draw(st.floats(0.0, 5e3))
    ends: list[End] = ["low", "high"]
    end = data.draw(st.sampled_from(ends if len(known.terminals) == 3 else ends[:1]))
    amperes = volts * known.potentiometer(option.end_to_end, series, end).conductances()
    assume(np.all(np.abs(amperes / option.wiper_current - 1.0) > 1e-6))
    within = np.flatnonzero(amperes < option.wiper_current)
    if within.size == 0:
        with pytest.raises(InputError, match="lower the volts or add a series resistor"):
            known.codes(volts, option.end_to_end, series, end)
    else:
        assert list(known.codes(volts, option.end_to_end, series, end)) == within.tolist()


@pytest.mark.parametrize("volts", [5.6, -20.0, math.inf, math.nan])
def test_volts_beyond_the_track_are_refused(volts: float) -> None:
    with pytest.raises(InputError, match=r"5\.5 V that AD5206 stands"):
        chip("AD5206").lowest_code(volts, 100e3)


def test_values_the_chip_is_not_made_with_are_refused() -> None:
    with pytest.raises(InputError, match="choose 10000 Ω, 50000 Ω or 100000 Ω"):
        chip("AD5206").potentiometer(20e3)


@pytest.mark.parametrize("name", ["MCP4018", "MCP4019", "MCP40D18", "TPL0401A", "AD5247", "MAX5481"])
def test_chips_that_cannot_float_are_no_edges(name: str) -> None:
    with pytest.raises(InputError, match="cannot be an edge"):
        chip(name).potentiometer(10e3)


def test_a_rheostat_has_one_end() -> None:
    with pytest.raises(InputError, match="W and B only"):
        chip("MCP4152").potentiometer(10e3, end="high")


def test_laws() -> None:
    # 257 taps reach both ends of the track; 100 taps are 99 elements; 256 taps stop one element short.
    assert chip("MCP4251").potentiometer(10e3).resistances()[[0, 128, 256]] == pytest.approx([75, 5075, 10075])
    assert chip("X9C103").potentiometer(10e3).resistances()[[0, 99]] == pytest.approx([40, 10040])
    assert chip("AD5206").potentiometer(10e3).resistances()[[0, 128, 255]] == pytest.approx([50, 5050, 10010.9375])
    assert chip("AD5206").potentiometer(10e3, end="high").resistances()[[0, 255]] == pytest.approx([10050, 89.0625])
    assert chip("AD5272").potentiometer(20e3, 100.0).resistances()[[0, 1023]] == pytest.approx([135, 20115.46875])


@pytest.mark.parametrize("known", EDGES, ids=lambda known: known.name)
def test_every_edge_has_a_law_for_each_value(known: Chip) -> None:
    for option in known.options:
        resistances = known.potentiometer(option.end_to_end).resistances()
        assert resistances.shape == (known.positions,)
        assert np.all(np.diff(resistances) > 0)
        assert resistances[-1] - resistances[0] == pytest.approx(
            option.end_to_end * (known.positions - 1) / known.denominator
        )
