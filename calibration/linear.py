"""Linear algebra of information matrices, whose entries span thirty orders of magnitude."""

import numpy as np
from scipy import linalg

from hilcl.arrays import FloatArray


def inverse(matrix: FloatArray) -> FloatArray:
    """Return the inverse of a symmetric positive definite matrix (n, n), itself exactly symmetric.

    The matrix is scaled to a unit diagonal first, which takes out what only units and prior knowledge put in. What
    rounding has left indefinite is inverted with its eigenvalues held at the rounding level.
    """
    scale, scaled = _balanced(matrix)
    try:
        inner = linalg.cho_solve(linalg.cho_factor(scaled, lower=True), np.eye(len(matrix)))
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(scaled)
        inner = (vectors / np.maximum(values, np.finfo(np.float64).eps * len(matrix))) @ vectors.T
    balanced: FloatArray = np.outer(scale, scale) * inner
    return 0.5 * (balanced + balanced.T)


def solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Return x with matrix·x = right, for a symmetric positive definite matrix (n, n) and a vector (n,)."""
    scale, scaled = _balanced(matrix)
    try:
        inner = linalg.cho_solve(linalg.cho_factor(scaled, lower=True), scale * right)
    except linalg.LinAlgError:
        inner = inverse(scaled) @ (scale * right)
    return np.asarray(scale * inner, dtype=np.float64)


def _balanced(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    return scale, matrix * np.outer(scale, scale)
