import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from hilcl.calibration.compare import Comparison, compare
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.parameters import MeterParameters, PotParameters
from tests.calibration.samples import IDENTITIES, MADE, POT, calibration, meters, pots

LATER = MADE + timedelta(days=30)


def moved(before: PotParameters, edge: int, *, fixed: float = 0.0, track: float = 0.0) -> PotParameters:
    values = before.values.copy()
    values[edge] *= [1 + fixed, 1 + track]
    return dataclasses.replace(before, values=values)


def remeasured(before: PotParameters, seed: int) -> PotParameters:
    """Return what a second calibration of an unchanged board finds: other statistical errors, the same instruments."""
    noise = np.random.default_rng(seed).multivariate_normal(np.zeros(before.values.size), before.statistical)
    return dataclasses.replace(before, values=before.values + noise.reshape(before.values.shape))


def later(changed: PotParameters, **more: object) -> Calibration:
    return calibration(pots=changed, created=LATER, **more)  # type: ignore[arg-type]


def test_a_calibration_does_not_differ_from_itself() -> None:
    found = compare(calibration(), later(pots()))
    assert found.moved == ()
    assert found.days == pytest.approx(30)
    assert all(each.relative == 0 and each.sigmas == 0 and each.probability == 1 for each in found.edges)
    assert not any(each.moved for each in found.meters)
    assert found.common == 0.0


@pytest.mark.parametrize(("fixed", "track", "code"), [(0.02, 0.0, 0), (0.0, -0.02, POT.positions - 1)])
def test_the_edge_that_moved_is_named_with_its_code(fixed: float, track: float, code: int) -> None:
    found = compare(calibration(), later(moved(pots(), 4, fixed=fixed, track=track)))
    assert [each.edge for each in found.moved] == [4]
    each = found.edges[4]
    before, after = pots().table[4], moved(pots(), 4, fixed=fixed, track=track).table[4]
    change = after / before - 1
    assert each.code == code
    assert each.relative == pytest.approx(change[code])
    assert each.relative_rms == pytest.approx(np.sqrt((change**2).mean()))


def test_the_units_are_standard_uncertainties_of_the_difference() -> None:
    shift = 5e-3
    found = compare(calibration(), later(moved(pots(), 4, fixed=shift)))
    # One parameter of relative uncertainty 1e-3, half its variance statistical, twice measured.
    assert found.edges[4].sigmas == pytest.approx(shift / 1e-3, rel=0.01)
    assert found.edges[4].probability == pytest.approx(np.exp(-0.5 * (shift / 1e-3) ** 2), rel=0.01)


def test_the_order_does_not_matter() -> None:
    first, second = calibration(), later(moved(pots(), 4, fixed=0.02))
    assert compare(second, first) == compare(first, second)


def test_unchanged_boards_are_rarely_said_to_have_moved() -> None:
    named = sum(
        bool(compare(calibration(), later(remeasured(remeasured(pots(), s), s + 999))).moved) for s in range(60)
    )
    assert named <= 4


def test_an_exchanged_instrument_widens_the_units() -> None:
    change = moved(pots(), 4, fixed=4.5e-3)
    same = compare(calibration(), later(change))
    other = compare(calibration(), later(change, identities=IDENTITIES | {"source a": "KEITHLEY,2450,1,1.0"}))
    assert other.devices == ("source a: KEITHLEY,2450,04312345,1.7.12, now KEITHLEY,2450,1,1.0",)
    assert same.devices == ()
    assert other.edges[4].sigmas < 0.75 * same.edges[4].sigmas


def test_warming_shows_in_all_tracks_together() -> None:
    warm = dataclasses.replace(pots(), values=pots().values * [1.0, 1.007])
    found = compare(calibration(), later(warm))
    assert found.common == pytest.approx(0.007, rel=1e-6)
    assert found.common_u == pytest.approx(1e-3 / np.sqrt(12), rel=0.05)
    assert len(found.moved) == 12


def shifted(before: MeterParameters, node: int, gain: float, offset: float) -> MeterParameters:
    at = np.arange(len(before.gain)) == node
    return dataclasses.replace(before, gain=before.gain + gain * at, offset=before.offset + offset * at)


def test_meters_that_moved_are_named() -> None:
    second = calibration(meters=shifted(meters(), 5, 0.0, 2e-4), created=LATER)
    found = compare(calibration(), second)
    (node,) = (each for each in found.meters if each.moved)
    assert node.node == 5
    assert node.gain == pytest.approx(0.0, abs=1e-9)
    assert node.offset == pytest.approx(2e-4, abs=1e-9)
    assert node.sigmas == pytest.approx(2e-4 / 5e-6, rel=0.01)


def test_nodes_without_a_meter_are_left_out() -> None:
    found = compare(calibration(meters=meters(unread=(2,))), later(pots()))
    assert [each.node for each in found.meters] == [0, 1, 3, 4, 5, 6]


def test_a_parameter_without_uncertainty_is_no_change() -> None:
    certain = dataclasses.replace(pots(), statistical=np.zeros((24, 24)))
    found: Comparison = compare(calibration(pots=certain), later(certain))
    assert found.moved == ()
    assert all(each.probability == 1.0 for each in found.edges)


def test_different_boards_and_laws_cannot_be_compared() -> None:
    other = dataclasses.replace(POT, end_to_end=50e3)
    with pytest.raises(CalibrationError, match="different boards"):
        compare(calibration(), later(pots(pot=other)))
    with pytest.raises(CalibrationError, match="R0, RAB and R0, RAB, INL1"):
        compare(calibration(), later(pots(terms=1)))
    usable = np.zeros((12, POT.positions), dtype=np.bool_)
    usable[:, :10] = True
    with pytest.raises(CalibrationError, match="no code of edge 0 in common"):
        compare(calibration(usable=usable), later(pots(), usable=~usable))
