import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hilcl.network import Network
from hilcl.plausibility import Plausibility
from hilcl.sim_backend import SimulatedBoard

NETWORK = Network.grid(3, 3, inputs=[0, 8], outputs=[2])
NOBODY = np.full(9, np.nan)
DRIVE = np.array([1.0, 0.0, np.nan])


def potentials(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What ideal meters read on a board of random resistors."""
    conductances = 10 ** np.random.default_rng(seed).uniform(-6, -2, NETWORK.n_edges)
    read: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        SimulatedBoard(NETWORK, conductances).respond(DRIVE[None, :]).potentials[0]
    )
    return read.copy()


@given(st.integers(0, 10_000))
def test_no_board_of_resistors_is_doubted(seed: int) -> None:
    read = potentials(seed)
    assert Plausibility(NETWORK, 1.0).doubt(DRIVE, read, read) is None


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 5, 6, 7]), st.sampled_from([-1.2, 1.2]))
def test_a_reading_outside_its_neighbours_is_doubted(seed: int, node: int, off: float) -> None:
    read = potentials(seed)
    read[node] += off
    doubt = Plausibility(NETWORK, 1.0).doubt(DRIVE, read, NOBODY)
    assert doubt is not None
    assert "neighbours lie between" in doubt


def test_a_driven_node_need_not_lie_between_its_neighbours() -> None:
    read = potentials(1)
    assert read[0] == read.max()
    assert Plausibility(NETWORK, 1.0).doubt(DRIVE, read, NOBODY) is None


def test_a_node_beside_one_that_is_not_read_is_not_judged() -> None:
    read = potentials(1)
    read[4] += 5.0
    read[[1, 3, 5, 7]] = np.nan
    assert Plausibility(NETWORK, 1.0).doubt(DRIVE, read, NOBODY) is None


def test_source_and_meter_must_agree() -> None:
    read = potentials(1)
    sourced = np.full(9, np.nan)
    sourced[2] = read[2] + 0.03
    assert "on its meter and" in str(Plausibility(NETWORK, 1.0).doubt(DRIVE, read, sourced))
    sourced[2] = read[2] + 0.01
    assert Plausibility(NETWORK, 1.0).doubt(DRIVE, read, sourced) is None


def test_readings_that_scatter_are_none() -> None:
    checks = Plausibility(NETWORK, 1.0)
    assert "the readings of node 4 scatter by 0.006 V" in str(checks.scattered([3, 4], np.array([0.001, 0.006])))
    assert checks.scattered([3, -1], np.array([0.001, 0.006])) is None


def test_without_a_limit_nothing_is_doubted() -> None:
    checks = Plausibility(NETWORK, np.inf)
    assert checks.doubt(DRIVE, np.arange(9.0) * 100, NOBODY) is None
    assert checks.scattered([1], np.array([100.0])) is None
