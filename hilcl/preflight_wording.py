"""What a preflight says: one sentence for each fault, with the names of the person's own wiring and the remedy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hilcl.arrays import FloatArray
from hilcl.network import Network
from hilcl.preflight_model import BoardModel, Fit, Wires


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

    def sources(self, wires: Wires) -> Iterator[str]:
        """Yield a sentence for every faulty source."""
        terminals = self.network.terminals.tolist()
        home = {node: terminal for terminal, node in enumerate(terminals)}
        ends = wires.source_node.tolist()
        for circle in circles({t: home[e] for t, e in enumerate(ends) if e in home and e != terminals[t]}):
            nodes = [terminals[t] for t in circle]
            if len(circle) == 2:
                first, second = nodes
                yield (
                    f"{self.node(first)} and {self.node(second)} are swapped: {self.source(first)} is seen at "
                    f"{self.node(second)} and {self.source(second)} at {self.node(first)}: exchange their two wires"
                )
            else:
                seen = ", ".join(f"{self.source(terminals[t])} is seen at {self.node(ends[t])}" for t in circle)
                yield f"{_listed([self.node(n) for n in nodes])} are permuted: {seen}: move each to its own node"
        paired = {t for circle in circles({t: home[e] for t, e in enumerate(ends) if e in home}) for t in circle}
        for terminal, node in enumerate(terminals):
            end, gain = ends[terminal], float(wires.source_gain[terminal])
            if end < 0 or gain == 0.0:
                yield (
                    f"nothing arrives at {self.node(node)} from {self.source(node)}: its wire is open or its output "
                    "is dead; check both"
                )
            elif end != node and terminal not in paired:
                yield f"{self.source(node)} is seen at {self.node(end)} instead of {self.node(node)}: move its wire"
            elif gain < 0:
                yield (
                    f"{self.source(node)} drives {self.node(node)} with the polarity reversed (+V arrives as −V): "
                    "exchange its two leads"
                )

    def meters(self, wires: Wires, resting: FloatArray) -> Iterator[str]:
        """Yield a sentence for every faulty meter; ``resting`` (N,) in volts is what each reads with all at 0 V."""
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
            paired |= set(circle)
            if len(circle) == 2:
                first, second = circle
                yield (
                    f"the meters of {self.node(first)} and {self.node(second)} are swapped: {self.meter(first)} reads "
                    f"{self.node(second)} and {self.meter(second)} reads {self.node(first)}: exchange their two wires"
                )
            else:
                seen = ", ".join(f"{self.meter(meter)} reads {self.node(reads[meter])}" for meter in circle)
                nodes = _listed([self.node(meter) for meter in circle])
                yield f"the meters of {nodes} are permuted: {seen}: move each to its own node"
        for meter, node in enumerate(wires.meter_node.tolist()):
            gain = float(wires.meter_gain[meter])
            if node < 0 or abs(gain) < 0.02:
                yield (
                    f"{self.meter(meter)} does not follow {self.node(meter)} and always reads {resting[meter]:.3g} V: "
                    "check its wire, its channel and its range"
                )
            elif meter in reads and meter not in paired:
                yield f"{self.meter(meter)} reads {self.node(node)} instead of {self.node(meter)}: move its wire"
            elif meter not in along and gain < 0:
                yield (
                    f"{self.meter(meter)} reads {self.node(meter)} with the wrong sign (gain {gain:.2g}): "
                    "exchange its two leads"
                )
            elif gain > 0 and gain != 1.0:
                yield (
                    f"{self.meter(meter)} reads {gain:.3g} times the volts of {self.node(meter)}: "
                    "check its range, divider and gain"
                )

    def pots(self, fit: Fit, model: BoardModel, g_min: FloatArray, g_max: FloatArray) -> Iterator[str]:
        """Yield a sentence for every faulty pot; limits (M,) in the units of the model."""
        moves = {pot: edge for pot, edge in enumerate(fit.wires.pot_edge.tolist()) if edge != pot}
        paired: set[int] = set()
        for circle in circles(moves):
            paired |= set(circle)
            if len(circle) == 2:
                first, second = circle
                yield (
                    f"{self.pot(first)} and {self.pot(second)} are swapped: each moves the other's edge: "
                    "exchange them in the wiring"
                )
            else:
                seen = ", ".join(f"{self.pot(pot)} moves edge {moves[pot]}" for pot in circle)
                yield f"the pots of edges {_listed([str(p) for p in sorted(circle)])} are permuted: {seen}: rewire them"
        for pot, edge in moves.items():
            if pot not in paired:
                yield f"{self.pot(pot)} moves edge {edge} instead: check its channel and wiring"
        for pot in np.flatnonzero(fit.wires.loose).tolist():
            yield self._loose(pot, fit, model, float(g_min[pot]), float(g_max[pot]))

    def _loose(self, pot: int, fit: Fit, model: BoardModel, g_min: float, g_max: float) -> str:
        value, move = float(np.exp(fit.log_g[pot])), float(fit.log_move[pot])
        due = float(np.log(model.moved[pot] / model.base[pot]))
        # Near zero and near a short the readings no longer tell how far away the value is.
        if value < g_min / 2.5:
            return (
                f"{self.pot(pot)} is open: its edge carries nothing at any code; check its wiper and its solder joints"
            )
        if value > 2.0 * g_max:
            return f"{self.pot(pot)} is shorted: its edge conducts far more than any code; look for a bridge across it"
        if abs(move) < 0.12 * due:
            return (
                f"{self.pot(pot)} does not move: its edge conducts {value / model.base[pot]:.2g} times what its "
                "resting code is worth whatever is written; check its chip, its address and its select line"
            )
        if move < 0:
            return (
                f"{self.pot(pot)} moves in the wrong direction: the edge is wired to the chip's other end terminal or "
                "its scale is inverted; correct the wiring or the file"
            )
        return (
            f"{self.pot(pot)} has {value / model.base[pot]:.2g} times the conductance its code is worth: "
            "check the chip's type and the parts beside it"
        )


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


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
