"""What a calibration achieves, on boards whose truth it never sees: one table, 20 seeds a line.

32 edges of 257 codes (10 kΩ ± 20 %, 75 ± 25 Ω wiper, 1.2 kΩ ± 1 % series), 16-bit meters (125 µV a step, one step of
noise, gain ± 0.1 %, offset ± 1 mV), ammeters with gain ± 0.02 %, offset ± 0.2 µA and 0.2 µA of noise, 4 V.

    python benchmarks/calibration.py [--seeds N] [--healthy N] [--jobs N] [--only accuracy,hidden,...]
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

from hilcl import ContrastiveLearning, DeviceRange, Network, Task, train
from hilcl.arrays import FloatArray
from hilcl.calibration.design import Designer, DriveLimits, Plan, TimeModel
from hilcl.calibration.fit import make_prior
from hilcl.calibration.model import BoardModel
from hilcl.calibration.parameters import CalibrationResult
from hilcl.calibration.procedure import Settings, calibrate
from hilcl.calibration.readings import Noise
from hilcl.evaluation import evaluate
from hilcl.sim_backend import SimulatedBoard

# At the end, so that `hilcl` stays the installed package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.calibration.benches import LSB, POT, SPEC, VOLTS, BenchLike, Faults, board_32, defects

Row = dict[str, Any]


def calibrated(bench: BenchLike, settings: Settings) -> CalibrationResult:
    """Return the result of a calibration of a bench."""
    limits = DriveLimits.between(bench.network, 0.0, VOLTS)
    result = None
    for progress in calibrate(bench, POT, limits, spec=SPEC, settings=settings):
        result = progress.result
    if result is None:
        raise SystemExit("a calibration ended without a result")
    return result


def judged(seed: int, *, tapped: bool, patterns: int = 60) -> Row:
    """Return how one healthy board's calibration compares with the truth."""
    network = board_32()
    bench = BenchLike(network, seed, tapped=None if tapped else network.terminals.tolist())
    begun = time.perf_counter()
    result = calibrated(bench, Settings(patterns=patterns, seed=seed))
    relative = result.pots.table / bench.truth - 1.0
    z = (result.pots.table - bench.truth) / result.pots.table_u
    resistances = 1.0 / bench.truth
    steps = POT.travel()[-1] - POT.travel()[0]
    values = np.stack([resistances[:, 0], (resistances[:, -1] - resistances[:, 0]) / steps], axis=1)
    error = (result.pots.values - values).ravel()
    distance = float(error @ np.linalg.solve(result.pots.covariance, error)) / error.size
    return {
        "rms": float(np.sqrt((relative**2).mean())),
        "worst": float(np.abs(relative).max()),
        "within": float((np.abs(z) < 1.96).mean()),
        "distance": distance,
        "named": len(result.report.unidentifiable),
        "findings": len(result.report.findings),
        "passed": result.verification is not None and result.verification.passed,
        "seconds": time.perf_counter() - begun,
    }


def accuracy(seed: int) -> Row:
    return judged(seed, tapped=True)


def hidden(seed: int) -> Row:
    return judged(seed, tapped=False)


def healthy(seed: int) -> Row:
    """A quick calibration of a healthy board, every other one without meters at hidden nodes."""
    return judged(10_000 + seed, tapped=bool(seed % 2), patterns=20)


def series(seed: int) -> Row:
    """A board on which wiring hides parameters: two chains through untapped nodes and a dead end."""
    network = Network(7, [[0, 1], [1, 2], [2, 3], [0, 3], [3, 4], [2, 4], [0, 5], [5, 3], [2, 6]], [0, 2], [3])
    bench = BenchLike(network, seed, tapped=[0, 2, 3, 5])
    report = calibrated(bench, Settings(patterns=20, seed=seed)).report
    expected = {f"R0 of edge {edge}" for edge in (0, 1, 4, 5, 8)} | {"RAB of edge 8"}
    named = {each.name for each in report.unidentifiable}
    return {"right": named == expected, "findings": len(report.findings)}


def designs(seed: int) -> Row:
    """Return how many times the readings random patterns need for the accuracy of 20 designed ones."""
    network = board_32()
    model = BoardModel(network, [POT] * network.n_edges)
    terminals = len(network.terminals)
    metered, ammeters = np.ones(network.n_nodes, dtype=np.bool_), np.ones(terminals, dtype=np.bool_)
    noise = Noise(np.full(network.n_nodes, LSB), np.full(terminals, 2e-7))
    designer = Designer(
        model,
        model.nominal(),
        make_prior(model, SPEC, metered, ammeters),
        noise,
        DriveLimits.between(network, 0.0, VOLTS),
        np.ones((network.n_edges, POT.positions), dtype=np.bool_),
        metered,
        ammeters,
        TimeModel(0.0, 0.0),
        np.random.default_rng(seed),
    )
    levels = np.repeat(np.repeat([[0.0], [VOLTS / 2], [VOLTS]], terminals, axis=1), 8, axis=0)
    done = [Plan(np.full(network.n_edges, 128), levels)]
    designed = designer.designed(done, 20, 4).forecasts[-1].worst
    ratios = {}
    for name, ends in (("uniform", False), ("ends", True)):
        worst = np.array([each.worst for each in designer.at_random(done, 200, 4, ends=ends).forecasts])
        reached = np.flatnonzero(worst <= designed)
        ratios[name] = (reached[0] + 1) / 20 if len(reached) else 10.0
    return ratios


def fault(kind: str, seed: int) -> Row:
    """Return whether one fault was named, and nothing else."""
    network = board_32()
    generator = np.random.default_rng([seed, 5])
    first, second = sorted(generator.choice(network.n_edges, 2, replace=False).tolist())
    here, there = sorted(generator.choice(network.n_nodes, 2, replace=False).tolist())
    code = int(generator.integers(8, POT.positions))
    imperfections, faults = defects(), Faults()
    edges: tuple[int, ...] = (first,)
    nodes: tuple[int, ...] = ()
    if kind == "stuck":
        imperfections = defects(stuck={first: code})
    elif kind == "open":
        imperfections = defects(opened=(first,))
    elif kind == "shorted":
        faults = Faults(shorted=(first,))
    elif kind == "swapped pots":
        faults, edges = Faults(swapped_pots=(first, second)), (first, second)
    elif kind == "swapped channels":
        faults, edges, nodes = Faults(swapped_channels=(here, there)), (), (here, there)
    else:
        faults, edges, nodes = Faults(dead={here: float(generator.uniform(0.0, VOLTS))}), (), (here,)
    bench = BenchLike(network, seed, imperfections=imperfections, faults=faults)
    findings = calibrated(bench, Settings(patterns=30, seed=seed)).report.findings
    named = [(each.kind, each.edges, each.nodes) for each in findings]
    return {"right": named == [(kind, edges, nodes)]}


def transferred(seed: int) -> Row:
    """Return the losses on the true board of codes found on it, on its calibrated twin, and on the nominal board."""
    network = board_32()
    bench = BenchLike(network, seed)
    table = calibrated(bench, Settings(patterns=30, seed=seed)).pots.table
    nominal = np.broadcast_to(POT.conductances(), table.shape)
    generator = np.random.default_rng([seed, 9])
    inputs = generator.uniform(0.0, VOLTS, (24, len(network.inputs)))
    teacher = SimulatedBoard(network, 1.0 / generator.uniform(1500.0, 10000.0, network.n_edges))
    targets = evaluate(teacher, Task(inputs, np.zeros((24, len(network.outputs))))).outputs
    task = Task(inputs, np.clip(targets + 0.005 * generator.standard_normal(targets.shape), 0.0, VOLTS))
    losses = {}
    for name, known in (("itself", bench.truth), ("twin", table), ("nominal", nominal)):
        board = SimulatedBoard(network, 2e-4, DeviceRange.from_table(known))
        best, kept = np.inf, board.conductances
        for step in train(board, task, ContrastiveLearning("auto"), 2000):
            if step.loss < best:
                best, kept = step.loss, step.conductances_before
        codes = board.device_range.project(kept).codes
        truth: FloatArray = bench.truth[np.arange(network.n_edges), codes]
        losses[name] = evaluate(SimulatedBoard(network, truth), task).loss
    return losses


def collect(run: Callable[[int], Row], count: int, jobs: int) -> list[Row]:
    """Run seeds 0 … count − 1, in parallel processes where asked for."""
    if jobs == 1:
        return [run(seed) for seed in range(count)]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(run, range(count)))


def line(what: str, figure: str, wanted: str, holds: bool) -> None:
    print(f"| {what} | {figure} | {wanted} | {'yes' if holds else 'NO'} |", flush=True)


def of(rows: list[Row], key: str) -> FloatArray:
    return np.array([row[key] for row in rows], dtype=np.float64)


def show(arguments: argparse.Namespace) -> None:
    count, jobs = arguments.seeds, arguments.jobs
    chosen = set(arguments.only.split(",")) if arguments.only else set()

    def wanted(name: str) -> bool:
        return not chosen or name in chosen

    print(f"| {count} boards each | found | wanted | holds |\n|---|---|---|---|")
    tapped_rms = 1e-3
    for name, run, title in (("accuracy", accuracy, "all nodes tapped"), ("hidden", hidden, "hidden nodes not tapped")):
        if not wanted(name):
            continue
        rows = collect(run, count, jobs)
        rms, worst = float(np.sqrt((of(rows, "rms") ** 2).mean())), float(of(rows, "worst").max())
        limit = 1e-3 if name == "accuracy" else 3 * tapped_rms
        line(f"{title}: conductance, rms", f"{100 * rms:.4f} %", f"≤ {100 * limit:.2g} %", rms <= limit)
        line(f"{title}: conductance, worst", f"{100 * worst:.3f} %", f"≤ {500 * limit:.2g} %", worst <= 5 * limit)
        within, distance = float(of(rows, "within").mean()), float(of(rows, "distance").mean())
        line(f"{title}: truth in 95 % intervals", f"{100 * within:.1f} %", "93–97 %", 0.93 <= within <= 0.97)
        line(f"{title}: variance / Cramér–Rao", f"{distance:.2f}", "≤ 1.2", distance <= 1.2)
        passed = int(of(rows, "passed").sum())
        line(f"{title}: verified on fresh codes", f"{passed} of {count}", f"{count}", passed == count)
        print(f"|   | {of(rows, 'seconds').mean():.1f} s computing each | | |")
        if name == "accuracy":
            tapped_rms = rms
    if wanted("series"):
        rows = collect(series, count, jobs)
        complete = int(of(rows, "right").sum())
        line("unidentifiable parameters named, all and only", f"{complete} of {count}", f"{count}", complete == count)
    if wanted("design"):
        rows = collect(designs, count, jobs)
        for name, title in (("uniform", "uniform volts"), ("ends", "volts at their ends")):
            fewest = float(of(rows, name).min())
            line(f"readings random codes need, {title}", f"≥ {fewest:.1f} times", "≥ 2 times", fewest >= 2)
    for kind in ("stuck", "open", "shorted", "swapped pots", "swapped channels", "dead channel"):
        if wanted("faults") or kind in chosen:
            rows = collect(partial(fault, kind), count, jobs)
            right = float(of(rows, "right").mean())
            line(f"{kind}: named, and nothing else", f"{100 * right:.0f} %", "≥ 95 %", right >= 0.95)
    if wanted("healthy"):
        rows = collect(healthy, arguments.healthy, jobs)
        false = int((of(rows, "findings") + of(rows, "named") > 0).sum())
        line(f"false faults in {arguments.healthy} healthy calibrations", f"{false}", "0", false == 0)
        failed = int((1 - of(rows, "passed")).sum())
        line(f"verifications failed in {arguments.healthy} healthy calibrations", f"{failed}", "0", failed == 0)
    if wanted("transfer"):
        rows = collect(transferred, count, jobs)
        itself, twin, nominal = (float(of(rows, name).mean()) for name in ("itself", "twin", "nominal"))
        line("loss of the twin's codes / of the board's own", f"{twin / itself:.3f}", "≤ 1.1", twin <= 1.1 * itself)
        line("loss of nominal codes / of the twin's", f"{nominal / twin:.1f}", "≥ 5", nominal >= 5 * twin)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a calibration achieves, on boards whose truth it never sees.")
    parser.add_argument("--seeds", type=int, default=20, help="boards per line (default 20)")
    parser.add_argument("--healthy", type=int, default=200, help="healthy calibrations (default 200)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--only", help="parts, with commas: accuracy hidden series design faults healthy transfer")
    with threadpool_limits(limits=1):
        show(parser.parse_args())


if __name__ == "__main__":
    main()
