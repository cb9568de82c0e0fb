import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilcl.arrays import FloatArray
from hilcl.encoding import LabelEncoding, class_centroids, confusion_matrix, nearest_class
from hilcl.errors import TaskError


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.45, 0.55), (2.0, -1.0)])
def test_one_hot(low: float, high: float) -> None:
    encoding = LabelEncoding.one_hot(["setosa", "virginica", "versicolor"], low, high)
    assert encoding.class_names == ("setosa", "virginica", "versicolor")
    np.testing.assert_allclose(encoding.levels, [[high, low, low], [low, high, low], [low, low, high]], rtol=1e-15)


def test_one_hot_needs_two_levels() -> None:
    with pytest.raises(TaskError, match="must differ"):
        LabelEncoding.one_hot(["a", "b"], 1.0, 1.0)


def test_wired_levels_stay_in_the_order_they_were_written() -> None:
    encoding = LabelEncoding.wired({"virginica": [0.7, 0.1], "setosa": [0.2, 0.4]})
    assert encoding.class_names == ("virginica", "setosa")
    np.testing.assert_array_equal(encoding.levels, [[0.7, 0.1], [0.2, 0.4]])
    with pytest.raises(ValueError, match="read-only"):
        encoding.levels[0, 0] = 1.0


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, "same number of output volts"),
        ({"a": []}, "same number of output volts"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "same number of output volts"),
        ({"a": [1.0, 2.0], "b": [0.0, 0.0], "c": [1.0, 2.0]}, "same output volts"),
    ],
)
def test_wired_levels_refused(levels: dict[str, list[float]], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        LabelEncoding.wired(levels)


def test_numbers_and_targets() -> None:
    encoding = LabelEncoding.wired({"b": [0.1, 0.2], "a": [0.3, 0.4]})
    labels = encoding.number(["a", "b", "a"])
    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(encoding.targets(labels), [[0.3, 0.4], [0.1, 0.2], [0.3, 0.4]])
    assert encoding.number([]).shape == (0,)


def test_a_class_without_volts_is_named() -> None:
    with pytest.raises(TaskError, match="class 'c' has no output volts: the encoding knows b, a"):
        LabelEncoding.wired({"b": [0.1], "a": [0.3]}).number(["a", "c", "d"])


@given(
    outputs=hnp.arrays(float, st.tuples(st.integers(1, 20), st.just(4)), elements=st.floats(-5, 5, width=32)),
    low=st.floats(-1, 0.4),
    high=st.floats(0.6, 5),
)
def test_the_nearest_one_hot_class_has_the_largest_output(outputs: FloatArray, low: float, high: float) -> None:
    ordered = np.sort(outputs, axis=1)
    clear = ordered[:, 3] - ordered[:, 2] > 1e-6  # a tie belongs to either
    levels = LabelEncoding.one_hot("abcd", low, high).levels
    np.testing.assert_array_equal(nearest_class(outputs, levels)[clear], outputs.argmax(axis=1)[clear])


@given(
    outputs=hnp.arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-9, 9)),
    centres=hnp.arrays(float, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(-9, 9)),
)
def test_the_nearest_class_by_brute_force(outputs: FloatArray, centres: FloatArray) -> None:
    expected = []
    for output in outputs.tolist():
        squares = [sum((o - c) ** 2 for o, c in zip(output, centre, strict=True)) for centre in centres.tolist()]
        expected.append(squares.index(min(squares)))
    assert nearest_class(outputs, centres).tolist() == expected


def test_centroids() -> None:
    outputs = np.array([[1.0, 0.0], [3.0, 2.0], [10.0, 10.0], [5.0, 4.0]])
    np.testing.assert_allclose(class_centroids(outputs, np.array([1, 1, 0, 1]), 2), [[10.0, 10.0], [3.0, 2.0]])


@given(
    labels=st.lists(st.integers(0, 3), max_size=20).map(lambda some: [*some, 0, 1, 2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_centroids_by_brute_force(labels: list[int], seed: int) -> None:
    outputs = np.random.default_rng(seed).uniform(-5, 5, (len(labels), 3))
    expected = [outputs[[i for i, label in enumerate(labels) if label == c]].mean(axis=0) for c in range(4)]
    np.testing.assert_allclose(class_centroids(outputs, np.array(labels), 4), expected, rtol=1e-12)


def test_a_class_without_samples_has_no_centroid() -> None:
    with pytest.raises(TaskError, match="class 1 has no sample"):
        class_centroids(np.zeros((2, 1)), np.array([0, 2]), 3)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_confusion_matrix_by_brute_force(pairs: list[tuple[int, int]]) -> None:
    expected = [[sum(pair == (true, found) for pair in pairs) for found in range(4)] for true in range(4)]
    true, found = np.array(pairs).T
    assert confusion_matrix(true, found, 4).tolist() == expected
