"""Watching a board while it trains: every step's readings are also Kirchhoff and Tellegen equations."""

import math
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from hilcl.arrays import BoolArray, FloatArray, IntArray, frozen
from hilcl.board import Board, BoardAround, Contrast, Response, contrast_from_responses
from hilcl.calibration.evidence import Change, ChangeEvidence
from hilcl.calibration.linearised import LinearisedReadings, linearised_readings
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError
from hilcl.network import Network

Kind = Literal["pot", "contact", "meter", "ammeter", "temperature", "wiring"]

OVERFLOW = 1e30
"""Instruments report an overflow as 9.9e37; nothing on a board comes near."""

NOISE_STEPS = 50
"""Steps over which the reading noise is judged."""

LARGEST_SHIFT = 2.0
"""Largest change of a logarithm taken from one linear estimate."""

LARGE = 0.2
"""Relative change beyond which a linear estimate is only a first guess; such a part is watched no more."""

MOST_ALARMS = 3
"""Alarms of one edge, meter or ammeter after which it is watched no more: it does not follow its table."""

DEAD = 0.5
"""Relative change of a gain from which a channel counts as dead or loose."""

UNEXPLAINED_SIGMAS = 20.0
"""Misfit left beside the best single change, in standard deviations, from which several things changed at once."""


@dataclass(frozen=True)
class WatchSettings:
    """How the watch decides.

    ``false_alarms``: the probability of any false alarm in a whole run, however long. ``smallest_change`` of a
    conductance or a gain, relative, and ``smallest_offset`` in volts: less is never reported. ``settle``: steps
    in which the reading noise is learnt before the first alarm can come. ``every``: steps from one test
    to the next. ``memory``: steps after which a reading counts 1/e. ``update`` takes an alarmed edge's estimate over
    into the table.
    """

    false_alarms: float = 1e-3
    smallest_change: float = 5e-3
    smallest_offset: float = 5e-4
    settle: int = 10
    every: int = 4
    memory: float = 500.0
    update: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise InputError(f"false_alarms is a probability between 0 and 1, got {self.false_alarms}")
        for name in ("smallest_change", "smallest_offset", "memory"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive, got {value}")
        if self.settle < 2 or self.every < 1:
            raise InputError("the watch needs at least 2 steps to settle, and tests at most once a step")


@dataclass(frozen=True)
class WatchReference:
    """What is known of a board before it is watched, and how well.

    ``highest`` (M,) in siemens: the largest conductance of each edge, by which a resistance is split into a fixed part
    1/highest and the track. ``covariance`` (2M, 2M): of the relative errors of the fixed parts, then of the tracks.
    ``meter_noise`` (N,) in volts; ``meter_covariance`` (2N, 2N): of what correction left of the offsets, then of the
    gains. ``current_noise`` and ``current_offset_u`` (T,) in amperes, ``current_gain_u`` (T,): the same for ammeters,
    as standard uncertainties. ``load`` (N,) in siemens: what each meter puts between node and ground.
    """

    highest: FloatArray
    covariance: FloatArray
    meter_noise: FloatArray
    meter_covariance: FloatArray
    current_noise: FloatArray
    current_offset_u: FloatArray
    current_gain_u: FloatArray
    load: FloatArray

    @classmethod
    def of(
        cls,
        network: Network,
        highest: npt.ArrayLike,
        covariance: npt.ArrayLike,
        *,
        meter_noise: npt.ArrayLike,
        meter_offset_u: npt.ArrayLike = 1e-6,
        meter_gain_u: npt.ArrayLike = 1e-5,
        current_noise: npt.ArrayLike = 1e-9,
        current_offset_u: npt.ArrayLike = 1e-9,
        current_gain_u: npt.ArrayLike = 1e-5,
        meter_covariance: FloatArray | None = None,
        load: npt.ArrayLike = 0.0,
        floor: float = 5e-4,
    ) -> "WatchReference":
        """Return a reference with single numbers repeated over edges, nodes and terminals.

        ``covariance`` may be (2M, 2M), or one standard uncertainty for all. ``floor`` is a relative error of both
        parts of every edge that is always allowed for: no pot follows its law exactly. ``meter_offset_u`` and
        ``meter_gain_u`` are added to ``meter_covariance``, where that is given.
        """
        edges, nodes, terminals = network.n_edges, network.n_nodes, len(network.terminals)
        known = np.asarray(covariance, dtype=np.float64)
        if known.ndim == 0:
            known = float(known) ** 2 * np.eye(2 * edges)
        if known.shape != (2 * edges, 2 * edges):
            raise InputError(f"the covariance has shape {known.shape}, but {edges} edges need {(2 * edges, 2 * edges)}")

        def spread(values: npt.ArrayLike, size: int) -> FloatArray:
            return np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), size))

        of_meters = np.diag(np.concatenate([spread(meter_offset_u, nodes), spread(meter_gain_u, nodes)]) ** 2)
        return cls(
            spread(highest, edges),
            known + floor**2 * np.eye(2 * edges),
            spread(meter_noise, nodes),
            of_meters if meter_covariance is None else of_meters + meter_covariance,
            spread(current_noise, terminals),
            spread(current_offset_u, terminals),
            spread(current_gain_u, terminals),
            spread(load, nodes),
        )


@dataclass(frozen=True)
class Alarm:
    """A change that the readings speak for.

    ``step`` counts programmed steps, ``since`` is the last one before the change. ``kind`` says what changed, with
    the number of its ``edge``, ``node`` or terminal's node, or neither for all pots together. ``change`` is
    relative, of the edge's conductance as it was then programmed or of a gain, or in volts or amperes for an offset
    (``unit``); ``change_u`` its standard uncertainty. ``others``: what else fits nearly as well; ``sentence``: it all.
    """

    step: int
    since: int
    kind: Kind
    edge: int | None
    node: int | None
    change: float
    change_u: float
    unit: Literal["", "V", "A"]
    others: tuple[str, ...]
    sentence: str

    def as_json(self) -> dict[str, object]:
        """Return the alarm as JSON values; a change without a size has null."""
        values = asdict(self) | {"others": list(self.others)}
        return values | {key: None for key in ("change", "change_u") if math.isnan(getattr(self, key))}


@dataclass(frozen=True)
class WatchedStep:
    """What the watch saw in one step: ``chi_square`` of the readings against the model, ``freedom``, new alarms."""

    step: int
    chi_square: float
    freedom: float
    alarms: tuple[Alarm, ...]


@dataclass
class _Noise:
    """Learns by how much the reading noise differs from what was said, from the same drives in consecutive steps."""

    stated: FloatArray
    is_current: BoolArray
    recent: tuple[deque[float], deque[float]] = field(
        default_factory=lambda: (deque(maxlen=NOISE_STEPS), deque(maxlen=NOISE_STEPS))
    )

    @property
    def sigma(self) -> FloatArray:
        """Standard deviations in force: never below the stated ones, for those are also what a resolution allows."""
        factors = [math.sqrt(max(1.0, float(np.median(seen)) if seen else 1.0)) for seen in self.recent]
        return self.stated * np.where(self.is_current, factors[1], factors[0])

    def see(self, channels: IntArray, differences: FloatArray, left: FloatArray) -> None:
        """Take differences (S, R) between two steps' residuals, of which the parts ``left`` (R,) of noise remain."""
        for group, wanted in enumerate((False, True)):
            own = self.is_current[channels] == wanted
            freedom = len(differences) * float(left[own].sum())
            if freedom > 0.5:
                squares = float(((differences[:, own] / self.stated[channels[own]]) ** 2).sum()) / 2
                # The median of chi-square, by Wilson and Hilferty (PNAS 17, 1931).
                self.recent[group].append(squares / (freedom * (1 - 2 / (9 * freedom)) ** 3))


class DriftWatch:
    """Estimates drift from the readings that training takes anyway, and names what left its uncertainty.

    The state is the relative error of the fixed part and of the track of every edge's resistance, and what is left of
    offset and gain of every meter. Readings are linear in it (``linearised_readings``). The volts actually driven are
    fitted in every sample, so that lead resistances and source offsets do not matter. ``ChangeEvidence`` decides.
    """

    def __init__(self, network: Network, reference: WatchReference, settings: WatchSettings | None = None) -> None:
        self.network, self.reference, self.settings = network, reference, settings or WatchSettings()
        self.alarms: list[Alarm] = []
        edges, nodes, terminals = network.n_edges, network.n_nodes, len(network.terminals)
        self._noise = _Noise(
            np.concatenate([reference.meter_noise, reference.current_noise]),
            np.arange(nodes + terminals) >= nodes,
        )
        self._sizes = (edges, edges, nodes, nodes, terminals, terminals)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._directions = self._all_directions()
        self._prior = self._first_prior()
        self._evidence = self._new_evidence()
        self._fixed_shift, self._track_shift = np.zeros(edges), np.zeros(edges)
        self._offset, self._gain = np.zeros(nodes), np.ones(nodes)
        self._current_offset, self._current_gain = np.zeros(terminals), np.ones(terminals)
        self._unwatched: set[int] = set()
        self._latest = reference.highest
        self._followed: dict[tuple[int, int], tuple[float, int]] = {}
        self._state = np.zeros(int(self._starts[-1]))
        self.ended = False
        self._last: dict[bytes, tuple[IntArray, FloatArray]] = {}
        self._now: dict[bytes, tuple[IntArray, FloatArray]] = {}
        self._clear_step()

    def observe(self, conductances: FloatArray, drives: FloatArray, response: Response) -> None:
        """Take the readings of drives (S, T) at programmed conductances (M,) in siemens, as best known."""
        self._latest = conductances
        usable = ~response.in_compliance.any(axis=1) & ~np.isnan(drives).all(axis=1)
        volts = np.where(np.abs(response.potentials) < OVERFLOW, response.potentials, np.nan)
        amperes = np.where(np.abs(response.currents) < OVERFLOW, response.currents, np.nan)
        readings = np.hstack(
            [(volts - self._offset) / self._gain, (amperes - self._current_offset) / self._current_gain]
        )
        driven = ~np.isnan(drives)
        patterns = np.hstack([driven, np.isfinite(readings)])
        for pattern in np.unique(patterns[usable], axis=0):
            rows = np.flatnonzero(usable & (patterns == pattern).all(axis=1))
            terminals = driven.shape[1]
            held, read = pattern[:terminals], pattern[terminals:]
            model = linearised_readings(
                self.network,
                self.corrected(conductances),
                held,
                read[: self.network.n_nodes],
                read[self.network.n_nodes :],
                self.reference.load,
            )
            self._take(model, readings[rows], pattern.tobytes())

    def advance(self) -> WatchedStep:
        """End a step: test, and return what was seen; call it after each update of the conductances."""
        step = self._evidence.step + 1
        freedom, state = self._freedom, self._state
        chi_square = self._chi_square - 2 * state @ self._score + state @ self._information @ state
        self._evidence.add(self._information, self._score, self._chi_square, freedom)
        self._last, self._now = self._now, {}
        self._clear_step()
        found: tuple[Alarm, ...] = ()
        if step >= self.settings.settle and step % self.settings.every == 0 and not self.ended:
            found = self._test(step)
            self.alarms.extend(found)
            self._state = self._evidence.estimate()[0]
        return WatchedStep(step, float(chi_square), freedom, found)

    def corrected(self, conductances: FloatArray) -> FloatArray:
        """Return conductances (M,), or a table (M, K), in siemens with the alarmed edges as now estimated."""
        shape = (-1, 1) if conductances.ndim == 2 else (-1,)
        fixed = (1.0 / self.reference.highest).reshape(shape)
        track = 1.0 / conductances - fixed
        shifts = (np.exp(self._fixed_shift).reshape(shape), np.exp(self._track_shift).reshape(shape))
        corrected: FloatArray = 1.0 / (fixed * shifts[0] + track * shifts[1])
        # Untouched edges keep every bit.
        same = ((self._fixed_shift == 0) & (self._track_shift == 0)).reshape(shape)
        return np.where(same, conductances, corrected)

    def updated_range(self, device_range: DeviceRange) -> DeviceRange:
        """Return a device range whose table has the alarmed edges as now estimated.

        Raises InputError where the range has no table.
        """
        if device_range.table is None:
            raise InputError("only a table of conductances can be updated: give the board pots")
        edges, codes = self.network.n_edges, device_range.table.shape[-1]
        return DeviceRange.from_table(self.corrected(np.array(np.broadcast_to(device_range.table, (edges, codes)))))

    def drift(self) -> tuple[FloatArray, FloatArray]:
        """Return the relative drift (M,) of the conductances last programmed and its standard uncertainty (M,).

        It is counted from the reference, alarms included, and weighs the reference's own uncertainty against
        the readings.
        """
        state, covariance = self._evidence.estimate()
        edges = self.network.n_edges
        share = self._fixed_share(self._latest)
        weights = np.hstack([-np.diag(share), -np.diag(1 - share)])
        drift = weights @ state[: 2 * edges]
        uncertainty = np.sqrt(np.einsum("ep,pq,eq->e", weights, covariance[: 2 * edges, : 2 * edges], weights))
        return self.corrected(self._latest) / self._latest * (1 + drift) - 1, uncertainty

    def _take(self, model: LinearisedReadings, readings: FloatArray, pattern: bytes) -> None:
        """Add the readings (S, N + T) of one pattern to this step."""
        nodes, terminals = self.network.n_nodes, len(self.network.terminals)
        channels = np.concatenate([model.nodes, nodes + model.terminals])
        y = readings[:, channels]
        weight = 1.0 / self._noise.sigma[channels] ** 2
        # An edge that is watched no more may carry any current: the fit takes it, sample by sample.
        given_up = sorted(self._unwatched)
        design = np.hstack([model.design, model.injection[:, given_up] * 1e-3])
        normal = design.T * weight
        fit = np.linalg.pinv(normal @ design, rcond=1e-12, hermitian=True) @ normal
        u, fitted = (y @ fit.T)[:, : model.design.shape[1]], y @ fit.T @ design.T
        residual = y - fitted
        left = 1.0 - np.diagonal(design @ fit)
        self._see_noise(pattern, channels, residual, left)
        projector = np.diag(weight) - normal.T @ fit
        self._chi_square += float((residual**2 * weight).sum())
        self._freedom += len(y) * float(left.sum())
        # Each column of the sensitivity is a fixed vector times a number per sample, so the sum over samples is
        # an entrywise product.
        v = u @ model.edge_voltages.T
        share = self._fixed_share(self._latest)
        flow = v * self.corrected(self._latest)
        read_nodes = np.zeros((len(channels), nodes))
        read_nodes[np.arange(len(model.nodes)), model.nodes] = 1.0
        read_currents = np.zeros((len(channels), terminals))
        read_currents[len(model.nodes) + np.arange(len(model.terminals)), model.terminals] = 1.0
        shape = np.hstack([model.injection, model.injection, read_nodes, read_nodes, read_currents, read_currents])
        amount = np.hstack(
            [
                -share * flow,
                -(1 - share) * flow,
                np.ones((len(y), nodes)),
                fitted @ read_nodes,
                np.ones((len(y), terminals)),
                fitted @ read_currents,
            ]
        )
        self._information += (shape.T @ projector @ shape) * (amount.T @ amount)
        self._score += (amount * (y @ projector @ shape)).sum(axis=0)

    def _see_noise(self, pattern: bytes, channels: IntArray, residual: FloatArray, left: FloatArray) -> None:
        before = self._last.get(pattern)
        if before is not None and before[1].shape == residual.shape and pattern not in self._now:
            self._noise.see(channels, residual - before[1], np.clip(left, 0.0, 1.0))
        self._now.setdefault(pattern, (channels, residual))

    def _fixed_share(self, conductances: FloatArray) -> FloatArray:
        return np.clip(conductances / self.reference.highest, 0.0, 1.0)

    def _clear_step(self) -> None:
        size = int(self._starts[-1])
        self._information, self._score = np.zeros((size, size)), np.zeros(size)
        self._chi_square, self._freedom = 0.0, 0.0

    def _block(self, number: int) -> slice:
        return slice(int(self._starts[number]), int(self._starts[number + 1]))

    def _all_directions(self) -> FloatArray:
        """Return directions (P, C): each pot, each contact, each meter's offset and gain, each ammeter's, all pots."""
        eye = np.eye(int(self._starts[-1]))
        fixed, track = eye[:, self._block(0)], eye[:, self._block(1)]
        tracks, fixeds = track.sum(axis=1, keepdims=True), fixed.sum(axis=1, keepdims=True)
        return np.hstack([fixed + track, fixed, eye[:, int(self._starts[2]) :], tracks, tracks + fixeds])

    def _first_prior(self) -> FloatArray:
        reference = self.reference
        prior = np.zeros((int(self._starts[-1]),) * 2)
        edges, meters = slice(0, int(self._starts[2])), slice(int(self._starts[2]), int(self._starts[4]))
        prior[edges, edges], prior[meters, meters] = reference.covariance, reference.meter_covariance
        places = np.arange(int(self._starts[4]), len(prior))
        rest = np.concatenate([reference.current_offset_u, reference.current_gain_u])
        prior[places, places] = np.maximum(rest, 1e-12) ** 2
        return prior

    def _new_evidence(self) -> ChangeEvidence:
        settings, sizes = self.settings, self._sizes
        span = 4.0
        expected = np.concatenate(
            [
                np.full(sizes[0] + sizes[1], span * settings.smallest_change),
                np.full(sizes[2], span * settings.smallest_offset),
                np.full(sizes[3], span * settings.smallest_change),
                span * settings.smallest_offset * self.reference.current_noise / self.reference.meter_noise.mean(),
                np.full(sizes[5], span * settings.smallest_change),
                np.full(2, span * settings.smallest_change),
            ]
        )
        return ChangeEvidence(
            self._prior,
            self._directions,
            expected,
            alpha=settings.false_alarms,
            memory=settings.memory,
        )

    def _test(self, step: int) -> tuple[Alarm, ...]:
        changes = self._evidence.changes()
        if not changes or changes[0].weight < 0:
            return ()
        first = changes[0]
        name = self._name(first)
        # What is certain but too small to tell is followed without an alarm; small changes add up to one.
        followed, since = self._followed.pop(self._quantity(first), (0.0, first.since))
        effect, effect_u = self._effect(first)
        since = since if abs(followed) > abs(effect) else first.since
        if not self._is_large(first, followed + effect):
            self._followed[self._quantity(first)] = (followed + effect, since)
            self._accept(first)
            return ()
        if self._several(first):
            self.ended = True
            return (self._wiring_alarm(step, first),)
        rivals = [
            rival
            for change in changes[1:]
            if change.weight > first.weight - math.log(100.0) and (rival := self._name(change)) != name
        ]
        alarm = self._alarm(step, since, first, followed + effect, effect_u, tuple(dict.fromkeys(rivals)))
        self._accept(first)
        return (alarm,)

    def _quantity(self, change: Change) -> tuple[int, int]:
        """Return what changes that add up have in common: the conductance of an edge, an offset, a gain."""
        group, place = self._group(change)
        return {1: 0, 7: 6}.get(group, group), place

    def _group(self, change: Change) -> tuple[int, int]:
        """Return a direction's group (0 pots, 1 contacts, 2, 3 meters, 4, 5 ammeters, 6, 7 all pots) and place."""
        ends = np.cumsum(self._sizes)
        group = int(np.searchsorted(ends, change.direction, side="right"))
        place = change.direction - (int(ends[group - 1]) if group else 0)
        return (group + place, 0) if group == 6 else (group, place)

    def _name(self, change: Change) -> str:
        group, place = self._group(change)
        if group in (0, 1):
            first, second = (self.network.name(int(node)) for node in self.network.edges[place])
            return f"edge {place} between {first} and {second}"
        if group in (2, 3):
            return f"the meter at {self.network.name(place)}"
        if group in (4, 5):
            return f"the ammeter at {self.network.name(int(self.network.terminals[place]))}"
        return "all pots together"

    def _effect(self, change: Change) -> tuple[float, float]:
        """Return what an alarm calls the change, and its standard uncertainty; see ``Alarm``."""
        group, place = self._group(change)
        part = 1.0
        if group > 1:
            return change.size * (-1.0 if group >= 6 else 1.0), change.size_u
        if group == 1:
            part = float(self._fixed_share(self._latest)[place])
        return math.expm1(-float(np.clip(change.size * part, -LARGEST_SHIFT, LARGEST_SHIFT))), change.size_u * part

    def _is_large(self, change: Change, effect: float) -> bool:
        group, place = self._group(change)
        size = abs(effect)
        if group == 2:
            return size >= self.settings.smallest_offset
        if group == 4:
            reference = self.reference
            return size >= self.settings.smallest_offset * float(
                reference.current_noise[place] / reference.meter_noise.mean()
            )
        return size >= self.settings.smallest_change

    def _alarm(
        self, step: int, since: int, change: Change, size: float, size_u: float, others: tuple[str, ...]
    ) -> Alarm:
        group, place = self._group(change)
        kinds: tuple[Kind, ...] = (
            "pot",
            "contact",
            "meter",
            "meter",
            "ammeter",
            "ammeter",
            "temperature",
            "temperature",
        )
        node = None
        if group in (2, 3):
            node = place
        elif group in (4, 5):
            node = int(self.network.terminals[place])
        unit: Literal["", "V", "A"] = "V" if group == 2 else "A" if group == 4 else ""
        amount = f"{size:+.3g} ± {size_u:.2g} {unit}" if unit else f"{100 * size:+.2f} ± {100 * size_u:.2f} %"
        if not unit and abs(size) > LARGE:
            amount = f"about {100 * size:+.0f} %"
        quantity = ("offset" if unit else "gain") if 1 < group < 6 else "conductance"
        what = f"changed {'their' if group >= 6 else 'its'} {quantity} by {amount}"
        if group in (3, 5) and abs(size) > DEAD:
            what = "no longer follows what it should read"
        elif 0 <= group < 6 and self._alarms_of(self.alarms, group, place) + 1 >= MOST_ALARMS:
            what += ", the last of several changes: it does not follow its calibration and is watched no more,"
        remedies = {
            "pot": "check its pot and its wiring, then calibrate again",
            "contact": "check its contacts and its wiring, then calibrate again",
            "meter": "check its channel and its wiring, then calibrate again",
            "ammeter": "check its source and its wiring, then calibrate again",
            "temperature": "let the board come to a steady temperature, or calibrate again",
        }
        sentence = f"step {step}: {self._name(change)} {what} after step {since}: {remedies[kinds[group]]}"
        if others:
            sentence += f" (the readings fit {', '.join(others)} nearly as well)"
        return Alarm(
            step,
            since,
            kinds[group],
            place if group < 2 else None,
            node,
            size,
            size_u,
            unit,
            others,
            sentence,
        )

    def _alarms_of(self, alarms: list[Alarm], group: int, place: int) -> int:
        """Return how many alarms there were of the same edge, meter or ammeter."""
        if group < 2:
            return sum(alarm.edge == place for alarm in alarms)
        node = place if group < 4 else int(self.network.terminals[place])
        kind = "meter" if group < 4 else "ammeter"
        return sum(alarm.kind == kind and alarm.node == node for alarm in alarms)

    def _several(self, change: Change) -> bool:
        """Return whether the best single change leaves most of the misfit unexplained."""
        chi_square, freedom = self._evidence.misfit(change)
        explained = (change.size / change.size_u) ** 2
        return chi_square - freedom > max(explained, UNEXPLAINED_SIGMAS * math.sqrt(2.0 * freedom), freedom)

    def _wiring_alarm(self, step: int, change: Change) -> Alarm:
        sentence = (
            f"step {step}: the readings no longer fit the calibrated board in more than one place, "
            f"{self._name(change)} most of all, after step {change.since}: check the wiring, then "
            "calibrate again; the watch has ended"
        )
        return Alarm(step, change.since, "wiring", None, None, math.nan, math.nan, "", (self._name(change),), sentence)

    def _accept(self, change: Change) -> None:
        """Take an alarmed change for given, with a wide uncertainty, and go on watching from there."""
        group, place = self._group(change)
        shift = float(np.clip(change.size, -LARGEST_SHIFT, LARGEST_SHIFT))
        if group in (0, 1):
            self._fixed_shift[place] += shift
        if group == 0:
            self._track_shift[place] += shift
        elif group >= 6:
            self._track_shift += shift
            self._fixed_shift += shift * (group - 6)
        elif group == 2:
            self._offset[place] += change.size
        elif group == 4:
            self._current_offset[place] += change.size
        elif group in (3, 5):
            gain = self._gain if group == 3 else self._current_gain
            gain[place] *= 1.0 + change.size
            if abs(change.size) > DEAD or self._alarms_of(self.alarms, group, place) + 1 >= MOST_ALARMS:
                gain[place] = np.nan  # its readings count no more
        if group < 2:
            large = abs(self._effect(change)[0]) > LARGE
            if large or self._alarms_of(self.alarms, group, place) + 1 >= MOST_ALARMS:
                self._unwatched.add(place)
        direction = self._directions[:, change.direction]
        width = max(abs(change.size) / 2, change.size_u)
        self._prior = self._prior + width**2 * np.outer(direction, direction)
        self._evidence.restart(self._prior)
        self._last.clear()


class WatchedBoard(BoardAround):
    """A board whose every reading a ``DriftWatch`` sees too; it implements ``hilcl.board.Board``.

    Training on it is training on the board. With ``settings.update`` the table follows what the watch found, and so
    do ``device_range``, ``program`` and ``conductances``. ``steps`` are the latest steps seen. The snapshot does not
    hold what the watch has learnt: a resumed run learns it anew.
    """

    def __init__(self, board: Board, watch: DriftWatch) -> None:
        super().__init__(board)
        self.watch = watch
        self.steps: deque[WatchedStep] = deque(maxlen=1000)
        self._range, self._known = board.device_range, 0
        self._observed = False

    @property
    def device_range(self) -> DeviceRange:
        """Limits and codes of every edge, updated where the watch is to do so."""
        if self.watch.settings.update and len(self.watch.alarms) != self._known:
            self._known = len(self.watch.alarms)
            self._range = self.watch.updated_range(self.board.device_range)
        return self._range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens, as best known."""
        if self.watch.settings.update:
            return frozen(self.watch.corrected(self.board.conductances))
        return self.board.conductances

    def program(self, conductances: FloatArray) -> FloatArray:
        """Project, write, and end the watched step; returns the realised conductances (M,) as best known."""
        present, nominal = self.device_range, self.board.device_range
        if present is nominal or nominal.table is None:
            self.board.program(conductances)
        else:
            codes = present.project(np.asarray(conductances)).codes
            table = np.broadcast_to(nominal.table, (self.network.n_edges, nominal.table.shape[-1]))
            self.board.program(table[np.arange(self.network.n_edges), codes])
        if self._observed:
            self._observed = False
            self.steps.append(self.watch.advance())
        return self.conductances

    def respond(self, drives: FloatArray) -> Response:
        """Drive, read, and show the watch what came."""
        response = self.board.respond(drives)
        self.watch.observe(self.board.conductances, np.atleast_2d(drives), response)
        self._observed = True
        return response

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure both phases of every sample, from readings that the watch sees."""
        return contrast_from_responses(self, inputs, targets, nudge)
