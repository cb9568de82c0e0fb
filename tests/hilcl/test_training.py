"""The one loop: what a step says, what is written, how it goes on after a stop, and how it ends when a board fails."""

import contextlib
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hilcl.arrays import FloatArray
from hilcl.board import Board, Contrast, Response, contrast_from_responses
from hilcl.certificate import contrast_lower_bound
from hilcl.device_range import DeviceRange, Rounding
from hilcl.errors import BoardError, ComplianceError, MeasurementError, RuleError, TaskError
from hilcl.learning import ContrastiveLearning, RobbinsMonro
from hilcl.network import Network
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard, SourceDefects
from hilcl.task import Task
from hilcl.training import BestState, Checkpoint, Step, Stopping, stop_early, train

DIVIDER = Network(3, [(0, 1), (1, 2)], [0, 2], [1])
LIMITS = DeviceRange(0.5, 2.0)
TARGET = Task([[1.0, 0.0]], [[0.4]])
GRID = Network.grid(3, 3, inputs=[0, 2, 6], outputs=[4, 8])
COARSE = DeviceRange.from_table(np.linspace(0.5, 2.0, 16))


def grid_task(n_samples: int = 5) -> Task:
    random = np.random.default_rng(7)
    inputs = random.uniform(0.0, 1.0, (n_samples, 3))
    targets = random.uniform(inputs.min(1, keepdims=True), inputs.max(1, keepdims=True), (n_samples, 2))
    return Task(inputs, targets)


class RecordingBoard(SimulatedBoard):
    """A board that measures every sample by itself, writes down what it is asked, and fails on demand."""

    def __init__(self, network: Network, conductances: npt.ArrayLike, limits: DeviceRange = LIMITS) -> None:
        self.events: list[str] = []
        self.measured: list[FloatArray] = []
        self.failure: BaseException | None = None
        self.failing = "respond"
        self.dead_node: int | None = None
        self.dead_samples: slice = slice(None)
        super().__init__(network, conductances, limits)
        self.events.clear()

    def _note(self, event: str) -> None:
        self.events.append(event)
        if self.failure is not None and event == self.failing:
            raise self.failure

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        self._note("program")
        return super().program(conductances)

    def respond(self, drives: npt.ArrayLike) -> Response:
        self._note("respond")
        response = super().respond(drives)
        if self.dead_node is not None:
            response.potentials[self.dead_samples, self.dead_node] = math.nan
        return response

    def contrast(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, nudge: float) -> Contrast:
        rows, wanted = np.asarray(inputs), np.asarray(targets)
        self.measured.append(rows)
        return contrast_from_responses(self, rows, wanted, nudge)

    def make_safe(self) -> None:
        self.events.append("make_safe")


# --- what a step says ---


def test_the_double_is_a_board() -> None:
    assert isinstance(RecordingBoard(DIVIDER, 1.0), Board)


def test_one_step_an_epoch_and_the_first_is_the_untrained_board() -> None:
    steps = list(train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, ContrastiveLearning("auto"), 7))
    assert [step.epoch for step in steps] == list(range(7))
    assert [step.checkpoint.epoch for step in steps] == list(range(1, 8))
    # Equal conductances halve 1 V; the target is 0.4 V.
    assert steps[0].outputs == pytest.approx(0.5)
    assert steps[0].loss == pytest.approx(0.01)
    assert steps[0].power == pytest.approx(0.5)
    # P_clamped − P_free = 0.6² + 0.4² − 0.5
    assert steps[0].contrast == pytest.approx(0.02)
    assert steps[0].conductances_before.tolist() == [1.0, 1.0]


def test_a_step_measures_before_its_update_and_shows_the_conductances_after_it() -> None:
    task, rule = grid_task(), ContrastiveLearning("auto")
    steps = list(train(SimulatedBoard(GRID, 1.0, LIMITS), task, rule, 6))
    for now, later in itertools.pairwise(steps):
        assert now.conductances.tolist() == later.conductances_before.tolist()
        assert now.conductances.tolist() != now.conductances_before.tolist()
    for step in steps:
        measured = SimulatedBoard(GRID, step.conductances_before).contrast(task.inputs, task.targets, 1.0)
        assert step.outputs.tolist() == measured.outputs.tolist()
        assert step.loss == pytest.approx(float(((task.targets - measured.outputs) ** 2).mean()), rel=1e-14)
        assert step.contrast == pytest.approx(measured.contrast.mean(), rel=1e-14)
        assert step.power == pytest.approx(measured.power_free.mean(), rel=1e-14)


def test_the_update_is_projected_gradient_descent() -> None:
    task, gamma = grid_task(), 0.6
    limits = DeviceRange(0.8, 1.3)
    pinned_at_last: set[int] = set()
    for step in train(SimulatedBoard(GRID, 1.0, limits), task, ContrastiveLearning(gamma), 40):
        before = step.conductances_before
        contrast = SimulatedBoard(GRID, before).contrast(task.inputs, task.targets, 1.0)
        wish = before - gamma * contrast.gradient / task.n_samples
        after = np.clip(wish, 0.8, 1.3)
        assert step.conductances == pytest.approx(after, rel=1e-15)
        assert step.state.tolist() == step.conductances.tolist()
        assert step.pinned.tolist() == np.flatnonzero((wish <= 0.8) | (wish >= 1.3)).tolist()
        assert step.residual == pytest.approx(np.linalg.norm(before - after) / gamma, rel=1e-9, abs=1e-14)
        assert step.codes is None
        pinned_at_last = set(step.pinned.tolist())
    assert 0 < len(pinned_at_last) < GRID.n_edges


def test_measured_phases_train_like_computed_ones() -> None:
    for nudge in (1.0, 0.3):
        rule = ContrastiveLearning(0.3, nudge=nudge)
        measured = train(RecordingBoard(GRID, 1.0), grid_task(), rule, 5)
        computed = train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), rule, 5)
        for one, other in zip(measured, computed, strict=True):
            assert one.conductances == pytest.approx(other.conductances, rel=1e-12)
            for name in ("loss", "contrast", "residual", "power"):
                assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9), name


def test_the_nudge_does_not_change_the_contrast_that_is_told() -> None:
    contrasts = [
        next(train(board, TARGET, ContrastiveLearning(0.1, nudge=nudge), 1)).contrast
        for nudge in (1.0, 0.5, 0.01)
        for board in (RecordingBoard(DIVIDER, 1.0), SimulatedBoard(DIVIDER, 1.0, LIMITS))
    ]
    assert contrasts == pytest.approx([0.02] * 6, rel=1e-9)


def test_the_best_lower_bound_is_kept() -> None:
    # 0.2 V and 0.6 V for the same input. Far beyond 2/L the loop cycles between corners whose own bounds differ.
    task = Task([[1.0, 0.0], [1.0, 0.0]], [[0.2], [0.6]])
    board = SimulatedBoard(DIVIDER, [0.5, 0.7], LIMITS)
    bounds = [step.lower_bound for step in train(board, task, ContrastiveLearning(30.0), 20)]
    assert bounds[0] > 0
    assert bounds == sorted(bounds)
    own = contrast_lower_bound(board.contrast(task.inputs, task.targets, 1.0).gradient / 2, board.device_range)
    assert own < bounds[-1]


def test_the_residual_is_that_of_the_measured_gradient_however_small_the_step() -> None:
    # The move of 1 S by 9e-18 S is lost, the residual is not.
    board, task = SimulatedBoard(DIVIDER, 1.0), Task([[1.0, 0.0]], [[0.50001]])
    gradient = board.contrast(task.inputs, task.targets, 1.0).gradient
    step = next(train(board, task, ContrastiveLearning(9e-13), 1))
    assert np.linalg.norm(gradient) > 1e-5
    assert step.residual == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_an_automatic_step_needs_a_lower_limit() -> None:
    board, task = SimulatedBoard(DIVIDER, 1.0), Task([[1.0, 0.0]], [[0.2]])
    with pytest.raises(RuleError, match="needs a lower conductance limit"):
        train(board, task, ContrastiveLearning("auto"), 1)


def test_lists_and_scalars_are_accepted() -> None:
    board = SimulatedBoard(DIVIDER, 1e-3, DeviceRange(1e-6, 1e-2))
    steps = list(train(board, Task([1, 0], [0.4]), ContrastiveLearning("auto"), 2))
    arrays = SimulatedBoard(DIVIDER, np.array([1e-3, 1e-3]), DeviceRange(np.full(2, 1e-6), np.full(2, 1e-2)))
    expected = list(train(arrays, Task(np.array([[1.0, 0.0]]), np.array([[0.4]])), ContrastiveLearning("auto"), 2))
    assert [step.conductances.tolist() for step in steps] == [step.conductances.tolist() for step in expected]


def test_earlier_steps_stay_as_they_were() -> None:
    kept, copies = [], []
    for step in train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), ContrastiveLearning("auto"), 5):
        kept.append(step)
        copies.append((step.state.tolist(), step.conductances.tolist(), step.checkpoint.state.tolist()))
    assert [(s.state.tolist(), s.conductances.tolist(), s.checkpoint.state.tolist()) for s in kept] == copies


@pytest.mark.parametrize("field", ["state", "conductances", "conductances_before"])
def test_a_consumer_cannot_disturb_the_run(field: str) -> None:
    def run(meddle: bool) -> list[float]:
        board = SimulatedBoard(DIVIDER, 1.0, LIMITS)
        last: list[float] = []
        for step in train(board, TARGET, ContrastiveLearning("auto"), 3):
            last = step.conductances.tolist()
            if meddle:
                with contextlib.suppress(ValueError):  # a read-only array refuses
                    getattr(step, field)[:] = 1.9
        return last

    assert run(meddle=True) == run(meddle=False)


def test_the_loop_never_drives_before_the_first_step_is_asked_for() -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    steps = train(board, TARGET, ContrastiveLearning("auto"), 2)
    assert board.events == []
    next(steps)
    assert board.events == ["respond", "respond", "program"]


def test_the_time_of_an_epoch_is_told_by_part() -> None:
    step = next(train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, ContrastiveLearning("auto"), 1))
    parts = dataclasses.asdict(step.timings)
    assert set(parts) == {"measure", "update", "program"}
    assert all(seconds >= 0 for seconds in parts.values())


def test_a_clamp_that_misses_is_logged() -> None:
    # Each input is 1 Ω behind 1 S, so the output is 0.5 V behind 1 Ω; the clamp at 0.4 V has 1 Ω too and gets half way.
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS, Imperfections(sources=SourceDefects(series=1.0)))
    step = next(train(board, TARGET, ContrastiveLearning(0.1), 1))
    ideal = next(train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, ContrastiveLearning(0.1), 1))
    assert step.clamp_error == pytest.approx(0.05)
    assert ideal.clamp_error == 0.0


# --- mini-batches ---


def rows_of(task: Task, measured: list[FloatArray]) -> list[list[int]]:
    numbers = {row.tobytes(): index for index, row in enumerate(task.inputs)}
    return [[numbers[row.tobytes()] for row in batch] for batch in measured]


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5])])
def test_shuffled_batches_visit_every_sample_once_an_epoch(size: int, sizes: list[int]) -> None:
    task, board = grid_task(), RecordingBoard(GRID, 1.0)
    orders = []
    for step in train(board, task, ContrastiveLearning(0.01, batch_size=size), 6, seed=3):
        batches = rows_of(task, board.measured)
        board.measured.clear()
        assert [len(batch) for batch in batches] == sizes
        order = list(itertools.chain.from_iterable(batches))
        assert sorted(order) == list(range(5))
        orders.append(order)
        assert step.checkpoint.updates == (step.epoch + 1) * len(sizes)
        assert step.outputs.shape == (5, 2)
    assert any(order != orders[0] for order in orders)


def test_independent_draws_repeat_and_miss_samples() -> None:
    task, board = grid_task(), RecordingBoard(GRID, 1.0)
    rule = ContrastiveLearning(0.001, batch_size=2, draw="independent")
    counts = np.zeros(5, dtype=np.int64)
    epochs = 300
    for _ in train(board, task, rule, epochs, seed=1):
        batches = rows_of(task, board.measured)
        board.measured.clear()
        assert [len(batch) for batch in batches] == [2, 2, 2]
        for row in itertools.chain.from_iterable(batches):
            counts[row] += 1
    # 1800 draws of 5: 360 each, with a standard deviation of 17.
    assert counts.sum() == epochs * 6
    assert np.abs(counts - 360).max() < 85
    assert len(set(counts.tolist())) > 1


def test_the_seed_decides_the_batches() -> None:
    def run(seed: int) -> list[float]:
        rule = ContrastiveLearning(0.1, batch_size=1)
        *_, last = train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), rule, 3, seed=seed)
        return list(last.conductances)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_each_batch_is_one_update_by_its_own_mean() -> None:
    task, board, gamma = grid_task(), RecordingBoard(GRID, 1.0), 0.2
    step = next(train(board, task, ContrastiveLearning(gamma, batch_size=2), 1, seed=3))
    g = np.ones(GRID.n_edges)
    losses = ((task.targets - SimulatedBoard(GRID, g).contrast(task.inputs, task.targets, 1.0).outputs) ** 2).mean()
    contrasts, start = [], g
    for rows in rows_of(task, board.measured):
        contrast = SimulatedBoard(GRID, g).contrast(task.inputs[rows], task.targets[rows], 1.0)
        contrasts.append(contrast.contrast)
        g = np.clip(g - gamma * contrast.gradient / len(rows), 0.5, 2.0)
    assert step.conductances == pytest.approx(g, rel=1e-12)
    assert step.loss == pytest.approx(float(losses), rel=1e-12)
    assert step.contrast == pytest.approx(np.concatenate(contrasts).mean(), rel=1e-9)
    assert step.residual == pytest.approx(np.linalg.norm(g - start) / (3 * gamma), rel=1e-9)
    assert step.conductances_before.tolist() == start.tolist()


def test_one_batch_of_all_samples_is_the_batch_form() -> None:
    def run(batch_size: int | None) -> Step:
        rule = ContrastiveLearning(0.3, batch_size=batch_size)
        *_, last = train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), rule, 4)
        return last

    whole, batch = run(None), run(5)
    assert batch.conductances == pytest.approx(whole.conductances, rel=1e-12)
    for name in ("loss", "contrast", "residual", "power", "step_size"):
        assert getattr(batch, name) == pytest.approx(getattr(whole, name), rel=1e-9), name


def test_a_falling_step_counts_epochs_in_the_batch_form() -> None:
    rule = ContrastiveLearning(RobbinsMonro(0.2, time_constant=2.0))
    steps = list(train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), rule, 5))
    assert [s.step_size for s in steps] == pytest.approx([0.2, 0.2 / 1.5, 0.1, 0.08, 0.2 / 3])


def test_a_falling_step_counts_updates_in_the_mini_batch_form() -> None:
    rule = ContrastiveLearning(RobbinsMonro(0.2, time_constant=2.0), batch_size=2)
    steps = list(train(SimulatedBoard(GRID, 1.0, LIMITS), grid_task(), rule, 2))
    # Three updates an epoch; a step shows the γ of its last one, number 2 and number 5.
    assert [s.step_size for s in steps] == pytest.approx([0.1, 0.2 / 3.5])


def test_the_falling_step_is_the_one_that_is_taken() -> None:
    rule = ContrastiveLearning(RobbinsMonro(0.2, time_constant=1.0))
    first, second = train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, rule, 2)
    contrast = SimulatedBoard(DIVIDER, first.conductances).contrast(TARGET.inputs, TARGET.targets, 1.0)
    assert second.conductances == pytest.approx(first.conductances - 0.1 * contrast.gradient, rel=1e-14)


# --- lattices ---


def test_a_coarse_lattice_learns_from_updates_of_less_than_half_a_tap() -> None:
    tap, gamma = 0.1, 0.05
    board = SimulatedBoard(DIVIDER, 1.0, COARSE)
    steps = list(train(board, TARGET, ContrastiveLearning(gamma), 400))
    previous = steps[0].conductances_before
    for step in steps:
        assert np.abs(step.state - previous).max() < tap / 2
        previous = step.state
    assert steps[-1].loss < steps[0].loss / 50
    assert COARSE.table is not None
    for step in steps:
        assert step.codes is not None
        assert step.conductances.tolist() == COARSE.table[step.codes].tolist()
        assert np.abs(step.conductances - step.state).max() <= tap / 2 + 1e-12
    # The same rule on the realised conductances stays where it started.
    contrast = SimulatedBoard(DIVIDER, 1.0, COARSE).contrast(TARGET.inputs, TARGET.targets, 1.0)
    wish = np.ones(2) - gamma * contrast.gradient
    assert wish.tolist() != [1.0, 1.0]
    assert COARSE.for_edges(2).project(wish).conductances.tolist() == [1.0, 1.0]


def test_the_gradient_is_measured_at_the_realised_conductances_and_moves_the_unrounded_ones() -> None:
    gamma, task = 0.3, grid_task()
    state = np.ones(GRID.n_edges)
    for step in train(SimulatedBoard(GRID, 1.0, COARSE), task, ContrastiveLearning(gamma), 10):
        contrast = SimulatedBoard(GRID, step.conductances_before).contrast(task.inputs, task.targets, 1.0)
        after = np.clip(state - gamma * contrast.gradient / task.n_samples, 0.5, 2.0)
        assert step.state == pytest.approx(after, rel=1e-14)
        assert step.residual == pytest.approx(np.linalg.norm(after - state) / gamma, rel=1e-9)
        state = step.state


def test_the_unrounded_state_stays_inside_the_limits() -> None:
    # One target beyond what the limits reach: a state that ran away would have to come back first.
    steps = list(
        train(SimulatedBoard(DIVIDER, 1.0, COARSE), Task([[1.0, 0.0]], [[0.05]]), ContrastiveLearning(1.0), 60)
    )
    assert steps[-1].state == pytest.approx([0.5, 2.0], abs=1e-15)
    assert steps[-1].pinned.tolist() == [0, 1]
    assert all((step.state >= 0.5).all() and (step.state <= 2.0).all() for step in steps)


def test_stochastic_rounding_is_unbiased() -> None:
    task, n_seeds = grid_task(), 600
    rule = ContrastiveLearning(0.35)
    written = []
    state = np.zeros(GRID.n_edges)
    for seed in range(n_seeds):
        board = SimulatedBoard(GRID, 1.0, COARSE, solver="dense")
        step = next(train(board, task, rule, 1, seed=seed, rounding="stochastic"))
        written.append(step.conductances)
        state = step.state
    spread = np.array(written)
    assert np.abs(spread - state).max() < 0.1 + 1e-12
    # A rounding to one of two neighbours 0.1 S apart has a standard deviation of at most 0.05 S.
    assert np.abs(spread.mean(axis=0) - state).max() < 5 * 0.05 / math.sqrt(n_seeds)
    nearest = next(train(SimulatedBoard(GRID, 1.0, COARSE), task, rule, 1)).conductances
    assert np.abs(nearest - state).max() > 5 * 0.05 / math.sqrt(n_seeds)


def test_rounding_does_not_touch_continuous_conductances() -> None:
    def run(rounding: Rounding) -> list[float]:
        board = SimulatedBoard(DIVIDER, 1.0, LIMITS)
        *_, last = train(board, TARGET, ContrastiveLearning("auto"), 5, rounding=rounding)
        return list(last.conductances)

    assert run("stochastic") == run("nearest")


# --- going on after a stop ---

NOISY = Imperfections(meters=MeterDefects(noise=1e-3, gain=1e-3, offset=1e-3))


@dataclass(frozen=True)
class Setting:
    """A kind of run."""

    rule: ContrastiveLearning
    limits: DeviceRange = LIMITS
    rounding: Rounding = "nearest"
    imperfections: Imperfections | None = None

    def run(self, epochs: int, start: float = 1.0, resume: Checkpoint | None = None) -> Iterator[Step]:
        board = SimulatedBoard(GRID, start, self.limits, self.imperfections, seed=11)
        return train(board, grid_task(), self.rule, epochs, seed=5, rounding=self.rounding, resume=resume)


SETTINGS = {
    "batch": Setting(ContrastiveLearning("auto")),
    "nudged": Setting(ContrastiveLearning("auto", nudge=0.1)),
    "falling step": Setting(ContrastiveLearning(RobbinsMonro(0.3, time_constant=2.0))),
    "shuffled": Setting(ContrastiveLearning(0.2, batch_size=2)),
    "independent": Setting(ContrastiveLearning(RobbinsMonro(0.3, time_constant=2.0), batch_size=1, draw="independent")),
    "lattice": Setting(ContrastiveLearning(0.2), COARSE),
    "stochastic rounding": Setting(ContrastiveLearning(0.2), COARSE, "stochastic"),
    "noisy meters": Setting(ContrastiveLearning(0.2), imperfections=NOISY),
    "everything": Setting(
        ContrastiveLearning(RobbinsMonro(0.3, time_constant=2.0), nudge=0.5, batch_size=2),
        COARSE,
        "stochastic",
        NOISY,
    ),
}


def plain(value: Any) -> Any:
    """Return a step or checkpoint as lists and numbers that compare exactly, without its timings."""
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: plain(getattr(value, name)) for name in names if name != "timings"}
    return value.tolist() if isinstance(value, np.ndarray) else value


def through_json(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as a store gives it back."""
    return dataclasses.replace(
        checkpoint,
        generator=json.loads(json.dumps(checkpoint.generator)),
        board=json.loads(json.dumps(checkpoint.board)),
    )


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_resumed_run_is_the_undisturbed_run(setting: Setting) -> None:
    epochs = 6
    undisturbed = list(setting.run(epochs))
    assert len({tuple(step.state) for step in undisturbed}) == epochs
    for stopped in undisturbed[:-1]:
        # The new board starts elsewhere, with its noise at the beginning: the checkpoint must bring all of it.
        resumed = list(setting.run(epochs, start=1.5, resume=through_json(stopped.checkpoint)))
        assert [plain(step) for step in resumed] == [plain(s) for s in undisturbed[stopped.epoch + 1 :]]


def test_a_checkpoint_may_be_used_again() -> None:
    setting = SETTINGS["everything"]
    checkpoint = next(setting.run(1)).checkpoint
    before = plain(checkpoint)
    runs = [[plain(step) for step in setting.run(3, resume=checkpoint)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert plain(checkpoint) == before


def test_a_finished_run_has_nothing_to_resume() -> None:
    setting = SETTINGS["batch"]
    *_, last = setting.run(3)
    assert list(setting.run(3, resume=last.checkpoint)) == []


# --- the end ---


def step_with(loss: float = 1.0, residual: float = 1.0, epoch: int = 0) -> Step:
    step = next(train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, ContrastiveLearning("auto"), 1))
    return dataclasses.replace(
        step, loss=loss, residual=residual, epoch=epoch, conductances_before=np.full(2, float(epoch))
    )


def test_the_best_state_has_the_smallest_loss_and_of_equals_the_first() -> None:
    best = BestState()
    assert (best.loss, best.epoch, best.conductances) == (math.inf, -1, None)
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 1.0, math.nan]):
        best.see(step_with(loss=loss, epoch=epoch))
    assert (best.loss, best.epoch) == (1.0, 1)
    assert best.conductances is not None
    assert best.conductances.tolist() == [1.0, 1.0]


def test_the_best_conductances_give_the_best_loss() -> None:
    task, best = grid_task(), BestState()
    # Far beyond 2/L: the loss goes up and down.
    losses = []
    for step in train(SimulatedBoard(GRID, 1.0, LIMITS), task, ContrastiveLearning(40.0), 30):
        best.see(step)
        losses.append(step.loss)
    assert losses[-1] > best.loss == min(losses)
    assert best.conductances is not None
    outputs = SimulatedBoard(GRID, best.conductances).contrast(task.inputs, task.targets, 1.0).outputs
    assert float(((task.targets - outputs) ** 2).mean()) == pytest.approx(best.loss, rel=1e-14)


@pytest.mark.parametrize(
    ("stopping", "reason"),
    [
        (Stopping(loss=0.5), "the loss reached 0.5 V²"),
        (Stopping(loss=0.6), "at or below the 0.6 V² asked for"),
        (Stopping(residual=0.25), "the projected-gradient residual reached 0.25 V²"),
        (Stopping(seconds=10.0), "10 s of wall time are over"),
        (Stopping(loss=0.4, residual=0.3), "residual"),
    ],
)
def test_each_reason_to_stop(stopping: Stopping, reason: str) -> None:
    said = stopping.reason(step_with(loss=0.5, residual=0.25), elapsed=10.0)
    assert said is not None
    assert reason in said


@pytest.mark.parametrize("stopping", [Stopping(), Stopping(loss=0.49), Stopping(residual=0.24), Stopping(seconds=10.1)])
def test_no_reason_to_stop(stopping: Stopping) -> None:
    assert stopping.reason(step_with(loss=0.5, residual=0.25), elapsed=10.0) is None


def test_a_loss_that_is_no_number_is_no_reason_to_stop() -> None:
    nothing = step_with(loss=math.nan, residual=math.nan)
    assert Stopping(loss=1.0, residual=1.0).reason(nothing, elapsed=0.0) is None


def test_stopping_early_includes_the_step_that_gave_the_reason() -> None:
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    steps = iter([step_with(loss=loss) for loss in losses])
    assert [step.loss for step in stop_early(steps, Stopping(loss=3.0))] == [5.0, 4.0, 3.0]
    assert next(steps).loss == 2.0


def test_stopping_early_without_a_reason_goes_to_the_end() -> None:
    steps = train(SimulatedBoard(DIVIDER, 1.0, LIMITS), TARGET, ContrastiveLearning("auto"), 4)
    assert len(list(stop_early(steps, Stopping(loss=0.0)))) == 4


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("failing", ["respond", "program"])
@pytest.mark.parametrize("failure", [BoardError("the link is gone"), KeyboardInterrupt(), RuntimeError("odd")])
def test_a_failing_board_is_made_safe(failure: BaseException, failing: str, batch_size: int | None) -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    steps = train(board, TARGET, ContrastiveLearning("auto", batch_size=batch_size), 5)
    next(steps)
    board.failure, board.failing = failure, failing
    with pytest.raises(type(failure)) as caught:
        next(steps)
    assert caught.value is failure
    assert board.events[-1] == "make_safe"


def test_closing_the_loop_makes_the_board_safe() -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    steps = train(board, TARGET, ContrastiveLearning("auto"), 5)
    next(steps)
    assert "make_safe" not in board.events
    close(steps)
    assert board.events[-1] == "make_safe"
    assert list(steps) == []


def test_closing_a_loop_that_may_stop_early_makes_the_board_safe() -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    inner = train(board, TARGET, ContrastiveLearning("auto"), 5)
    outer = stop_early(inner, Stopping(loss=0.0))
    next(outer)
    close(outer)
    assert board.events[-1] == "make_safe"


def close(steps: Iterator[Step]) -> None:
    generator: Any = steps
    generator.close()


def test_a_board_that_fails_when_a_run_resumes_is_made_safe() -> None:
    checkpoint = next(train(RecordingBoard(DIVIDER, 1.0), TARGET, ContrastiveLearning("auto"), 2)).checkpoint
    board = RecordingBoard(DIVIDER, 1.0)
    board.failure, board.failing = BoardError("the link is gone"), "program"
    with pytest.raises(BoardError, match="the link is gone"):
        list(train(board, TARGET, ContrastiveLearning("auto"), 2, resume=checkpoint))
    assert board.events[-1] == "make_safe"


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_node_without_a_meter_is_named(batch_size: int | None) -> None:
    board = RecordingBoard(GRID, 1.0)
    board.dead_node = 4
    steps = train(board, grid_task(), ContrastiveLearning("auto", batch_size=batch_size), 2)
    with pytest.raises(MeasurementError, match=r"node 4 has no meter.*give it a meter channel"):
        next(steps)
    assert board.events[-1] == "make_safe"
    # Nothing was written from readings that are none.
    assert "program" not in board.events


def test_a_hidden_node_without_a_meter_is_named_with_its_edges() -> None:
    board = RecordingBoard(GRID, 1.0)
    board.dead_node = 1
    edges = np.flatnonzero((GRID.edges == 1).any(axis=1)).tolist()
    with pytest.raises(MeasurementError) as caught:
        next(train(board, grid_task(), ContrastiveLearning("auto"), 2))
    assert "node 1" in str(caught.value)
    assert str(edges) in str(caught.value)


def test_a_single_reading_that_is_missing_is_named_with_its_sample() -> None:
    board = RecordingBoard(GRID, 1.0)
    board.dead_node, board.dead_samples = 8, slice(3, 4)
    with pytest.raises(MeasurementError, match=r"the reading at node 8 in sample 3 is nan"):
        next(train(board, grid_task(), ContrastiveLearning("auto"), 2))
    assert board.events[-1] == "make_safe"


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_source_at_its_limit_is_named(batch_size: int | None) -> None:
    weak = Imperfections(sources=SourceDefects(compliance=1e-3))
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS, weak)
    with pytest.raises(ComplianceError, match=r"the source at node [02] reached its current limit in sample 0"):
        next(train(board, TARGET, ContrastiveLearning("auto", batch_size=batch_size), 2))


@dataclass(frozen=True)
class Blind(ContrastiveLearning):
    """A rule that loses an edge."""

    def direction(self, contrast: Contrast, n_samples: int) -> FloatArray:
        return np.where(np.arange(len(contrast.gradient)) == 1, np.nan, contrast.gradient)


def test_an_update_that_is_no_number_names_its_edge() -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    with pytest.raises(MeasurementError, match="edge 1 between node 1 and node 2 is not a number"):
        next(train(board, TARGET, Blind("auto"), 2))
    assert "program" not in board.events
    assert board.events[-1] == "make_safe"


# --- what is refused before anything is measured ---


def refused(error: type[Exception], match: str, call: Callable[[Board], object]) -> None:
    board = RecordingBoard(DIVIDER, 1.0)
    with pytest.raises(error, match=match):
        call(board)
    assert board.events == []


@pytest.mark.parametrize("epochs", [0, -3, 1.5, True, "ten", None])
def test_a_number_of_epochs_that_is_none_is_refused(epochs: Any) -> None:
    refused(
        RuleError,
        "number of epochs",
        lambda board: train(board, TARGET, ContrastiveLearning("auto"), epochs),
    )


def test_a_number_of_epochs_from_numpy_is_a_number() -> None:
    epochs: Any = np.int64(2)
    board = SimulatedBoard(DIVIDER, 1.0, LIMITS)
    assert len(list(train(board, TARGET, ContrastiveLearning("auto"), epochs))) == 2


def test_a_batch_larger_than_the_task_is_refused() -> None:
    refused(
        RuleError,
        "batch size is 2, but there are only 1 samples",
        lambda board: train(board, TARGET, ContrastiveLearning("auto", batch_size=2), 1),
    )


def test_an_unknown_rounding_is_refused() -> None:
    rounding: Any = "down"
    refused(
        RuleError,
        "'nearest' or 'stochastic', not 'down'",
        lambda board: train(board, TARGET, ContrastiveLearning("auto"), 1, rounding=rounding),
    )


@pytest.mark.parametrize(
    ("task", "match"),
    [
        (Task([[1.0, 0.0, 0.5]], [[0.4]]), "3 input columns"),
        (Task([[1.0, 0.0]], [[0.4, 0.5]]), "2 target columns"),
        (Task([[1.0, 0.0]], [[1.5]]), "target of node 1 in row 0 is 1.5 V"),
    ],
)
def test_a_task_that_does_not_fit_the_board_is_refused(task: Task, match: str) -> None:
    refused(TaskError, match, lambda board: train(board, task, ContrastiveLearning("auto"), 1))
