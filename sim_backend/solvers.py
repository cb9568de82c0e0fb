"""Factor the Laplacian of the floating nodes once per step and solve it for many right-hand sides.

Every solver answers the same question to the same accuracy; they differ in the boards they are fast on. The
pattern never changes, so each analyses it once and only refactors numbers.
"""

import importlib.util
from typing import Any, Literal, Protocol

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import InputError, SolverError

SolverName = Literal["auto", "dense", "superlu", "qdldl", "fused"]

DENSE_UP_TO = {"qdldl": 80, "superlu": 200}
"""Floating nodes up to which dense LAPACK is faster than the sparse solver at hand (benchmarks/steps.py)."""

DENSE_FILL = 0.3
"""Share of non-zeros in the Laplacian from which a sparse factor would be as full as a dense one."""


RESIDUAL_BOUND = 1e-3
"""Residual in amperes, with 1 A into every node, beyond which a factorisation has lost a pivot."""

DENSE_LIMIT = 4000
"""Floating nodes above which a dense matrix is never made unasked: 128 MB."""


class LaplacianSolver(Protocol):
    """Solves L_FF x = b for the floating nodes F of one network."""

    name: str

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF for conductances (M,) in siemens; raises SolverError where it is singular."""
        ...

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Return x (n, p), columns contiguous, for right-hand sides (n, p) in amperes; x is in volts."""
        ...


class GroundedEdges:
    """The edges as seen by the floating nodes: index arithmetic shared by the solvers.

    ``number`` maps a node to its row in L_FF, −1 for a driven node.
    """

    def __init__(self, n_nodes: int, edges: IntArray, floating: IntArray) -> None:
        self.size = len(floating)
        number = np.full(n_nodes, -1, dtype=np.int64)
        number[floating] = np.arange(self.size)
        first, second = number[edges[:, 0]], number[edges[:, 1]]
        edge = np.arange(len(edges))
        inner = (first >= 0) & (second >= 0)
        self.coupled_edges = edge[inner]
        self.coupled = np.stack([first[inner], second[inner]])
        self.ends = np.stack([first, second], axis=1)
        self.diagonal_edges = np.concatenate([edge[first >= 0], edge[second >= 0]])
        self.diagonal = np.concatenate([first[first >= 0], second[second >= 0]])
        self.fill = min(1.0, (2 * len(self.coupled_edges) + self.size) / max(1, self.size) ** 2)


class DenseSolver:
    """LAPACK Cholesky (dpotrf, dpotrs): for small boards and for dense ones."""

    name = "dense"

    def __init__(self, grounded: GroundedEdges) -> None:
        size = self._size = grounded.size
        below = np.maximum(*grounded.coupled), np.minimum(*grounded.coupled)
        # Lower triangle in Fortran order, so that LAPACK works in place.
        self._cells = np.concatenate([below[1] * size + below[0], grounded.diagonal * (size + 1)])
        self._edges = np.concatenate([grounded.coupled_edges, grounded.diagonal_edges])
        self._signs = np.repeat([-1.0, 1.0], [len(grounded.coupled_edges), len(grounded.diagonal_edges)])
        self._factor: FloatArray | None = None

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        cells = np.bincount(self._cells, weights=conductances.take(self._edges) * self._signs, minlength=self._size**2)
        laplacian = cells.reshape(self._size, self._size).T
        self._factor, failed = lapack.dpotrf(laplacian, lower=1, overwrite_a=1, clean=0)
        if failed:
            raise SolverError(_SINGULAR)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution, _ = lapack.dpotrs(self._factor, rhs, lower=1)
        return np.asarray(solution, dtype=np.float64)


class _FixedPattern:
    """A sparse symmetric matrix whose pattern is fixed and whose numbers come from the conductances."""

    def __init__(self, grounded: GroundedEdges, order: IntArray | None = None, *, upper_only: bool = False) -> None:
        place = np.arange(grounded.size)
        if order is not None:
            place[order] = np.arange(grounded.size)
        first, second = place[grounded.coupled]
        diagonal = place[grounded.diagonal]
        low, high = np.minimum(first, second), np.maximum(first, second)
        mirrored = [] if upper_only else [(high, low)]
        rows = np.concatenate([low, *(pair[0] for pair in mirrored), diagonal])
        columns = np.concatenate([high, *(pair[1] for pair in mirrored), diagonal])
        copies = 1 + len(mirrored)
        self._edges = np.concatenate([*[grounded.coupled_edges] * copies, grounded.diagonal_edges])
        self._signs = np.ones(len(rows))
        self._signs[: copies * len(low)] = -1.0
        cells, self._scatter = np.unique(columns * grounded.size + rows, return_inverse=True)
        starts = np.searchsorted(cells, np.arange(grounded.size + 1) * grounded.size)
        self._n_cells = len(cells)
        self.matrix: Any = sparse.csc_matrix(
            (np.zeros(len(cells)), (cells % grounded.size).astype(np.int32), starts.astype(np.int32)),
            shape=(grounded.size, grounded.size),
        )

    def fill_in(self, conductances: FloatArray) -> Any:
        """Return the matrix for conductances (M,); the same object every time."""
        weights = conductances[self._edges] * self._signs
        self.matrix.data = np.bincount(self._scatter, weights=weights, minlength=self._n_cells)
        return self.matrix


def _symmetric_lu(matrix: Any, ordering: Literal["NATURAL", "MMD_AT_PLUS_A"]) -> Any:
    return splu(matrix, permc_spec=ordering, diag_pivot_thresh=0.0, options={"SymmetricMode": True})


class SuperLUSolver:
    """SciPy's SuperLU in symmetric mode, on a minimum-degree ordering found once."""

    name = "superlu"

    def __init__(self, grounded: GroundedEdges) -> None:
        n_edges = 1 + max(grounded.diagonal_edges, default=0)
        analysis = _symmetric_lu(_FixedPattern(grounded).fill_in(np.ones(n_edges)), "MMD_AT_PLUS_A")
        self._order = np.argsort(analysis.perm_c)
        self._pattern = _FixedPattern(grounded, self._order)
        self._factor: Any = None

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        try:
            self._factor = _symmetric_lu(self._pattern.fill_in(conductances), "NATURAL")
        except RuntimeError as cause:
            raise SolverError(_SINGULAR) from cause

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution = np.empty_like(rhs, order="F")
        solution[self._order] = self._factor.solve(rhs[self._order])
        return solution


class QDLDLSolver:
    """QDLDL (an LDLᵀ factorisation with fixed pattern; Stellato et al., Math. Prog. Comp. 12, 2020)."""

    name = "qdldl"

    def __init__(self, grounded: GroundedEdges) -> None:
        self._pattern = _FixedPattern(grounded, upper_only=True)
        self._solver: Any = None

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        laplacian = self._pattern.fill_in(conductances)
        try:
            if self._solver is None:
                import qdldl

                self._solver = qdldl.Solver(laplacian, upper=True)
            else:
                self._solver.update(laplacian, upper=True)
        except (RuntimeError, ValueError) as cause:
            raise SolverError(_SINGULAR) from cause
        self._check(laplacian)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution = np.empty_like(rhs, order="F")
        for column in range(rhs.shape[1]):
            solution[:, column] = self._solver.solve(np.ascontiguousarray(rhs[:, column]))
        return solution

    def _check(self, upper: Any) -> None:
        """Raise SolverError where a pivot was lost: a numeric update of QDLDL does not say so itself."""
        probe = np.ones(upper.shape[0])
        solution = self._solver.solve(probe)
        residual = upper @ solution + upper.T @ solution - upper.diagonal() * solution - probe
        if not np.abs(residual).max() <= RESIDUAL_BOUND:
            raise SolverError(_SINGULAR)


_SINGULAR = (
    "the circuit has no unique solution in floating point: some node hangs on conductances too small "
    "beside its neighbours'; narrow the conductance range"
)


def make_solver(n_nodes: int, edges: IntArray, floating: IntArray, name: SolverName = "auto") -> LaplacianSolver:
    """Return a solver for L_FF of this graph; "auto" chooses by size and fill, QDLDL before SuperLU where installed.

    Raises InputError for a solver that is not installed.
    """
    grounded = GroundedEdges(n_nodes, edges, floating)
    installed = importlib.util.find_spec("qdldl") is not None
    if name == "auto":
        name = "qdldl" if installed else "superlu"
        if grounded.size <= DENSE_UP_TO[name] or (grounded.fill > DENSE_FILL and grounded.size <= DENSE_LIMIT):
            name = "dense"
    if name == "dense":
        return DenseSolver(grounded)
    if name == "superlu":
        return SuperLUSolver(grounded)
    if name == "qdldl":
        if not installed:
            raise InputError("the solver qdldl is not installed: pip install 'hilcl[fast]', or choose another")
        return QDLDLSolver(grounded)
    if name == "fused":
        from hilcl.sim_backend.fused import FusedSolver

        return FusedSolver(grounded.size, grounded.ends)
    raise InputError(f"there is no solver {name!r}: choose auto, dense, superlu, qdldl or fused")
