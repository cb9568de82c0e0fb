"""Clamps that do not take: noticed by the current they do not carry, and never where they rightly carry none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl import Network
from hilcl.arrays import FloatArray
from hilcl.board import Response
from hilcl.clamp_watch import KNOWN_AFTER, ClampWatch
from hilcl.errors import MeasurementError
from hilcl.sim_backend import SimulatedBoard

NETWORK = Network(4, [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]], inputs=[0, 1], outputs=[2, 3])
VOLTS = 2.0
INPUTS = [1.0, 0.0]


def response(clamp: FloatArray, *, cut: int | None = None, offset: float = 0.0, gain: float = 0.0) -> Response:
    """What a board answers to clamps (S, 2), one of them cut off, read by meters with errors of their own."""
    board = SimulatedBoard(NETWORK, [1e-4, 2e-4, 1.5e-4, 1e-4, 3e-4])
    driven = clamp.copy()
    if cut is not None:
        driven[:, cut] = np.nan
    found = board.respond(np.hstack([np.tile(INPUTS, (len(clamp), 1)), driven]))
    outputs = found.potentials.copy()
    outputs[:, 2:] = outputs[:, 2:] * (1 + gain) + offset
    return Response(outputs, found.currents, np.zeros_like(outputs), found.currents_u, found.in_compliance)


def free() -> FloatArray:
    board = SimulatedBoard(NETWORK, [1e-4, 2e-4, 1.5e-4, 1e-4, 3e-4])
    return board.respond([[*INPUTS, np.nan, np.nan]]).potentials[0, 2:]


def moved(*ways: tuple[float, float]) -> FloatArray:
    clamp: FloatArray = free() + np.array(ways)
    return clamp


@given(
    st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), min_size=1, max_size=30),
    st.floats(-2e-3, 2e-3),
    st.floats(-1e-3, 1e-3),
)
def test_clamps_that_take_are_never_doubted(ways: list[tuple[float, float]], offset: float, gain: float) -> None:
    watch = ClampWatch(NETWORK, VOLTS)
    for way in ways:
        clamp = moved(way)
        watch.check(clamp, response(clamp, offset=offset, gain=gain))


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("offset", [0.0, 3e-3])
def test_a_clamp_that_is_cut_off_is_noticed_from_a_millivolt_up(cut: int, offset: float) -> None:
    watch, clamp = ClampWatch(NETWORK, VOLTS), moved((0.05, 0.04), (-0.02, 0.03))
    for _ in range(KNOWN_AFTER):
        watch.check(clamp, response(clamp, offset=offset))
    small = moved((2e-3, -2e-3))
    watch.check(small, response(small, offset=offset))
    with pytest.raises(MeasurementError, match=f"node {2 + cut} carries no current.*check the clamp's relay"):
        watch.check(small, response(small, cut=cut, offset=offset))


def test_before_anything_is_known_only_large_differences_count() -> None:
    clamp = moved((0.05, 0.04))
    ClampWatch(NETWORK, VOLTS).check(moved((5e-3, 0.04)), response(moved((5e-3, 0.04)), cut=0, offset=1e-3))
    with pytest.raises(MeasurementError):
        ClampWatch(NETWORK, VOLTS).check(clamp, response(clamp, cut=0))


def test_without_a_limit_on_the_volts_or_a_reading_of_the_currents_nothing_is_judged() -> None:
    clamp = moved((0.05, 0.04))
    cut = response(clamp, cut=0)
    ClampWatch(NETWORK, np.inf).check(clamp, cut)
    unread = Response(
        cut.potentials, np.full_like(cut.currents, np.nan), cut.potentials_u, cut.currents_u, cut.in_compliance
    )
    ClampWatch(NETWORK, VOLTS).check(clamp, unread)


def through(lead: float, conductances: FloatArray, clamp: FloatArray) -> Response:
    """What a board with other pots answers, its outputs clamped through leads of some ohms."""
    found = SimulatedBoard(NETWORK, conductances).respond(np.hstack([np.tile(INPUTS, (len(clamp), 1)), clamp]))
    potentials = found.potentials.copy()
    potentials[:, 2:] -= lead * found.currents[:, -2:]
    return Response(potentials, found.currents, np.zeros_like(potentials), found.currents_u, found.in_compliance)


@given(
    st.floats(0.0, 30.0),
    st.lists(st.lists(st.floats(1e-4, 3e-4), min_size=5, max_size=5), min_size=2, max_size=8),
)
def test_clamps_through_leads_are_not_doubted_while_the_pots_change(lead: float, boards: list[list[float]]) -> None:
    watch, clamp = ClampWatch(NETWORK, VOLTS), moved((0.05, 0.04), (-0.02, 0.03))
    for conductances in boards:
        watch.check(clamp, through(lead, np.array(conductances), clamp))


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("output", [0, 1])
def test_a_clamp_that_lets_go_after_its_current_was_read_is_noticed(sample: int, output: int) -> None:
    """Its current is that of a clamp that holds, its voltage that of one that does not."""
    watch, clamp = ClampWatch(NETWORK, VOLTS), moved((0.05, 0.04), (-0.02, 0.03))
    watch.check(clamp, response(clamp))
    held, gone = response(clamp), response(clamp, cut=output)
    mixed = held.potentials.copy()
    mixed[sample] = gone.potentials[sample]
    half = Response(mixed, held.currents, held.potentials_u, held.currents_u, held.in_compliance)
    with pytest.raises(MeasurementError, match=f"sample {sample}: node {2 + output} is .* check the clamp's relay"):
        watch.check(clamp, half)
    watch.check(clamp, held)


def test_meters_that_scatter_are_not_doubted_and_steady_ones_show_a_tenth_of_a_millivolt() -> None:
    random, clamp = np.random.default_rng(0), moved((0.05, 0.04), (-0.02, 0.03))
    noisy, steady = ClampWatch(NETWORK, VOLTS), ClampWatch(NETWORK, VOLTS)
    for _ in range(500):
        noisy.check(clamp, response(clamp, offset=random.normal(0.0, 3e-5)))
    for _ in range(KNOWN_AFTER):
        steady.check(clamp, response(clamp))
    with pytest.raises(MeasurementError, match="check the clamp's relay"):
        steady.check(clamp, response(clamp, offset=1e-4))


@given(
    st.sampled_from([0.0, 1e-6, 6e-5, 1e-3, 2e-3]),
    st.sampled_from([0.0, 6.25e-5, 1e-3]),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_noise_and_rounding_are_never_taken_for_a_clamp_that_lets_go(
    noise: float, resolution: float, averages: int, seed: int
) -> None:
    """A single reading states no scatter, and a mean of few may state far too little."""
    random = np.random.default_rng(seed)
    near = free() + 1e-4
    clamp: FloatArray = np.array([near, moved((0.05, 0.04))[0]])
    true = response(clamp)
    watch = ClampWatch(NETWORK, VOLTS)
    for _ in range(100):
        readings = true.potentials + noise * random.standard_normal((averages, *true.potentials.shape))
        if resolution:
            readings = np.rint(readings / resolution) * resolution
        scatter = readings.var(axis=0, ddof=1) / averages if averages > 1 else 0.0
        stated = np.sqrt(scatter + np.full(true.potentials.shape, resolution**2 / 12))
        watch.check(clamp, Response(readings.mean(axis=0), true.currents, stated, true.currents_u, true.in_compliance))
