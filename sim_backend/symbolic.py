"""The symbolic half of a sparse Cholesky factorisation: elimination tree, supernodes and their rows, as kernels.

Done once per board. Graphs are (starts, neighbours) as in ``hilcl.sim_backend.ordering``.
"""

import numpy as np

from hilcl.arrays import IntArray
from hilcl.sim_backend.compiled import contracted

SMALL_MERGE = 4
"""A supernode and its parent of no more columns than this together are always merged."""

MERGES = ((16, 0.5), (48, 0.15), (1 << 60, 0.04))
"""Largest number of columns together, and up to which share of zeros a supernode is merged into its parent."""

_COLUMNS = tuple(columns for columns, _ in MERGES)
_ZEROS = tuple(zeros for _, zeros in MERGES)


@contracted
def elimination_tree(starts: IntArray, neighbours: IntArray, order: IntArray) -> IntArray:
    """Return the parent of each column (in the order's numbers), −1 at a root (Liu, 1990)."""
    n = len(order)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    parent = np.full(n, -1, dtype=np.int64)
    ancestor = np.full(n, -1, dtype=np.int64)
    for column in range(n):
        node = order[column]
        for position in range(starts[node], starts[node + 1]):
            i = place[neighbours[position]]
            while i != -1 and i < column:
                following = ancestor[i]
                ancestor[i] = column
                if following == -1:
                    parent[i] = column
                i = following
    return parent


@contracted
def postorder(parent: IntArray) -> IntArray:
    """Return the columns of a forest with children before parents and every subtree together."""
    n = len(parent)
    first_child = np.full(n + 1, -1, dtype=np.int64)
    sibling = np.full(n, -1, dtype=np.int64)
    for column in range(n - 1, -1, -1):
        above = parent[column] if parent[column] >= 0 else n
        sibling[column] = first_child[above]
        first_child[above] = column
    order = np.empty(n, dtype=np.int64)
    stack = np.empty(n + 1, dtype=np.int64)
    done, depth = 0, 0
    root = first_child[n]
    while root >= 0:
        stack[0], depth = root, 1
        while depth > 0:
            column = stack[depth - 1]
            child = first_child[column]
            if child >= 0:
                first_child[column] = sibling[child]
                stack[depth] = child
                depth += 1
            else:
                order[done] = column
                done += 1
                depth -= 1
        root = sibling[root]
    return order


@contracted
def column_counts(starts: IntArray, neighbours: IntArray, order: IntArray, parent: IntArray) -> IntArray:
    """Return the entries of each column of the factor, diagonal included (Gilbert, Ng and Peyton, 1994).

    ``order`` must be a postorder of its own tree.
    """
    n = len(order)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    first = np.arange(n)
    count = np.ones(n, dtype=np.int64)
    for column in range(n):
        above = parent[column]
        if above >= 0:
            first[above] = min(first[above], first[column])
            count[above] = 0
    latest = np.full(n, -1, dtype=np.int64)
    previous = np.full(n, -1, dtype=np.int64)
    ancestor = np.arange(n)
    for column in range(n):
        if parent[column] >= 0:
            count[parent[column]] -= 1
        node = order[column]
        for position in range(starts[node], starts[node + 1]):
            row = place[neighbours[position]]
            if row > column and first[column] > latest[row]:
                latest[row] = first[column]
                count[column] += 1
                leaf = previous[row]
                previous[row] = column
                if leaf >= 0:
                    top = leaf
                    while ancestor[top] != top:
                        top = ancestor[top]
                    while ancestor[leaf] != top:
                        ancestor[leaf], leaf = top, ancestor[leaf]
                    count[top] -= 1
        if parent[column] >= 0:
            ancestor[column] = parent[column]
    for column in range(n):
        if parent[column] >= 0:
            count[parent[column]] += count[column]
    return count


@contracted
def _cells(columns: int, rows: int) -> float:
    """Return the entries of a trapezoid of ``columns`` columns, the first of ``rows`` rows."""
    return columns * rows - columns * (columns - 1) / 2


@contracted
def merged_supernodes(parent: IntArray, count: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the supernodes in the order they are to be eliminated.

    Columns are numbers of a postorder; ``count`` as from ``column_counts``. Returned are the columns of all supernodes
    one after the other, where each supernode's begin (one more at the end), and each supernode's parent, −1 at a root.
    Small supernodes are merged into their parents at the price of zeros: fewer and larger dense blocks.
    """
    n = len(parent)
    block = np.empty(n, dtype=np.int64)
    head = np.empty(n, dtype=np.int64)
    n_blocks = 0
    for column in range(n):
        joins = column > 0 and parent[column - 1] == column and count[column - 1] == count[column] + 1
        if not joins:
            head[n_blocks] = column
            n_blocks += 1
        block[column] = n_blocks - 1
    width = np.zeros(n_blocks, dtype=np.int64)
    for column in range(n):
        width[block[column]] += 1
    height = count[head[:n_blocks]].copy()
    above = np.full(n_blocks, -1, dtype=np.int64)
    for s in range(n_blocks):
        up = parent[head[s] + width[s] - 1]
        above[s] = block[up] if up >= 0 else -1
    zeros = np.zeros(n_blocks)
    into = np.full(n_blocks, -1, dtype=np.int64)
    for s in range(n_blocks):
        p = above[s]
        if p < 0:
            continue
        together = width[s] + width[p]
        cells = _cells(together, width[s] + height[p])
        extra = cells - _cells(width[s], height[s]) - _cells(width[p], height[p]) + zeros[s] + zeros[p]
        merge = together <= SMALL_MERGE or extra == zeros[s] + zeros[p]
        for rule in range(len(_COLUMNS)):
            if together <= _COLUMNS[rule]:
                merge = merge or extra <= _ZEROS[rule] * cells
                break
        if merge:
            into[s], zeros[p] = p, extra
            width[p] = together
            height[p] += width[s]
    # A merged block's children and columns go to the block it ended in.
    for s in range(n_blocks - 1, -1, -1):
        if into[s] >= 0 and into[into[s]] >= 0:
            into[s] = into[into[s]]
    target = np.empty(n_blocks, dtype=np.int64)
    number = np.full(n_blocks, -1, dtype=np.int64)
    n_left = 0
    for s in range(n_blocks):
        if into[s] < 0:
            number[s] = n_left
            n_left += 1
    for s in range(n_blocks):
        target[s] = number[s if into[s] < 0 else into[s]]
    tree = np.full(n_left, -1, dtype=np.int64)
    for s in range(n_blocks):
        if into[s] < 0 and above[s] >= 0:
            tree[number[s]] = target[above[s]]
    sequence = postorder(tree)
    renumbered = np.empty(n_left, dtype=np.int64)
    renumbered[sequence] = np.arange(n_left)
    final = np.full(n_left, -1, dtype=np.int64)
    begin = np.zeros(n_left + 1, dtype=np.int64)
    for s in range(n_left):
        if tree[s] >= 0:
            final[renumbered[s]] = renumbered[tree[s]]
    for column in range(n):
        begin[renumbered[target[block[column]]] + 1] += 1
    begin = np.cumsum(begin)
    at = begin[:-1].copy()
    columns = np.empty(n, dtype=np.int64)
    for column in range(n):
        s = renumbered[target[block[column]]]
        columns[at[s]] = column
        at[s] += 1
    return columns, begin, final


@contracted
def _sorted_within(values: IntArray, starts: IntArray, n: int) -> IntArray:
    """Return values 0 … n−1 sorted within each stretch, by counting."""
    at = np.zeros(n + 1, dtype=np.int64)
    for value in values:
        at[value + 1] += 1
    at = np.cumsum(at)
    stretch = np.empty(len(values), dtype=np.int64)
    for s in range(len(starts) - 1):
        for position in range(starts[s], starts[s + 1]):
            stretch[at[values[position]]] = s
            at[values[position]] += 1
    following = starts[:-1].copy()
    result = np.empty(len(values), dtype=np.int64)
    position = 0
    for value in range(n):
        # Now at[value] is where the next value's stretches begin.
        while position < at[value]:
            s = stretch[position]
            result[following[s]] = value
            following[s] += 1
            position += 1
    return result


@contracted
def supernode_rows(
    starts: IntArray, neighbours: IntArray, order: IntArray, begin: IntArray, tree: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return (row starts, rows, relative rows) of the supernodes whose columns are ``order`` from ``begin``.

    ``rows`` of a supernode are its own columns, then the rows below them, ascending. ``relative`` has, for each row
    below, its position among the rows of the parent; own columns have −1 there.
    """
    n, n_super = len(order), len(tree)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    first_child = np.full(n_super, -1, dtype=np.int64)
    sibling = np.full(n_super, -1, dtype=np.int64)
    for s in range(n_super - 1, -1, -1):
        if tree[s] >= 0:
            sibling[s] = first_child[tree[s]]
            first_child[tree[s]] = s
    row_starts = np.zeros(n_super + 1, dtype=np.int64)
    space = np.empty(8 * n + 64, dtype=np.int64)
    seen = np.full(n, -1, dtype=np.int64)
    used = 0
    for s in range(n_super):
        low, high = begin[s], begin[s + 1]
        most = high - low
        for column in range(low, high):
            most += starts[order[column] + 1] - starts[order[column]]
        child = first_child[s]
        while child >= 0:
            most += row_starts[child + 1] - row_starts[child]
            child = sibling[child]
        if used + most > len(space):
            wider = np.empty(2 * len(space) + most, dtype=np.int64)
            wider[:used] = space[:used]
            space = wider
        for column in range(low, high):
            seen[column] = s
            space[used] = column
            used += 1
        for column in range(low, high):
            for position in range(starts[order[column]], starts[order[column] + 1]):
                row = place[neighbours[position]]
                if row >= high and seen[row] != s:
                    seen[row] = s
                    space[used] = row
                    used += 1
        child = first_child[s]
        while child >= 0:
            for position in range(row_starts[child], row_starts[child + 1]):
                row = space[position]
                if row >= high and seen[row] != s:
                    seen[row] = s
                    space[used] = row
                    used += 1
            child = sibling[child]
        row_starts[s + 1] = used
    rows = _sorted_within(space[:used], row_starts, n)
    relative = np.full(used, -1, dtype=np.int64)
    where = np.empty(n, dtype=np.int64)
    for s in range(n_super):
        for position in range(row_starts[s], row_starts[s + 1]):
            where[rows[position]] = position - row_starts[s]
        child = first_child[s]
        while child >= 0:
            for position in range(row_starts[child] + begin[child + 1] - begin[child], row_starts[child + 1]):
                relative[position] = where[rows[position]]
            child = sibling[child]
    return row_starts, rows, relative
