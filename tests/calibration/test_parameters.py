import numpy as np
import pytest

from hilcl.calibration.parameters import MeterParameters, PotParameters, inl_shapes, law_of
from hilcl.potentiometer import Potentiometer

POTS = (Potentiometer(5, 1000.0, 50.0, 200.0), Potentiometer(9, 2000.0, 30.0, inverted=True))


def parameters() -> PotParameters:
    root = np.random.default_rng(2).standard_normal((6, 6))
    return PotParameters(
        POTS,
        ("R0", "RAB", "INL1"),
        np.array([[250.0, 1000.0, 4.0], [30.0, 2000.0, -3.0]]),
        1e-2 * root @ root.T,
        1e-2 * np.eye(6),
    )


def test_the_law_is_the_potentiometers_where_nothing_bends() -> None:
    for pot in POTS:
        nominal = np.array([pot.series + pot.wiper, pot.end_to_end, 7.0])
        bent = law_of(pot, 1) @ nominal
        np.testing.assert_allclose(law_of(pot, 0) @ nominal[:2], pot.resistances())
        np.testing.assert_allclose(
            bent - pot.resistances(), 7.0 * np.sin(np.pi * np.linspace(0, 1, pot.positions)), atol=1e-9
        )


def test_bows_vanish_at_both_ends() -> None:
    shapes = inl_shapes(POTS[1], 3)
    np.testing.assert_allclose(shapes[[0, -1]], 0.0, atol=1e-15)
    assert (np.abs(shapes[1:-1]).max(axis=0) > 0.5).all()


def test_a_shorter_pot_leaves_its_last_codes_undefined() -> None:
    table = parameters().table
    assert table.shape == (2, 9)
    assert np.isnan(table[0, 5:]).all()
    assert np.isfinite(table[1]).all()
    assert np.isfinite(table[0, :5]).all()


def test_uncertainties_of_codes_follow_from_the_covariance() -> None:
    found = parameters()
    generator = np.random.default_rng(5)
    drawn = generator.multivariate_normal(found.values.ravel(), found.covariance, 20_000).reshape(-1, 2, 3)
    tables = 1.0 / np.einsum("mkq,smq->smk", found.law, drawn)
    np.testing.assert_allclose(found.table_u, tables.std(axis=0), rtol=0.03)
    np.testing.assert_allclose(found.table_statistical**2 + found.table_instrument**2, found.table_u**2)


def test_non_linearity_is_told_in_codes() -> None:
    found = parameters()
    # 1000 Ω over 5 positions is 200 Ω a code, 2000 Ω over 9 (the last of them counts) is 2000/9.
    np.testing.assert_allclose(found.inl_codes[:, 0], [4.0 / 200.0, -3.0 / (2000.0 / POTS[1].divisor)])


def test_the_range_leaves_forbidden_codes_out() -> None:
    allowed = np.ones((2, 9), dtype=np.bool_)
    allowed[:, 0] = False
    table = parameters().device_range(allowed).table
    assert table is not None
    assert np.isnan(table[:, 0]).all()
    np.testing.assert_allclose(table[1, 1:], parameters().table[1, 1:])


def test_meters_are_corrected_with_their_uncertainty() -> None:
    gain, offset = np.array([1.01, np.nan]), np.array([2e-3, np.nan])
    covariance = np.diag([1e-8, 0.0, 4e-8, 0.0])
    meters = MeterParameters(gain, offset, covariance, np.zeros((4, 4)), np.array([3e-4, np.nan]))
    np.testing.assert_allclose(meters.correct(np.array([[1.01 * 2.0 + 2e-3, 1.5]])), [[2.0, 1.5]])
    found = meters.corrected_u(np.array([1.01 * 2.0 + 2e-3, 1.5]))
    assert found[0] == pytest.approx(np.sqrt(9e-8 + 4.0 * 1e-8 + 4e-8) / 1.01)
    assert np.isnan(found[1])
