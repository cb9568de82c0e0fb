"""What a trained board achieves on data: loss, and for classes accuracy and confusion."""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.board import Board, free_drives, require_usable
from hilcl.encoding import class_centroids, confusion_matrix, nearest_class
from hilcl.task import Task


@dataclass(frozen=True)
class Evaluation:
    """Outputs (S, O) in volts of the free phase, the mean squared error in V², and for classes the predictions.

    ``predicted`` (S,) and ``confusion`` (C, C; rows true, columns predicted) are None without classes.
    """

    outputs: FloatArray
    loss: float
    predicted: IntArray | None = None
    confusion: IntArray | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of samples whose class was found; None without classes."""
        if self.confusion is None:
            return None
        return float(np.trace(self.confusion) / self.confusion.sum())


def measure_outputs(board: Board, inputs: FloatArray) -> FloatArray:
    """Return the outputs (S, O) in volts of the free phase for inputs (S, I) in volts."""
    network = board.network
    response = board.respond(free_drives(inputs, len(network.outputs)))
    require_usable(network, response, needed=network.outputs)
    return response.potentials[:, network.outputs]


def evaluate(board: Board, task: Task, centres: FloatArray | None = None) -> Evaluation:
    """Measure the free phase of every sample and compare it with the targets.

    ``centres`` (C, O) in volts decide the class (nearest centre); without them, or without labels, none is assigned.
    """
    return judge(measure_outputs(board, task.inputs), task, centres)


def judge(outputs: FloatArray, task: Task, centres: FloatArray | None = None) -> Evaluation:
    """Return the evaluation of outputs (S, O) that are already measured."""
    loss = float(((task.targets - outputs) ** 2).mean())
    if task.labels is None or centres is None:
        return Evaluation(outputs, loss)
    predicted = nearest_class(outputs, centres)
    return Evaluation(outputs, loss, predicted, confusion_matrix(task.labels, predicted, len(centres)))


def decoding_centres(outputs: FloatArray, task: Task) -> FloatArray:
    """Return each class's mean output (C, O) in volts over a training set: what its samples look like on this board."""
    labels = np.zeros(0, dtype=np.int64) if task.labels is None else task.labels
    return class_centroids(outputs, labels, len(task.class_names))
