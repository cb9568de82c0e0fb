"""Real sources at the terminals: series resistance, compliance, and floating inputs, solved at the terminals alone.

Seen from its terminals the board is a small linear system, so every kind of source is one more line in it:
a source behind a resistance, a terminal that floats, or a source that has reached its current limit.
"""

from dataclasses import dataclass, replace

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.errors import BoardError, SolverError
from hilcl.sim_backend.basis import Basis

NORMAL, LIMITED_HIGH, LIMITED_LOW = 0, 1, 2

BLOCK_PIVOTS = 10
"""Rounds without progress in which every violated terminal changes its state at once; then one a round, the first."""

PIVOTS_PER_TERMINAL = 200

LEAK = 1e-10
"""Leak to ground, as a part of the board's conductance, by which the state of the limits is made unique."""

TIGHTENING = 0.5
"""Factor by which limits are drawn in, from those nothing reaches to the real ones: few states change at a time."""


@dataclass(frozen=True)
class Sources:
    """What S settings do to T terminals.

    ``by_voltage`` (S, T): a terminal is held at ``level`` (S, T) volts behind ``resistance`` (T,) ohms, its current
    within ± ``limit`` (T,) amperes; otherwise ``level`` amperes flow into it, its voltage within ± ``limit`` volts. A
    floating terminal is a current source of 0 A without a limit.
    """

    by_voltage: BoolArray
    level: FloatArray
    limit: FloatArray
    resistance: FloatArray


@dataclass(frozen=True)
class TerminalState:
    """Where S drives settle.

    ``potentials`` (S, N) in volts, ``currents`` (S, T) in amperes into the terminals, ``in_compliance`` (S, T), and
    where asked for ``edge_voltages`` (S, M) in volts, more accurate than differences of potentials.
    """

    potentials: FloatArray
    currents: FloatArray
    in_compliance: BoolArray
    edge_voltages: FloatArray | None = None


def settle(
    basis: Basis, drives: FloatArray, resistance: FloatArray, limit: FloatArray, *, edge_voltages: bool = False
) -> TerminalState:
    """Return the terminal state for drives (S, T) in volts, NaN floating.

    ``resistance`` (T,) in ohms is in series with each source, ``limit`` (T,) in amperes its compliance, inf for none.
    The state of the limits is the unique solution of a complementarity problem; it is found by block pivoting
    with a least-index fall-back (Júdice and Pires, Computers & Operations Research 21, 1994).

    Raises BoardError where a sample drives no terminal at all.
    """
    undriven = np.flatnonzero(np.isnan(drives).all(axis=1))
    if undriven.size:
        raise BoardError(f"sample {undriven[0]} drives no terminal, so the board's potentials are undefined: drive one")
    n_inputs = len(basis.network.inputs)
    inputs, outputs = drives[:, :n_inputs], drives[:, n_inputs:]
    if not np.isnan(inputs).any() and not resistance.any() and np.isinf(limit).all():
        return settle_ideal(basis, inputs, outputs, edge_voltages=edge_voltages)
    floating = np.isnan(drives)
    limits = np.where(floating, np.inf, limit)
    state = settle_sources(basis, Sources(~floating, np.where(floating, 0.0, drives), limits, resistance))
    return replace(state, edge_voltages=basis.network.edge_voltages(state.potentials)) if edge_voltages else state


def settle_ideal(
    basis: Basis, inputs: FloatArray, outputs: FloatArray, *, edge_voltages: bool = False
) -> TerminalState:
    """Return the state with inputs (S, I) held at their volts and outputs (S, O) held at theirs, or floating at NaN."""
    network = basis.network
    offset, combinations = basis.input_coefficients(inputs)
    potentials: FloatArray = combinations @ basis.inputs + offset
    voltages: FloatArray | None = combinations @ basis.input_voltages if edge_voltages else None
    into_inputs = combinations @ basis.input_admittance
    currents = np.zeros(outputs.shape)
    clamped = ~np.isnan(outputs)
    for rows, pattern in _groups(clamped.astype(np.int64)):
        held = np.flatnonzero(pattern)
        if not held.size:
            continue
        clamp = basis.clamp(held)
        nodes, at = network.outputs[held], np.ix_(rows, held)
        displacement = outputs[at] - potentials[np.ix_(rows, nodes)]
        moved = clamp.coefficients(displacement)
        into_inputs[rows] += moved @ basis.inflow(clamp.states)
        currents[at] = clamp.currents(displacement, moved)
        if basis.is_certified:
            # Offset by the lowest terminal all terms are positive, so that no digit is lost between the phases.
            lowest = np.minimum(inputs[rows].min(axis=1), outputs[at].min(axis=1))[:, None]
            at_inputs, at_outputs = inputs[rows] - lowest, outputs[at] - lowest
            free = basis.held_inputs(held)
            potentials[rows] = lowest + at_inputs @ free.potentials + at_outputs @ clamp.potentials
            if voltages is not None:
                voltages[rows] = at_inputs @ free.voltages + at_outputs @ clamp.voltages
        else:
            potentials[rows] += moved @ clamp.potentials
            if voltages is not None:
                voltages[rows] += moved @ clamp.voltages
        potentials[np.ix_(rows, nodes)] = outputs[at]
    potentials[:, network.inputs] = inputs
    unlimited = np.zeros((len(inputs), len(network.terminals)), dtype=np.bool_)
    return TerminalState(potentials, np.hstack([into_inputs, currents]), unlimited, voltages)


def settle_sources(basis: Basis, sources: Sources) -> TerminalState:
    """Return where the terminals settle, voltage and current sources with their limits included.

    Which limits are reached is decided with a small leak to ground, without which a board of current sources alone
    would have no unique state; the volts and currents returned are those without the leak wherever a voltage is fixed.
    Raises SolverError where the limits have no consistent state.
    """
    n_inputs, shape = len(basis.network.inputs), sources.level.shape
    limit = np.broadcast_to(sources.limit, shape)
    volts_of, current_of = _terminal_equations(basis)
    own = float(
        max(
            np.abs(current_of[:n_inputs, :n_inputs]).max(initial=0.0),
            (1.0 / np.diagonal(basis.impedance)).max(initial=0.0),
        )
    )
    leaking = current_of + LEAK * own * volts_of
    state = np.full(shape, NORMAL)
    unknowns = _solve(volts_of, leaking, sources, state, limit)
    limited_quantity = np.where(sources.by_voltage, unknowns @ leaking.T, unknowns @ volts_of.T)
    widening = max(1.0, float((np.abs(limited_quantity) / limit).max()))
    while True:
        widening = max(1.0, TIGHTENING * widening)
        state, unknowns = _pivot(volts_of, leaking, sources, widening * limit, state, own)
        if widening == 1.0:
            break
    state = _with_a_fixed_voltage(volts_of, current_of, sources, limit, state, own)
    fixed = (sources.by_voltage == (state == NORMAL)).any(axis=1)
    if fixed.any():
        chosen = Sources(sources.by_voltage[fixed], sources.level[fixed], limit[fixed], sources.resistance)
        unknowns[fixed] = _solve(volts_of, current_of, chosen, state[fixed], limit[fixed])
    potentials = basis.node_potentials(unknowns[:, :n_inputs], unknowns[:, n_inputs:])
    return TerminalState(potentials, unknowns @ current_of.T, state != NORMAL)


def _pivot(
    volts_of: FloatArray,
    current_of: FloatArray,
    sources: Sources,
    limit: FloatArray,
    state: IntArray,
    own: float,
) -> tuple[IntArray, FloatArray]:
    """Return the consistent states (S, T), searched from the given ones, and their z (S, T)."""
    samples, terminals = state.shape
    fewest, patience = np.full(samples, terminals + 1), np.full(samples, BLOCK_PIVOTS)
    for _ in range(PIVOTS_PER_TERMINAL * terminals):
        unknowns = _solve(volts_of, current_of, sources, state, limit)
        wanted = _next_state(state, sources, limit, unknowns @ volts_of.T, unknowns @ current_of.T, own)
        changed = wanted != state
        count = changed.sum(axis=1)
        if not count.any():
            return state, unknowns
        patience = np.where(count < fewest, BLOCK_PIVOTS, patience - 1)
        fewest = np.minimum(count, fewest)
        first = changed & (np.cumsum(changed, axis=1) == 1)
        state = np.where(changed & (first | (patience > 0)[:, None]), wanted, state)
    raise SolverError("the sources' limits have no consistent state on this board: raise a compliance")


def _with_a_fixed_voltage(
    volts_of: FloatArray, current_of: FloatArray, sources: Sources, limit: FloatArray, state: IntArray, own: float
) -> IntArray:
    """Return the states with one voltage source released where all are limited.

    That happens only where limits add up to zero exactly: then the board's volts may lie anywhere in an interval, and
    at its ends one of the sources carries its limit at its own volts. The first such source is released.
    """
    released = state.copy()
    for row in np.flatnonzero(~(sources.by_voltage == (state == NORMAL)).any(axis=1)):
        alone = Sources(sources.by_voltage[row, None], sources.level[row, None], limit[row, None], sources.resistance)
        for terminal in np.flatnonzero(sources.by_voltage[row]):
            tried = state[row, None].copy()
            tried[0, terminal] = NORMAL
            unknowns = _solve(volts_of, current_of, alone, tried, limit[row, None])
            wanted = _next_state(tried, alone, limit[row, None], unknowns @ volts_of.T, unknowns @ current_of.T, own)
            if (wanted == tried).all():
                released[row] = tried[0]
                break
    return released


def _solve(
    volts_of: FloatArray, current_of: FloatArray, sources: Sources, state: IntArray, limit: FloatArray
) -> FloatArray:
    """Return z (S, T), volts at inputs and currents into outputs, with every terminal in the state it has."""
    # A limited voltage source is a current source at its limit, and the other way round.
    by_voltage = sources.by_voltage == (state == NORMAL)
    sign = np.where(state == LIMITED_LOW, -1.0, 1.0)
    level = np.where(state == NORMAL, sources.level, sign * np.where(np.isinf(limit), 0.0, limit))
    # The resistance sits between a voltage source and its terminal; a limit on a voltage is one at the terminal.
    kinds = np.hstack([by_voltage, sources.by_voltage]).astype(np.int64)
    unknowns = np.empty(level.shape)
    for rows, _ in _groups(kinds):
        series = np.where(sources.by_voltage[rows[0]], sources.resistance, 0.0)
        matrix = np.where(by_voltage[rows[0]][:, None], volts_of + series[:, None] * current_of, current_of)
        unknowns[rows] = np.linalg.solve(matrix, level[rows].T).T
    return unknowns


def _terminal_equations(basis: Basis) -> tuple[FloatArray, FloatArray]:
    """Return (T, T) matrices giving terminal volts and currents from z = (volts at inputs, currents into outputs)."""
    n_inputs, n_outputs = len(basis.network.inputs), len(basis.network.outputs)
    # Input 0 is the reference here, whether it has a row of its own or not.
    rows = slice(len(basis.transfer) - (n_inputs - 1), None)
    transfer, admittance = basis.transfer[rows], basis.input_admittance[rows]
    volts = np.eye(n_inputs + n_outputs)
    volts[n_inputs:, 1:n_inputs] = transfer.T
    volts[n_inputs:, 0] = 1.0 - transfer.sum(axis=0)
    volts[n_inputs:, n_inputs:] = basis.impedance
    currents = np.eye(n_inputs + n_outputs)
    currents[:n_inputs, 1:n_inputs] = admittance.T
    currents[:n_inputs, 0] = -admittance.sum(axis=0)
    currents[:n_inputs, n_inputs:] = basis.inflow(basis.output_states).T
    return volts, currents


def _next_state(
    state: IntArray,
    sources: Sources,
    limit: FloatArray,
    volts: FloatArray,
    currents: FloatArray,
    own: float,
) -> IntArray:
    """Return the state each terminal would choose: limit an exceeding source, release one that no longer strains.

    ``own`` is the board's largest conductance between terminals, in siemens.
    """
    limited_quantity = np.where(sources.by_voltage, currents, volts)
    reached = np.where(sources.by_voltage, volts + sources.resistance * currents, currents)
    strain = sources.level - reached
    # Rounding of a terminal's current: the board's conductance times the volts it is made of.
    scale = np.abs(volts).max(axis=1, initial=0.0, keepdims=True)
    slack = 1e-12 * limit + 1e-14 * scale * np.where(sources.by_voltage, own, 1.0)
    rounding = 1e-12 * np.maximum(np.abs(sources.level), np.abs(reached)).max(axis=1, initial=0.0, keepdims=True)
    wanted = state.copy()
    wanted[(state == NORMAL) & (limited_quantity > limit + slack)] = LIMITED_HIGH
    wanted[(state == NORMAL) & (limited_quantity < -limit - slack)] = LIMITED_LOW
    wanted[(state == LIMITED_HIGH) & (strain < -rounding)] = NORMAL
    wanted[(state == LIMITED_LOW) & (strain > rounding)] = NORMAL
    return wanted


def _groups(patterns: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return (row numbers, pattern) for each different row of an integer array."""
    if len(patterns) and (patterns == patterns[0]).all():
        return [(np.arange(len(patterns)), patterns[0])]
    distinct, member = np.unique(patterns, axis=0, return_inverse=True)
    member = member.reshape(-1)
    return [(np.flatnonzero(member == index), pattern) for index, pattern in enumerate(distinct)]
