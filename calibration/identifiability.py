"""Which parameters the readings cannot determine, why, and which further measurement would determine them."""

from collections.abc import Sequence

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.calibration.fit import Solution
from hilcl.calibration.linear import inverse
from hilcl.calibration.parameters import Unidentifiable
from hilcl.calibration.readings import Noise, PatternReadings
from hilcl.network import Network

UNDETERMINED = 0.3
"""A parameter whose uncertainty is still this part of what was assumed beforehand has not been measured."""

BOUND_TOGETHER = 0.5
"""Correlation from which two undetermined parameters count as one combination."""

EXTRA_PATTERNS = 12


def unidentifiable(
    solution: Solution, records: Sequence[PatternReadings], noise: Noise, metered: BoolArray, ammeters: BoolArray
) -> tuple[Unidentifiable, ...]:
    """Return every parameter of the pots and meters that the readings leave open.

    The whitened information matrix of the fit has eigenvalue (prior / data uncertainty)² in each direction; directions
    below about 1 are its practical null space. A parameter with a large part in them is named.
    """
    names, places = _names(solution)
    free = solution.prior.free
    deviation = solution.prior.deviation[free]
    whitened = solution.information * np.outer(deviation, deviation)
    posterior = inverse(whitened + np.eye(len(free)))
    spread = np.sqrt(np.diagonal(posterior))
    open_ones = [position for position in range(len(free)) if names[position] and spread[position] > UNDETERMINED]
    if not open_ones:
        return ()
    correlation = posterior / np.outer(spread, spread)
    found = []
    for position in open_ones:
        edge, node = places[position]
        partners = [
            other for other in open_ones if other != position and abs(correlation[position, other]) > BOUND_TOGETHER
        ]
        reason, remedy, nodes = _explain(
            solution, records, noise, metered, ammeters, position, edge, node, [names[other] for other in partners]
        )
        edges = () if edge < 0 else (edge,)
        found.append(Unidentifiable(names[position], reason, remedy, edges, nodes))
    return tuple(found)


def _names(solution: Solution) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the name of every fitted parameter of pots and meters ("" for the others) and its (edge, node) or −1."""
    layout, network = solution.model.layout, solution.model.network
    names, places = [], []
    for number in solution.prior.free.tolist():
        if number < layout.pots.stop:
            edge, term = divmod(number, layout.terms)
            names.append(f"{('R0', 'RAB')[term] if term < 2 else f'INL{term - 1}'} of edge {edge}")
            places.append((edge, -1))
        elif layout.meters.start <= number < layout.meters.stop:
            quantity, node = divmod(number - layout.meters.start, layout.nodes)
            names.append(f"{('gain', 'offset')[quantity]} of the meter at {network.name(node)}")
            places.append((-1, node))
        else:
            names.append("")
            places.append((-1, -1))
    return names, places


def _explain(
    solution: Solution,
    records: Sequence[PatternReadings],
    noise: Noise,
    metered: BoolArray,
    ammeters: BoolArray,
    position: int,
    edge: int,
    node: int,
    partners: list[str],
) -> tuple[str, str, tuple[int, ...]]:
    """Return reason, remedy and the nodes they speak of."""
    network = solution.model.network
    if node >= 0:
        reason = f"the readings at {network.name(node)} do not separate it from the rest of the board"
        remedy = "measure with every terminal at the same volts, at two voltages or more"
        return reason, remedy, (node,)
    if not _carries_current(solution, records, edge):
        ends = network.edges[edge].tolist()
        bare = [end for end in ends if end not in network.terminals] or ends
        far = bare[-1] if len(bare) == 1 else _far_end(network, edge)
        reason = f"no drive sends a current through edge {edge}: it leads nowhere or joins nodes at one potential"
        remedy = f"make {network.name(far)} a terminal that can be driven, or leave the edge out"
        return reason, remedy, (far,)
    with_others = (
        f"only a combination of it with {_listed(partners)} shows in the readings"
        if partners
        else ("the readings hardly depend on it")
    )
    joint = _series_node(network, metered, edge)
    if joint >= 0:
        other = next(each for each in _touching(network, joint) if each != edge)
        name = network.name(joint)
        with_others = (
            f"edge {edge} is in series with edge {other} through {name}, which has no meter: only sums of the two show"
        )
    helper, many = _helpful_nodes(solution, records, noise, metered, ammeters, position)
    if helper >= 0:
        return with_others, f"give {network.name(helper)} a meter channel", (helper,)
    if _more_patterns_help(solution, records, noise, metered, ammeters, position):
        return with_others, "measure more patterns of codes", ()
    if many:
        return (
            with_others,
            "give the nodes without a meter more meter channels",
            tuple(np.flatnonzero(~metered).tolist()),
        )
    return with_others, "measure more terminal currents, or drive more nodes", ()


def _listed(names: list[str]) -> str:
    if len(names) > 4:
        return ", ".join(names[:4]) + f" and {len(names) - 4} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _touching(network: Network, node: int) -> list[int]:
    return [int(edge) for edge in np.flatnonzero((network.edges == node).any(axis=1))]


def _series_node(network: Network, metered: BoolArray, edge: int) -> int:
    """Return a node of the edge where it is in series with one other edge unseen, or −1."""
    terminals = set(network.terminals.tolist())
    for node in network.edges[edge].tolist():
        if node not in terminals and not metered[node] and len(_touching(network, node)) == 2:
            return int(node)
    return -1


def _far_end(network: Network, edge: int) -> int:
    """Return the end of an edge that cannot reach a terminal without it, or its second end."""
    first, second = network.edges[edge].tolist()
    terminals = set(network.terminals.tolist())
    for start, other in ((second, first), (first, second)):
        seen, stack = {start}, [start]
        while stack:
            node = stack.pop()
            for each in _touching(network, node):
                if each == edge:
                    continue
                for end in network.edges[each].tolist():
                    if end not in seen and end != other:
                        seen.add(end)
                        stack.append(end)
        if not seen & terminals:
            return int(start)
    return int(second)


def _carries_current(solution: Solution, records: Sequence[PatternReadings], edge: int) -> bool:
    model = solution.model
    largest, scale = 0.0, 0.0
    for record in records:
        conductances = model.conductances(solution.theta, record.codes)[0]
        for _, _, _, state in model.states(solution.theta, conductances, record.drives):
            voltages = model.network.edge_voltages(state[:, : model.network.n_nodes])
            largest, scale = max(largest, float(np.abs(voltages[:, edge]).max())), max(scale, float(np.ptp(state)))
    return largest > 1e-9 * scale


def _rows_at(
    solution: Solution, noise: Noise, codes: IntArray, drives: FloatArray, metered: BoolArray, ammeters: BoolArray
) -> FloatArray:
    """Return the whitened Jacobian (R, F) of further readings, in units of the prior's standard deviations.

    A meter that is not there yet is taken as calibrated, with the noise of the others.
    """
    predicted = solution.model.predict(solution.theta, codes, drives, metered, ammeters)
    if predicted.jacobian is None:
        return np.zeros((0, len(solution.prior.free)))
    known = noise.volts[np.isfinite(noise.volts)]
    typical = float(np.median(known)) if len(known) else 1e-3
    volts = np.where(np.isfinite(noise.volts), noise.volts, typical)
    sigma = Noise(volts, noise.amperes).at(predicted.is_volts, predicted.place)
    free = solution.prior.free
    rows: FloatArray = predicted.jacobian[:, free] * solution.prior.deviation[free] / sigma[:, None]
    return rows


def _left_open(solution: Solution, extra: FloatArray, position: int) -> bool:
    deviation = solution.prior.deviation[solution.prior.free]
    whitened = solution.information * np.outer(deviation, deviation) + extra
    posterior = inverse(whitened + np.eye(len(deviation)))
    return bool(np.sqrt(posterior[position, position]) > UNDETERMINED)


def _helpful_nodes(
    solution: Solution,
    records: Sequence[PatternReadings],
    noise: Noise,
    metered: BoolArray,
    ammeters: BoolArray,
    position: int,
) -> tuple[int, bool]:
    """Return a node whose meter alone would determine the parameter, or −1, and whether all missing meters would."""
    candidates = np.flatnonzero(~metered)
    size = len(solution.prior.free)
    nothing = np.zeros_like(ammeters)
    together = np.zeros((size, size))
    few = list(records)[:: max(1, len(records) // 12)]
    for node in candidates.tolist():
        only = np.zeros_like(metered)
        only[node] = True
        extra = np.zeros((size, size))
        for record in few:
            rows = _rows_at(solution, noise, record.codes, record.drives, only, nothing)
            extra += rows.T @ rows
        if not _left_open(solution, extra, position):
            return int(node), True
        together += extra
    return -1, len(candidates) > 0 and not _left_open(solution, together, position)


def _more_patterns_help(
    solution: Solution,
    records: Sequence[PatternReadings],
    noise: Noise,
    metered: BoolArray,
    ammeters: BoolArray,
    position: int,
) -> bool:
    """Return whether patterns of other random codes would determine the parameter."""
    generator = np.random.default_rng(0)
    highest = np.array([pot.positions for pot in solution.model.pots])
    size = len(solution.prior.free)
    extra = np.zeros((size, size))
    for number in range(EXTRA_PATTERNS):
        drives = records[number % len(records)].drives
        rows = _rows_at(solution, noise, generator.integers(0, highest), drives, metered, ammeters)
        extra += rows.T @ rows
    return not _left_open(solution, extra, position)
