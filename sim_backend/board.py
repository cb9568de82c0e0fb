"""The simulated board: the exact network behind real (or ideal) pots, sources and meters."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hilcl.arrays import FloatArray, frozen, per_edge, samples_by
from hilcl.board import BoardSnapshot, Contrast, Response, SafeExit, contrast_from_responses
from hilcl.device_range import DeviceRange
from hilcl.errors import BoardError, InputError
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend.basis import Accuracy, Basis, BasisSolver
from hilcl.sim_backend.fused import FusedKernel, FusedStepper, is_compiled
from hilcl.sim_backend.imperfections import Imperfections
from hilcl.sim_backend.solvers import SolverName
from hilcl.sim_backend.terminals import settle
from hilcl.sim_backend.truth import MeterTruth, PotTruth, source_offsets, streams, with_ground
from hilcl.task import Task
from hilcl.whole_step import Stepper


class SimulatedBoard(SafeExit):
    """A board that exists only as its exact equations; it implements ``hilcl.board.Board``.

    ``conductances`` (M,) or a scalar, in siemens, is programmed at once. ``device_range`` is what the devices can take
    (by default any conductance, or the nominal codes of ``pots`` where these are given). ``imperfections`` says how the
    real devices differ from their nominal figures, drawn from ``seed``; ``pots`` gives the nominal law those defects
    start from, one for all edges or one per edge. ``solver`` and ``accuracy`` as in ``BasisSolver``.

    ``program`` returns nominal conductances, as a bench without calibration would; ``true_conductances`` is
    the hidden truth. Raises InputError for values that do not fit the network.
    """

    def __init__(
        self,
        network: Network,
        conductances: npt.ArrayLike,
        device_range: DeviceRange | None = None,
        imperfections: Imperfections | None = None,
        seed: int = 0,
        *,
        pots: Potentiometer | Sequence[Potentiometer] | None = None,
        solver: SolverName = "auto",
        accuracy: Accuracy = "standard",
    ) -> None:
        self._network = network
        self._imperfections = imperfections or Imperfections()
        self._device_range = DeviceRange.nominal(device_range, pots).for_edges(network.n_edges)
        of_pots, of_meters, of_sources, noise = streams(seed)
        defects = self._imperfections
        self._truth = PotTruth(network.n_edges, self._device_range, pots, defects.pots, of_pots)
        self._exact = defects.none_at_all and self._truth.is_nominal
        self._meters = MeterTruth(network.n_nodes, defects.meters, of_meters, noise)
        self._source_offset = source_offsets(len(network.terminals), defects.sources, of_sources)
        self._grounded = bool(np.isfinite(self._imperfections.meters.input_resistance))
        circuit = with_ground(network) if self._grounded else network
        self._solver = BasisSolver(circuit, solver, accuracy)
        self._basis: Basis | None = None
        self._ideal_terminals = defects.ideal_terminals
        fused = self._solver.solver_name == "fused" and accuracy == "standard" and self._ideal_terminals
        self._kernel = FusedKernel(network) if fused and FusedKernel.applies(network) else None
        self._projected: FloatArray | None = None
        self._samples: tuple[FloatArray, FloatArray] | None = None
        self.program(per_edge("conductances", conductances, network.n_edges, InputError))

    @property
    def network(self) -> Network:
        """The wiring."""
        return self._network

    @property
    def device_range(self) -> DeviceRange:
        """Nominal limits and codes of every edge."""
        return self._device_range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens, as best known: nominal."""
        return self._conductances

    @property
    def true_conductances(self) -> FloatArray:
        """What the edges really have, (M,) in siemens: what a bench could never tell."""
        return self._true_conductances

    @property
    def exact(self) -> bool:
        """True where no imperfection is switched on and the pots are what the device range says."""
        return self._exact

    @property
    def solver_name(self) -> str:
        """Which solver computes this board."""
        return self._solver.solver_name

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever waits for this board should know."""
        if self._kernel is None or is_compiled():
            return ()
        return ("the fast kernels are being compiled, once on this computer: about ten seconds",)

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        """Project (M,) siemens onto the devices, set them, and return the nominal realised conductances (M,)."""
        if conductances is self._projected and self._projected is not None:
            # Projected by this board's own kernel, and read-only.
            self._conductances = self._true_conductances = self._projected
            self._basis = self._projected = None
            return self._conductances
        wished = per_edge("conductances", conductances, self._network.n_edges, InputError)
        if not (np.minimum.reduce(wished) > 0 and np.maximum.reduce(wished) < np.inf):
            edge = int(np.flatnonzero(~(np.isfinite(wished) & (wished > 0)))[0])
            raise InputError(f"edge {edge} was given {wished[edge]:g} S: a conductance must be positive and finite")
        if self._exact and not self._device_range.is_discrete:
            self._conductances = self._true_conductances = frozen(self._device_range.clip(wished))
        else:
            projection = self._device_range.project(wished)
            self._conductances = frozen(projection.conductances)
            self._true_conductances = frozen(self._truth.conductances(projection.conductances, projection.codes))
        self._basis = None
        return self._conductances

    def respond(self, drives: npt.ArrayLike) -> Response:
        """Drive the terminals with (S, T) volts, NaN floating, and read every node and terminal current."""
        wanted = samples_by("drives", drives, len(self._network.terminals), InputError)
        if np.isinf(wanted).any():
            raise InputError("drives must be finite volts, or NaN for a floating terminal")
        sources = self._imperfections.sources
        applied = wanted + self._source_offset
        n_inputs, n_terminals = len(self._network.inputs), len(self._network.terminals)
        resistance = np.full(n_terminals, sources.series)
        limit = np.full(n_terminals, sources.compliance)
        if self._grounded:
            if np.isnan(wanted).all(axis=1).any():
                raise BoardError("a sample drives no terminal, so the board's potentials are undefined: drive one")
            applied = np.insert(applied, n_inputs, 0.0, axis=1)
            resistance, limit = np.insert(resistance, n_inputs, 0.0), np.insert(limit, n_inputs, np.inf)
        state = settle(self._current_basis(), applied, resistance, limit)
        keep = np.delete(np.arange(applied.shape[1]), n_inputs) if self._grounded else slice(None)
        readings, uncertainty = self._meters.read(state.potentials[:, : self._network.n_nodes])
        currents = state.currents[:, keep]
        return Response(readings, currents, uncertainty, np.zeros_like(currents), state.in_compliance[:, keep])

    def contrast(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, nudge: float) -> Contrast:
        """Return both phases of every sample; with ideal meters and sources from one fused computation."""
        inputs, targets = self._finite_samples(inputs, targets)
        if not self._ideal_terminals:
            return contrast_from_responses(self, inputs, targets, nudge)
        if self._kernel is not None:
            return self._kernel.contrast(self._true_conductances, inputs, targets, nudge)
        return fused_contrast(self._current_basis(), inputs, targets, nudge)

    def stepper(self, task: Task, nudge: float, limits: DeviceRange) -> Stepper | None:
        """Return the compiled step of an ideal board with the solver "fused"; see ``StepsWhole``."""
        whole = self._exact and limits is self._device_range
        if self._kernel is None or not whole or type(self).contrast is not SimulatedBoard.contrast:
            return None
        return FusedStepper(self._kernel, self._for_kernel, self._take_projected, task, nudge, limits)

    def snapshot(self) -> BoardSnapshot:
        """Return the state of the noise generator, the only memory a simulated board has."""
        if self._imperfections.meters.noise == 0:
            return {}
        return {"noise": self._meters.noise.bit_generator.state}

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Set the noise generator back to a snapshot."""
        if "noise" in snapshot:
            self._meters.noise.bit_generator.state = snapshot["noise"]

    def make_safe(self) -> None:
        """A simulated board is always safe."""

    def close(self) -> None:
        """Nothing is held."""

    def _finite_samples(self, inputs: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the samples as arrays (S, I) and (S, O) of finite numbers."""
        # The loop asks for the same read-only arrays at every step.
        if self._samples is not None and self._samples[0] is inputs and self._samples[1] is targets:
            return self._samples
        volts = samples_by("inputs", inputs, len(self._network.inputs), InputError)
        wanted = samples_by("targets", targets, len(self._network.outputs), InputError)
        if not (np.isfinite(volts).all() and np.isfinite(wanted).all()):
            raise InputError("a contrast needs finite volts at every input and output")
        if isinstance(inputs, np.ndarray) and isinstance(targets, np.ndarray):
            same = (_is_constant_table(given) for given in (inputs, targets))
            self._samples = (inputs, targets) if all(same) else None
        return volts, wanted

    def _for_kernel(self) -> FloatArray:
        return self._true_conductances

    def _take_projected(self, conductances: FloatArray) -> None:
        # Of devices with codes it is not what they take.
        self._projected = None if self._device_range.is_discrete else conductances

    def _current_basis(self) -> Basis:
        if self._basis is None:
            self._basis = self._solver.solve(self._circuit_conductances())
        return self._basis

    def _circuit_conductances(self) -> FloatArray:
        if not self._grounded:
            return self._true_conductances
        shunt = 1.0 / self._imperfections.meters.input_resistance
        return np.concatenate([self._true_conductances, np.full(self._network.n_nodes, shunt)])


def fused_contrast(basis: Basis, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
    """Return the contrast of ideal readings straight from the basis (docs/accuracy-and-speed.md)."""
    offset, relative = basis.input_coefficients(inputs)
    outputs: FloatArray = relative.dot(basis.transfer)
    outputs += offset
    clamp = basis.clamp_all()
    displacement = targets - outputs
    displacement *= nudge
    moved = clamp.coefficients(displacement)
    into_inputs = relative.dot(basis.input_admittance)
    return Contrast(
        gradient=basis.gradient(clamp, relative, displacement),
        outputs=outputs,
        power_free=np.add.reduce(into_inputs * inputs, axis=1),
        contrast=np.add.reduce(clamp.currents(displacement, moved) * displacement, axis=1) / nudge**2,
    )


def _is_constant_table(array: FloatArray) -> bool:
    return array.dtype == np.float64 and array.ndim == 2 and not array.flags.writeable
