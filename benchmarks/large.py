"""Large boards: full steps beside bare CHOLMOD and SciPy's spsolve, and what samples, size and certainty cost.

A full step is one of ``train``: assembly, factorisation, solves for 8 inputs and 4 outputs, gradient of all samples,
update, projection and Step. Seconds are those of the thread, so that other work on the machine counts little; things
compared are measured in turn, and ratios are medians over the rounds. BLAS has one thread.

    python benchmarks/large.py [--rounds N] [--largest NODES]
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from hilcl import ContrastiveLearning, DeviceRange, Network, Task, train
from hilcl.arrays import FloatArray, IntArray
from hilcl.sim_backend.basis import Accuracy, BasisSolver
from hilcl.sim_backend.board import SimulatedBoard
from hilcl.sim_backend.compensated import Deviation, deviation
from hilcl.sim_backend.solvers import SolverName
from hilcl.sim_backend.terminals import settle_ideal

N_INPUTS, N_OUTPUTS = 8, 4
SAMPLES, MANY_SAMPLES, NAIVE_SAMPLES = 12, 1000, 100
LIMITS = DeviceRange(1e-6, 1e-1)
SIDES = (32, 100, 316, 1000)
MIN_SECONDS = 0.2
STATED = Deviation(potentials=1e-14, edge_voltages=1e-15, kirchhoff=1e-14)

Step = Callable[[], object]


def network_of(n_nodes: int, edges: IntArray) -> Network:
    """Return the network with terminals at random nodes."""
    terminals = np.random.default_rng(0).choice(n_nodes, N_INPUTS + N_OUTPUTS, replace=False)
    return Network(n_nodes, edges, terminals[:N_INPUTS], terminals[N_INPUTS:])


def grid(side: int) -> Network:
    return network_of(side * side, Network.grid(side, side).edges)


def geometric(n_nodes: int) -> Network:
    """Points in a square joined within a radius, 8 neighbours on average; the largest connected part."""
    points = np.random.default_rng(1).random((n_nodes, 2))
    pairs = KDTree(points).query_pairs(np.sqrt(8 / (np.pi * n_nodes)), output_type="ndarray")
    _, part = connected_components(sparse.coo_array((np.ones(len(pairs)), pairs.T), shape=(n_nodes, n_nodes)))
    kept = part == np.bincount(part).argmax()
    return network_of(int(kept.sum()), (np.cumsum(kept) - 1)[pairs[kept[pairs[:, 0]]]])


def regular(n_nodes: int) -> Network:
    """Four random perfect matchings, so that nearly every node has four neighbours: an expander."""
    generator = np.random.default_rng(2)
    matchings = np.concatenate([generator.permutation(n_nodes).reshape(-1, 2) for _ in range(4)])
    return network_of(n_nodes, matchings)


def layered(width: int, layers: int) -> Network:
    """Every node joined with every node of the next layer."""
    number = np.arange(width * layers).reshape(layers, width)
    pairs = [np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2) for a, b in pairwise(number)]
    return network_of(width * layers, np.concatenate(pairs))


def conductances_of(network: Network) -> FloatArray:
    return np.random.default_rng(3).uniform(1e-4, 1e-3, network.n_edges)


def stepper(
    network: Network,
    n_samples: int = SAMPLES,
    accuracy: Accuracy = "standard",
    solver: SolverName = "auto",
) -> tuple[Step, str]:
    """Return a function that does one step of ``train``, its first step done, and the name of the solver."""
    generator = np.random.default_rng(4)
    inputs = generator.uniform(0.0, 1.0, (n_samples, N_INPUTS))
    share = generator.uniform(0.0, 1.0, (n_samples, N_OUTPUTS))
    low, high = inputs.min(axis=1, keepdims=True), inputs.max(axis=1, keepdims=True)
    board = SimulatedBoard(network, conductances_of(network), LIMITS, solver=solver, accuracy=accuracy)
    steps: Iterator[object] = train(board, Task(inputs, low + share * (high - low)), ContrastiveLearning(1e-6), 10**9)
    next(steps)
    return partial(next, steps), board.solver_name


def laplacian(network: Network, nodes: IntArray) -> Any:
    incidence = network.incidence[nodes, :]
    return sparse.csc_array(incidence @ sparse.diags_array(conductances_of(network)) @ incidence.T)


def bare_cholmod(network: Network) -> Step:
    """Return a function that refactors the assembled L_FF and solves 11 columns, nothing else."""
    import cvxopt
    from cvxopt import cholmod

    lower = sparse.tril(laplacian(network, network.floating)).tocoo()
    matrix = cvxopt.spmatrix(cvxopt.matrix(lower.data), cvxopt.matrix(lower.row), cvxopt.matrix(lower.col), lower.shape)
    factor = cholmod.symbolic(matrix, uplo="L")
    columns = N_INPUTS - 1 + N_OUTPUTS
    rhs = cvxopt.matrix(np.random.default_rng(5).normal(size=(lower.shape[0], columns)))

    def step() -> None:
        cholmod.numeric(matrix, factor)
        cholmod.solve(factor, rhs)
        rhs[:] = 1.0

    step()
    return step


def naive_seconds(network: Network) -> float:
    """Return the seconds of spsolve for one free and one clamped phase."""
    seconds = 0.0
    for nodes in (network.floating, network.hidden):
        matrix, rhs = laplacian(network, nodes), np.random.default_rng(6).normal(size=len(nodes))
        seconds += seconds_per_call(partial(spsolve, matrix, rhs))
    return seconds


def seconds_per_call(call: Step) -> float:
    """Return the seconds of a call, averaged over as many as fill MIN_SECONDS."""
    count, start = 0, time.thread_time()
    while (elapsed := time.thread_time() - start) < MIN_SECONDS:
        call()
        count += 1
    return elapsed / count


def compared(first: Step, second: Step, rounds: int) -> tuple[float, float, float]:
    """Return median seconds of both and the median ratio of the first to the second, measured in turn."""
    pairs = np.array([[seconds_per_call(first), seconds_per_call(second)] for _ in range(rounds)])
    return float(np.median(pairs[:, 0])), float(np.median(pairs[:, 1])), float(np.median(pairs[:, 0] / pairs[:, 1]))


def boards(largest: int) -> dict[str, Network]:
    grids = {f"grid, {side * side} nodes": grid(side) for side in SIDES if side * side <= largest}
    others: dict[str, Callable[[], Network]] = {
        "random geometric, 1e5 nodes": lambda: geometric(100_000),
        "random, degree 4, 1e4 nodes": lambda: regular(10_000),
        "layered, 20 layers of 100": lambda: layered(100, 20),
    }
    return grids | {name: make() for name, make in others.items() if largest >= 100_000}


def beside_cholmod(rounds: int, largest: int) -> str:
    lines = ["| board | edges | solver | full step, ms | bare CHOLMOD, ms | ratio |", "|---|---|---|---|---|---|"]
    of_grid = {}
    for name, network in boards(largest).items():
        step, solver = stepper(network)
        if importlib.util.find_spec("cvxopt") is None:
            ours, bare, ratio = seconds_per_call(step), np.nan, np.nan
        else:
            ours, bare, ratio = compared(step, bare_cholmod(network), rounds)
        lines.append(f"| {name} | {network.n_edges} | {solver} | {1e3 * ours:.4g} | {1e3 * bare:.4g} | {ratio:.2f} |")
        if name.startswith("grid"):
            of_grid[network.n_nodes] = ours
    sizes = [size for size in of_grid if size >= 10_000]
    if len(sizes) > 1:
        power = log(of_grid[sizes[-1]] / of_grid[sizes[0]]) / log(sizes[-1] / sizes[0])
        lines += ["", f"Time of a full step on grids of {sizes[0]} to {sizes[-1]} nodes grows as N^{power:.2f}."]
    return "\n".join(lines)


def beside_spsolve(rounds: int, largest: int) -> str:
    lines = [
        f"One free and one clamped phase were solved and multiplied by {NAIVE_SAMPLES} samples.",
        "",
        "| grid, nodes | full step, ms | spsolve per sample and phase, ms | ratio |",
        "|---|---|---|---|",
    ]
    for side in SIDES[:3]:
        if side * side > largest:
            continue
        network = grid(side)
        step, _ = stepper(network, NAIVE_SAMPLES)
        pairs = [(seconds_per_call(step), NAIVE_SAMPLES * naive_seconds(network)) for _ in range(rounds)]
        ours, naive = np.median(pairs, axis=0)
        ratio = np.median([slow / fast for fast, slow in pairs])
        lines.append(f"| {network.n_nodes} | {1e3 * ours:.4g} | {1e3 * naive:.4g} | {ratio:.0f}x |")
    return "\n".join(lines)


def more_samples(rounds: int, largest: int) -> str:
    lines = [
        f"| grid, nodes | {SAMPLES} samples, ms | {MANY_SAMPLES} samples, ms | ratio |",
        "|---|---|---|---|",
    ]
    for side in SIDES:
        if side * side <= largest:
            network = grid(side)
            many, few = stepper(network, MANY_SAMPLES)[0], stepper(network)[0]
            slow, fast, ratio = compared(many, few, rounds)
            lines.append(f"| {network.n_nodes} | {1e3 * fast:.4g} | {1e3 * slow:.4g} | {ratio:.2f} |")
    return "\n".join(lines)


def certainty(rounds: int, largest: int) -> str:
    lines = ["| grid, nodes | edges | standard, ms | certified, ms | ratio |", "|---|---|---|---|---|"]
    for side in (7, 21, 100, 316):
        if side * side <= largest:
            network = grid(side)
            sure, plain = stepper(network, accuracy="certified")[0], stepper(network)[0]
            slow, fast, ratio = compared(sure, plain, 3 * rounds)
            lines.append(
                f"| {network.n_nodes} | {network.n_edges} | {1e3 * fast:.3g} | {1e3 * slow:.3g} | {ratio:.2f} |"
            )
    return "\n".join(lines)


def beside_reference(largest: int) -> str:
    """Return the errors of certified states on boards that mix 2e-2 and 1e-6 S, at unit drives, and their bounds."""
    lines = [
        "| grid, nodes | phase | node potentials, relative | median edge voltage, relative | Kirchhoff's law |",
        "|---|---|---|---|---|",
        f"| stated | | {STATED.potentials:.0e} | {STATED.edge_voltages:.0e} | {STATED.kirchhoff:.0e} |",
    ]
    for side in SIDES[1:]:
        if side * side > largest:
            continue
        network = grid(side)
        drawn = np.random.default_rng(5).uniform(np.log(1e-6), np.log(2e-2), network.n_edges)
        conductances: FloatArray = np.exp(drawn)
        basis = BasisSolver(network, accuracy="certified").solve(conductances)
        free, clamped = np.zeros((2, N_INPUTS + N_OUTPUTS))
        free[N_INPUTS:] = np.nan
        free[1] = clamped[N_INPUTS] = 1.0
        for phase, drives in (("free", free), ("clamped", clamped)):
            state = settle_ideal(basis, drives[None, :N_INPUTS], drives[None, N_INPUTS:], edge_voltages=True)
            assert state.edge_voltages is not None
            found = deviation(network, conductances, drives, state.potentials[0], state.edge_voltages[0])
            lines.append(
                f"| {network.n_nodes} | {phase} | {found.potentials:.1e} | {found.edge_voltages:.1e} "
                f"| {found.kirchhoff:.1e} |"
            )
    return "\n".join(lines)


def peak_memory(side: int, accuracy: Accuracy) -> str:
    """Return, from a process of its own, the most memory that two steps on a grid take."""
    code = (
        f"import sys; sys.path.append({str(Path(__file__).resolve().parents[1])!r})\n"
        f"from benchmarks.large import grid, peak_bytes, stepper\n"
        f"step, _ = stepper(grid({side}), accuracy={accuracy!r})\nstep()\nprint(peak_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return f"Peak memory of two steps, {accuracy}, {side * side} nodes: {int(done.stdout) / 2**30:.2f} GiB."


def peak_bytes() -> int:
    """Return the most memory this process has had, Python and all."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tables(rounds: int = 5, largest: int = 1_000_000) -> str:
    """Return all tables as Markdown; boards of more than ``largest`` nodes are left out."""
    side = max((side for side in SIDES if side * side <= largest), default=SIDES[0])
    accuracies: tuple[Accuracy, ...] = ("standard", "certified")
    with threadpool_limits(limits=1):
        parts = [
            "Full step beside CHOLMOD's refactorisation of the assembled matrix and its solve of 11 columns:",
            beside_cholmod(rounds, largest),
            "Beside SciPy's spsolve.",
            beside_spsolve(rounds, largest),
            "More samples:",
            more_samples(rounds, largest),
            "Certified accuracy:",
            certainty(rounds, largest),
            "Errors of certified states beside potentials computed to thirty digits:",
            beside_reference(largest),
            *(peak_memory(side, accuracy) for accuracy in accuracies),
        ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Full steps on large boards beside other solvers.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every comparison (default 5)")
    parser.add_argument("--largest", type=int, default=1_000_000, help="nodes of the largest board (default a million)")
    arguments = parser.parse_args()
    print(tables(arguments.rounds, arguments.largest))


if __name__ == "__main__":
    main()
