"""What the board has to learn: input volts, target volts, and the classes they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from hilcl.arrays import FloatArray, IntArray, frozen, samples_by
from hilcl.errors import TaskError
from hilcl.network import Network

REACH_TOLERANCE = 1e-12
"""Volts per volt of span by which a target may exceed the driven range: rounding, not physics."""


@dataclass(frozen=True, eq=False)
class Task:
    """Samples to learn: ``inputs`` (S, I) and ``targets`` (S, O) in volts.

    For classification ``labels`` (S,) numbers each sample's class and ``class_names`` names the classes; the
    target of a sample is then its class's volts. Array-likes are accepted; a flat list is one sample.

    Raises TaskError when there is no sample, the counts differ, or a value is not finite.
    """

    inputs: FloatArray
    targets: FloatArray
    labels: IntArray | None = None
    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        inputs: npt.ArrayLike,
        targets: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        inputs = samples_by("inputs", inputs, None, TaskError)
        targets = samples_by("targets", targets, None, TaskError)
        if inputs.size == 0 or targets.size == 0:
            raise TaskError("a task needs at least one sample with an input and a target: the data are empty")
        if len(inputs) != len(targets):
            raise TaskError(f"there are {len(inputs)} rows of inputs but {len(targets)} rows of targets")
        for name, values in (("inputs", inputs), ("targets", targets)):
            wrong = np.argwhere(~np.isfinite(values))
            if len(wrong):
                row, column = wrong[0].tolist()
                raise TaskError(f"{name} row {row}, column {column} is {values[row, column]}, not a number of volts")
        object.__setattr__(self, "inputs", frozen(inputs))
        object.__setattr__(self, "targets", frozen(targets))
        object.__setattr__(self, "labels", None if labels is None else frozen(_labels(labels, len(inputs))))
        object.__setattr__(self, "class_names", tuple(class_names))
        if self.labels is not None and self.class_names:
            beyond = (self.labels < 0) | (self.labels >= len(self.class_names))
            if beyond.any():
                row = int(np.flatnonzero(beyond)[0])
                raise TaskError(
                    f"labels row {row} is class {self.labels[row]}, but there are {len(self.class_names)} class names"
                )

    @property
    def n_samples(self) -> int:
        """Number of samples S."""
        return len(self.inputs)

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        kind = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Task({self.n_samples} samples, {self.inputs.shape[1]} inputs, {self.targets.shape[1]} outputs{kind})"

    def subset(self, rows: npt.ArrayLike) -> Self:
        """Return the task of the chosen rows."""
        chosen = np.asarray(rows)
        if not chosen.size:
            raise TaskError("a task needs at least one sample, but no row was chosen: the data are empty")
        labels = None if self.labels is None else self.labels[chosen]
        return type(self)(self.inputs[chosen], self.targets[chosen], labels, self.class_names)

    def with_targets(self, targets: npt.ArrayLike) -> Self:
        """Return the same task with other targets (S, O) in volts."""
        return type(self)(self.inputs, targets, self.labels, self.class_names)

    def split(self, test_fraction: float, seed: int = 0, *, stratify: bool = True) -> tuple[Self, Self]:
        """Return (train, test), drawn at random by ``seed``; every class keeps its share where there are labels."""
        train, test = split_rows(self.n_samples, test_fraction, seed, self.labels if stratify else None)
        return self.subset(train), self.subset(test)

    def check_on(self, network: Network, rows: Sequence[str] = ()) -> None:
        """Raise TaskError when the task does not fit the network or asks for what no resistor board can reach.

        ``rows`` says how messages call each sample, "row 0" … by default. Every potential lies between the lowest and
        the highest input of its sample (maximum principle).
        """
        if not len(network.outputs):
            raise TaskError("the network has no output node, so there is nothing to learn: name its outputs")
        for name, values, nodes in (
            ("input", self.inputs, network.inputs),
            ("target", self.targets, network.outputs),
        ):
            if values.shape[1] != len(nodes):
                role = "inputs" if name == "input" else "outputs"
                raise TaskError(
                    f"the data have {values.shape[1]} {name} columns, but the network has {len(nodes)} {role}"
                )
        low, high = self.inputs.min(axis=1), self.inputs.max(axis=1)
        slack = REACH_TOLERANCE * np.maximum(np.abs(low), np.abs(high))
        beyond = (self.targets < (low - slack)[:, None]) | (self.targets > (high + slack)[:, None])
        if beyond.any():
            row, column = np.argwhere(beyond)[0].tolist()
            place = rows[row] if rows else f"row {row}"
            raise TaskError(
                f"the target of {network.name(int(network.outputs[column]))} in {place} is "
                f"{self.targets[row, column]:g} V, but no resistor board can leave the range of its inputs, "
                f"{low[row]:g} to {high[row]:g} V: rescale the targets or add a bias input"
            )


def split_rows(
    n_samples: int, test_fraction: float, seed: int, labels: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Return row numbers (train, test), ascending; with labels each class gives its share (stratified).

    Raises TaskError when a part would be empty.
    """
    if not 0 < test_fraction < 1:
        raise TaskError(f"the test fraction must lie between 0 and 1, got {test_fraction}")
    generator = np.random.default_rng(seed)
    groups = [np.arange(n_samples)] if labels is None else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    test: list[IntArray] = []
    for group in groups:
        shuffled = generator.permutation(group)
        test.append(shuffled[: round(test_fraction * len(group))])
    held_out = np.sort(np.concatenate(test))
    kept = np.setdiff1d(np.arange(n_samples), held_out)
    if not len(held_out) or not len(kept):
        raise TaskError(f"{n_samples} samples are too few to hold out {test_fraction:g} of them for the test")
    return kept, held_out


def _labels(labels: npt.ArrayLike, n_samples: int) -> IntArray:
    array = np.asarray(labels)
    if array.shape != (n_samples,) or array.dtype.kind not in "iu":
        raise TaskError(f"labels must be one class number per sample, {n_samples} in all")
    return array.astype(np.int64)
