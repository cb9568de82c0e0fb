import io
import itertools
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, Task
from hilcl.errors import StoreError
from hilcl.events import Event
from hilcl.sim_backend import Imperfections, MeterDefects, SimulatedBoard
from hilcl.store import Store
from hilcl.store_schema import APPLICATION_ID, FORMAT
from hilcl.training import Step, train
from tests.command_line import contents, listing

NETWORK = Network.crossbar(3, 2)
TASK = Task([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]], [[0.6, 0.4], [0.3, 0.7]])


def steps(epochs: int, *, pots: bool = True, batch_size: int | None = None) -> list[Step]:
    """Train a small noisy board of pots, or an ideal one of continuous resistors."""
    if pots:
        pot = Potentiometer(64, 10e3, wiper=100.0)
        noisy = Imperfections(meters=MeterDefects(noise=1e-3))
        board = SimulatedBoard(NETWORK, 2e-4, imperfections=noisy, pots=pot)
    else:
        board = SimulatedBoard(NETWORK, 2e-4, DeviceRange(1e-4, 1e-3))
    return list(train(board, TASK, ContrastiveLearning(1e-5, batch_size=batch_size), epochs))


def enter(store: Store, name: str, **changes: Any) -> None:
    """Enter a run of the small board."""
    values: dict[str, Any] = {
        "backend": "sim",
        "experiment": "[board]\n",
        "settings": {"learning": {"epochs": 3}},
        "versions": {"hilcl": "1"},
        "fingerprint": "abc",
        "arrays": arrays(),
    }
    store.create_run(name, **(values | changes))


def arrays() -> dict[str, Any]:
    return {
        "n_nodes": np.array(NETWORK.n_nodes),
        "edges": NETWORK.edges,
        "input_nodes": NETWORK.inputs,
        "output_nodes": NETWORK.outputs,
        "inputs": TASK.inputs,
        "targets": TASK.targets,
        "initial": np.full(NETWORK.n_edges, 2e-4),
        "g_min": np.full(NETWORK.n_edges, 1e-4),
        "g_max": np.full(NETWORK.n_edges, 1e-2),
        "class_names": np.array((), dtype=np.str_),
    }


def write(store: Store, name: str, taken: list[Step]) -> None:
    writer = store.writer(name, commit_seconds=1e9)
    for step in taken:
        writer.write(step)
    writer.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a locked file for a moment only."""
    connect = sqlite3.connect

    def hurried(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **(options | {"timeout": 0.05}))
        return connection

    monkeypatch.setattr("hilcl.store.sqlite3.connect", hurried)


def test_a_run_comes_back_as_it_was_entered(store: Store) -> None:
    enter(store, "first", settings={"learning": {"epochs": 7}, "limits": None})
    info = store.run("first")
    assert (info.name, info.status, info.reason, info.backend) == ("first", "running", "", "sim")
    assert (info.experiment, info.fingerprint) == ("[board]\n", "abc")
    assert info.settings == {"learning": {"epochs": 7}, "limits": None}
    assert info.versions == {"hilcl": "1"}
    assert (info.steps, info.last_loss, info.best_loss, info.summary, info.finished) == (0, None, None, None, None)
    assert info.arrays.keys() == arrays().keys()
    for name, value in arrays().items():
        np.testing.assert_array_equal(info.arrays[name], value)
    assert store.checkpoint("first") is None
    assert len(store.history("first")) == 0


@pytest.mark.parametrize("pots", [True, False])
def test_steps_come_back_bit_for_bit(store: Store, *, pots: bool) -> None:
    taken = steps(5, pots=pots)
    enter(store, "run")
    write(store, "run", taken)
    history = store.history("run")
    assert len(history) == 5
    for name in ("epoch", "loss", "contrast", "step_size", "residual", "lower_bound", "power", "clamp_error"):
        np.testing.assert_array_equal(history.scalars[name], [getattr(step, name) for step in taken])
    for name in ("measure", "update", "program"):
        np.testing.assert_array_equal(history.scalars[f"{name}_s"], [getattr(step.timings, name) for step in taken])
    np.testing.assert_array_equal(history.conductances, [step.conductances for step in taken])
    np.testing.assert_array_equal(history.outputs, [step.outputs for step in taken])
    for found, step in zip(history.pinned, taken, strict=True):
        np.testing.assert_array_equal(found, step.pinned)
    if pots:
        assert history.codes is not None
        np.testing.assert_array_equal(history.codes, [step.codes for step in taken])
    else:
        assert history.codes is None
    info = store.run("run")
    assert (info.steps, info.last_loss) == (5, taken[-1].loss)
    assert info.best_loss == min(step.loss for step in taken)


@pytest.mark.parametrize(("pots", "batch_size"), [(True, None), (True, 1), (False, None), (False, 1)])
def test_the_checkpoint_comes_back_bit_for_bit(store: Store, *, pots: bool, batch_size: int | None) -> None:
    taken = steps(4, pots=pots, batch_size=batch_size)
    enter(store, "run")
    write(store, "run", taken)
    found, expected = store.checkpoint("run"), taken[-1].checkpoint
    assert found is not None
    assert (found.epoch, found.updates, found.lower_bound) == (expected.epoch, expected.updates, expected.lower_bound)
    np.testing.assert_array_equal(found.state, expected.state)
    np.testing.assert_array_equal(found.conductances, expected.conductances)
    assert found.generator == expected.generator
    assert found.board == expected.board
    assert bool(found.generator) == (batch_size is not None)
    assert bool(found.board) == pots


def test_power_that_no_meter_shows_is_stored_as_missing(store: Store) -> None:
    step = steps(1)[0]
    object.__setattr__(step, "power", np.nan)
    enter(store, "run")
    write(store, "run", [step])
    assert np.isnan(store.history("run").scalars["power"][0])


def test_names_status_and_summary(store: Store) -> None:
    assert store.names() == []
    assert store.free_name("iris") == "iris"
    for name in ("iris", "iris-2", "b"):
        enter(store, name)
    assert store.names() == ["iris", "iris-2", "b"]
    assert store.free_name("iris") == "iris-3"
    assert store.free_name("c") == "c"
    store.set_status("b", "finished", "the loss reached 0 V²", {"epochs": 3})
    info = store.run("b")
    assert (info.status, info.reason, info.summary) == ("finished", "the loss reached 0 V²", {"epochs": 3})
    assert info.finished is not None
    store.set_status("b", "running")
    info = store.run("b")
    assert (info.status, info.summary, info.finished) == ("running", None, None)
    assert store.run("iris").status == "running"


def test_a_name_that_exists_is_refused(store: Store, path: Path) -> None:
    enter(store, "run")
    before = contents(path)
    with pytest.raises(StoreError, match=r"already has a run 'run': choose another name, or resume it"):
        enter(store, "run", experiment="other")
    assert contents(path) == before


def test_a_name_taken_meanwhile_by_another_process_is_refused(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(store, "run")
    with Store(path) as other:
        monkeypatch.setattr(other, "names", list)  # what it saw before the first store entered its run
        with pytest.raises(StoreError, match="already has a run 'run'"):
            enter(other, "run")


def test_an_unknown_run_is_refused_with_those_there_are(store: Store) -> None:
    with pytest.raises(StoreError, match="has no run 'x': it has none"):
        store.run("x")
    for number in range(10):
        enter(store, f"run-{number}")
    ask: list[Callable[[str], object]] = [store.run, store.history, store.checkpoint, store.writer]
    for question in ask[:2]:
        with pytest.raises(StoreError, match=r"has no run 'x': it has run-2, .*, run-9$"):
            question("x")
    for question in ask[2:]:
        with pytest.raises(StoreError, match="has no run 'x'"):
            question("x")


def test_two_runs_alternate_in_one_store(path: Path) -> None:
    taken = steps(6)
    with Store(path) as first, Store(path) as second:
        enter(first, "a")
        enter(second, "b")
        writers = first.writer("a", commit_seconds=0), second.writer("b", commit_seconds=0)
        for step in taken:
            for writer in writers:
                writer.write(step)
    with Store(path, writable=False) as reader:
        for name in ("a", "b"):
            history = reader.history(name)
            np.testing.assert_array_equal(history.conductances, [step.conductances for step in taken])


def test_two_writers_of_one_run_are_refused(path: Path) -> None:
    taken = steps(4)
    with Store(path) as first, Store(path) as second:
        enter(first, "run")
        write(first, "run", taken[:2])
        late = second.writer("run", commit_seconds=1e9)
        late.write(taken[1])
        late.write(taken[2])
        with pytest.raises(StoreError, match="another process is writing the same run"):
            late.flush()
        write(first, "run", taken[2:])
        assert first.history("run").scalars["epoch"].tolist() == [0, 1, 2, 3]


def test_steps_are_on_disk_when_the_commit_interval_is_over(store: Store, path: Path) -> None:
    taken = steps(3)
    enter(store, "run")
    now, later = store.writer("run", commit_seconds=0), store.writer("run", commit_seconds=1e9)
    with Store(path, writable=False) as other:
        now.write(taken[0])
        assert other.run("run").steps == 1
        later.write(taken[1])
        later.write(taken[2])
        assert other.run("run").steps == 1
        later.flush()
        assert other.run("run").steps == 3
        later.flush()
        assert other.run("run").steps == 3


def test_after_a_crash_there_is_every_flushed_step_and_no_half_group(store: Store, path: Path, tmp_path: Path) -> None:
    """A copy of an open store's files is what a killed process leaves; with a torn log, what a power cut leaves."""
    taken = steps(12)
    enter(store, "run")
    groups = [0, 3, 7, 12]
    for start, stop in itertools.pairwise(groups):
        write(store, "run", taken[start:stop])
    lost = store.writer("run", commit_seconds=1e9)
    lost.write(taken[-1])
    log = path.with_name(f"{path.name}-wal").read_bytes()
    seen = set()
    for length in [*np.linspace(0, len(log), 60, dtype=int).tolist(), len(log)]:
        copy = tmp_path / f"crash-{length}"
        copy.mkdir(exist_ok=True)
        shutil.copy(path, copy)
        (copy / f"{path.name}-wal").write_bytes(log[:length])
        with Store(copy / path.name) as recovered:
            found = recovered.run("run").steps if "run" in recovered.names() else 0
            assert found in groups
            if found:
                np.testing.assert_array_equal(
                    recovered.history("run").conductances, [step.conductances for step in taken[:found]]
                )
        seen.add(found)
    assert seen == set(groups)


class Interrupting:
    """A database connection that Ctrl-C hits just after a statement."""

    def __init__(self, db: sqlite3.Connection, statement: str) -> None:
        self._db, self._statement = db, statement

    def _after(self, sql: str, result: object) -> object:
        if self._statement and sql.startswith(self._statement):
            self._statement = ""
            raise KeyboardInterrupt
        return result

    def execute(self, sql: str, *values: Any) -> object:
        return self._after(sql, self._db.execute(sql, *values))

    def executemany(self, sql: str, values: Any) -> object:
        return self._after(sql, self._db.executemany(sql, values))

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
def test_a_commit_can_be_interrupted_anywhere_and_repeated(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    taken = steps(3)
    enter(store, "run")
    writer = store.writer("run", commit_seconds=1e9)
    for step in taken:
        writer.write(step)
    monkeypatch.setattr(store, "_db", Interrupting(store._db, statement))
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    writer.flush()
    with Store(path, writable=False) as other:
        assert other.run("run").steps == 3


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with Store(path) as opened:
        enter(opened, "run")
        assert opened.names() == ["run"]


def test_a_store_knows_its_kind_and_format(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert db.execute("PRAGMA user_version").fetchone()[0] == FORMAT
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_format_is_refused(path: Path, *, writable: bool) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(StoreError, match=r"newer hilcl \(format \d+\): update hilcl"):
        Store(path, writable=writable)


@pytest.mark.parametrize("writable", [True, False])
def test_a_foreign_database_is_refused_and_left_alone(path: Path, *, writable: bool) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
        db.execute("INSERT INTO photos VALUES ('holiday')")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is not a hilcl store: choose another file"):
        Store(path, writable=writable)
    assert path.read_bytes() == before
    assert listing(path.parent) == {path.name}


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("text", [b"epoch,loss\n0,1\n", b"\x00" * 5000, random.Random(1).randbytes(5000)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, text: bytes, *, writable: bool) -> None:
    path.write_bytes(text)
    with pytest.raises(StoreError, match="damaged or no store at all"):
        Store(path, writable=writable)
    assert path.read_bytes() == text
    assert listing(path.parent) == {path.name}


@pytest.mark.parametrize("options", [{"writable": False}, {"create": False}, {"writable": False, "create": False}])
def test_without_leave_to_create_no_file_appears(path: Path, options: dict[str, bool]) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Store(path, **options)
    with pytest.raises(StoreError, match="there is no store"):
        Store(path.parent, **options)
    assert listing(path.parent) == set()


def test_reading_leaves_no_trace(path: Path) -> None:
    with Store(path) as opened:
        enter(opened, "run")
        write(opened, "run", steps(2))
    before = path.read_bytes()
    with Store(path, writable=False) as reader:
        assert reader.run("run").steps == 2
        with pytest.raises(StoreError, match=r"read-only|readonly"):
            reader.set_status("run", "failed")
    assert path.read_bytes() == before
    assert listing(path.parent) == {path.name}


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = [tmp_path / "file" / "x.sqlite", tmp_path / "nowhere" / "x.sqlite", tmp_path, Path("/proc/x.sqlite")]
    for place in places:
        with pytest.raises(StoreError, match="check that its folder exists and that you may write there"):
            Store(place)
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / ("x" * 300))
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "a\0b")
    assert listing(tmp_path) == {"file"}


def test_a_name_with_blanks_and_signs_is_a_name_like_any_other(tmp_path: Path) -> None:
    odd = tmp_path / "50 % µS? #1&mode=memory.sqlite"
    with Store(odd) as opened:
        enter(opened, "run")
    assert listing(tmp_path) == {odd.name}


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_is_refused(path: Path) -> None:
    with Store(path) as opened, closing(sqlite3.connect(path, isolation_level=None)) as other:
        enter(opened, "run")
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: Store(path),
            lambda: enter(opened, "second"),
            lambda: write(opened, "run", steps(1)),
            lambda: opened.set_status("run", "failed"),
        ):
            with pytest.raises(StoreError, match="another process is writing to it: wait for it"):
                attempt()
        # Whoever only reads is not kept waiting.
        with Store(path, writable=False) as reader:
            assert reader.run("run").status == "running"
        other.execute("ROLLBACK")
        write(opened, "run", steps(1))
        assert opened.run("run").steps == 1


def test_a_full_disk_is_told_and_the_run_can_go_on(store: Store, path: Path) -> None:
    enter(store, "run")
    writer = store.writer("run", commit_seconds=1e9)
    for step in steps(100):
        writer.write(step)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full: free space, then resume the run"):
        writer.flush()
    store._db.execute("PRAGMA max_page_count = 1000000")
    writer.flush()
    with Store(path, writable=False) as reader:
        assert reader.history("run").scalars["epoch"].tolist() == list(range(100))


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_no_pickle_is_loaded(store: Store, path: Path) -> None:
    fired = path.parent / "fired"
    archive, single = io.BytesIO(), io.BytesIO()
    evil = np.empty(1, dtype=object)
    evil[0] = Bomb(fired)
    np.savez(archive, **(arrays() | {"targets": evil}))
    np.save(single, evil, allow_pickle=True)
    enter(store, "run")
    for blob in (archive.getvalue(), single.getvalue()):
        store._db.execute("UPDATE runs SET arrays = ?", (blob,))
        with pytest.raises(StoreError, match=r"'run' in .* is damaged"):
            store.run("run")
        with pytest.raises(StoreError, match=r"'run' in .* is damaged"):
            store.history("run")
    assert not fired.exists()


DAMAGE = {
    "a step is missing": "DELETE FROM steps WHERE epoch = 1",
    "the first step is missing": "DELETE FROM steps WHERE epoch = 0",
    "conductances cut by a byte": "UPDATE steps SET conductances = substr(conductances, 2) WHERE epoch = 1",
    "conductances of one edge less": "UPDATE steps SET conductances = substr(conductances, 9) WHERE epoch = 1",
    "all conductances of one edge less": "UPDATE steps SET conductances = substr(conductances, 9)",
    "empty conductances": "UPDATE steps SET conductances = x''",
    "outputs of one sample": "UPDATE steps SET outputs = substr(outputs, 1, 16)",
    "codes missing in one step": "UPDATE steps SET codes = NULL WHERE epoch = 1",
    "codes missing in the first step": "UPDATE steps SET codes = NULL WHERE epoch = 0",
    "codes too short": "UPDATE steps SET codes = x'00000000'",
    "pinned edges cut": "UPDATE steps SET pinned = x'000000' WHERE epoch = 2",
    "a pinned edge that is not there": "UPDATE steps SET pinned = x'ff000000' WHERE epoch = 2",
    "text for a number": "UPDATE steps SET loss = 'small' WHERE epoch = 2",
    "text for a blob": "UPDATE steps SET outputs = 'abc' WHERE epoch = 2",
    "arrays that are no archive": "UPDATE runs SET arrays = x'00'",
    "arrays that are an empty blob": "UPDATE runs SET arrays = x''",
    "arrays that are half an archive": "UPDATE runs SET arrays = substr(arrays, 1, length(arrays) / 2)",
    "arrays that are a bad archive": "UPDATE runs SET arrays = x'504b0304' || zeroblob(100)",
    "arrays that are text": "UPDATE runs SET arrays = 'abc'",
    "settings that are no JSON": "UPDATE runs SET settings = '{'",
    "settings that are a list": "UPDATE runs SET settings = '[]'",
    "versions that are no JSON": "UPDATE runs SET versions = 'x'",
    "a summary that is no JSON": "UPDATE runs SET summary = 'x'",
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_refused(store: Store, change: str) -> None:
    enter(store, "run")
    write(store, "run", steps(3))
    store._db.execute(change)
    with pytest.raises(StoreError, match="damaged"):
        store.history("run")


CHECKPOINT_DAMAGE = {
    "conductances cut by a byte": "UPDATE steps SET conductances = substr(conductances, 2)",
    "conductances of one edge less": "UPDATE steps SET conductances = substr(conductances, 9)",
    "state of one edge less": "UPDATE steps SET state = substr(state, 9)",
    "generators that are no JSON": "UPDATE steps SET generators = '{'",
    "generators that are a number": "UPDATE steps SET generators = '7'",
    "generators without the loop's": "UPDATE steps SET generators = '{}'",
}


@pytest.mark.parametrize("change", CHECKPOINT_DAMAGE.values(), ids=CHECKPOINT_DAMAGE)
def test_a_damaged_checkpoint_is_refused(store: Store, change: str) -> None:
    enter(store, "run")
    write(store, "run", steps(3))
    store._db.execute(change)
    with pytest.raises(StoreError, match="damaged"):
        store.checkpoint("run")


def everything(path: Path) -> dict[str, list[Any]]:
    """Return what a reader can learn from a store."""
    found: dict[str, list[Any]] = {}
    with Store(path, writable=False) as store:
        for name in store.names():
            info, history, checkpoint = store.run(name), store.history(name), store.checkpoint(name)
            assert checkpoint is not None
            found[name] = [
                [info.status, info.settings, info.versions, info.experiment, info.summary, info.fingerprint],
                [info.created, info.finished, info.reason, info.backend, info.last_loss, info.best_loss],
                *((key, value.dtype.str, value.tobytes()) for key, value in info.arrays.items()),
                *(values.tobytes() for values in history.scalars.values()),
                history.conductances.tobytes(),
                history.outputs.tobytes(),
                None if history.codes is None else history.codes.tobytes(),
                [edges.tobytes() for edges in history.pinned],
                (checkpoint.epoch, checkpoint.updates, checkpoint.lower_bound, checkpoint.generator, checkpoint.board),
                (checkpoint.state.tobytes(), checkpoint.conductances.tobytes()),
            ]
    return found


def damaged(whole: bytes, generator: random.Random) -> bytes:
    """Return a file with a bit flipped, a stretch overwritten, or its end cut off."""
    data = bytearray(whole)
    place = generator.randrange(len(data))
    match generator.randrange(5):
        case 0:
            return bytes(data[:place])
        case 1:
            data[place : place + 64] = generator.randbytes(len(data[place : place + 64]))
        case 2:
            data[place : place + 512] = bytes(len(data[place : place + 512]))
        case 3:
            # Headers of file and pages are a small part of the file and the worst place to be hit.
            data[place // 4096 * 4096 + generator.randrange(100)] ^= 1 << generator.randrange(8)
        case _:
            data[place] ^= 1 << generator.randrange(8)
    return bytes(data)


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two runs, one of them finished."""
    path = tmp_path_factory.mktemp("whole") / "whole.sqlite"
    with Store(path) as store:
        enter(store, "pots")
        write(store, "pots", steps(40, batch_size=1))
        enter(store, "resistors")
        write(store, "resistors", steps(40, pots=False))
        store.set_status("resistors", "finished", "", {"epochs": 40, "kept_conductances": [1e-3] * 6})
    return path


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_file_gives_a_sentence_or_the_truth(whole_store: Path, tmp_path: Path, seed: int) -> None:
    """Whatever happened to the bytes, nobody gets wrong numbers or any error but StoreError."""
    truth, whole = everything(whole_store), whole_store.read_bytes()
    generator = random.Random(seed)
    wrong: list[int] = []
    refusals: list[str] = []
    for attempt in range(80):
        path = tmp_path / f"{attempt}.sqlite"
        path.write_bytes(damaged(whole, generator))
        try:
            found = everything(path)
        except StoreError as error:
            refusals.append(str(error))
        else:
            wrong += [attempt] if found != truth else []
    assert not wrong
    assert len(refusals) > 10
    assert [sentence for sentence in refusals if "\n" in sentence] == []


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_file_can_be_opened_for_writing_or_is_refused(whole_store: Path, tmp_path: Path, seed: int) -> None:
    whole, generator = whole_store.read_bytes(), random.Random(100 + seed)
    refusals: list[str] = []
    for attempt in range(40):
        path = tmp_path / f"{attempt}.sqlite"
        path.write_bytes(damaged(whole, generator))
        try:
            with Store(path) as store:
                enter(store, "new")
                write(store, "new", steps(1))
                store.set_status("new", "finished", "", {})
                assert store.history("new").scalars["epoch"].tolist() == [0]
        except StoreError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert [sentence for sentence in refusals if "\n" in sentence] == []


def test_a_store_where_nothing_may_be_written_can_still_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission bits do not bind everyone, so the question whether one may write is answered here."""
    path = tmp_path / "runs.sqlite"
    with Store(path):
        pass
    before = {each.name for each in tmp_path.iterdir()}
    monkeypatch.setattr("hilcl.store.os.access", lambda *_: False)
    with Store(path, writable=False) as store:
        assert store.names() == []
    assert {each.name for each in tmp_path.iterdir()} == before


@contextmanager
def another_process(path: Path, work: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process open the store ``s``, do some work and stay there."""
    lines = ["import sys", "from pathlib import Path", "from hilcl.store import Store", "s = Store(Path(sys.argv[1]))"]
    script = "\n".join([*lines, work, "print('done', flush=True)", "input()"])
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            yield process
        finally:
            process.kill()


def test_a_run_whose_process_is_gone_was_interrupted(store: Store, path: Path) -> None:
    enter(store, "run")
    store.set_status("run", "stopped")
    with another_process(path, "s.take_up('run')") as process:
        assert store.run("run").status == "running"
        for attempt in (store.take_up, store.refuse_taken):
            with pytest.raises(StoreError, match=f"process {process.pid} is at work on 'run'"):
                attempt("run")
    assert store.run("run").status == "interrupted"
    store.take_up("run")
    assert store.run("run").status == "running"


def test_a_run_that_was_ended_is_free_though_its_process_lives(store: Store, path: Path) -> None:
    enter(store, "run")
    store.set_status("run", "stopped")
    with another_process(path, "s.take_up('run'); s.set_status('run', 'stopped')"):
        assert store.run("run").status == "stopped"
        store.take_up("run")


def test_events_come_back_in_order(store: Store) -> None:
    enter(store, "run")
    enter(store, "other")
    told = [Event("left", "the reply was lost", "asked again", 1), Event("", "two; \n three", "", 1)]
    writer = store.writer("run", commit_seconds=1e9)
    writer.write(steps(1)[0])
    writer.note(told[:1])
    writer.flush()
    writer.note(told[1:])
    writer.flush()
    writer.flush()
    assert [each.event for each in store.events("run")] == told
    assert store.events("other") == []


def test_the_last_intent_is_kept(store: Store) -> None:
    enter(store, "run")
    assert store.intent("run") is None
    writer = store.writer("run")
    writer.intend(3, np.array([1, 2, 3]))
    writer.intend(4, np.array([7, 8, 9]))
    found = store.intent("run")
    assert found is not None
    assert (found.epoch, found.codes.tolist()) == (4, [7, 8, 9])


@pytest.mark.parametrize(
    ("change", "ask"),
    [
        ("UPDATE events SET what = 'nothing'", "events"),
        ("UPDATE intents SET codes = x'00000000'", "intent"),
        ("UPDATE intents SET codes = 'abc'", "intent"),
        ("UPDATE sittings SET pid = 1", "run"),
    ],
)
def test_damaged_notes_are_refused(store: Store, change: str, ask: str) -> None:
    enter(store, "run")
    writer = store.writer("run")
    writer.intend(0, np.array([1, 2]))
    writer.note([Event("left", "the reply was lost", "asked again", 0)])
    writer.flush()
    store._db.execute(change)
    with pytest.raises(StoreError, match="damaged"):
        getattr(store, ask)("run")


def test_a_durable_writer_waits_for_the_disk(store: Store) -> None:
    enter(store, "run")
    store.writer("run")
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 1
    store.writer("run", durable=True)
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def of_first_format(path: Path) -> None:
    """Turn a store into what format 1 was."""
    with closing(sqlite3.connect(path)) as db:
        for table in ("sittings", "events", "intents"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 1")
        db.commit()


def test_a_store_of_the_first_format_is_read_and_then_brought_up_to_date(path: Path) -> None:
    taken = steps(4)
    with Store(path) as store:
        enter(store, "run")
        write(store, "run", taken[:2])
    of_first_format(path)
    before = contents(path)
    with Store(path, writable=False) as reader:
        assert reader.run("run").status == "running"
        assert (reader.events("run"), reader.intent("run")) == ([], None)
        assert len(reader.history("run")) == 2
    assert contents(path) == before
    with Store(path) as store:
        store.take_up("run")
        write(store, "run", taken[2:])
        store.writer("run").intend(4, np.array([1]))
        assert len(store.history("run")) == 4
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == FORMAT


def test_a_clock_set_back_changes_the_order_of_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(store, "run")
    writer = store.writer("run", commit_seconds=1e9)
    for year, name in ((2030, "first"), (1999, "second"), (2040, "third")):
        monkeypatch.setattr("hilcl.store.now", lambda year=year: f"{year}-01-01T00:00:00+00:00")
        writer.note([Event("", name, "", 0)])
        writer.flush()
    assert [each.event.what for each in store.events("run")] == ["first", "second", "third"]
