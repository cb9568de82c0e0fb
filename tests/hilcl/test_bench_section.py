from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.bench_section import DRIVERS, BenchSection, PotBoardInstrument, SmuInstrument, instrument_section
from hilcl.errors import ExperimentError
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

CLAMP = 'compliance = "10 mA"\n\n[bench.wiring]'


def bench_of(text: str) -> BenchSection:
    bench = prepared(text).experiment.bench
    assert bench is not None
    return bench


def refusal(text: str, *changes: tuple[str, str]) -> str:
    with pytest.raises(ExperimentError) as caught:
        prepared(replaced(text, *changes))
    return str(caught.value)


def channels_of(text: str, key: str, name: str) -> Any:
    return getattr(bench_of(text).wiring, key)[name]


def test_quantities_become_si_and_the_rest_has_its_default() -> None:
    bench = bench_of(
        replaced(
            DIVIDER_BENCH,
            ('compliance = "10 mA"\n\n[bench.instruments.clamp]', 'compliance = "3 mA"\n\n[bench.instruments.clamp]'),
            (CLAMP, 'compliance = "50 µA"\nlimit_volts = "500 mV"\nnplc = 0.1\nfour_wire = true\n\n[bench.wiring]'),
            ("averages = 1", 'averages = 8\nsettle = "250 ms"'),
        )
    )
    drive, clamp, pots = (bench.instruments[name] for name in ("drive", "clamp", "pots"))
    assert isinstance(drive, SmuInstrument)
    assert isinstance(clamp, SmuInstrument)
    assert isinstance(pots, PotBoardInstrument)
    assert (drive.compliance, drive.limit_volts, drive.free_mode, drive.nplc) == (3e-3, None, "zero_amp", 1.0)
    assert clamp.compliance == pytest.approx(50e-6)
    assert (clamp.limit_volts, clamp.nplc, clamp.four_wire) == (0.5, 0.1, True)
    assert (pots.baud, pots.watchdog, pots.serial) == (115_200, 2.0, None)
    assert (bench.settle.seconds, bench.averages, bench.retries, bench.visa) == (0.25, 8, 2, "@py")


@pytest.mark.parametrize(("given_value", "seconds"), [('"off"', None), ('"500 ms"', 0.5), ('"2 s"', 2.0)])
def test_the_watchdog_can_be_off(given_value: str, seconds: float | None) -> None:
    text = replaced(DIVIDER_BENCH, ('driver = "potboard"', f'driver = "potboard"\nwatchdog = {given_value}'))
    instrument = bench_of(text).instruments["pots"]
    assert isinstance(instrument, PotBoardInstrument)
    assert instrument.watchdog == seconds


def test_a_range_of_channels_is_spelt_out() -> None:
    assert channels_of(GRID_BENCH, "meters", "scanner") == {"101": 1, "102": 2, "103": 3, "104": 4}


def test_a_list_is_in_the_order_of_the_channels() -> None:
    assert channels_of(DIVIDER_BENCH, "meters", "pots") == [0, 1, 2]
    assert channels_of(DIVIDER_BENCH, "sources", "drive") == {"a": 0, "b": 2}


@given(st.integers(1, 300), st.integers(1, 20))
def test_a_range_has_one_node_for_each_channel(first: int, count: int) -> None:
    nodes = list(range(count))
    section = BenchSection.model_validate(
        {
            "instruments": {"m": {"driver": "daq6510", "resource": "x"}},
            "wiring": {"pots": {}, "meters": {"m": {f"{first}:{first + count - 1}": nodes}}},
        }
    )
    assert section.wiring.meters["m"] == {str(first + index): index for index in nodes}


@pytest.mark.parametrize(
    ("wires", "said"),
    [
        ('{ "104:102" = [2, 3, 4] }', "has 3 nodes for the 0 channels '104:102': give one node each"),
        ('{ "101" = [1, 2] }', "has 2 nodes for the 1 channels '101'"),
        ('{ "101" = -1 }', "lists whole numbers from 0 on, not -1"),
        ('{ "101" = true }', "lists whole numbers from 0 on, not True"),
        ("[1, -2]", "lists whole numbers from -1 on, not -2"),
        ("[1.5]", "lists whole numbers from -1 on, not 1.5"),
        ("4", "lists the node of each channel in order, or names channels"),
        ('"all"', "lists the node of each channel in order, or names channels"),
    ],
)
def test_channels_that_make_no_sense_are_refused(wires: str, said: str) -> None:
    said_here = refusal(GRID_BENCH, ('{ "101" = 1, "102:104" = [2, 3, 4] }', wires))
    assert "line 45: bench.wiring.meters.scanner" in said_here
    assert said in said_here


@pytest.mark.parametrize("pots", ['"some"', "[]", "3", "[0, 1.0]", "[0, -2]", "[true, 1]"])
def test_pots_that_make_no_sense_are_refused(pots: str) -> None:
    assert "bench.wiring.pots.pots" in refusal(DIVIDER_BENCH, ('pots = "all"', f"pots = {pots}"))


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("averages = 1", "averages = 0", "bench.averages"),
        ("averages = 1", "averages = 1.5", "bench.averages"),
        ("averages = 1", 'settle = "-1 ms"', "bench.settle"),
        ("averages = 1", "settle = 1", "bench.settle"),
        ("averages = 1", 'settle = "61 s"', "bench.settle"),
        ("averages = 1", "settle = {}", "bench.settle"),
        ("averages = 1", 'settle = { seconds = "1 ms", capacitance = "1 pF" }', "bench.settle"),
        ("averages = 1", 'settle = { measured = true, seconds = "1 ms" }', "bench.settle"),
        ("averages = 1", "settle = { measured = 1 }", "bench.settle.measured"),
        ("averages = 1", 'settle = { capacitance = "0 F" }', "bench.settle.capacitance"),
        ("averages = 1", 'settle = { capacitance = ["1 pF", "1 V"] }', "bench.settle.capacitance"),
        ("averages = 1", 'settle = { capacitance = "1 pF", accuracy = 1 }', "bench.settle.accuracy"),
        ("averages = 1", 'settle = { capacitances = "1 pF" }', "bench.settle.capacitances"),
        ("averages = 1", "retries = 11", "bench.retries"),
        (CLAMP, 'compliance = "0 A"\n\n[bench.wiring]', "bench.instruments.clamp.compliance"),
        (CLAMP, 'compliance = "10 mV"\n\n[bench.wiring]', "bench.instruments.clamp.compliance"),
        (CLAMP, f"nplc = 0.0\n{CLAMP}", "bench.instruments.clamp.nplc"),
        (CLAMP, f'limit_volts = "-1 V"\n{CLAMP}', "bench.instruments.clamp.limit_volts"),
        (CLAMP, f'four_wire = "yes"\n{CLAMP}', "bench.instruments.clamp.four_wire"),
        ('driver = "potboard"', 'driver = "potboard"\nbaud = 0', "bench.instruments.pots.baud"),
        ('driver = "potboard"', 'driver = "potboard"\nwatchdog = "soon"', "bench.instruments.pots.watchdog"),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(old: str, new: str, key: str) -> None:
    said = refusal(DIVIDER_BENCH, (old, new))
    assert said.startswith("bench.toml, line ")
    assert f": {key}" in said


def test_a_bench_without_instruments_is_refused() -> None:
    head, tail = DIVIDER_BENCH.index("[bench.instruments.pots]"), DIVIDER_BENCH.index("[bench.wiring]")
    text = f"{DIVIDER_BENCH[:head]}[bench.instruments]\n{DIVIDER_BENCH[tail:]}"
    assert "bench.instruments is empty: name at least the pots' board and a source" in refusal(text)


@pytest.mark.parametrize("other", ["tcpip::192.168.0.10::5025::socket", " TCPIP::192.168.0.10::5025::SOCKET"])
def test_one_resource_is_one_resource_however_it_is_spelt(other: str) -> None:
    said = refusal(DIVIDER_BENCH, ("TCPIP::192.168.0.11::5025::SOCKET", other))
    assert "bench has drive and clamp both at " in said


def test_every_driver_has_its_section() -> None:
    assert set(DRIVERS) >= {
        "keithley2400", "keithley2450", "keithley2600b", "keysight-b2900", "daq6510", "34970a", "potboard", "python",
    }  # fmt: skip
    for driver in DRIVERS:
        assert "driver" in instrument_section(driver).model_fields
