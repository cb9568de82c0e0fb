"""Array types and the checks at the edge of the public functions."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hilcl.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ArrayT = TypeVar("ArrayT", bound=npt.NDArray[Any])


def frozen(array: ArrayT) -> ArrayT:
    """Return a read-only view of the array, so that a value object cannot change behind its owner's back."""
    view = array.view()
    view.flags.writeable = False
    return view


def mean(array: FloatArray) -> float:
    """Return the mean of all elements: ``array.mean()``, which takes as long as ten additions of small arrays."""
    return float(np.add.reduce(array, axis=None) / array.size)


def per_edge(name: str, values: npt.ArrayLike, n_edges: int, error: type[InputError]) -> FloatArray:
    """Return ``values`` as an (M,) float array; a scalar is repeated on every edge.

    Raises ``error`` when the values are not numbers or their count is not the number of edges.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise error(f"{name} must be a number or one number per edge") from cause
    if array.ndim == 0:
        return np.full(n_edges, float(array))
    if array.shape != (n_edges,):
        raise error(
            f"{name} has shape {array.shape}, but the board has {n_edges} edges: give one number, or one per edge"
        )
    return array.copy()


def samples_by(name: str, values: npt.ArrayLike, width: int | None, error: type[InputError]) -> FloatArray:
    """Return ``values`` as an (S, width) float array; a flat list is one sample.

    Raises ``error`` when the values are not numbers or a row has the wrong length.
    """
    try:
        array = np.array(values, dtype=np.float64, ndmin=1)
    except (TypeError, ValueError) as cause:
        raise error(f"{name} must be a table of numbers, one row per sample") from cause
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise error(f"{name} must have one row per sample, but it has {array.ndim} dimensions")
    if width is not None and array.shape[1] != width:
        raise error(f"{name} has {array.shape[1]} columns, but {width} are needed")
    return array
