"""Time of one training step beside naive solvers doing the same work, in one run.

Square grids, 3 inputs, 2 outputs, nudge 0.1; 1 and 20 samples. A step is everything: free and nudged responses of all
samples, gradient, update, projection. Every method computes the same update, which is checked before it is timed.
Rounds alternate between the methods and medians are shown, so a change of the machine's speed hits all alike.

    python benchmarks/steps.py [--rounds N]
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from threadpoolctl import threadpool_limits

from hilcl import ContrastiveLearning, DeviceRange, Network, Task, train
from hilcl.arrays import FloatArray
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.solvers import SolverName

SIDES = (8, 16, 32)
SAMPLES = (1, 20)
NUDGE = 0.1
STEP_SIZE = 1e-9
MIN_SECONDS = 0.02


def problem(side: int, n_samples: int) -> tuple[Network, Task, FloatArray]:
    generator = np.random.default_rng([side, n_samples])
    n_nodes = side * side
    inputs = [0, side - 1, n_nodes - 1]
    outputs = [n_nodes // 2 + side // 2, n_nodes // 3]
    network = Network.grid(side, side, inputs=inputs, outputs=outputs)
    volts = generator.uniform(0.0, 1.0, (n_samples, 3))
    low, high = volts.min(axis=1, keepdims=True), volts.max(axis=1, keepdims=True)
    targets = low + (high - low) * generator.uniform(0.3, 0.7, (n_samples, 2))
    return network, Task(volts, targets), generator.uniform(1e-4, 1e-3, network.n_edges)


class NaiveStepper:
    """One step the plain way: one linear solve per sample and phase, the rest prepared as well as it can be."""

    def __init__(self, network: Network, task: Task, conductances: FloatArray, limits: DeviceRange) -> None:
        self.network, self.task, self.conductances, self.limits = network, task, conductances, limits
        self.held = (network.inputs, network.terminals)
        self.floating = tuple(np.setdiff1d(np.arange(network.n_nodes), held) for held in self.held)

    def step(self, solver: str) -> FloatArray:
        """Return the conductances after one step."""
        network, task = self.network, self.task
        laplacian = sparse.csr_array(network.incidence @ sparse.diags_array(self.conductances) @ network.incidence.T)
        systems = []
        for held, floating in zip(self.held, self.floating, strict=True):
            rows = laplacian[floating]
            inner: Any = rows[:, floating]
            systems.append((inner.toarray() if solver == "numpy" else sparse.csc_array(inner), rows[:, held]))
        gradient = np.zeros(network.n_edges)
        for volts, target in zip(task.inputs, task.targets, strict=True):
            free = self.potentials(solver, systems[0], 0, volts)
            outputs = free[network.outputs]
            clamp = np.concatenate([volts, outputs + NUDGE * (target - outputs)])
            nudged = self.potentials(solver, systems[1], 1, clamp)
            gradient += network.edge_voltages(nudged) ** 2 - network.edge_voltages(free) ** 2
        return self.limits.clip(self.conductances - STEP_SIZE * gradient / (NUDGE * task.n_samples))

    def potentials(self, solver: str, system: tuple[Any, Any], phase: int, volts: FloatArray) -> FloatArray:
        matrix, coupling = system
        right = -(coupling @ volts)
        potentials = np.empty(self.network.n_nodes)
        potentials[self.held[phase]] = volts
        solve = np.linalg.solve if solver == "numpy" else spsolve
        potentials[self.floating[phase]] = solve(matrix, right)
        return potentials


def hilcl_stepper(
    network: Network, task: Task, conductances: FloatArray, solver: SolverName
) -> Callable[[], FloatArray]:
    """Return a function that does one step of ``train``."""
    board = SimulatedBoard(network, conductances, DeviceRange(1e-6, 1e-1), solver=solver)
    steps = train(board, task, ContrastiveLearning(STEP_SIZE, nudge=NUDGE), 10**9)
    return lambda: next(steps).conductances


def seconds_per_call(call: Callable[[], FloatArray]) -> float:
    """Return the seconds of a call, averaged over as many as fill MIN_SECONDS."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < MIN_SECONDS:
        call()
        count += 1
    return elapsed / count


def measure(side: int, n_samples: int, rounds: int) -> dict[str, float]:
    """Return milliseconds per step of every method on one problem."""
    network, task, start = problem(side, n_samples)
    limits = DeviceRange(1e-6, 1e-1)
    solvers: list[SolverName] = ["auto", "dense", "superlu"]
    if importlib.util.find_spec("qdldl") is not None:
        solvers.append("qdldl")
    naive = NaiveStepper(network, task, start, limits)
    methods: dict[str, Callable[[], FloatArray]] = {
        "numpy.linalg.solve": lambda: naive.step("numpy"),
        "scipy spsolve": lambda: naive.step("scipy"),
    }
    expected = methods["numpy.linalg.solve"]()
    for solver in solvers:
        stepper = hilcl_stepper(network, task, start, solver)
        difference = np.abs((stepper() - start) - (expected - start)).max() / np.abs(expected - start).max()
        if difference > 1e-6:
            raise SystemExit(f"{solver} computes another update than numpy.linalg.solve: {difference:.1e}")
        methods[f"hilcl {solver}"] = stepper
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, call in methods.items():
            times[name].append(seconds_per_call(call))
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def tables(rounds: int = 7) -> str:
    """Return the table in Markdown."""
    rows: list[str] = []
    with threadpool_limits(limits=1):
        for side in SIDES:
            for n_samples in SAMPLES:
                result = measure(side, n_samples, rounds)
                if not rows:
                    heads = ["nodes", "samples", *result, "auto vs solve", "auto vs spsolve"]
                    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
                auto = result["hilcl auto"]
                ratios = [result[name] / auto for name in ("numpy.linalg.solve", "scipy spsolve")]
                cells = [f"{value:.3g}" for value in result.values()] + [f"{ratio:.0f}x" for ratio in ratios]
                rows.append(f"| {side * side} | {n_samples} | {' | '.join(cells)} |")
    return "\n".join(["Milliseconds per step, medians; the naive columns solve once per sample and phase.", "", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one training step beside naive solvers.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per problem, medians are shown (default 7)")
    print(tables(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
