"""A run replayed on the digital twin: where measurement and twin part."""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.board import Board, free_drives, require_usable
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.linearised import linearised_readings
from hilcl.calibration.parameters import PotParameters
from hilcl.network import Network

PARTED_SIGMAS = 5.0
"""Standard uncertainties beyond which a measured output is not what the twin says, given the number of outputs."""

PARTED_EPOCHS = 3
"""Consecutive epochs in which that must be so: single readings go astray."""


@dataclass(frozen=True, eq=False)
class Replay:
    """A run beside its twin.

    ``epochs`` (E,) that were replayed; ``measured`` and ``twin`` (E, S, O) outputs in volts and ``sigma`` (E, S, O) the
    standard uncertainty of their difference; ``measured_loss`` and ``twin_loss`` (E,) in V².
    """

    epochs: IntArray
    measured: FloatArray
    twin: FloatArray
    sigma: FloatArray
    measured_loss: FloatArray
    twin_loss: FloatArray

    @property
    def differences(self) -> FloatArray:
        """Measured minus twin, (E, S, O) in volts."""
        return self.measured - self.twin

    @property
    def parted(self) -> tuple[int, int, int] | None:
        """The first epoch from which an output stays off the twin's, with the sample and output; None if none does."""
        beyond = np.abs(self.differences) > PARTED_SIGMAS * self.sigma
        needed = min(PARTED_EPOCHS, len(beyond))
        if not needed:
            return None
        lasting = np.array([beyond[at : at + needed].all(axis=0) for at in range(len(beyond) - needed + 1)])
        found = np.flatnonzero(lasting.any(axis=(1, 2)))
        if not found.size:
            return None
        at = int(found[0])
        ratio = np.abs(self.differences[at]) / self.sigma[at]
        sample, output = (int(place) for place in np.unravel_index(ratio.argmax(), ratio.shape))
        return int(self.epochs[at]), sample, output

    def lines(self, network: Network) -> list[str]:
        """Return what there is to say, for a terminal."""
        rms = np.sqrt((self.differences**2).mean(axis=(0, 1)))
        worst = np.abs(self.differences).max(axis=(0, 1))
        heading = (
            f"Replayed {len(self.epochs)} epochs of {self.measured.shape[1]} samples on the twin: final loss "
            f"{self.measured_loss[-1]:.4g} V² measured, {self.twin_loss[-1]:.4g} V² on the twin."
        )
        said = [heading]
        said += [
            f"  {network.name(int(node))}: {1e3 * rms[number]:.3g} mV rms, {1e3 * worst[number]:.3g} mV at most"
            for number, node in enumerate(network.outputs)
        ]
        parted = self.parted
        if parted is None:
            return [*said, "Measurement and twin agree within their uncertainty."]
        epoch, sample, output = parted
        at = int(np.flatnonzero(self.epochs == epoch)[0])
        off, u = float(self.differences[at, sample, output]), float(self.sigma[at, sample, output])
        said.append(
            f"They part in epoch {epoch}: {network.name(int(network.outputs[output]))} in sample {sample} is "
            f"{1e3 * off:+.3g} mV off, {abs(off) / u:.1f} standard uncertainties: "
            "the board is no longer what it was calibrated as."
        )
        return said


def replay(
    calibration: Calibration,
    twin: Board,
    inputs: FloatArray,
    targets: FloatArray,
    codes: IntArray,
    outputs: FloatArray,
    *,
    every: int = 1,
) -> Replay:
    """Program the codes (E, M) of a run on its twin and compare outputs (E, S, O) in volts as they were measured.

    ``inputs`` (S, I) and ``targets`` (S, O) in volts are the run's data; ``codes`` those in force when ``outputs`` were
    read. Every ``every``-th epoch is replayed, and the last one.

    Raises CalibrationError where the codes are not those of the calibrated board.
    """
    network, table, pots = calibration.network, calibration.table, calibration.pot_parameters
    if codes.ndim != 2 or codes.shape[1] != network.n_edges or len(codes) != len(outputs) or not len(codes):
        raise CalibrationError(
            f"the run has codes of shape {codes.shape} and {len(outputs)} epochs, but the calibration is one of "
            f"{network.n_edges} edges: name a run of this board"
        )
    edges = np.arange(network.n_edges)
    known = table[edges, np.clip(codes, 0, table.shape[1] - 1)]
    if (codes < 0).any() or (codes >= table.shape[1]).any() or np.isnan(known).any():
        raise CalibrationError("the run uses codes that the calibration does not know: calibrate with the same limits")
    epochs = np.unique(np.append(np.arange(0, len(codes), every), len(codes) - 1))
    drives = free_drives(inputs, len(network.outputs))
    said, sigma = [], []
    for epoch in epochs.tolist():
        twin.program(known[epoch])
        response = twin.respond(drives)
        require_usable(network, response, needed=network.outputs)
        said.append(response.potentials[:, network.outputs])
        sigma.append(_output_u(calibration, pots, codes[epoch], inputs))
    twin_outputs, measured = np.array(said), outputs[epochs]
    return Replay(
        epochs,
        measured,
        twin_outputs,
        np.array(sigma),
        ((measured - targets) ** 2).mean(axis=(1, 2)),
        ((twin_outputs - targets) ** 2).mean(axis=(1, 2)),
    )


def _output_u(calibration: Calibration, pots: PotParameters, codes: IntArray, inputs: FloatArray) -> FloatArray:
    """Return the standard uncertainty (S, O) in volts of free outputs: pots, meters and one reading's noise."""
    network, meters = calibration.network, calibration.meter_parameters
    edges, terms = pots.values.shape
    law = pots.law[np.arange(edges), codes]
    g = calibration.table[np.arange(edges), codes]
    nodes = np.zeros(network.n_nodes, dtype=np.bool_)
    nodes[network.outputs] = True
    driven = np.arange(len(network.terminals)) < len(network.inputs)
    model = linearised_readings(network, g, driven, nodes, np.zeros_like(driven), np.zeros(network.n_nodes))
    # Rows of the model are in the order of the nodes, not of the outputs.
    order = np.searchsorted(model.nodes, network.outputs)
    volts = inputs @ model.edge_voltages.T
    per_ohm = np.zeros((edges, edges * terms))
    for edge in range(edges):
        per_ohm[edge, edge * terms : (edge + 1) * terms] = -(g[edge] ** 2) * law[edge]
    spread = per_ohm @ pots.covariance @ per_ohm.T
    sensitivity = model.injection[order][None, :, :] * volts[:, None, :]
    variance = np.einsum("som,mn,son->so", sensitivity, spread, sensitivity)
    outputs = (inputs @ model.design.T)[:, order]
    readings = np.full((len(inputs), network.n_nodes), np.nan)
    readings[:, network.outputs] = outputs * meters.gain[network.outputs] + meters.offset[network.outputs]
    of_meters = np.nan_to_num(meters.corrected_u(readings)[:, network.outputs])
    u: FloatArray = np.sqrt(variance + of_meters**2)
    return u
