"""Conjugate gradients for boards whose factor would be too large: expanders, such as random regular graphs.

All right-hand sides advance together, each with its own steps, preconditioned by the diagonal (Hestenes and Stiefel, J.
Res. Natl. Bur. Stand. 49, 1952). Products with L_FF are formed edge by edge, so no digit is lost to its diagonal.
"""

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.sim_backend.compiled import IndexArray, contracted
from hilcl.sim_backend.graphs import padded, place_of_nodes
from hilcl.sim_backend.node_states import edges_by_row
from hilcl.sim_backend.singular import SINGULAR
from hilcl.sim_backend.vectors import load, minus, minus_times, plus, product, store

TOLERANCE = 1e-14
"""Residual, relative to the load, in the norm of the inverse diagonal, at which a right-hand side is solved."""

MAX_ITERATIONS = 2000

_BREAKDOWN = -1


class ConjugateGradientSolver:
    """Iterates instead of factoring; for graphs without small separators. Needs numba.

    Holds three vectors a right-hand side while it solves. Boards with long paths (grids) need too many iterations.
    """

    name = "pcg"

    def __init__(self, n_nodes: int, edges: IntArray, floating: IntArray) -> None:
        self._size = len(floating)
        self.place = place_of_nodes(n_nodes, floating)
        self._rows = edges_by_row(self.place[edges].astype(np.int32), self._size)
        self._conductances = self._reciprocal = np.zeros(0)
        self.iterations = 0

    def factor(self, conductances: FloatArray) -> None:
        """Take over the conductances."""
        starts, _, edge = self._rows
        self._conductances = conductances
        with np.errstate(divide="ignore"):
            self._reciprocal = 1.0 / np.add.reduceat(conductances[edge], starts[:-1])

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        x = np.zeros((len(self.place), padded(rhs.shape[1])))
        x[: self._size, : rhs.shape[1]] = rhs
        self.substitute(x)
        return np.asfortranarray(x[: self._size, : rhs.shape[1]])

    def substitute(self, x: FloatArray, loaded: IntArray | None = None) -> None:
        """Solve in place for x (N, 4q), driven rows left alone; sets ``iterations``, those of the slowest column.

        Raises SolverError where that takes more than MAX_ITERATIONS, or where the matrix is singular.
        """
        del loaded
        driven = x[self._size :].copy()
        self.iterations = _iterate(x, *self._rows, self._conductances, self._reciprocal, TOLERANCE, MAX_ITERATIONS)
        x[self._size :] = driven
        if self.iterations == _BREAKDOWN:
            raise SolverError(SINGULAR)
        if self.iterations > MAX_ITERATIONS:
            raise SolverError(
                f"conjugate gradients did not converge in {MAX_ITERATIONS} iterations: "
                'choose the solver "multifrontal", or narrow the conductance range'
            )


@contracted
def _iterate(
    x: FloatArray,
    starts: IntArray,
    neighbour: IndexArray,
    edge: IndexArray,
    conductances: FloatArray,
    reciprocal: FloatArray,
    tolerance: float,
    most: int,
) -> int:
    """Replace the loads x (N, p) by the solution; return the iterations, more than ``most`` without convergence."""
    n, p = len(reciprocal), x.shape[1]
    residual = x[:n].copy()
    direction = np.zeros(x.shape)
    image = np.zeros((n, p))
    solution, missing, towards, product_ = x.reshape(-1), residual.reshape(-1), direction.reshape(-1), image.reshape(-1)
    nothing = np.zeros(p)
    now, before, curve = np.zeros(p), np.zeros(p), np.zeros(p)
    step, turn, goal = np.zeros(p), np.zeros(p), np.zeros(p)
    x[:] = 0.0
    for row in range(n):
        for q in range(p):
            direction[row, q] = reciprocal[row] * residual[row, q]
            now[q] += residual[row, q] * direction[row, q]
    for q in range(p):
        goal[q] = tolerance * tolerance * now[q]
        if not now[q] < np.inf:
            return _BREAKDOWN
    for iteration in range(most + 1):
        done = True
        for q in range(p):
            done = done and now[q] <= goal[q]
        if done:
            return iteration
        curve[:] = 0.0
        for row in range(n):
            for q in range(0, p, 4):
                here = row * p + q
                own, total = load(towards, here), load(nothing, 0)
                for position in range(starts[row], starts[row + 1]):
                    v = minus(load(towards, neighbour[position] * p + q), own)
                    total = minus_times(total, conductances[edge[position]], v)
                store(product_, here, total)
                store(curve, q, plus(load(curve, q), product(own, total)))
        for q in range(p):
            # A column that has come to its end stays.
            step[q] = 0.0
            if now[q] > goal[q]:
                if not curve[q] > 0.0:
                    return _BREAKDOWN
                step[q] = now[q] / curve[q]
            before[q], now[q] = now[q], 0.0
        for row in range(n):
            for q in range(0, p, 4):
                here = row * p + q
                by = load(step, q)
                store(solution, here, plus(load(solution, here), product(by, load(towards, here))))
                left = minus(load(missing, here), product(by, load(product_, here)))
                store(missing, here, left)
                store(now, q, minus_times(load(now, q), -reciprocal[row], product(left, left)))
        for q in range(p):
            turn[q] = now[q] / before[q] if before[q] > 0.0 else 0.0
        for row in range(n):
            for q in range(0, p, 4):
                here = row * p + q
                onward = product(load(turn, q), load(towards, here))
                store(towards, here, minus_times(onward, -reciprocal[row], load(missing, here)))
    return most + 1
