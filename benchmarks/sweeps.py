"""Time of a sweep with one worker process beside two, and beside a Dask cluster of two, in one run.

Iris boards with drawn devices and data splits, each trained for a second or more. Everything counts, from the start of
the workers to the last point in the store, and each sweep is done by a process of its own, so that none finds workers
or modules of the one before. All ways must come to the same figures, which is checked.

    python benchmarks/sweeps.py [--points N] [--seconds S] [--rounds N]
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import import_module
from operator import truediv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hilcl.sweep import Compute, Sweep
from hilcl.sweep_dask import dask_results
from hilcl.sweep_file import SweepFile
from hilcl.sweep_point import compute_point
from hilcl.sweep_store import SweepStore
from hilcl.sweep_workers import local_results

IRIS = Path(__file__).resolve().parents[1] / "examples" / "iris.toml"
TRIED_EPOCHS = 500

Prepare = Callable[[], Sweep]
Ways = dict[str, Compute]


def sweep_of(folder: Path, points: int, epochs: int) -> Sweep:
    """Return a sweep over ``points`` boards trained for ``epochs``."""
    path = folder / f"boards-{epochs}.toml"
    path.write_text(
        f'experiment = "{IRIS}"\n[grid]\nlearning.epochs = [{epochs}]\n[random]\ndraws = {points}\n'
        "simulation.seed = { integers = [0, 999999999] }\ntask.split_seed = { integers = [0, 999999999] }\n",
        "utf-8",
    )
    return Sweep(SweepFile.load(path), "boards")


def seconds_of(prepare: Prepare, store: Path, compute: Compute) -> tuple[float, list[Any]]:
    """Return the seconds of a whole sweep, and its figures without the time each took."""
    sweep = prepare()
    with suppress(ImportError):
        import_module("distributed")
    start = time.perf_counter()
    with SweepStore(store) as opened:
        sitting = sweep.run(opened, compute)
        for _ in sitting.steps():
            pass
        spent = time.perf_counter() - start
        results = sitting.results()
    figures = [asdict(result.figures) if result.figures else result.reason for result in results]
    return spent, [{**each, "seconds": None} if isinstance(each, dict) else each for each in figures]


def measure(prepare: Prepare, ways: Ways, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way in each round, all of which come to the same."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    expected = None
    for number in range(rounds):
        for name, compute in ways.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                store = folder / f"{number}-{name}.sqlite"
                spent, figures = alone.submit(seconds_of, prepare, store, compute).result()
            expected = expected or figures
            if figures != expected:
                raise SystemExit(f"{name} comes to other figures")
            times[name].append(spent)
    return times


def tables(rounds: int = 3, points: int = 12, seconds: float = 2.0) -> str:
    """Return the table in Markdown."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        tried = sweep_of(folder, 1, TRIED_EPOCHS)
        compute_point(tried.base, tried.points[0])
        figures = compute_point(tried.base, tried.points[0]).figures
        if figures is None:
            raise SystemExit("the example cannot be trained")
        prepare = partial(sweep_of, folder, points, max(1, round(TRIED_EPOCHS * seconds / figures.seconds)))
        ways: Ways = {f"{n} worker{'s' if n > 1 else ''}": partial(local_results, workers=n) for n in (1, 2)}
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            found = measure(prepare, ways, folder, rounds)
        else:
            with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
                ways["Dask, 2 workers"] = partial(dask_results, address=cluster.scheduler_address)
                found = measure(prepare, ways, folder, rounds)
    one = found["1 worker"]
    rows = [
        f"| {way} | {statistics.median(spent):.1f} | {statistics.median(map(truediv, one, spent)):.2f}x |"
        for way, spent in found.items()
    ]
    heads = [f"| {points} points of {seconds:g} s | seconds | against one worker |", "|---|---|---|"]
    return "\n".join([*heads, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a sweep with one and with two workers.")
    parser.add_argument("--points", type=int, default=12, help="points of the sweep (default 12)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of a point (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, medians are shown (default 3)")
    arguments = parser.parse_args()
    sys.stdout.write(tables(arguments.rounds, arguments.points, arguments.seconds) + "\n")


if __name__ == "__main__":
    main()
