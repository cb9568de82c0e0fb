"""One point of a sweep: one run of the loop on the simulator, reduced to its figures; what a worker computes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from hilcl.calibration_session import prepare_calibrated
from hilcl.errors import HilclError
from hilcl.evaluation import decoding_centres, evaluate, judge
from hilcl.preparation import Preparation
from hilcl.session import open_board, versions
from hilcl.sweep_file import Point, experiment_at
from hilcl.training import BestState, stop_early, train

Status = Literal["done", "failed", "lost"]


@dataclass(frozen=True)
class Figures:
    """What a run comes to: losses in V², accuracies as shares, contrast of the kept state in W, wall time in s.

    ``untrained_loss`` belongs to the board before training, ``loss``, ``accuracy`` and ``contrast`` to the kept state
    on the training data. Accuracies are None without classes, test figures without test data, ``kept_epoch`` where the
    last state was kept.
    """

    loss: float
    untrained_loss: float
    test_loss: float | None
    accuracy: float | None
    untrained_accuracy: float | None
    test_accuracy: float | None
    contrast: float
    epochs: int
    kept_epoch: int | None
    stopped_by: str
    seconds: float


@dataclass(frozen=True)
class PointResult:
    """What became of a point.

    "done" has figures; "failed" would fail again, for the ``reason`` given; "lost" could not be computed and may be
    another time. ``versions`` is what computed it.
    """

    point: Point
    status: Status
    figures: Figures | None = None
    reason: str = ""
    versions: Mapping[str, str] | None = None


@dataclass(frozen=True)
class SweepBase:
    """What all points of a sweep share: the values of the experiment file, and where it is."""

    values: dict[str, Any]
    path: Path


def compute_point(base: SweepBase, point: Point) -> PointResult:
    """Train the board of a point and return what became of it; never raises."""
    # One thread, and so it stays: several points of one process may end at different times.
    threadpool_limits(limits=1)
    try:
        preparation = prepare_calibrated(experiment_at(base.values, point, base.path))
        figures, computed_by = figures_of(preparation)
    except HilclError as error:
        return PointResult(point, "failed", reason=str(error))
    except MemoryError:
        return PointResult(point, "lost", reason="there is not enough memory for this board and these data")
    except Exception as error:  # noqa: BLE001  # a defect of ours must not end a night's work
        return PointResult(point, "lost", reason=f"internal error ({type(error).__name__}: {error})")
    return PointResult(point, "done", figures, versions=computed_by)


def figures_of(preparation: Preparation) -> tuple[Figures, dict[str, str]]:
    """Run the loop on the simulated board and return its figures, the same as those of ``hilcl run``, and versions.

    Raises BoardError where the board does not do what it is asked, and RuleError for impossible settings.
    """
    learning, data, rule = preparation.experiment.learning, preparation.data, preparation.rule
    task, started = data.train, time.perf_counter()
    with open_board(preparation, "sim") as board:
        best, first, last = BestState(), None, None
        steps = train(board, task, rule, learning.epochs, seed=learning.seed, rounding=learning.rounding)
        for step in stop_early(steps, preparation.stopping):
            best.see(step)
            first, last = first or step, step
        if first is None or last is None:
            raise AssertionError("training makes at least one step")
        kept_epoch = None
        if learning.keep == "best" and best.conductances is not None:
            kept_epoch = best.epoch
            board.program(best.conductances)
        contrast = board.contrast(task.inputs, task.targets, rule.nudge)
        centres = preparation.centres
        if centres is None and task.labels is not None:
            centres = decoding_centres(contrast.outputs, task)
        trained, untrained = judge(contrast.outputs, task, centres), judge(first.outputs, task, centres)
        tested = None if data.test is None else evaluate(board, data.test, centres)
        computed_by = versions(board, preparation)
    return Figures(
        loss=trained.loss,
        untrained_loss=untrained.loss,
        test_loss=None if tested is None else tested.loss,
        accuracy=trained.accuracy,
        untrained_accuracy=untrained.accuracy,
        test_accuracy=None if tested is None else tested.accuracy,
        contrast=float(contrast.contrast.mean()),
        epochs=last.epoch + 1,
        kept_epoch=kept_epoch,
        stopped_by=preparation.stopping.reason(last, 0.0) or "all epochs are done",
        seconds=time.perf_counter() - started,
    ), computed_by
