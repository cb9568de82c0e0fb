"""Faults named by edge or node: stuck, open and shorted pots, swapped pots or channels, dead channels, drift.

A pot that ignores its code fits the model with R_AB = 0, so the fit itself shows it. Faults that no parameters can
explain make chi-square large; then single hypotheses are ranked by how much releasing an edge (its conductance free in
each pattern) or a node's meter (its readings left out) explains, and the best few are fitted and compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from hilcl.arrays import BoolArray, FloatArray
from hilcl.calibration.fit import InstrumentSpec, Prior, Solution, fit, kirchhoff_start, make_prior
from hilcl.calibration.linear import solve
from hilcl.calibration.model import BoardModel
from hilcl.calibration.parameters import Finding, FindingKind
from hilcl.calibration.readings import (
    Noise,
    PatternReadings,
    with_swapped_edges,
    with_swapped_nodes,
    without_nodes,
)
from hilcl.errors import HilclError
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer

ACCEPTED = 1.5
"""Chi-square per degree of freedom up to which readings and model agree."""

IGNORES_CODE = 0.1
"""Part of its nominal end-to-end resistance below which a pot does not follow its code."""

OPEN_FACTOR = 20.0
"""An edge with this many times its largest nominal resistance has no contact."""

SHORT_FACTOR = 1.04
"""A constant edge below its smallest nominal resistance times this is shorted."""

DEAD_SLOPE = 0.2
"""A channel that follows the volts by less than this part is dead."""

HELPLESS = 10.0
"""Chi-square per degree of freedom beyond which the fitted values of a pot prove nothing about it."""

SUSPECTS = 6
"""Edges, and nodes, that hypotheses are made of."""

EXPLAINS = 3.0
"""Factor by which a fault must lower chi-square where several faults are there."""

TRIAL_PATTERNS = 14
"""Patterns that hypotheses are first fitted to, more where there are few readings in each."""

TRIAL_ITERATIONS = 25

ROUNDS = 3
"""Most faults that are looked for, one after the other."""

TOLERANCE = 0.3
"""Spread of the pots' values assumed while hypotheses are ranked, relative."""

RANKING_NOISE = 0.01
"""Noise assumed while ranking, relative to the range of the readings: what one linear step leaves of nonlinearity."""

DRIFT_GAIN = 60.0
"""Drop of chi-square that makes a drift certain (between 7 and 8 standard deviations)."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The fit that agrees best with the readings, and the faults it takes.

    ``records`` and ``metered`` (N,) are what was fitted: corrected for swaps, without dead channels.
    """

    solution: Solution
    records: tuple[PatternReadings, ...]
    metered: BoolArray
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Hypothesis:
    """One fault to try: ``rank`` is its score in the ranking, small for likely."""

    kind: FindingKind
    edges: tuple[int, ...]
    nodes: tuple[int, ...]
    rank: float


def dead_channels(
    network: Network, model: BoardModel, records: Sequence[PatternReadings], metered: BoolArray
) -> list[int]:
    """Return the metered nodes whose readings do not follow the volts they should, by the nominal model.

    ``records`` are those in which all terminals were driven alike, so that the conductances hardly matter.
    """
    theta = model.nominal()
    expected, seen = [], []
    for record in records:
        conductances = model.conductances(theta, record.codes)[0]
        potentials = np.full((len(record.drives), network.n_nodes), np.nan)
        for rows, _, _, state in model.states(theta, conductances, record.drives):
            potentials[rows] = state[:, : network.n_nodes]
        expected.append(potentials)
        seen.append(record.potentials)
    volts, readings = np.concatenate(expected), np.concatenate(seen)
    dead = []
    for node in np.flatnonzero(metered).tolist():
        x = volts[:, node] - volts[:, node].mean()
        y = readings[:, node] - readings[:, node].mean()
        if (x**2).sum() > 0 and (x * y).sum() < DEAD_SLOPE * (x**2).sum():
            dead.append(node)
    return dead


def dead_finding(network: Network, node: int) -> Finding:
    """Return the finding that a node's meter channel is dead."""
    return Finding(
        "dead channel",
        f"the meter channel at {network.name(node)} does not follow the volts there: check its wiring or replace it",
        nodes=(node,),
    )


def classify_constant(pot: Potentiometer, edge: int, resistance: float) -> Finding:
    """Return what an edge with a constant resistance in ohms is: open, shorted or stuck."""
    nominal = pot.resistances()
    if not 0 < resistance <= OPEN_FACTOR * nominal.max():
        sentence = (
            f"edge {edge} is open: no current flows through it whatever its code; check its wiper and solder joints"
        )
        return Finding("open", sentence, edges=(edge,))
    if resistance < SHORT_FACTOR * nominal.min():
        sentence = (
            f"edge {edge} is shorted at {resistance:.4g} Ω, or stuck at its code of least resistance: "
            "check its pot and its wiring"
        )
        return Finding("shorted", sentence, edges=(edge,))
    code = int(np.argmin(np.abs(nominal - resistance)))
    sentence = (
        f"edge {edge} is stuck at {resistance:.4g} Ω, about code {code}, whatever is written: check its pot's "
        "chip select and supply"
    )
    return Finding("stuck", sentence, edges=(edge,))


def diagnose(
    network: Network,
    pots: Sequence[Potentiometer],
    terms: int,
    records: Sequence[PatternReadings],
    noise: Noise,
    spec: InstrumentSpec,
    metered: BoolArray,
    ammeters: BoolArray,
) -> Diagnosis:
    """Fit the readings, with as few faults as they need. Where no fault explains them, chi-square stays large."""
    held = tuple(records)
    constant = np.zeros(network.n_edges, dtype=np.bool_)
    findings: list[Finding] = []
    solution, constant = _fit_with_constants(network, pots, terms, held, noise, spec, metered, ammeters, constant)
    for _ in range(ROUNDS):
        if solution.reduced() <= ACCEPTED:
            break
        best, best_reduced = None, solution.reduced() / EXPLAINS
        few = _some(held, len(solution.prior.free))
        for hypothesis in _hypotheses(solution.model, few, noise, spec, metered, ammeters):
            records_of, metered_of, constant_of = _apply(hypothesis, few, metered, constant)
            try:
                found, _ = _fit_with_constants(
                    network, pots, terms, records_of, noise, spec, metered_of, ammeters, constant_of, TRIAL_ITERATIONS
                )
            except HilclError:
                continue
            if found.reduced() <= max(best_reduced, ACCEPTED):
                best, best_reduced = hypothesis, found.reduced()
            if best_reduced <= ACCEPTED:
                break
        if best is None:
            break
        records_of, metered_of, constant_of = _apply(best, held, metered, constant)
        found, constant_of = _fit_with_constants(
            network, pots, terms, records_of, noise, spec, metered_of, ammeters, constant_of
        )
        if found.reduced() > max(ACCEPTED, solution.reduced() / EXPLAINS):
            break
        solution, held, metered, constant, hypothesis = found, records_of, metered_of, constant_of, best
        finding = _describe(network, hypothesis)
        if finding is not None:
            findings.append(finding)
    layout = solution.model.layout
    for edge in np.flatnonzero(constant).tolist():
        conductance = float(solution.theta[edge * layout.terms])
        findings.append(classify_constant(pots[edge], edge, 1.0 / conductance if conductance > 0 else np.inf))
    return Diagnosis(solution, held, metered, tuple(findings))


def _some(records: Sequence[PatternReadings], n_parameters: int) -> list[PatternReadings]:
    """Return records enough to tell hypotheses apart: evenly chosen, with three readings a parameter at least."""
    for count in range(TRIAL_PATTERNS, len(records), TRIAL_PATTERNS):
        chosen = [records[number] for number in np.linspace(0, len(records) - 1, count).astype(int).tolist()]
        if sum(record.n_readings for record in chosen) >= 3 * n_parameters:
            return chosen
    return list(records)


def _fit_with_constants(
    network: Network,
    pots: Sequence[Potentiometer],
    terms: int,
    records: Sequence[PatternReadings],
    noise: Noise,
    spec: InstrumentSpec,
    metered: BoolArray,
    ammeters: BoolArray,
    constant: BoolArray,
    iterations: int = 30,
) -> tuple[Solution, BoolArray]:
    """Fit; where pots turn out not to follow their codes, fit again with these as constants."""
    while True:
        model = BoardModel(network, pots, terms, leaky=metered, constant=constant)
        prior = make_prior(model, spec, metered, ammeters)
        start = prior.mean.copy()
        layout = model.layout
        values = start[layout.pots].reshape(layout.edges, layout.terms)
        for edge in np.flatnonzero(constant).tolist():
            values[edge, 0] = 1.0 / float(np.median(pots[edge].resistances()))
        better = kirchhoff_start(model, records, prior)
        if better is not None:
            keep = np.repeat(constant, layout.terms)
            start[layout.pots] = np.where(keep, start[layout.pots], better[layout.pots])
        solution = fit(model, records, noise, prior, start, max_iterations=iterations)
        more = _constants(solution)
        if not (more & ~constant).any() or solution.reduced() > HELPLESS:
            return solution, constant
        constant = constant | more


def _constants(solution: Solution) -> BoolArray:
    """Return which edges (M,) do not follow their codes, as far as the readings can tell."""
    layout, pots = solution.model.layout, solution.model.pots
    values = solution.theta[layout.pots].reshape(layout.edges, layout.terms)
    deviations = np.sqrt(np.diagonal(solution.covariance)[layout.pots]).reshape(layout.edges, layout.terms)
    nominal = np.array([pot.end_to_end for pot in pots])
    largest = np.array([pot.resistances().max() for pot in pots])
    still = (values[:, 1] < IGNORES_CODE * nominal) & (deviations[:, 1] < IGNORES_CODE * nominal)
    gone = values[:, 0] > OPEN_FACTOR * largest
    constants: BoolArray = solution.model.constant | still | gone
    return constants


def _apply(
    hypothesis: _Hypothesis, records: Sequence[PatternReadings], metered: BoolArray, constant: BoolArray
) -> tuple[tuple[PatternReadings, ...], BoolArray, BoolArray]:
    """Return records, metered nodes and constant edges as they are if the hypothesis holds."""
    if hypothesis.kind == "swapped pots":
        return tuple(with_swapped_edges(records, *hypothesis.edges)), metered, constant
    if hypothesis.kind == "swapped channels":
        return tuple(with_swapped_nodes(records, *hypothesis.nodes)), metered, constant
    if hypothesis.kind == "dead channel":
        fewer = metered.copy()
        fewer[list(hypothesis.nodes)] = False
        return tuple(without_nodes(records, hypothesis.nodes)), fewer, constant
    more = constant.copy()
    more[list(hypothesis.edges)] = True
    return tuple(records), metered, more


def _describe(network: Network, hypothesis: _Hypothesis) -> Finding | None:
    """Return the finding of an accepted hypothesis; constant edges are described by their fitted resistance later."""
    if hypothesis.kind == "swapped pots":
        first, second = hypothesis.edges
        sentence = f"the pots of edges {first} and {second} are swapped: correct the wiring"
        return Finding("swapped pots", sentence, edges=hypothesis.edges)
    if hypothesis.kind == "swapped channels":
        names = [network.name(node) for node in hypothesis.nodes]
        sentence = f"the meter channels of {names[0]} and {names[1]} are swapped: correct the wiring"
        return Finding("swapped channels", sentence, nodes=hypothesis.nodes)
    if hypothesis.kind == "dead channel":
        return dead_finding(network, hypothesis.nodes[0])
    return None


def _hypotheses(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    spec: InstrumentSpec,
    metered: BoolArray,
    ammeters: BoolArray,
) -> list[_Hypothesis]:
    """Return single faults worth a fit, the likeliest first."""
    plain = _all_following(model)
    prior = make_prior(plain, spec, metered, ammeters)
    edge_scores, node_scores = _release_scores(plain, records, noise, prior, metered, ammeters)
    edges = np.argsort(edge_scores)[:SUSPECTS].tolist()
    nodes = [node for node in np.argsort(node_scores)[:SUSPECTS].tolist() if np.isfinite(node_scores[node])]
    found = [_Hypothesis("stuck", (edge,), (), edge_scores[edge]) for edge in edges]
    found += [_Hypothesis("dead channel", (), (node,), node_scores[node]) for node in nodes]
    every_edge, every_node = range(model.layout.edges), np.flatnonzero(metered).tolist()
    for kind, members, others in (("swapped pots", edges, every_edge), ("swapped channels", nodes, every_node)):
        # The partner of a pair may show little by itself, beside the one that shows most.
        pairs = {*combinations(sorted(members), 2)}
        pairs |= {(min(one, other), max(one, other)) for one in members[:2] for other in others if other != one}
        for pair in sorted(pairs):
            if kind == "swapped pots":
                swapped = with_swapped_edges(records, *pair)
                hypothesis = _Hypothesis("swapped pots", pair, (), 0.0)
            else:
                swapped = with_swapped_nodes(records, *pair)
                hypothesis = _Hypothesis("swapped channels", (), pair, 0.0)
            score = _one_step(plain, swapped, noise, prior, metered, ammeters).objective
            found.append(replace(hypothesis, rank=score))
    # A swap explains all readings with no freedom more; releasing an edge or leaving out a channel gives some away.
    found.sort(key=lambda each: each.rank * (1.0 if each.kind.startswith("swapped") else 1.3))
    return found[: 2 * SUSPECTS]


def _all_following(model: BoardModel) -> BoardModel:
    """Return the model in which every edge follows its code, on a straight line."""
    return BoardModel(model.network, model.pots, 0, leaky=model.leaky)


@dataclass(frozen=True, eq=False)
class _OneStep:
    """Least squares linearised at the nominal board: the objective left, and what it is made of per pattern."""

    objective: float
    information: FloatArray
    slope: FloatArray
    squares: float
    rows: tuple[FloatArray, ...]
    residuals: tuple[FloatArray, ...]
    nodes: tuple[FloatArray, ...]


def _one_step(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    prior: Prior,
    metered: BoolArray,
    ammeters: BoolArray,
) -> _OneStep:
    free = prior.free
    deviation = prior.deviation.copy()
    deviation[model.layout.pots] *= TOLERANCE
    volts_range = max(float(np.ptp(record.potentials[:, metered])) if metered.any() else 0.0 for record in records)
    amps = [np.abs(record.currents[np.isfinite(record.currents)]) for record in records]
    amps_range = max((float(each.max(initial=0.0)) for each in amps), default=0.0)
    size = len(free)
    information, slope, squares = np.eye(size), np.zeros(size), 0.0
    rows, residuals, nodes = [], [], []
    for record in records:
        predicted = model.predict(prior.mean, record.codes, record.drives, metered, ammeters)
        readings = model.measured(record, predicted)
        used = np.isfinite(readings)
        sigma = np.where(
            predicted.is_volts,
            np.hypot(noise.volts[np.where(predicted.is_volts, predicted.place, 0)], RANKING_NOISE * volts_range),
            np.hypot(noise.amperes[np.where(predicted.is_volts, 0, predicted.place)], RANKING_NOISE * amps_range),
        )
        jacobian = predicted.jacobian if predicted.jacobian is not None else np.zeros((len(used), len(deviation)))
        each = (jacobian[:, free] * deviation[free] / sigma[:, None])[used]
        residual = ((readings - predicted.values) / sigma)[used]
        information += each.T @ each
        slope += each.T @ residual
        squares += float(residual @ residual)
        rows.append(each)
        residuals.append(residual)
        nodes.append(np.where(predicted.is_volts, predicted.place, -1)[used].astype(np.float64))
    objective = squares - float(slope @ solve(information, slope))
    return _OneStep(objective, information, slope, squares, tuple(rows), tuple(residuals), tuple(nodes))


def _release_scores(
    model: BoardModel,
    records: Sequence[PatternReadings],
    noise: Noise,
    prior: Prior,
    metered: BoolArray,
    ammeters: BoolArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the objective left when each edge (M,) is free in every pattern, and without each node's meter (N,)."""
    step = _one_step(model, records, noise, prior, metered, ammeters)
    layout = model.layout
    place = {number: position for position, number in enumerate(prior.free.tolist())}
    edge_scores = np.full(layout.edges, np.inf)
    for edge in range(layout.edges):
        column = place[edge * layout.terms]
        information, slope, squares = step.information.copy(), step.slope.copy(), step.squares
        for rows, residual in zip(step.rows, step.residuals, strict=True):
            released = rows[:, column] / TOLERANCE * 10.0
            strength = 1.0 + float(released @ released)
            seen, own = released @ rows, float(released @ residual)
            information -= np.outer(seen, seen) / strength
            slope -= seen * own / strength
            squares -= own**2 / strength
        edge_scores[edge] = squares - float(slope @ solve(information, slope))
    node_scores = np.full(layout.nodes, np.inf)
    for node in np.flatnonzero(metered).tolist():
        information, slope, squares = step.information.copy(), step.slope.copy(), step.squares
        for rows, residual, nodes in zip(step.rows, step.residuals, step.nodes, strict=True):
            own_rows, own_residual = rows[nodes == node], residual[nodes == node]
            information -= own_rows.T @ own_rows
            slope -= own_rows.T @ own_residual
            squares -= float(own_residual @ own_residual)
        node_scores[node] = squares - float(slope @ solve(information, slope))
    return edge_scores, node_scores


def reference_drift(
    model: BoardModel, before: PatternReadings, after: PatternReadings, noise: Noise, metered: BoolArray
) -> list[Finding]:
    """Return what moved between two measurements of the same pattern and drives: meters' common reference, or one.

    Each explanation (all meters alike, one meter, one source) is a column of the model's derivatives; the one that
    explains most is taken, then the next, while each explains more than chance can. With all terminals driven alike the
    conductances hardly matter, so the nominal board serves.
    """
    network, layout = model.network, model.layout
    ammeters = before.ammeters
    predicted = model.predict(model.nominal(), before.codes, before.drives, metered, ammeters)
    if predicted.jacobian is None:
        return []
    moved = model.measured(after, predicted) - model.measured(before, predicted)
    sigma = np.sqrt(2.0) * noise.at(predicted.is_volts, predicted.place)
    used = np.isfinite(moved)
    rest = (moved / sigma)[used]
    jacobian = (predicted.jacobian / sigma[:, None])[used]
    offsets, sources = layout.of_node(1).start, layout.of_terminal(1).start
    explanations: list[tuple[str, int, FloatArray]] = [
        ("meters", -1, jacobian[:, layout.of_node(1)][:, metered].sum(axis=1)),
        *(("meter", node, jacobian[:, offsets + node]) for node in np.flatnonzero(metered).tolist()),
        *(("source", number, jacobian[:, sources + number]) for number in range(layout.terminals)),
    ]
    findings: list[Finding] = []
    for _ in range(ROUNDS):
        gains = [float(column @ rest) ** 2 / max(float(column @ column), 1e-300) for _, _, column in explanations]
        best = int(np.argmax(gains))
        if gains[best] < DRIFT_GAIN:
            break
        kind, number, column = explanations[best]
        size = float(column @ rest) / float(column @ column)
        rest = rest - size * column
        findings.append(_drift_finding(network, kind, number, size))
    return findings


def _drift_finding(network: Network, kind: str, number: int, volts: float) -> Finding:
    if kind == "meters":
        where, nodes = "the common reference of the meters or of the sources", tuple(range(network.n_nodes))
    elif kind == "meter":
        where, nodes = f"the meter channel at {network.name(number)}", (number,)
    else:
        node = int(network.terminals[number])
        where, nodes = f"the source at {network.name(node)}", (node,)
    sentence = (
        f"{where} moved by {1e6 * volts:.3g} µV during the calibration: let the instruments warm up and repeat it"
    )
    return Finding("drifted reference", sentence, nodes=nodes)
