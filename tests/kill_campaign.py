"""Runs that are killed at random moments and resumed, beside one that was left alone; needs nothing but hilcl."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

WALL_TIMES = frozenset({"run", "measure_s", "update_s", "program_s", "digest"})
"""Columns of a step that differ between equal runs: how long things took, and what is made from that."""

MOST_SITTINGS = 10_000

_SITTINGS = """
import importlib, json, os, sys
from hilcl.cli.main import main
for name in ("hilcl.cli.run", "hilcl.session", "hilcl.results", "hilcl.sim_backend.emulated_bench"):
    importlib.import_module(name)
for line in sys.stdin:
    arguments, log = json.loads(line)
    pid = os.fork()
    if pid == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os._exit(main(arguments))
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitpid(pid, 0)[1], flush=True)
"""
"""A process that has everything imported and forks one run after the other: most of a short run would be imports.

It asks how a run ended only when told to: until then the run's number belongs to nobody else.
"""


@dataclass(frozen=True)
class CampaignResult:
    """What became of ``runs`` runs with ``kills`` kills in all.

    ``lost`` counts kills after which a step that another process had seen was gone; ``different`` names runs that ended
    other than the undisturbed one, ``unfinished`` those that did not end, with what they said. ``steps`` are those of
    one run, ``seconds`` the time of the undisturbed one.
    """

    kills: int
    runs: int
    steps: int
    lost: int
    different: tuple[str, ...]
    unfinished: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and every run ended like the undisturbed one."""
        return not (self.lost or self.different or self.unfinished)


def kill_campaign(
    experiment: Path,
    folder: Path,
    kills: int,
    *,
    seed: int = 0,
    backend: str = "emulated",
    after_kill: Callable[[int], None] | None = None,
) -> CampaignResult:
    """Run an experiment in ``folder`` again and again, with SIGKILL at random moments ``kills`` times in all.

    Every run is resumed until it ends, and compared with an undisturbed one column by column. ``after_kill`` is called
    with the number of each killed process.
    """
    store, generator = folder / "campaign.sqlite", random.Random(seed)
    with _Sittings(folder) as sittings:
        common = [str(experiment), "--no-report", "--store", str(store)]
        began = time.monotonic()
        if sittings.whole(["run", *common, "--backend", backend, "--name", "undisturbed"]) != 0:
            raise RuntimeError(f"the undisturbed run failed: {sittings.said()}")
        seconds = time.monotonic() - began
        expected = _outcome(store, "undisturbed")
        done = runs = lost = 0
        different: list[str] = []
        unfinished: list[str] = []
        while done < kills:
            runs += 1
            name = f"killed-{runs}"
            for _ in range(MOST_SITTINGS):
                seen = _steps_seen(store, name)
                taken_up = ["--resume", name] if seen >= 0 else ["--backend", backend, "--name", name]
                arguments = ["run", *common, *taken_up]
                if done < kills:
                    look = partial(_steps_seen, store, name)
                    seen, status = sittings.killed(arguments, generator.uniform(0.0, seconds), look)
                    if status == signal.SIGKILL:
                        done += 1
                        lost += _steps_seen(store, name) < seen
                        if after_kill is not None:
                            after_kill(sittings.pid)
                        continue
                else:
                    status = sittings.whole(arguments)
                # One killed after its last note is complete, and says so when it is resumed.
                if status == 0 or _status(store, name) == "finished":
                    if _outcome(store, name) != expected:
                        different.append(name)
                else:
                    unfinished.append(f"{name}: {sittings.said()}")
                break
        return CampaignResult(done, runs, len(expected[0]), lost, tuple(different), tuple(unfinished), seconds)


class _Sittings:
    def __init__(self, folder: Path) -> None:
        self._log = folder / "campaign.log"
        self.pid, self._busy = 0, False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SITTINGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=folder,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> "_Sittings":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, ValueError):
            if self._busy:
                os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()

    def whole(self, arguments: list[str]) -> int:
        """Run the command line to its end and return its exit code."""
        self._start(arguments)
        return self._end()

    def killed(self, arguments: list[str], delay: float, look: Callable[[], int]) -> tuple[int, int]:
        """Kill the command line after ``delay`` seconds; return what ``look`` saw just before, and how it ended."""
        self._start(arguments)
        time.sleep(delay)
        seen = look()
        os.kill(self.pid, signal.SIGKILL)
        return seen, self._end()

    def said(self) -> str:
        """Return the last line that any of the runs wrote."""
        return self._log.read_text("utf-8").strip().rpartition("\n")[2]

    def _start(self, arguments: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([arguments, str(self._log)]) + "\n")
        self._process.stdin.flush()
        self.pid, self._busy = int(self._line()), True

    def _end(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        status = int(self._line())
        self._busy = False
        return status if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _ask(store: Path, question: str, name: str) -> list[Any]:
    with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=60.0)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(question, (name,)).fetchall()


def _steps_seen(store: Path, name: str) -> int:
    """Return how many steps of a run are there, −1 where the run is not."""
    rows = _ask(store, "SELECT (SELECT count(*) FROM steps WHERE run = runs.id) FROM runs WHERE name = ?", name)
    return int(rows[0][0]) if rows else -1


def _status(store: Path, name: str) -> str:
    return str(_ask(store, "SELECT status FROM runs WHERE name = ?", name)[0][0])


def _outcome(store: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return all columns of a run's steps and its summary, without what tells how long things took."""
    steps = _ask(store, "SELECT steps.* FROM steps JOIN runs ON runs.id = run WHERE name = ? ORDER BY epoch", name)
    rows = [{key: row[key] for key in row.keys() if key not in WALL_TIMES} for row in steps]  # noqa: SIM118  # a Row
    summary = json.loads(_ask(store, "SELECT summary FROM runs WHERE name = ?", name)[0][0])
    return rows, {key: value for key, value in summary.items() if key != "loop_seconds"}
