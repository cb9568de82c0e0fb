"""The compiled kernels of many boards of one network: eight boards at a time, side by side in every vector.

The mathematics and the order of elimination are those of ``fused_kernels``; ``plan`` is made with as many numbers per
row as there are basis functions, and every number of a single board is eight here, one per board.
"""

from typing import Any

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.sim_backend.compiled import compiled
from hilcl.sim_backend.fused_kernels import (
    COLUMN_STARTS,
    COUPLED_EDGES,
    COUPLED_ENTRIES,
    COUPLED_HIGH,
    COUPLED_LOW,
    DONE,
    DRIVEN_EDGES,
    DRIVEN_PLACES,
    FIRST,
    GROUNDED_EDGES,
    GROUNDED_ROWS,
    INPUT_EDGES,
    INPUT_HERE,
    INPUT_STARTS,
    INPUT_THERE,
    LOST_PIVOT,
    NO_NUMBER,
    OUTPUT_ROWS,
    ROW_COLUMNS,
    ROW_ENTRIES,
    ROW_STARTS,
    ROWS,
    SECOND,
    SINGULAR,
    TOO_TIGHT,
    section,
    sizes,
)
from hilcl.sim_backend.fused_plan import PlanArray
from hilcl.sim_backend.lanes import (
    LANES,
    add,
    add_product,
    clip,
    divide,
    fill,
    least,
    load,
    lower,
    multiply,
    store,
    subtract,
    subtract_product,
    transpose,
)

LOSS, POWER, CONTRAST, SQUARES, FINITE = range(5)
"""Figures of a step, one row of eight each."""

FIGURES = 5


@compiled
def side_by_side(boards: FloatArray, start: int, count: int, lanes: FloatArray) -> None:
    """Write rows start … start + 7 of ``boards``, of ``count`` numbers each, as ``count`` rows of eight."""
    whole = count // LANES * LANES
    for e in range(0, whole, LANES):
        transpose(boards, start * count + e, count, lanes, e * LANES, LANES)
    for e in range(whole, count):
        for k in range(LANES):
            lanes[e * LANES + k] = boards[(start + k) * count + e]


@compiled
def board_by_board(lanes: FloatArray, start: int, count: int, boards: FloatArray) -> None:
    """The reverse of ``side_by_side``."""
    whole = count // LANES * LANES
    for e in range(0, whole, LANES):
        transpose(lanes, e * LANES, LANES, boards, start * count + e, count)
    for e in range(whole, count):
        for k in range(LANES):
            boards[(start + k) * count + e] = lanes[e * LANES + k]


@compiled
def factor(
    plan: PlanArray, conductances: FloatArray, entries: FloatArray, inverse: FloatArray, column: FloatArray
) -> bool:
    """Write L and D⁻¹ as ``fused_kernels.factor`` does; False where a pivot of any board is lost."""
    n = len(inverse) // LANES
    starts, rows = section(plan, COLUMN_STARTS), section(plan, ROWS)
    row_starts, row_columns = section(plan, ROW_STARTS), section(plan, ROW_COLUMNS)
    row_entries = section(plan, ROW_ENTRIES)
    edges, places = section(plan, COUPLED_EDGES), section(plan, COUPLED_ENTRIES)
    low, high = section(plan, COUPLED_LOW), section(plan, COUPLED_HIGH)
    entries[:] = 0.0
    inverse[:] = 0.0
    for k in range(len(edges)):
        g = load(conductances, np.int64(edges[k]) * LANES)
        place, one, two = np.int64(places[k]) * LANES, np.int64(low[k]) * LANES, np.int64(high[k]) * LANES
        store(entries, place, subtract(load(entries, place), g))
        store(inverse, one, add(load(inverse, one), g))
        store(inverse, two, add(load(inverse, two), g))
    edges, low = section(plan, GROUNDED_EDGES), section(plan, GROUNDED_ROWS)
    for k in range(len(edges)):
        one = np.int64(low[k]) * LANES
        store(inverse, one, add(load(inverse, one), load(conductances, np.int64(edges[k]) * LANES)))
    pivots = column[n * LANES :]
    margin = fill(1.0)
    for j in range(n):
        start, stop = np.int64(starts[j]), np.int64(starts[j + 1])
        diagonal = load(inverse, j * LANES)
        pivot = diagonal
        for t in range(start, stop):
            store(column, np.int64(rows[t]) * LANES, load(entries, t * LANES))
        for s in range(np.int64(row_starts[j]), np.int64(row_starts[j + 1])):
            left, entry = np.int64(row_columns[s]), np.int64(row_entries[s])
            factor_jk = load(entries, entry * LANES)
            scaled = multiply(factor_jk, load(pivots, left * LANES))
            pivot = subtract_product(pivot, scaled, factor_jk)
            for t in range(entry + 1, np.int64(starts[left + 1])):
                place = np.int64(rows[t]) * LANES
                store(column, place, subtract_product(load(column, place), scaled, load(entries, t * LANES)))
        margin = lower(margin, subtract_product(pivot, LOST_PIVOT, diagonal))
        store(pivots, j * LANES, pivot)
        pivot = divide(fill(1.0), pivot)
        store(inverse, j * LANES, pivot)
        for t in range(start, stop):
            store(entries, t * LANES, multiply(load(column, np.int64(rows[t]) * LANES), pivot))
    return bool(least(margin) > 0.0)


@compiled
def solve(plan: PlanArray, entries: FloatArray, inverse: FloatArray, values: FloatArray, width: int) -> None:
    """Solve in place for ``width`` right-hand sides in order of elimination."""
    n = len(inverse) // LANES
    starts, rows = section(plan, COLUMN_STARTS), section(plan, ROWS)
    row_starts, row_columns = section(plan, ROW_STARTS), section(plan, ROW_COLUMNS)
    row_entries = section(plan, ROW_ENTRIES)
    for c in range(0, width, 4):
        # Past the last right-hand side the same one is solved again, into the same place.
        at = c * LANES, min(c + 1, width - 1) * LANES, min(c + 2, width - 1) * LANES, min(c + 3, width - 1) * LANES
        for j in range(n):
            here = j * width * LANES
            one, two = load(values, here + at[0]), load(values, here + at[1])
            three, four = load(values, here + at[2]), load(values, here + at[3])
            for s in range(np.int64(row_starts[j]), np.int64(row_starts[j + 1])):
                entry = load(entries, np.int64(row_entries[s]) * LANES)
                there = np.int64(row_columns[s]) * width * LANES
                one = subtract_product(one, entry, load(values, there + at[0]))
                two = subtract_product(two, entry, load(values, there + at[1]))
                three = subtract_product(three, entry, load(values, there + at[2]))
                four = subtract_product(four, entry, load(values, there + at[3]))
            store(values, here + at[0], one)
            store(values, here + at[1], two)
            store(values, here + at[2], three)
            store(values, here + at[3], four)
        for back in range(n):
            j = n - 1 - back
            here, scale = j * width * LANES, load(inverse, j * LANES)
            one, two = multiply(scale, load(values, here + at[0])), multiply(scale, load(values, here + at[1]))
            three, four = multiply(scale, load(values, here + at[2])), multiply(scale, load(values, here + at[3]))
            for t in range(np.int64(starts[j]), np.int64(starts[j + 1])):
                entry, there = load(entries, t * LANES), np.int64(rows[t]) * width * LANES
                one = subtract_product(one, entry, load(values, there + at[0]))
                two = subtract_product(two, entry, load(values, there + at[1]))
                three = subtract_product(three, entry, load(values, there + at[2]))
                four = subtract_product(four, entry, load(values, there + at[3]))
            store(values, here + at[0], one)
            store(values, here + at[1], two)
            store(values, here + at[2], three)
            store(values, here + at[3], four)


@compiled
def basis(plan: PlanArray, conductances: FloatArray, values: FloatArray) -> None:
    """Write the right-hand sides of the basis into its floating rows; rows of inputs stay as they are."""
    n, _, _, n_outputs, n_rows, width = sizes(plan)
    values[: n * width * LANES] = 0.0
    edges, places = section(plan, DRIVEN_EDGES), section(plan, DRIVEN_PLACES)
    for k in range(len(edges)):
        place = np.int64(places[k]) * LANES
        store(values, place, add(load(values, place), load(conductances, np.int64(edges[k]) * LANES)))
    at_outputs = section(plan, OUTPUT_ROWS)
    for o in range(n_outputs):
        store(values, (np.int64(at_outputs[o]) + n_rows + o) * LANES, fill(1.0))


@compiled
def admittance(plan: PlanArray, conductances: FloatArray, values: FloatArray, into: FloatArray) -> None:
    """Write Y (rows, rows), its lower half: amperes into the inputs above the reference per volt at one of them."""
    _, _, n_inputs, _, n_rows, _ = sizes(plan)
    starts, edges = section(plan, INPUT_STARTS), section(plan, INPUT_EDGES)
    here, there = section(plan, INPUT_HERE), section(plan, INPUT_THERE)
    for i in range(1, n_inputs):
        for r in range(i):
            flow = fill(0.0)
            for k in range(np.int64(starts[i]), np.int64(starts[i + 1])):
                g = load(conductances, np.int64(edges[k]) * LANES)
                one, two = load(values, (np.int64(here[k]) + r) * LANES), load(values, (np.int64(there[k]) + r) * LANES)
                flow = add_product(flow, g, subtract(one, two))
            store(into, ((i - 1) * n_rows + r) * LANES, flow)


@compiled
def clamp(plan: PlanArray, values: FloatArray, impedance: FloatArray, per_volt: FloatArray) -> bool:
    """Write L D Lᵀ of the impedance of the outputs, D⁻¹ on its diagonal, and its inverse, both (O, O)."""
    _, _, _, n_outputs, n_rows, _ = sizes(plan)
    outputs = section(plan, OUTPUT_ROWS)
    sound = True
    for j in range(n_outputs):
        for i in range(j, n_outputs):
            one = load(values, (np.int64(outputs[i]) + n_rows + j) * LANES)
            two = load(values, (np.int64(outputs[j]) + n_rows + i) * LANES)
            entry = multiply(fill(0.5), add(one, two))
            # Entries of a column wait as L D, so that no root is needed.
            for k in range(j):
                scaled = multiply(load(impedance, (j * n_outputs + k) * LANES), load(per_volt, k * LANES))
                entry = subtract_product(entry, load(impedance, (i * n_outputs + k) * LANES), scaled)
            if i == j:
                if not least(entry) > 0.0:
                    sound = False
                store(per_volt, j * LANES, entry)
                store(impedance, (j * n_outputs + j) * LANES, divide(fill(1.0), entry))
            else:
                inverse = load(impedance, (j * n_outputs + j) * LANES)
                store(impedance, (i * n_outputs + j) * LANES, multiply(entry, inverse))
    for c in range(n_outputs):
        for i in range(n_outputs):
            entry = fill(1.0 if i == c else 0.0)
            for k in range(c, i):
                one = load(impedance, (i * n_outputs + k) * LANES)
                entry = subtract_product(entry, one, load(per_volt, (k * n_outputs + c) * LANES))
            store(per_volt, (i * n_outputs + c) * LANES, entry)
        for back in range(n_outputs):
            i = n_outputs - 1 - back
            one = load(impedance, (i * n_outputs + i) * LANES)
            entry = multiply(one, load(per_volt, (i * n_outputs + c) * LANES))
            for k in range(i + 1, n_outputs):
                one = load(impedance, (k * n_outputs + i) * LANES)
                entry = subtract_product(entry, one, load(per_volt, (k * n_outputs + c) * LANES))
            store(per_volt, (i * n_outputs + c) * LANES, entry)
    return sound


@compiled
def samples(
    plan: PlanArray,
    values: FloatArray,
    into: FloatArray,
    impedance: FloatArray,
    volts: FloatArray,
    products: FloatArray,
    targets: FloatArray,
    nudge: float,
    free: FloatArray,
    displaced: FloatArray,
    lifted: FloatArray,
    power: FloatArray,
    contrast: FloatArray,
    figures: FloatArray,
) -> None:
    """Write free outputs, displacements, powers and contrasts of all samples, and their sums.

    ``volts`` (S, I) are input 0 and the others above it, ``products`` (S, pairs) the weights of Y's lower half in the
    power of a sample; both are the same for all boards.
    """
    _, _, _, n_outputs, n_rows, _ = sizes(plan)
    outputs = section(plan, OUTPUT_ROWS)
    loss = all_power = all_contrast = fill(0.0)
    for s in range(len(volts)):
        spent, pair = fill(0.0), 0
        for i in range(n_rows):
            for r in range(i + 1):
                spent = add_product(spent, products[s, pair], load(into, (i * n_rows + r) * LANES))
                pair += 1
        store(power, s * LANES, spent)
        all_power = add(all_power, spent)
        worth = fill(0.0)
        for o in range(n_outputs):
            output = fill(0.0)
            for r in range(n_rows):
                output = add_product(output, volts[s, r + 1], load(values, (np.int64(outputs[o]) + r) * LANES))
            output = add(output, fill(volts[s, 0]))
            place = (s * n_outputs + o) * LANES
            store(free, place, output)
            moved = subtract(fill(targets[s, o]), output)
            loss = add_product(loss, moved, moved)
            moved = multiply(fill(nudge), moved)
            store(displaced, place, moved)
            # Q = dᵀZ⁻¹d with Z = L D Lᵀ, never negative.
            for k in range(o):
                moved = subtract_product(moved, load(impedance, (o * n_outputs + k) * LANES), load(lifted, k * LANES))
            store(lifted, o * LANES, moved)
            worth = add_product(worth, multiply(moved, moved), load(impedance, (o * n_outputs + o) * LANES))
        worth = multiply(fill(1.0 / (nudge * nudge)), worth)
        store(contrast, s * LANES, worth)
        all_contrast = add(all_contrast, worth)
    store(figures, LOSS * LANES, loss)
    store(figures, POWER * LANES, all_power)
    store(figures, CONTRAST * LANES, all_contrast)


@compiled
def moments(volts: FloatArray, displaced: FloatArray, n_outputs: int, mixed: FloatArray, squares: FloatArray) -> None:
    """Write Σ_s 2d uᵀ (rows, O) and Σ_s d dᵀ (O, O), as ``fused_kernels.moments``, four inputs at a time."""
    n_samples, n_inputs = volts.shape
    for o in range(n_outputs):
        for r in range(1, n_inputs, 4):
            at = r, min(r + 1, n_inputs - 1), min(r + 2, n_inputs - 1), min(r + 3, n_inputs - 1)
            one = two = three = four = fill(0.0)
            for s in range(n_samples):
                moved = load(displaced, (s * n_outputs + o) * LANES)
                one, two = add_product(one, volts[s, at[0]], moved), add_product(two, volts[s, at[1]], moved)
                three, four = add_product(three, volts[s, at[2]], moved), add_product(four, volts[s, at[3]], moved)
            double = fill(2.0)
            store(mixed, ((at[0] - 1) * n_outputs + o) * LANES, multiply(double, one))
            store(mixed, ((at[1] - 1) * n_outputs + o) * LANES, multiply(double, two))
            store(mixed, ((at[2] - 1) * n_outputs + o) * LANES, multiply(double, three))
            store(mixed, ((at[3] - 1) * n_outputs + o) * LANES, multiply(double, four))
        for k in range(o + 1):
            one = fill(0.0)
            for s in range(n_samples):
                here = s * n_outputs
                one = add_product(one, load(displaced, (here + o) * LANES), load(displaced, (here + k) * LANES))
            store(squares, (o * n_outputs + k) * LANES, one)
            store(squares, (k * n_outputs + o) * LANES, one)


@compiled
def edge_forms(
    plan: PlanArray,
    values: FloatArray,
    per_volt: FloatArray,
    mixed: FloatArray,
    squares: FloatArray,
    drops: FloatArray,
    moved: FloatArray,
    gradient: FloatArray,
) -> None:
    """Write Σ_s δ(2v + δ) of every edge, as ``fused_kernels.edge_forms``, four outputs at a time."""
    _, n_edges, _, n_outputs, n_rows, width = sizes(plan)
    first, second = section(plan, FIRST), section(plan, SECOND)
    for e in range(n_edges):
        here, there = np.int64(first[e]) * LANES, np.int64(second[e]) * LANES
        for c in range(width):
            store(drops, c * LANES, subtract(load(values, here + c * LANES), load(values, there + c * LANES)))
        for o in range(0, n_outputs, 4):
            at = o, min(o + 1, n_outputs - 1), min(o + 2, n_outputs - 1), min(o + 3, n_outputs - 1)
            one = two = three = four = fill(0.0)
            for k in range(n_outputs):
                drop, row = load(drops, (n_rows + k) * LANES), k * n_outputs
                one = add_product(one, drop, load(per_volt, (row + at[0]) * LANES))
                two = add_product(two, drop, load(per_volt, (row + at[1]) * LANES))
                three = add_product(three, drop, load(per_volt, (row + at[2]) * LANES))
                four = add_product(four, drop, load(per_volt, (row + at[3]) * LANES))
            store(moved, at[0] * LANES, one)
            store(moved, at[1] * LANES, two)
            store(moved, at[2] * LANES, three)
            store(moved, at[3] * LANES, four)
        change = fill(0.0)
        for o in range(0, n_outputs, 4):
            at = o, min(o + 1, n_outputs - 1), min(o + 2, n_outputs - 1), min(o + 3, n_outputs - 1)
            one = two = three = four = fill(0.0)
            for r in range(n_rows):
                drop, row = load(drops, r * LANES), r * n_outputs
                one = add_product(one, drop, load(mixed, (row + at[0]) * LANES))
                two = add_product(two, drop, load(mixed, (row + at[1]) * LANES))
                three = add_product(three, drop, load(mixed, (row + at[2]) * LANES))
                four = add_product(four, drop, load(mixed, (row + at[3]) * LANES))
            for k in range(n_outputs):
                drop, row = load(moved, k * LANES), k * n_outputs
                one = add_product(one, drop, load(squares, (row + at[0]) * LANES))
                two = add_product(two, drop, load(squares, (row + at[1]) * LANES))
                three = add_product(three, drop, load(squares, (row + at[2]) * LANES))
                four = add_product(four, drop, load(squares, (row + at[3]) * LANES))
            change = add_product(change, one, load(moved, at[0] * LANES))
            if o + 1 < n_outputs:
                change = add_product(change, two, load(moved, at[1] * LANES))
            if o + 2 < n_outputs:
                change = add_product(change, three, load(moved, at[2] * LANES))
            if o + 3 < n_outputs:
                change = add_product(change, four, load(moved, at[3] * LANES))
        store(gradient, e * LANES, change)


@compiled
def take(memory: FloatArray, start: int, count: int) -> Any:
    """Return ``count`` rows of eight from the memory, and where the next begin."""
    return memory[start : start + count * LANES], start + count * LANES


@compiled
def phases(
    plan: PlanArray,
    conductances: FloatArray,
    start: int,
    volts: FloatArray,
    products: FloatArray,
    targets: FloatArray,
    nudge: float,
    work: FloatArray,
    gradient: FloatArray,
    free: FloatArray,
    power: FloatArray,
    contrast: FloatArray,
    figures: FloatArray,
) -> int:
    """Measure boards start … start + 7 of ``conductances`` (B, M), flat; results are rows of eight.

    Returns DONE, SINGULAR or TOO_TIGHT.
    """
    n, n_edges, n_inputs, n_outputs, n_rows, width = sizes(plan)
    n_entries, square = len(section(plan, ROWS)), n_outputs * n_outputs
    g, at = take(work, 0, n_edges)
    entries, at = take(work, at, n_entries)
    inverse, at = take(work, at, n)
    column, at = take(work, at, 2 * n)
    values, at = take(work, at, (n + n_inputs) * width)
    into, at = take(work, at, n_rows * n_rows)
    impedance, at = take(work, at, square)
    per_volt, at = take(work, at, square)
    squares, at = take(work, at, square)
    mixed, at = take(work, at, n_rows * n_outputs)
    drops, at = take(work, at, width)
    moved, at = take(work, at, n_outputs)
    displaced, at = take(work, at, len(targets) * n_outputs)
    side_by_side(conductances, start, n_edges, g)
    if not factor(plan, g, entries, inverse, column):
        return SINGULAR
    basis(plan, g, values)
    solve(plan, entries, inverse, values, width)
    admittance(plan, g, values, into)
    if not clamp(plan, values, impedance, per_volt):
        return TOO_TIGHT
    samples(
        plan,
        values,
        into,
        impedance,
        volts,
        products,
        targets,
        nudge,
        free,
        displaced,
        moved,
        power,
        contrast,
        figures,
    )
    moments(volts, displaced, n_outputs, mixed, squares)
    edge_forms(plan, values, per_volt, mixed, squares, drops, moved, gradient)
    return DONE


@compiled
def measure(
    plan: PlanArray,
    conductances: FloatArray,
    volts: FloatArray,
    products: FloatArray,
    targets: FloatArray,
    nudge: float,
    work: FloatArray,
    lanes: FloatArray,
    gradient: FloatArray,
    outputs: FloatArray,
    power: FloatArray,
    contrast: FloatArray,
    failed: FloatArray,
) -> int:
    """Measure all boards, eight by eight: gradient (B, M), outputs (B, S, O), power and contrast (B, S), all flat.

    Returns what ``phases`` does; ``failed[0]`` is then the first of the eight boards among which it happened.
    """
    n_edges, n_samples = sizes(plan)[1], len(targets)
    n_values = n_samples * targets.shape[1]
    one, at = take(lanes, 0, n_edges)
    two, at = take(lanes, at, n_values)
    three, at = take(lanes, at, n_samples)
    four, at = take(lanes, at, n_samples)
    figures, at = take(lanes, at, FIGURES)
    for start in range(0, len(conductances) // n_edges, LANES):
        status = phases(
            plan, conductances, start, volts, products, targets, nudge, work, one, two, three, four, figures
        )
        if status != DONE:
            failed[0] = start
            return status
        board_by_board(one, start, n_edges, gradient)
        board_by_board(two, start, n_values, outputs)
        board_by_board(three, start, n_samples, power)
        board_by_board(four, start, n_samples, contrast)
    return DONE


@compiled
def step(
    plan: PlanArray,
    conductances: FloatArray,
    volts: FloatArray,
    products: FloatArray,
    targets: FloatArray,
    nudge: float,
    work: FloatArray,
    lanes: FloatArray,
    state: FloatArray,
    low: FloatArray,
    high: FloatArray,
    step_size: float,
    outputs: FloatArray,
    after: FloatArray,
    sums: FloatArray,
    failed: FloatArray,
) -> int:
    """Measure all boards and write the projected update of their states (B, M), within low and high (M,), in siemens.

    ``sums`` (B, FIGURES) are the sums of squared errors, powers and contrasts over samples, the squared residual, and
    zero where all of them are numbers. Returns as ``measure``, or NO_NUMBER.
    """
    n_edges, n_samples, n_outputs = sizes(plan)[1], targets.shape[0], targets.shape[1]
    gradient, at = take(lanes, 0, n_edges)
    free, at = take(lanes, at, n_samples * n_outputs)
    power, at = take(lanes, at, n_samples)
    contrast, at = take(lanes, at, n_samples)
    figures, at = take(lanes, at, FIGURES)
    held, at = take(lanes, at, n_edges)
    for start in range(0, len(conductances) // n_edges, LANES):
        status = phases(
            plan,
            conductances,
            start,
            volts,
            products,
            targets,
            nudge,
            work,
            gradient,
            free,
            power,
            contrast,
            figures,
        )
        if status != DONE:
            failed[0] = start
            return status
        side_by_side(state, start, n_edges, held)
        share, wide, narrow = fill(1.0 / (n_samples * nudge)), fill(step_size), fill(1.0 / step_size)
        norm = check = fill(0.0)
        for e in range(n_edges):
            direction = multiply(share, load(gradient, e * LANES))
            before = load(held, e * LANES)
            wish = subtract_product(before, wide, direction)
            boxed = clip(wish, fill(low[e]), fill(high[e]))
            store(held, e * LANES, boxed)
            # Away from the limits that is h itself; the difference would lose a small one to rounding.
            direction = add_product(direction, narrow, subtract(wish, boxed))
            norm = add_product(norm, direction, direction)
            check = add_product(check, 0.0, direction)
        store(figures, SQUARES * LANES, norm)
        store(figures, FINITE * LANES, check)
        if least(check) != 0.0:
            failed[0] = start
            return NO_NUMBER
        board_by_board(held, start, n_edges, after)
        board_by_board(free, start, n_samples * n_outputs, outputs)
        board_by_board(figures, start, FIGURES, sums)
    return DONE
