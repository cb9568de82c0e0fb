"""The readings of a board as linear functions of the driven volts and of small changes of its conductances."""

from dataclasses import dataclass

import numpy as np

from hilcl.arrays import BoolArray, FloatArray, IntArray
from hilcl.network import Network


@dataclass(frozen=True)
class LinearisedReadings:
    """What R readings y of one pattern of D driven terminals are made of: first potentials, then currents.

    ``nodes`` are the nodes read, ``terminals`` the positions (in network.terminals) whose current is read; y =
    ``design`` (R, D) · u with the driven volts u. A change of the conductances by dg (M,) in siemens changes the
    readings by ``injection`` (R, M) · (dg·v), v the edge voltages; v = ``edge_voltages`` (M, D) · u.
    """

    nodes: IntArray
    terminals: IntArray
    design: FloatArray
    injection: FloatArray
    edge_voltages: FloatArray


def linearised_readings(
    network: Network,
    conductances: FloatArray,
    driven: BoolArray,
    node_read: BoolArray,
    current_read: BoolArray,
    load: FloatArray,
) -> LinearisedReadings:
    """Return the linear model of a board of conductances (M,) in siemens with the terminals ``driven`` (T,).

    ``node_read`` (N,) and ``current_read`` (T,) say which readings exist; currents of floating terminals are known to
    be zero and are left out. ``load`` (N,) in siemens is what each meter adds between its node and ground.

    By Kirchhoff's current law the floating potentials are p_F = −L_FF⁻¹ L_FD u. By the compensation theorem a
    change dg of an edge acts as a current dg·v injected at its ends, whatever its size if v is the voltage after it.
    """
    held = network.terminals[driven]
    floating = np.setdiff1d(np.arange(network.n_nodes), held)
    incidence = network.incidence.toarray()
    laplacian = (incidence * conductances) @ incidence.T + np.diag(load)
    extension = np.zeros((network.n_nodes, len(held)))
    extension[held, np.arange(len(held))] = 1.0
    moved = np.zeros((network.n_nodes, network.n_edges))
    if len(floating):
        inner = laplacian[np.ix_(floating, floating)]
        right = np.hstack([-laplacian[np.ix_(floating, held)], -incidence[floating]])
        solved = np.linalg.solve(inner, right)
        extension[floating], moved[floating] = solved[:, : len(held)], solved[:, len(held) :]
    metered = current_read[driven]
    nodes, terminals = np.flatnonzero(node_read), np.flatnonzero(driven & current_read)
    return LinearisedReadings(
        nodes,
        terminals,
        np.vstack([extension[nodes], (laplacian @ extension)[held[metered]]]),
        np.vstack([moved[nodes], (extension.T @ incidence)[metered]]),
        incidence.T @ extension,
    )
