"""Boards too large for rational elimination: residuals are rational instead, and refined until nothing is left."""

import importlib.util
import subprocess
import sys
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from hilcl import Network
from hilcl.board import free_drives
from hilcl.sim_backend import solvers
from hilcl.sim_backend.basis import Accuracy, Basis, BasisSolver
from hilcl.sim_backend.board import SimulatedBoard
from hilcl.sim_backend.solvers import SolverName
from hilcl.sim_backend.terminals import settle_ideal
from tests.sim_backend.boards import mixed
from tests.sim_backend.test_basis import imbalances
from tests.sim_backend.test_multifrontal import expander

FloatArray = npt.NDArray[np.float64]

NETWORK = Network.grid(40, 40, inputs=[0, 700, 1599], outputs=[100, 820, 1500])
CONDUCTANCES = mixed(NETWORK.n_edges, 7)


def reference(held: npt.NDArray[np.int64], volts: list[float]) -> list[Fraction]:
    """Return the potentials with nodes ``held`` at ``volts`` to far more digits than a double has."""
    moving = np.setdiff1d(np.arange(NETWORK.n_nodes), held)
    solver = solvers.make_solver(NETWORK.n_nodes, NETWORK.edges, moving, "superlu")
    solver.factor(CONDUCTANCES)
    potentials = [Fraction(0)] * NETWORK.n_nodes
    for node, at in zip(held, volts, strict=True):
        potentials[node] = Fraction(at)
    g = [Fraction(float(value)) for value in CONDUCTANCES]
    for _ in range(4):
        missing = [Fraction(0)] * NETWORK.n_nodes
        for value, (first, second) in zip(g, NETWORK.edges.tolist(), strict=True):
            current = value * (potentials[first] - potentials[second])
            missing[first] -= current
            missing[second] += current
        rhs = np.array([[float(missing[node])] for node in moving], order="F")
        for node, change in zip(moving, solver.solve(rhs).ravel(), strict=True):
            potentials[node] += Fraction(float(change))
    return potentials


@pytest.fixture(params=["superlu", "multifrontal"])
def certified(request: pytest.FixtureRequest) -> Basis:
    name: SolverName = request.param
    return BasisSolver(NETWORK, name, "certified").solve(CONDUCTANCES)


@pytest.mark.parametrize("clamped", [False, True], ids=["free", "clamped"])
def test_certified_potentials_and_edge_voltages_are_exact(certified: Basis, clamped: bool) -> None:
    inputs, targets = [0.0, 1.0, 0.25], [0.3, 0.6, 0.1] if clamped else [np.nan] * 3
    state = settle_ideal(certified, np.array([inputs]), np.array([targets]), edge_voltages=True)
    held = np.concatenate([NETWORK.inputs, NETWORK.outputs if clamped else []]).astype(np.int64)
    exact = reference(held, [*inputs, *targets] if clamped else inputs)
    error = [abs(Fraction(float(p)) - q) for p, q in zip(state.potentials[0], exact, strict=True)]
    assert float(max(error)) <= 1e-15
    assert state.edge_voltages is not None
    volts = [exact[first] - exact[second] for first, second in NETWORK.edges.tolist()]
    relative = [abs(Fraction(float(v)) - w) / abs(w) for v, w in zip(state.edge_voltages[0], volts, strict=True)]
    assert float(sorted(relative)[len(relative) // 2]) <= 1e-15


def test_certified_rows_keep_kirchhoffs_law_at_every_node(certified: Basis) -> None:
    for row in certified.input_voltages:
        assert imbalances(NETWORK, CONDUCTANCES, row, NETWORK.floating).max() <= 1e-14
    hidden = certified.clamp(np.arange(3)).voltages
    for row in hidden:
        assert imbalances(NETWORK, CONDUCTANCES, row, NETWORK.hidden).max() <= 1e-14


def test_iterations_are_certified_on_an_expander() -> None:
    network = expander(1000)
    conductances = mixed(network.n_edges, 3)
    basis = BasisSolver(network, "pcg", "certified").solve(conductances)
    assert imbalances(network, conductances, basis.input_voltages[0], network.floating).max() <= 1e-14


@pytest.mark.parametrize("accuracy", ["standard", "certified"])
@pytest.mark.parametrize("n_samples", [1, 30])
def test_a_contrast_node_by_node_is_the_contrast_by_rows(accuracy: Accuracy, n_samples: int) -> None:
    generator = np.random.default_rng(0)
    inputs, targets = generator.uniform(0, 1, (n_samples, 3)), generator.uniform(0, 1, (n_samples, 3))
    g = generator.uniform(1e-4, 1e-3, NETWORK.n_edges)
    names: tuple[SolverName, SolverName] = ("multifrontal", "superlu")
    ours, theirs = (
        SimulatedBoard(NETWORK, g, solver=name, accuracy=accuracy).contrast(inputs, targets, 0.3) for name in names
    )
    np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=0, atol=1e-11 * np.abs(theirs.gradient).max())
    np.testing.assert_allclose(ours.outputs, theirs.outputs, rtol=1e-12)
    np.testing.assert_allclose(ours.contrast, theirs.contrast, rtol=1e-10)
    np.testing.assert_allclose(ours.power_free, theirs.power_free, rtol=1e-11)


def test_responses_node_by_node_are_those_by_rows() -> None:
    inputs = np.array([[0.0, 1.0, 0.5], [0.2, 0.1, -0.3]])
    drives = np.concatenate([free_drives(inputs, 3), np.hstack([inputs, [[0.5, np.nan, 0.2]] * 2])])
    ours, theirs = (
        SimulatedBoard(NETWORK, np.full(NETWORK.n_edges, 1e-3), solver=name).respond(drives)
        for name in ("multifrontal", "superlu")  # type: tuple[SolverName, SolverName]
    )
    np.testing.assert_allclose(ours.potentials, theirs.potentials, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.currents, theirs.currents, rtol=0, atol=1e-14)


def test_a_basis_refines_with_its_own_conductances_after_others_were_factored() -> None:
    solver = BasisSolver(NETWORK, "multifrontal", "certified")
    basis = solver.solve(CONDUCTANCES)
    solver.solve(CONDUCTANCES[::-1].copy())
    late = basis.clamp(np.array([1])).voltages[0]
    moving = np.setdiff1d(NETWORK.floating, NETWORK.outputs[[1]])
    assert imbalances(NETWORK, CONDUCTANCES, late, moving).max() <= 1e-14


def chosen(network: Network, accuracy: Accuracy = "standard") -> str:
    return BasisSolver(network, accuracy=accuracy).solver_name


def test_auto_takes_compiled_code_for_large_boards_and_iterates_on_expanders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Network.grid(44, 45)) == "qdldl"
    assert chosen(Network.grid(46, 46)) == "multifrontal"
    assert chosen(Network.grid(5, 5), "certified") == "multifrontal"
    assert chosen(expander(2100)) == "multifrontal"
    monkeypatch.setattr(solvers, "PCG_FROM", 1e4)
    assert chosen(expander(2100)) == "pcg"
    assert chosen(Network.grid(46, 46)) == "multifrontal"


def test_auto_does_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else name)
    assert chosen(Network.grid(46, 46)) == "qdldl"
    assert chosen(Network.grid(5, 5), "certified") == "dense"


def test_a_small_board_does_not_load_numba() -> None:
    code = (
        "import sys, numpy as np\nfrom hilcl import Network\nfrom hilcl.sim_backend.board import SimulatedBoard\n"
        "board = SimulatedBoard(Network.grid(30, 30, outputs=[5]), 1e-3)\n"
        "board.contrast(np.ones((1, 2)), np.ones((1, 1)), 1.0)\nassert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
