"""What the fused kernel knows of a network before any conductance: its order of elimination and every place it uses.

All of it is one array of whole numbers: a kernel takes one argument faster than twenty. The first SECTIONS numbers say
where each section starts, in the order of ``Section``; one more closes the last.
"""

from collections.abc import Sequence
from enum import IntEnum, auto
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from hilcl.arrays import FloatArray, IntArray
from hilcl.network import Network

PlanArray = npt.NDArray[np.uint32]

WIDTH = 8
"""Basis functions are stored in rows of a multiple of this many numbers, edges in blocks of it."""


class Section(IntEnum):
    """The sections of a plan."""

    SIZES = 0
    """Floating nodes n, edges M, inputs I, outputs O, input rows, numbers per row of basis functions."""
    COLUMN_STARTS = auto()
    """(n + 1,) first entry of each column of L below its diagonal, which has n columns in order of elimination."""
    ROWS = auto()
    """(entries,) row of each entry, ascending in each column."""
    ROW_STARTS = auto()
    """(n + 1,) the same entries by rows: where each row starts in the two lists below."""
    ROW_COLUMNS = auto()
    ROW_ENTRIES = auto()
    COUPLED_EDGES = auto()
    """Edges between floating nodes, the entry of L each adds to, and the rows of its two ends."""
    COUPLED_ENTRIES = auto()
    COUPLED_LOW = auto()
    COUPLED_HIGH = auto()
    GROUNDED_EDGES = auto()
    """Edges from a floating node to an input, and the row of the floating one."""
    GROUNDED_ROWS = auto()
    DRIVEN_EDGES = auto()
    """Of these, edges to an input that has a basis function, and the place in the basis they drive."""
    DRIVEN_PLACES = auto()
    FIRST = auto()
    """(M rounded up,) where the basis functions at each edge's first and second node start."""
    SECOND = auto()
    OUTPUT_ROWS = auto()
    """(O,) where those at each output start."""
    INPUT_STARTS = auto()
    """(I + 1,) the edges at each input: their numbers, and where the basis functions at input and other node start."""
    INPUT_EDGES = auto()
    INPUT_HERE = auto()
    INPUT_THERE = auto()


SECTIONS = len(Section)


def aligned(count: int) -> FloatArray:
    """Return zeros (count,) that start on a cache line: a vector across two of them loads at half the speed."""
    line = WIDTH * 8
    memory = np.zeros(count + WIDTH)
    start = -memory.ctypes.data % line // 8
    return memory[start : start + count]


def rounded_up(count: int) -> int:
    """Return the next multiple of WIDTH."""
    return -(-count // WIDTH) * WIDTH


def entries_of(plan: PlanArray) -> int:
    """Return how many entries L has below its diagonal."""
    return int(plan[Section.ROWS + 1]) - int(plan[Section.ROWS])


def multiplications(plan: PlanArray) -> int:
    """Return how many multiplications a factorisation takes."""
    starts = plan[plan[Section.COLUMN_STARTS] : plan[Section.COLUMN_STARTS + 1]].astype(np.int64)
    counts = np.diff(starts)
    return int((counts * (counts + 3) // 2).sum())


def make_plan(network: Network, width: int | None = None) -> PlanArray:
    """Return the plan of a network; the first input is the reference and has no basis function.

    ``width`` are the numbers per row of basis functions, by default their count rounded up.
    """
    floating, inputs, outputs = network.floating, network.inputs, network.outputs
    n, n_rows = len(floating), len(inputs) - 1
    width = rounded_up(n_rows + len(outputs)) if width is None else width
    # Rows of the basis: floating nodes in order of elimination, then the inputs.
    row = np.full(network.n_nodes, -1)
    row[floating] = np.arange(n)
    row[floating[elimination_order(n, row[network.edges])]] = np.arange(n)
    row[inputs] = n + np.arange(len(inputs))
    first, second = row[network.edges].T
    low, high = np.minimum(first, second), np.maximum(first, second)
    driven = np.flatnonzero((low < n) & (high > n))
    at_inputs, signs, _ = network.edges_at_inputs
    here, there = first[at_inputs], second[at_inputs]
    here, there = np.where(signs > 0, here, there), np.where(signs > 0, there, here)
    padding = rounded_up(network.n_edges) - network.n_edges
    return _packed(
        [
            [n, network.n_edges, len(inputs), len(outputs), n_rows, width],
            *_factor_sections(n, low, high),
            driven,
            low[driven] * width + (high[driven] - n - 1),
            np.pad(first * width, (0, padding)),
            np.pad(second * width, (0, padding)),
            row[outputs] * width,
            np.searchsorted(here, n + np.arange(len(inputs) + 1)),
            at_inputs,
            here * width,
            there * width,
        ]
    )


def make_factor_plan(size: int, ends: IntArray) -> PlanArray:
    """Return the part of a plan that factors and solves, for ``ends`` (M, 2) of edges as floating nodes, −1 for others.

    Nodes are numbered in order of elimination.
    """
    low, high = np.sort(np.where(ends < 0, size, ends), axis=1).T
    sections: list[npt.ArrayLike] = [[size, len(ends), 0, 0, 0, 0], *_factor_sections(size, low, high)]
    return _packed(sections + [[]] * (SECTIONS - len(sections)))


def elimination_order(size: int, ends: IntArray) -> IntArray:
    """Return a minimum degree order of floating nodes, SuperLU's, for ``ends`` (M, 2) of edges, −1 for others."""
    pairs = ends[(ends >= 0).all(axis=1)].T
    if size < 3 or not pairs.size:
        return np.arange(size)
    matrix = sparse.coo_matrix((np.full(pairs.shape[1], -1.0), pairs), shape=(size, size))
    degree = np.bincount(pairs.ravel(), minlength=size)
    whole: Any = (matrix + matrix.T + sparse.diags(degree + 1.0)).tocsc()
    analysis = splu(whole, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.argsort(analysis.perm_c).astype(np.int64)


def factor_pattern(size: int, pairs: IntArray) -> tuple[IntArray, IntArray]:
    """Return starts (n + 1,) and rows of the entries below the diagonal of L, of a matrix with entries at ``pairs``."""
    below: list[set[int]] = [set() for _ in range(size)]
    for low, high in pairs.T.tolist():
        below[low].add(high)
    columns: list[Sequence[int]] = []
    for column in range(size):
        rows = sorted(below[column])
        columns.append(rows)
        if rows:
            # What is left of a column is passed on to its parent in the elimination tree.
            below[rows[0]].update(rows[1:])
    counts = [len(rows) for rows in columns]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return starts, np.array([row for rows in columns for row in rows], dtype=np.int64)


def _factor_sections(size: int, low: IntArray, high: IntArray) -> list[IntArray]:
    """Return the sections from COLUMN_STARTS to GROUNDED_ROWS for the lower and higher row of each edge's ends."""
    coupled, grounded = np.flatnonzero(high < size), np.flatnonzero((low < size) & (high >= size))
    starts, rows = factor_pattern(size, np.stack([low[coupled], high[coupled]]))
    columns = np.repeat(np.arange(size), np.diff(starts))
    by_row = np.argsort(rows, kind="stable")
    return [
        starts,
        rows,
        np.searchsorted(rows[by_row], np.arange(size + 1)),
        columns[by_row],
        by_row,
        coupled,
        np.searchsorted(columns * (size + 1) + rows, low[coupled] * (size + 1) + high[coupled]),
        low[coupled],
        high[coupled],
        grounded,
        low[grounded],
    ]


def _packed(sections: Sequence[npt.ArrayLike]) -> PlanArray:
    parts = [np.asarray(section, dtype=np.uint32) for section in sections]
    starts = SECTIONS + 1 + np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return np.concatenate([starts.astype(np.uint32), *parts])
