"""Drift between two calibrations of one board, edge by edge and channel by channel, in units of uncertainty."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from hilcl.arrays import FloatArray
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration, same_instrument
from hilcl.calibration.parameters import PotParameters

FALSE_ALARMS = 0.01
"""Probability with which a comparison of two calibrations of an unchanged board names anything at all."""


@dataclass(frozen=True)
class EdgeDrift:
    """How one edge moved from the earlier calibration to the later one.

    ``relative`` of the conductance at the code where that is the largest, ``code``, and ``relative_rms`` over all
    codes; ``sigmas``: the largest change of a code in standard uncertainties. ``probability`` of a
    change of the parameters as large as this, or larger, on an unchanged edge. ``moved`` is the verdict.
    """

    edge: int
    relative: float
    code: int
    relative_rms: float
    sigmas: float
    probability: float
    moved: bool


@dataclass(frozen=True)
class MeterDrift:
    """How one node's meter moved: ``gain`` relative, ``offset`` in volts, and what EdgeDrift has too."""

    node: int
    gain: float
    offset: float
    sigmas: float
    probability: float
    moved: bool


@dataclass(frozen=True)
class Comparison:
    """Two calibrations of one board, the earlier one first.

    ``days`` between them. ``common`` is the relative change of all tracks together with its standard uncertainty
    ``common_u``, what a change of temperature does. ``devices`` names devices that are not the same.
    """

    earlier: Calibration
    later: Calibration
    days: float
    edges: tuple[EdgeDrift, ...]
    meters: tuple[MeterDrift, ...]
    common: float
    common_u: float
    devices: tuple[str, ...]

    @property
    def moved(self) -> tuple[EdgeDrift, ...]:
        """Edges that moved, most significant first."""
        return tuple(sorted((each for each in self.edges if each.moved), key=lambda each: -each.sigmas))


def compare(first: Calibration, second: Calibration) -> Comparison:
    """Return how the board moved between two calibrations, given in any order.

    What both owe to the same instruments cancels, so only the statistical uncertainties count; where an instrument was
    exchanged its part counts too.

    Raises CalibrationError where they are of different boards, pots or laws.
    """
    earlier, later = sorted((first, second), key=lambda each: each.created)
    network = earlier.network
    if later.network != network or earlier.potentiometers != later.potentiometers:
        raise CalibrationError(
            f"the calibrations of {earlier.created:%Y-%m-%d} and {later.created:%Y-%m-%d} are of different boards: "
            "compare two of one board"
        )
    if earlier.pots.names != later.pots.names:
        raise CalibrationError(
            f"the calibrations were fitted with different laws, {', '.join(earlier.pots.names)} and "
            f"{', '.join(later.pots.names)}: calibrate both ways alike"
        )
    roles = set(earlier.board.identities) | set(later.board.identities)
    devices = tuple(
        f"{role}: {then or 'nothing'}, now {now or 'nothing'}"
        for role in sorted(roles)
        for then, now in [(earlier.board.identities.get(role, ""), later.board.identities.get(role, ""))]
        if not same_instrument(then, now)
    )
    old, new = earlier.pot_parameters, later.pot_parameters
    covariance = old.statistical + new.statistical
    if devices:
        covariance = covariance + old.instrument + new.instrument
    common, common_u = _common_track(old, new, covariance)
    return Comparison(
        earlier,
        later,
        (later.created - earlier.created).total_seconds() / 86400.0,
        tuple(_edge_drift(earlier, later, covariance, edge) for edge in range(network.n_edges)),
        _meter_drifts(earlier, later, exchanged=bool(devices)),
        common,
        common_u,
        devices,
    )


def _edge_drift(earlier: Calibration, later: Calibration, covariance: FloatArray, edge: int) -> EdgeDrift:
    old, new = earlier.pot_parameters, later.pot_parameters
    edges, terms = old.values.shape
    own = covariance[edge * terms : (edge + 1) * terms, edge * terms : (edge + 1) * terms]
    usable = ~np.isnan(earlier.table[edge]) & ~np.isnan(later.table[edge])
    before, after = old.table[edge], new.table[edge]
    if not usable.any():
        raise CalibrationError(f"the calibrations have no code of edge {edge} in common: calibrate with the same codes")
    relative = np.where(usable, after / before - 1, 0.0)
    law = old.law[edge]
    # g = 1/R: the relative change of g has the uncertainty of R's, u(ΔR)/R.
    variance = np.einsum("kq,qr,kr->k", law, own, law)
    u = np.sqrt(np.maximum(variance, 0.0)) * before
    sigmas = np.abs(relative) / np.where(u > 0, u, np.inf)
    sigmas = np.where((u == 0) & (relative != 0), np.inf, sigmas)
    code = int(np.abs(relative).argmax())
    probability = _tail(new.values[edge] - old.values[edge], own)
    return EdgeDrift(
        edge,
        float(relative[code]),
        code,
        float(np.sqrt((relative[usable] ** 2).mean())),
        float(sigmas[usable].max()),
        probability,
        probability < FALSE_ALARMS / (2 * edges),
    )


def _meter_drifts(earlier: Calibration, later: Calibration, *, exchanged: bool) -> tuple[MeterDrift, ...]:
    old, new = earlier.meter_parameters, later.meter_parameters
    covariance = old.statistical + new.statistical
    if exchanged:
        covariance = covariance + old.instrument + new.instrument
    count = len(old.gain)
    found = []
    for node in np.flatnonzero(np.isfinite(old.gain) & np.isfinite(new.gain)).tolist():
        at = [node, count + node]
        change = np.array([new.gain[node] - old.gain[node], new.offset[node] - old.offset[node]])
        own = covariance[np.ix_(at, at)]
        u = np.sqrt(np.diagonal(own))
        sigmas = float(np.divide(np.abs(change), u, out=np.zeros(2), where=u > 0).max())
        probability = _tail(change, own)
        found.append(
            MeterDrift(
                node,
                float(change[0] / old.gain[node]),
                float(change[1]),
                sigmas,
                probability,
                probability < FALSE_ALARMS / (2 * count),
            )
        )
    return tuple(found)


def _tail(change: FloatArray, covariance: FloatArray) -> float:
    """Return the probability of a change as large as this, in the directions that have an uncertainty."""
    scale = np.sqrt(np.diagonal(covariance))
    used = scale > 0
    if not used.any():
        return 1.0
    unit = covariance[np.ix_(used, used)] / np.outer(scale[used], scale[used])
    variances, axes = np.linalg.eigh(unit)
    kept = variances > 1e-12 * variances.max()
    along = (axes.T @ (change[used] / scale[used]))[kept]
    return float(chi2.sf((along**2 / variances[kept]).sum(), int(kept.sum())))


def _common_track(old: PotParameters, new: PotParameters, covariance: FloatArray) -> tuple[float, float]:
    """Return the common relative change of R_AB, weighted by its certainty, and its standard uncertainty."""
    terms = old.values.shape[1]
    places = 1 + terms * np.arange(len(old.values))
    track = old.values[:, 1]
    variance = np.diagonal(covariance)[places] / np.where(track > 0, track, 1.0) ** 2
    used = (track > 0) & (new.values[:, 1] > 0) & (variance > 0)
    if not used.any():
        return 0.0, 0.0
    weights = 1.0 / variance[used]
    change = new.values[used, 1] / track[used] - 1
    return float((weights * change).sum() / weights.sum()), float(1.0 / np.sqrt(weights.sum()))
