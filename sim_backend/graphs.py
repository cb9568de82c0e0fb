"""Rows for the floating nodes of a network, and their graph."""

import numpy as np
from scipy import sparse

from hilcl.arrays import IntArray


def place_of_nodes(n_nodes: int, sequence: IntArray) -> IntArray:
    """Return each node's row (N,) where ``sequence`` are the floating nodes; driven nodes follow, ascending."""
    place = np.full(n_nodes, -1, dtype=np.int64)
    place[sequence] = np.arange(len(sequence))
    driven = np.flatnonzero(place < 0)
    place[driven] = np.arange(len(sequence), n_nodes)
    return place


def adjacency(n_nodes: int, edges: IntArray, floating: IntArray) -> tuple[IntArray, IntArray]:
    """Return the graph of the floating nodes as (starts, neighbours)."""
    number = np.full(n_nodes, -1, dtype=np.int64)
    number[floating] = np.arange(len(floating))
    first, second = number[edges[:, 0]], number[edges[:, 1]]
    inner = (first >= 0) & (second >= 0)
    first, second = first[inner], second[inner]
    ones = np.ones(2 * len(first), dtype=np.bool_)
    pairs = np.concatenate([first, second]), np.concatenate([second, first])
    graph = sparse.coo_array((ones, pairs), shape=(len(floating), len(floating))).tocsr()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int64)


def padded(columns: int) -> int:
    """Return the columns that potentials node by node have room for: a multiple of four."""
    return (columns + 3) & ~3
