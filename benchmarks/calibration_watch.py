"""What the drift watch achieves on calibrated boards whose truth it never sees: one table.

Boards as in benchmarks/calibration.py, each calibrated first, then trained on 24 samples with the watch on.

    python benchmarks/calibration_watch.py [--quiet N] [--changed N] [--steps N] [--jobs N]
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl import ContrastiveLearning, Task, train
from hilcl.calibration.apply import CalibratedBoard, watch_reference
from hilcl.calibration.design import DriveLimits
from hilcl.calibration.file import Calibration
from hilcl.calibration.parameters import CalibrationResult
from hilcl.calibration.procedure import Settings, calibrate
from hilcl.calibration.watch import DriftWatch, WatchedBoard
from hilcl.evaluation import evaluate
from hilcl.sim_backend import SimulatedBoard

# At the end, so that `hilcl` stays the installed package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.calibration.benches import POT, SPEC, VOLTS, BenchLike, board_32

Row = dict[str, Any]

CHANGE = 0.02
"""Relative change of one pot's resistance."""

WITHIN = 50
"""Steps in which it is to be flagged."""


def watched_bench(seed: int) -> tuple[BenchLike, WatchedBoard, Task]:
    """Return a bench, the same calibrated and watched, and a task with a noisy teacher's outputs."""
    network = board_32()
    bench = BenchLike(network, seed)
    limits = DriveLimits.between(network, 0.0, VOLTS)
    result: CalibrationResult | None = None
    for progress in calibrate(bench, POT, limits, spec=SPEC, settings=Settings(patterns=30, seed=seed)):
        result = progress.result
    if result is None:
        raise SystemExit("a calibration ended without a result")
    known = Calibration.of(result, identities={"board": f"seed {seed}"})
    board = WatchedBoard(CalibratedBoard(bench, known), DriftWatch(network, watch_reference(known)))
    generator = np.random.default_rng([seed, 9])
    inputs = generator.uniform(0.0, VOLTS, (24, len(network.inputs)))
    teacher = SimulatedBoard(network, 1.0 / generator.uniform(1500.0, 10000.0, network.n_edges))
    targets = evaluate(teacher, Task(inputs, np.zeros((24, len(network.outputs))))).outputs
    return bench, board, Task(inputs, np.clip(targets + 0.005 * generator.standard_normal(targets.shape), 0.0, VOLTS))


def quiet(seed: int, *, steps: int) -> Row:
    """Train a board on which nothing happens."""
    _, board, task = watched_bench(seed)
    begun = time.perf_counter()
    for _ in train(board, task, ContrastiveLearning("auto"), steps):
        pass
    return {
        "alarms": [alarm.sentence for alarm in board.watch.alarms],
        "milliseconds": 1e3 * (time.perf_counter() - begun) / steps,
    }


def changed(seed: int) -> Row:
    """Change one pot by 2 %, up or down, at a random step, and return how it was flagged."""
    bench, board, task = watched_bench(seed)
    generator = np.random.default_rng([seed, 13])
    edge, at = int(generator.integers(bench.network.n_edges)), int(generator.integers(20, 400))
    factor = 1.0 + CHANGE * generator.choice([-1.0, 1.0])
    for step in train(board, task, ContrastiveLearning("auto"), at + WITHIN + 1):
        if step.epoch == at:
            bench.truth[edge] /= factor
        if board.watch.alarms:
            break
    first = board.watch.alarms[0] if board.watch.alarms else None
    return {
        "right": first is not None and first.edge == edge,
        "false": first is not None and first.step <= at,
        "delay": np.nan if first is None else first.step - (at + 2),
        "error": np.nan if first is None else first.change - (1 / factor - 1),
        "sentence": "" if first is None else first.sentence,
    }


def collect(run: Callable[[int], Row], count: int, jobs: int) -> list[Row]:
    """Run seeds 0 … count − 1, in parallel processes where asked for."""
    if jobs == 1:
        return [run(seed) for seed in range(count)]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(run, range(count)))


def line(what: str, figure: str, wanted: str, holds: bool) -> None:
    print(f"| {what} | {figure} | {wanted} | {'yes' if holds else 'NO'} |", flush=True)


def show(arguments: argparse.Namespace) -> None:
    print("| 32 edges, calibrated | found | wanted | holds |\n|---|---|---|---|")
    if arguments.changed:
        rows = collect(changed, arguments.changed, arguments.jobs)
        right = sum(bool(row["right"]) for row in rows)
        delays = np.array([row["delay"] for row in rows], dtype=np.float64)
        errors = np.array([row["error"] for row in rows if row["right"]], dtype=np.float64)
        line("2 % change of a pot: the right edge named", f"{right} of {len(rows)}", "all", right == len(rows))
        slowest = float(np.nanmax(delays))
        line("steps until then, at most", f"{slowest:.0f}", f"≤ {WITHIN}", slowest <= WITHIN)
        print(f"|   | median {np.nanmedian(delays):.0f} steps, size within {100 * np.abs(errors).max():.2f} % | | |")
        for row in rows:
            if not row["right"]:
                print(f"|   | {row['sentence'] or 'nothing flagged'} | | |")
    if arguments.quiet:
        rows = collect(partial(quiet, steps=arguments.steps), arguments.quiet, arguments.jobs)
        false = sum(bool(row["alarms"]) for row in rows)
        line(f"false alarms in {len(rows)} quiet runs of {arguments.steps} steps", f"{false}", "0", false == 0)
        print(f"|   | {np.mean([row['milliseconds'] for row in rows]):.1f} ms a step, watch and simulator | | |")
        for row in rows:
            for sentence in row["alarms"]:
                print(f"|   | {sentence} | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the drift watch achieves on calibrated boards.")
    parser.add_argument("--quiet", type=int, default=100, help="quiet runs (default 100)")
    parser.add_argument("--changed", type=int, default=20, help="runs with a change (default 20)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of a quiet run (default 1000)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    with threadpool_limits(limits=1):
        show(parser.parse_args())


if __name__ == "__main__":
    main()
