import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hilcl.calibration.linear import inverse, solve


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_units_do_not_spoil_the_inverse(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((size, 3 * size))
    plain = root @ root.T / size
    units = 10.0 ** generator.uniform(-12.0, 12.0, size)
    matrix = plain * np.outer(units, units)
    np.testing.assert_allclose(inverse(matrix) * np.outer(units, units), np.linalg.inv(plain), rtol=1e-6, atol=1e-9)
    right = generator.standard_normal(size)
    np.testing.assert_allclose(
        solve(matrix, units * right) * units, np.linalg.solve(plain, right), rtol=1e-6, atol=1e-9
    )


def test_what_rounding_left_indefinite_is_inverted_all_the_same() -> None:
    matrix = np.array([[1.0, 1.0 + 1e-14], [1.0 + 1e-14, 1.0]])
    found = inverse(matrix)
    assert np.isfinite(found).all()
    assert (np.linalg.eigvalsh(found) > 0).all()
    assert np.isfinite(solve(matrix, np.array([1.0, 0.0]))).all()
