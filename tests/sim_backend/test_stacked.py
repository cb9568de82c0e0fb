"""Stacked boards are single boards, one beside the other."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, RobbinsMonro, Task, train
from hilcl.board import Contrast
from hilcl.errors import InputError, RuleError, SolverError, TaskError
from hilcl.sim_backend import Imperfections, PotDefects, SimulatedBoard, StackedBoards
from tests.sim_backend.boards import networks
from tests.sim_backend.exact_oracle import as_floats, exact_contrast

FloatArray = npt.NDArray[np.float64]

GRID = Network.grid(5, 5, inputs=[0, 4, 20], outputs=[12, 18, 24, 2, 10])
LIMITS = DeviceRange(1e-4, 1e-3)
POT = Potentiometer(128, 10e3, wiper=75.0)


def grid_problem(n_boards: int, n_samples: int = 7) -> tuple[Task, FloatArray]:
    generator = np.random.default_rng(n_boards)
    inputs = generator.uniform(0.0, 1.0, (n_samples, 3))
    targets = generator.uniform(inputs.min(1, keepdims=True), inputs.max(1, keepdims=True), (n_samples, 5))
    return Task(inputs, targets), generator.uniform(1e-4, 1e-3, (n_boards, GRID.n_edges))


def assert_close(found: npt.ArrayLike, expected: npt.ArrayLike, message: str = "") -> None:
    wanted = np.asarray(expected, dtype=np.float64)
    scale = float(np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(np.asarray(found, dtype=np.float64), wanted, rtol=0, atol=1e-12 * scale, err_msg=message)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 18), st.integers(1, 9), st.floats(0.01, 1.0))
def test_contrasts_are_those_of_single_boards(data: st.DataObject, n_boards: int, n_samples: int, nudge: float) -> None:
    network = data.draw(networks(max_nodes=9, max_inputs=6, max_outputs=6).filter(lambda drawn: len(drawn.outputs) > 0))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    g = generator.uniform(1e-4, 1e-3, (n_boards, network.n_edges))
    inputs = generator.uniform(-1, 1, (n_samples, len(network.inputs)))
    targets = generator.uniform(-1, 1, (n_samples, len(network.outputs)))
    together = StackedBoards(network, g).contrast(inputs, targets, nudge)
    assert together.gradient.shape == g.shape
    for board in range(n_boards):
        alone = SimulatedBoard(network, g[board], solver="dense").contrast(inputs, targets, nudge)
        for name in ("gradient", "outputs", "power_free", "contrast"):
            assert_close(getattr(together, name)[board], getattr(alone, name), name)


def test_a_contrast_against_rational_arithmetic() -> None:
    task, g = grid_problem(3, n_samples=1)
    found = StackedBoards(GRID, g).contrast(task.inputs, task.targets, 0.1)
    for board in range(3):
        exact = exact_contrast(GRID, g[board], task.inputs[0].tolist(), task.targets[0].tolist(), 0.1)
        assert_close(found.gradient[board], as_floats(exact.gradient))
        assert_close(found.outputs[board, 0], as_floats(exact.outputs))
        assert found.contrast[board, 0] == pytest.approx(float(exact.contrast), rel=1e-12)
        assert found.power_free[board, 0] == pytest.approx(float(exact.power_free), rel=1e-12)


@pytest.mark.parametrize("nudge", [1.0, 0.2])
@pytest.mark.parametrize("step_size", [2e-4, RobbinsMonro(4e-4, 5.0)])
def test_training_is_that_of_single_boards(nudge: float, step_size: float | RobbinsMonro) -> None:
    task, g = grid_problem(11)
    rule = ContrastiveLearning(step_size, nudge=nudge)
    boards = StackedBoards(GRID, g, LIMITS)
    together = list(boards.train(task, rule, 8))
    assert len(boards) == 11
    held = 0
    for board in range(11):
        alone = list(train(SimulatedBoard(GRID, g[board], LIMITS, solver="dense"), task, rule, 8))
        for stacked, single in zip(together, alone, strict=True):
            assert (stacked.epoch, stacked.step_size) == (single.epoch, single.step_size)
            assert stacked.codes is None
            for name in ("loss", "contrast", "power", "residual", "outputs", "conductances", "state"):
                assert_close(getattr(stacked, name)[board], getattr(single, name), name)
            held += len(single.pinned)
    assert held > 0
    np.testing.assert_array_equal(boards.conductances, together[-1].conductances)
    np.testing.assert_array_equal(boards.true_conductances, together[-1].conductances)


@pytest.mark.parametrize("per_edge", [False, True])
def test_each_board_has_pots_of_its_own(per_edge: bool) -> None:
    task, _ = grid_problem(5)
    pots = [POT] * GRID.n_edges if per_edge else POT
    defects, seeds = PotDefects(tolerance=0.2, wiper_spread=0.1, stuck={3: 40}), [5, 6, 7, 5, 9]
    start = np.full((5, GRID.n_edges), 2e-4)
    rule = ContrastiveLearning(2e-5)
    boards = StackedBoards(GRID, start, pots=pots, defects=defects, seeds=seeds)
    together = list(boards.train(task, rule, 5))
    assert not np.array_equal(boards.true_conductances[0], boards.true_conductances[1])
    np.testing.assert_array_equal(boards.true_conductances[0], boards.true_conductances[3])
    for number, seed in enumerate(seeds):
        single = SimulatedBoard(GRID, start[number], None, Imperfections(pots=defects), seed, pots=pots)
        for stacked, step in zip(together, train(single, task, rule, 5), strict=True):
            assert step.codes is not None
            assert stacked.codes is not None
            np.testing.assert_array_equal(stacked.codes[number], step.codes)
            assert_close(stacked.conductances[number], step.conductances)
            assert_close(stacked.state[number], step.state)
            assert_close(stacked.loss[number], step.loss)
        np.testing.assert_array_equal(boards.true_conductances[number], single.true_conductances)


def test_how_many_boards_there_are_changes_no_bit() -> None:
    task, g = grid_problem(19)
    rule = ContrastiveLearning("auto")
    whole = list(StackedBoards(GRID, g, LIMITS).train(task, rule, 4))[-1]
    part = list(StackedBoards(GRID, g[3:6], LIMITS).train(task, rule, 4))[-1]
    np.testing.assert_array_equal(whole.conductances[3:6], part.conductances)
    np.testing.assert_array_equal(whole.loss[3:6], part.loss)


def test_steps_do_not_share_memory_and_boards_can_be_programmed_between() -> None:
    task, g = grid_problem(4)
    boards = StackedBoards(GRID, g, LIMITS)
    steps = boards.train(task, ContrastiveLearning(1e-4), 3)
    first = next(steps)
    kept = first.conductances.copy(), first.outputs.copy()
    boards.program(np.full((4, GRID.n_edges), 5e-4))
    second = next(steps)
    np.testing.assert_array_equal(first.conductances, kept[0])
    np.testing.assert_array_equal(first.outputs, kept[1])
    expected = SimulatedBoard(GRID, 5e-4).contrast(task.inputs, task.targets, 1.0).outputs
    assert_close(second.outputs[2], expected)
    with pytest.raises(ValueError, match="read-only"):
        first.conductances[0, 0] = 1.0


def test_one_input_and_no_other() -> None:
    network = Network(3, [[0, 1], [1, 2]], [0], [2])
    found = StackedBoards(network, [[1e-3, 1e-3]]).contrast([[0.25]], [[0.75]], 1.0)
    assert_close(found.gradient, [[0.0625, 0.0625]])
    assert found.power_free.tolist() == [[0.0]]


def test_a_lost_pivot_names_the_boards() -> None:
    network = Network(5, [[0, 1], [1, 2], [2, 3], [3, 4]], [0, 4], [3])
    g = np.full((12, 4), 1e-3)
    g[9] = [1e-11, 1e6, 1e6, 1e-11]
    boards = StackedBoards(network, g)
    with pytest.raises(SolverError, match=r"boards 8 to 11: .*narrow the conductance range"):
        boards.contrast([[1.0, 0.0]], [[0.5]], 1.0)
    with pytest.raises(SolverError, match="boards 8 to 11"):
        next(boards.train(Task([[1.0, 0.0]], [[0.5]]), ContrastiveLearning(1e-3), 1))


def test_what_does_not_fit_is_refused() -> None:
    task, g = grid_problem(2)
    boards = StackedBoards(GRID, g, LIMITS)
    with pytest.raises(InputError, match="there are 2 boards, but conductances for 1"):
        boards.program(g[:1])
    with pytest.raises(InputError, match="edge 1 of board 1 was given -1 S"):
        boards.program(np.where(np.arange(g.size).reshape(g.shape) == GRID.n_edges + 1, -1.0, g))
    with pytest.raises(InputError, match="3 are needed"):
        boards.contrast([[1.0]], task.targets[:1], 1.0)
    with pytest.raises(InputError, match="finite volts"):
        boards.contrast([[1.0, 0.0, math.nan]], task.targets[:1], 1.0)
    with pytest.raises(TaskError):
        boards.train(Task([[1.0, 0.0, 0.5]], [[2.0] * 5]), ContrastiveLearning(1e-4), 1)
    with pytest.raises(RuleError, match="batch size"):
        boards.train(task, ContrastiveLearning(1e-4, batch_size=1), 1)
    with pytest.raises(RuleError, match="epochs"):
        boards.train(task, ContrastiveLearning(1e-4), 0)
    with pytest.raises(InputError, match="2 boards, but 3 seeds"):
        StackedBoards(GRID, g, pots=POT, defects=PotDefects(tolerance=0.1), seeds=[1, 2, 3])
    with pytest.raises(InputError, match="seeds"):
        StackedBoards(GRID, g, pots=POT, defects=PotDefects(tolerance=0.1))
    with pytest.raises(InputError, match="an output and a floating node"):
        StackedBoards(Network(3, [[0, 1], [1, 2]], [0, 2], []), [[1e-3, 1e-3]])


def test_rules_of_ones_own_are_refused() -> None:
    class Slower(ContrastiveLearning):
        def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
            return 0.5 * super().direction(contrast, n_samples)

    task, g = grid_problem(2)
    with pytest.raises(RuleError, match="derived"):
        StackedBoards(GRID, g, LIMITS).train(task, Slower(1e-4), 1)
