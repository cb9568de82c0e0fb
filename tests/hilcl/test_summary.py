import json
import re
from collections.abc import Sequence

import numpy as np
import pytest

from hilcl import Certificate, ContrastiveLearning, DeviceRange, Network, Potentiometer, Step, Task, train
from hilcl.evaluation import Evaluation, evaluate
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard
from hilcl.store import History
from hilcl.summary import evaluation_json, held_at_limits, remarks, run_summary

DIVIDER = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
BOX = DeviceRange([1e-4, 1e-4], [1e-2, 1e-2])
RULE = ContrastiveLearning("auto")
NOISY = Imperfections(meters=MeterDefects(noise=1e-3))
ONE = Task([[1.0, 0.0]], [[0.2]])
TWO_MINDS = Task([[1.0, 0.0], [1.0, 0.0]], [[0.2], [0.8]])


def history_of(steps: Sequence[Step]) -> History:
    """Return steps as a store gives them back."""
    scalars = {
        name: np.array([getattr(step, name) for step in steps], dtype=float)
        for name in ("epoch", "loss", "contrast", "step_size", "residual", "lower_bound", "power", "clamp_error")
    }
    scalars |= {
        f"{name}_s": np.array([getattr(step.timings, name) for step in steps])
        for name in ("measure", "update", "program")
    }
    return History(
        scalars,
        np.array([step.conductances for step in steps]),
        None if steps[0].codes is None else np.array([step.codes for step in steps]),
        np.array([step.outputs for step in steps]),
        [step.pinned for step in steps],
    )


def trained(task: Task, board: SimulatedBoard, epochs: int) -> tuple[History, Certificate]:
    steps = list(train(board, task, RULE, epochs))
    return history_of(steps), Certificate.of(board, task, RULE, steps[-1])


def made_up(loss: Sequence[float], conductances: Sequence[float], codes: Sequence[int] | None = None) -> History:
    """Return a history in which only the loss (and one edge's code) moves."""
    n_epochs = len(loss)
    names = ("epoch", "clamp_error", "measure_s", "update_s", "program_s")
    pinned = np.flatnonzero((np.array(conductances) <= 1e-4) | (np.array(conductances) >= 1e-2))
    return History(
        {"loss": np.array(loss), **{name: np.zeros(n_epochs) for name in names}},
        np.tile(np.array(conductances), (n_epochs, 1)),
        None if codes is None else np.array([[7, code] for code in codes]),
        np.zeros((n_epochs, 1, 1)),
        [pinned] * n_epochs,
    )


OPEN = Certificate("none", "", True, 1.0, 2.0, 1.0)
PROVEN = Certificate("convex", "", True, 1.0, 2.0, 1.0, contrast=1e-3, residual=0.0, lower_bound=1e-4)


def test_held_at_limits() -> None:
    box = DeviceRange([1e-4] * 4, [1e-2] * 4)
    assert held_at_limits(np.array([1e-4, 1e-3, 1e-2, 9.99e-3]), box) == [0, 2]
    pots = DeviceRange.of_pots(Potentiometer(4, 1e3, 100.0)).for_edges(2)
    assert pots.table is not None
    assert held_at_limits(pots.table[0][[0, 2]], pots) == [0]
    assert held_at_limits(pots.table[0][[3, 1]], pots) == [0]


def test_an_evaluation_as_json() -> None:
    found = evaluation_json(Evaluation(np.array([[0.5]]), 1e-3, np.array([1]), np.array([[0, 0], [1, 3]])))
    assert json.loads(json.dumps(found)) == {
        "loss": 1e-3,
        "accuracy": 0.75,
        "confusion": [[0, 0], [1, 3]],
        "predicted": [1],
        "outputs": [[0.5]],
    }
    plain = evaluation_json(Evaluation(np.array([[0.5]]), 1e-3))
    assert plain["accuracy"] is plain["confusion"] is plain["predicted"] is None


def test_a_summary_of_a_good_run() -> None:
    with SimulatedBoard(DIVIDER, 1e-3, BOX) as board:
        history, certificate = trained(ONE, board, 300)
        summary = run_summary(
            history,
            stopped_by="all epochs are done",
            kept_epoch=299,
            kept_conductances=board.conductances,
            centres=None,
            evaluations={"train": evaluate(board, ONE)},
            certificate=certificate,
            device_range=BOX,
        )
    assert json.loads(json.dumps(summary)) == summary
    assert summary["epochs"] == 300
    assert summary["kept_epoch"] == 299
    assert summary["kept_conductances"] == history.conductances[-1].tolist()
    assert summary["centres"] is None
    assert summary["coverage"] == "convex"
    assert summary["certificate"] == certificate.sentences()
    assert summary["evaluation"]["train"]["loss"] < 1e-9
    assert summary["largest_clamp_error"] == history.scalars["clamp_error"].max()
    assert summary["loop_seconds"] == pytest.approx(
        sum(history.scalars[name].sum() for name in ("measure_s", "update_s", "program_s"))
    )
    assert summary["remarks"] == []


def test_a_run_that_learns_has_nothing_to_remark() -> None:
    for imperfections in (None, NOISY):
        with SimulatedBoard(DIVIDER, 1e-3, BOX, imperfections, seed=1) as board:
            history, certificate = trained(ONE, board, 300)
        assert remarks(history, BOX, certificate) == []
        assert history.scalars["loss"][-1] < 1e-4


def test_targets_that_nothing_fits_are_remarked_upon() -> None:
    """Noise forbids a certificate; what is seen is an error that stays while conductances sink to the limit."""
    with SimulatedBoard(DIVIDER, 1e-3, BOX, NOISY, seed=1) as board:
        history, certificate = trained(TWO_MINDS, board, 300)
    assert certificate.realisable is None
    (said,) = remarks(history, BOX, certificate)
    assert re.match(r"The error has stalled at 0\.09\d* V² with 2 edges held at a limit, 2 of them at the lowest", said)


def test_what_is_proven_is_left_to_the_certificate() -> None:
    with SimulatedBoard(DIVIDER, 1e-3, BOX) as board:
        history, certificate = trained(TWO_MINDS, board, 300)
    assert certificate.realisable is False
    assert remarks(history, BOX, certificate) == []
    assert any("cannot all be met" in sentence for sentence in certificate.sentences())


def test_a_stall_is_judged_by_medians_of_the_last_fifths() -> None:
    flat = [1.0] * 60 + [0.5] * 40
    pinned = [1e-4, 1e-3]
    assert "stalled at 0.5 V² with 1 edges" in remarks(made_up(flat, pinned), BOX, OPEN)[0]
    spikes = [1.0] * 60 + [0.5, 0.5, 0.5, 9.0] * 10
    assert "stalled at 0.5 V²" in remarks(made_up(spikes, pinned), BOX, OPEN)[0]
    assert remarks(made_up(np.geomspace(1.0, 0.5, 100).tolist(), pinned), BOX, OPEN) == [], "still falling"
    assert remarks(made_up([0.0] * 100, pinned), BOX, OPEN) == [], "nothing left to fall"
    assert remarks(made_up(flat, [1e-2, 1e-3]), BOX, OPEN) == [], "held at the upper limit only"
    assert remarks(made_up(flat, [2e-3, 1e-3]), BOX, OPEN) == [], "not held at all"
    assert remarks(made_up(flat, pinned), BOX, PROVEN) == [], "the certificate says it"


@pytest.mark.parametrize("n_epochs", [0, 1, 2, 3, 4])
def test_a_short_run_has_no_trend(n_epochs: int) -> None:
    assert remarks(made_up([1.0] * n_epochs, [1e-4, 1e-3]), BOX, OPEN) == []


def test_codes_that_no_longer_change() -> None:
    free = [2e-3, 1e-3]
    still = remarks(made_up([1.0] * 100, free, [1] * 50 + [2] * 50), BOX, OPEN)
    assert still == ["No code has changed in the last 20 epochs: a longer run brings little."]
    assert remarks(made_up([1.0] * 100, free, [1, 2] * 50), BOX, OPEN) == []
    assert remarks(made_up([1.0] * 100, free, [1] * 99 + [2]), BOX, OPEN) == []
    assert remarks(made_up([0.0] * 100, free, [1] * 100), BOX, OPEN) == [], "there is nothing to change for"


def test_codes_of_a_real_run() -> None:
    pots = Potentiometer(8, 1e3, 100.0)
    with SimulatedBoard(DIVIDER, 1e-3, pots=pots) as board:
        history, certificate = trained(ONE, board, 400)
        assert history.codes is not None
        said = remarks(history, board.device_range, certificate)
    unchanged = (np.diff(history.codes[-80:], axis=0) == 0).all()
    assert any("No code has changed" in sentence for sentence in said) == bool(unchanged)
