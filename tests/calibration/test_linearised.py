import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.calibration.linearised import LinearisedReadings, linearised_readings
from hilcl.network import Network
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard
from tests.sim_backend.boards import networks


def model_of(
    network: Network, g: np.typing.NDArray[np.float64], driven: np.typing.NDArray[np.bool_], load: float = 0.0
) -> LinearisedReadings:
    everywhere = np.ones(network.n_nodes, dtype=np.bool_), np.ones(len(network.terminals), dtype=np.bool_)
    return linearised_readings(network, g, driven, *everywhere, np.full(network.n_nodes, load))


@given(st.data(), networks(min_terminals=2))
def test_readings_are_those_of_the_exact_board(data: st.DataObject, network: Network) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    g = np.exp(generator.uniform(np.log(1e-4), np.log(1e-3), network.n_edges))
    count = len(network.terminals)
    driven = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    driven[: len(network.inputs)] = True
    drives = np.where(driven, generator.uniform(-2, 2, (3, count)), np.nan)
    response = SimulatedBoard(network, g).respond(drives)
    model = model_of(network, g, driven)
    u = drives[:, driven]
    np.testing.assert_allclose(u @ model.design[: network.n_nodes].T, response.potentials, atol=1e-11)
    np.testing.assert_allclose(u @ model.design[network.n_nodes :].T, response.currents[:, driven], atol=1e-14)
    v = network.edge_voltages(response.potentials)
    np.testing.assert_allclose(u @ model.edge_voltages.T, v, atol=1e-11)
    assert model.terminals.tolist() == np.flatnonzero(driven).tolist()


@given(st.data(), networks(min_terminals=2), st.floats(0.1, 5.0))
def test_a_change_of_any_size_acts_as_a_current_at_its_ends(
    data: st.DataObject, network: Network, factor: float
) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    g = np.exp(generator.uniform(np.log(1e-4), np.log(1e-3), network.n_edges))
    edge = data.draw(st.integers(0, network.n_edges - 1))
    after = g.copy()
    after[edge] *= factor
    driven = np.arange(len(network.terminals)) < len(network.inputs)
    u = generator.uniform(-2, 2, (4, len(network.inputs)))
    before, later = model_of(network, g, driven), model_of(network, after, driven)
    current = (after - g)[edge] * (u @ later.edge_voltages[edge])
    change = np.outer(current, before.injection[:, edge])
    missed = np.abs(u @ (later.design - before.design).T - change)
    assert missed[:, : network.n_nodes].max() < 1e-10
    assert missed[:, network.n_nodes :].max() < 1e-13


def test_meters_may_load_the_board() -> None:
    network = Network.grid(3, 3, inputs=[0, 8], outputs=[4])
    g = np.linspace(1e-4, 5e-4, network.n_edges)
    board = SimulatedBoard(network, g, imperfections=Imperfections(meters=MeterDefects(input_resistance=1e5)))
    drives = np.array([[1.0, -0.5, np.nan], [0.3, 2.0, np.nan]])
    response = board.respond(drives)
    model = model_of(network, g, np.array([True, True, False]), load=1e-5)
    expected = np.hstack([response.potentials, response.currents[:, :2]])
    np.testing.assert_allclose(drives[:, :2] @ model.design.T, expected, rtol=1e-9)


def test_only_what_is_read_has_a_row() -> None:
    network = Network.crossbar(2, 2)
    read = np.array([True, False, False, True])
    model = linearised_readings(
        network, np.full(4, 1e-4), np.array([True, True, False, True]), read, read[[1, 0, 2, 3]], np.zeros(4)
    )
    assert model.nodes.tolist() == [0, 3]
    assert model.terminals.tolist() == [1, 3]
    assert model.design.shape == (4, 3)
    assert model.injection.shape == (4, 4)
    assert model.design[0] == pytest.approx([1.0, 0.0, 0.0])
