"""Small sweeps for tests, and what a store has of them."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hilcl.sweep_point import PointResult
from tests.command_line import write_experiment

SWEEP = """
experiment = "divider.toml"

[grid]
"simulation.meters.offset" = ["0 V", "1 mV", "2 mV"]

[random]
draws = 3
seed = 7
simulation.seed = { integers = [0, 1000000] }
board.initial = { log-uniform = ["0.2 mS", "5 mS"] }
"""
"""Nine points."""


def write_sweep(folder: Path, text: str = SWEEP, **changes: str) -> Path:
    """Write a sweep and the experiment it varies; ``changes`` are values of the experiment's keys."""
    write_experiment(folder / "divider.toml", **changes)
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def told(results: Sequence[PointResult]) -> list[tuple[Any, ...]]:
    """Return results, sorted, without what depends on how fast they were computed."""
    found = []
    for each in results:
        figures = None if each.figures is None else {**vars(each.figures), "seconds": None}
        found.append((each.point.id, each.point.overrides, each.status, each.reason, figures))
    return sorted(found, key=lambda row: str(row[0]))


def stored_points(store: Path) -> list[tuple[Any, ...]]:
    """Return the points in a store without what depends on how fast they were computed."""
    with closing(sqlite3.connect(store)) as db:
        rows = db.execute(
            "SELECT point, status, reason, overrides, figures FROM points ORDER BY sweep, point"
        ).fetchall()
    return [(*row[:4], None if row[4] is None else {**json.loads(row[4]), "seconds": None}) for row in rows]


def n_points(store: Path) -> int:
    """Return how many points other processes can see, 0 where there is no store yet."""
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM points").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
