"""Time of one training step on small boards beside bare dense LAPACK, and of many boards together.

Square grids, 16 samples, 8 inputs and 4 outputs (3 and 2 on the smallest), full clamp. A full step is everything a step
of ``train`` does: both phases of all samples, update, projection, programming and the Step. The kernel alone measures
both phases and the gradient. Bare LAPACK is dpotrf and dpotrs of the assembled Laplacian of the floating nodes with the
same right-hand sides, nothing else; assembly is not counted. Every method is checked against another before it is
timed. Short rounds alternate between the methods; times are the least seen of each, so that other work on the machine
does not count, and ratios are those of these times.

    python benchmarks/small.py [--rounds N]
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from hilcl import ContrastiveLearning, DeviceRange, Network, Task, train
from hilcl.arrays import FloatArray, frozen
from hilcl.sim_backend import SimulatedBoard, StackedBoards
from hilcl.sim_backend.fused import FusedKernel
from hilcl.sim_backend.fused_plan import rounded_up
from hilcl.sim_backend.solvers import SolverName

SIDES = (3, 5, 7, 10, 21)
COMPARED = (7, 21)
BOARDS = 1000
SAMPLES = 16
LIMITS = DeviceRange(1e-4, 1e-3)
RULE = ContrastiveLearning(1e-5)
MIN_SECONDS = 0.002
AGREEMENT = 1e-9

Call = Callable[[], object]


def problem(side: int) -> tuple[Network, Task, FloatArray]:
    generator = np.random.default_rng(side)
    n_inputs, n_outputs = (8, 4) if side > 3 else (3, 2)
    terminals = generator.permutation(side * side)[: n_inputs + n_outputs]
    network = Network.grid(side, side, inputs=terminals[:n_inputs].tolist(), outputs=terminals[n_inputs:].tolist())
    volts = generator.uniform(0.0, 1.0, (SAMPLES, n_inputs))
    low, high = volts.min(axis=1, keepdims=True), volts.max(axis=1, keepdims=True)
    targets = low + (high - low) * generator.uniform(0.3, 0.7, (SAMPLES, n_outputs))
    return network, Task(volts, targets), generator.uniform(2e-4, 8e-4, network.n_edges)


def bare_lapack(network: Network, conductances: FloatArray) -> Call:
    """Return dpotrf and dpotrs for one volt at each input but the first and one ampere into each output."""
    incidence = network.incidence.toarray()
    whole = incidence @ np.diag(conductances) @ incidence.T
    floating, columns = network.floating, len(network.inputs) - 1
    laplacian = np.asfortranarray(whole[np.ix_(floating, floating)])
    right = np.zeros((len(floating), columns + len(network.outputs)), order="F")
    right[:, :columns] = -whole[np.ix_(floating, network.inputs[1:])]
    right[np.searchsorted(floating, network.outputs), columns + np.arange(len(network.outputs))] = 1.0

    def solve() -> Any:
        factor, _ = lapack.dpotrf(laplacian, lower=1, clean=0)
        return lapack.dpotrs(factor, right, lower=1)[0]

    agree(solve(), np.asarray(np.linalg.solve(laplacian, right), dtype=np.float64), "LAPACK")
    return solve


def full_step(network: Network, task: Task, start: FloatArray, solver: SolverName) -> Call:
    steps = train(SimulatedBoard(network, start, LIMITS, solver=solver), task, RULE, 10**9)
    return lambda: next(steps)


def kernel_alone(network: Network, task: Task, start: FloatArray) -> Call:
    """Return both phases and the gradient of one board, into memory that is there already."""
    kernel = FusedKernel(network)
    conductances, scratch = frozen(start.copy()), kernel.scratch(len(task))
    outputs = np.empty(task.targets.shape)
    power, contrast = np.empty(rounded_up(len(task))), np.empty(rounded_up(len(task)))

    def measure() -> object:
        return kernel.kernels.phases(
            kernel.plan,
            conductances,
            task.inputs,
            task.targets,
            1.0,
            kernel.work,
            scratch,
            kernel.gradient,
            outputs,
            power,
            contrast,
        )

    measure()
    expected = SimulatedBoard(network, start, solver="dense").contrast(task.inputs, task.targets, 1.0)
    agree(kernel.gradient[: network.n_edges], expected.gradient, "the kernel")
    return measure


def stacked(network: Network, task: Task, start: FloatArray) -> dict[str, Call]:
    """Return measuring and full steps of BOARDS boards, the first of them starting from ``start``."""
    generator = np.random.default_rng(0)
    conductances = generator.uniform(2e-4, 8e-4, (BOARDS, network.n_edges))
    conductances[0] = start
    boards, trained = (StackedBoards(network, conductances, LIMITS) for _ in range(2))
    steps = trained.train(task, RULE, 10**9)
    single = next(train(SimulatedBoard(network, start, LIMITS, solver="dense"), task, RULE, 1))
    agree(next(steps).conductances[0], single.conductances, "a stacked board")
    return {
        "stacked": lambda: boards.contrast(task.inputs, task.targets, 1.0),
        "stacked step": lambda: next(steps),
    }


def agree(found: FloatArray, expected: FloatArray, who: str) -> None:
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= AGREEMENT:
        raise SystemExit(f"{who} computes something else: {difference:.1e} apart")


def seconds_per_call(call: Call) -> float:
    """Return the seconds of a call, averaged over as many as fill MIN_SECONDS, one at least."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < MIN_SECONDS:
        call()
        count += 1
    return elapsed / count


def alternating(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Return the least seconds of every call."""
    least = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            least[name] = min(least[name], seconds_per_call(call))
    return least


def beside_lapack(rounds: int) -> list[str]:
    lines = [
        "Microseconds of a step on one board, and how many times bare LAPACK that is:",
        "",
        "| edges | nodes | bare LAPACK | kernel alone | full step, fused | full step without numba |",
        "|---|---|---|---|---|---|",
    ]
    for side in COMPARED:
        network, task, start = problem(side)
        without: SolverName = "dense" if side == min(COMPARED) else "superlu"
        times = alternating(
            {
                "lapack": bare_lapack(network, start),
                "kernel": kernel_alone(network, task, start),
                "fused": full_step(network, task, start, "fused"),
                "without": full_step(network, task, start, without),
            },
            rounds,
        )
        cells = [f"{1e6 * times['lapack']:.3g}"]
        cells += [
            f"{1e6 * times[name]:.3g} ({times[name] / times['lapack']:.2g}x)" for name in ("kernel", "fused", "without")
        ]
        lines.append(f"| {network.n_edges} | {network.n_nodes} | {' | '.join(cells)} |")
    return lines


def many_boards(rounds: int) -> list[str]:
    lines = [
        f"Microseconds a board of {BOARDS} boards together, beside the kernel on single boards:",
        "",
        "| edges | kernel, one board | stacked, both phases | stacked, full step | phases: gain | full step: gain |",
        "|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        network, task, start = problem(side)
        calls = {"kernel": kernel_alone(network, task, start), **stacked(network, task, start)}
        times = alternating(calls, max(1, rounds // 4))
        share = {"kernel": 1, "stacked": BOARDS, "stacked step": BOARDS}
        cells = [f"{1e6 * times[name] / boards:.3g}" for name, boards in share.items()]
        cells += [f"{BOARDS * times['kernel'] / times[name]:.2g}x" for name in ("stacked", "stacked step")]
        lines.append(f"| {network.n_edges} | {' | '.join(cells)} |")
    return lines


def tables(rounds: int = 200) -> str:
    """Return both tables as Markdown."""
    with threadpool_limits(limits=1):
        return "\n".join([*beside_lapack(rounds), "", *many_boards(rounds)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training steps of small boards beside bare LAPACK.")
    parser.add_argument("--rounds", type=int, default=200, help="rounds per problem (default 200)")
    print(tables(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
