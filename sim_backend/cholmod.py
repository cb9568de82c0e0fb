"""CHOLMOD (Chen, Davis, Hager and Rajamanickam, ACM Trans. Math. Softw. 35, 2008) through cvxopt, where installed.

Both are under the GPL; nothing of hilcl needs them.
"""

from typing import Any

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.sim_backend.fixed_pattern import FixedPattern, GroundedEdges
from hilcl.sim_backend.singular import SINGULAR


class CholmodSolver:
    """Supernodal Cholesky factorisation with the pattern analysed once."""

    name = "cholmod"

    def __init__(self, grounded: GroundedEdges) -> None:
        import cvxopt
        from cvxopt import cholmod

        self._matrix_of, self._cholmod = cvxopt.matrix, cholmod
        self._pattern = FixedPattern(grounded, half="lower")
        pattern = self._pattern.matrix
        columns: IntArray = np.repeat(np.arange(grounded.size), np.diff(pattern.indptr))
        self._laplacian = cvxopt.spmatrix(1.0, pattern.indices.tolist(), columns.tolist(), pattern.shape)
        self._factor: Any = cholmod.symbolic(self._laplacian, uplo="L")

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        self._laplacian.V = self._matrix_of(self._pattern.fill_in(conductances).data)
        try:
            self._cholmod.numeric(self._laplacian, self._factor)
        except ArithmeticError as cause:
            raise SolverError(SINGULAR) from cause

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution = self._matrix_of(np.asfortranarray(rhs))
        self._cholmod.solve(self._factor, solution)
        return np.asarray(solution, dtype=np.float64, order="F")
