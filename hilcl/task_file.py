"""The [task] section of an experiment file as training and test tasks in volts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.dataset import VoltScale, board_inputs, read_csv, read_npz
from hilcl.encoding import LabelEncoding
from hilcl.errors import TaskError
from hilcl.experiment import EncodingSection, Experiment, TaskSection
from hilcl.task import Task, split_rows


@dataclass(frozen=True)
class LoadedTask:
    """Tasks in volts, and how they came about: scales learnt from the training part alone.

    ``train_rows`` and ``test_rows`` say where each sample stands, for messages; empty for data written in the file.
    """

    train: Task
    test: Task | None
    encoding: LabelEncoding | None = None
    input_scale: VoltScale | None = None
    target_scale: VoltScale | None = None
    train_rows: tuple[str, ...] = ()
    test_rows: tuple[str, ...] = ()


def load_task(experiment: Experiment) -> LoadedTask:
    """Read, split, scale and encode the data of an experiment.

    The split comes first, so that nothing about the test part enters the scales. Raises TaskError.
    """
    section = experiment.task
    if section.file is None:
        whole = Task(_rows("inputs_volts", section.inputs_volts), _rows("targets_volts", section.targets_volts))
        if section.test_fraction is None:
            return LoadedTask(whole, None)
        return LoadedTask(*whole.split(section.test_fraction, section.split_seed))
    features, targets, names, places = _raw_data(experiment, section)
    if not features.size:
        raise TaskError("the data are empty: there is no sample, or no input column")
    encoding, labels = None, None
    if section.encoding is not None:
        encoding = _encoding(section.encoding, names)
        labels = encoding.number(names)
    train_rows, test_rows = np.arange(len(features)), None
    if section.test_fraction is not None:
        train_rows, test_rows = split_rows(len(features), section.test_fraction, section.split_seed, labels)
    volts, input_scale = _scaled(features, section.input_volts, train_rows, section.input_range)
    complement = section.input_volts if section.complement else None
    inputs = board_inputs(volts, complement=complement, bias=section.bias)
    target_scale = None
    if encoding is not None and labels is not None:
        wanted = encoding.targets(labels)
    else:
        wanted, target_scale = _scaled(targets, section.target_volts, train_rows, clip=False)
    class_names = () if encoding is None else encoding.class_names

    def part(rows: IntArray) -> Task:
        return Task(inputs[rows], wanted[rows], None if labels is None else labels[rows], class_names)

    test = None if test_rows is None else part(test_rows)
    train_places, test_places = (
        () if rows is None else tuple(places[row] for row in rows.tolist()) for rows in (train_rows, test_rows)
    )
    return LoadedTask(part(train_rows), test, encoding, input_scale, target_scale, train_places, test_places)


def _rows(key: str, rows: list[list[float]] | None) -> FloatArray:
    try:
        return np.array(rows or [], dtype=np.float64)
    except ValueError as cause:
        raise TaskError(f"task.{key} has rows of different length: give every sample the same columns") from cause


def _raw_data(experiment: Experiment, section: TaskSection) -> tuple[FloatArray, FloatArray, list[str], list[str]]:
    """Return features (S, F), targets (S, O; empty with labels), class names (empty without) and each row's place."""
    path = experiment.path_of(section.file or "")
    inputs = [section.inputs] if isinstance(section.inputs, str) else section.inputs or []
    targets = [section.targets] if isinstance(section.targets, str) else section.targets or []
    if path.suffix == ".npz":
        label = [] if section.label is None else [section.label]
        arrays = read_npz(path, [*inputs, *targets, *label])
        lengths = {len(array) for array in arrays}
        if len(lengths) != 1:
            raise TaskError(f"the arrays taken from {path} have different numbers of rows: {sorted(lengths)}")
        features = np.hstack(arrays[: len(inputs)])
        wanted = np.hstack([np.zeros((len(features), 0)), *arrays[len(inputs) : len(inputs) + len(targets)]])
        names = _class_names(path, section.label, arrays[-1]) if label else []
        return features, wanted, names, [f"row {row} of {path}" for row in range(len(features))]
    table = read_csv(path)
    names = [] if section.label is None else table.text(section.label)
    places = [f"line {row} of {path}" for row in table.rows]
    return table.numbers(inputs), table.numbers(targets), names, places


def _class_names(path: Path, name: str | None, numbers: FloatArray) -> list[str]:
    if numbers.shape[1] != 1:
        raise TaskError(f"{path}: the array {name!r} must hold one class number per sample")
    if not np.isfinite(numbers).all():
        raise TaskError(f"{path}: the array {name!r} holds a class number that is not finite")
    return [f"{value:.15g}" for value in numbers[:, 0]]


def _encoding(section: EncodingSection, names: Sequence[str]) -> LabelEncoding:
    if section.levels is not None:
        return LabelEncoding.wired(section.levels)
    if section.low is None or section.high is None:
        raise TaskError("one-hot needs low and high volts")
    return LabelEncoding.one_hot(sorted(set(names), key=_place), section.low, section.high)


def _place(name: str) -> tuple[int, float, str]:
    """Sort class names that are numbers by size, before all others by letter."""
    try:
        number = float(name)
    except ValueError:
        return 1, 0.0, name
    return (0, number, name) if np.isfinite(number) else (1, 0.0, name)


def _scaled(
    values: FloatArray,
    volts: tuple[float, float] | None,
    train_rows: IntArray,
    readings: tuple[float, float] | None = None,
    *,
    clip: bool = True,
) -> tuple[FloatArray, VoltScale | None]:
    """Return values in volts: by a range of readings, or by that of the training rows, or as they are without volts."""
    if volts is None:
        return values, None
    if not np.isfinite(values).all():
        raise TaskError("the data hold values that are not finite numbers: clean them before scaling")
    if readings is None:
        scale = VoltScale.fit(values[train_rows], *volts)
    else:
        scale = VoltScale.of_range(values.shape[1], readings, *volts)
    return scale.volts(values, clip=clip), scale
