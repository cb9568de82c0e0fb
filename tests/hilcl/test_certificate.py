"""The certificate: its constants hold, and it claims what the theorem says and nothing more."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl.arrays import FloatArray
from hilcl.board import Contrast
from hilcl.certificate import (
    SAFE_SHARE,
    Certificate,
    Coverage,
    contrast_lower_bound,
    lipschitz_constant,
    resolved_step_size,
)
from hilcl.device_range import DeviceRange
from hilcl.learning import ContrastiveLearning, Draw, RobbinsMonro, Rule
from hilcl.network import Network
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard, SourceDefects
from hilcl.task import Task
from hilcl.training import Step, train

REPEATABLE = settings(derandomize=True, deadline=None, database=None, max_examples=60)
BOARDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)

DIVIDER = Network(3, [(0, 1), (1, 2)], [0, 2], [1])
CHAIN = Network(4, [(0, 1), (1, 2), (2, 3)], [0, 3], [2])
LIMITS = DeviceRange(0.1, 10.0)
ONE_SAMPLE = Task([[1.0, 0.0]], [[0.2]])
CONTRADICTION = Task([[1.0, 0.0], [1.0, 0.0]], [[0.2], [0.6]])
FALLING = RobbinsMonro("auto", time_constant=10.0)


def random_case(random: np.random.Generator, n_hidden: int, n_samples: int) -> tuple[Network, DeviceRange, Task]:
    """A connected network with three inputs and two outputs, limits that differ by edge over decades, and a task."""
    n_nodes = 5 + n_hidden
    tree = [(int(random.integers(node)), node) for node in range(1, n_nodes)]
    more = [tuple(random.choice(n_nodes, 2, replace=False).tolist()) for _ in range(n_nodes)]
    nodes = random.permutation(n_nodes)
    network = Network(n_nodes, tree + more, nodes[:3], nodes[3:5])
    low = 10.0 ** random.uniform(-3, 0, network.n_edges)
    limits = DeviceRange(low, low * 10.0 ** random.uniform(0, 2, network.n_edges))
    inputs = random.uniform(-1.0, 1.0, (n_samples, 3))
    targets = random.uniform(inputs.min(1, keepdims=True), inputs.max(1, keepdims=True), (n_samples, 2))
    return network, limits, Task(inputs, targets)


def inside(random: np.random.Generator, limits: DeviceRange, n_points: int) -> FloatArray:
    """Points of the box (n_points, M): corners, where the conductances are small, as well as the middle."""
    spread = random.uniform(-0.5, 1.5, (n_points, len(limits.g_min))).clip(0.0, 1.0)
    return limits.clip(limits.g_min + spread * (limits.g_max - limits.g_min))


def gradient(network: Network, conductances: FloatArray, task: Task) -> FloatArray:
    contrast = SimulatedBoard(network, conductances).contrast(task.inputs, task.targets, 1.0)
    return contrast.gradient / task.n_samples


def contrast_of(network: Network, conductances: FloatArray, task: Task) -> float:
    return float(SimulatedBoard(network, conductances).contrast(task.inputs, task.targets, 1.0).contrast.mean())


def coverage_of(network: Network, rule: Rule, limits: DeviceRange = LIMITS, *, exact: bool = True) -> Certificate:
    return Certificate.from_parts(network, limits, ONE_SAMPLE, rule, exact=exact)


def last_step(board: SimulatedBoard, task: Task, rule: Rule, epochs: int) -> Step:
    *_, last = train(board, task, rule, epochs)
    return last


# --- the constants ---


@REPEATABLE
@given(random=BOARDS, n_hidden=st.integers(0, 3), n_samples=st.integers(1, 3))
def test_l_bounds_how_fast_the_gradient_changes(random: np.random.Generator, n_hidden: int, n_samples: int) -> None:
    network, limits, task = random_case(random, n_hidden, n_samples)
    bound = lipschitz_constant(network, limits, task)
    for x, y in itertools.pairwise(inside(random, limits, 6)):
        # Near and far pairs: the steepest change is seen close to a corner of small conductances.
        for z in (y, limits.clip(x + 1e-3 * (y - x))):
            change = np.linalg.norm(gradient(network, x, task) - gradient(network, z, task))
            assert change <= bound * np.linalg.norm(x - z) + 1e-12


@REPEATABLE
@given(random=BOARDS, n_hidden=st.integers(0, 3))
def test_l_of_mini_batches_holds_for_every_single_sample(random: np.random.Generator, n_hidden: int) -> None:
    network, limits, task = random_case(random, n_hidden, n_samples=4)
    bound = lipschitz_constant(network, limits, task, batch_size=2)
    each = [lipschitz_constant(network, limits, task.subset([row])) for row in range(4)]
    assert bound == max(each)
    assert lipschitz_constant(network, limits, task) == pytest.approx(np.mean(each), rel=1e-14)


def test_l_of_the_divider() -> None:
    # (2 / 0.1 S) · mean of (1 V)² and (3 V)²
    task = Task([[1.0, 0.0], [-1.0, 2.0]], [[0.2], [0.0]])
    assert lipschitz_constant(DIVIDER, LIMITS, task) == pytest.approx(100.0)
    assert lipschitz_constant(DIVIDER, LIMITS, task, batch_size=1) == pytest.approx(180.0)


def test_l_takes_the_smallest_limit_of_any_edge() -> None:
    assert lipschitz_constant(DIVIDER, DeviceRange([0.5, 0.1], 10.0), ONE_SAMPLE) == pytest.approx(20.0)


def test_with_hidden_nodes_l_spans_the_targets_too() -> None:
    beyond = Task([[1.0, 0.0]], [[2.0]])
    assert lipschitz_constant(CHAIN, LIMITS, beyond) == pytest.approx(80.0)
    assert lipschitz_constant(DIVIDER, LIMITS, beyond) == pytest.approx(20.0)


@pytest.mark.parametrize("network", [DIVIDER, CHAIN])
@pytest.mark.parametrize("step_size", ["auto", RobbinsMonro("auto", time_constant=3.0)])
def test_an_automatic_step_is_nine_tenths_of_2_over_l(
    network: Network, step_size: Literal["auto"] | RobbinsMonro
) -> None:
    certificate = coverage_of(network, ContrastiveLearning(step_size))
    assert SAFE_SHARE == 0.9
    assert certificate.lipschitz == pytest.approx(20.0)
    assert certificate.critical_step == pytest.approx(0.1)
    assert certificate.step_size == pytest.approx(0.09)
    step = next(train(SimulatedBoard(network, 1.0, LIMITS), ONE_SAMPLE, ContrastiveLearning(step_size), 1))
    assert step.step_size == certificate.step_size


def test_a_given_step_is_taken_as_it_is() -> None:
    assert resolved_step_size(ContrastiveLearning(0.123), 20.0) == 0.123
    assert resolved_step_size(ContrastiveLearning(RobbinsMonro(0.5, time_constant=1.0)), 20.0) == 0.5


def test_samples_that_drive_nothing_have_a_certificate() -> None:
    task = Task([[0.5, 0.5]], [[0.5]])
    rule = ContrastiveLearning("auto")
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS)
    step = last_step(board, task, rule, 2)
    certificate = Certificate.of(board, task, rule, step)
    assert certificate.lipschitz == 0.0
    assert certificate.critical_step == math.inf
    assert (certificate.coverage, certificate.contrast, certificate.residual) == ("convex", 0.0, 0.0)
    assert certificate.realisable is None
    assert all(sentence.endswith(".") for sentence in certificate.sentences())


# --- the lower bound ---


@REPEATABLE
@given(random=BOARDS, n_samples=st.integers(1, 4))
def test_the_bound_is_the_smallest_value_of_the_tangent_over_the_box(
    random: np.random.Generator, n_samples: int
) -> None:
    network, limits, task = random_case(random, 0, n_samples)
    here, *others = inside(random, limits, 8)
    h = gradient(network, here, task)
    bound = contrast_lower_bound(h, limits)
    corner = np.where(h < 0, limits.g_max, limits.g_min)
    assert bound == pytest.approx(max(0.0, float(h @ corner)), rel=1e-9, abs=1e-11 * float(np.abs(h) @ corner))
    for other in (here, corner, *others):
        assert bound <= contrast_of(network, other, task) * (1 + 1e-12)


def test_the_bound_is_below_the_tangent_by_the_rounding_of_the_sum() -> None:
    # 0.1 + 0.2 − 0.3 is 5.6e-17 in floating point: that is no proof of anything.
    assert contrast_lower_bound(np.array([0.1, 0.2, -0.3]), DeviceRange(np.ones(3), np.ones(3))) == 0.0
    assert contrast_lower_bound(np.array([0.1, 0.2, -0.2]), DeviceRange(np.ones(3), np.ones(3))) > 0.0


def test_without_an_upper_limit_a_falling_edge_leaves_no_bound() -> None:
    open_ended = DeviceRange(np.ones(2), np.full(2, np.inf))
    assert contrast_lower_bound(np.array([1.0, -0.1]), open_ended) == 0.0
    assert contrast_lower_bound(np.array([1.0, 0.0]), open_ended) == pytest.approx(1.0)


def test_one_limit_for_all_edges_bounds_as_well() -> None:
    both = [contrast_lower_bound(np.array([1.0, -0.01]), DeviceRange(g, 10 * g)) for g in (0.1, np.full(2, 0.1))]
    assert both == [pytest.approx(0.09)] * 2


# --- what is promised ---


@pytest.mark.parametrize(
    ("network", "rule", "coverage", "because"),
    [
        (DIVIDER, ContrastiveLearning("auto"), "convex", "No hidden nodes"),
        (DIVIDER, ContrastiveLearning(0.0999), "convex", "below 2/L"),
        (DIVIDER, ContrastiveLearning(FALLING), "convex", "No hidden nodes"),
        (CHAIN, ContrastiveLearning("auto"), "stationary", "1 node is hidden"),
        (CHAIN, ContrastiveLearning("auto"), "stationary", "a global minimum is not promised"),
        (DIVIDER, ContrastiveLearning(0.1001), "none", "times 2/L"),
        (CHAIN, ContrastiveLearning(1.0), "none", "10 times 2/L"),
        (DIVIDER, ContrastiveLearning("auto", nudge=0.5), "none", "nudge is 0.5"),
        (CHAIN, ContrastiveLearning("auto", nudge=0.999), "none", "nudge is 0.999"),
    ],
)
def test_coverage(network: Network, rule: Rule, coverage: Coverage, because: str) -> None:
    certificate = coverage_of(network, rule)
    assert certificate.coverage == coverage
    assert because in certificate.why


def test_a_step_of_exactly_2_over_l_is_not_covered() -> None:
    critical = coverage_of(DIVIDER, ContrastiveLearning("auto")).critical_step
    assert coverage_of(DIVIDER, ContrastiveLearning(critical)).coverage == "none"
    below = math.nextafter(critical, 0.0)
    assert coverage_of(DIVIDER, ContrastiveLearning(below)).coverage == "convex"


@pytest.mark.parametrize(
    ("network", "step_size", "draw", "coverage"),
    [
        (DIVIDER, FALLING, "independent", "convex"),
        (DIVIDER, RobbinsMonro(99.0, time_constant=1.0, power=0.51), "independent", "convex"),
        (DIVIDER, RobbinsMonro("auto", time_constant=1.0, power=0.5), "independent", "none"),
        (DIVIDER, FALLING, "shuffled", "none"),
        (DIVIDER, "auto", "independent", "none"),
        (DIVIDER, 1e-6, "shuffled", "none"),
        (CHAIN, FALLING, "independent", "none"),
    ],
)
def test_coverage_of_mini_batches(
    network: Network,
    step_size: float | Literal["auto"] | RobbinsMonro,
    draw: Draw,
    coverage: Coverage,
) -> None:
    certificate = coverage_of(network, ContrastiveLearning(step_size, batch_size=1, draw=draw))
    assert certificate.coverage == coverage
    assert ("with probability one" if coverage == "convex" else "Mini-batches") in certificate.why


@pytest.mark.parametrize("batch_size", [None, 1])
def test_readings_with_errors_are_not_covered(batch_size: int | None) -> None:
    rule = ContrastiveLearning(FALLING, batch_size=batch_size, draw="independent")
    certificate = coverage_of(DIVIDER, rule, exact=False)
    assert certificate.coverage == "none"
    assert "carry errors" in certificate.why
    assert not certificate.convex_landscape


@pytest.mark.parametrize(
    "imperfections",
    [
        Imperfections(meters=MeterDefects(noise=1e-9)),
        Imperfections(meters=MeterDefects(input_resistance=1e9)),
        Imperfections(sources=SourceDefects(series=1e-3)),
    ],
)
def test_an_imperfect_board_is_not_covered_and_proves_nothing(imperfections: Imperfections) -> None:
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS, imperfections)
    rule = ContrastiveLearning("auto")
    certificate = Certificate.of(board, CONTRADICTION, rule, last_step(board, CONTRADICTION, rule, 50))
    assert certificate.coverage == "none"
    assert certificate.gap is None
    assert certificate.realisable is None


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_lattice_of_codes_is_not_covered(batch_size: int | None) -> None:
    rule = ContrastiveLearning(FALLING, batch_size=batch_size, draw="independent")
    certificate = coverage_of(DIVIDER, rule, DeviceRange.from_table(np.linspace(0.1, 10.0, 4096)))
    assert certificate.coverage == "none"
    assert "codes" in certificate.why


def test_on_a_lattice_the_gap_to_the_box_is_still_known() -> None:
    board = SimulatedBoard(DIVIDER, 1.0, DeviceRange.from_table(np.linspace(0.1, 10.0, 400)))
    rule = ContrastiveLearning("auto")
    certificate = Certificate.of(board, CONTRADICTION, rule, last_step(board, CONTRADICTION, rule, 500))
    assert certificate.realisable is False
    assert certificate.gap is not None
    assert certificate.lower_bound is not None
    assert certificate.lower_bound <= (smallest := 0.1 * contradiction_per_siemens())
    assert certificate.lower_bound == pytest.approx(smallest, rel=0.05)


def contradiction_per_siemens() -> float:
    """Return the smallest Q for the targets 0.2 V and 0.6 V, in watts per siemens of the upper, smaller edge.

    With the ratio r ≥ 1 of the conductances o = 1/(1 + r) and Q = mean (y − o)²·(1 + r).
    """
    ratio = np.linspace(1.0, 10.0, 1_000_001)
    spread = np.square(np.array([[0.2], [0.6]]) - 1 / (1 + ratio)).mean(axis=0)
    return float((spread * (1 + ratio)).min())


@dataclass(frozen=True)
class Hasty(ContrastiveLearning):
    """A rule of somebody else: three times the direction of Contrastive Learning."""

    def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
        return 3.0 * super().direction(contrast, n_samples)


def test_nothing_is_promised_for_a_rule_that_goes_another_way() -> None:
    assert coverage_of(DIVIDER, Hasty("auto")).coverage == "none"


def test_a_rule_that_goes_another_way_proves_nothing_false() -> None:
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS)
    rule = Hasty(0.03)
    certificate = Certificate.of(board, CONTRADICTION, rule, last_step(board, CONTRADICTION, rule, 500))
    assert certificate.contrast is not None
    assert (certificate.lower_bound or 0.0) <= certificate.contrast * (1 + 1e-12)


def test_without_an_upper_limit_no_conductances_are_promised() -> None:
    # The output reaches 1 V only for an infinite conductance: Q falls towards 0, the conductances go nowhere.
    open_ended = DeviceRange(0.1, np.inf)
    certificate = Certificate.from_parts(DIVIDER, open_ended, Task([[1.0, 0.0]], [[1.0]]), ContrastiveLearning("auto"))
    assert certificate.coverage != "convex" or "conductances converge" not in certificate.why


def test_the_landscape_without_hidden_nodes_is_convex() -> None:
    assert coverage_of(DIVIDER, ContrastiveLearning("auto")).convex_landscape
    assert coverage_of(DIVIDER, ContrastiveLearning(1e3)).convex_landscape
    assert not coverage_of(CHAIN, ContrastiveLearning("auto")).convex_landscape


# --- what was measured ---


def test_before_the_first_step_nothing_is_said_of_the_run() -> None:
    certificate = coverage_of(DIVIDER, ContrastiveLearning("auto"))
    unknown = (certificate.contrast, certificate.residual, certificate.lower_bound, certificate.gap)
    assert unknown == (None, None, None, None)
    assert certificate.realisable is None
    assert len(certificate.sentences()) == 2


def test_a_step_completes_the_certificate() -> None:
    board, rule = SimulatedBoard(DIVIDER, 1.0, LIMITS), ContrastiveLearning("auto")
    step = last_step(board, CONTRADICTION, rule, 600)
    certificate = Certificate.of(board, CONTRADICTION, rule, step)
    assert certificate == Certificate.of(board, CONTRADICTION, rule).after(step)
    assert (certificate.contrast, certificate.residual) == (step.contrast, step.residual)
    assert certificate.lower_bound == step.lower_bound
    assert certificate.gap == pytest.approx(step.contrast - step.lower_bound)
    assert certificate.realisable is False
    assert step.lower_bound == pytest.approx(0.1 * contradiction_per_siemens(), rel=1e-6)


def test_the_gap_is_never_negative() -> None:
    known = dataclasses.replace(
        coverage_of(DIVIDER, ContrastiveLearning("auto")), contrast=1.0, residual=0.0, lower_bound=1.0 + 1e-15
    )
    assert known.gap == 0.0


def test_with_hidden_nodes_no_gap_is_claimed() -> None:
    board, rule = SimulatedBoard(CHAIN, 1.0, LIMITS), ContrastiveLearning("auto")
    certificate = Certificate.of(board, CONTRADICTION, rule, last_step(board, CONTRADICTION, rule, 100))
    assert certificate.coverage == "stationary"
    assert certificate.lower_bound is None
    assert certificate.gap is None
    assert certificate.realisable is None


def test_the_sentences_are_plain() -> None:
    board, rule = SimulatedBoard(DIVIDER, 1.0, LIMITS), ContrastiveLearning("auto")
    step = last_step(board, CONTRADICTION, rule, 300)
    said = Certificate.of(board, CONTRADICTION, rule, step).sentences()
    assert said[0].startswith("Guarantee: convex. ")
    assert "γ = 0.09 S/V², 0.9 times 2/L = 0.1 S/V²: on the safe side." in said[1]
    assert "Contrast Q = " in said[2]
    assert said[3].startswith("Q is at most ")
    assert said[4].startswith("The targets cannot all be met: ")
    for sentence in said:
        assert sentence.endswith(".")
        assert not set(sentence) & set("\n{}[]_`")
        assert "None" not in sentence
        assert "nan" not in sentence


def test_a_step_beyond_the_safe_side_is_called_so() -> None:
    said = coverage_of(DIVIDER, ContrastiveLearning(0.3)).sentences()
    assert said[0].startswith("Guarantee: none. ")
    assert "3 times 2/L" in said[1]
    assert "beyond the safe side" in said[1]
    assert not any("converge to a global minimum" in sentence for sentence in said)
