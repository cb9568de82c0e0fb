"""Runs on disk: one SQLite file, one row per step, readable after any crash."""

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import struct
import time
import zipfile
import zlib
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
    summary TEXT,
    digest BLOB NOT NULL
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
    digest BLOB NOT NULL,
    PRIMARY KEY (run, epoch)
);
"""

_RUN_COLUMNS = (
    "name",
    "created",
    "finished",
    "status",
    "reason",
    "backend",
    "experiment",
    "settings",
    "versions",
    "fingerprint",
    "arrays",
    "summary",
)
"""Columns a run's digest covers, in this order."""

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

_STEP_COLUMNS = (*_SCALARS, "updates", "outputs", "conductances", "state", "codes", "pinned", "generators")
"""Columns a step's digest covers, in this order."""


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
        if "\0" in str(path):
            raise StoreError(
                f"the store {str(path)!r} cannot be used: no file can be called so, choose another --store"
            )
        if not (writable and create) and not path.is_file():
            raise StoreError(f"there is no store {path}: name one with --store, or make a run first")
        with self._explained():
            # A reader opens for writing too where it may: only then does SQLite clear away its helper files at the end.
            may_write = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
            mode = "rwc" if writable else "rw" if may_write else "ro"
            location = f"{path.absolute().as_uri()}?mode={mode}"
            if mode == "ro" and not path.with_name(path.name + "-wal").exists():
                # Where nothing can be written SQLite cannot make its lock file either, and nobody can be writing.
                location += "&immutable=1"
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
        if not writable:
            db.execute("PRAGMA query_only = ON")
        # Tables first: another process may be making this store, and commits its tables and its kind together.
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        kind, version = (
            db.execute("PRAGMA application_id").fetchone()[0],
            db.execute("PRAGMA user_version").fetchone()[0],
        )
        if tables == 0 and kind == 0 and writable:
            # In this order: changing the journal waits for nobody, and fails where two processes make one store.
            db.execute("BEGIN EXCLUSIVE")
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
            kind, version = APPLICATION_ID, FORMAT
        if kind != APPLICATION_ID:
            raise StoreError(f"{self.path} is not a hilcl store: choose another file with --store")
        if version > FORMAT:
            raise StoreError(f"{self.path} was written by a newer hilcl (format {version}): update hilcl to read it")
        if self.path.stat().st_size <= CHECK_UP_TO:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(" ".join(verdict.split()))
        if writable:
            # NORMAL loses at most the last commits at a power cut, never the file (SQLite documentation, "WAL").
            self._use_wal()
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")

    def _use_wal(self) -> None:
        """Switch to a write-ahead log; the switch does not wait for locks by itself."""
        deadline = time.monotonic() + 10.0
        while self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                # Wait, with SQLite's patience, until whoever holds the file lets go.
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("ROLLBACK")

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
            if "decode" in text:
                raise StoreError(
                    f"the store {self.path} is damaged (it holds text that is none): "
                    "move it away, or name another with --store"
                ) from cause
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
        values = {
            "name": name,
            "created": _now(),
            "finished": None,
            "status": "running",
            "reason": "",
            "backend": backend,
            "experiment": experiment,
            "settings": json.dumps(settings),
            "versions": json.dumps(versions),
            "fingerprint": fingerprint,
            "arrays": _packed(arrays),
            "summary": None,
        }
        with self._explained():
            try:
                self._db.execute(
                    f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)}, digest) VALUES ({', '.join('?' * 13)})",  # noqa: S608
                    (*values.values(), _digest(tuple(values.values()))),
                )
            except sqlite3.IntegrityError as cause:
                raise StoreError(
                    f"the store {self.path} already has a run {name!r}: choose another name, or resume it"
                ) from cause

    def run(self, name: str) -> RunInfo:
        """Return a run's entry; StoreError lists the runs there are where the name is unknown."""
        with self._explained():
            row = self._db.execute(
                f"SELECT id, {', '.join(_RUN_COLUMNS)}, digest FROM runs WHERE name = ?",  # noqa: S608
                (name,),
            ).fetchone()
            if row is None:
                raise self._unknown(name)
            count, best = self._db.execute("SELECT count(*), min(loss) FROM steps WHERE run = ?", (row[0],)).fetchone()
            last = self._db.execute(
                "SELECT loss FROM steps WHERE run = ? ORDER BY epoch DESC LIMIT 1", (row[0],)
            ).fetchone()
        try:
            if _digest(row[1:-1]) != row[-1]:
                raise ValueError("the digest is another")
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
                summary=None if row[12] is None else json.loads(row[12]),
                arrays=_unpacked(row[11]),
            )
        except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged and cannot be read") from cause

    def _unknown(self, name: str) -> StoreError:
        known = ", ".join(self.names()[-8:]) or "none"
        return StoreError(f"the store {self.path} has no run {name!r}: it has {known}")

    def set_status(self, name: str, status: str, reason: str = "", summary: Mapping[str, Any] | None = None) -> None:
        """Note how a run stands; a finished one also gets its time and summary."""
        finished = None if status == "running" else _now()
        text = None if summary is None else json.dumps(summary)
        with self._explained():
            row = self._db.execute(
                f"SELECT {', '.join(_RUN_COLUMNS)} FROM runs WHERE name = ?",  # noqa: S608
                (name,),
            ).fetchone()
            if row is None:
                raise self._unknown(name)
            values = dict(zip(_RUN_COLUMNS, row, strict=True))
            values |= {"status": status, "reason": reason, "finished": finished, "summary": text}
            self._db.execute(
                "UPDATE runs SET status = ?, reason = ?, finished = ?, summary = ?, digest = ? WHERE name = ?",
                (status, reason, finished, text, _digest(tuple(values.values())), name),
            )

    def history(self, name: str) -> History:
        """Return all steps of a run as arrays; StoreError where a row is damaged or an epoch is missing."""
        info = self.run(name)
        try:
            (n_samples, n_outputs), n_edges = info.arrays["targets"].shape, len(info.arrays["edges"])
        except (KeyError, ValueError, TypeError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: {cause} is missing") from cause
        with self._explained():
            rows = self._db.execute(
                f"SELECT {', '.join(_STEP_COLUMNS)}, digest FROM steps "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch",
                (name,),
            ).fetchall()
        if any(_digest(row[:-1]) != row[-1] for row in rows):
            raise StoreError(f"the run {name!r} in {self.path} is damaged: a step is not as it was written")
        at = {column: index for index, column in enumerate(_STEP_COLUMNS)}
        scalars = {
            column: np.array([np.nan if row[index] is None else row[index] for row in rows], dtype=np.float64)
            for index, column in enumerate(_SCALARS)
        }
        if not np.array_equal(scalars["epoch"], np.arange(len(rows))):
            raise StoreError(f"the run {name!r} in {self.path} is damaged: epochs are missing")
        try:
            has_codes = bool(rows) and rows[0][at["codes"]] is not None
            conductances = [np.frombuffer(row[at["conductances"]], dtype="<f8") for row in rows]
            outputs = [np.frombuffer(row[at["outputs"]], dtype="<f8").reshape(n_samples, n_outputs) for row in rows]
            codes = [np.frombuffer(row[at["codes"]], dtype="<i4") for row in rows] if has_codes else None
            return History(
                scalars,
                np.array(conductances, dtype=np.float64).reshape(len(rows), n_edges),
                None if codes is None else np.array(codes, dtype=np.int64).reshape(len(rows), n_edges),
                np.array(outputs, dtype=np.float64).reshape(len(rows), n_samples, n_outputs),
                [np.frombuffer(row[at["pinned"]], dtype="<i4").astype(np.int64) for row in rows],
            )
        except (ValueError, TypeError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: a step has the wrong size") from cause

    def checkpoint(self, name: str) -> Checkpoint | None:
        """Return where the run goes on after its last stored step, or None before its first."""
        with self._explained():
            if self._db.execute("SELECT 1 FROM runs WHERE name = ?", (name,)).fetchone() is None:
                raise self._unknown(name)
            row = self._db.execute(
                f"SELECT {', '.join(_STEP_COLUMNS)}, digest FROM steps "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch DESC LIMIT 1",
                (name,),
            ).fetchone()
        if row is None:
            return None
        values = dict(zip(_STEP_COLUMNS, row[:-1], strict=True))
        epoch, updates, lower_bound, conductances, state, generators = (
            values[key] for key in ("epoch", "updates", "lower_bound", "conductances", "state", "generators")
        )
        try:
            if _digest(row[:-1]) != row[-1]:
                raise ValueError("the digest is another")
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
            if row is None:
                raise self._unknown(name)
        return StepWriter(self, row[0], commit_seconds)

    def insert_steps(self, run: int, steps: list[Step]) -> None:
        """Write steps in one transaction."""
        with self._explained():
            rows = [_row(step) for step in steps]
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    f"INSERT INTO steps (run, {', '.join(_STEP_COLUMNS)}, digest) "  # noqa: S608
                    f"VALUES ({', '.join('?' * (len(_STEP_COLUMNS) + 2))})",
                    [(run, *row, _digest(row)) for row in rows],
                )
                self._db.execute("COMMIT")
            except sqlite3.IntegrityError as cause:
                self._roll_back()
                raise StoreError(
                    f"another process is writing the same run to {self.path}: let one of them finish"
                ) from cause
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        # A signal may have come after the commit, and a full disk ends the transaction by itself.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def has_step(self, run: int, step: Step) -> bool:
        """Return whether exactly this step is stored."""
        with self._explained():
            row = self._db.execute("SELECT digest FROM steps WHERE run = ? AND epoch = ?", (run, step.epoch)).fetchone()
        return row is not None and bool(row[0] == _digest(_row(step)))


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
            try:
                self._store.insert_steps(self._run, self._waiting)
                self._waiting = []
            except KeyboardInterrupt:
                # The signal may have come just after the commit: what is stored must not be written again.
                if self._waiting and self._store.has_step(self._run, self._waiting[-1]):
                    self._waiting = []
                raise
        self._last_commit = time.monotonic()


def _row(step: Step) -> tuple[Any, ...]:
    checkpoint = step.checkpoint
    random = {"loop": dict(checkpoint.generator), "board": dict(checkpoint.board)}
    return (
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


def _digest(values: tuple[Any, ...]) -> bytes:
    """Return what tells whether stored values are as they were written: SQLite itself notices torn pages only."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        if isinstance(value, bytes):
            kind, part = b"b", value
        elif isinstance(value, str):
            kind, part = b"t", value.encode("utf-8", "surrogatepass")
        elif value is None:
            kind, part = b"n", b""
        else:  # SQLite may give a number back as another type, and zero without its sign
            kind, part = b"r", struct.pack("<d", value + 0.0)
        digest.update(b"%s%d:%s" % (kind, len(part), part))
    return digest.digest()


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(blob: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
