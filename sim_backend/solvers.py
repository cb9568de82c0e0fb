"""Factor the Laplacian of the floating nodes once per step and solve it for many right-hand sides.

Every solver answers the same question to the same accuracy; they differ in the boards they are fast on. The
pattern never changes, so each analyses it once and only refactors numbers.
"""

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, get_args

import numpy as np
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import InputError, SolverError
from hilcl.sim_backend.fixed_pattern import FixedPattern, GroundedEdges
from hilcl.sim_backend.singular import SINGULAR

if TYPE_CHECKING:
    from hilcl.sim_backend.node_engine import NodeSolver

SolverName = Literal["auto", "dense", "superlu", "qdldl", "fused", "multifrontal", "pcg", "cholmod"]

DENSE_UP_TO = {"qdldl": 80, "superlu": 200}
"""Floating nodes up to which dense LAPACK is faster than the sparse solver at hand (benchmarks/steps.py)."""

DENSE_FILL = 0.3
"""Share of non-zeros in the Laplacian from which a sparse factor would be as full as a dense one."""


MULTIFRONTAL_FROM = 4000
"""Edges above which the multifrontal solver saves, in a few hundred steps, the time to load numba."""

PCG_FROM = 3e5
"""Flops of a factorisation, per edge, from which conjugate gradients of 150 iterations take less time."""

_NEEDS = {
    "qdldl": ("qdldl",),
    "fused": ("numba",),
    "multifrontal": ("numba",),
    "pcg": ("numba",),
    "cholmod": ("cvxopt",),
}

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
            raise SolverError(SINGULAR)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution, _ = lapack.dpotrs(self._factor, rhs, lower=1)
        return np.asarray(solution, dtype=np.float64)


def _symmetric_lu(matrix: Any, ordering: Literal["NATURAL", "MMD_AT_PLUS_A"]) -> Any:
    return splu(matrix, permc_spec=ordering, diag_pivot_thresh=0.0, options={"SymmetricMode": True})


class SuperLUSolver:
    """SciPy's SuperLU in symmetric mode, on a minimum-degree ordering found once."""

    name = "superlu"

    def __init__(self, grounded: GroundedEdges) -> None:
        n_edges = 1 + max(grounded.diagonal_edges, default=0)
        analysis = _symmetric_lu(FixedPattern(grounded).fill_in(np.ones(n_edges)), "MMD_AT_PLUS_A")
        self._order = np.argsort(analysis.perm_c)
        self._pattern = FixedPattern(grounded, self._order)
        self._factor: Any = None

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        try:
            self._factor = _symmetric_lu(self._pattern.fill_in(conductances), "NATURAL")
        except RuntimeError as cause:
            raise SolverError(SINGULAR) from cause

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        solution = np.empty_like(rhs, order="F")
        solution[self._order] = self._factor.solve(rhs[self._order])
        return solution


class QDLDLSolver:
    """QDLDL (an LDLᵀ factorisation with fixed pattern; Stellato et al., Math. Prog. Comp. 12, 2020)."""

    name = "qdldl"

    def __init__(self, grounded: GroundedEdges) -> None:
        self._pattern = FixedPattern(grounded, half="upper")
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
            raise SolverError(SINGULAR) from cause
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
            raise SolverError(SINGULAR)


def make_solver(
    n_nodes: int, edges: IntArray, floating: IntArray, name: SolverName = "auto", *, certified: bool = False
) -> "LaplacianSolver | NodeSolver":
    """Return a solver for L_FF of this graph; "auto" chooses by size and fill, and by what is installed.

    For certified accuracy "auto" takes compiled code at any size where it can: refinement is what it is fastest at.

    Dense for small and full boards; else the multifrontal solver for boards of more than MULTIFRONTAL_FROM edges,
    or conjugate gradients where its factor would be too large; else QDLDL; else SuperLU. CHOLMOD is never chosen
    unasked. Raises InputError for a solver that is not installed.
    """
    if name not in get_args(SolverName):
        choices = ", ".join(get_args(SolverName))
        raise InputError(f"there is no solver {name!r}: choose one of {choices}")
    missing = [package for package in _NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        extra = "benchmark" if name == "cholmod" else "fast"
        raise InputError(f"the solver {name} is not installed: pip install 'hilcl[{extra}]', or choose another")
    if name in ("multifrontal", "pcg"):
        return _by_node(name, n_nodes, edges, floating)
    grounded = GroundedEdges(n_nodes, edges, floating)
    if name == "auto":
        sparse_name = "qdldl" if importlib.util.find_spec("qdldl") is not None else "superlu"
        compiled = importlib.util.find_spec("numba") is not None
        if compiled and certified and grounded.size:
            return _by_node("auto", n_nodes, edges, floating)
        if grounded.size <= DENSE_UP_TO[sparse_name] or (grounded.fill > DENSE_FILL and grounded.size <= DENSE_LIMIT):
            return DenseSolver(grounded)
        if compiled and len(edges) > MULTIFRONTAL_FROM:
            return _by_node("auto", n_nodes, edges, floating)
        return QDLDLSolver(grounded) if sparse_name == "qdldl" else SuperLUSolver(grounded)
    if name == "fused":
        from hilcl.sim_backend.fused import FusedSolver

        return FusedSolver(grounded.size, grounded.ends)
    if name == "cholmod":
        from hilcl.sim_backend.cholmod import CholmodSolver

        return CholmodSolver(grounded)
    by_name: dict[str, Callable[[GroundedEdges], LaplacianSolver]] = {
        "dense": DenseSolver,
        "superlu": SuperLUSolver,
        "qdldl": QDLDLSolver,
    }
    return by_name[name](grounded)


def _by_node(
    name: Literal["auto", "multifrontal", "pcg"], n_nodes: int, edges: IntArray, floating: IntArray
) -> "NodeSolver":
    # Compiled code: imported only where it is used.
    from hilcl.sim_backend.conjugate_gradients import ConjugateGradientSolver
    from hilcl.sim_backend.multifrontal_solver import MultifrontalSolver

    if name == "pcg":
        return ConjugateGradientSolver(n_nodes, edges, floating)
    most_flops = np.inf if name == "multifrontal" else PCG_FROM * len(edges)
    solver = MultifrontalSolver.within(most_flops, n_nodes, edges, floating)
    return ConjugateGradientSolver(n_nodes, edges, floating) if solver is None else solver


def is_by_node(solver: "LaplacianSolver | NodeSolver") -> "TypeGuard[NodeSolver]":
    """Return whether a solver works node by node, for ``hilcl.sim_backend.node_engine.NodeEngine``."""
    return hasattr(solver, "substitute")
