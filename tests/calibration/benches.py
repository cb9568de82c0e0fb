"""Boards for the tests and benchmarks of the calibration, whose truth the calibration never sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hilcl.arrays import BoolArray, FloatArray
from hilcl.board import BoardSnapshot, Contrast, Response, SafeExit, contrast_from_responses
from hilcl.calibration.fit import InstrumentSpec
from hilcl.device_range import DeviceRange
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend import SimulatedBoard
from hilcl.sim_backend.imperfections import Imperfections, MeterDefects, PotDefects

POT = Potentiometer(257, 1e4, 75.0, 1200.0)
VOLTS = 4.0
LSB = 125e-6
AMMETER_GAIN, AMMETER_NOISE, AMMETER_OFFSET = 2e-4, 2e-7, 2e-7
"""Limits of an ammeter's gain and offset, and its noise, as of a bench source-measure unit on its 10 mA range."""

SPEC = InstrumentSpec(
    source_gain=0.0,
    source_offset=0.0,
    source_series=0.0,
    ammeter_gain=AMMETER_GAIN / np.sqrt(3.0),
    ammeter_offset=AMMETER_OFFSET / np.sqrt(3.0),
    meter_gain=0.01,
    meter_offset=0.01,
    meter_leak=0.0,
)


def board_32() -> Network:
    """Return a 4 x 4 torus: 32 edges, 16 nodes, 4 inputs, 2 outputs."""
    return Network.torus(4, 4, inputs=[0, 3, 9, 14], outputs=[6, 11])


def defects(**pots: Any) -> Imperfections:
    """Return the pots and meters of the accuracy target: ±20 %, 75 ± 25 Ω, 1.2 kΩ ± 1 %, 16 bits, 1 LSB of noise."""
    return Imperfections(
        PotDefects(tolerance=0.2, wiper_spread=1 / 3, series_spread=0.01, **pots),
        MeterDefects(gain=1e-3, offset=1e-3, noise=LSB, resolution=LSB),
    )


@dataclass(frozen=True)
class Faults:
    """What is wrong with a board beside its defects."""

    shorted: tuple[int, ...] = ()
    swapped_pots: tuple[int, int] | None = None
    swapped_channels: tuple[int, int] | None = None
    dead: dict[int, float] | None = None
    drift: float = 0.0
    drift_after: int = 10**9


class BenchLike(SafeExit):
    """A simulated board seen through real ammeters, with meters at some nodes only, and with faults.

    ``tapped``: nodes that have a meter (all by default). Implements ``hilcl.board.Board``.
    """

    def __init__(
        self,
        network: Network,
        seed: int,
        *,
        imperfections: Imperfections | None = None,
        pots: Potentiometer = POT,
        tapped: Sequence[int] | None = None,
        faults: Faults | None = None,
        ammeter_noise: float = AMMETER_NOISE,
    ) -> None:
        self.faults = faults or Faults()
        self.simulated = SimulatedBoard(
            network,
            1.0 / float(pots.resistances().mean()),
            imperfections=imperfections or defects(),
            seed=seed,
            pots=pots,
        )
        truth = self.simulated._truth.table
        assert truth is not None
        for edge in self.faults.shorted:
            truth[edge] = 1.0 / (1.0 / truth[edge, 0] - pots.wiper)
        self.truth: FloatArray = truth
        self.pots = pots
        self._tapped: BoolArray = np.ones(network.n_nodes, dtype=np.bool_)
        if tapped is not None:
            self._tapped[:] = False
            self._tapped[list(tapped)] = True
        self._generator = np.random.default_rng([seed, 77])
        draws = self._generator.uniform(-1.0, 1.0, (2, len(network.terminals)))
        self._ammeter_gain = 1.0 + AMMETER_GAIN * draws[0] * (ammeter_noise > 0)
        self._ammeter_offset = AMMETER_OFFSET * draws[1] * (ammeter_noise > 0)
        self._ammeter_noise = ammeter_noise
        self.n_drives = 0

    @property
    def network(self) -> Network:
        return self.simulated.network

    @property
    def device_range(self) -> DeviceRange:
        return self.simulated.device_range

    @property
    def conductances(self) -> FloatArray:
        return self.simulated.conductances

    @property
    def exact(self) -> bool:
        return False

    def program(self, conductances: npt.ArrayLike) -> FloatArray:
        wished = np.array(conductances, dtype=np.float64)
        nominal = self.device_range.project(wished).conductances
        if self.faults.swapped_pots is not None:
            pair = list(self.faults.swapped_pots)
            wished[pair] = wished[pair[::-1]]
        self.simulated.program(wished)
        return nominal

    def respond(self, drives: npt.ArrayLike) -> Response:
        response = self.simulated.respond(drives)
        potentials, currents = response.potentials.copy(), response.currents.copy()
        self.n_drives += len(potentials)
        if self.faults.drift and self.n_drives > self.faults.drift_after:
            potentials += self.faults.drift
        if self.faults.swapped_channels is not None:
            pair = list(self.faults.swapped_channels)
            potentials[:, pair] = potentials[:, pair[::-1]]
        for node, volts in (self.faults.dead or {}).items():
            potentials[:, node] = volts + LSB * np.rint(self._generator.standard_normal(len(potentials)))
        potentials[:, ~self._tapped] = np.nan
        noise = self._ammeter_noise * self._generator.standard_normal(currents.shape)
        currents = self._ammeter_gain * currents + self._ammeter_offset + noise
        return replace(response, potentials=potentials, currents=currents)

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        return contrast_from_responses(self, inputs, targets, nudge)

    def snapshot(self) -> BoardSnapshot:
        return {}

    def restore(self, snapshot: BoardSnapshot) -> None:
        pass

    def make_safe(self) -> None:
        pass

    def close(self) -> None:
        pass


SMALL_POT = Potentiometer(128, 1e4, 60.0, 800.0)


def small_board() -> Network:
    """Return a 3 x 3 grid: 12 edges, 3 inputs, 2 outputs."""
    return Network.grid(3, 3, inputs=[0, 2, 6], outputs=[8, 5])


def small_bench(seed: int = 1, **more: Any) -> BenchLike:
    """Return a bench with the small board."""
    return BenchLike(more.pop("network", small_board()), seed, pots=SMALL_POT, **more)
