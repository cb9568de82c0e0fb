"""L_FF as index arithmetic: where the conductances of a network go in a matrix whose pattern never changes."""

from typing import Any, Literal

import numpy as np
from scipy import sparse

from hilcl.arrays import FloatArray, IntArray


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


class FixedPattern:
    """A sparse symmetric matrix whose pattern is fixed and whose numbers come from the conductances."""

    def __init__(
        self, grounded: GroundedEdges, order: IntArray | None = None, half: Literal["", "upper", "lower"] = ""
    ) -> None:
        place = np.arange(grounded.size)
        if order is not None:
            place[order] = np.arange(grounded.size)
        first, second = place[grounded.coupled]
        diagonal = place[grounded.diagonal]
        low, high = np.minimum(first, second), np.maximum(first, second)
        if half == "lower":
            low, high = high, low
        mirrored = [] if half else [(high, low)]
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
