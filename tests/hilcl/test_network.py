import dataclasses
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Network
from hilcl.errors import InputError, NetworkError

LABELS = ["west", "east", "middle", "lamp"]

REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("one node", lambda: Network(1, [[0, 0]], [0], []), r"at least 2 nodes, got 1"),
    ("n_nodes a float", lambda: Network(2.5, [[0, 1]], [0], []), r"n_nodes .* whole number, got 2\.5"),  # type: ignore[arg-type]
    ("n_nodes a bool", lambda: Network(True, [[0, 1]], [0], []), r"n_nodes .* whole number, got True"),
    ("no edges", lambda: Network(2, [], [0], [1]), r"at least one edge"),
    ("triples", lambda: Network(3, [[0, 1, 2]], [0], [1]), r"pairs of node numbers.*\(1, 3\)"),
    ("flat edges", lambda: Network(3, [0, 1], [0], [1]), r"pairs of node numbers.*\(2,\)"),
    ("half a node", lambda: Network(2, [[0, 0.5]], [0], [1]), r"edges must be whole"),
    ("nan", lambda: Network(3, [[0.0, 1.0], [1.0, np.nan]], [0], [2]), r"edges must be whole"),
    ("infinite", lambda: Network(3, [[0.0, 1.0], [1.0, np.inf]], [0], [2]), r"edges must be whole"),
    ("beyond 64 bits", lambda: Network(3, [[0, 1], [1, 2**70]], [0], [2]), r"edges"),
    ("unsigned beyond 63 bits", lambda: Network(3, [[0, 1], [1, 2**63]], [0], [2]), r"edges"),
    ("complex", lambda: Network(2, np.array([[0, 1j]]), [0], [1]), r"edges must be whole"),
    ("true and false", lambda: Network(2, [[False, True]], [0], [1]), r"edges must be whole"),
    ("words", lambda: Network(2, [["a", "b"]], [0], [1]), r"edges must be whole"),
    ("ragged", lambda: Network(3, [[0, 1], [2]], [0], [1]), r"edges must be whole"),
    ("node too high", lambda: Network(3, [[0, 1], [1, 3]], [0], [1]), r"edge 1 joins \[1, 3\].*0 to 2"),
    ("node negative", lambda: Network(3, [[0, 1], [-1, 2]], [0], [1]), r"edge 1 joins \[-1, 2\]"),
    ("self-loop", lambda: Network(3, [[0, 1], [2, 2]], [0], [1]), r"edge 1 joins node 2 with itself"),
    ("no input", lambda: Network(2, [[0, 1]], [], [1]), r"at least one input"),
    ("input too high", lambda: Network(2, [[0, 1]], [2], [1]), r"node 2 is an input.*0 to 1"),
    ("output negative", lambda: Network(2, [[0, 1]], [0], [-1]), r"node -1 is an output"),
    ("two roles", lambda: Network(2, [[0, 1]], [0, 1], [1]), r"node 1 is an output and an input"),
    ("input twice", lambda: Network(2, [[0, 1]], [0, 0], [1]), r"node 0 is an input twice"),
    ("output twice", lambda: Network(2, [[0, 1]], [0], [1, 1]), r"node 1 is an output twice"),
    ("inputs a table", lambda: Network(2, [[0, 1]], [[0], [1]], []), r"inputs must be a list"),
    ("half an output", lambda: Network(2, [[0, 1]], [0], [0.5]), r"outputs must be whole"),
    (
        "output cut off",
        lambda: Network(4, [[0, 1], [2, 3]], [0], [1, 3]),
        r"output node 3 has no path to any input: .* 2 separate parts",
    ),
    (
        "hidden node cut off",
        lambda: Network(4, [[0, 1], [2, 3]], [0], [1]),
        r"node 2 is not connected to input node 0: .* 2 separate parts",
    ),
    (
        "inputs in two parts",
        lambda: Network(4, [[0, 1], [2, 3]], [0, 2], [1, 3]),
        r"node 2 is not connected to input node 0",
    ),
    ("isolated node", lambda: Network(3, [[0, 1]], [0], [1]), r"node 2 is not connected"),
    (
        "labelled",
        lambda: Network(4, [[0, 1], [1, 2]], [0], [3], labels=LABELS),
        r"output node 3 \(lamp\) has no path",
    ),
    ("labels too few", lambda: Network(2, [[0, 1]], [0], [1], labels=["a"]), r"1 labels .* 2 nodes"),
    ("positions too few", lambda: Network(2, [[0, 1]], [0], [1], positions=[[0, 0]]), r"\(1, 2\).*\(2, 2\)"),
    ("positions words", lambda: Network(2, [[0, 1]], [0], [1], positions="here"), r"positions"),
    ("positions ragged", lambda: Network(2, [[0, 1]], [0], [1], positions=[[0, 1], [2]]), r"positions"),
    ("grid without rows", lambda: Network.grid(0, 3), r"one row and one column, got 0 x 3"),
    ("grid of one node", lambda: Network.grid(1, 1), r"at least 2 nodes"),
    ("grid of halves", lambda: Network.grid(2, 1.5), r"cols must be a whole number, got 1\.5"),  # type: ignore[arg-type]
    ("crossbar without outputs", lambda: Network.crossbar(2, 0), r"one input and one output, got 2 x 0"),
    ("from no edges", lambda: Network.from_edges([], [0], [1]), r"at least 2 nodes"),
    ("unknown name", lambda: Network.from_networkx(nx.path_graph(3), [0], ["x"]), r"outputs name 'x'"),
    (
        "networkx self-loop",
        lambda: Network.from_networkx(nx.Graph([("a", "b"), ("b", "b")]), ["a"], ["b"]),
        r"edge 1 joins node 1 \(b\) with itself",
    ),
]


@pytest.mark.parametrize(("build", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_no_board_can_be_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(NetworkError, match=message) as caught:
        build()
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 2


def test_roles_and_counts() -> None:
    network = Network(6, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]], inputs=[5, 0], outputs=[3])
    assert network.n_edges == 5
    assert network.terminals.tolist() == [5, 0, 3]
    assert network.hidden.tolist() == [1, 2, 4]
    assert network.floating.tolist() == [1, 2, 3, 4]
    assert repr(network) == "Network(6 nodes, 5 edges, 2 inputs, 1 outputs, 3 hidden)"


def test_whole_floats_and_numpy_integers_are_node_numbers() -> None:
    network = Network(np.int32(2), np.array([[0.0, 1.0]]), np.uint8(0), 1.0)  # type: ignore[arg-type]
    assert network == Network(2, [[0, 1]], [0], [1])
    assert network.edges.dtype == np.int64


def test_incidence_and_edge_voltages() -> None:
    network = Network(3, [[0, 1], [2, 1], [1, 2]], [0], [2])
    np.testing.assert_array_equal(network.incidence.toarray(), [[1, 0, 0], [-1, -1, 1], [0, 1, -1]])
    potentials = np.array([[1.0, 4.0, 9.0], [0.0, -1.0, 0.5]])
    np.testing.assert_array_equal(network.edge_voltages(potentials), [[-3, 5, -5], [1, 1.5, -1.5]])
    np.testing.assert_array_equal(network.edge_voltages(potentials[0]), [-3, 5, -5])


def test_edges_at_inputs_carry_the_sign_away_from_the_input() -> None:
    network = Network(4, [[0, 1], [1, 0], [3, 2], [2, 1], [0, 3]], [0, 3], [2])
    edges, signs, starts = network.edges_at_inputs
    assert edges.tolist() == [0, 1, 4, 2, 4]
    assert signs.tolist() == [1, -1, 1, 1, -1]
    assert starts.tolist() == [0, 3]


def test_nothing_can_be_changed_afterwards() -> None:
    edges, inputs, positions = np.array([[0, 1], [1, 2]]), np.array([0]), np.zeros((3, 2))
    network = Network(3, edges, inputs, [2], positions=positions)
    edges[0, 1], inputs[0], positions[0, 0] = 2, 1, 5.0
    assert network.edges.tolist() == [[0, 1], [1, 2]]
    assert network.inputs.tolist() == [0]
    assert network.positions is not None
    assert network.positions[0, 0] == 0.0
    for array in (
        network.edges,
        network.inputs,
        network.outputs,
        network.terminals,
        network.hidden,
        network.floating,
        network.positions,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.n_nodes = 4  # type: ignore[misc]


def test_equality_and_hash_follow_the_wiring_and_the_roles() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0], [2])
    same = Network(3, [[0, 1], [1, 2]], [0], [2], positions=np.zeros((3, 2)), labels=["a", "b", "c"])
    assert network == same
    assert hash(network) == hash(same)
    others: list[object] = [
        Network(3, [[1, 0], [1, 2]], [0], [2]),
        Network(3, [[1, 2], [0, 1]], [0], [2]),
        Network(3, [[0, 1], [1, 2], [1, 2]], [0], [2]),
        Network(3, [[0, 1], [1, 2]], [2], [0]),
        Network(3, [[0, 1], [1, 2]], [0, 2], []),
        Network(3, [[0, 1], [1, 2]], [0], []),
        Network(4, [[0, 1], [1, 2], [2, 3]], [0], [2]),
        "Network(3 nodes, 2 edges, 1 inputs, 1 outputs, 1 hidden)",
    ]
    assert all(network != other for other in others)
    assert len({network, same, *others}) == 1 + len(others)


def test_the_fingerprint_stays_the_same_from_version_to_version() -> None:
    network = Network.crossbar(2, 1)
    assert network.fingerprint == Network(3, [[0, 2], [1, 2]], [0, 1], [2]).fingerprint
    assert network.fingerprint == "62fe35fa17b6452a50846a3301d18779591f021c872fc48b0b499017fd3f8674"


def test_names_in_messages() -> None:
    network = Network(2, [[0, 1]], [0], [1], labels=["0", "lamp"])
    assert network.name(0) == "node 0"
    assert network.name(1) == "node 1 (lamp)"
    assert Network(2, [[0, 1]], [0], [1]).name(1) == "node 1"


@pytest.mark.parametrize(("rows", "cols"), [(1, 2), (2, 1), (1, 5), (2, 2), (3, 4), (5, 5)])
@pytest.mark.parametrize("periodic", [False, True])
def test_grids_are_those_of_networkx(rows: int, cols: int, periodic: bool) -> None:
    network = Network.grid(rows, cols, periodic=periodic)
    graph = nx.grid_2d_graph(rows, cols, periodic=periodic)
    expected = {frozenset((a[0] * cols + a[1], b[0] * cols + b[1])) for a, b in graph.edges() if a != b}
    assert {frozenset(edge) for edge in network.edges.tolist()} == expected
    assert network.n_edges == len(expected)
    assert network.inputs.tolist() == [0, rows * cols - 1]
    assert network.outputs.tolist() == []
    assert network.positions is not None
    assert network.positions.shape == (rows * cols, 2)


def test_a_torus_of_4_by_4_has_32_edges() -> None:
    torus = Network.torus(4, 4, inputs=[0, 1], outputs=[9])
    assert torus.n_edges == 32
    assert np.bincount(torus.edges.ravel()).tolist() == [4] * 16
    assert torus == Network.grid(4, 4, periodic=True, inputs=[0, 1], outputs=[9])
    assert Network.grid(4, 4).n_edges == 24


def test_grid_positions_put_neighbours_next_to_each_other() -> None:
    network = Network.grid(3, 4)
    assert network.positions is not None
    steps = network.positions[network.edges[:, 0]] - network.positions[network.edges[:, 1]]
    np.testing.assert_array_equal(np.abs(steps).sum(axis=1), 1.0)


def test_a_crossbar_numbers_its_inputs_first() -> None:
    network = Network.crossbar(3, 2)
    assert network.n_nodes == 5
    assert network.inputs.tolist() == [0, 1, 2]
    assert network.outputs.tolist() == [3, 4]
    assert network.hidden.size == 0
    assert network.edges.tolist() == [[i, 3 + j] for i in range(3) for j in range(2)]


def test_from_edges_counts_the_nodes() -> None:
    assert Network.from_edges([[0, 3], [3, 1], [1, 2]], [0], [2]) == Network(4, [[0, 3], [3, 1], [1, 2]], [0], [2])
    with pytest.raises(NetworkError, match="node 3 is not connected"):
        Network.from_edges([[0, 1], [1, 2]], [0], [2], n_nodes=4)


def test_from_networkx_keeps_names_and_places() -> None:
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_node("source", pos=(0, 1))
    graph.add_node("sink", pos=(2, 1))
    graph.add_node(7, pos=(1, 0))
    graph.add_edges_from([("source", 7), (7, "sink")])
    network = Network.from_networkx(graph, ["source"], ["sink"])
    assert network.labels == ("source", "sink", "7")
    assert network.edges.tolist() == [[0, 2], [1, 2]]
    assert network.positions is not None
    assert network.positions.tolist() == [[0, 1], [2, 1], [1, 0]]
    del graph.nodes[7]["pos"]
    assert Network.from_networkx(graph, ["source"], ["sink"]).positions is None


def test_a_multigraph_keeps_its_parallel_edges() -> None:
    graph: nx.MultiGraph[Any] = nx.MultiGraph([("a", "b"), ("a", "b"), ("b", "c"), ("b", "a")])
    network = Network.from_networkx(graph, ["a"], ["c"])
    assert network.n_edges == 4
    assert sorted(map(sorted, network.edges.tolist())) == [[0, 1], [0, 1], [0, 1], [1, 2]]


@settings(deadline=None)
@given(st.integers(2, 8), st.randoms(use_true_random=False))
def test_any_spanning_tree_is_a_board_and_loses_a_part_with_any_edge(n_nodes: int, random: Any) -> None:
    edges = [[random.randrange(node), node] for node in range(1, n_nodes)]
    network = Network(n_nodes, edges, [0], [n_nodes - 1])
    assert len(network.hidden) == n_nodes - 2
    for cut in range(len(edges)):
        if len(edges) > 1:
            with pytest.raises(NetworkError, match="2 separate parts"):
                Network(n_nodes, edges[:cut] + edges[cut + 1 :], [0], [n_nodes - 1])
