"""Benches whose circuit has capacitances: what is read too early is wrong, and what the waits promise is kept."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from hilcl import Network
from hilcl.arrays import FloatArray
from hilcl.session import open_emulated
from hilcl.settling import time_constant
from hilcl.sim_backend.emulated_bench import EmulatedBench
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.emulation.transient import Transient
from tests.bench_files import prepared, replaced

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "bench16.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
IDEAL = TEXT[: TEXT.index("[simulation]")]
FARADS = 20e-9
DRIVES = np.array(
    [[1.0, 0.0, np.nan, np.nan], [0.2, 1.0, np.nan, np.nan], [0.2, 1.0, 0.6, 0.5], [1.0, 0.0, np.nan, np.nan]]
)


def bench_text(settle: str, simulation: str = '[simulation]\ncapacitance = "20 nF"\n') -> str:
    return replaced(IDEAL, ('settle = "1 ms"', f"settle = {settle}")) + simulation


def potentials(settle: str, simulation: str = '[simulation]\ncapacitance = "20 nF"\n') -> tuple[FloatArray, float]:
    """Return what is read (S, N) at low conductances, and the emulated seconds that took."""
    preparation = prepared(bench_text(settle, simulation))
    bench = EmulatedBench(preparation).start()
    with open_emulated(preparation, bench, plausible=False) as board:
        board.program(board.device_range.g_min)
        begun = bench.clock.now()
        return board.respond(DRIVES).potentials, bench.clock.now() - begun


def test_what_is_read_before_the_board_has_settled_is_wrong() -> None:
    settled, _ = potentials('"0 s"', "")
    early, _ = potentials('"0 s"')
    assert np.abs(early - settled).max() > 0.01


def test_the_computed_wait_is_long_enough_and_not_much_longer() -> None:
    settled, _ = potentials('"0 s"', "")
    read, seconds = potentials('{ capacitance = "20 nF", accuracy = 1e-4 }')
    assert np.abs(read - settled).max() <= 1e-4
    shorter, less = potentials('{ capacitance = "20 nF", accuracy = 1e-2 }')
    assert np.abs(shorter - settled).max() <= 1e-2
    assert less < seconds


def test_the_measured_wait_keeps_its_accuracy_whatever_is_learnt() -> None:
    preparation = prepared(bench_text("{ measured = true, accuracy = 1e-4 }"))
    settled, _ = potentials('"0 s"', "")
    bench = EmulatedBench(preparation).start()
    with open_emulated(preparation, bench, plausible=False) as board:
        (note,) = (said for said in board.notes if "settles in" in said)
        seconds = 1e-3 * float(note.split("settles in ")[1].split(" ms")[0])
        slowest = time_constant(board.network, board.device_range.g_min, np.full(9, FARADS))
        assert 5 * slowest < seconds < 15 * slowest
        np.testing.assert_array_equal(board.conductances, preparation.initial)
        board.program(board.device_range.g_min)
        assert np.abs(board.respond(DRIVES).potentials - settled).max() <= 1e-4


class Hand:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_transient_is_the_exact_one_through_several_changes() -> None:
    network = Network.grid(3, 3, inputs=[0, 8], outputs=[2, 6])
    generator = np.random.default_rng(3)
    conductances, farads = generator.uniform(1e-5, 1e-4, network.n_edges), generator.uniform(1e-9, 1e-8, 9)
    now = Hand()
    circuit = EmulatedCircuit(network, conductances, Transient(network, farads, now))
    plain = EmulatedCircuit(network, conductances)
    expected = np.zeros(9)
    changes: list[tuple[float, dict[int, Applied]]] = [
        (0.0, {0: Applied("voltage", 1.0), 8: Applied("voltage", 0.0)}),
        (2e-5, {2: Applied("voltage", 0.7)}),
        (5e-5, {2: OPEN, 8: Applied("voltage", 0.4)}),
        (1e-4, {6: Applied("current", 1e-6)}),
    ]
    applied = dict.fromkeys(range(9), OPEN)
    for number, (begin, change) in enumerate(changes):
        now.seconds = begin
        for node, what in change.items():
            circuit.apply(node, what)
            plain.apply(node, what)
            applied[node] = what
        held = np.array([applied[node].kind == "voltage" for node in range(9)])
        settled = plain.potentials()
        expected[held] = settled[held]
        np.testing.assert_allclose(circuit.potentials(), expected, rtol=0, atol=1e-12)
        now.seconds = changes[number + 1][0] if number + 1 < len(changes) else 2e-4
        rows = network.incidence.toarray()[~held]
        rate = (rows * conductances) @ rows.T / farads[~held, None]
        expected[~held] = settled[~held] + expm(-rate * (now.seconds - begin)) @ (expected - settled)[~held]
        np.testing.assert_allclose(circuit.potentials(), expected, rtol=0, atol=1e-12)
        assert circuit.see(4).volts == pytest.approx(expected[4], abs=1e-12)
    now.seconds = 1.0
    np.testing.assert_allclose(circuit.potentials(), plain.potentials(), rtol=0, atol=1e-12)
