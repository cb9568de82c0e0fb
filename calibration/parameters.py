"""What a calibration finds: parameters with their covariance, and how well the fit went. Plain values, no behaviour."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from hilcl.arrays import BoolArray, FloatArray
from hilcl.device_range import DeviceRange
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer

OPEN_OHMS = 1e9
"""Resistance that stands for an edge without contact: beyond what any bench tells from nothing."""

FindingKind = Literal[
    "stuck", "open", "shorted", "swapped pots", "swapped channels", "dead channel", "drifted reference", "misfit"
]


def inl_shapes(pot: Potentiometer, terms: int) -> FloatArray:
    """Return the smooth bows (positions, terms) that non-linearity is made of: sin(jπt), t from 0 at code 0 to 1.

    They vanish at both ends, so that R_0 and R_AB keep their meaning.
    """
    place = np.linspace(0.0, 1.0, pot.positions)[:, None]
    return np.sin(np.pi * place * np.arange(1, terms + 1))


def law_of(pot: Potentiometer, terms: int) -> FloatArray:
    """Return B (positions, 2 + terms) with R(k) = Σ_q B[k, q]·value[q], values in ohms: (R_0, R_AB, INL_1, …)."""
    return np.column_stack([np.ones(pot.positions), pot.travel(), inl_shapes(pot, terms)])


@dataclass(frozen=True, eq=False)
class PotParameters:
    """The fitted law of every edge: R_e(k) = R0_e + RAB_e·x(k) + Σ_j INLj_e·sin(jπt), everything in ohms.

    ``pots``: the nominal law of each of M edges. ``names``: Q names, ``("R0", "RAB", "INL1", …)``. ``values`` (M, Q) in
    ohms. ``statistical`` and ``instrument`` (MQ, MQ) in Ω²: covariance of ``values.ravel()``, the part that more
    readings lower and the part that comes from instrument specifications and other prior knowledge. They add up.
    An edge that does not follow its code has its resistance in R0 and RAB = 0 (OPEN_OHMS where it is open).
    """

    pots: tuple[Potentiometer, ...]
    names: tuple[str, ...]
    values: FloatArray
    statistical: FloatArray
    instrument: FloatArray

    @property
    def n_edges(self) -> int:
        """Number of edges M."""
        return len(self.pots)

    @property
    def inl_codes(self) -> FloatArray:
        """The non-linearity coefficients (M, Q − 2) in codes, NaN on an edge whose R_AB is 0."""
        track = self.values[:, 1:2]
        per_code = np.where(track != 0, track, np.nan) / np.array([[pot.divisor] for pot in self.pots])
        codes: FloatArray = self.values[:, 2:] / per_code
        return codes

    @cached_property
    def covariance(self) -> FloatArray:
        """Statistical and instrument part together, (MQ, MQ) in Ω²."""
        total: FloatArray = self.statistical + self.instrument
        return total

    @cached_property
    def standard_uncertainties(self) -> FloatArray:
        """Standard uncertainty of every parameter, (M, Q) in ohms, both parts together."""
        return np.sqrt(np.diagonal(self.covariance)).reshape(self.values.shape)

    @cached_property
    def law(self) -> FloatArray:
        """B (M, K, Q) with R_e(k) = Σ_q B[e, k, q]·values[e, q]; NaN where a pot has fewer than K codes."""
        positions = max(pot.positions for pot in self.pots)
        law = np.full((self.n_edges, positions, len(self.names)), np.nan)
        known: dict[Potentiometer, FloatArray] = {}
        for row, pot in zip(law, self.pots, strict=True):
            row[: pot.positions] = known.setdefault(pot, law_of(pot, len(self.names) - 2))
        return law

    @cached_property
    def resistances(self) -> FloatArray:
        """R_e(k) of every code, (M, K) in ohms, NaN where a pot has fewer codes."""
        resistances: FloatArray = np.einsum("mkq,mq->mk", self.law, self.values)
        return resistances

    @cached_property
    def table(self) -> FloatArray:
        """Conductance of every code, (M, K) in siemens, NaN where a pot has fewer codes."""
        table: FloatArray = 1.0 / self.resistances
        return table

    @cached_property
    def table_statistical(self) -> FloatArray:
        """Statistical standard uncertainty of ``table``, (M, K) in siemens."""
        return self._table_u(self.statistical)

    @cached_property
    def table_instrument(self) -> FloatArray:
        """Standard uncertainty of ``table`` from instrument specifications, (M, K) in siemens."""
        return self._table_u(self.instrument)

    @cached_property
    def table_u(self) -> FloatArray:
        """Standard uncertainty of ``table``, (M, K) in siemens, both parts together."""
        return self._table_u(self.covariance)

    def device_range(self, allowed: BoolArray | None = None) -> DeviceRange:
        """Return the calibrated table as a device range; codes where ``allowed`` (M, K) is False are left out."""
        return DeviceRange.from_table(self.table if allowed is None else np.where(allowed, self.table, np.nan))

    def _table_u(self, covariance: FloatArray) -> FloatArray:
        # g = 1/R, so u(g) = g²·u(R).
        edges, terms = self.values.shape
        own = covariance.reshape(edges, terms, edges, terms)[np.arange(edges), :, np.arange(edges), :]
        variance = np.einsum("mkq,mqr,mkr->mk", self.law, own, self.law)
        u: FloatArray = self.table**2 * np.sqrt(np.maximum(variance, 0.0))
        return u


@dataclass(frozen=True, eq=False)
class MeterParameters:
    """What each node's meter makes of a potential: reading = gain·volts + offset.

    ``gain`` (N,) and ``offset`` (N,) in volts, NaN at a node without a meter. ``statistical`` and ``instrument``
    (2N, 2N): covariance of the gains followed by the offsets, zero at a node without a meter. ``noise`` (N,):
    standard deviation of one reading in volts, from repeated readings. ``leak``: what each meter puts between its node
    and 0 V, in siemens.
    """

    gain: FloatArray
    offset: FloatArray
    statistical: FloatArray
    instrument: FloatArray
    noise: FloatArray
    leak: float = 0.0

    @property
    def covariance(self) -> FloatArray:
        """Both parts together, (2N, 2N)."""
        total: FloatArray = self.statistical + self.instrument
        return total

    def correct(self, readings: FloatArray) -> FloatArray:
        """Return the potentials (…, N) in volts behind readings (…, N); readings without a meter stay as they are."""
        known = np.isfinite(self.gain)
        volts: FloatArray = np.where(
            known, (readings - np.where(known, self.offset, 0.0)) / np.where(known, self.gain, 1.0), readings
        )
        return volts

    def corrected_u(self, readings: FloatArray) -> FloatArray:
        """Return the standard uncertainties (…, N) in volts of corrected readings, noise of one reading included."""
        count = len(self.gain)
        total = self.covariance
        gains, offsets = np.diagonal(total)[:count], np.diagonal(total)[count:]
        crossed = np.diagonal(total[:count, count:])
        volts = self.correct(readings)
        variance = (self.noise**2 + volts**2 * gains + 2.0 * volts * crossed + offsets) / self.gain**2
        u: FloatArray = np.sqrt(np.maximum(variance, 0.0))
        return u


@dataclass(frozen=True, eq=False)
class SourceParameters:
    """What each terminal's source does: volts at the terminal = gain·setting + offset − series·amperes.

    And what its ammeter makes of the current: reading = ammeter_gain·amperes + ammeter_offset. All (T,): ``gain``,
    ``offset`` in volts, ``series`` in ohms, ``ammeter_gain``, ``ammeter_offset`` in amperes; where nothing was to be
    found out, gains are 1 and the rest 0. ``statistical`` and ``instrument`` (5T, 5T): covariance, in this order.
    ``ammeter_noise`` (T,): standard deviation of one current reading in amperes.
    """

    gain: FloatArray
    offset: FloatArray
    series: FloatArray
    ammeter_gain: FloatArray
    ammeter_offset: FloatArray
    statistical: FloatArray
    instrument: FloatArray
    ammeter_noise: FloatArray

    @property
    def covariance(self) -> FloatArray:
        """Both parts together, (5T, 5T)."""
        total: FloatArray = self.statistical + self.instrument
        return total


@dataclass(frozen=True)
class Unidentifiable:
    """A parameter the readings do not determine: ``"R0 of edge 3"``, why, and which measurement would change that."""

    name: str
    reason: str
    remedy: str
    edges: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A fault: what it is, where, and one sentence saying so with the remedy."""

    kind: FindingKind
    sentence: str
    edges: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class ResidualSummary:
    """Residuals (reading minus prediction) of one kind of reading: "node volts" or "terminal amperes".

    ``rms`` and ``worst`` in the unit of the reading; ``normalised_rms`` and ``normalised_worst`` in standard
    deviations. ``worst_at`` names the node or terminal of the worst.
    """

    kind: str
    unit: str
    count: int
    rms: float
    normalised_rms: float
    worst: float
    normalised_worst: float
    worst_at: str


@dataclass(frozen=True, eq=False)
class FitReport:
    """How the fit went.

    ``chi_square`` over ``dof`` degrees of freedom; ``n_readings`` used, ``n_outliers`` left out as far out.
    ``normalised`` (n_readings,): residuals in standard deviations, with ``reading_kinds`` ("V" or "A"),
    ``reading_places`` (node or terminal number) and ``reading_patterns`` (number of the programmed pattern) alike.
    """

    chi_square: float
    dof: int
    n_readings: int
    n_outliers: int
    iterations: int
    converged: bool
    residuals: tuple[ResidualSummary, ...]
    unidentifiable: tuple[Unidentifiable, ...] = ()
    findings: tuple[Finding, ...] = ()
    normalised: FloatArray = field(default_factory=lambda: np.zeros(0))
    reading_kinds: tuple[str, ...] = ()
    reading_places: tuple[int, ...] = ()
    reading_patterns: tuple[int, ...] = ()

    @property
    def reduced_chi_square(self) -> float:
        """Chi-square per degree of freedom: 1 where model and noise are right."""
        return self.chi_square / max(self.dof, 1)


@dataclass(frozen=True)
class Verification:
    """Readings of fresh random codes and drives beside what the calibration says they must be.

    ``reduced_chi_square`` counts the noise of the readings and the calibration's own uncertainty; ``within_95`` is the
    part of the readings inside their 95 % interval. ``volts_rms``, ``volts_worst`` and ``amperes_rms``,
    ``amperes_worst`` (NaN without such readings) are the differences; ``passed`` is the verdict.
    """

    n_patterns: int
    n_readings: int
    reduced_chi_square: float
    within_95: float
    volts_rms: float
    volts_worst: float
    amperes_rms: float
    amperes_worst: float
    passed: bool


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """All that one calibration of a board found. ``seconds`` is the time it took."""

    network: Network
    pots: PotParameters
    meters: MeterParameters
    sources: SourceParameters
    report: FitReport
    verification: Verification | None
    n_patterns: int
    n_drives: int
    seconds: float
