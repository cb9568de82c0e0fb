"""Class labels as output volts, and output volts back to classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray, frozen
from hilcl.errors import TaskError


@dataclass(frozen=True, eq=False)
class LabelEncoding:
    """The volts that stand for each class: ``levels`` (C, O), one row per class name."""

    class_names: tuple[str, ...]
    levels: FloatArray

    @classmethod
    def one_hot(cls, class_names: Sequence[str], low: float, high: float) -> Self:
        """Return one output per class: ``high`` volts for its own class, ``low`` for the others."""
        if low == high:
            raise TaskError("one-hot volts must differ between low and high")
        return cls(tuple(class_names), frozen(low + (high - low) * np.eye(len(class_names))))

    @classmethod
    def wired(cls, levels: Mapping[str, Sequence[float]]) -> Self:
        """Return the encoding that lists every class's output volts.

        Raises TaskError when rows differ in length or two classes have the same volts.
        """
        widths = {len(row) for row in levels.values()}
        if len(widths) != 1 or widths == {0}:
            raise TaskError("every class needs the same number of output volts, one per output")
        table = np.array(list(levels.values()), dtype=np.float64)
        if len(np.unique(table, axis=0)) != len(table):
            raise TaskError("two classes have the same output volts, so nothing can tell them apart")
        return cls(tuple(levels), frozen(table))

    def number(self, names: Sequence[str]) -> IntArray:
        """Return class numbers (S,) for class names; TaskError names a class that has no volts."""
        index = {name: position for position, name in enumerate(self.class_names)}
        unknown = [name for name in names if name not in index]
        if unknown:
            known = ", ".join(self.class_names)
            raise TaskError(f"class {unknown[0]!r} has no output volts: the encoding knows {known}")
        return np.array([index[name] for name in names], dtype=np.int64)

    def targets(self, labels: IntArray) -> FloatArray:
        """Return target volts (S, O) for class numbers (S,)."""
        return self.levels[labels]


def nearest_class(outputs: FloatArray, centres: FloatArray) -> IntArray:
    """Return for outputs (S, O) the class number whose centre (C, O), in volts, is nearest; (S,).

    With one-hot centres this is the class of the largest output.
    """
    distance = ((outputs[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)


def class_centroids(outputs: FloatArray, labels: IntArray, n_classes: int) -> FloatArray:
    """Return the mean outputs (C, O) in volts of every class; TaskError for a class without samples."""
    counts = np.bincount(labels, minlength=n_classes)
    if (counts == 0).any():
        raise TaskError(f"class {int(np.flatnonzero(counts == 0)[0])} has no sample to take the mean output of")
    sums = np.zeros((n_classes, outputs.shape[1]))
    np.add.at(sums, labels, outputs)
    return sums / counts[:, None]


def confusion_matrix(labels: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Return counts (C, C): row the true class, column the predicted one."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)
