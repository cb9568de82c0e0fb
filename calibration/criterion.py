"""What makes one set of patterns better than another: a concave function of the information they give.

With v_d = a_dᵀ X⁻¹ a_d the relative variances and X the information, 1/v_d is a minimum over linear functions of X, so
concave; φ(X) = (Σ_d v_d^p)^(−1/p) is an increasing concave function of the 1/v_d, so concave in X too, and of degree 1:
an information function (F. Pukelsheim, Optimal Design of Experiments, chapter 5). Its tangents ⟨∇φ(Y), X⟩ lie above it.
"""

import numpy as np
from scipy import linalg, sparse
from scipy.linalg import lapack

from hilcl.arrays import FloatArray
from hilcl.calibration.linear import inverse

NORM = 4
"""Exponent p of the norm of the relative variances: high enough that the worst edges decide."""

RESOLVED = 1e-13
"""Part of what was expected to vary in a pattern's readings that counts as noise of each: what rounding leaves."""

ROUNDING = 1e-5
"""How far rounding may put a bound below what it bounds, relative."""


class Criterion:
    """Judges information matrices X (F, F), symmetric positive definite.

    ``directions`` (D, F): a_d of every relative variance. It is fastest where columns that are 0 throughout come first.
    """

    def __init__(self, directions: FloatArray) -> None:
        self._first = int(np.argmax(directions.any(axis=0)))
        self._dense = directions[:, self._first :]
        self._sparse = sparse.csr_array(self._dense)

    def variances(self, information: FloatArray) -> FloatArray:
        """Return the relative variances (D,)."""
        first = self._first
        try:
            # A symmetric matrix is its own transpose, which LAPACK takes without turning it.
            factor = linalg.cholesky(information.T, lower=True, check_finite=False)
            corner, _ = lapack.dtrtri(factor[first:, first:], lower=1)
        except linalg.LinAlgError:
            return self._along(self._seen(inverse(information)[first:, first:]))
        return np.asarray((self._seen(corner.T) ** 2).sum(axis=1), dtype=np.float64)

    def _seen(self, matrix: FloatArray) -> FloatArray:
        """Return a·matrix of every direction a, by its few entries that are not 0."""
        return np.asarray(self._sparse @ matrix, dtype=np.float64)

    def _along(self, seen: FloatArray) -> FloatArray:
        """Return a·seen of every direction a, with what was seen of its own."""
        along: FloatArray = np.maximum(np.einsum("df,df->d", self._dense, seen), 0.0)
        return along

    def value(self, information: FloatArray) -> float:
        """Return φ: the larger, the better."""
        return float((self.variances(information) ** NORM).sum() ** (-1.0 / NORM))

    def tangent(self, information: FloatArray) -> FloatArray:
        """Return ∇φ (F, F), with φ(X) ≤ ⟨∇φ, X⟩ for every X, and equal for ``information``."""
        seen = self._seen(inverse(information)[self._first :])
        variances = self._along(seen[:, self._first :])
        weights = variances ** (NORM - 1) * (variances**NORM).sum() ** (-1.0 / NORM - 1.0)
        tangent: FloatArray = (seen.T * weights) @ seen
        return tangent

    def best(self, information: FloatArray, gains: FloatArray) -> int:
        """Return which of ``gains`` (C, F, F) makes the most of ``information`` when added to it.

        Those that a tangent in their midst puts below the best so far cannot be better, and are not computed.
        """
        flat = gains.reshape(len(gains), -1)
        trusted = 1.0 / (1.0 + RESOLVED * (flat @ inverse(information).ravel()))
        tangent = self.tangent(information + np.tensordot(trusted / len(gains), gains, axes=1)).ravel()
        bounds = (1.0 + ROUNDING) * (trusted * (flat @ tangent) + information.ravel() @ tangent)
        best, best_value = 0, -np.inf
        for number in np.argsort(-bounds, kind="stable").tolist():
            if bounds[number] < best_value:
                break
            value = self.value(information + trusted[number] * gains[number])
            if value > best_value:
                best, best_value = number, value
        return best
