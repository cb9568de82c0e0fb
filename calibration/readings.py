"""What was measured: one record per programmed pattern of codes, checked as it comes from the board."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.board import Board, Response
from hilcl.errors import ComplianceError, InputError, MeasurementError
from hilcl.network import Network

OVERFLOW = 1e30
"""Volts or amperes from which a number is an instrument's sign for overflow (9.9e37), not a reading."""

FINEST = 1e-6
"""Smallest resolution that is looked for, relative to the largest reading."""

ROUNDING = 1e-11
"""What rounding may leave of a difference that is nothing, relative to the largest reading."""

LEAST_VALUES = 8
"""Different values of a channel's readings that are needed to tell its resolution."""


@dataclass(frozen=True, eq=False)
class PatternReadings:
    """Readings at one pattern of codes (M,) under S drives (S, T) in volts, NaN floating.

    ``potentials`` (S, N) in volts and ``currents`` (S, T) in amperes, NaN where there is no meter or, for a current,
    the terminal floats.
    """

    codes: IntArray
    drives: FloatArray
    potentials: FloatArray
    currents: FloatArray

    @property
    def n_readings(self) -> int:
        """Number of readings."""
        return int(np.isfinite(self.potentials).sum() + np.isfinite(self.currents).sum())

    @property
    def metered(self) -> BoolArray:
        """Nodes (N,) with a reading at least."""
        return np.asarray(np.isfinite(self.potentials).any(axis=0), dtype=np.bool_)

    @property
    def ammeters(self) -> BoolArray:
        """Terminals (T,) with a current reading at least."""
        return np.asarray(np.isfinite(self.currents).any(axis=0), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard deviation of one reading: ``volts`` (N,) per node and ``amperes`` (T,) per terminal."""

    volts: FloatArray
    amperes: FloatArray

    def at(self, is_volts: BoolArray, place: IntArray) -> FloatArray:
        """Return the noise (R,) of readings of volts at nodes, or else of amperes at terminals."""
        return np.where(is_volts, self.volts[np.where(is_volts, place, 0)], self.amperes[np.where(is_volts, 0, place)])

    def scaled(self, volts: float, amperes: float) -> "Noise":
        """Return the noise times two factors."""
        return Noise(self.volts * volts, self.amperes * amperes)


def measure(board: Board, codes: IntArray, drives: FloatArray, metered: BoolArray | None = None) -> PatternReadings:
    """Program codes (M,), drive (S, T), and return the checked readings.

    ``metered`` (N,) says which nodes have a meter; a node said to have one must give readings.
    Raises InputError for codes the board does not have, ComplianceError and MeasurementError for unusable readings.
    """
    table = board.device_range.table
    if table is None:
        raise InputError("a calibration needs a board whose devices have codes: give the board its pots")
    board.program(board.device_range.conductances_of(codes))
    return checked(board.network, codes, drives, board.respond(drives), metered)


def checked(
    network: Network, codes: IntArray, drives: FloatArray, response: Response, metered: BoolArray | None
) -> PatternReadings:
    """Return the readings of a response; raises ComplianceError or MeasurementError where one cannot be used."""
    limited = np.argwhere(response.in_compliance)
    if len(limited):
        sample, terminal = limited[0].tolist()
        raise ComplianceError(
            f"the source at {network.name(int(network.terminals[terminal]))} reached its current limit at "
            f"{drives[sample, terminal]:g} V: raise its limit or lower the volts of the calibration"
        )
    for what, unit, values, nodes in (
        ("meter", "V", response.potentials, np.arange(network.n_nodes)),
        ("ammeter", "A", response.currents, network.terminals),
    ):
        beyond = np.argwhere(np.abs(values) > OVERFLOW)
        if len(beyond):
            sample, column = beyond[0].tolist()
            raise MeasurementError(
                f"the {what} at {network.name(int(nodes[column]))} returned {values[sample, column]:g} {unit}, its "
                "sign for overflow: choose a larger range, or check its wiring"
            )
    missing = np.isnan(response.potentials)
    expected = ~missing.all(axis=0) if metered is None else metered
    silent = np.argwhere(missing & expected)
    if len(silent):
        node = int(silent[0, 1])
        raise MeasurementError(
            f"the meter at {network.name(node)} returned no number: check that channel, or leave it out of the wiring"
        )
    currents = np.where(np.isnan(drives), np.nan, response.currents)
    return PatternReadings(codes.copy(), np.array(drives), response.potentials.copy(), currents)


def quantum(values: FloatArray) -> float:
    """Return the step between the possible values of readings, 0 where none can be told.

    It is the greatest common divisor of their differences, found by Euclid's algorithm. Readings without a resolution,
    or with one of more than 20 bits, end in what rounding leaves.
    """
    different = np.unique(values[np.isfinite(values)])
    if len(different) < LEAST_VALUES:
        return 0.0
    gaps = np.diff(different)
    largest = float(np.abs(different).max())
    common = float(gaps[0])
    for gap in gaps.tolist():
        other = gap
        while other > ROUNDING * largest:
            rest = common % other
            # A remainder next to the divisor is one next to nothing, rounded down.
            common, other = other, min(rest, other - rest)
        if common <= FINEST * largest:
            return 0.0
    return common


def noise_from_repeats(repeats: Sequence[FloatArray], everything: Sequence[FloatArray], floor: float) -> FloatArray:
    """Return the standard deviation (C,) of one reading per channel.

    ``repeats``: arrays (R, C) of readings under unchanged conditions; ``everything``: arrays (S, C) of all readings,
    from which the resolution is told (a quantum q has at least the standard deviation q/√12, GUM 4.3.7). Channels of
    one kind share what repeats tell, unless one is clearly noisier than the others (a factor 2). NaN where
    there is no meter.
    """
    degrees = sum(len(each) - 1 for each in repeats)
    squares = np.sum([((each - each.mean(axis=0)) ** 2).sum(axis=0) for each in repeats], axis=0)
    own = squares / max(degrees, 1)
    known = np.isfinite(own)
    if not known.any():
        return np.full(own.shape, np.nan)
    readings = np.concatenate(list(everything))
    common = quantum(readings)
    steps = np.array([quantum(column) or common for column in readings.T])
    if (own[known] <= 4.0 * float(np.median(own[known]))).all():
        own = np.where(known, float(np.mean(own[known])), np.nan)
    deviation: FloatArray = np.maximum(np.sqrt(np.maximum(own, steps**2 / 12.0)), floor)
    return deviation


def with_swapped_edges(records: Sequence[PatternReadings], first: int, second: int) -> list[PatternReadings]:
    """Return the records as if the codes of two edges had gone to each other's pots."""
    swapped = []
    for record in records:
        codes = record.codes.copy()
        codes[[first, second]] = codes[[second, first]]
        swapped.append(replace(record, codes=codes))
    return swapped


def with_swapped_nodes(records: Sequence[PatternReadings], first: int, second: int) -> list[PatternReadings]:
    """Return the records as if two meter channels were connected to each other's nodes."""
    swapped = []
    for record in records:
        potentials = record.potentials.copy()
        potentials[:, [first, second]] = potentials[:, [second, first]]
        swapped.append(replace(record, potentials=potentials))
    return swapped


def without_nodes(records: Sequence[PatternReadings], nodes: Sequence[int]) -> list[PatternReadings]:
    """Return the records without the readings of some nodes' meters."""
    kept = []
    for record in records:
        potentials = record.potentials.copy()
        potentials[:, list(nodes)] = np.nan
        kept.append(replace(record, potentials=potentials))
    return kept
