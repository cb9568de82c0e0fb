"""The fit: one weighted least-squares problem of all readings, robust to outliers, with its full covariance.

Instrument specifications enter as prior knowledge of the sources, ammeters and meters, with their standard
uncertainties. So the covariance of the estimate splits into what the readings' noise does and what the specifications
leave open (GUM 4.2 and 4.3): with H = JᵀWJ, P the prior's precision and C = (H + P)⁻¹ these are C H C and C P C.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.calibration.linear import inverse, solve
from hilcl.calibration.model import BoardModel, Layout
from hilcl.calibration.parameters import (
    OPEN_OHMS,
    FitReport,
    MeterParameters,
    PotParameters,
    ResidualSummary,
    SourceParameters,
)
from hilcl.calibration.readings import Noise, PatternReadings
from hilcl.errors import MeasurementError, SolverError

HUBER = 4.0
"""Residual in standard deviations from which a reading counts as an outlier and loses weight (Huber's function)."""

FAR_OUT = 7.0
"""Residual in standard deviations that no noise explains."""

FEW = 0.005
"""Largest part of the readings that may be left out as far out."""

REJECTIONS = 3

CONVERGED = 1e-3
"""A step this small in posterior standard deviations ends the iteration."""

MAX_ITERATIONS = 60

POT_PRIOR = 1.0
"""Standard uncertainty of a pot's nominal values, relative: so weak that only what cannot be measured notices it."""

INL_PRIOR = 5.0
"""Standard uncertainty of each non-linearity coefficient in codes, around zero."""


@dataclass(frozen=True)
class InstrumentSpec:
    """Standard uncertainties of the instruments, from their data sheets (a limit ±a is a/√3); 0 takes it as exact.

    ``source_gain`` relative, ``source_offset`` volts, ``source_series`` ohms (leads), ``ammeter_gain`` relative,
    ``ammeter_offset`` amperes, ``meter_gain`` relative, ``meter_offset`` volts, ``meter_leak`` siemens
    from a node to 0 V, around 1/``meter_resistance`` (ohms, inf for none).
    """

    source_gain: float = 1e-4
    source_offset: float = 2e-3
    source_series: float = 10.0
    ammeter_gain: float = 2e-4
    ammeter_offset: float = 1e-6
    meter_gain: float = 0.05
    meter_offset: float = 0.1
    meter_leak: float = 2e-7
    meter_resistance: float = np.inf


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known beforehand: ``mean`` (P,) and ``deviation`` (P,), 0 for parameters that are not fitted."""

    mean: FloatArray
    deviation: FloatArray

    @property
    def free(self) -> IntArray:
        """Numbers of the fitted parameters."""
        return np.flatnonzero(self.deviation > 0)


@dataclass(frozen=True, eq=False)
class Solution:
    """The fitted θ (P,) and what belongs to it.

    ``information`` (F, F): H of the fitted parameters, by the readings alone. ``statistical`` and ``instrument``
    (P, P): the two parts of the covariance. ``normalised``, ``raw``, ``is_volts``, ``place``, ``pattern``,
    ``sample`` (R,): residuals and where they are. ``n_outliers``: readings left out.
    """

    model: BoardModel
    theta: FloatArray
    prior: Prior
    information: FloatArray
    statistical: FloatArray
    instrument: FloatArray
    chi_square: float
    iterations: int
    converged: bool
    normalised: FloatArray
    raw: FloatArray
    is_volts: BoolArray
    place: IntArray
    pattern: IntArray
    sample: IntArray
    n_outliers: int = 0

    @property
    def covariance(self) -> FloatArray:
        """Both parts together (P, P)."""
        total: FloatArray = self.statistical + self.instrument
        return total

    @property
    def dof(self) -> int:
        """Readings minus the parameters they determine (the trace of the estimator's resolution)."""
        free = self.prior.free
        whitened = self.information * np.outer(self.prior.deviation[free], self.prior.deviation[free])
        strength = np.maximum(linalg.eigvalsh(whitened), 0.0)
        return round(len(self.raw) - float((strength / (1.0 + strength)).sum()))

    def reduced(self, volts: bool | None = None) -> float:
        """Return chi-square per degree of freedom, of all readings or of one kind."""
        if volts is None:
            return self.chi_square / max(self.dof, 1)
        of_kind = self.is_volts == volts
        share = of_kind.sum() * self.dof / max(len(self.raw), 1)
        return float((self.normalised[of_kind] ** 2).sum() / max(share, 1.0))


def make_prior(model: BoardModel, spec: InstrumentSpec, metered: BoolArray, ammeters: BoolArray) -> Prior:
    """Return what the data sheets say; instruments that are not there are not fitted."""
    layout = model.layout
    mean, deviation = model.nominal(), np.zeros(layout.size)
    pots = deviation[layout.pots].reshape(layout.edges, layout.terms)
    values = mean[layout.pots].reshape(layout.edges, layout.terms)
    pots[:, :2] = POT_PRIOR * values[:, :2]
    # A pot may have no fixed resistance by its data sheet; the board always has some.
    pots[:, 0] = np.maximum(pots[:, 0], 0.01 * values[:, 1])
    for edge, pot in enumerate(model.pots):
        pots[edge, 2:] = INL_PRIOR * pot.end_to_end / pot.divisor
    constant = np.flatnonzero(model.constant)
    largest = 1.0 / (values[:, 0] + values[:, 1] * 0.5)
    pots[constant] = 0.0
    values[constant] = 0.0
    pots[constant, 0] = 100.0 * largest[constant]
    for quantity, sigma in enumerate(
        (spec.source_gain, spec.source_offset, spec.source_series, spec.ammeter_gain, spec.ammeter_offset)
    ):
        deviation[layout.of_terminal(quantity)] = sigma if quantity < 3 else np.where(ammeters, sigma, 0.0)
    deviation[layout.of_node(0)] = np.where(metered, spec.meter_gain, 0.0)
    deviation[layout.of_node(1)] = np.where(metered, spec.meter_offset, 0.0)
    mean[layout.leak] = 1.0 / spec.meter_resistance
    deviation[layout.leak] = spec.meter_leak if model.leaky.any() else 0.0
    return Prior(mean, deviation)


@dataclass(frozen=True, eq=False)
class _Sums:
    """The normal equations and residuals at one θ."""

    objective: float
    information: FloatArray
    slope: FloatArray
    normalised: FloatArray
    raw: FloatArray
    is_volts: BoolArray
    place: IntArray
    pattern: IntArray
    sample: IntArray


def _accumulate(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    prior: Prior,
    theta: FloatArray,
    *,
    slopes: bool,
) -> _Sums:
    """Add up JᵀWJ and JᵀWr pattern by pattern: the Jacobian of all readings is never held."""
    free = prior.free
    information, slope = np.zeros((len(free), len(free))), np.zeros(len(free))
    residuals: list[FloatArray] = []
    raws: list[FloatArray] = []
    kinds: list[BoolArray] = []
    places: list[IntArray] = []
    patterns: list[IntArray] = []
    samples: list[IntArray] = []
    objective = 0.0
    for number, record in enumerate(records):
        metered = record.metered
        ammeters = record.ammeters
        predicted = model.predict(theta, record.codes, record.drives, metered, ammeters, jacobian=slopes)
        readings = model.measured(record, predicted)
        used = np.isfinite(readings)
        sigma = noise.at(predicted.is_volts, predicted.place)[used]
        raw = readings[used] - predicted.values[used]
        normalised = raw / sigma
        size = np.abs(normalised)
        objective += float(np.where(size <= HUBER, 0.5 * size**2, HUBER * size - 0.5 * HUBER**2).sum())
        residuals.append(normalised)
        raws.append(raw)
        kinds.append(predicted.is_volts[used])
        places.append(predicted.place[used])
        patterns.append(np.full(int(used.sum()), number))
        samples.append(predicted.sample[used])
        if predicted.jacobian is not None:
            weight = np.sqrt(np.minimum(1.0, HUBER / np.maximum(size, HUBER)))
            whitened = predicted.jacobian[used][:, free] * (weight / sigma)[:, None]
            information += whitened.T @ whitened
            slope += whitened.T @ (weight * normalised)
    return _Sums(
        objective,
        information,
        slope,
        np.concatenate(residuals),
        np.concatenate(raws),
        np.concatenate(kinds),
        np.concatenate(places),
        np.concatenate(patterns),
        np.concatenate(samples),
    )


def fit(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    prior: Prior,
    start: FloatArray | None = None,
    *,
    max_iterations: int = MAX_ITERATIONS,
) -> Solution:
    """Return the θ that fits all readings best, by Levenberg–Marquardt steps on Huber's function of the residuals.

    A few readings that lie far out are left out and counted; many mean that the model is wrong, and stay.

    Raises MeasurementError where there are fewer readings than parameters, SolverError where no θ can be solved.
    """
    kept, outliers = list(records), 0
    solution = _fit(model, kept, noise, prior, start, max_iterations)
    for _ in range(REJECTIONS):
        far = np.flatnonzero(np.abs(solution.normalised) > FAR_OUT)
        if not len(far) or outliers + len(far) > FEW * len(solution.raw):
            break
        kept, outliers = _without_readings(kept, solution, far), outliers + len(far)
        solution = _fit(model, kept, noise, prior, solution.theta, max_iterations)
    return replace(solution, n_outliers=outliers)


def _without_readings(records: Sequence[PatternReadings], solution: Solution, far: IntArray) -> list[PatternReadings]:
    """Return the records without the readings of these numbers."""
    kept = list(records)
    for number in far.tolist():
        pattern, sample, place = (int(each[number]) for each in (solution.pattern, solution.sample, solution.place))
        record = kept[pattern]
        potentials, currents = record.potentials.copy(), record.currents.copy()
        (potentials if solution.is_volts[number] else currents)[sample, place] = np.nan
        kept[pattern] = replace(record, potentials=potentials, currents=currents)
    return kept


def _fit(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    prior: Prior,
    start: FloatArray | None,
    max_iterations: int,
) -> Solution:
    free = prior.free
    n_readings = sum(record.n_readings for record in records)
    if n_readings < len(free):
        raise MeasurementError(
            f"{n_readings} readings cannot determine {len(free)} parameters: measure more patterns or more drives"
        )
    scale = prior.deviation[free]
    theta = (prior.mean if start is None else start).copy()
    fixed = prior.deviation == 0
    theta[fixed] = prior.mean[fixed]

    def total(sums: _Sums, at: FloatArray) -> float:
        return sums.objective + 0.5 * float((((at - prior.mean)[free] / scale) ** 2).sum())

    damping, converged, iterations = 0.0, False, 0
    sums = _accumulate(model, records, noise, prior, theta, slopes=True)
    if not np.isfinite(sums.objective):
        raise SolverError("the fit cannot start from these values: a resistance is zero or not a number")
    value = total(sums, theta)
    while iterations < max_iterations and not converged:
        iterations += 1
        normal = sums.information * np.outer(scale, scale) + np.eye(len(free))
        slope = scale * sums.slope - (theta - prior.mean)[free] / scale
        accepted, trial = False, theta
        step: FloatArray = np.zeros(len(free))
        for _ in range(12):
            damped = normal + damping * np.diag(np.diagonal(normal))
            step = solve(damped, slope)
            trial = theta.copy()
            trial[free] += scale * step
            if _plausible(model.layout, model.constant, trial, theta):
                after = _accumulate(model, records, noise, prior, trial, slopes=False)
                if total(after, trial) <= value * (1 + 1e-12) + 1e-9:
                    accepted = True
                    break
            damping = max(1e-4, 10.0 * damping)
        length = float(np.sqrt(max(0.0, float(step @ normal @ step))))
        if not accepted:
            converged = length < 1e3 * CONVERGED
            break
        damping = 0.0 if damping < 1e-3 else 0.1 * damping
        theta = trial
        sums = _accumulate(model, records, noise, prior, theta, slopes=True)
        value = total(sums, theta)
        converged = length < CONVERGED
    statistical, instrument = split_covariance(sums.information, prior)
    return Solution(
        model,
        theta,
        prior,
        sums.information,
        statistical,
        instrument,
        float((sums.normalised**2).sum()),
        iterations,
        converged,
        sums.normalised,
        sums.raw,
        sums.is_volts,
        sums.place,
        sums.pattern,
        sums.sample,
    )


def _plausible(layout: Layout, constant: BoolArray, trial: FloatArray, before: FloatArray) -> bool:
    """Return whether every resistance stays positive and none changes more than tenfold in one step."""
    now = trial[layout.pots].reshape(layout.edges, layout.terms)[~constant, :2]
    was = before[layout.pots].reshape(layout.edges, layout.terms)[~constant, :2]
    ends_now, ends_was = np.stack([now[:, 0], now.sum(axis=1)]), np.stack([was[:, 0], was.sum(axis=1)])
    return bool(np.isfinite(trial).all() and (ends_now > 0.1 * ends_was).all())


def split_covariance(information: FloatArray, prior: Prior) -> tuple[FloatArray, FloatArray]:
    """Return C H C and C P C, (P, P) with zeros for what was not fitted: the statistical and the instrument part."""
    free, size = prior.free, len(prior.mean)
    scale = prior.deviation[free]
    whitened = information * np.outer(scale, scale)
    posterior = inverse(whitened + np.eye(len(free)))
    statistical, instrument = np.zeros((size, size)), np.zeros((size, size))
    place = np.ix_(free, free)
    # CHC = C − C² with C = (H + 1)⁻¹. Where readings are almost exact, rounding of H leaves directions that only data
    # sheets know with a small negative variance: a covariance has none.
    variances, axes = linalg.eigh(posterior - posterior @ posterior)
    statistical[place] = ((axes * np.maximum(variances, 0.0)) @ axes.T) * np.outer(scale, scale)
    instrument[place] = (posterior @ posterior) * np.outer(scale, scale)
    return statistical, instrument


def kirchhoff_start(model: BoardModel, records: Sequence[PatternReadings], prior: Prior) -> FloatArray | None:
    """Return starting values θ (P,) from Kirchhoff's current law alone, None unless every node was measured.

    With all node voltages measured the law is linear in the conductances: D diag(v) g = the currents from outside. It
    is solved per pattern; each pot's resistances against its codes then give R_0 and R_AB.
    """
    network, layout = model.network, model.layout
    n, edges = network.n_nodes, network.edges
    values: list[FloatArray] = []
    precisions: list[FloatArray] = []
    for record in records:
        if (
            not np.isfinite(record.potentials).all()
            or not np.isfinite(record.currents[np.isfinite(record.drives)]).all()
        ):
            return None
        outside = np.zeros((len(record.drives), n))
        outside[:, network.terminals] = np.nan_to_num(record.currents)
        outside -= prior.mean[layout.leak] * model.leaky * record.potentials
        voltages = network.edge_voltages(record.potentials)
        rows = np.zeros((len(record.drives), n, network.n_edges))
        each = np.arange(network.n_edges)
        rows[:, edges[:, 0], each] = voltages
        rows[:, edges[:, 1], each] = -voltages
        guess = 1.0 / (prior.mean[layout.pots].reshape(layout.edges, layout.terms)[:, 0] + 1.0)
        matrix, right = rows.reshape(-1, network.n_edges) * guess, outside.ravel()
        # A touch of the nominal value keeps edges without voltage in this pattern harmless.
        ridge = 1e-4 * max(float(np.abs(record.potentials).max()), 1e-3) * float(guess.max())
        nominal = model.conductances(prior.mean, record.codes)[0] / guess
        normal = matrix.T @ matrix + ridge**2 * np.eye(network.n_edges)
        values.append(guess * solve(normal, matrix.T @ right + ridge**2 * nominal))
        precisions.append(1.0 / np.diagonal(inverse(normal)) / guess**2)
    theta = prior.mean.copy()
    pots = theta[layout.pots].reshape(layout.edges, layout.terms)
    conductances, precision = np.array(values), np.array(precisions)
    codes = np.array([record.codes for record in records])
    for edge, pot in enumerate(model.pots):
        good = conductances[:, edge] > 0
        if model.constant[edge] or good.sum() < 2:
            continue
        resistances = 1.0 / conductances[good, edge]
        # u(R) = R²·u(g).
        weight = np.sqrt(precision[good, edge]) / resistances**2
        law = np.column_stack([np.ones(good.sum()), pot.travel()[codes[good, edge]]])
        found = linalg.lstsq(law * weight[:, None], resistances * weight)[0]
        if found[0] > 0.1 * pots[edge, 0] and found.sum() > 0:
            pots[edge, :2] = found
    return theta


def pot_parameters(solution: Solution) -> PotParameters:
    """Return the pots' part of a solution; an edge that does not follow its code gets R_0 = 1/g and R_AB = 0."""
    model, layout = solution.model, solution.model.layout
    values = solution.theta[layout.pots].reshape(layout.edges, layout.terms).copy()
    factor = np.ones(values.shape)
    for edge in np.flatnonzero(model.constant).tolist():
        conductance = max(float(values[edge, 0]), 1.0 / OPEN_OHMS)
        values[edge, 0], values[edge, 1:] = 1.0 / conductance, 0.0
        factor[edge, 0] = -1.0 / conductance**2
    turn = np.outer(factor.ravel(), factor.ravel())
    names = ("R0", "RAB", *(f"INL{number}" for number in range(1, model.terms + 1)))
    return PotParameters(
        model.pots,
        names,
        values,
        solution.statistical[layout.pots, layout.pots] * turn,
        solution.instrument[layout.pots, layout.pots] * turn,
    )


def meter_parameters(solution: Solution, noise: Noise, metered: BoolArray) -> MeterParameters:
    """Return the meters' part of a solution."""
    layout = solution.model.layout
    return MeterParameters(
        np.where(metered, solution.theta[layout.of_node(0)], np.nan),
        np.where(metered, solution.theta[layout.of_node(1)], np.nan),
        solution.statistical[layout.meters, layout.meters],
        solution.instrument[layout.meters, layout.meters],
        np.where(metered, noise.volts, np.nan),
        float(solution.theta[layout.leak]),
    )


def source_parameters(solution: Solution, noise: Noise) -> SourceParameters:
    """Return the sources' part of a solution."""
    layout = solution.model.layout
    gain, offset, series, ammeter_gain, ammeter_offset = (
        solution.theta[layout.of_terminal(quantity)].copy() for quantity in range(5)
    )
    return SourceParameters(
        gain,
        offset,
        series,
        ammeter_gain,
        ammeter_offset,
        solution.statistical[layout.sources, layout.sources],
        solution.instrument[layout.sources, layout.sources],
        noise.amperes,
    )


def fit_report(solution: Solution) -> FitReport:
    """Return the statistics of a fit."""
    network = solution.model.network
    summaries = []
    for kind, unit, volts in (("node volts", "V", True), ("terminal amperes", "A", False)):
        chosen = np.flatnonzero(solution.is_volts == volts)
        if not len(chosen):
            continue
        raw, normalised = solution.raw[chosen], solution.normalised[chosen]
        worst = int(np.argmax(np.abs(normalised)))
        place = int(solution.place[chosen[worst]])
        summaries.append(
            ResidualSummary(
                kind,
                unit,
                len(chosen),
                float(np.sqrt(np.mean(raw**2))),
                float(np.sqrt(np.mean(normalised**2))),
                float(raw[worst]),
                float(normalised[worst]),
                network.name(place if volts else int(network.terminals[place])),
            )
        )
    return FitReport(
        chi_square=solution.chi_square,
        dof=solution.dof,
        n_readings=len(solution.raw),
        n_outliers=solution.n_outliers,
        iterations=solution.iterations,
        converged=solution.converged,
        residuals=tuple(summaries),
        normalised=solution.normalised,
        reading_kinds=tuple(np.where(solution.is_volts, "V", "A").tolist()),
        reading_places=tuple(solution.place.tolist()),
        reading_patterns=tuple(solution.pattern.tolist()),
    )


def rescaled(solution: Solution, noise: Noise, low: float, high: float) -> Noise:
    """Return the noise corrected by the residuals of each kind, where these lie within [low, high] in chi-square.

    Repeats tell the noise to a few per cent; thousands of residuals tell it better, once the model is known to fit.
    """
    factors = []
    for volts in (True, False):
        reduced = solution.reduced(volts) if (solution.is_volts == volts).any() else 1.0
        factors.append(float(np.sqrt(reduced)) if low <= reduced <= high else 1.0)
    return noise.scaled(*factors)


def with_covariance_factor(solution: Solution, factor: float) -> Solution:
    """Return the solution with its statistical covariance times a factor (Birge ratio squared)."""
    return replace(solution, statistical=solution.statistical * factor)
