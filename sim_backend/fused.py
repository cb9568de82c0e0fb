"""Small boards at the speed of the processor: one compiled pass per step. Needs numba (``hilcl[fast]``).

Nothing here imports numba before a solver or a kernel is made.
"""

import importlib.util
from collections.abc import Callable
from types import ModuleType

import numpy as np

from hilcl.arrays import FloatArray, IntArray, frozen
from hilcl.board import Contrast
from hilcl.certificate import rounding_per_siemens
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError, SolverError
from hilcl.network import Network
from hilcl.sim_backend.fused_plan import (
    elimination_order,
    entries_of,
    make_factor_plan,
    make_plan,
    multiplications,
    rounded_up,
)
from hilcl.task import Task
from hilcl.whole_step import WholeStep

SINGULAR = (
    "the circuit has no unique solution in floating point: some node hangs on conductances too small "
    "beside its neighbours'; narrow the conductance range"
)

TOO_TIGHT = "outputs joined too tightly cannot be clamped apart: lower the conductances between them"


MOST_EDGES = 5000
"""Edges up to which the kernel is what it is for: a small board."""

MOST_WORK = 150
"""Multiplications of the factor per edge from which solvers that work in blocks are faster."""

EPOCHS_TIMES_EDGES = 2_000_000
"""Epochs times edges, each epoch counted as EPOCH_IN_EDGES more, from which loading numba is soon earned back."""

EPOCH_IN_EDGES = 130


def is_installed() -> bool:
    """Return whether numba is there."""
    return importlib.util.find_spec("numba") is not None


def kernels() -> ModuleType:
    """Return the module of kernels; InputError where numba is not installed."""
    if not is_installed():
        raise InputError("the solver fused needs numba, which is not installed: pip install 'hilcl[fast]'")
    from hilcl.sim_backend import fused_kernels

    return fused_kernels


def is_worth_it(network: Network, epochs: int) -> bool:
    """Return whether so many epochs on such a board are done sooner with the kernel, numba's loading included.

    Decided by counting, not by timing: the same file has the same answer wherever numba is installed.
    """
    if not (is_installed() and FusedKernel.applies(network)) or network.n_edges > MOST_EDGES:
        return False
    return epochs * (network.n_edges + EPOCH_IN_EDGES) >= EPOCHS_TIMES_EDGES and (
        multiplications(make_plan(network)) <= MOST_WORK * network.n_edges
    )


def is_compiled() -> bool:
    """Return whether the kernels were compiled before, so that they only need loading."""
    module = kernels()
    from hilcl.sim_backend.compiled import is_kept

    return is_kept(module.phases)


class FusedSolver:
    """Simplicial L D Lᵀ with a fixed pattern and minimum degree order; a ``LaplacianSolver``.

    ``ends`` (M, 2) are the ends of the edges as numbers of floating nodes, −1 for driven ones.
    """

    name = "fused"

    def __init__(self, size: int, ends: IntArray) -> None:
        self._kernels = kernels()
        self._order = elimination_order(size, ends)
        place = np.empty(size + 1, dtype=np.int64)
        place[self._order], place[-1] = np.arange(size), -1
        self._plan = make_factor_plan(size, place[ends])
        self._entries, self._inverse = np.empty(entries_of(self._plan)), np.empty(size)
        self._column = np.empty(2 * size)

    def factor(self, conductances: FloatArray) -> None:
        """Assemble and factor L_FF."""
        if not self._kernels.factor(self._plan, frozen(conductances), self._entries, self._inverse, self._column):
            raise SolverError(SINGULAR)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solve for every column."""
        size, columns = rhs.shape
        width = rounded_up(columns)
        values = np.zeros((size, width))
        values[:, :columns] = rhs[self._order]
        self._kernels.solve(self._plan, self._entries, self._inverse, values.reshape(-1), width)
        solution = np.empty_like(rhs, order="F")
        solution[self._order] = values[:, :columns]
        return solution


class FusedKernel:
    """Both phases of all samples of one network in one call, in standard accuracy.

    The network needs an output and a floating node; see ``applies``.
    """

    def __init__(self, network: Network) -> None:
        self.kernels = kernels()
        self.plan = frozen(make_plan(network))
        n, n_inputs, n_outputs = len(network.floating), len(network.inputs), len(network.outputs)
        n_rows = n_inputs - 1
        width = rounded_up(n_rows + n_outputs)
        self.n_edges, self._n_inputs, self._n_outputs = network.n_edges, n_inputs, n_outputs
        sizes = [
            entries_of(self.plan) + 3 * n,
            (n + n_inputs) * width,
            n_inputs * width + 8 * width + 8 * n_outputs + 3 * n_outputs**2 + n_outputs * n_rows,
        ]
        self.work = np.zeros(sum(sizes))
        basis = self.work[sizes[0] : sizes[0] + sizes[1]].reshape(-1, width)
        basis[n + 1 :, :n_rows] = np.eye(n_rows)
        self.gradient = np.empty(rounded_up(network.n_edges))

    @staticmethod
    def applies(network: Network) -> bool:
        """Return whether there is anything for the kernel to compute."""
        return bool(len(network.outputs) and len(network.floating))

    def scratch(self, n_samples: int) -> FloatArray:
        """Return memory for the kernel, zero, for that many samples."""
        return np.zeros((self._n_inputs + 2 * self._n_outputs) * rounded_up(n_samples) + 8 * self._n_outputs)

    def contrast(self, conductances: FloatArray, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Return the contrast at conductances (M,) in siemens for finite inputs (S, I) and targets (S, O) in volts."""
        n_samples = len(inputs)
        gradient, outputs = np.empty(rounded_up(self.n_edges)), np.empty((n_samples, self._n_outputs))
        power, contrast = np.empty(rounded_up(n_samples)), np.empty(rounded_up(n_samples))
        self.refuse(
            self.kernels.phases(
                self.plan,
                frozen(conductances),
                frozen(np.ascontiguousarray(inputs)),
                frozen(np.ascontiguousarray(targets)),
                float(nudge),
                self.work,
                self.scratch(n_samples),
                gradient,
                outputs,
                power,
                contrast,
            )
        )
        return Contrast(gradient[: self.n_edges], outputs, power[:n_samples], contrast[:n_samples])

    def refuse(self, status: int) -> None:
        """Raise what a kernel's return value says is wrong, if anything is."""
        if status == self.kernels.SINGULAR:
            raise SolverError(SINGULAR)
        if status == self.kernels.TOO_TIGHT:
            raise SolverError(TOO_TIGHT)
        if status == self.kernels.NOT_FINITE:
            raise InputError("a contrast needs finite volts at every input and output")


class FusedStepper:
    """Measuring and updating of one task on one board in a single call; a ``hilcl.whole_step.Stepper``.

    ``conductances_of`` returns the board's present conductances (M,) in siemens, read-only; ``announce`` is told what
    the kernel projected, so that the board need not project it again.
    """

    def __init__(
        self,
        kernel: FusedKernel,
        conductances_of: Callable[[], FloatArray],
        announce: Callable[[FloatArray], None],
        task: Task,
        nudge: float,
        limits: DeviceRange,
    ) -> None:
        self._kernel, self._run, self._conductances_of = kernel, kernel.kernels.step, conductances_of
        self._announce = announce
        self._inputs = frozen(np.ascontiguousarray(task.inputs))
        self._targets = frozen(np.ascontiguousarray(task.targets))
        self._nudge, self._rounding = float(nudge), rounding_per_siemens(task)
        self._low, self._high = frozen(limits.g_min), frozen(limits.g_max)
        n_samples = len(task)
        self._scratch = kernel.scratch(n_samples)
        self._power, self._contrast = np.empty(rounded_up(n_samples)), np.empty(rounded_up(n_samples))
        self._pinned = np.empty(kernel.n_edges, dtype=np.int64)
        self._figures = np.empty(kernel.kernels.FIGURES)

    def step(self, state: FloatArray, step_size: float) -> WholeStep | None:
        """Measure the board as it is and update the state (M,) in siemens; see ``hilcl.whole_step.Stepper``."""
        kernel = self._kernel
        outputs, after = np.empty(self._targets.shape), np.empty(kernel.n_edges)
        status = self._run(
            kernel.plan,
            self._conductances_of(),
            self._inputs,
            self._targets,
            self._nudge,
            kernel.work,
            self._scratch,
            kernel.gradient,
            outputs,
            self._power,
            self._contrast,
            state,
            self._low,
            self._high,
            step_size,
            self._rounding,
            after,
            self._pinned,
            self._figures,
        )
        if status:
            kernel.refuse(status)
            return None
        after.flags.writeable = False
        self._announce(after)
        loss, power, contrast, bound, residual, count = self._figures.tolist()
        return WholeStep(loss, contrast, power, bound, residual, outputs, after, self._pinned[: int(count)].copy())
