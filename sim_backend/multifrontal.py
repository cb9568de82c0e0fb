"""Multifrontal Cholesky factorisation of a Laplacian whose pattern never changes, and its solves, as kernels.

Supernodes are eliminated one after the other. The front of a supernode has its columns (the panel, which stays as part
of the factor) and the update matrix it leaves to its parent (Duff and Reid, ACM Trans. Math. Softw. 9, 1983; Liu, SIAM
Review 34, 1992). Panels and update matrices are column by column, columns padded to a multiple of four; the upper
triangle and the padding hold anything. Right-hand sides lie node by node, padded likewise: (n, 4q).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.sim_backend.compiled import IndexArray, contracted
from hilcl.sim_backend.compiled_lapack import dpotrf, dsyrk, dtrsm
from hilcl.sim_backend.symbolic import (
    column_counts,
    elimination_tree,
    merged_supernodes,
    postorder,
    supernode_rows,
)
from hilcl.sim_backend.vectors import fetch, load, minus_times, store, times

LARGE_FRONT = 160
"""Rows of a front from which LAPACK is faster than the kernels here."""

FETCHED = 256
"""Doubles of the next panel to fetch ahead."""

LOST_PIVOT = 2 * np.finfo(np.float64).eps
"""A pivot below this part of its diagonal entry is rounding, and the matrix singular."""


LetterArray = npt.NDArray[np.uint8]

FOR_LAPACK = np.frombuffer(b"LNRT", dtype=np.uint8), np.array([1.0, -1.0])


@dataclass(frozen=True)
class Analysis:
    """All of a factorisation that does not depend on numbers.

    ``order`` (n,): the row of L_FF that is eliminated k-th. ``begin`` are the first columns of the supernodes,
    ``tree`` their parents, ``rows`` from ``row_starts`` their rows in elimination order, ``relative`` the place of each
    in the parent's front. ``panel_at`` and ``update_at`` say where panels and update matrices lie. ``flops`` of a
    factorisation; ``n_panels`` and ``n_updates`` doubles are needed for it.
    """

    order: IntArray
    begin: IntArray
    tree: IntArray
    row_starts: IntArray
    rows: IndexArray
    relative: IndexArray
    child_starts: IntArray
    children: IntArray
    panel_at: IntArray
    update_at: IntArray
    flops: float
    n_panels: int
    n_updates: int


def factor_flops(starts: IntArray, neighbours: IntArray, order: IntArray) -> float:
    """Return the flops of a factorisation in this order, zeros that blocks bring in not counted."""
    return float((_counted(starts, neighbours, order)[2].astype(np.float64) ** 2).sum())


def _counted(starts: IntArray, neighbours: IntArray, order: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the order in postorder, with the parent and the entries of each column."""
    order = order[postorder(elimination_tree(starts, neighbours, order))]
    parent = elimination_tree(starts, neighbours, order)
    return order, parent, column_counts(starts, neighbours, order, parent)


def analyse(starts: IntArray, neighbours: IntArray, order: IntArray) -> Analysis:
    """Return the analysis of a graph (starts, neighbours) for an order of elimination."""
    order, parent, count = _counted(starts, neighbours, order)
    columns, begin, tree = merged_supernodes(parent, count)
    order = order[columns]
    row_starts, rows, relative = supernode_rows(starts, neighbours, order, begin, tree)
    width, height = np.diff(begin), np.diff(row_starts)
    panel_at = np.concatenate([[0], np.cumsum(_padded(height) * width)])
    update_at, n_updates = _update_places(tree, _padded(height - width) ** 2)
    child_starts = np.concatenate([[0], np.cumsum(np.bincount(tree[tree >= 0], minlength=len(tree)))])
    children = np.argsort(tree, kind="stable")[np.count_nonzero(tree < 0) :]
    # Kernels write whole blocks of four columns: some room behind the last panel.
    slack = 8 * int(_padded(height).max(initial=4))
    return Analysis(
        order,
        begin,
        tree,
        row_starts,
        rows.astype(np.int32),
        relative.astype(np.int32),
        child_starts,
        children,
        panel_at,
        update_at,
        float((count.astype(np.float64) ** 2).sum()),
        int(panel_at[-1]) + slack,
        n_updates + slack,
    )


def _padded(length: IntArray) -> IntArray:
    return (length + 3) & ~3


@contracted
def _update_places(tree: IntArray, size: IntArray) -> tuple[IntArray, int]:
    """Return where each update matrix of the given size lies, and the doubles needed for all.

    Those of even and odd depth lie on two stacks: the children's are then the last of theirs when the parent's is made,
    so nothing is ever moved.
    """
    n = len(tree)
    depth = np.zeros(n, dtype=np.int64)
    for s in range(n - 1, -1, -1):
        if tree[s] >= 0:
            depth[s] = depth[tree[s]] + 1
    of_children = np.zeros(n, dtype=np.int64)
    top = np.zeros(2, dtype=np.int64)
    most = np.zeros(2, dtype=np.int64)
    at = np.zeros(n, dtype=np.int64)
    for s in range(n):
        side = depth[s] % 2
        at[s] = top[side]
        top[side] += size[s]
        most[side] = max(most[side], top[side])
        top[1 - side] -= of_children[s]
        if tree[s] >= 0:
            of_children[tree[s]] += size[s]
    for s in range(n):
        if depth[s] % 2 == 1:
            at[s] += most[0]
    return at, most[0] + most[1]


@contracted
def place_entries(
    first: IntArray, second: IntArray, begin: IntArray, row_starts: IntArray, rows: IndexArray
) -> tuple[IntArray, IntArray, IndexArray, IndexArray]:
    """Return where conductances go, for edges between the columns ``first`` and ``second``, −1 for a driven node.

    Returned are (starts, diagonal, edge, cell): ``edge`` goes to ``cell`` of the panel of supernode s for the places
    from ``starts[s]``; those before ``diagonal[s]`` are subtracted (off the diagonal), the others added.
    """
    n_super, n = len(begin) - 1, begin[-1]
    block = np.empty(n, dtype=np.int64)
    for s in range(n_super):
        block[begin[s] : begin[s + 1]] = s
    n_off = np.zeros(n_super + 1, dtype=np.int64)
    n_diagonal = np.zeros(n_super + 1, dtype=np.int64)
    for e in range(len(first)):
        if first[e] >= 0:
            n_diagonal[block[first[e]] + 1] += 1
        if second[e] >= 0:
            n_diagonal[block[second[e]] + 1] += 1
        if first[e] >= 0 and second[e] >= 0:
            n_off[block[min(first[e], second[e])] + 1] += 1
    starts = np.cumsum(n_off + n_diagonal)
    diagonal = starts[:-1] + n_off[1:]
    edge = np.empty(starts[-1], dtype=np.int32)
    cell = np.empty(starts[-1], dtype=np.int32)
    next_off, next_diagonal = starts[:-1].copy(), diagonal.copy()
    row_of = np.empty(starts[-1], dtype=np.int32)
    for e in range(len(first)):
        if first[e] >= 0 and second[e] >= 0:
            low = min(first[e], second[e])
            place = next_off[block[low]]
            next_off[block[low]] += 1
            edge[place], cell[place], row_of[place] = e, low, max(first[e], second[e])
        for column in (first[e], second[e]):
            if column >= 0:
                place = next_diagonal[block[column]]
                next_diagonal[block[column]] += 1
                edge[place], cell[place], row_of[place] = e, column, column
    where = np.empty(n, dtype=np.int64)
    for s in range(n_super):
        stride = (row_starts[s + 1] - row_starts[s] + 3) & ~3
        for position in range(row_starts[s], row_starts[s + 1]):
            where[rows[position]] = position - row_starts[s]
        for place in range(starts[s], starts[s + 1]):
            cell[place] = where[row_of[place]] + (cell[place] - begin[s]) * stride
    return starts, diagonal, edge, cell


@contracted
def _block(
    c: FloatArray, at: int, c_stride: int, a: FloatArray, row: int, column: int, stride: int, depth: int
) -> None:
    """Subtract from 4 x 4 of c, at ``at``, the rows of a at ``row`` times those at ``column``."""
    t0, t1 = load(c, at), load(c, at + c_stride)
    t2, t3 = load(c, at + 2 * c_stride), load(c, at + 3 * c_stride)
    for _ in range(depth):
        v = load(a, row)
        t0 = minus_times(t0, a[column], v)
        t1 = minus_times(t1, a[column + 1], v)
        t2 = minus_times(t2, a[column + 2], v)
        t3 = minus_times(t3, a[column + 3], v)
        row += stride
        column += stride
    store(c, at, t0)
    store(c, at + c_stride, t1)
    store(c, at + 2 * c_stride, t2)
    store(c, at + 3 * c_stride, t3)


@contracted
def _tall_block(
    c: FloatArray, at: int, c_stride: int, a: FloatArray, row: int, column: int, stride: int, depth: int
) -> None:
    """As ``_block`` for 8 x 4."""
    t0, t1 = load(c, at), load(c, at + c_stride)
    t2, t3 = load(c, at + 2 * c_stride), load(c, at + 3 * c_stride)
    u0, u1 = load(c, at + 4), load(c, at + c_stride + 4)
    u2, u3 = load(c, at + 2 * c_stride + 4), load(c, at + 3 * c_stride + 4)
    for _ in range(depth):
        v, w = load(a, row), load(a, row + 4)
        t0, u0 = minus_times(t0, a[column], v), minus_times(u0, a[column], w)
        t1, u1 = minus_times(t1, a[column + 1], v), minus_times(u1, a[column + 1], w)
        t2, u2 = minus_times(t2, a[column + 2], v), minus_times(u2, a[column + 2], w)
        t3, u3 = minus_times(t3, a[column + 3], v), minus_times(u3, a[column + 3], w)
        row += stride
        column += stride
    store(c, at, t0)
    store(c, at + c_stride, t1)
    store(c, at + 2 * c_stride, t2)
    store(c, at + 3 * c_stride, t3)
    store(c, at + 4, u0)
    store(c, at + c_stride + 4, u1)
    store(c, at + 2 * c_stride + 4, u2)
    store(c, at + 3 * c_stride + 4, u3)


@contracted
def _columns_of_four(
    c: FloatArray, at: int, c_stride: int, height: int, a: FloatArray, row: int, stride: int, depth: int
) -> None:
    """Subtract from four columns of c, from the diagonal at ``at`` down, a's rows times its first four."""
    i = 0
    while i + 8 <= height:
        _tall_block(c, at + i, c_stride, a, row + i, row, stride, depth)
        i += 8
    while i < height:
        _block(c, at + i, c_stride, a, row + i, row, stride, depth)
        i += 4


@contracted
def _small_cholesky(panels: FloatArray, at: int, stride: int, k: int, m: int, floor: FloatArray) -> int:
    """Factor a panel (m, k) in place; return the first column whose pivot does not exceed its floor, or −1."""
    for j in range(0, k, 4):
        corner = at + j * stride + j
        if j:
            _columns_of_four(panels, corner, stride, m - j, panels, at + j, stride, j)
        wide = min(4, k - j)
        for x in range(wide):
            pivot = panels[corner + x * stride + x]
            if not pivot > floor[j + x]:
                return j + x
            pivot = np.sqrt(pivot)
            panels[corner + x * stride + x] = pivot
            for i in range(x + 1, min(4, m - j)):
                panels[corner + x * stride + i] /= pivot
            for y in range(x + 1, wide):
                factor = panels[corner + x * stride + y]
                for i in range(y, min(4, m - j)):
                    panels[corner + y * stride + i] -= factor * panels[corner + x * stride + i]
        one, two, three = corner + stride, corner + 2 * stride, corner + 3 * stride
        for i in range(4, m - j, 4):
            t0 = times(1.0 / panels[corner], load(panels, corner + i))
            store(panels, corner + i, t0)
            if wide > 1:
                t1 = minus_times(load(panels, one + i), panels[corner + 1], t0)
                t1 = times(1.0 / panels[one + 1], t1)
                store(panels, one + i, t1)
                if wide > 2:
                    t2 = minus_times(load(panels, two + i), panels[corner + 2], t0)
                    t2 = minus_times(t2, panels[one + 2], t1)
                    t2 = times(1.0 / panels[two + 2], t2)
                    store(panels, two + i, t2)
                    if wide > 3:
                        t3 = minus_times(load(panels, three + i), panels[corner + 3], t0)
                        t3 = minus_times(t3, panels[one + 3], t1)
                        t3 = minus_times(t3, panels[two + 3], t2)
                        t3 = times(1.0 / panels[three + 3], t3)
                        store(panels, three + i, t3)
    return -1


@contracted
def factorise(
    conductances: FloatArray,
    begin: IntArray,
    row_starts: IntArray,
    relative: IndexArray,
    child_starts: IntArray,
    children: IntArray,
    panel_at: IntArray,
    update_at: IntArray,
    entry_starts: IntArray,
    entry_diagonal: IntArray,
    edge: IndexArray,
    cell: IndexArray,
    panels: FloatArray,
    updates: FloatArray,
    reciprocal: FloatArray,
    letters: LetterArray,
    units: FloatArray,
    sizes: npt.NDArray[np.int32],
) -> int:
    """Assemble and factor; return the column of a lost pivot, or −1.

    ``panels`` become the factor, ``reciprocal`` (n,) one over its diagonal, ``updates`` is scratch. For LAPACK come
    ``letters`` "LNRT", ``units`` 1 and −1, and room for five ``sizes``.
    """
    lower, plain, right, transposed = (
        letters.ctypes.data,
        letters.ctypes.data + 1,
        letters.ctypes.data + 2,
        letters.ctypes.data + 3,
    )
    first_size = sizes.ctypes.data
    n_k, n_r, n_stride, n_update, n_info = first_size, first_size + 4, first_size + 8, first_size + 12, first_size + 16
    plus, minus = units.ctypes.data, units.ctypes.data + 8
    widest = 0
    for s in range(len(begin) - 1):
        widest = max(widest, begin[s + 1] - begin[s])
    floor = np.empty(widest)
    for s in range(len(begin) - 1):
        k, m = begin[s + 1] - begin[s], row_starts[s + 1] - row_starts[s]
        r, stride, at = m - k, (m + 3) & ~3, panel_at[s]
        u_stride, u = (r + 3) & ~3, update_at[s]
        panels[at : at + stride * k] = 0.0
        for place in range(entry_starts[s], entry_diagonal[s]):
            panels[at + cell[place]] -= conductances[edge[place]]
        for place in range(entry_diagonal[s], entry_starts[s + 1]):
            panels[at + cell[place]] += conductances[edge[place]]
        for j in range(k):
            floor[j] = LOST_PIVOT * panels[at + j * (stride + 1)]
        updates[u : u + u_stride * u_stride] = 0.0
        for position in range(child_starts[s], child_starts[s + 1]):
            child = children[position]
            base = row_starts[child] + begin[child + 1] - begin[child]
            height = row_starts[child + 1] - base
            source = update_at[child]
            for j in range(height):
                to = relative[base + j]
                if to < k:
                    column = at + to * stride
                    for i in range(j, height):
                        panels[column + relative[base + i]] += updates[source + i]
                else:
                    column = u + (to - k) * u_stride - k
                    for i in range(j, height):
                        updates[column + relative[base + i]] += updates[source + i]
                source += (height + 3) & ~3
        if m < LARGE_FRONT:
            lost = _small_cholesky(panels, at, stride, k, m, floor)
            if lost >= 0:
                return int(begin[s] + lost)
            for j in range(0, r, 4):
                _columns_of_four(updates, u + j * (u_stride + 1), u_stride, r - j, panels, at + k + j, stride, k)
        else:
            sizes[0], sizes[1], sizes[2], sizes[3] = k, r, stride, u_stride
            panel = panels.ctypes.data + 8 * at
            dpotrf(lower, n_k, panel, n_stride, n_info)
            if sizes[4] != 0:
                return int(begin[s] + sizes[4] - 1)
            for j in range(k):
                if not panels[at + j * (stride + 1)] ** 2 > floor[j]:
                    return int(begin[s] + j)
            if r > 0:
                below = panel + 8 * k
                update = updates.ctypes.data + 8 * u
                dtrsm(right, lower, transposed, plain, n_r, n_k, plus, panel, n_stride, below, n_stride)
                dsyrk(lower, plain, n_r, n_k, minus, below, n_stride, plus, update, n_update)
        for j in range(k):
            reciprocal[begin[s] + j] = 1.0 / panels[at + j * (stride + 1)]
    return -1


@contracted
def mark_paths(rows: IntArray, block: IntArray, tree: IntArray) -> BoolArray:
    """Return for every supernode whether loads at these rows reach it on the way up."""
    reached = np.zeros(len(tree), dtype=np.bool_)
    for row in rows:
        s = block[row]
        while s >= 0 and not reached[s]:
            reached[s] = True
            s = tree[s]
    return reached


@contracted
def _subtract(
    w: FloatArray,
    target: int,
    wide: int,
    source: int,
    depth: int,
    panels: FloatArray,
    cell: int,
    by_row: int,
    by_depth: int,
    p: int,
) -> None:
    """Subtract from ``wide`` ≤ 4 rows of w (·, p), flat, a 4 x depth block of the panels times rows from ``source``."""
    q = 0
    while q + 12 <= p:
        at = target * p + q
        a0, a1, a2 = load(w, at), load(w, at + 4), load(w, at + 8)
        at += p
        b0, b1, b2 = load(w, at), load(w, at + 4), load(w, at + 8)
        at += p
        c0, c1, c2 = load(w, at), load(w, at + 4), load(w, at + 8)
        at += p
        d0, d1, d2 = load(w, at), load(w, at + 4), load(w, at + 8)
        row, here = source * p + q, cell
        for _ in range(depth):
            v0, v1, v2 = load(w, row), load(w, row + 4), load(w, row + 8)
            l = panels[here]
            a0, a1, a2 = minus_times(a0, l, v0), minus_times(a1, l, v1), minus_times(a2, l, v2)
            l = panels[here + by_row]
            b0, b1, b2 = minus_times(b0, l, v0), minus_times(b1, l, v1), minus_times(b2, l, v2)
            l = panels[here + 2 * by_row]
            c0, c1, c2 = minus_times(c0, l, v0), minus_times(c1, l, v1), minus_times(c2, l, v2)
            l = panels[here + 3 * by_row]
            d0, d1, d2 = minus_times(d0, l, v0), minus_times(d1, l, v1), minus_times(d2, l, v2)
            row += p
            here += by_depth
        at = target * p + q
        store(w, at, a0)
        store(w, at + 4, a1)
        store(w, at + 8, a2)
        if wide > 1:
            at += p
            store(w, at, b0)
            store(w, at + 4, b1)
            store(w, at + 8, b2)
        if wide > 2:
            at += p
            store(w, at, c0)
            store(w, at + 4, c1)
            store(w, at + 8, c2)
        if wide > 3:
            at += p
            store(w, at, d0)
            store(w, at + 4, d1)
            store(w, at + 8, d2)
        q += 12
    while q < p:
        at = target * p + q
        a0, b0, c0, d0 = load(w, at), load(w, at + p), load(w, at + 2 * p), load(w, at + 3 * p)
        row, here = source * p + q, cell
        for _ in range(depth):
            v0 = load(w, row)
            a0 = minus_times(a0, panels[here], v0)
            b0 = minus_times(b0, panels[here + by_row], v0)
            c0 = minus_times(c0, panels[here + 2 * by_row], v0)
            d0 = minus_times(d0, panels[here + 3 * by_row], v0)
            row += p
            here += by_depth
        store(w, at, a0)
        if wide > 1:
            store(w, at + p, b0)
        if wide > 2:
            store(w, at + 2 * p, c0)
        if wide > 3:
            store(w, at + 3 * p, d0)
        q += 4


@contracted
def _forward_front(
    panels: FloatArray, at: int, stride: int, k: int, m: int, own: FloatArray, w: FloatArray, p: int
) -> None:
    """Solve with the front's triangle and subtract from the rows below; w (m, p) are its rows, flat."""
    for j in range(0, k, 4):
        wide = min(4, k - j)
        if j:
            _subtract(w, j, wide, 0, j, panels, at + j, 1, stride, p)
        cell = at + j * (stride + 1)
        for q in range(j * p, (j + 1) * p, 4):
            t0 = times(own[j], load(w, q))
            store(w, q, t0)
            if wide > 1:
                t1 = times(own[j + 1], minus_times(load(w, q + p), panels[cell + 1], t0))
                store(w, q + p, t1)
                if wide > 2:
                    t2 = minus_times(load(w, q + 2 * p), panels[cell + 2], t0)
                    t2 = times(own[j + 2], minus_times(t2, panels[cell + stride + 2], t1))
                    store(w, q + 2 * p, t2)
                    if wide > 3:
                        t3 = minus_times(load(w, q + 3 * p), panels[cell + 3], t0)
                        t3 = minus_times(t3, panels[cell + stride + 3], t1)
                        t3 = times(own[j + 3], minus_times(t3, panels[cell + 2 * stride + 3], t2))
                        store(w, q + 3 * p, t3)
    for i in range(k, m, 4):
        # Rows behind the last are scratch.
        _subtract(w, i, 4, 0, k, panels, at + i, 1, stride, p)


@contracted
def _backward_front(
    panels: FloatArray, at: int, stride: int, k: int, m: int, own: FloatArray, w: FloatArray, p: int
) -> None:
    """Solve with the transposed triangle of the front after its rows below; w (m, p) are its rows, flat."""
    for j in range((k - 1) & ~3, -1, -4):
        wide = min(4, k - j)
        cell = at + j * (stride + 1)
        if m > j + wide:
            _subtract(w, j, wide, j + wide, m - j - wide, panels, cell + wide, stride, 1, p)
        for q in range(j * p, (j + 1) * p, 4):
            t0 = load(w, q)
            if wide > 1:
                t1 = load(w, q + p)
                if wide > 2:
                    t2 = load(w, q + 2 * p)
                    if wide > 3:
                        t3 = times(own[j + 3], load(w, q + 3 * p))
                        store(w, q + 3 * p, t3)
                        t2 = minus_times(t2, panels[cell + 2 * stride + 3], t3)
                        t1 = minus_times(t1, panels[cell + stride + 3], t3)
                        t0 = minus_times(t0, panels[cell + 3], t3)
                    t2 = times(own[j + 2], t2)
                    store(w, q + 2 * p, t2)
                    t1 = minus_times(t1, panels[cell + stride + 2], t2)
                    t0 = minus_times(t0, panels[cell + 2], t2)
                t1 = times(own[j + 1], t1)
                store(w, q + p, t1)
                t0 = minus_times(t0, panels[cell + 1], t1)
            store(w, q, times(own[j], t0))


@contracted
def _fetch_front(
    panels: FloatArray, low: int, high: int, x: FloatArray, rows: IndexArray, first: int, last: int, p: int
) -> None:
    """Have the processor bring the next front near while it computes the present one."""
    for cell in range(low, min(high, low + FETCHED), 8):
        fetch(panels, cell)
    for position in range(first, min(last, first + FETCHED // 8)):
        for q in range(0, p, 8):
            fetch(x, rows[position] * p + q)


@contracted
def substitute(
    x: FloatArray,
    p: int,
    reached: BoolArray,
    begin: IntArray,
    row_starts: IntArray,
    rows: IndexArray,
    panel_at: IntArray,
    panels: FloatArray,
    reciprocal: FloatArray,
) -> None:
    """Solve in place for x (n, p), flat, in elimination order; only supernodes ``reached`` have loads to pass on."""
    n_super, highest = len(begin) - 1, 0
    for s in range(n_super):
        highest = max(highest, row_starts[s + 1] - row_starts[s])
    w = np.zeros((highest + 8) * p)
    for s in range(n_super):
        if not reached[s]:
            continue
        low, k, m = begin[s], begin[s + 1] - begin[s], row_starts[s + 1] - row_starts[s]
        stride = (m + 3) & ~3
        if s + 1 < n_super and reached[s + 1]:
            _fetch_front(panels, panel_at[s + 1], panel_at[s + 2], x, rows, row_starts[s + 1], row_starts[s + 2], p)
        for i in range(m):
            row = rows[row_starts[s] + i] * p
            for q in range(0, p, 4):
                store(w, i * p + q, load(x, row + q))
        _forward_front(panels, panel_at[s], stride, k, m, reciprocal[low:], w, p)
        for i in range(m):
            row = rows[row_starts[s] + i] * p
            for q in range(0, p, 4):
                store(x, row + q, load(w, i * p + q))
    for s in range(n_super - 1, -1, -1):
        low, k, m = begin[s], begin[s + 1] - begin[s], row_starts[s + 1] - row_starts[s]
        stride = (m + 3) & ~3
        if s > 0:
            _fetch_front(panels, panel_at[s - 1], panel_at[s], x, rows, row_starts[s - 1], row_starts[s], p)
        for i in range(m):
            row = rows[row_starts[s] + i] * p
            for q in range(0, p, 4):
                store(w, i * p + q, load(x, row + q))
        _backward_front(panels, panel_at[s], stride, k, m, reciprocal[low:], w, p)
        for i in range(k):
            for q in range(0, p, 4):
                store(x, (low + i) * p + q, load(w, i * p + q))
