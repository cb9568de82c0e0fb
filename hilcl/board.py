"""The board as the learning loop sees it: program conductances, drive terminals, read what comes back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.device_range import DeviceRange
from hilcl.errors import ComplianceError, MeasurementError
from hilcl.network import Network

BoardSnapshot = Mapping[str, Any]


@dataclass(frozen=True)
class Response:
    """What a board answers to S drives.

    ``potentials`` (S, N) in volts and ``currents`` (S, T) in amperes, from the source into the board, terminals in
    the order inputs, outputs; NaN where the bench has no meter. ``potentials_u`` and ``currents_u`` are their
    standard uncertainties. ``in_compliance`` (S, T) marks terminals whose source reached its limit.
    """

    potentials: FloatArray
    currents: FloatArray
    potentials_u: FloatArray
    currents_u: FloatArray
    in_compliance: BoolArray


@dataclass(frozen=True)
class Contrast:
    """What the loop asks of a board: both phases of S samples, summed where a sum is enough.

    ``gradient`` (M,) in V²: Σ_s (v_N² − v_F²), v_N in the nudged (or clamped) phase, v_F in the free phase.
    ``outputs`` (S, O) in volts: the free phase. ``power_free`` (S,) in watts. ``contrast`` (S,) in watts: P_clamped −
    P_free at the full clamp, which for linear resistors is the nudged difference divided by η². ``clamp_error`` in
    volts: the largest distance between an applied and a realised clamp.
    """

    gradient: FloatArray
    outputs: FloatArray
    power_free: FloatArray
    contrast: FloatArray
    clamp_error: float = 0.0


@runtime_checkable
class Board(Protocol):
    """The abstract device layer under the one loop.

    Drives are (S, T) volts over the terminals, inputs then outputs; NaN means floating.
    """

    @property
    def network(self) -> Network:
        """The wiring, for example ``Network(12 nodes, 32 edges, 8 inputs, 4 outputs, 0 hidden)``."""
        ...

    @property
    def device_range(self) -> DeviceRange:
        """Per-edge limits and the table of realisable conductances as best known, each (M,) or (M, K)."""
        ...

    @property
    def conductances(self) -> FloatArray:
        """The conductances (M,) in siemens now programmed, as best known: ``array([1.0e-4, 2.5e-4])``."""
        ...

    @property
    def exact(self) -> bool:
        """True where readings and conductances carry no error at all (the ideal simulator)."""
        ...

    def program(self, conductances: FloatArray) -> FloatArray:
        """Project onto what the devices can take, write, and return the realised conductances as best known, (M,)."""
        ...

    def respond(self, drives: FloatArray) -> Response:
        """Drive the terminals (S, T), read nodes and currents: ``respond([[1.0, 0.0, nan]]).potentials`` is (1, N)."""
        ...

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure the free and the nudged phase of every sample, inputs (S, I) and targets (S, O) in volts."""
        ...

    def snapshot(self) -> BoardSnapshot:
        """Return, as JSON values, what besides the conductances decides the next reading; ``{}`` on a real bench."""
        ...

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what ``snapshot`` returned."""
        ...

    def make_safe(self) -> None:
        """Bring every output to a safe state; may be called any number of times and never stops halfway."""
        ...

    def close(self) -> None:
        """Make the board safe and let go of its devices."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def free_drives(inputs: FloatArray, n_outputs: int) -> FloatArray:
    """Return drives (S, T) that hold the inputs (S, I) in volts and let every output float."""
    return np.hstack([inputs, np.full((len(inputs), n_outputs), np.nan)])


def contrast_from_responses(
    board: Board,
    inputs: FloatArray,
    targets: FloatArray,
    nudge: float,
    *,
    judge: Callable[[FloatArray, Response], None] = lambda clamp, nudged: None,
) -> Contrast:
    """Measure a contrast by two ``respond`` calls, from measured voltages alone.

    Both phases are read at every node; the clamp's applied value is o + η(y − o) with the outputs o just measured.
    v_N² − v_F² is formed as (v_N − v_F)(v_N + v_F) (docs/imperfections.md: both phases carry the same reading noise, so
    its bias cancels). The contrast comes from the clamp currents, λ·(c − o)/η², or where a current has no meter
    from Σ g (v_N² − v_F²)/η².

    ``judge`` is given the clamps (S, O) in volts and the response to them before either is used.

    Raises ComplianceError where a source reached its limit and MeasurementError where a needed reading is missing.
    """
    network = board.network
    free = board.respond(free_drives(inputs, len(network.outputs)))
    require_usable(network, free, needed=np.arange(network.n_nodes))
    outputs = free.potentials[:, network.outputs]
    clamp = outputs + nudge * (targets - outputs)
    nudged = board.respond(np.hstack([inputs, clamp]))
    require_usable(network, nudged, needed=np.arange(network.n_nodes))
    judge(clamp, nudged)
    v_free, v_nudged = network.edge_voltages(free.potentials), network.edge_voltages(nudged.potentials)
    squares = (v_nudged - v_free) * (v_nudged + v_free)
    realised = nudged.potentials[:, network.outputs]
    clamp_currents = nudged.currents[:, len(network.inputs) :]
    if np.isnan(clamp_currents).any():
        work = squares @ board.conductances
    else:
        work = (clamp_currents * (realised - outputs)).sum(axis=1)
    return Contrast(
        gradient=squares.sum(axis=0),
        outputs=outputs,
        power_free=_terminal_power(network, free),
        contrast=work / nudge**2,
        clamp_error=float(np.abs(realised - clamp).max(initial=0.0)),
    )


def _terminal_power(network: Network, response: Response) -> FloatArray:
    """Return Σ V_t I_t in watts per sample (Tellegen: what the edges dissipate); NaN where a current has no meter."""
    power: FloatArray = (response.potentials[:, network.terminals] * response.currents).sum(axis=1)
    return power


def require_usable(network: Network, response: Response, needed: IntArray) -> None:
    """Raise ComplianceError or MeasurementError where a reading at the needed nodes cannot be used."""
    limited = np.argwhere(response.in_compliance)
    if len(limited):
        sample, terminal = limited[0].tolist()
        raise ComplianceError(
            f"the source at {network.name(int(network.terminals[terminal]))} reached its current limit in sample "
            f"{sample}: raise the compliance, lower the volts, or limit the largest conductance"
        )
    readings = response.potentials[:, needed]
    finite = np.isfinite(readings)
    if finite.all():
        return
    sample, column = np.argwhere(~finite)[0].tolist()
    node = int(needed[column])
    touching = np.flatnonzero((network.edges == node).any(axis=1)).tolist()
    if np.isnan(readings[:, column]).all():
        raise MeasurementError(
            f"{network.name(node)} has no meter, so edges {touching} cannot be trained: give it a meter channel"
        )
    raise MeasurementError(
        f"the reading at {network.name(node)} in sample {sample} is {readings[sample, column]}: "
        "check that node's wiring and meter range"
    )


class SafeExit(ABC):
    """Mixin: leaving a ``with`` block closes the board, whatever ended the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the devices."""


class BoardAround(SafeExit):
    """A board that passes everything on to ``board``; those that change something replace that part."""

    def __init__(self, board: Board) -> None:
        self.board = board

    @property
    def network(self) -> Network:
        """The wiring of the board itself."""
        return self.board.network

    @property
    def device_range(self) -> DeviceRange:
        """Limits and codes of every edge, as best known."""
        return self.board.device_range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens, as best known."""
        return self.board.conductances

    @property
    def exact(self) -> bool:
        """True where readings and conductances carry no error at all."""
        return self.board.exact

    def program(self, conductances: FloatArray) -> FloatArray:
        """Program (M,) siemens and return what was realised, (M,)."""
        return self.board.program(conductances)

    def respond(self, drives: FloatArray) -> Response:
        """Drive the terminals (S, T) and read."""
        return self.board.respond(drives)

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure both phases of every sample."""
        return self.board.contrast(inputs, targets, nudge)

    def snapshot(self) -> BoardSnapshot:
        """Return what decides the next reading."""
        return self.board.snapshot()

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back what ``snapshot`` returned."""
        self.board.restore(snapshot)

    def make_safe(self) -> None:
        """Make the board safe."""
        self.board.make_safe()

    def close(self) -> None:
        """Close the board."""
        self.board.close()
