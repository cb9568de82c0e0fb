"""Training with the compiled firmware in the loop: the driver on a pseudo-terminal, the binary on an emulated AVR."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from hilcl import ContrastiveLearning, DeviceRange, Network, Potentiometer, Task, train
from hilcl.arrays import FloatArray, IntArray
from hilcl.bench_board import BenchBoard, Wiring
from hilcl.devices import SourceReadings
from hilcl.drivers.firmware.wiring import read_wiring
from hilcl.drivers.potboard import PotBoard
from hilcl.drivers.potboard_link import PotBoardOptions
from hilcl.sim_backend import Imperfections, SimulatedBoard
from hilcl.sim_backend.emulation.circuit import EmulatedCircuit
from hilcl.sim_backend.emulation.firmware import FirmwareBoard, FirmwareServer
from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.imperfections import MeterDefects, PotDefects
from hilcl.sim_backend.truth import PotTruth, streams
from tests.sim_backend.emulation.bench import ManualClock

DIVIDER = Network(3, [[0, 1], [1, 2]], [0, 2], [1])
TORUS = Network.torus(4, 4, inputs=[0, 10], outputs=[3, 8])
COUNTERS = Potentiometer(positions=128, end_to_end=100e3, wiper=40.0, series=2.2e3)
MICROCHIP = Potentiometer(positions=257, end_to_end=100e3, wiper=75.0, series=2.2e3, denominator=256)
STEP = 5.0 / 1024
SEED = 3
PATIENT = PotBoardOptions(baud=1_000_000, turnaround=20.0, watchdog=30.0)

DIVIDER_BOARD = {
    "board": "nano",
    "baud": 1_000_000,
    "pots": [{"chip": "AD5220", "select": ["D2", "D3"], "up_down": "D4", "clock": "D5"}],
    "adc": {"channels": ["A0", "A1", "A2"]},
}
TORUS_BOARD = {
    "board": "mega",
    "baud": 1_000_000,
    "pots": [{"chip": "MCP4351", "select": [f"D{pin}" for pin in range(22, 30)]}],
    "adc": {"channels": [f"A{pin}" for pin in range(16)]},
}


class IdealSources:
    """Sources straight at the circuit's terminals, without a wire of their own or a meter."""

    identity = "ideal sources"

    def __init__(self, circuit: EmulatedCircuit) -> None:
        self._ports = [circuit.port(int(node)) for node in circuit.network.terminals]

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self._ports)))

    def drive(self, volts: FloatArray) -> None:
        for port, level in zip(self._ports, volts.tolist(), strict=True):
            port.apply(OPEN if np.isnan(level) else Applied("voltage", level))

    def read(self) -> SourceReadings:
        unknown = np.full(len(self._ports), np.nan)
        return SourceReadings(unknown, unknown.copy(), np.zeros(len(self._ports), dtype=np.bool_))

    def make_safe(self) -> None:
        self.drive(np.full(len(self._ports), np.nan))

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def bench(
    network: Network, pot: Potentiometer, table: dict[str, object], truth: PotTruth
) -> Iterator[tuple[BenchBoard, FirmwareBoard, PotBoard, ManualClock]]:
    """The network's pots and a meter at every node behind the firmware, ideal sources at the terminals."""
    start = pot.conductances()[pot.positions // 2]
    circuit, clock = EmulatedCircuit(network, np.full(network.n_edges, start)), ManualClock()
    table_of_truth = truth.table
    assert table_of_truth is not None
    edges = np.arange(network.n_edges)

    def set_codes(codes: IntArray) -> None:
        circuit.set_conductances(table_of_truth[edges, codes])

    firmware = FirmwareBoard(read_wiring(table, "1.0"), set_codes, read_nodes=circuit.potentials, clock=clock)
    with FirmwareServer(firmware) as server, PotBoard("board", server.port, PATIENT) as pots:
        wiring = Wiring(
            pots=[(pots, edges.tolist())],
            sources=[(IdealSources(circuit), network.terminals.tolist())],
            meters=[(pots.meter(), list(range(network.n_nodes)))],
        )
        with BenchBoard(network, DeviceRange.of_pots(pot), wiring, start, settle=lambda _: None) as board:
            yield board, firmware, pots, clock


def codes_of(board: SimulatedBoard | BenchBoard, task: Task, rule: ContrastiveLearning, epochs: int) -> list[list[int]]:
    return [step.codes.tolist() for step in train(board, task, rule, epochs) if step.codes is not None]


@pytest.mark.parametrize(
    ("network", "pot", "table", "task", "rule"),
    [
        (DIVIDER, COUNTERS, DIVIDER_BOARD, Task([[1.0, 0.0]], [[0.2]]), ContrastiveLearning(100e-6, nudge=0.5)),
        (
            TORUS,
            MICROCHIP,
            TORUS_BOARD,
            Task([[2.0, 0.0], [0.8, 1.8]], [[1.4, 0.6], [1.0, 1.2]]),
            ContrastiveLearning(60e-6, nudge=0.5),
        ),
    ],
    ids=["a divider of up/down pots", "the torus of SPI pots"],
)
def test_fifty_epochs_write_the_codes_of_the_simulator(
    network: Network, pot: Potentiometer, table: dict[str, object], task: Task, rule: ContrastiveLearning
) -> None:
    """Pots off by up to 20 %, a 10-bit ADC at every node: the simulator with the same imperfections, step for step."""
    defects = PotDefects(tolerance=0.2)
    start = pot.conductances()[pot.positions // 2]
    simulated = SimulatedBoard(
        network,
        start,
        imperfections=Imperfections(pots=defects, meters=MeterDefects(resolution=STEP)),
        seed=SEED,
        pots=pot,
    )
    expected = codes_of(simulated, task, rule, 50)
    assert sum(earlier != later for earlier, later in pairwise(expected)) > 5
    device_range = DeviceRange.of_pots(pot).for_edges(network.n_edges)
    truth = PotTruth(network.n_edges, device_range, pot, defects, streams(SEED)[0])
    with bench(network, pot, table, truth) as (board, firmware, pots, clock):
        assert codes_of(board, task, rule, 50) == expected
        np.testing.assert_array_equal(firmware.codes, expected[-1])
        assert pots.counters().crc_errors == 0
        assert firmware.reports == ()
        assert clock.seconds > 0
