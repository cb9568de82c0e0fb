"""The command line as a user meets it: a process of its own in a folder of its own."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"

PATIENCE = 60.0
"""Seconds after which what should have happened long ago counts as never."""

WALL_TIMES = {"measure_s", "update_s", "program_s", "digest"}
"""Columns that tell how long things took (a digest covers them too), so they differ between two equal runs."""

DIVIDER = """
[board]
network = { kind = "edges", edges = [[0, 1], [1, 2]], inputs = [0, 2], outputs = [1] }
g_min = "0.1 mS"
g_max = "10 mS"
initial = "1 mS"

[task]
inputs_volts = [[1.0, 0.0]]
targets_volts = [[0.2]]

[learning]
step_size = "auto"
epochs = 20
"""
"""A small experiment that is over at once."""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process without what would change how a terminal is drawn."""
    drawing = {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONPATH"}
    kept = {name: value for name, value in os.environ.items() if name not in drawing}
    return kept | {"OPENBLAS_NUM_THREADS": "1"} | changes


def hilcl(*arguments: str | Path, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; ``changes`` are environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "hilcl", *map(str, arguments)],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running_hilcl(*arguments: str | Path, cwd: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command line, and kill it at the end if it is still there; ``options`` are those of Popen."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with subprocess.Popen(
        [sys.executable, "-m", "hilcl", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        **streams,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any] | None) -> None:
    """Wait until a condition holds; an error where it takes for ever, or the process (if any) ends before."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended too early: {process.communicate()}")
        if time.monotonic() > deadline:
            raise AssertionError("what the test waits for never happened")
        pause.wait(0.005)


def copy_example(name: str, folder: Path, **changes: str) -> Path:
    """Copy an example and its data into a folder, with texts replaced, and return the file."""
    shutil.copytree(EXAMPLES / "data", folder / "data", dirs_exist_ok=True)
    return write_experiment(folder / f"{name}.toml", (EXAMPLES / f"{name}.toml").read_text("utf-8"), **changes)


def write_experiment(path: Path, text: str = DIVIDER, **changes: str) -> Path:
    """Write an experiment file with the values of keys replaced: ``epochs="7"`` sets the key epochs."""
    for key, value in changes.items():
        lines = text.splitlines()
        places = [number for number, line in enumerate(lines) if line.split("=")[0].strip() == key]
        if not places:
            raise AssertionError(f"the experiment has no key {key}")
        lines[places[0]] = f"{key} = {value}"
        text = "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8")
    return path


def n_stored(store: Path, run: str) -> int:
    """Return how many steps of a run other processes can see, -1 where the run is not there yet."""
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute(
                "SELECT (SELECT count(*) FROM steps WHERE run = runs.id) FROM runs WHERE name = ?", (run,)
            ).fetchone()
    except sqlite3.OperationalError:
        return -1
    return -1 if row is None else int(row[0])


def status_of(store: Path, run: str) -> str:
    """Return the stored status of a run."""
    with closing(sqlite3.connect(store)) as db:
        return str(db.execute("SELECT status FROM runs WHERE name = ?", (run,)).fetchone()[0])


def stored_steps(store: Path, run: str) -> list[dict[str, Any]]:
    """Return every column of a run's steps as stored, without what tells how long things took."""
    with closing(sqlite3.connect(store)) as db:
        cursor = db.execute(
            "SELECT steps.* FROM steps JOIN runs ON runs.id = steps.run WHERE name = ? ORDER BY epoch", (run,)
        )
        columns = [entry[0] for entry in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
    return [{key: value for key, value in row.items() if key not in WALL_TIMES | {"run"}} for row in rows]


def stored_summary(store: Path, run: str) -> dict[str, Any]:
    """Return a run's summary without what tells how long things took."""
    with closing(sqlite3.connect(store)) as db:
        text = db.execute("SELECT summary FROM runs WHERE name = ?", (run,)).fetchone()[0]
    summary: dict[str, Any] = json.loads(text)
    del summary["loop_seconds"]
    return summary


def contents(store: Path) -> list[str]:
    """Return everything in a store as SQL, so that two moments can be compared."""
    with closing(sqlite3.connect(store)) as db:
        return list(db.iterdump())


def listing(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
