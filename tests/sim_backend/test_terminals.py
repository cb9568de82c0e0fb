"""Real sources, held against brute force: every combination of limit states is solved and checked."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Network
from hilcl.errors import BoardError
from hilcl.sim_backend import Imperfections, SimulatedBoard, SourceDefects
from hilcl.sim_backend.basis import BasisSolver
from hilcl.sim_backend.terminals import TerminalState, settle
from tests.sim_backend.boards import VOLTS, networks
from tests.sim_backend.exact_oracle import as_floats, exact_state

FloatArray = npt.NDArray[np.float64]

DRIVEN, HIGH, LOW = "driven", "high", "low"


@dataclass(frozen=True)
class Settled:
    """One way the sources can settle: potentials (N,), terminal currents (T,), which sources are limited (T,)."""

    potentials: FloatArray
    currents: FloatArray
    limited: npt.NDArray[np.bool_]


def every_consistent_state(
    network: Network, g: FloatArray, drives: FloatArray, resistance: FloatArray, limit: FloatArray
) -> list[Settled]:
    """Try every combination of states of the driven terminals on the whole network; keep what contradicts nothing."""
    n_nodes, terminals = network.n_nodes, network.terminals
    held = np.flatnonzero(~np.isnan(drives))
    incidence = network.incidence.toarray()
    kirchhoff = np.hstack([incidence @ np.diag(g) @ incidence.T, -np.eye(n_nodes)[:, terminals]])
    found = []
    for states in itertools.product((DRIVEN, HIGH, LOW), repeat=len(held)):
        state_of = dict(zip(held.tolist(), states, strict=True))
        if DRIVEN not in states:
            continue
        matrix = np.vstack([kirchhoff, np.zeros((len(terminals), n_nodes + len(terminals)))])
        right = np.zeros(len(matrix))
        for t, node in enumerate(terminals):
            row = n_nodes + t
            match state_of.get(t):
                case "driven":
                    matrix[row, node], matrix[row, row], right[row] = 1.0, resistance[t], drives[t]
                case "high" | "low" as side:
                    matrix[row, row], right[row] = 1.0, limit[t] if side == HIGH else -limit[t]
                case None:
                    matrix[row, row] = 1.0
        if np.isinf(right).any():
            continue
        solution: FloatArray = np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
        potentials, currents = solution[:n_nodes], solution[n_nodes:]
        strain = drives - potentials[terminals] - resistance * currents
        slack_volts, slack = 1e-9 * np.nanmax(np.abs(drives)), 1e-9 * limit
        fits = {
            DRIVEN: np.abs(currents) <= limit + slack,
            HIGH: strain >= -slack_volts,
            LOW: strain <= slack_volts,
        }
        if all(fits[state][t] for t, state in state_of.items()):
            limited = np.array([state_of.get(t) in (HIGH, LOW) for t in range(len(terminals))])
            found.append(Settled(potentials, currents, limited))
    return found


def settled(
    network: Network, g: FloatArray, drives: FloatArray, resistance: FloatArray, limit: FloatArray
) -> tuple[TerminalState, FloatArray]:
    """Return the terminal state and the node potentials (S, N) of the code under test."""
    basis = BasisSolver(network).solve(g)
    state = settle(basis, drives, resistance, limit)
    return state, state.potentials


@st.composite
def benches(
    draw: st.DrawFn, limits: st.SearchStrategy[float]
) -> tuple[Network, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Draw a board of at most 5 terminals, its conductances, one row of drives, and the sources' figures."""
    network = draw(networks(max_nodes=7, max_inputs=3, max_outputs=2, min_terminals=1))
    n_edges, n_terminals = network.n_edges, len(network.terminals)

    def numbers(one: st.SearchStrategy[float], count: int) -> FloatArray:
        return np.array(draw(st.lists(one, min_size=count, max_size=count)))

    g = numbers(st.floats(1e-4, 1e-2), n_edges)
    drives = numbers(VOLTS | st.sampled_from([np.nan, 1.0, 0.0]), n_terminals)
    if np.isnan(drives).all():
        drives[0] = 1.0
    resistance = numbers(st.sampled_from([0.0, 50.0]) | st.floats(1, 1e4), n_terminals)
    return network, g, drives, resistance, numbers(limits, n_terminals)


def check_against_brute_force(
    bench: tuple[Network, FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    network, g, drives, resistance, limit = bench
    expected = every_consistent_state(network, g, drives, resistance, limit)
    assert expected
    state, potentials = settled(network, g, drives[None], resistance, limit)
    volts, amperes = 1e-7 * max(1.0, np.nanmax(np.abs(drives))), 1e-8
    # The currents are always unique. Where limits add up to zero exactly, the volts of the limited part are not.
    for other in expected:
        np.testing.assert_allclose(state.currents[0], other.currents, atol=amperes)
    near = [other for other in expected if np.allclose(other.potentials, potentials[0], rtol=0, atol=volts)]
    assert near
    if len(expected) == 1:
        np.testing.assert_array_equal(state.in_compliance[0], expected[0].limited)


@settings(deadline=None, max_examples=150)
@given(benches(st.just(np.inf) | st.floats(1e-6, 1e-2)))
def test_the_state_of_the_limits_is_the_only_consistent_one(
    bench: tuple[Network, FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    check_against_brute_force(bench)


@settings(deadline=None, max_examples=150)
@given(benches(st.floats(1e-6, 1e-5)))
def test_the_same_when_nearly_all_sources_are_limited(
    bench: tuple[Network, FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    check_against_brute_force(bench)


@settings(deadline=None, max_examples=150)
@given(benches(st.just(1e-5)), st.floats(1e-6, 1e-2))
def test_the_same_when_all_sources_have_one_limit(
    bench: tuple[Network, FloatArray, FloatArray, FloatArray, FloatArray], limit: float
) -> None:
    network, g, drives, resistance, _ = bench
    check_against_brute_force((network, g, drives, resistance, np.full(len(drives), limit)))


@pytest.mark.parametrize("seed", range(6))
def test_many_sources_settle_where_nothing_contradicts_the_limits(seed: int) -> None:
    """The conditions of the complementarity problem, checked one by one, with 40 terminals and 30 drives at once."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(100)
    network = Network.torus(10, 10, inputs=order[:20], outputs=order[20:40])
    g = np.exp(generator.uniform(np.log(1e-5), np.log(1e-2), network.n_edges))
    drives = generator.uniform(-1, 1, (30, 40))
    drives[generator.random(drives.shape) < 0.2] = np.nan
    resistance = np.where(generator.random(40) < 0.5, 0.0, generator.uniform(1, 1000, 40))
    limit = 10.0 ** generator.uniform(-6, -3 if seed % 2 else -5, 40)
    state, potentials = settled(network, g, drives, resistance, limit)
    held = ~np.isnan(drives)
    strain = drives - potentials[:, network.terminals] - resistance * state.currents
    top = np.broadcast_to(limit, drives.shape)
    assert np.abs(state.currents[~held]).max() < 1e-12
    assert (np.abs(state.currents) <= top * (1 + 1e-9) + 1e-15).all()
    assert np.abs(strain[held & ~state.in_compliance]).max(initial=0) < 1e-9
    limited = state.in_compliance
    assert limited.any()
    np.testing.assert_allclose(np.abs(state.currents[limited]), top[limited], rtol=1e-9)
    assert (strain[limited] * np.sign(state.currents[limited]) >= -1e-9).all()
    incidence = network.incidence.toarray()
    injected = np.zeros((30, 100))
    injected[:, network.terminals] = state.currents
    np.testing.assert_allclose(network.edge_voltages(potentials) * g @ incidence.T, injected, atol=1e-12)


@pytest.mark.parametrize("series", [1.0, 100.0, 1e5])
def test_a_series_resistance_is_one_more_edge_and_node_per_source(series: float) -> None:
    network = Network.torus(4, 4, inputs=[0, 5], outputs=[9, 14])
    g = np.random.default_rng(1).uniform(1e-4, 1e-3, network.n_edges)
    sources = Imperfections(sources=SourceDefects(series=series))
    board = SimulatedBoard(network, g, imperfections=sources)
    drives = np.array([[1.0, 0.2, np.nan, np.nan], [1.0, 0.2, 0.7, np.nan], [np.nan, 0.2, 0.7, 0.4]])
    response = board.respond(drives)
    behind = np.arange(16, 20)
    extended = Network(
        20,
        np.vstack([network.edges, np.stack([behind, network.terminals], axis=1)]),
        behind[:2],
        behind[2:],
    )
    for row, potentials, currents in zip(drives, response.potentials, response.currents, strict=True):
        exact = exact_state(extended, [*g, *[1 / series] * 4], row)
        np.testing.assert_allclose(potentials, as_floats(exact.potentials[:16]), rtol=1e-12)
        np.testing.assert_allclose(currents, as_floats(exact.currents), rtol=1e-10, atol=1e-18)


def test_a_limited_source_gives_its_limit_and_is_named() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    board = SimulatedBoard(network, 1e-3, imperfections=Imperfections(sources=SourceDefects(compliance=2.5e-4)))
    free = board.respond([1.0, 0.9, np.nan])
    assert not free.in_compliance.any()
    np.testing.assert_allclose(free.currents, [[5e-5, -5e-5, 0.0]], atol=1e-18)
    # With 1 V, 0.2 V and 0 V the first edge would carry 0.8 mA; limited, it leaves 50 µA for the output.
    held = board.respond([1.0, 0.0, 0.2])
    np.testing.assert_allclose(held.currents, [[2.5e-4, -2e-4, -5e-5]], rtol=1e-12)
    np.testing.assert_allclose(held.potentials, [[0.45, 0.2, 0.0]], rtol=1e-12)
    assert held.in_compliance.tolist() == [[True, False, False]]


def test_two_sources_with_one_limit_agree_on_the_current() -> None:
    """Where both reach it at once, the volts between them are known but not their common part: one keeps its volts."""
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    board = SimulatedBoard(network, 1e-3, imperfections=Imperfections(sources=SourceDefects(compliance=1e-5)))
    response = board.respond([1.0, 0.0, np.nan])
    np.testing.assert_allclose(response.currents, [[1e-5, -1e-5, 0.0]], atol=1e-17)
    np.testing.assert_allclose(response.potentials[0, 0] - response.potentials[0, 2], 0.02, rtol=1e-12)
    assert response.in_compliance.any()


def test_a_sample_that_drives_nothing_is_refused_by_its_number() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
    drives = np.array([[1.0, 0.0, np.nan], [np.nan] * 3])
    for sources in (SourceDefects(), SourceDefects(series=10.0), SourceDefects(compliance=1e-3)):
        board = SimulatedBoard(network, 1e-3, imperfections=Imperfections(sources=sources))
        with pytest.raises(BoardError, match="sample 1 drives no terminal"):
            board.respond(drives)


def test_one_terminal_alone_carries_no_current() -> None:
    network = Network.grid(3, 3, inputs=[0, 8], outputs=[4])
    for sources in (SourceDefects(), SourceDefects(series=1e3, compliance=1e-9)):
        board = SimulatedBoard(network, 1e-3, imperfections=Imperfections(sources=sources))
        for only in range(3):
            drives = np.full(3, np.nan)
            drives[only] = 0.8
            response = board.respond(drives)
            np.testing.assert_allclose(response.potentials, 0.8, rtol=1e-13)
            np.testing.assert_allclose(response.currents, 0.0, atol=1e-16)
            assert not response.in_compliance.any()
