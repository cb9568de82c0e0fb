"""Which codes and drives to measure next, so that the worst edge becomes known fastest; and what that will give.

The covariance of the estimate depends on the codes and drives alone, not on the readings, so accuracy and time are
known before anything is measured. Patterns are picked greedily from random candidates by what they do to a
p-norm of all relative variances, which is close to the worst one (between A- and G-optimal).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.calibration.criterion import Criterion
from hilcl.calibration.fit import Prior
from hilcl.calibration.model import BoardModel
from hilcl.calibration.readings import Noise
from hilcl.errors import InputError
from hilcl.network import Network

CODE_MIX = (0.4, 0.4, 0.2)
"""Chances that a candidate sets an edge to its lowest code, its highest, or any: straight lines show at their ends."""

PROBES, PROBE_DRIVES = 24, 4
"""Random patterns that show what can be determined at all."""

HOPELESS = 0.2
"""Relative uncertainty of a conductance that stays after the probes where the wiring does not determine it."""

MARGIN = 0.7
"""Part of a current limit that is planned with, since the true conductances are not known yet."""


@dataclass(frozen=True, eq=False)
class DriveLimits:
    """What may be driven: ``low`` and ``high`` (T,) in volts, equal where a terminal is wired to one potential.

    ``amperes_per_pot`` and ``amperes_per_source`` (inf for none) lower the volts of a pattern that would exceed them.
    """

    low: FloatArray
    high: FloatArray
    amperes_per_pot: float = np.inf
    amperes_per_source: float = np.inf

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low <= self.high).all()):
            raise InputError("the volts of a calibration need a finite low and high value per terminal, low below high")
        if (self.low == self.high).all():
            raise InputError("every terminal of the calibration is held at one voltage: allow a range of volts")

    @classmethod
    def between(cls, network: Network, low: float, high: float, **limits: float) -> "DriveLimits":
        """Return the same range of volts at every terminal."""
        count = len(network.terminals)
        return cls(np.full(count, low), np.full(count, high), **limits)

    @property
    def fixed(self) -> BoolArray:
        """Terminals (T,) that are always at one voltage."""
        fixed: BoolArray = self.low == self.high
        return fixed

    def clip(self, model: BoardModel, theta: FloatArray, codes: IntArray, drives: FloatArray) -> FloatArray:
        """Return the drives (S, T) drawn together, row by row, until no pot or source is predicted beyond its limit."""
        if np.isinf(self.amperes_per_pot) and np.isinf(self.amperes_per_source):
            return drives
        conductances = model.conductances(theta, codes)[0]
        network, n = model.network, model.network.n_nodes
        clipped = drives.copy()
        for rows, driven, _, state in model.states(theta, conductances, drives):
            through = np.abs(network.edge_voltages(state[:, :n])) * conductances
            worst = np.maximum(
                through.max(axis=1) / (MARGIN * self.amperes_per_pot),
                np.abs(state[:, n:]).max(axis=1) / (MARGIN * self.amperes_per_source),
            )
            factor = 1.0 / np.maximum(worst, 1.0)
            here = drives[np.ix_(rows, driven)]
            held = self.fixed[driven]
            centre = here[:, held].mean(axis=1) if held.any() else 0.5 * (here.min(axis=1) + here.max(axis=1))
            clipped[np.ix_(rows, driven)] = centre[:, None] + factor[:, None] * (here - centre[:, None])
        return clipped


@dataclass(frozen=True, eq=False)
class Plan:
    """Codes (M,) and drives (S, T) of one pattern to measure."""

    codes: IntArray
    drives: FloatArray


@dataclass(frozen=True)
class TimeModel:
    """Seconds it takes to program a pattern and to measure under one drive."""

    per_pattern: float
    per_drive: float

    def seconds(self, plans: Sequence[Plan]) -> float:
        """Return the seconds all plans take."""
        return sum(self.per_pattern + self.per_drive * len(plan.drives) for plan in plans)


@dataclass(frozen=True)
class Forecast:
    """What to expect after so many patterns.

    ``worst`` and ``rms``: relative standard uncertainty of the conductances, over all edges and codes that the wiring
    lets determine.
    """

    n_patterns: int
    n_drives: int
    seconds: float
    worst: float
    rms: float


@dataclass(frozen=True, eq=False)
class Design:
    """Patterns to measure, in order, and what each prefix of them will give."""

    plans: tuple[Plan, ...]
    forecasts: tuple[Forecast, ...]


class Designer:
    """Plans patterns for one board.

    ``allowed`` (M, K): codes that may be set. ``theta`` (P,): the parameters as far as known. ``metered`` (N,) and
    ``ammeters`` (T,): what can be read.
    """

    def __init__(
        self,
        model: BoardModel,
        theta: FloatArray,
        prior: Prior,
        noise: Noise,
        limits: DriveLimits,
        allowed: BoolArray,
        metered: BoolArray,
        ammeters: BoolArray,
        time: TimeModel,
        generator: np.random.Generator,
    ) -> None:
        self._model, self._theta, self._prior, self._noise = model, theta, prior, noise
        self._limits, self._metered, self._ammeters = limits, metered, ammeters
        self._time, self._generator = time, generator
        self._codes = [np.flatnonzero(row) for row in allowed]
        # The pots come first in θ, the criterion wants them last.
        self._free = prior.free[::-1]
        directions = self._code_directions()
        # What no pattern determines must not hide what patterns do to the rest.
        probes = [self.candidate(PROBE_DRIVES) for _ in range(PROBES)]
        reachable = Criterion(directions).variances(self._information(probes)) < HOPELESS**2
        self._criterion = Criterion(directions[reachable] if reachable.any() else directions)

    def random_plan(self, n_drives: int, *, ends: bool = False) -> Plan:
        """Return a pattern of random codes and random volts within the limits, or at the ends of the limits."""
        codes = np.array([self._generator.choice(each) for each in self._codes])
        volts = self._generator.uniform(self._limits.low, self._limits.high, (n_drives, len(self._limits.low)))
        if ends:
            upper = self._generator.random(volts.shape) < 0.5
            volts = np.where(upper, self._limits.high, self._limits.low)
        return Plan(codes, self._limits.clip(self._model, self._theta, codes, volts))

    def candidate(self, n_drives: int) -> Plan:
        """Return a pattern of mostly extreme codes, every terminal at one end of its volts."""
        kinds = self._generator.choice(3, size=len(self._codes), p=CODE_MIX)
        picks = [self._generator.choice(each) for each in self._codes]
        codes = np.array(
            [
                (each[0], each[-1], pick)[kind]
                for each, pick, kind in zip(self._codes, picks, kinds.tolist(), strict=True)
            ]
        )
        upper = self._generator.random((n_drives, len(self._limits.low))) < 0.5
        volts = np.where(upper, self._limits.high, self._limits.low)
        return Plan(codes, self._limits.clip(self._model, self._theta, codes, volts))

    def whitened(self, plan: Plan) -> FloatArray:
        """Return the Jacobian (R, F) of a pattern's readings by the fitted parameters, in standard deviations."""
        predicted = self._model.predict(self._theta, plan.codes, plan.drives, self._metered, self._ammeters)
        if predicted.jacobian is None:
            raise InputError("a design needs the derivatives of the readings")
        sigma = self._noise.at(predicted.is_volts, predicted.place)
        free = self._free
        whitened: FloatArray = predicted.jacobian[:, free] * (self._prior.deviation[free] / sigma[:, None])
        return whitened

    def _information(self, plans: Sequence[Plan]) -> FloatArray:
        """Return the information (F, F) after these patterns, in units of the prior's standard deviations."""
        information = np.eye(len(self._free))
        for plan in plans:
            information += self._gain(plan)
        return information

    def _gain(self, plan: Plan) -> FloatArray:
        rows = self.whitened(plan)
        gain: FloatArray = rows.T @ rows
        return gain

    def designed(
        self, done: Sequence[Plan], n_patterns: int, n_drives: int, *, candidates: int = 60, target: float = 0.0
    ) -> Design:
        """Return up to ``n_patterns`` greedily chosen patterns, stopping where the worst reaches ``target``."""
        *_, design = self.designing(done, n_patterns, n_drives, candidates=candidates, target=target)
        return design

    def designing(
        self, done: Sequence[Plan], n_patterns: int, n_drives: int, *, candidates: int, target: float
    ) -> Iterator[Design]:
        """Yield what ``designed`` returns as it grows, after each of its patterns."""
        pool = [self.candidate(n_drives) for _ in range(candidates)]
        gains = np.empty((candidates, len(self._free), len(self._free)))
        for gain, plan in zip(gains, pool, strict=True):
            gain[:] = self._gain(plan)
        information = self._information(done)
        design = Design((), ())
        while len(design.plans) < n_patterns and not (design.plans and design.forecasts[-1].worst <= target):
            best = self._criterion.best(information, gains)
            information += gains[best]
            plans = (*design.plans, pool[best])
            forecast = self._forecast([*done, *plans], information)
            # A fresh candidate in its place keeps the codes varied.
            pool[best] = self.candidate(n_drives)
            gains[best] = self._gain(pool[best])
            design = Design(plans, (*design.forecasts, forecast))
            yield design

    def at_random(self, done: Sequence[Plan], n_patterns: int, n_drives: int, *, ends: bool = False) -> Design:
        """Return random patterns and what they will give, to compare with."""
        information = self._information(done)
        plans: list[Plan] = []
        forecasts: list[Forecast] = []
        for _ in range(n_patterns):
            plan = self.random_plan(n_drives, ends=ends)
            information += self._gain(plan)
            plans.append(plan)
            forecasts.append(self._forecast([*done, *plans], information))
        return Design(tuple(plans), tuple(forecasts))

    def forecast(self, plans: Sequence[Plan]) -> Forecast:
        """Return what these patterns will give."""
        return self._forecast(plans, self._information(plans))

    def _forecast(self, plans: Sequence[Plan], information: FloatArray) -> Forecast:
        variances = self._criterion.variances(information)
        return Forecast(
            len(plans),
            sum(len(plan.drives) for plan in plans),
            self._time.seconds(plans),
            float(np.sqrt(variances.max())),
            float(np.sqrt(variances.mean())),
        )

    def _code_directions(self) -> FloatArray:
        """Return a (D, F) with a·δθ the relative change of resistance at some codes of every edge."""
        model, layout = self._model, self._model.layout
        directions = []
        for edge, codes in enumerate(self._codes):
            if model.constant[edge]:
                continue
            # Relative to g = 1/R, so relative to R: both ends and the middle bound what lies between.
            for code in {int(codes[0]), int(codes[len(codes) // 2]), int(codes[-1])}:
                each = np.full(layout.edges, codes[0])
                each[edge] = code
                conductance, slopes = model.conductances(self._theta, np.minimum(each, self._last_codes()))
                row = np.zeros(layout.size)
                row[edge * layout.terms : (edge + 1) * layout.terms] = slopes[edge] / conductance[edge]
                directions.append((row * self._prior.deviation)[self._free])
        return np.array(directions)

    def _last_codes(self) -> IntArray:
        return np.array([each[-1] for each in self._codes])
