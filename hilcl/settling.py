"""How long a board needs to settle after its drives have changed, from its conductances and its capacitances."""

import math
from collections.abc import Callable

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.errors import ExperimentError, MeasurementError
from hilcl.network import Network
from hilcl.settle_section import SettleSection

MOST_DENSE = 300
"""Nodes up to which all eigenvalues are computed at once."""

LADDER = (0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4)
"""Seconds after which a board is looked at to see it settle; without a measurement the first is waited."""

REFERENCES = 4
"""Readings of the settled board, whose scatter tells what noise looks like."""

HALVINGS = 3
"""Further looks between the last two of them."""

MARGIN = 1.5

Settling = Callable[[FloatArray], float]
"""Seconds to wait, of the conductances (M,) in siemens."""


def settling_of(section: SettleSection, network: Network) -> Settling:
    """Return what tells how long to wait.

    Raises ExperimentError for a list of capacitances that is not one for each node.
    """
    given = section.capacitance
    if given is None:
        fixed = LADDER[0] if section.seconds is None else section.seconds
        return lambda _: fixed
    if isinstance(given, list) and len(given) != network.n_nodes:
        raise ExperimentError(
            f"bench.settle.capacitance lists {len(given)} values, but the board has {network.n_nodes} nodes: give one "
            "for each node, or one for all"
        )
    farads = np.broadcast_to(np.asarray(given, dtype=np.float64), (network.n_nodes,))
    return lambda conductances: section.sources + settling_time(network, conductances, farads, section.accuracy)


def measured_settling(response: Callable[[float], FloatArray], accuracy: float) -> float:
    """Return the seconds after which what is read stays the same: ``MARGIN`` times the shortest found.

    ``response`` returns readings (N,) so many seconds after a change of the drives from rest, NaN without a meter; the
    readings of the board at rest are ``response(-1.0)``. Readings are the same within ``accuracy`` of the largest
    change and the scatter of readings of the settled board.

    Raises MeasurementError where the board still moves at the end.
    """
    settled = np.array([response(LADDER[0]) for _ in range(REFERENCES)])
    change = float(np.nanmax(np.abs(settled[0] - response(-1.0)), initial=0.0))
    if change == 0.0:
        raise MeasurementError("no reading changed with the drives, so settling cannot be measured: give bench.settle")
    allowed = accuracy * change + 3 * np.ptp(settled, axis=0)

    def moves(seconds: float) -> bool:
        return bool((np.abs(response(seconds) - settled.mean(axis=0)) > allowed).any())

    found, too_short = LADDER[0], 0.0
    for seconds in LADDER[1:]:
        if moves(seconds):
            too_short = seconds
            break
        found = seconds
    if found == LADDER[0]:
        raise MeasurementError(
            f"the board still moves {LADDER[1]:g} s after its drives have changed: look for a node that nothing holds, "
            "or give bench.settle as a time"
        )
    for _ in range(HALVINGS if too_short else 0):
        between = math.sqrt(found * too_short)
        found, too_short = (found, between) if moves(between) else (between, too_short)
    return MARGIN * found


def settling_time(network: Network, conductances: FloatArray, capacitances: FloatArray, accuracy: float) -> float:
    """Return the seconds after which no node is off by more than ``accuracy`` of the largest change of any.

    ``conductances`` (M,) in siemens, ``capacitances`` (N,) in farads, to ground. The inputs are held by their sources
    and the outputs float, which is the slower of the two phases: holding a node as well raises every eigenvalue of
    G v = λ C v (Cauchy's interlacing). Distances fall as Σ C e² ≤ exp(−2 λ_min t) Σ C e₀², hence
    t = (ln(1/accuracy) + ½ ln(Σ C / min C)) / λ_min.
    """
    floating = network.floating
    if not len(floating):
        return 0.0
    farads = capacitances[floating]
    spread = 0.5 * math.log(farads.sum() / farads.min())
    return (math.log(1 / accuracy) + spread) * time_constant(network, conductances, capacitances)


def time_constant(network: Network, conductances: FloatArray, capacitances: FloatArray) -> float:
    """Return the slowest time constant 1/λ_min in seconds, inputs held, outputs floating; units as above."""
    floating = network.floating
    if not len(floating):
        return 0.0
    root = 1 / np.sqrt(capacitances[floating])
    if len(floating) <= MOST_DENSE:
        one, other = network.edges.T
        laplacian = np.zeros((network.n_nodes, network.n_nodes))
        np.add.at(laplacian, (one, one), conductances)
        np.add.at(laplacian, (other, other), conductances)
        np.add.at(laplacian, (one, other), -conductances)
        np.add.at(laplacian, (other, one), -conductances)
        scaled = laplacian[np.ix_(floating, floating)] * root[:, None] * root
        return 1 / float(np.linalg.eigvalsh(scaled)[0])
    from scipy import sparse
    from scipy.sparse.linalg import eigsh

    rows = sparse.diags_array(root) @ network.incidence[floating]
    matrix = sparse.csc_array(rows @ sparse.diags_array(conductances) @ rows.T)
    # A fixed start, so that the same board always gives the same time.
    lowest = eigsh(matrix, k=1, sigma=0.0, v0=np.ones(len(floating)), return_eigenvectors=False)
    return 1 / float(lowest[0])
