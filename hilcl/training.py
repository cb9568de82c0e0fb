"""The one loop: measure both phases, update, project, program. Everything else consumes its steps."""

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilcl.arrays import FloatArray, IntArray, frozen, mean
from hilcl.board import Board, BoardSnapshot, free_drives, require_usable
from hilcl.certificate import contrast_lower_bound, lipschitz_constant, rounding_per_siemens, safe_step_size
from hilcl.device_range import DeviceRange, Projection, Rounding
from hilcl.errors import BoardError, HilclError, MeasurementError, RuleError
from hilcl.learning import ContrastiveLearning, RobbinsMonro, Rule
from hilcl.network import Network
from hilcl.task import Task
from hilcl.uninterrupted import uninterrupted
from hilcl.whole_step import Stepper, StepsWhole


@dataclass(frozen=True)
class Timings:
    """Seconds spent in one epoch: measuring both phases, computing the update and projection, programming.

    A board that computes phases and update in one has the update in ``measure``.
    """

    measure: float
    update: float
    program: float


@dataclass(frozen=True)
class Checkpoint:
    """All that decides how a run goes on after an epoch.

    ``epoch`` is the next one. ``state`` (M,) are the unrounded conductances the rule updates, ``conductances`` (M,) the
    programmed ones, in siemens. ``generator`` and ``board`` are random-generator states as JSON values, or empty.
    """

    epoch: int
    updates: int
    state: FloatArray
    conductances: FloatArray
    lower_bound: float
    generator: Mapping[str, Any]
    board: BoardSnapshot


@dataclass(frozen=True)
class Step:
    """One epoch of the loop.

    ``loss`` (mean squared output error over samples and outputs, V²), ``outputs`` (S, O) in volts and ``power``
    (mean over samples, watts) belong to the free phase *before* this epoch's update, so epoch 0 is the untrained board;
    the conductances they were measured at are ``conductances_before``. ``contrast`` is Q in watts, mean over samples;
    in the mini-batch form each at the conductances then in force. ``conductances`` (M,) and ``codes`` (M,) are what
    is programmed after the update, ``pinned`` the edges held at a limit, ``state`` (M,) the unrounded conductances.
    ``residual`` is ‖g − Π(g − γh)‖/γ in V², ``lower_bound`` the best lower bound on Q so far in watts (meaningful where
    the contrast is convex, see Certificate). ``clamp_error`` in volts is the largest miss of an applied clamp.
    """

    epoch: int
    loss: float
    contrast: float
    outputs: FloatArray
    conductances: FloatArray
    codes: IntArray | None
    pinned: IntArray
    step_size: float
    residual: float
    lower_bound: float
    power: float
    clamp_error: float
    timings: Timings
    conductances_before: FloatArray
    state: FloatArray
    checkpoint: Checkpoint


@dataclass(frozen=True)
class StepFigures:
    """What of a Step stopping and certificates look at, for a step that is only in a store; units as in Step."""

    loss: float
    contrast: float
    residual: float
    lower_bound: float


@dataclass(frozen=True)
class Stopping:
    """When to stop before the last epoch; None switches a test off.

    ``loss`` in V² and ``residual`` in V² stop at or below the value, ``seconds`` of wall time in this sitting.
    """

    loss: float | None = None
    residual: float | None = None
    seconds: float | None = None

    def reason(self, step: Step | StepFigures, elapsed: float) -> str | None:
        """Return why to stop after this step, or None to go on."""
        if self.loss is not None and step.loss <= self.loss:
            return f"the loss reached {step.loss:.3g} V², at or below the {self.loss:g} V² asked for"
        if self.residual is not None and step.residual <= self.residual:
            return f"the projected-gradient residual reached {step.residual:.3g} V²"
        if self.seconds is not None and elapsed >= self.seconds:
            return f"{self.seconds:g} s of wall time are over"
        return None


class BestState:
    """Keeps the conductances with the smallest loss among the steps it was shown."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.epoch = -1
        self.conductances: FloatArray | None = None

    def see(self, step: Step) -> None:
        """Take note of a step; of equal losses the first one stays."""
        self.note(step.epoch, step.loss, step.conductances_before)

    def note(self, epoch: int, loss: float, conductances: FloatArray) -> None:
        """Take note of a loss measured at these conductances (M,) in siemens."""
        if loss < self.loss:
            self.loss, self.epoch, self.conductances = loss, epoch, conductances


def stop_early(steps: Iterator[Step], stopping: Stopping) -> Iterator[Step]:
    """Yield the steps up to and including the first one that gives a reason to stop."""
    start = time.perf_counter()
    # Closing the loop makes the board safe at once, not when the interpreter gets round to it.
    with contextlib.ExitStack() as closing:
        if isinstance(steps, Generator):
            closing.callback(steps.close)
        for step in steps:
            yield step
            if stopping.reason(step, time.perf_counter() - start) is not None:
                return


def train(
    board: Board,
    task: Task,
    rule: Rule,
    epochs: int,
    *,
    seed: int = 0,
    rounding: Rounding = "nearest",
    resume: Checkpoint | None = None,
) -> Iterator[Step]:
    """Train the board and yield one Step per epoch, up to ``epochs`` of them in all.

    The rule starts from the board's present conductances and updates an unrounded copy; what is written is its
    projection by ``rounding``. ``seed`` drives mini-batches and stochastic rounding. ``resume`` goes on from the
    checkpoint of an earlier Step exactly as if nothing had happened. When anything goes wrong the board is made safe.

    Raises, before anything is measured, TaskError where the task does not fit the board and RuleError for impossible
    settings; while running, what the board raises.
    """
    task.check_on(board.network)
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
        raise RuleError(f"the number of epochs must be a whole number of at least 1, got {epochs}")
    if rounding not in ("nearest", "stochastic"):
        raise RuleError(f"rounding is 'nearest' or 'stochastic', not {rounding!r}")
    if rule.batch_size is not None and rule.batch_size > task.n_samples:
        raise RuleError(f"the batch size is {rule.batch_size}, but there are only {task.n_samples} samples")
    return _Loop(board, task, rule, seed, rounding, resume).run(int(epochs))


def residual_of(limits: DeviceRange, state: FloatArray, direction: FloatArray, step_size: float) -> FloatArray:
    """Return (g − Π(g − γh))/γ, (M,) in V², of a state g in siemens and a direction h in V²."""
    wish = state - step_size * direction
    # Away from the limits that is h itself; the difference would lose a small one to rounding.
    free = (wish > limits.g_min) & (wish < limits.g_max)
    return np.where(free, direction, (state - limits.clip(wish)) / step_size)


def _residual(
    before: FloatArray, after: FloatArray, direction: FloatArray, pinned: IntArray, step_size: float
) -> FloatArray:
    """Return what ``residual_of`` does where the new state and the edges at a limit are known already."""
    if not pinned.size:
        return direction
    residual = direction.copy()
    residual[pinned] = (before[pinned] - after[pinned]) / step_size
    return residual


class _Loop:
    """The state of a training run."""

    def __init__(
        self, board: Board, task: Task, rule: Rule, seed: int, rounding: Rounding, resume: Checkpoint | None
    ) -> None:
        self.board, self.task, self.rule, self.rounding = board, task, rule, rounding
        self.range_as_given = board.device_range
        self.range = self.range_as_given.for_edges(board.network.n_edges)
        lipschitz = lipschitz_constant(board.network, self.range, task, rule.batch_size)
        self.first_step_size = safe_step_size(rule, self.range, lipschitz)
        if not (math.isfinite(self.first_step_size) and self.first_step_size > 0):
            raise RuleError("the automatic step size is not a usable number: raise the lower conductance limit")
        self.rounding_per_siemens = rounding_per_siemens(task)
        self.schedule = rule.step_size if isinstance(rule.step_size, RobbinsMonro) else None
        self.generator = np.random.default_rng(seed)
        self.plain = getattr(type(rule), "direction", None) is ContrastiveLearning.direction
        self.draws = rounding == "stochastic" or rule.batch_size is not None
        self.stepper = self.new_stepper()
        self.epoch = self.updates = 0
        self.lower_bound = 0.0
        self.resume = resume
        if resume is None:
            self.state = frozen(self.range.clip(board.conductances))
            return
        self.epoch, self.updates, self.lower_bound = resume.epoch, resume.updates, resume.lower_bound
        self.state = frozen(np.array(resume.state))
        if resume.generator:
            self.generator.bit_generator.state = resume.generator

    def follow_range(self) -> None:
        """Take over what the devices can take where the board has learnt better."""
        present = self.board.device_range
        if present is not self.range_as_given:
            self.range_as_given, self.range = present, present.for_edges(self.board.network.n_edges)
            self.state = frozen(self.range.clip(self.state))
            self.stepper = self.new_stepper()

    def new_stepper(self) -> Stepper | None:
        """Return the board's own way of doing a whole epoch, where it has one for this rule."""
        if not self.plain or self.rule.batch_size is not None or not isinstance(self.board, StepsWhole):
            return None
        return self.board.stepper(self.task, self.rule.nudge, self.range)

    def run(self, epochs: int) -> Iterator[Step]:
        try:
            if self.resume is not None:
                self.board.program(self.resume.conductances)
                self.board.restore(self.resume.board)
            for _ in range(self.epoch, epochs):
                self.follow_range()
                if self.rule.batch_size is not None:
                    yield self.mini_batch_epoch()
                else:
                    yield self.whole_epoch() or self.batch_epoch()
        except BaseException as error:
            try:
                with uninterrupted("making the board safe"):
                    self.board.make_safe()
            except BoardError as unsafe:
                if not isinstance(error, HilclError) or str(unsafe) in str(error):
                    raise
                raise BoardError(f"{error}; moreover {unsafe}") from error
            raise

    def whole_epoch(self) -> Step | None:
        """One update from all samples in one computation of the board's; None where it has none."""
        if self.stepper is None:
            return None
        start = time.perf_counter()
        before, gamma = self.board.conductances, self.step_size()
        found = self.stepper.step(self.state, gamma)
        if found is None:
            return None
        measured = time.perf_counter()
        self.state = found.state
        self.updates += 1
        self.lower_bound = max(self.lower_bound, found.bound)
        if self.range.is_discrete:
            projection = self.range.project(found.state, self.rounding, self.generator)
        else:
            projection = Projection(found.state, None, found.pinned)
        projected = time.perf_counter()
        realised = self.board.program(projection.conductances)
        done = time.perf_counter()
        return self.step(
            found.loss,
            found.contrast,
            found.outputs,
            before,
            realised,
            projection,
            gamma,
            found.residual,
            found.power,
            0.0,
            Timings(measured - start, projected - measured, done - projected),
        )

    def batch_epoch(self) -> Step:
        """One update from all samples."""
        start = time.perf_counter()
        before, task = self.board.conductances, self.task
        contrast = self.board.contrast(task.inputs, task.targets, self.rule.nudge)
        measured = time.perf_counter()
        loss = mean((task.targets - contrast.outputs) ** 2)
        direction = self.rule.direction(contrast, task.n_samples)
        if self.rule.nudge == 1.0:
            gradient = direction if self.plain else contrast.gradient / task.n_samples
            allowance = self.rounding_per_siemens * float(np.add.reduce(before))
            bound = contrast_lower_bound(gradient, self.range, allowance)
            self.lower_bound = max(self.lower_bound, bound)
        gamma, residual, projection = self.update(direction)
        projected = time.perf_counter()
        realised = self.board.program(projection.conductances)
        done = time.perf_counter()
        return self.step(
            loss,
            mean(contrast.contrast),
            contrast.outputs,
            before,
            realised,
            projection,
            gamma,
            math.sqrt(residual.dot(residual)),
            mean(contrast.power_free),
            contrast.clamp_error,
            Timings(measured - start, projected - measured, done - projected),
        )

    def mini_batch_epoch(self) -> Step:
        """Measure all samples free, then update once per mini-batch."""
        start = time.perf_counter()
        before, task, n_inputs = self.board.conductances, self.task, len(self.board.network.inputs)
        network = self.board.network
        free = self.board.respond(free_drives(task.inputs, len(network.outputs)))
        require_usable(network, free, needed=network.outputs)
        outputs = free.potentials[:, network.outputs]
        loss = float(((task.targets - outputs) ** 2).mean())
        power = float((task.inputs * free.currents[:, :n_inputs]).sum(axis=1).mean())
        spent = {"measure": time.perf_counter() - start, "update": 0.0, "program": 0.0}
        steps, contrasts, clamp_error, moved = 0.0, [], 0.0, np.zeros(network.n_edges)
        gamma, realised = self.first_step_size, before
        projection = Projection(before, None, np.zeros(0, dtype=np.int64))
        for rows in self.batches():
            start = time.perf_counter()
            contrast = self.board.contrast(task.inputs[rows], task.targets[rows], self.rule.nudge)
            measured = time.perf_counter()
            gamma, residual, projection = self.update(self.rule.direction(contrast, len(rows)))
            projected = time.perf_counter()
            realised = self.board.program(projection.conductances)
            done = time.perf_counter()
            spent["measure"] += measured - start
            spent["update"] += projected - measured
            spent["program"] += done - projected
            steps += gamma
            moved += gamma * residual
            contrasts.append(contrast.contrast)
            clamp_error = max(clamp_error, contrast.clamp_error)
        return self.step(
            loss,
            float(np.concatenate(contrasts).mean()),
            outputs,
            before,
            realised,
            projection,
            gamma,
            float(np.linalg.norm(moved)) / steps,
            power,
            clamp_error,
            Timings(**spent),
        )

    def batches(self) -> Iterator[IntArray]:
        size, n_samples = self.rule.batch_size or self.task.n_samples, self.task.n_samples
        if self.rule.draw == "independent":
            order = self.generator.integers(n_samples, size=math.ceil(n_samples / size) * size)
        else:
            order = self.generator.permutation(n_samples)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def step_size(self) -> float:
        """Return γ of the next update in S/V²."""
        return self.first_step_size * (1.0 if self.schedule is None else self.schedule.at(self.updates))

    def update(self, direction: FloatArray) -> tuple[float, FloatArray, Projection]:
        """Move the unrounded state and return γ, the residual (M,) in V² and what is to be written."""
        if not np.logical_and.reduce(np.isfinite(direction)):
            raise _missing_update(self.board.network, direction)
        gamma = self.step_size()
        wish = self.state - gamma * direction
        state = self.range.clip(wish)
        if self.range.is_discrete:
            projection = self.range.project(wish, self.rounding, self.generator)
        else:
            projection = Projection(state, None, self.range.pinned(wish))
        residual = _residual(self.state, state, direction, projection.pinned, gamma)
        self.state = frozen(state)
        self.updates += 1
        return gamma, residual, projection

    def step(
        self,
        loss: float,
        contrast: float,
        outputs: FloatArray,
        before: FloatArray,
        realised: FloatArray,
        projection: Projection,
        gamma: float,
        residual: float,
        power: float,
        clamp_error: float,
        timings: Timings,
    ) -> Step:
        epoch = self.epoch
        self.epoch += 1
        checkpoint = Checkpoint(
            self.epoch,
            self.updates,
            self.state,
            realised,
            self.lower_bound,
            self.generator.bit_generator.state if self.draws else {},
            self.board.snapshot(),
        )
        return Step(
            epoch=epoch,
            loss=loss,
            contrast=contrast,
            outputs=outputs,
            conductances=realised,
            codes=projection.codes,
            pinned=projection.pinned,
            step_size=gamma,
            residual=residual,
            lower_bound=self.lower_bound,
            power=power,
            clamp_error=clamp_error,
            timings=timings,
            conductances_before=before,
            state=self.state,
            checkpoint=checkpoint,
        )


def _missing_update(network: Network, direction: FloatArray) -> MeasurementError:
    edge = int(np.flatnonzero(~np.isfinite(direction))[0])
    ends = " and ".join(network.name(int(node)) for node in network.edges[edge])
    return MeasurementError(
        f"the update of edge {edge} between {ends} is not a number: check the readings at these nodes"
    )
