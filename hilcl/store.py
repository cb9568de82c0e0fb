"""Runs on disk: one SQLite file, one row per step, readable after any crash."""

import contextlib
import json
import os
import shutil
import sqlite3
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.errors import StoreError
from hilcl.events import Event
from hilcl.owner import Owner
from hilcl.store_rows import digest_of, now, packed, step_row, unpacked
from hilcl.store_schema import (
    APPLICATION_ID,
    EVENT_COLUMNS,
    FORMAT,
    RUN_COLUMNS,
    SCALARS,
    SITTING_COLUMNS,
    STEP_COLUMNS,
    additions,
)
from hilcl.training import Checkpoint, Step

CHECK_UP_TO = 256 * 2**20
"""Bytes up to which a store is checked whole when it is opened; larger ones would make every command slow."""


@dataclass(frozen=True)
class RunInfo:
    """A run's entry: what was asked, on what, and how it ended.

    ``status`` is "running", "finished", "stopped", "failed", or "interrupted" where the process that ran it is gone
    without a word. ``experiment`` is the file's text, ``settings`` its validated values, ``arrays`` what belongs to the
    run (network, task, start).
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
class StoredEvent:
    """An event of a run with the ``time`` it was stored, UTC; ``event.step`` is the epoch it happened in."""

    time: str
    event: Event


@dataclass(frozen=True)
class Intent:
    """Codes (M,) that were about to be written to the pots in an epoch."""

    epoch: int
    codes: IntArray


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
        if kind != APPLICATION_ID and not (tables == 0 and kind == 0 and writable):
            raise StoreError(f"{self.path} is not a hilcl store: choose another file with --store")
        if version > FORMAT:
            raise StoreError(f"{self.path} was written by a newer hilcl (format {version}): update hilcl to read it")
        # Tables before the journal's mode: changing that waits for nobody, and fails where two processes make a store.
        if writable and version < FORMAT:
            version = self._make_tables()
        self._format = version
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

    def _make_tables(self) -> int:
        """Make a new store's tables, or those an older format lacks, and return the format."""
        db = self._db
        db.execute("BEGIN EXCLUSIVE")
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            for statement in additions(version):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return FORMAT

    def _use_wal(self) -> None:
        """Switch to a write-ahead log; the switch does not wait for locks by itself."""
        deadline = time.monotonic() + 10.0
        while self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as refusal:
                if "locked" not in str(refusal) or time.monotonic() > deadline:
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
            if "disk I/O error" in text and self._is_full():
                # Some calls of a full disk fail without saying so.
                text = f"{text}, the disk is full"
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
        except UnicodeDecodeError as cause:
            # SQLite quotes damaged names in its own messages.
            raise StoreError(
                f"the store {self.path} is damaged (it holds text that is none): "
                "move it away, or name another with --store"
            ) from cause
        except MemoryError as cause:
            # A damaged file may speak of more than there can be.
            raise StoreError(
                f"the store {self.path} is damaged, or there is not enough memory to read it: "
                "move it away, or name another with --store"
            ) from cause
        except OSError as cause:
            raise StoreError(f"the store {self.path} cannot be used: {cause.strerror}") from cause

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self.path.absolute().parent).free < 2**20
        except OSError:
            return False

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
            "created": now(),
            "finished": None,
            "status": "running",
            "reason": "",
            "backend": backend,
            "experiment": experiment,
            "settings": json.dumps(settings),
            "versions": json.dumps(versions),
            "fingerprint": fingerprint,
            "arrays": packed(arrays),
            "summary": None,
        }
        with self._explained():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(
                    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}, digest) VALUES ({', '.join('?' * 13)})",  # noqa: S608
                    (*values.values(), digest_of(tuple(values.values()))),
                )
                self._sit_down(name)
                self._db.execute("COMMIT")
            except sqlite3.IntegrityError as cause:
                self._roll_back()
                raise StoreError(
                    f"the store {self.path} already has a run {name!r}: choose another name, or resume it"
                ) from cause
            except BaseException:
                self._roll_back()
                raise

    def take_up(self, name: str) -> None:
        """Note that this process goes on with a run.

        Raises StoreError where another process is at work on it.
        """
        with self._explained():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._refuse_taken(name)
                self._note_status(name, "running", "", None)
                self._sit_down(name)
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def refuse_taken(self, name: str) -> None:
        """Raise StoreError where another process is at work on a run."""
        with self._explained():
            self._refuse_taken(name)

    def _refuse_taken(self, name: str) -> None:
        row = self._db.execute("SELECT id, status FROM runs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise self._unknown(name)
        owner = self._owner(row[0], name) if row[1] == "running" else None
        if owner is not None and owner.fate() == "alive":
            raise StoreError(
                f"another process is writing the same run to {self.path}: process {owner.pid} is at work on {name!r}, "
                "let it finish or stop it"
            )

    def _sit_down(self, name: str) -> None:
        owner = Owner.this_process()
        values = (now(), owner.pid, owner.started, owner.boot, owner.host)
        self._db.execute(
            f"INSERT INTO sittings (run, {', '.join(SITTING_COLUMNS)}, digest) "  # noqa: S608
            "VALUES ((SELECT id FROM runs WHERE name = ?), ?, ?, ?, ?, ?, ?)",
            (name, *values, digest_of(values)),
        )

    def _owner(self, run: int, name: str) -> Owner | None:
        """Return who began the last sitting of a run; None in a store of an older format, which does not tell."""
        if self._format < 2:
            return None
        row = self._db.execute(
            f"SELECT {', '.join(SITTING_COLUMNS)}, digest FROM sittings "  # noqa: S608
            "WHERE run = ? ORDER BY rowid DESC LIMIT 1",
            (run,),
        ).fetchone()
        if row is None:
            return None
        if digest_of(row[:-1]) != row[-1]:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: who wrote it last cannot be read")
        return Owner(*row[1:-1])

    def run(self, name: str) -> RunInfo:
        """Return a run's entry; StoreError lists the runs there are where the name is unknown."""
        with self._explained():
            row = self._db.execute(
                f"SELECT id, {', '.join(RUN_COLUMNS)}, digest FROM runs WHERE name = ?",  # noqa: S608
                (name,),
            ).fetchone()
            if row is None:
                raise self._unknown(name)
            count, best = self._db.execute("SELECT count(*), min(loss) FROM steps WHERE run = ?", (row[0],)).fetchone()
            last = self._db.execute(
                "SELECT loss FROM steps WHERE run = ? ORDER BY epoch DESC LIMIT 1", (row[0],)
            ).fetchone()
            owner = self._owner(row[0], name)
        gone = owner is not None and owner.fate() == "gone"
        try:
            if digest_of(row[1:-1]) != row[-1]:
                raise ValueError("the digest is another")
            return RunInfo(
                name=row[1],
                created=row[2],
                finished=row[3],
                status="interrupted" if row[4] == "running" and gone else row[4],
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
                arrays=unpacked(row[11]),
            )
        except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged and cannot be read") from cause

    def _unknown(self, name: str) -> StoreError:
        known = ", ".join(self.names()[-8:]) or "none"
        return StoreError(f"the store {self.path} has no run {name!r}: it has {known}")

    def set_status(self, name: str, status: str, reason: str = "", summary: Mapping[str, Any] | None = None) -> None:
        """Note how a run stands; a finished one also gets its time and summary."""
        with self._explained():
            self._note_status(name, status, reason, None if summary is None else json.dumps(summary))

    def _note_status(self, name: str, status: str, reason: str, summary: str | None) -> None:
        finished = None if status == "running" else now()
        row = self._db.execute(
            f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE name = ?",  # noqa: S608
            (name,),
        ).fetchone()
        if row is None:
            raise self._unknown(name)
        values = dict(zip(RUN_COLUMNS, row, strict=True))
        values |= {"status": status, "reason": reason, "finished": finished, "summary": summary}
        self._db.execute(
            "UPDATE runs SET status = ?, reason = ?, finished = ?, summary = ?, digest = ? WHERE name = ?",
            (status, reason, finished, summary, digest_of(tuple(values.values())), name),
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
                f"SELECT {', '.join(STEP_COLUMNS)}, digest FROM steps "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch",
                (name,),
            ).fetchall()
        if any(digest_of(row[:-1]) != row[-1] for row in rows):
            raise StoreError(f"the run {name!r} in {self.path} is damaged: a step is not as it was written")
        at = {column: index for index, column in enumerate(STEP_COLUMNS)}
        scalars = {
            column: np.array([np.nan if row[index] is None else row[index] for row in rows], dtype=np.float64)
            for index, column in enumerate(SCALARS)
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
                f"SELECT {', '.join(STEP_COLUMNS)}, digest FROM steps "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch DESC LIMIT 1",
                (name,),
            ).fetchone()
        if row is None:
            return None
        values = dict(zip(STEP_COLUMNS, row[:-1], strict=True))
        epoch, updates, lower_bound, conductances, state, generators = (
            values[key] for key in ("epoch", "updates", "lower_bound", "conductances", "state", "generators")
        )
        try:
            if digest_of(row[:-1]) != row[-1]:
                raise ValueError("the digest is another")
            realised = np.frombuffer(conductances, dtype="<f8").copy()
            unrounded = realised if state is None else np.frombuffer(state, dtype="<f8").copy()
            random = json.loads(generators) if generators else {"loop": {}, "board": {}}
            return Checkpoint(epoch + 1, updates, unrounded, realised, lower_bound, random["loop"], random["board"])
        except (ValueError, TypeError, KeyError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: its last step cannot be read") from cause

    def events(self, name: str) -> list[StoredEvent]:
        """Return what went wrong in a run and was put right again, oldest first."""
        if self._format < 2:
            return []
        with self._explained():
            rows = self._db.execute(
                f"SELECT {', '.join(EVENT_COLUMNS)}, digest FROM events "  # noqa: S608
                "WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY rowid",
                (name,),
            ).fetchall()
        if any(digest_of(row[:-1]) != row[-1] for row in rows):
            raise StoreError(f"the run {name!r} in {self.path} is damaged: an event is not as it was written")
        return [
            StoredEvent(time, Event(instrument, what, action, epoch))
            for epoch, time, instrument, what, action, _ in rows
        ]

    def intent(self, name: str) -> Intent | None:
        """Return the codes that were last about to be written to the pots, or None where none were."""
        if self._format < 2:
            return None
        with self._explained():
            row = self._db.execute(
                "SELECT epoch, codes, digest FROM intents WHERE run = (SELECT id FROM runs WHERE name = ?)", (name,)
            ).fetchone()
        if row is None:
            return None
        try:
            if digest_of(row[:-1]) != row[-1]:
                raise ValueError("the digest is another")
            return Intent(row[0], np.frombuffer(row[1], dtype="<i4").astype(np.int64))
        except (ValueError, TypeError) as cause:
            raise StoreError(f"the run {name!r} in {self.path} is damaged: its intent cannot be read") from cause

    def writer(self, name: str, *, commit_seconds: float = 0.5, durable: bool = False) -> "StepWriter":
        """Return a writer of a run's steps that commits at least every ``commit_seconds``; 0 commits every step.

        ``durable`` waits for the disk at every commit, so that not even a power cut loses a step (SQLite
        documentation, "PRAGMA synchronous").
        """
        with self._explained():
            row = self._db.execute("SELECT id FROM runs WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise self._unknown(name)
            if durable:
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA fullfsync = ON")
        return StepWriter(self, row[0], commit_seconds)

    def insert_steps(self, run: int, steps: Sequence[Step], events: Sequence[Event] = ()) -> None:
        """Write steps and events in one transaction."""
        with self._explained():
            rows = [step_row(step) for step in steps]
            told = [(event.step or 0, now(), event.instrument, event.what, event.action) for event in events]
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    f"INSERT INTO steps (run, {', '.join(STEP_COLUMNS)}, digest) "  # noqa: S608
                    f"VALUES ({', '.join('?' * (len(STEP_COLUMNS) + 2))})",
                    [(run, *row, digest_of(row)) for row in rows],
                )
                if told:
                    self._db.executemany(
                        f"INSERT INTO events (run, {', '.join(EVENT_COLUMNS)}, digest) "  # noqa: S608
                        f"VALUES ({', '.join('?' * (len(EVENT_COLUMNS) + 2))})",
                        [(run, *row, digest_of(row)) for row in told],
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

    def set_intent(self, run: int, epoch: int, codes: IntArray) -> None:
        """Commit the codes (M,) that are about to be written to the pots, in place of the last ones."""
        values = (epoch, codes.astype("<i4").tobytes())
        with self._explained():
            self._db.execute(
                "INSERT OR REPLACE INTO intents (run, epoch, codes, digest) VALUES (?, ?, ?, ?)",
                (run, *values, digest_of(values)),
            )

    def _roll_back(self) -> None:
        # A signal may have come after the commit, and a full disk ends the transaction by itself.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def has_step(self, run: int, step: Step) -> bool:
        """Return whether exactly this step is stored."""
        with self._explained():
            row = self._db.execute("SELECT digest FROM steps WHERE run = ? AND epoch = ?", (run, step.epoch)).fetchone()
        return row is not None and bool(row[0] == digest_of(step_row(step)))


class StepWriter:
    """Collects steps and commits them in groups: a lost simulated step can be recomputed to the last bit."""

    def __init__(self, store: Store, run: int, commit_seconds: float) -> None:
        self._store, self._run, self._commit_seconds = store, run, commit_seconds
        self._waiting: list[Step] = []
        self._events: list[Event] = []
        self._last_commit = time.monotonic()

    def write(self, step: Step, events: Sequence[Event] = ()) -> None:
        """Take a step and what happened in it; it is on disk after the next commit."""
        self._waiting.append(step)
        self.note(events)
        if time.monotonic() - self._last_commit >= self._commit_seconds:
            self.flush()

    def note(self, events: Sequence[Event]) -> None:
        """Take events; they are on disk after the next commit."""
        self._events += events

    def intend(self, epoch: int, codes: IntArray) -> None:
        """Commit the codes (M,) that are about to be written to the pots in an epoch."""
        self._store.set_intent(self._run, epoch, codes)

    def flush(self) -> None:
        """Commit everything taken so far."""
        if self._waiting or self._events:
            try:
                self._store.insert_steps(self._run, self._waiting, self._events)
                self._waiting, self._events = [], []
            except KeyboardInterrupt:
                # The signal may have come just after the commit: what is stored must not be written again.
                if self._waiting and self._store.has_step(self._run, self._waiting[-1]):
                    self._waiting, self._events = [], []
                raise
        self._last_commit = time.monotonic()
