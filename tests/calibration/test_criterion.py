import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.arrays import FloatArray
from hilcl.calibration.criterion import NORM, Criterion
from hilcl.calibration.linear import inverse

SIZE, NUISANCES, GAINS = 12, 4, 20
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return directions (D, F), an information (F, F) and gains (C, F, F) of low rank and of many sizes."""
    generator = np.random.default_rng(seed)
    directions = np.zeros((SIZE - NUISANCES, SIZE))
    directions[:, NUISANCES:] = generator.standard_normal((SIZE - NUISANCES, SIZE - NUISANCES))
    rows = generator.standard_normal((GAINS + 1, 6, SIZE)) * 10.0 ** generator.uniform(0.0, 2.0, (GAINS + 1, 1, 1))
    gains = np.swapaxes(rows, 1, 2) @ rows
    return directions, np.eye(SIZE) + gains[-1], gains[:-1]


def value(directions: FloatArray, information: FloatArray) -> float:
    """Return the criterion from its definition."""
    variances = np.diagonal(directions @ np.linalg.inv(information) @ directions.T)
    return float((variances**NORM).sum() ** (-1.0 / NORM))


@given(SEEDS)
def test_values_are_those_of_the_definition(seed: int) -> None:
    directions, information, _ = drawn(seed)
    criterion = Criterion(directions)
    assert criterion.value(information) == pytest.approx(value(directions, information), rel=1e-9)
    covariance = directions @ inverse(information) @ directions.T
    np.testing.assert_allclose(criterion.variances(information), np.diagonal(covariance), rtol=1e-9)


@given(SEEDS)
def test_a_tangent_touches_and_lies_above(seed: int) -> None:
    directions, information, gains = drawn(seed)
    criterion = Criterion(directions)
    tangent = criterion.tangent(information)
    assert (tangent * information).sum() == pytest.approx(value(directions, information), rel=1e-9)
    for gain in gains:
        assert (tangent * (information + gain)).sum() >= value(directions, information + gain) * (1 - 1e-9)


@given(SEEDS, st.floats(0.0, 6.0))
def test_the_best_of_all_is_found(seed: int, known: float) -> None:
    directions, information, gains = drawn(seed)
    information = 10.0**known * information
    values = [value(directions, information + gain) for gain in gains]
    best = Criterion(directions).best(information, gains)
    assert values[best] == pytest.approx(max(values), rel=1e-9)


def test_most_need_not_be_computed_once_much_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    directions, information, gains = drawn(3)
    criterion = Criterion(directions)
    computed = []

    def counted(_: Criterion, each: FloatArray) -> float:
        computed.append(each)
        return value(directions, each)

    monkeypatch.setattr(Criterion, "value", counted)
    criterion.best(1e6 * information, gains)
    assert 1 <= len(computed) <= GAINS // 4


def test_what_rounding_left_indefinite_is_judged_too() -> None:
    directions, _, _ = drawn(0)
    information = np.eye(SIZE)
    information[0, 1] = information[1, 0] = 1.0 + 1e-15
    variances = Criterion(directions).variances(information)
    np.testing.assert_allclose(variances, (directions**2).sum(axis=1), rtol=1e-9)
