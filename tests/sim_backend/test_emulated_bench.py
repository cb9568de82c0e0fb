"""The emulated bench of an experiment file: the simulator's devices behind real drivers, wired as the file says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hilcl.bench_board import BenchBoard
from hilcl.board import Response
from hilcl.errors import BoardError, ExperimentError, InputError
from hilcl.session import open_emulated, open_simulated
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.training import train
from tests.bench_files import DIVIDER_BENCH, GRID_BENCH, IMPERFECT, clients, prepared, replaced

CLOSE = 5e-9
"""Volts by which two boards may differ: the steps of the emulated ADC and of an instrument's printed digits."""

TWO_BOARDS = replaced(
    GRID_BENCH,
    (
        "[bench.instruments.drive]",
        '[bench.instruments.more]\ndriver = "potboard"\nresource = "/dev/ttyACM1"\n\n[bench.instruments.drive]',
    ),
    ('{ pots = "all" }', "{ pots = [6, -1, 4, 2], more = [0, 5, -1, 1, 3] }"),
    ('scanner = { "101" = 1, "102:104" = [2, 3, 4] }', "more = [1, 3], pots = [-1, 4, -1, 2]"),
    ('[bench.instruments.scanner]\ndriver = "34970a"\nresource = "TCPIP::192.168.0.12::5025::SOCKET"\n', ""),
)
"""The grid's pots on two boards out of order, some of them unused, and its meters on the ADCs of both."""

RELAY = replaced(
    DIVIDER_BENCH,
    ('compliance = "10 mA"\n\n[bench.wiring]', 'compliance = "10 mA"\nfree_mode = "relay"\n\n[bench.wiring]'),
    ("sources =", 'switches = { pots = { "0" = 1 } }\nsources ='),
)
"""The divider's output is cut off from its SMU by a clamp switch of the pot board while it floats."""

SMU_METER = replaced(
    GRID_BENCH,
    (
        "[bench.instruments.scanner]",
        (
            '[bench.instruments.extra]\ndriver = "keithley2450"\nresource = "TCPIP::192.168.0.13::5025::SOCKET"\n'
            'compliance = "1 mA"\n\n[bench.instruments.scanner]'
        ),
    ),
    ('"101" = 1, "102:104" = [2, 3, 4] }', '"102:104" = [2, 3, 4] }, extra = [1]'),
)
"""A 2450 that only reads a hidden node."""

PYTHON = replaced(
    DIVIDER_BENCH,
    (
        'driver = "keithley2450"\nresource = "TCPIP::192.168.0.11::5025::SOCKET"\ncompliance = "10 mA"',
        'driver = "python"',
    ),
)


@contextmanager
def opened(text: str) -> Iterator[tuple[BenchBoard, EmulatedBench]]:
    """Open the board of a file against its emulated bench."""
    preparation = prepared(text)
    bench = EmulatedBench(preparation).start()
    with open_emulated(preparation, bench, calibrate=False, plausible=False) as board:
        yield board, bench


def outputs_off(bench: EmulatedBench) -> bool:
    return not any(on for each in bench.outputs_on.values() for on in each)


def drives(board: BenchBoard) -> np.ndarray:
    """Return free and clamped drives of all terminals (4, T)."""
    n_inputs, n_outputs = len(board.network.inputs), len(board.network.outputs)
    volts = np.array([[1.0, 0.0], [0.2, 0.9], [0.0, 0.0], [0.7, 0.4]])
    assert n_inputs == 2
    targets = np.full((4, n_outputs), np.nan)
    targets[1], targets[3] = 0.35, 0.1
    return np.hstack([volts, targets])


def random_conductances(board: BenchBoard, seed: int) -> np.ndarray:
    limits = board.device_range
    generator = np.random.default_rng(seed)
    return np.exp(generator.uniform(np.log(limits.g_min), np.log(limits.g_max)))


def assert_same(here: Response, there: Response) -> None:
    np.testing.assert_allclose(here.potentials, there.potentials, rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(here.in_compliance, there.in_compliance)


@pytest.mark.parametrize(
    "text", [DIVIDER_BENCH, GRID_BENCH, TWO_BOARDS, SMU_METER, RELAY], ids=["divider", "grid", "two", "smu", "relay"]
)
@pytest.mark.parametrize("simulation", ["", IMPERFECT], ids=["ideal", "imperfect"])
def test_the_devices_are_those_of_the_simulated_board(text: str, simulation: str) -> None:
    simulated = open_simulated(prepared(text + simulation))
    with opened(text + simulation) as (board, bench):
        for seed in range(3):
            wanted = random_conductances(board, seed)
            np.testing.assert_array_equal(board.program(wanted), simulated.program(wanted))
            np.testing.assert_array_equal(bench.true_conductances, simulated.true_conductances)
            assert_same(board.respond(drives(board)), simulated.respond(drives(board)))
        assert not outputs_off(bench)
    assert outputs_off(bench)


def test_the_imperfect_devices_are_not_the_nominal_ones() -> None:
    with opened(GRID_BENCH) as (board, _), opened(GRID_BENCH + IMPERFECT) as (other, bench):
        assert np.abs(bench.true_conductances / other.conductances - 1).min() > 1e-4
        ideal, real = board.respond(drives(board)), other.respond(drives(other))
        assert np.abs(ideal.potentials - real.potentials).max() > 1e-3


def test_another_seed_draws_other_devices() -> None:
    with (
        opened(GRID_BENCH + IMPERFECT) as (_, bench),
        opened(GRID_BENCH + IMPERFECT.replace("seed = 11", "seed = 12")) as (_, other),
    ):
        assert (bench.true_conductances != other.true_conductances).all()


def test_a_source_at_its_limit_is_in_compliance_on_both() -> None:
    text = GRID_BENCH + '[simulation]\nsources = { compliance = "5 µA" }\n'
    simulated = open_simulated(prepared(text))
    with opened(text) as (board, _):
        here, there = board.respond(drives(board)), simulated.respond(drives(board))
        assert there.in_compliance.any()
        assert_same(here, there)


def test_defects_of_pots_are_those_of_the_simulator() -> None:
    text = GRID_BENCH + "[simulation]\npots = { stuck = { 3 = 90 }, opened = [5], inl_codes = 2.0 }\n"
    simulated = open_simulated(prepared(text))
    with opened(text) as (board, bench):
        wanted = random_conductances(board, 1)
        np.testing.assert_array_equal(board.program(wanted), simulated.program(wanted))
        np.testing.assert_array_equal(bench.true_conductances, simulated.true_conductances)
        assert bench.true_conductances[5] == 1e-9


def test_pots_on_two_boards_keep_their_edges() -> None:
    with opened(TWO_BOARDS) as (board, bench):
        wanted = random_conductances(board, 4)
        board.program(wanted)
        codes = board.device_range.project(wanted).codes
        assert codes is not None
        np.testing.assert_array_equal(bench.codes, codes)
        assert len(set(codes.tolist())) > 4
        assert bench.boards["pots"].codes[[0, 2, 3]] == pytest.approx(codes[[6, 4, 2]])
        assert bench.boards["more"].codes[[0, 1, 3, 4]] == pytest.approx(codes[[0, 5, 1, 3]])


def miswired(text: str, wires: str) -> str:
    return f"{text}\n[simulation]\nmiswired = {{ {wires} }}\n"


@pytest.mark.parametrize("text", [DIVIDER_BENCH, RELAY], ids=["zero amperes", "relay"])
def test_swapped_sources_drive_each_others_nodes(text: str) -> None:
    with opened(text) as (right, _), opened(miswired(text, "sources = [[0, 2]]")) as (wrong, _):
        one, other = right.respond([[1.0, 0.0, np.nan]]), wrong.respond([[0.0, 1.0, np.nan]])
        np.testing.assert_allclose(one.potentials, other.potentials, atol=CLOSE)


def test_a_source_may_be_swapped_to_a_hidden_node() -> None:
    with opened(miswired(GRID_BENCH, "sources = [[0, 4]]")) as (board, bench):
        found = board.respond([[1.0, 0.0, np.nan]]).potentials[0]
        assert found[4] == pytest.approx(1.0, abs=CLOSE)
        assert bench.circuit.potentials()[0] < 0.9


def test_swapped_meters_read_each_others_nodes() -> None:
    with opened(GRID_BENCH) as (right, _), opened(miswired(GRID_BENCH, "meters = [[1, 4]]")) as (wrong, _):
        one, other = right.respond(drives(right)).potentials, wrong.respond(drives(wrong)).potentials
        np.testing.assert_allclose(one[:, [0, 4, 2, 3, 1, 5]], other, atol=CLOSE)
        assert np.abs(one - other).max() > 0.05


def test_swapped_pots_are_set_to_each_others_codes() -> None:
    with opened(miswired(GRID_BENCH, "pots = [[0, 6], [2, 3]]")) as (board, bench):
        wanted = random_conductances(board, 2)
        board.program(wanted)
        codes = board.device_range.project(wanted).codes
        assert codes is not None
        np.testing.assert_array_equal(bench.codes, codes[[6, 1, 3, 2, 4, 5, 0]])


def test_a_cut_source_drives_nothing_and_a_cut_meter_reads_nothing() -> None:
    with opened(miswired(GRID_BENCH, "cut_sources = [0], cut_meters = [3]")) as (board, bench):
        found = board.respond([[1.0, 0.5, np.nan]])
        assert found.potentials[0, 3] == 0.0
        # Only the other input drives the board, so all of it lies at its potential.
        np.testing.assert_allclose(bench.circuit.potentials()[:6], 0.5, atol=CLOSE)


@pytest.mark.parametrize(
    ("wires", "said"),
    [
        ("sources = [[0, 6]]", "simulation.miswired.sources names 6"),
        ("meters = [[0, 1], [1, 2]]", "simulation.miswired.meters names 1"),
        ("pots = [[0, 7]]", "simulation.miswired.pots names 7"),
        ("pots = [[1, 1]]", "simulation.miswired.pots names 1"),
    ],
)
def test_a_miswiring_that_cannot_be_is_refused(wires: str, said: str) -> None:
    with pytest.raises(ExperimentError, match=said.replace(".", r"\.")):
        EmulatedBench(prepared(miswired(GRID_BENCH, wires)))


def test_an_output_floats_behind_an_open_switch() -> None:
    simulated = open_simulated(prepared(RELAY))
    with opened(RELAY) as (board, bench):
        free = board.respond([[1.0, 0.0, np.nan]])
        assert bench.boards["pots"].outputs_on == (False,)
        clamped = board.respond([[1.0, 0.0, 0.2]])
        assert bench.boards["pots"].outputs_on == (True,)
        assert_same(free, simulated.respond([[1.0, 0.0, np.nan]]))
        assert_same(clamped, simulated.respond([[1.0, 0.0, 0.2]]))
        assert clamped.potentials[0, 1] == pytest.approx(0.2, abs=CLOSE)
    assert outputs_off(bench)


def test_an_smu_that_only_reads_does_not_load_its_node() -> None:
    simulated = open_simulated(prepared(SMU_METER))
    with opened(SMU_METER) as (board, _):
        found = board.respond(drives(board))
        assert found.potentials[0, 1] == pytest.approx(simulated.respond(drives(board)).potentials[0, 1], abs=CLOSE)
        assert 0.05 < found.potentials[0, 1] < 0.95


def test_a_grounded_input_needs_no_source() -> None:
    text = replaced(
        DIVIDER_BENCH, ("sources = { drive = { a = 0, b = 2 }", "grounded = [2]\nsources = { drive = { a = 0 }")
    )
    # A wire to ground has none of a source's errors.
    text += IMPERFECT[: IMPERFECT.index("sources")]
    simulated = open_simulated(prepared(text))
    with opened(text) as (board, bench):
        here = board.respond([[1.0, 0.0, np.nan], [1.0, 0.0, 0.3]])
        there = simulated.respond([[1.0, 0.0, np.nan], [1.0, 0.0, 0.3]])
        np.testing.assert_allclose(here.potentials, there.potentials, rtol=0, atol=CLOSE)
        assert bench.circuit.potentials()[2] == 0.0
        with pytest.raises(InputError, match="node 2 is wired to 0 V"):
            board.respond([[1.0, 0.5, np.nan]])


def test_nothing_is_driven_beyond_the_limit() -> None:
    with opened(DIVIDER_BENCH) as (board, bench):
        with pytest.raises(InputError, match="beyond the limit of 2 V"):
            board.respond([[2.5, 0.0, np.nan]])
        assert np.abs(bench.circuit.potentials()).max() == 0.0


NOISY = GRID_BENCH.replace("averages = 2", "averages = 1") + '[simulation]\nseed = 5\nmeters = { noise = "1 mV" }\n'


def test_a_snapshot_brings_the_same_noise_again() -> None:
    with opened(NOISY) as (board, _):
        board.respond(drives(board))
        state = board.snapshot()
        first, second = board.respond(drives(board)), board.respond(drives(board))
        assert (first.potentials != second.potentials).any()
        board.restore(state)
        np.testing.assert_array_equal(board.respond(drives(board)).potentials, first.potentials)
        np.testing.assert_array_equal(board.respond(drives(board)).potentials, second.potentials)


def test_training_goes_on_with_the_same_noise_on_a_new_bench() -> None:
    preparation = prepared(NOISY)
    with opened(NOISY) as (board, _):
        whole = list(train(board, preparation.data.train, preparation.rule, 8))
    with opened(NOISY) as (board, _):
        half = list(train(board, preparation.data.train, preparation.rule, 3))
    with opened(NOISY) as (board, _):
        rest = list(train(board, preparation.data.train, preparation.rule, 8, resume=half[-1].checkpoint))
    assert [step.loss for step in whole] == [step.loss for step in (*half, *rest)]
    np.testing.assert_array_equal(whole[-1].state, rest[-1].state)


def test_without_noise_there_is_nothing_to_remember() -> None:
    with opened(GRID_BENCH + IMPERFECT) as (board, _):
        assert board.snapshot() == {}
        board.restore({})


def test_the_noise_is_as_large_as_the_file_says() -> None:
    with opened(NOISY) as (board, _):
        readings = board.respond(np.tile([[1.0, 0.0, np.nan]], (150, 1))).potentials
    # The standard error of a standard deviation of n readings is σ/√(2n): six of them are never left by chance.
    np.testing.assert_allclose(readings.std(axis=0, ddof=1), 1e-3, rtol=6 / np.sqrt(300))


def test_resources_are_in_the_order_of_the_file() -> None:
    with EmulatedBench(prepared(GRID_BENCH)) as bench:
        assert list(bench.resources) == ["pots", "drive", "clamp", "scanner"]
        assert Path(bench.resources["pots"]).exists()
        assert bench.resources["drive"].startswith("TCPIP")
        assert outputs_off(bench)
    assert bench.resources == {}
    bench.close()


def test_model_and_serial_number_are_those_of_the_file() -> None:
    text = replaced(
        GRID_BENCH,
        ('driver = "34970a"', 'driver = "34970a"\nmodel = "34972A"\nserial = "MY123"'),
        ('driver = "keithley2400"', 'driver = "keithley2400"\nmodel = "2410"'),
    )
    with opened(text) as (board, _):
        assert ",34972A,MY123," in board.identities["scanner"]
        assert "2410" in board.identities["clamp"]


def test_a_bench_without_a_section_cannot_be_emulated() -> None:
    with pytest.raises(ExperimentError, match=r"has no \[bench\] section"):
        EmulatedBench(prepared(DIVIDER_BENCH[: DIVIDER_BENCH.index("[bench]")]))


def test_a_device_of_a_program_cannot_be_emulated() -> None:
    with pytest.raises(ExperimentError, match=r"clamp .* the emulated bench has no such device"):
        EmulatedBench(prepared(PYTHON))


def test_a_channel_that_the_scanner_has_not_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"bench\.wiring\.meters\.scanner: .*151"):
        EmulatedBench(prepared(GRID_BENCH.replace('"101" = 1', '"151" = 1')))


@pytest.mark.parametrize(
    ("text", "name", "driver", "model"),
    [
        (DIVIDER_BENCH, "clamp", "keithley2450", "2636B"),
        (DIVIDER_BENCH, "drive", "keithley2600b", "2602A"),
        (GRID_BENCH, "clamp", "keithley2400", "2499"),
        (GRID_BENCH, "drive", "keysight-b2900", "2602B"),
        (GRID_BENCH, "scanner", "34970a", "DAQ6510"),
    ],
)
def test_a_model_that_cannot_be_emulated_is_refused(text: str, name: str, driver: str, model: str) -> None:
    wrong = replaced(text, (f'driver = "{driver}"', f'driver = "{driver}"\nmodel = "{model}"'))
    with pytest.raises(
        ExperimentError, match=rf"bench\.instruments\.{name}\.model is {model}, which cannot be emulated"
    ):
        EmulatedBench(prepared(wrong))


def test_a_port_that_is_taken_ends_what_was_started() -> None:
    with EmulatedBench(prepared(DIVIDER_BENCH)) as first:
        port = int(first.resources["clamp"].split("::")[2])
        second = EmulatedBench(prepared(DIVIDER_BENCH))
        with pytest.raises(BoardError, match=str(port)):
            second.start({"clamp": port})
        assert second.resources == {}


def test_a_bench_that_was_started_is_not_started_again() -> None:
    bench = EmulatedBench(prepared(DIVIDER_BENCH)).start({"pots": 0})
    resources = bench.resources
    with bench:
        assert bench.resources == resources
    assert bench.resources == {}


def test_pot_boards_may_be_served_on_tcp() -> None:
    bench = EmulatedBench(prepared(DIVIDER_BENCH)).start({"pots": 0})
    try:
        assert bench.resources["pots"].startswith("socket://127.0.0.1:")
        with open_emulated(prepared(DIVIDER_BENCH), bench, calibrate=False, plausible=False) as board:
            assert board.respond([[1.0, 0.0, 0.2]]).potentials[0] == pytest.approx([1.0, 0.2, 0.0], abs=CLOSE)
    finally:
        bench.close()


def test_any_client_sees_the_circuit() -> None:
    """A scanner reads what another client's source does, without hilcl's drivers between."""
    with (
        EmulatedBench(prepared(GRID_BENCH)) as bench,
        clients(*(bench.resources[name] for name in ("drive", "clamp", "scanner"))) as (source, clamp, meter),
    ):
        for channel in (1, 2):
            source.write(f":SOUR{channel}:FUNC:MODE VOLT;:SOUR{channel}:VOLT 0.75;:OUTP{channel} ON")
        assert source.query("*OPC?") == "1"
        assert bench.outputs_on["drive"] == (True, True)
        meter.write("CONF:VOLT:DC 10,(@103)")
        # Both inputs at 0.75 V, but the output of a 2400 that is off holds its node near 0 V ...
        assert float(meter.query("READ?")) < 0.7499
        clamp.write(":OUTP:SMOD HIMP")
        assert clamp.query("*OPC?") == "1"
        # ... until its relay opens: then nothing draws a current.
        assert float(meter.query("READ?")) == pytest.approx(0.75, abs=1e-6)
        source.write("*RST")
        assert source.query("*OPC?") == "1"
        assert outputs_off(bench)


def test_emulated_time_can_be_real_time() -> None:
    text = GRID_BENCH + "[simulation]\ntime_scale = 0.001\n"
    assert EmulatedBench(prepared(text)).clock.scale == 0.001
    assert EmulatedBench(prepared(text), time_scale=0.0).clock.scale == 0.0
    assert EmulatedBench(prepared(GRID_BENCH)).clock.scale == 0.0
