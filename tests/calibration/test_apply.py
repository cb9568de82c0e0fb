import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from hilcl.board import Board, Response
from hilcl.calibration.apply import (
    CalibratedBoard,
    calibrated_range,
    code_table,
    corrected,
    largest_conductances,
    relative_uncertainty,
    step_size_margin,
    twin_of,
    watch_reference,
)
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.parameters import MeterParameters, PotParameters
from hilcl.calibration.watch import DriftWatch, WatchedBoard
from hilcl.device_range import DeviceRange
from hilcl.learning import ContrastiveLearning
from hilcl.network import Network
from hilcl.sim_backend import Imperfections, MeterDefects, PotDefects, SimulatedBoard, SourceDefects
from hilcl.task import Task
from hilcl.training import train
from tests.calibration.samples import POT, calibration, meters, network, pots, sources

FloatArray = npt.NDArray[np.float64]

DEFECTS = Imperfections(
    PotDefects(tolerance=0.2, wiper_spread=0.3, series_spread=0.01),
    MeterDefects(gain=1e-3, offset=1e-3, noise=3e-5),
    SourceDefects(series=0.5),
)


def board(seed: int = 0, defects: Imperfections = DEFECTS) -> SimulatedBoard:
    """A board whose truth the calibrations here may look at."""
    return SimulatedBoard(network(), 2e-4, DeviceRange.of_pots(POT), defects, seed, pots=POT)


def truth(simulated: SimulatedBoard) -> FloatArray:
    assert simulated._truth.table is not None
    return simulated._truth.table


def known(simulated: SimulatedBoard, u: float = 1e-4) -> Calibration:
    """A good calibration of a simulated board: its true laws and meters."""
    resistances = 1 / truth(simulated)
    travel = POT.travel()
    track = (resistances[:, -1] - resistances[:, 0]) / (travel[-1] - travel[0])
    values = np.column_stack([resistances[:, 0], track])
    spread = np.diag((u * values.ravel()) ** 2) / 2
    nodes = network().n_nodes
    of_meters = MeterParameters(
        simulated._meters.gain,
        simulated._meters.offset,
        np.diag(np.concatenate([np.full(nodes, 1e-6), np.full(nodes, 1e-6)]) ** 2),
        np.zeros((2 * nodes, 2 * nodes)),
        np.full(nodes, 3e-5),
    )
    return calibration(pots=PotParameters((POT,) * 12, ("R0", "RAB"), values, spread, spread), meters=of_meters)


def task(samples: int = 12) -> Task:
    inputs = np.random.default_rng(1).uniform(0, 2, (samples, 4))
    return Task(inputs, inputs @ np.random.default_rng(2).dirichlet(np.ones(4), 3).T)


def test_codes_are_chosen_and_written_by_their_true_worth() -> None:
    simulated = board()
    calibrated = CalibratedBoard(simulated, known(simulated))
    wished = np.linspace(1.2e-4, 6e-4, 12)
    realised = calibrated.program(wished)
    np.testing.assert_allclose(realised, simulated.true_conductances, rtol=1e-10)
    nearest = np.abs(truth(simulated) - wished[:, None]).argmin(axis=1)
    np.testing.assert_array_equal(simulated.true_conductances, truth(simulated)[np.arange(12), nearest])
    np.testing.assert_array_equal(calibrated.conductances, realised)
    assert isinstance(calibrated, Board)


def test_the_state_it_starts_in_is_known_too() -> None:
    simulated = board()
    np.testing.assert_allclose(
        CalibratedBoard(simulated, known(simulated)).conductances, simulated.true_conductances, rtol=1e-10
    )


def test_meters_are_corrected() -> None:
    simulated = board()
    drives = np.array([[0.0, 1.0, 2.0, 0.5, np.nan, np.nan, np.nan], [2.0, 0.0, 0.3, 1.0, 0.4, 0.5, 0.6]])
    response = CalibratedBoard(simulated, known(simulated)).respond(drives)
    exact = board(defects=Imperfections(DEFECTS.pots, MeterDefects(), DEFECTS.sources)).respond(drives)
    assert np.abs(response.potentials - exact.potentials).max() < 5 * 3e-5
    assert response.potentials_u.max() < 4e-5
    np.testing.assert_allclose(response.currents, exact.currents)
    assert (response.currents[0, 4:] == 0).all()


def test_training_through_the_calibration_comes_to_the_true_board() -> None:
    simulated = board(3)
    calibrated = CalibratedBoard(simulated, known(simulated))
    steps = list(train(calibrated, task(), ContrastiveLearning("auto"), 60))
    assert steps[-1].loss < 0.2 * steps[0].loss
    np.testing.assert_allclose(steps[-1].conductances, simulated.true_conductances, rtol=1e-10)


def test_where_nothing_is_to_correct_the_board_answers_itself() -> None:
    simulated = board(defects=Imperfections(DEFECTS.pots))
    calibrated = CalibratedBoard(simulated, known(simulated))
    inputs, targets = task().inputs, task().targets
    np.testing.assert_array_equal(
        calibrated.contrast(inputs, targets, 1.0).gradient, simulated.contrast(inputs, targets, 1.0).gradient
    )


def test_codes_that_either_forbids_are_not_used() -> None:
    simulated = board()
    nominal = DeviceRange(1e-5, 6e-4, POT.conductances()).for_edges(12)
    usable = np.ones((12, POT.positions), dtype=np.bool_)
    usable[:, 100:] = False
    table = calibration(usable=usable).table
    both = calibrated_range(nominal, table)
    assert both.table is not None
    allowed = ~np.isnan(both.table)
    assert nominal.table is not None
    np.testing.assert_array_equal(allowed, usable & ~np.isnan(np.broadcast_to(nominal.table, usable.shape)))
    np.testing.assert_array_equal(both.table[allowed], table[allowed])
    with pytest.raises(CalibrationError, match="edge 0 has no code that both"):
        calibrated_range(DeviceRange(7.7e-4, 9e-4, POT.conductances()).for_edges(12), np.where(usable, np.nan, table))
    assert simulated.device_range.is_discrete


def test_a_board_without_codes_or_with_others_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no codes"):
        CalibratedBoard(SimulatedBoard(network(), 1e-4), calibration())
    other = dataclasses.replace(POT, positions=128)
    with pytest.raises(CalibrationError, match="12 edges with 128 codes, the calibration 12 with 129"):
        CalibratedBoard(SimulatedBoard(network(), 2e-4, pots=other), calibration())
    with pytest.raises(CalibrationError, match="16 edges with 129 codes, the calibration 12"):
        CalibratedBoard(SimulatedBoard(Network.crossbar(4, 4), 2e-4, pots=POT), calibration())


def test_the_nominal_table_is_that_of_every_edge() -> None:
    table = code_table(board())
    assert table.shape == (12, POT.positions)
    np.testing.assert_array_equal(table[7], POT.conductances())


def test_readings_of_nodes_without_a_known_meter_stay() -> None:
    unread = meters(unread=(2,))
    volts, amperes = np.full((1, 7), 1.5), np.array([[1e-3, 0, 0, 0, 0, 0, 0.0]])
    given = Response(volts, amperes, np.full((1, 7), 0.1), amperes, np.zeros((1, 7), dtype=np.bool_))
    of_sources = dataclasses.replace(sources(), ammeter_gain=np.full(7, 1.01), ammeter_offset=np.full(7, 1e-6))
    answer = corrected(given, unread, of_sources)
    assert answer.potentials[0, 2] == 1.5
    assert answer.potentials_u[0, 2] == 0.1
    assert answer.potentials[0, 3] == pytest.approx((1.5 - unread.offset[3]) / unread.gain[3])
    assert answer.currents[0, 0] == pytest.approx((1e-3 - 1e-6) / 1.01)
    assert (answer.currents[0, 1:] == 0).all()


def test_the_twin_is_the_board_up_to_what_is_not_known() -> None:
    simulated = board(5)
    twin = twin_of(known(simulated))
    copy = SimulatedBoard(
        network(), 2e-4, twin.device_range, Imperfections(sources=SourceDefects(series=float(twin.source_series[0])))
    )
    drives = np.array([[0.0, 1.0, 2.0, 0.5, np.nan, np.nan, np.nan]])
    exact = SimulatedBoard(
        network(), 2e-4, DeviceRange.of_pots(POT), Imperfections(DEFECTS.pots, sources=DEFECTS.sources), 5, pots=POT
    )
    codes = np.arange(12) * 10
    exact.program(POT.conductances()[codes])
    copy.program(twin.table[np.arange(12), codes])
    np.testing.assert_allclose(copy.respond(drives).potentials, exact.respond(drives).potentials, rtol=1e-9)
    np.testing.assert_allclose(twin.meter_noise, 3e-5, rtol=2e-3)
    assert np.isnan(twin.fixed).all()


def test_twins_drawn_from_the_uncertainty_spread_as_it_says() -> None:
    measured = calibration()
    twin, generator = twin_of(measured), np.random.default_rng(0)
    drawn = np.array([twin.drawn(measured, generator).table for _ in range(400)])
    np.testing.assert_allclose(drawn.mean(axis=0), twin.table, rtol=3e-4)
    np.testing.assert_allclose(drawn.std(axis=0), pots().table_u, rtol=0.2)
    both = np.corrcoef(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]
    assert 0.02 < both < 0.3  # what they share is written in the file


def test_an_edge_that_does_not_follow_its_code_is_fixed_in_the_twin() -> None:
    values = pots().values.copy()
    values[3] = [5000.0, 0.0]
    twin = twin_of(calibration(pots=dataclasses.replace(pots(), values=values)))
    assert twin.fixed[3] == pytest.approx(2e-4)
    assert np.isnan(np.delete(twin.fixed, 3)).all()


def test_limits_and_steps_allow_for_the_uncertainty() -> None:
    measured = calibration()
    relative = relative_uncertainty(measured)
    np.testing.assert_allclose(relative, pots().table_u / pots().table, rtol=1e-3)
    np.testing.assert_allclose(
        largest_conductances(measured), (pots().table * (1 + 3 * relative)).max(axis=1), rtol=1e-4
    )
    assert step_size_margin(measured) == pytest.approx(1 - 3 * relative[:, -1].max(), rel=1e-3)
    assert step_size_margin(calibration(pots=pots(u=0.5))) == 0.5


def test_a_watch_starts_from_the_whole_covariance() -> None:
    reference = watch_reference(calibration(), floor=1e-9)
    table = pots().table
    np.testing.assert_allclose(reference.highest, table.max(axis=1), rtol=1e-9)
    # At the ends of its travel an edge is its fixed part alone, and fixed part and track.
    share = table[:, -1] / table[:, 0]
    weights = np.hstack([np.diag(share), np.diag(1 - share)])
    far = np.sqrt(np.diagonal(weights @ reference.covariance @ weights.T))
    np.testing.assert_allclose(far, pots().table_u[:, -1] / table[:, -1], rtol=1e-3)
    near = np.sqrt(np.diagonal(reference.covariance)[:12])
    np.testing.assert_allclose(near, pots().table_u[:, 0] / table[:, 0], rtol=1e-3)
    assert reference.covariance[0, 1] > 0
    offsets = np.sqrt(np.diagonal(reference.meter_covariance)[:7])
    np.testing.assert_allclose(offsets, 5e-6, rtol=0.1)


def test_a_calibrated_board_is_watched() -> None:
    simulated = board(7)
    measured = known(simulated)
    watched = WatchedBoard(CalibratedBoard(simulated, measured), DriftWatch(network(), watch_reference(measured)))
    for step in train(watched, task(), ContrastiveLearning("auto"), 80):
        if step.epoch == 40:
            truth(simulated)[8] /= 1.02
    assert [alarm.edge for alarm in watched.watch.alarms] == [8]


def test_nodes_without_meters_and_stuck_edges_can_be_watched() -> None:
    values = pots(terms=2).values.copy()
    values[3] = [5000.0, 0.0, 0.0, 0.0]
    measured = calibration(pots=dataclasses.replace(pots(terms=2), values=values), meters=meters(unread=(1,)))
    reference = watch_reference(measured)
    assert np.isfinite(reference.covariance).all()
    assert np.isfinite(reference.meter_noise).all()
    assert (np.linalg.eigvalsh(reference.covariance) > 0).all()
    DriftWatch(network(), reference)
