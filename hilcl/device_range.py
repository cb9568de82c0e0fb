"""What the devices can take: conductance limits, realisable conductances, and the projection onto them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from hilcl.arrays import FloatArray, IntArray, frozen
from hilcl.errors import DeviceRangeError
from hilcl.potentiometer import Potentiometer

Rounding = Literal["nearest", "stochastic"]

UNBOUNDED_LOW = 1e-12
"""Lower limit in siemens where none is given: below the leakage of any board."""


@dataclass(frozen=True)
class Projection:
    """Conductances as the devices take them.

    ``conductances`` (M,) in siemens; ``codes`` (M,) or None where the devices are continuous; ``pinned``, the
    numbers of the edges whose wish lay at or beyond a limit.
    """

    conductances: FloatArray
    codes: IntArray | None
    pinned: IntArray


@dataclass(frozen=True, eq=False)
class DeviceRange:
    """Per-edge limits [g_min, g_max] in siemens and, for stepped devices, the conductance of every code.

    ``g_min`` and ``g_max`` are one number for all edges or (M,). ``table`` is one row of conductances in code
    order for all edges, (K,), or a row per edge, (M, K); rows of different length are padded with NaN, and NaN marks
    a code that must not be used. Codes outside the limits are never used, and the limits are tightened to
    the outermost usable codes; ``full_table`` keeps what such a code is worth.

    Raises DeviceRangeError when a limit is not positive, the limits cross, or an edge is left without a code.
    """

    g_min: FloatArray
    g_max: FloatArray
    table: FloatArray | None = None
    full_table: FloatArray | None = None

    def __init__(
        self,
        g_min: npt.ArrayLike,
        g_max: npt.ArrayLike,
        table: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
    ) -> None:
        low, high = _limit("g_min", g_min), _limit("g_max", g_max)
        if low.ndim and high.ndim and low.shape != high.shape:
            raise DeviceRangeError(f"g_min has {low.size} values and g_max has {high.size}: give one per edge, or one")
        _refuse_where(~(low > 0) | np.isinf(low), "g_min must be a positive number of siemens", low)
        _refuse_where(~(high >= low), "g_max must not be below g_min", high)
        usable, whole = None, None
        if table is not None:
            usable = whole = _code_table(table)
            limited = max(low.size if low.ndim else 0, high.size if high.ndim else 0)
            if limited and usable.ndim == 2 and len(usable) != limited:
                raise DeviceRangeError(f"there are limits for {limited} edges, but the table has {len(usable)} rows")
            usable = np.where((usable >= low[..., None]) & (usable <= high[..., None]), usable, np.nan)
            empty = np.flatnonzero(np.isnan(usable).all(axis=-1))
            if empty.size:
                where = f"edge {empty[0]} has" if usable.ndim == 2 else "the edges have"
                raise DeviceRangeError(
                    f"{where} no code between g_min and g_max: widen the limits or correct the table"
                )
            low, high = np.nanmin(usable, axis=-1), np.nanmax(usable, axis=-1)
            usable = frozen(usable)
        object.__setattr__(self, "g_min", frozen(np.array(low)))
        object.__setattr__(self, "g_max", frozen(np.array(high)))
        object.__setattr__(self, "table", usable)
        object.__setattr__(self, "full_table", whole if whole is None else frozen(whole))

    @classmethod
    def unbounded(cls) -> Self:
        """Return the range of an ideal resistor: any conductance from a picosiemens up."""
        return cls(UNBOUNDED_LOW, np.inf)

    @classmethod
    def from_table(cls, table: npt.ArrayLike | Sequence[npt.ArrayLike]) -> Self:
        """Return the range whose limits are the smallest and largest conductance of the table."""
        return cls(np.nextafter(0.0, 1.0), np.inf, table)

    @classmethod
    def of_pots(cls, pots: Potentiometer | Sequence[Potentiometer]) -> Self:
        """Return the nominal range of one potentiometer on every edge, or of a potentiometer for each edge."""
        if isinstance(pots, Potentiometer):
            return cls.from_table(pots.conductances())
        return cls.from_table([pot.conductances() for pot in pots])

    @classmethod
    def nominal(cls, limits: Self | None, pots: Potentiometer | Sequence[Potentiometer] | None) -> Self:
        """Return the range of a board's pots within its limits, where it has either; a table among the limits stays."""
        if limits is None:
            return cls.unbounded() if pots is None else cls.of_pots(pots)
        if pots is None or limits.is_discrete:
            return limits
        return cls(limits.g_min, limits.g_max, cls.of_pots(pots).table)

    @property
    def is_discrete(self) -> bool:
        """True where the devices take only the conductances of a table."""
        return self.table is not None

    def for_edges(self, n_edges: int) -> "DeviceRange":
        """Return the same range with one limit (and one table row, where there are several) for each of M edges."""
        for name, values in (("g_min", self.g_min), ("g_max", self.g_max)):
            if values.ndim and values.shape != (n_edges,):
                raise DeviceRangeError(f"{name} has {values.size} values, but the board has {n_edges} edges")
        if self.table is not None and self.table.ndim == 2 and len(self.table) != n_edges:
            raise DeviceRangeError(f"the table has {len(self.table)} rows, but the board has {n_edges} edges")
        if self.g_min.shape == self.g_max.shape == (n_edges,):
            return self
        return DeviceRange(np.broadcast_to(self.g_min, n_edges), np.broadcast_to(self.g_max, n_edges), self.full_table)

    def clip(self, conductances: FloatArray) -> FloatArray:
        """Return the nearest point of the box [g_min, g_max], (M,) in siemens."""
        return np.minimum(np.maximum(conductances, self.g_min), self.g_max)

    def pinned(self, conductances: FloatArray) -> IntArray:
        """Return the numbers of the edges whose wish lies at or beyond a limit, (M,) in siemens."""
        return ((conductances <= self.g_min) | (conductances >= self.g_max)).nonzero()[0]

    def project(
        self,
        conductances: FloatArray,
        rounding: Rounding = "nearest",
        generator: np.random.Generator | None = None,
    ) -> Projection:
        """Return what the devices take instead of the wished conductances (M,), in siemens.

        Without a table this is the box projection. With one, "nearest" takes the realisable conductance at the
        smallest distance (the lower of two equally near), "stochastic" one of the two neighbours with
        probabilities that keep the mean, drawn from ``generator``.
        """
        if rounding not in ("nearest", "stochastic"):
            raise DeviceRangeError(f"rounding is 'nearest' or 'stochastic', not {rounding!r}")
        # The limits of a table with a row per edge are per edge, too.
        n_edges = self.g_min.size if self.g_min.ndim else 0
        # The largest of numbers is NaN where one of them is.
        if math.isnan(np.maximum.reduce(conductances, initial=-np.inf)) or (n_edges and len(conductances) != n_edges):
            raise DeviceRangeError(f"{len(conductances)} conductances cannot be projected: give one number per edge")
        boxed = self.clip(conductances)
        pinned = self.pinned(conductances)
        if self.table is None:
            return Projection(boxed, None, pinned)
        rungs, codes, last = self._ladder
        rows = np.arange(len(boxed)) if len(last) > 1 else np.zeros(len(boxed), dtype=np.int64)
        # The highest rung not above the wish, of all edges at once: complex numbers are in order row by row.
        wish = np.empty(len(boxed), dtype=np.complex128)
        wish.real, wish.imag = rows, boxed
        below = rungs.searchsorted(wish, side="right") - 1
        above = np.minimum(below + 1, last[rows])
        values = rungs.imag
        low, high = values[below], values[above]
        if rounding == "stochastic":
            if generator is None:
                raise DeviceRangeError("stochastic rounding needs a random generator")
            up = generator.random(len(boxed)) * (high - low) < boxed - low
        else:
            up = high - boxed < boxed - low
        chosen = np.where(up, above, below)
        return Projection(values[chosen], codes[chosen], pinned)

    def conductances_of(self, codes: IntArray) -> FloatArray:
        """Return the conductances (M,) in siemens that the table gives for one code per edge."""
        if self.table is None:
            raise DeviceRangeError("a range without a table has no codes")
        if (codes < 0).any() or (codes >= self.table.shape[-1]).any():
            raise DeviceRangeError(f"codes are 0 to {self.table.shape[-1] - 1}, got {codes.min()} to {codes.max()}")
        rows: IntArray | int = np.arange(len(codes)) if self.table.ndim == 2 else 0
        chosen: FloatArray = np.atleast_2d(self.table)[rows, codes]
        return chosen

    @cached_property
    def _ladder(self) -> tuple[npt.NDArray[np.complex128], IntArray, IntArray]:
        """Rungs row by row and ascending, each as row + i·siemens, +inf for no code; their codes; the last of each row.

        One row where all are the same.
        """
        if self.table is None:
            raise DeviceRangeError("a range without a table has no codes")
        table = np.atleast_2d(self.table)
        values = np.where(np.isnan(table), np.inf, table)
        if (values == values[0]).all():
            values = values[:1]
        codes = np.argsort(values, axis=1, kind="stable")
        rungs = np.empty(values.shape, dtype=np.complex128)
        rungs.real, rungs.imag = np.arange(len(values))[:, None], np.take_along_axis(values, codes, axis=1)
        first = values.shape[1] * np.arange(len(values))
        return rungs.reshape(-1), codes.reshape(-1), first + np.isfinite(values).sum(axis=1) - 1


def _limit(name: str, values: npt.ArrayLike) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise DeviceRangeError(f"{name} must be a number of siemens, or one per edge") from cause
    if array.ndim > 1:
        raise DeviceRangeError(f"{name} must be one number or one per edge, got an array of shape {array.shape}")
    return array


def _refuse_where(bad: npt.NDArray[np.bool_], rule: str, values: FloatArray) -> None:
    if not bad.any():
        return
    where = int(np.flatnonzero(np.atleast_1d(bad))[0])
    value = np.broadcast_to(values, np.shape(bad))[where] if np.ndim(bad) else values
    edge = f" on edge {where}" if np.ndim(bad) else ""
    raise DeviceRangeError(f"{rule}, got {float(value):g} S{edge}")


def _code_table(table: npt.ArrayLike | Sequence[npt.ArrayLike]) -> FloatArray:
    try:
        rows = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError):
        rows = _padded(table)
    if rows.ndim not in (1, 2) or rows.shape[-1] == 0:
        raise DeviceRangeError("a table needs one row of conductances in code order, or such a row per edge")
    if (rows <= 0).any() or np.isinf(rows).any():
        raise DeviceRangeError("a table holds a conductance that is not a positive number of siemens")
    return rows


def _padded(table: npt.ArrayLike | Sequence[npt.ArrayLike]) -> FloatArray:
    try:
        rows = [np.asarray(row, dtype=np.float64).reshape(-1) for row in table]  # type: ignore[union-attr]
    except (TypeError, ValueError) as cause:
        raise DeviceRangeError("a table of conductances must hold numbers only") from cause
    padded = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
