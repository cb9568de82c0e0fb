"""Runs on disk: one SQLite file, one row per step, readable after any crash."""

import contextlib
import io
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import StoreError
from hilcl.training import Checkpoint, Step

APPLICATION_ID = 0x68696C63
"""Marks an SQLite file as a hilcl store: the letters "hilc"."""

FORMAT = 1

CHECK_UP_TO = 256 * 2**20
"""Bytes up to which a store is checked whole when it is opened; larger ones would make every command slow."""

_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    finished TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    backend TEXT NOT NULL,
    experiment TEXT NOT NULL,
    settings TEXT NOT NULL,
    versions TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    arrays BLOB NOT NULL,
    summary TEXT
);
CREATE TABLE steps (
    run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    loss REAL NOT NULL,
    contrast REAL NOT NULL,
    step_size REAL NOT NULL,
    residual REAL NOT NULL,
    lower_bound REAL NOT NULL,
    power REAL,
    clamp_error REAL NOT NULL,
    measure_s REAL NOT NULL,
    update_s REAL NOT NULL,
    program_s REAL NOT NULL,
    updates INTEGER NOT NULL,
    outputs BLOB NOT NULL,
    conductances BLOB NOT NULL,
    state BLOB,
    codes BLOB,
    pinned BLOB NOT NULL,
    generators TEXT,
    PRIMARY KEY (run, epoch)
);
"""

_SCALARS = (
    "epoch",
    "loss",
    "contrast",
    "step_size",
    "residual",
    "lower_bound",
    "power",
    "clamp_error",
    "measure_s",
    "update_s",
    "program_s",
)


@dataclass(frozen=True)
class RunInfo:
    """A run's entry: what was asked, on what, and how it ended.

    ``status`` is "running", "finished", "stopped" or "failed"; a killed run stays "running". ``experiment`` is the
    file's text, ``settings`` its validated values, ``arrays`` what belongs to the run (network, task, start).
    """

    name: str
    created: str
    finished: str | None
    status: str
    reason: str
    backend: str
    experiment: str
    settings: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    steps: int
    last_loss: float | None
    best_loss: float | None
    summary: dict[str, Any] | None
    arrays: dict[str, Any]


@dataclass(frozen=True)
class History:
    """A run's steps as arrays over E epochs.

    ``scalars`` maps a name (epoch, loss, contrast, …) to an (E,) array; ``conductances`` (E, M) in siemens, ``codes``
    (E, M) or None, ``outputs`` (E, S, O) in volts, ``pinned`` one array of edge numbers per epoch.
    """

    scalars: dict[str, FloatArray]
    conductances: FloatArray
    codes: IntArray | None
    outputs: FloatArray
    pinned: list[IntArray]

    def __len__(self) -> int:
        return len(self.scalars["epoch"])


class Store:
    """One SQLite file of runs. Use as a context manager.

    ``create`` makes the file where there is none; ``writable=False`` never creates or changes one.

    Raises StoreError, in one sentence, for every file that cannot be used.
    """

    def __init__(self, path: Path, *, writable: bool = True, create: bool = True) -> None:
        self.path = path
        if not (writable and create) and not path.is_file():
            raise StoreError(f"there is no store {path}: name one with --store, or make a run first")
        with self._explained():
            mode = "rwc" if writable else "ro"
            location = f"{path.absolute().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(location, uri=True, timeout=10.0, isolation_level=None)
        try:
            with self._explained():
                self._open(writable=writable)
        except BaseException:
            self._db.close()
            raise

    def _open(self, *, writable: bool) -> None:
        db = self._db
        db.execute("PRAGMA foreign_keys = ON")
        kind, version = (
            db.execute("PRAGMA application_id").fetchone()[0],
            db.execute("PRAGMA user_version").fetchone()[0],
        )
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0 and kind == 0 and writable:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
            version = FORMAT
        elif kind != APPLICATION_ID:
            raise StoreError(f"{self.path} is not a hilcl store: choose another file with --store")
        if version > FORMAT:
            raise StoreError(f"{self.path} was written by a newer hilcl (format {version}): update hilcl to read it")
        if self.path.stat().st_size <= CHECK_UP_TO:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        if writable:
            # NORMAL loses at most the last commits at a power cut, never the file (SQLite documentation, "WAL").
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into sentences with a remedy."""
        try:
            yield
        except sqlite3.OperationalError as cause:
            text = str(cause)
            remedy = {
                "unable to open": "check that its folder exists and that you may write there",
                "readonly": "it is read-only: choose another file with --store",
                "locked": "another process is writing to it: wait for it, or use another store",
                "full": "the disk is full: free space, then resume the run",
            }
            fitting = [sentence for word, sentence in remedy.items() if word in text]
            raise StoreError(
                f"the store {self.path} cannot be used ({text}): {', '.join(fitting) or 'check it'}"
            ) from cause
        except sqlite3.DatabaseError as cause:
            raise StoreError(
                f"the store {self.path} is damaged or no store at all ({cause}): "
                "move it away, or name another with --store"
            ) from cause
        except OSError as cause:
            raise StoreError(f"the store {self.path} cannot be used: {cause.strerror}") from cause

    def names(self) -> list[str]:
        """Return the names of all runs, oldest first."""
        with self._explained():
            return [row[0] for row in self._db.execute("SELECT name FROM runs ORDER BY id")]

    def free_name(self, stem: str) -> str:
        """Return ``stem``, or the first of stem-2, stem-3, … that no run has."""
        taken = set(self.names())
        if stem not in taken:
            return stem
        number = 2
        while f"{stem}-{number}" in taken:
            number += 1
        return f"{stem}-{number}"

    def create_run(
        self,
        name: str,
        *,
        backend: str,
        experiment: str,
        settings: Mapping[str, Any],
        versions: Mapping[str, str],
        fingerprint: str,
        arrays: Mapping[str, Any],
    ) -> None:
        """Enter a new run; StoreError where the name is taken."""
        with self._explained():
            if name in self.names():
                raise StoreError(f"the store {self.path} already has a run {name!r}: choose another name, or resume it")
            self._db.execute(
                "INSERT INTO runs (name, created, status, backend, experiment, settings, versions, fingerprint, "
                "arrays) VALUES (?, ?, 'running', ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    _now(),
                    backend,
                    experiment,
                    json.dumps(settings),
                    json.dumps(versions),
                    fingerprint,
                    _packed(arrays),
                ),
            )

    def run(self, name: str) -> RunInfo:
        """Return a run's entry; StoreError lists the runs there are where the name is unknown."""
        with self._explained():
            row = self._db.execute(
                "SELECT id, name, created, finished, status, reason, backend, experiment, settings, versions, "
                "fingerprint, summary, arrays FROM runs WHERE name = ?",
                (name,),
            ).fetchone()
            if row is None:
                known = ", ".join(self.names()[-8:]) or "none"
                raise StoreError(f"the store {self.path} has no run {name!r}: it has {known}")
            count, best = self._db.execute("SELECT count(*), min(loss) FROM steps WHERE run = ?", (row[0],)).fetchone()
            last = self._db.execute(
                "SELECT loss FROM steps WHERE run = ? ORDER BY epoch DESC LIMIT 1", (row[0],)
            ).fetchone()
        try:
            return RunInfo(
                name=row[1],
                created=row[2],
                finished=row[3],
                status=row[4],
                reason=row[5],
                backend=row[6],
                experiment=row[7],
                settings=json.loads(row[8]),
                versions=json.loads(row[9]),
                fingerprint=row[10],
                steps=count,
                last_loss=None if last is None else last[0],
                best_loss=best,
                summary=None if row[11] is None else json.loads(row[11]),
                arrays=_unpacked(row[12]),
            )
        except (ValueError, KeyError, OSError, EOFError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged and cannot be read") from cause

    def set_status(self, name: str, status: str, reason: str = "", summary: Mapping[str, Any] | None = None) -> None:
        """Note how a run stands; a finished one also gets its time and summary."""
        finished = None if status == "running" else _now()
        with self._explained():
            self._db.execute(
                "UPDATE runs SET status = ?, reason = ?, finished = ?, summary = ? WHERE name = ?",
                (status, reason, finished, None if summary is None else json.dumps(summary), name),
            )

    def history(self, name: str) -> History:
        """Return all steps of a run as arrays; StoreError where a row is damaged or an epoch is missing."""
        info = self.run(name)
        n_samples, n_outputs = info.arrays["targets"].shape
        with self._explained():
            rows = self._db.execute(
                f"SELECT {', '.join(_SCALARS)}, conductances, codes, outputs, pinned FROM steps "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch",
                (name,),
            ).fetchall()
        width = len(_SCALARS)
        scalars = {
            column: np.array([np.nan if row[index] is None else row[index] for row in rows], dtype=np.float64)
            for index, column in enumerate(_SCALARS)
        }
        if not np.array_equal(scalars["epoch"], np.arange(len(rows))):
            raise StoreError(f"the run {name!r} in {self.path} is damaged: epochs are missing")
        try:
            has_codes = bool(rows) and rows[0][width + 1] is not None
            conductances = [np.frombuffer(row[width], dtype="<f8") for row in rows]
            outputs = [np.frombuffer(row[width + 2], dtype="<f8").reshape(n_samples, n_outputs) for row in rows]
            codes = [np.frombuffer(row[width + 1], dtype="<i4") for row in rows] if has_codes else None
            n_edges = len(info.arrays["edges"])
            return History(
                scalars,
                np.array(conductances, dtype=np.float64).reshape(len(rows), n_edges),
                None if codes is None else np.array(codes, dtype=np.int64).reshape(len(rows), n_edges),
                np.array(outputs, dtype=np.float64).reshape(len(rows), n_samples, n_outputs),
                [np.frombuffer(row[width + 3], dtype="<i4").astype(np.int64) for row in rows],
            )
        except (ValueError, TypeError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: a step has the wrong size") from cause

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Return where the run goes on after its last stored step, or None before its first."""
        with self._explained():
            row = self._db.execute(
                "SELECT epoch, updates, lower_bound, conductances, state, generators FROM steps "
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch DESC LIMIT 1",
                (name,),
            ).fetchone()
        if row is None:
            return None
        epoch, updates, lower_bound, conductances, state, generators = row
        try:
            realised = np.frombuffer(conductances, dtype="<f8").copy()
            unrounded = realised if state is None else np.frombuffer(state, dtype="<f8").copy()
            random = json.loads(generators) if generators else {"loop": {}, "board": {}}
            return Checkpoint(epoch + 1, updates, unrounded, realised, lower_bound, random["loop"], random["board"])
        except (ValueError, TypeError, KeyError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: its last step cannot be read") from cause

    def writer(self, name: str, *, commit_seconds: float = 0.5) -> "StepWriter":
        """Return a writer of a run's steps that commits at least every ``commit_seconds``; 0 commits every step."""
        with self._explained():
            row = self._db.execute("SELECT id FROM runs WHERE name = ?", (name,)).fetchone()
        return StepWriter(self, row[0], commit_seconds)

    def insert_steps(self, run: int, steps: list[Step]) -> None:
        """Write steps in one transaction."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    f"INSERT INTO steps VALUES ({', '.join('?' * 19)})",  # noqa: S608
                    [_row(run, step) for step in steps],
                )
                self._db.execute("COMMIT")
            except sqlite3.IntegrityError as cause:
                self._db.execute("ROLLBACK")
                raise StoreError(
                    f"another process is writing the same run to {self.path}: let one of them finish"
                ) from cause
            except BaseException:
                self._db.execute("ROLLBACK")
                raise


class StepWriter:
    """Collects steps and commits them in groups: a lost simulated step can be recomputed to the last bit."""

    def __init__(self, store: Store, run: int, commit_seconds: float) -> None:
        self._store, self._run, self._commit_seconds = store, run, commit_seconds
        self._waiting: list[Step] = []
        self._last_commit = time.monotonic()

    def write(self, step: Step) -> None:
        """Take a step; it is on disk after the next commit."""
        self._waiting.append(step)
        if time.monotonic() - self._last_commit >= self._commit_seconds:
            self.flush()

    def flush(self) -> None:
        """Commit everything taken so far."""
        if self._waiting:
            self._store.insert_steps(self._run, self._waiting)
            self._waiting = []
        self._last_commit = time.monotonic()


def _row(run: int, step: Step) -> tuple[Any, ...]:
    checkpoint = step.checkpoint
    random = {"loop": dict(checkpoint.generator), "board": dict(checkpoint.board)}
    return (
        run,
        step.epoch,
        step.loss,
        step.contrast,
        step.step_size,
        step.residual,
        step.lower_bound,
        None if np.isnan(step.power) else step.power,
        step.clamp_error,
        step.timings.measure,
        step.timings.update,
        step.timings.program,
        checkpoint.updates,
        step.outputs.astype("<f8").tobytes(),
        step.conductances.astype("<f8").tobytes(),
        None if np.array_equal(step.state, step.conductances) else step.state.astype("<f8").tobytes(),
        None if step.codes is None else step.codes.astype("<i4").tobytes(),
        step.pinned.astype("<i4").tobytes(),
        json.dumps(random) if random["loop"] or random["board"] else None,
    )


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(blob: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
