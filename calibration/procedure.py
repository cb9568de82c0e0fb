"""The calibration of a board, start to end: meters, designed patterns, fit, faults, verification."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.board import Board
from hilcl.calibration.design import Designer, DriveLimits, Forecast, Plan, TimeModel
from hilcl.calibration.faults import (
    ACCEPTED,
    Diagnosis,
    dead_channels,
    dead_finding,
    diagnose,
    reference_drift,
)
from hilcl.calibration.fit import (
    InstrumentSpec,
    Solution,
    fit,
    fit_report,
    make_prior,
    meter_parameters,
    pot_parameters,
    rescaled,
    source_parameters,
    with_covariance_factor,
)
from hilcl.calibration.identifiability import unidentifiable
from hilcl.calibration.model import BoardModel
from hilcl.calibration.parameters import CalibrationResult, Finding, Verification
from hilcl.calibration.readings import (
    Noise,
    PatternReadings,
    measure,
    noise_from_repeats,
    with_swapped_edges,
    with_swapped_nodes,
    without_nodes,
)
from hilcl.errors import InputError, MeasurementError
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer

Stage = Literal["meters", "design", "pots", "fit", "verification", "done"]

NOISE_FLOOR = 1e-7
"""Smallest noise assumed, relative to the largest reading: no source or meter is better."""

LOAD_DRIVES = 4
"""Drives that are repeated to learn the noise of readings under load."""

HOPELESS = 16.0
"""Chi-square per degree of freedom beyond which readings say that the board is not the one described."""

RESCALED = (0.7, ACCEPTED)
"""Chi-square per degree of freedom within which residuals correct what repeats said about the noise."""

BOWED = 6.0
"""Standard deviations by which non-linearity terms must lower chi-square to be kept."""

AUTO_TERMS = 2

PAINTED = 0.5
"""Non-linearity terms that leave more of chi-square than this have no part in what is wrong."""

FEWEST_WITHIN = 0.85
"""Part of the verification readings that must lie in their 95 % intervals."""


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    ``patterns`` of codes with ``drives`` each, fewer where ``budget`` (seconds, for everything) or ``target`` (worst
    relative standard uncertainty of a conductance) is reached before. ``repeats`` of each reference drive tell
    the noise. ``verification`` patterns are measured last and never fitted. ``inl``: number of non-linearity terms, or
    "auto". ``free_outputs``: half of the verification drives let the outputs float, as training does. ``seed`` of all
    choices.
    """

    patterns: int = 60
    drives: int = 4
    repeats: int = 8
    verification: int = 4
    budget: float | None = None
    target: float | None = None
    inl: int | Literal["auto"] = "auto"
    free_outputs: bool = True
    candidates: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("patterns", 1), ("drives", 1), ("repeats", 2), ("verification", 0), ("candidates", 1)):
            if getattr(self, name) < least:
                raise InputError(f"calibration: {name} must be at least {least}, got {getattr(self, name)}")
        for name in ("budget", "target"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"calibration: {name} must be positive, got {value}")
        if self.inl != "auto" and self.inl < 0:
            raise InputError(f"calibration: inl is a number of terms or 'auto', got {self.inl}")


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a calibration is: ``done`` of ``total`` steps of a stage, ``elapsed`` and ``remaining`` seconds.

    ``forecast`` says from the end of the design stage on what to expect; ``result`` comes with the last one.
    """

    stage: Stage
    done: int
    total: int
    elapsed: float
    remaining: float
    message: str
    forecast: Forecast | None = None
    result: CalibrationResult | None = None


@dataclass
class _Bench:
    """What one calibration works with."""

    board: Board
    pots: tuple[Potentiometer, ...]
    limits: DriveLimits
    spec: InstrumentSpec
    settings: Settings
    allowed: BoolArray
    generator: np.random.Generator
    started: float
    wired: BoolArray | None
    n_drives: int = 0
    seconds: list[tuple[int, float]] = field(default_factory=list)

    @property
    def network(self) -> Network:
        return self.board.network

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def measure(self, codes: IntArray, drives: FloatArray) -> PatternReadings:
        begun = time.monotonic()
        record = measure(self.board, codes, drives, self.wired)
        self.n_drives += len(drives)
        self.seconds.append((len(drives), time.monotonic() - begun))
        return record

    def time_model(self) -> TimeModel:
        drives = sum(count for count, _ in self.seconds)
        return TimeModel(0.0, sum(spent for _, spent in self.seconds) / max(drives, 1))


def calibrate(
    board: Board,
    pots: Potentiometer | Sequence[Potentiometer],
    limits: DriveLimits,
    *,
    spec: InstrumentSpec | None = None,
    settings: Settings | None = None,
    metered: BoolArray | None = None,
) -> Iterator[Progress]:
    """Calibrate a board; the last ``Progress`` carries the result.

    ``pots``: the nominal law of every edge. ``limits``: what may be driven. ``metered`` (N,): nodes that have a meter,
    by default those that return readings. Ends with the board safe.

    Raises InputError for arguments that do not fit the board, ComplianceError and MeasurementError for readings that
    cannot be used, are too few, or cannot come from a board wired as described.
    """
    bench = _bench(board, pots, limits, spec or InstrumentSpec(), settings or Settings(), metered)
    try:
        # Matrices of some hundred rows: more threads only wait for one another.
        with threadpool_limits(limits=1):
            yield from _calibrate(bench)
    finally:
        board.make_safe()


def _bench(
    board: Board,
    pots: Potentiometer | Sequence[Potentiometer],
    limits: DriveLimits,
    spec: InstrumentSpec,
    settings: Settings,
    metered: BoolArray | None,
) -> _Bench:
    network = board.network
    each = (pots,) * network.n_edges if isinstance(pots, Potentiometer) else tuple(pots)
    if len(each) != network.n_edges:
        raise InputError(
            f"{len(each)} potentiometers were given for {network.n_edges} edges: give one, or one per edge"
        )
    if len(limits.low) != len(network.terminals):
        raise InputError(
            f"volts were given for {len(limits.low)} terminals, but the board has {len(network.terminals)}"
        )
    table = board.device_range.table
    if table is None:
        raise InputError("a calibration needs a board whose devices have codes: give the board its pots")
    allowed = np.array(np.broadcast_to(~np.isnan(table), (network.n_edges, table.shape[-1])))
    for edge, (pot, row) in enumerate(zip(each, allowed, strict=True)):
        row[pot.positions :] = False
        if row.sum() < 2:
            raise InputError(f"edge {edge} has fewer than two codes that may be set: widen its limits to calibrate it")
    generator = np.random.default_rng(settings.seed)
    return _Bench(board, each, limits, spec, settings, allowed, generator, time.monotonic(), metered)


def _calibrate(bench: _Bench) -> Iterator[Progress]:
    network, settings = bench.network, bench.settings
    yield Progress("meters", 0, 2, 0.0, np.nan, "reading the meters against the sources")
    middle = np.array([np.flatnonzero(row)[row.sum() // 2] for row in bench.allowed])
    level_drives = np.repeat(_levels(bench.limits), settings.repeats, axis=0)
    reference = bench.measure(middle, level_drives)
    yield Progress("meters", 1, 2, bench.elapsed, np.nan, "reading the noise under load")
    theta = BoardModel(network, bench.pots).nominal()
    vertices = _vertices(bench, theta, middle, LOAD_DRIVES)
    load = bench.measure(middle, np.repeat(vertices, settings.repeats, axis=0))
    metered, findings = _usable_meters(bench, reference, load)
    ammeters = load.ammeters
    if not ammeters.any():
        raise InputError(
            "no source measures its current, so conductances are known only up to a common factor: "
            "give one source an ammeter"
        )
    left_out = np.flatnonzero(~metered & load.metered).tolist()
    records = without_nodes([reference, load], left_out)
    noise = _noise(records, settings.repeats)

    designer = _designer(bench, theta, noise, metered, ammeters)
    done = [Plan(record.codes, record.drives) for record in records]
    n_patterns = _affordable(bench)
    yield Progress("design", 0, n_patterns, bench.elapsed, np.nan, f"choosing {n_patterns} patterns")
    for design in designer.designing(
        done, n_patterns, settings.drives, candidates=settings.candidates, target=settings.target or 0.0
    ):
        message = f"chose pattern {len(design.plans)} of {n_patterns}"
        yield Progress("design", len(design.plans), n_patterns, bench.elapsed, np.nan, message)
    remaining = _remaining(bench, design.plans)
    forecast = design.forecasts[-1]
    expected = f"expecting {100 * forecast.worst:.2g} % at the worst code after {len(design.plans)} patterns"
    yield Progress("design", n_patterns, n_patterns, bench.elapsed, remaining, expected, forecast)
    for number, plan in enumerate(design.plans, start=1):
        records += without_nodes([bench.measure(plan.codes, plan.drives)], left_out)
        remaining = _remaining(bench, design.plans[number:])
        message = f"pattern {number} of {len(design.plans)}"
        yield Progress("pots", number, len(design.plans), bench.elapsed, remaining, message, forecast)
    closing = without_nodes([bench.measure(middle, level_drives)], left_out)[0]

    yield Progress("fit", 0, 1, bench.elapsed, np.nan, "fitting all readings", forecast)
    nominal = BoardModel(network, bench.pots, leaky=metered)
    drifts = reference_drift(nominal, records[0], closing, noise, metered)
    findings += drifts
    diagnosis = _diagnosed(bench, [*records, closing], noise, metered, ammeters, drifted=bool(drifts))
    findings += diagnosis.findings
    solution, noise, misfit = _finished(diagnosis, noise, drifted=bool(drifts))
    if misfit is not None:
        findings.append(misfit)
    report = replace(
        fit_report(solution),
        findings=tuple(findings),
        unidentifiable=unidentifiable(solution, diagnosis.records, noise, diagnosis.metered, ammeters),
    )

    verification = None
    if settings.verification:
        fresh = []
        for number in range(settings.verification):
            yield Progress(
                "verification", number, settings.verification, bench.elapsed, np.nan, "reading fresh codes", forecast
            )
            plan = _fresh_plan(bench, designer)
            fresh.append(bench.measure(plan.codes, plan.drives))
        verification = verify(solution, _as_diagnosed(fresh, findings), noise)
    result = CalibrationResult(
        network=network,
        pots=pot_parameters(solution),
        meters=meter_parameters(solution, noise, diagnosis.metered),
        sources=source_parameters(solution, noise),
        report=report,
        verification=verification,
        n_patterns=len(design.plans),
        n_drives=bench.n_drives,
        seconds=bench.elapsed,
    )
    yield Progress("done", 1, 1, bench.elapsed, 0.0, "calibrated", forecast, result)


def _levels(limits: DriveLimits) -> FloatArray:
    """Return drives (3, T): every terminal low, in the middle, high. Currents are then next to nothing."""
    common_low, common_high = limits.low.max(where=~limits.fixed, initial=-np.inf), limits.high[~limits.fixed].min()
    levels = np.array([common_low, 0.5 * (common_low + common_high), common_high])
    return np.where(limits.fixed, limits.low, levels[:, None])


def _vertices(bench: _Bench, theta: FloatArray, codes: IntArray, count: int) -> FloatArray:
    """Return drives (count, T) at the ends of the volts, each terminal high in half of them, within the limits."""
    limits = bench.limits
    upper = bench.generator.random((count, len(limits.low))) < 0.5
    upper[1::2] = ~upper[: count // 2 * 2 : 2]
    volts = np.where(upper, limits.high, limits.low)
    return limits.clip(BoardModel(bench.network, bench.pots), theta, codes, volts)


def _usable_meters(bench: _Bench, reference: PatternReadings, load: PatternReadings) -> tuple[BoolArray, list[Finding]]:
    """Return which nodes (N,) have a meter that works, and findings for those whose meter does not."""
    network = bench.network
    metered = load.metered
    # A terminal that stays at one voltage tells nothing about its meter.
    metered[network.terminals[bench.limits.fixed]] = False
    model = BoardModel(network, bench.pots, leaky=metered)
    dead = dead_channels(network, model, [reference], metered)
    metered[dead] = False
    return metered, [dead_finding(network, node) for node in dead]


def _noise(records: Sequence[PatternReadings], repeats: int) -> Noise:
    """Return the noise of single readings from records whose drives come in groups of ``repeats``."""
    volts, amperes = [], []
    for record in records:
        for start in range(0, len(record.drives), repeats):
            volts.append(record.potentials[start : start + repeats])
            amperes.append(record.currents[start : start + repeats])
    deviations = []
    for groups in (volts, amperes):
        every = np.concatenate(groups)
        largest = float(np.nanmax(np.abs(every))) if np.isfinite(every).any() else 1.0
        if groups is amperes and largest == 0.0:
            raise MeasurementError(
                "no source carries a current, whatever is driven: check the wires from the sources to the board"
            )
        deviations.append(noise_from_repeats(groups, [every], NOISE_FLOOR * largest))
    return Noise(*deviations)


def _designer(bench: _Bench, theta: FloatArray, noise: Noise, metered: BoolArray, ammeters: BoolArray) -> Designer:
    terms = 0 if bench.settings.inl == "auto" else bench.settings.inl
    model = BoardModel(bench.network, bench.pots, terms, leaky=metered)
    prior = make_prior(model, bench.spec, metered, ammeters)
    return Designer(
        model,
        prior.mean,
        prior,
        noise,
        bench.limits,
        bench.allowed,
        metered,
        ammeters,
        bench.time_model(),
        bench.generator,
    )


def _affordable(bench: _Bench) -> int:
    """Return how many patterns the time allows, at most those of the settings.

    Raises MeasurementError where the time is not enough for one.
    """
    settings = bench.settings
    if settings.budget is None:
        return settings.patterns
    per_pattern = settings.drives * bench.time_model().per_drive
    left = settings.budget - bench.elapsed - _remaining(bench, ())
    count = int(left / max(per_pattern, 1e-9))
    if count < 1:
        needed = settings.budget - left + per_pattern
        raise MeasurementError(
            f"{settings.budget:g} s are not enough to measure a single pattern: allow at least {needed:.3g} s"
        )
    return min(count, settings.patterns)


def _remaining(bench: _Bench, plans: Sequence[Plan]) -> float:
    """Return the seconds these plans, the closing reference and the verification take."""
    model, settings = bench.time_model(), bench.settings
    others = len(_levels(bench.limits)) * settings.repeats + settings.verification * settings.drives
    return model.seconds(plans) + others * model.per_drive


def _diagnosed(
    bench: _Bench,
    records: Sequence[PatternReadings],
    noise: Noise,
    metered: BoolArray,
    ammeters: BoolArray,
    *,
    drifted: bool,
) -> Diagnosis:
    """Fit with as few non-linearity terms and faults as the readings need; after a drift, faults are not looked for."""
    inl = bench.settings.inl
    if drifted:
        terms = 0 if inl == "auto" else inl
        return Diagnosis(_quick_fit(bench, terms, records, noise, metered, ammeters), tuple(records), metered, ())

    def attempt(terms: int) -> Diagnosis:
        return diagnose(bench.network, bench.pots, terms, records, noise, bench.spec, metered, ammeters)

    if inl != "auto":
        return attempt(inl)
    bowed = _quick_fit(bench, AUTO_TERMS, records, noise, metered, ammeters)
    straight = _quick_fit(bench, 0, records, noise, metered, ammeters)
    extra = AUTO_TERMS * bench.network.n_edges
    worth_it = straight.chi_square - bowed.chi_square > extra + BOWED * np.sqrt(2.0 * extra)
    # Terms that leave a large chi-square only paint over a fault.
    if worth_it and bowed.reduced() <= ACCEPTED:
        return attempt(AUTO_TERMS)
    plain = attempt(0)
    if plain.solution.reduced() <= ACCEPTED:
        return plain
    if bowed.reduced() > PAINTED * straight.reduced():
        return plain
    both = attempt(AUTO_TERMS)
    return both if both.solution.reduced() <= ACCEPTED else plain


def _quick_fit(
    bench: _Bench,
    terms: int,
    records: Sequence[PatternReadings],
    noise: Noise,
    metered: BoolArray,
    ammeters: BoolArray,
) -> Solution:
    model = BoardModel(bench.network, bench.pots, terms, leaky=metered)
    return fit(model, records, noise, make_prior(model, bench.spec, metered, ammeters), max_iterations=15)


def _finished(diagnosis: Diagnosis, noise: Noise, *, drifted: bool) -> tuple[Solution, Noise, Finding | None]:
    """Return the last fit with the noise its residuals tell, and a finding where the model does not fit.

    Raises MeasurementError where the readings cannot come from a board wired as described.
    """
    solution = diagnosis.solution
    reduced = solution.reduced()
    if reduced > ACCEPTED:
        report = fit_report(solution)
        worst = max(report.residuals, key=lambda each: each.normalised_rms)
        where = f"worst at {worst.worst_at}, {worst.worst:.3g} {worst.unit} off"
        if drifted:
            return with_covariance_factor(solution, reduced), noise, None
        if reduced > HOPELESS:
            raise MeasurementError(
                f"the readings do not fit the wiring and the pots described ({where}; chi-square is {reduced:.3g} "
                "times what it should be), and no single fault explains them: check the wiring and the pots in the file"
            )
        sentence = (
            f"the readings scatter more than their noise ({where}; chi-square is {reduced:.3g} times what it should "
            "be): uncertainties were enlarged to match; check connections, settling and temperature"
        )
        return with_covariance_factor(solution, reduced), noise, Finding("misfit", sentence)
    corrected = rescaled(solution, noise, *RESCALED)
    return fit(solution.model, diagnosis.records, corrected, solution.prior, solution.theta), corrected, None


def _fresh_plan(bench: _Bench, designer: Designer) -> Plan:
    """Return random codes and volts; in every other drive the outputs float."""
    plan = designer.random_plan(max(2, bench.settings.drives))
    if not bench.settings.free_outputs or not len(bench.network.outputs):
        return plan
    drives = plan.drives.copy()
    floating = np.arange(len(bench.network.inputs), drives.shape[1])
    floating = floating[~bench.limits.fixed[floating]]
    drives[np.ix_(np.arange(1, len(drives), 2), floating)] = np.nan
    return Plan(plan.codes, drives)


def _as_diagnosed(records: Sequence[PatternReadings], findings: Sequence[Finding]) -> list[PatternReadings]:
    """Return the records corrected for the swaps that were found, without dead channels."""
    corrected = list(records)
    for finding in findings:
        if finding.kind == "swapped pots":
            corrected = with_swapped_edges(corrected, *finding.edges)
        elif finding.kind == "swapped channels":
            corrected = with_swapped_nodes(corrected, *finding.nodes)
    dead = [node for finding in findings if finding.kind == "dead channel" for node in finding.nodes]
    return without_nodes(corrected, dead)


def verify(solution: Solution, records: Sequence[PatternReadings], noise: Noise) -> Verification:
    """Compare fresh readings with what the fit predicts, each with the uncertainty of both."""
    differences, scaled, kinds = [], [], []
    covariance = solution.covariance
    for record in records:
        metered = record.metered & np.isfinite(noise.volts)
        ammeters = record.ammeters & np.isfinite(noise.amperes)
        predicted = solution.model.predict(solution.theta, record.codes, record.drives, metered, ammeters)
        readings = solution.model.measured(record, predicted)
        used = np.isfinite(readings)
        sigma = noise.at(predicted.is_volts, predicted.place)
        jacobian = predicted.jacobian if predicted.jacobian is not None else np.zeros((len(used), len(covariance)))
        variance = sigma**2 + np.einsum("rp,pq,rq->r", jacobian, covariance, jacobian, optimize=True)
        difference = readings - predicted.values
        differences.append(difference[used])
        scaled.append((difference / np.sqrt(variance))[used])
        kinds.append(predicted.is_volts[used])
    raw, normalised, is_volts = np.concatenate(differences), np.concatenate(scaled), np.concatenate(kinds)
    reduced = float(np.mean(normalised**2)) if len(normalised) else np.nan
    within = float(np.mean(np.abs(normalised) <= 1.96)) if len(normalised) else np.nan

    def rms_and_worst(values: FloatArray) -> tuple[float, float]:
        return (float(np.sqrt(np.mean(values**2))), float(np.abs(values).max())) if len(values) else (np.nan, np.nan)

    return Verification(
        len(records),
        len(raw),
        reduced,
        within,
        *rms_and_worst(raw[is_volts]),
        *rms_and_worst(raw[~is_volts]),
        passed=bool(reduced <= ACCEPTED and within >= FEWEST_WITHIN),
    )
