import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hilcl.arrays import FloatArray
from hilcl.network import Network
from hilcl.plausibility import Plausibility
from hilcl.sim_backend import SimulatedBoard

NETWORK = Network.grid(3, 3, inputs=[0, 8], outputs=[2])
NOBODY = np.full(9, np.nan)
DRIVE = np.array([1.0, 0.0, np.nan])


def board(seed: int) -> SimulatedBoard:
    """A board of random resistors."""
    return SimulatedBoard(NETWORK, 10 ** np.random.default_rng(seed).uniform(-6, -2, NETWORK.n_edges))


def potentials(seed: int) -> FloatArray:
    """What ideal meters read on it."""
    read: FloatArray = board(seed).respond(DRIVE[None, :]).potentials[0].copy()
    return read


def doubted(
    read: FloatArray, sourced: FloatArray, seed: int = 1, off: FloatArray | float = 1.0, told: float = 1.0
) -> str | None:
    """What is doubted where pots are believed to be ``off`` by a factor, and sources tell ``told`` of theirs."""
    there = board(seed)
    currents = told * there.respond(DRIVE[None, :]).currents[0]
    return Plausibility(NETWORK, 1.0).doubt(DRIVE, read, sourced, off * there.conductances, currents)


@given(st.integers(0, 10_000))
def test_no_board_of_resistors_is_doubted(seed: int) -> None:
    read = potentials(seed)
    assert doubted(read, read, seed) is None


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 5, 6, 7]), st.sampled_from([-1.2, 1.2]))
def test_a_reading_outside_its_neighbours_is_doubted(seed: int, node: int, off: float) -> None:
    read = potentials(seed)
    read[node] += off
    doubt = doubted(read, NOBODY, seed)
    assert doubt is not None
    assert "neighbours lie between" in doubt


def test_a_driven_node_need_not_lie_between_its_neighbours() -> None:
    read = potentials(1)
    assert read[0] == read.max()
    assert doubted(read, NOBODY) is None


def test_a_node_beside_one_that_is_not_read_is_not_judged() -> None:
    read = potentials(1)
    read[4] += 5.0
    read[[1, 3, 5, 7]] = np.nan
    assert doubted(read, NOBODY) is None


def test_source_and_meter_must_agree() -> None:
    read = potentials(1)
    sourced = np.full(9, np.nan)
    sourced[2] = read[2] + 0.03
    assert "on its meter and" in str(doubted(read, sourced))
    sourced[2] = read[2] + 0.01
    assert doubted(read, sourced) is None


@given(st.integers(0, 10_000))
def test_pots_that_are_a_third_off_are_not_doubted(seed: int) -> None:
    off = np.random.default_rng(seed).uniform(0.75, 1.33, NETWORK.n_edges)
    read = potentials(seed)
    assert doubted(read, read, seed, off) is None
    assert doubted(read, read, seed, off, told=0.0) is None


def test_a_source_that_is_cut_off_from_a_node_without_a_meter_is_doubted() -> None:
    read, there = np.full(9, 0.0), board(1)
    read[0] = 1.0
    # It says 1 V and no current, and the rest of the board is at 0 V.
    for currents in (np.zeros(3), np.array([0.0, 1e-4, 0.0])):
        doubt = Plausibility(NETWORK, 1.0).doubt(DRIVE, read, NOBODY, there.conductances, currents)
        assert "come from nowhere: check the output relays" in str(doubt)


def test_readings_that_scatter_are_none() -> None:
    checks = Plausibility(NETWORK, 1.0)
    assert "the readings of node 4 scatter by 0.006 V" in str(checks.scattered([3, 4], np.array([0.001, 0.006])))
    assert checks.scattered([3, -1], np.array([0.001, 0.006])) is None


def test_without_a_limit_nothing_is_doubted() -> None:
    checks = Plausibility(NETWORK, np.inf)
    assert checks.doubt(DRIVE, np.arange(9.0) * 100, NOBODY, np.ones(NETWORK.n_edges), np.zeros(3)) is None
    assert checks.scattered([1], np.array([100.0])) is None
