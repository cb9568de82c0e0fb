"""What the devices of a simulated bench really are, drawn by seed: shared by the simulator and the emulated bench."""

from collections.abc import Sequence

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from hilcl.sim_backend.imperfections import OPEN_CONDUCTANCE, MeterDefects, PotDefects, SourceDefects, true_tables


def streams(seed: int) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator, np.random.Generator]:
    """Return generators for pots, meters, sources and reading noise: switching one on does not move the others."""
    pots, meters, sources, noise = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(4))
    return pots, meters, sources, noise


class PotTruth:
    """The true conductance of every code of every pot, stuck and open pots included.

    ``table`` (M, K) in siemens, or None where conductances are continuous and exactly what they are set to.

    Raises InputError for defects of edges or codes that do not exist, and for pots that do not fit the device range.
    """

    def __init__(
        self,
        n_edges: int,
        device_range: DeviceRange,
        pots: Potentiometer | Sequence[Potentiometer] | None,
        defects: PotDefects,
        generator: np.random.Generator,
    ) -> None:
        self._n_edges, self._defects, self._range = n_edges, defects, device_range
        for edge in (*defects.stuck, *defects.opened):
            if not 0 <= edge < n_edges:
                raise InputError(f"pots: edge {edge} is said to be defective, but the board has no such edge")
        self.table = self._drawn(pots, generator)

    @property
    def is_nominal(self) -> bool:
        """True where every usable code is worth what the device range says."""
        nominal = self._range.table
        if self.table is None or nominal is None:
            return True
        usable = ~np.isnan(np.broadcast_to(nominal, self.table.shape))
        return bool((self.table[usable] == np.broadcast_to(nominal, self.table.shape)[usable]).all())

    def conductances(self, nominal: FloatArray, codes: IntArray | None) -> FloatArray:
        """Return the true conductances (M,) of pots set to these codes (M,), or to these siemens without codes."""
        if self.table is None and not self._defects.opened:
            return nominal
        truth = nominal.copy()
        if self.table is not None and codes is not None:
            held = codes.copy()
            for edge, code in self._defects.stuck.items():
                held[edge] = code
            truth = self.table[np.arange(len(held)), held]
        truth[list(self._defects.opened)] = OPEN_CONDUCTANCE
        return truth

    def _drawn(
        self, pots: Potentiometer | Sequence[Potentiometer] | None, generator: np.random.Generator
    ) -> FloatArray | None:
        nominal = self._range.full_table
        if nominal is None:
            self._refuse_defects_of_codes()
            return None
        n_edges, n_codes = self._n_edges, nominal.shape[-1]
        if pots is None:
            truth = np.array(np.broadcast_to(nominal, (n_edges, n_codes)), dtype=np.float64)
        else:
            each = [pots] * n_edges if isinstance(pots, Potentiometer) else list(pots)
            if len(each) != n_edges:
                raise InputError(
                    f"{len(each)} potentiometers were given for {n_edges} edges: give one, or one per edge"
                )
            most = max(pot.positions for pot in each)
            if most != n_codes:
                raise InputError(
                    f"the pots have up to {most} codes, but the device range has {n_codes}: they must agree"
                )
            truth = np.full((n_edges, n_codes), np.nan)
            for row, true_row in zip(truth, true_tables(each, self._defects, generator), strict=True):
                row[: len(true_row)] = true_row
        for edge, code in self._defects.stuck.items():
            if not 0 <= code < n_codes or np.isnan(truth[edge, code]):
                last = int(np.flatnonzero(~np.isnan(truth[edge]))[-1])
                raise InputError(f"pots: edge {edge} cannot be stuck at code {code}: its codes are 0 to {last}")
        return truth

    def _refuse_defects_of_codes(self) -> None:
        defects = self._defects
        if defects.stuck:
            raise InputError("pots: a pot can only be stuck at a code where the devices have codes: give pots")
        bent = (defects.tolerance, defects.wiper_spread, defects.series_spread, defects.inl, defects.temperature_rise)
        if any(bent):
            raise InputError("pots: tolerances belong to a potentiometer's law: give pots")


class MeterTruth:
    """What meters make of true potentials: ``gain`` and ``offset`` (C,) per channel, noise per reading, resolution."""

    def __init__(
        self, n_channels: int, defects: MeterDefects, channels: np.random.Generator, noise: np.random.Generator
    ) -> None:
        draws = channels.uniform(-1.0, 1.0, size=(2, n_channels))
        self._defects, self.noise = defects, noise
        self.gain: FloatArray = 1.0 + defects.gain * draws[0]
        self.offset: FloatArray = defects.offset * draws[1]

    def read(self, volts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the readings of true volts (S, C) and their standard uncertainties, both in volts."""
        defects = self._defects
        readings = volts * self.gain + self.offset
        if defects.noise:
            readings += defects.noise * self.noise.standard_normal(readings.shape)
        if defects.resolution:
            readings = np.rint(readings / defects.resolution) * defects.resolution
        # A value known to lie within ±a has the standard uncertainty a/√3, rounded to steps q has q/√12 (GUM 4.3.7).
        variance = defects.noise**2 + defects.resolution**2 / 12 + defects.offset**2 / 3
        return readings, np.sqrt(variance + (defects.gain * volts) ** 2 / 3)


def source_offsets(n_terminals: int, defects: SourceDefects, generator: np.random.Generator) -> FloatArray:
    """Return the volts (T,) that the source at each terminal adds to what it is told."""
    offsets: FloatArray = defects.offset * generator.uniform(-1.0, 1.0, size=n_terminals)
    return offsets


def with_ground(network: Network) -> Network:
    """Return the network with a ground node as its last input and one more edge per node: the meters' inputs."""
    ground = network.n_nodes
    shunts = np.stack([np.arange(ground), np.full(ground, ground)], axis=1)
    return Network(
        ground + 1,
        np.concatenate([network.edges, shunts]),
        np.append(network.inputs, ground),
        network.outputs,
    )
