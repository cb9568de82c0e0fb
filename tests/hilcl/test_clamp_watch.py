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
