import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.bench_section import BenchSection
from hilcl.bench_wiring import BenchWiring, bench_wiring
from hilcl.errors import ExperimentError
from hilcl.network import Network
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, prepared, replaced

NETWORK = Network.grid(2, 3, inputs=[0, 5], outputs=[2], periodic=False)


def wiring_of(text: str) -> BenchWiring:
    wiring = prepared(text).wiring
    assert wiring is not None
    return wiring


def section(wiring: dict[str, object], **instruments: dict[str, object]) -> BenchSection:
    smu = {"driver": "keysight-b2900", "resource": "one", "compliance": "1 mA"}
    known: dict[str, dict[str, object]] = {
        "pots": {"driver": "potboard", "resource": "two"},
        "drive": dict(smu),
        "clamp": {**smu, "driver": "keithley2450", "resource": "three"},
        **instruments,
    }
    usual: dict[str, object] = {
        "pots": {"pots": "all"},
        "sources": {"drive": [0, 5], "clamp": [2]},
        "meters": {"pots": [1, 2, 3, 4]},
    }
    return BenchSection.model_validate({"instruments": known, "wiring": {**usual, **wiring}})


def test_every_node_and_edge_has_its_place() -> None:
    wiring = wiring_of(GRID_BENCH)
    assert wiring.pots == {"pots": (0, 1, 2, 3, 4, 5, 6)}
    assert [wiring.source_at(node) for node in range(6)] == [
        ("drive", "1"), None, ("clamp", "1"), None, None, ("drive", "2"),
    ]  # fmt: skip
    assert [wiring.meter_at(node) for node in range(6)] == [
        None, *(("scanner", str(channel)) for channel in range(101, 105)), None,
    ]  # fmt: skip
    assert wiring.pot_of(4) == ("pots", 4)
    assert wiring.switches == {}
    assert wiring.grounded == ()


@given(st.permutations([*range(7), -1, -1]), st.integers(1, 8))
def test_each_edge_is_found_on_its_pot(order: list[int], cut: int) -> None:
    one, other = order[:cut], order[cut:]
    bench = section({"pots": {"pots": one, "more": other}}, more={"driver": "potboard", "resource": "four"})
    wiring = bench_wiring(bench, NETWORK)
    for edge in range(NETWORK.n_edges):
        name, number = wiring.pot_of(edge)
        assert {"pots": one, "more": other}[name][number] == edge


def test_unused_channels_are_left_out() -> None:
    wiring = bench_wiring(section({"meters": {"pots": [-1, 1, 2, -1, 4, 3]}}), NETWORK)
    assert wiring.meters == {"pots": {"1": 1, "2": 2, "4": 4, "5": 3}}


def test_sources_and_adc_of_a_pot_board_are_numbered_apart() -> None:
    bench = section({"sources": {"drive": [0, 5], "pots": [2]}}, clamp={"driver": "daq6510", "resource": "three"})
    bench = bench.model_copy(update={"instruments": {name: bench.instruments[name] for name in ("pots", "drive")}})
    wiring = bench_wiring(bench, NETWORK)
    assert wiring.source_at(2) == ("pots", "0")
    assert wiring.meter_at(1) == ("pots", "0")


def test_the_source_of_a_pot_board_needs_a_meter_at_its_node() -> None:
    """It drives, but cannot tell what arrives."""
    bench = section(
        {"sources": {"drive": [0, 5], "pots": [2]}, "meters": {"pots": [1, -1, 3, 4], "clamp": [-1]}},
    )
    said = "node 2 has no meter in bench.wiring, and the sources of pots do not measure, so the rule lacks the voltages"
    with pytest.raises(ExperimentError, match=said):
        bench_wiring(bench, NETWORK)


def test_an_smu_reads_the_node_it_drives() -> None:
    wiring = bench_wiring(section({"meters": {"pots": [1, 3, 4]}}), NETWORK)
    assert wiring.meter_at(2) is None
    assert wiring.source_at(2) == ("clamp", "1")


def test_an_input_may_be_grounded() -> None:
    bench = section({"sources": {"drive": [0], "clamp": [2]}, "grounded": [5]})
    assert bench_wiring(bench, NETWORK).grounded == (5,)


def test_a_device_of_a_program_may_be_anything() -> None:
    bench = section(
        {"pots": {"mine": "all"}, "sources": {"drive": [0, 5], "mine": {"left": 2}}, "meters": {"mine": [1, 3, 4]}},
        mine={"driver": "python"},
    )
    bench = bench.model_copy(update={"instruments": {name: bench.instruments[name] for name in ("drive", "mine")}})
    assert bench_wiring(bench, NETWORK).source_at(2) == ("mine", "left")


@pytest.mark.parametrize(
    ("wiring", "said"),
    [
        ({"pots": {"drive": [0], "pots": [1, 2, 3, 4, 5, 6]}}, "names drive, which has no pots"),
        ({"grounded": [2]}, "node 2 is grounded and has a source: leave one out"),
        ({"grounded": [3]}, "drives node 3, which is neither input nor output"),
        (
            {"sources": {"drive": [0], "clamp": [2]}, "grounded": [5, 5]},
            "bench.wiring.grounded lists node 5 twice",
        ),
        (
            {"sources": {"drive": [0, 5]}, "grounded": [2], "meters": {"pots": [1, 3, 4], "clamp": [-1]}},
            "node 2 is grounded, but an output has to float: give it a source",
        ),
        ({"switches": {"drive": {"0": 2}}}, "bench.wiring.switches.drive: drive has no clamp switches"),
        ({"switches": {"pots": {"x": 2}}}, "wires channel 'x', but a potboard has channels with numbers"),
        ({"switches": {"pots": {"0": 2}}}, "has a switch at node 2, whose source does not float by free_mode"),
        ({"meters": {"pots": [1, 3, 4, 1]}}, "node 1 has two meters, pots channel 0 and pots channel 3"),
        ({"meters": {"pots": [1, 3, 4, 6]}}, "wires channel 3 to node 6, but nodes end at 5"),
        ({"sources": {"drive": [0, 5], "clamp": {"2": 2}}}, "wires channel '2', but a keithley2450 has channel"),
    ],
)
def test_wiring_that_cannot_be_is_refused(wiring: dict[str, object], said: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(said)):
        bench_wiring(section(wiring), NETWORK)


def test_pots_of_two_boards_must_be_listed() -> None:
    bench = section({"pots": {"pots": "all", "more": [0]}}, more={"driver": "potboard", "resource": "four"})
    with pytest.raises(ExperimentError, match=r'bench\.wiring\.pots\.pots is "all", but there are others'):
        bench_wiring(bench, NETWORK)


@pytest.mark.parametrize("mode", ["himp", "relay"])
def test_a_meter_lets_an_output_be_cut_off_while_it_floats(mode: str) -> None:
    """Without one its potential would be unknown while its source is not there."""
    clamp: dict[str, object] = {
        "driver": "keithley2450", "resource": "three", "compliance": "1 mA", "free_mode": mode,
    }  # fmt: skip
    switches: dict[str, object] = {} if mode == "himp" else {"switches": {"pots": {"0": 2}}}
    assert bench_wiring(section(switches, clamp=clamp), NETWORK).meter_at(2) == ("pots", "1")
    without = {**switches, "meters": {"pots": [1, 3, 4]}}
    with pytest.raises(ExperimentError, match=rf"clamp is cut off from it while it floats by {mode}, so"):
        bench_wiring(section(without, clamp=clamp), NETWORK)


def test_the_edges_that_could_not_be_trained_are_named() -> None:
    with pytest.raises(
        ExperimentError, match=r"node 4 has no meter .* lacks the voltages of edges 2, 3, 5: wire a"
    ) as e:
        prepared(replaced(GRID_BENCH, ("[2, 3, 4]", "[2, 3, 1]"), ('"101" = 1, ', "")))
    touching = [edge for edge, ends in enumerate(NETWORK.edges.tolist()) if 4 in ends]
    assert f"edges {', '.join(map(str, touching))}:" in str(e.value)


def test_a_file_without_a_bench_has_no_wiring() -> None:
    text = DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")]
    assert prepared(text).wiring is None
