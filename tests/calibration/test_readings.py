from dataclasses import replace

import numpy as np
import pytest

from hilcl.board import Response
from hilcl.calibration.readings import (
    Noise,
    checked,
    measure,
    noise_from_repeats,
    quantum,
    with_swapped_edges,
    with_swapped_nodes,
    without_nodes,
)
from hilcl.errors import ComplianceError, InputError, MeasurementError
from hilcl.network import Network
from hilcl.sim_backend import SimulatedBoard
from tests.calibration.benches import small_bench

NETWORK = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
CODES, DRIVES = np.array([3, 4]), np.array([[1.0, 0.0, np.nan], [0.5, 0.0, 0.2]])


def response() -> Response:
    volts = np.array([[1.0, 0.4, 0.0], [0.5, 0.2, 0.0]])
    amperes = np.array([[1e-3, -1e-3, 0.0], [2e-3, 1e-3, -3e-3]])
    return Response(volts, amperes, np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3), dtype=np.bool_))


def test_a_floating_terminal_has_no_current_reading() -> None:
    record = checked(NETWORK, CODES, DRIVES, response(), None)
    assert np.isnan(record.currents[0, 2])
    assert record.n_readings == 6 + 5
    assert record.ammeters.all()


def test_a_reading_in_compliance_is_refused() -> None:
    limited = np.zeros((2, 3), dtype=np.bool_)
    limited[1, 1] = True
    with pytest.raises(ComplianceError, match="the source at node 2 reached its current limit at 0 V"):
        checked(NETWORK, CODES, DRIVES, replace(response(), in_compliance=limited), None)


@pytest.mark.parametrize(
    ("value", "sentence"), [(9.9e37, "meter at node 1 returned 9.9e\\+37 V, its sign for overflow")]
)
def test_overflow_is_refused(value: float, sentence: str) -> None:
    answer = response()
    answer.potentials[1, 1] = value
    with pytest.raises(MeasurementError, match=sentence):
        checked(NETWORK, CODES, DRIVES, answer, None)


def test_overflow_of_an_ammeter_is_refused() -> None:
    answer = response()
    answer.currents[0, 1] = -9.9e37
    with pytest.raises(MeasurementError, match=r"ammeter at node 2 returned -9.9e\+37 A"):
        checked(NETWORK, CODES, DRIVES, answer, None)


def test_a_meter_that_falls_silent_is_refused() -> None:
    answer = response()
    answer.potentials[1, 1] = np.nan
    with pytest.raises(MeasurementError, match="the meter at node 1 returned no number"):
        checked(NETWORK, CODES, DRIVES, answer, None)


def test_a_node_without_a_meter_is_no_fault_unless_it_should_have_one() -> None:
    answer = response()
    answer.potentials[:, 1] = np.nan
    assert checked(NETWORK, CODES, DRIVES, answer, None).metered.tolist() == [True, False, True]
    with pytest.raises(MeasurementError, match="node 1"):
        checked(NETWORK, CODES, DRIVES, answer, np.array([True, True, True]))


def test_measuring_programs_exactly_the_codes() -> None:
    bench = small_bench()
    codes = np.arange(12) * 3
    measure(bench, codes, np.zeros((1, 5)))
    np.testing.assert_allclose(bench.simulated.true_conductances, bench.truth[np.arange(12), codes])


def test_a_board_without_codes_is_refused() -> None:
    with pytest.raises(InputError, match="devices have codes"):
        measure(SimulatedBoard(NETWORK, 1e-3), CODES, DRIVES)


def test_the_quantum_of_readings_is_found() -> None:
    generator = np.random.default_rng(0)
    values = generator.uniform(0.0, 4.0, 300)
    assert quantum(np.rint(values / 125e-6) * 125e-6) == pytest.approx(125e-6, rel=1e-6)
    assert quantum(values) == 0.0
    assert quantum(np.array([1.0, 1.5, 2.0])) == 0.0


def test_noise_comes_from_repeats() -> None:
    generator = np.random.default_rng(1)
    groups = [generator.normal(level, [1e-4, 1e-4, 1e-4, 2e-3], (50, 4)) for level in range(8)]
    found = noise_from_repeats(groups, groups, 1e-9)
    np.testing.assert_allclose(found, [1e-4, 1e-4, 1e-4, 2e-3], rtol=0.1)
    same = [group[:, :3] for group in groups]
    alike = noise_from_repeats(same, same, 1e-9)
    assert np.ptp(alike) == 0.0


def test_steady_readings_of_coarse_meters_are_not_without_noise() -> None:
    levels = np.rint(np.linspace(0.0, 1.0, 20) ** 2 / 1e-3)[:, None] * 1e-3 * np.ones(2)
    groups = [np.repeat(level[None], 4, axis=0) for level in levels]
    np.testing.assert_allclose(noise_from_repeats(groups, groups, 1e-9), 1e-3 / np.sqrt(12.0), rtol=1e-6)


def test_channels_without_readings_have_no_noise() -> None:
    groups = [np.array([[1.0, np.nan], [1.0, np.nan]])]
    found = noise_from_repeats(groups, groups, 1e-6)
    assert found[0] == 1e-6
    assert np.isnan(found[1])


def test_noise_is_looked_up_by_kind_and_place() -> None:
    noise = Noise(np.array([1.0, 2.0]), np.array([5.0])).scaled(2.0, 3.0)
    np.testing.assert_array_equal(noise.at(np.array([True, False]), np.array([1, 0])), [4.0, 15.0])


def test_swapping_twice_changes_nothing() -> None:
    record = checked(NETWORK, CODES, DRIVES, response(), None)
    (swapped,) = with_swapped_edges([record], 0, 1)
    assert swapped.codes.tolist() == [4, 3]
    (back,) = with_swapped_edges([swapped], 0, 1)
    assert back.codes.tolist() == [3, 4]
    (moved,) = with_swapped_nodes([record], 0, 2)
    np.testing.assert_array_equal(moved.potentials[:, 2], record.potentials[:, 0])
    (less,) = without_nodes([record], [1])
    assert less.metered.tolist() == [True, False, True]
    assert record.metered.all()
