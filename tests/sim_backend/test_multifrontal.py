from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import splu

from hilcl import Network
from hilcl.errors import SolverError
from hilcl.sim_backend import multifrontal_solver
from hilcl.sim_backend.graphs import adjacency, padded
from hilcl.sim_backend.multifrontal import analyse, factor_flops
from hilcl.sim_backend.multifrontal_solver import MultifrontalSolver, cheapest_analysis, nested_dissection
from hilcl.sim_backend.ordering import minimum_degree
from hilcl.sim_backend.symbolic import column_counts, elimination_tree, postorder
from tests.sim_backend.boards import conductances_of, networks

IntArray = npt.NDArray[np.int64]
Graph = tuple[IntArray, IntArray]


def graph_of(network: Network) -> Graph:
    return adjacency(network.n_nodes, network.edges, network.floating)


def layers(width: int, depth: int) -> Network:
    number = np.arange(width * depth).reshape(depth, width)
    edges = [[a, b] for left, right in pairwise(number) for a in left for b in right]
    return Network(width * depth, edges, [0], [width * depth - 1])


def expander(n_nodes: int) -> Network:
    generator = np.random.default_rng(0)
    return Network(n_nodes, np.concatenate([generator.permutation(n_nodes).reshape(-1, 2) for _ in range(4)]), [0], [1])


GRAPHS = {
    "grid": Network.grid(17, 23),
    "torus": Network.torus(9, 8),
    "star": Network(60, [[30, node] for node in range(60) if node != 30], [0], []),
    "chain": Network.grid(1, 50),
    "complete": Network(12, [[a, b] for a in range(12) for b in range(a)], [3], []),
    "layers": layers(9, 5),
    "expander": expander(300),
    "in parts once the input is driven": Network(31, [[0, node] for node in range(1, 31)], [0], []),
}


def order_of(graph: Graph) -> IntArray:
    ranks, _ = minimum_degree(*graph, np.inf)
    return np.argsort(ranks, kind="stable")


def factor_pattern(graph: Graph, order: IntArray) -> npt.NDArray[np.bool_]:
    """Return where the factor has entries, by elimination as in the textbook."""
    size = len(order)
    pattern = np.eye(size, dtype=np.bool_)
    place = np.argsort(order)
    for node in range(size):
        pattern[place[node], place[graph[1][graph[0][node] : graph[0][node + 1]]]] = True
    for column in range(size):
        below = column + 1 + np.flatnonzero(pattern[column + 1 :, column])
        pattern[np.ix_(below, below)] = True
    return np.tril(pattern)


@pytest.mark.parametrize("name", GRAPHS)
def test_minimum_degree_is_an_order_and_its_flops_bound_those_of_the_factor(name: str) -> None:
    graph = graph_of(GRAPHS[name])
    order = order_of(graph)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))
    counts = factor_pattern(graph, order).sum(axis=0).astype(float)
    assert factor_flops(*graph, order) == (counts**2).sum() <= minimum_degree(*graph, np.inf)[1]


def test_minimum_degree_fills_little_more_than_that_of_superlu() -> None:
    graph = graph_of(Network.grid(60, 60))
    size = len(graph[0]) - 1
    matrix = sparse.csc_matrix((-np.ones(len(graph[1])), graph[1], graph[0]), shape=(size, size))
    factor = splu(
        sparse.csc_matrix(matrix + 5 * sparse.eye_array(size)),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    theirs = (np.diff(factor.L.tocsc().indptr).astype(float) ** 2).sum()
    assert factor_flops(*graph, order_of(graph)) < 1.5 * theirs


def test_minimum_degree_gives_up_beyond_the_flops_allowed() -> None:
    graph = graph_of(expander(300))
    ranks, flops = minimum_degree(*graph, 1e4)
    assert not len(ranks)
    assert flops > 1e4
    assert cheapest_analysis(*graph, 1e4) is None


@pytest.mark.parametrize("name", GRAPHS)
def test_the_analysis_covers_the_factor(name: str) -> None:
    graph = graph_of(GRAPHS[name])
    order = order_of(graph)
    order = order[postorder(elimination_tree(*graph, order))]
    parent = elimination_tree(*graph, order)
    pattern = factor_pattern(graph, order)
    np.testing.assert_array_equal(column_counts(*graph, order, parent), pattern.sum(axis=0))
    for column, above in enumerate(parent):
        below = np.flatnonzero(pattern[column + 1 :, column])
        assert above == (column + 1 + below[0] if len(below) else -1)
    parts = analyse(*graph, order)
    np.testing.assert_array_equal(np.sort(parts.order), np.arange(len(order)))
    pattern = factor_pattern(graph, parts.order)
    for s, above in enumerate(parts.tree):
        rows = parts.rows[parts.row_starts[s] : parts.row_starts[s + 1]]
        low, high = parts.begin[s], parts.begin[s + 1]
        np.testing.assert_array_equal(rows[: high - low], np.arange(low, high))
        assert (np.diff(rows) > 0).all()
        for column in range(low, high):
            assert set(np.flatnonzero(pattern[:, column])) <= set(rows[rows >= column])
        if above >= 0:
            theirs = parts.rows[parts.row_starts[above] : parts.row_starts[above + 1]]
            relative = parts.relative[parts.row_starts[s] + high - low : parts.row_starts[s + 1]]
            np.testing.assert_array_equal(theirs[relative], rows[high - low :])
            assert above > s


def test_graphs_in_layers_keep_their_order_where_that_is_cheaper() -> None:
    graph = graph_of(layers(20, 8))
    natural = np.arange(len(graph[0]) - 1)
    chosen = cheapest_analysis(*graph)
    assert chosen is not None
    assert chosen.flops <= min(factor_flops(*graph, natural), factor_flops(*graph, order_of(graph)))


def test_large_graphs_are_dissected_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(Network.grid(150, 150, inputs=[0], outputs=[1]))
    dissected = nested_dissection(*graph)
    np.testing.assert_array_equal(np.sort(dissected), np.arange(len(graph[0]) - 1))
    fewest, by_degree = factor_flops(*graph, dissected), factor_flops(*graph, order_of(graph))
    assert fewest < by_degree
    small = cheapest_analysis(*graph)
    monkeypatch.setattr(multifrontal_solver, "DISSECTED_FROM", 1e6)
    large = cheapest_analysis(*graph)
    assert small is not None
    assert large is not None
    assert (small.flops, large.flops) == (by_degree, fewest)


def test_what_ends_metis_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: object) -> object:
        raise RuntimeError("Caught an unknown exception!")

    monkeypatch.setattr("pymetis.nested_dissection", stopped)
    with pytest.raises(SolverError, match="METIS was stopped"):
        nested_dissection(*graph_of(GRAPHS["grid"]))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_solutions_have_small_residuals_on_random_boards(data: st.DataObject) -> None:
    network = data.draw(networks(max_nodes=30))
    conductances = data.draw(conductances_of(network))
    solver = MultifrontalSolver.within(np.inf, network.n_nodes, network.edges, network.floating)
    assert solver is not None
    rhs = np.random.default_rng(0).normal(size=(len(network.floating), data.draw(st.integers(1, 13))))
    solver.factor(conductances)
    solution = solver.solve(rhs)
    incidence = network.incidence[network.floating, :].toarray()
    laplacian = incidence * conductances @ incidence.T
    scale = np.abs(laplacian) @ np.abs(solution) + np.abs(rhs)
    assert (np.abs(laplacian @ solution - rhs) <= 1e-13 * scale).all()


@pytest.mark.parametrize("columns", [1, 4, 7, 12, 13, 30])
def test_fronts_of_every_size_and_any_number_of_columns(columns: int) -> None:
    """A complete graph within a grid: fronts for the kernels here and for LAPACK."""
    clique = [[a, b] for a in range(200, 400) for b in range(200, a)]
    network = Network(900, np.concatenate([Network.grid(30, 30).edges, clique]), [0, 899], [450])
    conductances = np.random.default_rng(1).uniform(1e-4, 1e-3, network.n_edges)
    solver = MultifrontalSolver.within(np.inf, network.n_nodes, network.edges, network.floating)
    assert solver is not None
    solver.factor(conductances)
    rhs = np.random.default_rng(2).normal(size=(898, columns))
    incidence = network.incidence[network.floating, :]
    solution = solver.solve(rhs)
    residual = incidence @ (conductances[:, None] * (incidence.T @ solution)) - rhs
    assert (
        np.abs(residual).max()
        < 1e-14 * np.abs(incidence.toarray() * conductances).sum(axis=1).max() * np.abs(solution).max()
    )


def test_loads_at_few_nodes_are_solved_as_any_others() -> None:
    network = Network.grid(40, 40, inputs=[0, 820], outputs=[5])
    solver = MultifrontalSolver.within(np.inf, network.n_nodes, network.edges, network.floating)
    assert solver is not None
    solver.factor(np.random.default_rng(0).uniform(1e-4, 1e-3, network.n_edges))
    loaded = np.array([3, 700, 1500])
    sparse_loads = np.zeros((1600, padded(3)))
    sparse_loads[loaded] = np.random.default_rng(1).normal(size=(3, 4))
    dense_loads = sparse_loads.copy()
    solver.substitute(sparse_loads, loaded)
    solver.substitute(dense_loads)
    np.testing.assert_array_equal(sparse_loads, dense_loads)
    assert solver.n_bytes < 10_000_000
