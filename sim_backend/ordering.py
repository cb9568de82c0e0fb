"""Orders of elimination for sparse Cholesky factorisation, as kernels.

A graph comes as (starts, neighbours): the neighbours of node i are ``neighbours[starts[i]:starts[i + 1]]``, each edge
in both directions, no loops, none twice.
"""

import numpy as np
import numpy.typing as npt

from hilcl.arrays import IntArray
from hilcl.sim_backend.compiled import contracted

_VARIABLE, _ELEMENT, _GONE = 0, 1, 2


@contracted
def minimum_degree(starts: IntArray, neighbours: IntArray, most_flops: float) -> tuple[IntArray, float]:
    """Return the rank of each node in an order of small fill, and its flops; no ranks if they exceed ``most_flops``.

    Approximate minimum degree on the quotient graph, with element absorption, mass elimination and joining of
    indistinguishable nodes (Amestoy, Davis and Duff, SIAM J. Matrix Anal. Appl. 17, 1996). Nodes of equal rank are
    eliminated one after the other; flops are an upper bound, as degrees are.
    """
    n = len(starts) - 1
    used = starts[n]
    space = np.empty(used + used // 5 + 2 * n + 8, dtype=np.int64)
    space[:used] = neighbours
    at = starts[:n].copy()
    length = starts[1:] - starts[:n]
    n_elements = np.zeros(n, dtype=np.int64)
    # Weight: how many nodes a variable stands for; negative while it is in the list of the present pivot.
    weight = np.ones(n, dtype=np.int64)
    degree = length.copy()
    kind = np.zeros(n, dtype=np.int8)
    joined = np.full(n, -1, dtype=np.int64)
    rank = np.zeros(n, dtype=np.int64)
    mark = np.ones(n, dtype=np.int64)
    stamp, largest = 2, 0
    head = np.full(n + 1, -1, dtype=np.int64)
    following = np.full(n, -1, dtype=np.int64)
    preceding = np.full(n, -1, dtype=np.int64)
    bucket = np.full(n, -1, dtype=np.int64)
    in_bucket = np.full(n, -1, dtype=np.int64)
    key = np.zeros(n, dtype=np.int64)
    for i in range(n - 1, -1, -1):
        first = head[degree[i]]
        following[i] = first
        if first >= 0:
            preceding[first] = i
        head[degree[i]] = i
    eliminated, least, n_pivots, flops = 0, 0, 0, 0.0
    while eliminated < n:
        while head[least] < 0:
            least += 1
        pivot = head[least]
        head[least] = following[pivot]
        if following[pivot] >= 0:
            preceding[following[pivot]] = -1
        own = weight[pivot]
        rank[pivot] = n_pivots
        n_pivots += 1
        eliminated += own
        weight[pivot] = -own
        # The pivot becomes an element: the union of its variables and of those of its elements.
        in_place = n_elements[pivot] == 0
        if not in_place and used + degree[pivot] + 1 > len(space):
            used = _compact(space, used, at, length, kind)
        start = at[pivot] if in_place else used
        end, size = start, 0
        for part in range(n_elements[pivot] + 1):
            if part < n_elements[pivot]:
                source = space[at[pivot] + part]
                low, high = at[source], at[source] + length[source]
                kind[source], mark[source], length[source] = _GONE, 0, 0
            else:
                low, high = at[pivot] + n_elements[pivot], at[pivot] + length[pivot]
            for place in range(low, high):
                i = space[place]
                w = weight[i]
                if w > 0:
                    size += w
                    weight[i] = -w
                    space[end] = i
                    end += 1
                    before, after = preceding[i], following[i]
                    if after >= 0:
                        preceding[after] = before
                    if before >= 0:
                        following[before] = after
                    else:
                        head[degree[i]] = after
        if not in_place:
            used = end
        kind[pivot], at[pivot], length[pivot], degree[pivot] = _ELEMENT, start, end - start, size
        largest = max(largest, size)
        # How much of each neighbouring element lies outside the new one.
        for place in range(start, end):
            i = space[place]
            w = -weight[i]
            for place_of in range(at[i], at[i] + n_elements[i]):
                e = space[place_of]
                if mark[e] >= stamp:
                    mark[e] -= w
                elif mark[e] != 0:
                    mark[e] = degree[e] + stamp - w
        for place in range(start, end):
            i = space[place]
            low, count, total, hashed = at[i], at[i], 0, 0
            for place_of in range(low, low + n_elements[i]):
                e = space[place_of]
                if mark[e] == 0:
                    continue
                if mark[e] > stamp:
                    total += mark[e] - stamp
                    space[count] = e
                    count += 1
                    hashed += e
                else:
                    kind[e], mark[e], length[e] = _GONE, 0, 0
            kept = count
            for place_of in range(low + n_elements[i], low + length[i]):
                j = space[place_of]
                if weight[j] > 0:
                    total += weight[j]
                    space[count] = j
                    count += 1
                    hashed += j
            if total == 0 and kept == low and count == kept:
                w = -weight[i]
                joined[i], kind[i], weight[i], length[i] = pivot, _GONE, 0, 0
                size -= w
                own += w
                eliminated += w
                continue
            degree[i] = min(degree[i], total)
            space[count] = space[kept]
            space[kept] = space[low]
            space[low] = pivot
            length[i] = count - low + 1
            n_elements[i] = kept - low + 1
            key[i] = hashed % n
            in_bucket[i] = bucket[key[i]]
            bucket[key[i]] = i
        degree[pivot] = size
        stamp += largest + 1
        # Join variables that have the same neighbours.
        for place in range(start, end):
            i = space[place]
            if weight[i] == 0:
                continue
            i = bucket[key[i]]
            bucket[key[space[place]]] = -1
            while i >= 0 and in_bucket[i] >= 0:
                for place_of in range(at[i] + 1, at[i] + length[i]):
                    mark[space[place_of]] = stamp
                last, j = i, in_bucket[i]
                while j >= 0:
                    same = length[j] == length[i] and n_elements[j] == n_elements[i]
                    place_of = at[j] + 1
                    while same and place_of < at[j] + length[j]:
                        same = mark[space[place_of]] == stamp
                        place_of += 1
                    if same:
                        joined[j], kind[j] = i, _GONE
                        weight[i] += weight[j]
                        weight[j], length[j] = 0, 0
                        in_bucket[last] = in_bucket[j]
                    else:
                        last = j
                    j = in_bucket[j]
                stamp += 1
                i = in_bucket[i]
        place_of, left = start, n - eliminated
        for place in range(start, end):
            i = space[place]
            w = -weight[i]
            if w == 0:
                continue
            weight[i] = w
            now = min(degree[i] + size - w, left - w)
            degree[i] = now
            first = head[now]
            following[i], preceding[i] = first, -1
            if first >= 0:
                preceding[first] = i
            head[now] = i
            least = min(least, now)
            space[place_of] = i
            place_of += 1
        length[pivot], weight[pivot] = place_of - start, own
        if place_of == start:
            kind[pivot], mark[pivot] = _GONE, 0
        if not in_place:
            used = place_of
        for column in range(own):
            flops += float(size + column + 1) ** 2
        if flops > most_flops:
            return np.empty(0, dtype=np.int64), flops
    for i in range(n):
        root = i
        while joined[root] >= 0:
            root = joined[root]
        j = i
        while joined[j] >= 0:
            joined[j], j = root, joined[j]
        rank[i] = rank[root]
    return rank, flops


@contracted
def _compact(space: IntArray, used: int, at: IntArray, length: IntArray, kind: npt.NDArray[np.int8]) -> int:
    """Close the gaps between the lists of live variables and elements; return how much is used."""
    for i in range(len(at)):
        if kind[i] != _GONE and length[i] > 0:
            first = space[at[i]]
            space[at[i]] = -i - 1
            at[i] = first
    to, place = 0, 0
    while place < used:
        i = -space[place] - 1
        place += 1
        if i >= 0:
            space[to] = at[i]
            at[i] = to
            to += 1
            for _ in range(length[i] - 1):
                space[to] = space[place]
                to += 1
                place += 1
    return to
