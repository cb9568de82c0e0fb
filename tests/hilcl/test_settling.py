"""How long a board settles, against the exact transient of its resistors and capacitors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from hilcl import Network
from hilcl.arrays import FloatArray
from hilcl.errors import ExperimentError, MeasurementError
from hilcl.settle_section import SettleSection
from hilcl.settling import LADDER, measured_settling, settling_of, settling_time, time_constant

GRID = Network.grid(3, 4, inputs=[0, 11], outputs=[3, 8])


def laplacian(network: Network, conductances: FloatArray) -> FloatArray:
    incidence = network.incidence.toarray()
    return np.asarray((incidence * conductances) @ incidence.T)


def test_one_node_has_the_time_constant_of_the_textbook() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    conductances, farads = np.array([1e-4, 3e-4]), np.full(3, 100e-12)
    assert time_constant(network, conductances, farads) == pytest.approx(100e-12 / 4e-4, rel=1e-12)
    assert settling_time(network, conductances, farads, 1e-3) == pytest.approx(math.log(1e3) * 2.5e-7, rel=1e-12)


def test_a_board_without_floating_nodes_needs_no_time() -> None:
    network = Network(2, [[0, 1]], [0, 1], [])
    assert settling_time(network, np.ones(1), np.ones(2), 1e-5) == 0.0
    assert time_constant(network, np.ones(1), np.ones(2)) == 0.0


@given(st.integers(0, 10_000), st.sampled_from([1e-2, 1e-4, 1e-6]), st.booleans())
def test_no_node_is_further_off_than_asked_for(seed: int, accuracy: float, clamped: bool) -> None:
    generator = np.random.default_rng(seed)
    conductances = 10 ** generator.uniform(-6, -3, GRID.n_edges)
    farads = 10 ** generator.uniform(-11, -9, GRID.n_nodes)
    floating = np.setdiff1d(np.arange(GRID.n_nodes), GRID.terminals if clamped else GRID.inputs)
    seconds = settling_time(GRID, conductances, farads, accuracy)
    decay = expm(-seconds * laplacian(GRID, conductances)[np.ix_(floating, floating)] / farads[floating, None])
    # Rows of the decay summed: the worst that starting points between −1 and 1 leave.
    assert np.abs(decay).sum(axis=1).max() <= accuracy * (1 + 1e-6)
    if not clamped:
        # And not far more than needed: the bound loses a factor √(ΣC/C) at most.
        slowest = time_constant(GRID, conductances, farads)
        assert np.abs(decay).sum(axis=1).max() >= accuracy * (farads[floating].min() / farads[floating].sum()) / 2
        assert seconds < (math.log(1 / accuracy) + 5) * slowest


def test_lower_conductances_settle_slower() -> None:
    farads = np.full(GRID.n_nodes, 1e-10)
    high = np.full(GRID.n_edges, 1e-3)
    for edge in range(GRID.n_edges):
        low = high.copy()
        low[edge] = 1e-5
        assert time_constant(GRID, low, farads) >= time_constant(GRID, high, farads)


def test_large_boards_find_the_same_time_constant() -> None:
    network = Network.grid(18, 18, inputs=[0, 323], outputs=[17])
    generator = np.random.default_rng(5)
    conductances = generator.uniform(1e-5, 1e-3, network.n_edges)
    farads = generator.uniform(1e-11, 1e-10, network.n_nodes)
    floating = network.floating
    root = 1 / np.sqrt(farads[floating])
    exact = np.linalg.eigvalsh(laplacian(network, conductances)[np.ix_(floating, floating)] * root[:, None] * root)[0]
    assert time_constant(network, conductances, farads) == pytest.approx(1 / exact, rel=1e-9)
    assert time_constant(network, conductances, farads) == time_constant(network, conductances, farads)


def test_the_section_says_how() -> None:
    fixed = SettleSection.model_validate({"seconds": "3 ms"})
    assert settling_of(fixed, GRID)(np.ones(GRID.n_edges)) == 3e-3
    conductances = np.full(GRID.n_edges, 1e-4)
    one = SettleSection.model_validate({"capacitance": "100 pF", "accuracy": 1e-4, "sources": "50 µs"})
    seconds = settling_time(GRID, conductances, np.full(12, 100e-12), 1e-4)
    assert settling_of(one, GRID)(conductances) == pytest.approx(50e-6 + seconds, rel=1e-12)
    each = SettleSection.model_validate({"capacitance": ["100 pF"] * 12, "accuracy": "0.01 %", "sources": "50 µs"})
    assert settling_of(each, GRID)(conductances) == pytest.approx(50e-6 + seconds, rel=1e-12)
    with pytest.raises(ExperimentError, match=r"capacitance lists 2 values, but the board has 12 nodes"):
        settling_of(SettleSection.model_validate({"capacitance": ["1 pF", "1 pF"]}), GRID)


@given(st.floats(2e-5, 6e-3), st.integers(0, 1000), st.sampled_from([0.0, 1e-5]))
def test_a_board_is_watched_until_its_readings_stay(tau: float, seed: int, noise: float) -> None:
    generator = np.random.default_rng(seed)

    def response(seconds: float) -> FloatArray:
        left = 1.0 if seconds < 0 else math.exp(-seconds / tau)
        return np.array([0.7 * (1 - left), math.nan, 0.0]) + noise * generator.uniform(-1, 1, 3)

    seconds = measured_settling(response, 1e-3)
    # Never shorter than what the readings need, and a little longer than what left them still.
    assert math.exp(-seconds / tau) < 1e-3
    assert seconds <= max(1.5 * 1.2 * tau * math.log(1e3), 1.5 * LADDER[-1])


def test_a_board_that_does_not_come_to_rest_or_does_not_move_is_an_error() -> None:
    with pytest.raises(MeasurementError, match=r"the board still moves 0\.05 s after"):
        measured_settling(lambda seconds: np.array([1 - math.exp(-max(seconds, 0) / 0.1)]), 1e-3)
    with pytest.raises(MeasurementError, match="no reading changed with the drives"):
        measured_settling(lambda _: np.array([0.3, math.nan]), 1e-3)
