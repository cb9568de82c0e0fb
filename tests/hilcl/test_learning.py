"""The rules: what a contrast becomes, and which parameters make no sense."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl.arrays import FloatArray
from hilcl.board import Contrast
from hilcl.errors import RuleError
from hilcl.learning import ContrastiveLearning, RobbinsMonro
from hilcl.network import Network
from hilcl.sim_backend import SimulatedBoard

REPEATABLE = settings(derandomize=True, deadline=None, database=None, max_examples=60)
BOARDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
DIVIDER = Network(3, [(0, 1), (1, 2)], [0, 2], [1])


def random_network(random: np.random.Generator, n_outputs: int, n_hidden: int) -> Network:
    """A connected network with three inputs, parallel edges included."""
    n_nodes = 3 + n_outputs + n_hidden
    tree = [(int(random.integers(node)), node) for node in range(1, n_nodes)]
    more = [tuple(random.choice(n_nodes, 2, replace=False).tolist()) for _ in range(n_nodes)]
    nodes = random.permutation(n_nodes)
    return Network(n_nodes, tree + more, nodes[:3], nodes[3 : 3 + n_outputs])


def direction(
    network: Network, conductances: FloatArray, inputs: FloatArray, targets: FloatArray, nudge: float = 1.0
) -> FloatArray:
    contrast = SimulatedBoard(network, conductances).contrast(inputs, targets, nudge)
    return ContrastiveLearning(1.0, nudge=nudge).direction(contrast, len(inputs))


def contrast_of(network: Network, conductances: FloatArray, inputs: FloatArray, targets: FloatArray) -> float:
    board = SimulatedBoard(network, conductances)
    return float(board.contrast(inputs, targets, 1.0).contrast.mean())


def contrast_with(gradient: list[float]) -> Contrast:
    return Contrast(np.array(gradient), np.zeros((4, 1)), np.zeros(4), np.zeros(4))


@pytest.mark.parametrize(("nudge", "update"), [(1.0, [-0.039, 0.021]), (0.5, [-0.0345, 0.0255])])
def test_the_update_of_the_divider(nudge: float, update: list[float]) -> None:
    h = direction(DIVIDER, np.ones(2), np.array([[1.0, 0.0]]), np.array([[0.2]]), nudge)
    assert -0.1 * h == pytest.approx(update, rel=1e-14)


def test_the_direction_is_the_mean_over_the_samples_divided_by_the_nudge() -> None:
    rule = ContrastiveLearning(0.1, nudge=0.25)
    assert rule.direction(contrast_with([1.0, -2.0]), n_samples=4).tolist() == [1.0, -2.0]
    assert rule.direction(contrast_with([1.0, -2.0]), n_samples=8).tolist() == [0.5, -1.0]


def test_the_step_size_does_not_enter_the_direction() -> None:
    contrast = contrast_with([1.0, -2.0])
    small, large = ContrastiveLearning(1e-9), ContrastiveLearning(1e9)
    assert small.direction(contrast, 1).tolist() == large.direction(contrast, 1).tolist()


@REPEATABLE
@given(random=BOARDS, n_outputs=st.integers(1, 3), n_hidden=st.integers(0, 3), n_samples=st.integers(1, 3))
def test_the_clamped_direction_is_the_gradient_of_the_contrast(
    random: np.random.Generator, n_outputs: int, n_hidden: int, n_samples: int
) -> None:
    network = random_network(random, n_outputs, n_hidden)
    g = random.uniform(0.5, 2.0, network.n_edges)
    inputs, targets = random.uniform(size=(n_samples, 3)), random.uniform(size=(n_samples, n_outputs))
    h = direction(network, g, inputs, targets)
    small = 1e-5
    differences = [
        contrast_of(network, g + small * unit, inputs, targets)
        - contrast_of(network, g - small * unit, inputs, targets)
        for unit in np.eye(network.n_edges)
    ]
    assert h == pytest.approx(np.array(differences) / (2 * small), abs=1e-8)
    # Q is homogeneous of degree 1 in the conductances (Euler).
    assert g @ h == pytest.approx(contrast_of(network, g, inputs, targets), abs=1e-13)


@REPEATABLE
@given(random=BOARDS, n_outputs=st.integers(1, 3), n_hidden=st.integers(0, 3))
def test_a_small_nudge_follows_the_error_through_the_jacobian(
    random: np.random.Generator, n_outputs: int, n_hidden: int
) -> None:
    """For η → 0 the direction is −2 Jᵀ S_c e, with J = ∂o/∂g and S_c the Schur complement onto the outputs."""
    network = random_network(random, n_outputs, n_hidden)
    g = random.uniform(0.5, 2.0, network.n_edges)
    inputs, targets = random.uniform(size=(1, 3)), random.uniform(size=(1, n_outputs))
    jacobian, schur, error = linear_response(network, g, inputs[0], targets[0])
    expected = -2 * jacobian.T @ schur @ error
    nudge = 1e-7
    assert direction(network, g, inputs, targets, nudge) == pytest.approx(expected, abs=20 * nudge)


@pytest.mark.parametrize(("targets", "parallel"), [([0.5], True), ([0.9, 1 / 3], False)])
def test_a_small_nudge_is_the_gradient_of_the_loss_for_one_output_only(targets: list[float], parallel: bool) -> None:
    # A chain of unit conductances from 1 V to 0 V with one or two outputs in a row.
    network = Network(4, [(0, 1), (1, 2), (2, 3)], [0, 3], [1, 2][: len(targets)])
    g, inputs, wanted = np.ones(3), np.array([1.0, 0.0]), np.array(targets)
    jacobian, _, error = linear_response(network, g, inputs, wanted)
    loss_gradient = -2 * jacobian.T @ error
    h = direction(network, g, inputs[None], wanted[None], nudge=1e-9)
    cosine = h @ loss_gradient / (np.linalg.norm(h) * np.linalg.norm(loss_gradient))
    assert bool(cosine > 1 - 1e-12) is parallel
    assert parallel or cosine < 0.99


def linear_response(
    network: Network, g: FloatArray, inputs: FloatArray, targets: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return J (O, M), S_c (O, O) and e (O,) by dense linear algebra."""
    incidence = network.incidence.toarray()
    laplacian = incidence @ np.diag(g) @ incidence.T
    floating, driven = network.floating, network.inputs
    inverse = np.linalg.inv(laplacian[np.ix_(floating, floating)])
    potentials = np.zeros(network.n_nodes)
    potentials[driven] = inputs
    potentials[floating] = -inverse @ laplacian[np.ix_(floating, driven)] @ inputs
    rows = np.searchsorted(floating, network.outputs)
    voltages = incidence.T @ potentials
    jacobian = -(inverse @ incidence[floating] * voltages)[rows]
    schur = np.linalg.inv(inverse[np.ix_(rows, rows)])
    return jacobian, schur, targets - potentials[network.outputs]


@pytest.mark.parametrize(
    ("schedule", "update", "share"),
    [
        (RobbinsMonro(2.0, time_constant=10), 0, 1.0),
        (RobbinsMonro(2.0, time_constant=10), 10, 0.5),
        (RobbinsMonro(2.0, time_constant=10), 30, 0.25),
        (RobbinsMonro("auto", time_constant=1, power=0.5), 3, 0.5),
        (RobbinsMonro("auto", time_constant=5, power=0.75), 75, 0.125),
    ],
)
def test_the_falling_step_size(schedule: RobbinsMonro, update: int, share: float) -> None:
    assert schedule.at(update) == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize(("power", "summable"), [(0.4, False), (0.5, False), (0.51, True), (1.0, True)])
def test_which_falling_step_sizes_are_square_summable(power: float, summable: bool) -> None:
    assert RobbinsMonro(1.0, time_constant=1.0, power=power).is_square_summable is summable


@pytest.mark.parametrize("step", [0, 0.0, -0.1, math.nan, math.inf, -math.inf, True, "fast", None, [0.1]])
def test_a_step_size_that_makes_no_sense_is_refused(step: Any) -> None:
    with pytest.raises(RuleError, match="step size"):
        ContrastiveLearning(step)
    with pytest.raises(RuleError, match="step size"):
        RobbinsMonro(step, time_constant=1.0)


@pytest.mark.parametrize("nudge", [0.0, -0.5, 1.0000001, 2.0, math.nan, math.inf])
def test_a_nudge_outside_zero_to_one_is_refused(nudge: float) -> None:
    with pytest.raises(RuleError, match=r"0 < η ≤ 1"):
        ContrastiveLearning(0.1, nudge=nudge)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "all"])
def test_a_batch_size_that_is_no_count_is_refused(batch_size: Any) -> None:
    with pytest.raises(RuleError, match="batch size"):
        ContrastiveLearning(0.1, batch_size=batch_size)


def test_an_unknown_draw_is_refused() -> None:
    draw: Any = "sorted"
    with pytest.raises(RuleError, match="'shuffled' or 'independent', not 'sorted'"):
        ContrastiveLearning(0.1, draw=draw)


@pytest.mark.parametrize("time_constant", [0.0, -1.0, math.nan, math.inf])
def test_a_time_constant_that_is_not_positive_is_refused(time_constant: float) -> None:
    with pytest.raises(RuleError, match="time constant"):
        RobbinsMonro(0.1, time_constant=time_constant)


@pytest.mark.parametrize("power", [0.0, -1.0, 1.1, math.nan])
def test_a_power_outside_zero_to_one_is_refused(power: float) -> None:
    with pytest.raises(RuleError, match="power"):
        RobbinsMonro(0.1, time_constant=1.0, power=power)


def test_numbers_from_numpy_are_numbers() -> None:
    batch_size: Any = np.int64(4)
    step: Any = np.float32(0.5)
    assert ContrastiveLearning(step, batch_size=batch_size).batch_size == 4


def test_rules_are_values() -> None:
    assert ContrastiveLearning(0.1, batch_size=2) == ContrastiveLearning(0.1, batch_size=2)
    assert hash(ContrastiveLearning("auto")) == hash(ContrastiveLearning("auto"))
    with pytest.raises(AttributeError):
        ContrastiveLearning(0.1).nudge = 0.5  # type: ignore[misc]
