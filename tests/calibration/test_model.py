import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl.arrays import FloatArray
from hilcl.calibration.model import BoardModel
from hilcl.calibration.readings import measure
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.imperfections import Imperfections, MeterDefects, SourceDefects
from tests.calibration.benches import SMALL_POT, small_board
from tests.sim_backend.boards import networks


def drawn_drives(generator: np.random.Generator, count: int, terminals: int) -> FloatArray:
    """Return drives of which some float, one terminal at least driven in each."""
    drives = generator.uniform(-2.0, 2.0, (count, terminals))
    drives[generator.random(drives.shape) < 0.3] = np.nan
    drives[:, 0] = np.where(np.isnan(drives).all(axis=1), 1.0, drives[:, 0])
    return drives


def perturbed(model: BoardModel, generator: np.random.Generator) -> FloatArray:
    """Return parameters of a board with every imperfection the model knows."""
    layout = model.layout
    theta = model.nominal()
    theta[layout.pots] *= generator.uniform(0.8, 1.2, layout.edges * layout.terms)
    pots = theta[layout.pots].reshape(layout.edges, layout.terms)
    pots[:, 2:] = generator.uniform(-30.0, 30.0, pots[:, 2:].shape)
    pots[model.constant, 0] = 1e-4
    theta[layout.sources] += 1e-3 * generator.standard_normal(5 * layout.terminals)
    theta[layout.of_terminal(2)] = generator.uniform(0.0, 50.0, layout.terminals)
    theta[layout.meters] += 1e-2 * generator.standard_normal(2 * layout.nodes)
    theta[layout.leak] = 1e-6
    return theta


@settings(max_examples=25)
@given(networks(), st.integers(0, 10_000), st.integers(0, 2))
def test_derivatives_agree_with_differences(network: Network, seed: int, terms: int) -> None:
    generator = np.random.default_rng(seed)
    pots = [Potentiometer(int(each), 1e4, 50.0, 500.0) for each in generator.integers(4, 40, network.n_edges)]
    constant = generator.random(network.n_edges) < 0.2
    leaky = generator.random(network.n_nodes) < 0.7
    model = BoardModel(network, pots, terms, leaky=leaky, constant=constant)
    theta = perturbed(model, generator)
    codes = np.array([generator.integers(0, pot.positions) for pot in pots])
    drives = drawn_drives(generator, 3, len(network.terminals))
    metered = generator.random(network.n_nodes) < 0.8
    metered[0] = True
    ammeters = generator.random(len(network.terminals)) < 0.8
    exact = model.predict(theta, codes, drives, metered, ammeters).jacobian
    assert exact is not None
    for number in range(model.layout.size):
        # Steps small beside what bends the response, large beside rounding.
        step = 1e-4 * abs(theta[number]) if theta[number] else 1e-3
        ends = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[number] += sign * step
            ends.append(model.predict(moved, codes, drives, metered, ammeters, jacobian=False).values)
        difference = (ends[0] - ends[1]) / (2.0 * step)
        slack = 1e-5 * float(np.abs(exact[:, number]).max()) + 1e-12 / step
        np.testing.assert_allclose(exact[:, number], difference, rtol=1e-4, atol=slack)


@pytest.mark.parametrize("resistance", [np.inf, 1e6])
def test_predictions_are_what_the_simulated_board_reads(resistance: float) -> None:
    network = small_board()
    generator = np.random.default_rng(3)
    board = SimulatedBoard(
        network,
        1e-4,
        pots=SMALL_POT,
        imperfections=Imperfections(
            meters=MeterDefects(input_resistance=resistance), sources=SourceDefects(series=12.0)
        ),
    )
    model = BoardModel(network, [SMALL_POT] * 12, leaky=np.ones(9, dtype=np.bool_))
    theta = model.nominal()
    theta[model.layout.of_terminal(2)] = 12.0
    theta[model.layout.leak] = 1.0 / resistance
    codes, drives = generator.integers(0, 128, 12), drawn_drives(generator, 6, 5)
    record = measure(board, codes, drives)
    predicted = model.predict(theta, codes, drives, record.metered, record.ammeters)
    readings = model.measured(record, predicted)
    volts = predicted.is_volts
    np.testing.assert_allclose(predicted.values[volts], readings[volts], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(predicted.values[~volts], readings[~volts], rtol=1e-9, atol=1e-14)


def test_a_constant_edge_ignores_its_code() -> None:
    network = small_board()
    constant = np.arange(12) == 4
    model = BoardModel(network, [SMALL_POT] * 12, constant=constant)
    theta = model.nominal()
    theta[4 * 2] = 3e-4
    for code in (0, 100):
        found, slopes = model.conductances(theta, np.full(12, code))
        assert found[4] == 3e-4
        assert slopes[4].tolist() == [1.0, 0.0]
        assert found[3] == pytest.approx(SMALL_POT.conductances()[code])
