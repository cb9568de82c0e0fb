from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl import Network, Task
from hilcl.errors import TaskError
from hilcl.task import split_rows


def numbered(n_samples: int, labels: list[int] | None = None) -> Task:
    """Return a task whose inputs number its samples."""
    inputs = np.arange(n_samples, dtype=float)[:, None]
    return Task(inputs, inputs / 2, labels, ("a", "b", "c") if labels else ())


def test_shapes() -> None:
    task = Task([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]], [[0.1], [0.2], [0.0]], [0, 1, 1], ["low", "high"])
    assert task.inputs.shape == (3, 2)
    assert task.targets.shape == (3, 1)
    assert task.labels is not None
    assert task.labels.tolist() == [0, 1, 1]
    assert task.class_names == ("low", "high")
    assert len(task) == task.n_samples == 3
    assert repr(task) == "Task(3 samples, 2 inputs, 1 outputs, 2 classes)"


def test_a_flat_list_is_one_sample() -> None:
    task = Task([1.0, 0.0], 0.5)
    assert task.inputs.shape == (1, 2)
    assert task.targets.shape == (1, 1)
    assert repr(task) == "Task(1 samples, 2 inputs, 1 outputs)"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Task([], []), "the data are empty"),
        (lambda: Task(np.zeros((0, 2)), np.zeros((0, 1))), "the data are empty"),
        (lambda: Task([[1.0]], np.zeros((1, 0))), "the data are empty"),
        (lambda: Task([[1.0], [2.0]], [[1.0]]), "2 rows of inputs but 1 rows of targets"),
        (lambda: Task([[1.0, 0.0], [2.0, np.nan]], [[1.0]] * 2), "inputs row 1, column 1 is nan"),
        (lambda: Task([[1.0]] * 3, [[1.0], [1.0], [-np.inf]]), "targets row 2, column 0 is -inf"),
        (lambda: Task([["one"]], [[1.0]]), "inputs must be a table of numbers"),
        (lambda: Task([[1.0], [1.0, 2.0]], [[1.0]] * 2), "inputs must be a table of numbers"),
        (lambda: Task([[1.0]], np.zeros((1, 1, 1))), "targets must have one row per sample.*3 dimensions"),
        (lambda: Task([[1.0]] * 2, [[1.0]] * 2, [0]), "one class number per sample, 2 in all"),
        (lambda: Task([[1.0]] * 2, [[1.0]] * 2, [0.0, 1.0]), "one class number per sample"),
        (lambda: Task([[1.0]] * 2, [[1.0]] * 2, ["a", "b"]), "one class number per sample"),
        (lambda: Task([[1.0]] * 2, [[1.0]] * 2, [0, 2], ("a", "b")), "label 2|class 2"),
        (lambda: Task([[1.0]] * 2, [[1.0]] * 2, [0, -1], ("a", "b")), "label -1|class -1"),
        (lambda: numbered(2).with_targets([[1.0]]), "2 rows of inputs but 1 rows of targets"),
        (lambda: numbered(2).with_targets("volts"), "targets must be a table of numbers"),
        (lambda: numbered(2).subset([]), "the data are empty"),
    ],
)
def test_data_that_are_no_task_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        build()


def test_the_values_are_copied_and_read_only() -> None:
    inputs, labels = np.array([[1.0, 0.0]]), np.array([1])
    task = Task(inputs, [[0.5]], labels, ("a", "b"))
    inputs[0, 0], labels[0] = 9.0, 0
    assert task.inputs[0, 0] == 1.0
    assert task.labels is not None
    assert task.labels[0] == 1
    for array in (task.inputs, task.targets, task.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_subset_and_with_targets() -> None:
    task = numbered(4, [0, 1, 2, 1])
    part = task.subset([3, 0])
    assert part.inputs[:, 0].tolist() == [3.0, 0.0]
    assert part.targets[:, 0].tolist() == [1.5, 0.0]
    assert part.labels is not None
    assert part.labels.tolist() == [1, 0]
    assert part.class_names == task.class_names
    assert task.subset(np.array([True, False, False, True])).inputs[:, 0].tolist() == [0.0, 3.0]
    other = task.with_targets([[9.0]] * 4)
    assert other.targets[:, 0].tolist() == [9.0] * 4
    np.testing.assert_array_equal(other.inputs, task.inputs)
    assert other.labels is not None
    assert other.labels.tolist() == [0, 1, 2, 1]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_a_split_is_disjoint_complete_stratified_and_reproducible(
    labels: list[int], fraction: float, seed: int, stratify: bool
) -> None:
    task = numbered(len(labels), labels)
    classes = np.unique(labels) if stratify else [None]
    sizes = [len(labels) if c is None else labels.count(c) for c in classes]
    held_out = sum(round(fraction * size) for size in sizes)
    if held_out in (0, len(labels)):
        with pytest.raises(TaskError, match=f"{len(labels)} samples are too few"):
            task.split(fraction, seed, stratify=stratify)
        return
    train, test = task.split(fraction, seed, stratify=stratify)
    rows = [part.inputs[:, 0].astype(int).tolist() for part in (train, test)]
    assert sorted(rows[0] + rows[1]) == list(range(len(labels)))
    assert rows[0] == sorted(rows[0])
    assert rows[1] == sorted(rows[1])
    assert len(test) == held_out
    for part, chosen in ((train, rows[0]), (test, rows[1])):
        assert part.labels is not None
        assert part.labels.tolist() == [labels[row] for row in chosen]
        np.testing.assert_array_equal(part.targets, part.inputs / 2)
    if stratify:
        assert test.labels is not None
        for c, size in zip(classes, sizes, strict=True):
            assert np.count_nonzero(test.labels == c) == round(fraction * size)
    again = task.split(fraction, seed, stratify=stratify)
    np.testing.assert_array_equal(again[0].inputs, train.inputs)
    np.testing.assert_array_equal(again[1].inputs, test.inputs)


def test_another_seed_gives_another_split_and_every_row_is_held_out_about_equally_often() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        counts[split_rows(20, 0.25, seed)[1]] += 1
    # Each row is held out with probability 1/4: 100 times of 400, standard deviation 8.7.
    assert np.abs(counts - 100).max() < 4.5 * 8.7
    assert (split_rows(20, 0.25, 0)[1] != split_rows(20, 0.25, 1)[1]).any()


def test_a_split_of_unlabelled_data() -> None:
    train, test = numbered(10).split(0.3, seed=1)
    assert (len(train), len(test)) == (7, 3)
    assert train.labels is None


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(TaskError, match="between 0 and 1"):
        numbered(10).split(fraction)


NETWORK = Network(4, [[0, 1], [1, 2], [2, 3]], [0, 3], [2, 1], labels=["in", "left", "right", "ground"])


def test_a_task_that_fits_its_network() -> None:
    Task([[1.0, 0.0], [-1.0, -2.0]], [[1.0, 0.0], [-2.0, -1.5]]).check_on(NETWORK)


def test_rounding_in_a_target_is_no_reason_to_refuse_it() -> None:
    Task([[0.3, 0.0]], [[0.1 + 0.2, 0.0]]).check_on(NETWORK)


@pytest.mark.parametrize(
    ("task", "network", "message"),
    [
        (
            Task([[1.0, 0.0]], [[0.5, 0.5]]),
            Network(4, [[0, 1], [1, 2], [2, 3]], [0, 3], []),
            "no output node",
        ),
        (Task([[1.0]], [[0.5, 0.5]]), NETWORK, "1 input columns, but the network has 2 inputs"),
        (Task([[1.0, 0.0]], [[0.5]]), NETWORK, "1 target columns, but the network has 2 outputs"),
        (
            Task([[1.0, 0.0], [1.0, 0.2]], [[0.5, 0.5], [0.5, 0.1]]),
            NETWORK,
            r"target of node 1 \(left\) in row 1 is 0\.1 V, .* 0\.2 to 1 V",
        ),
        (
            Task([[-1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [1.001, 0.5]]),
            NETWORK,
            r"target of node 2 \(right\) in row 1 is 1\.001 V, .* 0 to 1 V",
        ),
    ],
)
def test_what_the_network_cannot_learn_is_refused(task: Task, network: Network, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task.check_on(network)
