"""Data files: tables of named columns from CSV and NPZ, and the scaling of features to board volts."""

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from hilcl.arrays import FloatArray, frozen
from hilcl.errors import TaskError


@dataclass(frozen=True)
class Table:
    """Named columns of equal length, as text; ``rows`` are the line numbers they came from."""

    source: str
    columns: dict[str, list[str]]
    rows: list[int]

    def numbers(self, names: Sequence[str]) -> FloatArray:
        """Return the named columns as an (S, len(names)) float array; TaskError names the first bad cell."""
        data = np.empty((len(self.rows), len(names)))
        for column, name in enumerate(names):
            for index, text in enumerate(self.text(name)):
                try:
                    data[index, column] = float(text)
                except ValueError as cause:
                    raise TaskError(
                        f"{self.source}, line {self.rows[index]}: {name} is {text!r}, which is not a number"
                    ) from cause
                if not np.isfinite(data[index, column]):
                    raise TaskError(f"{self.source}, line {self.rows[index]}: {name} is {text}, not a finite number")
        return data

    def text(self, name: str) -> list[str]:
        """Return one column as text; TaskError lists the columns there are."""
        if name not in self.columns:
            known = ", ".join(self.columns)
            raise TaskError(f"{self.source} has no column {name!r}: it has {known}{_advice(name, list(self.columns))}")
        return self.columns[name]


def _advice(name: str, columns: list[str]) -> str:
    """Return what a reader probably has to do about a missing column, or nothing."""
    separators = [mark for mark in (";", "\t") if any(mark in column for column in columns)]
    if separators:
        shown = "tabs" if separators[0] == "\t" else "semicolons"
        return f"; it seems to be separated by {shown}: save it with commas, and points in numbers"
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.6) or [
        column for column in columns if column.lower() == name.lower()
    ]
    return f"; did you mean {near[0]!r}?" if near else ""


def read_csv(path: Path) -> Table:
    """Read a CSV file with a header line; empty lines and lines starting with # are passed over.

    Raises TaskError when the file is missing, empty, not text, or a line has the wrong number of cells.
    """
    if path.suffix.lower() in {".xlsx", ".xls", ".ods"}:
        raise TaskError(f"the data file {path} is a spreadsheet: save it as CSV")
    try:
        # Not splitlines(): a form feed or a U+2028 inside a cell ends no line.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as cause:
        raise TaskError(f"the data file {path} cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise TaskError(f"the data file {path} is not text: save it as CSV in UTF-8") from cause
    except ValueError as cause:  # a NUL in the name
        raise TaskError(f"the data file {path} cannot be read: no file can have this name") from cause
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise TaskError(f"the data file {path} is empty")
    try:
        cells = [[cell.strip() for cell in row] for row in csv.reader(line for _, line in kept)]
    except csv.Error as cause:
        raise TaskError(f"the data file {path} is not CSV: {cause}") from cause
    header, body = cells[0], cells[1:]
    twice = [name for position, name in enumerate(header) if name in header[:position]]
    if twice:
        raise TaskError(f"the data file {path} has two columns named {twice[0]!r} in its header line: rename one")
    if not body:
        raise TaskError(f"the data file {path} has a header but no rows: the data are empty")
    numbers = [number for number, _ in kept[1:]]
    if len(body) != len(numbers):
        raise TaskError(f"the data file {path} has a cell that spans lines: keep each sample on one line")
    for number, row in zip(numbers, body, strict=True):
        if len(row) != len(header):
            raise TaskError(f"{path}, line {number}: {len(row)} cells, but the header has {len(header)}")
    return Table(str(path), {name: [row[i] for row in body] for i, name in enumerate(header)}, numbers)


def read_npz(path: Path, names: Sequence[str]) -> list[FloatArray]:
    """Return the named arrays of an NPZ file as (S, …) floats; nothing but plain arrays is ever loaded.

    Raises TaskError when the file cannot be read or an array is missing or holds no numbers.
    """
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise TaskError(f"the data file {path} holds one array without a name: save it with numpy.savez")
            missing = [name for name in names if name not in archive]
            if missing:
                known = ", ".join(archive.files)
                raise TaskError(f"{path} has no array {missing[0]!r}: it has {known}")
            arrays = [np.asarray(archive[name]) for name in names]
    except TaskError:
        raise
    except OSError as cause:
        raise TaskError(f"the data file {path} cannot be read: {cause.strerror or cause}") from cause
    except Exception as cause:  # a damaged archive fails in many ways: zlib, zipfile, tokenize, MemoryError …
        raise TaskError(f"the data file {path} is not an NPZ file of plain arrays") from cause
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "iufb" or array.ndim not in (1, 2):
            raise TaskError(f"{path}: the array {name!r} must be a table of numbers, one row per sample")
    return [np.asarray(array[:, None] if array.ndim == 1 else array, dtype=np.float64) for array in arrays]


@dataclass(frozen=True, eq=False)
class VoltScale:
    """Maps features (S, F) to board volts, ``minimum`` → ``low`` and ``maximum`` → ``high`` for each feature.

    Features beyond the range seen when fitting are held at its ends: the board's volts are a hard limit.
    """

    low: float
    high: float
    minimum: FloatArray
    maximum: FloatArray

    @classmethod
    def of_range(cls, n_features: int, readings: tuple[float, float], low: float, high: float) -> Self:
        """Return the scale that maps one range of readings of every feature to low … high volts; as ``fit``."""
        return cls.fit(np.repeat([[readings[0]], [readings[1]]], n_features, axis=1), low, high)

    @classmethod
    def fit(cls, features: FloatArray, low: float, high: float) -> Self:
        """Return the scale that spreads these features (S, F) over low … high volts.

        Raises TaskError for a feature that never changes or volts in the wrong order.
        """
        if not low < high:
            raise TaskError(f"volts must rise from the lowest to the highest, got {low:g} V to {high:g} V")
        minimum, maximum = features.min(axis=0), features.max(axis=0)
        constant = np.flatnonzero(minimum == maximum)
        if constant.size:
            raise TaskError(f"feature {constant[0]} has one value only, so it cannot be scaled: leave it out")
        return cls(low, high, frozen(minimum), frozen(maximum))

    def volts(self, features: FloatArray, *, clip: bool = True) -> FloatArray:
        """Return the features (S, F) in volts, held within low … high unless ``clip`` is off."""
        share = (features - self.minimum) / (self.maximum - self.minimum)
        return self.low + (self.high - self.low) * (np.clip(share, 0.0, 1.0) if clip else share)


def board_inputs(volts: FloatArray, *, complement: tuple[float, float] | None, bias: Sequence[float]) -> FloatArray:
    """Return input columns: the features' volts (S, F), their complements low + high − v, and constant biases.

    Potentials are averages of the inputs with positive weights (maximum principle), so a feature can lower an output
    only through its complement, and a constant can shift it only where a bias terminal supplies one.
    """
    columns = [volts]
    if complement is not None:
        columns.append(complement[0] + complement[1] - volts)
    columns.extend(np.full((len(volts), 1), value) for value in bias)
    return np.hstack(columns)
