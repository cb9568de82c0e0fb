import numpy as np
import pytest

from hilcl import Network
from hilcl.errors import SolverError
from hilcl.sim_backend import conjugate_gradients
from hilcl.sim_backend.conjugate_gradients import ConjugateGradientSolver
from tests.sim_backend.test_multifrontal import expander


def solver_of(network: Network) -> ConjugateGradientSolver:
    return ConjugateGradientSolver(network.n_nodes, network.edges, network.floating)


def test_expanders_take_few_iterations_and_keep_kirchhoffs_law() -> None:
    network = expander(3000)
    conductances = np.random.default_rng(1).uniform(1e-4, 1e-3, network.n_edges)
    solver = solver_of(network)
    solver.factor(conductances)
    rhs = np.random.default_rng(2).normal(size=(len(network.floating), 5))
    solution = solver.solve(rhs)
    assert solver.iterations < 150
    incidence = network.incidence[network.floating, :]
    residual = incidence @ (conductances[:, None] * (incidence.T @ solution)) - rhs
    assert np.abs(residual).max() < 1e-12


def test_a_small_conductance_is_not_lost_in_the_diagonal() -> None:
    """1e-11 S beside 1e6 S: a factorisation would call this circuit singular."""
    network = Network(4, [[0, 1], [1, 2], [2, 3]], [0], [3])
    solver = solver_of(network)
    solver.factor(np.array([1e-11, 1e6, 1e6]))
    np.testing.assert_allclose(solver.solve(np.array([[0.0], [0.0], [1e-11]])).ravel(), 1.0, rtol=1e-4)


def test_columns_of_zeros_and_driven_rows_are_left_alone() -> None:
    network = expander(20)
    solver = solver_of(network)
    solver.factor(np.ones(network.n_edges))
    x = np.zeros((20, 4))
    x[3, 1], x[19] = 1.0, 7.0
    solver.substitute(x)
    assert not x[:19, [0, 2, 3]].any()
    assert x[:19, 1].all()
    np.testing.assert_array_equal(x[19], 7.0)


def test_too_many_iterations_are_an_error_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conjugate_gradients, "MAX_ITERATIONS", 20)
    network = Network.grid(1, 200)
    solver = solver_of(network)
    solver.factor(np.ones(network.n_edges))
    with pytest.raises(SolverError, match=r'did not converge in 20 iterations: choose the solver "multifrontal"'):
        solver.solve(np.ones((198, 1)))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_conductances_that_leave_a_node_alone_are_singular(value: float) -> None:
    network = Network.grid(1, 5)
    solver = solver_of(network)
    solver.factor(np.full(4, value))
    with pytest.raises(SolverError, match="no unique solution"):
        solver.solve(np.ones((3, 1)))
