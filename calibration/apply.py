"""Using a calibration: boards that know what their codes are worth, their twin, and what a watch starts from."""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray, frozen
from hilcl.board import Board, BoardAround, Contrast, Response, contrast_from_responses
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.parameters import MeterParameters, PotParameters, SourceParameters
from hilcl.calibration.watch import WatchReference
from hilcl.device_range import DeviceRange
from hilcl.network import Network

LAW_FLOOR = 2e-4
"""Relative error by which any pot may leave its fitted law."""


class CalibratedBoard(BoardAround):
    """A board that is programmed and read through its calibration; it implements ``hilcl.board.Board``.

    ``device_range`` holds the calibrated conductances of the codes that both the board and the calibration allow;
    ``program`` projects through them and writes the code. ``respond`` takes the meters' and ammeters' gain and offset
    out of the readings.

    Raises CalibrationError where the board has no codes, or other ones than the calibration.
    """

    def __init__(self, board: Board, calibration: Calibration) -> None:
        super().__init__(board)
        self.calibration = calibration
        self._network = board.network
        self._nominal = code_table(board)
        known = calibration.table
        if known.shape != self._nominal.shape:
            raise CalibrationError(
                f"the board has {self._nominal.shape[0]} edges with {self._nominal.shape[1]} codes, the calibration "
                f"{known.shape[0]} with {known.shape[1]}: calibrate this board"
            )
        self._range = calibrated_range(board.device_range.for_edges(self._network.n_edges), known)
        self._meters, self._sources = calibration.meter_parameters, calibration.source_parameters
        self._reads_true = bool(
            np.array_equal(self._meters.gain, np.ones_like(self._meters.gain)) and not self._meters.offset.any()
        )
        # The codes now set are known by their nominal conductances.
        codes = board.device_range.project(board.conductances).codes
        edges = np.arange(self._network.n_edges)
        present = np.where(np.isnan(known[edges, codes]), board.conductances, known[edges, codes])
        self._conductances = frozen(present)

    @property
    def device_range(self) -> DeviceRange:
        """Calibrated limits and codes of every edge."""
        return self._range

    @property
    def conductances(self) -> FloatArray:
        """Programmed conductances (M,) in siemens by the calibration."""
        return self._conductances

    @property
    def exact(self) -> bool:
        """A calibration carries uncertainty."""
        return False

    def program(self, conductances: FloatArray) -> FloatArray:
        """Project (M,) siemens onto the calibrated codes, write them, and return their calibrated conductances (M,)."""
        projection = self._range.project(np.asarray(conductances, dtype=np.float64))
        codes = projection.codes
        self.board.program(self._nominal[np.arange(self._network.n_edges), codes])
        self._conductances = frozen(projection.conductances)
        return self._conductances

    def respond(self, drives: FloatArray) -> Response:
        """Drive the terminals (S, T) and return corrected readings."""
        return corrected(self.board.respond(drives), self._meters, self._sources)

    def contrast(self, inputs: FloatArray, targets: FloatArray, nudge: float) -> Contrast:
        """Measure both phases of every sample, corrected; what the board does itself where nothing is to correct."""
        if self._reads_true:
            return self.board.contrast(inputs, targets, nudge)
        return contrast_from_responses(self, inputs, targets, nudge)


def code_table(board: Board) -> FloatArray:
    """Return the nominal conductance of every code, (M, K) in siemens, NaN where a code must not be written.

    Raises CalibrationError where the board has no codes.
    """
    table = board.device_range.for_edges(board.network.n_edges).table
    if table is None:
        raise CalibrationError("the board has no codes, so there is nothing to calibrate: give it [board.pots]")
    return np.array(np.broadcast_to(table, (board.network.n_edges, table.shape[-1])))


def calibrated_range(nominal: DeviceRange, table: FloatArray) -> DeviceRange:
    """Return the device range of a calibrated table (M, K) in siemens, without the codes that ``nominal`` forbids.

    Limits given in siemens are limits of the nominal table: they exclude codes, and the same codes are excluded here.
    Raises CalibrationError where an edge is left without a code.
    """
    if nominal.table is None:
        return DeviceRange(nominal.g_min, nominal.g_max, table)
    usable = np.where(np.isnan(np.broadcast_to(nominal.table, table.shape)), np.nan, table)
    empty = np.flatnonzero(np.isnan(usable).all(axis=1))
    if empty.size:
        raise CalibrationError(f"edge {empty[0]} has no code that both the board and the calibration allow")
    return DeviceRange.from_table(usable)


def corrected(response: Response, meters: MeterParameters, sources: SourceParameters) -> Response:
    """Return a response without its meters' and ammeters' gain and offset; its uncertainties are the calibration's.

    A node or terminal that the calibration knows no meter for is left as it was.
    """
    potentials = meters.correct(response.potentials)
    known = np.broadcast_to(np.isfinite(meters.gain), potentials.shape)
    potentials_u = np.where(known, meters.corrected_u(response.potentials), response.potentials_u)
    currents = (response.currents - sources.ammeter_offset) / sources.ammeter_gain
    # A floating terminal carries no current, whatever an ammeter's offset says.
    currents = np.where(response.currents == 0.0, 0.0, currents)
    return Response(potentials, currents, potentials_u, response.currents_u, response.in_compliance)


def relative_uncertainty(calibration: Calibration) -> FloatArray:
    """Return the relative standard uncertainty of every code's conductance, (M, K), both parts together."""
    statistical, instrument = calibration.table_u
    return np.hypot(statistical, instrument) / calibration.table


def step_size_margin(calibration: Calibration, coverage: float = 3.0) -> float:
    """Return the factor by which a step size bounded by 2/L is to be lowered for what is not known.

    L grows as 1/g_min (docs/theory.md), so the factor is 1 − k·u(g)/g at the least known smallest conductance, with
    the coverage factor k.
    """
    table = calibration.table
    smallest = np.nanargmin(table, axis=1)
    u = relative_uncertainty(calibration)[np.arange(len(table)), smallest]
    return float(max(0.5, 1.0 - coverage * u.max()))


def largest_conductances(calibration: Calibration, coverage: float = 3.0) -> FloatArray:
    """Return the largest conductance (M,) in siemens that each edge may have, uncertainty included.

    For the check of currents and powers before anything is driven; ``coverage`` is the factor k of the uncertainty.
    """
    upper: FloatArray = np.nanmax(calibration.table * (1.0 + coverage * relative_uncertainty(calibration)), axis=1)
    return upper


@dataclass(frozen=True, eq=False)
class Twin:
    """What a simulated board needs to be the digital twin of a calibrated one, behind corrected meters.

    ``table`` (M, K) in siemens: what every code is worth, NaN where it must not be written. ``fixed`` (M,): edges that
    do not follow their code, in siemens, NaN elsewhere. ``meter_noise`` (N,) in volts and ``current_noise`` (T,) in
    amperes of one reading. ``source_offset`` (T,) in volts and ``source_series`` (T,) in ohms. Give
    ``device_range`` to the simulated board and no pots: then its truth is the table.
    """

    network: Network
    table: FloatArray
    fixed: FloatArray
    meter_noise: FloatArray
    current_noise: FloatArray
    source_offset: FloatArray
    source_series: FloatArray

    @property
    def device_range(self) -> DeviceRange:
        """The table as what the devices can take."""
        return DeviceRange.from_table(self.table)

    def drawn(self, calibration: Calibration, generator: np.random.Generator) -> "Twin":
        """Return a twin drawn from the calibration's uncertainty: train on several to see what that leaves open."""
        pots = calibration.pot_parameters
        scale = np.sqrt(np.diagonal(pots.covariance))
        unit = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        variances, axes = np.linalg.eigh(pots.covariance * np.outer(unit, unit))
        noise = axes @ (np.sqrt(np.maximum(variances, 0.0)) * generator.standard_normal(len(scale)))
        values = pots.values + (scale * noise).reshape(pots.values.shape)
        other = PotParameters(pots.pots, pots.names, values, pots.statistical, pots.instrument)
        table = np.where(np.isnan(self.table), np.nan, other.table)
        if (table <= 0).any():
            raise CalibrationError("the calibration is too uncertain to draw a board from it: calibrate longer")
        return Twin(
            self.network,
            table,
            self.fixed,
            self.meter_noise,
            self.current_noise,
            self.source_offset,
            self.source_series,
        )


def twin_of(calibration: Calibration) -> Twin:
    """Return the digital twin that a calibration describes."""
    meters, sources, table = calibration.meter_parameters, calibration.source_parameters, calibration.table
    following = np.array([np.ptp(row[~np.isnan(row)]) > 0 for row in table])
    return Twin(
        calibration.network,
        table,
        np.where(following, np.nan, np.nanmax(table, axis=1)),
        np.where(np.isfinite(meters.gain), meters.noise / meters.gain, 0.0),
        sources.ammeter_noise / sources.ammeter_gain,
        sources.offset,
        sources.series,
    )


def watch_reference(calibration: Calibration, *, floor: float = LAW_FLOOR) -> WatchReference:
    """Return what a watch of this board starts from: the calibration with its covariance, correlations included.

    ``floor`` is a relative error of the fixed part and of the track that is always allowed for. The non-linearity's
    uncertainty is added to it.
    """
    pots, meters, sources = calibration.pot_parameters, calibration.meter_parameters, calibration.source_parameters
    edges, terms = pots.values.shape
    resistances = 1.0 / np.where(np.isnan(calibration.table), np.nan, pots.table)
    rows = np.arange(edges)
    low, high = np.nanargmin(resistances, axis=1), np.nanargmax(resistances, axis=1)
    smallest, largest = resistances[rows, low], resistances[rows, high]
    track = largest - smallest
    follows = track > 1e-9 * smallest
    # Relative errors of the smallest resistance and of what is above it, linear in the parameters.
    projection = np.zeros((2, edges, edges * terms))
    for edge in range(edges):
        own = slice(edge * terms, (edge + 1) * terms)
        at_low, at_high = pots.law[edge, low[edge]], pots.law[edge, high[edge]]
        projection[0, edge, own] = at_low / smallest[edge]
        if follows[edge]:
            projection[1, edge, own] = (at_high - at_low) / track[edge]
    projection = projection.reshape(2 * edges, edges * terms)
    covariance = projection @ pots.covariance @ projection.T
    spare = np.tile(_bow_uncertainty(pots, resistances), 2)
    covariance[np.diag_indices(2 * edges)] += spare**2
    known = np.isfinite(meters.gain)
    gain = np.where(known, meters.gain, 1.0)
    noise = np.where(known & np.isfinite(meters.noise) & (meters.noise > 0), meters.noise, np.nan)
    usual = float(np.nanmedian(noise)) if np.isfinite(noise).any() else 1e-6
    # Gains come first in the calibration, offsets in the watch; both are errors per corrected volt here.
    per_gain = np.where(known, 1.0 / gain, 0.0)
    of_meters = np.roll(meters.covariance, len(gain), axis=(0, 1)) * np.outer(*[np.tile(per_gain, 2)] * 2)
    terminals = len(sources.gain)
    of_sources = np.sqrt(np.diagonal(sources.covariance))
    # Ammeters that show no noise still have a resolution: 2e-5 of the current one edge carries at a volt.
    resolution = 2e-5 * float(np.median(1.0 / smallest))
    return WatchReference.of(
        calibration.network,
        1.0 / smallest,
        covariance,
        meter_noise=np.where(np.isnan(noise), usual, noise) / gain,
        meter_covariance=of_meters,
        current_noise=np.maximum(np.nan_to_num(sources.ammeter_noise), resolution),
        current_offset_u=of_sources[4 * terminals :] + resolution,
        current_gain_u=of_sources[3 * terminals : 4 * terminals] + 1e-5,
        load=np.where(known, meters.leak, 0.0),
        floor=floor,
    )


def _bow_uncertainty(pots: PotParameters, resistances: FloatArray) -> FloatArray:
    """Return the largest relative standard uncertainty (M,) that the non-linearity alone gives a usable code."""
    edges, terms = pots.values.shape
    bows = pots.law[:, :, 2:]
    if terms == 2:
        return np.zeros(edges)
    own = pots.covariance.reshape(edges, terms, edges, terms)[np.arange(edges), 2:, np.arange(edges), 2:]
    variance = np.einsum("mkq,mqr,mkr->mk", bows, own, bows)
    relative: FloatArray = np.nanmax(np.sqrt(np.maximum(variance, 0.0)) / resistances, axis=1)
    return relative
