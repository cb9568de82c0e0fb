"""The faults that explain a board's readings: one at a time, each time the one that explains most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from hilcl.arrays import FloatArray, IntArray
from hilcl.preflight_model import (
    BoardModel,
    Fit,
    Readings,
    Values,
    Wires,
    ignoring,
    with_loose_pot,
    with_meter,
    with_pot,
    with_source,
)

CONVINCING = 25.0
"""Cost (in squared standard deviations) a fault must explain to be believed."""

AS_LIKELY = 10.0
"""Difference of costs below which two explanations cannot be told apart."""

PER_FAULT = 8.0
"""Cost of each further fault: of two explanations the one with fewer faults is the likelier."""

PLAIN = 9.0
"""Loss (squared standard deviations) of a single reading that calls for no explanation."""

MOST_FAULTS = 12
"""Faults after which the search gives up: a board with more needs rewiring, not a longer list."""

SHORTLIST = 3
"""Candidates of each kind that are fitted in full on a large board; on a small one as many as SMALL edges allow."""

SMALL = 64

FINAL_ROUNDS = 30

BRANCHES, BRANCHING = 3, 2
"""Equally good explanations that are followed further, and for how many faults."""

MOST_CYCLED = 12
"""Sources among which circles of three are looked for."""

DEVIATION = 9.0
"""Cost a pot must explain to be taken as permuted with others."""


@dataclass(frozen=True)
class Explanation:
    """The most likely wiring, and the others that explain the readings about as well."""

    fit: Fit
    rivals: tuple[Fit, ...] = ()


@dataclass(frozen=True)
class Freedom:
    """What may be wrong: ``sources``, the terminals that are driven by a source; ``own`` per terminal.

    ``own`` is whether the reading at the terminal is its source's own, so that both move together; None if unknown.
    """

    sources: tuple[int, ...]
    own: tuple[bool | None, ...]
    metered: tuple[int, ...]


def explain(model: BoardModel, readings: Readings, freedom: Freedom, stated: Wires) -> Explanation:
    """Return the wirings that explain the readings (R rows) with the fewest faults, found one fault at a time."""
    fits, terminals = [model.fit(readings, stated)], np.array(model.network.terminals)
    for step in range(MOST_FAULTS):
        if fits[0].cost < CONVINCING or _is_smooth(model, readings, fits[0]):
            break
        better: list[Fit] = []
        for fit in fits[: BRANCHES if step < BRANCHING else 1]:
            better += _one_fault_more(model, readings, freedom, fit, [each.wires for each in better])
        if not better:
            break
        least = min(_rank(each, terminals) for each in better)
        if _rank(fits[0], terminals) + PER_FAULT - least < CONVINCING:
            break
        # The list runs from likely faults to unlikely ones: of equally good explanations the first is taken.
        fits = [each for each in better if _rank(each, terminals) < least + AS_LIKELY]
    final = [model.fit(readings, each.wires, rounds=FINAL_ROUNDS, start=each) for each in fits]
    return Explanation(final[0], tuple(final[1:]))


def _one_fault_more(
    model: BoardModel, readings: Readings, freedom: Freedom, fit: Fit, known: Sequence[Wires]
) -> list[Fit]:
    """Return fits of the most promising wirings that differ from one fit by a single fault."""
    found = {_signature(wires) for wires in known}
    candidates = []
    for wires in _shortlist(model, readings, freedom, fit):
        if _signature(wires) not in found:
            found.add(_signature(wires))
            candidates.append(wires)
    rough = [model.fit(readings, wires, rounds=4, start=fit) for wires in candidates]
    bound = min((each.cost for each in rough), default=0.0) + 50.0
    fits = [model.fit(readings, each.wires, start=fit) for each in rough if each.cost < bound]
    return [each for each in fits if _is_fault(model, each, fit)]


def _rank(fit: Fit, terminals: IntArray) -> float:
    """Return the cost with that of the number of faults; two exchanged wires are one fault."""
    wires = fit.wires
    sources = wires.source_node != terminals
    own = np.isin(np.arange(len(wires.meter_node)), terminals[sources])
    meters = (wires.meter_node != np.arange(len(wires.meter_node))) & ~own
    pots = wires.pot_edge != np.arange(len(wires.pot_edge))
    gains = (wires.source_gain != 1.0).sum() + (wires.meter_gain > 0)[wires.meter_gain != 1.0].sum()
    exchanged = sum(float(np.ceil(each.sum() / 2)) for each in (sources, meters, pots))
    return fit.cost + PER_FAULT * (exchanged + float(gains) + float(wires.loose.sum()))


def _signature(wires: Wires) -> bytes:
    arrays = (wires.source_node, wires.source_gain, wires.meter_node, np.round(wires.meter_gain, 6), wires.pot_edge)
    return b"".join(each.tobytes() for each in (*arrays, wires.loose, wires.ignored))


def _is_fault(model: BoardModel, fit: Fit, before: Fit) -> bool:
    """Return whether a pot newly held to be faulty came out as anything else than a sound one."""
    due, is_ = model.expected(fit.wires), fit.values
    sound = (np.abs(is_.log_g - due.log_g) < 0.7) & (np.abs(is_.log_move - due.log_move) < 0.3 * np.abs(due.log_move))
    return not (sound & fit.wires.loose & ~before.wires.loose).any()


def _is_smooth(model: BoardModel, readings: Readings, fit: Fit) -> bool:
    """Return whether nothing stands out of the noise, so that there is nothing to look for."""
    losses = model.misfit(readings, fit.wires, model.predict(readings, fit.wires, fit.values))
    return bool(
        fit.strain**2 < PLAIN
        and losses.max() < PLAIN
        and losses.sum() < 0.7 * readings.usable.sum()
        and pot_losses_now(model, readings, fit.wires, fit.values).max() < CONVINCING
    )


def _shortlist(model: BoardModel, readings: Readings, freedom: Freedom, fit: Fit) -> list[Wires]:
    """Return the most promising single faults of every kind beyond those of the fit."""
    wires = fit.wires
    values = model.guess(wires, fit)
    chosen: list[Wires] = []
    most = max(SHORTLIST, SMALL // model.network.n_edges)
    for kind in (_lost_sources(model, wires, freedom), _crossed_sources(model, wires, freedom)):
        costs = [(model.nominal_cost(readings, each, fit), index, each) for index, each in enumerate(kind)]
        chosen += [each for _, _, each in sorted(costs, key=lambda cost: cost[:2])[:most]]
    still = readings.of(readings.pot < 0)
    costs = [
        (model.nominal_cost(still, each, fit), index, each)
        for index, each in enumerate(_cycled_sources(model, wires, freedom))
    ]
    chosen += [each for _, _, each in sorted(costs, key=lambda cost: cost[:2])[:2]]
    for gains in (
        _meter_gains(model, readings, freedom, wires, values),
        _meter_swaps(model, readings, freedom, wires, values),
        *_pot_faults(model, readings, fit, values),
    ):
        chosen += [each for _, _, each in sorted(gains, key=lambda gain: (-gain[0], gain[1]))[:most]]
    return chosen


Gains = list[tuple[float, int, Wires]]


def _variants(own: bool | None, *, readable: bool) -> tuple[bool, ...]:
    if not readable:
        return (False,)
    return (False, True) if own is None else (own,)


def _lost_sources(model: BoardModel, wires: Wires, freedom: Freedom) -> Iterator[Wires]:
    """Yield every source as open, at 0 V, reversed, or wired to a node that has no source."""
    terminals = model.network.terminals
    empty = sorted(set(range(model.network.n_nodes)) - set(wires.source_node.tolist()))
    for terminal in freedom.sources:
        home, node = int(terminals[terminal]), int(wires.source_node[terminal])
        if node != home or wires.source_gain[terminal] != 1.0:
            continue
        yield with_source(wires, terminal, home, 0.0)
        for together in _variants(freedom.own[terminal], readable=home in freedom.metered):
            lost, reversed_ = with_source(wires, terminal, -1), with_source(wires, terminal, home, -1.0)
            yield ignoring(lost, home) if together else lost
            yield with_meter(reversed_, home, home, -1.0) if together else reversed_
            for other in empty:
                moved = with_source(wires, terminal, other)
                yield with_meter(moved, home, other) if together else moved


def _crossed_sources(model: BoardModel, wires: Wires, freedom: Freedom) -> Iterator[Wires]:
    """Yield every pair of sources exchanged, with their own readings where these go with them."""
    terminals = model.network.terminals.tolist()
    for first, second in combinations(freedom.sources, 2):
        nodes = wires.source_node.copy()
        nodes[[first, second]] = nodes[[second, first]]
        crossed = replace(wires, source_node=nodes)
        own = {freedom.own[first], freedom.own[second]}
        if True not in own:
            yield crossed
        if False in own and True not in own:
            continue
        homes = [terminals[first], terminals[second]]
        meters = wires.meter_node.copy()
        if False not in own:
            meters[homes] = meters[homes[::-1]]
        else:
            # One reads itself and one has a meter: only the first one's reading moves.
            alone = first if freedom.own[first] else second
            meters[terminals[alone]] = nodes[alone]
        yield replace(crossed, meter_node=meters)


def _cycled_sources(model: BoardModel, wires: Wires, freedom: Freedom) -> Iterator[Wires]:
    """Yield every three sources exchanged in a circle, with their own readings where these go with them."""
    terminals = model.network.terminals
    for trio in combinations(freedom.sources[:MOST_CYCLED], 3):
        for first, second, third in (trio, trio[::-1]):
            here, there = [first, second, third], [second, third, first]
            nodes, meters = wires.source_node.copy(), wires.meter_node.copy()
            nodes[here] = nodes[there]
            own = {freedom.own[terminal] for terminal in trio}
            if True not in own:
                yield replace(wires, source_node=nodes)
            if own == {True}:
                meters[terminals[here]] = meters[terminals[there]]
                yield replace(wires, source_node=nodes, meter_node=meters)


def _meter_losses(model: BoardModel, readings: Readings, wires: Wires, values: Values, gain: float = 1.0) -> FloatArray:
    """Return the cost (N, N) of meter n reading node m, a row per meter."""
    n_nodes = model.network.n_nodes
    plain = replace(wires, meter_node=np.arange(n_nodes), meter_gain=np.ones(n_nodes))
    potentials = gain * model.predict(readings, plain, values)[:, :n_nodes]
    losses = np.empty((n_nodes, n_nodes))
    rest = np.zeros((len(readings.pot), readings.values.shape[1] - n_nodes))
    for node in range(n_nodes):
        seen = np.hstack([np.repeat(potentials[:, [node]], n_nodes, axis=1), rest])
        losses[:, node] = model.misfit(readings, wires, seen)[:, :n_nodes].sum(axis=0)
    return losses


def _meter_swaps(model: BoardModel, readings: Readings, freedom: Freedom, wires: Wires, values: Values) -> Gains:
    losses = _meter_losses(model, readings, wires, values)
    own = {int(model.network.terminals[t]) for t, alone in enumerate(freedom.own) if alone}
    swaps: Gains = []
    free = [meter for meter in freedom.metered if meter not in own and wires.meter_node[meter] >= 0]
    for index, (first, second) in enumerate(combinations(free, 2)):
        at_first, at_second = int(wires.meter_node[first]), int(wires.meter_node[second])
        gain = losses[first, at_first] + losses[second, at_second] - losses[first, at_second] - losses[second, at_first]
        if gain > 0:
            swapped = with_meter(wires, first, at_second, wires.meter_gain[first])
            swaps.append((gain, index, with_meter(swapped, second, at_first, wires.meter_gain[second])))
    return swaps


def _meter_gains(model: BoardModel, readings: Readings, freedom: Freedom, wires: Wires, values: Values) -> Gains:
    """Return meters that read nothing, the reverse, or too much or too little."""
    predicted = model.predict(readings, wires, values)
    before = model.misfit(readings, wires, predicted).sum(axis=0)
    gains: Gains = []
    own = {int(model.network.terminals[t]) for t, alone in enumerate(freedom.own) if alone}
    for meter in sorted(set(freedom.metered) - own):
        node = int(wires.meter_node[meter])
        if node < 0 or wires.meter_gain[meter] != 1.0 or wires.ignored[meter]:
            continue
        usable = readings.usable[:, meter]
        seen, expected = readings.values[usable, meter], predicted[usable, meter]
        size = float(expected @ expected)
        slope = float(seen @ expected) / size if size else 1.0
        for gain, changed in (
            (0.0, with_meter(wires, meter, -1)),
            (-1.0, with_meter(wires, meter, node, -1.0)),
            (slope, with_meter(wires, meter, node, slope)),
        ):
            if gain == slope and abs(slope - 1.0) < 0.1:
                continue
            trial = predicted.copy()
            trial[:, meter] *= gain
            after = model.misfit(readings, wires, trial)[:, meter].sum()
            gains.append((float(before[meter] - after), meter, changed))
    return gains


def pot_losses(model: BoardModel, readings: Readings, wires: Wires, values: Values) -> FloatArray:
    """Return the cost (M, M + 1) of the rows of pot e where edge f moved, a row per pot; last column: none moved."""
    n_edges = model.network.n_edges
    moving = readings.of(readings.pot >= 0)
    losses = np.zeros((n_edges, n_edges + 1))
    for column, edge in enumerate([*range(n_edges), -1]):
        supposed = replace(wires, pot_edge=np.full(n_edges, edge))
        loss = model.misfit(moving, wires, model.predict(moving, supposed, values)).sum(axis=1)
        losses[:, column] = np.bincount(moving.pot, weights=loss, minlength=n_edges)
    return losses


def _pot_faults(model: BoardModel, readings: Readings, fit: Fit, values: Values) -> Sequence[Gains]:
    wires, n_edges = fit.wires, model.network.n_edges
    losses = pot_losses(model, readings, wires, values)
    backwards = pot_losses_now(model, readings, wires, replace(values, log_move=-values.log_move))
    now = losses[np.arange(n_edges), wires.pot_edge]
    swaps: Gains = []
    moves: Gains = []
    loose: Gains = []
    wanting = now > 1.0
    for index, (first, second) in enumerate(combinations(range(n_edges), 2)):
        at_first, at_second = int(wires.pot_edge[first]), int(wires.pot_edge[second])
        gain = now[first] + now[second] - losses[first, at_second] - losses[second, at_first]
        if gain > 0:
            swaps.append((float(gain), index, with_pot(with_pot(wires, first, at_second), second, at_first)))
    for pot in np.flatnonzero(wanting).tolist():
        edge = int(losses[pot, :n_edges].argmin())
        if edge != wires.pot_edge[pot]:
            moves.append((float(now[pot] - losses[pot, edge]), pot, with_pot(wires, pot, edge)))
        if not wires.loose[pot]:
            better = min(float(losses[pot, n_edges]), float(backwards[pot]))
            loose.append((float(now[pot]) - better, pot, with_loose_pot(wires, pot)))
    astray = np.abs(fit.values.log_g - model.expected(wires).log_g)
    strange: Gains = [
        (float(astray[edge]), edge, with_loose_pot(wires, edge)) for edge in range(n_edges) if not wires.loose[edge]
    ]
    # All pots at once, for circles of three and more.
    matrix = losses[:, :n_edges].copy()
    matrix[np.arange(n_edges), wires.pot_edge] -= DEVIATION
    assigned = linear_sum_assignment(matrix)[1]
    changed = assigned != wires.pot_edge
    permuted: Gains = []
    if changed.sum() > 2:
        gain = float((now - losses[np.arange(n_edges), assigned])[changed].sum())
        permuted.append((gain, 0, replace(wires, pot_edge=assigned)))
    return loose, strange, moves, swaps, permuted


def pot_losses_now(model: BoardModel, readings: Readings, wires: Wires, values: Values) -> FloatArray:
    """Return the cost (M,) of the rows of each pot under the wiring itself."""
    moving = readings.of(readings.pot >= 0)
    loss = model.misfit(moving, wires, model.predict(moving, wires, values)).sum(axis=1)
    total = np.zeros(model.network.n_edges)
    np.add.at(total, moving.pot, loss)
    return total


def squared_distances(model: BoardModel, readings: Readings, fit: Fit, pots: IntArray) -> FloatArray:
    """Return how far (squared standard deviations) moving edge f would be from what pot e does, (len(pots), M + 1)."""
    n_edges = model.network.n_edges
    moving = readings.of(readings.pot >= 0)
    here = model.predict(moving, fit.wires, fit.values)
    far = np.zeros((n_edges, n_edges + 1))
    for column, edge in enumerate([*range(n_edges), -1]):
        supposed = replace(fit.wires, pot_edge=np.full(n_edges, edge))
        apart = (model.predict(moving, supposed, fit.values) - here) / moving.sigma
        squares = (np.where(moving.usable, apart, 0.0) ** 2).sum(axis=1)
        far[:, column] = np.bincount(moving.pot, weights=squares, minlength=n_edges)
    return far[pots]
