import importlib.util
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Network
from hilcl.errors import InputError, SolverError
from hilcl.sim_backend.fixed_pattern import GroundedEdges
from hilcl.sim_backend.solvers import DENSE_UP_TO, SolverName, make_solver
from tests.sim_backend.boards import HOSTILE, conductances_of, mixed, networks

FloatArray = npt.NDArray[np.float64]

NAMES: list[SolverName] = ["dense", "superlu", "qdldl", "fused", "multifrontal", "pcg", "cholmod"]


def laplacian(network: Network, conductances: FloatArray) -> FloatArray:
    """Return L_FF, dense, straight from its definition D G Dᵀ."""
    incidence = np.zeros((network.n_nodes, network.n_edges))
    for edge, (first, second) in enumerate(network.edges):
        incidence[first, edge] += 1
        incidence[second, edge] -= 1
    whole = incidence @ np.diag(conductances) @ incidence.T
    return whole[np.ix_(network.floating, network.floating)]


def solved(network: Network, conductances: FloatArray, rhs: FloatArray, name: SolverName) -> FloatArray:
    solver = make_solver(network.n_nodes, network.edges, network.floating, name)
    solver.factor(conductances)
    return solver.solve(np.asfortranarray(rhs))


FACTORING = [name for name in NAMES if name != "pcg"]
"""Those that form the diagonal of the Laplacian; conjugate gradients go edge by edge."""

BENIGN = {
    "grid": Network.grid(15, 15, outputs=[7, 100]),
    "torus": Network.torus(6, 7, inputs=[0, 3], outputs=[20]),
    "crossbar": Network.crossbar(6, 9),
    "one floating node": Network(3, [[0, 1], [2, 1], [1, 2]], [0, 2], [1]),
    "no edge between floating nodes": Network(4, [[0, 1], [0, 2], [3, 2], [1, 3]], [0, 3], [1]),
    "one input": Network(4, [[0, 1], [1, 2], [2, 3], [3, 0]], [2], []),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("board", BENIGN)
def test_every_solver_solves_the_laplacian(board: str, name: SolverName) -> None:
    network, generator = BENIGN[board], np.random.default_rng(3)
    conductances = generator.uniform(1e-4, 1e-3, network.n_edges)
    rhs = generator.normal(size=(len(network.floating), 4))
    solution = solved(network, conductances, rhs, name)
    np.testing.assert_allclose(solution, np.linalg.solve(laplacian(network, conductances), rhs), rtol=1e-11)
    assert solution.flags.f_contiguous


@pytest.mark.parametrize("board", HOSTILE)
def test_the_solvers_agree_on_hostile_boards(board: str) -> None:
    network, conductances = HOSTILE[board]
    rhs = np.eye(len(network.floating))
    dense, *others = (solved(network, conductances, rhs, name) for name in NAMES)
    for solution in others:
        np.testing.assert_allclose(solution, dense, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_solvers_agree_on_random_boards(data: st.DataObject) -> None:
    network = data.draw(networks(max_nodes=9))
    conductances = data.draw(conductances_of(network))
    rhs = np.eye(len(network.floating))
    if not rhs.size:
        return
    dense, *others = (solved(network, conductances, rhs, name) for name in NAMES)
    for solution in others:
        np.testing.assert_allclose(solution, dense, rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_factoring_again_is_the_same_as_a_new_solver(name: SolverName) -> None:
    network = Network.torus(5, 5, outputs=[8])
    rhs = np.asfortranarray(np.random.default_rng(0).normal(size=(len(network.floating), 3)))
    solver = make_solver(network.n_nodes, network.edges, network.floating, name)
    for seed in range(4):
        conductances = mixed(network.n_edges, seed)
        solver.factor(conductances)
        np.testing.assert_array_equal(solver.solve(rhs), solved(network, conductances, rhs, name))


@pytest.mark.parametrize("name", NAMES)
def test_the_conductances_and_the_right_hand_sides_are_left_alone(name: SolverName) -> None:
    network = Network.grid(4, 4)
    conductances = mixed(network.n_edges, 5)
    rhs = np.asfortranarray(np.random.default_rng(0).normal(size=(len(network.floating), 2)))
    before = conductances.copy(), rhs.copy()
    solver = make_solver(network.n_nodes, network.edges, network.floating, name)
    solver.factor(conductances)
    first = solver.solve(rhs)
    np.testing.assert_array_equal(solver.solve(rhs), first)
    np.testing.assert_array_equal(conductances, before[0])
    np.testing.assert_array_equal(rhs, before[1])


@pytest.mark.parametrize("name", FACTORING)
def test_a_circuit_that_rounds_to_singular_is_refused(name: SolverName) -> None:
    # 1e-11 S beside 1e6 S vanishes in the diagonal: to rounding, the floating part is tied to nothing.
    network = Network(4, [[0, 1], [1, 2], [2, 3]], [0], [3])
    solver = make_solver(network.n_nodes, network.edges, network.floating, name)
    with pytest.raises(SolverError, match="no unique solution"):
        solver.factor(np.array([1e-11, 1e6, 1e6]))


@pytest.mark.parametrize("name", FACTORING)
def test_a_solver_recovers_from_a_singular_circuit(name: SolverName) -> None:
    network = Network(4, [[0, 1], [1, 2], [2, 3]], [0], [3])
    solver = make_solver(network.n_nodes, network.edges, network.floating, name)
    solver.factor(np.array([1.0, 1.0, 1.0]))
    with pytest.raises(SolverError):
        solver.factor(np.array([1e-11, 1e6, 1e6]))
    solver.factor(np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(solver.solve(np.asfortranarray([[0.0], [0.0], [1.0]])).ravel(), [1, 1.5, 1.75])


def chosen(network: Network) -> str:
    return make_solver(network.n_nodes, network.edges, network.floating).name


def test_auto_takes_dense_for_small_and_full_boards_and_sparse_for_large_ones() -> None:
    assert chosen(Network.grid(5, 5)) == "dense"
    assert chosen(Network.grid(1, DENSE_UP_TO["qdldl"] + 2)) == "dense"
    assert chosen(Network.grid(1, DENSE_UP_TO["qdldl"] + 3)) == "qdldl"
    complete = [[a, b] for a in range(DENSE_UP_TO["qdldl"] + 20) for b in range(a)]
    assert chosen(Network(DENSE_UP_TO["qdldl"] + 20, complete, [0], [1])) == "dense"


def test_auto_falls_back_to_superlu_without_qdldl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    network = Network.grid(1, DENSE_UP_TO["superlu"] + 3)
    assert chosen(Network.grid(1, DENSE_UP_TO["superlu"] + 2)) == "dense"
    assert chosen(network) == "superlu"
    with pytest.raises(InputError, match=r"qdldl is not installed: pip install 'hilcl\[fast\]'"):
        make_solver(network.n_nodes, network.edges, network.floating, "qdldl")


def test_an_unknown_solver_is_refused_with_the_choices() -> None:
    network = Network.grid(2, 2)
    with pytest.raises(InputError, match="no solver 'lu'") as caught:
        make_solver(network.n_nodes, network.edges, network.floating, "lu")  # type: ignore[arg-type]
    assert all(name in str(caught.value) for name in get_args(SolverName))


def test_fill_is_the_share_of_entries_that_are_not_zero() -> None:
    network = Network.torus(4, 5, inputs=[0], outputs=[1])
    grounded = GroundedEdges(network.n_nodes, network.edges, network.floating)
    matrix = laplacian(network, np.ones(network.n_edges))
    assert grounded.fill == np.count_nonzero(matrix) / matrix.size
