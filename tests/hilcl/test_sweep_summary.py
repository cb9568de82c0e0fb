import csv
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.sweep_file import Point
from hilcl.sweep_point import Figures, PointResult
from hilcl.sweep_summary import QUANTILES, Share, column, groups, points_csv, quantiles, shown_losses


def result(tolerance: str, seed: int, loss: float | None, status: str = "failed") -> PointResult:
    point = Point.of({"pots.tolerance": tolerance, "seed": seed})
    if loss is None:
        return PointResult(point, "lost" if status == "lost" else "failed", reason="too hot, or so")
    return PointResult(point, "done", Figures(loss, 1.0, None, None, None, None, 1e-6, 5, None, "done", 0.1))


RESULTS = [
    result("1 %", 1, 1e-3),
    result("1 %", 2, 3e-3),
    result("20 %", 1, 2e-3),
    result("20 %", 2, None),
    result("20 %", 3, None, "lost"),
]


def test_boards_that_fail_reach_nothing_and_lost_ones_are_not_counted() -> None:
    low, high = groups(RESULTS, ["pots.tolerance"])
    assert (low.label(), high.label()) == ("tolerance 1 %", "tolerance 20 %")
    assert [low.share(loss) for loss in (9e-4, 1e-3, 3e-3)] == [Share(0, 2), Share(1, 2), Share(2, 2)]
    assert high.share(1.0) == Share(1, 2)
    [everything] = groups(RESULTS, [])
    assert (everything.losses.tolist(), everything.boards) == ([1e-3, 2e-3, 3e-3], 4)


def test_the_interval_of_a_share_is_that_of_wilson() -> None:
    low, high = Share(7, 10).interval
    z, n, p = 1.959963984540054, 10, 0.7
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx(((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))


@given(st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=20))
def test_losses_that_are_shown_are_reached_by_a_tenth_and_by_most(losses: list[float]) -> None:
    shown = shown_losses([result("1 %", number, loss) for number, loss in enumerate(losses)])
    assert shown == sorted(set(shown))
    assert all(float(f"{loss:.1e}") == loss for loss in shown)
    assert np.quantile(losses, 0.9) <= shown[-1] <= max(1.1001 * np.quantile(losses, 0.9), 1e-300)


def test_quantiles_and_the_table_of_points() -> None:
    losses = column(RESULTS, "loss")
    assert quantiles(losses) == pytest.approx([np.quantile([1e-3, 2e-3, 3e-3], share) for share in QUANTILES])
    assert quantiles(column(RESULTS, "accuracy")) == []
    rows = list(csv.DictReader(StringIO(points_csv(RESULTS, ["pots.tolerance", "seed"]))))
    assert [row["status"] for row in rows] == ["done", "done", "done", "failed", "lost"]
    assert (rows[1]["pots.tolerance"], rows[1]["seed"], float(rows[1]["loss"])) == ("1 %", "2", 3e-3)
    assert (rows[3]["loss"], rows[3]["reason"]) == ("", "too hot, or so")
