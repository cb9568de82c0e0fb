from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Network
from hilcl.errors import SolverError
from hilcl.sim_backend.basis import Accuracy, Basis, BasisSolver
from hilcl.sim_backend.solvers import SolverName
from hilcl.sim_backend.terminals import settle_ideal
from tests.sim_backend.boards import HOSTILE, VOLTS, conductances_of, networks
from tests.sim_backend.exact_oracle import (
    ExactState,
    absolute_errors,
    as_floats,
    exact_state,
    relative_errors,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SOLVERS: list[SolverName] = ["dense", "superlu", "qdldl", "fused", "multifrontal", "pcg", "cholmod"]

STANDARD = 1e-9
"""What "standard" keeps of node potentials, relative to the driven span, on boards that mix 1e-6 S and 2e-2 S."""


def state_of(basis: Basis, inputs: FloatArray, targets: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Return node potentials (N,) and edge voltages (M,) of one free or clamped sample."""
    held = np.full(len(basis.network.outputs), np.nan) if targets is None else targets
    state = settle_ideal(basis, inputs[None], held[None], edge_voltages=True)
    assert state.edge_voltages is not None
    return state.potentials[0], state.edge_voltages[0]


def exact_of(network: Network, conductances: FloatArray, inputs: FloatArray, targets: FloatArray | None) -> ExactState:
    held = np.full(len(network.outputs), np.nan) if targets is None else targets
    return exact_state(network, conductances, [*inputs, *held])


def samples(network: Network) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield inputs and targets: one volt at each input alone, then volts of either sign at all."""
    generator = np.random.default_rng(0)
    n_inputs, n_outputs = len(network.inputs), len(network.outputs)
    for inputs in (*np.eye(n_inputs), generator.uniform(-1, 1, n_inputs)):
        yield inputs, generator.uniform(inputs.min(), inputs.max(), n_outputs)


def imbalances(network: Network, conductances: FloatArray, voltages: FloatArray, nodes: IntArray) -> FloatArray:
    """Return |Σ I| / Σ |I| at each node, summed exactly; 0 where the currents are below the rounding of 1e-28 V."""
    ratios = []
    for node in nodes:
        touching = np.flatnonzero((network.edges == node).any(axis=1))
        signs = np.where(network.edges[touching, 0] == node, 1, -1)
        currents = [
            Fraction(float(conductances[e])) * Fraction(float(voltages[e])) * int(sign)
            for e, sign in zip(touching, signs, strict=True)
        ]
        traffic = float(sum(map(abs, currents)))
        dead = traffic <= 1e-26 * conductances[touching].sum()
        ratios.append(0.0 if dead else abs(float(sum(currents))) / traffic)
    return np.array(ratios)


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> SolverName:
    name: SolverName = request.param
    return name


@pytest.mark.parametrize("board", HOSTILE)
class TestCertifiedFreePhase:
    """What "exact" means (docs/accuracy-and-speed.md), held against rational arithmetic."""

    def test_kirchhoff_holds_at_every_floating_node(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, _ in samples(network):
            _, voltages = state_of(basis, inputs, None)
            assert imbalances(network, conductances, voltages, network.floating).max() <= 1e-14

    def test_potentials_are_exact_to_the_driven_span(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, _ in samples(network):
            potentials, _ = state_of(basis, inputs, None)
            exact = exact_of(network, conductances, inputs, None)
            assert absolute_errors(potentials, exact.potentials).max() <= 1e-15 * np.abs(inputs).max()

    def test_every_potential_is_exact_to_its_own_size(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs in np.eye(len(network.inputs)):
            potentials, _ = state_of(basis, inputs, None)
            exact = exact_of(network, conductances, inputs, None)
            assert relative_errors(potentials, exact.potentials).max() <= 1e-14

    def test_the_median_edge_voltage_is_exact(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, _ in samples(network):
            _, voltages = state_of(basis, inputs, None)
            exact = exact_of(network, conductances, inputs, None)
            assert np.median(relative_errors(voltages, exact.voltages)) <= 1e-15


@pytest.mark.parametrize("board", HOSTILE)
class TestCertifiedClampedPhase:
    """The same promise with the outputs held."""

    def test_kirchhoff_holds_at_every_hidden_node(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, targets in samples(network):
            _, voltages = state_of(basis, inputs, targets)
            assert imbalances(network, conductances, voltages, network.hidden).max() <= 1e-14

    def test_potentials_are_exact_to_the_driven_span(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, targets in samples(network):
            potentials, _ = state_of(basis, inputs, targets)
            exact = exact_of(network, conductances, inputs, targets)
            assert absolute_errors(potentials, exact.potentials).max() <= 1e-14 * np.abs(inputs).max()

    def test_the_median_edge_voltage_is_exact(self, board: str, solver: SolverName) -> None:
        network, conductances = HOSTILE[board]
        basis = BasisSolver(network, solver, "certified").solve(conductances)
        for inputs, targets in samples(network):
            _, voltages = state_of(basis, inputs, targets)
            exact = exact_of(network, conductances, inputs, targets)
            assert np.median(relative_errors(voltages, exact.voltages)) <= 1e-15


@settings(deadline=None, max_examples=120)
@given(st.data(), st.sampled_from(SOLVERS))
def test_certified_free_states_are_exact_on_random_boards(data: st.DataObject, solver: SolverName) -> None:
    network = data.draw(networks())
    conductances = data.draw(conductances_of(network))
    inputs = np.array(data.draw(st.lists(VOLTS, min_size=len(network.inputs), max_size=len(network.inputs))))
    basis = BasisSolver(network, solver, "certified").solve(conductances)
    potentials, voltages = state_of(basis, inputs, None)
    exact = exact_of(network, conductances, inputs, None)
    assert absolute_errors(potentials, exact.potentials).max() <= 1e-14 * np.abs(inputs).max()
    span = np.ptp(inputs)
    alive = np.abs(as_floats(exact.voltages)) > 1e-14 * span
    chosen = [volts for volts, is_alive in zip(exact.voltages, alive, strict=True) if is_alive]
    if len(inputs) == 2 and chosen:
        assert np.median(relative_errors(voltages[alive], chosen)) <= 1e-15
        assert imbalances(network, conductances, voltages, network.floating).max(initial=0) <= 1e-14


@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from(SOLVERS))
def test_certified_is_right_or_says_that_it_cannot_be(data: st.DataObject, solver: SolverName) -> None:
    """Far beyond what a board mixes, over 24 decades: a few digits may go, but never silently more."""
    network = data.draw(networks())
    exponents = data.draw(st.lists(st.floats(-12, 12), min_size=network.n_edges, max_size=network.n_edges))
    conductances = 10.0 ** np.array(exponents)
    try:
        basis = BasisSolver(network, solver, "certified").solve(conductances)
    except SolverError as refused:
        assert "narrow the conductance range" in str(refused)  # noqa: PT017
        return
    inputs = np.linspace(0.0, 1.0, len(network.inputs))
    potentials, _ = state_of(basis, inputs, None)
    exact = exact_of(network, conductances, inputs, None)
    assert absolute_errors(potentials, exact.potentials).max() <= 1e-10


@pytest.mark.parametrize("board", HOSTILE)
@pytest.mark.parametrize("clamped", [False, True], ids=["free", "clamped"])
def test_standard_keeps_its_looser_bound(board: str, solver: SolverName, clamped: bool) -> None:
    network, conductances = HOSTILE[board]
    basis = BasisSolver(network, solver, "standard").solve(conductances)
    for inputs, drawn in samples(network):
        targets = drawn if clamped else None
        potentials, voltages = state_of(basis, inputs, targets)
        exact = exact_of(network, conductances, inputs, targets)
        span = np.abs(inputs).max()
        assert absolute_errors(potentials, exact.potentials).max() <= STANDARD * span
        assert absolute_errors(voltages, exact.voltages).max() <= STANDARD * span


@settings(deadline=None, max_examples=120)
@given(st.data(), st.sampled_from(SOLVERS))
def test_standard_keeps_its_looser_bound_on_random_boards(data: st.DataObject, solver: SolverName) -> None:
    network = data.draw(networks())
    conductances = data.draw(conductances_of(network))
    inputs = np.linspace(-1.0, 1.0, len(network.inputs))
    targets = np.linspace(1.0, 0.0, len(network.outputs)) if data.draw(st.booleans()) else None
    potentials, _ = state_of(BasisSolver(network, solver).solve(conductances), inputs, targets)
    exact = exact_of(network, conductances, inputs, targets)
    assert absolute_errors(potentials, exact.potentials).max() <= STANDARD


@pytest.mark.parametrize("accuracy", ["standard", "certified"])
def test_the_parts_of_a_basis(accuracy: Accuracy) -> None:
    """Transfer, impedance, clamp rows and input currents against dense block elimination."""
    network = Network.torus(4, 4, inputs=[3, 9, 12], outputs=[0, 6])
    generator = np.random.default_rng(4)
    conductances = generator.uniform(1e-4, 1e-3, network.n_edges)
    basis = BasisSolver(network, accuracy=accuracy).solve(conductances)
    incidence = network.incidence.toarray()
    whole = incidence @ np.diag(conductances) @ incidence.T
    inputs, outputs, floating = network.inputs, network.outputs, network.floating
    inverse = np.linalg.inv(whole[np.ix_(floating, floating)])
    at_outputs = np.searchsorted(floating, outputs)
    transfer = -(inverse @ whole[np.ix_(floating, inputs)])[at_outputs].T
    np.testing.assert_allclose(basis.transfer, transfer[-len(basis.transfer) :], rtol=1e-12)
    np.testing.assert_allclose(basis.impedance, inverse[np.ix_(at_outputs, at_outputs)], rtol=1e-12)
    np.testing.assert_array_equal(basis.impedance, basis.impedance.T)
    schur = whole[np.ix_(inputs, inputs)] - whole[np.ix_(inputs, floating)] @ inverse @ whole[np.ix_(floating, inputs)]
    into_inputs = basis.input_admittance
    np.testing.assert_allclose(into_inputs, schur[-len(into_inputs) :], rtol=1e-11)
    # One ampere into an output leaves by the inputs.
    np.testing.assert_allclose(basis.inflow(basis.output_states).sum(axis=1), -1.0, rtol=1e-12)
    volts = generator.uniform(-1, 1, (3, 3))
    np.testing.assert_allclose(basis.node_potentials(volts)[:, outputs], volts @ transfer, rtol=0, atol=1e-14)
    displacement = generator.uniform(-1, 1, (5, 2))
    clamp = basis.clamp(np.arange(2))
    moved = clamp.coefficients(displacement)
    np.testing.assert_allclose((moved @ clamp.potentials)[:, outputs], displacement, rtol=0, atol=1e-13)
    expected = np.linalg.solve(inverse[np.ix_(at_outputs, at_outputs)], displacement.T).T
    np.testing.assert_allclose(clamp.currents(displacement, moved), expected, rtol=1e-11, atol=1e-16)


def test_driven_inputs_are_exactly_their_volts() -> None:
    network = Network.torus(4, 4, inputs=[3, 9, 12], outputs=[0, 6])
    basis = BasisSolver(network).solve(np.full(network.n_edges, 1e-3))
    for inputs in np.array([[0.1, 0.7, -0.3], [1 / 3, 2 / 3, 1.0]]):
        np.testing.assert_array_equal(state_of(basis, inputs, None)[0][network.inputs], inputs)


def test_one_input_alone_lifts_the_whole_board() -> None:
    network = Network.grid(3, 3, inputs=[4], outputs=[0])
    basis = BasisSolver(network, accuracy="certified").solve(np.linspace(1e-4, 1e-2, network.n_edges))
    potentials, voltages = state_of(basis, np.array([0.7]), None)
    np.testing.assert_array_equal(potentials, np.full(9, 0.7))
    np.testing.assert_array_equal(voltages, np.zeros(12))


def test_a_board_without_floating_nodes() -> None:
    network = Network(3, [[0, 1], [1, 2], [0, 2]], [2, 0, 1], [])
    basis = BasisSolver(network, accuracy="certified").solve(np.array([1.0, 2.0, 4.0]))
    _, voltages = state_of(basis, np.array([3.0, 1.0, 0.5]), None)
    np.testing.assert_allclose(voltages, [0.5, -2.5, -2.0], rtol=1e-15)


CUBE = [[a, a ^ bit] for a in range(8) for bit in (1, 2, 4) if a < a ^ bit]


def effective_resistance(network: Network, first: int, second: int, conductances: FloatArray) -> float:
    """Return R_eff by impedance: one ampere in at one node, out at the other, which is the only input."""
    seen = Network(network.n_nodes, network.edges, [second], [first])
    return float(BasisSolver(seen, accuracy="certified").solve(conductances).impedance[0, 0])


@pytest.mark.parametrize(
    ("network", "first", "second", "expected"),
    [
        (Network(8, CUBE, [0], []), 0, 1, 7 / 12),
        (Network(8, CUBE, [0], []), 0, 3, 3 / 4),
        (Network(8, CUBE, [0], []), 0, 7, 5 / 6),
        (Network.torus(4, 4), 5, 6, 15 / 32),
        (Network.torus(4, 4), 0, 12, 15 / 32),
        (Network(5, [[a, b] for a in range(5) for b in range(a)], [0], []), 1, 4, 2 / 5),
        (Network.grid(2, 2), 0, 3, 1.0),
        (Network.grid(3, 3), 0, 8, 3 / 2),
        (Network.grid(4, 4), 0, 15, 13 / 7),
    ],
)
def test_effective_resistances_of_unit_resistors(network: Network, first: int, second: int, expected: float) -> None:
    resistance = effective_resistance(network, first, second, np.ones(network.n_edges))
    assert resistance == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("board", HOSTILE)
def test_fosters_sum(board: str) -> None:
    """Σ g_e R_eff(e) = N − 1."""
    network, conductances = HOSTILE[board]
    terms = [
        conductances[edge] * effective_resistance(network, int(first), int(second), conductances)
        for edge, (first, second) in enumerate(network.edges)
    ]
    assert sum(terms) == pytest.approx(network.n_nodes - 1, rel=1e-13)
