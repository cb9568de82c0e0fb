"""A long run on the emulated bench through the real command line, with faults at a rate, watched from outside.

It must make every step, the first ones with the codes of a run to which nothing happens, keep memory, threads and open
files flat, let its store grow in proportion to its steps, and leave no process behind. Memory is compared
between the first tenth of the steps and the end. Linux only: it reads /proc.

    python benchmarks/soak.py [--steps N] [--rate FAULTS_PER_STEP] [--seed N]
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

BENCH16 = Path(__file__).resolve().parents[1] / "examples" / "bench16.toml"
RECOVERABLE = (
    "delayed", "lost", "dropped", "duplicated", "half", "garbled", "noise", "lost_bytes", "reset", "nan", "overflow",
    "compliance", "glitch",
)  # fmt: skip
"""Faults that do not stop a run."""

GROWTH = 0.05
"""Largest growth of memory after the first tenth, and largest deviation of the store from a straight line."""

COMPARED = 5000
"""Steps of the run to which nothing happens."""

MARKS = 50
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Mark:
    """A moment of the run: steps stored, resident kilobytes, threads, open files, child processes, store in bytes."""

    steps: int
    resident: int
    threads: int
    files: int
    children: int
    store: int


def experiment(steps: int, rate: float, seed: int) -> str:
    """Return ``calm_bench`` with faults at a rate."""
    kinds = ", ".join(f'"{kind}"' for kind in RECOVERABLE)
    faults = ["[simulation.faults]", f"seed = {seed}", f"rate = {rate!r}", f"kinds = [{kinds}]", 'seconds = "0.4 s"']
    return "\n".join([*calm_bench(steps), "", *(faults if rate else []), ""])


def calm_bench(epochs: int) -> list[str]:
    """Return the 16-edge bench, line by line, with short time-outs and no noise: readings taken again are the same."""
    lines = []
    for line in BENCH16.read_text("utf-8").splitlines():
        if line.startswith("meters = { bits"):
            continue
        if line.startswith("compliance ="):
            lines.append('timeout = "0.3 s"')
        if line == 'driver = "potboard"':
            lines += ['turnaround = "0.1 s"', 'boot_time = "2 s"']
        lines.append(f"epochs = {epochs}" if line.startswith("epochs =") else line)
    return lines


def soak(steps: int, rate: float, seed: int) -> bool:
    """Run, print what was seen, and return whether everything held."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        path, store = folder / "soak.toml", folder / "soak.sqlite"
        path.write_text(experiment(steps, rate, seed), "utf-8")
        began = time.monotonic()
        marks, code, said = _watched(path, store, steps)
        seconds = time.monotonic() - began
        calm = folder / "calm.toml"
        calm.write_text(experiment(min(steps, COMPARED), 0.0, seed), "utf-8")
        _hilcl(calm, store).wait()
        with closing(_opened(store)) as db:
            (made, events), apart = _counts(db), _first_apart(db)
        left = [line for line in _processes() if str(folder) in line]
    first = next((mark for mark in marks if mark.steps >= steps // 10), marks[0])
    last = marks[-1]
    growth = last.resident / first.resident - 1
    bend = _bend([mark for mark in marks if mark.steps >= first.steps])
    verdicts = {
        f"exit code {code}": code == 0,
        f"{made} of {steps} steps stored": made == steps,
        f"codes of the undisturbed run in the first {min(steps, COMPARED)} steps{apart}": not apart,
        f"memory {growth:+.1%} after the first tenth ({last.resident / 1024:.0f} MiB)": growth <= GROWTH,
        f"store of {last.store / 2**20:.1f} MiB, within {bend:.1%} of a straight line": bend <= GROWTH,
        f"threads {first.threads} to {last.threads}": last.threads <= first.threads,
        f"open files {first.files} to {last.files}": last.files <= first.files,
        f"child processes {first.children} to {last.children}": last.children <= first.children,
        f"{len(left)} processes left": not left,
    }
    print(f"\nSoak: {steps} steps in {seconds:.0f} s, {rate:g} faults a step, {events} events.")
    for verdict, held in verdicts.items():
        print(f"{'ok    ' if held else 'FAILED'} {verdict}")
    if code:
        print(said)
    return all(verdicts.values())


def _hilcl(path: Path, store: Path) -> "subprocess.Popen[bytes]":
    arguments = [
        "run", str(path), "--backend", "emulated", "--store", str(store), "--name", path.stem, "--no-report",
    ]  # fmt: skip
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "hilcl", *arguments],
        cwd=path.parent, env=environment, stdout=subprocess.DEVNULL, stderr=path.with_suffix(".log").open("wb"),
    )  # fmt: skip


def _watched(path: Path, store: Path, steps: int) -> tuple[list[Mark], int, str]:
    """Return marks about evenly spread over the run, its exit code and the last it said."""
    process = _hilcl(path, store)
    marks: list[Mark] = []
    try:
        _watch(process, store, steps, marks)
    finally:
        process.terminate()
    if not marks:
        raise SystemExit("the run was over before it could be watched: ask for more steps")
    return marks, process.wait(), path.with_suffix(".log").read_text("utf-8")[-2000:]


def _watch(process: "subprocess.Popen[bytes]", store: Path, steps: int, marks: list[Mark]) -> None:
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        # The process may end, and the store not be there yet.
        with suppress(OSError, KeyError, sqlite3.Error):
            mark = _mark(process.pid, store)
            if mark.steps and (not marks or mark.steps - marks[-1].steps >= steps / MARKS):
                marks.append(mark)


def _mark(pid: int, store: Path) -> Mark:
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text("ascii").splitlines())
    children = sum(len((task / "children").read_text("ascii").split()) for task in (process / "task").iterdir())
    with closing(_opened(store)) as db:
        (stored,) = db.execute("SELECT count(*) FROM steps").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    return Mark(
        stored,
        int(status["VmRSS"].split()[0]),
        int(status["Threads"]),
        sum(1 for _ in (process / "fd").iterdir()),
        children,
        pages * size,
    )


def _opened(store: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=60.0)


def _counts(db: sqlite3.Connection) -> tuple[int, int]:
    """Return steps and events of the emulated run."""
    asked = "SELECT count(*) FROM {} WHERE run = (SELECT id FROM runs WHERE name = 'soak')"
    steps, events = (db.execute(asked.format(table)).fetchone()[0] for table in ("steps", "events"))
    return int(steps), int(events)


def _first_apart(db: sqlite3.Connection) -> str:
    """Return where the codes first differ from the undisturbed ones, and the event before, or nothing."""
    codes = "SELECT epoch, codes FROM steps WHERE run = (SELECT id FROM runs WHERE name = ?) ORDER BY epoch"
    pairs = zip(db.execute(codes, ("soak",)), db.execute(codes, ("calm",)), strict=False)
    epoch = next((one[0] for one, other in pairs if one != other), None)
    if epoch is None:
        return ""
    last = "SELECT epoch, instrument, what, action FROM events WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1"
    return f": they differ from epoch {epoch} on; the event before: {db.execute(last, (epoch,)).fetchone()}"


def _bend(marks: list[Mark]) -> float:
    """Return the largest deviation of the store's size from the line between two marks, as a part of its size."""
    first, last = marks[0], marks[-1]
    slope = (last.store - first.store) / max(1, last.steps - first.steps)
    return max(abs(mark.store - first.store - slope * (mark.steps - first.steps)) for mark in marks) / last.store


def _processes() -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A long run with faults, watched from outside.")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the run (default 2000)")
    parser.add_argument("--rate", type=float, default=1 / 500, help="faults per step (default 1/500)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not soak(arguments.steps, arguments.rate, arguments.seed):
        raise SystemExit("Not everything held.")


if __name__ == "__main__":
    main()
