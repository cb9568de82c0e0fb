"""Unit responses of large boards, node by node: what kernels of numba compute from them.

A matrix of potentials is (parts, rows, 4q): the potential of a node is the sum of its parts, the first one rounded and
the others corrections to it. An edge voltage is the sum of the parts' differences, so that corrections are not lost.
"""

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.sim_backend.compiled import IndexArray, contracted
from hilcl.sim_backend.vectors import any_beyond, dot, fetch, load, magnitude, minus, minus_times, plus, store, times

ZEROS = np.zeros(4)

AHEAD = 8
"""How many edges or nodes before its turn one is fetched."""


@contracted
def _fetch(flat: FloatArray, n_parts: int, rows: int, p: int, row: int) -> None:
    """Have the processor bring all parts of a row near: rows follow each other in no order it could guess."""
    for part in range(n_parts):
        here = (part * rows + row) * p
        for q in range(0, p, 8):
            fetch(flat, here + q)


@contracted
def squared_differences(
    parts: FloatArray,
    ends: IndexArray,
    mixed: FloatArray,
    moved: FloatArray,
    low: int,
    high: int,
    result: FloatArray,
) -> None:
    """Set result (M,) to Σ_c (mixed · v)_c (moved · v)_c at every edge; both matrices are (4q, 4c), v (4q,) volts.

    Only the rows ``low`` to ``high`` of moved are not zero.
    """
    n_parts, rows, p = parts.shape
    width = mixed.shape[1]
    flat, by_mixed, by_moved = parts.reshape(-1), mixed.reshape(-1), moved.reshape(-1)
    volts = np.empty(p)
    nothing = np.zeros(4)
    for e in range(len(ends)):
        following = min(e + AHEAD, len(ends) - 1)
        _fetch(flat, n_parts, rows, p, ends[following, 0])
        _fetch(flat, n_parts, rows, p, ends[following, 1])
        first, second = ends[e, 0] * p, ends[e, 1] * p
        for q in range(0, p, 4):
            v = minus(load(flat, first + q), load(flat, second + q))
            for part in range(1, n_parts):
                base = part * rows * p + q
                v = plus(v, minus(load(flat, base + first), load(flat, base + second)))
            store(volts, q, v)
        total = 0.0
        for c in range(0, width, 4):
            left, right = load(nothing, 0), load(nothing, 0)
            for q in range(p):
                left = minus_times(left, volts[q], load(by_mixed, q * width + c))
            for q in range(low, high):
                right = minus_times(right, volts[q], load(by_moved, q * width + c))
            total += dot(left, right)
        result[e] = total


@contracted
def edge_volts(parts: FloatArray, ends: IndexArray, edges: IntArray, begin: int, result: FloatArray) -> None:
    """Set result (p, len(edges)) to the voltages of some edges in the columns from ``begin``."""
    for k in range(len(edges)):
        first, second = ends[edges[k], 0], ends[edges[k], 1]
        for q in range(len(result)):
            v = parts[0, first, begin + q] - parts[0, second, begin + q]
            for part in range(1, len(parts)):
                v += parts[part, first, begin + q] - parts[part, second, begin + q]
            result[q, k] = v


@contracted
def edges_by_row(ends: IndexArray, n_rows: int) -> tuple[IntArray, IndexArray, IndexArray]:
    """Return (starts, neighbour, edge) of the first ``n_rows`` rows, as ``node_residual`` takes them."""
    starts = np.zeros(n_rows + 1, dtype=np.int64)
    for e in range(len(ends)):
        for side in range(2):
            if ends[e, side] < n_rows:
                starts[ends[e, side] + 1] += 1
    starts = np.cumsum(starts)
    following = starts[:-1].copy()
    neighbour = np.empty(starts[-1], dtype=np.int32)
    edge = np.empty(starts[-1], dtype=np.int32)
    for e in range(len(ends)):
        for side in range(2):
            row = ends[e, side]
            if row < n_rows:
                neighbour[following[row]] = ends[e, 1 - side]
                edge[following[row]] = e
                following[row] += 1
    return starts, neighbour, edge


@contracted
def _leaving(
    flat: FloatArray,
    n_parts: int,
    rows: int,
    p: int,
    row: int,
    starts: IntArray,
    neighbour: IndexArray,
    edge: IndexArray,
    conductances: FloatArray,
    net: FloatArray,
    amount: FloatArray | None,
) -> None:
    """Set net (p,) to minus the currents that leave a node, and amount (p,), if any, to the sum of their magnitudes."""
    following = min(row + AHEAD, len(starts) - 2)
    for position in range(starts[following], starts[following + 1]):
        _fetch(flat, n_parts, rows, p, neighbour[position])
    nothing = load(ZEROS, 0)
    q = 0
    while q + 12 <= p:
        here = row * p + q
        a0, a1, a2, b0, b1, b2 = nothing, nothing, nothing, nothing, nothing, nothing
        for position in range(starts[row], starts[row + 1]):
            there, g = neighbour[position] * p + q, conductances[edge[position]]
            v0 = minus(load(flat, here), load(flat, there))
            v1 = minus(load(flat, here + 4), load(flat, there + 4))
            v2 = minus(load(flat, here + 8), load(flat, there + 8))
            for part in range(1, n_parts):
                base = part * rows * p
                own, other = base + here, base + there
                v0 = plus(v0, minus(load(flat, own), load(flat, other)))
                v1 = plus(v1, minus(load(flat, own + 4), load(flat, other + 4)))
                v2 = plus(v2, minus(load(flat, own + 8), load(flat, other + 8)))
            a0, a1, a2 = minus_times(a0, g, v0), minus_times(a1, g, v1), minus_times(a2, g, v2)
            if amount is not None:
                b0, b1 = minus_times(b0, -g, magnitude(v0)), minus_times(b1, -g, magnitude(v1))
                b2 = minus_times(b2, -g, magnitude(v2))
        store(net, q, a0)
        store(net, q + 4, a1)
        store(net, q + 8, a2)
        if amount is not None:
            store(amount, q, b0)
            store(amount, q + 4, b1)
            store(amount, q + 8, b2)
        q += 12
    while q < p:
        here = row * p + q
        a0, b0 = nothing, nothing
        for position in range(starts[row], starts[row + 1]):
            there, g = neighbour[position] * p + q, conductances[edge[position]]
            v0 = minus(load(flat, here), load(flat, there))
            for part in range(1, n_parts):
                base = part * rows * p
                v0 = plus(v0, minus(load(flat, base + here), load(flat, base + there)))
            a0 = minus_times(a0, g, v0)
            if amount is not None:
                b0 = minus_times(b0, -g, magnitude(v0))
        store(net, q, a0)
        if amount is not None:
            store(amount, q, b0)
        q += 4


@contracted
def node_residual(
    parts: FloatArray,
    starts: IntArray,
    neighbour: IndexArray,
    edge: IndexArray,
    conductances: FloatArray,
    injected: FloatArray,
    held: IntArray,
    free: int,
    begin: int,
    result: FloatArray,
) -> None:
    """Set result (N, 4q) to what is missing at each floating node, ``injected`` minus what leaves it; 0 at driven ones.

    The edges of the node in row i are ``edge[starts[i]:starts[i + 1]]``, ``neighbour`` the rows at their other ends.
    In columns from ``free`` on the rows ``held`` get what keeps them where they are: each of the columns of potentials
    from ``begin`` on moves one of them by a volt, and so weighs what flows from all nodes into that one (reciprocity).
    """
    n_parts, rows, p = parts.shape
    flat, out, into = parts.reshape(-1), result.reshape(-1), injected.reshape(-1)
    net, taken = np.empty(p), np.zeros(len(held) * p)
    stays = np.zeros(rows, dtype=np.bool_)
    stays[held] = True
    out[(len(starts) - 1) * p :] = 0.0
    for row in range(len(starts) - 1):
        _leaving(flat, n_parts, rows, p, row, starts, neighbour, edge, conductances, net, None)
        for q in range(0, p, 4):
            here = row * p + q
            total = load(net, q)
            if len(injected):
                total = plus(total, load(into, here))
            store(out, here, total)
            if q + 4 > free and not stays[row]:
                for i in range(len(held)):
                    store(taken, i * p + q, minus_times(load(taken, i * p + q), flat[row * p + begin + i], total))
    for i in range(len(held)):
        out[held[i] * p + free : (held[i] + 1) * p] = taken[i * p + free : (i + 1) * p]


@contracted
def count_imbalanced(
    parts: FloatArray,
    starts: IntArray,
    neighbour: IndexArray,
    edge: IndexArray,
    conductances: FloatArray,
    injected: FloatArray,
    held: IntArray,
    free: int,
    bound: float,
    dead: float,
) -> int:
    """Return in how many columns of floating nodes |Σ I| exceeds bound · Σ |I| + dead · degree · largest potential.

    ``injected`` (N, 4q) are amperes into the nodes, or empty for none. Rows ``held`` count up to the column ``free``.
    """
    n_parts, rows, p = parts.shape
    flat, into = parts.reshape(-1), injected.reshape(-1)
    count = 0
    net, amount, largest = np.empty(p), np.empty(p), np.full(p, -1.0)
    for row in range(len(starts) - 1):
        _leaving(flat, n_parts, rows, p, row, starts, neighbour, edge, conductances, net, amount)
        beyond = False
        for q in range(0, p, 4):
            if len(injected):
                store(net, q, plus(load(net, q), load(into, row * p + q)))
                store(amount, q, plus(load(amount, q), load(into, row * p + q)))
            beyond = beyond or any_beyond(magnitude(load(net, q)), times(bound, load(amount, q)))
        if not beyond:
            continue
        degree = 0.0
        for position in range(starts[row], starts[row + 1]):
            degree += conductances[edge[position]]
        for q in range(p):
            if abs(net[q]) <= bound * amount[q] or (q >= free and np.any(held == row)):
                continue
            if largest[q] < 0.0:
                for i in range(rows):
                    largest[q] = max(largest[q], abs(parts[0, i, q]))
            if not abs(net[q]) <= bound * amount[q] + dead * degree * largest[q]:
                count += 1
    return count


@contracted
def mix_columns(x: FloatArray, begin: int, matrix: FloatArray) -> None:
    """Replace the columns of x (N, 4q) from ``begin`` on by themselves times a square matrix; all in fours."""
    flat, mixing, p, size = x.reshape(-1), matrix.reshape(-1), x.shape[1], len(matrix)
    old, nothing = np.empty(size), np.zeros(4)
    for here in range(begin, len(flat), p):
        for i in range(size):
            old[i] = -flat[here + i]
        for q in range(0, size, 4):
            total = load(nothing, 0)
            for i in range(size):
                total = minus_times(total, old[i], load(mixing, i * size + q))
            store(flat, here + q, total)


@contracted
def unit_loads(x: FloatArray, units: IntArray, cells: IntArray, edges: IntArray, conductances: FloatArray) -> None:
    """Add to x (N, 4q), flat, the conductance of each of ``edges`` in its one of ``cells``, and set ``units`` to 1."""
    flat = x.reshape(-1)
    for k in range(len(cells)):
        flat[cells[k]] += conductances[edges[k]]
    for cell in units:
        flat[cell] = 1.0


@contracted
def pin(x: FloatArray, held: IntArray, free: int, volts: float) -> float:
    """Set the rows ``held`` of x (N, 4q) to ``volts`` in a column of each one's own from ``free`` on, the others to 0.

    Returns the largest magnitude that was there.
    """
    largest = 0.0
    for i in range(len(held)):
        for q in range(free, x.shape[1]):
            largest = max(largest, abs(x[held[i], q]))
            x[held[i], q] = volts if q == free + i else 0.0
    return largest
