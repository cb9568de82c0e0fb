"""The multifrontal factorisation as a solver of L_FF: analysed once, refactored every step."""

import importlib.util
from typing import Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import SolverError
from hilcl.sim_backend.graphs import adjacency, padded, place_of_nodes
from hilcl.sim_backend.multifrontal import (
    FOR_LAPACK,
    Analysis,
    analyse,
    factor_flops,
    factorise,
    mark_paths,
    place_entries,
    substitute,
)
from hilcl.sim_backend.ordering import minimum_degree
from hilcl.sim_backend.singular import SINGULAR

DISSECTED_FROM = 1e8
"""Flops of a factorisation from which METIS finds a better order than minimum degree, in ten times the time."""


class MultifrontalSolver:
    """Sparse Cholesky of our own, for large boards; needs numba.

    Holds the factor and the update matrices, ``n_bytes`` in all. Potentials come node by node, in elimination order:
    ``place`` (N,) is each node's row there; driven nodes have the last rows.
    """

    name = "multifrontal"

    def __init__(self, n_nodes: int, edges: IntArray, floating: IntArray, analysis: Analysis) -> None:
        self._analysis = analysis
        order = self._analysis.order
        self._size = len(order)
        self._order = order
        self.place = place_of_nodes(n_nodes, floating[order])
        first, second = self.place[edges[:, 0]], self.place[edges[:, 1]]
        self._entries = place_entries(
            np.where(first < self._size, first, -1),
            np.where(second < self._size, second, -1),
            analysis.begin,
            analysis.row_starts,
            analysis.rows,
        )
        self._block = np.repeat(np.arange(len(self._analysis.tree)), np.diff(self._analysis.begin))
        self._panels = np.zeros(self._analysis.n_panels)
        self._updates = np.zeros(self._analysis.n_updates)
        self._reciprocal = np.zeros(self._size + 4)

    @classmethod
    def within(cls, most_flops: float, n_nodes: int, edges: IntArray, floating: IntArray) -> Self | None:
        """Return the solver with the order of fewest flops, or None where a factorisation needs more than allowed."""
        analysis = cheapest_analysis(*adjacency(n_nodes, edges, floating), most_flops)
        return None if analysis is None else cls(n_nodes, edges, floating, analysis)

    @property
    def n_bytes(self) -> int:
        """Memory for numbers; indices take about a third as much again at a million nodes."""
        return self._panels.nbytes + self._updates.nbytes + self._reciprocal.nbytes

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        parts = self._analysis
        lost = factorise(
            conductances,
            parts.begin,
            parts.row_starts,
            parts.relative,
            parts.child_starts,
            parts.children,
            parts.panel_at,
            parts.update_at,
            *self._entries,
            self._panels,
            self._updates,
            self._reciprocal,
            *FOR_LAPACK,
            np.zeros(5, dtype=np.int32),
        )
        if lost >= 0:
            raise SolverError(SINGULAR)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        x = np.zeros((self._size, padded(rhs.shape[1])))
        x[:, : rhs.shape[1]] = rhs[self._order]
        self.substitute(x)
        solution = np.empty(rhs.shape, order="F")
        solution[self._order] = x[:, : rhs.shape[1]]
        return solution

    def substitute(self, x: FloatArray, loaded: IntArray | None = None) -> None:
        """Solve in place for x (≥ n, 4q), node by node in elimination order; only the rows ``loaded`` are not zero."""
        parts = self._analysis
        if loaded is None:
            reached = np.ones(len(parts.tree), dtype=np.bool_)
        else:
            reached = mark_paths(loaded, self._block, parts.tree)
        substitute(
            x.reshape(-1),
            x.shape[1],
            reached,
            parts.begin,
            parts.row_starts,
            parts.rows,
            parts.panel_at,
            self._panels,
            self._reciprocal,
        )


def cheapest_analysis(starts: IntArray, neighbours: IntArray, most_flops: float = np.inf) -> Analysis | None:
    """Return the analysis of the order with the fewest flops, or None where even that has more than allowed.

    Compared are the order as given, best for graphs in layers, minimum degree, and for large graphs METIS if installed.
    """
    orders = [np.arange(len(starts) - 1)]
    ranks, _ = minimum_degree(starts, neighbours, most_flops)
    if len(ranks):
        orders.append(np.argsort(ranks, kind="stable"))
    counted = [(factor_flops(starts, neighbours, order), order) for order in orders]
    if min(flops for flops, _ in counted) > DISSECTED_FROM and importlib.util.find_spec("pymetis") is not None:
        order = nested_dissection(starts, neighbours)
        counted.append((factor_flops(starts, neighbours, order), order))
    flops, best = min(counted, key=lambda pair: pair[0])
    return analyse(starts, neighbours, best) if flops <= most_flops else None


def nested_dissection(starts: IntArray, neighbours: IntArray) -> IntArray:
    """Return the order of METIS (Karypis and Kumar, SIAM J. Sci. Comput. 20, 1998).

    Raises SolverError where METIS fails, which includes a signal to end meanwhile: METIS takes it for itself.
    """
    import pymetis

    try:
        order, _ = pymetis.nested_dissection(pymetis.CSRAdjacency(starts, neighbours))
    except RuntimeError as cause:
        raise SolverError("METIS was stopped while it ordered the nodes: run again, or uninstall pymetis") from cause
    return np.array(order, dtype=np.int64)
