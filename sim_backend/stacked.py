"""Many virtual boards of one network, measured and trained together: eight in every vector. Needs numba."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilcl.arrays import FloatArray, IntArray, frozen, samples_by
from hilcl.certificate import lipschitz_constant, safe_step_size
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError, RuleError, SolverError
from hilcl.learning import ContrastiveLearning, RobbinsMonro
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend.fused import SINGULAR, TOO_TIGHT, FusedKernel, kernels
from hilcl.sim_backend.fused_plan import WIDTH, aligned, entries_of, make_plan, rounded_up
from hilcl.sim_backend.imperfections import PotDefects
from hilcl.sim_backend.truth import PotTruth, streams
from hilcl.task import Task


@dataclass(frozen=True)
class StackedContrast:
    """The contrasts of B boards, each as ``hilcl.board.Contrast``.

    ``gradient`` (B, M) in V², ``outputs`` (B, S, O) in volts, ``power_free`` and ``contrast`` (B, S) in watts.
    """

    gradient: FloatArray
    outputs: FloatArray
    power_free: FloatArray
    contrast: FloatArray


@dataclass(frozen=True)
class StackedStep:
    """One epoch of B boards; names and units as in ``hilcl.training.Step``.

    ``loss``, ``contrast``, ``power`` and ``residual`` are (B,), ``outputs`` (B, S, O), ``conductances``, ``codes`` and
    ``state`` (B, M). ``seconds`` is the wall time of the epoch.
    """

    epoch: int
    loss: FloatArray
    contrast: FloatArray
    power: FloatArray
    residual: FloatArray
    outputs: FloatArray
    conductances: FloatArray
    codes: IntArray | None
    state: FloatArray
    step_size: float
    seconds: float


class StackedBoards:
    """B boards of one network with ideal terminals, each with conductances of its own, in standard accuracy.

    ``conductances`` (B, M) in siemens are programmed at once. ``device_range`` and ``pots`` as in ``SimulatedBoard``.
    With ``defects`` the pots of board b are drawn by ``seeds[b]``: it is the SimulatedBoard of that seed. Each board of
    pots with defects holds M times as many numbers as a pot has codes.

    Raises InputError for values that do not fit the network, or without numba.
    """

    def __init__(
        self,
        network: Network,
        conductances: npt.ArrayLike,
        device_range: DeviceRange | None = None,
        *,
        pots: Potentiometer | Sequence[Potentiometer] | None = None,
        defects: PotDefects | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        if not FusedKernel.applies(network):
            raise InputError("stacked boards need an output and a floating node: there is nothing to compute")
        self._status = kernels()
        from hilcl.sim_backend import stacked_kernels

        self._kernels, self._network = stacked_kernels, network
        start = samples_by("conductances", conductances, network.n_edges, InputError)
        self._n_boards = len(start)
        self._set_devices(device_range, pots, defects, seeds)
        n, n_inputs, n_outputs = len(network.floating), len(network.inputs), len(network.outputs)
        n_rows = n_inputs - 1
        width = n_rows + n_outputs
        self._plan = frozen(make_plan(network, width))
        self._fixed = network.n_edges + entries_of(self._plan) + 3 * n + (n + n_inputs) * width
        self._fixed += n_rows**2 + 3 * n_outputs**2 + n_rows * n_outputs + width + n_outputs
        self._values_start = (network.n_edges + entries_of(self._plan) + 3 * n) * WIDTH
        self._values_shape = (n + n_inputs, width, WIDTH)
        self._samples: _Samples | None = None
        self.program(start)

    @property
    def network(self) -> Network:
        """The wiring all boards share."""
        return self._network

    @property
    def device_range(self) -> DeviceRange:
        """Nominal limits and codes of every edge, the same on all boards."""
        return self._device_range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (B, M) in siemens, nominal."""
        return self._conductances

    @property
    def true_conductances(self) -> FloatArray:
        """What the edges really have, (B, M) in siemens."""
        return self._true[: self._n_boards]

    def __len__(self) -> int:
        return self._n_boards

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        """Project (B, M) siemens onto the devices, set them, and return the nominal realised conductances (B, M)."""
        wished = samples_by("conductances", conductances, self._network.n_edges, InputError)
        if len(wished) != self._n_boards:
            raise InputError(f"there are {self._n_boards} boards, but conductances for {len(wished)}")
        bad = np.argwhere(~(np.isfinite(wished) & (wished > 0)))
        if len(bad):
            board, edge = bad[0].tolist()
            raise InputError(
                f"edge {edge} of board {board} was given {wished[board, edge]:g} S: a conductance must be positive and "
                "finite"
            )
        self._set(*self._projected(wished))
        return self._conductances

    def contrast(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, nudge: float) -> StackedContrast:
        """Return both phases of every sample, inputs (S, I) and targets (S, O) in volts, on every board."""
        samples = self._prepared(inputs, targets)
        padded, n_edges = len(self._true), self._network.n_edges
        n_samples, n_outputs = samples.targets.shape
        gradient, outputs = np.empty(padded * n_edges), np.empty(padded * n_samples * n_outputs)
        power, contrast = np.empty(padded * n_samples), np.empty(padded * n_samples)
        self._run(self._kernels.measure, samples, nudge, gradient, outputs, power, contrast)
        boards = self._n_boards
        return StackedContrast(
            gradient.reshape(padded, n_edges)[:boards],
            outputs.reshape(padded, n_samples, n_outputs)[:boards],
            power.reshape(padded, n_samples)[:boards],
            contrast.reshape(padded, n_samples)[:boards],
        )

    def train(self, task: Task, rule: ContrastiveLearning, epochs: int) -> Iterator[StackedStep]:
        """Train all boards on one task and yield one step per epoch.

        As ``hilcl.train`` with all samples in every update and rounding to the nearest code: the rule starts from the
        present conductances and updates an unrounded copy. Raises TaskError and RuleError as that does, and RuleError
        for mini-batches and rules of one's own.
        """
        task.check_on(self._network)
        if rule.batch_size is not None:
            raise RuleError("stacked boards are trained with all samples in every update: leave out the batch size")
        if type(rule).direction is not ContrastiveLearning.direction:
            raise RuleError("stacked boards are trained by Contrastive Learning itself, not by a rule derived from it")
        if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
            raise RuleError(f"the number of epochs must be a whole number of at least 1, got {epochs}")
        lipschitz = lipschitz_constant(self._network, self._device_range, task)
        return self._steps(task, rule, int(epochs), safe_step_size(rule, self._device_range, lipschitz))

    def _steps(self, task: Task, rule: ContrastiveLearning, epochs: int, first: float) -> Iterator[StackedStep]:
        schedule = rule.step_size if isinstance(rule.step_size, RobbinsMonro) else None
        limits, boards = self._device_range, self._n_boards
        state = np.ascontiguousarray(limits.clip(self._padded(self._conductances)))
        for epoch in range(epochs):
            start = time.perf_counter()
            gamma = first * (1.0 if schedule is None else schedule.at(epoch))
            state, outputs, figures = self._update(task, rule.nudge, state, gamma)
            codes = None
            if limits.is_discrete:
                codes = self._set(*self._projected(state[:boards]))
            else:
                self._set(state[:boards], None, state)
            n_samples, n_outputs = task.targets.shape
            yield StackedStep(
                epoch,
                loss=figures[:, 0] / (n_samples * n_outputs),
                power=figures[:, 1] / n_samples,
                contrast=figures[:, 2] / n_samples,
                residual=np.sqrt(figures[:, 3]),
                outputs=outputs,
                conductances=self._conductances,
                codes=codes,
                state=frozen(state[:boards]),
                step_size=gamma,
                seconds=time.perf_counter() - start,
            )

    def _update(
        self, task: Task, nudge: float, state: FloatArray, step_size: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the new states (B rounded up, M), the outputs (B, S, O) and the figures (B, …) of an epoch."""
        samples, limits = self._prepared(task.inputs, task.targets), self._device_range
        after = np.empty_like(state)
        outputs = np.empty((len(state), *samples.targets.shape))
        figures = np.empty((len(state), self._kernels.FIGURES))
        self._run(
            self._kernels.step,
            samples,
            nudge,
            frozen(state.reshape(-1)),
            frozen(limits.g_min),
            frozen(limits.g_max),
            step_size,
            outputs.reshape(-1),
            after.reshape(-1),
            figures.reshape(-1),
        )
        return after, outputs[: self._n_boards], figures[: self._n_boards]

    def _run(self, kernel: Callable[..., int], samples: "_Samples", nudge: float, *rest: FloatArray | float) -> None:
        """Run a kernel on the boards as they are, and raise what it says is wrong, if anything is."""
        failed = np.zeros(1)
        status = kernel(
            self._plan,
            frozen(self._true.reshape(-1)),
            samples.volts,
            samples.products,
            samples.targets,
            float(nudge),
            samples.work,
            samples.lanes,
            *rest,
            failed,
        )
        if status == self._status.DONE:
            return
        first = int(failed[0])
        among = f"boards {first} to {min(first + WIDTH, self._n_boards) - 1}"
        if status == self._status.NO_NUMBER:
            raise SolverError(f"{among}: an update is not a number: narrow the conductance range or lower the volts")
        raise SolverError(f"{among}: {SINGULAR if status == self._status.SINGULAR else TOO_TIGHT}")

    def _set_devices(
        self,
        device_range: DeviceRange | None,
        pots: Potentiometer | Sequence[Potentiometer] | None,
        defects: PotDefects | None,
        seeds: Sequence[int] | None,
    ) -> None:
        n_edges = self._network.n_edges
        device_range = DeviceRange.nominal(device_range, pots)
        # One row of codes and one pair of limits serve all edges of all boards in a single look-up.
        self._shared = device_range if device_range.g_min.ndim == device_range.g_max.ndim == 0 else None
        self._device_range = device_range.for_edges(n_edges)
        self._truths: list[PotTruth] | None = None
        if (seeds is None) != (defects is None):
            raise InputError("defects of stacked boards need the seeds they are drawn by, and seeds the defects")
        if defects is not None and seeds is not None:
            if len(seeds) != self._n_boards:
                raise InputError(f"there are {self._n_boards} boards, but {len(seeds)} seeds: give one for each")
            self._truths = [
                PotTruth(n_edges, self._device_range, pots, defects, streams(int(seed))[0]) for seed in seeds
            ]

    def _projected(self, wished: FloatArray) -> tuple[FloatArray, IntArray | None]:
        """Return the conductances (B, M) the devices take, and their codes (B, M)."""
        if not self._device_range.is_discrete:
            return np.ascontiguousarray(self._device_range.clip(wished)), None
        if self._shared is not None:
            found = [self._shared.project(wished.reshape(-1))]
        else:
            found = [self._device_range.project(row) for row in wished]
        codes = np.concatenate([each.codes for each in found if each.codes is not None])
        return np.concatenate([each.conductances for each in found]).reshape(wished.shape), codes.reshape(wished.shape)

    def _set(
        self, conductances: FloatArray, codes: IntArray | None, padded: FloatArray | None = None
    ) -> IntArray | None:
        """Take over realised conductances (B, M) and codes; return the codes."""
        self._conductances = frozen(conductances)
        truth = conductances
        if self._truths is not None:
            each = codes if codes is not None else [None] * len(conductances)
            truth = np.stack(
                [pots.conductances(row, code) for pots, row, code in zip(self._truths, conductances, each, strict=True)]
            )
        self._true = self._padded(truth) if padded is None or self._truths is not None else padded
        return codes

    def _padded(self, rows: FloatArray) -> FloatArray:
        """Return (B rounded up, M), the last board repeated."""
        missing = rounded_up(self._n_boards) - self._n_boards
        return np.pad(rows, ((0, missing), (0, 0)), mode="edge") if missing else np.ascontiguousarray(rows)

    def _prepared(self, inputs: npt.ArrayLike, targets: npt.ArrayLike) -> "_Samples":
        """Return what the kernels take of samples; that of the same arrays is kept."""
        kept = self._samples
        if kept is None or kept.given[0] is not inputs or kept.given[1] is not targets:
            volts = samples_by("inputs", inputs, len(self._network.inputs), InputError)
            wanted = samples_by("targets", targets, len(self._network.outputs), InputError)
            if not (np.isfinite(volts).all() and np.isfinite(wanted).all()):
                raise InputError("a contrast needs finite volts at every input and output")
            kept = self._new_samples((inputs, targets), volts, wanted)
            constant = [isinstance(array, np.ndarray) and not array.flags.writeable for array in (inputs, targets)]
            self._samples = kept if all(constant) else None
        return kept

    def _new_samples(
        self, given: tuple[npt.ArrayLike, npt.ArrayLike], inputs: FloatArray, targets: FloatArray
    ) -> "_Samples":
        above = inputs - inputs[:, :1]
        above[:, 0] = inputs[:, 0]
        of_rows = above[:, 1:]
        i, r = np.tril_indices(of_rows.shape[1])
        products = of_rows[:, i] * of_rows[:, r] * np.where(i == r, 1.0, 2.0)
        n_values, network = targets.size, self._network
        work = aligned((self._fixed + n_values) * WIDTH)
        n, n_rows = len(network.floating), len(network.inputs) - 1
        basis = work[self._values_start :][: int(np.prod(self._values_shape))].reshape(self._values_shape)
        basis[n + 1 :, :n_rows] = np.eye(n_rows)[:, :, None]
        lanes = aligned((2 * network.n_edges + n_values + 2 * len(targets) + self._kernels.FIGURES) * WIDTH)
        above, products, targets = (frozen(np.ascontiguousarray(array)) for array in (above, products, targets))
        return _Samples(given, above, products, targets, work, lanes)


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples as the kernels take them, and the kernels' memory for so many."""

    given: tuple[npt.ArrayLike, npt.ArrayLike]
    volts: FloatArray
    products: FloatArray
    targets: FloatArray
    work: FloatArray
    lanes: FloatArray
