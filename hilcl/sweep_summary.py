"""What a sweep comes to: quantiles of its figures, and the share of boards that reach a loss."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hilcl.arrays import FloatArray
from hilcl.sweep_point import Figures, PointResult

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
CONFIDENCE = 0.95
"""Of the interval given with a share."""

_SHARES_SHOWN = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles whose losses make up the yield table where the file names none."""


@dataclass(frozen=True)
class Share:
    """``reached`` of ``boards`` boards, and the interval of the true share (Wilson score, ``CONFIDENCE``)."""

    reached: int
    boards: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.reached / self.boards

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the share."""
        found = binomtest(self.reached, self.boards).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Group:
    """Boards with the same values of the keys the yield is shown by.

    ``losses`` (n,) in V², sorted, are those of the ``boards`` that could be trained: a board that fails reaches none.
    """

    values: dict[str, Any]
    losses: FloatArray
    boards: int

    def share(self, loss: float) -> Share:
        """Return the share of boards at or below a loss in V²."""
        return Share(int(np.searchsorted(self.losses, loss, side="right")), self.boards)

    @property
    def quantiles(self) -> list[float]:
        """Losses in V² at ``QUANTILES``; empty where no board could be trained."""
        return quantiles(self.losses)

    def label(self) -> str:
        """Return the values in short, for a legend: the last part of each key, and its value."""
        return ", ".join(f"{key.rpartition('.')[2]} {shown(value)}" for key, value in self.values.items())


def quantiles(values: FloatArray) -> list[float]:
    """Return the ``QUANTILES`` of values (n,), empty for none."""
    return np.quantile(values, QUANTILES).tolist() if len(values) else []


def groups(results: Sequence[PointResult], by: Sequence[str]) -> list[Group]:
    """Return the boards of a sweep by the values of some of its keys, in the order of the points, without lost ones."""
    members: dict[str, list[PointResult]] = {}
    for result in results:
        if result.status != "lost":
            values = [result.point.overrides[key] for key in by]
            members.setdefault(json.dumps(values, default=str), []).append(result)
    return [
        Group(
            {key: each[0].point.overrides[key] for key in by},
            np.sort([result.figures.loss for result in each if result.figures is not None]),
            len(each),
        )
        for each in members.values()
    ]


def shown_losses(results: Sequence[PointResult]) -> list[float]:
    """Return a few losses in V² that tell the boards of a sweep apart, rounded up to two digits; ascending."""
    losses = [result.figures.loss for result in results if result.figures is not None]
    if not losses:
        return []
    return sorted({_rounded_up(value) for value in np.quantile(losses, _SHARES_SHOWN).tolist()})


def _rounded_up(value: float) -> float:
    if value <= 0:
        return 0.0
    nearest = float(f"{value:.1e}")
    unit = float(f"1e{f'{value:.1e}'.partition('e')[2]}") / 10
    return nearest if nearest >= value else float(f"{nearest + unit:.1e}")


def shown(value: Any) -> str:
    """Return a value of an experiment file as a reader knows it."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def column(results: Sequence[PointResult], figure: str) -> FloatArray:
    """Return one figure (n,) of all trained boards that have it."""
    values = [asdict(result.figures)[figure] for result in results if result.figures is not None]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def points_csv(results: Sequence[PointResult], keys: Sequence[str]) -> str:
    """Return a table of all points as CSV: id, keys, status, figures in SI units, reason."""
    figures = [field.name for field in fields(Figures)]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", *keys, "status", *figures, "reason"])
    for result in results:
        values: Mapping[str, Any] = {} if result.figures is None else asdict(result.figures)
        overrides = [shown(result.point.overrides[key]) for key in keys]
        writer.writerow(
            [result.point.id, *overrides, result.status, *(values.get(name) for name in figures), result.reason]
        )
    return text.getvalue()
