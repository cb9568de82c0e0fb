"""What a preflight says: one sentence for each fault, with the names of the person's own wiring and the remedy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.network import Network
from hilcl.preflight_model import BoardModel, Fit, Wires

ROOM = 185
"""Characters a sentence may have, so that a line with its mark stays below 200."""

BAD_CONTACT = 100.0
"""Ohms between a source and its node that no lead has."""

LEAK = 5e-6
"""Siemens to 0 V at a node that no meter draws."""


@dataclass(frozen=True)
class Finding:
    """A fault: the ``sentence`` with its remedy, and the ``short`` form for "either this or that"."""

    short: str
    sentence: str


@dataclass(frozen=True)
class Names:
    """How the wiring is called: ``sources`` and ``meters`` by node, ``pots`` by edge.

    For example ``Names({0: "smu1 channel a"}, {3: "dmm channel 101"}, {7: "board pot 7"})``. A terminal without an
    entry in ``meters`` is one whose source reads itself.
    """

    sources: Mapping[int, str] = field(default_factory=dict)
    meters: Mapping[int, str] = field(default_factory=dict)
    pots: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wording:
    """Calls nodes and edges by their names; ``names`` is None where none were given."""

    network: Network
    names: Names | None

    def node(self, node: int) -> str:
        """Return "input node 0", "output node 9" or "hidden node 4", with its label where it has one."""
        role = "input" if node in self.network.inputs else "output" if node in self.network.outputs else "hidden"
        return f"{role} {self.network.name(node)}"

    def source(self, node: int) -> str:
        """Return the name of the source of a terminal."""
        given = self.names.sources.get(node) if self.names else None
        return given or f"the source of {self.network.name(node)}"

    def meter(self, node: int) -> str:
        """Return the name of what reads a node."""
        if self.names is None:
            return f"the meter of {self.network.name(node)}"
        own = self.names.sources.get(node) or f"the source of {self.network.name(node)}"
        return self.names.meters.get(node) or (
            own if node in self.network.terminals else f"the meter of {self.network.name(node)}"
        )

    def pot(self, edge: int) -> str:
        """Return the name of the pot of an edge, always with the edge."""
        given = self.names.pots.get(edge) if self.names else None
        return f"{given} (edge {edge})" if given else f"the pot of edge {edge}"

    def findings(
        self, fit: Fit, model: BoardModel, resting: FloatArray, limits: tuple[FloatArray, FloatArray]
    ) -> list[Finding]:
        """Return every fault of a fit; ``resting`` (N,) in volts with all at 0 V, ``limits`` (M,) in siemens."""
        return [
            *self._sources(fit.wires),
            *self._strays(fit, model),
            *self._meters(fit.wires, resting),
            *self._pots(fit, model, limits[0] / model.unit, limits[1] / model.unit),
        ]

    def _sources(self, wires: Wires) -> Iterator[Finding]:
        terminals = self.network.terminals.tolist()
        home = {node: terminal for terminal, node in enumerate(terminals)}
        ends = wires.source_node.tolist()
        at_home = {t: home[end] for t, end in enumerate(ends) if end in home}
        paired: set[int] = set()
        for circle in circles({t: at for t, at in at_home.items() if at != t}):
            nodes = [terminals[t] for t in circle]
            names = listed([self.source(node) for node in nodes])
            seen = [f"{self.source(terminals[t])} is seen at {self.node(ends[t])}" for t in circle]
            if len(circle) == 2:
                short = f"{names} are swapped"
                whole = f"sources are swapped: {' and '.join(seen)}: exchange their two wires"
            else:
                short = f"{names} are permuted"
                whole = f"sources are permuted: {', '.join(seen)}: move each to its own node"
            if len(whole) <= ROOM:
                paired |= set(circle)
                yield Finding(short, whole)
        for terminal, node in enumerate(terminals):
            end, gain, name = ends[terminal], float(wires.source_gain[terminal]), self.source(node)
            if end < 0 or gain == 0.0:
                yield self._open(node)
            elif end != node and terminal not in paired:
                at = f"{name} is seen at {self.node(end)}"
                yield Finding(at, f"{at} instead of {self.node(node)}: move its wire")
            elif gain < 0:
                yield Finding(
                    f"{name} is reversed",
                    f"{name} drives {self.node(node)} with the polarity reversed (+V arrives as −V): "
                    "exchange its two leads",
                )

    def _open(self, node: int) -> Finding:
        return Finding(
            f"{self.source(node)} does not reach {self.node(node)}",
            f"nothing arrives at {self.node(node)} from {self.source(node)}: its wire is open or its output is dead; "
            "check both",
        )

    def _strays(self, fit: Fit, model: BoardModel) -> Iterator[Finding]:
        ohms = np.exp(fit.values.log_series) / model.unit
        for terminal in np.flatnonzero(ohms > BAD_CONTACT).tolist():
            node = int(self.network.terminals[terminal])
            if ohms[terminal] * model.unit > 1.0:
                if fit.wires.source_node[terminal] >= 0 and fit.wires.source_gain[terminal] != 0.0:
                    yield self._open(node)
                continue
            yield Finding(
                f"{self.source(node)} has a bad contact",
                f"{self.source(node)} reaches {self.node(node)} through about {float(f'{ohms[terminal]:.2g}'):g} ohms: "
                "check its leads and contacts",
            )
        siemens = np.exp(fit.values.log_input) * model.unit
        for node in np.flatnonzero(siemens > LEAK).tolist():
            yield Finding(
                f"{self.node(node)} leaks",
                f"{self.node(node)} leaks to 0 V through about {float(f'{1e-3 / siemens[node]:.2g}'):g} kilohms: "
                f"check what is joined to it and the input of {self.meter(node)}",
            )

    def _meters(self, wires: Wires, resting: FloatArray) -> Iterator[Finding]:
        along = {
            node
            for terminal, node in enumerate(self.network.terminals.tolist())
            if wires.source_node[terminal] == wires.meter_node[node] != node
            or (wires.source_gain[terminal] == wires.meter_gain[node] == -1.0)
        }
        reads = {
            meter: node
            for meter, node in enumerate(wires.meter_node.tolist())
            if meter not in along and node not in {-1, meter}
        }
        paired: set[int] = set()
        for circle in circles(reads):
            seen = [f"{self.meter(meter)} reads {self.node(reads[meter])}" for meter in circle]
            names = listed([self.meter(meter) for meter in circle])
            if len(circle) == 2:
                whole = f"meters are swapped: {' and '.join(seen)}: exchange their two wires"
                short = f"{names} are swapped"
            else:
                whole = f"meters are permuted: {', '.join(seen)}: move each to its own node"
                short = f"{names} are permuted"
            if len(whole) <= ROOM:
                paired |= set(circle)
                yield Finding(short, whole)
        for meter, node in enumerate(wires.meter_node.tolist()):
            gain, name = float(wires.meter_gain[meter]), self.meter(meter)
            if node < 0 or abs(gain) < 0.02:
                yield Finding(
                    f"{name} does not follow {self.node(meter)}",
                    f"{name} does not follow {self.node(meter)} and always reads {resting[meter]:.3g} V: "
                    "check its wire, its channel and its range",
                )
            elif meter in reads and meter not in paired:
                at = f"{name} reads {self.node(node)}"
                yield Finding(at, f"{at} instead of {self.node(meter)}: move its wire")
            elif meter not in along and gain < 0:
                yield Finding(
                    f"{name} is reversed",
                    f"{name} reads {self.node(meter)} with the wrong sign (gain {gain:.2g}): exchange its two leads",
                )
            elif gain > 0 and gain != 1.0:
                times = f"{name} reads {gain:.3g} times the volts"
                yield Finding(times, f"{times} of {self.node(meter)}: check its range, divider and gain")

    def _pots(self, fit: Fit, model: BoardModel, g_min: FloatArray, g_max: FloatArray) -> Iterator[Finding]:
        wires = fit.wires
        moves = {pot: edge for pot, edge in enumerate(wires.pot_edge.tolist()) if edge != pot and not wires.loose[pot]}
        paired: set[int] = set()
        for circle in circles(moves):
            names = listed([self.pot(pot) for pot in circle])
            if len(circle) == 2:
                paired |= set(circle)
                yield Finding(
                    f"{names} are swapped",
                    f"{names} are swapped: each moves the other's edge: exchange them in the wiring",
                )
                continue
            seen = ", ".join(f"{self.pot(pot)} moves edge {moves[pot]}" for pot in circle)
            whole = f"pots are permuted: {seen}: rewire them"
            if len(whole) <= ROOM:
                paired |= set(circle)
                yield Finding(f"{names} are permuted", whole)
        for pot, edge in moves.items():
            if pot not in paired:
                at = f"{self.pot(pot)} moves edge {edge}"
                yield Finding(at, f"{at} instead: check its channel and wiring")
        for pot in np.flatnonzero(wires.loose).tolist():
            yield self._loose(pot, fit, model, float(g_min[pot]), float(g_max[pot]))

    def _loose(self, pot: int, fit: Fit, model: BoardModel, g_min: float, g_max: float) -> Finding:
        value, move = float(np.exp(fit.values.log_g[pot])), float(fit.values.log_move[pot])
        due, name = float(np.log(model.moved[pot] / model.base[pot])), self.pot(pot)
        times = value / model.base[pot]
        # Near zero and near a short the readings no longer tell how far away the value is.
        if value < g_min / 2.5:
            return _same(f"{name} is open", "its edge carries nothing at any code; check its wiper and solder joints")
        if value > 2.0 * g_max:
            return _same(f"{name} is shorted", "its edge conducts far more than any code; look for a bridge across it")
        if abs(move) < 0.12 * due:
            return _same(
                f"{name} does not move",
                f"its edge has {times:.2g} times its resting conductance at any code; check chip, address and "
                "select line",
            )
        if move < 0:
            return _same(
                f"{name} moves in the wrong direction",
                "the edge is at the chip's other end terminal or its scale is inverted; correct the wiring or the file",
            )
        return _same(
            f"{name} has {times:.2g} times the conductance its code is worth",
            "check the chip's type and the parts beside it",
        )


def _same(short: str, rest: str) -> Finding:
    return Finding(short, f"{short}: {rest}")


def circles(moves: Mapping[int, int]) -> list[list[int]]:
    """Return the closed cycles of a mapping, each from its smallest member, fixed points left out."""
    found: list[list[int]] = []
    done: set[int] = set()
    for start in sorted(moves):
        path = [start]
        while path[-1] in moves and moves[path[-1]] not in path:
            path.append(moves[path[-1]])
        if moves.get(path[-1]) == start and len(path) > 1 and start not in done:
            found.append(path)
            done |= set(path)
    return found


def either(cases: Sequence[Sequence[Finding]]) -> list[str]:
    """Return "either A or B: check each", with as many of the cases as fit; those left over in further lines."""
    shorts = list(dict.fromkeys(" and ".join(each.short for each in case) for case in cases))
    first, rest = fitted(shorts, ROOM - len("either : check each; it reads alike"), ", or ")
    lines = [f"either {first}: check each; it reads alike"]
    while rest:
        more, rest = fitted(rest, ROOM - len("just as likely as the fault above: "), ", or ")
        lines.append(f"just as likely as the fault above: {more}")
    return lines


def fitted(parts: Sequence[str], room: int, between: str = ", ") -> tuple[str, list[str]]:
    """Return as many parts as fit, joined, and the others; at least one."""
    taken = 1
    while taken < len(parts) and len(between.join(parts[: taken + 1])) <= room:
        taken += 1
    return between.join(parts[:taken]), list(parts[taken:])


def listed(parts: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
