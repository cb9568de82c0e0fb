"""Real sources at the terminals: series resistance, compliance, and floating inputs, solved at the terminals alone.

Seen from its terminals the board is a small linear system, so every kind of source is one more line in it:
a source behind a resistance, a terminal that floats, or a source that has reached its current limit.
"""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.errors import BoardError, SolverError
from hilcl.network import Network
from hilcl.sim_backend.basis import Basis

FLOATING, DRIVEN, LIMITED_HIGH, LIMITED_LOW = 0, 1, 2, 3

BLOCK_PIVOTS = 20
"""Rounds in which every violated terminal changes its state at once; then one terminal a round, which cannot cycle."""


@dataclass(frozen=True)
class TerminalState:
    """Where S drives settle: volts at the inputs (S, I), currents into every terminal (S, T), limits reached (S, T)."""

    input_volts: FloatArray
    currents: FloatArray
    in_compliance: BoolArray


def settle(basis: Basis, drives: FloatArray, resistance: FloatArray, limit: FloatArray) -> TerminalState:
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
        currents = _ideal_clamp_currents(basis, inputs, outputs)
        into_inputs = basis.coefficients(inputs, currents) @ basis.input_currents
        return TerminalState(inputs, np.hstack([into_inputs, currents]), np.zeros(drives.shape, dtype=np.bool_))
    return _settle_real(basis, drives, resistance, limit)


def _ideal_clamp_currents(basis: Basis, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    clamped = ~np.isnan(outputs)
    currents = np.zeros(outputs.shape)
    if not clamped.any():
        return currents
    displacement = outputs - basis.free_outputs(inputs)
    for rows, pattern in _groups(clamped.astype(np.int64)):
        held = np.flatnonzero(pattern)
        if held.size:
            impedance = basis.impedance[np.ix_(held, held)]
            currents[np.ix_(rows, held)] = np.linalg.solve(impedance, displacement[np.ix_(rows, held)].T).T
    return currents


def _settle_real(basis: Basis, drives: FloatArray, resistance: FloatArray, limit: FloatArray) -> TerminalState:
    n_inputs = len(basis.network.inputs)
    volts_of, current_of = _terminal_equations(basis)
    state = np.where(np.isnan(drives), FLOATING, DRIVEN)
    unknowns = np.zeros(drives.shape)
    for attempt in range(BLOCK_PIVOTS + 4 * drives.shape[1] ** 2 + 4):
        for rows, pattern in _groups(state):
            unknowns[rows] = _solve_pattern(
                volts_of, current_of, pattern, drives[rows], resistance, limit, basis.network
            )
        currents = unknowns @ current_of.T
        volts = unknowns @ volts_of.T
        wanted = _next_state(state, drives, volts, currents, resistance, limit)
        changed = wanted != state
        if not changed.any():
            return TerminalState(unknowns[:, :n_inputs], currents, state >= LIMITED_HIGH)
        if attempt >= BLOCK_PIVOTS:
            first = changed & (np.cumsum(changed, axis=1) == 1)
            wanted = np.where(first, wanted, state)
        state = wanted
    raise SolverError("the sources' current limits have no consistent state on this board: raise a compliance")


def _terminal_equations(basis: Basis) -> tuple[FloatArray, FloatArray]:
    """Return (T, T) matrices giving terminal volts and currents from z = (volts at inputs, currents into outputs)."""
    n_inputs, n_outputs = len(basis.network.inputs), len(basis.network.outputs)
    n_driven = basis.n_driven
    volts = np.eye(n_inputs + n_outputs)
    volts[n_inputs:, 1:n_inputs] = basis.transfer.T
    volts[n_inputs:, 0] = 1.0 - basis.transfer.sum(axis=0)
    volts[n_inputs:, n_inputs:] = basis.impedance
    currents = np.eye(n_inputs + n_outputs)
    currents[:n_inputs, 1:n_inputs] = basis.input_currents[:n_driven].T
    currents[:n_inputs, 0] = -basis.input_currents[:n_driven].sum(axis=0)
    currents[:n_inputs, n_inputs:] = basis.input_currents[n_driven:].T
    return volts, currents


def _solve_pattern(
    volts_of: FloatArray,
    current_of: FloatArray,
    pattern: IntArray,
    drives: FloatArray,
    resistance: FloatArray,
    limit: FloatArray,
    network: Network,
) -> FloatArray:
    """Return z (S, T) for samples that share a pattern of terminal states."""
    driven = pattern == DRIVEN
    if not driven.any():
        names = ", ".join(network.name(int(node)) for node in network.terminals[pattern >= LIMITED_HIGH])
        raise BoardError(f"every source of the board is at its current limit ({names}): raise the compliance")
    matrix = np.where(driven[:, None], volts_of + resistance[:, None] * current_of, current_of)
    right = np.where(driven, drives, 0.0)
    right = np.where(pattern == LIMITED_HIGH, np.where(np.isinf(limit), 0.0, limit), right)
    right = np.where(pattern == LIMITED_LOW, -np.where(np.isinf(limit), 0.0, limit), right)
    return np.linalg.solve(matrix, right.T).T


def _next_state(
    state: IntArray,
    drives: FloatArray,
    volts: FloatArray,
    currents: FloatArray,
    resistance: FloatArray,
    limit: FloatArray,
) -> IntArray:
    """Return the state each terminal would choose: limit an exceeding source, release one that no longer strains."""
    slack = 1e-12 * limit
    wanted = state.copy()
    wanted[(state == DRIVEN) & (currents > limit + slack)] = LIMITED_HIGH
    wanted[(state == DRIVEN) & (currents < -limit - slack)] = LIMITED_LOW
    strain = drives - volts - resistance * currents
    rounding = 1e-12 * np.abs(np.nan_to_num(drives)).max(initial=0.0)
    wanted[(state == LIMITED_HIGH) & (strain < -rounding)] = DRIVEN
    wanted[(state == LIMITED_LOW) & (strain > rounding)] = DRIVEN
    # Currents sum to zero, so not every source can be a limited one: the least strained one keeps its volts.
    lost = np.flatnonzero(~(wanted == DRIVEN).any(axis=1) & (state == DRIVEN).any(axis=1))
    if lost.size:
        excess = np.where(state[lost] == DRIVEN, np.abs(currents[lost]) / limit, np.inf)
        wanted[lost, excess.argmin(axis=1)] = DRIVEN
    return wanted


def _groups(patterns: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return (row numbers, pattern) for each different row of an integer array."""
    if len(patterns) and (patterns == patterns[0]).all():
        return [(np.arange(len(patterns)), patterns[0])]
    distinct, member = np.unique(patterns, axis=0, return_inverse=True)
    member = member.reshape(-1)
    return [(np.flatnonzero(member == index), pattern) for index, pattern in enumerate(distinct)]
