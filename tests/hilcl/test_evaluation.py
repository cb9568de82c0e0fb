import numpy as np
import pytest

from hilcl import Network, Task
from hilcl.errors import ComplianceError, TaskError
from hilcl.evaluation import Evaluation, decoding_centres, evaluate, judge, measure_outputs
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard, SourceDefects

# Two inputs, two outputs: output j is the mean of the inputs weighted by the conductances that lead to it.
CROSSBAR = Network.crossbar(2, 2)
CONDUCTANCES = np.array([3e-3, 1e-3, 1e-3, 3e-3])
INPUTS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
OUTPUTS = np.array([[0.75, 0.25], [0.25, 0.75], [1.0, 1.0]])
CENTRES = np.array([[0.8, 0.2], [0.2, 0.8]])


@pytest.fixture
def board() -> SimulatedBoard:
    return SimulatedBoard(CROSSBAR, CONDUCTANCES)


def test_the_outputs_are_those_of_the_free_phase(board: SimulatedBoard) -> None:
    np.testing.assert_allclose(measure_outputs(board, INPUTS), OUTPUTS, rtol=1e-14)


def test_the_loss_is_the_mean_squared_error(board: SimulatedBoard) -> None:
    targets = np.array([[0.85, 0.25], [0.25, 0.55], [1.0, 1.0]])
    found = evaluate(board, Task(INPUTS, targets))
    assert found.loss == pytest.approx((0.01 + 0.04) / 6)
    np.testing.assert_allclose(found.outputs, OUTPUTS, rtol=1e-14)
    assert found.predicted is None
    assert found.confusion is None
    assert found.accuracy is None


def test_accuracy_and_confusion(board: SimulatedBoard) -> None:
    labels = [0, 1, 0]
    found = evaluate(board, Task(INPUTS, CENTRES[labels], labels, ("a", "b")), CENTRES)
    assert found.predicted is not None
    assert found.confusion is not None
    assert found.predicted[:2].tolist() == [0, 1]
    wrong = Task(INPUTS, CENTRES[[1, 1, 0]], [1, 1, 0], ("a", "b"))
    judged = judge(np.array([[0.75, 0.25], [0.25, 0.75], [0.9, 0.1]]), wrong, CENTRES)
    assert judged.confusion is not None
    assert judged.confusion.tolist() == [[1, 0], [1, 1]]
    assert judged.accuracy == pytest.approx(2 / 3)


def test_a_class_that_nothing_belongs_to_keeps_its_row(board: SimulatedBoard) -> None:
    centres = np.array([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]])
    found = evaluate(board, Task(INPUTS[:2], centres[:2], [0, 1], ("a", "b", "c")), centres)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert found.accuracy == 1.0


def test_labels_without_centres_give_a_loss_only(board: SimulatedBoard) -> None:
    assert evaluate(board, Task(INPUTS, OUTPUTS, [0, 1, 0], ("a", "b"))).accuracy is None


def test_decoding_centres_are_the_mean_outputs() -> None:
    task = Task(INPUTS, OUTPUTS, [1, 0, 1], ("a", "b"))
    np.testing.assert_allclose(decoding_centres(OUTPUTS, task), [[0.25, 0.75], [0.875, 0.625]])


def test_decoding_centres_need_a_sample_of_every_class() -> None:
    with pytest.raises(TaskError, match="class 0 has no sample"):
        decoding_centres(OUTPUTS, Task(INPUTS, OUTPUTS, [1, 1, 1], ("a", "b")))
    with pytest.raises(TaskError, match="class 0 has no sample"):
        decoding_centres(OUTPUTS, Task(INPUTS, OUTPUTS, None, ("a", "b")))


def test_noise_reaches_the_loss() -> None:
    task = Task(np.tile(INPUTS, (200, 1)), np.tile(OUTPUTS, (200, 1)))
    noisy = SimulatedBoard(CROSSBAR, CONDUCTANCES, imperfections=Imperfections(meters=MeterDefects(noise=0.01)), seed=1)
    assert evaluate(noisy, task).loss == pytest.approx(1e-4, rel=0.2)


def test_outputs_without_a_meter_that_matters_are_not_needed(board: SimulatedBoard) -> None:
    hidden = Network.grid(2, 2, inputs=[0, 3], outputs=[1])
    with SimulatedBoard(hidden, 1e-3) as grid:
        np.testing.assert_allclose(measure_outputs(grid, np.array([[1.0, 0.0]])), [[0.5]], rtol=1e-14)


def test_a_source_at_its_limit_is_an_error() -> None:
    limited = Imperfections(sources=SourceDefects(compliance=1e-4))
    with (
        SimulatedBoard(CROSSBAR, CONDUCTANCES, imperfections=limited) as board,
        pytest.raises(ComplianceError, match="node 0"),
    ):
        measure_outputs(board, INPUTS)


def test_an_evaluation_without_a_mistake() -> None:
    assert Evaluation(OUTPUTS, 0.0, np.array([0]), np.array([[1, 0], [0, 0]])).accuracy == 1.0
