"""The compiled kernels of one small board: factor, basis, both phases of all samples and the update, in one pass.

The mathematics is that of ``basis`` and ``fused_contrast`` (docs/accuracy-and-speed.md); the arrays are laid out for
one processor: eight basis functions, edges or samples at a time, and nothing allocated. Rows of the basis are nodes:
floating ones in order of elimination, then inputs. ``plan`` comes from ``fused_plan``, ``work`` and ``scratch`` are
memory of the caller's, made by ``fused``.
"""

import math
from typing import Any

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.sim_backend.compiled import compiled
from hilcl.sim_backend.fused_plan import PlanArray, Section
from hilcl.sim_backend.lanes import (
    LANES,
    add_product,
    differences,
    fill,
    load,
    multiply,
    store,
    subtract,
    subtract_product,
    total,
)

DONE, SINGULAR, TOO_TIGHT, NOT_FINITE, NO_NUMBER = range(5)
"""What a kernel returns."""

LOST_PIVOT = float(np.finfo(np.float64).eps)
"""A pivot below this part of the diagonal it came from is rounding, not conductance."""

LOSS, POWER, CONTRAST, BOUND, RESIDUAL, PINNED = range(6)
"""Figures of a step, in this order in ``figures``."""

FIGURES = 6

# NumPy's numbers: of Python's the compiler would make a section() for each value.
SIZES = np.int64(Section.SIZES)
COLUMN_STARTS = np.int64(Section.COLUMN_STARTS)
ROWS = np.int64(Section.ROWS)
ROW_STARTS = np.int64(Section.ROW_STARTS)
ROW_COLUMNS = np.int64(Section.ROW_COLUMNS)
ROW_ENTRIES = np.int64(Section.ROW_ENTRIES)
COUPLED_EDGES = np.int64(Section.COUPLED_EDGES)
COUPLED_ENTRIES = np.int64(Section.COUPLED_ENTRIES)
COUPLED_LOW = np.int64(Section.COUPLED_LOW)
COUPLED_HIGH = np.int64(Section.COUPLED_HIGH)
GROUNDED_EDGES = np.int64(Section.GROUNDED_EDGES)
GROUNDED_ROWS = np.int64(Section.GROUNDED_ROWS)
DRIVEN_EDGES = np.int64(Section.DRIVEN_EDGES)
DRIVEN_PLACES = np.int64(Section.DRIVEN_PLACES)
FIRST = np.int64(Section.FIRST)
SECOND = np.int64(Section.SECOND)
OUTPUT_ROWS = np.int64(Section.OUTPUT_ROWS)
INPUT_STARTS = np.int64(Section.INPUT_STARTS)
INPUT_HERE = np.int64(Section.INPUT_HERE)
INPUT_EDGES = np.int64(Section.INPUT_EDGES)
INPUT_THERE = np.int64(Section.INPUT_THERE)


@compiled
def section(plan: PlanArray, name: np.int64) -> PlanArray:
    """Return a section of the plan."""
    return plan[np.int64(plan[name]) : np.int64(plan[name + 1])]


@compiled
def sizes(plan: PlanArray) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return floating nodes, edges, inputs, outputs, input rows, numbers per row."""
    given = section(plan, SIZES)
    return (
        np.int64(given[0]),
        np.int64(given[1]),
        np.int64(given[2]),
        np.int64(given[3]),
        np.int64(given[4]),
        np.int64(given[5]),
    )


@compiled
def factor(
    plan: PlanArray,
    conductances: FloatArray,
    entries: FloatArray,
    inverse: FloatArray,
    column: FloatArray,
) -> bool:
    """Write L and D⁻¹ of L_FF = L D Lᵀ for conductances (M,) in siemens; False where a pivot is lost.

    ``entries`` (entries,) are L below its diagonal, ``inverse`` (n,) is D⁻¹, ``column`` (2n,) is scratch.
    """
    n = len(inverse)
    starts, rows = section(plan, COLUMN_STARTS), section(plan, ROWS)
    row_starts, row_columns = section(plan, ROW_STARTS), section(plan, ROW_COLUMNS)
    row_entries = section(plan, ROW_ENTRIES)
    edges, places = section(plan, COUPLED_EDGES), section(plan, COUPLED_ENTRIES)
    low, high = section(plan, COUPLED_LOW), section(plan, COUPLED_HIGH)
    entries[:] = 0.0
    inverse[:] = 0.0
    for k in range(len(edges)):
        g = conductances[edges[k]]
        entries[places[k]] -= g
        inverse[low[k]] += g
        inverse[high[k]] += g
    edges, low = section(plan, GROUNDED_EDGES), section(plan, GROUNDED_ROWS)
    for k in range(len(edges)):
        inverse[low[k]] += conductances[edges[k]]
    pivots = column[n:]
    for j in range(n):
        start, stop = np.int64(starts[j]), np.int64(starts[j + 1])
        diagonal = inverse[j]
        pivot = diagonal
        for t in range(start, stop):
            column[rows[t]] = entries[t]
        for s in range(np.int64(row_starts[j]), np.int64(row_starts[j + 1])):
            k = row_columns[s]
            entry = np.int64(row_entries[s])
            factor_jk = entries[entry]
            scaled = factor_jk * pivots[k]
            pivot -= scaled * factor_jk
            for t in range(entry + 1, np.int64(starts[k + np.uint32(1)])):
                column[rows[t]] -= scaled * entries[t]
        if not pivot > LOST_PIVOT * diagonal:
            return False
        pivots[j] = pivot
        pivot = 1.0 / pivot
        inverse[j] = pivot
        for t in range(start, stop):
            entries[t] = column[rows[t]] * pivot
    return True


@compiled
def solve(plan: PlanArray, entries: FloatArray, inverse: FloatArray, values: FloatArray, width: int) -> None:
    """Solve L D Lᵀ x = b in place for rows (n, width) of ``values`` in order of elimination; width a multiple of 8."""
    n = len(inverse)
    starts, rows = section(plan, COLUMN_STARTS), section(plan, ROWS)
    at = 0
    while at + 2 * LANES <= width:
        for j in range(n):
            one, two = load(values, j * width + at), load(values, j * width + at + LANES)
            for t in range(np.int64(starts[j]), np.int64(starts[j + 1])):
                place = np.int64(rows[t]) * width + at
                store(values, place, subtract_product(load(values, place), entries[t], one))
                store(values, place + LANES, subtract_product(load(values, place + LANES), entries[t], two))
        for back in range(n):
            j = n - 1 - back
            scale = fill(inverse[j])
            one = multiply(scale, load(values, j * width + at))
            two = multiply(scale, load(values, j * width + at + LANES))
            for t in range(np.int64(starts[j]), np.int64(starts[j + 1])):
                place = np.int64(rows[t]) * width + at
                one = subtract_product(one, entries[t], load(values, place))
                two = subtract_product(two, entries[t], load(values, place + LANES))
            store(values, j * width + at, one)
            store(values, j * width + at + LANES, two)
        at += 2 * LANES
    if at < width:
        for j in range(n):
            one = load(values, j * width + at)
            for t in range(np.int64(starts[j]), np.int64(starts[j + 1])):
                place = np.int64(rows[t]) * width + at
                store(values, place, subtract_product(load(values, place), entries[t], one))
        for back in range(n):
            j = n - 1 - back
            one = multiply(fill(inverse[j]), load(values, j * width + at))
            for t in range(np.int64(starts[j]), np.int64(starts[j + 1])):
                one = subtract_product(one, entries[t], load(values, np.int64(rows[t]) * width + at))
            store(values, j * width + at, one)


@compiled
def basis(plan: PlanArray, conductances: FloatArray, values: FloatArray) -> None:
    """Write the right-hand sides of the basis into its floating rows; rows of inputs stay as they are."""
    n, _, _, n_outputs, n_rows, width = sizes(plan)
    values[: n * width] = 0.0
    edges, places = section(plan, DRIVEN_EDGES), section(plan, DRIVEN_PLACES)
    for k in range(len(edges)):
        values[places[k]] += conductances[edges[k]]
    at_outputs = section(plan, OUTPUT_ROWS)
    for o in range(n_outputs):
        values[np.int64(at_outputs[o]) + n_rows + o] = 1.0


@compiled
def cholesky(matrix: FloatArray) -> bool:
    """Factor a small symmetric matrix in place, lower triangle; False where it is not positive definite."""
    size = len(matrix)
    for j in range(size):
        pivot = matrix[j, j]
        for k in range(j):
            pivot -= matrix[j, k] * matrix[j, k]
        if not pivot > 0.0:
            return False
        pivot = math.sqrt(pivot)
        matrix[j, j] = pivot
        pivot = 1.0 / pivot
        for i in range(j + 1, size):
            entry = matrix[i, j]
            for k in range(j):
                entry -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = entry * pivot
    return True


@compiled
def inverse_of(lower: FloatArray, inverse: FloatArray) -> None:
    """Write the inverse of A = L Lᵀ, L from ``cholesky``, both (O, O)."""
    size = len(lower)
    for c in range(size):
        for i in range(size):
            entry = 1.0 if i == c else 0.0
            for k in range(c, i):
                entry -= lower[i, k] * inverse[k, c]
            inverse[i, c] = entry / lower[i, i] if i >= c else 0.0
        for back in range(size):
            i = size - 1 - back
            entry = inverse[i, c]
            for k in range(i + 1, size):
                entry -= lower[k, i] * inverse[k, c]
            inverse[i, c] = entry / lower[i, i]


@compiled
def terminals(
    plan: PlanArray,
    conductances: FloatArray,
    values: FloatArray,
    into: FloatArray,
    impedance: FloatArray,
    per_volt: FloatArray,
) -> bool:
    """Write the currents into each input (I, width), and factor and inverse of the impedance of the outputs (O, O)."""
    _, _, n_inputs, n_outputs, n_rows, width = sizes(plan)
    outputs = section(plan, OUTPUT_ROWS)
    for i in range(n_outputs):
        for j in range(i + 1):
            one = values[np.int64(outputs[i]) + n_rows + j]
            impedance[i, j] = (one + values[np.int64(outputs[j]) + n_rows + i]) / 2.0
    if not cholesky(impedance):
        return False
    inverse_of(impedance, per_volt)
    starts, edges = section(plan, INPUT_STARTS), section(plan, INPUT_EDGES)
    here, there = section(plan, INPUT_HERE), section(plan, INPUT_THERE)
    for i in range(n_inputs):
        for c in range(0, width, LANES):
            flow = fill(0.0)
            for k in range(np.int64(starts[i]), np.int64(starts[i + 1])):
                drop = subtract(load(values, np.int64(here[k]) + c), load(values, np.int64(there[k]) + c))
                flow = add_product(flow, conductances[edges[k]], drop)
            store(into, i * width + c, flow)
    return True


@compiled
def side_by_side(inputs: FloatArray, targets: FloatArray, volts: FloatArray, wanted: FloatArray, padded: int) -> bool:
    """Write the samples side by side: input 0, the others above it, and the targets; False where one is not finite."""
    n_samples, n_inputs = inputs.shape
    check = 0.0
    for s in range(n_samples):
        reference = inputs[s, 0]
        volts[s] = reference
        check += reference * 0.0
        for i in range(1, n_inputs):
            volts[i * padded + s] = inputs[s, i] - reference
            check += inputs[s, i] * 0.0
        for o in range(targets.shape[1]):
            wanted[o * padded + s] = targets[s, o]
            check += targets[s, o] * 0.0
    return bool(check == 0.0)


@compiled
def powers(volts: FloatArray, into: FloatArray, width: int, padded: int, n_inputs: int, power: FloatArray) -> None:
    """Write the power of the free phase of every sample, in watts."""
    for s in range(0, padded, LANES):
        spent = fill(0.0)
        # The currents into all inputs add up to zero, so volts above the reference are enough.
        for i in range(1, n_inputs):
            flow = fill(0.0)
            for r in range(1, n_inputs):
                flow = add_product(flow, into[i * width + r - 1], load(volts, r * padded + s))
            spent = add_product(spent, flow, load(volts, i * padded + s))
        store(power, s, spent)


@compiled
def displacements(
    plan: PlanArray,
    values: FloatArray,
    impedance: FloatArray,
    nudge: float,
    volts: FloatArray,
    wanted: FloatArray,
    free: FloatArray,
    lifted: FloatArray,
    contrast: FloatArray,
) -> None:
    """Write the free outputs of every sample, turn the targets into displacements, and write the contrasts."""
    _, _, _, n_outputs, n_rows, _ = sizes(plan)
    padded = len(wanted) // n_outputs
    outputs = section(plan, OUTPUT_ROWS)
    for s in range(0, padded, LANES):
        worth = fill(0.0)
        for o in range(n_outputs):
            output = fill(0.0)
            for r in range(n_rows):
                output = add_product(output, values[np.int64(outputs[o]) + r], load(volts, (r + 1) * padded + s))
            output = add_product(output, 1.0, load(volts, s))
            store(free, o * padded + s, output)
            moved = multiply(fill(nudge), subtract(load(wanted, o * padded + s), output))
            store(wanted, o * padded + s, moved)
            # Q = dᵀZ⁻¹d = |L⁻¹d|², never negative.
            for k in range(o):
                moved = subtract_product(moved, impedance[o, k], load(lifted, k * LANES))
            moved = multiply(fill(1.0 / impedance[o, o]), moved)
            store(lifted, o * LANES, moved)
            worth = add_product(worth, moved, moved)
        store(contrast, s, multiply(fill(1.0 / (nudge * nudge)), worth))


@compiled
def moments(volts: FloatArray, displaced: FloatArray, mixed: FloatArray, squares: FloatArray) -> None:
    """Write Σ_s 2d uᵀ (O, I − 1) and Σ_s d dᵀ (O, O) of displacements d and inputs above the reference u.

    Padding holds no sample: its volts and displacements are zero.
    """
    n_outputs, n_rows = mixed.shape
    padded = len(displaced) // n_outputs
    for o in range(n_outputs):
        for r in range(n_rows):
            sum8 = fill(0.0)
            for s in range(0, padded, LANES):
                sum8 = add_product(sum8, load(displaced, o * padded + s), load(volts, (r + 1) * padded + s))
            mixed[o, r] = 2.0 * total(sum8)
        for k in range(o + 1):
            sum8 = fill(0.0)
            for s in range(0, padded, LANES):
                sum8 = add_product(sum8, load(displaced, o * padded + s), load(displaced, k * padded + s))
            squares[o, k] = squares[k, o] = total(sum8)


@compiled
def edge_forms(
    plan: PlanArray,
    values: FloatArray,
    per_volt: FloatArray,
    mixed: FloatArray,
    squares: FloatArray,
    turned: FloatArray,
    moved: FloatArray,
    gradient: FloatArray,
) -> None:
    """Write Σ_s δ(2v + δ) of every edge, a quadratic form in its basis voltages, eight edges at a time."""
    _, n_edges, _, n_outputs, n_rows, width = sizes(plan)
    first, second = section(plan, FIRST), section(plan, SECOND)
    for e in range(0, n_edges, LANES):
        for c in range(0, width, LANES):
            differences(values, first, second, e, c, turned, c * LANES)
        # Per volt, not per ampere: outputs joined tightly behind weak links lose digits in amperes.
        for o in range(n_outputs):
            delta = fill(0.0)
            for k in range(n_outputs):
                delta = add_product(delta, per_volt[o, k], load(turned, (n_rows + k) * LANES))
            store(moved, o * LANES, delta)
        change = fill(0.0)
        for o in range(n_outputs):
            form = fill(0.0)
            for r in range(n_rows):
                form = add_product(form, mixed[o, r], load(turned, r * LANES))
            for k in range(n_outputs):
                form = add_product(form, squares[o, k], load(moved, k * LANES))
            change = add_product(change, form, load(moved, o * LANES))
        store(gradient, e, change)


@compiled
def phases(
    plan: PlanArray,
    conductances: FloatArray,
    inputs: FloatArray,
    targets: FloatArray,
    nudge: float,
    work: FloatArray,
    scratch: FloatArray,
    gradient: FloatArray,
    outputs: FloatArray,
    power: FloatArray,
    contrast: FloatArray,
) -> int:
    """Measure both phases of all samples; see ``hilcl.board.Contrast`` for what is written.

    ``gradient`` has room for M rounded up, ``power`` and ``contrast`` for S rounded up. Returns DONE, SINGULAR,
    TOO_TIGHT or NOT_FINITE.
    """
    n, _, n_inputs, n_outputs, n_rows, width = sizes(plan)
    n_samples, square = len(inputs), n_outputs * n_outputs
    padded = (n_samples + LANES - 1) // LANES * LANES
    one = len(section(plan, ROWS))
    two = one + 3 * n
    entries, inverse, column = work[:one], work[one : one + n], work[one + n : two]
    one = two + (n + n_inputs) * width
    values = work[two:one]
    two = one + n_inputs * width
    into = work[one:two]
    one = two + LANES * width
    turned = work[two:one]
    two = one + LANES * n_outputs
    moved = work[one:two]
    one = two + square
    impedance = work[two:one].reshape(n_outputs, n_outputs)
    two = one + square
    per_volt = work[one:two].reshape(n_outputs, n_outputs)
    one = two + square
    squares = work[two:one].reshape(n_outputs, n_outputs)
    mixed = work[one : one + n_outputs * n_rows].reshape(n_outputs, n_rows)
    one = n_inputs * padded
    two = one + n_outputs * padded
    volts, displaced, free = scratch[:one], scratch[one:two], scratch[two : two + n_outputs * padded]
    lifted = scratch[two + n_outputs * padded :]

    if not factor(plan, conductances, entries, inverse, column):
        return SINGULAR
    basis(plan, conductances, values)
    solve(plan, entries, inverse, values, width)
    if not terminals(plan, conductances, values, into, impedance, per_volt):
        return TOO_TIGHT
    if not side_by_side(inputs, targets, volts, displaced, padded):
        return NOT_FINITE
    powers(volts, into, width, padded, n_inputs, power)
    displacements(plan, values, impedance, nudge, volts, displaced, free, lifted, contrast)
    for s in range(n_samples):
        for o in range(n_outputs):
            outputs[s, o] = free[o * padded + s]
    moments(volts, displaced, mixed, squares)
    edge_forms(plan, values, per_volt, mixed, squares, turned, moved, gradient)
    return DONE


@compiled
def step(
    plan: PlanArray,
    conductances: FloatArray,
    inputs: FloatArray,
    targets: FloatArray,
    nudge: float,
    work: FloatArray,
    scratch: FloatArray,
    gradient: FloatArray,
    outputs: FloatArray,
    power: FloatArray,
    contrast: FloatArray,
    state: FloatArray,
    low: FloatArray,
    high: FloatArray,
    step_size: float,
    rounding: float,
    after: FloatArray,
    pinned: IntArray,
    figures: FloatArray,
) -> int:
    """Measure as ``phases`` does, and write the projected update: state (M,) − γh within low and high (M,), in siemens.

    ``after`` (M,) is the new state, ``pinned`` (M,) begins with the edges at a limit, ``figures`` (FIGURES,) are means
    over samples and what ``hilcl.training`` notes of an update. ``rounding`` in watts per siemens: see
    ``hilcl.certificate.rounding_per_siemens``.
    """
    status = phases(plan, conductances, inputs, targets, nudge, work, scratch, gradient, outputs, power, contrast)
    if status != DONE:
        return status
    n_samples, n_outputs = outputs.shape
    loss = spent = worth = 0.0
    for s in range(n_samples):
        for o in range(n_outputs):
            error = targets[s, o] - outputs[s, o]
            loss += error * error
        spent += power[s]
        worth += contrast[s]
    figures[LOSS] = loss / (n_samples * n_outputs)
    figures[POWER] = spent / n_samples
    figures[CONTRAST] = worth / n_samples
    count = 0
    bound = magnitude = allowance = norm = 0.0
    for e in range(len(state)):
        slope = gradient[e] / n_samples
        least = slope * (high[e] if slope < 0.0 else low[e])
        bound += least
        magnitude += abs(least)
        allowance += conductances[e]
        direction = gradient[e] / (n_samples * nudge)
        if not math.isfinite(direction):
            return NO_NUMBER
        wish = state[e] - step_size * direction
        boxed = min(max(wish, low[e]), high[e])
        if wish <= low[e] or wish >= high[e]:
            pinned[count] = e
            count += 1
            direction = (state[e] - boxed) / step_size
        after[e] = boxed
        norm += direction * direction
    bound -= 1e-12 * magnitude + rounding * allowance
    # A sum over an edge without an upper limit is minus infinity, and zero is all that is known.
    figures[BOUND] = max(0.0, bound) if nudge == 1.0 and math.isfinite(magnitude) else 0.0
    figures[RESIDUAL] = math.sqrt(norm)
    figures[PINNED] = count
    return DONE
