"""Circuits solved without rounding, in rational arithmetic: what the simulator is held against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from hilcl.network import Network

Number = float | Fraction


@dataclass(frozen=True)
class ExactState:
    """One state of a board: node potentials, edge voltages, and the current into the board at every terminal."""

    potentials: list[Fraction]
    voltages: list[Fraction]
    currents: list[Fraction]


def exact_state(
    network: Network, conductances: npt.ArrayLike, drives: Sequence[Number], *, injected: Number = 0
) -> ExactState:
    """Solve Kirchhoff's equations for one row of drives over the terminals, NaN floating.

    Every floating terminal takes the current ``injected``.
    """
    g = [Fraction(float(value)) for value in np.asarray(conductances, dtype=np.float64)]
    terminals = [int(node) for node in network.terminals]
    driven = {
        node: Fraction(volts)
        for node, volts in zip(terminals, drives, strict=True)
        if isinstance(volts, Fraction) or not math.isnan(volts)
    }
    potentials = _potentials(network, g, driven, terminals, Fraction(injected))
    pairs = [(int(first), int(second)) for first, second in network.edges]
    voltages = [potentials[first] - potentials[second] for first, second in pairs]
    leaving = [Fraction(0)] * network.n_nodes
    for (first, second), value, volts in zip(pairs, g, voltages, strict=True):
        leaving[first] += value * volts
        leaving[second] -= value * volts
    return ExactState(potentials, voltages, [leaving[node] for node in terminals])


def _potentials(
    network: Network,
    g: list[Fraction],
    driven: dict[int, Fraction],
    terminals: list[int],
    injected: Fraction,
) -> list[Fraction]:
    floating = [node for node in range(network.n_nodes) if node not in driven]
    row = {node: index for index, node in enumerate(floating)}
    matrix = [[Fraction(0)] * (len(floating) + 1) for _ in floating]
    for node in set(terminals) - driven.keys():
        matrix[row[node]][-1] += injected
    for (first, second), value in zip(network.edges.tolist(), g, strict=True):
        for here, there in ((first, second), (second, first)):
            if here in row:
                matrix[row[here]][row[here]] += value
                if there in row:
                    matrix[row[here]][row[there]] -= value
                else:
                    matrix[row[here]][-1] += value * driven[there]
    solution = solve_exactly(matrix)
    return [driven[node] if node in driven else solution[row[node]] for node in range(network.n_nodes)]


def solve_exactly(matrix: list[list[Fraction]]) -> list[Fraction]:
    """Solve a positive definite system, right-hand side as the last column, by fraction-free elimination (Bareiss)."""
    size = len(matrix)
    rows = []
    for line in matrix:
        scale = math.lcm(*(entry.denominator for entry in line))
        rows.append([int(entry * scale) for entry in line])
    previous = 1
    for pivot in range(size):
        for below in range(pivot + 1, size):
            factor = rows[below][pivot]
            rows[below] = [
                (rows[pivot][pivot] * entry - factor * above) // previous
                for entry, above in zip(rows[below], rows[pivot], strict=True)
            ]
        previous = rows[pivot][pivot]
    solution = [Fraction(0)] * size
    for index in reversed(range(size)):
        known = sum((rows[index][k] * solution[k] for k in range(index + 1, size)), Fraction(0))
        solution[index] = (rows[index][-1] - known) / rows[index][index]
    return solution


def relative_errors(values: npt.ArrayLike, exact: Sequence[Fraction]) -> npt.NDArray[np.float64]:
    """Return |value − exact| / |exact| for every exact value that is not zero."""
    pairs = zip(np.asarray(values, dtype=np.float64).tolist(), exact, strict=True)
    return np.array([float(abs(Fraction(value) - truth) / abs(truth)) for value, truth in pairs if truth])


def absolute_errors(values: npt.ArrayLike, exact: Sequence[Fraction]) -> npt.NDArray[np.float64]:
    """Return |value − exact| for every value."""
    pairs = zip(np.asarray(values, dtype=np.float64).tolist(), exact, strict=True)
    return np.array([float(abs(Fraction(value) - truth)) for value, truth in pairs])


def as_floats(exact: Sequence[Fraction]) -> npt.NDArray[np.float64]:
    """Return the nearest floating-point numbers."""
    return np.array([float(value) for value in exact])


@dataclass(frozen=True)
class ExactContrast:
    """One sample's contrast: (M,) squared-voltage differences, (O,) free outputs, P_free and Q at the full clamp."""

    gradient: list[Fraction]
    outputs: list[Fraction]
    power_free: Fraction
    contrast: Fraction


def exact_contrast(
    network: Network,
    conductances: npt.ArrayLike,
    inputs: Sequence[Number],
    targets: Sequence[Number],
    nudge: Number = 1,
) -> ExactContrast:
    """Solve both phases of one sample; the power of a state is Σ g v²."""
    g = [Fraction(float(value)) for value in np.asarray(conductances, dtype=np.float64)]

    def power(state: ExactState) -> Fraction:
        return sum((value * volts**2 for value, volts in zip(g, state.voltages, strict=True)), Fraction(0))

    free = exact_state(network, conductances, [*inputs, *[math.nan] * len(targets)])
    outputs = [free.potentials[node] for node in network.outputs.tolist()]
    held = [
        output + Fraction(nudge) * (Fraction(target) - output) for output, target in zip(outputs, targets, strict=True)
    ]
    nudged = exact_state(network, conductances, [*inputs, *held])
    clamped = exact_state(network, conductances, [*inputs, *targets])
    return ExactContrast(
        gradient=[after**2 - before**2 for after, before in zip(nudged.voltages, free.voltages, strict=True)],
        outputs=outputs,
        power_free=power(free),
        contrast=power(clamped) - power(free),
    )
