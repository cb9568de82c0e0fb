"""Preflight: find what is wrong with a board's wiring, pots and meters at a low voltage, before anything is trained.

A terminal at a time is driven and a pot at a time is moved. What is read is compared with the network's own equations,
with pots of 30 % tolerance fitted to the readings; where they do not agree, the fault that explains most is looked
for, until nothing is left to explain.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.board import Board, Response
from hilcl.errors import HilclError, InputError
from hilcl.preflight_model import BoardModel, Fit, Readings, Wires
from hilcl.preflight_search import Explanation, Freedom, explain, pot_losses_now, squared_distances
from hilcl.preflight_wording import ROOM, Names, Wording, either, fitted

__all__ = ["Names", "Preflight", "Remark"]

MODEL_ERROR = 0.01
"""Standard deviation of what the model leaves out (meter gain, series and input resistances), relative."""

STEP = 4.0
"""Factor by which each pot's conductance is moved, where its range allows it."""

SEEN = 36.0
"""Squared standard deviations by which two states must differ to count as told apart."""

SIGNAL = 900.0
"""Squared standard deviations a pot's rows should add up to; more rows are read until they do."""

ROWS_PER_POT = 4

OVER_RANGE = 1e6
"""Volts beyond which a reading is an instrument's way to say "over range"."""

ZERO_ROWS = 3


@dataclass(frozen=True)
class Remark:
    """One sentence: what was "done", a "fault" with its remedy, or what was left "unchecked" or undecided."""

    kind: Literal["done", "fault", "unchecked"]
    sentence: str


class Preflight:
    """Checks a board at ``volts``; iterate over ``run()`` and print each remark as it comes.

    ``names`` says how the wiring is called. ``grounded`` lists terminal nodes that are wired to 0 V for good: they are
    never driven with anything else. No drive exceeds ``volts``, no pot leaves its device range, and at the end the
    pots are at the conductances they had and every terminal is at 0 V.

    Raises InputError where ``volts`` is not positive or a grounded node is no terminal.
    """

    def __init__(self, board: Board, volts: float, names: Names | None = None, *, grounded: Sequence[int] = ()) -> None:
        if not (np.isfinite(volts) and volts > 0):
            raise InputError(f"a preflight needs a positive test voltage, got {volts} V")
        network = board.network
        for node in grounded:
            if node not in network.terminals:
                raise InputError(f"{network.name(node)} cannot be grounded: it is neither input nor output")
        self._board, self._network, self._volts = board, network, float(volts)
        self._wording, self._names = Wording(network, names), names
        self._free = [t for t, node in enumerate(network.terminals.tolist()) if node not in set(grounded)]
        self._range = board.device_range.for_edges(network.n_edges)
        self._row_seconds: list[float] = []
        self._program_seconds: list[float] = []
        self.faults: list[str] = []

    @property
    def passed(self) -> bool:
        """True where no fault was found (so far)."""
        return not self.faults

    def step_seconds(self, samples: int) -> float:
        """Return how long a training step of two phases of ``samples`` should take, from the times just measured."""
        if not self._row_seconds:
            return float("nan")
        return float(np.median(self._program_seconds)) + 2 * samples * float(np.median(self._row_seconds))

    def run(self) -> Iterator[Remark]:
        """Measure and yield remarks: what was done, faults, and what could not be decided.

        Raises what the board raises; it has been made safe then, and its pots put back where they still could be.
        """
        start = self._board.conductances.copy()
        try:
            for remark in self._checks():
                if remark.kind == "fault":
                    self.faults.append(remark.sentence)
                yield remark
        except GeneratorExit:
            self._leave(start)
            raise
        except BaseException as error:
            self._give_up(start, error)
            raise
        self._leave(start)

    def _give_up(self, start: FloatArray, error: BaseException) -> None:
        """Make the board safe, then try to give the pots back what they had; what fails here is noted on the error."""
        for attempt in (self._board.make_safe, lambda: self._board.program(start)):
            try:
                attempt()
            except HilclError as failure:
                error.add_note(f"after that: {failure}")

    def _leave(self, start: FloatArray) -> None:
        self._board.respond(np.zeros((1, len(self._network.terminals))))
        self._board.program(start)

    def _checks(self) -> Iterator[Remark]:
        base, moved = self._settings()
        unit = float(np.exp(np.log(base).mean()))
        model = BoardModel(self._network, base / unit, moved / unit, unit)
        self._program(base)
        drives = self._base_drives()
        # Offsets drive currents of their own, others where outputs float.
        quiet = self._respond(np.zeros((ZERO_ROWS, len(self._network.terminals))))
        floating = np.isnan(drives).any(axis=1)
        drifting = quiet
        if floating.any():
            drifting = self._respond(np.repeat(0.0 * drives[floating][:1], ZERO_ROWS, axis=0))
        answer = self._respond(drives)
        yield Remark("done", f"{len(self._free)} terminals driven at {self._volts:g} V, one at a time")
        shorts = list(self._in_compliance(quiet, answer, drives))
        if shorts:
            yield from (Remark("fault", sentence) for sentence in shorts)
            yield Remark("unchecked", "meters and pots were not checked: clear the shorts first, then check again")
            return
        yield from self._missing(quiet, answer)
        zero = _zero_of(quiet, drifting)
        sigma = self._sigma(model, drives, quiet, unit)
        still = np.full(len(drives), -1)
        readings = self._readings(drives, still, answer, zero, sigma, unit)
        moving = np.flatnonzero(moved > 1.05 * base).tolist()
        for edge in sorted(set(range(self._network.n_edges)) - set(moving)):
            yield Remark("unchecked", f"{self._wording.pot(edge)} has too small a range to be seen to move")
        chosen = self._rows_of_pots(model, readings, moving)
        tested = readings
        for pot in moving:
            tested = tested.joined(self._moved(pot, drives[chosen[pot]], base, moved, zero, sigma, unit))
        yield Remark("done", f"{len(moving)} pots moved, one at a time")
        freedom = self._freedom(readings)
        found = self._explained(model, tested, freedom)
        doubtful = [pot for pot in self._doubtful(model, tested, found.fit) if pot in chosen]
        if doubtful:
            # A pot that does something else may do it where its own rows do not show it.
            for pot in doubtful:
                rest = np.setdiff1d(np.arange(len(drives)), chosen[pot])
                if len(rest):
                    tested = tested.joined(self._moved(pot, drives[rest], base, moved, zero, sigma, unit))
            yield Remark("done", f"{len(doubtful)} pots moved again under every drive")
            found = self._explained(model, tested, freedom)
        yield from self._faults(model, found, zero[0][0])
        yield from self._offsets(zero[0][0], found.fit.wires)
        yield from self._unexplained(model, tested, found.fit)
        yield from self._undecided(model, tested, found, freedom, moving)

    def _explained(self, model: BoardModel, readings: Readings, freedom: Freedom) -> Explanation:
        # Many small products: more threads only wait for one another.
        with threadpool_limits(limits=1):
            return explain(model, readings, freedom, Wires.stated(self._network))

    def _settings(self) -> tuple[FloatArray, FloatArray]:
        """Return realisable conductances (M,) in siemens at rest and moved."""
        low, high = self._range.g_min, self._range.g_max
        now = self._board.conductances
        bounded = np.isfinite(high) & (high < 1e6 * low)
        with np.errstate(invalid="ignore", over="ignore"):
            step = np.where(bounded, np.minimum(STEP, high / low), STEP)
            middle = np.where(bounded, np.sqrt(low * high), now * np.sqrt(STEP))
        base, moved = middle / np.sqrt(step), middle * np.sqrt(step)
        return self._range.project(base).conductances, self._range.project(moved).conductances

    def _base_drives(self) -> FloatArray:
        """Return drives (K, T) in test volts: each terminal alone, others at 0, then each input, outputs floating."""
        n_terminals, n_inputs = len(self._network.terminals), len(self._network.inputs)
        alone = np.eye(n_terminals)[self._free]
        floats = np.setdiff1d(np.arange(n_inputs, n_terminals), np.setdiff1d(np.arange(n_terminals), self._free))
        if not len(floats):
            return alone
        free_phase = np.eye(n_terminals)[[t for t in self._free if t < n_inputs]]
        free_phase[:, floats] = np.nan
        return np.concatenate([alone, free_phase])

    def _respond(self, drives: FloatArray) -> Response:
        begin = time.monotonic()
        answer = self._board.respond(self._volts * drives)
        self._row_seconds.append((time.monotonic() - begin) / len(drives))
        return answer

    def _program(self, conductances: FloatArray) -> None:
        begin = time.monotonic()
        self._board.program(conductances)
        self._program_seconds.append(time.monotonic() - begin)

    def _moved(
        self,
        pot: int,
        drives: FloatArray,
        base: FloatArray,
        moved: FloatArray,
        zero: tuple[FloatArray, FloatArray],
        sigma: FloatArray,
        unit: float,
    ) -> Readings:
        setting = base.copy()
        setting[pot] = moved[pot]
        self._program(setting)
        return self._readings(drives, np.full(len(drives), pot), self._respond(drives), zero, sigma, unit)

    def _readings(
        self,
        drives: FloatArray,
        pot: IntArray,
        answer: Response,
        zero: tuple[FloatArray, FloatArray],
        sigma: FloatArray,
        unit: float,
    ) -> Readings:
        potentials = np.where(_valid(answer.potentials), answer.potentials, np.nan)
        pattern = np.isnan(drives).any(axis=1).astype(int)
        volts = (potentials - zero[0][pattern]) / self._volts
        amperes = (answer.currents - zero[1][pattern]) / (self._volts * unit)
        amperes = np.where(np.isnan(drives), np.nan, amperes)
        values = np.hstack([volts, amperes])
        limited: BoolArray = np.logical_or.reduce(answer.in_compliance, axis=1)
        usable = np.isfinite(values) & ~limited[:, None]
        # A source that reads itself reads what it was told to drive, whatever is at the node.
        alone = [t for t, node in enumerate(self._network.terminals.tolist()) if self._reads_itself(node)]
        usable[:, self._network.terminals[alone]] &= np.isnan(drives[:, alone])
        values = np.where(usable, values, 0.0)
        # A current far above the usual, through a short, is no more exact than the others.
        return Readings(drives, pot, values, usable, np.hypot(sigma, MODEL_ERROR * values))

    def _sigma(self, model: BoardModel, drives: FloatArray, quiet: Response, unit: float) -> FloatArray:
        """Return the standard deviations (N + T,) of readings in the model's units."""
        wires = Wires.stated(self._network)
        blank = np.zeros((len(drives), self._network.n_nodes + len(self._network.terminals)))
        rows = Readings(drives, np.full(len(drives), -1), blank, blank > 0, blank)
        n_nodes = self._network.n_nodes
        largest = np.abs(model.predict(rows, wires, model.nominal())[:, n_nodes:]).max(axis=0)
        noise_volts = _scatter(quiet.potentials) / self._volts
        stated = np.where(np.isfinite(quiet.potentials_u), quiet.potentials_u, 0.0).max(axis=0) / self._volts
        noise_volts = np.maximum(noise_volts, np.minimum(stated, MODEL_ERROR))
        noise_amperes = _scatter(quiet.currents) / (self._volts * unit)
        sigma: FloatArray = np.hypot(
            np.concatenate([np.full(n_nodes, MODEL_ERROR), MODEL_ERROR * np.maximum(largest, 1e-6)]),
            np.sqrt(2.0) * np.concatenate([noise_volts, noise_amperes]),
        )
        return sigma

    def _rows_of_pots(self, model: BoardModel, readings: Readings, pots: Sequence[int]) -> dict[int, IntArray]:
        """Return for each pot the drives under which its move should show best."""
        wires = Wires.stated(self._network)
        values = model.nominal()
        still = model.predict(readings, wires, values)
        chosen: dict[int, IntArray] = {}
        for pot in pots:
            moved = model.predict(replace(readings, pot=np.full(len(readings.pot), pot)), wires, values)
            shows = (np.where(readings.usable, (moved - still) / readings.sigma, 0.0) ** 2).sum(axis=1)
            order = np.argsort(-shows, kind="stable")
            enough = int(np.searchsorted(np.cumsum(shows[order]), SIGNAL)) + 1
            chosen[pot] = np.sort(order[: min(max(enough, 2), ROWS_PER_POT)])
        return chosen

    def _freedom(self, readings: Readings) -> Freedom:
        n_nodes = self._network.n_nodes
        metered = tuple(np.flatnonzero(readings.usable[:, :n_nodes].any(axis=0)).tolist())
        names = self._names
        own = tuple(None if names is None else self._reads_itself(node) for node in self._network.terminals.tolist())
        return Freedom(tuple(self._free), own, metered)

    def _reads_itself(self, node: int) -> bool:
        return self._names is not None and node not in self._names.meters

    def _doubtful(self, model: BoardModel, readings: Readings, fit: Fit) -> list[int]:
        wires = fit.wires
        strange = wires.loose | (wires.pot_edge != np.arange(len(wires.loose)))
        left = pot_losses_now(model, readings, wires, fit.values)
        return np.flatnonzero(strange | (left > 0.5 * SEEN)).tolist()

    def _in_compliance(self, quiet: Response, answer: Response, drives: FloatArray) -> Iterator[str]:
        """Yield a sentence for each source at its limit."""
        nodes = self._network.terminals.tolist()
        words = self._wording
        for terminal in np.flatnonzero(quiet.in_compliance.any(axis=0)).tolist():
            yield (
                f"{words.source(nodes[terminal])} reaches its current limit at {words.node(nodes[terminal])} with "
                "every terminal at 0 V: something else drives that node; check its wire"
            )
        alone = answer.in_compliance[: len(self._free)][:, self._free]
        told: set[int] = set()
        for first, second in combinations(range(len(self._free)), 2):
            if alone[first, second] and alone[second, first]:
                told |= {first, second}
                a, b = nodes[self._free[first]], nodes[self._free[second]]
                yield (
                    f"{words.source(a)} and {words.source(b)} drive against each other up to the current limit: "
                    f"{words.node(a)} and {words.node(b)} are joined by a short or both wires end at one node; "
                    "part them"
                )
        limited: BoolArray = np.logical_or.reduce(answer.in_compliance, axis=0)
        for index, terminal in enumerate(self._free):
            if index in told or not limited[terminal] or quiet.in_compliance[:, terminal].any():
                continue
            node = nodes[terminal]
            if alone[index, index] or np.isfinite(drives[answer.in_compliance[:, terminal], terminal]).any():
                yield (
                    f"{words.source(node)} reaches its current limit at {self._volts:g} V at {words.node(node)}: "
                    "look for a short to 0 V at that node, or raise its compliance"
                )
            else:
                yield (
                    f"{words.source(node)} reaches its limit while {words.node(node)} should float: "
                    "its wire is open or its way of floating is wrong; check both"
                )
        for terminal in np.flatnonzero(limited).tolist():
            if terminal not in self._free:
                yield f"the ground of {words.node(nodes[terminal])} carries too much current: look for a short"

    def _missing(self, quiet: Response, answer: Response) -> Iterator[Remark]:
        """Yield remarks on readings that are absent or beyond range."""
        network, words = self._network, self._wording
        potentials = np.concatenate([quiet.potentials, answer.potentials])
        valid = _valid(potentials)
        for node in range(network.n_nodes):
            if valid[:, node].all():
                continue
            touching = list(map(str, np.flatnonzero((network.edges == node).any(axis=1)).tolist()))
            if np.isnan(potentials[:, node]).all():
                known = self._names is not None and node in self._names.meters
                what = f"{words.meter(node)} gives no reading at" if known else "no meter reads"
                frame = f"{what} {words.node(node)}: edges {{}} cannot be trained without; give it a working meter"
                shown, left = fitted(touching, ROOM - len(frame) - len(" and 999 more"))
                yield Remark("fault", frame.format(f"{shown} and {len(left)} more" if left else shown))
            else:
                bad = int((~valid[:, node]).sum())
                yield Remark(
                    "fault",
                    f"{words.meter(node)} is saturated or gives no number at {words.node(node)} in {bad} of "
                    f"{len(valid)} readings: widen its range and check its wire",
                )
        dumb = np.flatnonzero(
            np.isnan(answer.currents).all(axis=0) & np.isin(np.arange(answer.currents.shape[1]), self._free)
        )
        if len(dumb):
            frame = "no current is read at terminals {}: what their sources deliver was not checked"
            shown, left = fitted(list(map(str, network.terminals[dumb].tolist())), ROOM - len(frame) - 13)
            yield Remark("unchecked", frame.format(f"{shown} and {len(left)} more" if left else shown))

    def _faults(self, model: BoardModel, found: Explanation, resting: FloatArray) -> Iterator[Remark]:
        """Yield what all explanations have in common, then in what they differ."""
        low, high = self._range.g_min, self._range.g_max
        bounded = np.isfinite(high) & (high < 1e6 * low)
        base = model.base * model.unit
        limits = np.where(bounded, low, base / 4), np.where(bounded, high, base * 20)
        cases = [self._wording.findings(fit, model, resting, limits) for fit in (found.fit, *found.rivals)]
        common = {each.short for each in cases[0]}.intersection(*({each.short for each in case} for case in cases))
        for finding in cases[0]:
            if finding.short in common:
                yield Remark("fault", finding.sentence)
        apart = [[each for each in case if each.short not in common] for case in cases]
        # An explanation that is part of another one says all there is to say.
        apart = [case for case in apart if case]
        different = list({tuple(each.short for each in case): case for case in apart}.values())
        if len(different) == 1:
            for finding in different[0]:
                yield Remark("fault", finding.sentence)
        elif different:
            first, *more = either(different)
            yield Remark("fault", first)
            yield from (Remark("unchecked", line) for line in more)

    def _offsets(self, resting: FloatArray, wires: Wires) -> Iterator[Remark]:
        for node in np.flatnonzero(np.abs(np.nan_to_num(resting)) > 0.5 * self._volts).tolist():
            if wires.meter_node[node] >= 0 and abs(wires.meter_gain[node]) > 0.02:
                yield Remark(
                    "fault",
                    f"{self._wording.meter(node)} reads {resting[node]:.3g} V at {self._wording.node(node)} with every "
                    "terminal at 0 V: zero it, or look for what drives that node",
                )

    def _unexplained(self, model: BoardModel, readings: Readings, fit: Fit) -> Iterator[Remark]:
        predicted = model.predict(readings, fit.wires, fit.values)
        loss = model.misfit(readings, fit.wires, predicted)[:, : self._network.n_nodes]
        count = np.maximum(readings.usable[:, : self._network.n_nodes].sum(axis=0), 1)
        strange = np.flatnonzero(loss.sum(axis=0) / count > 4.0).tolist()
        if strange:
            frame = "readings at {} do not fit the board, and no fault known here explains them: compare with the file"
            shown, left = fitted([self._wording.node(node) for node in strange], ROOM - len(frame) - 13)
            yield Remark("fault", frame.format(f"{shown} and {len(left)} more" if left else shown))

    def _undecided(
        self, model: BoardModel, readings: Readings, found: Explanation, freedom: Freedom, moving: Sequence[int]
    ) -> Iterator[Remark]:
        fit, words = found.fit, self._wording
        pots = np.array([pot for pot in moving if not fit.wires.loose[pot]], dtype=np.int64)
        # At nominal values: two parallel pots differ by their tolerance, which nothing else can tell.
        far = squared_distances(model, readings, replace(fit, values=model.guess(fit.wires, fit)), pots)
        unseen = pots[far[:, -1] < SEEN].tolist()
        frame, rest = "could not be seen to move: {}; no reading depends on them enough", [*map(words.pot, unseen)]
        while rest:
            shown, rest = fitted(rest, ROOM - len(frame))
            yield Remark("unchecked", frame.format(shown))
        seen = [(row, pot) for row, pot in enumerate(pots.tolist()) if pot not in unseen]
        alike = [
            (a, b)
            for (row, a), (col, b) in combinations(seen, 2)
            if far[row, fit.wires.pot_edge[b]] < SEEN and far[col, fit.wires.pot_edge[a]] < SEEN
        ]
        for group in _groups(alike):
            yield from _alike([words.pot(pot) for pot in group])
        predicted = model.predict(readings, fit.wires, fit.values)
        for group in _groups(self._alike_meters(readings, predicted, freedom)):
            yield from _alike([words.meter(node) for node in group])
        for group in _groups(self._alike_sources(model, readings, fit, predicted, freedom)):
            yield from _alike([words.source(int(self._network.terminals[terminal])) for terminal in group])

    def _alike_meters(self, readings: Readings, predicted: FloatArray, freedom: Freedom) -> list[tuple[int, int]]:
        own = {int(self._network.terminals[t]) for t, alone in enumerate(freedom.own) if alone}
        alike = []
        for a, b in combinations([node for node in freedom.metered if node not in own], 2):
            both = readings.usable[:, a] & readings.usable[:, b]
            apart = (predicted[both, a] - predicted[both, b]) / np.maximum(
                readings.sigma[both, a], readings.sigma[both, b]
            )
            if 2 * float(apart @ apart) < SEEN:
                alike.append((a, b))
        return alike

    def _alike_sources(
        self, model: BoardModel, readings: Readings, fit: Fit, predicted: FloatArray, freedom: Freedom
    ) -> list[tuple[int, int]]:
        alike = []
        terminals = self._network.terminals
        for a, b in combinations(freedom.sources, 2):
            nodes, meters = fit.wires.source_node.copy(), fit.wires.meter_node.copy()
            nodes[[a, b]] = nodes[[b, a]]
            if freedom.own[a] is not False and freedom.own[b] is not False:
                meters[terminals[[a, b]]] = meters[terminals[[b, a]]]
            swapped = replace(fit.wires, source_node=nodes, meter_node=meters)
            apart = (model.predict(readings, swapped, fit.values) - predicted) / readings.sigma
            if float((np.where(readings.usable, apart, 0.0) ** 2).sum()) < SEEN:
                alike.append((a, b))
        return alike


def _alike(names: list[str]) -> Iterator[Remark]:
    """Yield that things could not be told apart, in as many lines as it takes, each joined to the one before."""
    rest, frame = names, "could not be told apart: {}; a swap among them would not show"
    while len(rest) > 1:
        line, left = fitted(rest, ROOM - len(frame))
        yield Remark("unchecked", frame.format(line))
        rest = [rest[-len(left) - 1], *left] if left and len(left) < len(rest) - 1 else left


def _valid(volts: FloatArray) -> BoolArray:
    """Return which readings are numbers within any instrument's range."""
    return np.isfinite(volts) & (np.abs(np.nan_to_num(volts)) < OVER_RANGE)


def _zero_of(held: Response, floating: Response) -> tuple[FloatArray, FloatArray]:
    """Return volts (2, N) and amperes (2, T) at 0 V: with every terminal held, and with the outputs floating."""
    both = held, floating
    volts = [_mean(np.where(_valid(each.potentials), each.potentials, np.nan)) for each in both]
    return np.array(volts), np.array([_mean(each.currents) for each in both])


def _mean(rows: FloatArray) -> FloatArray:
    """Return the mean of the finite entries of each column, NaN where there are none."""
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    total = np.where(finite, rows, 0.0).sum(axis=0)
    mean: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _scatter(rows: FloatArray) -> FloatArray:
    """Return the standard deviation of repeated readings, pooled over the channels, for each channel."""
    apart = rows - _mean(rows)
    finite = np.isfinite(apart)
    freedom = max(1, int(finite.sum()) - int(finite.any(axis=0).sum()))
    pooled = np.sqrt((np.where(finite, apart, 0.0) ** 2).sum() / freedom)
    return np.full(rows.shape[1], float(pooled))


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the groups that pairs join, each ascending."""
    groups: list[set[int]] = []
    for first, second in pairs:
        joined = {first, second}
        apart = []
        for group in groups:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        groups = [*apart, joined]
    return sorted(sorted(group) for group in groups)
