"""What the guides show: wirings that can be built, and a board that trains with nothing beside the Arduino."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, Task, train
from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_board import BenchBoard, Wiring
from hilcl.drivers.firmware.wiring import read_wiring
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.firmware import FirmwareBoard, FirmwareServer
from tests.drivers.firmware.bench import built

DOCS = Path(__file__).resolve().parents[3] / "docs"


def shown(name: str) -> dict[str, Any]:
    (block,) = re.findall(r"^```toml\n(.*?)^```", (DOCS / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    return tomllib.loads(block)


@pytest.mark.parametrize("name", ["firmware.md", "build-guide.md"])
def test_shown_wirings_can_be_built(name: str) -> None:
    assert built(read_wiring(shown(name)["firmware"], "1.0")).flash > 0


def test_the_guides_board_trains_on_its_own() -> None:
    """Its own DACs behind its own switches, its own ADC, pots off by up to 20 %."""
    file = shown("build-guide.md")
    network = Network(9, file["board"]["network"]["edges"], [0, 8], [2, 6])
    pot = Potentiometer(positions=257, end_to_end=100e3, wiper=75.0, series=2.2e3, denominator=256)
    table = pot.conductances() * np.random.default_rng(4).uniform(0.8, 1.2, (16, 1))
    start = pot.conductances()[128]
    circuit = EmulatedCircuit(network, np.full(16, start))

    def set_codes(codes: IntArray) -> None:
        circuit.set_conductances(table[np.arange(16), codes])

    def read_nodes() -> FloatArray:
        return circuit.potentials()

    wiring = read_wiring(file["firmware"], "1.0")
    ports = [circuit.port(node) for node in (0, 8, 2, 6)]
    firmware = FirmwareBoard(wiring, set_codes, read_nodes=read_nodes, ports=ports, built=built(wiring))
    options = PotBoardOptions(turnaround=20.0, watchdog=None)
    with FirmwareServer(firmware) as server, PotBoard("board", server.port, options) as pots:
        wires = Wiring(
            pots=[(pots, list(range(16)))],
            sources=[(pots.sources(), [0, 8, 2, 6])],
            meters=[(pots.meter(), list(range(9)))],
        )
        task = Task(file["task"]["inputs_volts"], file["task"]["targets_volts"])
        with BenchBoard(network, DeviceRange.of_pots(pot), wires, start, settle=lambda _: None, averages=4) as board:
            losses = [step.loss for step in train(board, task, ContrastiveLearning(4e-6), 30)]
    assert losses[0] > 0.02
    assert losses[-1] < 1e-4
    assert firmware.reports == ()
