"""Time of one training step beside ngspice doing the same work, in one run.

Square grids up to 1984 edges, 3 inputs, 2 outputs, nudge 0.1. ngspice gets its due: one netlist for each phase, read
once per step, and operating points of all samples from the same process. "Batch" starts `ngspice -b` for each phase;
"library" keeps libngspice in this process, where Debian's libngspice0 is installed. All compute the same update, which
is checked before it is timed.

    python benchmarks/spice.py [--rounds N]
"""

import argparse
import ctypes
import ctypes.util
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hilcl import DeviceRange, Network, Task
from hilcl.arrays import FloatArray, IntArray

# At the end, so that `hilcl` stays the installed package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.steps import NUDGE, STEP_SIZE, hilcl_stepper, problem, seconds_per_call

SIDES = (3, 10, 32)
SAMPLES = (1, 20)
ACCURATE = ".options reltol=1e-9 abstol=1e-15 vntol=1e-12"
LIMITS = DeviceRange(1e-6, 1e-1)

Phase = Callable[[Network, FloatArray, IntArray, FloatArray], FloatArray]
"""Node potentials (S, N) with nodes ``held`` (H,) at volts (S, H), for conductances (M,)."""


def netlist(network: Network, conductances: FloatArray, held: IntArray, volts: FloatArray) -> list[str]:
    """Return the circuit; node 0 of SPICE is ground, so nodes are numbered from 1."""
    resistors = [
        f"r{edge} {first + 1} {second + 1} {1 / value:.17g}"
        for edge, ((first, second), value) in enumerate(zip(network.edges.tolist(), conductances, strict=True))
    ]
    return ["board", *resistors, *(f"v{node} {node + 1} 0 {at:.17g}" for node, at in zip(held, volts, strict=True))]


def in_batch(network: Network, conductances: FloatArray, held: IntArray, volts: FloatArray) -> FloatArray:
    """Solve all samples by one `ngspice -b`."""
    with TemporaryDirectory() as folder:
        commands = ["set filetype=binary", "set appendwrite"]
        for row in volts:
            commands += [f"alter v{node} = {at:.17g}" for node, at in zip(held, row, strict=True)]
            commands += ["op", "write found.raw"]
        lines = [*netlist(network, conductances, held, volts[0]), ACCURATE, ".control", *commands, "quit 0", ".endc"]
        path = Path(folder) / "board.cir"
        path.write_text("\n".join([*lines, ".end", ""]), "ascii")
        subprocess.run(["ngspice", "-b", str(path)], capture_output=True, check=True, cwd=folder)
        return np.stack(list(_plots((Path(folder) / "found.raw").read_bytes(), network.n_nodes)))


def _plots(raw: bytes, n_nodes: int) -> Iterator[FloatArray]:
    """Yield the potentials (N,) of each plot of a raw file."""
    start = 0
    while (found := raw.find(b"Binary:\n", start)) >= 0:
        names = re.findall(rb"^\t\d+\t(\S+)\t", raw[start:found], flags=re.MULTILINE)
        start = found + len(b"Binary:\n") + 8 * len(names)
        values = dict(zip(names, np.frombuffer(raw[start - 8 * len(names) : start]), strict=True))
        yield np.array([values[b"v(%d)" % (node + 1)] for node in range(n_nodes)])


class _Vector(ctypes.Structure):
    """The head of ``vector_info`` of sharedspice.h (ngspice 39 manual, section 19.3)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("flags", ctypes.c_short),
        ("real", ctypes.POINTER(ctypes.c_double)),
        ("complex", ctypes.c_void_p),
        ("length", ctypes.c_int),
    )


@cache
class Library:
    """libngspice in this process, which can be set up only once."""

    def __init__(self, path: str) -> None:
        self._spice = ctypes.CDLL(path)
        self._spice.ngGet_Vec_Info.restype = ctypes.POINTER(_Vector)
        # What it prints and asks for is of no use here; the callbacks must outlive it.
        quiet = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._quiet = quiet(lambda *_: 0)
        self._spice.ngSpice_Init(self._quiet, self._quiet, self._quiet, None, None, None, None)

    def _command(self, text: str) -> None:
        if self._spice.ngSpice_Command(text.encode("ascii")):
            raise SystemExit(f"libngspice refuses {text!r}")

    def __call__(self, network: Network, conductances: FloatArray, held: IntArray, volts: FloatArray) -> FloatArray:
        """Solve all samples of a circuit."""
        lines = [*netlist(network, conductances, held, volts[0]), ACCURATE, ".end"]
        encoded = [line.encode("ascii") for line in lines]
        if self._spice.ngSpice_Circ((ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)):
            raise SystemExit("libngspice refuses the circuit")
        potentials = np.empty((len(volts), network.n_nodes))
        for sample, row in enumerate(volts):
            for node, at in zip(held, row, strict=True):
                self._command(f"alter v{node} = {at:.17g}")
            self._command("op")
            for node in range(network.n_nodes):
                potentials[sample, node] = self._spice.ngGet_Vec_Info(b"v(%d)" % (node + 1)).contents.real[0]
            self._command("destroy all")
        self._command("remcirc")
        return potentials


def step(phase: Phase, network: Network, task: Task, conductances: FloatArray) -> FloatArray:
    """Return the conductances after one step with the circuits solved by ``phase``."""
    free = phase(network, conductances, network.inputs, task.inputs)
    outputs = free[:, network.outputs]
    clamp = np.hstack([task.inputs, outputs + NUDGE * (task.targets - outputs)])
    nudged = phase(network, conductances, network.terminals, clamp)
    gradient = (network.edge_voltages(nudged) ** 2 - network.edge_voltages(free) ** 2).mean(axis=0)
    return LIMITS.clip(conductances - STEP_SIZE * gradient / NUDGE)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(side: int, n_samples: int, rounds: int) -> dict[str, float]:
    """Return milliseconds per step of every method on one problem."""
    network, task, start = problem(side, n_samples)
    phases: dict[str, Phase] = {"ngspice, batch": in_batch}
    if (path := ctypes.util.find_library("ngspice")) is not None:
        phases["ngspice, library"] = Library(path)
    ours = hilcl_stepper(network, task, start, "auto")
    expected = ours()
    methods = {name: partial(step, phase, network, task, start) for name, phase in phases.items()}
    for name, method in methods.items():
        difference = np.abs(method() - expected).max() / np.abs(expected - start).max()
        if difference > 1e-4:
            raise SystemExit(f"{name} computes another update: {difference:.1e}")
    times: dict[str, list[float]] = {"hilcl": [], **{name: [] for name in methods}}
    for _ in range(rounds):
        times["hilcl"].append(seconds_per_call(ours))
        for name, method in methods.items():
            times[name].append(_seconds(method))
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def tables(rounds: int = 3) -> str:
    """Return the table in Markdown."""
    if shutil.which("ngspice") is None:
        return "ngspice is not installed here."
    rows: list[str] = []
    for side in SIDES:
        for n_samples in SAMPLES:
            with threadpool_limits(limits=1):
                found = measure(side, n_samples, rounds)
            others = [name for name in found if name != "hilcl"]
            if not rows:
                heads = ["edges", "samples", "hilcl", *others, *(f"hilcl against {name}" for name in others)]
                rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
            cells = [f"{2 * side * (side - 1)}", f"{n_samples}", *(f"{value:.3g}" for value in found.values())]
            cells += [f"{found[name] / found['hilcl']:.0f}x" for name in others]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["Milliseconds per step, medians.", "", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one training step beside ngspice.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per problem, medians are shown (default 3)")
    print(tables(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
