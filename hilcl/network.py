"""The board's wiring: nodes, edges, and which nodes are inputs and outputs."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from hilcl.arrays import FloatArray, IntArray, frozen
from hilcl.errors import NetworkError

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Network:
    """A connected graph of resistors with inputs and outputs.

    ``edges`` is an (M, 2) integer array of node numbers 0 … N−1; an edge voltage is the potential of its first
    node minus that of its second. Parallel edges are allowed, self-loops are not. Nodes that are neither input
    nor output are hidden. ``positions`` (N, 2) is where the nodes are drawn; ``labels`` name them in messages.

    Raises NetworkError naming the node or edge when the graph is not connected, an edge joins a node with itself
    or leaves the graph, a role is given twice, or there is no input.
    """

    n_nodes: int
    edges: IntArray
    inputs: IntArray
    outputs: IntArray
    positions: FloatArray | None = None
    labels: tuple[str, ...] | None = None

    def __init__(
        self,
        n_nodes: int,
        edges: npt.ArrayLike,
        inputs: npt.ArrayLike,
        outputs: npt.ArrayLike,
        *,
        positions: npt.ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        count = _whole("n_nodes", n_nodes)
        if count < 2:
            raise NetworkError(f"a board needs at least 2 nodes, got {count}")
        names = None if labels is None else tuple(str(label) for label in labels)
        if names is not None and len(names) != count:
            raise NetworkError(f"{len(names)} labels were given for {count} nodes: give one per node")
        set_field = object.__setattr__
        set_field(self, "n_nodes", count)
        set_field(self, "labels", names)
        set_field(self, "edges", frozen(_edge_array(edges)))
        set_field(self, "inputs", frozen(_node_list("inputs", inputs)))
        set_field(self, "outputs", frozen(_node_list("outputs", outputs)))
        set_field(self, "positions", None if positions is None else frozen(_position_array(positions, count)))
        self._check_edges()
        self._check_roles()
        self._check_connected()

    @property
    def n_edges(self) -> int:
        """Number of edges M."""
        return len(self.edges)

    @cached_property
    def terminals(self) -> IntArray:
        """Nodes that can be driven, inputs first, then outputs: shape (T,)."""
        return frozen(np.concatenate([self.inputs, self.outputs]))

    @cached_property
    def hidden(self) -> IntArray:
        """Nodes that are neither input nor output, ascending."""
        return frozen(np.setdiff1d(np.arange(self.n_nodes), self.terminals))

    @cached_property
    def floating(self) -> IntArray:
        """Nodes that float in the free phase (outputs and hidden nodes), ascending."""
        return frozen(np.setdiff1d(np.arange(self.n_nodes), self.inputs))

    @cached_property
    def incidence(self) -> "sparse.csr_array[np.float64]":
        """Signed incidence matrix D (N, M): +1 at an edge's first node, −1 at its second."""
        columns = np.repeat(np.arange(self.n_edges), 2)
        signs = np.tile([1.0, -1.0], self.n_edges)
        return sparse.csr_array((signs, (self.edges.ravel(), columns)), shape=(self.n_nodes, self.n_edges))

    @cached_property
    def edges_at_inputs(self) -> tuple[IntArray, FloatArray, IntArray]:
        """Edges sorted by the input they touch, the sign of the current they carry away from it, each input's start."""
        touching = [(self.edges == node).any(axis=1).nonzero()[0] for node in self.inputs]
        edges = np.concatenate(touching)
        owner = np.repeat(self.inputs, [len(part) for part in touching])
        signs = np.where(self.edges[edges, 0] == owner, 1.0, -1.0)
        starts = np.concatenate([[0], np.cumsum([len(part) for part in touching])[:-1]])
        return edges, signs, starts.astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the wiring and the roles, as hexadecimal text: equal exactly for equal networks."""
        digest = hashlib.sha256(f"{self.n_nodes} {self.inputs.tolist()} {self.outputs.tolist()}".encode())
        digest.update(np.ascontiguousarray(self.edges, dtype="<i8").tobytes())
        return digest.hexdigest()

    def edge_voltages(self, potentials: FloatArray) -> FloatArray:
        """Return v = Dᵀp in volts: node potentials (…, N) to edge voltages (…, M)."""
        return potentials[..., self.edges[:, 0]] - potentials[..., self.edges[:, 1]]

    def name(self, node: int) -> str:
        """Return how messages call a node: its number, with its label where it has one."""
        if self.labels is None or self.labels[node] == str(node):
            return f"node {node}"
        return f"node {node} ({self.labels[node]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"Network({self.n_nodes} nodes, {self.n_edges} edges, "
            f"{len(self.inputs)} inputs, {len(self.outputs)} outputs, {len(self.hidden)} hidden)"
        )

    @classmethod
    def from_edges(
        cls,
        edges: npt.ArrayLike,
        inputs: npt.ArrayLike,
        outputs: npt.ArrayLike,
        *,
        n_nodes: int | None = None,
        positions: npt.ArrayLike | None = None,
        labels: Sequence[str] | None = None,
    ) -> Self:
        """Return the network of a list of edges; the number of nodes is the highest one named plus 1 unless given."""
        array = _edge_array(edges)
        count = int(array.max(initial=-1)) + 1 if n_nodes is None else n_nodes
        return cls(count, array, inputs, outputs, positions=positions, labels=labels)

    @classmethod
    def grid(
        cls,
        rows: int,
        cols: int,
        *,
        inputs: npt.ArrayLike | None = None,
        outputs: npt.ArrayLike = (),
        periodic: bool = False,
    ) -> Self:
        """Return a rectangular grid; node (r, c) has the number r·cols + c.

        ``periodic`` joins opposite sides (a torus); a side of one or two nodes is not wrapped, as in networkx. The
        inputs are the first and the last node unless given; the outputs are none unless given.
        """
        rows, cols = _whole("rows", rows), _whole("cols", cols)
        if rows < 1 or cols < 1:
            raise NetworkError(f"a grid needs at least one row and one column, got {rows} x {cols}")
        number = np.arange(rows * cols).reshape(rows, cols)
        east = np.roll(number, -1, axis=1) if periodic and cols > 2 else number[:, 1:]
        south = np.roll(number, -1, axis=0) if periodic and rows > 2 else number[1:, :]
        horizontal = np.stack([number[:, : east.shape[1]].ravel(), east.ravel()], axis=1)
        vertical = np.stack([number[: south.shape[0], :].ravel(), south.ravel()], axis=1)
        positions = np.stack([number % cols, -(number // cols)], axis=-1).reshape(-1, 2)
        return cls(
            rows * cols,
            np.concatenate([horizontal, vertical]),
            [0, rows * cols - 1] if inputs is None else inputs,
            outputs,
            positions=positions,
        )

    @classmethod
    def torus(cls, rows: int, cols: int, *, inputs: npt.ArrayLike | None = None, outputs: npt.ArrayLike = ()) -> Self:
        """Return a grid whose opposite sides are joined."""
        return cls.grid(rows, cols, inputs=inputs, outputs=outputs, periodic=True)

    @classmethod
    def crossbar(cls, n_in: int, n_out: int) -> Self:
        """Return the complete bipartite network, inputs numbered first; edge i·n_out + j joins input i and output j."""
        n_in, n_out = _whole("n_in", n_in), _whole("n_out", n_out)
        if n_in < 1 or n_out < 1:
            raise NetworkError(f"a crossbar needs at least one input and one output, got {n_in} x {n_out}")
        sources, sinks = np.divmod(np.arange(n_in * n_out), n_out)
        spread = [(np.arange(n) - (n - 1) / 2) / max(n_in, n_out) for n in (n_in, n_out)]
        positions = np.stack([np.repeat([0.0, 1.0], [n_in, n_out]), -np.concatenate(spread)], axis=1)
        return cls(
            n_in + n_out,
            np.stack([sources, n_in + sinks], axis=1),
            np.arange(n_in),
            np.arange(n_in, n_in + n_out),
            positions=positions,
        )

    @classmethod
    def from_networkx(
        cls, graph: "networkx.Graph[Any]", inputs: Iterable[Hashable], outputs: Iterable[Hashable]
    ) -> Self:
        """Return the network of a networkx graph (multigraphs too); inputs and outputs are node names of the graph.

        Nodes are numbered in the graph's order and keep their names as labels; a ``pos`` attribute on every node
        becomes the drawing position.
        """
        number = {node: index for index, node in enumerate(graph.nodes)}

        def numbers(role: str, nodes: Iterable[Hashable]) -> list[int]:
            chosen = list(nodes)
            missing = [node for node in chosen if node not in number]
            if missing:
                raise NetworkError(f"{role} name {missing[0]!r}, which is not a node of the graph")
            return [number[node] for node in chosen]

        places = [data.get("pos") for _, data in graph.nodes(data=True)]
        return cls(
            len(number),
            [(number[tail], number[head]) for tail, head in graph.edges()],
            numbers("inputs", inputs),
            numbers("outputs", outputs),
            positions=None if any(place is None for place in places) else np.array(places),
            labels=[str(node) for node in graph.nodes],
        )

    def _check_edges(self) -> None:
        if self.n_edges == 0:
            raise NetworkError("a board needs at least one edge")
        outside = np.flatnonzero(((self.edges < 0) | (self.edges >= self.n_nodes)).any(axis=1))
        if outside.size:
            edge = int(outside[0])
            raise NetworkError(
                f"edge {edge} joins {self.edges[edge].tolist()}, but nodes are numbered 0 to {self.n_nodes - 1}"
            )
        loops = np.flatnonzero(self.edges[:, 0] == self.edges[:, 1])
        if loops.size:
            edge = int(loops[0])
            raise NetworkError(f"edge {edge} joins {self.name(int(self.edges[edge, 0]))} with itself: remove it")

    def _check_roles(self) -> None:
        if not len(self.inputs):
            raise NetworkError("a board needs at least one input node")
        seen: dict[int, str] = {}
        for role, nodes in (("an input", self.inputs), ("an output", self.outputs)):
            for node in nodes.tolist():
                if not 0 <= node < self.n_nodes:
                    raise NetworkError(f"node {node} is {role}, but nodes are numbered 0 to {self.n_nodes - 1}")
                if node in seen:
                    twice = "twice" if seen[node] == role else f"and {seen[node]}"
                    raise NetworkError(f"{self.name(node)} is {role} {twice}: give each node one role")
                seen[node] = role

    def _check_connected(self) -> None:
        ones = np.ones(self.n_edges)
        graph = sparse.coo_array((ones, (self.edges[:, 0], self.edges[:, 1])), shape=(self.n_nodes,) * 2)
        parts, part_of = connected_components(graph, directed=False)
        if parts == 1:
            return
        driven = set(part_of[self.inputs].tolist())
        for node in self.outputs.tolist():
            if part_of[node] not in driven:
                raise NetworkError(
                    f"output {self.name(node)} has no path to any input: the board is in {parts} separate parts"
                )
        stray = int(np.flatnonzero(part_of != part_of[self.inputs[0]])[0])
        raise NetworkError(
            f"{self.name(stray)} is not connected to input {self.name(int(self.inputs[0]))}: "
            f"the board is in {parts} separate parts, join them or leave the part out"
        )


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise NetworkError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def _integers(name: str, values: npt.ArrayLike) -> IntArray:
    try:
        array = np.asarray(values)
        if array.size == 0:
            return np.zeros(array.shape, dtype=np.int64)
        if array.dtype.kind not in "iuf" or not (np.abs(array) < 2.0**53).all() or (array != np.floor(array)).any():
            raise ValueError
        return array.astype(np.int64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise NetworkError(f"{name} must be whole node numbers") from cause


def _edge_array(edges: npt.ArrayLike) -> IntArray:
    array = _integers("edges", edges)
    if array.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise NetworkError(f"edges must be pairs of node numbers, got an array of shape {array.shape}")
    return np.array(array)


def _node_list(role: str, nodes: npt.ArrayLike) -> IntArray:
    array = _integers(role, nodes)
    if array.ndim > 1:
        raise NetworkError(f"{role} must be a list of node numbers, got an array of shape {array.shape}")
    return np.array(array).reshape(-1)


def _position_array(positions: npt.ArrayLike, n_nodes: int) -> FloatArray:
    try:
        array = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise NetworkError("positions must be two numbers for each node, x and y") from cause
    if array.shape != (n_nodes, 2):
        raise NetworkError(f"positions have shape {array.shape}, but ({n_nodes}, 2) is needed: x and y for each node")
    return array
