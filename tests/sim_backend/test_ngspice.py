"""The same circuits solved by an independent program."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hilcl import Network
from hilcl.sim_backend import SimulatedBoard
from tests.sim_backend.boards import mixed

FloatArray = npt.NDArray[np.float64]

pytestmark = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


def ngspice_potentials(network: Network, g: FloatArray, drives: FloatArray, folder: Path) -> FloatArray:
    """Return node potentials (N,) of ngspice's operating point, terminals driven where they are not NaN."""
    # Node 0 of SPICE is ground; nodes here are numbered from 1.
    lines = ["* board"]
    lines += [
        f"R{edge} {first + 1} {second + 1} {1 / value:.17g}"
        for edge, ((first, second), value) in enumerate(zip(network.edges, g, strict=True))
    ]
    lines += [
        f"V{node} {node + 1} 0 {volts:.17g}"
        for node, volts in zip(network.terminals, drives, strict=True)
        if not np.isnan(volts)
    ]
    lines += [".options reltol=1e-12 abstol=1e-18 vntol=1e-15", ".control", "set numdgt=16", "op"]
    lines += [f"print v({node + 1})" for node in range(network.n_nodes)]
    lines += ["quit 0", ".endc", ".end", ""]
    netlist = folder / "board.cir"
    netlist.write_text("\n".join(lines), encoding="ascii")
    done = subprocess.run(
        ["ngspice", "-b", str(netlist)], capture_output=True, text=True, check=True, timeout=60, cwd=folder
    )
    found = dict(re.findall(r"^v\((\d+)\) = (\S+)", done.stdout, flags=re.MULTILINE))
    return np.array([float(found[str(node + 1)]) for node in range(network.n_nodes)])


TORUS = Network.torus(4, 4, inputs=[0, 6], outputs=[9, 15])
GRID = Network.grid(6, 6, inputs=[0, 35], outputs=[14, 21])


@pytest.mark.parametrize("network", [TORUS, GRID], ids=["torus", "grid"])
@pytest.mark.parametrize(
    "drives",
    [[1.0, 0.0, np.nan, np.nan], [1.0, -0.4, 0.3, 0.6], [np.nan, 0.5, 0.8, np.nan]],
    ids=["free", "clamped", "floating input"],
)
def test_ngspice_agrees(network: Network, drives: list[float], tmp_path: Path) -> None:
    g, row = mixed(network.n_edges, 7), np.array(drives)
    board = SimulatedBoard(network, g, accuracy="certified")
    expected = ngspice_potentials(network, g, row, tmp_path)
    np.testing.assert_allclose(board.respond(row).potentials[0], expected, rtol=0, atol=1e-12)
