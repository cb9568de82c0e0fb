"""Sweeps in a store: one row per finished point, written by one process."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hilcl.errors import StoreError
from hilcl.owner import Owner
from hilcl.store import Store
from hilcl.store_rows import digest_of, now
from hilcl.sweep_file import Point
from hilcl.sweep_point import Figures, PointResult, Status

_TABLES = (
    """CREATE TABLE IF NOT EXISTS sweeps (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        context TEXT NOT NULL,
        created TEXT NOT NULL,
        sweep TEXT NOT NULL,
        experiment TEXT NOT NULL,
        versions TEXT NOT NULL,
        owner TEXT NOT NULL,
        UNIQUE (name, context)
    )""",
    """CREATE TABLE IF NOT EXISTS points (
        sweep INTEGER NOT NULL REFERENCES sweeps(id) ON DELETE CASCADE,
        point TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        overrides TEXT NOT NULL,
        figures TEXT,
        digest BLOB NOT NULL,
        PRIMARY KEY (sweep, point)
    ) WITHOUT ROWID""",
)
# No format of its own: a store that has them not is one without sweeps, for older versions too.

_COLUMNS = ("point", "status", "reason", "overrides", "figures")


class SweepStore(Store):
    """A store that also keeps sweeps; raises StoreError as a store does."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with self._explained():
                self._db.execute("BEGIN IMMEDIATE")
                for statement in _TABLES:
                    self._db.execute(statement)
                self._db.execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def sweeps(self, name: str) -> int:
        """Return how many sweeps of a name there are, each with an experiment or data of its own."""
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM sweeps WHERE name = ?", (name,)).fetchone()[0])

    def take_up_sweep(
        self, name: str, context: str, *, sweep: str, experiment: str, versions: Mapping[str, str]
    ) -> tuple[int, dict[str, str]]:
        """Enter a sweep or go on with it; return its number and the versions its first points were computed with.

        ``context`` tells the experiment and its data; with others, the same name is another sweep. Raises StoreError
        where another process is at work on it.
        """
        me = json.dumps(asdict(Owner.this_process()))
        with self._explained():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                row = self._db.execute(
                    "SELECT id, versions, owner FROM sweeps WHERE name = ? AND context = ?", (name, context)
                ).fetchone()
                if row is None:
                    number = self._db.execute(
                        "INSERT INTO sweeps (name, context, created, sweep, experiment, versions, owner) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (name, context, now(), sweep, experiment, json.dumps(versions), me),
                    ).lastrowid
                    first = dict(versions)
                else:
                    number, first = row[0], self._parsed(name, row[1])
                    owner = Owner(**self._parsed(name, row[2]))
                    if owner.fate() == "alive":
                        raise StoreError(
                            f"another process computes the sweep {name!r} into {self.path}: process {owner.pid} is at "
                            "work on it, let it finish or stop it"
                        )
                    self._db.execute("UPDATE sweeps SET sweep = ?, owner = ? WHERE id = ?", (sweep, me, number))
                self._db.execute("COMMIT")
            except TypeError as cause:
                self._roll_back()
                raise self._damaged(name) from cause
            except BaseException:
                self._roll_back()
                raise
        if number is None:
            raise self._damaged(name)
        return int(number), first

    def put_points(self, sweep: int, results: Iterable[PointResult]) -> None:
        """Commit results; a "lost" one is replaced when it is computed after all."""
        rows = [
            (
                each.point.id,
                each.status,
                each.reason,
                json.dumps(each.point.overrides, default=str),
                None if each.figures is None else json.dumps(asdict(each.figures)),
            )
            for each in results
        ]
        with self._explained():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    f"INSERT OR REPLACE INTO points (sweep, {', '.join(_COLUMNS)}, digest) "  # noqa: S608
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(sweep, *row, digest_of(row)) for row in rows],
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def points(self, sweep: int, name: str) -> dict[str, PointResult]:
        """Return all results of a sweep by the id of their point; StoreError where one is damaged."""
        with self._explained():
            rows = self._db.execute(
                f"SELECT {', '.join(_COLUMNS)}, digest FROM points WHERE sweep = ?",  # noqa: S608
                (sweep,),
            ).fetchall()
        found: dict[str, PointResult] = {}
        for *values, digest in rows:
            if digest_of(tuple(values)) != digest:
                raise self._damaged(name)
            point, status, reason, overrides, figures = values
            known: Status = status
            try:
                kept = None if figures is None else Figures(**json.loads(figures))
                found[point] = PointResult(Point(point, json.loads(overrides)), known, kept, reason)
            except (ValueError, TypeError) as cause:
                raise self._damaged(name) from cause
        return found

    def _parsed(self, name: str, text: str) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(text)
        except (ValueError, TypeError) as cause:
            raise self._damaged(name) from cause
        return values

    def _damaged(self, name: str) -> StoreError:
        return StoreError(f"the sweep {name!r} in {self.path} is damaged: name another store with --store")
