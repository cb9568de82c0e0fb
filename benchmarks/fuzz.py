"""Fuzzed inputs to every parser: no exception but the documented ones, no hang, no growing memory.

Inputs are changed copies of tests/fuzz/corpus and noise; the same seed gives the same ones. Every target runs in a
process of its own, with a bound on its memory, that is ended when it gets stuck. An input that fails is made shorter
and put into the corpus, where the tests find it.

    python benchmarks/fuzz.py [--inputs N] [--seed N] [--targets a,b] [--seconds S] [--jobs N]

Slow targets get a share of N inputs. benchmarks/fuzz_coverage.py looks for inputs by coverage instead.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.fuzz.mutation import inputs
from tests.fuzz.running import shortened, tried, watched
from tests.fuzz.targets import CORPUS, TARGETS, Target

STUCK = 60.0
"""Seconds without an answer after which a process is ended: the bound per input cannot end what never leaves C."""

ROOM = 1 << 30
"""Bytes of address space that a target may take beyond what it has at its start."""

GROWTH = 32 << 20
"""Bytes by which memory may have grown between a tenth of the inputs and the end."""

MOST_FAILURES = 5
"""Failures of different kinds after which a target is given up."""


@dataclass
class Progress:
    """What a target's process has done: inputs, seconds, the slowest input's, and memory in bytes."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    growth: int = 0
    failures: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Shortest input found and report, by kind of failure."""


def resident() -> int:
    """Return the memory in use, bytes; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text("ascii").split()[1]) * resource.getpagesize() if status.exists() else 0


def bound_memory() -> None:
    """Let what takes ROOM more address space than there is now fail with MemoryError."""
    status = Path("/proc/self/statm")
    if status.exists():
        now = int(status.read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def work(name: str, count: int, seed: int, seconds: float, current: Path, reports: Connection) -> None:
    """Fuzz one target in this process; ``current`` always holds the input that is being run."""
    warnings.simplefilter("error")  # a warning is not what a parser answers with
    target, progress = TARGETS[name], Progress(name)
    kept = list(target.corpus().values())
    start = time.monotonic()
    with TemporaryDirectory(prefix="hilcl-") as folder, current.open("r+b", buffering=0) as note, watched():
        run = target.make(Path(folder))
        bound_memory()
        first, told = 0, start
        for data in islice(inputs(kept, target.tokens, Random(f"{seed}:{name}"), target.longest), count):
            os.pwrite(note.fileno(), len(data).to_bytes(8, "big") + data, 0)
            before = time.perf_counter()
            failure = tried(run, data)
            progress.slowest = max(progress.slowest, time.perf_counter() - before)
            progress.inputs += 1
            if failure is not None and failure.key not in progress.failures:
                progress.failures[failure.key] = (shortened(run, data, failure), failure.report)
            now = time.monotonic()
            if not first and (progress.inputs * 10 >= count or now - start > seconds / 10):
                first = resident()
            if now - told > 1.0:
                told, progress.seconds = now, now - start
                reports.send(progress)
            if len(progress.failures) >= MOST_FAILURES or now - start > seconds:
                break
    progress.seconds, progress.growth = time.monotonic() - start, resident() - first
    reports.send(progress)


def supervised(target: Target, count: int, seed: int, seconds: float) -> Progress:
    """Fuzz one target in a process of its own, and return what came out, its death and silence included."""
    context = multiprocessing.get_context("spawn")
    last, silent = Progress(target.name), False
    with TemporaryDirectory(prefix="hilcl-") as folder:
        current = Path(folder) / "input"
        current.write_bytes(bytes(8))
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(target.name, count, seed, seconds, current, theirs), daemon=True)
        process.start()
        theirs.close()
        while True:
            if not ours.poll(STUCK):
                silent = True
                process.kill()
                break
            try:
                last = ours.recv()
            except EOFError:
                break
        process.join()
        if silent or process.exitcode != 0:
            written = current.read_bytes()
            data = written[8 : 8 + int.from_bytes(written[:8], "big")]
            what = f"no answer within {STUCK:g} s" if silent else f"the process ended with {process.exitcode}"
            last.failures[what] = (data, what)
    return last


def keep(progress: Progress) -> list[Path]:
    """Put the inputs that failed into the corpus, and return their files."""
    made = []
    for data, _ in progress.failures.values():
        path = CORPUS / progress.target / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made.append(path)
    return made


def fuzzed(targets: Sequence[Target], count: int, seed: int, seconds: float, jobs: int) -> bool:
    """Fuzz targets, print a table, and return whether nothing failed."""
    good = True
    print(f"{'target':12} {'inputs':>9} {'per s':>8} {'slowest':>10} {'growth':>9}  failures")

    def one(target: Target) -> Progress:
        return supervised(target, max(1, int(count * target.share)), seed, seconds)

    with ThreadPoolExecutor(jobs) as pool:
        for progress in pool.map(one, targets):
            rate = progress.inputs / max(progress.seconds, 1e-9)
            grown = progress.growth > GROWTH
            good = good and not progress.failures and not grown
            print(
                f"{progress.target:12} {progress.inputs:9} {rate:8.0f} {progress.slowest * 1e3:7.1f} ms "
                f"{progress.growth / 2**20:6.1f} MB  {len(progress.failures)}{', memory grows' if grown else ''}",
                flush=True,
            )
            for path, (_, report) in zip(keep(progress), progress.failures.values(), strict=True):
                print(f"  {path}\n{report}")
    return good


def main() -> int:
    """Fuzz the targets asked for, and return 1 where one failed."""
    parser = argparse.ArgumentParser(description="Fuzz every parser.")
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of fast targets (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, separated by commas (default all)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest time of one target (default 3600)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (default 1)")
    options = parser.parse_args()
    names = [name for name in options.targets.split(",") if name]
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}: there are {', '.join(TARGETS)}")
    targets = [TARGETS[name] for name in names]
    return 0 if fuzzed(targets, options.inputs, options.seed, options.seconds, options.jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
